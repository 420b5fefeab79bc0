"""The edge's half of delivery (docs/delivery.md): what this process holds for its sessions, without I/O.

For each session: stanzas read and not yet confirmed by the owner (offered again whenever the owner changes), and a
second copy of what was delivered and not yet acknowledged by the client. Streams call in; `send` puts envelopes on
the bus; each session's `Sink` is told what to write.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import structlog

from cluster.shards import ShardMap, shard_of
from cluster.wire import (
    ACKNOWLEDGED,
    ACTIVITY,
    ANNOUNCE,
    ANSWER,
    ATTACH,
    ATTACHED,
    CALL,
    CONFIRMED,
    DELIVER,
    DETACH,
    ENABLED,
    MAP,
    READ,
    REFUSED,
    RESUME,
    REVOKED,
    STATE,
    SUBMIT,
    UNREACHABLE,
    WANT,
    Announcement,
    Envelope,
    Epoch,
    Incarnation,
    SessionId,
    Shard,
)
from xmpp.stanza import Stanza, from_wire

log = structlog.get_logger(__name__)

HELD_STANZAS: Final = 64  # per session; then its socket is not read
HELD_BYTES: Final = 262_144
OVERHEAD_BYTES: Final = 200  # what a stanza weighs beside its inner bytes
ACKNOWLEDGE_EVERY: Final = 50  # stanzas, or one tick
READ_IDS: Final = 150  # of what a session's client has acknowledged last, remembered; and at most 50 more
OFFER_AGAIN_S: Final = 3.0  # the safety net of rule 5
ASK_AGAIN_S: Final = 1.0
GAP_AGAIN_S: Final = 0.5  # a gap is told once, not again for each delivery that is on its way behind it


class Sink(Protocol):
    """What a session's stream does when the owner speaks."""

    def deliver(self, stanza: Stanza) -> None:
        """Write a stanza to the client. A missing `to` is the session's bare JID, with TO_FULL its full one."""

    def revoked(self, condition: str) -> None:
        """The session is over; close the stream with this stream error condition ("" = without an error)."""

    def pause_reading(self) -> None:
        """Too much is unconfirmed: read no more from this client."""

    def resume_reading(self) -> None:
        """Go on reading."""

    def confirmed(self) -> None:
        """Everything up to `session.owed` is safe."""


class Tracing(Protocol):
    """Who is told what becomes of stanzas, while somebody traces some (cluster/edge_tracing.py)."""

    unwritten: str

    def received(self, session: EdgeSession, n: int, stanza: Stanza) -> None:
        """It came from the client."""

    def confirmed(self, session: EdgeSession, conf: int) -> None:
        """What is held up to `conf` is safe."""

    def delivered(self, session: EdgeSession, q: int, id_: int | None, stanza: Stanza) -> None:
        """The sink was given it."""

    def acknowledged(self, session: EdgeSession, q: int) -> None:
        """The client has what is unacknowledged up to `q`."""


class EdgeSession:
    """One session as this edge holds it. `n` counts what the client sent, `q` what it is sent."""

    __slots__ = (
        "acknowledged",
        "bare",
        "conf",
        "gen",
        "held",
        "held_bytes",
        "is_active",
        "is_closing",
        "is_managed",
        "is_paused",
        "is_resumable",
        "jid",
        "last_id",
        "n",
        "n0",
        "offered_at",
        "owed",
        "q",
        "q0",
        "read",
        "read_id",
        "reason",
        "resource",
        "rooms",
        "shard",
        "sid",
        "sink",
        "state",
        "told",
        "unacknowledged",
    )

    def __init__(self, sid: SessionId, gen: int, bare: str, resource: str, shard: Shard, sink: Sink) -> None:
        self.sid = sid
        self.gen = gen
        self.bare = bare
        self.resource = resource
        self.jid = f"{bare}/{resource}"
        self.shard = shard
        self.sink = sink
        self.n = self.conf = self.q = self.acknowledged = self.told = 0
        self.last_id = 0  # the greatest id of the account's log that was delivered
        self.read_id = 0  # the greatest that the client has acknowledged
        self.read: list[int] = []  # the last ones: its owner may not have heard of them
        self.rooms: dict[str, int] = {}  # the last event of each room that it was given
        self.is_managed = False  # XEP-0198: its client acknowledges what it gets
        self.owed = 0  # an <r/> is to be answered once more when conf has come so far
        self.is_resumable = False  # XEP-0198: outlives its stream; the client counts from n0 and q0 on
        self.n0 = self.q0 = 0
        self.held: deque[tuple[int, Stanza]] = deque()
        self.held_bytes = 0
        self.offered_at = 0.0
        self.unacknowledged: deque[tuple[int, int | None, Stanza]] = deque()
        self.state: Any = None
        self.is_active: bool | None = None  # XEP-0352; None: its client has never said
        self.is_paused = False
        self.is_closing = False
        self.reason = ""

    def announcement(self) -> Announcement:
        """What the session's next owner needs to know (rule 16)."""
        return (
            self.sid,
            self.gen,
            self.bare,
            self.resource,
            self.conf,
            self.q,
            self.acknowledged,
            tuple(self.unacknowledged),
            self.last_id,
            self.state,
            self.n,
            self.n0,
            self.q0,
            self.is_resumable,
            self.read_id,
            tuple(self.read),
            tuple(self.rooms.items()),
        )


class Attached(NamedTuple):
    """A resource is bound, and this is its session."""

    session: EdgeSession


class Refused(NamedTuple):
    """It is not; `condition` is a stanza error condition (RFC 6120, 7.6.2.1, 7.7.2). `h`: how much of what the client
    had sent on the session that it wants back is safe (XEP-0198, 5), None where nobody knows."""

    condition: str
    text: str
    h: int | None = None


class Answer(NamedTuple):
    """What a router said to a call. Not `ok`: `value` is a condition."""

    ok: bool
    value: Any


@dataclass(slots=True)
class _Asked:
    """An ATTACH or CALL without an answer yet; asked again of each new owner."""

    shard: Shard
    kind: int
    arguments: tuple[Any, ...]
    done: Callable[[Any], None]
    deadline: float
    asked_at: float
    bare: str = ""
    sink: Sink | None = None


class Edge:
    """All sessions of one process that holds streams."""

    def __init__(
        self,
        send: Callable[[Incarnation, Envelope], bool],
        new_request: Callable[[], str],
        now: Callable[[], float],
        failed: Callable[[], None] = lambda: None,
        read_ids: int = READ_IDS,
    ) -> None:
        self._send_to = send
        self._failed = failed  # a bug of a stream has shown itself here
        self._read_ids = read_ids
        self._new_request = new_request
        self._now = now  # monotonic seconds
        self.map = ShardMap()
        self.tracing: Tracing | None = None
        self.sessions: dict[SessionId, EdgeSession] = {}
        self._by_shard: dict[Shard, dict[SessionId, EdgeSession]] = {}
        self._asked: dict[str, _Asked] = {}
        self._touched: dict[EdgeSession, None] = {}  # with acknowledgements the owner has not been told of
        self._gap_told_at: dict[Shard, float] = {}
        self._handlers: dict[int, Callable[..., None]] = {
            DELIVER: self._on_deliver,
            CONFIRMED: self._on_confirmed,
            REVOKED: self._on_revoked,
            ATTACHED: self._on_attached,
            REFUSED: self._on_refused,
            STATE: self._on_state,
            WANT: self._on_want,
            ANSWER: self._on_answer,
            MAP: self._on_map,
        }

    # --- what streams call

    def attach(
        self, bare: str, resource: str | None, facts: dict[str, Any], sink: Sink,
        done: Callable[[Attached | Refused], None], timeout_s: float = 20.0,
    ) -> str:  # fmt: skip
        """Bind a resource (None: the server chooses one) for an authenticated account. `facts` tell the owner about
        the stream ({"address", "tls", "mechanism"}). `done` is called once, unless cancelled."""
        return self._ask(ATTACH, bare, (bare, resource, facts), done, timeout_s, sink)

    def resume(
        self, bare: str, sid: SessionId, h: int, sink: Sink, done: Callable[[Attached | Refused], None],
        timeout_s: float = 20.0,
    ) -> str:  # fmt: skip
        """Take a session back, from whichever c2s it was on (XEP-0198, 5). The client has everything up to `h`. What
        it has not is delivered to the sink, in order, right after `done`."""
        return self._ask(RESUME, bare, (bare, sid, h), done, timeout_s, sink)

    def enable(self, session: EdgeSession, is_resumable: bool, unwritten: int = 0) -> None:
        """The client counts from here on (XEP-0198, 3), also what is not written yet; the owner is told if it may
        resume."""
        session.n0, session.q0 = session.n, session.q - unwritten
        session.is_resumable = is_resumable
        owner = self.map.owners[session.shard]
        if is_resumable and owner is not None:
            epoch = self.map.epochs[session.shard]
            enabled = (ENABLED, session.shard, epoch, session.sid, session.gen, session.n0, session.q0)
            self._send_to(owner, enabled)

    def tell_activity(self, session: EdgeSession, is_active: bool) -> None:
        """The client is looked at, or not (XEP-0352). The session's next owner is told again: the state that it gets
        may be older."""
        session.is_active = is_active
        owner = self.map.owners[session.shard]
        if owner is not None:
            epoch = self.map.epochs[session.shard]
            self._send_to(owner, (ACTIVITY, session.shard, epoch, session.sid, session.gen, is_active))

    def tell_unreachable(self, remote: str, local: str, condition: str, text: str, is_permanent: bool) -> None:
        """A stream to another domain, which its owner has asked for (DIAL), cannot be had; it asks again if it still
        wants one. `condition` is a stanza error condition (RFC 6120, 8.3.3)."""
        shard = shard_of(remote)
        owner = self.map.owners[shard]
        if owner is not None:
            epoch = self.map.epochs[shard]
            self._send_to(owner, (UNREACHABLE, shard, epoch, remote, local, condition, text, is_permanent))

    def call(
        self, bare: str, method: str, arguments: tuple[Any, ...], done: Callable[[Answer], None],
        timeout_s: float = 10.0,
    ) -> str:  # fmt: skip
        """Ask the owner of `bare` something (router/calls.py has the methods). A call that nobody answers in time
        ends as `Answer(False, "remote-server-timeout")`."""
        return self._ask(CALL, bare, (method, arguments), done, timeout_s, None)

    def cancel(self, request: str) -> None:
        """The connection that asked is gone: no answer is wanted."""
        self._asked.pop(request, None)

    def submit(self, session: EdgeSession, stanza: Stanza) -> None:
        """A stanza that the client sent, `from` stamped. It is held until the owner confirms it (rule 5)."""
        session.n += 1
        n = session.n
        if self.tracing is not None:
            self.tracing.received(session, n, stanza)
        if n <= session.conf:
            return  # rule 6: conf ran ahead of what was read here; nobody would confirm it again
        if not session.held:
            session.offered_at = self._now()
        session.held.append((n, stanza))
        session.held_bytes += len(stanza.inner) + OVERHEAD_BYTES
        shard = session.shard
        owner = self.map.owners[shard]
        if owner is not None:
            self._send_to(owner, (SUBMIT, shard, self.map.epochs[shard], session.sid, session.gen, n, stanza, False))
        if (len(session.held) >= HELD_STANZAS or session.held_bytes >= HELD_BYTES) and not session.is_paused:
            session.is_paused = True  # what one read brought is taken all the same, so it may become a little more
            session.sink.pause_reading()

    def written(self, session: EdgeSession, q: int) -> None:
        """The client has everything up to q: acknowledged it (0198), or else the kernel has taken it."""
        if self.tracing is not None:
            self.tracing.acknowledged(session, q)
        unacknowledged = session.unacknowledged
        while unacknowledged and unacknowledged[0][0] <= q:
            _, id_, _ = unacknowledged.popleft()
            if id_ is not None and id_ > 0:
                session.read.append(id_)
                if id_ > session.read_id:
                    session.read_id = id_
        if len(session.read) > self._read_ids + ACKNOWLEDGE_EVERY:
            del session.read[: -self._read_ids]
        if q > session.acknowledged:
            session.acknowledged = q
            if q - session.told >= ACKNOWLEDGE_EVERY:
                self._tell_acknowledged(session)
            else:
                self._touched[session] = None

    def detach(self, session: EdgeSession, reason: str) -> None:
        """The stream has ended. The owner learns it once everything the client sent is confirmed; until its answer
        the session stays here, so that a new owner hears of it too. The sink is told by `revoked("")`."""
        if session.is_closing:
            return
        session.is_closing = True
        session.reason = reason
        if not session.held:
            self._send_detach(session)

    # --- what the bus calls

    def hear(self, kind: int, handler: Callable[..., None]) -> None:
        """Envelopes of this kind are for somebody else in this process: `handler(sender, *fields)`."""
        self._handlers[kind] = handler

    def not_written(self, reason: str) -> None:
        """A sink cannot write the stanza that it is just given; for whoever traces it."""
        if self.tracing is not None:
            self.tracing.unwritten = reason

    def receive(self, sender: Incarnation, kind: int, fields: tuple[Any, ...]) -> None:
        """One envelope from a router, without its kind."""
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(sender, *fields)

    def peer_up(self, incarnation: Incarnation) -> None:
        """A link to a router (again): what it owns is announced and asked again; lost envelopes do not matter."""
        for shard, owner in enumerate(self.map.owners):
            if owner == incarnation:
                self._announce(Shard(shard))
        for request, asked in list(self._asked.items()):
            if self.map.owners[asked.shard] == incarnation:
                self._put(request, asked)

    def tick(self) -> None:
        """About once a second: acknowledgements, safety nets, deadlines."""
        now = self._now()
        for session in self._touched:
            self._tell_acknowledged(session)
        self._touched.clear()
        for request, asked in list(self._asked.items()):
            if now > asked.deadline:
                del self._asked[request]
                lost = "remote-server-timeout"
                self._tell(asked, Answer(False, lost) if asked.kind == CALL else Refused(lost, ""))
            elif now - asked.asked_at >= ASK_AGAIN_S:
                self._put(request, asked)
        for session in self.sessions.values():
            if session.held and now - session.offered_at >= OFFER_AGAIN_S:
                self._offer(session)
            elif session.is_closing and not session.held:
                self._send_detach(session)

    # --- envelopes from routers

    def _on_deliver(self, sender: Incarnation, targets: tuple[Any, ...], fields: tuple[Any, ...]) -> None:
        stanza = from_wire(fields)
        sessions = self.sessions
        is_current = self.map.is_current
        for shard, epoch, sid, gen, q, id_ in targets:
            session = sessions.get(sid)
            if session is None or session.gen != gen or not is_current(shard, epoch):
                continue
            if q == session.q + 1:  # rule 18
                session.q = q
                session.unacknowledged.append((q, id_, stanza))
                if id_ is not None:
                    if id_ > session.last_id:
                        session.last_id = id_
                    elif id_ < 0:
                        session.rooms[stanza.from_.partition("/")[0]] = -id_  # type: ignore[union-attr]  # a room's
                session.sink.deliver(stanza)
                if self.tracing is not None:
                    self.tracing.delivered(session, q, id_, stanza)
            elif q > session.q:
                self._on_gap(shard)

    def _on_gap(self, shard: Shard) -> None:
        now = self._now()
        told_at = self._gap_told_at.get(shard)
        if told_at is None or now - told_at >= GAP_AGAIN_S:
            self._gap_told_at[shard] = now
            self._announce(shard)

    def _on_confirmed(
        self, sender: Incarnation, shard: Shard, epoch: Epoch, sid: SessionId, gen: int, conf: int
    ) -> None:
        session = self.sessions.get(sid)
        if session is None or session.gen != gen or not self.map.is_current(shard, epoch) or conf <= session.conf:
            return
        if self.tracing is not None:
            self.tracing.confirmed(session, conf)
        session.conf = conf
        held = session.held
        while held and held[0][0] <= conf:
            session.held_bytes -= len(held.popleft()[1].inner) + OVERHEAD_BYTES
        session.offered_at = self._now()
        if session.owed and conf >= session.owed:
            session.owed = 0
            session.sink.confirmed()
        if session.is_paused and len(held) <= HELD_STANZAS // 2 and session.held_bytes <= HELD_BYTES // 2:
            session.is_paused = False
            session.sink.resume_reading()
        if session.is_closing and not held:
            self._send_detach(session)

    def _on_revoked(
        self, sender: Incarnation, shard: Shard, epoch: Epoch, sid: SessionId, gen: int, reason: str
    ) -> None:
        session = self.sessions.get(sid)
        if session is None or session.gen >= gen or not self.map.is_current(shard, epoch):
            return
        self._forget(session)
        if session.read:
            # Its owner may have taken for unread what the client had.
            self._send_to(sender, (READ, shard, epoch, session.bare, tuple(session.read)))
        if session.is_closing and session.reason == "client" and session.held:
            # This process was believed dead when the client said goodbye: its session does not wait for it.
            self._send_to(sender, (DETACH, shard, epoch, sid, session.gen, session.reason))
        session.sink.revoked("" if session.is_closing else reason)

    def _on_attached(
        self, sender: Incarnation, shard: Shard, epoch: Epoch, request: str, sid: SessionId, gen: int,
        resource: str, conf: int, q: int, state: Any, last_id: int = 0, n0: int = 0, q0: int = 0,
        is_resumable: bool = False, rooms: tuple[tuple[str, int], ...] = (),
    ) -> None:  # fmt: skip
        if not self.map.is_current(shard, epoch):
            return
        asked = self._asked.pop(request, None)
        known = self.sessions.get(sid)
        if known is not None and known.gen >= gen:
            return
        if asked is None or asked.sink is None:
            # The connection is gone (or this is a second answer after that): the owner shall not keep the session.
            self._send_to(sender, (DETACH, shard, epoch, sid, gen, "connection-lost"))
            return
        session = EdgeSession(sid, gen, asked.bare, resource, shard, asked.sink)
        session.n = session.conf = conf
        session.q = session.acknowledged = session.told = q
        session.state = state
        session.last_id = last_id
        session.rooms = dict(rooms)
        session.n0, session.q0, session.is_resumable = n0, q0, is_resumable
        self.sessions[sid] = session
        self._by_shard.setdefault(shard, {})[sid] = session
        if not self._tell(asked, Attached(session)):
            self.detach(session, "internal-server-error")

    def _on_refused(
        self, sender: Incarnation, shard: Shard, epoch: Epoch, request: str, condition: str, text: str,
        h: int | None = None,
    ) -> None:  # fmt: skip
        if not self.map.is_current(shard, epoch):
            return  # rule 14: the present owner is asked, too
        asked = self._asked.pop(request, None)
        if asked is not None:
            self._tell(asked, Refused(condition, text, h))

    def _on_state(self, sender: Incarnation, shard: Shard, epoch: Epoch, sid: SessionId, gen: int, state: Any) -> None:
        session = self.sessions.get(sid)
        if session is not None and session.gen == gen and self.map.is_current(shard, epoch):
            session.state = state

    def _on_want(self, sender: Incarnation, shard: Shard, epoch: Epoch) -> None:
        if self.map.is_current(shard, epoch) and self.map.owners[shard] == sender:
            self._announce(shard)

    def _on_answer(self, sender: Incarnation, request: str, ok: bool, value: Any) -> None:
        asked = self._asked.pop(request, None)
        if asked is not None:
            self._tell(asked, Answer(ok, value))

    def _on_map(self, sender: Incarnation, entries: tuple[tuple[Shard, Epoch, Incarnation], ...]) -> None:
        changed = [shard for shard, epoch, owner in entries if self.map.update(shard, epoch, owner)]
        for shard in changed:
            self._announce(shard)
        if changed and self._asked:
            news = frozenset(changed)
            for request, asked in list(self._asked.items()):
                if asked.shard in news:
                    self._put(request, asked)

    def _tell(self, asked: _Asked, answer: Attached | Refused | Answer) -> bool:
        """Give an answer to the stream that asked. A bug of that stream is its own: False, and everybody else goes on;
        it is not bound, and ends when its time to sign in is over."""
        try:
            asked.done(answer)
        except Exception:
            log.exception("stream_failed")
            self._failed()
            return False
        return True

    # --- to routers

    def _ask(
        self, kind: int, bare: str, arguments: tuple[Any, ...], done: Callable[[Any], None], timeout_s: float,
        sink: Sink | None,
    ) -> str:  # fmt: skip
        request = self._new_request()
        now = self._now()
        asked = _Asked(shard_of(bare), kind, arguments, done, now + timeout_s, now, bare, sink)
        self._asked[request] = asked
        self._put(request, asked)
        return request

    def _put(self, request: str, asked: _Asked) -> None:
        asked.asked_at = self._now()
        owner = self.map.owners[asked.shard]
        if owner is not None:
            epoch = self.map.epochs[asked.shard]
            self._send_to(owner, (asked.kind, asked.shard, epoch, request, *asked.arguments))

    def _announce(self, shard: Shard) -> None:
        """Rule 16: every session of the shard, also when there is none; then what is held, again (rule 5)."""
        owner = self.map.owners[shard]
        if owner is None:
            return
        sessions = self._by_shard.get(shard, {})
        announcements = [session.announcement() for session in sessions.values()]
        self._send_to(owner, (ANNOUNCE, shard, self.map.epochs[shard], announcements))
        for session in sessions.values():
            session.told = session.acknowledged
            if session.is_active is not None:
                self.tell_activity(session, session.is_active)
            self._offer(session)
            if session.is_closing and not session.held:
                self._send_detach(session)

    def _offer(self, session: EdgeSession) -> None:
        session.offered_at = self._now()
        owner = self.map.owners[session.shard]
        if owner is not None:
            epoch = self.map.epochs[session.shard]
            for n, stanza in session.held:
                self._send_to(owner, (SUBMIT, session.shard, epoch, session.sid, session.gen, n, stanza, True))

    def _tell_acknowledged(self, session: EdgeSession) -> None:
        owner = self.map.owners[session.shard]
        if owner is not None and session.acknowledged > session.told:
            session.told = session.acknowledged
            epoch = self.map.epochs[session.shard]
            self._send_to(owner, (ACKNOWLEDGED, session.shard, epoch, session.sid, session.gen, session.acknowledged))

    def _send_detach(self, session: EdgeSession) -> None:
        owner = self.map.owners[session.shard]
        if owner is not None:
            epoch = self.map.epochs[session.shard]
            self._tell_acknowledged(session)
            self._send_to(owner, (DETACH, session.shard, epoch, session.sid, session.gen, session.reason))

    def _forget(self, session: EdgeSession) -> None:
        del self.sessions[session.sid]
        in_shard = self._by_shard[session.shard]
        del in_shard[session.sid]
        if not in_shard:
            del self._by_shard[session.shard]
        self._touched.pop(session, None)
