"""The database as the routers see it: shards, sessions, the log, offline cursors, fenced commits; slow, and now and then
without an answer though the statement was, or will be, carried out."""

from __future__ import annotations

from bisect import insort
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cluster.shards import SHARDS, shard_of
from cluster.wire import Epoch, Incarnation, Shard
from router.batch import Batch
from router.placement import Row as Placement
from storage import accounts, log, peers, sessions
from storage.log import FROM_OWNER, OUTBOUND, TO_OWNER, Row, Wanted
from storage.sessions import SessionRow
from tests.sim.rooms import SimRooms
from tests.sim.scheduler import Scheduler

UNKNOWN = object()  # the outcome of a statement that nobody knows


class SimStore:
    """One database for all."""

    def __init__(
        self, scheduler: Scheduler, bares: Iterable[str], domains: Iterable[str] = (), unknown: float = 0.02,
        rooms: Iterable[str] = (),
    ) -> None:  # fmt: skip
        self._scheduler = scheduler
        self._unknown = unknown
        self.is_away = False
        self.accounts = {bare: key for key, bare in enumerate(bares, 1)}
        self.domains = {domain: key for key, domain in enumerate(domains, 1_001)}
        # Only the shards that somebody lives in: the others would only cost time.
        self.rooms = SimRooms(rooms)
        names = {*self.accounts, *self.domains, *self.rooms.by_bare}
        self.table = {shard: Placement(None, Epoch(0)) for shard in sorted({shard_of(name) for name in names})}
        self.sessions: dict[int, SessionRow] = {}
        self.log: dict[int, list[Row]] = defaultdict(list)  # by account, in order of ids
        self.cursors: dict[int, tuple[int, tuple[int, ...]]] = {}
        self.commits: list[tuple[Shard, Epoch]] = []
        self._last: deque[Batch] = deque(maxlen=50)

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

    # --- what routers write

    def commit(self, owner: Incarnation, batch: Batch) -> tuple[Shard, ...]:
        """The shards that were lost; empty: committed. A late attempt does nothing after a later one of the same batch:
        the true database finishes the first before the second, which waits for its locks."""
        lost = tuple(shard for shard, epoch in batch.fence.items() if self.table[shard] != Placement(owner, epoch))
        if lost:
            return lost
        if any(known is batch for known in self._last):
            return ()
        self._last.append(batch)
        self.commits.extend(batch.fence.items())
        for row in batch.rows:
            rows = self.log[row.owner]
            if not any(known.id == row.id for known in rows[-2_000:]):
                insort(rows, row, key=lambda known: known.id)
        for statement, arguments in batch.writes:
            if statement is sessions.save:
                self.sessions[arguments[0].sid] = arguments[0]
            elif statement is sessions.delete:
                self.sessions.pop(arguments[0], None)
            elif statement in (accounts.set_delivered, peers.set_delivered):
                key, delivered, strays = arguments
                self.cursors[key] = (delivered, tuple(strays))
            else:
                self.rooms.write(statement, arguments)
        return ()

    def take(self, owner: Incarnation, wanted: dict[Shard, Placement]) -> dict[Shard, Epoch]:
        """Those that were still as expected, with their new epochs."""
        taken = {}
        for shard, row in wanted.items():
            if self.table[shard] == row:
                taken[shard] = Epoch(row.epoch + 1)
                self.table[shard] = Placement(owner, taken[shard])
        return taken

    def release(self, owner: Incarnation, epochs: dict[Shard, Epoch], to: Incarnation) -> list[Shard]:
        """Those that were handed over."""
        given = [shard for shard, epoch in epochs.items() if self.table[shard] == Placement(owner, epoch)]
        for shard in given:
            self.table[shard] = Placement(to, Epoch(self.table[shard].epoch + 1))
        return given

    # --- what routers read

    def rows(self, shards: Iterable[Shard]) -> list[SessionRow]:
        """Sessions of these shards."""
        wanted = set(shards)
        assert wanted <= set(range(SHARDS))
        return [row for row in self.sessions.values() if row.shard in wanted]

    def offline(self, key: int) -> accounts.Offline:
        """As `storage/accounts.py` has it."""
        delivered, strays = self.cursors.get(key, (0, ()))
        ids = [r.id for r in self.log[key] if r.dir == TO_OWNER and (r.id > delivered or r.id in strays)]
        return accounts.Offline(delivered, tuple(ids))

    def peer(self, domain: str) -> peers.Peer:
        """As `storage/peers.py` has it, and so the next one."""
        key = self.domains[domain]
        delivered, strays = self.cursors.get(key, (0, ()))
        rows = [r for r in self.log[key] if r.class_ == OUTBOUND and (r.id > delivered or r.id in strays)]
        return peers.Peer(key, delivered, rows)

    def waiting(self, shards: Iterable[Shard]) -> list[str]:
        """Domains for which something may wait, and rooms that somebody is in."""
        wanted = set(shards)
        domains = [domain for domain in self.domains if shard_of(domain) in wanted and self.peer(domain).rows]
        return domains + self.rooms.occupied(wanted)

    def replay(self, wanted: Sequence[Wanted]) -> list[Row]:
        """As `storage/log.py` has it, and so the next ones."""
        return [r for w in wanted for r in self.log[w.owner] if r.id > w.after]

    def sent(self, wanted: Sequence[Wanted]) -> list[Row]:
        """Rows that sessions have sent."""
        found = []
        for w in wanted:
            confs = dict(zip(w.sids, w.confs, strict=True))
            found += [
                r
                for r in self.log[w.owner]
                if r.dir == FROM_OWNER and r.id > w.since and r.sid in confs and r.n > confs[r.sid]
            ]
        return found

    def mark(self, owner: int, sid: int, above: int) -> int:
        """A mark."""
        rows = self.log[owner]
        return max((r.n for r in rows if r.dir == TO_OWNER and r.sid == sid and r.id > above), default=0)

    def by_ids(self, owner: int, ids: Sequence[int]) -> list[Row]:
        """These rows."""
        wanted = set(ids)
        return [r for r in self.log[owner] if r.id in wanted]

    def is_there(self, owner: int, id_: int) -> bool:
        """Whether a row was committed."""
        return any(r.id == id_ for r in self.log[owner])

    def request(self, statement: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """What features ask for."""
        if statement is log.by_ids:
            return self.by_ids(*arguments)
        if statement is log.above:
            owner, id_, _, limit = arguments
            return [r for r in self.log[owner] if r.id > id_][:limit]
        raise AssertionError(f"nobody answers {statement}")
