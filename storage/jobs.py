"""Long work that operators have asked for: how far it is, and who does it. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from psycopg.types.json import Jsonb

from storage.rows import Connection, fetch_all, fetch_one, fetch_value

SILENT_S: Final = 15.0  # a runner that was silent for so long has lost its jobs
KEEP_DAYS: Final = 90

_COLUMNS: Final = """
    id, kind, arguments, state, position, done, total, problem, created_by,
    extract(epoch from created_at)::float8 as created_at, extract(epoch from finished_at)::float8 as finished_at
"""


class Job(NamedTuple):
    """One of them. `position` says where to go on; `done` of about `total` are done."""

    id: int
    kind: str
    arguments: dict[str, Any]
    state: str
    position: str
    done: int
    total: int
    problem: str
    created_by: str
    created_at: float
    finished_at: float | None


async def create(conn: Connection, kind: str, arguments: Mapping[str, Any], total: int, by: str) -> Job:
    """There is something to do."""
    found = await fetch_one(
        conn, Job,
        f"insert into jobs (kind, arguments, total, created_by) values (%s, %s, %s, %s) returning {_COLUMNS}",
        kind, Jsonb(dict(arguments)), total, by,
    )  # fmt: skip
    assert found is not None
    return found


async def take(conn: Connection, runner: str) -> Job | None:
    """The oldest that nobody does; from now on this runner does."""
    return await fetch_one(
        conn, Job,
        f"""
        update jobs set runner = %s, beat_at = now() where id = (
            select id from jobs
            where state = 'running' and (runner is null or beat_at < now() - make_interval(secs => %s))
            order by id limit 1 for update skip locked
        ) returning {_COLUMNS}
        """,
        runner, SILENT_S,
    )  # fmt: skip


async def advance(conn: Connection, id_: int, runner: str, position: str, done: int, state: str, problem: str) -> bool:
    """A step is done; False where it is not this runner's any more, or was aborted."""
    found = await fetch_value(
        conn,
        """
        update jobs set position = %s, done = done + %s, state = %s, problem = %s, beat_at = now(),
            finished_at = case when %s = 'running' then null else now() end
        where id = %s and runner = %s and state = 'running' returning id
        """,
        position, done, state, problem, state, id_, runner,
    )  # fmt: skip
    return found is not None


async def release(conn: Connection, runner: str) -> None:
    """This runner ends: another may go on at once."""
    await conn.execute("update jobs set runner = null where runner = %s and state = 'running'", (runner,))


async def abort(conn: Connection, id_: int) -> Job | None:
    """No further step of it is done; None where it is not running."""
    return await fetch_one(
        conn, Job,
        f"""
        update jobs set state = 'aborted', finished_at = now() where id = %s and state = 'running' returning {_COLUMNS}
        """,
        id_,
    )  # fmt: skip


async def find(conn: Connection, id_: int) -> Job | None:
    """One of them."""
    return await fetch_one(conn, Job, f"select {_COLUMNS} from jobs where id = %s", id_)


async def list_(conn: Connection, before: int, limit: int) -> list[Job]:
    """A page, the newest first, with ids below `before`."""
    return await fetch_all(
        conn, Job, f"select {_COLUMNS} from jobs where id < %s order by id desc limit %s", before, limit
    )


async def prune(conn: Connection) -> None:
    """Those that ended long ago."""
    await conn.execute("delete from jobs where finished_at < now() - make_interval(days => %s)", (KEEP_DAYS,))
