"""SASL exchanges, message by message (xmpp/sasl.py)."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

import pytest
import scramp
from hypothesis import given
from hypothesis import strategies as st

from xmpp import errors, sasl, scram
from xmpp.jid import JID
from xmpp.sasl import (
    Challenge,
    Exchange,
    NeedAccount,
    NeedGuest,
    NeedPassword,
    NeedProof,
    NeedSalt,
    Success,
    begin,
    decode_payload,
    offered,
)

DOMAIN = "example.org"
NONCE = "server-nonce"
BINDINGS = {"tls-exporter": b"\x01" * 32, "tls-server-end-point": b"\x02" * 32}
ALL = tuple(scram.HASHES)
ACCOUNTS = {hash: scram.derive("pencil", hash, b"sixteen bytes of", 4096) for hash in ALL}


def exchange(
    mechanism: str, channel_bindings: Mapping[str, bytes] = BINDINGS, identities: tuple[JID, ...] = ()
) -> Exchange:
    """An exchange on a connection with TLS that offers everything it can."""
    names = offered(ALL, channel_bindings, tls=True, external=bool(identities))
    return begin(
        mechanism, offered=names, domain=DOMAIN, nonce=NONCE, tls=True, channel_bindings=channel_bindings,
        identities=identities,
    )  # fmt: skip


def salted(mechanism: str, first: str, channel_bindings: Mapping[str, bytes] = BINDINGS) -> Exchange:
    """A SCRAM exchange that waits for client-final-message."""
    one = exchange(mechanism, channel_bindings)
    assert isinstance(one.step(first.encode()), NeedSalt)
    one.salt(b"salt", 4096)
    return one


def test_offers_strongest_first() -> None:
    assert offered(ALL, BINDINGS, tls=True, external=True) == [
        "EXTERNAL",
        "SCRAM-SHA-512-PLUS", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1",
        "PLAIN",
    ]  # fmt: skip
    assert offered(("SHA-1",), (), tls=True) == ["SCRAM-SHA-1", "PLAIN"]
    assert offered(("SHA-1",), (), tls=False) == ["SCRAM-SHA-1"]
    assert offered(("SHA-1",), (), tls=False, plain_allowed_without_tls=True) == ["SCRAM-SHA-1", "PLAIN"]


def test_a_password_in_the_clear_needs_encryption() -> None:
    arguments: dict[str, Any] = {"offered": ["SCRAM-SHA-1"], "domain": DOMAIN, "nonce": NONCE, "channel_bindings": {}}
    with pytest.raises(errors.EncryptionRequired):
        begin("PLAIN", tls=False, **arguments)
    with pytest.raises(errors.InvalidMechanism):
        begin("PLAIN", tls=True, **arguments)


@pytest.mark.parametrize("mechanism", ["ANONYMOUS", "DIGEST-MD5", "scram-sha-1", "", "EXTERNAL"])
def test_what_is_not_offered_is_no_mechanism(mechanism: str) -> None:
    with pytest.raises(errors.InvalidMechanism):
        exchange(mechanism)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "PLAIN", "EXTERNAL"])
def test_without_initial_response_the_client_is_asked_for_it(mechanism: str) -> None:
    one = exchange(mechanism, identities=(JID.parse("alice@example.org"),))
    assert one.step(None) == Challenge(b"")
    with pytest.raises(errors.MalformedRequest):
        one.step(None)


@pytest.mark.parametrize(
    ("text", "data"), [("=", b""), ("", b""), ("AGEAYg==", b"\0a\0b"), (b64encode(bytes(8192)).decode(), bytes(8192))]
)
def test_payloads_are_base64(text: str, data: bytes) -> None:
    assert decode_payload(text) == data


@pytest.mark.parametrize("text", ["AGEAYg", "AGEA Yg==", "AGEAYg==\n", "AGEAYh==", "====", "==", "AG_A", "é", "A"])
def test_other_payloads_are_an_encoding_error(text: str) -> None:
    with pytest.raises(errors.IncorrectEncoding):
        decode_payload(text)


def test_too_much_is_malformed() -> None:
    with pytest.raises(errors.MalformedRequest):
        decode_payload("A" * 12_000)
    with pytest.raises(errors.MalformedRequest):
        exchange("PLAIN").step(b"\0a\0" + b"b" * sasl.MESSAGE_BYTES)


# --- SCRAM


def test_the_conversation_of_rfc_5802() -> None:
    salt, nonce = b64decode("QSXCR+Q6sek8bf92"), "3rfcNHYJY1ZVvWVs7j"
    credentials = scram.derive("pencil", "SHA-1", salt, 4096)
    one = begin("SCRAM-SHA-1", offered=["SCRAM-SHA-1"], domain=DOMAIN, nonce=nonce, tls=False, channel_bindings={})
    assert one.step(b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL") == NeedSalt("user", "SHA-1")
    assert one.salt(salt, 4096) == Challenge(b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096")
    question = one.step(b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=")
    assert isinstance(question, NeedProof)
    assert (question.username, question.hash) == ("user", "SHA-1")
    signature = scram.verify_proof(credentials, question.auth_message, question.proof)
    assert one.verified(signature) == Success("user", "user@example.org", b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=")


def test_the_conversation_of_rfc_7677() -> None:
    salt, nonce = b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    credentials = scram.derive("pencil", "SHA-256", salt, 4096)
    one = begin("SCRAM-SHA-256", offered=["SCRAM-SHA-256"], domain=DOMAIN, nonce=nonce, tls=False, channel_bindings={})
    assert one.step(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == NeedSalt("user", "SHA-256")
    assert one.salt(salt, 4096) == Challenge(
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    question = one.step(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert isinstance(question, NeedProof)
    signature = scram.verify_proof(credentials, question.auth_message, question.proof)
    assert one.verified(signature) == Success(
        "user", "user@example.org", b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    )


def log_in(mechanism: str, password: str, channel_bindings: Mapping[str, bytes] = BINDINGS) -> Success:
    """Let scramp log in as alice; the answers are those of a router where her password is "pencil"."""
    bound = ("tls-server-end-point", channel_bindings["tls-server-end-point"]) if mechanism.endswith("PLUS") else None
    client = scramp.ScramClient([mechanism], "alice", password, channel_binding=bound)
    one = exchange(mechanism, channel_bindings)
    need_salt = one.step(client.get_client_first().encode())
    assert isinstance(need_salt, NeedSalt)
    account = ACCOUNTS[need_salt.hash]
    client.set_server_first(one.salt(account.salt, account.iterations).data.decode())
    need_proof = one.step(client.get_client_final().encode())
    assert isinstance(need_proof, NeedProof)
    success = one.verified(scram.verify_proof(account, need_proof.auth_message, need_proof.proof))
    assert success.data is not None
    client.set_server_final(success.data.decode())
    return success


SCRAM_OFFERS = [(name, BINDINGS) for name in offered(ALL, BINDINGS, tls=False) if name.endswith("PLUS")] + [
    (name, {}) for name in offered(ALL, (), tls=False)
]


@pytest.mark.parametrize(("mechanism", "channel_bindings"), SCRAM_OFFERS)
def test_another_implementation_logs_in(mechanism: str, channel_bindings: dict[str, bytes]) -> None:
    success = log_in(mechanism, "pencil", channel_bindings)
    assert (success.username, success.authzid) == ("alice", "alice@example.org")


@pytest.mark.parametrize(("mechanism", "channel_bindings"), SCRAM_OFFERS)
def test_another_implementation_with_a_wrong_password(mechanism: str, channel_bindings: dict[str, bytes]) -> None:
    with pytest.raises(errors.SaslNotAuthorized) as failure:
        log_in(mechanism, "pen", channel_bindings)
    assert failure.value.text is None


def final(binding: bytes, nonce: str = f"client-{NONCE}", proof: bytes = bytes(20), between: str = "") -> bytes:
    """A client-final-message for SCRAM-SHA-1."""
    return f"c={b64encode(binding).decode()},r={nonce}{between},p={b64encode(proof).decode()}".encode()


@pytest.mark.parametrize("binding_type", BINDINGS)
def test_each_binding_type_can_be_chosen(binding_type: str) -> None:
    header = f"p={binding_type},,"
    one = salted("SCRAM-SHA-1-PLUS", f"{header}n=alice,r=client-")
    assert isinstance(one.step(final(header.encode() + BINDINGS[binding_type])), NeedProof)


@pytest.mark.parametrize(
    "binding",
    [
        b"p=tls-exporter,," + BINDINGS["tls-server-end-point"],  # data of another type
        b"p=tls-server-end-point,," + BINDINGS["tls-exporter"],  # another header
        b"p=tls-exporter,," + b"\x03" * 32,  # another connection: somebody is in the middle
        b"p=tls-exporter,,",
        b"n,,",
        b"p=tls-exporter,a=alice@example.org," + BINDINGS["tls-exporter"],
    ],
)
def test_a_wrong_channel_binding_is_not_authorized(binding: bytes) -> None:
    one = salted("SCRAM-SHA-1-PLUS", "p=tls-exporter,,n=alice,r=client-")
    with pytest.raises(errors.SaslNotAuthorized):
        one.step(final(binding))


def test_a_stripped_offer_of_channel_binding_is_noticed() -> None:
    first = b"y,,n=alice,r=client-"
    with pytest.raises(errors.SaslNotAuthorized):
        exchange("SCRAM-SHA-1").step(first)
    assert isinstance(exchange("SCRAM-SHA-1", {}).step(first), NeedSalt), "we offered none"


def test_a_client_without_channel_binding_may_log_in() -> None:
    assert isinstance(exchange("SCRAM-SHA-1").step(b"n,,n=alice,r=client-"), NeedSalt)


def test_a_binding_type_that_we_do_not_have_is_not_authorized() -> None:
    with pytest.raises(errors.SaslNotAuthorized):
        exchange("SCRAM-SHA-1-PLUS").step(b"p=tls-unique,,n=alice,r=client-")


@pytest.mark.parametrize(
    ("mechanism", "flag"), [("SCRAM-SHA-1", "p=tls-exporter"), ("SCRAM-SHA-1-PLUS", "n"), ("SCRAM-SHA-1-PLUS", "y")]
)
def test_flag_and_mechanism_agree(mechanism: str, flag: str) -> None:
    with pytest.raises(errors.MalformedRequest):
        exchange(mechanism).step(f"{flag},,n=alice,r=client-".encode())


@pytest.mark.parametrize(
    "first",
    [
        "",
        "n",
        "n,,",
        "n=alice,r=client-",
        "n,n=alice,r=client-",
        "N,,n=alice,r=client-",
        "x,,n=alice,r=client-",
        "p=,,n=alice,r=client-",
        "n,a=,n=alice,r=client-",
        "n,b=alice,n=alice,r=client-",
        "n,,m=x,n=alice,r=client-",  # the reserved attribute, where it would stand
        "n,,n=alice,r=client-,m=x",  # and elsewhere
        "n,,r=client-,n=alice",
        "n,,n=,r=client-",
        "n,,n=alice,r=",
        "n,,n=alice",
        "n,,n=alice,r=client-,",
        "n,,n=alice,r=client-,x",
        "n,,n=alice,r=client-,x=",
        "n,,n=alice,r=client-,r=other",
        "n,,n=alice,r=cli\u00e9nt",
        "n,,n=alice,r=cli ent",
        "n,,n=al\0ice,r=client-",
        "n,,n=alice,r=client-\n",
        "n,,n=a=lice,r=client-",
        "n,,n=a=2c,r=client-",
        "n,,n=alice=,r=client-",
        "n,a=alice=40example.org,n=alice,r=client-",
    ],
)
def test_a_malformed_first_message(first: str) -> None:
    with pytest.raises(errors.MalformedRequest):
        exchange("SCRAM-SHA-1").step(first.encode())


def test_bytes_that_are_not_utf_8_are_malformed() -> None:
    with pytest.raises(errors.MalformedRequest):
        exchange("SCRAM-SHA-1").step(b"n,,n=al\xffice,r=client-")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        f"c=biws,r=client-{NONCE}".encode(),
        final(b"n,,", proof=bytes(19)),
        final(b"n,,", proof=bytes(32)),
        final(b"n,,", between=",m=x"),
        final(b"n,,") + b",x=y",
        final(b"n,,").replace(b"c=biws", b"c=biwt\0"),
        final(b"n,,").replace(b"c=biws", b"c=biw"),
        final(b"n,,").replace(b"c=biws", b"c=biwsa"),
        final(b"n,,")[:-1],
        final(b"n,,").removeprefix(b"c=biws,"),
    ],
)
def test_a_malformed_final_message(message: bytes) -> None:
    one = salted("SCRAM-SHA-1", "n,,n=alice,r=client-")
    with pytest.raises(errors.MalformedRequest):
        one.step(message)


def test_extensions_are_ignored_and_yet_signed() -> None:
    one = salted("SCRAM-SHA-1", "n,,n=alice,r=client-,x=y,Z==1")
    question = one.step(final(b"n,,", between=",t=u"))
    assert isinstance(question, NeedProof)
    server_first = f"r=client-{NONCE},s={b64encode(b'salt').decode()},i=4096"
    expected = f"n=alice,r=client-,x=y,Z==1,{server_first},c=biws,r=client-{NONCE},t=u"
    assert question.auth_message == expected.encode()


@pytest.mark.parametrize("nonce", ["client-", NONCE, f"client-{NONCE}x", f"Client-{NONCE}"])
def test_another_nonce_is_not_authorized(nonce: str) -> None:
    one = salted("SCRAM-SHA-1", "n,,n=alice,r=client-")
    with pytest.raises(errors.SaslNotAuthorized):
        one.step(final(b"n,,", nonce=nonce))


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("alice", "alice"),
        ("Alice", "alice"),
        ("alice@example.org", "alice"),
        ("ALICE@Example.ORG.", "alice"),
        ("a=2Cb=3Dc", "a,b=c"),
        ("\u00c5sa", "\u00e5sa"),
        ("x" * 1023, "x" * 1023),
    ],
)
def test_user_names_are_prepared_as_localparts(name: str, local: str) -> None:
    assert exchange("SCRAM-SHA-1").step(f"n,,n={name},r=client-".encode()) == NeedSalt(local, "SHA-1")


@pytest.mark.parametrize(
    "name",
    [
        "alice@example.net",
        "alice@example.org/phone",
        "alice/phone",
        "alice/x@example.org",
        "@example.org",
        "alice@",
        "alice@bob@example.org",
        "al ice",
        "al\u2168ice",
        "x" * 1024,
        "\u00e9" * 512,
    ],
)
def test_a_name_that_no_account_can_have_is_not_authorized(name: str) -> None:
    with pytest.raises(errors.SaslNotAuthorized):
        exchange("SCRAM-SHA-1").step(f"n,,n={name},r=client-".encode())
    with pytest.raises(errors.SaslNotAuthorized):
        exchange("PLAIN").step(f"\0{name}\0pencil".encode())


@pytest.mark.parametrize("authzid", ["alice@example.org", "Alice@EXAMPLE.org"])
def test_naming_oneself_as_authorization_identity_is_allowed(authzid: str) -> None:
    header = f"n,a={authzid},"
    one = salted("SCRAM-SHA-1", f"{header}n=alice,r=client-")
    assert isinstance(one.step(final(header.encode())), NeedProof)
    assert isinstance(exchange("PLAIN").step(f"{authzid}\0alice\0pencil".encode()), NeedPassword)


@pytest.mark.parametrize(
    "authzid", ["bob@example.org", "alice", "alice@example.net", "alice@example.org/phone", "example.org", "@", "@a"]
)
def test_acting_for_somebody_else_is_refused(authzid: str) -> None:
    with pytest.raises(errors.InvalidAuthzid):
        exchange("SCRAM-SHA-1").step(f"n,a={authzid},n=alice,r=client-".encode())
    with pytest.raises(errors.InvalidAuthzid):
        exchange("PLAIN").step(f"{authzid}\0alice\0pencil".encode())


def test_the_client_does_not_speak_while_the_router_is_asked() -> None:
    one = exchange("SCRAM-SHA-1")
    one.step(b"n,,n=alice,r=client-")
    with pytest.raises(errors.MalformedRequest):
        one.step(final(b"n,,"))
    with pytest.raises(RuntimeError):
        one.salt(b"salt", 4096)


def test_after_a_failure_the_exchange_is_over() -> None:
    one = salted("SCRAM-SHA-1", "n,,n=alice,r=client-")
    with pytest.raises(errors.SaslNotAuthorized):
        one.step(final(b"n,,", nonce="client-"))
    with pytest.raises(errors.MalformedRequest):
        one.step(final(b"n,,"))


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "PLAIN", "EXTERNAL"])
def test_answers_that_nobody_asked_for_are_our_own_fault(mechanism: str) -> None:
    one = exchange(mechanism, identities=(JID.parse("alice@example.org"),))
    with pytest.raises(RuntimeError):
        one.salt(b"salt", 4096)
    with pytest.raises(RuntimeError):
        one.verified(None)
    with pytest.raises(RuntimeError):
        one.password_checked(True)
    with pytest.raises(RuntimeError):
        one.admitted(True)


def test_questions_do_not_print_secrets() -> None:
    assert "pencil" not in repr(NeedPassword("alice", "pencil"))
    assert "proof" not in repr(NeedProof("alice", "SHA-1", b"message", b"proof"))


# --- PLAIN


def test_plain() -> None:
    one = exchange("PLAIN")
    assert one.step(b"\0alice\0pen=cil,\xc3\xa9") == NeedPassword("alice", "pen=cil,\u00e9")
    assert one.password_checked(True) == Success("alice", "alice@example.org", None)


def test_plain_with_a_wrong_password() -> None:
    one = exchange("PLAIN")
    one.step(b"\0alice\0pen")
    with pytest.raises(errors.SaslNotAuthorized):
        one.password_checked(False)


@pytest.mark.parametrize(
    "message", [b"", b"alice", b"\0alice", b"\0\0pencil", b"\0alice\0", b"\0a\0b\0c", b"\0a\0\xff"]
)
def test_malformed_plain(message: bytes) -> None:
    with pytest.raises(errors.MalformedRequest):
        exchange("PLAIN").step(message)


def test_plain_is_one_message() -> None:
    one = exchange("PLAIN")
    one.step(b"\0alice\0pencil")
    with pytest.raises(errors.MalformedRequest):
        one.step(b"\0bob\0pencil")


# --- EXTERNAL


ALICE, BOB = JID.parse("alice@example.org"), JID.parse("bob@example.org")


@pytest.mark.parametrize(
    ("identities", "message", "name"),
    [
        ((ALICE,), b"", "alice"),
        ((ALICE,), b"alice@example.org", "alice"),
        ((ALICE, BOB), b"Bob@example.org", "bob"),
    ],
)
def test_external(identities: tuple[JID, ...], message: bytes, name: str) -> None:
    one = exchange("EXTERNAL", identities=identities)
    assert one.step(message) == NeedAccount(name)
    assert one.admitted(True) == Success(name, f"{name}@example.org")


def test_a_certificate_for_an_account_that_does_not_exist_is_like_a_wrong_password() -> None:
    one = exchange("EXTERNAL", identities=(ALICE,))
    one.step(b"")
    with pytest.raises(errors.SaslNotAuthorized):
        one.admitted(False)


@pytest.mark.parametrize(
    ("identities", "message"),
    [
        ((ALICE, BOB), b""),  # XEP-0178, 2: which one?
        ((ALICE,), b"bob@example.org"),
        ((ALICE,), b"alice@example.org/phone"),
        ((ALICE,), b"example.org"),
        ((ALICE,), b"@"),
        ((ALICE,), b"alice"),
    ],
)
def test_external_for_somebody_else(identities: tuple[JID, ...], message: bytes) -> None:
    with pytest.raises(errors.InvalidAuthzid):
        exchange("EXTERNAL", identities=identities).step(message)


# --- ANONYMOUS


def anonymous() -> Exchange:
    return begin(
        "ANONYMOUS", offered=["ANONYMOUS"], domain=DOMAIN, nonce=NONCE, tls=True, channel_bindings={}, guest="4f2a"
    )


@pytest.mark.parametrize("trace", [None, b"", b"sirhc", b"romeo@montague.example", "\u2665".encode(), b"x" * 255])
def test_anonymous(trace: bytes | None) -> None:
    """XEP-0175, 2: without an initial response there is no challenge either."""
    one = anonymous()
    assert one.step(trace) == NeedGuest("4f2a")
    assert one.admitted(True) == Success("4f2a", "4f2a@example.org")


@pytest.mark.parametrize("trace", [b"x" * 256, b"a\0b", b"a\nb", b"\xc2\x85", b"\xff"])
def test_what_is_no_trace_information(trace: bytes) -> None:
    with pytest.raises(errors.MalformedRequest):
        anonymous().step(trace)


def test_a_guest_that_cannot_be_had() -> None:
    one = anonymous()
    one.step(b"")
    with pytest.raises(errors.SaslNotAuthorized):
        one.admitted(False)


# --- anything at all

PIECES = [
    b"n,,", b"y,,", b"p=tls-exporter,,", b"p=tls-unique,,", b"a=", b"n=", b"alice", b"@example.org", b",", b"=", b"=2C",
    b"r=", b"client-", NONCE.encode(), b"c=biws", b"p=", b"m=x", b"\0", b"\xff", "\u2168\u0627".encode(), bytes(20),
]  # fmt: skip
messages = st.none() | st.binary(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)


@given(st.sampled_from([*offered(ALL, BINDINGS, tls=True), "EXTERNAL"]), st.lists(messages, max_size=4))
def test_whatever_the_client_sends_only_a_sasl_error_comes_of_it(mechanism: str, sent: list[bytes | None]) -> None:
    one = exchange(mechanism, identities=(ALICE,))
    try:
        for message in sent:
            step = one.step(message)
            if isinstance(step, NeedSalt):
                one.salt(b"salt", 4096)
            elif isinstance(step, NeedProof):
                one.verified(None)
            elif isinstance(step, NeedPassword):
                one.password_checked(False)
            elif isinstance(step, NeedAccount):
                one.admitted(False)
    except errors.SaslError:
        with pytest.raises(errors.SaslError):  # and then it is over
            one.step(b"n,,n=alice,r=client-")


@given(st.text(max_size=40))
def test_whatever_text_comes_it_is_decoded_or_an_encoding_error(text: str) -> None:
    try:
        data = decode_payload(text)
    except errors.IncorrectEncoding:
        return
    assert text in (b64encode(data).decode(), "=")


@given(st.text(max_size=30))
def test_whatever_the_name_it_is_prepared_or_refused(name: str) -> None:
    try:
        step = exchange("PLAIN").step(f"\0{name}\0pencil".encode())
    except (errors.MalformedRequest, errors.SaslNotAuthorized):
        return
    assert isinstance(step, NeedPassword)
    assert JID.parse(f"{step.username}@{DOMAIN}").local == step.username


# --- what SCRAM signs of the offer (XEP-0474)


def test_the_offer_is_signed_as_the_example_has_it() -> None:
    """XEP-0474, 4.3."""
    protected = sasl.downgrade_protection(["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"], ["tls-server-end-point", "tls-exporter"])
    assert protected == b"SCRAM-SHA-1\x1eSCRAM-SHA-1-PLUS\x1ftls-exporter\x1etls-server-end-point"
    one = begin(
        "SCRAM-SHA-1", offered=["SCRAM-SHA-1"], domain=DOMAIN, nonce=NONCE, tls=True, channel_bindings={},
        protected=protected,
    )  # fmt: skip
    one.step(b"n,,n=romeo,r=abc")
    assert one.salt(b"salt", 4096).data.endswith(b",i=4096,h=G6k/rBLDqgOhRRaCuuatSDFkJ08=")


def test_without_channel_binding_its_types_are_no_part_of_it() -> None:
    assert sasl.downgrade_protection(["B", "A"], []) == b"A\x1eB"


def test_nothing_is_signed_where_nothing_was_said_of_the_offer() -> None:
    one = exchange("SCRAM-SHA-1")
    one.step(b"n,,n=romeo,r=abc")
    assert b",h=" not in one.salt(b"salt", 4096).data


# --- tokens (draft-schmaus-kitten-sasl-ht)


def hashed(mechanism: str = "HT-SHA-256-EXPR") -> Exchange:
    names = sasl.offered_tokens(BINDINGS)
    return begin(mechanism, offered=names, domain=DOMAIN, nonce=NONCE, tls=True, channel_bindings=BINDINGS)


def test_tokens_are_offered_for_the_bindings_that_there_are() -> None:
    """XEP-0484, 3.1."""
    assert sasl.offered_tokens(BINDINGS) == ["HT-SHA-256-EXPR", "HT-SHA-256-ENDP", "HT-SHA-256-NONE"]
    assert sasl.offered_tokens({}) == ["HT-SHA-256-NONE"]


@pytest.mark.parametrize(
    ("mechanism", "binding"),
    [
        ("HT-SHA-256-EXPR", BINDINGS["tls-exporter"]),
        ("HT-SHA-256-ENDP", BINDINGS["tls-server-end-point"]),
        ("HT-SHA-256-NONE", b""),
    ],
)
def test_what_is_made_of_a_token_goes_to_who_knows_it(mechanism: str, binding: bytes) -> None:
    one = hashed(mechanism)
    asked = one.step(b"Romeo\0" + b"\xff" * 32)
    assert asked == sasl.NeedTokenProof("romeo", mechanism, binding, b"\xff" * 32)
    assert one.token_proved(b"answer") == Success("romeo", f"romeo@{DOMAIN}", b"answer")


def test_a_token_that_is_wrong() -> None:
    one = hashed()
    one.step(b"romeo\0" + bytes(32))
    with pytest.raises(errors.SaslNotAuthorized):
        one.token_proved(None)


@pytest.mark.parametrize("data", [b"", b"romeo", b"romeo\0", b"romeo\0" + bytes(31), b"\xc3\0" + bytes(32)])
def test_what_is_no_message_of_a_token(data: bytes) -> None:
    with pytest.raises(errors.MalformedRequest):
        hashed().step(data)


def test_the_exchange_has_one_message() -> None:
    one = hashed()
    one.step(b"romeo\0" + bytes(32))
    with pytest.raises(errors.MalformedRequest):
        one.step(b"again")
    late = hashed()
    assert late.step(None) == Challenge(b"")
    assert isinstance(late.step(b"romeo\0" + bytes(32)), sasl.NeedTokenProof), "also without an initial response"
