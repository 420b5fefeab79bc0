"""The session directory: who is bound where (docs/delivery.md, rules 16 to 20; without I/O).

Binding is durable before the client is told. After a take, sessions are known from their rows and live again when
their edge announces them; what no living edge announces has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, NamedTuple

from cluster.wire import (
    ACKNOWLEDGED,
    ANNOUNCE,
    ATTACH,
    ATTACHED,
    DETACH,
    REFUSED,
    REVOKED,
    Announcement,
    Epoch,
    Incarnation,
    SessionId,
    Shard,
    node_of,
)  # fmt: skip
from router.entity import Entity, Session
from router.events import SessionBound
from router.owner import Owner
from router.turn import Turn
from storage import sessions as session_rows
from xmpp.stanza import from_wire

UNACKNOWLEDGED_LIMIT: Final = 1_000  # stanzas a client may leave unread before its session ends
ANNOUNCE_WITHIN_S: Final = 10.0  # how long a take waits for edges that live but say nothing


class _Settling(NamedTuple):
    """A shard just taken: the edges that held its sessions and have not announced yet, until when they may, and the
    entities that wait for it."""

    edges: set[Incarnation]
    deadline: float
    entities: set[Entity]


class Directory:
    """The sessions of one owner."""

    def __init__(self, owner: Owner, new_resource: Callable[[], str]) -> None:
        self._owner = owner
        self._new_resource = new_resource
        self._were_down: set[Incarnation] = set()
        self._settling: dict[Shard, _Settling] = {}
        self._requests: dict[str, Session] = {}  # the last attach request of each session (rule 19)
        self._handlers: dict[int, Callable[..., None]] = {
            ATTACH: self._on_attach,
            DETACH: self._on_detach,
            ANNOUNCE: self._on_announce,
            ACKNOWLEDGED: self._on_acknowledged,
        }

    def receive(self, sender: Incarnation, kind: int, fields: tuple[Any, ...]) -> None:
        """One envelope of kind ATTACH, DETACH, ANNOUNCE or ACKNOWLEDGED, without its kind."""
        self._handlers[kind](sender, *fields)

    # --- shards and edges come and go

    def taken(self, shard: Shard, epoch: Epoch, rows: Iterable[session_rows.SessionRow]) -> None:
        """The owner holds the shard anew: these sessions exist, if their edges still say so (rule 17)."""
        owner = self._owner
        self.dropped(owner.drop(shard))
        owner.hold(shard, epoch)
        holders: set[Incarnation] = set()
        waiting: set[Entity] = set()
        for row in rows:
            entity = owner.entity(row.bare)
            assert entity is not None
            session = Session(entity, SessionId(row.sid), row.resource, row.at)
            session.gen = row.gen
            session.place = Incarnation(row.node)
            session.request = row.request
            session.restore_state(row.state)
            entity.is_settling = True  # a stanza delivered now would get a number that its edge knows already
            entity.sessions[session.resource] = session
            owner.sessions[session.sid] = session
            self._requests[row.request] = session
            holders.add(Incarnation(row.node))
            waiting.add(entity)
        if holders:
            # This router may be so young that it has no link to any edge yet: those that held the sessions count.
            self._settling[shard] = _Settling(holders, owner.outbox.now + ANNOUNCE_WITHIN_S, waiting)

    def dropped(self, sessions: Iterable[Session]) -> None:
        """Sessions of a shard that is no longer owned here."""
        for session in sessions:
            self._requests.pop(session.request, None)
            self._settling.pop(session.shard, None)

    def edge_up(self, edge: Incarnation) -> None:
        """A c2s lives. One that was believed dead still holds streams whose sessions have ended here."""
        # Another run of the same node: the one before is over, and announces nothing any more.
        holders = {holder for settling in self._settling.values() for holder in settling.edges}
        for holder in holders:
            if holder != edge and node_of(holder) == node_of(edge):
                self._heard_from(holder, list(self._settling))
        if edge in self._were_down:
            self._were_down.discard(edge)
            for shard, epoch in enumerate(self._owner.tenures):
                if epoch is not None:
                    self._owner.want(edge, Shard(shard))

    def edge_down(self, edge: Incarnation) -> None:
        """A c2s is dead: its streams are gone, and without resumption their sessions end with them."""
        self._were_down.add(edge)
        for session in [s for s in self._owner.sessions.values() if s.place == edge]:
            session.place = None
            self._end(session, "", "edge-lost")
        self._heard_from(edge, list(self._settling))

    def _heard_from(self, edge: Incarnation, shards: Iterable[Shard]) -> None:
        for shard in shards:
            settling = self._settling.get(shard)
            if settling is not None:
                settling.edges.discard(edge)
                if not settling.edges:
                    self._settle(shard)

    def _settle(self, shard: Shard) -> None:
        """Every edge has announced or is over: what nobody announced has ended with its process."""
        settling = self._settling.pop(shard)
        for session in [s for s in self._owner.sessions.values() if s.shard == shard and not s.is_adopted]:
            session.place = None
            self._end(session, "", "edge-lost")
        for entity in settling.entities:
            self._owner.settled(entity)

    def tick(self) -> None:
        """About once a second: takes that wait too long for an announcement; clients that read nothing."""
        now = self._owner.outbox.now
        for shard, settling in list(self._settling.items()):
            if now >= settling.deadline:
                self._settle(shard)
        for session in list(self._owner.sessions.values()):
            if len(session.unacknowledged) > UNACKNOWLEDGED_LIMIT:
                self._end(session, "resource-constraint", "slow-consumer")

    # --- bind

    def _on_attach(
        self, edge: Incarnation, shard: Shard, epoch: Epoch, request: str, bare: str, resource: str | None,
        facts: dict[str, Any],
    ) -> None:  # fmt: skip
        owner = self._owner
        if owner.tenures[shard] != epoch:
            return  # rule 19: an owner answers requests of its own epoch only
        entity = owner.entity(bare)
        assert entity is not None
        owner.when_loaded(entity, partial(self._attach, entity, edge, request, resource))

    def _attach(self, entity: Entity, edge: Incarnation, request: str, resource: str | None) -> None:
        known = self._requests.get(request)
        if known is not None:
            if known.is_adopted and known.place == edge:
                self._tell_attached(known, request)
            return
        if not entity.exists or not entity.is_enabled:
            self._refuse(entity, edge, request, "not-allowed", "This account does not exist or is disabled.")
            return
        resource = resource or self._new_resource()
        replaced = entity.sessions.get(resource)
        if replaced is not None:
            self._end(replaced, "conflict", "replaced")  # RFC 6120, 7.7.2.2, the first way
        self._make_room(entity)
        session = Session(entity, SessionId(self._owner.effects.new_id()), resource, self._owner.effects.wall())
        session.gen = 1
        session.place = edge
        session.request = request
        session.is_adopted = True
        # Known from this turn on, so that the next attach sees it; told to nobody before the row is committed.
        entity.sessions[resource] = session
        self._owner.sessions[session.sid] = session
        self._requests[request] = session
        self._owner.act(entity, partial(self._bind, session), partial(self._tell_attached, session, request))

    def _make_room(self, entity: Entity) -> None:
        """At the limit of sessions, the oldest gets `conflict`."""
        while len(entity.sessions) >= self._owner.settings.sessions:
            oldest = min(entity.sessions.values(), key=lambda session: session.bound_at)
            self._end(oldest, "conflict", "too-many-sessions")

    def _bind(self, session: Session, turn: Turn) -> None:
        entity = session.entity
        assert entity.key is not None
        row = session_rows.SessionRow(
            sid=session.sid,
            shard=session.shard,
            owner=entity.key,
            bare=session.bare,
            resource=session.resource,
            node=session.place or "",
            gen=session.gen,
            request=session.request,
            state=None,
            at=session.bound_at,
        )
        turn.write(session_rows.save, row)
        self._owner.pipeline.emit(turn, SessionBound(session))

    def _tell_attached(self, session: Session, request: str) -> None:
        if session.place is None or session.sid not in self._owner.sessions:
            return  # it ended, or its edge died, while the row was written
        answer = (
            ATTACHED, session.shard, session.entity.epoch, request, session.sid, session.gen, session.resource,
            session.conf, session.q, session.pack_state(),
        )  # fmt: skip
        self._owner.effects.send(session.place, answer)

    def _refuse(self, entity: Entity, edge: Incarnation, request: str, condition: str, text: str) -> None:
        self._owner.effects.send(edge, (REFUSED, entity.shard, entity.epoch, request, condition, text))

    # --- streams that live and end

    def _on_announce(
        self, edge: Incarnation, shard: Shard, epoch: Epoch, announcements: tuple[Announcement, ...]
    ) -> None:
        if self._owner.tenures[shard] != epoch:
            return
        for announcement in announcements:
            self._announced(edge, shard, epoch, announcement)
        self._heard_from(edge, (shard,))

    def _announced(self, edge: Incarnation, shard: Shard, epoch: Epoch, announcement: Announcement) -> None:
        sid, gen, _, _, conf, q, acknowledged, unacknowledged, _, state = announcement[:10]
        session = self._owner.sessions.get(sid)
        if session is None or gen < session.gen:
            # Unknown here: it was ended while its edge could not be told.
            above = gen + 1 if session is None else session.gen
            self._owner.effects.send(edge, (REVOKED, shard, epoch, sid, above, "reset"))
            return
        session.place = edge
        if session.is_adopted:  # the edge was away and is back: what it missed is sent again
            self._acknowledged(session, acknowledged)
            for number, id_, stanza in list(session.unacknowledged):
                if number > q:
                    self._owner.outbox.deliver_again(session, number, id_, stanza)
        else:
            session.is_adopted = True
            session.q = q
            session.acknowledged = acknowledged
            session.unacknowledged.extend((number, id_, from_wire(fields)) for number, id_, fields in unacknowledged)
            session.seen = session.conf = conf
            session.restore_state(state)
            if all(other.is_adopted for other in session.entity.sessions.values()):
                self._owner.settled(session.entity)
        session.told = conf
        self._owner.outbox.conf_rose(session)

    def _on_acknowledged(self, edge: Incarnation, shard: Shard, epoch: Epoch, sid: SessionId, gen: int, q: int) -> None:
        session = self._owner.sessions.get(sid)
        if session is None or session.gen != gen or not session.is_adopted:
            return
        self._acknowledged(session, q)

    def _acknowledged(self, session: Session, q: int) -> None:
        unacknowledged = session.unacknowledged
        while unacknowledged and unacknowledged[0][0] <= q:
            unacknowledged.popleft()
        session.acknowledged = max(session.acknowledged, q)

    def _on_detach(self, edge: Incarnation, shard: Shard, epoch: Epoch, sid: SessionId, gen: int, reason: str) -> None:
        if self._owner.tenures[shard] != epoch:
            return
        session = self._owner.sessions.get(sid)
        if session is None:
            self._owner.effects.send(edge, (REVOKED, shard, epoch, sid, gen + 1, ""))
        elif session.gen == gen:
            self._end(session, "", reason)

    def _end(self, session: Session, condition: str, reason: str) -> None:
        self._requests.pop(session.request, None)
        self._owner.end_session(session, condition, reason)
