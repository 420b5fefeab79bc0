"""Virtual time: one heap of events, one seed. The same seed runs the same way, always."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable


class Scheduler:
    """Runs callbacks in the order of their virtual times; ties in the order in which they were asked for."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, delay_s: float, act: Callable[[], None]) -> None:
        """Run `act` after a delay."""
        self._count += 1
        heapq.heappush(self._heap, (self.now + max(0.0, delay_s), self._count, act))

    def run(self, until: float) -> None:
        """Run everything that is due up to this time."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, act = heapq.heappop(self._heap)
            act()
        self.now = until
