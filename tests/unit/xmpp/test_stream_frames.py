"""The stream parser where the stream comes in frames (RFC 7395, 3.3): each is one first-level element."""

from __future__ import annotations

import pytest

from xmpp import ns
from xmpp.stanza import Stanza
from xmpp.stream import CLOSE_STREAM, Element, Limits, StreamClose, StreamOpen, StreamParser, Violation, open_stream

HEADER = open_stream(namespace=ns.CLIENT, from_="a.example")
MESSAGE = b"<message xmlns='jabber:client'><body>hi</body></message>"


def parser() -> StreamParser:
    made = StreamParser(ns.CLIENT, Limits(), is_framed=True)
    made.push(HEADER)
    assert isinstance(made.next_event(), StreamOpen)
    return made


def test_negotiated_step_by_step_then_all_at_once() -> None:
    p = parser()
    p.push(b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>eA==</auth>")
    p.push(HEADER)  # not waiting for the answer
    p.push(MESSAGE)
    assert isinstance(p.next_event(), Element)
    p.restart()
    assert isinstance(p.next_event(), StreamOpen)
    events = p.flow()
    assert [type(event) for event in events] == [Stanza]
    assert events[0].inner == b"<body>hi</body>"  # type: ignore[union-attr]
    assert [type(event) for event in p.feed(MESSAGE)] == [Stanza]
    assert p.hibernate()
    assert [type(event) for event in p.feed(b" " + MESSAGE + b"\n")] == [Stanza]
    assert [type(event) for event in p.feed(CLOSE_STREAM)] == [StreamClose]
    assert p.feed(MESSAGE) == []


WRONG = [
    MESSAGE + MESSAGE,
    MESSAGE[:-3],
    MESSAGE + b"<message>",
    MESSAGE[:10],
    b" ",
    b"text",
    HEADER,
    HEADER.partition(b"?>")[2],
    MESSAGE + CLOSE_STREAM[:5],
    b"<!-- c -->" + MESSAGE,
    b"<?xml version='1.0'?>" + MESSAGE,
]


@pytest.mark.parametrize("frame", WRONG)
@pytest.mark.parametrize("is_flowing", [True, False])
def test_no_more_and_no_less_than_one_element(frame: bytes, is_flowing: bool) -> None:
    p = parser()
    if is_flowing:
        p.flow()
        events = p.feed(frame)
    else:
        p.push(frame)
        event = p.next_event()
        events = [] if event is None else [event]
    assert [type(event) for event in events] == [Violation]
    assert p.feed(MESSAGE) == []


def test_what_was_pushed_behind_something_wrong_is_not_read() -> None:
    p = parser()
    p.push(MESSAGE[:-3])
    p.push(b"ge>")
    assert isinstance(p.next_event(), Violation)
    assert p.next_event() is None
