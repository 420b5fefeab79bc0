"""Sessions that outlive their streams (XEP-0198): snapshots, hibernation, resumption.

docs/delivery.md has the rules (17 to 20). The c2s counts and talks to the client (`c2s/management.py`);
here is what the owner does about it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from cluster.wire import ATTACHED, REVOKED, Envelope, Incarnation, SessionId
from router.client_state import INACTIVE
from router.entity import Entity, Session
from router.owner import Owner
from router.peers import PeerPipeline
from router.turn import Turn
from storage import accounts
from storage import sessions as session_rows
from storage.log import id_at
from xmpp.sm import too_high, unwrapped

SETTLE_WITHIN_S: Final = 2.0  # how long a resume waits for what the client had sent: it need not send it again then
SNAPSHOT_S: Final = 30.0
UNKNOWN: Final = -1

# Ends of a stream after which its session goes on: the client is expected back (everything else is final).
TEMPORARY: Final = frozenset(
    {"connection-lost", "client-eof", "connection-timeout", "system-shutdown", "reset", "internal-server-error",
     "edge-lost", "undefined-condition", "see-other-host"}
)  # fmt: skip


Refuse = Callable[[Entity, Incarnation, str, str, str], None]  # entity, edge, request, condition, text


class _Move(NamedTuple):
    """A resume that waits for what its session had sent."""

    edge: Incarnation
    request: str
    h: int
    deadline: float
    old: Incarnation | None  # the c2s that has it until then


class Resumption:
    """What the directory knows of sessions without a stream."""

    def __init__(self, owner: Owner, requests: dict[str, Session], refuse: Refuse) -> None:
        self._owner = owner
        self._requests = requests
        self._refuse = refuse
        self._answering: dict[SessionId, tuple[Incarnation, str]] = {}  # resumes that are being committed
        self._moves: dict[SessionId, _Move] = {}
        self._snapshot_due = 0.0
        self._found: dict[Entity, None] = {}
        self._dirty: dict[Session, None] = {}  # with acknowledgements since their last snapshot

    # --- rows

    @staticmethod
    def row(session: Session) -> session_rows.SessionRow:
        """What the next owner will find, should no c2s know the session any more."""
        entity = session.entity
        assert entity.key is not None
        known_q = session.q if session.known_q is None else session.known_q
        return session_rows.SessionRow(
            sid=session.sid, shard=session.shard, owner=entity.key, bare=session.bare, resource=session.resource,
            node=session.place or "", gen=session.gen, request=session.request, at=session.bound_at,
            conf=session.conf if session.is_exact else UNKNOWN, q=session.q, known_q=known_q,
            last_id=session.last_id, unacknowledged=tuple(id_ for _, id_, _ in session.unacknowledged),
            state=session.pack_state(), resumable=session.is_resumable, n0=session.n0, q0=session.q0,
            detached_at=session.detached_at,
        )  # fmt: skip

    @staticmethod
    def rebuild(entity: Entity, row: session_rows.SessionRow) -> Session:
        """The session of a row, until its c2s says more (or nobody does)."""
        session = Session(entity, SessionId(row.sid), row.resource, row.at)
        session.since = id_at(row.at) - 1  # rather shown twice than not at all
        session.gen = session.durable_gen = row.gen
        session.place = Incarnation(row.node) if row.node else None
        session.request = row.request
        session.is_resumable = row.resumable
        session.n0, session.q0 = row.n0, row.q0
        session.detached_at = row.detached_at
        session.is_exact = row.detached_at is not None and row.conf != UNKNOWN
        session.seen = session.conf = session.told = max(0, row.conf)
        session.q, session.last_id, session.known_q = row.q, row.last_id, row.known_q
        session.acknowledged = row.q - len(row.unacknowledged)
        numbered = enumerate(row.unacknowledged, session.acknowledged + 1)
        session.unacknowledged = deque((q, id_, None) for q, id_ in numbered)
        session.restore_state(row.state)
        return session

    # --- hibernation

    def enabled(self, session: Session, n0: int, q0: int) -> None:
        """The client has enabled resumption: from now on the session outlives its stream."""
        session.is_resumable = True
        session.n0, session.q0 = n0, q0
        self._save(session)

    def hibernate(self, session: Session) -> None:
        """The stream is gone, the session waits for its client. The old attachment is over: a higher generation."""
        session.gen += 1
        place, session.place = session.place, None
        session.is_adopted = True
        session.detached_at = self._owner.effects.wall()
        self._save(session, partial(self._revoke, session, place, ""))

    def _save(self, session: Session, then: Callable[[], None] | None = None) -> None:
        owner = self._owner

        def act() -> None:
            if owner.sessions.get(session.sid) is session:
                owner.act(session.entity, partial(self._write, session), then)

        owner.when_loaded(session.entity, act)

    def _write(self, session: Session, turn: Turn) -> None:
        """The session's row, and how far the account's clients have come."""
        turn.write(session_rows.save, self.row(session))
        self._write_cursor(turn)

    @staticmethod
    def _write_cursor(turn: Turn) -> None:
        entity = turn.entity
        if entity.is_peer:
            PeerPipeline.save_cursor(turn)
        elif entity.key is not None and entity.is_loaded:
            turn.write(accounts.set_delivered, entity.key, entity.delivered, entity.not_delivered())

    def _revoke(self, session: Session, place: Incarnation | None, condition: str) -> None:
        if place is not None:
            entity = session.entity
            revoked: Envelope = (REVOKED, entity.shard, entity.epoch, session.sid, session.gen, condition)
            self._owner.effects.send(place, revoked)

    # --- resumption

    def resume(self, session: Session, edge: Incarnation, request: str, h: int) -> str | None:
        """A client wants its session back, on this c2s; it has everything up to `h` (modulo 2^32). Returns a condition
        where that cannot be, else None: the answer follows."""
        waiting = self._moves.get(session.sid)
        if waiting is not None and waiting.request == request:
            return None  # asked again: it waits already
        reached = unwrapped(h, session.acknowledged, session.q0)
        if session.known_q is None and too_high(reached, session.q):
            return "handled-count-too-high"
        if not session.is_exact:
            # An `h` that went back would make the client send the wrong things again. What it has not got, it gets
            # with its next session.
            _settle_numbers(session, h)
            self._owner.end_session(session, "", "edge-lost")
            return "item-not-found"
        late = (waiting.edge, waiting.request) if waiting is not None else self._answering.pop(session.sid, None)
        if late is not None:
            # Of two who want it, the later has it; the other shall not ask again, and take it back.
            self._refuse(session.entity, *late, "conflict", "Another stream has resumed the session.")
        old, session.place = session.place, None
        if waiting is not None:
            old = waiting.old
        elif old is not None:
            session.gen += 1  # from now on the old attachment may say nothing any more (rule 20)
        self._moves[session.sid] = _Move(edge, request, h, self._owner.outbox.now + SETTLE_WITHIN_S, old)
        if session.pending:
            session.on_settled = partial(self._move, session)
        else:
            self._move(session)
        return None

    def _move(self, session: Session) -> None:
        session.on_settled = None
        move = self._moves.pop(session.sid, None)
        owner = self._owner
        if move is None or owner.sessions.get(session.sid) is not session:
            return
        _settle_numbers(session, move.h)
        session.gen += 1
        session.place = move.edge
        session.detached_at = None
        self._requests.pop(session.request, None)
        session.request = move.request
        self._requests[move.request] = session

        self._answering[session.sid] = (move.edge, move.request)
        done = partial(self.durable, session, move.request, session.gen, move.old)
        owner.act(session.entity, partial(self._write, session), done)

    def durable(self, session: Session, request: str, gen: int, old: Incarnation | None = None) -> None:
        """An attach is committed: its client may be told, and the c2s that had the session before."""
        session.durable_gen = gen
        if session.gen == gen:
            self._answering.pop(session.sid, None)
        self._revoke(session, old, "conflict")
        self.tell(session, request)

    def tell(self, session: Session, request: str) -> None:
        """The answer to an attach, and behind it everything that the client has not got."""
        owner = self._owner
        if session.place is None or session.request != request or owner.sessions.get(session.sid) is not session:
            return
        if session.durable_gen != session.gen:
            return  # asked again before it is committed
        session.told = session.conf
        # What follows has not reached the c2s yet: should it not, the next owner begins before the first of it.
        first = next((id_ for _, id_, _ in session.unacknowledged if id_ is not None and id_ > 0), None)
        last_id = session.last_id if first is None else first - 1
        answer: Envelope = (
            ATTACHED, session.shard, session.entity.epoch, request, session.sid, session.gen, session.resource,
            session.conf, session.acknowledged, session.pack_state(), last_id, session.n0, session.q0,
            session.is_resumable, _rooms_given(session),
        )  # fmt: skip
        owner.effects.send(session.place, answer)
        for q, id_, stanza in session.unacknowledged:
            if stanza is not None:
                owner.outbox.deliver_again(session, q, id_, stanza)
        if INACTIVE in session.marks:
            self.set_active(session, True)  # XEP-0352, 5: a resumed stream begins as active

    def set_active(self, session: Session, is_active: bool) -> None:
        """XEP-0352, 4: somebody looks at the client, or nobody does."""
        if is_active:
            session.marks.pop(INACTIVE, None)
            self._owner.outbox.release_held_back(session)
        else:
            session.marks[INACTIVE] = True
            if session.held_back is None:
                session.held_back = {}
        self._owner.outbox.tell_state(session)

    def edge_down(self, edge: Incarnation) -> None:
        """A c2s is dead: whoever waited to be resumed there waits for another."""
        for sid, move in list(self._moves.items()):
            if move.edge == edge:
                del self._moves[sid]
                session = self._owner.sessions.get(sid)
                if session is not None:
                    session.on_settled = None
                    if session.detached_at is None:
                        session.place = move.old
                        self.hibernate(session)

    def forget(self, session: Session) -> None:
        """Its shard is not owned here any more."""
        self._moves.pop(session.sid, None)
        self._answering.pop(session.sid, None)
        self._dirty.pop(session, None)

    # --- time

    def touched(self, session: Session) -> None:
        """The client has acknowledged something."""
        self._dirty[session] = None

    def found(self, entity: Entity) -> None:
        """What had strayed has reached a client: the database hears of it at once, lest it be delivered again."""
        if entity not in self._found:
            self._found[entity] = None
            self._owner.soon(self._save_found)

    def _save_found(self) -> None:
        found, self._found = self._found, {}
        for entity in found:
            if self._owner.entities.get(entity.bare) is entity:
                self._owner.when_loaded(entity, partial(self._owner.act, entity, self._write_cursor))

    def tick(self, timeout_s: float) -> list[Session]:
        """About once a second. Returns the sessions whose clients have not come back in time."""
        owner = self._owner
        now = owner.outbox.now
        for sid, move in list(self._moves.items()):
            if now >= move.deadline:
                session = owner.sessions.get(sid)
                if session is None:
                    del self._moves[sid]
                else:
                    self._move(session)
        if now >= self._snapshot_due:
            self._snapshot_due = now + SNAPSHOT_S
            dirty, self._dirty = self._dirty, {}
            for session in dirty:
                if owner.sessions.get(session.sid) is session and session.is_adopted:
                    self._save(session)
        wall = owner.effects.wall()
        return [
            session
            for session in owner.sessions.values()
            if session.detached_at is not None and session.is_adopted and wall - session.detached_at > timeout_s
        ]


def _rooms_given(session: Session) -> tuple[tuple[str, int], ...]:
    """How far the client had come in each room before what follows the answer."""
    given = dict(session.rooms)
    for _, id_, stanza in reversed(session.unacknowledged):
        if id_ is not None and id_ < 0 and stanza is not None:
            room = (stanza.from_ or "").partition("/")[0]
            if room in given:
                given[room] = -id_ - 1
    return tuple(given.items())


def _settle_numbers(session: Session, h: int) -> None:
    """What the client has goes; what is left keeps its numbers, or for a session rebuilt from a snapshot, gets them
    from h + 1 on, without holes (docs/delivery.md, §8.1)."""
    reached = unwrapped(h, session.acknowledged, session.q0)
    if session.known_q is None:
        session.acknowledged = max(session.acknowledged, reached)
        while session.unacknowledged and session.unacknowledged[0][0] <= session.acknowledged:
            _, id_, _ = session.unacknowledged.popleft()
            if id_ is not None and id_ > 0:
                session.entity.acknowledged(id_)
        return
    certain = min(reached, session.known_q)
    for q, id_, _ in session.unacknowledged:
        if q <= certain and id_ is not None and id_ > 0:
            session.entity.acknowledged(id_)
    kept = [(id_, stanza) for q, id_, stanza in session.unacknowledged if q > certain and stanza is not None]
    session.acknowledged = reached
    session.unacknowledged = deque((reached + 1 + at, id_, stanza) for at, (id_, stanza) in enumerate(kept))
    session.q = reached + len(kept)
    session.known_q = None
