"""The end of a name: `stentor user erase` (storage/erasures.py)."""

from __future__ import annotations

from typing import Any, Final

from cluster.admin import ApiError
from router.administration.command import Area, Call, Command, body, path
from router.administration.desk import Desk, jid_of, stamp
from router.administration.schema import COUNT, FLAG, ID, JID, TEXT, map_of, record
from storage import erasures
from storage.erasures import Erasure

ERASURE: Final = record(id=TEXT, is_finished=FLAG, removed=map_of(COUNT), requested_at=TEXT, reusable_at=TEXT)


async def erase(desk: Desk, call: Call) -> Any:
    jid = jid_of(call.text("jid"))
    settings = desk.settings
    if jid.resource or not jid.local or jid.domain in settings.room_domains | settings.proxy_domains:
        raise ApiError(400, f"{jid} is not the bare JID of somebody", "Write it as name@domain")
    id_ = await desk.ask(jid.bare, "admin.erase", jid.bare, call.flag("rooms"))
    return _shown(await desk.read(erasures.find, id_))


async def show(desk: Desk, call: Call) -> Any:
    found = await desk.read(erasures.find, call.given["id"])
    if found is None:
        raise ApiError(404, f"{call.given['id']} is no erasure", "POST /api/v1/erasures begins one")
    return _shown(found)


def _shown(found: Erasure) -> dict[str, Any]:
    return {
        "id": str(found.id),
        "is_finished": found.finished_at is not None,
        "removed": {kind: count for kind, count in sorted(found.removed.items()) if count},
        "requested_at": stamp(found.requested_at),
        "reusable_at": stamp(found.reusable_at),
    }


AREA: Final = Area(
    "Erasures",
    (
        Command(
            "user erase", "POST", "/erasures", "users:write", "Erase whatever there is of a bare JID", erase, ERASURE,
            (
                body("jid", JID, "with or without an account, also of another server", required=True),
                body("rooms", FLAG, "also what they have said in rooms, of which tombstones stay (XEP-0424)"),
            ),
            "Answers the one under way if there is one.", (409,), writes=True, on=("jid",),
        ),
        Command(
            "user erase show", "GET", "/erasures/{id}", "users:read", "How far an erasure is", show, ERASURE,
            (path("id", ID, "as it was answered"),), errors=(404,),
        ),
    ),
    "It goes on if a router dies. `removed` counts rows by kind, kinds without any left out: `account`, `credentials`, "
    "`contacts`, `former_contacts`, `blocks`, `private_data`, `vcard`, `push_services`, `restrictions`, `sessions`, "
    "`archive`, `queue` (kept only until delivered), `away` (of rooms, while they were away), `nodes`, `items`, "
    "`node_archive`, `uploads`; elsewhere: `room_visits`, `room_affiliations`, `room_nicknames`, `room_occupancies`, "
    "`room_hats`, "
    "`room_messages`, `node_affiliations`, `subscriptions`, `published` (at nodes of others), `waiting_for_servers`, "
    "`reports`. Others keep their own: copies of messages, rosters, block lists. A report is kept for a month, without "
    "the name.",
)  # fmt: skip
