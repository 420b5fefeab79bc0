"""Who is connected: `stentor session`."""

from __future__ import annotations

from typing import Any, Final

from cluster.admin import ApiError
from cluster.wire import Incarnation, node_of
from router.administration.command import AFTER, LIMIT, Area, Call, Command, page, paged, path, query
from router.administration.desk import Desk, jid_of, stamp
from router.administration.schema import COUNT, FLAG, JID, TEXT, or_null, record
from storage import sessions

SESSION: Final = record(jid=JID, node=or_null(TEXT), router=or_null(TEXT), connected_at=TEXT)
_FULL: Final = path("jid", JID, "full JID")


async def list_sessions(desk: Desk, call: Call) -> Any:
    filters = (call.text("user"), call.text("domain"), call.text("node"))
    if call.flag("count"):
        return {"count": await desk.read(sessions.count, *filters)}
    rows = await desk.read(sessions.list_, *filters, call.text("after"), call.limit + 1)
    return page("sessions", rows, call.limit, _full, lambda row: _shown(desk, row))


async def show(desk: Desk, call: Call) -> Any:
    jid = jid_of(call.text("jid"))
    for row in await desk.read(sessions.find, jid.bare):
        if row.resource == jid.resource:
            return _shown(desk, row)
    raise ApiError(404, f"{jid} has no session", "stentor session list shows them")


async def kick(desk: Desk, call: Call) -> Any:
    jid = jid_of(call.text("jid"))
    ended = await desk.ask(jid.bare, "admin.kick", jid.bare, jid.resource)
    if jid.resource and not ended:
        raise ApiError(404, f"{jid} has no session", "stentor session list shows them")
    return {"ended": ended}


def _full(row: sessions.SessionRow) -> str:
    return f"{row.bare}/{row.resource}"


def _shown(desk: Desk, row: sessions.SessionRow) -> dict[str, Any]:
    owner = desk.map.owners[row.shard]
    return {
        "jid": _full(row),
        "node": node_of(Incarnation(row.node)) or None,
        "router": node_of(owner) if owner is not None else None,
        "connected_at": stamp(row.at),
    }


_LISTED: Final = paged("sessions", SESSION)

AREA: Final = Area(
    "Sessions",
    (
        Command(
            "session list", "GET", "/sessions", "sessions:read", "Sessions, in the order of their full JIDs",
            list_sessions, {"oneOf": [_LISTED, record(count=COUNT)]},
            (
                query("user", TEXT, "only those of this bare JID"),
                query("domain", TEXT, "only those of this domain"),
                query("node", TEXT, "only those on this c2s process"),
                query("count", FLAG, "how many there are, instead of the list"),
                LIMIT, AFTER,
            ),
            items="sessions",
        ),
        Command(
            "session show", "GET", "/sessions/{jid}", "sessions:read", "One session", show, SESSION, (_FULL,),
            errors=(404,),
        ),
        Command(
            "session kick", "DELETE", "/sessions/{jid}", "sessions:write",
            "End one session, or all of a bare JID", kick, record(ended=COUNT),
            (path("jid", JID, "full or bare JID"),),
            "404 where a full JID has no session, 0 for a bare JID without sessions.", (404,), writes=True, on=("jid",),
        ),
    ),
    "`node` is the c2s process that holds the connection, `null` while the session is detached; `router` the owner, "
    "`null` while there is none.",
)  # fmt: skip
