"""A turn: one input to one entity, and what was decided about it.

Features read the entity and write here; nothing leaves the process while a turn runs. The owner (`router/owner.py`)
commits the turn's writes in a fenced transaction and only then releases its effects, in order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Concatenate, NamedTuple, ParamSpec

from psycopg import AsyncConnection

from router.entity import Entity, Session
from router.settings import Settings
from storage.log import BY_OTHER, DONE, FROM_OWNER, Ids, Row, pack_head
from xmpp import stanza as stanzas
from xmpp.errors import StanzaError
from xmpp.stanza import Stanza

P = ParamSpec("P")
Connection = AsyncConnection[Any]
Statement = Callable[..., Awaitable[Any]]
Then = Callable[["Turn", Any], None]


class Write(NamedTuple):
    """A repository function to run inside the batch's transaction, after the fence."""

    statement: Statement
    arguments: tuple[Any, ...]


class Request(NamedTuple):
    """Something that takes time, answered in a later turn of the same entity. `statement` is a repository function
    (given a connection); where `is_computation`, a blocking function for a thread; where `of` is a bare JID, the name
    of a method of its owner (`router/calls.py`). While one that `holds` is under way, the entity takes no other input.
    """

    statement: Any
    arguments: tuple[Any, ...]
    then: Then
    is_computation: bool
    holds: bool = False
    of: str = ""


class Turn:
    """What one input does. `session` is the submitting session of an outgoing turn, None otherwise."""

    __slots__ = (
        "_ids",
        "_kept",
        "above",
        "casts",
        "closing",
        "deliveries",
        "entity",
        "events",
        "is_again",
        "key",
        "log_id",
        "n",
        "now",
        "origin",
        "reloads",
        "requests",
        "rows",
        "says",
        "sends",
        "session",
        "settings",
        "stanza",
        "timers",
        "touched",
        "waits",
        "writes",
    )

    def __init__(
        self,
        entity: Entity,
        session: Session | None,
        stanza: Stanza | None,
        settings: Settings,
        now: float,
        origin: int,
        n: int,
        ids: Ids,
        key: tuple[int, int] | None = None,
        above: int = 0,
    ) -> None:
        self.entity = entity
        self.session = session
        self.stanza = stanza  # the input; None for events
        self.settings = settings
        self.now = now  # Unix seconds
        self.origin = origin  # whose number n is: the session's sid, or the sender's
        self.n = n
        self.key = key or (origin, n)  # of the message: its sender and their number, also in the recipient's turn
        self.above = above  # the id of the sender's row: the recipient's is greater
        self.is_again = False  # the edge offers it again: a former owner may have sent it on already
        self.log_id: int | None = None  # the row that the present stanza has got
        self._ids = ids
        self._kept: tuple[int, ...] | None = None
        # Seldom more than one of anything, mostly none: thousands of turns wait for their batch, and an empty tuple
        # costs nothing.
        self.rows: tuple[Row, ...] = ()
        self.deliveries: tuple[tuple[Session, Stanza, int | None], ...] = ()
        self.sends: tuple[tuple[Stanza, tuple[str, ...]], ...] = ()
        self.writes: tuple[Write, ...] = ()
        self.requests: tuple[Request, ...] = ()
        self.touched: tuple[Session, ...] = ()
        self.closing: tuple[tuple[Session, str], ...] = ()
        self.events: tuple[Any, ...] = ()
        self.says: tuple[Stanza, ...] = ()
        self.timers: tuple[tuple[float, Callable[[Turn], None]], ...] = ()
        # Of a peer: what goes to which of its lines once this is committed.
        self.waits: tuple[tuple[Any, Any], ...] = ()
        self.casts: tuple[Any, ...] = ()  # of a room: what its occupants see once this is committed
        self.reloads = False  # once it is committed, the entity is read anew from the database

    @property
    def newest_id(self) -> int:
        """The greatest id that any row of this router has: later rows are above it."""
        return self._ids.last

    def next_id(self) -> int:
        """An id of its own, above all that this router has given, for an event that has no row."""
        return self._ids.next(self.above)

    def comes_after(self, id_: int) -> None:
        """A row that comes from elsewhere has this id: what gets an id of this router's from now on is later."""
        self._ids.last = max(self._ids.last, id_)

    def new_origin(self) -> int:
        """63 random bits, to name somebody for good."""
        return self._ids.random(63)

    # --- what features call

    def deliver(self, session: Session, stanza: Stanza, id: int | None = None) -> None:
        """Give a stanza to one session of this entity. A missing `to` is written as the account's bare JID. `id` is
        that of its row in this entity's log, if it has one."""
        self.deliveries += ((session, stanza, id),)

    def log(self, stanza: Stanza, dir: int, class_: int) -> int:
        """Keep a message in this account's log (storage/log.py says what `dir` and `class_` are); returns its id.
        Effects of this turn leave only after the row has committed."""
        entity = self.entity
        assert entity.key is not None
        id_ = self.log_id = self._ids.next(self.above)
        party = stanza.to if dir == FROM_OWNER else stanza.from_
        peer = (party or entity.bare).partition("/")[0]
        forward = BY_OTHER if dir == FROM_OWNER and self.key != (self.origin, self.n) else DONE
        sid, n = self.key
        # As Row(...), in half the time.
        fields = (entity.shard, entity.key, id_, class_, dir, forward, peer, sid, n, pack_head(stanza), stanza.inner)
        self.rows += (tuple.__new__(Row, fields),)
        return id_

    def send(self, stanza: Stanza) -> None:
        """Route a stanza to `stanza.to`, from this entity. It arrives there as an incoming turn, also when that is
        this same entity."""
        assert stanza.to is not None
        self.sends += ((stanza, (stanza.to.partition("/")[0],)),)

    def broadcast(self, stanza: Stanza, recipients: Iterable[str]) -> None:
        """Route one stanza without `to` to many bare JIDs; each sees its own bare JID as `to`."""
        bares = tuple(recipients)
        if bares:
            self.sends += ((stanza, bares),)

    def answer(self, request: Stanza, inner: bytes = b"") -> None:
        """The IQ result for a request, to whoever asked."""
        self._reply(stanzas.result(request, inner))

    def fail(self, stanza: Stanza, fault: StanzaError) -> None:
        """The error for a stanza, to its sender; nothing where none may be sent (RFC 6120, 8.3.1)."""
        if stanzas.is_answerable(stanza):
            self._reply(stanzas.error(stanza, fault))

    def write(
        self, statement: Callable[Concatenate[Connection, P], Awaitable[Any]], *args: P.args, **kw: P.kwargs
    ) -> None:
        """Run a repository function durably: effects of this turn leave only after it has committed."""
        assert not kw, "writes are positional"
        self.writes += (Write(statement, args),)

    def fetch(
        self,
        statement: Callable[Concatenate[Connection, P], Awaitable[Any]],
        then: Then,
        *args: P.args,
        **kw: P.kwargs,
    ) -> None:
        """Read from the database; `then(turn, value)` runs as a later turn of this entity. The input stays
        unconfirmed until then. A database that is away is waited for; features never see it."""
        assert not kw, "fetches are positional"
        self.requests += (Request(statement, args, then, False),)

    def fetch_first(
        self,
        statement: Callable[Concatenate[Connection, P], Awaitable[Any]],
        then: Then,
        *args: P.args,
        **kw: P.kwargs,
    ) -> None:
        """As `fetch`, and until `then` has run, every other input of this entity waits."""
        assert not kw, "fetches are positional"
        self.requests += (Request(statement, args, then, False, True),)

    def compute(self, function: Callable[P, Any], then: Then, *args: P.args, **kw: P.kwargs) -> None:
        """Run a blocking function in a thread (password hashing); `then(turn, value)` as for `fetch`."""
        assert not kw, "computations are positional"
        self.requests += (Request(function, args, then, True),)

    def call(self, of: str, method: str, then: Then, *arguments: Any) -> None:
        """Call a method of whichever router owns `of`, with that and the arguments; `then(turn, value)` as for `fetch`.
        Where it is refused, so is the stanza of this turn."""
        self.requests += (Request(method, (of, *arguments), then, False, of=of),)

    def touch(self, session: Session) -> None:
        """The session's presence, priority or marks have changed: hand the new state to its c2s."""
        if session not in self.touched:
            self.touched += (session,)

    def close(self, session: Session, condition: str, text: str = "") -> None:
        """End a session of this entity with this stream error condition (RFC 6120, 4.9.3). The text, if there is one,
        stands behind the condition, in a line of its own, until the stream writes both."""
        self.closing += ((session, f"{condition}\n{text}" if text else condition),)

    def emit(self, event: Any) -> None:
        """Something has happened to the entity (router/events.py): features hear of it when this step is over."""
        self.events += (event,)

    def say(self, stanza: Stanza) -> None:
        """The account itself sends a message or an IQ request, without a session (XEP-0356): it goes the way of what a
        client of it sends when this step is over. `from_` is the bare JID. Where that refuses a message, the stanza of
        this turn is refused; the error for a request is sent to the bare JID."""
        self.says += (stanza,)

    def later(self, seconds: float, then: Callable[[Turn], None]) -> None:
        """Run `then` as a turn of this entity after this time, or a second later. Nobody remembers it when this owner
        is gone."""
        self.timers += ((seconds, then),)

    def keep(self) -> None:
        """What has been decided so far stays, also if what follows is refused: the next stanza of a bundle begins."""
        effects = (
            self.rows, self.deliveries, self.sends, self.writes, self.requests, self.closing, self.timers, self.casts
        )  # fmt: skip
        self._kept = tuple(map(len, effects))
        self.log_id = None

    def drop_effects(self) -> None:
        """Take back everything decided for the present stanza: it is refused."""
        self.log_id = None
        self.events = self.says = ()
        self.reloads = False
        rows, deliveries, sends, writes, requests, closing, timers, casts = self._kept or (0,) * 8
        self.rows, self.deliveries, self.sends = self.rows[:rows], self.deliveries[:deliveries], self.sends[:sends]
        self.writes, self.requests = self.writes[:writes], self.requests[:requests]
        self.closing, self.timers, self.casts = self.closing[:closing], self.timers[:timers], self.casts[:casts]

    def _reply(self, reply: Stanza) -> None:
        session = self.session
        if session is not None and (reply.to is None or reply.to == session.jid):
            self.deliveries += ((session, reply, None),)
        elif reply.to is not None:
            self.send(reply)
