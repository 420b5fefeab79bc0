"""The processes as the routers see them: `stentor cluster`."""

from __future__ import annotations

import time
from typing import Any, Final

from cluster.admin import ApiError
from cluster.wire import DRAIN, node_of
from router.administration.command import Area, Call, Command, path
from router.administration.desk import Desk
from router.administration.schema import COUNT, TEXT, WORD, list_of, one_of, or_null, record
from storage import nodes, sessions

NODE: Final = record(
    node=TEXT, role=TEXT, state=one_of("ready", "draining", "down"), shards=or_null(COUNT), sessions=or_null(COUNT),
    silent_s={"type": "number", "minimum": 0},
)  # fmt: skip


async def status(desk: Desk, call: Call) -> Any:
    rows = await desk.read(nodes.list_)
    living, owners = desk.bus.peers, desk.map.owners
    by_edge: dict[str, int] = {}
    by_router: dict[str, int] = {}
    for edge, shard, count in await desk.read(sessions.count_by_node):
        by_edge[edge] = by_edge.get(edge, 0) + count
        owner = owners[shard]
        if owner is not None:
            by_router[owner] = by_router.get(owner, 0) + count
    shown = []
    now = max((row.seen_at for row in rows), default=0.0)  # by the database's clock, as all of them
    for row in rows:
        is_here = row.incarnation == desk.bus.incarnation or row.incarnation in living
        state = "draining" if row.is_leaving else "ready" if is_here else "down"
        shards = sum(owner == row.incarnation for owner in owners)
        shown.append(_shown(row.name, row.role, state, shards, by_router.get(row.incarnation, 0), now - row.seen_at))
    for peer in living.values():
        if peer.role != "router":
            held, silent_s = by_edge.get(peer.incarnation, 0), time.monotonic() - peer.heard_at
            shown.append(_shown(node_of(peer.incarnation), peer.role, "ready", None, held, silent_s))
    owned = sum(owner is not None for owner in owners)
    shown.sort(key=lambda node: str(node["node"]))
    return {"nodes": shown, "shards": {"owned": owned, "unowned": len(owners) - owned}}


def _shown(node: str, role: str, state: str, shards: int | None, held: int, silent_s: float) -> dict[str, Any]:
    silent = round(max(0.0, silent_s), 1)
    return {"node": node, "role": role, "state": state, "shards": shards, "sessions": held, "silent_s": silent}


async def drain(desk: Desk, call: Call) -> Any:
    name = call.text("node")
    here = [*desk.bus.peers, desk.bus.incarnation]
    found = [incarnation for incarnation in here if node_of(incarnation) == name]
    if not found:
        raise ApiError(404, f"{name} is no living process", "stentor cluster status shows them")
    desk.bus.send(found[0], (DRAIN, "operator"))
    return {"node": name}


AREA: Final = Area(
    "The cluster",
    (
        Command(
            "cluster status", "GET", "/cluster", "cluster:read", "Processes and shards", status,
            record(nodes=list_of(NODE), shards=record(owned=COUNT, unowned=COUNT)),
        ),
        Command(
            "cluster drain", "POST", "/cluster/{node}/drain", "cluster:write",
            "Have a process hand over and end, as at SIGTERM", drain, record(node=TEXT),
            (path("node", WORD, "its name"),), "404 where no such process lives.", (404,), writes=True, on=("node",),
        ),
    ),
    "`silent_s` is how long nothing was heard of a process, in seconds. `shards` is what a router owns, `null` for "
    "others; `sessions` what a router owns or a c2s process holds, `null` where it is not known.",
)  # fmt: skip
