"""Coming in, changing nickname or presence, and going (XEP-0045, 7.2 to 7.7, 7.14, 10.1)."""

from __future__ import annotations

from functools import partial
from typing import Final

from lxml import etree

from router.entity import Entity
from router.rooms import config as configs
from router.rooms import picturing, scene, versioning
from router.rooms.config import RoomConfig
from router.rooms.fanout import Answer, members_of
from router.rooms.policy import Affiliation, initial_role
from router.rooms.room import History, Occupant, Room
from router.rooms.scene import Frame, presence_of
from router.turn import Turn
from storage import rooms
from storage.log import time_of
from xmpp import ns
from xmpp.errors import (
    Conflict,
    Forbidden,
    ItemNotFound,
    JidMalformed,
    NotAllowed,
    NotAuthorized,
    RegistrationRequired,
    ServiceUnavailable,
)
from xmpp.jid import domain_of
from xmpp.stanza import HAS_DELAY, HAS_MUC, HAS_SUBJECT, MESSAGE, TO_FULL, Stanza
from xmpp.timestamp import format_moment, parse_moment
from xmpp.xml import canonical_element, element, text_of

_NOBODY_THERE: Final = frozenset(
    {
        "gone", "item-not-found", "jid-malformed", "recipient-unavailable", "redirect", "remote-server-not-found",
        "remote-server-timeout", "service-unavailable",
    }
)  # fmt: skip
# Of a ping: what does not mean that its recipient only does not know what that is.
_NOT_REACHED: Final = _NOBODY_THERE - {"service-unavailable"}
_OURS: Final = frozenset({f"{{{ns.MUC}}}x", f"{{{ns.MUC_USER}}}x", f"{{{ns.OCCUPANT_ID}}}occupant-id"})


def sid_of(turn: Turn, jid: str) -> int:
    """The session that has sent what this turn is about; 0 where it is of another server."""
    return turn.key[0] if domain_of(jid) in turn.settings.domains else 0


def enter(turn: Turn, presence: Stanza) -> None:
    """Available presence to room@service/nick, whatever it means: coming in (7.2), another nickname (7.6), a change of
    presence (7.7). Without `<x/>` it may be a client of the "groupchat 1.0" protocol (7.2.1)."""
    assert presence.to is not None
    assert presence.from_ is not None
    nick = presence.to.partition("/")[2]
    if not nick:
        raise JidMalformed("A nickname is missing.")  # 7.2.1
    entity = turn.entity
    room: Room | None = entity.room
    if room is None:
        _may_create(turn, presence.from_)
        turn.fetch_first(
            rooms.make, partial(_create, presence, sid_of(turn, presence.from_)), entity.bare, entity.shard
        )
        return
    occupant = room.occupants.get(presence.from_)
    if occupant is None:
        _join(turn, room, presence, nick, sid_of(turn, presence.from_))
    elif occupant.nick != nick:
        _rename(turn, room, occupant, presence, nick)
    elif presence.flags & HAS_MUC:
        _rejoin(turn, room, occupant, presence)
    else:
        occupant.presence = _clean(presence)
        scene.save(turn, room, occupant)
        scene.announce(turn, room, occupant, (Frame(),))


# --- making a room


def _may_create(turn: Turn, jid: str) -> None:
    settings = turn.settings
    is_local = domain_of(jid) in settings.domains
    who = settings.rooms_create
    if jid.partition("/")[0] in settings.admins:
        return
    is_guest = domain_of(jid) in settings.guests
    if who == "admins" or (who == "local" and not is_local) or is_guest:
        raise NotAllowed("You may not make rooms here.")  # 10.1.1


def _create(presence: Stanza, sid: int, turn: Turn, key: int) -> None:
    """10.1.1: whoever comes first owns the room. With `<x/>` it is locked until its owner has said how it shall be."""
    assert presence.from_ is not None
    assert presence.to is not None
    room = make_room(turn, key, turn.settings.room_defaults, is_locked=bool(presence.flags & HAS_MUC))
    owner = presence.from_.partition("/")[0]
    changed = turn.next_id()
    room.affiliate(owner, Affiliation.OWNER, changed)
    turn.write(rooms.set_affiliation, key, owner, int(Affiliation.OWNER), None, "", changed)
    _join(turn, room, presence, presence.to.partition("/")[2], sid, (scene.CREATED,))


def make_room(turn: Turn, key: int, config: RoomConfig, *, is_locked: bool) -> Room:
    """There is a room from now on, with nobody in it."""
    entity = turn.entity
    entity.key = key
    room = entity.room = Room(entity.bare, key, turn.new_origin(), config, turn.settings.room_presence_most)
    room.is_locked = is_locked
    turn.write(rooms.create, key, entity.shard, room.origin, configs.to_json(config, is_locked=is_locked))
    scene.begin_handing_over(turn, room)
    return room


# --- coming in


def _join(turn: Turn, room: Room, presence: Stanza, nick: str, sid: int, own: tuple[int, ...] = ()) -> None:
    assert presence.from_ is not None
    bare = presence.from_.partition("/")[0]
    x = presence.child(ns.MUC, "x") if presence.flags & HAS_MUC else None
    affiliation = room.affiliation(bare)
    _check_entry(turn, room, bare, affiliation, x)
    _check_nick(room, bare, nick)
    config = room.config
    role = initial_role(affiliation, is_moderated=config.moderatedroom, is_members_only=config.membersonly)
    others = room.nicks.get(nick)
    if others:
        role = others[0].role  # 7.2.?: one occupant, with several sessions
    occupant = Occupant(presence.from_, nick, role, sid, _clean(presence), 0)
    is_first_remote = not occupant.is_local and not room.has_remote
    room.add(occupant)
    scene.save(turn, room, occupant)
    occupant.since = occupant.changed
    if is_first_remote and not room.config.keeps_for_members:
        scene.begin_handing_over(turn, room)
    _let_in(turn, room, occupant, _welcome(turn, room, occupant, x, own))


def _let_in(turn: Turn, room: Room, occupant: Occupant, stanzas: tuple[Stanza, ...]) -> None:
    """Who comes in is told this, and all others that somebody has."""
    answers = (Answer(occupant.jid, occupant.sid, stanzas),) if occupant.is_local else ()
    elsewhere = () if occupant.is_local else [scene.sent(occupant.jid, stanza) for stanza in stanzas]
    scene.announce(
        turn, room, occupant, (Frame(),),
        but=occupant, answers=answers, members=members_of((occupant,)), elsewhere=elsewhere,
    )  # fmt: skip


def _check_entry(turn: Turn, room: Room, bare: str, affiliation: Affiliation, x: etree._Element | None) -> None:
    """7.2.4 to 7.2.9, in an order that tells strangers as little as possible."""
    config = room.config
    if affiliation == Affiliation.OUTCAST:
        raise Forbidden("You are banned from this room.")
    if affiliation == Affiliation.NONE and turn.settings.blocklists.refuses(bare, "rooms"):
        raise Forbidden("You are on a list of abusers that this server goes by.")
    if room.is_locked and affiliation != Affiliation.OWNER:
        raise ItemNotFound("The room is not open yet.")
    if config.membersonly and affiliation < Affiliation.MEMBER:
        raise RegistrationRequired("The room is open to members alone.")
    if config.passwordprotectedroom and affiliation != Affiliation.OWNER:
        password = text_of(x.find(f"{{{ns.MUC}}}password")) if x is not None else ""
        if password != config.roomsecret:
            raise NotAuthorized("The room wants a password.")
    most = min(config.maxusers or turn.settings.room_occupants, turn.settings.room_occupants)
    if len(room.nicks) >= most and affiliation < Affiliation.ADMIN and not room.sessions_of(bare):
        raise ServiceUnavailable("The room is full.")


def _check_nick(room: Room, bare: str, nick: str) -> None:
    """7.2.8: another's nickname, in use or reserved, cannot be had."""
    others = room.nicks.get(nick)
    if (others and others[0].bare != bare) or room.reserved.get(nick, bare) != bare:
        raise Conflict("That nickname is somebody else's.")


def _rejoin(turn: Turn, room: Room, occupant: Occupant, presence: Stanza) -> None:
    """7.2: who believes to be outside is told everything again; the others, nothing but what is new."""
    occupant.presence = _clean(presence)
    scene.save(turn, room, occupant)
    _let_in(turn, room, occupant, _welcome(turn, room, occupant, presence.child(ns.MUC, "x"), ()))


def _welcome(
    turn: Turn, room: Room, occupant: Occupant, x: etree._Element | None, own: tuple[int, ...]
) -> tuple[Stanza, ...]:
    """7.2.2 to 7.2.15, in their order: who is there, that one is in, what was said, the subject."""
    stanzas = versioning.changes_since(room, occupant, x)
    stanzas += look_round(room, occupant)
    codes = own
    if room.config.whois == "anyone":
        codes = (scene.NON_ANONYMOUS, *codes)
    if room.config.enablelogging:
        codes = (*codes, scene.LOGGED)
    frame = Frame(own=codes, versions=versioning.until(room))
    stanzas.append(presence_of(room, occupant, frame, True, True))
    if room.photos:
        stanzas.append(picturing.update_of(room))
    stanzas += _history(turn, room, x)
    stanzas.append(subject_of(room))
    return tuple(stanzas)


def welcome_again(turn: Turn, room: Room, occupant: Occupant) -> tuple[Stanza, ...]:
    """The same for a session that was in before its router, or the room's, had told it so."""
    return _welcome(turn, room, occupant, None, ())


def look_round(room: Room, occupant: Occupant) -> list[Stanza]:
    """The presence of those who are there, one for each nickname; in a crowd, of moderators."""
    sees_jids = room.sees_jids(occupant.role)
    others = room.moderators if scene.is_crowded(room) else room.occupants
    last = {other.nick: other for other in others.values() if other.nick != occupant.nick}
    return [
        presence_of(room, other, Frame(), sees_jids, False) for other in last.values() if scene.is_shown(room, other)
    ]


def subject_of(room: Room) -> Stanza:
    """7.2.15: the subject, an empty one where there is none."""
    if room.subject is not None:
        return room.subject
    return Stanza(MESSAGE, "groupchat", None, room.bare, None, None, TO_FULL | HAS_SUBJECT, None, None, b"<subject/>")


def _history(turn: Turn, room: Room, x: etree._Element | None) -> list[Stanza]:
    """7.2.13 and 7.2.14: what was said last, as much as the client wants and the room shows."""
    wanted = x.find(f"{{{ns.MUC}}}history") if x is not None else None
    found = list(room.history)[-turn.settings.room_history :] if turn.settings.room_history else []
    if wanted is not None:
        found = _limited(turn, found, wanted)
    return [_delayed(room, id_, message) for id_, message in found]


def _limited(turn: Turn, found: list[History], wanted: etree._Element) -> list[History]:
    most = _number(wanted.get("maxstanzas"))
    if most is not None:
        found = found[len(found) - min(most, len(found)) :]
    seconds = _number(wanted.get("seconds"))
    since = turn.now - seconds if seconds is not None else None
    if (text := wanted.get("since")) is not None:
        try:
            since = max(since or 0.0, parse_moment(text) / 1_000_000)
        except ValueError:
            pass  # no moment: it limits nothing
    if since is not None:
        found = [(id_, message) for id_, message in found if time_of(id_) >= since]
    characters = _number(wanted.get("maxchars"))
    if characters is not None:
        kept: list[History] = []
        for id_, message in reversed(found):
            characters -= len(message.inner)
            if characters < 0:
                break
            kept.append((id_, message))
        found = kept[::-1]
    return found


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None


def _delayed(room: Room, id_: int, message: Stanza) -> Stanza:
    delay = element("delay", ns.DELAY, {"from": room.bare, "stamp": format_moment(time_of(id_))})
    return message._replace(inner=message.inner + delay, flags=message.flags | HAS_DELAY)


def _clean(presence: Stanza) -> Stanza:
    """A presence without what only a room may say."""
    kept = [child for child in presence.children() if child.tag not in _OURS]
    inner = b"".join(canonical_element(child, ns.CLIENT) for child in kept)
    return presence._replace(inner=inner, to=None, flags=presence.flags & ~HAS_MUC)


# --- another nickname


def _rename(turn: Turn, room: Room, occupant: Occupant, presence: Stanza, nick: str) -> None:
    """7.6. All sessions under the nickname have the new one."""
    _check_nick(room, occupant.bare, nick)
    old = occupant.nick
    occupant.presence = _clean(presence)
    others = [other for other in room.nicks[old] if other is not occupant]
    for session in (*others, occupant):
        room.rename(session, nick)
        scene.save(turn, room, session)
    frames = (Frame(is_gone=True, codes=(scene.RENAMED,), nick=nick), Frame())
    scene.announce(turn, room, occupant, frames, old_nick=old)


# --- going


def go(turn: Turn, presence: Stanza) -> None:
    """Unavailable presence (7.14)."""
    room: Room | None = turn.entity.room
    occupant = room.occupants.get(presence.from_ or "") if room is not None else None
    if room is None or occupant is None:
        return
    occupant.presence = _clean(presence)
    depart(turn, room, occupant, Frame(is_gone=True))


def came_back(turn: Turn, error: Stanza) -> None:
    """What was sent to an occupant of another server came back as an error that says that nobody is there. Of a local
    session its owner knows better."""
    room: Room | None = turn.entity.room
    occupant = room.occupants.get(error.from_ or "") if room is not None else None
    if room is None or occupant is None or occupant.is_local:
        return
    if _conditions(error) & _NOBODY_THERE:
        _vanished(turn, room, occupant)


def did_not_answer(turn: Turn, error: Stanza) -> None:
    """The room had asked whether somebody of another server is still there (watching.py)."""
    room: Room | None = turn.entity.room
    occupant = room.remotes.get(error.from_ or "") if room is not None else None
    if room is not None and occupant is not None and error.type == "error" and _conditions(error) & _NOT_REACHED:
        _vanished(turn, room, occupant)


def _conditions(error: Stanza) -> set[str]:
    fault = error.child(ns.CLIENT, "error")
    return {str(child.tag).rpartition("}")[2] for child in fault} if fault is not None else set()


def _vanished(turn: Turn, room: Room, occupant: Occupant) -> None:
    occupant.presence = None
    depart(turn, room, occupant, Frame(is_gone=True, codes=(scene.KICKED, scene.ERRORED)))


def depart(turn: Turn, room: Room, occupant: Occupant, frame: Frame) -> None:
    """Somebody goes, or is made to."""
    scene.leave(turn, room, occupant, frame)
    close_deserted(turn, room)


def close_deserted(turn: Turn, room: Room) -> None:
    """A room that nobody wants to keep goes with the last one who was in it (4.2, "temporary room")."""
    if not room.occupants and not room.config.persistentroom and turn.entity.room is room:
        close(turn.entity, turn)


def close(entity: Entity, turn: Turn) -> None:
    """There is no such room any more."""
    room: Room = entity.room
    turn.write(rooms.destroy, room.key)
    entity.room = None
