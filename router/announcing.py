"""Announcements: a message to all accounts of domains, or to those online, so many a second (router/jobs.py)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from router.calls import CallError
from router.jobs import Kind, Later, Step
from storage import accounts, sessions
from storage.jobs import Job

KIND: Final = "announce"
CHUNK: Final = 100  # accounts of one step at most; so many may be written to twice if a router dies over it
AT_ONCE: Final = 10

Run = Callable[..., Awaitable[Any]]
Ask = Callable[[str, str, tuple[Any, ...]], Awaitable[Any]]  # a method of the owner of a bare JID


def announcing(run: Run, ask: Ask) -> Kind:
    """The steps of an announcement. Its arguments: `domains`, `to` ("all" or "online"), `subject`, `body`, `type`,
    `rate` (accounts a second)."""

    async def step(job: Job) -> Step:
        wanted = job.arguments
        count = max(1, min(CHUNK, int(wanted["rate"])))
        started = time.monotonic()
        if wanted["to"] == "online":
            names = await run(sessions.online, wanted["domains"], job.position, count)
        else:
            names = await run(accounts.page, wanted["domains"], "", job.position, count)
        room = asyncio.Semaphore(AT_ONCE)

        async def write(bare: str) -> bool:
            arguments = (bare, wanted["type"], wanted["subject"], wanted["body"], f"announcement-{job.id}")
            async with room:
                try:
                    await ask(bare, "admin.message", arguments)
                except CallError as problem:
                    if problem.condition == "item-not-found":
                        return False  # it was removed meanwhile
                    raise Later(f"the router of {bare} cannot be asked now: {problem.condition}") from problem
            return True

        written = await asyncio.gather(*map(write, names))
        if len(names) < count:
            return Step(sum(written), None)
        pause_s = count / wanted["rate"] - (time.monotonic() - started)
        return Step(sum(written), names[-1], max(0.0, pause_s))

    return step
