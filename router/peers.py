"""Peers: the domains of other servers and of components, as entities (docs/delivery.md, §7).

A peer has no sessions of people but streams: an s2s process attaches one session for each pair of domains that a
stream has authenticated. What is sent to the domain is numbered for a stream that may carry it, or waits in a *line*,
one for each domain that it is from; what is worth keeping has a row in the peer's log until it was handed over or
given back to its sender. What comes from the domain is routed on. Without I/O; `router/dialing.py` asks for streams.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from cluster.shards import shard_of
from router.entity import Entity, Session
from router.events import BecameReachable, Event, LeftUnread, SessionClosed, WereRead
from router.feature import At
from router.pipeline import ASKED_OF_SERVER, Pipeline, check_iq, refuse
from router.privileges import advertisement, granted, is_wrapper, unwrap
from router.settings import Settings
from router.turn import Turn
from storage import log as rows_log
from storage import peers as peer_rows
from storage.log import OUTBOUND, TO_OWNER, Row
from xmpp.errors import (
    InternalServerError,
    JidMalformed,
    NotAllowed,
    RemoteServerTimeout,
    ResourceConstraint,
    ServiceUnavailable,
    StanzaError,
)
from xmpp.jid import domain_of
from xmpp.stanza import (
    BAD_TO,
    HAS_BODY,
    HAS_MARKER,
    HAS_MUC,
    HAS_MUC_USER,
    HAS_OTHER,
    HAS_RECEIPT,
    HAS_SUBJECT,
    HINT_NO_STORE,
    IQ,
    MESSAGE,
    PRESENCE,
    Stanza,
)

# Marks of a peer's session.
LOCAL: Final = "local"  # our domain that its stream is for; "" for a component's, which is for all
SENDS: Final = "sends"  # whether it carries what is sent to the peer

TRIED_S: Final = 10.0  # what was found at a take is not given back before a stream could be tried for
WINDOW: Final = 500  # stanzas that one stream may have unacknowledged
_KEPT: Final = HAS_BODY | HAS_SUBJECT | HAS_RECEIPT | HAS_MARKER | HAS_MUC_USER | HAS_OTHER


class Waiting(NamedTuple):
    """A stanza that no stream has been given yet; `id` is that of its row, None without one."""

    stanza: Stanza
    id: int | None
    since: float  # Unix seconds


class Line:
    """What waits for a peer, from one of our domains (or for a component, from anybody)."""

    __slots__ = ("coming", "dial_at", "ending", "local", "problem", "tries", "waiting")

    def __init__(self, local: str) -> None:
        self.local = local
        self.waiting: deque[Waiting] = deque()
        self.coming = 0  # stanzas that will wait once their turns are committed
        self.ending = 0  # streams that have ended and whose unacknowledged stanzas are not back yet: nothing overtakes
        self.dial_at = 0.0  # monotonic seconds; not before
        self.tries = 0  # that have failed since the last stream
        self.problem = ""  # of the last one, in words


def is_kept(message: Stanza) -> bool:
    """Whether a message to another domain survives its owner; what is of the moment only need not."""
    return message.type != "error" and bool(message.flags & _KEPT) and not message.flags & HINT_NO_STORE


def _is_answered(stanza: Stanza) -> bool:
    """Whether its sender is told that it does not arrive: of most presence nobody waits for an answer."""
    return stanza.kind != PRESENCE or stanza.type == "subscribe" or bool(stanza.flags & HAS_MUC)


def carrier(entity: Entity, stanza: Stanza, settings: Settings) -> Session | None:
    """The session whose stream carries a stanza to the peer: live and after a takeover the same."""
    component = settings.components.get(entity.bare)
    if component is None:
        local = domain_of(stanza.from_ or "")
        sessions = [s for s in entity.sessions.values() if s.marks.get(SENDS) and s.marks.get(LOCAL) == local]
    else:
        sessions = list(entity.sessions.values())
    if len(sessions) < 2:
        return sessions[0] if sessions else None
    sessions.sort(key=lambda session: (session.bound_at, session.sid))
    if component is None or component.balance == "failover":
        return sessions[0]
    sender = (stanza.from_ or "").partition("/")[0]
    return sessions[shard_of(sender) % len(sessions)]


class PeerPipeline:
    """What `router/pipeline.py` is for accounts, for peers."""

    def __init__(self, accounts: Pipeline, settings: Settings) -> None:
        self._accounts = accounts  # answers what is asked of our domains
        self._settings = settings
        self.wake: Callable[[Entity], None] = lambda entity: None  # something waits that no stream can take now
        self.hears: Callable[[Stanza], bool] = lambda stanza: False  # an answer or news for this server itself
        self.joined: Callable[[str], None] = lambda domain: None  # a component that may see presence is there
        self.bounced = [0, 0, 0, 0]  # stanzas given back, by kind (xmpp/stanza.py)
        self.rejected = 0  # stanzas that claim to be from somewhere else

    # --- from the peer

    def outgoing(self, turn: Turn, stanza: Stanza) -> None:
        """A stanza that came in by one of the peer's streams."""
        try:
            self._outgoing(turn, stanza)
        except StanzaError as fault:
            self.bounced[stanza.kind] += 1
            refuse(turn, stanza, fault)
        except Exception as bug:
            self._accounts.record_bug(bug)
            refuse(turn, stanza, InternalServerError())

    def _outgoing(self, turn: Turn, stanza: Stanza) -> None:
        domain = turn.entity.bare
        if domain_of(stanza.from_ or "") != domain:
            self.rejected += 1  # s2s has checked it: no correct process sends this
            return
        if stanza.flags & BAD_TO or stanza.to is None:
            raise JidMalformed("The 'to' attribute is not a JID.")
        settings = self._settings
        to_domain = domain_of(stanza.to)
        if stanza.to in settings.domains:
            self._for_server(turn, stanza)
        elif stanza.to in settings.room_domains:
            if stanza.kind == IQ and stanza.type in ("get", "set"):
                check_iq(stanza)
                self._accounts.handle_iq(turn, stanza, At.ROOMS)
        elif stanza.to in settings.upload_domains and domain in settings.components:
            if stanza.kind == IQ and stanza.type in ("get", "set"):
                check_iq(stanza)
                self._accounts.handle_iq(turn, stanza, At.UPLOAD)
        elif to_domain in {*settings.domains, *settings.room_domains, *settings.components, *settings.service_domains}:
            if stanza.kind == IQ:
                check_iq(stanza)
            turn.send(stanza)
        elif domain in settings.components:
            turn.send(stanza)  # a component may write to other servers; they may not write to each other through us
        else:
            self.rejected += 1  # s2s has ended such a stream (host-unknown); an answer would be in others' name

    def _for_server(self, turn: Turn, stanza: Stanza) -> None:
        if stanza.type not in ("get", "set") and stanza.kind != PRESENCE and self.hears(stanza):
            return
        if stanza.kind == MESSAGE:
            if not is_wrapper(stanza):
                raise ServiceUnavailable  # nobody reads messages to the domain
            said = unwrap(self._settings, stanza)
            # The user's owner unwraps it again, so that it is known by its number here if it is offered twice.
            turn.send(said if said.from_ == stanza.to else stanza._replace(to=said.from_))
            return
        if stanza.kind == PRESENCE or stanza.type not in ("get", "set"):
            return
        check_iq(stanza)
        if stanza.payload not in ASKED_OF_SERVER:
            raise ServiceUnavailable  # what accounts alone may ask
        self._accounts.handle_iq(turn, stanza, At.SERVER)

    # --- to the peer

    def incoming(self, turn: Turn, stanza: Stanza) -> None:
        """A stanza for somebody at the peer: a row of its own if it is worth one, then a stream, or the line."""
        try:
            self._incoming(turn, stanza)
        except StanzaError as fault:
            self.bounced[stanza.kind] += 1
            turn.drop_effects()
            if _is_answered(stanza):
                turn.fail(stanza, fault)
        except Exception as bug:
            self._accounts.record_bug(bug)
            refuse(turn, stanza, InternalServerError())

    def _incoming(self, turn: Turn, stanza: Stanza) -> None:
        entity, settings = turn.entity, self._settings
        component = settings.components.get(entity.bare)
        if component is None and settings.policy_of(entity.bare) == "deny":
            raise NotAllowed("This server does not speak to that domain.")
        session = carrier(entity, stanza, settings)
        line = self.line_of(entity, stanza)
        is_free = (
            session is not None
            and not (line.waiting or line.coming or line.ending)
            and len(session.unacknowledged) < WINDOW
        )
        if not is_free:
            if session is None and component is not None and not component.queue_s:
                raise ServiceUnavailable("The service is not connected.")
            if sum(len(line.waiting) + line.coming for line in entity.lines.values()) >= settings.peer_queue:
                raise ResourceConstraint("Too many stanzas wait for that domain.")
        id_: int | None = None
        if stanza.kind == MESSAGE and is_kept(stanza):
            id_ = turn.log(stanza, TO_OWNER, OUTBOUND)
            entity.strays.add(id_)
        if is_free:
            assert session is not None
            turn.deliver(session, stanza, id_)
        else:
            line.coming += 1
            turn.waits += ((line, Waiting(stanza, id_, turn.now)),)

    def released(self, turn: Turn) -> None:
        """A turn is committed: what it had for the lines waits there."""
        for line, waiting in turn.waits:
            line.coming -= 1
            line.waiting.append(waiting)
        self.wake(turn.entity)

    def forgotten(self, turn: Turn) -> None:
        """A turn will never be committed: its rows are not there, and nobody waits."""
        for line, _ in turn.waits:
            line.coming -= 1
        turn.entity.strays.difference_update(row.id for row in turn.rows)

    def _patience_s(self, entity: Entity) -> float:
        """How long stanzas wait for a peer."""
        component = self._settings.components.get(entity.bare)
        return self._settings.peer_queue_s if component is None else component.queue_s

    def line_of(self, entity: Entity, stanza: Stanza) -> Line:
        """Where a stanza waits."""
        return _line(entity, "" if entity.bare in self._settings.components else domain_of(stanza.from_ or ""))

    @staticmethod
    def ends(session: Session) -> None:
        """A stream has ended: until what it had not got rid of is back (`LeftUnread`), its line stands still."""
        if session.marks.get(SENDS):
            _line(session.entity, session.marks[LOCAL]).ending += 1

    def flush(self, turn: Turn) -> None:
        """Give the streams that there are what has waited, as much as they may carry."""
        entity = turn.entity
        given: dict[Session, int] = {}
        for line in entity.lines.values():
            while line.waiting and not line.ending:
                stanza, id_, _ = line.waiting[0]
                session = carrier(entity, stanza, self._settings)
                if session is None or len(session.unacknowledged) + given.get(session, 0) >= WINDOW:
                    break
                line.waiting.popleft()
                given[session] = given.get(session, 0) + 1
                turn.deliver(session, stanza, id_)

    def give_back(self, turn: Turn, line: Line, fault: StanzaError, before: float | None = None) -> None:
        """Stanzas that cannot be handed over go back to their senders (RFC 6120, 10.4): all, or those that wait since
        before a time."""
        entity = turn.entity
        had_rows = False
        while line.waiting and (before is None or line.waiting[0].since < before):
            stanza, id_, _ = line.waiting.popleft()
            self.bounced[stanza.kind] += 1
            if id_ is not None:
                had_rows = True
                entity.strays.discard(id_)
                entity.delivered = max(entity.delivered, id_)
            if _is_answered(stanza):
                turn.fail(stanza, fault)
        if had_rows:
            self.save_cursor(turn)

    # --- events

    def emit(self, turn: Turn, event: Event) -> None:
        """What happens to a peer's sessions."""
        try:
            if isinstance(event, BecameReachable):
                for line in turn.entity.lines.values():
                    if line.local == event.session.marks.get(LOCAL):
                        line.tries = 0
                self._advertise(turn, event.session)
                self.flush(turn)
            elif isinstance(event, SessionClosed | WereRead):
                if isinstance(event, WereRead):
                    self._were_read(turn.entity, event.ids)
                self.save_cursor(turn)
            elif isinstance(event, LeftUnread):
                self._left(turn, event.session)
        except Exception as bug:
            self._accounts.record_bug(bug)

    def _advertise(self, turn: Turn, session: Session) -> None:
        """XEP-0356: each served domain tells a component what it may do, before it gets anything else."""
        privileges = granted(self._settings, session.bare)
        for domain in sorted(self._settings.domains) if privileges is not None else ():
            assert privileges is not None
            told = advertisement(privileges, domain, session.bare, f"{turn.origin:x}-{turn.n:x}")
            if told is not None:
                turn.deliver(session, told)
        if privileges is not None and privileges.presence != "none" and len(turn.entity.sessions) == 1:
            self.joined(session.bare)

    @staticmethod
    def _were_read(entity: Entity, ids: Sequence[int]) -> None:
        entity.delivered = max(entity.delivered, *ids)
        entity.strays.difference_update(ids)
        for line in entity.lines.values():
            line.waiting = deque(waiting for waiting in line.waiting if waiting.id not in ids)

    @staticmethod
    def save_cursor(turn: Turn) -> None:
        """How far the peer has come."""
        entity = turn.entity
        if entity.key is not None:
            entity.unsaved = 0
            turn.write(peer_rows.set_delivered, entity.key, entity.delivered, entity.not_delivered())

    def _left(self, turn: Turn, session: Session) -> None:
        """A stream has ended: what it was given and the peer has not acknowledged goes first by the next one. Requests
        do not: whether the peer has carried them out is not known."""
        entity = turn.entity
        if session.marks.get(SENDS):
            _line(entity, session.marks[LOCAL]).ending -= 1
        # Those that wait already were read from the database after the stream had ended.
        done = entity.read.keys() | _waiting_ids(entity)
        back: list[Waiting] = []
        for _, id_, stanza in session.unacknowledged:
            if stanza is None:
                continue  # known by its row alone: it is among those that are read with the peer
            if stanza.kind == IQ:
                turn.fail(stanza, RemoteServerTimeout("The connection to that server was lost."))
            elif id_ is None and stanza.kind == MESSAGE and stanza.from_ in self._settings.domains:
                pass  # what it may do is told to the next stream anyway
            elif id_ is None or id_ not in done:
                back.append(Waiting(stanza, id_, turn.now))
        for waiting in reversed(back):
            self.line_of(entity, waiting.stanza).waiting.appendleft(waiting)
        self.flush(turn)
        if any(line.waiting for line in turn.entity.lines.values()):
            self.wake(turn.entity)

    # --- what the database has

    def assign(self, entity: Entity, delivered: int, rows: Sequence[Row], now: float) -> None:
        """The peer has come into memory, maybe from another owner's: rows that are neither handed over nor on their
        way wait (again), before what waits in memory."""
        known = {id_ for session in entity.sessions.values() for _, id_, _ in session.unacknowledged}
        known |= _waiting_ids(entity)
        entity.delivered = max(entity.delivered, delivered)
        for row in reversed(rows):
            if row.id in entity.read:
                continue
            entity.strays.add(row.id)
            if row.id not in known:
                since = min(now, max(rows_log.time_of(row.id), now - self._patience_s(entity) + TRIED_S))
                self.line_of(entity, row.stanza).waiting.appendleft(Waiting(row.stanza, row.id, since))
        if any(line.waiting for line in entity.lines.values()):
            self.wake(entity)


def _line(entity: Entity, local: str) -> Line:
    line: Line | None = entity.lines.get(local)
    if line is None:
        line = entity.lines[local] = Line(local)
    return line


def _waiting_ids(entity: Entity) -> set[int]:
    return {waiting.id for line in entity.lines.values() for waiting in line.waiting if waiting.id is not None}
