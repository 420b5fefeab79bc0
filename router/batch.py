"""Items waiting to be committed, and what becomes of them (docs/delivery.md, rules 7, 8, 13; without I/O).

An *item* is one input with everything decided in it: the sender's turn and, where this router owns the recipient
too, the recipient's. Items leave in order; those that write nothing only wait behind earlier ones of the same entity.
One batch is in flight at a time, fenced with the epochs under which its turns ran.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from cluster.wire import Epoch, Shard
from router.entity import Entity
from router.turn import Turn, Write
from storage.log import DONE, FORWARD, FROM_OWNER, Row
from xmpp.jid import domain_of
from xmpp.stanza import Stanza

BATCH_ITEMS: Final = 512

Key = tuple[str, int]  # (recipient, origin): what marks are kept by
_NONE: Final[dict[str, Sequence[Stanza]]] = {}  # of every item that forwards nothing; never written to


class Item:
    """One input's turns: `main` first, then a part for each recipient that is owned here."""

    __slots__ = ("accepts", "forwards", "holding", "is_waiting", "main", "parts", "then", "undecided")

    def __init__(self, main: Turn, then: Callable[[], None] | None, accepts: Key | None = None) -> None:
        self.main = main
        self.parts: tuple[Turn, ...] = ()
        self.forwards = _NONE  # entity -> stanzas, where it is owned elsewhere: see `forward`
        self.then = then  # runs last, when the item is released
        self.accepts = accepts  # an item that came from another owner (FORWARD): the mark it moved
        self.undecided: tuple[Key, ...] = ()  # its recipients, while it is not known whether it is committed
        self.holding: tuple[Entity, ...] = ()  # they take no other input until its requests are answered
        self.is_waiting = False

    def turns(self) -> tuple[Turn, ...]:
        """The main turn, then the parts."""
        return (self.main, *self.parts)

    def forward(self, to: str, stanzas: Sequence[Stanza]) -> None:
        """The recipient is not owned here (any more)."""
        if self.forwards is _NONE:
            self.forwards = {}
        self.forwards[to] = stanzas

    def marks(self) -> list[Key]:
        """The marks that this item has moved."""
        origin = self.main.origin
        moved = [(part.entity.bare, origin) for part in self.parts]
        return moved if self.accepts is None else [*moved, self.accepts]

    def must_wait(self) -> bool:
        """Whether it writes, or one of its entities has an earlier turn that is not committed yet (rule 22)."""
        main = self.main
        if main.rows or main.writes or main.entity.waiting:
            return True
        for part in self.parts:  # noqa: SIM110  # a generator would cost more than the rest of a turn's end
            if part.rows or part.writes or part.entity.waiting:
                return True
        return False


class Batch(NamedTuple):
    """What one fenced transaction shall do."""

    fence: dict[Shard, Epoch]
    writes: tuple[Write, ...]
    rows: tuple[Row, ...]


class Queue:
    """The items of one router that wait; `commit` starts a transaction, whose outcome comes back by `committed`,
    `fenced` or `refused`."""

    def __init__(
        self,
        commit: Callable[[Batch], None],
        epoch_of: Callable[[Shard], Epoch | None],
        release: Callable[[Item], None],
        refuse: Callable[[Item], None],
        demote: Callable[[Item, Turn], None],
        forget: Callable[[Item], None],
    ) -> None:
        self._commit = commit
        self._epoch_of = epoch_of
        self._release = release
        self._refuse = refuse
        self._demote = demote
        self._forget = forget
        self._waiting: deque[Item] = deque()
        self._in_flight: list[Item] | None = None
        self.in_batch = 0  # items of the transaction that was started last
        self._has_lost = False  # a shard was lost since what waits was looked through

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_flight or ())

    def add(self, item: Item) -> None:
        """Queue an item; its entities count it until it is released."""
        item.is_waiting = True
        item.main.entity.waiting += 1
        for part in item.parts:
            part.entity.waiting += 1
        self._waiting.append(item)

    def lost(self) -> None:
        """A shard is not owned here any more: what waits is looked through before it goes."""
        self._has_lost = True

    def pump(self) -> None:
        """Start the next batch unless one is in flight."""
        while self._in_flight is None and self._waiting:
            if self._has_lost:
                self._has_lost = False
                items, self._waiting = self._waiting, deque()
                kept = self._whole(items)
                self._waiting.extend(kept)
                continue
            waiting = self._waiting
            self._start([waiting.popleft() for _ in range(min(len(waiting), BATCH_ITEMS))])

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
        self._start(self._whole(items))
        self.pump()

    def refused(self, index: int) -> None:
        """The database will not have the write of this index (or behind the writes, the row): only its item fails."""
        items, self._in_flight = self._in_flight or [], None
        item = items.pop(_guilty(items, index))
        self._done(item)
        self._refuse(item)
        self._start(self._whole(items))
        self.pump()

    def _start(self, items: list[Item]) -> None:
        if not items:
            return
        self._in_flight = items
        self.in_batch = len(items)
        writes: list[Write] = []
        rows: list[Row] = []
        fence: dict[Shard, Epoch] = {}
        for item in items:
            for turn in item.turns():
                if turn.rows:
                    rows += _flagged(turn.rows, item.forwards) if item.forwards else turn.rows
                elif not turn.writes:
                    continue
                writes += turn.writes
                entity = turn.entity
                fence[entity.shard] = entity.epoch
        if writes or rows:
            self._commit(Batch(fence, tuple(writes), tuple(rows)))
        else:
            self.committed()

    def _whole(self, items: Iterable[Item]) -> list[Item]:
        """Rule 13: an item whose sender's shard is lost is dropped; a recipient's part whose shard is lost leaves the
        item, and its stanzas are forwarded to the new owner instead. What was accepted behind a dropped one on the
        same mark is dropped, too: its sender offers both again."""
        taken_back: set[Key] = set()
        kept = [item for item in items if self._is_whole(item, taken_back)]
        if taken_back:
            # What waits behind them stands on the same marks.
            self._waiting = deque(item for item in self._waiting if not self._is_void(item, taken_back))
        return kept

    def _is_whole(self, item: Item, taken_back: set[Key]) -> bool:
        if self._is_void(item, taken_back):
            return False
        if not self._is_held(item.main.entity):
            self._drop(item, taken_back)
            return False
        for part in [part for part in item.parts if not self._is_held(part.entity)]:
            part.entity.waiting -= 1
            item.parts = tuple(other for other in item.parts if other is not part)
            self._demote(item, part)
        return True

    def _is_void(self, item: Item, taken_back: set[Key]) -> bool:
        if item.accepts is None or item.accepts not in taken_back:
            return False
        self._drop(item, taken_back)
        return True

    def _drop(self, item: Item, taken_back: set[Key]) -> None:
        taken_back.update(item.marks())
        self._done(item)
        self._forget(item)

    def _is_held(self, entity: Entity) -> bool:
        return self._epoch_of(entity.shard) == entity.epoch

    def _done(self, item: Item) -> None:
        item.main.entity.waiting -= 1
        for part in item.parts:
            part.entity.waiting -= 1


def _guilty(items: Sequence[Item], index: int) -> int:
    """Whose write this is, in the order of `Queue._start`: the place of its item."""
    turns = [(place, turn) for place, item in enumerate(items) for turn in item.turns()]
    writers = [place for place, turn in turns for _ in turn.writes]
    loggers = [place for place, turn in turns for _ in turn.rows]
    return (writers + loggers)[index]


def _flagged(rows: Iterable[Row], forwards: Mapping[str, Sequence[Stanza]]) -> list[Row]:
    """The sender's rows, with a flag where the recipient's owner is elsewhere: it shall not be forgotten there."""
    return [
        Row(*row[:5], FORWARD, *row[6:])
        if row.dir == FROM_OWNER and row.forward == DONE and (row.peer in forwards or domain_of(row.peer) in forwards)
        else row
        for row in rows
    ]
