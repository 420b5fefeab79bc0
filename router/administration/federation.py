"""Other servers and components: `stentor s2s`."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from cluster.admin import ApiError
from cluster.shards import shard_of
from cluster.wire import Shard
from router.administration.command import Area, Call, Command, path, query
from router.administration.desk import Desk, jid_of
from router.administration.schema import COUNT, JID, TEXT, list_of, record
from router.calls import CallError
from router.dialing import PeerStatus

PEER: Final = record(
    domain=TEXT, local=TEXT, streams=COUNT, waiting=COUNT, unacknowledged=COUNT, tries=COUNT, problem=TEXT
)
_DOMAIN: Final = path("domain", JID, "of the other server or component")


async def list_peers(desk: Desk, call: Call) -> Any:
    wanted = call.text("domain")
    a_shard_of = {owner: Shard(shard) for shard, owner in enumerate(desk.map.owners) if owner is not None}
    shards = [shard_of(wanted)] if wanted else list(a_shard_of.values())
    try:
        answers = await asyncio.gather(*(desk.calls.ask("", shard, "peers.list", ()) for shard in shards))
    except CallError as problem:
        raise ApiError(503, "a router does not answer", "Try again; stentor cluster status shows them") from problem
    found = [PeerStatus(*fields)._asdict() for answer in answers for fields in answer]
    found.sort(key=lambda peer: (peer["domain"], peer["local"]))
    return {"peers": [peer for peer in found if wanted in ("", peer["domain"])]}


async def retry(desk: Desk, call: Call) -> Any:
    domain = jid_of(call.text("domain")).domain
    if not await desk.ask(domain, "peers.retry", domain):
        raise ApiError(404, f"nothing waits for {domain}", "stentor s2s list shows the domains in use")
    return {"domain": domain}


AREA: Final = Area(
    "Other servers and components",
    (
        Command(
            "s2s list", "GET", "/peers", "federation:read", "Domains in use, in their order", list_peers,
            record(peers=list_of(PEER)), (query("domain", TEXT, "only this one"),),
            "Those with streams, with stanzas that wait, or in use in the last minutes.",
        ),
        Command(
            "s2s retry", "POST", "/peers/{domain}/retry", "federation:write",
            "Try for a stream now, whatever it failed of before", retry, record(domain=TEXT), (_DOMAIN,),
            "404 where nothing waits for it.", (404,), writes=True, on=("domain",),
        ),
    ),
    '`local` is the domain of ours, `""` for a component; `waiting` are stanzas that no stream has been given, '
    "`unacknowledged` those that a stream has and the other server has not acknowledged; `tries` have failed since the "
    "last stream, `problem` says of what.",
)  # fmt: skip
