"""The component's half of XEP-0114."""

from __future__ import annotations

import pytest

from s2s.gateways.backoff import FIRST_S, LONGEST_S, Backoff
from s2s.gateways.component import Accepted, Closed, ComponentStream
from xmpp import stanza as stanzas
from xmpp.stanza import Stanza

HEADER = (
    b"<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'"
    b" from='plays.shakespeare.lit' id='3BF96D32'>"
)


def opened() -> ComponentStream:
    stream = ComponentStream("plays.shakespeare.lit", "secret")
    stream.begin()
    return stream


def accepted() -> ComponentStream:
    stream = opened()
    assert stream.receive_data(HEADER + b"<handshake/>") == [Accepted()]
    stream.data_to_send()
    return stream


def test_the_header_has_an_address_and_no_version() -> None:
    sent = opened().data_to_send()
    assert b'to="plays.shakespeare.lit"' in sent
    assert b"xmlns='jabber:component:accept'" in sent
    assert b"version=" not in sent.partition(b"?>")[2]


def test_the_handshake_is_the_hash_of_id_and_secret() -> None:
    stream = opened()
    stream.data_to_send()
    assert stream.receive_data(HEADER) == []
    # printf 3BF96D32secret | sha1sum
    assert stream.data_to_send() == b"<handshake>b09ea9b3b7f586be8a08d0a3dd7466f110aeb136</handshake>"


def test_cut_anywhere_it_says_the_same() -> None:
    whole = HEADER + b"<handshake/><message from='a@b' to='c@plays.shakespeare.lit'><body>x</body></message>"
    for cut in range(len(whole)):
        stream = opened()
        events = stream.receive_data(whole[:cut]) + stream.receive_data(whole[cut:])
        assert events[0] == Accepted()
        (message,) = events[1:]
        assert isinstance(message, Stanza)
        assert (message.from_, message.to, message.inner) == ("a@b", "c@plays.shakespeare.lit", b"<body>x</body>")


def test_stanzas_are_sent_once_accepted_and_not_before() -> None:
    message = stanzas.message(to="a@b", from_="plays.shakespeare.lit", inner=b"<body>x</body>")
    early = opened()
    early.data_to_send()
    early.send(message)
    assert early.data_to_send() == b""
    stream = accepted()
    stream.send(message)
    assert stream.data_to_send() == b'<message to="a@b" from="plays.shakespeare.lit"><body>x</body></message>'


@pytest.mark.parametrize(
    ("condition", "hint"),
    [("not-authorized", "component.secret"), ("host-unknown", "component.jid"), ("conflict", "stop")],
)
def test_a_refusal_comes_with_its_remedy(condition: str, hint: str) -> None:
    stream = opened()
    error = (
        f"<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>"
        "<text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>go away</text></stream:error>"
    )
    (closed,) = stream.receive_data(HEADER + error.encode())
    assert isinstance(closed, Closed)
    assert (closed.condition, closed.reason) == (condition, f"the server refuses: {condition} (go away)")
    assert hint in closed.remedy
    assert stream.is_over


@pytest.mark.parametrize("end", [b"</stream:stream>", b"<foo", b"<foo/>", b"&nbsp;"])
def test_after_the_end_nothing_is_read_or_sent(end: bytes) -> None:
    stream = accepted()
    events = stream.receive_data(end + b"\0<presence/>")
    assert [type(event) for event in events] == [Closed]
    assert stream.data_to_send().endswith(b"</stream:stream>")
    assert stream.receive_data(b"<presence/>") == []
    stream.send(stanzas.presence(to="a@b", from_="c"))
    assert stream.data_to_send() == b""


def test_waiting_grows_to_its_limit_with_half_of_it_by_chance() -> None:
    most, least = Backoff(lambda: 1.0), Backoff(lambda: 0.0)
    waits = [most.next_s() for _ in range(10)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (FIRST_S, LONGEST_S)
    assert [least.next_s() for _ in range(10)] == [wait / 2 for wait in waits]
    most.reset()
    assert most.next_s() == FIRST_S
