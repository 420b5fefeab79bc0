"""How a room is: its configuration, and its end (XEP-0045, 10.1, 10.2, 10.9)."""

from __future__ import annotations

from lxml import etree

from router.rooms import config as configs
from router.rooms import joining, scene
from router.rooms.policy import Affiliation, Role
from router.rooms.room import Room
from router.rooms.scene import Frame
from router.turn import Turn
from storage import rooms
from xmpp import forms, ns
from xmpp.disco import result_form
from xmpp.errors import BadRequest, Forbidden, NotAcceptable
from xmpp.jid import bare_of
from xmpp.stanza import HAS_OTHER, MESSAGE, TO_FULL, Stanza
from xmpp.xml import element, text_of

_DESTROY = f"{{{ns.MUC_OWNER}}}destroy"


def show(turn: Turn, room: Room, iq: Stanza) -> None:
    """10.2: the form, as the room is now."""
    _check_owner(room, iq)
    turn.answer(iq, element("query", ns.MUC_OWNER, None, configs.to_form(room.config)))


def change(turn: Turn, room: Room, iq: Stanza) -> None:
    """10.1.2 to 10.1.4, 10.2, 10.9: a form filled in or cancelled, or the end of the room."""
    _check_owner(room, iq)
    query = iq.child(ns.MUC_OWNER, "query")
    assert query is not None
    destroy = query.find(_DESTROY)
    if destroy is not None:
        _destroy(turn, room, destroy)
        turn.answer(iq)
        return
    x = forms.find(query)
    if x is None:
        raise BadRequest("The request has neither a form nor <destroy/>.")
    if x.get("type") == "cancel":
        if room.is_locked:  # 10.1.3: a room that was never opened goes
            end(turn, room, Frame(is_gone=True))
        turn.answer(iq)
        return
    form = forms.parse_submit(x)
    if form.form_type not in ("", f"{ns.MUC}#roomconfig"):
        raise NotAcceptable("That is not the form of a room's configuration.")
    configure(turn, room, configs.from_form(room.config, form))
    turn.answer(iq)


def _check_owner(room: Room, iq: Stanza) -> None:
    if room.affiliation(bare_of(iq.from_ or "")) != Affiliation.OWNER:
        raise Forbidden("Owners of the room alone may do that.")


def configure(turn: Turn, room: Room, new: configs.RoomConfig) -> None:
    """The room is so from now on. Occupants are told (10.2.1), and leave if they may not stay (9.3)."""
    old, room.config = room.config, new
    was_locked, room.is_locked = room.is_locked, False
    turn.write(rooms.set_config, room.key, configs.to_json(new))
    if new.keeps_for_members and not old.keeps_for_members and not room.has_remote:
        scene.begin_handing_over(turn, room)
    if new.membersonly and not old.membersonly:
        for occupant in list(room.occupants.values()):
            if room.affiliation(occupant.bare) < Affiliation.MEMBER:
                scene.leave(turn, room, occupant, Frame(is_gone=True, codes=(scene.MEMBERS_ONLY,)))
    codes = configs.status_codes(old, new)
    if codes and not was_locked:
        scene.tell_codes(turn, room, codes)
    mentions = configs.changed_mentions(old, new)
    if mentions.fields and not was_locked:
        inner = result_form(mentions)
        told = Stanza(MESSAGE, "groupchat", None, room.bare, None, None, TO_FULL | HAS_OTHER, None, None, inner)
        scene.tell_everybody(turn, room, told)
    joining.close_deserted(turn, room)


# --- who may mention whom (XEP-0513, 3.6)


def show_mentions(turn: Turn, room: Room, iq: Stanza) -> None:
    """The form, for everybody."""
    turn.answer(iq, element("query", ns.MENTIONS, None, configs.mentions_form(room.config)))


def change_mentions(turn: Turn, room: Room, iq: Stanza) -> None:
    """The form filled in, by an owner."""
    _check_owner(room, iq)
    query = iq.child(ns.MENTIONS, "query")
    x = forms.find(query) if query is not None else None
    form = forms.parse_submit(x) if x is not None else None
    if form is None or form.form_type != ns.MENTIONS:
        raise BadRequest("The request has no form of that type.")
    configure(turn, room, configs.from_form(room.config, form))
    turn.answer(iq)


def _destroy(turn: Turn, room: Room, destroy: etree._Element) -> None:
    attributes = {"jid": destroy.get("jid")}
    reason = text_of(destroy.find(f"{{{ns.MUC_OWNER}}}reason"))
    inside = [element("reason", None, None, reason)] if reason else []
    told = element("destroy", None, attributes, *inside)
    end(turn, room, Frame(is_gone=True, affiliation=Affiliation.NONE, destroy=told))


def end(turn: Turn, room: Room, frame: Frame) -> None:
    """10.9: everybody is told to go, each of themselves alone, and there is no such room any more."""
    for occupant in list(room.occupants.values()):
        occupant.changed = turn.next_id()
        room.remove(occupant)
        occupant.role = Role.NONE
        scene.tell_one(turn, room, occupant, scene.presence_of(room, occupant, frame, True, True))
    joining.close(turn.entity, turn)
