"""Stanza Forwarding (XEP-0297): a stanza inside another one, written and read."""

from __future__ import annotations

from typing import Final

from lxml import etree

from xmpp import ns
from xmpp.errors import BadRequest, JidError, JidMalformed
from xmpp.jid import prepare
from xmpp.stanza import Stanza, encode
from xmpp.stream import Limits, StreamParser, open_stream
from xmpp.xml import canonical_element

# What is inside a stanza has passed the limits of the stream that it came by.
_UNLIMITED: Final = Limits(stanza_bytes=2**31, depth=2**16, attributes=2**16, elements=2**31)
_HEADER: Final = open_stream(namespace=ns.CLIENT, from_="a", id="a")


def write(stanza: Stanza) -> bytes:
    """The `<forwarded/>` with this stanza."""
    return b'<forwarded xmlns="%b">%b</forwarded>' % (ns.FORWARD.encode(), encode(stanza, None, ns.CLIENT))


def read(node: etree._Element) -> Stanza:
    """The stanza that an element is (it has to be of 'jabber:client': XEP-0297, 3.1), with prepared addresses, flags
    and payload as if a client had sent it. Raises BadRequest or JidMalformed."""
    parser = StreamParser(ns.CLIENT, _UNLIMITED)
    parser.push(_HEADER)
    parser.next_event()
    events = [*parser.flow(), *parser.feed(canonical_element(node, ns.CLIENT))]
    parser.close()
    if len(events) != 1 or not isinstance(events[0], Stanza):
        raise BadRequest("What is forwarded is no stanza of 'jabber:client'.")
    stanza = events[0]
    try:
        return stanza._replace(to=_prepared(stanza.to), from_=_prepared(stanza.from_))
    except JidError as problem:
        raise JidMalformed("An address of what is forwarded is not a JID.") from problem


def _prepared(jid: str | None) -> str | None:
    return None if jid is None else prepare(jid)
