"""Other servers and components: `stentor s2s`."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from cluster.admin import ApiError
from cluster.shards import shard_of
from cluster.wire import Shard
from router.administration.command import Area, Call, Command, path, query
from router.administration.desk import Desk, jid_of, stamp
from router.administration.schema import COUNT, FLAG, JID, TEXT, list_of, one_of, record
from router.calls import CallError
from router.dialing import PeerStatus

PEER: Final = record(
    domain=TEXT, local=TEXT, streams=COUNT, waiting=COUNT, unacknowledged=COUNT, tries=COUNT, problem=TEXT
)
_PAIR: Final = record(remote=TEXT, local=TEXT, by=TEXT, sends=FLAG)
STREAM: Final = record(
    node=TEXT, direction=one_of("in", "out"), remote=TEXT, local=TEXT, state=TEXT, address=TEXT, transport=TEXT,
    pairs=list_of(_PAIR),
)  # fmt: skip
PROBLEM: Final = record(node=TEXT, problem=TEXT)
FAILURE: Final = record(node=TEXT, local=TEXT, at=TEXT, times=COUNT, condition=TEXT, text=TEXT)
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


async def streams(desk: Desk, call: Call) -> Any:
    domain = jid_of(call.text("domain")).domain
    found, failed = await asyncio.gather(
        desk.ordering.ask_role("s2s", "s2s.streams", domain), desk.ordering.ask_role("s2s", "s2s.failures", domain)
    )
    return {
        "streams": [
            {
                "node": one.node, "direction": direction, "remote": remote, "local": local, "state": state,
                "address": address, "transport": transport,
                "pairs": [dict(zip(("remote", "local", "by", "sends"), pair, strict=True)) for pair in pairs],
            }
            for one in found
            for direction, remote, local, state, address, transport, pairs in one.value or ()
        ],
        "failures": [
            {"node": one.node, "local": local, "at": stamp(at), "times": times, "condition": condition, "text": text}
            for one in failed
            for _, local, at, times, condition, text in one.value or ()
        ],
        "problems": [{"node": one.node, "problem": one.problem} for one in found if one.problem],
    }  # fmt: skip


async def close(desk: Desk, call: Call) -> Any:
    domain = jid_of(call.text("domain")).domain
    closed = sum(one.value or 0 for one in await desk.ordering.ask_role("s2s", "s2s.close", domain))
    if not closed:
        raise ApiError(404, f"there is no stream with {domain}", "stentor s2s list shows the domains in use")
    return {"closed": closed}


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
            "s2s streams", "GET", "/peers/{domain}/streams", "federation:read",
            "Streams with a domain, and what has failed last", streams,
            record(streams=list_of(STREAM), failures=list_of(FAILURE), problems=list_of(PROBLEM)),
            (_DOMAIN,), "`by`: external or dialback. `text` of a failure is the cause in words.",
        ),
        Command(
            "s2s close", "POST", "/peers/{domain}/close", "federation:write", "End all streams with a domain", close,
            record(closed=COUNT), (_DOMAIN,),
            "Nothing is lost: what waits goes by a new stream, if the policy lets there be one.", (404,), writes=True,
            on=("domain",),
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
