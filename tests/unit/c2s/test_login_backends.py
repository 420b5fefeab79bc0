"""Signing in where passwords are not kept here: what is offered, and what a router is asked (c2s/login.py, stream.py)."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import pytest

from c2s.login import offered
from cluster.wire import ANSWER, CALL
from tests.support.streams import BINDINGS, DOMAIN, ROMEO, ROUTER, Talk, auth, failure, response
from xmpp import ns

TOKEN = b"n,,\x01auth=Bearer abc\x01\x01"


class Bearer(Talk):
    """A stream at a domain whose back end takes tokens; routers wait until the test answers."""

    def __init__(self, backend: str = "jwt", **changes: Any) -> None:
        super().__init__(is_secure=True, backends={DOMAIN: backend}, **changes)
        self.router.is_answering = False

    def answer(self, value: Any, *, ok: bool = True) -> str:
        call = self.router.of_kind(CALL)[-1]
        self.edge.receive(ROUTER, ANSWER, (call[0], ok, value))
        return self.heard()


def test_each_back_end_is_offered_by_what_it_can_do() -> None:
    for backend in ("ldap", "http"):
        assert offered(True, BINDINGS, backend) == ["PLAIN"]
    assert offered(True, BINDINGS, "jwt") == ["OAUTHBEARER", "PLAIN"]
    assert offered(False, {}, "jwt") == ["PLAIN"]
    assert offered(True, BINDINGS, "internal") == offered(True, BINDINGS)


def test_a_stream_offers_what_the_back_end_of_its_domain_can_do() -> None:
    said = Bearer("ldap", may_register=True).open()
    assert "<mechanism>PLAIN</mechanism></mechanisms>" in said
    for word in ("SCRAM", "sasl-channel-binding", "iq-register"):
        assert word not in said
    assert "SCRAM-SHA-256-PLUS" in Talk(is_secure=True, backends={"other.example": "ldap"}).open()


def test_without_a_name_the_owner_of_the_domain_is_asked() -> None:
    talk = Bearer()
    talk.open()
    assert talk.say(auth("OAUTHBEARER", TOKEN)) == ""
    assert [call[1:] for call in talk.router.of_kind(CALL)] == [("auth.token", (DOMAIN, "abc"))]
    assert "<success" in talk.answer(("romeo", ""))


def test_with_a_name_the_owner_of_the_account_is_asked() -> None:
    talk = Bearer()
    talk.open()
    talk.say(auth("OAUTHBEARER", f"n,a={ROMEO},\x01auth=Bearer abc\x01\x01".encode()))
    assert [call[1:] for call in talk.router.of_kind(CALL)] == [("auth.token", (ROMEO, "abc"))]


def test_a_token_that_is_refused_is_explained_and_then_a_failure() -> None:
    talk = Bearer()
    talk.open()
    talk.say(auth("OAUTHBEARER", TOKEN))
    challenge = talk.answer((None, "https://id.example.org/"))
    assert b64decode(challenge.partition(">")[2].partition("<")[0]) == (
        b'{"status": "invalid_token", "openid-configuration": "https://id.example.org/"}'
    )
    assert failure(talk.say(response(b"\x01"))) == "not-authorized"


def test_a_back_end_that_is_away_counts_as_no_try() -> None:
    talk = Bearer()
    talk.open()
    for _ in range(talk.settings.sasl_tries + 1):
        talk.say(auth("OAUTHBEARER", TOKEN))
        assert failure(talk.answer("temporary-auth-failure", ok=False)) == "temporary-auth-failure"
    assert not talk.is_over()


def test_a_disabled_account_is_told_so() -> None:
    talk = Bearer()
    talk.open()
    talk.say(auth("OAUTHBEARER", TOKEN))
    assert failure(talk.answer("account-disabled", ok=False)) == "account-disabled"


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "EXTERNAL"])
def test_what_the_back_end_cannot_do_is_no_mechanism(mechanism: str) -> None:
    talk = Bearer()
    talk.open()
    assert failure(talk.say(auth(mechanism, b"n,,n=romeo,r=abc"))) == "invalid-mechanism"
    assert talk.router.of_kind(CALL) == []


def test_by_xep_0388_the_same_is_offered_and_no_tokens_of_ours() -> None:
    """Who is taken off the list of the back end shall not come back with a token for ever."""
    talk = Bearer()
    said = talk.open()
    offered = said[said.index(f'<authentication xmlns="{ns.SASL2}">') : said.index("</authentication>")]
    assert "<mechanism>OAUTHBEARER</mechanism><mechanism>PLAIN</mechanism><inline>" in offered
    assert "<fast" not in offered
    first = b64encode(TOKEN).decode()
    talk.say(
        f"<authenticate xmlns='{ns.SASL2}' mechanism='OAUTHBEARER'><initial-response>{first}</initial-response></authenticate>"
    )
    said = talk.answer((None, "https://id.example/.well-known/openid-configuration"))
    assert b"invalid_token" in b64decode(said.removeprefix(f'<challenge xmlns="{ns.SASL2}">').partition("<")[0])
    assert "<not-authorized" in talk.say(f"<response xmlns='{ns.SASL2}'>AQ==</response>")
