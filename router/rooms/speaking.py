"""What occupants say: to everybody, to one of them, and about what the room is (XEP-0045, 7.4, 7.5, 8.1)."""

from __future__ import annotations

from math import ceil
from typing import Final

from router.features.archive import is_worth_keeping
from router.recipients import with_stanza_id
from router.rooms import absence, joining, retracting, scene
from router.rooms.fanout import Send
from router.rooms.policy import Affiliation, Role
from router.rooms.room import Occupant, Room
from router.turn import Turn
from storage import rooms
from storage.log import ARCHIVE, QUEUE, TO_OWNER
from xmpp import ns
from xmpp.errors import BadRequest, Forbidden, ItemNotFound, NotAcceptable, PolicyViolation
from xmpp.stanza import (
    HAS_BODY,
    HAS_MUC_USER,
    HAS_OTHER,
    HAS_STANZA_ID,
    HAS_SUBJECT,
    HAS_THREAD,
    OF_PRIVATE_ROOM,
    TO_FULL,
    Stanza,
)
from xmpp.xml import canonical_element, element

_OURS: Final = frozenset(
    {f"{{{ns.OCCUPANT_ID}}}occupant-id", f"{{{ns.MUC_USER}}}x", f"{{{ns.DELAY}}}delay", f"{{{ns.ADDRESS}}}addresses"}
)
_SPOKEN_SPARE: Final = 100  # users remembered who have gone
_STANZA_ID: Final = f"{{{ns.SID}}}stanza-id"


def occupant_of(room: Room, stanza: Stanza) -> Occupant:
    """Whoever has sent this, if it is somebody inside; raises (7.4: not-acceptable)."""
    occupant = room.occupants.get(stanza.from_ or "")
    if occupant is None:
        raise NotAcceptable("Only occupants may send to the room.")
    return occupant


def to_all(turn: Turn, room: Room, message: Stanza) -> None:
    """7.4: a message to everybody, or the subject (8.1): a message with a subject and neither body nor thread."""
    occupant = occupant_of(room, message)
    if message.flags & HAS_SUBJECT and not message.flags & (HAS_BODY | HAS_THREAD):
        _set_subject(turn, room, occupant, message)
        return
    if occupant.role < Role.PARTICIPANT:
        raise Forbidden("Visitors may not speak in this room.")
    if room.affiliation(occupant.bare) == Affiliation.NONE and turn.settings.blocklists.refuses(occupant.bare, "rooms"):
        raise Forbidden("You are on a list of abusers that this server goes by.")
    if room.config.slow_mode_duration and message.flags & HAS_BODY:
        _go_slow(turn, room, occupant)
    _say(turn, room, occupant, message)


def _go_slow(turn: Turn, room: Room, occupant: Occupant) -> None:
    """XEP-0500, 6: so much time has to be between two messages of a user. Admins and owners need not wait."""
    wait_s = room.config.slow_mode_duration
    if room.affiliation(occupant.bare) >= Affiliation.ADMIN:
        return
    since = turn.now - room.spoke_at.get(occupant.bare, 0.0)
    if since < wait_s:
        raise PolicyViolation(
            f"In this room you wait {wait_s} seconds between two messages; try again in {ceil(wait_s - since)}.",
            type="wait",
        )
    if len(room.spoke_at) > len(room.occupants) + _SPOKEN_SPARE:
        room.spoke_at = {bare: at for bare, at in room.spoke_at.items() if turn.now - at < wait_s}
    room.spoke_at[occupant.bare] = turn.now


def _set_subject(turn: Turn, room: Room, occupant: Occupant, message: Stanza) -> None:
    allowed = Role.PARTICIPANT if room.config.changesubject else Role.MODERATOR
    if occupant.role < allowed:
        raise Forbidden("You may not change the subject.")
    room.subject = said = _say(turn, room, occupant, message)
    turn.write(rooms.set_subject, room.key, rooms.packed(said))


def _say(turn: Turn, room: Room, occupant: Occupant, message: Stanza) -> Stanza:
    said = as_said(room, occupant, message)
    id_: int | None = None
    away: list[Send] = []
    if is_worth_keeping(said._replace(type=None)):
        id_ = turn.log(said, TO_OWNER, ARCHIVE if room.config.enablelogging else QUEUE)
        said = with_stanza_id(said, room.bare, id_)
        away = absence.sends_of(room, turn.settings, said, id_)
        if (retracted := retracting.find(message)) is not None:
            retracting.retract(turn, room, occupant, said, retracted)
    scene.tell_everybody(turn, room, said, id_, said if said.flags & HAS_BODY else None, away)
    return said


def as_said(room: Room, occupant: Occupant, message: Stanza) -> Stanza:
    """A message in the name of an occupant, with its id (XEP-0421) and without what only the room may say."""
    inner = message.inner
    if message.flags & (HAS_OTHER | HAS_STANZA_ID | HAS_MUC_USER):
        kept = [child for child in message.children() if not _is_ours(room, child.tag, child.get("by"))]
        inner = b"".join(canonical_element(child, ns.CLIENT) for child in kept)
    inner += element("occupant-id", ns.OCCUPANT_ID, {"id": room.occupant_id(occupant.bare)})
    flags = (message.flags & ~HAS_MUC_USER) | TO_FULL
    if room.config.membersonly:
        flags |= OF_PRIVATE_ROOM
    return message._replace(to=None, from_=f"{room.bare}/{occupant.nick}", inner=inner, flags=flags)


def _is_ours(room: Room, tag: object, by: str | None) -> bool:
    return tag in _OURS or (tag == _STANZA_ID and by == room.bare)


def to_one(turn: Turn, room: Room, message: Stanza, nick: str) -> None:
    """7.5: a private message. It goes to all sessions of the recipient's nickname."""
    occupant = occupant_of(room, message)
    if message.type == "groupchat":
        raise BadRequest("A private message is not of type 'groupchat'.")
    allowed = {"anyone": Role.VISITOR, "participants": Role.PARTICIPANT, "moderators": Role.MODERATOR}
    least = allowed.get(room.config.allowpm)
    others = room.nicks.get(nick)
    if not others:
        raise ItemNotFound("There is nobody of that nickname.")
    # Whoever answers a moderator is heard.
    if least is None or (occupant.role < least and others[0].role < Role.MODERATOR):
        raise Forbidden("Private messages are not allowed in this room.")
    said = as_said(room, occupant, message)
    said = said._replace(inner=said.inner + element("x", ns.MUC_USER), flags=said.flags | HAS_MUC_USER)
    for other in others:
        scene.send_to(turn, other.jid, said)


def came_back(turn: Turn, room: Room, error: Stanza, nick: str) -> None:
    """The error for a private message goes to who has sent it; one for what the room has sent, to the room."""
    occupant = room.occupants.get(error.from_ or "")
    if nick and occupant is not None:
        for other in room.nicks.get(nick, ()):
            scene.send_to(turn, other.jid, error._replace(from_=f"{room.bare}/{occupant.nick}"))
    if not nick:
        joining.came_back(turn, error)
