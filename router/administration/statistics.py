"""Numbers: `stentor stats`."""

from __future__ import annotations

from typing import Any, Final

from router.administration.command import Area, Call, Command, query
from router.administration.desk import Desk
from router.administration.schema import COUNT, TEXT, list_of, record
from storage import statistics

DOMAIN: Final = record(domain=TEXT, accounts=COUNT, banned=COUNT, online=COUNT, sessions=COUNT)


async def stats(desk: Desk, call: Call) -> Any:
    domain = call.text("domain")
    if domain:
        desk.require_domain(domain)
    found = await desk.read(statistics.of_domains, [domain] if domain else sorted(desk.settings.domains))
    return {"domains": [numbers._asdict() for numbers in found]}


AREA: Final = Area(
    "Numbers",
    (
        Command(
            "stats", "GET", "/stats", "cluster:read", "Numbers of each domain", stats,
            record(domains=list_of(DOMAIN)), (query("domain", TEXT, "only of this domain"),),
            "They are counted now: `/metrics` is for what looks often.",
        ),
    ),
    "`online` are accounts that have `sessions`, `banned` those that may not sign in.",
)  # fmt: skip
