"""Long work: `stentor announce`, `stentor job`."""

from __future__ import annotations

from typing import Any, Final

from cluster.admin import ApiError
from router import announcing
from router.administration.command import AFTER, LIMIT, Area, Call, Command, body, page, paged, path
from router.administration.desk import Desk, number, stamp, stamp_or_none
from router.administration.messages import BODY, SUBJECT, TYPE
from router.administration.schema import COUNT, ID, TEXT, one_of, or_null, record
from storage import jobs, statistics
from storage.jobs import Job

RATE: Final = 50
JOB: Final = record(
    id=ID, kind=TEXT, state=one_of("running", "done", "aborted", "failed"), done=COUNT, total=COUNT, problem=TEXT,
    created_by=TEXT, created_at=TEXT, finished_at=or_null(TEXT),
)  # fmt: skip
_ID: Final = path("id", ID, "of the job")


async def announce(desk: Desk, call: Call) -> Any:
    domain = call.text("domain")
    if domain:
        desk.require_domain(domain)
    domains, to = [domain] if domain else sorted(desk.settings.domains), call.text("to") or "all"
    numbers = await desk.read(statistics.of_domains, domains)
    arguments = {
        "domains": domains,
        "to": to,
        "subject": call.text("subject"),
        "body": call.text("body"),
        "type": call.text("type") or "normal",
        "rate": call.given.get("rate", RATE),
    }
    total = sum(one.online if to == "online" else one.accounts for one in numbers)
    return shown_job(await desk.read(jobs.create, announcing.KIND, arguments, total, call.caller.name))


async def list_jobs(desk: Desk, call: Call) -> Any:
    after = call.text("after")
    found = await desk.read(jobs.list_, number(after) if after else 2**63 - 1, call.limit + 1)
    return page("jobs", found, call.limit, lambda job: str(job.id), shown_job)


async def show(desk: Desk, call: Call) -> Any:
    found = await desk.read(jobs.find, call.given["id"])
    if found is None:
        raise ApiError(404, f"there is no job {call.given['id']}", "stentor job list shows them")
    return shown_job(found)


async def abort(desk: Desk, call: Call) -> Any:
    found = await desk.read(jobs.abort, call.given["id"])
    if found is None:
        raise ApiError(404, f"no job {call.given['id']} is running", "stentor job list shows them")
    return shown_job(found)


def shown_job(job: Job) -> dict[str, Any]:
    """As the API has it."""
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "done": job.done,
        "total": job.total,
        "problem": job.problem,
        "created_by": job.created_by,
        "created_at": stamp(job.created_at),
        "finished_at": stamp_or_none(job.finished_at),
    }


AREA: Final = Area(
    "Long work",
    (
        Command(
            "announce", "POST", "/announcements", "messages:write",
            "Write to all accounts, or to those online, so many a second", announce, JOB,
            (
                BODY, SUBJECT, body("domain", TEXT, "only of this domain"),
                body("to", one_of("all", "online"), '"all" if left out'),
                body("type", TYPE, '"normal" if left out'),
                body("rate", {"type": "integer", "minimum": 1, "maximum": 1_000}, f"accounts a second, or {RATE}"),
            ),
            "Answers the job that does it. The messages of one announcement have the same id.", writes=True,
            on=("to", "domain"),
        ),
        Command(
            "job list", "GET", "/jobs", "cluster:read", "Jobs, the newest first", list_jobs, paged("jobs", JOB),
            (LIMIT, AFTER), items="jobs",
        ),
        Command("job show", "GET", "/jobs/{id}", "cluster:read", "How far a job is", show, JOB, (_ID,), errors=(404,)),
        Command(
            "job abort", "POST", "/jobs/{id}/abort", "messages:write", "Do no further step of it", abort, JOB, (_ID,),
            "What is done stays done. 404 where it does not run.", (404,), writes=True, on=("id",),
        ),
    ),
    "A job is done by one router; if that dies, another goes on within half a minute, and repeats one step at most (of "
    "an announcement: 100 accounts). `done` of about `total` are done; `problem` says what it waits for, or has failed "
    "of.",
)  # fmt: skip
