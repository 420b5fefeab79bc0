"""Registration with a room: a nickname of one's own, and with it membership (XEP-0045, 7.10). Into a room of members
alone, its admins let people (9.9)."""

from __future__ import annotations

from lxml import etree

from router.rooms import administering
from router.rooms.policy import Affiliation
from router.rooms.room import Room
from router.turn import Turn
from xmpp import forms, ns
from xmpp.disco import Form
from xmpp.errors import BadRequest, Conflict, Forbidden, JidError, NotAcceptable, RegistrationRequired
from xmpp.forms import Field
from xmpp.jid import bare_of, prepare
from xmpp.stanza import HAS_MUC_USER, HAS_OTHER, MESSAGE, Stanza
from xmpp.xml import element

FORM = f"{ns.MUC}#register"
_NICK = "muc#register_roomnick"
_ALLOW = "muc#register_allow"
_JID = "muc#jid"  # not in the form of 9.9, which may be supplemented


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
    turn.answer(iq, element("query", ns.REGISTER, None, forms.to_fill_in(FORM, fields)))


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
    _check_nick(room, bare, nick)
    if room.config.membersonly and room.affiliation(bare) == Affiliation.NONE:
        _ask_admins(turn, room, bare, nick)
    else:
        _let_register(turn, room, bare, nick)
    turn.answer(iq)


def _check(room: Room, bare: str) -> None:
    if room.affiliation(bare) == Affiliation.OUTCAST:
        raise Forbidden("You are banned from this room.")


def _check_nick(room: Room, bare: str, nick: str) -> None:
    others = room.nicks.get(nick)
    if (others and others[0].bare != bare) or room.reserved.get(nick, bare) != bare:
        raise Conflict("That nickname is somebody else's.")


def _let_register(turn: Turn, room: Room, bare: str, nick: str) -> None:
    administering.check_room_for(turn, room, (bare,))
    if (old := nick_of(room, bare)) is not None:
        del room.reserved[old]
    room.reserved[nick] = bare
    administering.set_affiliation(turn, room, bare, max(room.affiliation(bare), Affiliation.MEMBER))


def _ask_admins(turn: Turn, room: Room, bare: str, nick: str) -> None:
    """9.9: whoever of them answers first decides. The form comes back with everything that it needs to have."""
    fields = (
        Field(_JID, "jid-single", (bare,), "User"),
        Field(_NICK, "text-single", (nick,), "Nickname"),
        Field(_ALLOW, "boolean", ("0",), "Shall this user become a member?"),
    )
    asked = forms.to_fill_in(FORM, fields)
    for admin in [jid for jid, has in room.affiliations.items() if has >= Affiliation.ADMIN]:
        turn.send(Stanza(MESSAGE, None, admin, room.bare, None, None, HAS_OTHER, None, None, asked))


def decide(turn: Turn, room: Room, message: Stanza, form: Form) -> None:
    """9.9: an admin has decided. Who is let in is told so."""
    if room.affiliation(bare_of(message.from_ or "")) < Affiliation.ADMIN:
        raise Forbidden("Admins of the room alone decide who becomes a member.")
    values = {var: value[0] if value else "" for var, value in form.fields}
    if values.get(_ALLOW) not in ("1", "true"):
        return
    try:
        bare = bare_of(prepare(values.get(_JID, "")))
    except JidError as problem:
        raise BadRequest("The form does not say whom it is about.") from problem
    nick = _prepared(room, values.get(_NICK, ""))
    _check(room, bare)
    _check_nick(room, bare, nick)
    _let_register(turn, room, bare, nick)
    item = element("item", None, {"affiliation": room.affiliation(bare).word, "jid": bare, "nick": nick})
    inner = element("x", ns.MUC_USER, None, item)
    turn.send(Stanza(MESSAGE, None, bare, room.bare, None, None, HAS_MUC_USER, None, None, inner))


def _wanted(room: Room, query: etree._Element) -> str:
    x = forms.find(query)
    form = forms.parse_submit(x) if x is not None else None
    if form is None or form.form_type != FORM:
        raise BadRequest("The request has no form of that type.")
    (text, *_) = dict(form.fields).get(_NICK) or ("",)
    return _prepared(room, text)


def _prepared(room: Room, text: str) -> str:
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
