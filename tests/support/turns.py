"""Conversations for unit tests of the router: a world of entities on the real pipeline, without database or bus.

What one entity sends is the other's input at once; what a session is given is heard as XML text.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

from cluster.shards import shard_of
from cluster.wire import Epoch, SessionId
from router.contacts import Contact, Subscription
from router.entity import Entity, Session
from router.events import Event, SessionClosed
from router.feature import Feature
from router.features import ALL
from router.features.account import derive_all
from router.pipeline import Pipeline
from router.pubsub.pipeline import ServicePipeline
from router.settings import Settings
from router.turn import Request, Turn, Write
from storage import accounts, capabilities, devices, inbox, log, private, rosters, vcards
from storage.accounts import Account
from storage.rows import Connection
from tests.support.archive import Model
from tests.support.published import Published
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.errors import InternalServerError, StanzaError
from xmpp.stanza import TO_FULL, Stanza
from xmpp.stream import Limits, StreamParser, open_stream

DOMAIN: Final = "example.com"
NOW: Final = 1_800_000_000.0
ELSEWHERE: Final = 9_999  # the number space of whoever is not here
_HEADER: Final = open_stream(namespace=ns.CLIENT, from_=DOMAIN, id="s")

# Nothing is archived, so that messages are heard as they were said.
PLAIN: Final = Settings(
    domains=frozenset({DOMAIN}), software_version="1.2.3", started_at=NOW - 60, archive_default="never"
)


def parse(xml: str) -> Stanza:
    """A stanza as the parser of a client stream makes it (flags and payload included)."""
    parser = StreamParser(ns.CLIENT, Limits())
    parser.push(_HEADER)
    parser.next_event()
    (stanza,) = [*parser.flow(), *parser.feed(xml.encode())]
    assert isinstance(stanza, Stanza), stanza
    return stanza


def text(stanza: Stanza, to: str | None = None) -> str:
    """A stanza as a client gets it."""
    return stanzas.encode(stanza, to).decode()


def error(condition: str, type: str) -> str:
    """The beginning of an `<error/>`; tests do not depend on the words for people behind it."""
    return f'<error type="{type}"><{condition} xmlns="{ns.STANZAS}"/>'


class World:
    """Accounts, sessions and what they hear; `writes` is what the database was told, in order."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or PLAIN
        self.pipeline = Pipeline(ALL, self.settings.domains)
        self.entities: dict[str, Entity] = {}
        self.now = NOW
        self.writes: list[Write] = []
        self.away: list[str] = []  # what was sent to addresses that nobody here has
        self.closed: list[tuple[str, str]] = []  # sessions ended by turns, with the stream error
        self.reloads: list[str] = []
        self.database: dict[Any, Callable[..., Any]] = {  # repository functions, and calls to owners by name
            accounts.find: lambda bare: None,
            log.by_ids: lambda key, ids: [row for row in self.log if row.owner == key and row.id in ids],
            derive_all: lambda password, iterations: (password,),  # hashing is slow
            private.get: lambda key, name: None,
            private.total_size: lambda key, without: 0,
            vcards.get: lambda key: None,
            capabilities.find: lambda name: None,
            inbox.conversations: lambda key, displayed: [],
            devices.list_: lambda key: list(self.devices),
        }
        self.devices: list[devices.Device] = []  # of every account
        self.published = Published(lambda row: self.log.append(row))
        self.database |= self.published.functions()
        self.ids = log.Ids()
        self.log: list[log.Row] = []  # what was kept, in order
        self.archive = Model(lambda: self.log)
        self.database |= self.archive.functions()
        self.timers: list[tuple[float, Entity, Callable[[Turn], None]]] = []
        self._heard: dict[str, list[str]] = {}
        self._ids = 0
        self._work: deque[Callable[[], None]] = deque()

    # --- who is there

    def nobody(self, bare: str) -> Entity:
        """A name without an account."""
        self._ids += 1
        entity = Entity(bare, shard_of(bare), Epoch(1), SessionId(self._ids))
        entity.is_loaded = True
        self.entities[bare] = entity
        return entity

    def account(self, bare: str) -> Entity:
        """An account without sessions."""
        entity = self.nobody(bare)
        entity.key = self._ids
        return entity

    def bind(self, entity: Entity, resource: str = "home") -> Session:
        """A session that has sent nothing yet."""
        self._ids += 1
        session = Session(entity, SessionId(self._ids), resource, self.now)
        session.is_adopted = True
        entity.sessions[resource] = session
        self._heard[session.jid] = []
        return session

    def online(self, entity: Entity, resource: str = "home", priority: int = 0) -> Session:
        """A session that has sent initial presence; nobody has been told."""
        session = self.bind(entity, resource)
        inner = b"<priority>%d</priority>" % priority if priority else b""
        session.presence = stanzas.presence(to=None, from_=session.jid, inner=inner)
        session.priority = priority
        return session

    def contact(self, entity: Entity, jid: str, subscription: Subscription = "none", **facts: Any) -> Contact:
        """A contact, stored long ago."""
        contact = entity.roster.contacts[jid] = Contact(jid, subscription=subscription, **facts)
        return contact

    def friends(self, *entities: Entity) -> None:
        """All of them see each other's presence."""
        for entity in entities:
            for other in entities:
                if other is not entity:
                    self.contact(entity, other.bare, "both")

    # --- what they say

    def say(self, session: Session, said: str | Stanza) -> Turn:
        """The session sends a stanza; everything that follows from it happens. Returns its own turn."""
        session.seen += 1
        stanza = (parse(said) if isinstance(said, str) else said)._replace(from_=session.jid)
        turn = self._turn(session.entity, session, stanza)
        self.pipeline.outgoing(turn, stanza)
        self._over(turn)
        return turn

    def arrive(self, entity: Entity, arrived: str | Stanza) -> Turn:
        """A stanza from elsewhere arrives for the entity."""
        stanza = parse(arrived) if isinstance(arrived, str) else arrived
        turn = self._turn(entity, None, stanza)
        turn.key = (ELSEWHERE, turn.n)
        self._incoming(turn, stanza)
        self._over(turn)
        return turn

    def end(self, session: Session) -> Turn:
        """The session's stream is gone."""
        entity = session.entity
        del entity.sessions[session.resource]
        turn = Turn(entity, None, None, self.settings, self.now, session.sid, session.seen + 1, self.ids)
        self.pipeline.emit(turn, SessionClosed(session, "lost"))
        self._over(turn)
        return turn

    def happen(self, entity: Entity, event: Event) -> Turn:
        """Something happens to an entity."""
        turn = self._turn(entity, None, None)
        self.pipeline.emit(turn, event)
        self._over(turn)
        return turn

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer not in due]
        for _, entity, then in due:
            turn = self._turn(entity, None, None)
            then(turn)
            self._over(turn)

    def heard(self, session: Session) -> list[str]:
        """What the session got since it was asked last."""
        heard = self._heard[session.jid]
        self._heard[session.jid] = []
        return heard

    def written(self) -> list[Callable[..., Any]]:
        """The repository functions that were run since this was asked last."""
        writes, self.writes = self.writes, []
        return [write.statement for write in writes]

    # --- how it goes on

    def _turn(self, entity: Entity, session: Session | None, stanza: Stanza | None) -> Turn:
        self.ids.set_clock(self.now)
        if session is not None:
            return Turn(entity, session, stanza, self.settings, self.now, session.sid, session.seen, self.ids)
        entity.counter += 1
        return Turn(entity, None, stanza, self.settings, self.now, entity.origin, entity.counter, self.ids)

    def _over(self, turn: Turn) -> None:
        self._work.append(lambda: self._release(turn))
        while self._work:
            self._work.popleft()()

    def _release(self, turn: Turn) -> None:
        for session, stanza, _ in turn.deliveries:
            self._heard[session.jid].append(text(stanza, session.jid if stanza.flags & TO_FULL else session.bare))
        self.writes += turn.writes
        for write in turn.writes:
            self.published.write(write)
        self.log += turn.rows
        self.closed += [(session.jid, condition) for session, condition in turn.closing]
        if turn.reloads:
            self.reloads.append(turn.entity.bare)
        assert not turn.events, "somebody has forgotten to tell"
        self.timers += [(self.now + seconds, turn.entity, then) for seconds, then in turn.timers]
        for request in turn.requests:
            self._answer(turn, request)
        for stanza, recipients in turn.sends:
            for to in recipients:
                self._route(stanza, to)

    def service(self, domain: str) -> Entity:
        """A publishing service."""
        self._ids += 1
        entity = Entity(domain, shard_of(domain), Epoch(1), SessionId(self._ids), is_service=True)
        entity.is_loaded, entity.key = True, self._ids
        self.entities[domain] = entity
        return entity

    def _incoming(self, turn: Turn, stanza: Stanza) -> None:
        if turn.entity.is_service:
            ServicePipeline(self.pipeline).incoming(turn, stanza)
        else:
            self.pipeline.incoming(turn, stanza)

    def _route(self, stanza: Stanza, to: str) -> None:
        entity = self.entities.get(to)
        if entity is None:
            self.away.append(text(stanza, to))
            return
        turn = self._turn(entity, None, stanza)
        self._incoming(turn, stanza)
        self._work.append(lambda: self._release(turn))

    def _answer(self, turn: Turn, request: Request) -> None:
        """As the owner does it (router/owner.py): a later turn of the same entity, session and stanza."""
        later = self._turn(turn.entity, turn.session, turn.stanza)
        value = self.database[request.statement](*request.arguments)
        fault: StanzaError | None = None
        try:
            if isinstance(value, StanzaError):
                raise value
            request.then(later, value)
            self.pipeline.tell(later)
        except StanzaError as problem:
            fault = problem
        except Exception as bug:
            self.pipeline.record_bug(bug)
            fault = InternalServerError()
        if fault is not None:
            later.drop_effects()
            if turn.stanza is not None:
                later.fail(turn.stanza, fault)
        self._work.append(lambda: self._release(later))


def stored(turn: Turn) -> list[rosters.Item]:
    """The contacts that a turn stores."""
    return [write.arguments[1] for write in turn.writes if write.statement is rosters.upsert]


def load_from(feature: Feature, entity: Entity, account: Account) -> None:
    """What a feature whose loaders need no database makes of an account."""
    nowhere = cast(Connection, None)
    for loader, assign in feature.loaders:
        assign(entity, asyncio.run(loader(nowhere, [account]))[account.key])  # type: ignore[arg-type]  # a coroutine
