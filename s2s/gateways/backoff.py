"""How long to wait before connecting again: longer each time, and never the same for two who lost the same peer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

FIRST_S = 0.5
LONGEST_S = 60.0


@dataclass(slots=True)
class Backoff:
    """Doubles from half a second to a minute, with half of it left to chance (`fraction` is 0 to 1)."""

    fraction: Callable[[], float] = random.random
    _most_s: float = FIRST_S

    def next_s(self) -> float:
        """Seconds to wait now."""
        most_s = self._most_s
        self._most_s = min(LONGEST_S, 2 * most_s)
        return most_s * (0.5 + 0.5 * self.fraction())

    def reset(self) -> None:
        """It went well."""
        self._most_s = FIRST_S


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, but not longer than this; whether it has come."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
