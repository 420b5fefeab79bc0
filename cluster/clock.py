"""The clock seam: shells are given a Clock, cores are given `now`, so that tests and simulations own the time."""

from __future__ import annotations

import time
from typing import Final, Protocol


class Clock(Protocol):
    """Two times: one for durations, one for stamps."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        ...

    def wall(self) -> float:
        """Unix seconds; may jump."""
        ...


class SystemClock:
    """The machine's clock."""

    __slots__ = ()

    def monotonic(self) -> float:
        """CLOCK_MONOTONIC, the clock of the event loop."""
        return time.monotonic()

    def wall(self) -> float:
        """CLOCK_REALTIME."""
        return time.time()


SYSTEM: Final = SystemClock()
