"""Accounts that come from elsewhere, or go there: `stentor import`, `stentor export`. Both speak of things of the same
kinds (`router/importing/checking.py`); they are taken by an account's owner, and told from the database."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Final

from cluster.admin import ApiError
from router.administration.command import Area, Call, Command, body, path, query
from router.administration.desk import Desk, number
from router.administration.rooms import ask, room_of
from router.administration.schema import FLAG, JID, TEXT, Schema, list_of, or_null, record
from router.importing.calls import KINDS
from router.importing.checking import Malformed, checked
from router.pubsub import config as configs
from router.pubsub.node import Affiliation
from storage import accounts, archive, blocks, exporting, pubsub, rosters, vcards
from storage.accounts import Account
from storage.archive import Preferences, Query
from storage.log import ID_BITS, TO_OWNER, Row
from storage.pubsub import NodeRow, Wanted
from storage.rosters import Item as ContactRow
from xmpp import stanza as stanzas
from xmpp.stanza import encode

MOST: Final = 500  # things in a request
PAGE: Final = 250


async def into_account(desk: Desk, call: Call) -> Any:
    bare, things = desk.account(call.text("jid")), _things(call, "account")
    dry, passwords = call.flag("dry_run"), call.flag("passwords")
    return _results(await desk.ask(bare, "import.account", bare, things, dry, passwords))


async def into_room(desk: Desk, call: Call) -> Any:
    bare, things = room_of(desk, call), _things(call, "room")
    return _results(await ask(desk, bare, "import.room", things, call.flag("dry_run")))


def _things(call: Call, of: str) -> list[dict[str, Any]]:
    try:
        return checked(call.given.get("things"), KINDS[of], MOST)
    except Malformed as problem:
        raise ApiError(400, str(problem), "docs/moving.md lists kinds and keys") from None


def _results(found: Any) -> dict[str, Any]:
    return {"results": [{"status": status, "note": note} for status, note in found]}


async def _account(desk: Desk, call: Call) -> Account:
    bare = desk.account(call.text("jid"))
    account: Account | None = await desk.read(accounts.find, bare)
    if account is None:
        raise ApiError(404, f"{bare} does not exist", "stentor user list shows the accounts")
    return account


async def small(desk: Desk, call: Call) -> Any:
    account = await _account(desk, call)
    key = account.key
    credentials = (await desk.read(accounts.credentials, [account.jid])).get(account.jid, {})
    things: list[dict[str, Any]] = [
        {
            "kind": "account",
            "credentials": [
                {
                    "hash": one.hash, "salt": _base64(one.salt), "iterations": one.iterations,
                    "stored_key": _base64(one.stored_key), "server_key": _base64(one.server_key),
                }
                for one in credentials.values()
            ],
        }
    ]  # fmt: skip
    for contact in (await desk.read(rosters.load, [key]))[key]:
        things += _contact(account.jid, contact)
    blocked = (await desk.read(blocks.load, [key]))[key]
    things += ({"kind": "block", "jid": jid} for jid in sorted(blocked))
    chosen = Preferences.of(account)
    if chosen != Preferences():
        always, never = sorted(chosen.always), sorted(chosen.never)
        things.append({"kind": "preferences", "default": chosen.default or "always", "always": always, "never": never})
    things += (_node(node) for node in (await desk.read(pubsub.load, [key]))[key])
    card = await desk.read(vcards.get, key)
    if card is not None:
        things.append({"kind": "vcard", "xml": bytes(card).decode()})
    for kept in await desk.read(exporting.private_xml, key):
        things.append({"kind": "private", "xml": bytes(kept.xml).decode()})
    return {"jid": account.jid, "things": things}


async def items(desk: Desk, call: Call) -> Any:
    account = await _account(desk, call)
    name, after = call.text("node"), call.text("after") or None
    nodes = {node.node: node for node in (await desk.read(pubsub.load, [account.key]))[account.key]}
    if name not in nodes:
        raise ApiError(404, f"{account.jid} has no node {name!r}", "GET /export/users/{jid} lists them")
    page = await desk.read(pubsub.page, Wanted(nodes[name].key, PAGE, after=after))
    things = [
        {
            "kind": "item",
            "node": name,
            "id": item.id,
            "publisher": item.publisher,
            "xml": bytes(item.payload).decode(),
        }
        for item in page.items
    ]
    return {"things": things, "after": page.items[-1].id if page.items else None}


async def messages(desk: Desk, call: Call) -> Any:
    account = await _account(desk, call)
    query = Query(account.key, after=number(call.text("after")))
    found = await desk.read(archive.find, query, PAGE, False)
    things = [
        {"kind": "message", "at": _at(row), "id": str(row.id), "xml": _written(row, account.jid)} for row in found.rows
    ]
    return {"things": things, "after": None if found.position is None else str(found.position)}


async def waiting(desk: Desk, call: Call) -> Any:
    account = await _account(desk, call)
    after = number(call.text("after"))
    ids = [id_ for id_ in await desk.ask(account.jid, "export.unread", account.jid) if id_ > after][:PAGE]
    rows = await desk.read(exporting.rows_by_id, account.key, ids) if ids else []
    things = [
        {"kind": "waiting", "at": _at(row), "xml": _written(row, account.jid)}
        for row in rows
        if row.dir == TO_OWNER and row.stanza.type != "groupchat"  # those are of rooms
    ]
    last = rows[-1].id if rows else ids[-1] if ids else None
    return {"things": things, "after": None if last is None else str(last)}


def _contact(bare: str, contact: ContactRow) -> list[dict[str, Any]]:
    things: list[dict[str, Any]] = []
    if contact.in_roster:
        things.append(
            {
                "kind": "contact", "jid": contact.jid, "name": contact.name, "groups": list(contact.groups),
                "subscription": contact.subscription, "ask": contact.ask, "approved": contact.approved,
            }
        )  # fmt: skip
    if contact.pending_in:
        presence = stanzas.presence(to=bare, from_=contact.jid, type="subscribe", inner=bytes(contact.pending_inner))
        things.append({"kind": "request", "jid": contact.jid, "xml": encode(presence).decode()})
    return things


def _node(node: NodeRow) -> dict[str, Any]:
    return {
        "kind": "node",
        "node": node.node,
        "options": configs.to_options(configs.from_json(node.config)),
        "affiliations": {jid: Affiliation(number).word for jid, number in node.affiliations},
        "subscribers": [jid for jid, _, is_pending in node.subscriptions if not is_pending],
    }


def _written(row: Row, bare: str) -> str:
    message = row.stanza
    to = bare if row.dir == TO_OWNER and message.to is None else None
    return encode(message, to).decode()


def _at(row: Row) -> int:
    return (row.id >> ID_BITS) * 1000


def _base64(data: bytes) -> str:
    return b64encode(bytes(data)).decode()


_USER: Final = path("jid", JID, "bare JID of the account")
_THING: Final[Schema] = {"type": "object"}
_THINGS: Final = body("things", list_of(_THING, maxItems=MOST), f"up to {MOST}, in their order", required=True)
_DRY: Final = body("dry_run", FLAG, "say what would become of them, and change nothing")
_RESULTS: Final = record(results=list_of(record(status=TEXT, note=TEXT)))
_AFTER: Final = query("after", TEXT, "`after` of the page before")
_PAGE: Final = record(things=list_of(_THING), after=or_null(TEXT))

AREA: Final = Area(
    "Moving",
    (
        Command(
            "import user", "POST", "/import/users/{jid}", "users:move", "Take things into an account", into_account,
            _RESULTS,
            (_USER, _THINGS, _DRY, body("passwords", FLAG, "also the password of an account that exists")),
            "A result for each thing, in their order. What is there already stays, so a request may be repeated.",
            (404, 409), writes=True, on=("jid",),
        ),
        Command(
            "import room", "POST", "/import/rooms/{jid}", "users:move", "Take things into a room", into_room, _RESULTS,
            (path("jid", JID, "bare JID of the room"), _THINGS, _DRY), errors=(404, 409), writes=True, on=("jid",),
        ),
        Command(
            "export user", "GET", "/export/users/{jid}", "users:move", "An account, without its many things", small,
            record(jid=JID, things=list_of(_THING)), (_USER,), "With the keys that check its password.", (404,),
        ),
        Command(
            "export items", "GET", "/export/users/{jid}/items", "users:move", "Items of one of its nodes", items, _PAGE,
            (_USER, query("node", TEXT, "the node"), _AFTER), errors=(404,),
        ),
        Command(
            "export messages", "GET", "/export/users/{jid}/messages", "users:move", "Its archive", messages, _PAGE,
            (_USER, _AFTER), errors=(404,),
        ),
        Command(
            "export waiting", "GET", "/export/users/{jid}/waiting", "users:move", "What it has not read yet", waiting,
            _PAGE, (_USER, _AFTER), errors=(404,),
        ),
    ),
    "Things, and what becomes of each, are described in [moving.md](moving.md).",
)  # fmt: skip
