"""What users have reported (XEP-0377), for the operators to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from storage import log
from storage.log import TO_OWNER, Row
from storage.rows import Connection, fetch_all, fetch_one, fetch_value

_REPORT: Final = """
    id, extract(epoch from at)::float8 as at, reporter, reported, reason, text, ids, stanzas,
    extract(epoch from closed_at)::float8 as closed_at, closed_by, note
"""


class Report(NamedTuple):
    """A report: whom somebody has blocked, and why. `stanzas` are XML. Times are Unix seconds."""

    id: int
    at: float
    reporter: str
    reported: str
    reason: str
    text: str
    ids: list[str]
    stanzas: list[str]
    closed_at: float | None
    closed_by: str
    note: str


class Context(NamedTuple):
    """What is to be known for a new report: its id, how many its reporter has made within a day, how many others have
    reported the same within a day, and which of the stanzas that are named the reporter's archive has."""

    id: int
    made: int
    others: int
    rows: list[Row]


async def context(conn: Connection, owner: int, reporter: str, reported: str, ids: Sequence[int]) -> Context:
    """Of the account with this key; `reported` is bare, and only what came from there counts."""
    rows = [row for row in await log.by_ids(conn, owner, ids) if row.dir == TO_OWNER and row.peer == reported]
    cursor = await conn.execute(
        """
        select nextval(pg_get_serial_sequence('reports', 'id')),
            (select count(*) from reports where reporter = %s and at > now() - interval '1 day'),
            (select count(distinct reporter) from reports
                where reported >= %s and reported < %s and split_part(reported, '/', 1) = %s and reporter <> %s
                    and at > now() - interval '1 day')
        """,
        (reporter, reported, f"{reported}0", reported, reporter),  # "0" is behind "/": an index finds resources, too
    )
    numbers = await cursor.fetchone()
    assert numbers is not None
    id_, made, others = numbers
    return Context(id_, made, others, rows)


async def add(
    conn: Connection, id_: int, reporter: str, reported: str, reason: str, text: str, ids: Sequence[str],
    stanzas: Sequence[str],
) -> None:  # fmt: skip
    """There is a report."""
    await conn.execute(
        """
        insert into reports (id, reporter, reported, reason, text, ids, stanzas) values (%s, %s, %s, %s, %s, %s, %s)
        on conflict (id) do nothing
        """,
        (id_, reporter, reported, reason, text, list(ids), list(stanzas)),
    )


async def list_(conn: Connection, also_closed: bool, after: int, limit: int) -> list[Report]:
    """A page, the oldest first."""
    return await fetch_all(
        conn, Report,
        f"select {_REPORT} from reports where (%s or closed_at is null) and id > %s order by id limit %s",
        also_closed, after, limit,
    )  # fmt: skip


async def find(conn: Connection, id_: int) -> Report | None:
    """One report."""
    return await fetch_one(conn, Report, f"select {_REPORT} from reports where id = %s", id_)


async def close(conn: Connection, id_: int, by: str, note: str) -> bool:
    """It is dealt with; False where it was already, or there is none."""
    found = await fetch_value(
        conn,
        """
        update reports set closed_at = now(), closed_by = %s, note = %s where id = %s and closed_at is null returning id
        """,
        by, note, id_,
    )  # fmt: skip
    return found is not None


async def prune(conn: Connection, keep_days: int) -> None:
    """Those that were closed so long ago."""
    await conn.execute("delete from reports where closed_at < now() - make_interval(days => %s)", (keep_days,))
