"""XML streams in pieces that stand alone (RFC 7395, 3; XEP-0206): no stream header is around them, so each says itself
what a header would have said for it."""

from __future__ import annotations

import re
from typing import Final

from lxml import etree

from c2s.stream import Header
from xmpp import errors, ns
from xmpp.errors import StreamError
from xmpp.stream import CLOSE_STREAM, open_stream
from xmpp.xml import element, parse_document

CLOSE: Final = element("close", ns.FRAMING)
_CLIENT: Final = f' xmlns="{ns.CLIENT}"'.encode()
_STREAM: Final = f' xmlns:stream="{ns.STREAMS}"'.encode()
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
    try:
        parsed = parse_document(message)
    except (etree.XMLSyntaxError, ValueError) as problem:
        raise errors.NotWellFormed() from problem
    if parsed.tag == f"{{{ns.FRAMING}}}close":
        return CLOSE_STREAM
    if parsed.tag != f"{{{ns.FRAMING}}}open" or len(parsed):
        raise _misplaced(str(parsed.tag))
    get = parsed.get
    return open_stream(
        namespace=ns.CLIENT,
        from_=get("from") or "",
        to=get("to"),
        lang=get(f"{{{ns.XML}}}lang"),
        version=get("version"),
    )


def _misplaced(tag: str) -> StreamError:
    if not tag.startswith(f"{{{ns.FRAMING}}}"):
        return errors.InvalidNamespace("The stream opens with <open/> of RFC 7395.")
    return errors.BadFormat("Neither <open/> nor <close/> holds anything.")
