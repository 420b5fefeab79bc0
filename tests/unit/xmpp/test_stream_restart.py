"""What stands between the last element of one stream and the header of the next (RFC 6120, 4.3.3 and 6.3.5)."""

from __future__ import annotations

import pytest

from xmpp import ns
from xmpp.stream import Element, Event, Limits, StreamOpen, StreamParser, Violation

HEADER = (
    b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' "
    b"to='example.org' version='1.0'>"
)
AUTH = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGEAYg==</auth>"


def conversation(data: bytes, cut: int) -> list[Event]:
    """What the parser says of this input, cut in two; <auth/> is followed by a new stream."""
    parser = StreamParser(ns.CLIENT, Limits())
    events: list[Event] = []
    for part in (data[:cut], data[cut:]):
        parser.push(part)
        while (event := parser.next_event()) is not None:
            events.append(event)
            if isinstance(event, Element):
                parser.restart()
    return events


@pytest.mark.parametrize("space", [b"", b"\n", b" \r\n\t"])
def test_white_space_behind_auth_is_no_part_of_the_next_stream(space: bytes) -> None:
    data = HEADER + AUTH + space + HEADER
    for cut in range(len(data)):
        assert [type(event) for event in conversation(data, cut)] == [StreamOpen, Element, StreamOpen], cut


def test_anything_else_behind_auth_is_an_error() -> None:
    for rest in (b"x", b"\x00", "\u2003".encode()):
        assert isinstance(conversation(HEADER + AUTH + rest + HEADER, 0)[-1], Violation)
