"""Messages to the room itself: invitations through it, requests for voice, and what admins answer (XEP-0045, 7.8, 7.13,
8.6, 9.9)."""

from __future__ import annotations

from lxml import etree

from router.rooms import administering, registering, scene, speaking
from router.rooms.policy import Affiliation, Role
from router.rooms.room import Room
from router.rooms.scene import Frame
from router.turn import Turn
from xmpp import forms, ns
from xmpp.disco import Form
from xmpp.errors import BadRequest, Forbidden, JidError, JidMalformed, NotAcceptable
from xmpp.forms import Field
from xmpp.jid import bare_of, prepare
from xmpp.stanza import HAS_MUC_USER, HAS_OTHER, MESSAGE, TO_FULL, Stanza
from xmpp.xml import element, text_of

_REQUEST = f"{ns.MUC}#request"


def receive(turn: Turn, room: Room, message: Stanza) -> None:
    """A message of type "normal" to the bare JID of the room."""
    x = message.child(ns.MUC_USER, "x")
    form = message.child(ns.DATA_FORMS, "x")
    if x is not None:
        for invite in x.findall(f"{{{ns.MUC_USER}}}invite"):
            _invite(turn, room, message, invite)
        for decline in x.findall(f"{{{ns.MUC_USER}}}decline"):
            _decline(turn, room, message, decline)
    elif form is not None:
        filled_in = forms.parse_submit(form)
        if filled_in.form_type == registering.FORM:
            registering.decide(turn, room, message, filled_in)
        else:
            _voice(turn, room, message, filled_in)
    else:
        raise BadRequest("To everybody in the room, a message is of type 'groupchat'.")


def _invite(turn: Turn, room: Room, message: Stanza, invite: etree._Element) -> None:
    """7.8.2. Who is invited to a room of members alone becomes one."""
    occupant = speaking.occupant_of(room, message)
    is_admin = room.affiliation(occupant.bare) >= Affiliation.ADMIN
    if not is_admin and (room.config.membersonly or not room.config.allowinvites):
        raise Forbidden("You may not invite others to this room.")
    to = _address(invite)
    if room.config.membersonly and room.affiliation(bare_of(to)) == Affiliation.NONE:
        administering.check_room_for(turn, room, (bare_of(to),))
        administering.set_affiliation(turn, room, bare_of(to), Affiliation.MEMBER, None, occupant)
    inside = [_reason(invite)]
    if (thread := invite.find(f"{{{ns.MUC_USER}}}continue")) is not None:
        inside.append(element("continue", None, {"thread": thread.get("thread")}))
    inner = [element("invite", None, {"from": occupant.jid}, *inside)]
    if room.config.passwordprotectedroom:
        inner.append(element("password", None, None, room.config.roomsecret))
    _send(turn, room, to, message, inner)


def _decline(turn: Turn, room: Room, message: Stanza, decline: etree._Element) -> None:
    """7.8.2: whoever was invited says no. The room passes it on to its occupants alone."""
    to = _address(decline)
    if room.sessions_of(bare_of(to)):
        _send(turn, room, to, message, [element("decline", None, {"from": message.from_}, _reason(decline))])


def _send(turn: Turn, room: Room, to: str, message: Stanza, inner: list[bytes]) -> None:
    content = element("x", ns.MUC_USER, None, *inner)
    turn.send(Stanza(MESSAGE, None, to, room.bare, message.id, None, HAS_MUC_USER, None, None, content))


def _address(node: etree._Element) -> str:
    to = node.get("to")
    if to is None:
        raise BadRequest("'to' is missing.")
    try:
        return prepare(to)
    except JidError as problem:
        raise JidMalformed(f"'{to[:100]}' is not a JID.") from problem


def _reason(node: etree._Element) -> bytes:
    reason = text_of(node.find(f"{{{ns.MUC_USER}}}reason"))
    return element("reason", None, None, reason) if reason else b""


# --- voice


def _voice(turn: Turn, room: Room, message: Stanza, form: Form) -> None:
    """7.13: a visitor wants to speak. 8.6: a moderator has decided."""
    occupant = speaking.occupant_of(room, message)
    if form.form_type != _REQUEST:
        raise NotAcceptable("That form is not known here.")
    values = {var: value[0] if value else "" for var, value in form.fields}
    if occupant.role == Role.MODERATOR and "muc#request_allow" in values:
        others = room.nicks.get(values.get("muc#roomnick", ""), [])
        if values["muc#request_allow"] in ("true", "1") and others and others[0].role == Role.VISITOR:
            for other in others:
                room.give_role(other, Role.PARTICIPANT)
            scene.update(turn, room, others, Frame(actor=occupant.nick))
        return
    if occupant.role != Role.VISITOR:
        raise NotAcceptable("You may speak already.")
    fields = (
        Field("muc#role", "list-single", ("participant",), "Requested role"),
        Field("muc#jid", "jid-single", (occupant.jid,), "User"),
        Field("muc#roomnick", "text-single", (occupant.nick,), "Nickname"),
        Field("muc#request_allow", "boolean", ("false",), "Shall this user speak?"),
    )
    inner = forms.to_fill_in(_REQUEST, fields)
    asked = Stanza(MESSAGE, None, None, room.bare, None, None, TO_FULL | HAS_OTHER, None, None, inner)
    scene.tell_moderators(turn, room, asked)
