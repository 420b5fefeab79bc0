"""XML that comes with an import, read within the limits that clients have, and moments as ids of the log."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from lxml import etree

from storage.log import ID_BITS
from xmpp import ns
from xmpp.errors import JidError
from xmpp.jid import prepare
from xmpp.stanza import KINDS, Stanza
from xmpp.stream import Limits, StreamParser, open_stream
from xmpp.xml import canonical_element, escape_text, parse_document

_HEADER: Final = open_stream(namespace=ns.CLIENT, from_="a", id="a")
_LIMITS: Final = Limits(stanza_bytes=524_288, elements=20_000)
_TIE_BITS: Final = 10  # of an id below the microseconds
_TIE: Final = (1 << _TIE_BITS) - 1


class Unfit(ValueError):
    """It is not as it has to be, and why."""


def read_stanza(xml: str, kind: int) -> Stanza:
    """One stanza of 'jabber:client', with prepared addresses. Raises Unfit."""
    parser = StreamParser(ns.CLIENT, _LIMITS)
    try:
        parser.push(_HEADER)
        parser.next_event()
        events = [*parser.flow(), *parser.feed(xml.encode())]
    except UnicodeEncodeError:
        raise Unfit("it is not UTF-8") from None
    finally:
        parser.close()
    if len(events) != 1 or not isinstance(events[0], Stanza) or events[0].kind != kind:
        name = next(name for name, of in KINDS.items() if of == kind)
        raise Unfit(f"it is no {name} that a stream could carry (well-formed, up to {_LIMITS.stanza_bytes} bytes)")
    stanza = events[0]
    try:
        return stanza._replace(to=_prepared(stanza.to), from_=_prepared(stanza.from_))
    except JidError as problem:
        raise Unfit(f"an address in it is no JID: {problem}") from None


def read_element(xml: str) -> etree._Element:
    """One element. Raises Unfit."""
    children = read_stanza(f"<message>{xml}</message>", KINDS["message"]).children()
    if len(children) != 1:
        raise Unfit("it is not one element")
    return children[0]


def without(message: Stanza, is_dropped: Callable[[etree._Element], bool]) -> Stanza:
    """A message without some of its children, and without what parts of its content are indented by."""
    root = parse_document(b'<message xmlns="%b">%b</message>' % (ns.CLIENT.encode(), message.inner))
    inner = escape_text((root.text or "").strip()).encode()
    for child in root:
        if isinstance(child.tag, str) and not is_dropped(child):
            inner += canonical_element(child, ns.CLIENT)
        inner += escape_text((child.tail or "").strip()).encode()
    return message._replace(inner=inner)


def read_jid(text: object) -> str:
    """A prepared address. Raises Unfit."""
    try:
        return prepare(str(text))
    except (JidError, UnicodeError) as problem:
        raise Unfit(f"{str(text)[:100]!r} is no JID: {problem}") from None


def id_of(at: int, name: str, message: Stanza) -> int:
    """The id of a message of long ago: the same each time that it comes, in the order of the moments (microseconds).
    Where `name` is an id of this log's kind and of that moment, it is kept."""
    milliseconds, rest = divmod(at, 1000)
    if name.isascii() and name.isdigit() and len(name) < 20 and int(name) >> ID_BITS == milliseconds:
        return int(name)
    digest = blake2b(f"{name}\0{message.id}\0".encode() + message.inner, digest_size=2).digest()
    return milliseconds << ID_BITS | rest << _TIE_BITS | int.from_bytes(digest) & _TIE


def _prepared(jid: str | None) -> str | None:
    return None if jid is None else prepare(jid)
