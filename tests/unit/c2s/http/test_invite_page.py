"""What the page of an invitation shows (c2s/http/invite_page.py), by what a router tells of its token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from c2s.attempts import Attempts
from c2s.http.clients import Client
from c2s.http.invite_page import InvitePage
from c2s.http.server import HttpServer
from c2s.tls import ServerTls
from cluster.config import Http
from cluster.edge import Answer, Edge
from tests.support.streams import Clock

FACTS: dict[str, Any] = {
    "kind": "contact", "domain": "example.com", "from": "romeo@example.com",
    "contact": "romeo@example.com", "jid": "",
    "uri": "xmpp:romeo@example.com?roster;preauth=t;ibr=y", "is_used_up": False, "may_register": True, "expires_at": None,
}  # fmt: skip


class FakeEdge:
    """A router that has one answer."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, tuple[Any, ...]]] = []

    def call(
        self, bare: str, method: str, arguments: tuple[Any, ...], done: Callable[[Answer], None], timeout_s: float
    ) -> str:
        self.asked.append((bare, method, arguments))
        done(self.answer)
        return "request"


def show(answer: Answer, token: str = "t0ken", *, has_chat: bool = False) -> tuple[int, str, FakeEdge]:
    edge = FakeEdge(answer)
    server = HttpServer(Http(), cast(ServerTls, None))
    suggested = {"android": (Client("A & B", "https://a.example/?x=1&y=2"),)}
    page = InvitePage(server, cast(Edge, edge), "example.com", suggested, Attempts(1, Clock()), has_chat=has_chat)
    request = make_mocked_request("GET", f"/invite/{token}", match_info={"token": token})
    response: web.Response = asyncio.run(page._show(request))
    assert response.text is not None
    return response.status, response.text, edge


def shown(**changes: Any) -> str:
    status, text, _ = show(Answer(True, FACTS | changes))
    assert status == 200
    return text


def test_a_router_is_asked_of_the_token() -> None:
    assert show(Answer(True, FACTS))[2].asked == [("example.com", "invitations.show", ("t0ken",))]
    status, _, edge = show(Answer(True, FACTS), "é\ud800")
    assert (status, edge.asked) == (404, [])


def test_who_invites_to_what() -> None:
    """XEP-0401, 4.2."""
    text = shown()
    assert "<h1>romeo@example.com invites you to chat</h1>" in text
    assert '<a class="button" href="xmpp:romeo@example.com?roster;preauth=t;ibr=y">' in text
    assert '<a href="https://a.example/?x=1&amp;y=2" rel="noreferrer">A &amp; B</a>' in text
    assert "User name, before @example.com" in text
    assert "<h1>You are invited to example.com</h1>" in shown(**{"kind": "account", "from": ""})


def test_a_web_chat_is_suggested_where_there_is_one() -> None:
    assert '<a href="/">web chat</a>' in show(Answer(True, FACTS), has_chat=True)[1]
    assert "web chat" not in show(Answer(True, FACTS))[1]


def test_there_is_no_form_where_nobody_registers() -> None:
    assert "<form" not in shown(may_register=False)


def test_a_name_that_is_given_cannot_be_changed() -> None:
    """XEP-0445, 2.1."""
    text = shown(kind="account", jid="juliet@example.com")
    assert "<strong>juliet@example.com</strong>" in text
    assert '<input type="text" name="username" value="juliet" autocomplete="username" readonly>' in text


def test_a_new_password_is_for_one_account() -> None:
    text = shown(kind="reset", jid="juliet@example.com", uri="", may_register=False)
    assert "<h1>A new password for juliet@example.com</h1>" in text
    assert 'name="end"' in text
    assert "xmpp:" not in text


def test_what_comes_from_outside_is_text() -> None:
    assert "<b>" not in shown(**{"from": "<b>@example.com", "uri": 'xmpp:"><b>'})


def test_the_time_that_is_left() -> None:
    assert "UTC today" in shown(expires_at=time.time() + 60)
    assert "This link is good until 15 January 2100, 08:00 UTC." in shown(expires_at=4_103_683_200.0)
    assert "good until" not in shown()


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (Answer(True, FACTS | {"is_used_up": True}), 410, "This link is used up"),
        (Answer(False, ("item-not-found", "text")), 404, "This link leads nowhere"),
        (Answer(False, "remote-server-timeout"), 503, "Not right now"),
        (Answer(False, "temporary-auth-failure"), 503, "Not right now"),
    ],
)
def test_why_there_is_nothing(answer: Answer, status: int, words: str) -> None:
    found, text, _ = show(answer)
    assert (found, f"<h1>{words}</h1>" in text) == (status, True)
