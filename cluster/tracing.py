"""Tracing: what each process tells of the stanzas of an address, while an operator follows it (docs/tracing.md).

The router that the operator has asked gathers (`router/traces.py`). It tells every process which addresses are traced
(TRACE), and each of them tells it what it decides about every stanza from or to one (TRACED): addresses, ids, sizes and
decisions, never content. Where nothing is traced, `tracing` of a core (`Edge`, `Owner`) is None and nothing here runs.
Nobody waits for an event: what is too much is dropped, and counted. Without I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, Final, NamedTuple, ParamSpec

from cluster import logs, metrics
from cluster.wire import TRACED, Envelope, Incarnation
from xmpp import ns
from xmpp.jid import domain_of
from xmpp.stanza import IQ, MESSAGE, PRESENCE, Stanza, encode
from xmpp.xml import split_tag

log = logs.get_logger()

P = ParamSpec("P")

LATE_S: Final = 0.05  # timers may come early
FLUSH_S: Final = 0.05  # events of so long leave together
FLUSH_MOST: Final = 250  # of them; more are dropped
LONGEST: Final = 200  # characters of one value
LISTED: Final = 10  # values of one list
NAMES_MOST: Final = 12  # of one event
DETAILS_MOST: Final = 12

_results: Final = metrics.counter(
    "stentor_trace_events_total", "What this process had to tell of traced stanzas", {"result": ["sent", "dropped"]}
)
_sent, _dropped = _results.labels("sent"), _results.labels("dropped")
_traced: Final = metrics.gauge("stentor_traces", "Traces that this process knows of")

_KNOWN_NAMESPACES: Final = frozenset(value for name, value in vars(ns).items() if name.isupper())
_CARBONS: Final = (f'<sent xmlns="{ns.CARBONS}"'.encode(), f'<received xmlns="{ns.CARBONS}"'.encode())

Whose = frozenset[tuple[Incarnation, str]]  # the traces that a stanza belongs to: who gathers, id
NOBODYS: Final[Whose] = frozenset()


class Event(NamedTuple):
    """One decision about one stanza. `names` are what hops know the stanza by (`sent_name` and the like): whoever
    gathers finds by them which events are of one stanza. `details` are (key, value): str, int, float, or some str."""

    at: float  # Unix seconds, by the clock of the process
    hop: str
    names: tuple[str, ...]
    kind: int
    type: str | None
    id: str | None
    from_: str | None
    to: str | None
    decision: str
    details: tuple[tuple[str, Any], ...]


def sent_name(origin: int, n: int) -> str:
    """A stanza as number n of its sender (a session's sid, or what names an entity)."""
    return f"{origin:x}/{n}"


def given_name(sid: int, q: int) -> str:
    """A stanza as number q of those that a session was given."""
    return f"{sid:x}>{q}"


def row_name(bare: str, id_: int) -> str:
    """A stanza as a row of the log of an account, a room or a peer."""
    return f"{bare}#{abs(id_)}"


class Tracer:
    """What one process knows of traces, and what it has to tell of them."""

    def __init__(
        self, *, send: Callable[[Incarnation, Envelope], bool], is_congested: Callable[[Incarnation], bool],
        later: Callable[[float, Callable[[], None]], object], switch: Callable[[bool], None],
        now: Callable[[], float], clock: Callable[[], float],
    ) -> None:  # fmt: skip
        """`later` runs a function after some seconds; `switch` turns the hooks of this process on and off."""
        self._send = send
        self._is_congested = is_congested
        self._later = later
        self._switch = switch
        self._now = now  # monotonic seconds
        self._clock = clock  # Unix seconds
        self._of: dict[Incarnation, dict[str, tuple[str, float]]] = {}  # who gathers: id -> JID, until (monotonic)
        self._jids: dict[str, Whose] = {}
        self._pending: list[tuple[Whose, Event]] = []
        self._lost: dict[Incarnation, int] = {}
        self._is_flush_due = False

    @property
    def count(self) -> int:
        """How many traces there are."""
        return sum(map(len, self._of.values()))

    # --- which addresses

    def told(self, sender: Incarnation, traces: Iterable[tuple[str, str, float]]) -> None:
        """TRACE: everything that a router gathers from now on, as (id, bare JID, seconds left). It is told at once that
        this is known here, by no events."""
        now = self._now()
        known = {id_: (jid, now + seconds) for id_, jid, seconds in traces}
        if known:
            self._of[sender] = known
            for _, _, seconds in traces:
                self._later(seconds + LATE_S, self.expire)
        else:
            self._of.pop(sender, None)
        self._changed()
        self._send(sender, (TRACED, (), 0))

    def gone(self, peer: Incarnation) -> list[tuple[str, str]]:
        """A process is gone, and with it what it gathered: (id, JID) of each."""
        gone = self._of.pop(peer, None)
        if gone is None:
            return []
        self._changed()
        return [(id_, jid) for id_, (jid, _) in gone.items()]

    def expire(self) -> None:
        """Traces whose time is over end everywhere by themselves."""
        now = self._now()
        for who, traces in list(self._of.items()):
            left = {id_: trace for id_, trace in traces.items() if trace[1] > now}
            if len(left) < len(traces):
                self._of[who] = left
                if not left:
                    del self._of[who]
        self._changed()

    def _changed(self) -> None:
        jids: dict[str, set[tuple[Incarnation, str]]] = {}
        for who, traces in self._of.items():
            for id_, (jid, _) in traces.items():
                jids.setdefault(jid, set()).add((who, id_))
        self._jids = {jid: frozenset(whose) for jid, whose in jids.items()}
        _traced.set(self.count)
        self._switch(bool(jids))

    def whose(self, stanza: Stanza, *others: str | None) -> Whose:
        """The traces that a stanza belongs to: by its sender, its recipient, those of the message that it is a copy of
        (XEP-0280), and these other addresses."""
        found = NOBODYS
        jids = self._jids
        if not jids:
            return found
        for address in (stanza.from_, stanza.to, *others, *_copied(stanza)):
            if address is not None:
                bare = address.partition("/")[0]
                found |= jids.get(bare, NOBODYS)
                if "@" in bare:
                    found |= jids.get(domain_of(bare), NOBODYS)  # of another server or a component, as a whole
        return found

    # --- what is told

    def note(self, whose: Whose, hop: str, names: Sequence[str], stanza: Stanza, decision: str, **details: Any) -> None:
        """Something was decided about a stanza of these traces."""
        if len(self._pending) >= FLUSH_MOST:
            for who in {who for who, _ in whose}:
                self._lose(who, 1)
            return
        shown = tuple(
            (key, _bounded(value))
            for key, value in details.items()
            if value is not None and value != "" and value != ()
        )
        self._pending.append(
            (
                whose,
                Event(
                    self._clock(), hop, tuple(names[:NAMES_MOST]), stanza.kind, _cut(stanza.type), _cut(stanza.id),
                    _cut(stanza.from_), _cut(stanza.to), decision, shown,
                ),
            )
        )  # fmt: skip
        if not self._is_flush_due:
            self._is_flush_due = True
            self._later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """To each router that gathers, what is for it."""
        self._is_flush_due = False
        pending, self._pending = self._pending, []
        bundles: dict[Incarnation, list[tuple[list[str], Event]]] = {who: [] for who in self._lost}
        for whose, event in pending:
            ids: dict[Incarnation, list[str]] = {}
            for who, id_ in whose:
                ids.setdefault(who, []).append(id_)
            for who, of in ids.items():
                bundles.setdefault(who, []).append((of, event))
        for who, bundle in bundles.items():
            if who not in self._of:
                self._lost.pop(who, None)  # it is over
            elif self._is_congested(who) or not self._send(who, (TRACED, bundle, self._lost.get(who, 0))):
                self._lose(who, len(bundle))
            else:
                self._lost.pop(who, None)
                _sent.inc(len(bundle))

    def _lose(self, who: Incarnation, count: int) -> None:
        self._lost[who] = self._lost.get(who, 0) + count
        _dropped.inc(count)


def harmless(hook: Callable[P, None]) -> Callable[P, None]:
    """A hook whose bugs are its own: what it looks at goes its way all the same."""

    @wraps(hook)
    def guarded(*arguments: P.args, **named: P.kwargs) -> None:
        try:
            hook(*arguments, **named)
        except Exception:
            _dropped.inc()
            log.exception("trace_failed")

    return guarded


def _copied(stanza: Stanza) -> tuple[str | None, ...]:
    """Sender and recipient of the message that this is a copy of."""
    if stanza.kind != MESSAGE or not stanza.inner.startswith(_CARBONS):
        return ()
    copied = stanza.children()[0].find(f"{{{ns.FORWARD}}}forwarded/{{{ns.CLIENT}}}message")
    return () if copied is None else (copied.get("from"), copied.get("to"))


def is_copy(stanza: Stanza) -> bool:
    """Whether it is a copy for another device (XEP-0280), as far as one can see."""
    return stanza.kind == MESSAGE and stanza.inner.startswith(_CARBONS)


def size_of(stanza: Stanza) -> int:
    """Bytes on a stream, as we write it."""
    return len(encode(stanza))


def children_of(stanza: Stanza) -> tuple[str, ...]:
    """The names of the children. Of a namespace, only if this server knows it: a client could write anything there."""
    found = []
    for child in stanza.children()[: LISTED + 1]:
        namespace, local = split_tag(str(child.tag))
        is_told = stanza.kind in (IQ, PRESENCE) and namespace in _KNOWN_NAMESPACES
        found.append(f"{local[:40]} {namespace}" if is_told else local[:40])
    return tuple(found)


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _bounded(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _cut(value)
    items = tuple(_cut(str(item)) for item in value)
    return items if len(items) <= LISTED else (*items[:LISTED], f"{len(items) - LISTED} more")


def checked(fields: Any) -> Event | None:
    """An event as another process has sent it, within the bounds; None where no correct process sends this."""
    if not isinstance(fields, tuple) or len(fields) < len(Event._fields):
        return None
    event = Event(*fields[: len(Event._fields)])
    texts = (event.type, event.id, event.from_, event.to)
    if (
        type(event.at) is not float
        or not 0 <= event.at < 2**40  # neither nan nor infinite
        or not _is_text(event.hop)
        or type(event.names) is not tuple
        or len(event.names) > NAMES_MOST
        or not all(type(name) is str and len(name) <= 4_096 for name in event.names)
        or event.kind not in (MESSAGE, PRESENCE, IQ)
        or not all(text is None or _is_text(text) for text in texts)
        or not _is_text(event.decision)
        or type(event.details) is not tuple
        or len(event.details) > DETAILS_MOST
        or not all(_is_detail(detail) for detail in event.details)
    ):
        return None
    return event


def _is_text(value: object) -> bool:
    return type(value) is str and len(value) <= LONGEST


def _is_detail(detail: object) -> bool:
    if type(detail) is not tuple or len(detail) != 2 or not _is_text(detail[0]):
        return False
    value = detail[1]
    if type(value) is tuple:
        return len(value) <= LISTED + 1 and all(map(_is_text, value))
    if type(value) is float:
        return abs(value) < 2**40
    return type(value) in (bool, int) or _is_text(value)
