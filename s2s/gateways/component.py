"""An external component's stream to its server (XEP-0114, jabber:component:accept), from the component's side.

Sans-I/O: bytes in, events and bytes out. `connection.py` has the socket, and connects again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha1
from typing import Final, NamedTuple

from xmpp import ns
from xmpp.stanza import Stanza, encode
from xmpp.stream import CLOSE_STREAM, Element, Limits, StreamClose, StreamOpen, StreamParser, Violation
from xmpp.xml import element, escape_attribute, parse_children, split_tag, text_of

_HANDSHAKE: Final = f"{ns.COMPONENT} handshake"
_ERROR: Final = f"{ns.STREAMS} error"

REMEDIES: Final = {
    "not-authorized": "component.secret is not the one that the server has for this component",
    "host-unknown": "the server has no component of the name component.jid: add it there, or correct the setting",
    "host-gone": "the server has no component of the name component.jid any more",
    "conflict": "another component is connected under component.jid: stop it",
}


class Accepted(NamedTuple):
    """The server took the handshake: stanzas may be sent."""


class Closed(NamedTuple):
    """The stream is over. `condition` is that of a stream error (RFC 6120, 4.9.3), "" without one; `remedy` is for
    the operator, "" where there is nothing to do."""

    reason: str
    condition: str = ""
    remedy: str = ""


Event = Accepted | Stanza | Closed


@dataclass(slots=True)
class ComponentStream:
    """One stream of the component `jid`."""

    jid: str
    secret: str
    is_accepted: bool = False
    is_over: bool = False
    _parser: StreamParser = field(default_factory=lambda: StreamParser(ns.COMPONENT, Limits()))
    _output: bytearray = field(default_factory=bytearray)

    def begin(self) -> None:
        """Open the stream (XEP-0114, 3.1): without a version, which is how a component's differs."""
        to = escape_attribute(self.jid)
        header = f"<?xml version='1.0'?><stream:stream xmlns='{ns.COMPONENT}' xmlns:stream='{ns.STREAMS}' to=\"{to}\">"
        self._output += header.encode()

    def send(self, stanza: Stanza) -> None:
        """Write a stanza; it must have `from` and `to`."""
        if self.is_accepted and not self.is_over:
            self._output += encode(stanza)

    def close(self) -> None:
        """Say goodbye."""
        if not self.is_over:
            self.is_over = True
            self._output += CLOSE_STREAM

    def data_to_send(self) -> bytes:
        """What is to be written; each byte is given once."""
        data = bytes(self._output)
        self._output.clear()
        return data

    def receive_data(self, data: bytes) -> list[Event]:
        """What this input means."""
        if self.is_over:
            return []
        if self.is_accepted:
            return self._events(self._parser.feed(data))
        self._parser.push(data)
        while (event := self._parser.next_event()) is not None:
            if isinstance(event, StreamOpen):
                digest = sha1(f"{event.id or ''}{self.secret}".encode(), usedforsecurity=False).hexdigest()
                self._output += element("handshake", None, None, digest)
            elif isinstance(event, Element) and event.name == _HANDSHAKE:
                self.is_accepted = True
                return [Accepted(), *self._events(self._parser.flow())]
            else:
                return self._events([event])
        return []

    def _events(self, parsed: list[Stanza | StreamOpen | Element | StreamClose | Violation]) -> list[Event]:
        events: list[Event] = []
        for event in parsed:
            if isinstance(event, Stanza):
                if self.is_accepted:  # the server sends none before (XEP-0114, 3)
                    events.append(event)
                continue
            if isinstance(event, Element) and event.name != _ERROR:
                continue
            events.append(self._ended(event))
            self.close()
            break
        return events

    def _ended(self, event: StreamOpen | Element | StreamClose | Violation) -> Closed:
        if isinstance(event, Violation):
            self._output += event.error.to_bytes()
            return Closed(f"the server sent what is not allowed: {event.error}")
        if not isinstance(event, Element):
            return Closed("the server closed the stream")
        condition, text = "undefined-condition", ""
        for child in parse_children(event.inner):
            namespace, local = split_tag(str(child.tag))
            if namespace == ns.STREAM_ERRORS and local == "text":
                text = text_of(child)
            elif namespace == ns.STREAM_ERRORS:
                condition = local
        reason = f"the server refuses: {condition}" + (f" ({text})" if text else "")
        return Closed(reason, condition, REMEDIES.get(condition, ""))
