"""Registration with a room: a nickname of one's own, and with it membership (XEP-0045, 7.10)."""

from __future__ import annotations

from lxml import etree

from router.rooms import administering
from router.rooms.policy import Affiliation
from router.rooms.room import Room
from router.turn import Turn
from xmpp import forms, ns
from xmpp.errors import BadRequest, Conflict, Forbidden, JidError, NotAcceptable, NotAllowed, RegistrationRequired
from xmpp.forms import Field
from xmpp.jid import bare_of, prepare
from xmpp.stanza import Stanza
from xmpp.xml import element

_FORM = f"{ns.MUC}#register"
_NICK = "muc#register_roomnick"


def ask(turn: Turn, room: Room, iq: Stanza) -> None:
    """The form; who has registered is told so."""
    bare = bare_of(iq.from_ or "")
    _check(room, bare)
    nick = nick_of(room, bare)
    if nick is not None:
        turn.answer(
            iq, element("query", ns.REGISTER, None, element("registered"), element("username", None, None, nick))
        )
        return
    fields = (Field(_NICK, "text-single", (), "Nickname"),)
    turn.answer(iq, element("query", ns.REGISTER, None, forms.to_fill_in(_FORM, fields)))


def register(turn: Turn, room: Room, iq: Stanza) -> None:
    """The form filled in, or `<remove/>`."""
    bare = bare_of(iq.from_ or "")
    query = iq.child(ns.REGISTER, "query")
    assert query is not None
    if query.find(f"{{{ns.REGISTER}}}remove") is not None:
        _remove(turn, room, bare)
        turn.answer(iq)
        return
    _check(room, bare)
    nick = _wanted(room, query)
    others = room.nicks.get(nick)
    if (others and others[0].bare != bare) or room.reserved.get(nick, bare) != bare:
        raise Conflict("That nickname is somebody else's.")
    if (old := nick_of(room, bare)) is not None:
        del room.reserved[old]
    room.reserved[nick] = bare
    administering.set_affiliation(turn, room, bare, max(room.affiliation(bare), Affiliation.MEMBER))
    turn.answer(iq)


def _check(room: Room, bare: str) -> None:
    affiliation = room.affiliation(bare)
    if affiliation == Affiliation.OUTCAST:
        raise Forbidden("You are banned from this room.")
    if affiliation == Affiliation.NONE and room.config.membersonly:
        raise NotAllowed("Members are made by the admins of this room.")


def _wanted(room: Room, query: etree._Element) -> str:
    x = forms.find(query)
    form = forms.parse_submit(x) if x is not None else None
    if form is None or form.form_type != _FORM:
        raise BadRequest("The request has no form of that type.")
    (text,) = dict(form.fields).get(_NICK) or ("",)
    try:
        nick = prepare(f"{room.bare}/{text}").partition("/")[2]
    except JidError as problem:
        raise NotAcceptable("That cannot be a nickname.") from problem
    if not nick:
        raise NotAcceptable("A nickname is missing.")
    return nick


def _remove(turn: Turn, room: Room, bare: str) -> None:
    nick = nick_of(room, bare)
    if nick is None:
        raise RegistrationRequired("You have not registered.")
    del room.reserved[nick]
    affiliation = room.affiliation(bare)
    administering.set_affiliation(
        turn, room, bare, Affiliation.NONE if affiliation == Affiliation.MEMBER else affiliation
    )


def nick_of(room: Room, bare: str) -> str | None:
    """The nickname that a user has registered."""
    return next((nick for nick, owner in room.reserved.items() if owner == bare), None)
