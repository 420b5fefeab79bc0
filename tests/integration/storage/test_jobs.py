"""Long work in a real database: who does it, how far it is, its end (storage/jobs.py, router/jobs.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from router.jobs import JobError, Jobs, Kind, Later, Step
from storage import jobs
from storage.jobs import Job
from tests.support.database import asynchronous, connected, eventually

Run = Callable[..., Awaitable[Any]]


def running(conn: Any) -> Run:
    room = asyncio.Lock()  # one connection, one statement at a time

    async def run(statement: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        async with room:
            return await statement(conn, *arguments)

    return run


async def counting(job: Job) -> Step:
    """Counts to three, in steps of one."""
    position = int(job.position or 0) + 1
    return Step(1, str(position) if position < 3 else None)


@asynchronous
async def test_a_job_is_taken_once_and_taken_over_from_the_dead(database: str) -> None:
    async with connected(database) as conn:
        made = await jobs.create(conn, "count", {"to": 3}, 3, "admin.token")
        assert await jobs.take(conn, "r1") == made
        assert await jobs.take(conn, "r2") is None
        assert await jobs.advance(conn, made.id, "r1", "1", 1, "running", "")
        await conn.execute("update jobs set beat_at = now() - interval '1 minute'")
        taken = await jobs.take(conn, "r2")
        assert taken is not None
        assert (taken.position, taken.done) == ("1", 1)
        assert not await jobs.advance(conn, made.id, "r1", "2", 1, "running", "")  # it only was slow
        await jobs.release(conn, "r2")
        assert (await jobs.take(conn, "r3")) is not None


@asynchronous
async def test_a_job_goes_on_where_it_was_and_ends(database: str) -> None:
    async with connected(database) as conn:
        run = running(conn)
        made = await jobs.create(conn, "count", {}, 3, "admin.token")
        assert await jobs.take(conn, "r1") is not None
        await jobs.advance(conn, made.id, "r1", "2", 2, "running", "")
        await jobs.release(conn, "r1")
        task = asyncio.create_task(Jobs(run, "r2", {"count": counting}).follow())

        async def is_done() -> bool:
            found = await run(jobs.find, made.id)
            return bool(found.state == "done")

        await eventually(is_done, 10, "the job is done")
        task.cancel()
        found = await run(jobs.find, made.id)
        assert (found.done, found.finished_at is not None) == (3, True)


@asynchronous
async def test_an_abort_counts_after_the_step_under_way(database: str) -> None:
    async with connected(database) as conn:
        run, steps = running(conn), 0
        made = await jobs.create(conn, "endless", {}, 3, "admin.token")

        async def endless(job: Job) -> Step:
            nonlocal steps
            steps += 1
            if steps == 3:
                assert (await run(jobs.abort, made.id)) is not None
            return Step(1, str(steps))

        await Jobs(run, "r1", {"endless": endless}).do((await run(jobs.take, "r1")) or made)
        found = await run(jobs.find, made.id)
        assert (steps, found.state, found.done) == (3, "aborted", 2)
        assert await run(jobs.abort, made.id) is None


@asynchronous
async def test_what_cannot_be_done_now_is_done_later_and_what_cannot_be_done_fails(database: str) -> None:
    async with connected(database) as conn:
        run = running(conn)
        tries = 0

        async def shy(job: Job) -> Step:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise Later("its router is away")
            raise JobError("it cannot be")

        async def broken(job: Job) -> Step:
            raise KeyError("a bug")

        kinds: dict[str, Kind] = {"shy": shy, "broken": broken}
        for kind, problem in (("shy", "it cannot be"), ("broken", "internal error"), ("unknown", "does not know")):
            made = await jobs.create(conn, kind, {}, 1, "admin.token")
            await Jobs(run, "r1", kinds).do((await run(jobs.take, "r1")) or made)
            found = await run(jobs.find, made.id)
            assert found.state == "failed"
            assert problem in found.problem
        assert tries == 2
