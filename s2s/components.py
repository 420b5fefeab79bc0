"""A component's XML stream (XEP-0114, 'jabber:component:accept') from header to close: bytes and answers in, bytes and
requests out. No sockets.

A component proves by its secret that a domain is its own, then sends as anybody there. Its session is that of the
domain's peer entity, which routes what it sends and chooses among several connections of one component.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import sha1
from hmac import compare_digest
from typing import Final, Protocol

from cluster import logs
from cluster.edge import Attached, Edge, EdgeSession, Refused
from s2s.component_metrics import stats
from xmpp import errors, ns
from xmpp.errors import JidError, StanzaError, StreamError
from xmpp.jid import domain_of, prepare
from xmpp.stanza import Stanza, encode, error, is_answerable
from xmpp.stream import (
    CLOSE_STREAM,
    Element,
    Event,
    Limits,
    StreamClose,
    StreamOpen,
    StreamParser,
    Violation,
    open_stream,
)
from xmpp.xml import element, escape_text

log = logs.get_logger()

CLOSE_WITHIN_S: Final = 5.0  # how long a component that has closed its stream waits for what it sent to be confirmed
BEFORE_LOGIN_BYTES: Final = 16_384
BEFORE_LOGIN: Final = Limits(stanza_bytes=4_096, depth=4, attributes=16, elements=10)
LEAVE_WITHIN_S: Final = 5.0  # how long a component may go on sending when we have told it to come back elsewhere
_HANDSHAKE: Final = f"{ns.COMPONENT} handshake"

# What a refusal by the owner, a stanza error, is called where it ends a stream.
_STREAM_CONDITIONS: Final = {"remote-server-timeout": "remote-connection-failed"}  # RFC 6120, 4.9.3.15


class State(Enum):
    """Where a stream is."""

    HEADER = "header"  # the component opens it
    HANDSHAKE = "handshake"  # it proves itself
    ATTACHING = "attaching"  # the domain's owner is asked
    BOUND = "bound"
    LEAVING = "leaving"  # we have closed our half; what the component has still sent is read
    CLOSING = "closing"  # the component has closed its half; what it sent is being confirmed
    CLOSED = "closed"


_READING: Final = (State.BOUND, State.LEAVING)
# Why a stream is over when its connection ends in one of these.
_LOST: Final = {State.CLOSING: "component", State.LEAVING: "system-shutdown"}


class Transport(Protocol):
    """What carries a stream. After `close` and `abort`, `connection_lost` follows."""

    def write(self, data: bytes) -> None:
        """Queue bytes."""

    def close(self) -> None:
        """Write what is queued, then end the connection."""

    def abort(self) -> None:
        """End the connection at once."""

    def pause_reading(self) -> None:
        """Read no more for now."""

    def resume_reading(self) -> None:
        """Read again."""

    @property
    def address(self) -> str:
        """The component's address."""


@dataclass(frozen=True, slots=True)
class ComponentSettings:
    """What every component stream of a process keeps to."""

    server: str  # a domain of ours, to name where the component has named none
    secrets: Mapping[str, str]  # by domain, prepared
    limits: Limits
    login_timeout_s: float
    keepalive_s: float


def digests(stream_id: str, secret: str) -> tuple[bytes, ...]:
    """What `<handshake/>` may hold (XEP-0114, 3): SHA-1 of the stream's id and the secret, in hex. The XEP escapes
    both as XML. COMPAT: slixmpp 1.17, biboumi 9.0 do not; there is a difference only where the secret has & < or >."""
    text = stream_id + secret
    return tuple(sha1(form.encode()).hexdigest().encode() for form in (text, escape_text(text)))


class ComponentStream:
    """One connection of a component. Also the sink of its session."""

    __slots__ = (
        "_before_login", "_closed_at", "_domain", "_edge", "_id", "_is_held", "_lang", "_last_in", "_last_out", "_log",
        "_new_id", "_now", "_opened_at", "_parser", "_reason", "_request", "_settings", "_state", "_transport", "q",
        "session",
    )  # fmt: skip

    def __init__(
        self, transport: Transport, edge: Edge, settings: ComponentSettings, new_id: Callable[[], str],
        now: Callable[[], float],
    ) -> None:  # fmt: skip
        self._transport = transport
        self._edge = edge
        self._settings = settings
        self._new_id = new_id
        self._now = now  # monotonic seconds
        self._parser = StreamParser(ns.COMPONENT, BEFORE_LOGIN)
        self._state = State.HEADER
        self._is_held = False  # the owner's answer is awaited
        self._before_login = 0  # bytes read before authentication
        self._id = ""
        self._domain = ""
        self._lang: str | None = None
        self._request: str | None = None
        self._reason = ""
        self._opened_at = self._last_in = self._last_out = now()
        self._closed_at = 0.0  # one half of it
        self._log = log.bind(address=transport.address)
        self.session: EdgeSession | None = None
        self.q = 0  # the last of the session's deliveries that was written

    @property
    def state(self) -> State:
        """Where the stream is."""
        return self._state

    # --- the transport's side

    def receive_data(self, data: bytes) -> None:
        """Bytes from the component, however cut."""
        if self._state in _READING:
            self._last_in = self._now()
            self._handle_all(self._parser.feed(data))
            return
        if self._state in (State.CLOSING, State.CLOSED):
            return  # RFC 6120, 4.4: who has closed its stream sends nothing more
        self._parser.push(data)
        if self._is_held:
            self._transport.pause_reading()  # until the answer is there
            return
        self._before_login += len(data)
        if self._before_login > BEFORE_LOGIN_BYTES:
            self.fail(errors.StreamPolicyViolation("Too much data before authentication."))
        else:
            self._negotiate()

    def receive_eof(self) -> None:
        """The component has half-closed its connection: as if it had closed the stream. It may still read."""
        if self._state is State.CLOSED:
            return
        if self._state is State.LEAVING:
            self._end("system-shutdown")
            return
        if self._state is not State.HEADER:  # else there is no stream of ours to close
            self._transport.write(CLOSE_STREAM)
        self._end("component" if self._state is State.CLOSING else "component-eof")

    def connection_lost(self) -> None:
        """The connection is gone. Only now the owner is told: what the component has got is known no sooner, and what
        it has not got is given to another connection."""
        if self._state is not State.CLOSED:
            self._end(_LOST.get(self._state, "connection-lost"))
        if self.session is not None:
            self._edge.detach(self.session, self._reason)

    def check_time(self) -> None:
        """About once a second: time-outs and keepalive. A component may be silent for as long as it likes."""
        now = self._now()
        if self._state is State.CLOSING:
            if now - self._closed_at > CLOSE_WITHIN_S:
                self._finish_close()
        elif self._state is State.LEAVING:
            if now - self._closed_at > LEAVE_WITHIN_S:
                self._end("system-shutdown")
        elif self._state is not State.BOUND:
            if now - self._opened_at > self._settings.login_timeout_s:
                self.fail(errors.ConnectionTimeout("The handshake was not done in time."))
        elif now - max(self._last_out, self._last_in) > self._settings.keepalive_s:
            self._last_out = now
            self._transport.write(b" ")  # RFC 6120, 4.6.1: whitespace keepalive

    # --- events

    def _handle_all(self, events: list[Event]) -> None:
        for event in events:
            if event.__class__ is Stanza:
                self._submit(event)
            else:
                self._handle(event)
            if self._state not in _READING:
                return

    def _negotiate(self) -> None:
        while not self._is_held and self._state in (State.HEADER, State.HANDSHAKE):
            event = self._parser.next_event()
            if event is None:
                return
            self._handle(event)

    def _handle(self, event: Event) -> None:
        match event:
            case Stanza():
                # RFC 6120, 4.9.3.12
                self.fail(errors.StreamNotAuthorized("A stanza before the handshake."))
            case StreamOpen():
                self._on_open(event)
            case Element():
                self._on_element(event)
            case StreamClose():
                self._on_close()
            case Violation():
                self.fail(event.error)

    def _on_open(self, event: StreamOpen) -> None:
        """XEP-0114, 3: 'to' is the component's domain. Ours says 'from' that domain, and has no version: no stream
        features follow."""
        try:
            domain = prepare(event.to or "")
        except JidError:
            self.fail(errors.ImproperAddressing("The 'to' of the stream header is not a domain."))
            return
        if domain not in self._settings.secrets:
            stats.handshake("unknown-domain")
            self._log.warning(
                "component_refused", domain=domain, reason="no such component",
                remedy=f'add components.domains."{domain}" with a secret, or correct the name in the component',
            )  # fmt: skip
            self.fail(errors.HostUnknown("No component of this name is configured here."))
            return
        self._domain = domain
        self._lang = event.lang
        self._log = self._log.bind(domain=domain)
        self._open()
        self._state = State.HANDSHAKE

    def _open(self) -> None:
        self._id = self._new_id()
        from_ = self._domain or self._settings.server
        self._transport.write(open_stream(namespace=ns.COMPONENT, from_=from_, id=self._id, version=None))

    def _on_element(self, event: Element) -> None:
        if self._state is State.HANDSHAKE and event.name == _HANDSHAKE:
            self._on_handshake(event.text)
        elif self._state is State.HANDSHAKE:
            self.fail(errors.StreamNotAuthorized("The handshake is needed first."))
        else:
            self.fail(errors.UnsupportedStanzaType("This element is not expected here."))

    def _on_handshake(self, text: str) -> None:
        given, secret = text.strip().encode(), self._settings.secrets[self._domain]
        if not any(compare_digest(given, digest) for digest in digests(self._id, secret)):
            stats.handshake("wrong-secret")
            self._log.warning(
                "component_refused", reason="its secret is another",
                remedy=f'set components.domains."{self._domain}".secret and that of the component to the same text',
            )  # fmt: skip
            self.fail(errors.StreamNotAuthorized("The handshake does not match the secret."))
            return
        self._state = State.ATTACHING
        self._is_held = True
        facts = {
            "kind": "component", "local": "", "sends": True, "address": self._transport.address, "transport": "tcp",
        }  # fmt: skip
        self._request = self._edge.attach(self._domain, None, facts, self, self._attached)

    def _attached(self, answer: Attached | Refused) -> None:
        self._request = None
        if isinstance(answer, Refused):
            stats.handshake("refused")
            condition = _STREAM_CONDITIONS.get(answer.condition, answer.condition)
            self._log.warning("component_refused", reason=f"{condition} {answer.text}".strip())
            self.fail(errors.stream_error(condition, answer.text or None))
            return
        stats.handshake("ok")
        self.session = answer.session
        self._state = State.BOUND
        self._is_held = False
        self._log = self._log.bind(sid=answer.session.sid)
        self._log.info("component_attached")
        self._parser.limits = self._settings.limits
        self._transport.write(element("handshake"))
        self._transport.resume_reading()
        self._handle_all(self._parser.flow())

    # --- stanzas

    def _submit(self, stanza: Stanza) -> None:
        """Check and prepare the addresses (XEP-0114, 3: both are required, 'from' is anybody at the component's
        domain), then hand over. COMPAT: slixmpp 1.17 writes no 'from' unless it is told which; it means the component.
        """
        session = self.session
        assert session is not None
        kind, type_, to, from_, id_, lang, flags, payload, extra, inner = stanza
        try:
            from_ = prepare(from_) if from_ is not None else self._domain
        except JidError:
            self.fail(errors.InvalidFrom("The 'from' is not an address."))
            return
        if domain_of(from_) != self._domain:
            self.fail(errors.InvalidFrom("The 'from' is not an address of this component."))
            return
        stats.stanzas_in[kind] += 1
        if to is None:
            self._refuse(stanza, from_, errors.BadRequest("The stanza has no 'to'."))
            return
        try:
            to = prepare(to)
        except JidError as problem:
            self._refuse(stanza, from_, errors.JidMalformed(str(problem)))
            return
        if lang is None:
            lang = self._lang  # RFC 6120, 8.1.5
        self._edge.submit(session, Stanza(kind, type_, to, from_, id_, lang, flags, payload, extra, inner))

    def _refuse(self, stanza: Stanza, from_: str, fault: StanzaError) -> None:
        """A stanza that nobody can be the addressee of. The error comes from where the component is attached."""
        if is_answerable(stanza) and self._state is State.BOUND:
            self._transport.write(encode(error(stanza._replace(to=self._domain, from_=from_), fault)))

    # --- the sink of the session (cluster/edge.py)

    def deliver(self, stanza: Stanza) -> None:
        """Write a stanza to the component. One whose stream ends gets no more: the owner finds another, or waits."""
        if self._state is not State.BOUND or self.session is None:
            self._edge.not_written("the stream is ending")
            return
        self.q = self.session.q
        self._last_out = self._now()
        stats.stanzas_out[stanza.kind] += 1
        self._transport.write(encode(stanza, self._domain))

    def revoked(self, condition: str) -> None:
        """The session is over: the owner says so, or has heard that the stream ended."""
        self.session = None
        if self._state is State.CLOSING:
            self._finish_close()
        elif self._state is State.BOUND and condition:
            self.fail(errors.stream_error(condition))
        elif self._state is State.BOUND:
            self._transport.write(CLOSE_STREAM)
            self._end("revoked")
        elif self._state is State.LEAVING:
            self._end("system-shutdown")

    def pause_reading(self) -> None:
        """Too much is unconfirmed."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        if self._state is not State.CLOSED:
            self._transport.resume_reading()

    def confirmed(self) -> None:
        """Nothing waits for it: a component is not told what is safe."""

    # --- ends

    def _on_close(self) -> None:
        """The component closes its stream; ours closes when everything it sent is confirmed."""
        session = self.session
        if self._state is State.LEAVING:
            self._end("system-shutdown")
            return
        if session is None:
            self._transport.write(CLOSE_STREAM)
            self._end("component")
            return
        self._state = State.CLOSING
        self._closed_at = self._now()
        self._edge.written(session, self.q)  # it reads on until our end of the stream comes
        self._edge.detach(session, "component")

    def _finish_close(self) -> None:
        self._transport.write(CLOSE_STREAM)
        self._end("component")

    def shut_down(self) -> None:
        """The process drains: the component is to come back elsewhere (RFC 6120, 4.9.3.20). What it has sent before it
        reads so is taken: it has no other way to know what was."""
        if self._state is State.BOUND:
            self._write_error(errors.SystemShutdown())
            self._state = State.LEAVING
            self._closed_at = self._now()
        elif self._state is not State.LEAVING:
            self.fail(errors.SystemShutdown())

    def fail(self, fault: StreamError) -> None:
        """Close the stream with an error, opening it first where that has not happened yet (RFC 6120, 4.9.1.2)."""
        if self._state is State.CLOSED:
            return
        if self._state is State.HEADER:
            self._open()
        if self._state is not State.LEAVING:
            self._write_error(fault)
        self._end(fault.condition)

    def _write_error(self, fault: StreamError) -> None:
        stats.stream_error(fault.condition)
        self._transport.write(fault.to_bytes() + CLOSE_STREAM)

    def _end(self, reason: str) -> None:
        """Nothing is read or written any more; `connection_lost` follows."""
        was_bound = self._state in (State.BOUND, State.LEAVING, State.CLOSING)
        self._state = State.CLOSED
        self._reason = reason
        self._parser.close()
        if self._request is not None:
            self._edge.cancel(self._request)
        stats.closed(reason)
        if was_bound:
            self._log.info("component_closed", reason=reason, seconds=round(self._now() - self._opened_at, 3))
        self._transport.close()
