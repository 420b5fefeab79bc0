"""What streams with other servers have in common (RFC 6120): stanzas both ways, stream management, the end. No sockets.

A stream carries *pairs*, a domain of the peer and one of ours; each is authenticated, and attaches a session of its own
to the peer entity (`cluster/edge.py`). How a pair is authenticated is in `incoming.py`, `outgoing.py`, `dialback.py`.

Whoever wants to end a stream lets what was written be acknowledged first, and what was read be confirmed: `leave`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from typing import ClassVar, Final, NamedTuple, Protocol

import structlog

from cluster.edge import Attached, Edge, EdgeSession, Refused
from s2s.dialback import Answering
from s2s.management import Management
from s2s.metrics import stats
from s2s.negotiation import (
    ACK,
    ACK_REQUEST,
    ENABLE,
    ENABLED,
    ENDING,
    FAILED,
    READING,
    STREAM_ERROR,
    State,
)
from s2s.peer import Proof, StreamSettings, Transport
from xmpp import dialback, errors, ns
from xmpp.dialback import Dialback
from xmpp.errors import JidError, StanzaError, StreamError
from xmpp.jid import domain_of, prepare
from xmpp.stanza import Stanza, encode, error, is_answerable
from xmpp.stream import (
    CLOSE_STREAM,
    Element,
    Event,
    StreamClose,
    StreamOpen,
    StreamParser,
    Violation,
)
from xmpp.xml import parse_children, split_tag

log = structlog.get_logger(__name__)

PARSER_SLEEPS_S: Final = 1.0  # a parser costs 12 KB to keep and 5 us to make anew
SETTLE_WITHIN_S: Final = 10.0  # how long what was written may take to be acknowledged before we close
LEAVE_WITHIN_S: Final = 5.0  # how long the peer may take to close its stream after ours
CLOSE_WITHIN_S: Final = 5.0  # how long what was read may take to be confirmed
PROOFS: Final = 100  # domains of one peer whose proofs are remembered


class Host(Protocol):
    """What a stream needs of its process (s2s/federation.py)."""

    secret: bytes  # of dialback, the same in the whole cluster

    def prove(self, transport: Transport, domain: str, done: Callable[[Proof], None]) -> None:
        """Find out whether the peer is the server of a domain, without dialback."""

    def verify(
        self, stream: Stream, question: Dialback, stream_id: str, done: Callable[[bool | StanzaError], None]
    ) -> None:
        """Have a key verified by its authoritative server, on another stream than this one."""

    def attached(self, stream: Stream, pair: Pair) -> None:
        """A pair is authenticated."""

    def leaving(self, stream: Stream) -> None:
        """The stream takes no more stanzas."""

    def ended(self, stream: Stream, reason: str) -> None:
        """The stream is over."""


class Pair:
    """An authenticated pair of domains on a stream; the sink of its session."""

    __slots__ = ("_stream", "how", "local", "remote", "sends", "session")

    def __init__(self, stream: Stream, remote: str, local: str, how: str, sends: bool) -> None:
        self._stream = stream
        self.remote = remote
        self.local = local
        self.how = how  # external or dialback
        self.sends = sends  # stanzas may go to the peer
        self.session: EdgeSession | None = None

    def deliver(self, stanza: Stanza) -> None:
        """Write a stanza to the peer."""
        self._stream.deliver(self, stanza)

    def revoked(self, condition: str) -> None:
        """The session is over."""
        self._stream.revoked(self, condition)

    def pause_reading(self) -> None:
        """Too much is unconfirmed."""
        self._stream.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading."""
        self._stream.resume_reading()

    def confirmed(self) -> None:
        """What the peer asked about is safe."""
        self._stream.confirmed()


class _Attaching(NamedTuple):
    """A pair whose owner is asked for a session."""

    request: str
    waiting: list[Callable[[Refused | None], None]]


class Stream(ABC):
    """One stream. What differs by direction is in the subclasses."""

    __slots__ = (
        "_answering", "_attaching", "_before_login", "_edge", "_farewell", "_host", "_is_bidi", "_is_closed",
        "_is_closed_by_us", "_is_held", "_is_open", "_lang", "_last_in", "_last_out", "_last_stanza", "_leaving_since",
        "_log", "_management", "_max_bytes", "_now", "_opened_at", "_parser", "_postponed", "_proofs", "_reason",
        "_settings", "_state", "_transport", "id", "pairs", "peer_error",
    )  # fmt: skip

    direction: ClassVar[str]
    elements: ClassVar[Mapping[State, frozenset[str]]]

    def __init__(
        self, edge: Edge, settings: StreamSettings, host: Host, now: Callable[[], float], state: State,
        transport: Transport | None,
    ) -> None:  # fmt: skip
        self._edge = edge
        self._settings = settings
        self._host = host
        self._now = now  # monotonic seconds
        self._state = state
        self._transport = transport
        self._parser = StreamParser(ns.SERVER, settings.before_login)
        self.id = ""  # of the stream, given by whoever was connected to
        self.pairs: dict[tuple[str, str], Pair] = {}  # by (remote, local)
        self.peer_error = ""  # the condition of the stream error that the peer has sent
        self._attaching: dict[tuple[str, str], _Attaching] = {}
        self._postponed: deque[Event] = deque()
        self._answering = Answering(self, settings)
        self._management = Management(self, edge)
        self._proofs: dict[str, Proof] = {}
        self._lang: str | None = None
        self._max_bytes: int | None = None  # the largest element that the peer takes (XEP-0478)
        self._before_login = 0  # bytes read before anybody was authenticated
        self._is_bidi = False  # XEP-0288
        self._is_held = False  # an answer is awaited
        self._is_open = False  # our header is written
        self._is_closed_by_us = False  # our end of the stream is written
        self._is_closed = False
        self._farewell = b""
        self._reason = ""
        self._opened_at = self._last_in = self._last_out = self._last_stanza = self._leaving_since = now()
        self._log = log.bind(direction=self.direction)

    @property
    def state(self) -> State:
        """Where the stream is."""
        return self._state

    @property
    def is_closed(self) -> bool:
        """Whether it is over."""
        return self._is_closed

    @property
    def is_secure(self) -> bool:
        """Whether TLS is in force."""
        return self._transport is not None and self._transport.is_secure

    @property
    def secret(self) -> bytes:
        """Of dialback."""
        return self._host.secret

    @property
    def written(self) -> int:
        """How many stanzas were written."""
        return self._management.written

    @property
    def awaits_kernel(self) -> bool:
        """Whether stanzas were written that count as acknowledged when the kernel has taken them."""
        return self._management.awaits_kernel

    @property
    def transport(self) -> Transport:
        """The connection; there is one unless the stream is CONNECTING."""
        assert self._transport is not None
        return self._transport

    # --- the transport's side

    def receive_data(self, data: bytes) -> None:
        """Bytes from the peer, however cut."""
        stats.bytes_in += len(data)
        if self._state in (State.CLOSING, State.CLOSED):
            return
        self._last_in = self._now()
        if self._state in READING:
            self._handle_all(self._parser.feed(data))
            return
        self._parser.push(data)
        self._before_login += len(data)
        if self._is_held:
            self.transport.pause_reading()  # until the answer is there
        else:
            self._negotiate()
        is_stranger = not (self.pairs or self._attaching or self._is_closed)
        if is_stranger and self._before_login > self._settings.before_login_bytes:
            self.fail(errors.StreamPolicyViolation("Too much data before authentication."))

    def receive_eof(self) -> None:
        """The peer has half-closed its connection: as if it had closed the stream, and the connection with it."""
        if not self._is_closed:
            self._write_end()
            self._end(self._reason or ("peer" if self._state in ENDING else "connection-lost"))
            self.transport.close()

    def connection_lost(self) -> None:
        """The connection is gone."""
        if not self._is_closed:
            self._end(self._reason or ("peer" if self._state in ENDING else "connection-lost"))

    def tls_established(self) -> None:
        """The STARTTLS handshake is done: a new stream begins (RFC 6120, 5.4.3.3). What was sent in clear behind
        <starttls/> or <proceed/> is thrown away: it was not protected."""
        if self._is_closed:
            return
        self._parser.restart(drop=True)
        self._is_held = False
        self._restart()

    def tls_failed(self, problem: str) -> None:
        """It has failed, and with it the connection."""
        self._log.info("tls_failed", problem=problem)
        self.connection_lost()

    def taken(self, written: int) -> None:
        """The kernel has taken the first so many stanzas that were written."""
        self._management.taken(written)
        if self._state is State.SETTLING:
            self._settle()

    def check_time(self) -> None:
        """About once a second: time-outs, keepalive, sleep of an idle parser."""
        now, settings = self._now(), self._settings
        waited = now - self._leaving_since
        if self._state is State.OPEN:
            self._check_open(now)
        elif self._state is State.SETTLING:
            if waited > SETTLE_WITHIN_S:
                self._leave()
        elif self._state is State.LEAVING:
            if waited > LEAVE_WITHIN_S:
                self._conclude()
        elif self._state is State.CLOSING:
            if waited > CLOSE_WITHIN_S:
                self._finish()
        elif now - self._opened_at > settings.login_timeout_s:
            self.fail(errors.ConnectionTimeout("No domain was authenticated in time."))

    def _check_open(self, now: float) -> None:
        settings, management = self._settings, self._management
        if not management.check_time(now, self._is_paused()):
            self.fail(errors.ConnectionTimeout("What was sent is not acknowledged."))
        elif now - self._last_stanza > settings.idle_timeout_s and self._is_quiet():
            self.leave("idle")
        elif now - max(self._last_out, self._last_in) > settings.keepalive_s:
            self._last_out = now
            self.write(b" ")  # RFC 6120, 4.6.1: whitespace keepalive
        elif now - self._last_in > PARSER_SLEEPS_S:
            self._parser.hibernate()

    def _is_quiet(self) -> bool:
        """Whether nothing is under way in either direction."""
        sessions = [pair.session for pair in self.pairs.values() if pair.session is not None]
        return self._management.is_settled and not self._attaching and not any(session.held for session in sessions)

    # --- events

    def _handle_all(self, events: list[Event]) -> None:
        if self._postponed:
            self._postponed.extend(events)
            return
        for index, event in enumerate(events, 1):
            if event.__class__ is Stanza:
                self._submit(event)
            else:
                self._handle(event)
            if self._state not in READING:
                return
            if self._postponed:
                self._postponed.extend(events[index:])
                return

    def _postpone(self, stanza: Stanza) -> None:
        """A pair is authenticated and its owner has not answered yet: on a stream of two directions the peer may send
        at once. Everything waits."""
        self._postponed.append(stanza)
        self.transport.pause_reading()
        if self._state not in READING:
            self._hold()

    def _go_on(self) -> None:
        """Handle what was postponed."""
        if self._postponed and not self._is_closed:
            events = list(self._postponed)
            self._postponed.clear()
            self.resume_reading()
            self._handle_all(events)

    def _negotiate(self) -> None:
        """One event at a time: each may change what the next one means."""
        while not self._is_held and not self._is_closed and self._state not in READING:
            event = self._parser.next_event()
            if event is None:
                return
            self._handle(event)

    def _hold(self) -> None:
        """Handle nothing more until an answer is there."""
        self._is_held = True

    def _release(self) -> None:
        if self._is_held and not self._is_closed:
            self._is_held = False
            self.transport.resume_reading()
            self._negotiate()

    def _handle(self, event: Event) -> None:
        try:
            match event:
                case Stanza():
                    self._submit(event)
                case StreamOpen():
                    self._on_open(event)
                case Element():
                    self._on_element(event)
                case StreamClose():
                    self._on_close()
                case Violation():
                    self.fail(event.error)
        except StreamError as fault:
            self.fail(fault)

    @abstractmethod
    def _on_open(self, event: StreamOpen) -> None:
        """The peer's header (RFC 6120, 4.7)."""

    def _on_element(self, event: Element) -> None:
        if event.name == STREAM_ERROR:
            self._on_error(event)
        elif event.name not in self.elements.get(self._state, frozenset()):
            raise errors.UnsupportedStanzaType("This element is not expected here.")
        elif event.name in (dialback.RESULT, dialback.VERIFY):
            self._on_dialback(dialback.parse(event))
        elif self._state in READING:
            self._on_management(event)
        else:
            self._on_step(event)

    @abstractmethod
    def _on_step(self, event: Element) -> None:
        """A step of the negotiation."""

    def _on_dialback(self, event: Dialback) -> None:
        """A question is answered where the peer may ask; an answer that nobody has asked for is dropped, whatever it
        says (XEP-0220, 3.1)."""
        if event.type is not None:
            self._on_answer(event)
        elif event.name == dialback.VERIFY:
            self._answering.on_verify(event)
        elif not self.takes_stanzas:
            raise errors.UnsupportedStanzaType("The stream has one direction only.")
        elif self._state not in ENDING:
            self._answering.on_result(event)

    def _on_answer(self, event: Dialback) -> None:  # noqa: B027  # who was connected to has asked nothing
        """The answer to something that may have been asked on this stream."""

    def _on_management(self, event: Element) -> None:
        management = self._management
        if event.name == ENABLE:
            if management.is_counting:
                raise errors.StreamPolicyViolation("Stream management is enabled already.")
            management.accept()
        elif event.name == ENABLED:
            if not management.is_managed or management.is_counting:
                raise errors.UnsupportedStanzaType("Nobody has asked for stream management.")
            management.enable()
        elif event.name == FAILED:
            management.refused()
        elif event.name == ACK_REQUEST:
            management.on_request()
        elif event.name == ACK:
            management.on_ack(event, self._now())
            if self._state is State.SETTLING:
                self._settle()

    def _on_error(self, event: Element) -> None:
        """RFC 6120, 4.9.1.1: the stream is over; the peer closes it."""
        self.peer_error = _condition(event.inner)
        stats.stream_error("in", self.peer_error)
        self._log.info("stream_error_received", condition=self.peer_error)
        self._write_end()
        self._end("peer-error")
        self.transport.close()

    # --- pairs

    @property
    def takes_stanzas(self) -> bool:
        """Whether the peer may send stanzas at all: on a stream that it has opened, and with two directions."""
        return self._is_bidi

    @property
    def sends_stanzas(self) -> bool:
        """Whether we may."""
        return self._is_bidi

    @property
    def pair_count(self) -> int:
        """How many pairs are authenticated."""
        return len(self.pairs)

    def has_pair(self, remote: str, local: str) -> bool:
        """Whether a pair is authenticated."""
        return (remote, local) in self.pairs

    def prove(self, domain: str, done: Callable[[Proof], None]) -> None:
        """Whether the peer is the server of this domain, without dialback."""
        if not self.is_secure:
            done(Proof.UNPROVEN)
        elif (known := self._proofs.get(domain)) is not None:
            done(known)
        else:
            self._host.prove(self.transport, domain, lambda proof: self._proved(domain, proof, done))

    def _proved(self, domain: str, proof: Proof, done: Callable[[Proof], None]) -> None:
        if len(self._proofs) < PROOFS:
            self._proofs[domain] = proof
        if not self._is_closed:
            done(proof)

    def verify(self, question: Dialback, done: Callable[[bool | StanzaError], None]) -> None:
        """Have a key of this stream verified."""
        self._host.verify(self, question, self.id, done)

    def attach(self, remote: str, local: str, how: str, done: Callable[[Refused | None], None]) -> None:
        """The pair is authenticated: attach its session, then let stanzas flow. `done` is told in between."""
        key = (remote, local)
        if key in self.pairs:
            done(None)
            return
        if key in self._attaching:  # both sides have asked, on a stream of two directions
            self._attaching[key].waiting.append(done)
            return
        pair = Pair(self, remote, local, how, self.sends_stanzas)
        facts = {
            "kind": "s2s",
            "local": local,
            "sends": pair.sends,
            "address": self.transport.address,
            "transport": self.transport.transport_name,
            "how": how,
        }

        def answered(answer: Attached | Refused) -> None:
            waiting = self._attaching.pop(key).waiting
            if isinstance(answer, Refused):
                stats.authenticated(self.direction, how, "failed")
                for done in waiting:
                    done(answer)
                self._go_on()
                return
            stats.authenticated(self.direction, how, "ok")
            pair.session = answer.session
            self.pairs[key] = pair
            self._last_stanza = self._now()
            self._log.info(
                "stream_authenticated", remote=remote, local=local, how=how,
                transport=self.transport.transport_name, bidi=self._is_bidi,
            )  # fmt: skip
            self._host.attached(self, pair)
            for done in waiting:
                done(None)
            if self._state in READING:
                self._go_on()
            elif not self._is_closed:
                self._flow()

        self._parser.limits = self._settings.after_login
        self._attaching[key] = _Attaching(self._edge.attach(remote, None, facts, pair, answered), [done])

    def _flow(self) -> None:
        """The first pair is there: stanzas may come."""
        self._state = State.OPEN
        self._is_held = False
        events = [*self._postponed, *self._parser.flow()]
        self._postponed.clear()
        self.transport.resume_reading()
        self._handle_all(events)

    # --- stanzas

    def _submit(self, stanza: Stanza) -> None:
        """Check `from` and `to`, and hand over (RFC 6120, 8.1; 4.9.3)."""
        kind, type_, to, from_, id_, lang, flags, payload, extra, inner = stanza
        if from_ is None or to is None:
            self.fail(errors.ImproperAddressing("A stanza between servers has a 'to' and a 'from'."))
            return
        try:
            to, from_ = prepare(to), prepare(from_)
        except JidError:
            self.fail(errors.ImproperAddressing("The 'to' or 'from' of a stanza is no address."))
            return
        pair = self.pairs.get((domain_of(from_), domain_of(to)))
        if pair is None or pair.session is None or not self.takes_stanzas:
            if self.takes_stanzas and (domain_of(from_), domain_of(to)) in self._attaching:
                self._postpone(stanza)
                return
            self.fail(self._stranger(domain_of(from_), domain_of(to)))
            return
        if lang is None:
            lang = self._lang  # RFC 6120, 8.1.5: any stanza
        self._last_stanza = self._last_in
        stats.stanzas_in[kind] += 1
        self._edge.submit(pair.session, Stanza(kind, type_, to, from_, id_, lang, flags, payload, extra, inner))
        self._management.read(pair.session)

    def _stranger(self, remote: str, local: str) -> StreamError:
        """Why a stanza may not come on this stream."""
        if not self.pairs or not self.takes_stanzas:
            return errors.StreamNotAuthorized("Nobody is authenticated to send stanzas here.")
        if local not in self._settings.domains:
            return errors.HostUnknown("This domain is not served here.")
        if not any(pair.remote == remote for pair in self.pairs.values()):
            return errors.InvalidFrom("The domain of 'from' is not authenticated.")
        return errors.StreamNotAuthorized("This pair of domains is not authenticated (XEP-0220, 2.6).")

    def deliver(self, pair: Pair, stanza: Stanza) -> None:
        """Write a stanza to the peer. One that comes too late its owner gets back, when the session is detached."""
        session = pair.session
        if self._state is not State.OPEN or session is None:
            self._edge.not_written("the stream is ending")
            return
        data = encode(stanza)
        if self._max_bytes is not None and len(data) > self._max_bytes:
            self._edge.not_written(f"the other server takes at most {self._max_bytes} bytes (XEP-0478)")
            self._return(session, stanza)
            return
        self._last_out = self._last_stanza = self._now()
        stats.stanzas_out[stanza.kind] += 1
        self.write(data)
        self._management.sent(session, self._last_out)

    def _return(self, session: EdgeSession, stanza: Stanza) -> None:
        """XEP-0478, 4: what is too large for the peer is answered with an error, and the stream lives."""
        if is_answerable(stanza):
            fault = errors.PolicyViolation(f"The other server takes at most {self._max_bytes} bytes.")
            self._edge.submit(session, error(stanza, fault))
        self._management.skipped(session)

    def revoked(self, pair: Pair, condition: str) -> None:
        """The session is over: its owner says so, or has heard that the stream ends."""
        pair.session = None
        if self._state is State.CLOSING:
            if all(other.session is None for other in self.pairs.values()):
                self._finish()
        elif not self._is_closed:
            self.fail(errors.stream_error(condition or errors.Reset.condition))

    def pause_reading(self) -> None:
        """Too much is unconfirmed."""
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on, unless another pair of the stream still has too much."""
        if not self._is_closed and not self._is_paused() and not self._postponed:
            self.transport.resume_reading()

    def _is_paused(self) -> bool:
        return any(pair.session is not None and pair.session.is_paused for pair in self.pairs.values())

    def confirmed(self) -> None:
        """What the peer asked about is safe."""
        self._management.acknowledge()

    # --- output

    def write(self, data: bytes) -> None:
        """What the stream's parts write."""
        if not self._is_closed and not self._is_closed_by_us:
            self.transport.write(data)

    @abstractmethod
    def _write_header(self) -> None:
        """Open our stream."""

    @abstractmethod
    def _restart(self) -> None:
        """A new stream begins, by TLS or SASL."""

    def _write_end(self) -> None:
        """Close our stream, with the error that there may be; only once."""
        if self._is_open and not self._is_closed_by_us:
            self.write(self._farewell + CLOSE_STREAM)
            self._is_closed_by_us = True

    # --- ends

    def shut_down(self) -> None:
        """The process drains (RFC 6120, 4.9.3.20): the peer comes back, to another process."""
        self.leave(errors.SystemShutdown.condition, errors.SystemShutdown())

    def leave(self, reason: str, fault: StreamError | None = None) -> None:
        """End the stream so that nothing is lost. First, what was written is acknowledged; stanzas that are delivered
        from here on are not written, and go back to their owner when the session is detached."""
        if self._state in ENDING:
            return
        if self._state is not State.OPEN:
            self._stop(reason, fault)
            return
        self._reason = reason
        if fault is not None:
            self._farewell = fault.to_bytes()
            stats.stream_error("out", fault.condition)
        self._enter(State.SETTLING)
        self._host.leaving(self)
        self._settle()

    def _settle(self) -> None:
        if self._management.is_settled:
            self._leave()

    def _leave(self) -> None:
        """Then what was read is confirmed. With stream management, the peer learns how far we have read, so we stop
        reading first. Without it, whatever the peer sends before it closes its stream must be read."""
        if self._management.is_counting or not self.takes_stanzas:
            self._conclude()
            return
        self._write_end()
        self._enter(State.LEAVING)

    def _on_close(self) -> None:
        """The peer closes its stream; ours closes when everything it sent is confirmed."""
        if self._state in READING:
            self._reason = self._reason or "peer"
            self._conclude()
        else:
            self._stop("peer", None)

    def _conclude(self) -> None:
        if self._state is State.OPEN:
            self._host.leaving(self)
        self._enter(State.CLOSING)
        sessions = [pair.session for pair in self.pairs.values() if pair.session is not None]
        for session in sessions:
            self._edge.detach(session, self._reason)
        if not sessions:
            self._finish()

    def _finish(self) -> None:
        self._management.acknowledge()
        self._write_end()
        self._end(self._reason)
        self.transport.close()

    def _enter(self, state: State) -> None:
        self._state = state
        self._leaving_since = self._now()

    def fail(self, fault: StreamError) -> None:
        """Close the stream with an error (RFC 6120, 4.9.1.1), opening it first where that has not happened yet
        (4.9.1.2)."""
        if not self._is_closed:
            self._stop(fault.condition, fault)

    def _stop(self, reason: str, fault: StreamError | None) -> None:
        """End the stream at once."""
        if self._transport is not None and self._state is not State.HANDSHAKE:  # else there is no stream to write to
            if fault is not None and not self._is_closed_by_us:
                if not self._is_open:
                    self._write_header()
                stats.stream_error("out", fault.condition)
                self._farewell = fault.to_bytes()
            self._write_end()
        if fault is not None:
            self._log.info("stream_refused", condition=fault.condition, problem=str(fault))
        self._end(reason)
        if self._transport is not None:
            self._transport.close()

    def _end(self, reason: str) -> None:
        """Nothing is read or written any more; the owners are told. What was read stays with the edge until it is
        confirmed."""
        self._is_closed = True
        was_open = self._state in ENDING or self._state is State.OPEN
        self._state = State.CLOSED
        self._parser.close()
        self._answering.close()
        for attaching in self._attaching.values():
            self._edge.cancel(attaching.request)
        self._attaching.clear()
        for pair in self.pairs.values():
            if pair.session is not None:
                self._edge.detach(pair.session, reason)
        stats.closed(self.direction, reason)
        if was_open:
            self._log.info("stream_closed", reason=reason, seconds=round(self._now() - self._opened_at, 3))
        self._host.ended(self, reason)


def _condition(inner: bytes) -> str:
    """The condition of a <stream:error/>; "undefined-condition" where there is none that we know."""
    for child in parse_children(inner, ns.SERVER):
        namespace, local = split_tag(str(child.tag))
        if namespace == ns.STREAM_ERRORS and local in errors.STREAM_ERRORS:
            return local
    return errors.StreamUndefinedCondition.condition
