"""Shards: which of 1,024 a bare JID belongs to, which router should own it, and what a process knows of owners.

Pure: hashing, rendezvous, and a table of the greatest epoch heard of for each shard (docs/delivery.md, rule 14).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from cluster.wire import Epoch, Incarnation, Shard

SHARDS: Final = 1024


@lru_cache(maxsize=65_536)
def shard_of(bare: str) -> Shard:
    """The shard of a prepared bare JID: BLAKE2b (8 bytes, big endian) modulo 1,024, fixed for ever."""
    return Shard(int.from_bytes(blake2b(bare.encode(), digest_size=8).digest(), "big") % SHARDS)


def rendezvous(key: int | str, nodes: Iterable[str]) -> str:
    """The node that should own a shard (or speak with a domain): the highest hash wins, so a join or leave moves only
    1/n of them."""
    return max(nodes, key=lambda node: (blake2b(f"{node}/{key}".encode(), digest_size=8).digest(), node))


@lru_cache(maxsize=64)
def assignment(nodes: frozenset[str]) -> tuple[str, ...]:
    """The node that should own each shard, in order; `nodes` is not empty."""
    return tuple(rendezvous(shard, nodes) for shard in range(SHARDS))


class ShardMap:
    """Who owns what, as far as this process has heard. Epochs never go back."""

    __slots__ = ("epochs", "owners")

    def __init__(self) -> None:
        self.epochs: list[Epoch] = [Epoch(0)] * SHARDS
        self.owners: list[Incarnation | None] = [None] * SHARDS

    def update(self, shard: Shard, epoch: Epoch, owner: Incarnation) -> bool:
        """Take news about one shard; False if it is no news."""
        if epoch < self.epochs[shard] or (epoch == self.epochs[shard] and self.owners[shard] == owner):
            return False
        self.epochs[shard] = epoch
        self.owners[shard] = owner
        return True

    def is_current(self, shard: Shard, epoch: Epoch) -> bool:
        """Rule 14: whether an envelope of this epoch may be acted on; remembers the greatest epoch seen."""
        known = self.epochs[shard]
        if epoch == known:
            return True
        if epoch < known:
            return False
        self.epochs[shard] = epoch
        self.owners[shard] = None  # a newer owner exists; which one, a MAP will say
        return True
