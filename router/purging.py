"""Removing what is old from the archive of an account, in pieces (router/jobs.py)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from router.jobs import Kind, Step
from storage import purging
from storage.jobs import Job

KIND: Final = "archive purge"
CHUNK: Final = 5_000  # rows of one step
PAUSE_S: Final = 0.1  # between two of them: others use the database, too

Run = Callable[..., Awaitable[Any]]


def purging_of(run: Run) -> Kind:
    """The steps. The arguments of a job: `owner`, the key of the account, and `before`, an id of the log."""

    async def step(job: Job) -> Step:
        count = await run(purging.delete, job.arguments["owner"], job.arguments["before"], CHUNK)
        return Step(count, job.position if count == CHUNK else None, PAUSE_S)

    return step
