"""XML streams in pieces that stand alone (RFC 7395, 3; XEP-0206): no stream header is around them, so each says itself
what a header would have said for it."""

from __future__ import annotations

import re
from typing import Final

from c2s.stream import Header
from xmpp import errors, ns
from xmpp.stream import CLOSE_STREAM, Element, Limits, StreamParser, Violation, open_stream
from xmpp.xml import element

CLOSE: Final = element("close", ns.FRAMING)
_CLIENT: Final = f' xmlns="{ns.CLIENT}"'.encode()
_STREAM: Final = f' xmlns:stream="{ns.STREAMS}"'.encode()
_HEADER: Final = open_stream(namespace=ns.CLIENT, from_="")
_LIMITS: Final = Limits(stanza_bytes=16_384, depth=4)
_NAME: Final = re.compile(rb"<stream:[a-z]+")


def alone(data: bytes) -> bytes:
    """A first-level element, as a stream writes it, with its namespaces declared."""
    if data.startswith(b"<message"):
        return b"<message%b%b" % (_CLIENT, data[8:])
    if data.startswith(b"<iq"):
        return b"<iq%b%b" % (_CLIENT, data[3:])
    if data.startswith(b"<presence"):
        return b"<presence%b%b" % (_CLIENT, data[9:])
    match = _NAME.match(data)  # <stream:features/>, <stream:error/>
    return data if match is None else b"%b%b%b" % (match[0], _STREAM, data[match.end() :])


def opening(header: Header) -> bytes:
    """Our stream header (RFC 7395, 3.4)."""
    attributes = {"version": "1.0", "from": header.from_, "id": header.id, "to": header.to, "xml:lang": header.lang}
    return element("open", ns.FRAMING, attributes)


def unframed(message: bytes) -> bytes:
    """A message of a client as the stream without frames has it: `<open/>` and `<close/>` are the header and the end
    (RFC 7395, 3.4, 3.6), all else is as it is. Raises StreamError."""
    if not message.startswith((b"<open", b"<close")):
        return message
    found = parsed(message, _LIMITS)
    if found.name == f"{ns.FRAMING} close":
        return CLOSE_STREAM
    if found.name != f"{ns.FRAMING} open":
        raise errors.InvalidNamespace("The stream opens with <open/> of RFC 7395.")
    if found.inner:
        raise errors.BadFormat("<open/> holds nothing.")
    get = found.attributes.get
    return open_stream(
        namespace=ns.CLIENT, from_=get("from") or "", to=get("to"), lang=get(f"{ns.XML} lang"), version=get("version")
    )


def parsed(data: bytes, limits: Limits) -> Element:
    """One element that is no stanza, held to the rules of streams (RFC 6120, 11.1). Raises StreamError."""
    parser = StreamParser(ns.CLIENT, limits, is_framed=True)
    parser.push(_HEADER)
    parser.next_event()
    parser.flow()
    events = parser.feed(data)
    parser.close()
    match events:
        case [Element() as found]:
            return found
        case [Violation(error=fault)]:
            raise fault
    raise errors.BadFormat
