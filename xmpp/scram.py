"""What SCRAM stores for a password, and how a proof is checked against it (RFC 5802, 3; RFC 7677).

This is the half of authentication that runs where the accounts are: a router asks it with credentials it has read.
The conversation with the client is in `xmpp/sasl.py`, which never sees a key. `derive` and `check_password` compute
PBKDF2, which takes milliseconds: call them in a thread, never on an event loop. All else takes microseconds.
"""

from __future__ import annotations

import hashlib
import hmac
import stringprep
from dataclasses import dataclass, field
from typing import Final
from unicodedata import ucd_3_2_0 as unicode_3_2

# The name in "SCRAM-<name>" -> the name for hashlib, weakest first.
HASHES: Final[dict[str, str]] = {"SHA-1": "sha1", "SHA-256": "sha256", "SHA-512": "sha512"}
DIGEST_BYTES: Final[dict[str, int]] = {name: hashlib.new(of).digest_size for name, of in HASHES.items()}

ITERATIONS: Final = 10_000  # RFC 7677, 4 asks for 4,096 at least; this costs a phone some tens of milliseconds
SALT_BYTES: Final = 16

_PROHIBITED: Final = (  # RFC 4013, 2.3
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


class UnusablePassword(ValueError):
    """A password that no client could log in with: empty, or with characters that SASLprep forbids."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is stored for one account and one hash. Whoever reads it can pose as the server, not as the user."""

    hash: str  # a key of HASHES
    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


def derive(password: str, hash: str, salt: bytes, iterations: int = ITERATIONS) -> Credentials:
    """The credentials for a password (RFC 5802, 3). Blocks for milliseconds.

    Give each hash a salt of its own, of SALT_BYTES random bytes, as `fake_credentials` does.
    Raises UnusablePassword; ValueError for an unknown hash or an iteration count below 1.
    """
    algorithm = _algorithm(hash)
    salted = hashlib.pbkdf2_hmac(algorithm, prepare_password(password).encode(), salt, iterations)
    return of_salted(salted, hash, salt, iterations)


def of_salted(salted: bytes, hash: str, salt: bytes, iterations: int) -> Credentials:
    """The credentials that follow from SaltedPassword (RFC 5802, 3); clients give it in XEP-0480."""
    algorithm = _algorithm(hash)
    client_key = hmac.digest(salted, b"Client Key", algorithm)
    stored_key = hashlib.new(algorithm, client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", algorithm)
    return Credentials(hash, salt, iterations, stored_key, server_key)


def verify_proof(credentials: Credentials, auth_message: bytes, proof: bytes) -> bytes | None:
    """The server's signature when the proof shows knowledge of the password, else None. In constant time."""
    algorithm = _algorithm(credentials.hash)
    signature = hmac.digest(credentials.stored_key, auth_message, algorithm)
    if len(proof) != len(signature):
        return None
    client_key = (int.from_bytes(proof, "big") ^ int.from_bytes(signature, "big")).to_bytes(len(proof), "big")
    if not hmac.compare_digest(hashlib.new(algorithm, client_key).digest(), credentials.stored_key):
        return None
    return hmac.digest(credentials.server_key, auth_message, algorithm)


def check_password(credentials: Credentials, password: str) -> bool:
    """Whether this is the password, for PLAIN. Blocks for milliseconds."""
    try:
        derived = derive(password, credentials.hash, credentials.salt, credentials.iterations)
    except UnusablePassword:
        return False
    return hmac.compare_digest(derived.stored_key, credentials.stored_key)


def fake_salt(secret: bytes, username: str, hash: str) -> bytes:
    """The salt told to a client that asks for an account that does not exist: the same one each time.

    `secret` is one for the whole cluster, so that every process tells the same; `username` is the bare JID.
    """
    return hmac.digest(secret, f"salt\0{hash}\0{username}".encode(), "sha256")[:SALT_BYTES]


def fake_credentials(secret: bytes, username: str, hash: str, iterations: int = ITERATIONS) -> Credentials:
    """Credentials that no password fits, for an account that does not exist.

    Checked like real ones, they make the answer and its time tell nothing about who has an account (RFC 5802, 9).
    """
    algorithm = _algorithm(hash)
    key = hmac.digest(secret, f"key\0{hash}\0{username}".encode(), algorithm)
    return Credentials(hash, fake_salt(secret, username, hash), iterations, key, key)


def prepare_password(password: str) -> str:
    """Prepare a password with SASLprep (RFC 4013), as RFC 5802, 2.2 says and as clients do.

    PRECIS (RFC 8265) would be the newer rule; but the two differ, and a client hashes what its own rule makes of the
    password. Code points that Unicode 3.2 did not know, such as emoji, are let through, also where RFC 4013 has a
    "stored string" refuse them: clients let them through, and so a password with them works. Raises UnusablePassword.
    """
    if password.isascii():
        prepared = password
    else:
        kept = (char for char in password if not stringprep.in_table_b1(char))
        mapped = "".join(" " if stringprep.in_table_c12(char) else char for char in kept)
        prepared = unicode_3_2.normalize("NFKC", mapped)
    if not prepared:
        raise UnusablePassword("the password is empty")
    if any(is_prohibited(char) for char in prepared for is_prohibited in _PROHIBITED):
        raise UnusablePassword("the password has characters that are not allowed (RFC 4013, 2.3)")
    _check_bidi(prepared)
    return prepared


def _check_bidi(text: str) -> None:
    """RFC 3454, 6: right-to-left text has no left-to-right letters, and begins and ends right-to-left."""
    right_to_left = [stringprep.in_table_d1(char) for char in text]
    if not any(right_to_left):
        return
    if any(map(stringprep.in_table_d2, text)) or not (right_to_left[0] and right_to_left[-1]):
        raise UnusablePassword("the password mixes writing directions (RFC 3454, 6)")


def _algorithm(hash: str) -> str:
    try:
        return HASHES[hash]
    except KeyError:
        raise ValueError(f"{hash!r} is not a SCRAM hash; there are {', '.join(HASHES)}") from None
