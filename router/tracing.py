"""What a router tells of traced stanzas (cluster/tracing.py), read off its turns when they are decided and released.

The owner calls `accepted`, `decided` and `released` while something is traced; the steps of the pipelines are watched
as long (`Pipeline.watch`), because what a step refuses tells strangers nothing of why, and operators want to know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from cluster.shards import ShardMap, shard_of
from cluster.tracing import Tracer, Whose, given_name, harmless, is_copy, row_name, sent_name
from cluster.wire import Epoch, Incarnation, node_of
from router.batch import Item, Queue
from router.entity import Entity, Session
from router.feature import Stage, Step
from router.features.archive import is_wanted, is_worth_keeping
from router.pipeline import Pipeline, unwatched
from router.rooms.fanout import Cast, Fanout
from router.turn import Turn
from storage.log import ARCHIVE, GROUP, OUTBOUND, QUEUE, Row
from xmpp import ns
from xmpp.errors import StanzaError
from xmpp.jid import bare_of, domain_of
from xmpp.stanza import HINT_NO_PERMANENT_STORE, HINT_NO_STORE, IQ, MESSAGE, Stanza
from xmpp.xml import parse_children, split_tag, text_of

if TYPE_CHECKING:
    from router.peers import Line

ASKED_MOST: Final = 1_000
WAITING_TOLD: Final = 50  # stanzas of one line, for each try to reach a server
STANZAS_TOLD: Final = 20  # of one event of a room
OCCUPANTS_TOLD: Final = 10  # whose numbers are told of one event of a room; the others are counted
_SCREENS: Final = (Stage.OUT_SCREEN, Stage.IN_SCREEN)
_BLOCKERS: Final = {  # feature -> what stands in the way, going out and coming in
    "blocking": ("the sender has blocked this address", "the recipient has blocked the sender"),
    "restrictions": (
        "the sender is banned, in quarantine or a guest, who may not",
        "the recipient is banned, in quarantine or a guest: not there for the sender",
    ),
    "strangers": (
        "the sender has written to too many strangers",
        "the recipient, or this server, takes no more from strangers (abuse.strangers)",
    ),
}  # fmt: skip
_KEPT_AS: Final = {ARCHIVE: "archive", QUEUE: "queue", OUTBOUND: "outbound", GROUP: "group"}
_CONDITIONS: Final = frozenset(fault.condition for fault in StanzaError.__subclasses__())
_PUSH: Final = f"{ns.PUBSUB} pubsub"


class Traced(Protocol):
    """What is needed of the owner."""

    me: Incarnation
    map: ShardMap
    tenures: list[Epoch | None]
    queue: Queue
    pipeline: Pipeline


class _Subject(NamedTuple):
    """A traced stanza that a turn is about; `is_new`: it has come with this turn. `names`: what it is known by besides
    what the turn is."""

    stanza: Stanza
    whose: Whose
    is_new: bool = False
    names: tuple[str, ...] = ()


class _Stop(NamedTuple):
    """A step has ended the way of a stanza: it has dealt with it, or refuses it."""

    stanza: Stanza
    feature: str
    stage: Stage
    fault: StanzaError | None


class RouterTracing:
    """The hooks of one owner, while something is traced."""

    def __init__(self, tracer: Tracer, owner: Traced, fanout: Fanout, seconds: Any) -> None:
        """`seconds` is a monotonic clock."""
        self._tracer = tracer
        self._owner = owner
        self._fanout = fanout
        self._seconds = seconds
        self._begun: dict[Turn, list[_Subject]] = {}
        self._stops: dict[Turn, list[_Stop]] = {}
        # Stanzas that wait for an answer of the database or another router, by their identity, and their names.
        self._asked: dict[int, tuple[Stanza, tuple[str, ...]]] = {}
        # Items with traced stanzas that wait for their commit: since when, and the stanzas of each turn.
        self._items: dict[Item, tuple[float, dict[Turn, list[_Subject]]]] = {}
        owner.pipeline.watch(self._watched)

    def close(self) -> None:
        """Nothing is traced any more."""
        self._owner.pipeline.watch(unwatched)

    def _watched(self, name: str, stage: Stage, step: Step) -> Step:
        def watched(turn: Turn, stanza: Stanza) -> bool | Stanza | None:
            try:
                result = step(turn, stanza)
            except StanzaError as fault:
                self._stopped(turn, _Stop(stanza, name, stage, fault))
                raise
            if result is True:
                self._stopped(turn, _Stop(stanza, name, stage, None))
            return result

        return watched

    def _stopped(self, turn: Turn, stop: _Stop) -> None:
        if turn in self._begun:
            self._stops.setdefault(turn, []).append(stop)

    # --- a turn begins

    @harmless
    def accepted(self, turn: Turn, *bundle: Stanza) -> None:
        """A turn begins with these stanzas."""
        subjects = [_Subject(stanza, whose, True) for stanza in bundle if (whose := self._tracer.whose(stanza))]
        if subjects:
            self._begun[turn] = subjects

    # --- it is decided

    @harmless
    def decided(self, item: Item) -> None:
        """All turns of an item have run, and are routed."""
        begun, self._begun = self._begun, {}
        stops, self._stops = self._stops, {}
        traced: dict[Turn, list[_Subject]] = {}
        for turn in item.turns():
            subjects = begun.get(turn) or self._go_on(turn)
            for subject in subjects:
                stop = next((stop for stop in stops.get(turn, ()) if _is_same(stop.stanza, subject.stanza)), None)
                self._tell(turn, subject, stop, len(subjects))
            if subjects:
                traced[turn] = subjects
            if turn is item.main:
                self._tell_routes(item, subjects)
            self._tell_pushes(turn, subjects)
        if traced:
            self._items[item] = (self._seconds(), traced)

    def _go_on(self, turn: Turn) -> list[_Subject]:
        """A later turn of a stanza, which has waited for an answer."""
        stanza = turn.stanza
        if stanza is None or not (whose := self._tracer.whose(stanza)):
            return []
        _, names = self._asked.pop(id(stanza), (stanza, ()))
        return [_Subject(stanza, whose, names=names)]

    def _tell(self, turn: Turn, subject: _Subject, stop: _Stop | None, of: int) -> None:
        if subject.is_new:
            session = turn.session
            facts: dict[str, Any] = {"owner": turn.entity.bare}
            if session is not None:
                facts = {"n": turn.n, "session": session.jid, "again": turn.is_again or None}
            self._note(turn, subject, "accepted", **facts)
        error = _error_for(turn, subject.stanza)
        is_refused = True
        if stop is not None and stop.stage in _SCREENS and stop.feature in _BLOCKERS:
            is_in = stop.stage is Stage.IN_SCREEN
            told = (error or (None,))[0] or "nothing"
            self._note(turn, subject, "blocked", reason=_BLOCKERS[stop.feature][is_in], told=told)
        elif error is not None:
            condition, text = error
            by = stop.feature if stop is not None else ""
            self._note(turn, subject, "bounced", condition=condition, text=_words(subject.stanza, text), by=by)
        else:
            is_refused = False
        rows = [row for row in turn.rows if of == 1 or _is_same(row.stanza, subject.stanza)]
        for row in rows:
            self._note_row(turn, subject, row)
        if turn.requests and not is_refused:
            self._note(turn, subject, "asked")
            if len(self._asked) < ASKED_MOST:
                self._asked[id(subject.stanza)] = (subject.stanza, (*_names(turn), *subject.names))
        if not subject.is_new or is_refused:
            return
        is_message = subject.stanza.kind == MESSAGE and subject.stanza.type != "error"
        if not rows and is_message and (why := _why_not_kept(turn, subject.stanza)):
            self._note(turn, subject, "unarchived", reason=why)
        if stop is not None and stop.feature == "offline":
            self._note(turn, subject, "offline", id=turn.entity.offline[-1], count=len(turn.entity.offline))
        elif stop is not None and stop.feature == "delivery" and stop.stage is Stage.IN_FALLBACK:
            self._note(turn, subject, "ended", reason=f"nobody takes it, and type {subject.stanza.type} is not kept")
        elif not _does_anything(turn):
            reason = f"dealt with by {stop.feature}" if stop is not None else "there is nobody to give it to"
            self._note(turn, subject, "ended", reason=reason)

    def _note_row(self, turn: Turn, subject: _Subject, row: Row) -> None:
        names = (*_names(turn), *subject.names, row_name(turn.entity.bare, row.id))
        kept = _KEPT_AS.get(row.class_, "")
        self._tracer.note(subject.whose, _hop(turn), names, subject.stanza, "archived", id=row.id, kept=kept)

    def _tell_routes(self, item: Item, subjects: Sequence[_Subject]) -> None:
        turn = item.main
        here = {part.entity.bare for part in item.parts}
        for stanza, recipients in turn.sends:
            subject = next((subject for subject in subjects if _is_same(subject.stanza, stanza)), None)
            if subject is None:
                if stanza.to is None:
                    recipients = tuple(to for to in recipients if self._tracer.whose(stanza, to))
                whose = self._tracer.whose(stanza, *recipients[:1])
                if not whose or not recipients or _is_push(turn, stanza):
                    continue
                subject = _Subject(stanza, whose)
            places = []
            for to in recipients:
                place = next((bare for bare in (to, domain_of(to)) if bare in here or bare in item.forwards), None)
                if place is not None:
                    owner = self._owner.me if place in here else self._owner.map.owners[shard_of(place)]
                    places.append(f"{place} at {node_of(owner) if owner is not None else 'no router yet'}")
            if places:
                condition, text = _error_of(stanza) or ("", "")
                decision = "returned" if condition and turn.entity.is_peer and not turn.session else "routed"
                self._note(
                    turn, subject, decision, to=places, condition=condition,
                    reason=_words(stanza, text) if decision == "returned" else "",
                )  # fmt: skip

    def _tell_pushes(self, turn: Turn, subjects: Sequence[_Subject]) -> None:
        for stanza, _ in turn.sends:
            if _is_push(turn, stanza):
                about = subjects or [_Subject(stanza, self._tracer.whose(stanza))]
                for subject in about[:1]:
                    if subject.whose:
                        self._note(turn, subject, "pushed", service=domain_of(stanza.to or ""))

    # --- it is released

    @harmless
    def released(self, item: Item) -> None:
        """What an item does is durable, and has gone out."""
        since, traced = self._items.pop(item, (0.0, {}))
        main = item.main
        first = next(iter(traced.items()), None)
        if item.is_waiting and first is not None and any(turn.rows or turn.writes for turn in item.turns()):
            turn, subjects = first
            waited_ms = round((self._seconds() - since) * 1000, 1)
            for subject in subjects:
                self._note(turn, subject, "committed", items=self._owner.queue.in_batch, ms=waited_ms)
        if self._is_held(main.entity):
            for to, bundle in item.forwards.items():
                for stanza in bundle:
                    if whose := self._tracer.whose(stanza, to):
                        owner = self._owner.map.owners[shard_of(to)]
                        router = node_of(owner) if owner is not None else "nobody yet: it waits here"
                        self._note(main, _Subject(stanza, whose), "forwarded", owner=to, router=router)
        for turn in item.turns():
            if self._is_held(turn.entity):
                self._given(turn, traced.get(turn, []))

    def _is_held(self, entity: Entity) -> bool:
        return self._owner.tenures[entity.shard] == entity.epoch

    def _given(self, turn: Turn, subjects: list[_Subject]) -> None:
        """What sessions, lines and occupants were given."""
        groups: dict[tuple[str, int], tuple[_Subject, list[str], list[str]]] = {}
        for session, stanza, id_ in turn.deliveries:
            subject, decision, names = self._about(turn, subjects, session, stanza, id_)
            if subject is None:
                continue
            q = _number_of(session, stanza)
            if q is None:
                decision = "held"
            else:
                names.append(given_name(session.sid, q))
                if session.place is None:
                    decision = "kept"
            _, known, sessions = groups.setdefault((decision, id(subject.stanza)), (subject, [], []))
            known += names
            sessions.append(_shown(session))
        for (decision, _), (subject, names, sessions) in groups.items():
            unique = tuple(dict.fromkeys(names))
            is_own = not any(subject is other for other in subjects) and not turn.entity.is_peer
            hop = "recipient" if is_own else _hop(turn)  # not what the turn is about: it comes from the queue, say
            self._tracer.note(subject.whose, hop, unique, subject.stanza, decision, sessions=sessions)
        for line, waiting in turn.waits:
            if whose := self._tracer.whose(waiting.stanza):
                subject = _Subject(waiting.stanza, whose)
                self._note(turn, subject, "waits", local=line.local, count=len(line.waiting), problem=line.problem)
        for room, event in turn.casts:
            if isinstance(event, Cast) and subjects and (event.parts or event.answers):
                self._note_cast(turn, subjects[0], room, event)

    def _about(
        self, turn: Turn, subjects: list[_Subject], session: Session, stanza: Stanza, id_: int | None
    ) -> tuple[_Subject | None, str, list[str]]:
        """Which traced stanza a delivery belongs to, as what, and what else it is known by."""
        row = [] if id_ is None else [row_name(session.bare, id_)]
        for subject in subjects:
            if _is_same(subject.stanza, stanza) and subject.stanza.type == stanza.type:
                return subject, "delivered", [*_names(turn), *subject.names, *row]
            if _is_answer(subject.stanza, stanza):
                return subject, "answered", [*_names(turn), *subject.names]
        if subjects and is_copy(stanza) and stanza.from_ == turn.entity.bare:
            return subjects[0], "copied", [*_names(turn), *row]
        whose = self._tracer.whose(stanza, session.bare)
        names = row or (list(_names(turn)) if subjects else [])
        return (_Subject(stanza, whose) if whose else None), "delivered", names

    def _note_cast(self, turn: Turn, subject: _Subject, room: Any, event: Cast) -> None:
        locals_ = [occupant for occupant in room.occupants.values() if occupant.is_local]
        routers = {self._fanout.router_of(occupant.jid) for occupant in locals_}
        names = [*_names(turn), *subject.names]
        if event.id is not None:
            names += [row_name(room.bare, event.id), sent_name(room.origin, event.id)]
        self._tracer.note(
            subject.whose, _hop(turn), names, subject.stanza, "told", id=event.id,
            occupants=len(room.occupants) if event.parts else len(event.answers),
            routers=sorted(node_of(router) for router in routers if router is not None),
        )  # fmt: skip

    @harmless
    def cast(self, room: str, sessions: Sequence[Session], stanzas: Sequence[Stanza], id_: int | None) -> None:
        """Sessions of this router were given what was said or has happened in a room."""
        for index, stanza in enumerate(stanzas[-STANZAS_TOLD:], 1):
            # What was said before is shown to who comes in: it is not of this event.
            is_event = index == len(stanzas[-STANZAS_TOLD:]) or stanza.kind != MESSAGE
            self._cast(room, sessions, stanza, id_ if is_event else None)

    def _cast(self, room: str, sessions: Sequence[Session], stanza: Stanza, id_: int | None) -> None:
        whose = self._tracer.whose(stanza)
        told = list(sessions) if whose else [one for one in sessions if self._tracer.whose(stanza, one.bare)]
        if not told:
            return
        if not whose:
            whose = self._tracer.whose(stanza, *(session.bare for session in told))
        listed = told[:OCCUPANTS_TOLD]
        names = [] if id_ is None else [row_name(room, id_)]
        names += [given_name(one.sid, q) for one in listed if one.place and (q := _number_of(one, stanza)) is not None]
        shown = [_shown(session) for session in told]
        self._tracer.note(whose, "occupants", names, stanza, "delivered", sessions=shown)

    # --- what does not go on

    @harmless
    def undone(self, item: Item, reason: str) -> None:
        """Nothing of an item happens."""
        _, traced = self._items.pop(item, (0.0, {}))
        for turn, subjects in traced.items():
            for subject in subjects:
                self._note(turn, subject, "undone", reason=reason)

    @harmless
    def waiting(self, entity: Entity, line: Line, decision: str, **details: Any) -> None:
        """What waits for another server, and what is done about it."""
        for one in islice(line.waiting, WAITING_TOLD):
            if whose := self._tracer.whose(one.stanza):
                names = () if one.id is None else (row_name(entity.bare, one.id),)
                self._tracer.note(whose, "peer", names, one.stanza, decision, **details)

    def _note(self, turn: Turn, subject: _Subject, decision: str, **details: Any) -> None:
        names = (*_names(turn), *subject.names)
        self._tracer.note(subject.whose, _hop(turn), names, subject.stanza, decision, **details)


def _hop(turn: Turn) -> str:
    entity = turn.entity
    if entity.is_room:
        return "room"
    if entity.is_service or entity.is_proxy:
        return "service"
    if entity.is_peer:
        return "peer"
    if turn.session is not None:
        return "sender"
    return "recipient" if turn.stanza is not None else "account"


def _names(turn: Turn) -> tuple[str, ...]:
    """What the stanza of a turn, and what the turn itself sends, are known by."""
    own = (turn.origin, turn.n)
    return (sent_name(*turn.key),) if turn.key == own else (sent_name(*turn.key), sent_name(*own))


def _is_same(stanza: Stanza, other: Stanza) -> bool:
    """Whether both are the same stanza, which may have been changed on its way."""
    return stanza.kind == other.kind and stanza.id == other.id and stanza.from_ == other.from_


def _is_answer(request: Stanza, stanza: Stanza) -> bool:
    return (
        stanza.type in ("result", "error")
        and request.type not in ("result", "error")
        and (stanza.id, stanza.to, stanza.from_) == (request.id, request.from_, request.to)
    )


def _is_push(turn: Turn, stanza: Stanza) -> bool:
    """Whether the account tells a push service (`router/features/push.py`)."""
    return (
        stanza.kind == IQ and stanza.payload == _PUSH and stanza.from_ == turn.entity.bare
        and (stanza.id or "").startswith("push-")
    )  # fmt: skip


def _given_by(turn: Turn) -> Iterator[Stanza]:
    yield from (stanza for _, stanza, _ in turn.deliveries)
    yield from (stanza for stanza, _ in turn.sends)


def _error_for(turn: Turn, stanza: Stanza) -> tuple[str, str] | None:
    """The error by which a turn answers its stanza: condition, text."""
    errors = (error for error in _given_by(turn) if error.type == "error" and _is_answer(stanza, error))
    return next((_error_of(error) for error in errors), None)


def _error_of(stanza: Stanza) -> tuple[str, str] | None:
    """The condition and the text of an error stanza."""
    if stanza.type != "error":
        return None
    condition, text = "undefined-condition", ""
    for error in parse_children(stanza.inner):
        if split_tag(str(error.tag)) != (ns.CLIENT, "error"):
            continue
        for child in error:
            namespace, local = split_tag(str(child.tag))
            if namespace == ns.STANZAS and local == "text":
                text = text_of(child)
            elif namespace == ns.STANZAS and local in _CONDITIONS:
                condition = local
    return condition, text


def _words(stanza: Stanza, text: str) -> str:
    """What this server says of an error, without what it quotes; of an IQ nothing: it may be about a form."""
    if stanza.kind == IQ:
        return ""
    before, _, rest = text.partition("'")
    _, quote, after = rest.rpartition("'")
    return f"{before}'…'{after}" if quote else text


def _why_not_kept(turn: Turn, message: Stanza) -> str:
    """Why a message has no row in this log; "" where none is to be expected."""
    entity = turn.entity
    if message.flags & HINT_NO_STORE:
        return "hint no-store (XEP-0334)"
    if message.flags & HINT_NO_PERMANENT_STORE:
        return "hint no-permanent-store (XEP-0334)"
    if entity.is_peer:
        return "" if turn.session is not None else "of the moment only"
    if entity.is_room:
        return "nothing in it that is worth keeping"
    if entity.is_service or entity.is_proxy:
        return ""
    if not entity.exists:
        return "there is no such account"
    if not is_worth_keeping(message):
        is_of_type = message.type in ("groupchat", "headline", "error")
        return f"type {message.type}" if is_of_type else "nothing in it that is worth keeping"
    other = message.to if turn.session is not None else message.from_
    if turn.session is not None and bare_of(other or entity.bare) == entity.bare:
        return "to the account itself: kept where it arrives"
    if not is_wanted(turn, other or entity.bare):
        return "the preferences of the account (XEP-0441), or archive.default"
    return ""


def _does_anything(turn: Turn) -> bool:
    return any((
        turn.rows, turn.deliveries, turn.sends, turn.writes, turn.requests, turn.casts, turn.waits, turn.touched,
        turn.closing, turn.timers,
    ))  # fmt: skip


def _number_of(session: Session, stanza: Stanza) -> int | None:
    """The number that the session's delivery of this very stanza has; None if it was held back."""
    held: Iterable[Stanza] = (session.held_back or {}).values()
    if any(other is stanza for other in held):
        return None
    return next((q for q, _, other in reversed(session.unacknowledged) if other is stanza), None)


def _shown(session: Session) -> str:
    """A session, and the process that holds its stream."""
    of = session.bare if session.entity.is_peer else session.jid
    return f"{of} on {node_of(session.place)}" if session.place is not None else f"{of}, which has no stream"
