"""BOSH sessions (c2s/http/bosh_session.py): requests in the order of their rid, one answer for each, replays, keys, ends
(XEP-0124, XEP-0206)."""

from __future__ import annotations

import hashlib
import re
from itertools import count
from typing import Any

import pytest

from c2s.connections import Carrier, Connections
from c2s.http.bosh import parse
from c2s.http.bosh_session import MAX_PAUSE_S, POLLING_S, BoshSession
from c2s.stream import ClientStream, Facts
from cluster.edge import Edge
from cluster.wire import DETACH
from tests.support.streams import BIND, DOMAIN, ROMEO, SETTINGS, Clock, Router, auth, plain, sample
from xmpp import ns, stanza
from xmpp.stream import Limits

BODY = f"xmlns='{ns.HTTPBIND}'"
RESTART = f"xmpp:restart='true' xmlns:xmpp='{ns.XBOSH}' to='{DOMAIN}'"
LOST = b"(no answer: another request took its place)"


class Browser:
    """The other end."""

    def __init__(self, **attributes: str) -> None:
        self.clock = Clock()
        self.router = Router()
        requests, ids = count(1), count(1)
        self.edge = self.router.edge = Edge(self.router.send, lambda: f"r{next(requests)}", self.clock)
        self.router.own_everything()

        def make_stream(carrier: Carrier) -> ClientStream:
            return ClientStream(carrier, self.edge, SETTINGS, Facts(), lambda: f"s{next(ids)}", self.clock)

        self.connections = Connections(self.edge, make_stream)
        self.ended: list[BoshSession] = []
        self.answers: dict[int, list[bytes]] = {}
        self.rid = 1_000
        opening = {"to": DOMAIN, "wait": "60", "hold": "1", "ver": "1.6", **attributes}
        body = parse(self._body(self.rid, "", **opening), Limits())
        self.session = BoshSession(
            self.connections, "sid", body, "192.0.2.1", True, 60, 60, self.clock, self.ended.append
        )
        self.opened = self._ask(self.rid, "", **opening)

    def _body(self, rid: int, inner: str, extra: str = "", **attributes: str) -> bytes:
        written = "".join(f" {name}='{value}'" for name, value in attributes.items())
        return f"<body rid='{rid}' sid='sid'{written} {extra} {BODY}>{inner}</body>".encode()

    def _ask(self, rid: int, inner: str, extra: str = "", **attributes: str) -> str:
        found = self.answers.setdefault(rid, [])
        before = len(found)
        body = parse(self._body(rid, inner, extra, **attributes), Limits())
        self.session.receive(rid, body, lambda data: found.append(LOST if data is None else data))
        self.settle()
        return b"".join(found[before:]).decode()

    def settle(self) -> None:
        self.connections.flush()
        self.router.pump()
        self.connections.flush()

    def ask(self, inner: str = "", extra: str = "", **attributes: str) -> str:
        """The next request; its answer, "" if it is held."""
        self.rid += 1
        return self._ask(self.rid, inner, extra, **attributes)

    def at(self, rid: int, inner: str = "", **attributes: str) -> str:
        """A request with this rid."""
        return self._ask(rid, inner, **attributes)

    def heard(self, rid: int) -> str:
        """What the request with this rid was answered."""
        return b"".join(self.answers[rid]).decode()

    def sign_in(self) -> None:
        assert "<success" in self.ask(auth("PLAIN", plain()))
        assert f'<bind xmlns="{ns.BIND}"/>' in self.ask("", RESTART)
        assert f"<jid>{ROMEO}/generated</jid>" in self.ask(BIND)

    def deliver(self, id: str) -> None:
        assert self.session.stream is not None
        assert self.session.stream.session is not None
        message = stanza.message(to=ROMEO, from_="juliet@a.example/x", id=id)
        self.router.deliver(self.session.stream.session.sid, message)
        self.connections.flush()

    def tick(self, seconds: float) -> None:
        self.clock.now += seconds
        self.edge.tick()
        self.session.check()
        self.settle()


def condition(answer: str) -> str:
    found = re.search(r"<body [^>]*\btype=\"terminate\"(?: condition=\"([a-z-]+)\")?", answer)
    assert found is not None, answer
    return found[1] or ""


def attributes(answer: str) -> dict[str, str]:
    found = re.match(r"<body ([^>]*?)/?>", answer)
    assert found is not None, answer
    return dict(re.findall(r"([a-z:]+)=\"([^\"]*)\"", found[1]))


def test_the_session_request_is_answered_with_what_holds_and_with_the_features() -> None:
    """XEP-0124, 7.2; XEP-0206, 4."""
    opened = Browser(**{"xml:lang": "de"}).opened
    found = attributes(opened)
    assert {name: found[name] for name in ("sid", "wait", "hold", "requests", "inactivity", "ver", "from")} == {
        "sid": "sid", "wait": "60", "hold": "1", "requests": "2", "inactivity": "60", "ver": "1.6", "from": DOMAIN,
    }  # fmt: skip
    assert (found["authid"], found["secure"], found["xmpp:version"]) == ("s1", "true", "1.0")
    assert "polling" not in found
    assert f'<stream:features xmlns:stream="{ns.STREAMS}"><mechanisms' in opened
    assert "<starttls" not in opened, "TLS is HTTP's"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"wait": "10"}, {"wait": "10"}),
        ({"wait": "1000"}, {"wait": "60"}),
        ({"hold": "9"}, {"hold": "1", "requests": "2"}),
        ({"ver": "9.9"}, {"ver": "1.11"}),
        ({"wait": "0"}, {"wait": "0", "hold": "0", "requests": "1", "polling": "2"}),
        ({"hold": "0"}, {"hold": "0", "requests": "1", "polling": "2"}),
        ({"ack": "1"}, {"ack": "1000"}),
        ({"wait": "x"}, {"wait": "60"}),
    ],
)
def test_what_a_client_asks_for_within_our_limits(asked: dict[str, str], told: dict[str, str]) -> None:
    found = attributes(Browser(**asked).opened)
    assert {name: found[name] for name in told} == told


def test_a_domain_that_is_not_served() -> None:
    browser = Browser(to="elsewhere.example")
    assert condition(browser.opened) == "host-unknown"
    assert attributes(browser.opened)["sid"] == "sid"
    assert browser.ended == [browser.session]


def test_one_request_is_held_until_there_is_something_to_say() -> None:
    browser = Browser()
    browser.sign_in()
    assert browser.ask() == "", "held"
    browser.deliver("m1")
    assert 'id="m1"' in browser.heard(browser.rid)
    browser.deliver("m2")
    browser.deliver("m3")
    answer = browser.ask()
    assert answer.index('id="m2"') < answer.index('id="m3"'), "at once, what had to wait"
    assert browser.ask() == ""
    browser.ask()
    assert browser.heard(browser.rid - 1) == f'<body xmlns="{ns.HTTPBIND}"/>', "one is held, not two"
    browser.tick(59)
    assert browser.heard(browser.rid) == ""
    browser.tick(2)
    assert browser.heard(browser.rid) == f'<body xmlns="{ns.HTTPBIND}"/>', "its wait is over"


def test_requests_are_taken_in_order_however_they_come() -> None:
    """14.2."""
    browser = Browser()
    browser.sign_in()
    rid = browser.rid
    assert browser.at(rid + 2, "<message id='second'/>") == ""
    assert browser.router.submitted() == []
    browser.at(rid + 1, "<message id='first'/>")
    assert [sent.id for sent in browser.router.submitted()] == ["first", "second"]
    assert browser.heard(rid + 1) != "", "answered in order, too"


@pytest.mark.parametrize("ahead", [3, 100, 2**40])
def test_too_far_ahead_is_the_end(ahead: int) -> None:
    browser = Browser()
    browser.sign_in()
    held = browser.rid + 1
    assert browser.ask() == ""
    assert condition(browser.at(browser.rid + ahead)) == "item-not-found"
    assert condition(browser.heard(held)) == "item-not-found", "nobody is kept waiting"
    assert browser.ended == [browser.session]
    assert not browser.connections.all
    assert browser.router.sent[-1][0] == DETACH, "its owner keeps what the client has not got"


def test_who_asks_the_same_again_gets_the_same_answer() -> None:
    """14.3: the connection broke, or the answer did not arrive."""
    browser = Browser()
    browser.sign_in()
    answer = browser.heard(browser.rid)
    assert "<jid>" in answer
    assert browser.at(browser.rid, BIND) == answer
    before = browser.heard(browser.rid - 1)
    assert browser.at(browser.rid - 1) == before
    browser.ask("<message id='once'/>")
    browser.ask()
    browser.at(browser.rid - 1, "<message id='once'/>")
    assert [sent.id for sent in browser.router.submitted()] == ["once"]
    assert condition(browser.at(browser.rid - 5)) == "item-not-found", "too long ago to be known"


def test_a_request_that_is_held_goes_over_to_the_connection_that_asks_again() -> None:
    browser = Browser()
    browser.sign_in()
    assert browser.ask() == ""
    assert browser.at(browser.rid) == LOST.decode(), "so much for the former"
    browser.deliver("m1")
    assert browser.answers[browser.rid][0] == LOST
    assert b'id="m1"' in browser.answers[browser.rid][1]


def test_what_was_told_counts_as_read_once_the_client_must_have_it() -> None:
    browser = Browser()
    browser.sign_in()
    browser.ask()
    browser.deliver("m1")
    assert browser.session.stream is not None
    session = browser.session.stream.session
    assert session is not None
    assert session.acknowledged == 0, "told, and who knows whether it arrived"
    browser.ask()
    assert session.acknowledged == 0
    browser.ask()
    assert session.acknowledged == 1


def test_acknowledgements() -> None:
    """9."""
    browser = Browser(ack="1")
    browser.sign_in()
    browser.ask()
    browser.deliver("m1")
    assert browser.session.stream is not None
    session = browser.session.stream.session
    assert session is not None
    told = browser.rid
    browser.ask(ack=str(told))
    assert session.acknowledged == 1, "the client says so"
    browser.ask()
    assert attributes(browser.heard(told + 1))["ack"] == str(told + 2)


def test_a_client_may_be_silent_for_a_while() -> None:
    """11, 10: no longer than told, unless it asked for a pause."""
    browser = Browser()
    browser.sign_in()
    browser.tick(59)
    assert not browser.ended
    assert browser.ask(pause="100") == f'<body xmlns="{ns.HTTPBIND}"/>'
    browser.tick(99)
    assert not browser.ended
    browser.tick(2)
    assert browser.ended
    assert condition(browser.ask()) == ""


def test_a_pause_lets_go_of_all_requests_and_tells_nothing() -> None:
    browser = Browser()
    browser.sign_in()
    held = browser.rid + 1
    browser.ask()
    assert browser.ask(pause=str(MAX_PAUSE_S)) == f'<body xmlns="{ns.HTTPBIND}"/>'
    assert browser.heard(held) == f'<body xmlns="{ns.HTTPBIND}"/>'
    browser.deliver("m1")
    assert 'id="m1"' in browser.ask()


def test_a_silent_session_is_a_broken_stream() -> None:
    before = sample("stentor_c2s_connections_closed_total", reason="connection-lost")
    browser = Browser()
    browser.sign_in()
    browser.tick(61)
    assert sample("stentor_c2s_connections_closed_total", reason="connection-lost") == before + 1
    assert not browser.connections.all


@pytest.mark.parametrize("wait", ["0", "60"])
def test_polling_too_often_is_the_end(wait: str) -> None:
    """12, 13."""
    browser = Browser(wait=wait, hold="0")
    assert browser.ask() == f'<body xmlns="{ns.HTTPBIND}"/>'
    browser.clock.now += POLLING_S
    assert browser.ask() == f'<body xmlns="{ns.HTTPBIND}"/>'
    browser.clock.now += POLLING_S / 2
    assert condition(browser.ask()) == "policy-violation"


def test_polling_after_an_answer_that_told_something() -> None:
    browser = Browser(wait="0")
    for inner, extra, wanted in ((auth("PLAIN", plain()), "", "<success"), ("", RESTART, "<bind"), (BIND, "", "<jid>")):
        answer = browser.ask(inner, extra)
        if wanted not in answer:
            browser.clock.now += POLLING_S
            answer += browser.ask()
        assert wanted in answer


def keys(n: int) -> list[str]:
    found = ["seed"]
    for _ in range(n):
        found.append(hashlib.sha1(found[-1].encode()).hexdigest())
    return found[:0:-1]


def test_key_sequencing() -> None:
    """15: whoever has overheard sid and rid has not the next key; the last one brings a new sequence."""
    first, *rest = keys(4)
    browser = Browser(newkey=first)
    assert "<success" in browser.ask(auth("PLAIN", plain()), key=rest[0])
    again, *more = keys(3)
    assert "<bind" in browser.ask("", RESTART, key=rest[1], newkey=again)
    assert "<jid>" in browser.ask(BIND, key=more[0])
    assert condition(browser.ask(key=more[0])) == "item-not-found"


def test_a_key_that_is_missing() -> None:
    browser = Browser(newkey=keys(4)[0])
    assert condition(browser.ask()) == "item-not-found"


def test_the_client_ends_the_session_with_its_last_words() -> None:
    browser = Browser()
    browser.sign_in()
    held = browser.rid + 1
    browser.ask()
    answer = browser.ask("<presence type='unavailable'/>", type="terminate")
    sent = [(one.kind, one.type) for one in browser.router.submitted()]
    assert sent == [(stanza.PRESENCE, "unavailable")]
    assert browser.heard(held) != ""
    assert condition(answer) == ""
    assert browser.ended == [browser.session]


def test_a_stream_error_is_told_by_its_content() -> None:
    """XEP-0206, 6."""
    browser = Browser()
    browser.sign_in()
    answer = browser.ask("<message from='mallory@a.example/x'/>")
    assert condition(answer) == "remote-stream-error"
    assert f'<invalid-from xmlns="{ns.STREAM_ERRORS}"/>' in answer
    assert "stream:error" not in answer


def test_a_drain_tells_the_client_to_come_back() -> None:
    browser = Browser()
    browser.sign_in()
    browser.ask()
    assert browser.session.stream is not None
    browser.session.stream.shut_down()
    browser.settle()
    assert condition(browser.heard(browser.rid)) == "system-shutdown"
    assert condition(browser.ask()) == "system-shutdown", "told again to who has not heard it"


def test_while_too_much_is_unconfirmed_requests_wait() -> None:
    browser = Browser()
    browser.sign_in()
    browser.router.is_confirming = False
    many = "".join(f"<message id='{n}'/>" for n in range(100))
    browser.ask(many)
    assert browser.ask("<message id='late'/>") == ""
    assert "late" not in [one.id for one in browser.router.submitted()]
    assert browser.session.stream is not None
    assert browser.session.stream.session is not None
    browser.router.confirm(browser.session.stream.session.sid)
    browser.settle()
    assert browser.router.submitted()[-1].id == "late"


def test_a_client_that_never_fetches_what_piles_up_is_cut_off() -> None:
    browser = Browser()
    browser.sign_in()
    browser.session._queued = 9_000_000
    browser.tick(1)
    assert browser.ended


@pytest.mark.parametrize("attributes_", [{"type": "error"}, {"type": ""}, {"pause": "x"}, {"pause": "0"}])
def test_requests_that_are_none(attributes_: dict[str, Any]) -> None:
    browser = Browser()
    browser.sign_in()
    assert condition(browser.ask(**attributes_)) == "bad-request"


def test_prefixes_of_the_body_hold_inside_of_it() -> None:
    body = parse(
        f"<body {BODY} xmlns:p='urn:p' rid='1'><message xmlns='jabber:client'><p:a p:b='c'/></message></body>".encode(),
        Limits(),
    )
    assert body.inner == b'<message><a xmlns="urn:p" xmlns:n0="urn:p" n0:b="c"/></message>'
    plain_one = parse(f"<?xml version='1.0'?> <body {BODY} rid='1'><x xmlns='y'/></body>".encode(), Limits())
    assert plain_one.inner == b"<x xmlns='y'/>"
