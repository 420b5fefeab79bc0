"""Planted defects: a checker that catches none of them would be worth nothing. Each is one method made wrong.

Not caught, because another rule absorbs them: a link that takes frames twice or out of order, an owner that runs a
submission again, an edge that takes any outbound number. They are defence in depth (docs/delivery.md, §9).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from c2s.edge import Edge, EdgeSession
from cluster.link import SendLink
from cluster.shards import ShardMap
from cluster.wire import Ack, Incarnation
from router.batch import Batch
from router.outbox import Outbox
from tests.sim.processes import EdgeNode, RouterNode
from tests.sim.store import SimStore
from tests.sim.world import Mode, World

SEEDS = 600  # some need hundreds; most are caught by the first few


class _NeverOffersAgain(Edge):
    def _offer(self, session: EdgeSession) -> None:
        """Rule 5 forgotten."""


class _NeverAnnounces(Edge):
    def _announce(self, shard: Any) -> None:
        """Rule 16 forgotten."""


def _planted(node: type[Any], **attributes: Any) -> type[Any]:
    return type(f"Planted{node.__name__}", (node,), attributes)


def _never_confirmed(self: Outbox, origin: int, to: str, n: int) -> None:
    """Rule 10 forgotten."""


def _never(*_: Any) -> None:
    """Rule 10, the other half."""


def _unfenced(self: SimStore, owner: Incarnation, batch: Batch) -> tuple[()]:
    self.commits.extend(batch.fence.items())
    return ()


def _ack_of_any_generation(self: SendLink, ack: Ack) -> bool:
    return _right_acknowledged(self, (self.generation, ack[1]))


_right_acknowledged = SendLink.acknowledged


def _caught(mode: Mode, router: type[Any] = RouterNode, edge: type[Any] = EdgeNode) -> bool:
    """Whether some seed shows the defect; the first that does ends the search."""
    return any(World(seed, mode, router, edge).run() for seed in range(SEEDS))


@pytest.mark.parametrize(
    ("mode", "edge"),
    [("processes", _NeverOffersAgain), ("processes", _NeverAnnounces)],
)
def test_defects_of_the_edge_are_caught(mode: Mode, edge: type[Edge]) -> None:
    assert _caught(mode, edge=_planted(EdgeNode, edge_class=edge))


@pytest.mark.parametrize(
    ("mode", "where", "method", "wrong"),
    [
        ("processes", Outbox, "confirmed", _never_confirmed),
        ("processes", SimStore, "commit", _unfenced),
        ("processes", SendLink, "acknowledged", _ack_of_any_generation),
    ],
)
def test_defects_elsewhere_are_caught(
    mode: Mode, where: type[Any], method: str, wrong: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, method, wrong)
    assert _caught(mode)


def test_offering_to_the_next_owner_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outbox, "owners_changed", _never)
    monkeypatch.setattr(Outbox, "tick", _never)
    assert _caught("processes")


def test_epochs_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShardMap, "is_current", lambda self, shard, epoch: True)
    monkeypatch.setattr(SimStore, "commit", _unfenced)
    assert _caught("processes")
