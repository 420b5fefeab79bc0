"""Reports of users and blocklists of others: `stentor report`, `stentor blocklist`."""

from __future__ import annotations

from typing import Any, Final

from cluster.admin import ApiError
from router.administration.command import AFTER, LIMIT, Area, Call, Command, body, page, paged, path, query
from router.administration.desk import Desk, jid_of, number, stamp, stamp_or_none
from router.administration.schema import COUNT, FLAG, ID, JID, TEXT, list_of, or_null, record
from storage import blocklists, reports
from storage.reports import Report

REPORT: Final = record(
    id=ID, at=TEXT, reporter=TEXT, reported=TEXT, reason=TEXT, text=TEXT, ids=list_of(TEXT), stanzas=list_of(TEXT),
    closed_at=or_null(TEXT), closed_by=TEXT, note=TEXT,
)  # fmt: skip
BLOCKLIST: Final = record(
    service=TEXT, node=TEXT, applies_to=list_of(TEXT), entries=COUNT, refreshed_at=or_null(TEXT)
)  # fmt: skip
_ID: Final = path("id", ID, "of the report")


async def list_reports(desk: Desk, call: Call) -> Any:
    after = number(call.text("after"))
    found = await desk.read(reports.list_, call.flag("all"), after, call.limit + 1)
    return page("reports", found, call.limit, lambda one: str(one.id), _shown)


async def show_report(desk: Desk, call: Call) -> Any:
    found = await desk.read(reports.find, call.given["id"])
    if found is None:
        raise ApiError(404, f"there is no report {call.given['id']}", "stentor report list shows them")
    return _shown(found)


async def close_report(desk: Desk, call: Call) -> Any:
    id_: int = call.given["id"]
    if not await desk.read(reports.close, id_, call.text("by") or call.by, call.text("note")):
        raise ApiError(404, f"no report {id_} is open", "stentor report list shows them")
    return {"id": id_}


def _shown(found: Report) -> dict[str, Any]:
    return {**found._asdict(), "at": stamp(found.at), "closed_at": stamp_or_none(found.closed_at)}


async def list_blocklists(desk: Desk, call: Call) -> Any:
    lists = desk.settings.blocklists
    read = {known.name: known for known in await desk.read(blocklists.list_)}
    shown = []
    for name, rule in lists.rules.items():
        known = read.get(name)
        shown.append(
            {
                "service": rule.service,
                "node": rule.node,
                "applies_to": sorted(rule.places),
                "entries": len(lists.entries(name)),
                "refreshed_at": None if known is None else stamp(known.refreshed_at),
            }
        )
    return {"blocklists": shown}


async def check_blocklists(desk: Desk, call: Call) -> Any:
    bare = jid_of(call.text("jid")).bare
    lists = desk.settings.blocklists
    return {"jid": bare, "rooms": lists.of(bare, "rooms"), "strangers": lists.of(bare, "strangers")}


async def refresh_blocklists(desk: Desk, call: Call) -> Any:
    if not desk.settings.blocklists.rules:
        raise ApiError(409, "no blocklist is followed", "Name some in abuse.blocklists")
    await desk.read(blocklists.want_refresh)
    return {}


REPORTS: Final = Area(
    "Reports",
    (
        Command(
            "report list", "GET", "/reports", "abuse:read", "What users have reported, the oldest first", list_reports,
            paged("reports", REPORT), (query("all", FLAG, "also those that are closed"), LIMIT, AFTER), items="reports",
        ),
        Command(
            "report show", "GET", "/reports/{id}", "abuse:read", "One report", show_report, REPORT, (_ID,),
            errors=(404,),
        ),
        Command(
            "report close", "POST", "/reports/{id}/close", "abuse:write", "It is dealt with", close_report,
            record(id=ID),
            (_ID, body("note", TEXT, "what was done"), body("by", TEXT, 'by whom, "operator" if left out')),
            "404 where it is closed already.", (404,), writes=True, on=("id",),
        ),
    ),
    "`reason` is `spam`, `abuse`, or what the client has sent; `ids` are the stanzas that the reporter has named, "
    "`stanzas` copies of those that were in the reporter's archive and from the reported address.",
)  # fmt: skip

BLOCKLISTS: Final = Area(
    "Blocklists of others",
    (
        Command(
            "blocklist list", "GET", "/blocklists", "abuse:read", "Those that are followed", list_blocklists,
            record(blocklists=list_of(BLOCKLIST)),
            description="`refreshed_at` is null before the first reading.",
        ),
        Command(
            "blocklist check", "GET", "/blocklists/check/{jid}", "abuse:read", "Which of them somebody is on",
            check_blocklists, record(jid=JID, rooms=TEXT, strangers=TEXT),
            (path("jid", JID, "bare JID, or a domain"),), 'By place: service/node of the list, or "".',
        ),
        Command(
            "blocklist refresh", "POST", "/blocklists/refresh", "abuse:write", "Read all of them now",
            refresh_blocklists, record(), description="409 where there are none.", errors=(409,), writes=True,
        ),
    ),
)  # fmt: skip
