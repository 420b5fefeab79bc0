"""The session directory: who is bound where (docs/delivery.md, rules 16 to 20; without I/O).

Binding is durable before the client is told. After a take, sessions are known from their rows and live again when
their edge announces them; what no living edge announces has ended.
"""

from __future__ import annotations

from base64 import b32encode
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from hashlib import sha256
from typing import Any, Final, NamedTuple

from cluster.wire import (
    ACKNOWLEDGED,
    ACTIVITY,
    ANNOUNCE,
    ATTACH,
    DETACH,
    ENABLED,
    READ,
    REFUSED,
    RESUME,
    REVOKED,
    Announcement,
    Epoch,
    Incarnation,
    SessionId,
    Shard,
    node_of,
)  # fmt: skip
from router.entity import Entity, Session
from router.events import BecameReachable, SessionBound, WereRead
from router.owner import Owner
from router.peers import LOCAL, SENDS
from router.restrictions import restriction
from router.resumption import TEMPORARY, Resumption
from router.turn import Turn
from storage import sessions as session_rows
from xmpp.sm import wrapped
from xmpp.stanza import from_wire

PEER_SESSIONS: Final = 200  # streams of one other domain
UNACKNOWLEDGED_LIMIT: Final = 1_000  # stanzas a client may leave unread before its session ends
TOO_MANY: Final = "This account has as many sessions as it may. A newer one has taken the place of this, the oldest."
RESOURCE_CHARACTERS: Final = 12  # of what is made of a device
ANNOUNCE_WITHIN_S: Final = 10.0  # how long a take waits for edges that live but say nothing


class _Settling(NamedTuple):
    """A shard just taken: the edges that held its sessions and have not announced yet, until when they may, and the
    entities that wait for it."""

    edges: set[Incarnation]
    deadline: float
    entities: dict[Entity, None]  # in order, so that the simulation replays


class Directory:
    """The sessions of one owner."""

    def __init__(self, owner: Owner, new_resource: Callable[[], str]) -> None:
        self._owner = owner
        self._new_resource = new_resource
        self._were_down: set[Incarnation] = set()
        self._living: dict[str, Incarnation] = {}  # the present run of each c2s, as far as it is known
        self._settling: dict[Shard, _Settling] = {}
        self._requests: dict[str, Session] = {}  # the last attach request of each session (rule 19)
        self.resumption = Resumption(owner, self._requests, self._refuse)
        self.on_room: Callable[[Session], None] = lambda session: None  # a peer's stream may carry more
        self._handlers: dict[int, Callable[..., None]] = {
            ATTACH: self._on_attach,
            DETACH: self._on_detach,
            ANNOUNCE: self._on_announce,
            ACKNOWLEDGED: self._on_acknowledged,
            ENABLED: self._on_enabled,
            RESUME: self._on_resume,
            ACTIVITY: self._on_activity,
            READ: self._on_read,
        }

    def receive(self, sender: Incarnation, kind: int, fields: tuple[Any, ...]) -> None:
        """One envelope about sessions, of a kind in `_handlers`, without its kind."""
        self._handlers[kind](sender, *fields)

    # --- shards and edges come and go

    def taken(self, shard: Shard, epoch: Epoch, rows: Iterable[session_rows.SessionRow]) -> None:
        """The owner holds the shard anew: these sessions exist, if their edges still say so (rule 17)."""
        owner = self._owner
        self.dropped(owner.drop(shard))
        owner.hold(shard, epoch)
        holders: set[Incarnation] = set()
        waiting: dict[Entity, None] = {}
        for row in rows:
            entity = owner.entity(row.bare)
            assert entity is not None
            entity.key = row.owner
            session = self.resumption.rebuild(entity, row)
            entity.is_settling = True  # a stanza delivered now would get a number that its edge knows already
            entity.sessions[session.resource] = session
            owner.sessions[session.sid] = session
            self._requests[row.request] = session
            place = session.place
            if place is not None and self._living.get(node_of(place), place) == place and place not in self._were_down:
                holders.add(place)
            waiting[entity] = None
        if waiting:
            # This router may be so young that it has no link to any edge yet: those that held the sessions count.
            self._settling[shard] = _Settling(holders, owner.outbox.now + ANNOUNCE_WITHIN_S, waiting)
            if not holders:
                self._settle(shard)

    def dropped(self, sessions: Iterable[Session]) -> None:
        """Sessions of a shard that is no longer owned here."""
        for session in sessions:
            self._requests.pop(session.request, None)
            self._settling.pop(session.shard, None)
            self.resumption.forget(session)

    def edge_up(self, edge: Incarnation) -> None:
        """A c2s lives. One that was believed dead still holds streams whose sessions have ended here."""
        # Another run of the same node: the one before is over, and announces nothing any more.
        holders = {holder for settling in self._settling.values() for holder in settling.edges}
        for holder in sorted(holders):
            if holder != edge and node_of(holder) == node_of(edge):
                self._heard_from(holder, list(self._settling))
        self._living[node_of(edge)] = edge
        if edge in self._were_down:
            self._were_down.discard(edge)
            for shard, epoch in enumerate(self._owner.tenures):
                if epoch is not None:
                    self._owner.want(edge, Shard(shard))

    def edge_down(self, edge: Incarnation) -> None:
        """A c2s is dead: its streams are gone, and without resumption their sessions end with them."""
        self._were_down.add(edge)
        for session in [s for s in self._owner.sessions.values() if s.place == edge and s.is_adopted]:
            session.place = None
            self._over(session, "edge-lost")
        self.resumption.edge_down(edge)
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
            if session.detached_at is not None:
                session.is_adopted = True  # it had no stream before, either
            else:
                session.place = None
                self._over(session, "edge-lost")
        for entity in settling.entities:
            self._owner.settled(entity)

    def tick(self) -> None:
        """About once a second: takes that wait too long for an announcement; clients that read nothing."""
        now = self._owner.outbox.now
        for shard, settling in list(self._settling.items()):
            if now >= settling.deadline:
                self._settle(shard)
        for session in list(self._owner.sessions.values()):
            if len(session.unacknowledged) > UNACKNOWLEDGED_LIMIT and not session.entity.is_peer:
                self._end(session, "resource-constraint", "slow-consumer")
        for session in self.resumption.tick(self._owner.settings.resume_timeout_s):
            self._end(session, "", "resume-timeout")

    def _over(self, session: Session, reason: str) -> None:
        """A stream has ended without its client's wish: the session waits for it, or ends."""
        if session.is_resumable and reason in TEMPORARY and self._owner.settings.resume_timeout_s > 0:
            self.resumption.hibernate(session)
        else:
            self._end(session, "", reason)

    # --- resume (XEP-0198, 5)

    def _on_enabled(
        self, edge: Incarnation, shard: Shard, epoch: Epoch, sid: SessionId, gen: int, n0: int, q0: int
    ) -> None:
        session = self._owner.sessions.get(sid)
        if session is not None and session.gen == gen and session.place == edge:
            self.resumption.enabled(session, n0, q0)

    def _on_activity(
        self, edge: Incarnation, shard: Shard, epoch: Epoch, sid: SessionId, gen: int, is_active: bool
    ) -> None:
        session = self._owner.sessions.get(sid)
        if session is not None and session.gen == gen and session.place == edge:
            self.resumption.set_active(session, is_active)

    def _on_resume(
        self, edge: Incarnation, shard: Shard, epoch: Epoch, request: str, bare: str, sid: SessionId, h: int
    ) -> None:
        owner = self._owner
        if owner.tenures[shard] != epoch:
            return
        entity = owner.entity(bare)
        assert entity is not None
        owner.when_loaded(entity, partial(self._resume, entity, edge, request, sid, h))

    def _resume(self, entity: Entity, edge: Incarnation, request: str, sid: SessionId, h: int) -> None:
        known = self._requests.get(request)
        if known is not None and known.place is not None:
            if known.is_adopted and known.place == edge:
                self.resumption.tell(known, request)
            return
        session = self._owner.sessions.get(sid)
        if known is not None and known is session:
            # Rule 19: the answer was lost with the owner before. So nobody has had the session since its row was
            # written, and the row is exact.
            session.is_exact = True
        if session is None or session.bare != entity.bare or not session.is_resumable:
            self._refuse(entity, edge, request, "item-not-found", "There is no such session (any more).")
            return
        condition = self.resumption.resume(session, edge, request, h)
        if condition is not None:
            h_known = wrapped(session.conf, session.n0) if session.is_exact else None
            self._refuse(entity, edge, request, condition, "", h_known)

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
        owner.when_loaded(entity, partial(self._attach, entity, edge, request, resource, facts))

    def _attach(
        self, entity: Entity, edge: Incarnation, request: str, resource: str | None, facts: dict[str, Any]
    ) -> None:
        known = self._requests.get(request)
        if known is not None:
            if known.is_adopted and known.place == edge:
                self.resumption.tell(known, request)
            return
        if not entity.exists or not entity.is_enabled or restriction(entity, "ban", self._owner.effects.wall()):
            self._refuse(entity, edge, request, "not-allowed", "This account does not exist or is disabled.")
            return
        resource = resource or self._resource_of(entity, facts)
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
        session.since = session.last_id = (
            self._owner.ids.last
        )  # what is older is for the archive and the offline store to show
        if entity.is_peer:
            session.marks = {LOCAL: str(facts.get(LOCAL, "")), SENDS: bool(facts.get(SENDS))}
        self._owner.act(
            entity, partial(self._bind, session, facts), partial(self._bound, session, request, session.gen)
        )

    def _bound(self, session: Session, request: str, gen: int) -> None:
        self.resumption.durable(session, request, gen)
        if session.entity.is_peer and session.marks[SENDS]:
            # Its client knows of it: what has waited follows.
            self._owner.act(session.entity, lambda turn: self._owner.emit(turn, BecameReachable(session)))

    def _make_room(self, entity: Entity) -> None:
        """At the limit of sessions, the oldest gives way, so that who comes back without having said goodbye gets in.
        `conflict` (RFC 6120, 4.9.3.3), because clients do not connect again at once for it: two would never end."""
        limit = PEER_SESSIONS if entity.is_peer else self._owner.settings.sessions
        while len(entity.sessions) >= limit:
            oldest = min(entity.sessions.values(), key=lambda session: session.bound_at)
            self._end(oldest, f"conflict\n{TOO_MANY}", "too-many-sessions")

    def _resource_of(self, entity: Entity, facts: Mapping[str, Any]) -> str:
        """What the server calls a session: by its device the same each time, behind what the client calls itself
        (XEP-0386, 3.2.1). Who binds anew takes the place of the former session then. Of two accounts on one device the
        names have nothing in common: nobody shall see that they belong together."""
        device, tag, name = facts.get("device"), str(facts.get("tag") or ""), ""
        if device:
            digest = sha256(entity.bare.encode() + b"\0" + device).digest()
            name = b32encode(digest)[:RESOURCE_CHARACTERS].decode().lower()
        name = name or self._new_resource()
        return f"{tag}/{name}" if tag else name

    def _bind(self, session: Session, facts: Mapping[str, Any], turn: Turn) -> None:
        self._owner.emit(turn, SessionBound(session, facts))
        turn.write(session_rows.save, self.resumption.row(session))

    def _refuse(
        self, entity: Entity, edge: Incarnation, request: str, condition: str, text: str, h: int | None = None
    ) -> None:
        self._owner.effects.send(edge, (REFUSED, entity.shard, entity.epoch, request, condition, text, h))

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
        sid, gen, _, _, conf, q, acknowledged, unacknowledged, last_id, state, n, n0, q0, resumable, read_id = (
            announcement[:15]
        )
        session = self._owner.sessions.get(sid)
        if session is None or gen < session.gen:
            # Unknown here: it was ended while its edge could not be told.
            above = gen + 1 if session is None else session.gen
            for read in announcement[15:16]:
                self._on_read(edge, shard, epoch, announcement[2], read)
            self._owner.effects.send(edge, (REVOKED, shard, epoch, sid, above, "reset"))
            return
        session.place = edge
        if session.is_adopted:  # the edge was away and is back: what it missed is sent again
            self._acknowledged(session, acknowledged)
            for number, id_, stanza in list(session.unacknowledged):
                if number > q and stanza is not None:
                    self._owner.outbox.deliver_again(session, number, id_, stanza)
        else:
            session.is_adopted = session.is_exact = True
            session.q = q
            session.known_q = None
            session.last_id = last_id
            session.acknowledged = acknowledged
            session.unacknowledged = deque((number, id_, from_wire(fields)) for number, id_, fields in unacknowledged)
            # What it had sent beyond conf is still held there; how much of it is logged, the log tells (rule 6).
            session.conf = session.seen = conf
            session.reach = n
            session.n0, session.q0, session.is_resumable = n0, q0, resumable
            session.detached_at = None
            session.restore_state(state)
            session.rooms = dict(announcement[16]) if len(announcement) > 16 else {}
            session.entity.delivered = max(session.entity.delivered, read_id)
            for read in announcement[15:16]:
                session.entity.remember_read(read)
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
        entity = session.entity
        while unacknowledged and unacknowledged[0][0] <= q:
            _, id_, _ = unacknowledged.popleft()
            if id_ is not None and id_ > 0 and entity.acknowledged(id_):
                self.resumption.found(entity)
        session.acknowledged = max(session.acknowledged, q)
        if entity.is_peer:
            self.on_room(session)
        if session.is_resumable:
            self.resumption.touched(session)

    def _on_read(self, edge: Incarnation, shard: Shard, epoch: Epoch, bare: str, ids: tuple[int, ...]) -> None:
        """An edge that was believed dead, and for long: what its clients had is neither unread nor offline."""
        owner = self._owner
        entity = owner.entity(bare) if ids and owner.tenures[shard] == epoch else None
        if entity is not None:
            entity.remember_read(ids)
            owner.when_loaded(entity, lambda: owner.act(entity, lambda turn: owner.emit(turn, WereRead(ids))))

    def _on_detach(self, edge: Incarnation, shard: Shard, epoch: Epoch, sid: SessionId, gen: int, reason: str) -> None:
        if self._owner.tenures[shard] != epoch:
            return
        session = self._owner.sessions.get(sid)
        if session is None:
            self._owner.effects.send(edge, (REVOKED, shard, epoch, sid, gen + 1, ""))
        elif session.gen == gen:
            self._over(session, reason)
        elif session.gen > gen and reason == "client" and session.place is None and session.detached_at is not None:
            self._end(session, "", reason)  # its client has ended it on the stream that was believed lost

    def _end(self, session: Session, condition: str, reason: str) -> None:
        self._requests.pop(session.request, None)
        self._owner.end_session(session, condition, reason)
