"""What becomes of somebody's stanzas: `stentor trace`. Any router may be asked; the one that was asked to begin a trace
gathers it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

from cluster.admin import ApiError
from cluster.shards import shard_of
from cluster.wire import Incarnation, Shard, node_of
from router.administration.command import Area, Call, Command, body, path, query
from router.administration.desk import Desk, jid_of, number
from router.administration.schema import JID, TEXT, WORD, Schema, list_of, record
from router.calls import CallError
from router.traces import AT_ONCE, LONGEST_S, TooMany
from storage import accounts
from xmpp.jid import JID as Jid

SECONDS: Final = 60
BY_MOST: Final = 100  # characters
_ID: Final = path("id", WORD, "as the answer that began it has it")


async def start(desk: Desk, call: Call) -> Any:
    jid = _traceable(desk, call.text("jid"))
    seconds = call.given.get("seconds", SECONDS)
    hint = await _hint(desk, jid)
    try:
        trace = desk.traces.start(jid.bare, seconds, _who(call))
    except TooMany:
        raise ApiError(
            409, f"{AT_ONCE} traces run already", "stentor trace --list shows them; --stop ID ends one"
        ) from None
    await desk.traces.wait_told()
    return {"id": trace.id, "jid": jid.bare, "seconds": seconds, "node": node_of(desk.bus.incarnation), "hint": hint}


def _traceable(desk: Desk, text: str) -> Jid:
    settings, jid = desk.settings, jid_of(text)
    if jid.resource:
        raise ApiError(400, f"{text} is one session", f"Trace the account: {jid.bare}")
    if not jid.local and jid.domain in settings.domains | settings.room_domains | settings.proxy_domains:
        raise ApiError(
            400, f"{jid.domain} is served here: that would be everybody",
            "Trace an account, a room, or the domain of another server or a component",
        )  # fmt: skip
    return jid


async def _hint(desk: Desk, jid: Jid) -> str:
    """What an operator ought to know before waiting in vain."""
    settings = desk.settings
    if jid.local and jid.domain in settings.domains and await desk.read(accounts.find, jid.bare) is None:
        return f"{jid.bare} has no account: whatever is sent to it comes back. stentor user list shows those there are"
    if jid.local and jid.domain in settings.room_domains:
        try:
            await desk.calls.ask(jid.bare, shard_of(jid.bare), "rooms.show", (jid.bare,))
        except CallError as problem:
            if problem.condition == "item-not-found":
                return f"{jid.bare} is no room (yet). stentor room list shows those there are"
    is_ours = jid.domain in settings.domains | settings.room_domains | settings.service_domains
    if not is_ours and not settings.reaches_others and jid.domain not in settings.components:
        return f"{jid.domain} is not served here, and this server speaks to no others (s2s.enabled)"
    return ""


async def page(desk: Desk, call: Call) -> Any:
    id_, after = call.text("id"), number(call.text("after"))
    if _is_here(desk, id_):
        found = await desk.traces.page(id_, after)
    else:
        found = await _ask(desk, id_, "traces.page", id_, after)
    if found is None:
        raise _gone(id_)
    return {**found, "events": [{**event, "at": _stamp(event["at"])} for event in found["events"]]}


async def stop(desk: Desk, call: Call) -> Any:
    id_, by = call.text("id"), _who(call)
    stopped = desk.traces.stop(id_, by) if _is_here(desk, id_) else await _ask(desk, id_, "traces.stop", id_, by)
    if not stopped:
        raise _gone(id_)
    return {"id": id_}


async def list_traces(desk: Desk, call: Call) -> Any:
    others = [_a_shard_of(desk, peer.incarnation) for peer in desk.bus.peers.values() if peer.role == "router"]
    asked = [desk.calls.ask("", shard, "traces.list", ()) for shard in others if shard is not None]
    try:
        answers = await asyncio.gather(*asked)
    except CallError as problem:
        raise ApiError(503, "a router does not answer", "Try again; stentor cluster status shows them") from problem
    found = [*desk.traces.list_(), *(trace for answer in answers for trace in answer)]
    return {"traces": sorted({trace["id"]: trace for trace in found}.values(), key=lambda trace: str(trace["id"]))}


def _is_here(desk: Desk, id_: str) -> bool:
    return id_.rpartition("-")[0] == node_of(desk.bus.incarnation)


async def _ask(desk: Desk, id_: str, method: str, *arguments: Any) -> Any:
    """The router that gathers it, which the id names."""
    node = id_.rpartition("-")[0]
    shards = (
        _a_shard_of(desk, peer.incarnation)
        for peer in desk.bus.peers.values()
        if peer.role == "router" and node_of(peer.incarnation) == node
    )
    shard = next((shard for shard in shards if shard is not None), None)
    if shard is None:
        raise _gone(id_)
    try:
        return await desk.calls.ask("", shard, method, arguments)
    except CallError as problem:
        raise ApiError(503, f"{node} does not answer", "Try again; stentor cluster status shows it") from problem


def _a_shard_of(desk: Desk, router: Incarnation) -> Shard | None:
    """By which a router can be asked."""
    return next((Shard(shard) for shard, owner in enumerate(desk.map.owners) if owner == router), None)


def _who(call: Call) -> str:
    """The caller, and whoever it says is at the terminal."""
    said = "".join(c for c in call.text("by")[:BY_MOST] if c.isprintable())
    return said or call.by


def _gone(id_: str) -> ApiError:
    return ApiError(
        404, f"there is no trace {id_}", "It is over, or the router that gathered it is gone: begin another"
    )


def _stamp(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_BY: Final[Schema] = {"type": "string", "maxLength": 1_000}
_ANY: Final[Schema] = {"type": "object"}

AREA: Final = Area(
    "Traces",
    (
        Command(
            "trace list", "GET", "/traces", "traces:read", "The traces that run", list_traces,
            record(traces=list_of(_ANY)), errors=(503,),
        ),
        Command(
            "trace", "POST", "/traces", "traces:write", "Begin to trace an account, a room, or another domain", start,
            record(id=TEXT, jid=JID, seconds={"type": "number"}, node=TEXT, hint=TEXT),
            (
                body("jid", JID, "whose stanzas", required=True),
                body("seconds", {"type": "number", "minimum": 1, "maximum": LONGEST_S}, f"for how long, {SECONDS} if "
                     "left out"),
                body("by", _BY, "who looks, for the logs"),
            ),
            f"At most {AT_ONCE} at once in a cluster. `hint` is not empty where there will probably be nothing to see.",
            (409,), writes=True, on=("jid",),
        ),
        Command(
            "trace events", "GET", "/traces/{id}", "traces:read", "What has been decided since", page,
            {"type": "object", "required": ["events"], "properties": {"events": list_of(_ANY)}},
            (_ID, query("after", TEXT, "the number of the last event that one has")),
            "Waits some seconds for the first event. [tracing.md](tracing.md) tells what an event has.", (404, 503),
        ),
        Command(
            "trace stop", "DELETE", "/traces/{id}", "traces:write", "End a trace", stop, record(id=TEXT),
            (_ID, query("by", _BY, "who ends it, for the logs")), errors=(404, 503), writes=True, on=("id",),
        ),
    ),
    "They show who writes to whom, and never what ([tracing.md](tracing.md)).",
)  # fmt: skip
