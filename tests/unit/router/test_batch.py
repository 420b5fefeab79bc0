"""Items, batches and what becomes of them (router/batch.py; docs/delivery.md, rules 7, 8, 13)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cluster.wire import Epoch, SessionId, Shard
from router.batch import BATCH_ITEMS, Batch, Item, Key, Queue
from router.entity import Entity
from router.turn import Turn
from storage import accounts, vcards
from storage.log import ARCHIVE, DONE, FORWARD, FROM_OWNER, TO_OWNER, Ids
from tests.support.turns import NOW, PLAIN, parse
from xmpp.stanza import Stanza

ROMEO, JULIET, NURSE = "romeo@example.com", "juliet@example.com", "nurse@example.com"
ITS_STANZAS = (parse("<message/>"),)
SHARDS = {ROMEO: Shard(1), JULIET: Shard(2), NURSE: Shard(3)}


class Router:
    """One router that owns the shards of all three, and a database that the test plays."""

    def __init__(self) -> None:
        self.held: dict[Shard, Epoch] = {shard: Epoch(7) for shard in SHARDS.values()}
        self.batches: list[Batch] = []
        self.log: list[str] = []  # what became of items, by name
        self.demoted: list[tuple[str, str]] = []
        self.names: dict[int, str] = {}
        self.items: list[Item] = []  # ids of objects are unique as long as they live
        self.on_release: Callable[[], Any] = lambda: None
        self.queue = Queue(
            self.batches.append,
            self.held.get,
            self._release,
            lambda item: self._note("refused", item),
            self._demote,
            lambda item: self._note("forgotten", item),
        )
        self.ids = Ids()
        self.entities = {bare: self._entity(bare, Epoch(7)) for bare in SHARDS}
        self.n = 0

    def _entity(self, bare: str, epoch: Epoch) -> Entity:
        entity = Entity(bare, SHARDS[bare], epoch, SessionId(100 + SHARDS[bare]))
        entity.key = int(SHARDS[bare])
        entity.is_loaded = True
        return entity

    def _note(self, what: str, item: Item) -> None:
        self.log.append(f"{what} {self.names[id(item)]}")

    def _release(self, item: Item) -> None:
        self._note("released", item)
        act, self.on_release = self.on_release, lambda: None
        act()

    def _demote(self, item: Item, part: Turn) -> None:
        self.demoted.append((self.names[id(item)], part.entity.bare))
        item.forward(part.entity.bare, ITS_STANZAS)

    def lose(self, bare: str) -> None:
        """Somebody else owns the shard now."""
        del self.held[SHARDS[bare]]
        self.queue.lost()

    def take(self, bare: str) -> None:
        """It is owned here (again), under a new epoch, with everything forgotten."""
        self.held[SHARDS[bare]] = Epoch(self.held.get(SHARDS[bare], Epoch(7)) + 2)
        self.queue.lost()
        self.entities[bare] = self._entity(bare, self.held[SHARDS[bare]])

    def turn(self, bare: str, origin: int = 0) -> Turn:
        self.n += 1
        entity = self.entities[bare]
        return Turn(entity, None, None, PLAIN, NOW, origin or int(entity.origin), self.n, self.ids)

    def item(self, name: str, main: Turn, *parts: Turn, accepts: Key | None = None) -> Item:
        """An item in the queue, under this name."""
        item = Item(main, None, accepts)
        item.parts = parts
        self.names[id(item)] = name
        self.items.append(item)
        self.queue.add(item)
        return item

    def batch(self) -> Batch:
        """The one that is in flight."""
        self.queue.pump()
        return self.batches[-1]

    def heard(self) -> list[str]:
        log, self.log = self.log, []
        return log

    def waiting(self) -> list[int]:
        return [self.entities[bare].waiting for bare in SHARDS]


@pytest.fixture
def router() -> Router:
    return Router()


def written(turn: Turn, value: float = 0.0) -> Turn:
    assert turn.entity.key is not None
    turn.write(accounts.record_last, turn.entity.key, value, "")
    return turn


def message(to: str, from_: str) -> Stanza:
    return parse(f'<message to="{to}" from="{from_}" type="chat"><body>hi</body></message>')


def sent(turn: Turn, to: str) -> Turn:
    turn.log(message(to, turn.entity.bare), FROM_OWNER, ARCHIVE)
    return turn


def received(turn: Turn, from_: str) -> Turn:
    turn.log(message(turn.entity.bare, from_), TO_OWNER, ARCHIVE)
    return turn


# --- what has to wait (rule 22)


def test_an_item_waits_if_any_turn_of_it_writes_or_follows_one_that_does(router: Router) -> None:
    assert not Item(router.turn(ROMEO), None).must_wait()
    assert Item(written(router.turn(ROMEO)), None).must_wait()
    assert Item(sent(router.turn(ROMEO), JULIET), None).must_wait()
    for make in (written, lambda turn: received(turn, ROMEO)):
        item = Item(router.turn(ROMEO), None)
        item.parts = (make(router.turn(JULIET)),)
        assert item.must_wait()
    router.item("first", written(router.turn(JULIET)))
    assert not Item(router.turn(ROMEO), None).must_wait()
    assert Item(router.turn(JULIET), None).must_wait()
    behind = Item(router.turn(ROMEO), None)
    behind.parts = (router.turn(JULIET),)
    assert behind.must_wait()


def test_entities_count_what_of_theirs_is_not_committed(router: Router) -> None:
    router.item("a", sent(router.turn(ROMEO), JULIET), received(router.turn(JULIET), ROMEO))
    router.item("b", written(router.turn(ROMEO)))
    assert router.waiting() == [2, 1, 0]
    router.batch()
    assert router.waiting() == [2, 1, 0]
    router.queue.committed()
    assert router.waiting() == [0, 0, 0]


# --- batches


def test_one_transaction_for_many_items_fenced_with_the_epochs_of_their_turns(router: Router) -> None:
    """Rule 7: both rows in one batch."""
    a, b = sent(router.turn(ROMEO), JULIET), received(router.turn(JULIET), ROMEO)
    c = written(sent(router.turn(ROMEO), NURSE), 5.0)
    router.item("a", a, b)
    router.item("nothing", router.turn(NURSE))
    router.item("c", c)
    batch = router.batch()
    assert batch.rows == (*a.rows, *b.rows, *c.rows)
    assert [write.arguments for write in batch.writes] == [(1, 5.0, "")]
    assert batch.fence == {SHARDS[ROMEO]: 7, SHARDS[JULIET]: 7}, "who writes nothing needs no fence"


def test_one_batch_at_a_time_and_items_leave_in_order(router: Router) -> None:
    """4: "One batch in flight per router: so if n is in the log, all earlier logged n of its session are"."""
    router.item("a", written(router.turn(ROMEO)))
    router.queue.pump()
    router.item("b", written(router.turn(JULIET)))
    router.item("c", router.turn(ROMEO))
    router.queue.pump()
    assert (len(router.batches), router.heard(), len(router.queue)) == (1, [], 3)
    router.queue.committed()
    assert (len(router.batches), router.heard(), len(router.queue)) == (2, ["released a"], 2)
    router.queue.committed()
    assert (len(router.batches), router.heard(), len(router.queue)) == (2, ["released b", "released c"], 0)


def test_what_writes_nothing_needs_no_database_but_only_its_turn(router: Router) -> None:
    router.item("a", written(router.turn(ROMEO)))
    router.queue.pump()
    router.item("b", router.turn(ROMEO))
    router.queue.committed()
    assert router.heard() == ["released a", "released b"]
    assert len(router.batches) == 1


def test_a_batch_has_an_end(router: Router) -> None:
    for number in range(BATCH_ITEMS + 1):
        router.item(str(number), written(router.turn(ROMEO), number))
    assert len(router.batch().writes) == BATCH_ITEMS
    router.queue.committed()
    assert [write.arguments[1] for write in router.batches[-1].writes] == [BATCH_ITEMS]


def test_what_a_release_leads_to_is_in_the_next_batch(router: Router) -> None:
    router.item("a", written(router.turn(ROMEO)))
    router.queue.pump()
    router.on_release = lambda: router.item("b", written(router.turn(ROMEO)))
    router.queue.committed()
    assert len(router.batches) == 2


# --- rows whose recipient is elsewhere


def test_the_senders_row_says_that_the_message_is_to_be_forwarded(router: Router) -> None:
    """4: `forward = owner`: the next owner of the sender offers it again. Of a recipient here there is nothing to derive."""
    main = sent(sent(router.turn(ROMEO), JULIET), NURSE)
    item = router.item("a", main, received(router.turn(JULIET), ROMEO))
    item.forward(NURSE, ITS_STANZAS)
    assert [(row.dir, row.peer, row.forward) for row in router.batch().rows] == [
        (FROM_OWNER, JULIET, DONE),
        (FROM_OWNER, NURSE, FORWARD),
        (TO_OWNER, ROMEO, DONE),
    ]


def test_a_recipients_row_is_never_forwarded(router: Router) -> None:
    item = router.item("a", received(router.turn(JULIET), ROMEO))
    item.forward(ROMEO, ITS_STANZAS)
    assert [row.forward for row in router.batch().rows] == [DONE]


# --- fenced out (rule 13)


def test_items_whose_senders_shard_is_lost_are_dropped(router: Router) -> None:
    router.item("a", sent(router.turn(ROMEO), JULIET), received(router.turn(JULIET), ROMEO))
    router.item("b", written(router.turn(NURSE)))
    router.batch()
    router.lose(ROMEO)
    router.queue.fenced()
    assert router.heard() == ["forgotten a"]
    assert router.waiting() == [0, 0, 1]
    batch = router.batches[-1]
    assert (batch.rows, len(batch.writes), batch.fence) == ((), 1, {SHARDS[NURSE]: 7})
    router.queue.committed()
    assert router.heard() == ["released b"]


def test_a_recipient_whose_shard_is_lost_leaves_the_item_and_is_forwarded_to(router: Router) -> None:
    """ "The sender's row is committed with `forward = owner`, and the message forwarded"."""
    router.item("a", sent(router.turn(ROMEO), JULIET), received(router.turn(JULIET), ROMEO), router.turn(NURSE))
    router.batch()
    router.lose(JULIET)
    router.queue.fenced()
    assert router.demoted == [("a", JULIET)]
    batch = router.batches[-1]
    assert [(row.owner, row.forward) for row in batch.rows] == [(1, FORWARD)]
    assert batch.fence == {SHARDS[ROMEO]: 7}
    assert router.waiting() == [1, 0, 1]
    router.queue.committed()
    assert router.heard() == ["released a"]
    assert router.waiting() == [0, 0, 0]


def test_a_shard_that_was_lost_and_taken_back_is_another(router: Router) -> None:
    """ "Fenced with those, not with the epoch held now": what was decided before is void, written or not."""
    router.item("a", sent(router.turn(ROMEO), JULIET), received(router.turn(JULIET), ROMEO))
    router.item("unlogged", router.turn(NURSE), router.turn(ROMEO))
    router.batch()
    router.take(ROMEO)
    router.item("new", written(router.turn(ROMEO)))
    router.queue.fenced()
    assert router.heard() == ["forgotten a", "released unlogged"], "without Romeo, who has another epoch"
    assert router.demoted == [("unlogged", ROMEO)]
    assert router.batches[-1].fence == {SHARDS[ROMEO]: 9}


def test_a_batch_is_fenced_with_the_epoch_of_its_turns_whatever_is_held_now(router: Router) -> None:
    router.item("writes", written(router.turn(ROMEO)))
    router.item("rows", sent(router.turn(NURSE), JULIET))
    router.held[SHARDS[ROMEO]] = router.held[SHARDS[NURSE]] = Epoch(9)
    assert router.batch().fence == {SHARDS[ROMEO]: 7, SHARDS[NURSE]: 7}


def test_an_item_that_waited_for_its_batch_is_looked_at_when_it_goes(router: Router) -> None:
    router.item("a", written(router.turn(NURSE)))
    router.queue.pump()
    router.item("b", written(router.turn(ROMEO, 55)), router.turn(NURSE))
    router.item("c", written(router.turn(NURSE)), written(router.turn(JULIET)))
    router.item("behind b", written(router.turn(NURSE)), accepts=(NURSE, 55))
    router.lose(ROMEO)
    router.lose(JULIET)
    router.queue.committed()
    assert router.heard() == ["released a", "forgotten b", "forgotten behind b"]
    assert router.demoted == [("c", JULIET)]
    assert router.batches[-1].fence == {SHARDS[NURSE]: 7}
    router.queue.committed()
    assert router.heard() == ["released c"]
    assert router.waiting() == [0, 0, 0]


def test_a_dropped_item_tells_which_marks_it_had_moved(router: Router) -> None:
    """ "An item dropped takes its mark(B, sid) back"."""
    item = router.item("a", router.turn(ROMEO, 55), router.turn(JULIET), router.turn(NURSE))
    assert item.marks() == [(JULIET, 55), (NURSE, 55)]
    forwarded = router.item("b", received(router.turn(JULIET), ROMEO), accepts=(JULIET, 55))
    assert forwarded.marks() == [(JULIET, 55)]


def test_what_was_accepted_behind_a_dropped_item_on_its_mark_goes_with_it(router: Router) -> None:
    """Else it is logged twice, or overtakes: its sender offers both again. In the batch, and in the queue behind it."""
    router.item("n=1", sent(router.turn(ROMEO, 55), JULIET), received(router.turn(JULIET), ROMEO))
    router.item("n=2", received(router.turn(JULIET), ROMEO), accepts=(JULIET, 55))
    router.item("another's", received(router.turn(JULIET), NURSE), accepts=(JULIET, 66))
    router.item("to another", received(router.turn(NURSE), ROMEO), accepts=(NURSE, 55))
    router.batch()
    router.item("n=3", router.turn(JULIET), accepts=(JULIET, 55))
    router.item("later", written(router.turn(JULIET)))
    router.lose(ROMEO)
    router.queue.fenced()
    assert router.heard() == ["forgotten n=1", "forgotten n=2", "forgotten n=3"]
    router.queue.committed()
    router.queue.committed()
    assert router.heard() == ["released another's", "released to another", "released later"]
    assert router.waiting() == [0, 0, 0]


def test_what_was_accepted_before_the_dropped_item_stays(router: Router) -> None:
    router.item("n=1", received(router.turn(JULIET), ROMEO), accepts=(JULIET, 55))
    router.item("n=2", sent(router.turn(ROMEO, 55), JULIET), received(router.turn(JULIET), ROMEO))
    router.batch()
    router.lose(ROMEO)
    router.queue.fenced()
    assert router.heard() == ["forgotten n=2"]
    router.queue.committed()
    assert router.heard() == ["released n=1"]


def test_a_batch_of_which_nothing_is_left_is_none(router: Router) -> None:
    router.item("a", written(router.turn(ROMEO)))
    router.batch()
    router.lose(ROMEO)
    router.queue.fenced()
    assert (len(router.batches), len(router.queue)) == (1, 0)
    router.item("b", written(router.turn(NURSE)))
    router.queue.pump()
    assert len(router.batches) == 2


# --- refused for its data


def test_only_the_guilty_item_fails(router: Router) -> None:
    """4: "Refused for its data: split, drop only the guilty turn with an error to its sender"."""
    for name, bare in (("a", ROMEO), ("b", JULIET), ("c", NURSE)):
        turn = router.turn(bare)
        assert turn.entity.key is not None
        turn.write(vcards.put, turn.entity.key, name.encode())
        router.item(name, turn)
    batch = router.batch()
    guilty = next(at for at, write in enumerate(batch.writes) if write.arguments[1] == b"b")
    router.queue.refused(guilty)
    assert router.heard() == ["refused b"]
    assert [write.arguments[1] for write in router.batches[-1].writes] == [b"a", b"c"]
    assert router.waiting() == [1, 0, 1]
    router.queue.committed()
    assert router.heard() == ["released a", "released c"]


def test_a_guilty_row_is_found_too(router: Router) -> None:
    router.item("a", written(router.turn(ROMEO)))
    router.item("b", sent(router.turn(ROMEO), JULIET), received(router.turn(JULIET), ROMEO))
    router.item("c", sent(router.turn(NURSE), JULIET))
    rows_begin = len(router.batch().writes)
    router.queue.refused(rows_begin + 1)
    assert router.heard() == ["refused b"]
    assert router.waiting() == [1, 0, 1]
    router.queue.refused(rows_begin)
    assert router.heard() == ["refused c"]
    assert router.waiting() == [1, 0, 0]


def test_a_refused_batch_may_have_lost_shards_meanwhile(router: Router) -> None:
    router.item("a", written(router.turn(ROMEO)))
    router.item("b", written(router.turn(JULIET)))
    router.batch()
    router.lose(ROMEO)
    router.queue.refused(1)
    assert router.heard() == ["refused b", "forgotten a"]
    assert (len(router.batches), router.waiting()) == (1, [0, 0, 0])
