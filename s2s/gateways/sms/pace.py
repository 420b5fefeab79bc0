"""How fast to submit: a token bucket for the agreed rate, and a back-off while the SMSC says that it is too much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
ROUNDING: Final = 1e-6  # of a token: else a wait that is too short to move the clock


@dataclass(slots=True)
class Pace:
    """`per_second` messages, with bursts of at most one second's worth. Times are monotonic."""

    per_second: float
    _tokens: float = 1.0
    _counted_at: float = 0.0
    _paused_until: float = 0.0
    _pause_s: float = 0.0

    def wait_s(self, now: float) -> float:
        """Seconds until one message may be sent, 0 if now."""
        self._count(now)
        missing = 1.0 - self._tokens
        wait_s = missing / self.per_second if missing > ROUNDING else 0.0
        return max(wait_s, self._paused_until - now, 0.0)

    def take(self, now: float) -> None:
        """One message is sent."""
        self._count(now)
        self._tokens -= 1.0

    def throttled(self, now: float) -> None:
        """The SMSC wants less: pause, each time twice as long. Answers to what was sent before a pause do not count."""
        if now < self._paused_until:
            return
        self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2 or FIRST_PAUSE_S)
        self._paused_until = now + self._pause_s

    def accepted(self, now: float) -> None:
        """The SMSC took one; the next pause begins small again."""
        if now >= self._paused_until:
            self._pause_s = 0.0

    def _count(self, now: float) -> None:
        burst = max(1.0, self.per_second)
        self._tokens = min(burst, self._tokens + max(0.0, now - self._counted_at) * self.per_second)
        self._counted_at = max(now, self._counted_at)
