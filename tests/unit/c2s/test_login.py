"""One attempt to sign in (c2s/login.py): what a router is asked, and what its answers become."""

from __future__ import annotations

from base64 import b64encode
from itertools import count
from typing import Any

import pytest

from c2s.login import CALL_TIMEOUT_S, Login, Offer, offered
from cluster.edge import Edge
from cluster.wire import ANSWER, CALL
from tests.support.streams import BINDINGS, DOMAIN, PASSWORD, ROMEO, ROUTER, Clock, Router, credentials, plain, sample
from xmpp.errors import SaslError


class Host:
    """A stream that remembers what its exchange had it do."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def auth_challenge(self, data: bytes) -> None:
        self.heard.append(("challenge", data))

    def auth_waits(self) -> None:
        self.heard.append(("waits",))

    def auth_failed(self, fault: SaslError) -> None:
        self.heard.append(("failed", fault.condition))

    def auth_succeeded(self, username: str, data: bytes | None) -> None:
        self.heard.append(("succeeded", username, data))


class Attempt:
    """A login, the edge it asks, and its host."""

    def __init__(self, *, is_secure: bool = False) -> None:
        self.clock = Clock()
        self.router = Router()
        requests = count(1)
        self.router.edge = self.edge = Edge(self.router.send, lambda: f"r{next(requests)}", self.clock)
        self.router.own_everything()
        self.host = Host()
        bindings = BINDINGS if is_secure else {}
        offer = Offer(DOMAIN, is_secure, bindings, offered(is_secure, bindings))
        self.login = Login(self.host, self.edge, offer, self.clock)

    def begin(self, mechanism: str, data: bytes | None) -> list[tuple[Any, ...]]:
        self.login.begin(mechanism, None if data is None else b64encode(data).decode())
        return self.host.heard


def outcomes(mechanism: str) -> list[float]:
    return [sample("stentor_c2s_auth_total", mechanism=mechanism, result=r) for r in ("ok", "rejected", "error")]


def test_channel_binding_is_offered_where_the_connection_has_it() -> None:
    assert offered(False, {}) == ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"]
    assert offered(True, BINDINGS)[:3] == ["SCRAM-SHA-512-PLUS", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"]
    assert offered(True, {}) == offered(False, {})


def test_the_owner_of_the_account_is_asked_for_the_password() -> None:
    attempt = Attempt()
    assert attempt.begin("PLAIN", plain()) == [("waits",)]
    assert [envelope[4:] for envelope in attempt.router.sent] == [("auth.password", (ROMEO, PASSWORD))]
    attempt.router.pump()
    assert attempt.host.heard == [("waits",), ("succeeded", "romeo", None)]


def test_no_password_and_no_key_is_told_to_the_edge_with_scram() -> None:
    """The router says salt and iterations, and later a signature; the client says a proof."""
    attempt = Attempt()
    attempt.begin("SCRAM-SHA-256", b"n,,n=romeo,r=abc")
    attempt.router.pump()
    assert [envelope[4:] for envelope in attempt.router.sent] == [("auth.salt", (ROMEO, "SHA-256"))]
    assert [heard[0] for heard in attempt.host.heard] == ["waits", "challenge"]
    known = credentials(PASSWORD, "SHA-256")
    assert known.stored_key not in attempt.host.heard[1][1]


def test_the_name_is_prepared_before_anybody_is_asked() -> None:
    attempt = Attempt()
    attempt.begin("PLAIN", plain("ROMEO"))
    attempt.router.pump()
    assert attempt.host.heard[-1] == ("succeeded", "romeo", None)


@pytest.mark.parametrize("username", ["a b", "a/b", "romeo@capulet.example", "@", "x" * 2_000])
def test_a_name_that_no_account_can_have_is_a_wrong_password_and_nobody_is_asked(username: str) -> None:
    attempt = Attempt()
    assert attempt.begin("PLAIN", plain(username)) == [("failed", "not-authorized")]
    assert attempt.router.of_kind(CALL) == []


@pytest.mark.parametrize(
    ("said", "condition"),
    [
        ("temporary-auth-failure", "temporary-auth-failure"),
        ("remote-server-timeout", "temporary-auth-failure"),
        ("feature-not-implemented", "temporary-auth-failure"),
        ("account-disabled", "account-disabled"),
        (("forbidden", None), "temporary-auth-failure"),
    ],
)
def test_a_router_that_cannot_say_is_never_a_wrong_password(said: Any, condition: str) -> None:
    attempt = Attempt()
    attempt.router.call_error = said
    attempt.begin("PLAIN", plain())
    attempt.router.pump()
    assert attempt.host.heard[-1] == ("failed", condition)


def test_a_router_that_is_silent_is_never_a_wrong_password() -> None:
    attempt = Attempt()
    attempt.begin("PLAIN", plain())
    attempt.clock.now += CALL_TIMEOUT_S - 1
    attempt.edge.tick()
    assert attempt.host.heard == [("waits",)]
    attempt.clock.now += 2
    attempt.edge.tick()
    assert attempt.host.heard == [("waits",), ("failed", "temporary-auth-failure")]


def test_after_cancel_an_answer_is_nobodys() -> None:
    attempt = Attempt()
    attempt.begin("PLAIN", plain())
    request = attempt.router.sent[0][3]
    attempt.login.cancel()
    attempt.login.cancel()
    attempt.edge.receive(ROUTER, ANSWER, (request, True, True))
    attempt.clock.now += 100
    attempt.edge.tick()
    assert attempt.host.heard == [("waits",)]


def test_outcomes_are_counted_by_whose_fault_they_are() -> None:
    before = outcomes("PLAIN")
    for password, error in ((PASSWORD, None), ("wrong", None), (PASSWORD, "temporary-auth-failure")):
        attempt = Attempt()
        attempt.router.call_error = error
        attempt.begin("PLAIN", plain(password=password))
        attempt.router.pump()
    aborted, discarded, cancelled = Attempt(), Attempt(), Attempt()
    for attempt in aborted, discarded, cancelled:
        attempt.begin("PLAIN", None)
    aborted.login.abort()
    discarded.login.discard()
    cancelled.login.cancel()  # its stream has ended: no outcome
    assert [now - then for now, then in zip(outcomes("PLAIN"), before, strict=True)] == [1, 3, 1]
    assert aborted.host.heard[-1] == ("failed", "aborted")
    assert discarded.host.heard[-1][0] == "challenge", "the client hears of the next exchange only"


def test_a_mechanism_that_nobody_knows_is_counted_as_other() -> None:
    before = outcomes("other")
    assert Attempt(is_secure=True).begin("X-MINE", b"x") == [("failed", "invalid-mechanism")]
    assert [now - then for now, then in zip(outcomes("other"), before, strict=True)] == [0, 1, 0]


def test_the_time_of_a_login_is_from_auth_to_its_outcome() -> None:
    before = sample("stentor_c2s_login_seconds_sum", result="ok")
    attempt = Attempt()
    attempt.begin("PLAIN", plain())
    attempt.clock.now += 2
    attempt.router.pump()
    assert sample("stentor_c2s_login_seconds_sum", result="ok") - before == pytest.approx(2)
