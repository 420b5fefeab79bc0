"""Shards and their owners (cluster/shards.py). The hashes are fixed for ever: what is pinned here is in databases."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.shards import SHARDS, ShardMap, rendezvous, shard_of
from cluster.wire import Epoch, Incarnation, Shard

A = Incarnation("router-0#00000000000000aa")
B = Incarnation("router-1#00000000000000bb")


@pytest.mark.parametrize(
    ("bare", "digest", "shard"),
    [  # by `printf %s BARE | b2sum -l 64`: the shard is the digest's last 10 bits
        ("romeo@montague.example", "e157ee0209345d77", 375),
        ("juliet@capulet.example", "4a26b6c87d78facb", 715),
        ("capulet.example", "5181e830a29339ac", 428),
        ("a@b", "3b5d0329a7e8e270", 624),
        ("fu\u00dfball@m\u00fcnchen.example", "d26779b56a5abede", 734),
        ("\u1f30\u03bf\u03c5\u03bb\u03b9\u03ad\u03c4\u03b1@\u03ba\u03b1\u03c0\u03bf\u03c5\u03bb\u03ad\u03c4\u03bf\u03b9.example", "818999a3df032d8d", 397),
        ("\u9999@\u4f8b\u3048.\u30c6\u30b9\u30c8", "416e9055669aa2e0", 736),
        ("\U0001f600@x.example", "2344c1605f040b07", 775),
    ],
)  # fmt: skip
def test_the_shard_of_an_entity_is_fixed_for_ever(bare: str, digest: str, shard: int) -> None:
    assert shard_of(bare) == shard == int(digest, 16) % 1024


def test_there_are_1024_shards_and_entities_spread_over_all() -> None:
    assert SHARDS == 1024
    sizes = Counter(shard_of(f"user-{number}@example.com") for number in range(50_000))
    assert set(sizes) == set(range(SHARDS))
    assert max(sizes.values()) < 2 * 50_000 / SHARDS


@pytest.mark.parametrize(
    ("shard", "node"),
    [(0, "router-0"), (1, "router-0"), (2, "router-1"), (3, "router-2"), (511, "router-2"), (1023, "router-1")],
)
def test_rendezvous_is_the_same_in_every_version(shard: int, node: str) -> None:
    # By `printf %s NODE/SHARD | b2sum -l 64`, the highest. Routers of two versions must not pull at one shard.
    assert rendezvous(shard, ["router-0", "router-1", "router-2"]) == node


def wanted(nodes: list[str]) -> list[str]:
    return [rendezvous(shard, nodes) for shard in range(SHARDS)]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10])
def test_who_joins_takes_its_share_and_nothing_else_moves(count: int) -> None:
    nodes = [f"router-{number}" for number in range(count)]
    before, after = wanted(nodes), wanted([*nodes, "router-new"])
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {"router-new"}
    share = SHARDS / (count + 1)
    assert 0.7 * share < len(moved) < 1.3 * share


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_who_leaves_gives_its_share_to_all_and_nothing_else_moves(count: int) -> None:
    nodes = [f"router-{number}" for number in range(count)]
    before, after = wanted(nodes), wanted(nodes[1:])
    assert all(old == new for old, new in zip(before, after, strict=True) if old != "router-0")
    heirs = Counter(new for old, new in zip(before, after, strict=True) if old == "router-0")
    assert set(heirs) == set(nodes[1:])


@given(st.sets(st.text(min_size=1, max_size=10), min_size=1, max_size=6), st.integers(0, SHARDS - 1), st.randoms())
def test_the_order_of_nodes_does_not_matter(nodes: set[str], shard: int, random: Random) -> None:
    shuffled = sorted(nodes)
    random.shuffle(shuffled)
    assert rendezvous(shard, shuffled) == rendezvous(shard, sorted(nodes)) in nodes


NEWS = st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 6), st.sampled_from([A, B]))


@given(st.lists(NEWS, max_size=40))
def test_epochs_never_go_back(news: list[tuple[bool, int, int, Incarnation]]) -> None:
    known = ShardMap()
    for is_map, number, value, owner in news:
        shard, epoch = Shard(number), Epoch(value)
        before, whose = known.epochs[shard], known.owners[shard]
        if is_map:
            is_news = known.update(shard, epoch, owner)
            assert is_news == (epoch > before or (epoch == before and whose != owner))
            assert known.owners[shard] == (owner if is_news else whose)
        else:
            assert known.is_current(shard, epoch) == (epoch >= before)
            assert known.owners[shard] == (whose if epoch <= before else None)
        assert known.epochs[shard] == max(before, epoch)


def test_nothing_is_known_at_first() -> None:
    known = ShardMap()
    assert set(known.epochs) == {0}
    assert set(known.owners) == {None}
    assert len(known.epochs) == len(known.owners) == SHARDS


def test_an_envelope_of_a_newer_epoch_unseats_the_owner_that_was_known() -> None:
    # Rule 14. Who the newer owner is, a MAP will say; until then nothing is sent to the old one.
    known = ShardMap()
    assert known.update(Shard(7), Epoch(3), A)
    assert known.is_current(Shard(7), Epoch(3))
    assert known.is_current(Shard(7), Epoch(4))
    assert (known.epochs[7], known.owners[7]) == (4, None)
    assert not known.is_current(Shard(7), Epoch(3)), "a zombie's envelope"
    assert not known.update(Shard(7), Epoch(3), A)
    assert known.update(Shard(7), Epoch(4), B)
    assert (known.epochs[7], known.owners[7]) == (4, B)
    assert not known.update(Shard(7), Epoch(4), B), "no news"
    assert known.epochs[8] == 0, "other shards are untouched"
