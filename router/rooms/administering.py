"""Affiliations and roles: lists of them, and changes (XEP-0045, 8.2 to 8.5, 9 and 10.3 to 10.8)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from lxml import etree

from router.rooms import joining, scene, versioning
from router.rooms.policy import (
    Affiliation,
    Role,
    affiliation_of,
    check_affiliation_change,
    check_role_change,
    may_see_members,
    role_after,
    role_of,
)
from router.rooms.room import Occupant, Room
from router.rooms.scene import Frame
from router.turn import Turn
from storage import rooms
from xmpp import ns
from xmpp.errors import BadRequest, Conflict, Forbidden, ItemNotFound, JidError, JidMalformed, ResourceConstraint
from xmpp.jid import bare_of, prepare
from xmpp.stanza import Stanza
from xmpp.xml import element, text_of

_ITEM = f"{{{ns.MUC_ADMIN}}}item"
_REASON = f"{{{ns.MUC_ADMIN}}}reason"


class _Change(NamedTuple):
    """One item of a request: whom it is about, and what they shall have."""

    bare: str | None
    nick: str | None
    affiliation: Affiliation | None
    role: Role | None
    reason: str | None


def _items(iq: Stanza) -> list[etree._Element]:
    query = iq.child(ns.MUC_ADMIN, "query")
    assert query is not None
    items = query.findall(_ITEM)
    if not items:
        raise BadRequest("The request has no item.")
    return items


# --- lists


def list_(turn: Turn, room: Room, iq: Stanza) -> None:
    """8.4, 8.5, 9.2, 9.5, 9.8, 10.5, 10.8: everybody with one affiliation or role."""
    item = _items(iq)[0]
    asker = (iq.from_ or "").partition("/")[0]
    affiliation, role = item.get("affiliation"), item.get("role")
    if affiliation is not None:
        found = _with_affiliation(room, asker, affiliation_of(affiliation))
    elif role is not None:
        found = _with_role(room, iq.from_ or "", role_of(role))
    else:
        raise BadRequest("The item has neither affiliation nor role.")
    turn.answer(iq, element("query", ns.MUC_ADMIN, None, *found))


def _with_affiliation(room: Room, asker: str, wanted: Affiliation) -> list[bytes]:
    own = room.affiliation(asker)
    roles = [occupant.role for occupant in room.sessions_of(asker)]
    may = own >= Affiliation.ADMIN or (wanted >= Affiliation.MEMBER and may_see_members(room.config, own, roles))
    if not may:
        raise Forbidden("You may not see that list.")
    nicks = {jid: nick for nick, jid in room.reserved.items()}
    return [
        element("item", None, {"affiliation": has.word, "jid": jid, "nick": nicks.get(jid)})
        for jid, has in sorted(room.affiliations.items())
        if has == wanted
    ]


def _with_role(room: Room, asker: str, wanted: Role) -> list[bytes]:
    occupant = room.occupants.get(asker)
    is_admin = room.affiliation(bare_of(asker)) >= Affiliation.ADMIN
    if not is_admin and (occupant is None or occupant.role != Role.MODERATOR):
        raise Forbidden("You may not see that list.")
    return [
        element(
            "item", None,
            {"affiliation": room.affiliation(of[0].bare).word, "role": of[0].role.word, "nick": nick, "jid": of[0].jid},
        )
        for nick, of in sorted(room.nicks.items())
        if of[0].role == wanted
    ]  # fmt: skip


# --- changes


def change(turn: Turn, room: Room, iq: Stanza) -> None:
    """All items or none: what one of them must not do is refused before anything is done."""
    changes = [_parse(room, item) for item in _items(iq)]
    for wanted in changes:
        _check(room, iq.from_ or "", wanted)
    owners = set(room.owners())
    for wanted in changes:
        if wanted.affiliation is not None and wanted.bare is not None:
            (owners.add if wanted.affiliation == Affiliation.OWNER else owners.discard)(wanted.bare)
    if not owners and room.owners():
        raise Conflict("A room has one owner at least.")  # 10.6
    check_room_for(turn, room, [wanted.bare or "" for wanted in changes if wanted.affiliation is not None])
    actor = room.occupants.get(iq.from_ or "")
    unseen = [wanted for wanted in changes if wanted.affiliation is not None and not _is_seen(room, wanted.bare)]
    before = room.version
    for wanted in unseen:
        _affiliate(turn, room, wanted, actor)
    versioning.tell(turn, room, list(dict.fromkeys(wanted.bare or "" for wanted in unseen)), before)
    for wanted in changes:
        if wanted.affiliation is None:
            _set_role(turn, room, wanted, actor)
        elif wanted not in unseen:
            _affiliate(turn, room, wanted, actor)
    turn.answer(iq)


def _parse(room: Room, item: etree._Element) -> _Change:
    affiliation, role = item.get("affiliation"), item.get("role")
    jid, nick = item.get("jid"), item.get("nick")
    reason = text_of(item.find(_REASON)) or None
    if (affiliation is None) == (role is None):
        raise BadRequest("An item changes either an affiliation or a role.")
    bare: str | None = None
    if jid is not None:
        try:
            bare = bare_of(prepare(jid))
        except JidError as problem:
            raise JidMalformed(f"'{jid[:100]}' is not a JID.") from problem
    elif nick is not None:
        bare = next((occupant.bare for occupant in room.nicks.get(nick, ())), None)
        if bare is None:
            raise ItemNotFound("There is nobody of that nickname.")
    if bare is None:
        raise BadRequest("An item names nobody.")
    if role is not None:
        return _Change(bare, nick, None, role_of(role), reason)
    assert affiliation is not None
    return _Change(bare, nick, affiliation_of(affiliation), None, reason)


def _check(room: Room, actor: str, wanted: _Change) -> None:
    own = room.affiliation(bare_of(actor))
    assert wanted.bare is not None
    target = room.affiliation(wanted.bare)
    if wanted.affiliation is not None:
        check_affiliation_change(own, target, wanted.affiliation)
        return
    assert wanted.role is not None
    inside = room.occupants.get(actor)
    theirs = _targets(room, wanted)
    if not theirs:
        raise ItemNotFound("There is nobody of that nickname.")
    role = inside.role if inside is not None else Role.NONE
    check_role_change(own, role, target, theirs[0].role, wanted.role)


def _targets(room: Room, wanted: _Change) -> list[Occupant]:
    if wanted.nick is not None:
        return list(room.nicks.get(wanted.nick, ()))
    return room.sessions_of(wanted.bare or "")


def _set_role(turn: Turn, room: Room, wanted: _Change, actor: Occupant | None) -> None:
    assert wanted.role is not None
    nick = actor.nick if actor is not None else None
    targets = _targets(room, wanted)
    if wanted.role == Role.NONE:
        for occupant in targets:
            frame = Frame(is_gone=True, codes=(scene.KICKED,), actor=nick, reason=wanted.reason)
            joining.depart(turn, room, occupant, frame)
        return
    for occupant in targets:
        room.give_role(occupant, wanted.role)
    scene.update(turn, room, targets, Frame(actor=nick, reason=wanted.reason))


def _affiliate(turn: Turn, room: Room, wanted: _Change, actor: Occupant | None) -> None:
    assert wanted.affiliation is not None
    assert wanted.bare is not None
    _change_affiliation(turn, room, wanted.bare, wanted.affiliation, wanted.reason, actor)


def _is_seen(room: Room, bare: str | None) -> bool:
    """Whether others see the presence of any session of a user."""
    return any(scene.is_shown(room, occupant) for occupant in room.sessions_of(bare or ""))


def check_room_for(turn: Turn, room: Room, bares: Iterable[str]) -> None:
    """Whoever was something to the room once is remembered; raises ResourceConstraint where that would be too many."""
    new = {bare for bare in bares if bare not in room.versions}
    if len(room.versions) + len(new) > turn.settings.room_affiliations:
        raise ResourceConstraint("The lists of this room are full.")


def set_affiliation(
    turn: Turn, room: Room, bare: str, new: Affiliation, reason: str | None = None, actor: Occupant | None = None
) -> None:
    """Whatever it was before. Sessions of the user see it, and leave if they may not stay."""
    is_seen, before = _is_seen(room, bare), room.version
    _change_affiliation(turn, room, bare, new, reason, actor)
    if not is_seen:
        versioning.tell(turn, room, (bare,), before)


def _change_affiliation(
    turn: Turn, room: Room, bare: str, new: Affiliation, reason: str | None, actor: Occupant | None
) -> None:
    old, before, changed = room.affiliation(bare), room.version, turn.next_id()
    room.affiliate(bare, new, changed)
    reserved = next((nick for nick, jid in room.reserved.items() if jid == bare), None)
    if reserved is not None and new <= Affiliation.NONE:
        del room.reserved[reserved]
        reserved = None
    turn.write(rooms.set_affiliation, room.key, bare, int(new), reserved, reason or "", changed)
    config = room.config
    versions = versioning.between(before, changed)
    nick = actor.nick if actor is not None else None
    staying: list[Occupant] = []
    for occupant in room.sessions_of(bare):
        role = role_after(
            old, new, occupant.role, is_moderated=config.moderatedroom, is_members_only=config.membersonly
        )
        if role == Role.NONE:
            code = scene.BANNED if new == Affiliation.OUTCAST else scene.AFFILIATION_LOST
            frame = Frame(is_gone=True, codes=(code,), actor=nick, reason=reason, versions=versions)
            joining.depart(turn, room, occupant, frame)
        else:
            room.give_role(occupant, role)
            staying.append(occupant)
    scene.update(turn, room, staying, Frame(actor=nick, reason=reason, versions=versions))
