"""What `router/pipeline.py` is for accounts, for rooms: each stanza that arrives, and what is done with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from cluster.wire import Incarnation
from router.entity import Entity
from router.pipeline import Pipeline, check_iq, refuse
from router.recipients import with_stanza_id
from router.rooms import (
    administering,
    archive,
    configuring,
    discovering,
    inviting,
    joining,
    registering,
    relaying,
    scene,
    speaking,
)
from router.rooms import config as configs
from router.rooms.fanout import ALL, Answer, Fanout, Part, Replay, members_of
from router.rooms.policy import Affiliation, Role
from router.rooms.room import Occupant, Room, unpack_presence
from router.rooms.scene import Frame
from router.settings import Settings
from router.turn import Turn
from storage import log, rooms
from storage.log import Row
from xmpp import ns
from xmpp.errors import (
    BadRequest,
    FeatureNotImplemented,
    InternalServerError,
    ItemNotFound,
    ServiceUnavailable,
    StanzaError,
)
from xmpp.stanza import IQ, MESSAGE, TO_FULL, Stanza

REPLAYED: Final = 10_000  # messages that one router may have missed
LEFT_S: Final = 600.0  # how long it is known that somebody has gone
LEFT_LEAST: Final = 50  # so many are, and as many as there are occupants, whatever the time

_IQ_HANDLERS: Final[dict[tuple[str, str], Callable[[Turn, Room, Stanza], None]]] = {
    ("get", f"{ns.DISCO_INFO} query"): discovering.info,
    ("get", f"{ns.DISCO_ITEMS} query"): discovering.items,
    ("get", f"{ns.MUC_ADMIN} query"): administering.list_,
    ("set", f"{ns.MUC_ADMIN} query"): administering.change,
    ("get", f"{ns.MUC_OWNER} query"): configuring.show,
    ("set", f"{ns.MUC_OWNER} query"): configuring.change,
    ("get", f"{ns.PING} ping"): discovering.ping,
    ("get", f"{ns.REGISTER} query"): registering.ask,
    ("set", f"{ns.REGISTER} query"): registering.register,
    ("get", f"{ns.MAM} query"): archive.tell_fields,
    ("set", f"{ns.MAM} query"): archive.query,
    ("get", f"{ns.MAM} metadata"): archive.tell_ends,
}
_PAYLOADS: Final = frozenset(payload for _, payload in _IQ_HANDLERS)


class RoomPipeline:
    """The rooms of one owner."""

    def __init__(self, accounts: Pipeline, settings: Settings, fanout: Fanout) -> None:
        self._accounts = accounts
        self._settings = settings
        self.fanout = fanout
        self.bounced = [0, 0, 0, 0]  # stanzas refused, by kind (xmpp/stanza.py)

    def incoming(self, turn: Turn, stanza: Stanza) -> None:
        """A stanza to a room, or to somebody in it."""
        try:
            assert stanza.to is not None
            _, _, nick = stanza.to.partition("/")
            if stanza.kind == MESSAGE:
                self._message(turn, stanza, nick)
            elif stanza.kind == IQ:
                self._iq(turn, stanza, nick)
            else:
                self._presence(turn, stanza)
        except StanzaError as fault:
            self.bounced[stanza.kind] += 1
            _refuse(turn, stanza, fault)
        except Exception as bug:
            self._accounts.record_bug(bug)
            _refuse(turn, stanza, InternalServerError())
            turn.reloads = True

    def _presence(self, turn: Turn, presence: Stanza) -> None:
        if presence.type is None:
            joining.enter(turn, presence)
        elif presence.type == "unavailable":
            joining.go(turn, presence)
            self._forget_left(turn)
        elif presence.type == "error":
            joining.came_back(turn, presence)
        elif presence.type != "probe":
            raise BadRequest("A room takes no subscriptions.")

    def _message(self, turn: Turn, message: Stanza, nick: str) -> None:
        room = _room(turn)
        if message.type == "error":
            speaking.came_back(turn, room, message, nick)
        elif nick:
            speaking.to_one(turn, room, message, nick)
        elif message.type == "groupchat":
            speaking.to_all(turn, room, message)
        else:
            inviting.receive(turn, room, message)

    def _iq(self, turn: Turn, iq: Stanza, nick: str) -> None:
        room = _room(turn)
        if nick:
            relaying.relay(turn, room, iq, nick)
            return
        if iq.type not in ("get", "set"):
            return
        check_iq(iq)
        handler = _IQ_HANDLERS.get((iq.type, iq.payload or ""))
        if handler is not None:
            handler(turn, room, iq)
        elif iq.payload in _PAYLOADS:
            raise FeatureNotImplemented
        else:
            raise ServiceUnavailable

    # --- what is committed

    def released(self, turn: Turn) -> None:
        """A turn is committed: occupants see what has happened."""
        for room, event in turn.casts:
            self.fanout.let_out(turn.entity, room, event)

    # --- what the database has

    def assign(self, entity: Entity, found: rooms.Loaded | None) -> None:
        """The room has come into memory, maybe from another owner's, which may have died while it told of something."""
        if found is None or found.room is None:
            entity.room = None
            return
        known: Room | None = entity.room
        room = Room(
            entity.bare,
            found.key,
            found.room.origin,
            configs.from_json(found.room.config),
            self._settings.room_presence_most,
        )
        room.is_locked = configs.is_locked(found.room.config)
        room.subject = None if found.room.subject is None else rooms.unpacked(found.room.subject)
        for row in found.affiliations:
            room.affiliations[row.jid] = Affiliation(row.affiliation)
            if row.nick:
                room.reserved[row.nick] = row.jid
        for one in found.occupants:
            occupant = Occupant(one.jid, one.nick, Role(one.role), one.sid, unpack_presence(one.presence), one.changed)
            if occupant.role == Role.NONE:
                room.left[occupant.jid] = occupant
            else:
                room.add(occupant)
        for row_ in found.history:
            room.history.append((row_.id, _said(room, row_)))
        room.last = room.floor = found.last_id
        entity.room = room
        if known is not None and known.origin == room.origin:
            # Read anew by the same owner: who was told of what is known.
            room.feeds, room.tail, room.last, room.floor = known.feeds, known.tail, known.last, known.floor
            room.unchecked = {jid: room.occupants[jid] for jid in known.unchecked if jid in room.occupants}
        else:
            self.fanout.check(entity, [occupant for occupant in room.occupants.values() if occupant.is_local])

    # --- routers that have missed something

    def marks(self, router: Incarnation, marks: Sequence[tuple[int, int]], turn: Turn) -> None:
        """How far the sessions of a router have come, or (without any) that it does not know."""
        room: Room | None = turn.entity.room
        if room is None:
            return
        if not marks:
            self.fanout.missed(turn.entity, router)
            return
        known = dict(marks)
        here = [o for o in room.occupants.values() if o.is_local and self.fanout.router_of(o.jid) == router]
        if not any(occupant.jid in room.unchecked for occupant in here):
            return  # it has answered already
        least = min((known[o.sid] for o in here if known.get(o.sid, 0) > 0), default=room.last)
        if least >= room.floor:
            self._replay(router, known, least, turn, ())
        else:
            turn.fetch_first(log.above, partial(self._replay, router, known, least), room.key, least, (), REPLAYED)

    def _replay(self, router: Incarnation, known: dict[int, int], least: int, turn: Turn, rows: Iterable[Row]) -> None:
        room: Room | None = turn.entity.room
        if room is None:
            return
        here = [o for o in room.occupants.values() if o.is_local and self.fanout.router_of(o.jid) == router]
        events: dict[int, tuple[Part, ...]] = {}
        until = least
        if least < room.floor:
            until = room.last
            for row in rows:
                events[row.id] = ((ALL, (), (_said(room, row),)),)
            for occupant in (*room.left.values(), *room.occupants.values()):
                if occupant.changed > least:
                    frame = Frame(is_gone=occupant.role == Role.NONE)
                    events[occupant.changed] = scene.parts_of(room, occupant, (frame,))
        unaware = [occupant for occupant in here if not known.get(occupant.sid, 0)]
        answers = tuple(Answer(o.jid, o.sid, joining.welcome_again(turn, room, o)) for o in unaware)
        replay = Replay(router, events, least, until, answers, members_of(here))
        turn.casts += ((room, replay),)
        for occupant in [o for o in here if known.get(o.sid) == -1]:
            joining.depart(turn, room, occupant, Frame(is_gone=True, codes=(scene.KICKED, scene.ERRORED)))

    @staticmethod
    def _forget_left(turn: Turn) -> None:
        """Who has gone long ago need not be remembered."""
        room: Room | None = turn.entity.room
        if room is None or len(room.left) < LEFT_LEAST + len(room.occupants):
            return
        below = log.id_at(turn.now - LEFT_S)
        room.left = {jid: occupant for jid, occupant in room.left.items() if occupant.changed >= below}
        turn.write(rooms.forget_left, room.key, below)


def _room(turn: Turn) -> Room:
    room: Room | None = turn.entity.room
    if room is None:
        raise ItemNotFound("There is no such room.")
    return room


def _said(room: Room, row: Row) -> Stanza:
    said = with_stanza_id(row.stanza, room.bare, row.id)
    return said._replace(flags=said.flags | TO_FULL)


def _refuse(turn: Turn, stanza: Stanza, fault: StanzaError) -> None:
    """An error for presence comes from whom it was sent to (7.2), like every other."""
    refuse(turn, stanza, fault)
