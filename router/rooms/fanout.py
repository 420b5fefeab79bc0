"""What the owner of a room tells the routers of its occupants: one envelope for each router, whatever their number.

Each change and each message worth keeping is an *event*, with an id out of one rising sequence; its row is committed
before it is let out. A router that has missed something is sent the events above the last one that its sessions were
given: after its death or the room's owner's, nobody is shown anything twice, and nothing is left out
(docs/delivery.md, §7). Without I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from cluster.shards import ShardMap, shard_of
from cluster.wire import CAST, CHECK, REPLAY, Envelope, Incarnation, Shard
from router.entity import Entity
from router.rooms.policy import Role
from router.rooms.room import TAIL, Occupant, Room
from xmpp.stanza import Stanza

# Audiences of a part: everybody but the sessions it names, moderators or all others but those, or those alone.
ALL: Final = 0
MODERATORS: Final = 1
OTHERS: Final = 2
ONLY: Final = 3

Part = tuple[int, tuple[int, ...], tuple[Stanza, ...]]  # audience, sids, what each session gets, in order
Send = tuple[Stanza, tuple[str, ...]]  # what entities get that are no sessions of this room's, by bare JID


class Answer(NamedTuple):
    """What one session alone is told, in order."""

    jid: str
    sid: int
    stanzas: tuple[Stanza, ...]


class Cast(NamedTuple):
    """An event. `id` is None for what nobody must be told again (what is typed, for instance). `members` are sessions
    that come in or change (sid, role) and that go (sid, 0)."""

    id: int | None
    parts: tuple[Part, ...] = ()
    answers: tuple[Answer, ...] = ()
    members: tuple[tuple[int, int], ...] = ()
    message: Stanza | None = None  # to be remembered for who comes later
    elsewhere: tuple[Send, ...] = ()  # for users of other servers, and for members who are away


class Replay(NamedTuple):
    """Everything that the sessions of one router have missed, and who is in the room there: `events` from the database,
    up to the id `until`, and what memory has of those above `least`."""

    router: Incarnation
    events: Mapping[int, tuple[Part, ...]]
    least: int
    until: int
    answers: tuple[Answer, ...]
    members: tuple[tuple[int, int], ...]


class Fanout:
    """The rooms of one owner, towards the routers."""

    def __init__(self, shard_map: ShardMap, send: Callable[[Incarnation, Envelope], bool]) -> None:
        self._map = shard_map
        self._send = send
        self._unchecked: dict[Entity, None] = {}  # rooms with occupants whose routers have not answered yet

    # --- events

    def let_out(self, entity: Entity, room: Room, what: Cast | Replay) -> None:
        """It is committed."""
        if isinstance(what, Replay):
            self._replay(entity, room, what)
        else:
            self._cast(entity, room, what)

    def _cast(self, entity: Entity, room: Room, cast: Cast) -> None:
        blocked = self._blocked(room)
        for router in self._routers(room):
            if router in blocked:
                room.feeds.pop(router, None)  # it will be sent what it has missed
                continue
            if router not in room.feeds and (unknown := self._before(room, router)):
                self.check(entity, unknown)
                continue
            parts = [*cast.parts, *self._answers(cast.answers, router)]
            prev = room.feeds.get(router, 0)
            self._send(router, (CAST, entity.shard, entity.epoch, room.bare, prev, cast.id, parts, cast.members))
            if cast.id is not None:
                room.feeds[router] = cast.id
        if cast.id is not None:
            room.last = cast.id
            if len(room.tail) == TAIL:
                room.floor = room.tail[0].id
            room.tail.append(cast)
            if cast.message is not None:
                room.history.append((cast.id, cast.message))

    def _before(self, room: Room, router: Incarnation) -> list[Occupant]:
        """Occupants of a router that were there before the event that is let out now."""
        return [
            occupant
            for occupant in room.occupants.values()
            if occupant.is_local and occupant.since <= room.last and self.router_of(occupant.jid) == router
        ]

    def _replay(self, entity: Entity, room: Room, replay: Replay) -> None:
        if max(replay.least, replay.until) < room.floor:
            self.missed(entity, replay.router)  # so much was said while it waited for its batch
            return
        recent = {cast.id: cast.parts for cast in room.tail if cast.id > replay.least}
        events = sorted({**replay.events, **recent}.items())
        answers = self._answers(replay.answers, replay.router)
        where = (entity.shard, entity.epoch, room.bare, room.last)
        if not self._send(replay.router, (REPLAY, *where, events, answers, replay.members)):
            return  # it is asked again
        # Since it answered, some may have come to that router and others gone from it: of them somebody will answer.
        told = {sid for sid, _ in replay.members}
        for jid, occupant in list(room.unchecked.items()):
            if occupant.sid in told and self.router_of(jid) == replay.router:
                del room.unchecked[jid]
        room.feeds[replay.router] = room.last

    def _answers(self, answers: Sequence[Answer], router: Incarnation) -> list[Part]:
        return [(ONLY, (answer.sid,), answer.stanzas) for answer in answers if self.router_of(answer.jid) == router]

    def router_of(self, jid: str) -> Incarnation | None:
        """The router that owns the account of a local occupant."""
        return self._map.owners[shard_of(jid.partition("/")[0])]

    def _routers(self, room: Room) -> dict[Incarnation, None]:
        """Those of local occupants, and those that had some and have not forgotten the room yet."""
        routers = dict.fromkeys(room.feeds)
        for shard in room.shards:
            owner = self._map.owners[shard]
            if owner is not None:
                routers[owner] = None
        return routers

    def _blocked(self, room: Room) -> set[Incarnation | None]:
        return {self.router_of(jid) for jid in room.unchecked} if room.unchecked else set()

    # --- who has missed something

    def owners_changed(self, entities: Iterable[Entity], shards: Iterable[Shard]) -> None:
        """Accounts in these shards have a new owner, or their owner a new link."""
        news = frozenset(shards)
        for entity in entities:
            room: Room | None = entity.room
            if room is not None and not news.isdisjoint(room.shards):
                self.check(entity, [o for o in room.occupants.values() if o.is_local and shard_of(o.bare) in news])

    def missed(self, entity: Entity, router: Incarnation) -> None:
        """A router says that there is a gap in what it was told, or that it has nobody in the room (any more)."""
        room: Room = entity.room
        room.feeds.pop(router, None)
        self.check(entity, [o for o in room.occupants.values() if o.is_local and self.router_of(o.jid) == router])

    def check(self, entity: Entity, occupants: Iterable[Occupant]) -> None:
        """Ask the routers of these occupants how far they have come."""
        room: Room = entity.room
        room.unchecked.update((occupant.jid, occupant) for occupant in occupants)
        if room.unchecked:
            self._unchecked[entity] = None
            self._ask(entity)

    def _ask(self, entity: Entity) -> None:
        room: Room = entity.room
        asked: dict[Incarnation, list[tuple[int, str]]] = {}
        # A router is asked about all that it has: it may have lost the others with them.
        routers = self._blocked(room)
        for occupant in room.occupants.values():
            router = self.router_of(occupant.jid) if occupant.is_local else None
            if router is not None and router in routers:
                asked.setdefault(router, []).append((occupant.sid, occupant.jid))
        for router, sessions in asked.items():
            self._send(router, (CHECK, entity.shard, entity.epoch, room.bare, sessions))

    def tick(self, entities: dict[str, Entity]) -> None:
        """About once a second: who has not answered is asked again."""
        for entity in list(self._unchecked):
            if entities.get(entity.bare) is not entity or entity.room is None or not entity.room.unchecked:
                del self._unchecked[entity]
            else:
                self._ask(entity)


def members_of(occupants: Iterable[Occupant]) -> tuple[tuple[int, int], ...]:
    """Local sessions and their roles, for an envelope."""
    return tuple((occupant.sid, int(occupant.role)) for occupant in occupants if occupant.is_local)


def gone(occupants: Iterable[Occupant]) -> tuple[tuple[int, int], ...]:
    """Local sessions that go."""
    return tuple((occupant.sid, int(Role.NONE)) for occupant in occupants if occupant.is_local)
