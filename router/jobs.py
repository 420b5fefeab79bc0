"""Long work that operators have asked for, done step by step by whichever router takes it (storage/jobs.py).

Behind each step it is written down where to go on, so that an abort counts after the step that is under way, and a
router that takes a job over from one that has died repeats at most one step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

from cluster import logs
from storage import jobs
from storage.jobs import Job
from storage.pool import is_away

log = logs.get_logger()

LOOK_S: Final = 2.0
AT_ONCE: Final = 4  # of one router
AGAIN_S: Final = 2.0  # after a step that could not be done now


class Step(NamedTuple):
    """What a step has done: so many; where the next begins (None: there is none), and how long it has to wait."""

    done: int
    position: str | None
    pause_s: float = 0.0


class Later(Exception):
    """The step cannot be done now, and shall be tried again."""


class JobError(Exception):
    """The job cannot be done; the text says why."""


Kind = Callable[[Job], Awaitable[Step]]  # does the step that begins at job.position; raises Later, JobError
Run = Callable[..., Awaitable[Any]]  # `Store.run`


class Jobs:
    """Those that this router does. `kinds` by the name of what is to be done."""

    def __init__(self, run: Run, runner: str, kinds: Mapping[str, Kind]) -> None:
        self._run = run
        self._runner = runner
        self._kinds = kinds
        self._tasks: set[asyncio.Task[None]] = set()

    async def follow(self) -> None:
        """As long as the router lives: take what nobody does."""
        while True:
            try:
                while len(self._tasks) < AT_ONCE and (job := await self._run(jobs.take, self._runner)) is not None:
                    task = asyncio.get_running_loop().create_task(self.do(job))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
            except Exception as problem:
                if not is_away(problem):
                    raise
            await asyncio.sleep(LOOK_S)

    async def do(self, job: Job) -> None:
        """Do a job to its end, or until it is not ours any more."""
        log.info("job_started", kind=job.kind, count=job.done)
        while True:
            step, state, problem = await self._step(job)
            position = job.position if step.position is None else step.position
            if not await self._advanced(job, position, step.done, state, problem):
                log.info("job_left", kind=job.kind)
                return
            job = job._replace(position=position, done=job.done + step.done, state=state)
            if state != "running":
                log.info("job_ended", kind=job.kind, reason=problem or state, count=job.done)
                return
            await asyncio.sleep(step.pause_s)

    async def _step(self, job: Job) -> tuple[Step, str, str]:
        """A step, and what the job is after it: its state, and its problem."""
        try:
            kind = self._kinds.get(job.kind)
            if kind is None:
                raise JobError(f"this release does not know {job.kind}")
            step = await kind(job)
            return step, "done" if step.position is None else "running", ""
        except Later as problem:
            return Step(0, job.position, AGAIN_S), "running", str(problem)
        except JobError as problem:
            return Step(0, None), "failed", str(problem)
        except Exception as problem:
            if is_away(problem):
                return Step(0, job.position, AGAIN_S), "running", "the database is away"
            log.error("job_failed", kind=job.kind, exc_info=problem)
            return Step(0, None), "failed", "internal error; the log of the router says more"

    async def _advanced(self, job: Job, position: str, done: int, state: str, problem: str) -> bool:
        while True:
            try:
                return bool(await self._run(jobs.advance, job.id, self._runner, position, done, state, problem))
            except Exception as error:
                if not is_away(error):
                    raise
            await asyncio.sleep(AGAIN_S)

    async def stop(self) -> None:
        """Leave the jobs for others to go on with at once."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if tasks:
            try:
                await self._run(jobs.release, self._runner)
            except Exception as problem:
                if not is_away(problem):
                    raise
