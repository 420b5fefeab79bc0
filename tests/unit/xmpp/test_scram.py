"""What is stored for a password and how a proof is checked (xmpp/scram.py)."""

from __future__ import annotations

from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmpp import scram
from xmpp.scram import Credentials, UnusablePassword, check_password, derive, prepare_password, verify_proof

# RFC 5802, 5 and RFC 7677, 3: user "user", password "pencil".
SHA_1 = derive("pencil", "SHA-1", b64decode("QSXCR+Q6sek8bf92"), 4096)
SHA_1_MESSAGE = (
    b"n=user,r=fyko+d2lbbFgONRv9qkxdawL,"
    b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096,"
    b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j"
)
SHA_256 = derive("pencil", "SHA-256", b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
SHA_256_MESSAGE = (
    b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
)
VECTORS = [
    (SHA_1, SHA_1_MESSAGE, "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", "rmF9pqV8S7suAoZWja4dJRkFsKQ="),
    (
        SHA_256,
        SHA_256_MESSAGE,
        "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
]


@pytest.mark.parametrize(("credentials", "message", "proof", "signature"), VECTORS)
def test_the_examples_of_the_rfcs(credentials: Credentials, message: bytes, proof: str, signature: str) -> None:
    assert verify_proof(credentials, message, b64decode(proof)) == b64decode(signature)


@pytest.mark.parametrize(("credentials", "message", "proof", "signature"), VECTORS)
def test_a_proof_is_for_one_message_only(credentials: Credentials, message: bytes, proof: str, signature: str) -> None:
    assert verify_proof(credentials, message + b",", b64decode(proof)) is None


@given(st.binary(max_size=80))
def test_no_other_proof_is_taken(proof: bytes) -> None:
    assert verify_proof(SHA_256, SHA_256_MESSAGE, proof) is None


@pytest.mark.parametrize("hash", scram.HASHES)
def test_a_password_is_checked_with_every_hash(hash: str) -> None:
    credentials = derive("caf\u00e9", hash, b"salt", 2)
    assert check_password(credentials, "caf\u00e9")
    assert check_password(credentials, "cafe\u0301"), "SASLprep composes it"
    assert not check_password(credentials, "cafe")
    assert not check_password(credentials, "")
    assert len(credentials.stored_key) == scram.DIGEST_BYTES[hash]


def test_credentials_do_not_print_their_keys() -> None:
    assert "key" not in repr(SHA_256)


def test_an_unknown_hash_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'MD5' is not a SCRAM hash"):
        derive("pencil", "MD5", b"salt")


def test_a_fake_salt_is_stable_and_tells_nothing() -> None:
    salt = scram.fake_salt(b"secret", "nobody@example.org", "SHA-1")
    assert salt == scram.fake_salt(b"secret", "nobody@example.org", "SHA-1")
    assert len(salt) == scram.SALT_BYTES
    others = {
        scram.fake_salt(b"secret", "nobody@example.org", "SHA-256"),
        scram.fake_salt(b"secret", "noone@example.org", "SHA-1"),
        scram.fake_salt(b"other", "nobody@example.org", "SHA-1"),
    }
    assert len(others | {salt}) == 4


@pytest.mark.parametrize("hash", scram.HASHES)
def test_fake_credentials_look_real_and_fit_nothing(hash: str) -> None:
    fake = scram.fake_credentials(b"secret", "nobody@example.org", hash, 5)
    real = derive("pencil", hash, b"x" * scram.SALT_BYTES, 5)
    assert fake.salt == scram.fake_salt(b"secret", "nobody@example.org", hash)
    assert (len(fake.salt), fake.iterations) == (len(real.salt), real.iterations)
    assert (len(fake.stored_key), len(fake.server_key)) == (len(real.stored_key), len(real.server_key))
    assert not check_password(fake, "pencil")
    assert verify_proof(fake, b"message", bytes(len(fake.stored_key))) is None


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("I\u00adX", "IX"),  # RFC 4013, 3: soft hyphen mapped to nothing
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),  # non-ASCII space
        ("pass word ", "pass word "),
        ("\U0001f600", "\U0001f600"),  # unknown to Unicode 3.2
        ("\u0627\u0628", "\u0627\u0628"),
    ],
)
def test_saslprep_prepares(password: str, prepared: str) -> None:
    assert prepare_password(password) == prepared


@pytest.mark.parametrize(
    "password",
    [
        "",
        "\u00ad",  # nothing is left
        "\u0007",  # RFC 4013, 3: prohibited
        "\u0627\u0031",  # RFC 4013, 3: bidi
        "\u0627a\u0628",
        "a\u0000b",
        "\ue000",
        "\ud800",
    ],
)
def test_saslprep_refuses(password: str) -> None:
    with pytest.raises(UnusablePassword):
        prepare_password(password)


@given(st.text(max_size=20))
def test_preparing_twice_changes_nothing(password: str) -> None:
    try:
        prepared = prepare_password(password)
    except UnusablePassword:
        return
    assert prepare_password(prepared) == prepared
