"""The administration API of traces (docs/admin-api.md): the part of `router/api.py` behind `stentor trace`. Any router
may be asked; the one that was asked to begin a trace gathers it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from cluster.admin import ApiError, ApiRequest, Route
from cluster.bus import Bus
from cluster.shards import ShardMap, shard_of
from cluster.wire import Incarnation, Shard, node_of
from router.calls import CallError, Calls
from router.settings import Settings
from router.traces import AT_ONCE, LONGEST_S, TooMany, Traces
from storage import accounts
from xmpp.errors import JidError
from xmpp.jid import JID

SECONDS: Final = 60
BY_MOST: Final = 100  # characters

Read = Callable[..., Awaitable[Any]]  # a repository function and its arguments


class TracesApi:
    """The routes and what they need."""

    def __init__(
        self, settings: Settings, traces: Traces, calls: Calls, shard_map: ShardMap, bus: Bus, read: Read
    ) -> None:
        self._settings = settings
        self._traces = traces
        self._calls = calls
        self._map = shard_map
        self._bus = bus
        self._read = read

    def routes(self) -> list[Route]:
        """Everything below /api/v1."""
        return [
            ("GET", "/traces", self._list),
            ("POST", "/traces", self._start),
            ("GET", "/traces/{id}", self._page),
            ("DELETE", "/traces/{id}", self._stop),
        ]

    async def _start(self, request: ApiRequest) -> Any:
        jid = self._jid(request.text("jid"))
        seconds = request.body.get("seconds", SECONDS)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= LONGEST_S:
            raise ApiError(400, "seconds is no number of seconds that a trace may take", f"Give 1 to {LONGEST_S}")
        by = _who(request.body.get("by"))
        hint = await self._hint(jid)
        try:
            trace = self._traces.start(jid.bare, seconds, by)
        except TooMany:
            raise ApiError(
                409, f"{AT_ONCE} traces run already", "stentor trace --list shows them; --stop ID ends one"
            ) from None
        await self._traces.wait_told()
        return {"id": trace.id, "jid": jid.bare, "seconds": seconds, "node": node_of(self._bus.incarnation),
                "hint": hint}  # fmt: skip

    def _jid(self, text: str) -> JID:
        settings = self._settings
        try:
            jid = JID.parse(text)
        except JidError as problem:
            raise ApiError(400, f"{text} is no JID: {problem}", "Write it as name@domain") from problem
        if jid.resource:
            raise ApiError(400, f"{text} is one session", f"Trace the account: {jid.bare}")
        if not jid.local and jid.domain in settings.domains | settings.room_domains | settings.proxy_domains:
            raise ApiError(
                400, f"{jid.domain} is served here: that would be everybody",
                "Trace an account, a room, or the domain of another server or a component",
            )  # fmt: skip
        return jid

    async def _hint(self, jid: JID) -> str:
        """What an operator ought to know before waiting in vain."""
        settings = self._settings
        if jid.local and jid.domain in settings.domains and await self._read(accounts.find, jid.bare) is None:
            return (
                f"{jid.bare} has no account: whatever is sent to it comes back. stentor user list shows those there are"
            )
        if jid.local and jid.domain in settings.room_domains:
            try:
                await self._calls.ask(jid.bare, shard_of(jid.bare), "rooms.show", (jid.bare,))
            except CallError as problem:
                if problem.condition == "item-not-found":
                    return f"{jid.bare} is no room (yet). stentor room list shows those there are"
        is_ours = jid.domain in settings.domains | settings.room_domains | settings.service_domains
        if not is_ours and not settings.reaches_others and jid.domain not in settings.components:
            return f"{jid.domain} is not served here, and this server speaks to no others (s2s.enabled)"
        return ""

    async def _page(self, request: ApiRequest) -> Any:
        id_, after = request.path["id"], request.query.get("after", "0")
        if not after.isascii() or not after.isdigit() or len(after) > 15:
            raise ApiError(400, "after is no number", "Give the number of the last event that you have")
        if self._is_here(id_):
            page = await self._traces.page(id_, int(after))
        else:
            page = await self._ask(id_, "traces.page", id_, int(after))
        if page is None:
            raise _gone(id_)
        return {**page, "events": [{**event, "at": _stamp(event["at"])} for event in page["events"]]}

    async def _stop(self, request: ApiRequest) -> Any:
        id_, by = request.path["id"], _who(request.query.get("by"))
        stopped = (
            self._traces.stop(id_, by) if self._is_here(id_) else await self._ask(id_, "traces.stop", id_, by)
        )  # fmt: skip
        if not stopped:
            raise _gone(id_)
        return {"id": id_}

    async def _list(self, request: ApiRequest) -> Any:
        others = [self._a_shard_of(peer.incarnation) for peer in self._bus.peers.values() if peer.role == "router"]
        asked = [self._calls.ask("", shard, "traces.list", ()) for shard in others if shard is not None]
        try:
            answers = await asyncio.gather(*asked)
        except CallError as problem:
            raise ApiError(503, "a router does not answer", "Try again; stentor cluster status shows them") from problem
        found = [*self._traces.list_(), *(trace for answer in answers for trace in answer)]
        return {"traces": sorted({trace["id"]: trace for trace in found}.values(), key=lambda trace: str(trace["id"]))}

    def _is_here(self, id_: str) -> bool:
        return id_.rpartition("-")[0] == node_of(self._bus.incarnation)

    async def _ask(self, id_: str, method: str, *arguments: Any) -> Any:
        """The router that gathers it, which the id names."""
        node = id_.rpartition("-")[0]
        shards = (
            self._a_shard_of(peer.incarnation)
            for peer in self._bus.peers.values()
            if peer.role == "router" and node_of(peer.incarnation) == node
        )
        shard = next((shard for shard in shards if shard is not None), None)
        if shard is None:
            raise _gone(id_)
        try:
            return await self._calls.ask("", shard, method, arguments)
        except CallError as problem:
            raise ApiError(503, f"{node} does not answer", "Try again; stentor cluster status shows it") from problem

    def _a_shard_of(self, router: Incarnation) -> Shard | None:
        """By which a router can be asked."""
        return next((Shard(shard) for shard, owner in enumerate(self._map.owners) if owner == router), None)


def _who(by: object) -> str:
    return "".join(c for c in str(by or "operator")[:BY_MOST] if c.isprintable())


def _gone(id_: str) -> ApiError:
    return ApiError(
        404, f"there is no trace {id_}", "It is over, or the router that gathered it is gone: begin another"
    )


def _stamp(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
