"""The traces that this router gathers (docs/tracing.md): what every process tells of them, for whoever asked.

Events that are of one stanza get one number, by the names that the hops know it by. They are shown a moment after they
came, in the order of their times. A trace ends by itself; nothing of it is kept, but for a minute to be read.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from cluster import logs, metrics
from cluster.trace_words import words
from cluster.tracing import Event, Tracer, checked
from cluster.wire import TRACE, Envelope, Incarnation, node_of
from xmpp.stanza import NAMES as KINDS

log = logs.get_logger()

AT_ONCE: Final = 5  # traces in a cluster
LONGEST_S: Final = 3_600
EVENTS: Final = 5_000  # of one trace; those that were read are not kept
HELD_S: Final = 0.4  # until others that were before it have come, too
READABLE_S: Final = 60.0  # after its end
PAGE: Final = 500
TELL_AGAIN_S: Final = 5.0
TOLD_S: Final = 1.0  # how long the beginning of a trace waits for processes that are busy, or about to be missed
WAIT_S: Final = 2.0  # an answer with nothing in it takes so long; below what a router waits for another
LOOK_S: Final = 0.1
STANZAS: Final = 50_000  # names that are remembered
WEAK_S: Final = 60.0  # so long, an id of a client's is taken for the same stanza's
REASONS: Final = ("time", "stopped", "drain")

_started: Final = metrics.counter("stentor_traces_started_total", "Traces that operators have begun at this router")
_ended: Final = metrics.counter(
    "stentor_traces_ended_total", "Traces of this router that have ended, by why", {"reason": list(REASONS)}
)


class TooMany(Exception):
    """So many run already."""


class _Stanzas:
    """Which stanza an event is of, as a number, and when it was first seen."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._weak: dict[tuple[int, str | None, str], tuple[int, float]] = {}  # kind, sender, id
        self._since: dict[int, float] = {}
        self._last = 0

    def number(self, event: Event) -> tuple[int, float]:
        """Its number, and seconds since the stanza entered."""
        found = next((number for name in event.names if (number := self._numbers.get(name)) is not None), None)
        asked_by = event.to if event.type in ("error", "result") else event.from_
        weak = (event.kind, asked_by, event.id) if event.id else None
        if found is None and weak is not None and weak in self._weak:
            known, at = self._weak[weak]
            found = known if event.at - at < WEAK_S else None
        if found is None:
            found = self._last = self._last + 1
        for name in event.names:
            self._numbers[name] = found
        if weak is not None:
            self._weak[weak] = (found, event.at)
        since = self._since.setdefault(found, event.at)
        for remembered in (self._numbers, self._weak, self._since):
            _trim(remembered)
        return found, event.at - since


def _trim(remembered: dict[Any, Any]) -> None:
    while len(remembered) > STANZAS:
        del remembered[next(iter(remembered))]


class Gathered:
    """One trace."""

    def __init__(self, id: str, jid: str, by: str, now: float, seconds: float) -> None:
        self.id = id
        self.jid = jid
        self.by = by
        self.until = now + seconds  # monotonic
        self.over_at: float | None = None
        self.count = 0  # events that have come
        self.dropped = 0
        self._fresh: list[tuple[float, str, str, Event]] = []  # when it came, node, role
        self._shown: list[dict[str, Any]] = []
        self._first = 1  # the number of the first one in `_shown`
        self._stanzas = _Stanzas()

    def add(self, now: float, node: str, role: str, event: Event) -> None:
        """An event has come."""
        if len(self._fresh) + len(self._shown) >= EVENTS:
            self.dropped += 1
            return
        self.count += 1
        self._fresh.append((now, node, role, event))

    def page(self, now: float, after: int) -> list[dict[str, Any]]:
        """Events above this number, in order; those up to it are forgotten."""
        self._fresh.sort(key=lambda fresh: fresh[3].at)
        until = now if self.over_at is not None else now - HELD_S
        count = next((index for index in range(len(self._fresh), 0, -1) if self._fresh[index - 1][0] <= until), 0)
        due, self._fresh = self._fresh[:count], self._fresh[count:]
        for _, node, role, event in due:
            self._shown.append(self._show(node, role, event))
        read = max(0, min(after - self._first + 1, len(self._shown)))
        del self._shown[:read]
        self._first += read
        return self._shown[:PAGE]

    def _show(self, node: str, role: str, event: Event) -> dict[str, Any]:
        number, since_s = self._stanzas.number(event)
        details = dict(event.details)
        return {
            "number": self._first + len(self._shown), "at": event.at, "since_ms": round(since_s * 1000, 1),
            "node": node, "role": role, "hop": event.hop, "stanza": number, "kind": KINDS[event.kind],
            "type": event.type, "id": event.id, "from": event.from_, "to": event.to, "decision": event.decision,
            "details": details, "text": words(event.decision, details),
        }  # fmt: skip


class Traces:
    """All traces of this router."""

    def __init__(
        self, me: Incarnation, tracer: Tracer, send: Callable[[Incarnation, Envelope], bool],
        peers: Callable[[], Iterable[Incarnation]], role_of: Callable[[Incarnation], str], now: Callable[[], float],
    ) -> None:  # fmt: skip
        self._me = me
        self._tracer = tracer
        self._send = send
        self._peers = peers  # all living processes but this one
        self._role_of = role_of
        self._now = now  # monotonic seconds
        self._traces: dict[str, Gathered] = {}
        self._told_at = 0.0
        self._untold: set[Incarnation] = set()  # processes that have not said yet that they know

    # --- what operators ask

    def start(self, jid: str, seconds: float, by: str) -> Gathered:
        """Begin one. Raises TooMany."""
        self.tick()
        if self._tracer.count >= AT_ONCE:
            raise TooMany
        id_ = f"{node_of(self._me)}-{secrets.token_hex(4)}"
        trace = self._traces[id_] = Gathered(id_, jid, by, self._now(), min(seconds, LONGEST_S))
        _started.inc()
        log.info("trace_started", trace=id_, account=jid, by=by, seconds=round(seconds))
        self._tell()
        return trace

    async def wait_told(self) -> None:
        """Until every process knows what is traced; a moment at most."""
        give_up_at = self._now() + TOLD_S
        while self._untold and self._now() < give_up_at:  # noqa: ASYNC110  # bounded
            await asyncio.sleep(LOOK_S / 10)

    def stop(self, id_: str, by: str) -> bool:
        """End one; False where there is none of this id that runs."""
        trace = self._traces.get(id_)
        if trace is None or trace.over_at is not None:
            return False
        self._end(trace, "stopped", by)
        return True

    async def page(self, id_: str, after: int) -> dict[str, Any] | None:
        """What has come of a trace above this number, as soon as there is something, or a moment later; None where
        there is none of this id (any more)."""
        give_up_at = self._now() + WAIT_S
        while True:
            page = self._page(id_, after)
            if page is None or page["events"] or page["is_over"] or self._now() >= give_up_at:
                return page
            await asyncio.sleep(LOOK_S)

    def _page(self, id_: str, after: int) -> dict[str, Any] | None:
        self.tick()
        trace = self._traces.get(id_)
        if trace is None:
            return None
        events = trace.page(self._now(), after)
        is_over = trace.over_at is not None and len(events) < PAGE
        return {"events": events, "dropped": trace.dropped, "is_over": is_over}

    def list_(self) -> list[dict[str, Any]]:
        """Those that run."""
        self.tick()
        now = self._now()
        return [
            {"id": trace.id, "jid": trace.jid, "by": trace.by, "seconds_left": max(0, round(trace.until - now)),
             "events": trace.count}
            for trace in self._traces.values() if trace.over_at is None
        ]  # fmt: skip

    def end_all(self) -> None:
        """This router hands everything over and ends."""
        for trace in list(self._traces.values()):
            if trace.over_at is None:
                self._end(trace, "drain", "")

    # --- what the bus brings

    def told(self, sender: Incarnation, events: Any, dropped: Any) -> None:
        """TRACED: what another process, which may be a captured one, tells of them."""
        self._untold.discard(sender)
        running = {trace.id: trace for trace in self._traces.values() if trace.over_at is None}
        now, node, role = self._now(), node_of(sender), self._role_of(sender)
        for bundle in events if isinstance(events, Sequence) else ():
            if not running or not isinstance(bundle, Sequence) or len(bundle) != 2:
                continue
            ids, event = bundle[0], checked(bundle[1])
            for trace in [running[id_] for id_ in running if isinstance(ids, Sequence) and id_ in ids]:
                if event is None:
                    trace.dropped += 1
                else:
                    trace.add(now, node, role, event)
        if isinstance(dropped, int) and 0 < dropped < 2**31:
            for trace in running.values():
                trace.dropped += dropped

    def peer_up(self, peer: Incarnation) -> None:
        """A process is there (again), and has to know."""
        running = self._running()
        if running:
            self._send(peer, (TRACE, running))

    def tick(self) -> None:
        """About once a second: what is over."""
        now = self._now()
        for trace in list(self._traces.values()):
            if trace.over_at is None and now >= trace.until:
                self._end(trace, "time", "")
            elif trace.over_at is not None and (now - trace.over_at >= READABLE_S):
                del self._traces[trace.id]
        if now - self._told_at >= TELL_AGAIN_S and (running := self._running()):
            self._told_at = now
            for peer in self._peers():
                self._send(peer, (TRACE, running))  # one that had believed this router dead has forgotten it

    def _end(self, trace: Gathered, reason: str, by: str) -> None:
        trace.over_at = self._now()
        _ended.labels(reason).inc()
        log.info("trace_ended", trace=trace.id, account=trace.jid, reason=reason, by=by or trace.by, count=trace.count)
        self._tell()

    def _running(self) -> tuple[tuple[str, str, float], ...]:
        now = self._now()
        return tuple(
            (trace.id, trace.jid, trace.until - now) for trace in self._traces.values() if trace.over_at is None
        )

    def _tell(self) -> None:
        running = self._running()
        self._tracer.told(self._me, running)
        peers = list(self._peers())
        self._untold = set(peers)
        self._told_at = self._now()
        for peer in peers:
            self._send(peer, (TRACE, running))

    def methods(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        """What other routers ask, for operators who have asked them."""
        return {"traces.page": self.page, "traces.stop": self._stop, "traces.list": self._list}

    async def _stop(self, id_: str, by: str) -> bool:
        return self.stop(id_, by)

    async def _list(self) -> list[dict[str, Any]]:
        return self.list_()
