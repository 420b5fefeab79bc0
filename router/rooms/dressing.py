"""The commands by which hats are made, given and taken (XEP-0317, 3.2 to 3.7, by XEP-0050)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from router.rooms import scene
from router.rooms.hats import Hat
from router.rooms.policy import Affiliation
from router.rooms.room import Room
from router.rooms.scene import Frame
from router.turn import Turn
from storage import rooms
from xmpp import commands, forms, ns
from xmpp.commands import Command
from xmpp.disco import items_payload
from xmpp.errors import BadRequest, Forbidden, ItemNotFound, JidError
from xmpp.forms import Field
from xmpp.jid import bare_of, prepare
from xmpp.stanza import Stanza
from xmpp.xml import element

_TITLE: Final = "hats#title"
_URI: Final = "hats#uri"
_HUE: Final = "hats#hue"
_JID: Final = "hats#jid"
_REQUIRED: Final = element("required")

_Values = dict[str, str]


def run(turn: Turn, room: Room, iq: Stanza) -> None:
    """A command of whichever kind."""
    command = commands.parse(iq)
    name = command.node.removeprefix(f"{ns.HATS_COMMANDS}:")
    is_admin = room.affiliation(bare_of(iq.from_ or "")) >= Affiliation.ADMIN
    is_inside = (iq.from_ or "") in room.occupants
    if name not in (*_CHANGES, "list", "list-assigned") or name == command.node:
        raise ItemNotFound("There is no such command.")
    if not is_admin and not (name == "list" and is_inside):
        raise Forbidden("Admins of the room alone may do that.")
    session = f"{turn.new_origin():x}"
    if command.action == "cancel":
        turn.answer(iq, commands.answer(command, session, "canceled"))
        return
    if name in ("list", "list-assigned"):
        turn.answer(iq, commands.answer(command, session, "completed", _listed(room, name)))
        return
    if command.form is None:
        turn.answer(iq, commands.answer(command, session, "executing", _form(room, name)))
        return
    _change(turn, room, name, command)
    turn.answer(iq, commands.answer(command, session, "completed"))


def items(turn: Turn, room: Room, iq: Stanza) -> None:
    """XEP-0050, 2.2: the commands that there are for whoever asks."""
    is_admin = room.affiliation(bare_of(iq.from_ or "")) >= Affiliation.ADMIN
    names = _NAMES if is_admin else {"list": _NAMES["list"]}
    found = [
        element("item", None, {"jid": room.bare, "node": f"{ns.HATS_COMMANDS}:{name}", "name": label})
        for name, label in names.items()
    ]
    turn.answer(iq, element("query", ns.DISCO_ITEMS, {"node": ns.COMMANDS}, *found) if found else items_payload(()))


_NAMES: Final = {
    "list": "List the hats",
    "list-assigned": "List who wears which hat",
    "create": "Make a hat, or change one",
    "destroy": "Take a hat away for good",
    "assign": "Give somebody a hat",
    "unassign": "Take a hat from somebody",
}


def _listed(room: Room, name: str) -> bytes:
    if name == "list":
        return forms.to_table(ns.HATS_COMMANDS, (_TITLE, _URI, _HUE), [(h.title, h.uri, h.hue) for h in room.hats])
    rows = [(bare, hat.uri, hat.title, hat.hue) for bare, hat in room.hats.worn()]
    return forms.to_table(ns.HATS_COMMANDS, (_JID, _URI, _TITLE, _HUE), rows)


def _form(room: Room, name: str) -> bytes:
    options = b"".join(
        element("option", None, {"label": hat.title}, element("value", None, None, hat.uri)) for hat in room.hats
    )
    hat = Field(_URI, "list-single", (), "Hat", _REQUIRED + options)
    user = Field(_JID, "jid-single", (), "Address of the user", _REQUIRED)
    fields: dict[str, tuple[Field, ...]] = {
        "create": (
            Field(_TITLE, "text-single", (), "Title", _REQUIRED),
            Field(_URI, "text-single", (), "URI", _REQUIRED),
            Field(_HUE, "text-single", (), "Hue, an angle between 0 and 360"),
        ),
        "destroy": (hat,),
        "assign": (user, hat),
        "unassign": (user, hat),
    }
    return forms.to_fill_in(ns.HATS_COMMANDS, fields[name])


def _change(turn: Turn, room: Room, name: str, command: Command) -> None:
    assert command.form is not None
    if command.form.form_type not in ("", ns.HATS_COMMANDS):
        raise BadRequest("That is not the form of this command.")
    values = {var: given[0] if given else "" for var, given in command.form.fields}
    concerned = _CHANGES[name](room, values)
    turn.write(rooms.set_hats, room.key, room.hats.to_json())
    if name in ("create", "destroy"):
        scene.tell_codes(turn, room, (104,))
    _show(turn, room, concerned)


def _show(turn: Turn, room: Room, bares: Iterable[str]) -> None:
    """The presence of these users is told once more."""
    for bare in bares:
        nicks = {occupant.nick: occupant for occupant in room.sessions_of(bare)}
        for occupant in nicks.values():
            scene.update(turn, room, room.nicks[occupant.nick], Frame())


def _create(room: Room, values: _Values) -> list[str]:
    hat = Hat(values.get(_URI, ""), values.get(_TITLE, ""), values.get(_HUE, ""))
    room.hats.make(hat)
    return room.hats.wearers(hat.uri)


def _destroy(room: Room, values: _Values) -> list[str]:
    return room.hats.unmake(values.get(_URI) or values.get("hat", ""))  # 3.3 has both names


def _assign(room: Room, values: _Values) -> list[str]:
    bare = _user(values)
    room.hats.give(bare, values.get(_URI, ""))
    return [bare]


def _unassign(room: Room, values: _Values) -> list[str]:
    bare = _user(values)
    room.hats.take(bare, values.get(_URI, ""))
    return [bare]


def _user(values: _Values) -> str:
    try:
        return bare_of(prepare(values.get(_JID, "")))
    except JidError as problem:
        raise BadRequest("The address of the user is none.") from problem


_CHANGES: Final[dict[str, Callable[[Room, _Values], list[str]]]] = {
    "create": _create,
    "destroy": _destroy,
    "assign": _assign,
    "unassign": _unassign,
}
