"""The database as the routers see it: the table of shards, sessions' rows, fenced commits; slow, and now and then
without an answer though the statement was, or will be, carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cluster.shards import SHARDS, shard_of
from cluster.wire import Epoch, Incarnation, Shard
from router.batch import Batch
from router.placement import Row
from storage import sessions
from storage.sessions import SessionRow
from tests.sim.scheduler import Scheduler

UNKNOWN = object()  # the outcome of a statement that nobody knows


class SimStore:
    """One database for all."""

    def __init__(self, scheduler: Scheduler, accounts: Iterable[str], unknown: float = 0.02) -> None:
        self._scheduler = scheduler
        self._unknown = unknown
        self.is_away = False
        self.accounts = {bare: key for key, bare in enumerate(accounts, 1)}
        # Only the shards that the accounts live in: the others would only cost time.
        self.table = {shard: Row(None, Epoch(0)) for shard in sorted({shard_of(bare) for bare in self.accounts})}
        self.sessions: dict[int, SessionRow] = {}
        self.commits: list[tuple[Shard, Epoch]] = []

    def execute(self, run: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Run a statement after a while; `done` gets its result, or UNKNOWN."""
        s = self._scheduler
        r = s.random

        def go() -> None:
            if self.is_away:
                s.at(r.uniform(0.001, 0.01), lambda: done(UNKNOWN))
            elif r.random() < self._unknown:
                if r.random() < 0.6:
                    s.at(r.uniform(0, 0.5), lambda: None if self.is_away else run())
                s.at(r.uniform(0.001, 0.01), lambda: done(UNKNOWN))
            else:
                value = run()
                s.at(r.uniform(0.001, 0.01), lambda: done(value))

        s.at(r.uniform(0.001, 0.03), go)

    def commit(self, owner: Incarnation, batch: Batch) -> tuple[Shard, ...]:
        """The shards that were lost; empty: committed."""
        lost = tuple(shard for shard, epoch in batch.fence.items() if self.table[shard] != Row(owner, epoch))
        if lost:
            return lost
        self.commits.extend(batch.fence.items())
        for statement, arguments in batch.writes:
            if statement is sessions.save:
                self.sessions[arguments[0].sid] = arguments[0]
            elif statement is sessions.delete:
                self.sessions.pop(arguments[0], None)
            else:
                raise AssertionError(f"the simulated database does not know {statement}")
        return ()

    def take(self, owner: Incarnation, wanted: dict[Shard, Row]) -> dict[Shard, Epoch]:
        """Those that were still as expected, with their new epochs."""
        taken = {}
        for shard, row in wanted.items():
            if self.table[shard] == row:
                taken[shard] = Epoch(row.epoch + 1)
                self.table[shard] = Row(owner, taken[shard])
        return taken

    def release(self, owner: Incarnation, epochs: dict[Shard, Epoch], to: Incarnation) -> list[Shard]:
        """Those that were handed over."""
        given = [shard for shard, epoch in epochs.items() if self.table[shard] == Row(owner, epoch)]
        for shard in given:
            self.table[shard] = Row(to, Epoch(self.table[shard].epoch + 1))
        return given

    def rows(self, shards: Iterable[Shard]) -> list[SessionRow]:
        """Sessions of these shards."""
        wanted = set(shards)
        assert wanted <= set(range(SHARDS))
        return [row for row in self.sessions.values() if row.shard in wanted]
