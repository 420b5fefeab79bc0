"""Messages that are taken back, by their author (XEP-0424) or by a moderator (XEP-0425): whoever was there is told, and
the archive has a tombstone in their place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from lxml import etree

from router.rooms import absence, scene
from router.rooms.policy import Affiliation, Role
from router.rooms.room import Occupant, Room
from router.turn import Turn
from storage import log
from storage.log import ARCHIVE, QUEUE, TO_OWNER, Row, pack_head
from xmpp import ns
from xmpp.errors import BadRequest, Forbidden, ItemNotFound
from xmpp.stanza import HAS_OTHER, MESSAGE, TO_FULL, Stanza
from xmpp.timestamp import format_moment
from xmpp.xml import element, text_of

REASON: Final = 1_000  # characters
_RETRACT: Final = f"{{{ns.RETRACT}}}retract"
_REASON: Final = f"{{{ns.MODERATE}}}reason"


def retract(turn: Turn, room: Room, occupant: Occupant, said: Stanza, retracted: etree._Element) -> None:
    """XEP-0424, 4 and 6: what an occupant has said is told to everybody like any message; where it takes back one of
    the same user, that one goes from the archive."""
    id_ = _id_of(retracted)
    if id_ is not None:
        stone = element("retracted", ns.RETRACT, {"id": said.id, "stamp": format_moment(turn.now)})
        author = room.occupant_id(occupant.bare)
        # Who has heard of it and looks into the archive shall not find it there: the room does nothing else meanwhile.
        turn.fetch_first(log.by_ids, partial(_retracted, author, stone), room.key, (id_,))


def _retracted(author: str, stone: bytes, turn: Turn, rows: list[Row]) -> None:
    room: Room | None = turn.entity.room
    if room is not None and rows and _author_of(rows[0].stanza) == author:
        _bury(turn, room, rows[0], stone)


def moderate(turn: Turn, room: Room, iq: Stanza) -> None:
    """XEP-0425, 3: a moderator takes back what another has said."""
    node = iq.child(ns.MODERATE, "moderate")
    assert node is not None
    if node.find(_RETRACT) is None:
        raise BadRequest("What shall be done with the message is missing.")
    moderator = room.occupants.get(iq.from_ or "")
    if moderator is None or moderator.role != Role.MODERATOR:
        raise Forbidden("Moderators alone may take back what others have said.", type="modify")
    reason = text_of(node.find(_REASON))
    if len(reason) > REASON:
        raise BadRequest("The reason is too long.")
    id_ = _id_of(node)
    if id_ is None:
        raise ItemNotFound("There is no such message.")
    turn.fetch(log.by_ids, partial(_moderated, iq, moderator.jid, reason), room.key, (id_,))


def _moderated(iq: Stanza, moderator_jid: str, reason: str, turn: Turn, rows: list[Row]) -> None:
    room: Room | None = turn.entity.room
    moderator = room.occupants.get(moderator_jid) if room is not None else None
    if room is None or moderator is None or moderator.role != Role.MODERATOR:
        raise Forbidden("Moderators alone may take back what others have said.", type="modify")
    if not rows:
        raise ItemNotFound("There is no such message.")
    row = rows[0]
    if _stands_above(room, _author_of(row.stanza), moderator):
        raise Forbidden("The author stands above you in this room.", type="modify")
    id_attribute = f"moderation-{turn.next_id():x}"
    occupant_id = element("occupant-id", ns.OCCUPANT_ID, {"id": room.occupant_id(moderator.bare)})
    by = element("moderated", ns.MODERATE, {"by": f"{room.bare}/{moderator.nick}"}, occupant_id)
    why = element("reason", None, None, reason) if reason else b""
    stamp = format_moment(turn.now)
    _bury(turn, room, row, element("retracted", ns.RETRACT, {"id": id_attribute, "stamp": stamp}, by, why))
    inner = element("retract", ns.RETRACT, {"id": str(row.id)}, by, why)
    flags = HAS_OTHER | TO_FULL
    told = Stanza(MESSAGE, "groupchat", None, room.bare, id_attribute, None, flags, None, None, inner)
    # XEP-0424, 6: it is archived, whatever becomes of the message.
    told_id = turn.log(told, TO_OWNER, ARCHIVE if room.config.enablelogging else QUEUE)
    told = scene.with_id(room, told, told_id)
    scene.tell_everybody(turn, room, told, told_id, elsewhere=absence.sends_of(room, turn.settings, told, told_id))
    turn.answer(iq)


def erase(turn: Turn, room: Room, rows: Sequence[Row]) -> None:
    """Its author is erased: nobody is told, and whoever looks into the archive finds that something was said."""
    for row in rows:
        if is_shown_later(row.stanza):
            _bury(turn, room, row, element("retracted", ns.RETRACT, {"stamp": format_moment(turn.now)}))


def _bury(turn: Turn, room: Room, row: Row, stone: bytes) -> None:
    """XEP-0424, 5: nothing of its content is left, and who comes in later is not shown it."""
    said = row.stanza
    kept = element("occupant-id", ns.OCCUPANT_ID, {"id": _author_of(said)})
    grave = said._replace(inner=kept + stone, flags=HAS_OTHER | (said.flags & TO_FULL), lang=None, extra=None)
    turn.write(log.rewrite, room.key, row.id, pack_head(grave), grave.inner)
    for known in [known for known in room.history if known[0] == row.id]:
        room.history.remove(known)
    shown = scene.with_id(room, grave, row.id)
    for index, cast in enumerate(room.tail):
        if cast.id == row.id:
            room.tail[index] = cast._replace(
                parts=tuple((audience, sids, (shown,)) for audience, sids, _ in cast.parts), message=None
            )


def _stands_above(room: Room, author: str, moderator: Occupant) -> bool:
    """Whom a moderator may not send away, they may not silence either (XEP-0045, 8.2)."""
    own = room.affiliation(moderator.bare)
    if own == Affiliation.OWNER:
        return False
    return any(has > own and room.occupant_id(bare) == author for bare, has in room.affiliations.items())


def _author_of(message: Stanza) -> str:
    """The occupant id (XEP-0421) of whoever has said it; "" of what the room itself has."""
    found = next((child for child in message.children() if child.tag == f"{{{ns.OCCUPANT_ID}}}occupant-id"), None)
    return "" if found is None else found.get("id") or ""


def is_shown_later(message: Stanza) -> bool:
    """Whether who comes in is shown it: what has become a tombstone is not."""
    return not message.flags & HAS_OTHER or message.child(ns.RETRACT, "retracted") is None


def find(message: Stanza) -> etree._Element | None:
    """What a message takes back, if it does."""
    return message.child(ns.RETRACT, "retract") if message.flags & HAS_OTHER else None


def _id_of(node: etree._Element) -> int | None:
    text = node.get("id") or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
