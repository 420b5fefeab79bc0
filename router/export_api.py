"""The administration API of exports (docs/admin-api.md): the part of `router/api.py` behind `stentor export`. What
there is of an account is told as things of the kinds that an import takes."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any, Final

from cluster.admin import ApiError, ApiRequest, Route
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

PAGE: Final = 250

Call = Callable[..., Awaitable[Any]]
Read = Callable[..., Awaitable[Any]]  # a repository function and its arguments


class ExportApi:
    """The routes and what they need. `account` checks a bare JID that may be here, `call` asks its owner."""

    def __init__(self, read: Read, call: Call, account: Callable[[str], str]) -> None:
        self._read = read
        self._call = call
        self._account = account

    def routes(self) -> list[Route]:
        """Everything below /api/v1."""
        return [
            ("GET", "/export/users/{jid}", self._small),
            ("GET", "/export/users/{jid}/items", self._items),
            ("GET", "/export/users/{jid}/messages", self._messages),
            ("GET", "/export/users/{jid}/waiting", self._waiting),
        ]

    async def _found(self, request: ApiRequest) -> Account:
        bare = self._account(request.path["jid"])
        account: Account | None = await self._read(accounts.find, bare)
        if account is None:
            raise ApiError(404, f"{bare} does not exist", "stentor user list shows the accounts")
        return account

    async def _small(self, request: ApiRequest) -> Any:
        account = await self._found(request)
        key = account.key
        credentials = (await self._read(accounts.credentials, [account.jid])).get(account.jid, {})
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
        for contact in (await self._read(rosters.load, [key]))[key]:
            things += _contact(account.jid, contact)
        blocked = (await self._read(blocks.load, [key]))[key]
        things += ({"kind": "block", "jid": jid} for jid in sorted(blocked))
        chosen = Preferences.of(account)
        if chosen != Preferences():
            always, never = sorted(chosen.always), sorted(chosen.never)
            things.append(
                {"kind": "preferences", "default": chosen.default or "always", "always": always, "never": never}
            )
        things += (_node(node) for node in (await self._read(pubsub.load, [key]))[key])
        card = await self._read(vcards.get, key)
        if card is not None:
            things.append({"kind": "vcard", "xml": bytes(card).decode()})
        for kept in await self._read(exporting.private_xml, key):
            things.append({"kind": "private", "xml": bytes(kept.xml).decode()})
        return {"jid": account.jid, "things": things}

    async def _items(self, request: ApiRequest) -> Any:
        account = await self._found(request)
        name, after = request.query.get("node", ""), request.query.get("after") or None
        nodes = {node.node: node for node in (await self._read(pubsub.load, [account.key]))[account.key]}
        if name not in nodes:
            raise ApiError(404, f"{account.jid} has no node {name!r}", "GET /export/users/{jid} lists them")
        page = await self._read(pubsub.page, Wanted(nodes[name].key, PAGE, after=after))
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

    async def _messages(self, request: ApiRequest) -> Any:
        account = await self._found(request)
        query = Query(account.key, after=_after(request))
        found = await self._read(archive.find, query, PAGE, False)
        things = [
            {"kind": "message", "at": _at(row), "id": str(row.id), "xml": _written(row, account.jid)}
            for row in found.rows
        ]
        return {"things": things, "after": None if found.position is None else str(found.position)}

    async def _waiting(self, request: ApiRequest) -> Any:
        account = await self._found(request)
        after = _after(request)
        ids = [id_ for id_ in await self._call(account.jid, "export.unread", account.jid) if id_ > after][:PAGE]
        rows = await self._read(exporting.rows_by_id, account.key, ids) if ids else []
        things = [
            {"kind": "waiting", "at": _at(row), "xml": _written(row, account.jid)}
            for row in rows
            if row.dir == TO_OWNER and row.stanza.type != "groupchat"  # those are of rooms
        ]
        last = rows[-1].id if rows else ids[-1] if ids else None
        return {"things": things, "after": None if last is None else str(last)}


def _after(request: ApiRequest) -> int:
    text = request.query.get("after") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ApiError(400, f"after is no place in the archive: {text[:40]}", "Give the one of the page before")
    return int(text)


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
