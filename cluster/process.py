"""The life of one c2s, s2s or router process: start, be ready, drain, stop (docs/architecture.md, "A process").

What the process does is its Application; here are the event loop, signals, essential tasks, probes, the garbage
collector's settings and the exit code. A process listens on its admin port at once, also when what it depends on is
not there yet.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Literal, Protocol, TypeVar

import uvloop
from prometheus_client import REGISTRY, CollectorRegistry

from cluster import logs, metrics
from cluster.admin import AdminServer, Check, Checks, results
from cluster.clock import SYSTEM, Clock

log = logs.get_logger()

PROBE_S: Final = 0.25  # how often the lag of the event loop is measured
STALLED_S: Final = 5.0  # a loop that did not turn for so long is not healthy
STOP_S: Final = 5.0  # time for Application.stop
GIVE_UP_S: Final = 15.0  # a drain ends so long before the grace does
GC_THRESHOLDS: Final = (50_000, 20, 100)  # a full collection is all latency: make it rare
GC_FREEZE_S: Final = 0.01  # what survived a collection longer than this is not looked at again

failures = metrics.counter("stentor_task_failures_total", "Tasks that ended with an error", {"task": ["unnamed"]})
lag = metrics.histogram("stentor_event_loop_lag_seconds", "How late the event loop ran a timer")


class CannotStart(Exception):
    """The process cannot start, for a reason that the operator can remove; the text says which and how. Exit 1."""


class Drain:
    """The time a drain may take. Read it between steps: another SIGTERM halves what is left."""

    __slots__ = ("_clock", "_ends_at")

    def __init__(self, seconds: float, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._ends_at = clock.monotonic() + seconds

    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._ends_at - self._clock.monotonic())

    def halve(self) -> None:
        """Take away half of what is left."""
        self._ends_at -= self.remaining_s() / 2


class Application(Protocol):
    """What a role does. `stop` is always called, once; `drain` before it, if `start` had finished."""

    role: str

    def ready_checks(self) -> Mapping[str, Check]:
        """Name of each check -> None if it is well, else the reason in words. Asked often: cheap, no I/O."""
        ...

    async def start(self, process: Process) -> None:
        """Open and connect everything; may wait for what it depends on. Loops run by `process.essential`."""
        ...

    async def drain(self, drain: Drain) -> None:
        """Stop accepting, hand over, return once empty. Cancelled when the time is over: log what is given up."""
        ...

    async def stop(self) -> None:
        """Close what is open. Essential tasks still run; they are cancelled after it."""
        ...


class Node(Protocol):
    """This process's own name."""

    @property
    def name(self) -> str: ...


class Admin(Protocol):
    """Where the admin port is."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


class Grace(Protocol):
    """How long a drain may take."""

    @property
    def grace_s(self) -> float: ...


class Log(Protocol):
    """How log lines are written."""

    @property
    def level(self) -> Literal["debug", "info", "warning", "error"]: ...
    @property
    def format(self) -> Literal["auto", "json", "console"]: ...


class Settings(Protocol):
    """What a process reads of its settings; `cluster.config.Config` has it, and so has the model of each gateway."""

    @property
    def node(self) -> Node: ...
    @property
    def admin(self) -> Admin: ...
    @property
    def drain(self) -> Grace: ...
    @property
    def log(self) -> Log: ...


S = TypeVar("S", bound=Settings)


class Process:
    """One run of one Application."""

    def __init__(
        self, app: Application, config: Settings, clock: Clock = SYSTEM, registry: CollectorRegistry = REGISTRY
    ) -> None:
        self.config = config
        self._app = app
        self._clock = clock
        self._registry = registry
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_hangup: list[Callable[[], None]] = []
        self._ending = asyncio.Event()
        self._drain: Drain | None = None
        self._failure = ""
        self._is_started = False
        self._is_stopping = False
        self._turned_at = clock.monotonic()

    def essential(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` as long as the process lives.

        Its end is the end of the process (exit 1), by error or not; while draining or stopping it may return.
        """
        failures.labels(name)
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._essential_ended)
        return task

    def _essential_ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None and (self._is_stopping or self._drain is not None):
            return
        name = task.get_name()
        self._failure = self._failure or f"{name} has died: {error if error is not None else 'it returned'}"
        failures.labels(name).inc()
        log.error("task_died", task=name, exc_info=error)
        self._ending.set()

    async def run(self) -> int:
        """From start to end, with signal handlers and the admin port; returns the exit code."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_loop_error)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.terminate)
        loop.add_signal_handler(signal.SIGHUP, self.hang_up)
        self._declare_metrics()
        admin = self.config.admin
        server = AdminServer(admin.host, admin.port, self.health_checks, self.ready_checks, self._registry)
        try:
            await server.start()
        except OSError as error:
            log.error("start_failed", problem=f"admin port: {error}", key="admin.port")
            return 1
        try:
            return await self.live()
        finally:
            await server.stop()

    def terminate(self) -> None:
        """SIGTERM: begin the drain; once it runs, halve the time that is left for it."""
        if self._drain is None:
            grace = self.config.drain.grace_s
            self._drain = Drain(grace - min(GIVE_UP_S, grace / 4), self._clock)
            self._ending.set()
        else:
            self._drain.halve()

    def on_hangup(self, work: Callable[[], None]) -> None:
        """Do this at SIGHUP, by which operators say that files have changed."""
        self._on_hangup.append(work)

    def hang_up(self) -> None:
        """SIGHUP: read again what can be read again while the process runs."""
        log.info("hangup", count=len(self._on_hangup))
        for work in self._on_hangup:
            work()

    def health_checks(self) -> Checks:
        """What /healthz asks: never about the database, the bus or peers."""
        return {"event_loop": self._check_loop, "tasks": lambda: self._failure or None}

    def ready_checks(self) -> Checks:
        """What /readyz asks."""
        own: dict[str, Check] = {
            "started": lambda: None if self._is_started else "still starting",
            "draining": lambda: "draining since SIGTERM" if self._drain is not None else None,
        }
        return own | dict(self._app.ready_checks())

    def _check_loop(self) -> str | None:
        silent_s = self._clock.monotonic() - self._turned_at
        return f"the event loop did not turn for {silent_s:.1f} s" if silent_s > STALLED_S else None

    async def live(self) -> int:
        """`run` without signals and admin port."""
        self.essential("loop_lag", self._measure_lag())
        log.info("process_starting", role=self._app.role, version=metrics.software_version())
        started = await self._start()
        if started:
            await self._ending.wait()
            if self._drain is not None and not self._failure:
                await self._run_drain(self._drain)
        await self._stop()
        code = 0 if (started or self._drain is not None) and not self._failure else 1
        log.info("process_ended", role=self._app.role, exit_code=code)
        return code

    async def _start(self) -> bool:
        """Start the application, unless a signal or a dying task comes first."""
        starting = asyncio.create_task(self._app.start(self), name="start")
        ending = asyncio.create_task(self._ending.wait())
        await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting}, timeout=STOP_S)
            return False
        error = starting.exception()
        if isinstance(error, CannotStart | OSError):
            log.error("start_failed", problem=str(error))
            return False
        if error is not None:
            log.error("start_failed", problem=str(error), exc_info=error)
            return False
        self._is_started = True
        _tune_garbage_collector()
        log.info("process_started", role=self._app.role)
        return True

    async def _run_drain(self, drain: Drain) -> None:
        log.info("drain_started", seconds=round(drain.remaining_s(), 1))
        draining = asyncio.create_task(self._app.drain(drain), name="drain")
        while not draining.done() and drain.remaining_s() > 0 and not self._failure:
            await asyncio.wait({draining}, timeout=min(PROBE_S, drain.remaining_s()))
        if not draining.done():
            log.warning("drain_gave_up", reason=self._failure or "the time is over")
            draining.cancel()
            await asyncio.wait({draining}, timeout=STOP_S)
        elif (error := draining.exception()) is not None:
            log.error("drain_failed", exc_info=error)

    async def _stop(self) -> None:
        self._is_stopping = True
        try:
            await asyncio.wait_for(self._app.stop(), STOP_S)
        except TimeoutError:
            log.warning("stop_timed_out", seconds=STOP_S)
        except Exception:
            log.exception("stop_failed")
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_S)

    async def _measure_lag(self) -> None:
        while True:
            asked_at = time.monotonic()
            await asyncio.sleep(PROBE_S)
            lag.observe(max(0.0, time.monotonic() - asked_at - PROBE_S))
            self._turned_at = self._clock.monotonic()

    def _declare_metrics(self) -> None:
        metrics.declare_process_metrics(self._registry)
        metrics.sampled_gauge(
            "stentor_ready",
            "1 while /readyz answers 200",
            (),
            {(): lambda: float(all(result["ok"] for result in results(self.ready_checks())))},
            self._registry,
        )
        metrics.sampled_gauge(
            "stentor_draining",
            "1 after SIGTERM",
            (),
            {(): lambda: float(self._drain is not None)},
            self._registry,
        )


def _log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An exception that nobody awaited: a bug, but one that the process survives."""
    failures.labels("unnamed").inc()
    log.error("unhandled_error", problem=context.get("message", ""), exc_info=context.get("exception"))


def _tune_garbage_collector() -> None:
    """A full collection over all sessions takes tens of milliseconds: make it rare, and freeze what survives one."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    if _freeze_after_long_collection not in gc.callbacks:
        gc.callbacks.append(_freeze_after_long_collection)


_collection_began = 0.0


def _freeze_after_long_collection(phase: str, info: Mapping[str, int]) -> None:
    global _collection_began
    if info["generation"] < 2:
        return
    if phase == "start":
        _collection_began = time.monotonic()
    elif time.monotonic() - _collection_began > GC_FREEZE_S:
        gc.freeze()


def main(application: Callable[[S], Application], config: S) -> int:
    """Run the application until it ends, on uvloop; returns the exit code."""
    logs.configure(config.log.level, config.log.format, config.node.name)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # one descriptor per connection

    async def live() -> int:
        try:
            made = application(config)
        except CannotStart as problem:
            log.error("start_failed", problem=str(problem))
            return 1
        return await Process(made, config).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(live())
