"""The order in which a stanza meets the features, in one place, and what a refusal becomes.

`outgoing` runs at the sender's entity, `incoming` at the recipient's; between them the stanza travels as
`docs/delivery.md` says. Which step comes when is told by `Stage` and, inside a stage, by `features.ALL`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from prometheus_client import Counter

from router.events import Event
from router.feature import At, EventHandler, Feature, IqHandler, Stage, Step
from router.turn import Turn
from xmpp import ns
from xmpp.errors import (
    BadRequest,
    FeatureNotImplemented,
    InternalServerError,
    JidMalformed,
    ServiceUnavailable,
    StanzaError,
)
from xmpp.stanza import BAD_TO, IQ, MESSAGE, Stanza

log = logging.getLogger(__name__)

turn_failures = Counter("stentor_router_turn_failures_total", "Turns that failed by a bug of the server")

_FIRST_INCOMING: Final = Stage.IN_SCREEN

# What others than clients may ask a served domain.
ASKED_OF_SERVER: Final = frozenset(
    {
        f"{ns.DISCO_INFO} query", f"{ns.DISCO_ITEMS} query", f"{ns.PING} ping", f"{ns.VERSION} query",
        f"{ns.TIME} time", f"{ns.LAST} query",
    }
)  # fmt: skip


Watch = Callable[[str, Stage, Step], Step]  # of a feature's step makes the same one, watched


def _ordered(steps: Iterable[tuple[str, Stage, Step]], watch: Watch) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Outgoing and incoming steps, by stage; the sort is stable, so registration order decides inside a stage."""
    by_stage = sorted(((stage, watch(name, stage, step)) for name, stage, step in steps), key=lambda item: item[0])
    outgoing = tuple(step for stage, step in by_stage if stage < _FIRST_INCOMING)
    incoming = tuple(step for stage, step in by_stage if stage >= _FIRST_INCOMING)
    return outgoing, incoming


def unwatched(name: str, stage: Stage, step: Step) -> Step:
    """A step as it is."""
    return step


class Pipeline:
    """All features' steps, composed at start, and anew when somebody begins or ends to watch them."""

    def __init__(self, features: Sequence[Feature], domains: frozenset[str]) -> None:
        self.features = features
        self.bounced = [0, 0, 0, 0]  # stanzas refused, by kind (xmpp/stanza.py)
        self.failed = [0, 0, 0, 0]  # stanzas that a bug of ours ended
        self._domains = domains
        self.watch(unwatched)
        self._iq_handlers: dict[tuple[At, str, str], IqHandler] = {}
        self._namespaces: dict[At, set[str]] = {at: set() for at in At}
        self._events: dict[type[Event], list[EventHandler]] = {}
        for feature in features:
            for key, handler in feature.iq_handlers.items():
                assert key not in self._iq_handlers, f"two features answer {key}"
                self._iq_handlers[key] = handler
                self._namespaces[key[0]].add(key[2])
            for event, on_event in feature.event_handlers:
                self._events.setdefault(event, []).append(on_event)

    def watch(self, watch: Watch) -> None:
        """From now on, the steps are what this makes of them (`router/tracing.py`)."""
        features = self.features
        self._message_out, self._message_in = _ordered(((f.name, *s) for f in features for s in f.message_steps), watch)
        self._presence_out, self._presence_in = _ordered(
            ((f.name, *s) for f in features for s in f.presence_steps), watch
        )
        self._iq_out, self._iq_in = _ordered(((f.name, *s) for f in features for s in f.iq_steps), watch)

    def outgoing(self, turn: Turn, stanza: Stanza) -> None:
        """A stanza that one of the entity's own sessions sent (RFC 6120, 10.3 and 10.5)."""
        try:
            if stanza.flags & BAD_TO:
                raise JidMalformed("The 'to' attribute is not a JID.")
            if stanza.kind == MESSAGE:
                self._outgoing_message(turn, stanza)
            elif stanza.kind == IQ:
                self._outgoing_iq(turn, stanza)
            else:
                _run(self._presence_out, turn, stanza)
            if turn.events:
                self.tell(turn)
        except StanzaError as fault:
            self.bounced[stanza.kind] += 1
            refuse(turn, stanza, fault)
        except Exception as bug:
            self.failed[stanza.kind] += 1
            self.record_bug(bug)
            refuse(turn, stanza, InternalServerError())

    def incoming(self, turn: Turn, stanza: Stanza) -> None:
        """A stanza that arrived for the entity, from itself, another entity or another server (RFC 6121, 8)."""
        try:
            if stanza.kind == MESSAGE:
                _run(self._message_in, turn, stanza)
            elif stanza.kind == IQ:
                self._incoming_iq(turn, stanza)
            else:
                _run(self._presence_in, turn, stanza)
            if turn.says:
                self._say(turn)
            if turn.events:
                self.tell(turn)
        except StanzaError as fault:
            self.bounced[stanza.kind] += 1
            refuse(turn, stanza, fault)
        except Exception as bug:
            self.failed[stanza.kind] += 1
            self.record_bug(bug)
            refuse(turn, stanza, InternalServerError())

    def _say(self, turn: Turn) -> None:
        """What the account itself sends, on behalf of whoever may speak for it (`Turn.say`)."""
        said, turn.says = turn.says, ()
        for stanza in said:
            if stanza.kind == MESSAGE:
                self._outgoing_message(turn, stanza)
                continue
            turn.stanza = stanza  # what answers it later answers this, and fails this
            try:
                self._outgoing_iq(turn, stanza)
            except StanzaError as fault:
                refuse(turn, stanza, fault)
            except Exception as bug:
                self.failed[IQ] += 1
                self.record_bug(bug)
                refuse(turn, stanza, InternalServerError())

    def emit(self, turn: Turn, event: Event) -> None:
        """Tell every feature that asked for this kind of event, and of what it leads to."""
        turn.emit(event)
        self.tell(turn)

    def tell(self, turn: Turn) -> None:
        """Pass on what a turn has emitted, and what that leads to."""
        while turn.events:
            event, *later = turn.events
            turn.events = tuple(later)
            for handler in self._events.get(type(event), ()):
                try:
                    handler(turn, event)
                except Exception as bug:
                    self.record_bug(bug)

    @staticmethod
    def record_bug(bug: Exception) -> None:
        """A bug of ours in one turn: counted and logged with its traceback; the process lives on."""
        turn_failures.inc()
        log.error("turn_failed", exc_info=bug)

    def _outgoing_message(self, turn: Turn, stanza: Stanza) -> None:
        if stanza.to is None:
            # RFC 6120, 10.3.1: a message without 'to' is treated as addressed to the sender's bare JID.
            stanza = stanza._replace(to=turn.entity.bare)
        for step in self._message_out:
            result = step(turn, stanza)
            if result is True:
                return
            if result.__class__ is Stanza:
                stanza = result
        settings = turn.settings
        deaf = settings.room_domains | settings.proxy_domains | settings.upload_domains
        if stanza.to in self._domains or stanza.to in deaf:
            raise ServiceUnavailable  # nobody reads messages to the domain
        turn.send(stanza)

    def _outgoing_iq(self, turn: Turn, stanza: Stanza) -> None:
        check_iq(stanza)
        if _run(self._iq_out, turn, stanza):
            return
        to = stanza.to
        is_request = stanza.type in ("get", "set")
        if to is None or to == turn.entity.bare:
            # RFC 6120, 10.3.3: without 'to', the server answers on behalf of the account.
            if is_request:
                self.handle_iq(turn, stanza, At.OWN)
        elif to in self._domains:
            if is_request:
                self.handle_iq(turn, stanza, At.SERVER)
        elif to in turn.settings.room_domains:
            if is_request:
                self.handle_iq(turn, stanza, At.ROOMS)
        elif to in turn.settings.proxy_domains:
            if is_request:
                self.handle_iq(turn, stanza, At.PROXY)
        elif to in turn.settings.upload_domains:
            if is_request:
                self.handle_iq(turn, stanza, At.UPLOAD)
        else:
            turn.send(stanza)

    def _incoming_iq(self, turn: Turn, stanza: Stanza) -> None:
        if _run(self._iq_in, turn, stanza):
            return
        assert stanza.to is not None
        _, _, resource = stanza.to.partition("/")
        if resource:
            session = turn.entity.sessions.get(resource)
            if session is not None:
                turn.deliver(session, stanza)
            elif stanza.type in ("get", "set"):
                raise ServiceUnavailable  # RFC 6121, 8.5.3.2.3
        elif stanza.type in ("get", "set"):
            check_iq(stanza)
            if not turn.entity.exists:
                raise ServiceUnavailable  # RFC 6121, 8.5.1
            self.handle_iq(turn, stanza, At.ACCOUNT)

    def handle_iq(self, turn: Turn, stanza: Stanza, at: At) -> None:
        """Let the feature answer that knows the request; raises where none does."""
        assert stanza.type is not None
        payload = stanza.payload or ""
        handler = self._iq_handlers.get((at, stanza.type, payload))
        if handler is not None:
            handler(turn, stanza)
        elif payload in self._namespaces[at]:
            raise FeatureNotImplemented  # the payload is known, not this type of request
        else:
            raise ServiceUnavailable  # RFC 6120, 8.4: the namespace is not understood


def _run(steps: tuple[Step, ...], turn: Turn, stanza: Stanza) -> bool:
    for step in steps:
        result = step(turn, stanza)
        if result is True:
            return True
        if result.__class__ is Stanza:
            stanza = result
    return False


def check_iq(stanza: Stanza) -> None:
    """RFC 6120, 8.2.3: an 'id', one of four types, and for requests exactly one child."""
    if not stanza.id:
        raise BadRequest("An IQ stanza needs an 'id'.")
    if stanza.type not in ("get", "set", "result", "error"):
        raise BadRequest("The type of an IQ stanza is get, set, result or error.")
    if stanza.type in ("get", "set") and (stanza.payload is None or len(stanza.children()) != 1):
        raise BadRequest("An IQ request has exactly one child.")


def refuse(turn: Turn, stanza: Stanza, fault: StanzaError) -> None:
    """Nothing of what was decided for the stanza happens; its sender is told."""
    turn.drop_effects()
    turn.fail(stanza, fault)
