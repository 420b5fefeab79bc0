"""Versions of a room's affiliations (XEP-0463): who comes in with the last one they know is told what is new since.

A version is the id of the event that made it. The rows of those who are nothing to the room any more stay, so what has
changed is known whatever version a client comes with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lxml import etree

from router.rooms import scene
from router.rooms.fanout import ALL, MODERATORS, ONLY, OTHERS, Cast, Part
from router.rooms.policy import Affiliation, Role, may_see_members
from router.rooms.room import Occupant, Room
from router.turn import Turn
from xmpp import ns
from xmpp.errors import Forbidden
from xmpp.stanza import HAS_ERROR, HAS_MUC_USER, MESSAGE, TO_FULL, Stanza
from xmpp.xml import element

ITEMS: Final = 500  # in one message

_MAV: Final = f"{{{ns.AFFILIATIONS}}}mav"


def between(since: int, until: int) -> bytes:
    """The element that says between which versions a change is."""
    return element("mav", ns.AFFILIATIONS, {"since": str(since) if since else None, "until": str(until)})


def until(room: Room) -> bytes:
    """The present version."""
    return element("mav", ns.AFFILIATIONS, {"until": str(room.version)})


def changes_since(room: Room, occupant: Occupant, x: etree._Element | None) -> list[Stanza]:
    """5.2.1: what somebody who comes in is told before anything else, if they ask; everything where their version is
    none that the room ever had."""
    wanted = x.find(_MAV) if x is not None else None
    if wanted is None:
        return []
    if not may_see_members(room.config, room.affiliation(occupant.bare), (occupant.role,)):
        error = Forbidden("You may not see the lists of this room.", by=room.bare).to_bytes()
        return [Stanza(MESSAGE, "error", None, room.bare, None, None, TO_FULL | HAS_ERROR, None, None, error)]
    text = wanted.get("since") or ""
    since = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
    if since == room.version:
        return []
    if not min(room.versions.values(), default=0) <= since < room.version:
        since = 0
    changed = sorted((changed, bare) for bare, changed in room.versions.items() if changed > since)
    items = [(version, bare, room.affiliation(bare)) for version, bare in changed]
    if not since:
        items = [item for item in items if item[2] != Affiliation.NONE]
    is_admin = room.affiliation(occupant.bare) >= Affiliation.ADMIN
    told: list[Stanza] = []
    for start in range(0, len(items) or 1, ITEMS):
        page = items[start : start + ITEMS]
        is_last = start + ITEMS >= len(items)
        version = room.version if is_last else page[-1][0]
        shown = [_item(bare, _seen(affiliation, is_admin)) for _, bare, affiliation in page]
        told.append(_message(room, between(since, version), *shown))
        since = version
    return told


def tell(turn: Turn, room: Room, bares: Sequence[str], since: int) -> None:
    """5.2.2: the affiliations of some who are not there (or whom nobody sees) have changed, one after the other: those
    who may see the lists of the room are told."""
    for start in range(0, len(bares), ITEMS):
        page = bares[start : start + ITEMS]
        until_ = room.versions[page[-1]]
        items = [(bare, room.affiliation(bare)) for bare in page]
        _tell(turn, room, items, between(since, until_))
        since = until_


def _tell(turn: Turn, room: Room, items: Sequence[tuple[str, Affiliation]], versions: bytes) -> None:
    plain = _message(room, versions, *(_item(bare, affiliation) for bare, affiliation in items))
    if any(affiliation == Affiliation.OUTCAST for _, affiliation in items):
        shown = (_item(bare, _seen(affiliation, False)) for bare, affiliation in items)
        _tell_of_outcasts(turn, room, plain, _message(room, versions, *shown))
        return
    roles = [role for role in Role if role.word in room.config.getmemberlist]
    parts: list[Part] = []
    if len(roles) == 3:
        parts.append((ALL, (), (plain,)))
    else:
        if Role.MODERATOR in roles:
            parts.append((MODERATORS, (), (plain,)))
        if {Role.VISITOR, Role.PARTICIPANT} <= set(roles):
            parts.append((OTHERS, (), (plain,)))
        elif set(roles) - {Role.MODERATOR}:
            local = [occupant for occupant in room.occupants.values() if occupant.is_local]
            sids = [o.sid for o in local if o.role in roles and o.role < Role.MODERATOR]
            parts.append((ONLY, tuple(sids), (plain,)))
    remote = tuple(scene.sent(other.jid, plain) for other in room.remote() if other.role in roles)
    scene.cast(turn, room, Cast(None, tuple(parts), elsewhere=remote))


def _tell_of_outcasts(turn: Turn, room: Room, plain: Stanza, hidden: Stanza) -> None:
    """The list of outcasts is for admins (XEP-0045, 9.2); for the others, these are nothing to the room any more."""
    admins = [o for o in room.occupants.values() if room.affiliation(o.bare) >= Affiliation.ADMIN]
    sids = tuple(occupant.sid for occupant in admins if occupant.is_local)
    remote = [scene.sent(other.jid, plain) for other in admins if not other.is_local]
    parts: list[Part] = [(ONLY, sids, (plain,))]
    if len(room.config.getmemberlist) == 3:
        parts.append((ALL, sids, (hidden,)))
        remote += [scene.sent(other.jid, hidden) for other in room.remote() if other not in admins]
    scene.cast(turn, room, Cast(None, tuple(parts), elsewhere=tuple(remote)))


def _seen(affiliation: Affiliation, is_admin: bool) -> Affiliation:
    return Affiliation.NONE if affiliation == Affiliation.OUTCAST and not is_admin else affiliation


def _item(bare: str, affiliation: Affiliation) -> bytes:
    return element("item", None, {"jid": bare, "affiliation": affiliation.word})


def _message(room: Room, *inside: bytes) -> Stanza:
    inner = element("x", ns.MUC_USER, None, *inside)
    return Stanza(MESSAGE, None, None, room.bare, None, None, TO_FULL | HAS_MUC_USER, None, None, inner)
