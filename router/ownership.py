"""Carries out who owns what: heartbeats, takes and handovers in PostgreSQL, and the news of them.

A router that is late, paused or cut off cannot do harm: every commit is fenced (docs/delivery.md, rules 13 to 15).
So takes are immediate; this loop only has to be quick, not careful.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from cluster import logs, metrics
from cluster.bus import Bus
from cluster.shards import SHARDS
from cluster.wire import MAP, Epoch, Incarnation, Shard
from router.dialing import Dialing
from router.directory import Directory
from router.owner import Owner
from router.placement import Plan, Row, plan
from storage import nodes, peers, rooms, sessions, shards
from storage.log import id_at
from storage.pool import is_away
from storage.store import Store

log = logs.get_logger()

BEAT_S: Final = 0.5
DEAD_AFTER_S: Final = 2.0  # a router whose heartbeat stands still for so long is believed dead
GROUP: Final = 64  # shards handed over in one statement
CLOCKS_APART_S: Final = 0.25  # how well two routers know the database's clock
FULL_READ_S: Final = 5.0  # the table of shards is read anew so often, notification or not

handovers = metrics.histogram(
    "stentor_router_handover_seconds", "Time to take shards or to give them away", {"reason": ["take", "give"]}
)


class Ownership:
    """The part of one router in the cluster."""

    def __init__(
        self, me: nodes.NodeRow, store: Store, owner: Owner, directory: Directory, dialing: Dialing, bus: Bus,
        around: Callable[[Callable[[], None]], None], set_clock: Callable[[float], None],
    ) -> None:  # fmt: skip
        self._me = me
        self._incarnation = Incarnation(me.incarnation)
        self._store = store
        self._owner = owner
        self._directory = directory
        self._dialing = dialing
        self._bus = bus
        self._around = around  # runs a function as a batch of input of the owner
        self._set_clock = set_clock  # told what the database's clock shows
        self._wake = asyncio.Event()
        self._table: dict[Shard, Row] = {}
        self._read_at = -FULL_READ_S
        self._is_stale = True
        self._seen: dict[str, tuple[object, float]] = {}  # incarnation -> its last heartbeat, and when that was news
        self._asked_at = 0.0
        self.is_leaving = False
        self.is_registered = False
        self.database_at = -60.0  # monotonic time of the last round trip

    # --- the loop

    async def run(self) -> None:
        """Beat, look, act; for ever. A database that is away is waited for."""
        while True:
            try:
                await self._step()
            except Exception as problem:
                if not is_away(problem):
                    raise
                log.warning("ownership_waits", problem=str(problem).splitlines()[0] if str(problem) else "")
                self._is_stale = True
            try:
                await asyncio.wait_for(self._wake.wait(), BEAT_S)
            except TimeoutError:
                pass
            self._wake.clear()

    def wake(self, payload: str = "") -> None:
        """Something has changed: look now."""
        self._is_stale = True
        self._wake.set()

    async def _step(self) -> None:
        now = time.monotonic()
        if not self.is_registered:
            await self._store.run(nodes.register, self._me)
            self.is_registered = True
        rows = await self._store.run(nodes.beat, self._me.incarnation, self.is_leaving)
        routers = [row for row in rows if row.role == "router"]
        self.database_at = time.monotonic()
        self._set_clock(next((row.seen_at for row in rows if row.incarnation == self._me.incarnation), time.time()))
        living, leaving = self._judge(routers, now), {Incarnation(row.incarnation) for row in routers if row.is_leaving}
        self._link(routers, living)
        if (
            self._is_stale
            or now - self._read_at >= FULL_READ_S
            or not living <= {r.owner for r in self._table.values()}
        ):
            self._is_stale = False  # what changes from now on is news again
            found = await self._store.run(shards.load_all)
            self._table = {Shard(row.shard): Row(_incarnation(row.owner), Epoch(row.epoch)) for row in found}
            self._read_at = now
        await self._act(plan(self._incarnation, self._table, self._held(), living, leaving))

    def _judge(self, rows: Sequence[nodes.NodeRow], now: float) -> set[Incarnation]:
        """Whose heartbeat moves. The time in which this router itself could not look counts for nobody."""
        if now - self._asked_at > DEAD_AFTER_S / 2:
            self._seen = {name: (beat, now) for name, (beat, _) in self._seen.items()}
        self._asked_at = now
        living = {self._incarnation}
        for row in rows:
            known = self._seen.get(row.incarnation)
            if known is None or known[0] != row.seen_at:
                self._seen[row.incarnation] = (row.seen_at, now)
                living.add(Incarnation(row.incarnation))
            elif now - known[1] < DEAD_AFTER_S:
                living.add(Incarnation(row.incarnation))
        names = {row.incarnation for row in rows}
        self._seen = {name: value for name, value in self._seen.items() if name in names}
        return living

    def _link(self, rows: Sequence[nodes.NodeRow], living: set[Incarnation]) -> None:
        known = [row for row in rows if Incarnation(row.incarnation) in living]
        for row in known:
            if row.incarnation != self._incarnation and Incarnation(row.incarnation) not in self._bus.peers:
                self._bus.greet(row.address)
        self._bus.set_nodes([(Incarnation(row.incarnation), row.role, row.address) for row in known])

    def _held(self) -> dict[Shard, Epoch]:
        return {Shard(shard): epoch for shard, epoch in enumerate(self._owner.tenures) if epoch is not None}

    # --- acting

    async def _act(self, todo: Plan) -> None:
        if todo.lost:
            log.warning("shards_lost", count=len(todo.lost))
            for shard in todo.lost:
                self._directory.dropped(self._owner.drop(shard))
        if todo.take:
            await self._take(todo.take)
        for to, give in todo.give.items():
            for start in range(0, len(give), GROUP):
                await self._give(to, give[start : start + GROUP])

    async def _take(self, wanted: dict[Shard, Row]) -> None:
        started = time.monotonic()
        taken = await self._store.run(
            shards.take, self._incarnation, {shard: (row.owner, row.epoch) for shard, row in wanted.items()}
        )
        self._is_stale |= len(taken) < len(wanted)
        if not taken:
            return
        rows = await self._store.run(sessions.load_shards, list(taken))
        waiting = await self._store.run(peers.waiting, list(taken))
        busy = await self._store.run(rooms.with_occupants, list(taken))
        owner = self._owner
        by_shard: dict[Shard, list[sessions.SessionRow]] = {}
        for row in rows:
            by_shard.setdefault(Shard(row.shard), []).append(row)

        def adopt() -> None:
            # Whoever had the shards before gave ids by the same clock.
            owner.ids.last = max(owner.ids.last, id_at(owner.effects.wall() + CLOCKS_APART_S))
            for shard, epoch in taken.items():
                self._table[Shard(shard)] = Row(self._incarnation, Epoch(epoch))
                self._directory.taken(Shard(shard), Epoch(epoch), by_shard.get(Shard(shard), ()))
                self._owner.map.update(Shard(shard), Epoch(epoch), self._incarnation)
            self._tell(list(self._bus.peers), taken)
            self._owner.owners_changed(Shard(shard) for shard in taken)
            for bare in (*waiting, *busy):
                self._owner.recover(bare)

        self._around(adopt)
        seconds = time.monotonic() - started
        handovers.labels("take").observe(seconds)
        log.info("shards_taken", count=len(taken), sessions=len(rows), seconds=round(seconds, 3))

    async def _give(self, to: Incarnation, given: list[Shard]) -> None:
        """A planned handover: the row names the next owner, which takes the shard under a new epoch of its own. From
        the first moment on the shards take no input here (it is offered again to the next owner), so that what was
        accepted is out, and its confirmations with it, before the row changes hands."""
        started = time.monotonic()
        owner = self._owner
        owner.leaving = frozenset(given)
        released: Sequence[int] = given  # an unknown outcome: not ours any more, unless we take it anew (rule 15)
        try:
            await self._drained(owner.leaving)
            epochs = {shard: epoch for shard in given if (epoch := owner.tenures[shard]) is not None}
            released = await self._store.run(shards.release, self._incarnation, epochs, to)
        finally:
            for shard in released:
                self._directory.dropped(owner.drop(Shard(shard)))
            owner.leaving = frozenset()
            self._is_stale = True
        handovers.labels("give").observe(time.monotonic() - started)
        log.info("shards_given", count=len(released), to=to)

    async def _drained(self, given: frozenset[Shard]) -> None:
        """Let what is on its way arrive (bounded: fencing is safe, only less smooth)."""
        for _ in range(40):
            await asyncio.sleep(0.005)  # one frame at least, also where nothing is known to be on its way
            if not self._owner.is_busy(given):
                return

    def _tell(self, peers: Iterable[Incarnation], entries: dict[Any, Any]) -> None:
        news = (MAP, [(shard, epoch, self._incarnation) for shard, epoch in entries.items()])
        for peer in peers:
            self._bus.send(peer, news)

    def peer_up(self, peer: Incarnation) -> None:
        """A process is linked: tell it what this router owns."""
        self._tell([peer], self._held())

    async def leave(self) -> None:
        """Give everything to the others; returns when nothing is left, or nobody is there to take it."""
        self.is_leaving = True
        while True:
            self.wake()
            if not self._held() or not self.has_others():
                return
            await asyncio.sleep(0.02)

    def has_others(self) -> bool:
        """Whether another living router could take shards."""
        now = time.monotonic()
        return any(name != self._incarnation and now - moved < DEAD_AFTER_S for name, (_, moved) in self._seen.items())

    async def farewell(self) -> None:
        """This run of the process is over: others need not wait for its heartbeat to stand still."""
        try:
            await asyncio.wait_for(self._store.run(nodes.remove, self._me.incarnation), 2.0)
        except Exception as problem:
            if not isinstance(problem, TimeoutError) and not is_away(problem):
                raise
            log.warning("farewell_failed", problem=str(problem))

    @property
    def owned(self) -> int:
        """How many shards are held here."""
        return SHARDS - self._owner.tenures.count(None)


def _incarnation(name: str | None) -> Incarnation | None:
    return Incarnation(name) if name is not None else None
