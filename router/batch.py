"""Items waiting to be committed, and what becomes of them (docs/delivery.md, rules 7, 8, 13; without I/O).

An *item* is one input with everything decided in it: the sender's turn and, where this router owns the recipient
too, the recipient's. Items leave in order; those that write nothing only wait behind earlier ones of the same entity.
One batch is in flight at a time, fenced with the epochs under which its turns ran.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from cluster.wire import Epoch, Shard
from router.entity import Entity
from router.turn import Turn, Write

BATCH_ITEMS: Final = 512


class Item:
    """One input's turns: `main` first, then a part for each recipient that is owned here."""

    __slots__ = ("forwards", "is_waiting", "main", "parts", "then")

    def __init__(self, main: Turn, then: Callable[[], None] | None) -> None:
        self.main = main
        self.parts: list[Turn] = []
        self.forwards: dict[str, list[Any]] = {}  # bare JID -> stanzas, for recipients owned elsewhere
        self.then = then  # runs last, when the item is released
        self.is_waiting = False

    def turns(self) -> Iterator[Turn]:
        """The main turn, then the parts."""
        yield self.main
        yield from self.parts

    def must_wait(self) -> bool:
        """Whether it writes, or one of its entities has an earlier turn that is not committed yet (rule 22)."""
        main = self.main
        if main.writes or main.entity.waiting:
            return True
        for part in self.parts:  # noqa: SIM110  # a generator would cost more than the rest of a turn's end
            if part.writes or part.entity.waiting:
                return True
        return False


class Batch(NamedTuple):
    """What one fenced transaction shall do: `writes[i]` belongs to `items[owners[i]]`."""

    fence: dict[Shard, Epoch]
    writes: tuple[Write, ...]
    owners: tuple[int, ...]


class Queue:
    """The items of one router that wait; `commit` starts a transaction, whose outcome comes back by `outcome_*`."""

    def __init__(
        self,
        commit: Callable[[Batch], None],
        epoch_of: Callable[[Shard], Epoch | None],
        release: Callable[[Item], None],
        refuse: Callable[[Item], None],
        demote: Callable[[Item, Turn], None],
    ) -> None:
        self._commit = commit
        self._epoch_of = epoch_of
        self._release = release
        self._refuse = refuse
        self._demote = demote
        self._waiting: deque[Item] = deque()
        self._in_flight: list[Item] | None = None

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_flight or ())

    def add(self, item: Item) -> None:
        """Queue an item; its entities count it until it is released."""
        item.is_waiting = True
        for turn in item.turns():
            turn.entity.waiting += 1
        self._waiting.append(item)

    def pump(self) -> None:
        """Start the next batch unless one is in flight."""
        while self._in_flight is None and self._waiting:
            items = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_ITEMS))]
            self._start([item for item in items if self._is_whole(item)])

    def committed(self) -> None:
        """The batch in flight is durable: release its items in order, then go on."""
        items, self._in_flight = self._in_flight or [], None
        for item in items:
            self._done(item)
            self._release(item)
        self.pump()

    def fenced(self) -> None:
        """Shards of the batch are owned by others now, and the owner has dropped them: what is left goes again."""
        items, self._in_flight = self._in_flight or [], None
        self._start([item for item in items if self._is_whole(item)])
        self.pump()

    def refused(self, guilty: int) -> None:
        """The database will not have one item's data: only that one fails."""
        items, self._in_flight = self._in_flight or [], None
        item = items.pop(guilty)
        self._done(item)
        self._refuse(item)
        self._start([item for item in items if self._is_whole(item)])
        self.pump()

    def _start(self, items: list[Item]) -> None:
        if not items:
            return
        self._in_flight = items
        writes: list[Write] = []
        owners: list[int] = []
        fence: dict[Shard, Epoch] = {}
        for index, item in enumerate(items):
            for turn in item.turns():
                if turn.writes:
                    writes.extend(turn.writes)
                    owners.extend([index] * len(turn.writes))
                    fence[turn.entity.shard] = turn.entity.epoch
        if writes:
            self._commit(Batch(fence, tuple(writes), tuple(owners)))
        else:
            self.committed()

    def _is_whole(self, item: Item) -> bool:
        """Rule 13: an item whose sender's shard is lost is dropped; a recipient's part whose shard is lost leaves the
        item, and its stanzas are forwarded to the new owner instead."""
        if not self._is_held(item.main.entity):
            self._done(item)
            return False
        for part in [part for part in item.parts if not self._is_held(part.entity)]:
            part.entity.waiting -= 1
            item.parts.remove(part)
            self._demote(item, part)
        return True

    def _is_held(self, entity: Entity) -> bool:
        return self._epoch_of(entity.shard) == entity.epoch

    def _done(self, item: Item) -> None:
        for turn in item.turns():
            turn.entity.waiting -= 1
