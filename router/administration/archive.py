"""Archives of accounts: `stentor archive`."""

from __future__ import annotations

import time
from typing import Any, Final

from cluster.admin import ApiError
from router import purging as purge_steps
from router.administration.command import AFTER, LIMIT, Area, Call, Command, body, page, paged, path, query
from router.administration.desk import Desk, moment, number, stamp
from router.administration.jobs import JOB, shown_job
from router.administration.schema import JID, MOMENT, TEXT, one_of, record
from storage import accounts, jobs, purging
from storage.log import TO_OWNER, Row, id_at, time_of
from xmpp import stanza as stanzas

KEPT_S: Final = 86_400.0  # delivery may still look at what is younger
_JID: Final = path("jid", JID, "bare JID of the account")
MESSAGE: Final = record(id=TEXT, at=TEXT, direction=one_of("in", "out"), peer=TEXT, stanza=TEXT)


async def export(desk: Desk, call: Call) -> Any:
    account = await _account(desk, call)
    since, after = call.text("since"), number(call.text("after"))
    above = max(after, _id_at(moment("since", since)) - 1 if since else 0)
    found = await desk.read(purging.page, account.key, above, call.limit + 1)
    return page("messages", found, call.limit, lambda row: str(row.id), lambda row: _shown(row, account.jid))


def _shown(row: Row, bare: str) -> dict[str, Any]:
    stanza = row.stanza
    return {
        "id": str(row.id),
        "at": stamp(time_of(row.id)),
        "direction": "in" if row.dir == TO_OWNER else "out",
        "peer": row.peer,
        "stanza": stanzas.encode(stanza, stanza.to or bare).decode(),
    }


async def purge(desk: Desk, call: Call) -> Any:
    account = await _account(desk, call)
    latest = time.time() - KEPT_S
    before = _id_at(min(moment("before", call.text("before")), latest) if call.text("before") else latest)
    total = await desk.read(purging.count, account.key, before)
    arguments = {"owner": account.key, "before": before}
    return shown_job(await desk.read(jobs.create, purge_steps.KIND, arguments, total, call.caller.name))


def _id_at(seconds: float) -> int:
    return max(0, min(id_at(seconds), 2**63 - 1))


async def _account(desk: Desk, call: Call) -> accounts.Account:
    bare = desk.account(call.text("jid"))
    account: accounts.Account | None = await desk.read(accounts.find, bare)
    if account is None:
        raise ApiError(404, f"{bare} does not exist", "stentor user list shows the accounts")
    return account


AREA: Final = Area(
    "Archives",
    (
        Command(
            "archive export", "GET", "/users/{jid}/archive", "archive:read", "What an account has in its archive",
            export, paged("messages", MESSAGE), (_JID, query("since", MOMENT, "only what is as young"), LIMIT, AFTER),
            "That private messages were read is a row of the audit log, for each page.", (404,), audited=True,
            on=("jid",), items="messages",
        ),
        Command(
            "archive purge", "DELETE", "/users/{jid}/archive", "archive:write", "Remove what is old from an archive",
            purge, JOB, (_JID, body("before", MOMENT, "only what is older; without it, all that may be removed")),
            "Answers the job that does it. What is younger than a day, and what no client of the account has got yet, "
            "stays. `stentor user erase` removes everything; `archive.keep_days` does so for all accounts.",
            (404,), writes=True, on=("jid", "before"),
        ),
    ),
    "`stanza` is the message as it was sent or has arrived, in XML.",
)  # fmt: skip
