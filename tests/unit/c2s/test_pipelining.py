"""A client that knows the features need not wait for them (XEP-0509): answers in the right order, however it is cut."""

from __future__ import annotations

import re
from typing import Any

import pytest

from c2s.negotiation import State
from tests.support.sasl2 import BOUND, FROM, TOKEN, authenticate, success, with_password, with_token
from tests.support.streams import DOMAIN, ROMEO, Talk, plain
from xmpp import ns

MISMATCH = (
    f'<failure xmlns="{ns.SASL2}"><aborted xmlns="{ns.SASL}"/><config-version-mismatch xmlns="{ns.PIPELINING}"/>'
    "<text>What is offered has changed.</text></failure>"
)


def known(value: str, more: str = " scheme='opaque'") -> str:
    return f"<config-version xmlns='{ns.PIPELINING}'{more} value='{value}'/>"


def version(**changes: Any) -> str:
    """The version that is offered."""
    found = re.findall(rf'<config-version xmlns="{ns.PIPELINING}" scheme="opaque" value="(.+?)"/>', told(**changes))
    assert len(found) == 1
    return str(found[0])


def told(name: str = "romeo", **changes: Any) -> str:
    return Talk(**changes).say(FROM.replace("romeo", name))


# --- the version


def test_it_is_the_same_from_every_process_and_for_everybody() -> None:
    assert version() == version(name="nobody")
    assert version(is_secure=True) == version(is_secure=True)


def test_whatever_a_client_might_choose_otherwise_makes_another() -> None:
    offers: list[dict[str, Any]] = [
        {}, {"is_secure": True}, {"hashes": ("SHA-256",)}, {"backends": {DOMAIN: "ldap"}}, {"may_register": True},
        {"takes_invitations": True}, {"has_starttls": False}, {"limits_before_login": b"<limits/>"},
    ]  # fmt: skip
    assert len({version(**offer) for offer in offers}) == len(offers)


def test_where_nobody_may_sign_in_yet_there_is_none() -> None:
    assert ns.PIPELINING not in told(is_tls_required=True)
    talk = Talk(is_tls_required=True)
    assert "<encryption-required" in talk.say(FROM + with_password(known("x")))


def test_early_data_of_tls_is_not_asked_for() -> None:
    """4, and XEP-0388, 3: "servers MUST NOT process, authentication requests included in" it. The TLS library takes
    none, and FAST does not say that it may be used."""
    assert "0rtt" not in told(is_secure=True)


# --- pipelining


@pytest.mark.parametrize("by", [with_password, with_token])
def test_all_at_once_is_answered_in_order(by: Any) -> None:
    expected = told()
    talk = Talk()
    talk.router.tokens[ROMEO, "HT-SHA-256-NONE"] = TOKEN
    written = talk.say(FROM + by(BOUND + known(version())))
    assert written.startswith(expected), "header and features first, as for everybody else"
    assert re.match(rf'<success xmlns="{ns.SASL2}">.*<authorization-identifier>{ROMEO}/', written[len(expected) :])
    assert talk.stream.state is State.BOUND


def test_however_it_is_cut() -> None:
    said = (FROM + with_password(BOUND + known(version()))).encode()
    whole = Talk().say(said)
    for at in range(1, len(said)):
        assert Talk().say(said[:at], said[at:]) == whole
    assert Talk().say(*(said[at : at + 1] for at in range(len(said)))) == whole


def test_all_that_comes_before_an_answer_of_a_router_waits() -> None:
    """The rest of what was sent is read when the client has been told that it is in."""
    talk = Talk()
    talk.router.is_answering = False
    presence = f"<presence id='first'/><iq type='get' id='ping' to='{DOMAIN}'><ping xmlns='{ns.PING}'/></iq>"
    assert talk.say(FROM + with_password(BOUND + known(version())) + presence) == told()
    talk.router.is_answering = True
    talk.router.pump()
    assert talk.heard().startswith(f'<success xmlns="{ns.SASL2}">')
    assert [stanza.id for stanza in talk.router.submitted()] == ["first", "ping"]


def test_a_challenge_is_waited_for() -> None:
    """1: no pipelining through challenges."""
    talk = Talk()
    written = talk.say(FROM + authenticate("SCRAM-SHA-256", b"n,,n=romeo,r=abc", known(version())))
    assert written.startswith(told())
    assert written[len(told()) :].startswith(f'<challenge xmlns="{ns.SASL2}">')


@pytest.mark.parametrize("more", ["", " scheme='opaque'", " scheme='novel'", " schema='opaque'"])
def test_the_same_string_matches_whatever_its_scheme_is_called(more: str) -> None:
    """2.2: "a simple string comparison MUST always be a match"; the scheme is optional (and was once misspelt)."""
    talk = Talk()
    assert success() in talk.say(FROM + with_password(known(version(), more)))


def test_who_has_waited_may_say_so_or_not() -> None:
    for inner in ("", known(version())):
        talk = Talk()
        talk.say(FROM)
        assert talk.say(with_password(inner)).startswith(success())


@pytest.mark.parametrize("value", ["V2VsbCwgb2YgY291cnNl", "", "&#x41;"])
def test_another_version_is_a_failure_without_prejudice(value: str) -> None:
    """2.2: "not counted as a 'failed login'"; nothing was asked of anybody, and the client goes on on this stream."""
    talk = Talk()
    wrong = authenticate("PLAIN", plain(password="wrong"), known(value))
    assert talk.say(FROM + wrong) == told() + MISMATCH
    for _ in range(talk.settings.sasl_tries * 2):
        assert talk.say(wrong) == MISMATCH
    assert talk.router.sent == []
    assert talk.stream.state is State.UNAUTHENTICATED
    assert talk.say(with_password(known(version()))).startswith(success())


def test_a_version_is_one_of_the_present_encryption() -> None:
    """What was offered in clear is not what is offered now."""
    talk = Talk(is_secure=True)
    assert MISMATCH in talk.say(FROM + with_password(known(version())))


def test_a_version_that_says_nothing_is_another() -> None:
    talk = Talk()
    assert MISMATCH in talk.say(FROM + with_password(f"<config-version xmlns='{ns.PIPELINING}'/>"))
