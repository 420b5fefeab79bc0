"""What `router/pipeline.py` is for accounts, for rooms: each stanza that arrives, and what is done with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Protocol

from cluster.wire import Incarnation
from router.entity import Entity
from router.pipeline import Pipeline, check_iq, refuse
from router.rooms import (
    absence,
    administering,
    archive,
    configuring,
    discovering,
    dressing,
    hats,
    inviting,
    joining,
    picturing,
    registering,
    relaying,
    retracting,
    scene,
    speaking,
    watching,
)
from router.rooms import config as configs
from router.rooms.fanout import ALL, Answer, Cast, Fanout, Part, Replay, Send, members_of
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
from xmpp.stanza import IQ, MESSAGE, Stanza

REPLAYED: Final = 10_000  # messages that one router may have missed
NOTED_S: Final = 10.0
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
    ("get", f"{ns.VCARD} vCard"): picturing.show,
    ("set", f"{ns.VCARD} vCard"): picturing.publish,
    ("set", f"{ns.MODERATE} moderate"): retracting.moderate,
    ("set", f"{ns.COMMANDS} command"): dressing.run,
    ("get", f"{ns.MENTIONS} query"): configuring.show_mentions,
    ("set", f"{ns.MENTIONS} query"): configuring.change_mentions,
    ("get", f"{ns.REGISTER} query"): registering.ask,
    ("set", f"{ns.REGISTER} query"): registering.register,
    ("get", f"{ns.MAM} query"): archive.tell_fields,
    ("set", f"{ns.MAM} query"): archive.query,
    ("get", f"{ns.MAM} metadata"): archive.tell_ends,
}
_PAYLOADS: Final = frozenset(payload for _, payload in _IQ_HANDLERS)


class Elsewhere(Protocol):
    """What the owner does for occupants of other servers, and for members who are away."""

    def send_event(self, entity: Entity, origin: int, id: int, sends: Sequence[Send], is_again: bool) -> None:
        """Route what an event of a room is for others than its local occupants, as number `id` of the sender `origin`:
        once, however often it is offered."""

    def act(self, entity: Entity, run: Callable[[Turn], None]) -> None:
        """Run a turn of the room's own."""

    def is_on_its_way(self, origin: int) -> bool:
        """Whether anything of this sender is not confirmed yet."""


class RoomPipeline:
    """The rooms of one owner."""

    def __init__(self, accounts: Pipeline, settings: Settings, fanout: Fanout, elsewhere: Elsewhere) -> None:
        self._accounts = accounts
        self._settings = settings
        self._elsewhere = elsewhere
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
            room: Room | None = turn.entity.room
            if room is not None and room.is_for_others:
                self._for_others(turn, room, stanza)
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
            joining.did_not_answer(turn, iq)
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
            if isinstance(event, Cast) and event.elsewhere and event.id is not None:
                self._elsewhere.send_event(turn.entity, room.origin, event.id, event.elsewhere, False)

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
            room.affiliate(row.jid, Affiliation(row.affiliation), row.changed)
            if row.nick:
                room.reserved[row.nick] = row.jid
        room.photos, room.hats = found.room.photos, hats.from_json(found.room.hats)
        room.handed_over = found.room.handed_over
        for one in found.occupants:
            occupant = Occupant(one.jid, one.nick, Role(one.role), one.sid, unpack_presence(one.presence), one.changed)
            if occupant.role == Role.NONE:
                room.left[occupant.jid] = occupant
            else:
                room.add(occupant)
        for row_ in found.history:
            if retracting.is_shown_later(row_.stanza):
                room.history.append((row_.id, _said(room, row_)))
        room.last = room.floor = found.last_id
        entity.room = room
        if known is None and room.is_for_others:
            offer = partial(self._offer_again, room, found.not_handed_over)
            entity.inputs.appendleft(partial(self._elsewhere.act, entity, offer))
        if known is not None and known.origin == room.origin:
            # Read anew by the same owner: who was told of what is known.
            room.feeds, room.tail, room.last, room.floor = known.feeds, known.tail, known.last, known.floor
            room.unchecked = {jid: room.occupants[jid] for jid in known.unchecked if jid in room.occupants}
        else:
            self.fanout.check(entity, [occupant for occupant in room.occupants.values() if occupant.is_local])

    # --- occupants of other servers, and members who are away

    def _offer_again(self, room: Room, rows: Sequence[Row], turn: Turn) -> None:
        """The owner before may not have told them of the last events: whoever has them takes no notice."""
        others = list(room.remote())
        watching.begin(turn, room)
        events: dict[int, list[Send]] = {}
        for row in rows:
            said = _said(room, row)
            away = absence.sends_of(room, turn.settings, said, row.id)
            events[row.id] = [*away, *(scene.sent(other.jid, said) for other in others)]
        for occupant in (*room.left.values(), *room.occupants.values()):
            if occupant.changed <= room.handed_over:
                continue
            frame = Frame(is_gone=occupant.role == Role.NONE)
            if occupant.is_local or frame.is_gone:
                events[occupant.changed] = scene.remote_of(room, occupant, (frame,))
                continue
            # Whether it has just come in is not known: it is told everything.
            told = joining.welcome_again(turn, room, occupant)
            seen = scene.remote_of(room, occupant, (frame,), but=occupant)
            events[occupant.changed] = [*(scene.sent(occupant.jid, stanza) for stanza in told), *seen]
        for id_, sends in sorted(events.items()):
            if sends:
                self._elsewhere.send_event(turn.entity, room.origin, id_, sends, True)

    def _for_others(self, turn: Turn, room: Room, stanza: Stanza) -> None:
        occupant = room.remotes.get(stanza.from_ or "")
        if occupant is not None and stanza.type != "error":
            occupant.heard_at = turn.now
        watching.begin(turn, room)
        if turn.casts:
            self._note_handed_over(turn, room)

    def _note_handed_over(self, turn: Turn, room: Room) -> None:
        """Now and then it is written down how far everything has come: an event is said to be with the peers when it
        was let out a while ago and nothing is on its way to them."""
        since, last = room.noted
        if turn.now - since < NOTED_S:
            return
        if self._elsewhere.is_on_its_way(room.origin):
            room.noted = (turn.now, last)
            return
        if last > room.handed_over:
            room.handed_over = last
            turn.write(rooms.set_handed_over, room.key, last)
        room.noted = (turn.now, room.last)

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
        unaware = [occupant for occupant in here if not known.get(occupant.sid)]
        answers = tuple(Answer(o.jid, o.sid, joining.welcome_again(turn, room, o)) for o in unaware)
        staying = [occupant for occupant in here if known.get(occupant.sid) != -1]
        replay = Replay(router, events, least, until, answers, members_of(staying))
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
    return scene.with_id(room, row.stanza, row.id)


def _refuse(turn: Turn, stanza: Stanza, fault: StanzaError) -> None:
    """An error for presence comes from whom it was sent to (7.2), like every other."""
    refuse(turn, stanza, fault)
