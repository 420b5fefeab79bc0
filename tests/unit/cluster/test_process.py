"""The life of a process: start, essential tasks, drain, stop, exit codes. The admin port and signals are left out."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

import pytest

from cluster.admin import Check, Checks
from cluster.config import load
from cluster.process import STALLED_S, CannotStart, Drain, Process, failures


@pytest.fixture(autouse=True)
def garbage_collector() -> Iterator[None]:
    """A process tunes the collector once it has started."""
    thresholds, callbacks = gc.get_threshold(), gc.callbacks[:]
    yield
    gc.set_threshold(*thresholds)
    gc.callbacks[:] = callbacks
    gc.unfreeze()


class ManualClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class App:
    """Does what the test says, and remembers what was called."""

    role = "c2s"

    def __init__(
        self,
        start: Callable[[Process], Coroutine[Any, Any, None]] | None = None,
        drain: Callable[[Drain], Coroutine[Any, Any, None]] | None = None,
        stop: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self.calls: list[str] = []
        self._start, self._drain, self._stop = start, drain, stop
        self.reason: str | None = None

    def ready_checks(self) -> Mapping[str, Check]:
        return {"listeners": lambda: self.reason}

    async def start(self, process: Process) -> None:
        self.calls.append("start")
        if self._start is not None:
            await self._start(process)

    async def drain(self, drain: Drain) -> None:
        self.calls.append("drain")
        if self._drain is not None:
            await self._drain(drain)

    async def stop(self) -> None:
        self.calls.append("stop")
        if self._stop is not None:
            await self._stop()


def process_of(app: App, clock: ManualClock | None = None) -> Process:
    return Process(app, load(None, ["drain.grace_s=100", "node.name=c2s-0"], {}), clock or ManualClock())


def failing(checks: Checks) -> dict[str, str]:
    return {name: reason for name, check in checks.items() if (reason := check()) is not None}


def terminating(process: Process) -> None:
    asyncio.get_running_loop().call_soon(process.terminate)


async def forever() -> None:
    await asyncio.Event().wait()


def test_sigterm_drains_then_stops_and_exits_with_0() -> None:
    async def start(process: Process) -> None:
        process.essential("forever", forever())
        terminating(process)

    app = App(start)
    assert asyncio.run(process_of(app).live()) == 0
    assert app.calls == ["start", "drain", "stop"]


def test_sighup_ends_nothing_and_calls_whoever_wants_to_read_again() -> None:
    calls: list[str] = []

    async def start(process: Process) -> None:
        process.hang_up()
        process.on_hangup(lambda: calls.append("certificates"))
        process.on_hangup(lambda: calls.append("another"))
        process.hang_up()
        terminating(process)

    assert asyncio.run(process_of(App(start)).live()) == 0
    assert calls == ["certificates", "another"]


def test_readiness_follows_the_life() -> None:
    seen: list[dict[str, str]] = []

    started = asyncio.Event()

    async def start(process: Process) -> None:
        seen.append(failing(process.ready_checks()))
        started.set()

    async def drain(drain: Drain) -> None:
        seen.append(failing(process.ready_checks()))

    async def scenario() -> None:
        life = asyncio.create_task(process.live())
        await started.wait()
        for _ in range(20):  # turns of the loop until the process has seen that `start` returned
            await asyncio.sleep(0)
        assert failing(process.ready_checks()) == {}
        app.reason = "no listener"
        assert failing(process.ready_checks()) == {"listeners": "no listener"}
        app.reason = None
        process.terminate()
        assert await life == 0

    app = App(start, drain)
    process = process_of(app)
    asyncio.run(scenario())
    assert seen == [{"started": "still starting"}, {"draining": "draining since SIGTERM"}]


def test_the_death_of_an_essential_task_ends_the_process_with_1() -> None:
    async def die() -> None:
        raise RuntimeError("out of luck")

    unhealthy: list[dict[str, str]] = []

    async def start(process: Process) -> None:
        process.essential("test_dies", die())

    async def stop() -> None:
        unhealthy.append(failing(process.health_checks()))

    app = App(start, stop=stop)
    process = process_of(app)
    assert asyncio.run(process.live()) == 1
    assert app.calls == ["start", "stop"]
    assert unhealthy == [{"tasks": "test_dies has died: out of luck"}]
    assert failures.labels("test_dies")._value.get() == 1.0


def test_an_essential_task_that_returns_has_died_too() -> None:
    async def nothing() -> None:
        return

    async def start(process: Process) -> None:
        process.essential("test_returns", nothing())

    assert asyncio.run(process_of(App(start)).live()) == 1


def test_while_draining_an_essential_task_may_return() -> None:
    enough = asyncio.Event()

    async def until_enough() -> None:
        await enough.wait()

    async def start(process: Process) -> None:
        process.essential("test_until", until_enough())
        terminating(process)

    async def drain(drain: Drain) -> None:
        enough.set()
        await asyncio.sleep(0)

    assert asyncio.run(process_of(App(start, drain)).live()) == 0


def test_what_cannot_start_exits_with_1_after_cleaning_up() -> None:
    for error in (CannotStart("port 5222 is taken"), OSError("no"), KeyError("a bug")):

        async def start(process: Process, error: Exception = error) -> None:
            raise error

        app = App(start)
        assert asyncio.run(process_of(app).live()) == 1
        assert app.calls == ["start", "stop"]


def test_sigterm_interrupts_a_start_that_waits() -> None:
    async def start(process: Process) -> None:
        terminating(process)
        await forever()

    app = App(start)
    assert asyncio.run(process_of(app).live()) == 0
    assert app.calls == ["start", "stop"]


def test_a_drain_that_takes_too_long_is_given_up_and_still_exits_with_0() -> None:
    clock = ManualClock()
    cancelled: list[bool] = []

    async def start(process: Process) -> None:
        terminating(process)

    async def drain(drain: Drain) -> None:
        clock.now += drain.remaining_s()
        try:
            await forever()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    app = App(start, drain)
    assert asyncio.run(process_of(app, clock).live()) == 0
    assert cancelled == [True]
    assert app.calls == ["start", "drain", "stop"]


def test_the_drain_ends_15_seconds_before_the_grace_and_another_sigterm_halves_it() -> None:
    clock = ManualClock()
    left: list[float] = []

    async def start(process: Process) -> None:
        terminating(process)

    async def drain(drain: Drain) -> None:
        left.append(drain.remaining_s())
        process.terminate()
        left.append(drain.remaining_s())
        clock.now += 10
        process.terminate()
        left.append(drain.remaining_s())

    process = process_of(App(start, drain), clock)
    assert asyncio.run(process.live()) == 0
    assert left == [85.0, 42.5, 16.25]


def test_a_loop_that_does_not_turn_is_not_healthy() -> None:
    clock = ManualClock()
    process = process_of(App(), clock)
    assert failing(process.health_checks()) == {}
    clock.now += STALLED_S + 1
    assert "did not turn for 6.0 s" in failing(process.health_checks())["event_loop"]
