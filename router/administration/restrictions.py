"""What accounts may not: `stentor user ban|unban|quarantine|release|restricted` (docs/abuse.md)."""

from __future__ import annotations

from typing import Any, Final

from router.administration.command import AFTER, LIMIT, Area, Call, Command, Run, body, page, paged, path, query
from router.administration.desk import Desk, moment, stamp, stamp_or_none
from router.administration.schema import FLAG, JID, MOMENT, TEXT, WORD, one_of, or_null, record
from storage import restrictions
from storage.restrictions import Kind, Restricted, Restriction

_KIND: Final = one_of("ban", "quarantine")
_FIELDS: Final = {"kind": _KIND, "reason": TEXT, "by": TEXT, "at": TEXT, "until": or_null(TEXT)}
RESTRICTION: Final = record(**_FIELDS)
_JID: Final = path("jid", JID, "bare JID of the account")


def impose(kind: Kind) -> Run:
    async def run(desk: Desk, call: Call) -> Any:
        bare, until = desk.account(call.text("jid")), call.text("until")
        ends_at = moment("until", until) if until else None
        await desk.ask(bare, "admin.restrict", bare, kind, call.text("reason"), call.text("by") or call.by, ends_at)
        return {"jid": bare, "kind": kind}

    return run


def lift(kind: Kind) -> Run:
    async def run(desk: Desk, call: Call) -> Any:
        bare = desk.account(call.text("jid"))
        return {"jid": bare, "kind": kind, "was": await desk.ask(bare, "admin.unrestrict", bare, kind, call.by)}

    return run


async def restricted(desk: Desk, call: Call) -> Any:
    filters = (call.text("domain"), call.text("kind"))
    found = await desk.read(restrictions.list_, *filters, call.text("after"), call.limit + 1)
    return page(
        "restrictions", found, call.limit,
        lambda one: f"{one.jid} {one.kind}",
        lambda one: {"jid": one.jid, **shown_restriction(one)},
    )  # fmt: skip


def shown_restriction(found: Restriction | Restricted) -> dict[str, Any]:
    """As the API has it."""
    return {
        "kind": found.kind,
        "reason": found.reason,
        "by": found.by,
        "at": stamp(found.at),
        "until": stamp_or_none(found.until),
    }


def _impose(name: str, kind: Kind, summary: str) -> Command:
    return Command(
        f"user {name}", "PUT", f"/users/{{jid}}/{kind}", "users:write", summary, impose(kind),
        record(jid=JID, kind=_KIND),
        (
            _JID,
            body("reason", WORD, "what the user is told", required=True),
            body("until", or_null(MOMENT), "when it ends; without it, when it is taken back"),
            body("by", TEXT, 'who is told to have done it, "operator" if left out'),
        ),
        errors=(404,), writes=True, on=("jid",),
    )  # fmt: skip


def _lift(name: str, kind: Kind, summary: str) -> Command:
    return Command(
        f"user {name}", "DELETE", f"/users/{{jid}}/{kind}", "users:write", summary, lift(kind),
        record(jid=JID, kind=_KIND, was=FLAG), (_JID,), errors=(404,), writes=True, on=("jid",),
    )  # fmt: skip


AREA: Final = Area(
    "What accounts may not",
    (
        _impose("ban", "ban", "Keep an account out; its sessions end"),
        _lift("unban", "ban", "Let it in again; `was`: whether it was banned"),
        _impose("quarantine", "quarantine", "Let it deal with its contacts and administrators only"),
        _lift("release", "quarantine", "End its quarantine; `was`: whether it was in one"),
        Command(
            "user restricted", "GET", "/restrictions", "users:read",
            "Accounts that are banned or in quarantine, in the order of JID and kind", restricted,
            paged("restrictions", record(jid=JID, **_FIELDS)),
            (query("domain", TEXT, "only of this domain"), query("kind", _KIND, "only these"), LIMIT, AFTER),
            items="restrictions",
        ),
    ),
    "[abuse.md](abuse.md) says what follows from them.",
)  # fmt: skip
