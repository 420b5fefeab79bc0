"""Rooms (XEP-0045): `stentor room`."""

from __future__ import annotations

from typing import Any, Final

from cluster.admin import ApiError
from cluster.shards import shard_of
from router.administration.command import AFTER, LIMIT, Area, Call, Command, body, page, paged, path, query
from router.administration.desk import ANSWERS, Desk, answer, jid_of, stamp
from router.administration.schema import COUNT, FLAG, JID, TEXT, list_of, map_of, one_of, or_null, record
from router.calls import CallError
from router.rooms.room import HISTORY
from storage import rooms
from storage.log import time_of
from xmpp import ns
from xmpp.stanza import Stanza
from xmpp.xml import text_of

_ANSWERS: Final = ANSWERS | {
    "item-not-found": (404, "is no room", "stentor room list shows them"),
    "bad-request": (400, "cannot be so", "docs/admin-api.md lists options and their values"),
}
_JID: Final = path("jid", JID, "address of the room")
_CONFIG: Final = body("config", map_of(TEXT), "options by name, values as in the form")
_AFFILIATION: Final = one_of("owner", "admin", "member", "none", "outcast")
ROOM: Final = record(
    jid=JID, router=or_null(TEXT), subject=TEXT, occupants=COUNT,
    config=map_of({"type": ["string", "boolean", "integer", "array"], "items": TEXT}),
)  # fmt: skip
LISTED: Final = record(jid=JID, name=or_null(TEXT), is_public=FLAG, is_persistent=FLAG, occupants=COUNT)


async def list_rooms(desk: Desk, call: Call) -> Any:
    found = await desk.read(rooms.list_, call.text("domain"), call.text("after"), call.limit + 1)
    return page("rooms", found, call.limit, lambda room: str(room.jid), lambda room: room._asdict())


async def create(desk: Desk, call: Call) -> Any:
    bare = room_of(desk, call)
    owner = call.text("owner")
    await ask(desk, bare, "rooms.create", call.given.get("config", {}), jid_of(owner).bare if owner else "")
    return {"jid": bare}


async def show(desk: Desk, call: Call) -> Any:
    bare = room_of(desk, call)
    return {"jid": bare, "router": desk.router_of(bare), **await ask(desk, bare, "rooms.show")}


async def set_options(desk: Desk, call: Call) -> Any:
    bare = room_of(desk, call)
    shown = await ask(desk, bare, "rooms.set", call.given.get("config", {}))
    return {"jid": bare, "router": desk.router_of(bare), **shown}


async def destroy(desk: Desk, call: Call) -> Any:
    bare = room_of(desk, call)
    await ask(desk, bare, "rooms.destroy")
    return {"jid": bare}


async def affiliations(desk: Desk, call: Call) -> Any:
    return {"affiliations": await ask(desk, room_of(desk, call), "rooms.affiliations")}


async def affiliate(desk: Desk, call: Call) -> Any:
    bare, user, affiliation = room_of(desk, call), jid_of(call.text("user")).bare, call.text("affiliation")
    await ask(desk, bare, "rooms.affiliate", user, affiliation)
    return {"jid": bare, "user": user, "affiliation": affiliation}


async def occupants(desk: Desk, call: Call) -> Any:
    found = await ask(desk, room_of(desk, call), "rooms.occupants")
    return {"occupants": [{"nick": nick, "jid": jid, "role": role} for nick, jid, role in found]}


async def history(desk: Desk, call: Call) -> Any:
    bare = room_of(desk, call)
    found = await desk.read(rooms.load, bare, HISTORY)
    if found is None or found.room is None:
        raise answer(bare, CallError("item-not-found"), _ANSWERS)
    lines = [(row, row.stanza) for row in found.history]
    return {
        "history": [
            {"at": stamp(time_of(row.id)), "nick": (said.from_ or "").partition("/")[2], "body": _body(said)}
            for row, said in lines
        ]
    }


def room_of(desk: Desk, call: Call) -> str:
    text = call.text("jid")
    jid = jid_of(text)
    if jid.resource or not jid.local or jid.domain not in desk.settings.room_domains:
        served = ", ".join(sorted(desk.settings.room_domains))
        raise ApiError(400, f"{text} is not the address of a room", f"Write it as name@ one of {served}")
    return jid.bare


async def ask(desk: Desk, bare: str, method: str, *arguments: Any) -> Any:
    try:
        return await desk.calls.ask(bare, shard_of(bare), method, (bare, *arguments))
    except CallError as problem:
        raise answer(bare, problem, _ANSWERS) from problem


def _body(message: Stanza) -> str:
    return text_of(next((child for child in message.children() if child.tag == f"{{{ns.CLIENT}}}body"), None))


AREA: Final = Area(
    "Rooms",
    (
        Command(
            "room list", "GET", "/rooms", "rooms:read", "Rooms, in the order of their addresses", list_rooms,
            paged("rooms", LISTED), (query("domain", TEXT, "only those of this domain"), LIMIT, AFTER), items="rooms",
        ),
        Command(
            "room create", "POST", "/rooms", "rooms:write", "Make a room, which stays when nobody is there", create,
            record(jid=JID),
            (body("jid", JID, "its address", required=True), body("owner", TEXT, "bare JID of its owner"), _CONFIG),
            "409 where there is one.", (409,), writes=True, on=("jid",),
        ),
        Command("room show", "GET", "/rooms/{jid}", "rooms:read", "One room", show, ROOM, (_JID,), errors=(404,)),
        Command(
            "room set", "PATCH", "/rooms/{jid}", "rooms:write", "Change its options", set_options, ROOM,
            (_JID, _CONFIG), errors=(404,), writes=True, on=("jid",),
        ),
        Command(
            "room destroy", "DELETE", "/rooms/{jid}", "rooms:write", "End it, with everything that was said in it",
            destroy, record(jid=JID), (_JID,), errors=(404,), writes=True, on=("jid",),
        ),
        Command(
            "room affiliations", "GET", "/rooms/{jid}/affiliations", "rooms:read", "Who is something to it",
            affiliations, record(affiliations=map_of(_AFFILIATION)), (_JID,), errors=(404,),
        ),
        Command(
            "room affiliation", "PUT", "/rooms/{jid}/affiliations/{user}", "rooms:write", "Make somebody that",
            affiliate, record(jid=JID, user=JID, affiliation=_AFFILIATION),
            (_JID, path("user", JID, "bare JID"), body("affiliation", _AFFILIATION, "what they are", required=True)),
            errors=(404,), writes=True, on=("jid", "user"),
        ),
        Command(
            "room occupants", "GET", "/rooms/{jid}/occupants", "rooms:read", "Who is in it", occupants,
            record(occupants=list_of(record(nick=TEXT, jid=JID, role=TEXT))), (_JID,), errors=(404,),
        ),
        Command(
            "room history", "GET", "/rooms/{jid}/history", "rooms:read", "The last 100 messages", history,
            record(history=list_of(record(at=TEXT, nick=TEXT, body=TEXT))), (_JID,), errors=(404,),
        ),
    ),
    "The options of `config` are those of XEP-0045, 10.2, without `muc#roomconfig_`, each a string as in the form when "
    "it is given; a list is parted by commas. Operators are bound by no affiliation: they may also take the last owner "
    "away.",
)  # fmt: skip
