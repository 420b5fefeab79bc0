"""The rooms in which sessions of this router are: what their owners say is passed on to each session that it is for.

The last event of each room that a session was given is kept with the session (`Session.rooms`), and with its c2s, which
sees it pass. So whoever owns the session next can say how far it has come, and the room's owner sends what is missing
(fanout.py; docs/delivery.md, §7). Without I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cluster.shards import ShardMap, shard_of
from cluster.wire import CAST, CHECK, MARKS, REPLAY, Envelope, Epoch, Incarnation, SessionId, Shard
from router.entity import Entity, Session
from router.outbox import Outbox
from router.rooms.fanout import ALL, MODERATORS, ONLY
from router.rooms.policy import Role
from router.tracing import RouterTracing
from xmpp.stanza import MESSAGE, Stanza, from_wire

_Parts = Sequence[tuple[int, Sequence[int], Sequence[tuple[Any, ...]]]]  # fanout.Part


class Sessions(Protocol):
    """What is needed of the owner."""

    sessions: dict[SessionId, Session]
    entities: dict[str, Entity]
    tenures: list[Epoch | None]
    map: ShardMap
    outbox: Outbox
    tracing: RouterTracing | None

    def heard(self, session: Session, message: Stanza) -> None:
        """A session that has no stream was given this."""


class _Mirror:
    """One room: who of this router is in it, under which epoch of the room, and up to which event."""

    __slots__ = ("epoch", "last", "members")

    def __init__(self, epoch: Epoch, last: int) -> None:
        self.epoch = epoch
        self.last = last
        self.members: dict[int, tuple[Session, int]] = {}  # sid -> session, role


class Mirrors:
    """All rooms of this router's sessions."""

    def __init__(self, owner: Sessions, send: Callable[[Incarnation, Envelope], bool]) -> None:
        self._owner = owner
        self._send = send
        self._mirrors: dict[str, _Mirror] = {}
        self._deferred: dict[str, tuple[Any, ...]] = {}  # questions about sessions that are not settled yet
        self._handlers: dict[int, Callable[..., None]] = {
            CAST: self._on_cast,
            CHECK: self._on_check,
            REPLAY: self._on_replay,
        }

    def receive(self, sender: Incarnation, kind: int, fields: tuple[Any, ...]) -> None:
        """CAST, CHECK or REPLAY, without its kind."""
        if not self._owner.map.is_current(fields[0], fields[1]):
            return  # rule 14
        self._handlers[kind](sender, *fields)

    def gone(self, session: Session) -> None:
        """A session has ended, or is somebody else's now."""
        for room in session.rooms:
            mirror = self._mirrors.get(room)
            if mirror is not None:
                mirror.members.pop(session.sid, None)

    def tick(self) -> None:
        """About once a minute: rooms that nobody is in (any more) are forgotten. Until then who comes back is let in
        without questions."""
        self._mirrors = {room: mirror for room, mirror in self._mirrors.items() if mirror.members}

    # --- events

    def _on_cast(
        self, sender: Incarnation, shard: Shard, epoch: Epoch, room: str, prev: int, id_: int | None, parts: _Parts,
        members: Sequence[tuple[int, int]],
    ) -> None:  # fmt: skip
        mirror = self._mirrors.get(room)
        if prev == 0 and id_ is not None:
            mirror = self._mirrors[room] = _Mirror(epoch, 0)  # nobody of this router was in it, its owner knows
        elif mirror is None or mirror.epoch != epoch or mirror.last != prev:
            if id_ is not None:
                self._send(sender, (MARKS, shard, epoch, room, ()))
            return
        for sid, role in members:
            if role:
                self._enter(room, mirror, sid, role)
        for audience, sids, stanzas in parts:
            targets = [
                session for session, role in mirror.members.values() if _is_for(session.sid, role, audience, sids)
            ]
            self._deliver(room, targets, stanzas, id_)
        if id_ is not None:
            mirror.last = id_
        for sid, role in members:
            if not role:
                left = mirror.members.get(sid)
                if left is not None:
                    left[0].rooms.pop(room, None)
                    del mirror.members[sid]

    def _enter(self, room: str, mirror: _Mirror, sid: int, role: int) -> bool:
        session = self._owner.sessions.get(SessionId(sid))
        if session is None or not session.is_adopted or session.entity.is_settling:
            return False
        mirror.members[sid] = (session, role)
        session.rooms.setdefault(room, 0)
        return True

    def _deliver(
        self, room: str, targets: Sequence[Session], stanzas: Sequence[tuple[Any, ...]], id_: int | None
    ) -> None:
        if not targets or not stanzas:
            return
        made = [from_wire(fields) for fields in stanzas]
        *first, stanza = made
        for other in first:
            self._owner.outbox.deliver([(session, None) for session in targets], other)
        # The last one's number says that they have had all of it.
        ref = None if id_ is None else -id_
        self._owner.outbox.deliver([(session, ref) for session in targets], stanza)
        if self._owner.tracing is not None:
            self._owner.tracing.cast(room, targets, made, id_)
        if stanza.kind == MESSAGE:
            for session in targets:
                if session.place is None:
                    self._owner.heard(session, stanza)
        if id_ is not None:
            for session in targets:
                session.rooms[room] = id_

    # --- after a death on either side

    def _on_replay(
        self, sender: Incarnation, shard: Shard, epoch: Epoch, room: str, last: int,
        events: Sequence[tuple[int, _Parts]], answers: _Parts, members: Sequence[tuple[int, int]],
    ) -> None:  # fmt: skip
        mirror = self._mirrors[room] = _Mirror(epoch, last)
        entered = [self._enter(room, mirror, sid, role) for sid, role in members]
        for id_, parts in events:
            for audience, sids, stanzas in parts:
                targets = [
                    session
                    for session, role in mirror.members.values()
                    # Who knows of nothing is told how it is now.
                    if 0 < session.rooms[room] < id_ and _is_for(session.sid, role, audience, sids)
                ]
                self._deliver(room, targets, stanzas, id_)
        for _, (sid,), stanzas in answers:
            if sid in mirror.members:
                self._deliver(room, [mirror.members[sid][0]], stanzas, last)
        for session, _ in mirror.members.values():
            session.rooms[room] = last
        if not all(entered):  # taken over since the question was answered: it is to be asked again
            del self._mirrors[room]
            self._send(sender, (MARKS, shard, epoch, room, ()))

    def _on_check(
        self, sender: Incarnation, shard: Shard, epoch: Epoch, room: str, asked: Sequence[tuple[int, str]]
    ) -> None:
        owner = self._owner
        marks: list[tuple[int, int]] = []
        for sid, jid in asked:
            bare = jid.partition("/")[0]
            if owner.tenures[shard_of(bare)] is None:
                return  # not owned here (yet): it is asked again
            entity = owner.entities.get(bare)
            if entity is not None and entity.is_settling:
                self._deferred[room] = (sender, shard, epoch, room, asked)
                return
            session = owner.sessions.get(SessionId(sid))
            is_there = session is not None and session.jid == jid
            marks.append((sid, session.rooms.get(room, 0) if session is not None and is_there else -1))
        self._deferred.pop(room, None)
        self._send(sender, (MARKS, shard, epoch, room, marks))

    def settled(self) -> None:
        """Accounts have settled: questions about their sessions can be answered."""
        deferred, self._deferred = self._deferred, {}
        for question in deferred.values():
            if self._owner.map.is_current(question[1], question[2]):
                self._on_check(*question)

    @property
    def waits(self) -> bool:
        """Whether somebody waits for accounts to settle."""
        return bool(self._deferred)


def _is_for(sid: int, role: int, audience: int, sids: Sequence[int]) -> bool:
    if audience == ONLY:
        return sid in sids
    if sid in sids:
        return False
    return audience == ALL or (role == Role.MODERATOR) == (audience == MODERATORS)
