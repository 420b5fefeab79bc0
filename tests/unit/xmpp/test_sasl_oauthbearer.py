"""OAUTHBEARER (RFC 7628), message by message (xmpp/sasl.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmpp import errors
from xmpp.sasl import Challenge, Exchange, NeedToken, Success, begin, offered

DOMAIN = "example.org"
TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="


def exchange() -> Exchange:
    names = offered((), {}, tls=True, tokens=True)
    return begin("OAUTHBEARER", offered=names, domain=DOMAIN, nonce="", tls=True, channel_bindings={})


def message(authzid: str = "", pairs: str = f"auth=Bearer {TOKEN}\x01", flag: str = "n") -> bytes:
    return f"{flag},{f'a={authzid}' if authzid else ''},\x01{pairs}\x01".encode()


def test_it_is_offered_with_tls_where_somebody_checks_tokens() -> None:
    assert offered((), {}, tls=True, tokens=True) == ["OAUTHBEARER", "PLAIN"]
    assert offered((), {}, tls=False, tokens=True, plain_allowed_without_tls=True) == ["PLAIN"]
    assert "OAUTHBEARER" not in offered((), {}, tls=True)
    arguments: dict[str, Any] = {"offered": [], "domain": DOMAIN, "nonce": "", "channel_bindings": {}}
    with pytest.raises(errors.EncryptionRequired):
        begin("OAUTHBEARER", tls=False, **arguments)
    with pytest.raises(errors.InvalidMechanism):
        begin("OAUTHBEARER", tls=True, **arguments)


def test_the_conversation_of_rfc_7628() -> None:
    """4.1, with our domain."""
    one = exchange()
    first = f"n,a=user@{DOMAIN},\x01host=server.{DOMAIN}\x01port=143\x01auth=Bearer {TOKEN}\x01\x01"
    assert one.step(first.encode()) == NeedToken("user", TOKEN)
    assert one.token_checked("user") == Success("user", f"user@{DOMAIN}", None)


def test_a_failure_is_explained_first() -> None:
    """3.2.2, 3.2.3, 4.3."""
    one = exchange()
    one.step(message())
    challenge = one.token_checked(None, "https://id.example.org/.well-known/openid-configuration")
    assert isinstance(challenge, Challenge)
    assert json.loads(challenge.data) == {
        "status": "invalid_token",
        "openid-configuration": "https://id.example.org/.well-known/openid-configuration",
    }
    with pytest.raises(errors.SaslNotAuthorized):
        one.step(b"\x01")
    with pytest.raises(errors.MalformedRequest):
        one.step(message())


def test_no_second_token_is_taken_in_place_of_the_dummy_answer() -> None:
    one = exchange()
    one.step(message())
    one.token_checked(None)
    with pytest.raises(errors.SaslNotAuthorized):
        one.step(message())


def test_without_a_name_the_token_says_who_it_is() -> None:
    one = exchange()
    assert one.step(message()) == NeedToken("", TOKEN)
    assert one.token_checked("romeo") == Success("romeo", f"romeo@{DOMAIN}")


@pytest.mark.parametrize("authzid", [f"romeo@{DOMAIN}", "romeo", f"ROMEO@{DOMAIN.upper()}"])
def test_nobody_is_somebody_else(authzid: str) -> None:
    one = exchange()
    assert one.step(message(authzid)) == NeedToken("romeo", TOKEN)
    assert isinstance(one.token_checked("juliet"), Challenge)
    one = exchange()
    one.step(message(authzid))
    assert one.token_checked("romeo") == Success("romeo", f"romeo@{DOMAIN}")


@pytest.mark.parametrize("authzid", ["romeo@example.net", "@", "a b", "a/b"])
def test_a_name_that_no_account_can_have_is_not_authorized(authzid: str) -> None:
    with pytest.raises(errors.SaslNotAuthorized):
        exchange().step(message(authzid))


@pytest.mark.parametrize("pairs", ["auth=bearer abc\x01", "auth=BEARER  abc\x01", "x=y z\x01auth=Bearer abc\x01"])
def test_the_scheme_is_in_any_case_and_other_pairs_are_left_alone(pairs: str) -> None:
    assert exchange().step(message(pairs=pairs, flag="y")) == NeedToken("", "abc")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"n,,",
        b"n,,\x01\x01",
        message(pairs=""),
        message(pairs="auth=Basic abc\x01"),
        message(pairs="auth=Bearer \x01"),
        message(pairs="auth=Bearer a b\x01"),
        message(pairs="auth=Bearer a\x00b\x01"),
        message(pairs="auth=Bearer ä\x01"),
        message(pairs="auth\x01"),
        message(pairs="4=x\x01auth=Bearer abc\x01"),
        message(flag="p=tls-exporter"),
        message(flag="x"),
        message() + b"x",
        message("a=b"),
    ],
)
def test_what_is_malformed(data: bytes) -> None:
    with pytest.raises(errors.MalformedRequest):
        exchange().step(data)


def test_answers_that_nobody_asked_for_are_our_own_fault() -> None:
    one = exchange()
    with pytest.raises(RuntimeError):
        one.token_checked("romeo")
    one.step(message())
    with pytest.raises(RuntimeError):
        one.password_checked(True)


def test_a_question_does_not_print_the_token() -> None:
    assert TOKEN not in repr(NeedToken("romeo", TOKEN))


PIECES = [b"n,", b"y,", b"a=romeo", b"@example.org", b",", b"\x01", b"auth=", b"Bearer ", b"abc", b"=", b"\0", b"\xff"]


@given(st.lists(st.binary(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join), max_size=3))
def test_whatever_the_client_sends_only_a_sasl_error_comes_of_it(sent: list[bytes]) -> None:
    one = exchange()
    try:
        for data in sent:
            if isinstance(one.step(data), NeedToken):
                one.token_checked(None)
    except errors.SaslError:
        with pytest.raises(errors.SaslError):  # and then it is over
            one.step(message())
