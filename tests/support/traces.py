"""A tracer whose time, timers and bus are the test's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cluster.tracing import Event, Tracer
from cluster.wire import TRACED, Envelope, Incarnation

GATHERER: Final = Incarnation("router-9#9")


class Watching:
    """One process that is told what to trace."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.sent: list[tuple[Incarnation, Envelope]] = []
        self.is_congested = False
        self.switched: list[bool] = []
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self.tracer = Tracer(
            send=self._send, is_congested=lambda to: self.is_congested, later=self._later, switch=self.switched.append,
            now=lambda: self.now, clock=lambda: self.now,
        )  # fmt: skip

    def trace(self, *jids: str, seconds: float = 60.0, by: Incarnation = GATHERER) -> None:
        """These are traced; `by` gathers nothing else."""
        self.tracer.told(by, tuple((f"{jid} traced", jid, seconds) for jid in jids))
        assert self.sent.pop() == (by, (TRACED, (), 0)), "it is told that this is known"

    def sleep(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        due = [timer for timer in self._timers if timer[0] <= self.now]
        self._timers = [timer for timer in self._timers if timer[0] > self.now]
        for _, act in due:
            act()

    def events(self, to: Incarnation = GATHERER) -> list[Event]:
        """What a router was told since the last time."""
        self.tracer.flush()
        told = [envelope for who, envelope in self.sent if who == to]
        self.sent = []
        return [event for _, bundle, _ in told for _, event in bundle]

    def decisions(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(hop, decision, details) since the last time."""
        return [(event.hop, event.decision, dict(event.details)) for event in self.events()]

    def _send(self, to: Incarnation, envelope: Envelope) -> bool:
        self.sent.append((to, envelope))
        return True

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._timers.append((self.now + seconds, act))
