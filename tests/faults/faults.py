"""The faults: what is done to a cluster under load, and what a client may notice of it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.support.cluster import RunningCluster, RunningProcess
from tests.support.faults import Site
from tests.support.faults_bus import Links, Way
from tests.support.faults_postgres import Database

STOP_S: Final = 6.0
SLACK_S: Final = 1.0  # of a machine that does other things, too
RESTART_S: Final = 20.0
STALL_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Field:
    """Where a fault happens."""

    site: Site
    rng: random.Random
    is_long: bool

    @property
    def cluster(self) -> RunningCluster:
        """The cluster."""
        return self.site.cluster

    @property
    def database(self) -> Database:
        """Its database."""
        return self.site.database

    @property
    def links(self) -> Links:
        """The links of its bus."""
        return self.site.links

    def any_node(self, role: str | None = None) -> str:
        """One of the processes that run."""
        return self.rng.choice(self.cluster.processes(role)).node


Act = Callable[[Field], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Fault:
    """`act` does it, waits until the cluster is whole again, and returns the longest silence that a client may see."""

    name: str
    act: Act
    breaks_streams: bool  # whether clients may lose their streams
    may_fail_resumes: bool = False  # more than one process dies: docs/delivery.md, §8
    patience_s: tuple[float, ...] = (120.0,)
    absent: float = 0.1  # 0: a good-bye that a router does not hear would leave it with a session that is not over


async def _whole(field: Field, node: str, old_pid: int) -> None:
    await asyncio.to_thread(field.cluster.wait_restarted, node, old_pid, RESTART_S)
    await asyncio.to_thread(field.cluster.wait_ready, RESTART_S)


async def nothing(field: Field) -> float:
    """No fault: what the suite measures by itself."""
    await asyncio.sleep(2.0)
    return 2.0


async def kill_c2s(field: Field) -> float:
    """kill -9: its streams resume elsewhere as soon as their clients come."""
    node = field.any_node("c2s")
    await _whole(field, node, field.cluster.kill(node))
    return 5.0


async def kill_router(field: Field) -> float:
    """kill -9 of one of two routers."""
    node = field.any_node("router")
    await _whole(field, node, field.cluster.kill(node))
    return 3.0


async def kill_only_router(field: Field) -> float:
    """Nobody can take over: what is sent waits for its restart."""
    began_at = time.monotonic()
    (node,) = [process.node for process in field.cluster.processes("router")]
    await _whole(field, node, field.cluster.kill(node))
    return max(3.0, time.monotonic() - began_at + SLACK_S)


async def kill_loop(field: Field) -> float:
    """kill -9 of one process after the other, whatever state the others are in."""
    times, apart_s = (24, 5.0) if field.is_long else (3, 3.0)
    killed: dict[str, int] = {}
    for _ in range(times):
        node = field.any_node()
        killed[node] = field.cluster.kill(node)
        await asyncio.sleep(apart_s)
    for node, pid in killed.items():
        await _whole(field, node, pid)
    return 10.0


async def _stop(field: Field, process: RunningProcess) -> None:
    os.kill(process.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(STOP_S)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    await asyncio.sleep(1.0)  # it wakes up and finds itself replaced
    await asyncio.to_thread(field.cluster.wait_ready, RESTART_S)


async def stop_router(field: Field) -> float:
    """SIGSTOP, SIGCONT: believed dead after 2 s, replaced, and back as a zombie."""
    await _stop(field, field.rng.choice(field.cluster.processes("router")))
    return STOP_S - 0.5  # the others do not wait for it


async def stop_c2s(field: Field) -> float:
    """SIGSTOP, SIGCONT: half of its clients go elsewhere meanwhile, half wait for it."""
    await _stop(field, field.rng.choice(field.cluster.processes("c2s")))
    return STOP_S + 3.0


async def drain_c2s(field: Field) -> float:
    """SIGTERM: clients are told to come back elsewhere."""
    node = field.any_node("c2s")
    await _whole(field, node, field.cluster.kill(node, signal.SIGTERM))
    return 3.0


async def drain_router(field: Field) -> float:
    """SIGTERM: its shards are handed over first."""
    node = field.any_node("router")
    await _whole(field, node, field.cluster.kill(node, signal.SIGTERM))
    return 2.0


def _restart_postgres(number: signal.Signals, short_s: float = 0.0, long_s: float = 0.0) -> Act:
    async def act(field: Field) -> float:
        """What must be logged waits; nobody is disconnected for it."""
        began_at = time.monotonic()
        await field.database.stop(number)
        await asyncio.sleep(long_s if field.is_long else short_s)
        await field.database.start()
        away_s = time.monotonic() - began_at
        await asyncio.to_thread(field.cluster.wait_ready, RESTART_S)
        return away_s + 1.0 + SLACK_S

    return act


async def hang_postgres(field: Field) -> float:
    """SIGSTOP of the whole server: connections stand and say nothing."""
    began_at = time.monotonic()
    field.database.pause()
    await asyncio.sleep(20.0 if field.is_long else 5.0)
    field.database.go_on()
    away_s = time.monotonic() - began_at
    await asyncio.to_thread(field.cluster.wait_ready, RESTART_S)
    return away_s + 1.0 + SLACK_S


async def cut_links(field: Field) -> float:
    """Every connection of one process is reset, again and again: ZeroMQ connects anew, the links send again."""
    for _ in range(20 if field.is_long else 6):
        node = field.any_node()
        assert field.links.cut(node), f"{node} had no connection"
        await asyncio.sleep(field.rng.uniform(0.1, 0.8))
    return 3.0


def _two(field: Field, role: str, other_role: str | None) -> Way:
    """Two processes that run; None: any of another name."""
    one = field.any_node(role)
    return one, field.rng.choice([p.node for p in field.cluster.processes(other_role) if p.node != one])


async def _hole(field: Field, ways: Sequence[Way], seconds: float) -> None:
    field.links.block(ways)
    try:
        await asyncio.sleep(seconds)
    finally:
        swallowed = field.links.heal()
    assert swallowed, f"nothing was said from {ways}"


Direction = Callable[[str, str], Sequence[Way]]


def both(one: str, other: str) -> Sequence[Way]:
    """Neither hears the other."""
    return (one, other), (other, one)


def there(one: str, other: str) -> Sequence[Way]:
    """The other one does not hear this one."""
    return ((one, other),)


def back(one: str, other: str) -> Sequence[Way]:
    """This one does not hear the other one."""
    return ((other, one),)


async def stall_links(field: Field) -> float:
    """Black holes shorter than `bus.dead_after_s`: nobody is believed dead."""
    for _ in range(10 if field.is_long else 3):
        await _hole(field, field.rng.choice((both, there, back))(*_two(field, "router", None)), STALL_S)
        await asyncio.sleep(field.rng.uniform(0.1, 0.8))
    return STALL_S + 2.0


def _black_hole(role: str, other_role: str | None, which: Sequence[Direction], short_s: float, long_s: float) -> Act:
    async def act(field: Field) -> float:
        """A black hole that lasts longer than `bus.dead_after_s`: they lose each other, and find each other again."""
        ways = field.rng.choice(which)(*_two(field, role, other_role))
        seconds = long_s if field.is_long else short_s
        await _hole(field, ways, seconds)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(field.cluster.wait_ready, RESTART_S)
        return seconds + 3.0

    return act


FAULTS: Final[Sequence[Fault]] = (
    Fault("none", nothing, breaks_streams=False),
    Fault("c2s killed", kill_c2s, breaks_streams=True),
    Fault("router killed", kill_router, breaks_streams=False),
    Fault("killed in a loop", kill_loop, breaks_streams=True, may_fail_resumes=True),
    Fault("router stopped", stop_router, breaks_streams=False),
    Fault("c2s stopped", stop_c2s, breaks_streams=True, patience_s=(2.0, 120.0)),
    Fault("c2s drained", drain_c2s, breaks_streams=True),
    Fault("router drained", drain_router, breaks_streams=False),
    Fault("PostgreSQL restarted", _restart_postgres(signal.SIGINT), breaks_streams=False),
    Fault("PostgreSQL crashed", _restart_postgres(signal.SIGQUIT), breaks_streams=False),
    Fault("PostgreSQL away", _restart_postgres(signal.SIGINT, 5.0, 20.0), breaks_streams=False),
    Fault("PostgreSQL hangs", hang_postgres, breaks_streams=False),
    Fault("bus links cut", cut_links, breaks_streams=False),
    Fault("bus stalls", stall_links, breaks_streams=False),
    # A router that does not hear a c2s ends its plain sessions there; the others wait to be resumed.
    Fault("router deaf to c2s", _black_hole("c2s", "router", [there], 3.0, 5.0), breaks_streams=True),
    Fault("c2s and router parted", _black_hole("c2s", "router", [both], 3.0, 5.0), breaks_streams=True),
    # A c2s that does not hear gives the router up first, and is given up itself when its greetings cannot connect
    # any more, which takes as long again.
    Fault("c2s deaf to router", _black_hole("c2s", "router", [back], 3.0, 3.0), breaks_streams=False),
    Fault("routers parted", _black_hole("router", "router", [both, there], 3.0, 5.0), breaks_streams=False),
)
LONG_FAULTS: Final[Sequence[Fault]] = (
    Fault(
        "parted for a minute", _black_hole("router", None, [both, there, back], 60.0, 60.0), breaks_streams=True,
        absent=0.0,
    ),
)  # fmt: skip
ONLY_ROUTER: Final = Fault("only router killed", kill_only_router, breaks_streams=False)
