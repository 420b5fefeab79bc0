"""The administration API of a router (docs/admin-api.md): any router answers for the whole cluster.

Accounts are read from the database and changed by their owners, wherever those are (`router/calls.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from cluster.admin import ApiError, ApiRequest, Route
from cluster.bus import Bus
from cluster.shards import ShardMap, shard_of
from cluster.wire import DRAIN, Incarnation, Shard, node_of
from router.calls import CallError, Calls
from router.dialing import PeerStatus
from router.export_api import ExportApi
from router.import_api import ImportApi
from router.invitations_api import InvitationsApi
from router.rooms.room import HISTORY
from router.settings import Settings
from router.traces import Traces
from router.traces_api import TracesApi
from storage import accounts, blocklists, devices, erasures, nodes, reports, restrictions, rooms, rosters, sessions
from storage.devices import Device
from storage.erasures import Erasure
from storage.log import time_of
from storage.pool import is_away
from storage.reports import Report
from storage.restrictions import Restricted, Restriction
from storage.store import Store
from xmpp import ns
from xmpp.errors import JidError
from xmpp.jid import JID
from xmpp.stanza import Stanza
from xmpp.xml import text_of

PAGE: Final = 1_000

_ANSWERS: Final = {
    "conflict": (409, "exists", "Choose another name"),
    "item-not-found": (404, "does not exist", "stentor user list shows the accounts"),
    "not-allowed": (409, "has no password here", "authentication.domains says who checks those of its domain"),
    "gone": (409, "was erased not long ago", "Choose another name, or say that it is to be the same person's again"),
    "not-acceptable": (400, "cannot have this password", "Choose another one"),
    "resource-constraint": (503, "cannot be changed now", "Try again"),
    "remote-server-timeout": (503, "cannot be changed now", "Try again; is its router up?"),
    "temporary-auth-failure": (503, "cannot be changed now", "Try again; is the database up?"),
}


class Api:
    """The routes and what they need."""

    def __init__(
        self, settings: Settings, store: Store, calls: Calls, shard_map: ShardMap, bus: Bus, traces: Traces
    ) -> None:
        self._settings = settings
        self._store = store
        self._calls = calls
        self._map = shard_map
        self._bus = bus
        self._invitations = InvitationsApi(settings, self._read, self._account)
        self._traces = TracesApi(settings, traces, calls, shard_map, bus, self._read)
        self._imports = ImportApi(self._call, self._call_room, self._account, self._room_jid)
        self._exports = ExportApi(self._read, self._call, self._account)

    def routes(self) -> list[Route]:
        """Everything below /api/v1."""
        return [
            ("GET", "/users", self._users),
            ("POST", "/users", self._create),
            ("GET", "/users/{jid}", self._user),
            ("DELETE", "/users/{jid}", self._delete),
            ("PUT", "/users/{jid}/password", self._password),
            ("GET", "/users/{jid}/devices", self._devices),
            ("DELETE", "/users/{jid}/devices", self._log_out),
            ("DELETE", "/users/{jid}/devices/{device}", self._log_out),
            ("PUT", "/users/{jid}/{kind}", self._restrict),
            ("DELETE", "/users/{jid}/{kind}", self._unrestrict),
            ("GET", "/restrictions", self._restrictions),
            ("GET", "/reports", self._reports),
            ("GET", "/reports/{id}", self._report),
            ("POST", "/reports/{id}/close", self._close_report),
            ("GET", "/blocklists", self._blocklists),
            ("GET", "/blocklists/check/{jid}", self._check_blocklists),
            ("POST", "/blocklists/refresh", self._refresh_blocklists),
            ("POST", "/erasures", self._erase),
            ("GET", "/erasures/{id}", self._erasure),
            ("GET", "/sessions", self._sessions),
            ("GET", "/sessions/{jid}", self._session),
            ("DELETE", "/sessions/{jid}", self._kick),
            ("GET", "/rooms", self._rooms),
            ("POST", "/rooms", self._create_room),
            ("GET", "/rooms/{jid}", self._room),
            ("PATCH", "/rooms/{jid}", self._set_room),
            ("DELETE", "/rooms/{jid}", self._destroy_room),
            ("GET", "/rooms/{jid}/affiliations", self._affiliations),
            ("PUT", "/rooms/{jid}/affiliations/{user}", self._affiliate),
            ("GET", "/rooms/{jid}/occupants", self._occupants),
            ("GET", "/rooms/{jid}/history", self._history),
            *self._invitations.routes(),
            *self._traces.routes(),
            *self._imports.routes(),
            *self._exports.routes(),
            ("GET", "/peers", self._peers),
            ("POST", "/peers/{domain}/retry", self._retry),
            ("GET", "/cluster", self._cluster),
            ("POST", "/cluster/{node}/drain", self._drain),
        ]

    # --- accounts

    async def _users(self, request: ApiRequest) -> Any:
        domain = request.query.get("domain", "")
        wanted = [domain] if domain else sorted(self._settings.domains)
        after = request.query.get("after", "")
        found = [row.jid for name in wanted for row in await self._read(accounts.list_, name, after, PAGE)]
        return {"users": [{"jid": jid} for jid in sorted(found)[:PAGE]]}

    async def _create(self, request: ApiRequest) -> Any:
        bare = self._account(request.text("jid"))
        await self._call(bare, "admin.create", bare, request.text("password"), request.body.get("reuse") is True)
        return {"jid": bare}

    async def _user(self, request: ApiRequest) -> Any:
        bare = self._account(request.path["jid"])
        account = await self._read(accounts.find, bare)
        if account is None:
            raise _answer(bare, "item-not-found")
        contacts = (await self._read(rosters.load, [account.key]))[account.key]
        restricted = (await self._read(restrictions.load, [account.key]))[account.key]
        rows = await self._read(sessions.find, bare)
        return {
            "jid": bare,
            "created_at": _stamp(account.created_at),
            "contacts": sum(contact.in_roster for contact in contacts),
            "restrictions": [_shown_restriction(found) for found in restricted if found.kind != "guest"],
            "sessions": [f"{row.bare}/{row.resource}" for row in rows],
        }

    async def _delete(self, request: ApiRequest) -> Any:
        bare = self._account(request.path["jid"])
        await self._call(bare, "admin.delete", bare)
        return {"jid": bare}

    async def _restrict(self, request: ApiRequest) -> Any:
        bare, kind, until = self._account(request.path["jid"]), _kind(request), request.body.get("until")
        by = str(request.body.get("by") or "operator")
        if until is not None and not (isinstance(until, str) and (until := _moment(until)) is not None):
            raise ApiError(400, "until is no time", "Write it as 2027-01-31T12:00:00Z")
        await self._call(bare, "admin.restrict", bare, kind, request.text("reason"), by, until)
        return {"jid": bare, "kind": kind}

    async def _unrestrict(self, request: ApiRequest) -> Any:
        bare, kind = self._account(request.path["jid"]), _kind(request)
        return {"jid": bare, "kind": kind, "was": await self._call(bare, "admin.unrestrict", bare, kind, "operator")}

    async def _restrictions(self, request: ApiRequest) -> Any:
        found = await self._read(restrictions.list_, request.query.get("after", ""), PAGE)
        return {"restrictions": [{"jid": one.jid, **_shown_restriction(one)} for one in found]}

    async def _blocklists(self, request: ApiRequest) -> Any:
        lists = self._settings.blocklists
        read = {known.name: known for known in await self._read(blocklists.list_)}
        shown = []
        for name, rule in lists.rules.items():
            known = read.get(name)
            at = None if known is None else _stamp(known.refreshed_at)
            shown.append(
                {
                    "service": rule.service, "node": rule.node, "applies_to": sorted(rule.places),
                    "entries": len(lists.entries(name)), "refreshed_at": at,
                }
            )  # fmt: skip
        return {"blocklists": shown}

    async def _check_blocklists(self, request: ApiRequest) -> Any:
        text = request.path["jid"]
        try:
            bare = JID.parse(text).bare
        except JidError as problem:
            raise ApiError(400, f"{text!r} is no JID: {problem}", "Give a bare JID or a domain") from problem
        lists = self._settings.blocklists
        return {"jid": bare, "rooms": lists.of(bare, "rooms"), "strangers": lists.of(bare, "strangers")}

    async def _refresh_blocklists(self, request: ApiRequest) -> Any:
        if not self._settings.blocklists.rules:
            raise ApiError(409, "no blocklist is followed", "Name some in abuse.blocklists")
        await self._read(blocklists.want_refresh)
        return {}

    async def _reports(self, request: ApiRequest) -> Any:
        after = _number(request.query.get("after", "0")) or 0
        found = await self._read(reports.list_, request.query.get("all") == "true", after, PAGE)
        return {"reports": [_shown_report(one) for one in found]}

    async def _report(self, request: ApiRequest) -> Any:
        number = _number(request.path["id"])
        found = None if number is None else await self._read(reports.find, number)
        if found is None:
            raise ApiError(404, f"there is no report {request.path['id']}", "stentor report list shows them")
        return _shown_report(found)

    async def _close_report(self, request: ApiRequest) -> Any:
        number, body = _number(request.path["id"]), request.body
        by, note = str(body.get("by") or "operator"), str(body.get("note") or "")
        if number is None or not await self._read(reports.close, number, by, note):
            raise ApiError(404, f"no report {request.path['id']} is open", "stentor report list shows them")
        return {"id": number}

    async def _erase(self, request: ApiRequest) -> Any:
        jid = self._jid(request.text("jid"))
        settings = self._settings
        if jid.resource or not jid.local or jid.domain in settings.room_domains | settings.proxy_domains:
            raise ApiError(400, f"{jid} is not the bare JID of somebody", "Write it as name@domain")
        id_ = await self._call(jid.bare, "admin.erase", jid.bare, request.body.get("rooms") is True)
        return self._shown_erasure(await self._read(erasures.find, id_))

    async def _erasure(self, request: ApiRequest) -> Any:
        number = _number(request.path["id"])
        found = None if number is None else await self._read(erasures.find, number)
        if found is None:
            raise ApiError(404, f"{request.path['id']} is no erasure", "POST /api/v1/erasures begins one")
        return self._shown_erasure(found)

    @staticmethod
    def _shown_erasure(found: Erasure) -> dict[str, Any]:
        return {
            "id": str(found.id),
            "is_finished": found.finished_at is not None,
            "removed": {kind: count for kind, count in sorted(found.removed.items()) if count},
            "requested_at": _stamp(found.requested_at),
            "reusable_at": _stamp(found.reusable_at),
        }

    async def _password(self, request: ApiRequest) -> Any:
        bare = self._account(request.path["jid"])
        await self._call(bare, "admin.password", bare, request.text("password"))
        return {"jid": bare}

    async def _devices(self, request: ApiRequest) -> Any:
        bare = self._account(request.path["jid"])
        account = await self._read(accounts.find, bare)
        if account is None:
            raise _answer(bare, "item-not-found")
        return {"devices": [_device(device) for device in await self._read(devices.list_, account.key)]}

    async def _log_out(self, request: ApiRequest) -> Any:
        bare, asked = self._account(request.path["jid"]), request.path.get("device", "")
        try:
            device = bytes.fromhex(asked)
        except ValueError:
            raise ApiError(400, f"{asked} is no device", "stentor user devices shows them") from None
        return {"ended": await self._call(bare, "admin.log_out", bare, device)}

    # --- sessions

    async def _sessions(self, request: ApiRequest) -> Any:
        query = request.query
        filters = (query.get("user", ""), query.get("domain", ""), query.get("node", ""))
        if query.get("count") == "true":
            return {"count": await self._read(sessions.count, *filters)}
        rows = await self._read(sessions.list_, *filters, query.get("after", ""), PAGE)
        return {"sessions": [self._shown(row) for row in rows]}

    async def _session(self, request: ApiRequest) -> Any:
        jid = self._jid(request.path["jid"])
        for row in await self._read(sessions.find, jid.bare):
            if row.resource == jid.resource:
                return self._shown(row)
        raise ApiError(404, f"{jid} has no session", "stentor session list shows them")

    async def _kick(self, request: ApiRequest) -> Any:
        jid = self._jid(request.path["jid"])
        ended = await self._call(jid.bare, "admin.kick", jid.bare, jid.resource)
        if jid.resource and not ended:
            raise ApiError(404, f"{jid} has no session", "stentor session list shows them")
        return {"ended": ended}

    def _shown(self, row: sessions.SessionRow) -> dict[str, Any]:
        owner = self._map.owners[row.shard]
        return {
            "jid": f"{row.bare}/{row.resource}",
            "node": node_of(Incarnation(row.node)) or None,
            "router": node_of(owner) if owner is not None else None,
            "connected_at": _stamp(row.at),
        }

    # --- rooms

    async def _rooms(self, request: ApiRequest) -> Any:
        query = request.query
        found = await self._read(rooms.list_, query.get("domain", ""), query.get("after", ""), PAGE)
        return {"rooms": [room._asdict() for room in found]}

    async def _create_room(self, request: ApiRequest) -> Any:
        bare = self._room_jid(request.text("jid"))
        owner = str(request.body.get("owner") or "")
        await self._call_room(bare, "rooms.create", _options(request), self._jid(owner).bare if owner else "")
        return {"jid": bare}

    async def _room(self, request: ApiRequest) -> Any:
        bare = self._room_jid(request.path["jid"])
        return self._with_router(bare, await self._call_room(bare, "rooms.show"))

    async def _set_room(self, request: ApiRequest) -> Any:
        bare = self._room_jid(request.path["jid"])
        return self._with_router(bare, await self._call_room(bare, "rooms.set", _options(request)))

    def _with_router(self, bare: str, shown: dict[str, Any]) -> dict[str, Any]:
        owner = self._map.owners[shard_of(bare)]
        return {"jid": bare, "router": node_of(owner) if owner is not None else None, **shown}

    async def _destroy_room(self, request: ApiRequest) -> Any:
        bare = self._room_jid(request.path["jid"])
        await self._call_room(bare, "rooms.destroy")
        return {"jid": bare}

    async def _affiliations(self, request: ApiRequest) -> Any:
        return {"affiliations": await self._call_room(self._room_jid(request.path["jid"]), "rooms.affiliations")}

    async def _affiliate(self, request: ApiRequest) -> Any:
        bare, user = self._room_jid(request.path["jid"]), self._jid(request.path["user"]).bare
        await self._call_room(bare, "rooms.affiliate", user, request.text("affiliation"))
        return {"jid": bare, "user": user, "affiliation": request.text("affiliation")}

    async def _occupants(self, request: ApiRequest) -> Any:
        found = await self._call_room(self._room_jid(request.path["jid"]), "rooms.occupants")
        return {"occupants": [{"nick": nick, "jid": jid, "role": role} for nick, jid, role in found]}

    async def _history(self, request: ApiRequest) -> Any:
        bare = self._room_jid(request.path["jid"])
        found = await self._read(rooms.load, bare, HISTORY)
        if found is None or found.room is None:
            raise _room_answer(bare, "item-not-found")
        lines = [(row, row.stanza) for row in found.history]
        return {
            "history": [
                {"at": _stamp(time_of(row.id)), "nick": (said.from_ or "").partition("/")[2], "body": _body(said)}
                for row, said in lines
            ]
        }

    def _room_jid(self, text: str) -> str:
        jid = self._jid(text)
        if jid.resource or not jid.local or jid.domain not in self._settings.room_domains:
            served = ", ".join(sorted(self._settings.room_domains))
            raise ApiError(400, f"{text} is not the address of a room", f"Write it as name@ one of {served}")
        return jid.bare

    async def _call_room(self, bare: str, method: str, *arguments: Any) -> Any:
        try:
            return await self._calls.ask(bare, shard_of(bare), method, (bare, *arguments))
        except CallError as problem:
            raise _room_answer(bare, problem.condition) from problem

    # --- other servers and components

    async def _peers(self, request: ApiRequest) -> Any:
        wanted = request.query.get("domain", "")
        a_shard_of = {owner: Shard(shard) for shard, owner in enumerate(self._map.owners) if owner is not None}
        shards = [shard_of(wanted)] if wanted else list(a_shard_of.values())
        try:
            answers = await asyncio.gather(*(self._calls.ask("", shard, "peers.list", ()) for shard in shards))
        except CallError as problem:
            raise ApiError(503, "a router does not answer", "Try again; stentor cluster status shows them") from problem
        found = [PeerStatus(*fields)._asdict() for answer in answers for fields in answer]
        found.sort(key=lambda peer: (peer["domain"], peer["local"]))
        return {"peers": [peer for peer in found if wanted in ("", peer["domain"])]}

    async def _retry(self, request: ApiRequest) -> Any:
        domain = self._jid(request.path["domain"]).domain
        if not await self._call(domain, "peers.retry", domain):
            raise ApiError(404, f"nothing waits for {domain}", "stentor s2s list shows the domains in use")
        return {"domain": domain}

    # --- the cluster

    async def _cluster(self, request: ApiRequest) -> Any:
        rows = await self._read(nodes.list_)
        living = self._bus.peers
        by_edge: dict[str, int] = {}
        by_router: dict[str, int] = {}
        for edge, shard, count in await self._read(sessions.count_by_node):
            by_edge[edge] = by_edge.get(edge, 0) + count
            owner = self._map.owners[shard]
            if owner is not None:
                by_router[owner] = by_router.get(owner, 0) + count
        shown = []
        now = max((row.seen_at for row in rows), default=0.0)  # by the database's clock, as all of them
        for row in rows:
            is_here = row.incarnation == self._bus.incarnation or row.incarnation in living
            owned = sum(owner == row.incarnation for owner in self._map.owners)
            state = "draining" if row.is_leaving else "ready" if is_here else "down"
            sessions_here = by_router.get(row.incarnation, 0)
            shown.append(
                {
                    "node": row.name,
                    "role": row.role,
                    "state": state,
                    "shards": owned,
                    "sessions": sessions_here,
                    "silent_s": round(max(0.0, now - row.seen_at), 1),
                }
            )
        for peer in living.values():
            if peer.role != "router":
                shown.append(
                    {
                        "node": node_of(peer.incarnation),
                        "role": peer.role,
                        "state": "ready",
                        "shards": None,
                        "sessions": by_edge.get(peer.incarnation, 0),
                        "silent_s": round(max(0.0, time.monotonic() - peer.heard_at), 1),
                    }
                )
        owned = sum(owner is not None for owner in self._map.owners)
        shown.sort(key=lambda node: str(node["node"]))
        return {"nodes": shown, "shards": {"owned": owned, "unowned": len(self._map.owners) - owned}}

    async def _drain(self, request: ApiRequest) -> Any:
        name = request.path["node"]
        here = [*self._bus.peers, self._bus.incarnation]
        found = [incarnation for incarnation in here if node_of(incarnation) == name]
        if not found:
            raise ApiError(404, f"{name} is no living process", "stentor cluster status shows them")
        self._bus.send(found[0], (DRAIN, "operator"))
        return {"node": name}

    # --- helpers

    def _jid(self, text: str) -> JID:
        try:
            return JID.parse(text)
        except JidError as problem:
            raise ApiError(400, f"{text} is no JID: {problem}", "Write it as name@domain") from problem

    def _account(self, text: str) -> str:
        jid = self._jid(text)
        if jid.resource or not jid.local:
            raise ApiError(400, f"{text} is not the bare JID of an account", "Write it as name@domain")
        if jid.domain not in self._settings.domains:
            served = ", ".join(sorted(self._settings.domains))
            raise ApiError(400, f"{jid.domain} is not served here", f"The domains are: {served} (server.domains)")
        return jid.bare

    async def _read(self, statement: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        try:
            return await self._store.run(statement, *arguments)
        except Exception as problem:
            if not is_away(problem):
                raise
            raise ApiError(503, "the database is away", "Try again; `stentor db status` tells more") from problem

    async def _call(self, bare: str, method: str, *arguments: Any) -> Any:
        try:
            return await self._calls.ask(bare, shard_of(bare), method, arguments)
        except CallError as problem:
            raise _answer(bare, problem.condition) from problem


def _kind(request: ApiRequest) -> str:
    kind = request.path["kind"]
    if kind not in ("ban", "quarantine"):
        raise ApiError(404, f"there is no {kind} of an account", "There are ban and quarantine")
    return kind


def _shown_restriction(found: Restriction | Restricted) -> dict[str, Any]:
    until = None if found.until is None else _stamp(found.until)
    return {"kind": found.kind, "reason": found.reason, "by": found.by, "at": _stamp(found.at), "until": until}


def _shown_report(found: Report) -> dict[str, Any]:
    closed_at = None if found.closed_at is None else _stamp(found.closed_at)
    return {**found._asdict(), "at": _stamp(found.at), "closed_at": closed_at}


def _number(text: str) -> int | None:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 2**63
    return number if number < 2**63 else None  # more than the database takes


def _moment(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _answer(bare: str, condition: str) -> ApiError:
    status, words, remedy = _ANSWERS.get(condition, (500, f"failed: {condition}", "The log of the router says more"))
    return ApiError(status, f"{bare} {words}", remedy)


def _room_answer(bare: str, condition: str) -> ApiError:
    answers = {
        "item-not-found": (404, "is no room", "stentor room list shows them"),
        "bad-request": (400, "cannot be so", "docs/admin-api.md lists options and their values"),
    }
    status, words, remedy = answers.get(condition) or _ANSWERS.get(
        condition, (500, f"failed: {condition}", "The log of the router says more")
    )
    return ApiError(status, f"{bare} {words}", remedy)


def _options(request: ApiRequest) -> dict[str, str]:
    """The options of a room in a body: {"config": {name: value}}, values as in the form."""
    given = request.body.get("config", {})
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise ApiError(400, "config is not an object of strings", 'Send {"config": {"roomname": "Verona"}}')
    return given


def _body(message: Stanza) -> str:
    return text_of(next((child for child in message.children() if child.tag == f"{{{ns.CLIENT}}}body"), None))


def _stamp(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _device(device: Device) -> dict[str, Any]:
    return {
        "device": device.device.hex(),
        "software": device.software,
        "name": device.name,
        "network": device.address,
        "first_seen": _stamp(device.first_seen),
        "last_seen": _stamp(device.last_seen),
        "token": device.has_token,
        "password": device.by_password,
    }
