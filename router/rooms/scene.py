"""What occupants see of each other: presence, to whom with real JIDs and to whom without (XEP-0045, 7.1 and 13)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from router.recipients import with_stanza_id
from router.rooms.fanout import ALL, MODERATORS, ONLY, OTHERS, Answer, Cast, Part, Send, gone, members_of
from router.rooms.policy import Affiliation, Role
from router.rooms.room import Occupant, Room
from router.turn import Turn
from storage import rooms
from xmpp import ns
from xmpp.stanza import HAS_MUC_USER, MESSAGE, PRESENCE, TO_FULL, Stanza
from xmpp.xml import element

# Status codes (XEP-0045, 15.6.2).
NON_ANONYMOUS: Final = 100
SELF: Final = 110
LOGGED: Final = 170
CREATED: Final = 201
BANNED: Final = 301
RENAMED: Final = 303
KICKED: Final = 307
AFFILIATION_LOST: Final = 321
MEMBERS_ONLY: Final = 322
ERRORED: Final = 333


class Frame(NamedTuple):
    """One presence of an occupant: as it is now, or (`is_gone`) that it is not there any more. `nick` is the new one of
    a change of nickname. `codes` are for everybody, `own` for the occupant itself besides 110."""

    is_gone: bool = False
    codes: tuple[int, ...] = ()
    own: tuple[int, ...] = ()
    nick: str | None = None
    actor: str | None = None  # a nickname
    reason: str | None = None
    affiliation: Affiliation | None = None  # None: as the room has it
    destroy: bytes = b""  # <destroy/>, when the room goes
    versions: bytes = b""  # <mav/>: between which versions of the affiliations this is the change (XEP-0463)


def presence_of(
    room: Room, occupant: Occupant, frame: Frame, sees_jid: bool, is_self: bool, nick: str | None = None
) -> Stanza:
    """The presence of an occupant as one kind of recipient sees it."""
    affiliation = room.affiliation(occupant.bare) if frame.affiliation is None else frame.affiliation
    role = Role.NONE if frame.is_gone and frame.nick is None else occupant.role
    inside = []
    if frame.actor is not None:
        inside.append(element("actor", None, {"nick": frame.actor}))
    if frame.reason:
        inside.append(element("reason", None, None, frame.reason))
    jid = occupant.jid if sees_jid or is_self else None
    item = element(
        "item", None, {"affiliation": affiliation.word, "role": role.word, "jid": jid, "nick": frame.nick}, *inside
    )
    codes = (*frame.codes, *((SELF, *frame.own) if is_self else ()))
    statuses = [element("status", None, {"code": str(code)}) for code in codes]
    x = element("x", ns.MUC_USER, None, frame.versions, item, *statuses, frame.destroy)
    known = occupant.presence
    shown = b"" if known is None or frame.is_gone else known.inner
    if not frame.is_gone:
        shown += room.hats.shown(occupant.bare)
    occupant_id = element("occupant-id", ns.OCCUPANT_ID, {"id": room.occupant_id(occupant.bare)})
    from_ = f"{room.bare}/{nick or occupant.nick}"
    type_ = "unavailable" if frame.is_gone else None
    id_, lang = (known.id, known.lang) if known is not None else (None, None)
    flags = TO_FULL | HAS_MUC_USER
    return Stanza(PRESENCE, type_, None, from_, id_, lang, flags, None, None, shown + occupant_id + x)


def announce(
    turn: Turn, room: Room, occupant: Occupant, frames: Sequence[Frame], *, old_nick: str | None = None,
    but: Occupant | None = None, answers: tuple[Answer, ...] = (), members: tuple[tuple[int, int], ...] = (),
    elsewhere: Sequence[Send] = (),
) -> None:  # fmt: skip
    """Everybody sees these frames of an occupant, in order; `but` is answered apart (by `answers`, or by `elsewhere`
    where it is of another server). `old_nick`: of a change of nickname, whose first frame is still under that one."""
    parts = parts_of(room, occupant, frames, old_nick, but)
    others = remote_of(room, occupant, frames, old_nick, but)
    cast(turn, room, Cast(occupant.changed, parts, answers, members, elsewhere=(*elsewhere, *others)))


def remote_of(
    room: Room, occupant: Occupant, frames: Sequence[Frame], old_nick: str | None = None, but: Occupant | None = None
) -> list[Send]:
    """What occupants of other servers see of one."""
    own = {other.jid for other in _sessions(room, occupant)}
    has_gone = not occupant.is_local and occupant.jid not in room.occupants
    seen: list[Send] = []
    for other in (*room.remote(), *((occupant,) if has_gone else ())):
        is_self = other.jid in own
        if other is not but and (is_self or is_shown(room, occupant)):
            stanzas = _seen(room, occupant, frames, old_nick, room.sees_jids(other.role), is_self)
            seen += (sent(other.jid, stanza) for stanza in stanzas)
    return seen


def parts_of(
    room: Room, occupant: Occupant, frames: Sequence[Frame], old_nick: str | None = None, but: Occupant | None = None
) -> tuple[Part, ...]:
    """What local occupants see of another."""
    own = [other.sid for other in _sessions(room, occupant) if other.is_local]
    parts: list[Part] = []
    if is_shown(room, occupant):
        without_jids = _seen(room, occupant, frames, old_nick, False, False)
        with_jids = _seen(room, occupant, frames, old_nick, True, False)
        if room.config.whois == "anyone":
            parts.append((ALL, tuple(own), with_jids))
        else:
            parts += ((MODERATORS, tuple(own), with_jids), (OTHERS, tuple(own), without_jids))
    told = tuple(sid for sid in own if but is None or sid != but.sid)
    if told:
        parts.append((ONLY, told, _seen(room, occupant, frames, old_nick, True, True)))
    return tuple(parts)


def _seen(
    room: Room, occupant: Occupant, frames: Sequence[Frame], old_nick: str | None, sees_jid: bool, is_self: bool
) -> tuple[Stanza, ...]:
    nicks = (old_nick or occupant.nick, *(occupant.nick for _ in frames[1:]))
    return tuple(
        presence_of(room, occupant, frame, sees_jid, is_self, nick) for frame, nick in zip(frames, nicks, strict=True)
    )


def _sessions(room: Room, occupant: Occupant) -> list[Occupant]:
    """Those of one nickname, also of one that goes."""
    others = [other for other in room.nicks.get(occupant.nick, ()) if other is not occupant]
    return [*others, occupant]


def cast(turn: Turn, room: Room, event: Cast) -> None:
    """Let the routers of occupants know, and other servers, once this turn is committed."""
    if event.id is None:
        turn.sends += event.elsewhere
    turn.casts += ((room, event),)


def tell_everybody(
    turn: Turn, room: Room, stanza: Stanza, id: int | None = None, message: Stanza | None = None,
    elsewhere: Sequence[Send] = (),
) -> None:  # fmt: skip
    """Everybody in the room gets this."""
    remote = [sent(other.jid, stanza) for other in room.remote()]
    cast(turn, room, Cast(id, ((ALL, (), (stanza,)),), message=message, elsewhere=(*elsewhere, *remote)))


def tell_codes(turn: Turn, room: Room, codes: Sequence[int]) -> None:
    """10.2.1: everybody is told what has changed."""
    statuses = (element("status", None, {"code": str(code)}) for code in codes)
    inner = element("x", ns.MUC_USER, None, *statuses)
    told = Stanza(MESSAGE, "groupchat", None, room.bare, None, None, TO_FULL | HAS_MUC_USER, None, None, inner)
    tell_everybody(turn, room, told)


def tell_moderators(turn: Turn, room: Room, stanza: Stanza) -> None:
    """Those who moderate get this."""
    remote = tuple(sent(other.jid, stanza) for other in room.remote() if other.role == Role.MODERATOR)
    cast(turn, room, Cast(None, ((MODERATORS, (), (stanza,)),), elsewhere=remote))


def is_crowded(room: Room) -> bool:
    """Whether so many are there that the presence of moderators alone is shown."""
    return len(room.occupants) > room.crowd


def is_shown(room: Room, occupant: Occupant) -> bool:
    """Whether others see an occupant (`muc#roomconfig_presencebroadcast`); in a crowd, moderators' alone.
    Who goes may have been seen."""
    if is_crowded(room) and occupant.role not in (Role.MODERATOR, Role.NONE):
        return False
    return occupant.role == Role.NONE or occupant.role.word in room.config.presencebroadcast


def send_to(turn: Turn, jid: str, stanza: Stanza) -> None:
    """To one user, by the way of all stanzas."""
    turn.sends += (sent(jid, stanza),)


def sent(jid: str, stanza: Stanza) -> Send:
    """A stanza for one user, who need not have a session here."""
    return stanza._replace(to=jid, flags=stanza.flags & ~TO_FULL), (jid.partition("/")[0],)


def with_id(room: Room, message: Stanza, id_: int) -> Stanza:
    """A message as occupants get it: with the id that the room's archive gave it (XEP-0359)."""
    said = with_stanza_id(message, room.bare, id_)
    return said._replace(flags=said.flags | TO_FULL)


def save(turn: Turn, room: Room, occupant: Occupant) -> None:
    """An occupant has changed: it gets the id of this event, and its row is written."""
    occupant.changed = turn.next_id()
    turn.write(
        rooms.save_occupant, room.key, occupant.jid, occupant.nick, int(occupant.role), occupant.sid,
        occupant.pack_presence(), occupant.changed,
    )  # fmt: skip


def begin_handing_over(turn: Turn, room: Room) -> None:
    """From now on, what happens is also for others than local occupants: nothing of before was."""
    room.handed_over = turn.newest_id
    turn.write(rooms.set_handed_over, room.key, room.handed_over)


def leave(turn: Turn, room: Room, occupant: Occupant, frame: Frame) -> None:
    """Somebody goes, or is made to. While other sessions of the same nickname stay, nobody else need know."""
    room.remove(occupant)
    occupant.role = Role.NONE
    save(turn, room, occupant)
    if occupant.nick not in room.nicks:
        announce(turn, room, occupant, (frame,), members=gone((occupant,)))
        return
    tell_one(turn, room, occupant, presence_of(room, occupant, frame, True, True))


def tell_one(turn: Turn, room: Room, occupant: Occupant, stanza: Stanza) -> None:
    """One who has gone is told so, and nobody else."""
    parts: tuple[Part, ...] = ((ONLY, (occupant.sid,), (stanza,)),) if occupant.is_local else ()
    elsewhere = () if occupant.is_local else (sent(occupant.jid, stanza),)
    cast(turn, room, Cast(occupant.changed, parts, (), gone((occupant,)), elsewhere=elsewhere))


def update(turn: Turn, room: Room, occupants: Sequence[Occupant], frame: Frame) -> None:
    """Role or affiliation of somebody has changed, with however many sessions."""
    for occupant in occupants:
        save(turn, room, occupant)
    if occupants:
        announce(turn, room, occupants[-1], (frame,), members=members_of(occupants))
