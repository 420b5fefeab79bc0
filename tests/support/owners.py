"""One router's core (owner and directory) without sockets or database: its effects are kept, and the test, or where it
is prompt, a database in memory, answers them. Edges and other routers are played by envelopes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from typing import Any, Final

from cluster.shards import ShardMap, shard_of
from cluster.wire import (
    ACKNOWLEDGED,
    AGAIN,
    ANNOUNCE,
    ATTACH,
    CONFIRM,
    CONFIRMED,
    DELIVER,
    DETACH,
    ENABLED,
    FORWARD,
    RESUME,
    SUBMIT,
    UNREACHABLE,
    Envelope,
    Epoch,
    Incarnation,
    SessionId,
    Shard,
)
from router.batch import Batch
from router.dialing import Dialing
from router.directory import Directory
from router.entity import Entity, Session
from router.feature import Feature, Stage
from router.features import carbons, delivery, offline, presence, vcard
from router.owner import Loaded, Owner
from router.pipeline import Pipeline
from router.settings import Settings
from router.turn import Request, Turn
from storage import accounts, log, peers, sessions, vcards
from storage.accounts import Offline
from storage.log import ARCHIVE, BY_OTHER, FROM_OWNER, TO_OWNER, Row, Wanted
from storage.sessions import SessionRow
from tests.support.turns import DOMAIN, NOW
from xmpp import stanza as stanzas
from xmpp.stanza import HAS_BODY, Stanza, from_wire

ME: Final = Incarnation("router-1#1")
OTHER: Final = Incarnation("router-2#2")  # owns everything that is not owned here
EDGE: Final = Incarnation("c2s-1#1")
EDGE_2: Final = Incarnation("c2s-2#2")
S2S: Final = Incarnation("s2s-1#1")
S2S_2: Final = Incarnation("s2s-2#2")
ROMEO, JULIET, NURSE = f"romeo@{DOMAIN}", f"juliet@{DOMAIN}", f"nurse@{DOMAIN}"
ORIGIN: Final = 9_000  # the number space of somebody whose owner is elsewhere

_OF_OWNER: Final = frozenset({SUBMIT, FORWARD, CONFIRM, AGAIN})

record = Feature("record")  # what router/features/archive.py does, without preferences


@record.on_message(Stage.OUT_RECORD)
def _record_sent(turn: Turn, message: Stanza) -> None:
    if message.flags & HAS_BODY:
        turn.log(message, FROM_OWNER, ARCHIVE)


@record.on_message(Stage.IN_RECORD)
def _record_received(turn: Turn, message: Stanza) -> None:
    if message.flags & HAS_BODY and turn.entity.exists:
        turn.log(message, TO_OWNER, ARCHIVE)


FEATURES: Final = (record, presence.feature, carbons.feature, offline.feature, delivery.feature, vcard.feature)
SETTINGS: Final = Settings(domains=frozenset({DOMAIN}))


class Database:
    """What has been committed."""

    def __init__(self) -> None:
        self.keys = {ROMEO: 1, JULIET: 2, NURSE: 3}
        self.disabled: set[str] = set()
        self.rows: list[Row] = []
        self.sessions: dict[int, SessionRow] = {}
        self.cursors: dict[int, Offline] = {}
        self.vcards: dict[int, bytes] = {}

    def commit(self, batch: Batch) -> None:
        """One transaction."""
        self.rows = sorted({*self.rows, *batch.rows}, key=lambda row: row.id)
        for statement, arguments in batch.writes:
            if statement is sessions.save:
                self.sessions[arguments[0].sid] = arguments[0]
            elif statement is sessions.delete:
                self.sessions.pop(arguments[0], None)
            elif statement in (accounts.set_delivered, peers.set_delivered):
                key, delivered, strays = arguments
                self.cursors[key] = Offline(delivered, tuple(strays))
            else:
                assert statement is vcards.put, statement
                self.vcards[arguments[0]] = arguments[1]

    def load(self, bare: str) -> Loaded:
        """As the features' loaders read it."""
        key = self.keys.get(bare)
        if key is None and "@" not in bare:
            key = self.keys[bare] = len(self.keys) + 1  # a domain gets a key when it is needed
        if key is None:
            return Loaded(None, True, ())
        delivered, strays = self.cursors.get(key, Offline(0, ()))
        if "@" not in bare:
            waiting = [r for r in self._of(key) if r.id > delivered or r.id in strays]
            return Loaded(key, True, (delivered, waiting))
        ids = [r.id for r in self._of(key) if r.dir == TO_OWNER and (r.id > delivered or r.id in strays)]
        return Loaded(key, bare not in self.disabled, (Offline(delivered, tuple(ids)),))

    def look(self, key: int, origin: int, above: int) -> int:
        """As `log.mark`."""
        rows = [r for r in self._of(key) if r.sid == origin and r.id > above]
        return max((r.n for r in rows if r.dir == TO_OWNER or r.forward == BY_OTHER), default=0)

    def replay(self, want: Wanted) -> tuple[list[Row], list[Row]]:
        """As `log.replay` and `log.sent`."""
        confs = dict(zip(want.sids, want.confs, strict=True))
        missed = [row for row in self._of(want.owner) if row.id > want.after]
        mine = [row for row in self._of(want.owner) if row.dir == FROM_OWNER and row.id > want.since]
        return missed, [row for row in mine if row.sid in confs and row.n > confs[row.sid]]

    def run(self, request: Request) -> Any:
        """What a feature asks for."""
        if request.statement is log.by_ids:
            key, ids = request.arguments
            return [row for row in self._of(key) if row.id in ids]
        assert request.statement is vcards.get, request.statement
        return self.vcards.get(request.arguments[0])

    def _of(self, key: int) -> list[Row]:
        return [row for row in self.rows if row.owner == key]


class OneRouter:
    """An owner and its directory. What waits for the database is answered at once while `is_prompt`."""

    def __init__(
        self, *, owns: Iterable[str] = (ROMEO, JULIET, NURSE), database: Database | None = None,
        settings: Settings = SETTINGS, features: Sequence[Feature] = FEATURES,
    ) -> None:  # fmt: skip
        self.database = database or Database()
        self.now = 1_000.0
        self.is_prompt = True
        self.sent: list[tuple[Incarnation, Envelope]] = []
        self.batches: deque[Batch] = deque()
        self.waiting: deque[Callable[[], None]] = deque()  # reads, in order
        self.looks: list[tuple[str, int, int]] = []  # of whom, of which sender, above which id
        self.to_self: deque[Envelope] = deque()
        self._ids = count(101)
        self.map = ShardMap()
        self.owner = Owner(ME, Pipeline(features, frozenset({DOMAIN})), settings, self, self.map)
        resources = count(1)
        self.directory = Directory(self.owner, lambda: f"r{next(resources)}")
        self.dialing = Dialing(self.owner, self.owner.peers)
        self.directory.on_room = self.dialing.acknowledged
        for bare in (ROMEO, JULIET, NURSE):
            self.map.update(shard_of(bare), Epoch(1), OTHER)
        self.take(*owns)
        self.sent.clear()

    # --- shards

    def take(self, *bares: str, epoch: int = 2) -> None:
        """The shards of these accounts are owned here from now on."""

        def act() -> None:
            self.owner.ids.last = max(self.owner.ids.last, log.id_at(self.wall()))
            for bare in bares:
                shard = shard_of(bare)
                rows = [row for row in self.database.sessions.values() if row.shard == shard]
                self.directory.taken(shard, Epoch(epoch), rows)
                self.map.update(shard, Epoch(epoch), ME)
                if "@" not in bare:
                    self.owner.recover(bare)
                self.owner.outbox.owners_changed([shard])

        self.around(act)

    def lose(self, bare: str, epoch: int = 3) -> None:
        """Another router owns it now."""

        def act() -> None:
            self.map.update(shard_of(bare), Epoch(epoch), OTHER)
            self.directory.dropped(self.owner.drop(shard_of(bare)))
            self.owner.outbox.owners_changed([shard_of(bare)])

        self.around(act)

    def successor(self, *bares: str, epoch: int = 3) -> OneRouter:
        """The next owner, on the same database, when this one is dead."""
        features = self.owner.pipeline.features
        other = OneRouter(owns=(), database=self.database, settings=self.owner.settings, features=features)
        for edge in self.dialing.edges:
            other.dialing.edge_up(edge)
        other.now, other._ids = self.now + 2, count(10_001)
        other.take(*(bares or (ROMEO, JULIET, NURSE)), epoch=epoch)
        return other

    # --- input

    def around(self, act: Callable[[], object]) -> None:
        """One batch of input; what follows from it, where that is prompt."""
        self.owner.begin()
        act()
        self.owner.end()
        self.settle()

    def settle(self) -> None:
        """Everything that a prompt database and the own bus would have done by now."""
        while True:
            if self.to_self:
                own, self.to_self = list(self.to_self), deque()
                self._batch(partial(self._handle, ME, own))
            elif self.is_prompt and self.waiting:
                self._batch(self.waiting.popleft())
            elif self.is_prompt and self.batches:
                self.committed()
            else:
                return

    def _batch(self, act: Callable[[], object]) -> None:
        self.owner.begin()
        act()
        self.owner.end()

    def receive(self, sender: Incarnation, *envelopes: Envelope) -> None:
        """Envelopes of one frame."""
        self.around(partial(self._handle, sender, envelopes))

    def _handle(self, sender: Incarnation, envelopes: Sequence[Envelope]) -> None:
        for envelope in envelopes:
            if envelope[0] == UNREACHABLE:
                self.dialing.unreachable(sender, *envelope[1:])
                continue
            target = self.owner if envelope[0] in _OF_OWNER else self.directory
            target.receive(sender, envelope[0], envelope[1:])

    def tick(self, seconds: float = 1.0) -> None:
        """Time passes."""
        self.now += seconds

        def act() -> None:
            self.owner.tick()
            self.directory.tick()
            self.dialing.tick()

        self.around(act)

    def read(self) -> None:
        """The database answers the reads that wait."""
        waiting, self.waiting = self.waiting, deque()
        for act in waiting:
            self._batch(act)
        self.settle()

    def committed(self) -> None:
        """The transaction in flight has committed."""
        batch = self.batches.popleft()
        self.database.commit(batch)
        self._batch(self.owner.queue.committed)
        if not self.is_prompt:
            self.settle()

    def refused(self, at: int) -> None:
        """The database will not have one write of the transaction in flight (or behind these, one row)."""
        self.batches.popleft()
        self.around(lambda: self.owner.queue.refused(at))

    def fenced(self, *lost: str) -> None:
        """The transaction in flight is refused: others own the shards of these accounts."""
        self.batches.popleft()

        def act() -> None:
            for bare in lost:
                self.directory.dropped(self.owner.drop(shard_of(bare)))
            self.owner.queue.fenced()

        self.around(act)

    # --- edges

    def bind(self, bare: str, resource: str, edge: Incarnation = EDGE, *, is_available: bool = True) -> Session:
        """A session, available without having said so."""
        self.attach(bare, resource, edge)
        session = self.session(bare, resource)
        if is_available:
            session.presence = stanzas.presence(to=None, from_=session.jid)
        self.sent.clear()
        return session

    def attach(
        self, bare: str, resource: str | None, edge: Incarnation = EDGE, *, request: str = "", epoch: int | None = None,
        facts: dict[str, Any] | None = None,
    ) -> str:  # fmt: skip
        """ATTACH; returns the request's id."""
        request = request or f"{edge}/{next(self._ids)}"
        self.receive(edge, (ATTACH, shard_of(bare), epoch or self.epoch(bare), request, bare, resource, facts or {}))
        return request

    def resume(
        self, session: Session | SessionRow, h: int, edge: Incarnation = EDGE_2, *, request: str = "", bare: str = ""
    ) -> str:
        """RESUME; returns the request's id."""
        bare, request = bare or session.bare, request or f"{edge}/{next(self._ids)}"
        self.receive(edge, (RESUME, shard_of(bare), self.epoch(bare), request, bare, session.sid, h))
        return request

    def enable(self, session: Session, n0: int = 0, q0: int = 0) -> None:
        """The client may resume the session."""
        assert session.place is not None
        self.receive(
            session.place, (ENABLED, session.shard, self.epoch(session.bare), session.sid, session.gen, n0, q0)
        )

    def submit(
        self, session: Session, n: int, stanza: Stanza, *, again: bool = False, gen: int | None = None,
        edge: Incarnation | None = None,
    ) -> None:  # fmt: skip
        """The session's edge offers a stanza."""
        place = edge or session.place
        assert place is not None
        stanza = stanza._replace(from_=session.jid)
        fields = (session.shard, self.epoch(session.bare), session.sid, session.gen if gen is None else gen, n)
        self.receive(place, (SUBMIT, *fields, tuple(stanza), again))

    def detach(self, session: Session, reason: str = "connection-lost", gen: int | None = None) -> None:
        """The session's stream has ended."""
        assert session.place is not None
        gen = session.gen if gen is None else gen
        self.receive(session.place, (DETACH, session.shard, self.epoch(session.bare), session.sid, gen, reason))

    def acknowledge(self, session: Session, q: int) -> None:
        """The client has everything up to q."""
        assert session.place is not None
        self.receive(
            session.place, (ACKNOWLEDGED, session.shard, self.epoch(session.bare), session.sid, session.gen, q)
        )

    def announce(self, edge: Incarnation, bare: str, *announcements: tuple[Any, ...], epoch: int | None = None) -> None:
        """What an edge holds in the shard of this account."""
        self.receive(edge, (ANNOUNCE, shard_of(bare), epoch or self.epoch(bare), announcements))

    # --- other routers

    def forward(
        self, stanza: Stanza, n: int, *, to: str = JULIET, prev: int = 0, retry: bool = False, origin: int = ORIGIN,
        origin_id: int = 0, epoch: int = 1, sender: Incarnation = OTHER, shard: int = 5, for_epoch: int = 0,
    ) -> None:  # fmt: skip
        """Another owner forwards a stanza; `for_epoch`: to which stretch of ownership here, the present one if 0."""
        targets = ((to, prev, for_epoch or self.owner.tenures[shard_of(to)] or 1),)
        self.receive(sender, (FORWARD, shard, epoch, origin, n, retry, targets, (tuple(stanza),), origin_id))

    def confirmed(self, session: Session, to: str, n: int) -> None:
        """The recipient's owner has accepted it."""
        self.receive(OTHER, (CONFIRM, session.sid, to, n))

    # --- what there is

    def epoch(self, bare: str) -> Epoch:
        """The present epoch of an account's shard."""
        epoch = self.owner.tenures[shard_of(bare)]
        assert epoch is not None
        return epoch

    def entity(self, bare: str) -> Entity:
        """As it is in memory."""
        return self.owner.entities[bare]

    def session(self, bare: str, resource: str) -> Session:
        """A bound session."""
        return self.owner.entities[bare].sessions[resource]

    def taken(self, *kinds: int) -> list[tuple[Incarnation, Envelope]]:
        """What was sent of these kinds (all) since the last time; what else was sent is forgotten."""
        sent, self.sent = self.sent, []
        return [(to, envelope) for to, envelope in sent if not kinds or envelope[0] in kinds]

    def delivered(self, session: Session) -> list[tuple[int, str | None]]:
        """(q, id) of what was sent to a session's edge since the last time."""
        return [
            (target[4], from_wire(tuple(envelope[2])).id)
            for _, envelope in self.taken(DELIVER)
            for target in envelope[1]
            if target[2] == session.sid
        ]

    def confs(self) -> list[tuple[SessionId, int]]:
        """(sid, conf) of what edges were told to be safe since the last time."""
        return [(envelope[3], envelope[5]) for _, envelope in self.taken(CONFIRMED)]

    # --- effects (router/owner.py)

    def send(self, to: Incarnation, envelope: Envelope) -> bool:
        """Kept; what goes to this router itself arrives with the next batch."""
        if to == ME:
            self.to_self.append(envelope)
        else:
            self.sent.append((to, envelope))
        return True

    def commit(self, batch: Batch) -> None:
        """In flight."""
        self.batches.append(batch)

    def load(self, bare: str, shard: Shard, epoch: Epoch) -> None:
        """A read."""
        self.waiting.append(lambda: self.owner.loaded(bare, epoch, self.database.load(bare)))

    def look(self, bare: str, epoch: Epoch, key: int, origin: int, above: int) -> None:
        """A read."""
        self.looks.append((bare, origin, above))
        self.waiting.append(lambda: self.owner.looked(bare, epoch, origin, self.database.look(key, origin, above)))

    def replay(self, wanted: Sequence[tuple[str, Epoch, Wanted]]) -> None:
        """A read for each account."""
        for bare, epoch, want in wanted:
            self.waiting.append(partial(self._replay, bare, epoch, want))

    def _replay(self, bare: str, epoch: Epoch, want: Wanted) -> None:
        self.owner.replayed(bare, epoch, *self.database.replay(want))

    def run(self, request: Request, token: int) -> None:
        """A read."""
        self.waiting.append(lambda: self.owner.answered(token, self.database.run(request)))

    def new_id(self) -> int:
        """They only rise."""
        return next(self._ids)

    def bits(self, count: int) -> int:
        """None: ids follow each other."""
        return 0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def wall(self) -> float:
        """Unix seconds."""
        return NOW + self.now


def chat(id: str, to: str = JULIET, *, body: str = "hi") -> Stanza:
    """A message that is kept."""
    return stanzas.message(to=to, from_=None, type="chat", id=id, inner=f"<body>{body}</body>".encode(), flags=HAS_BODY)


def headline(id: str, to: str = JULIET) -> Stanza:
    """A message that is not."""
    return stanzas.message(to=to, from_=None, type="headline", id=id)


def announcement(
    session: Session, *, n: int | None = None, conf: int | None = None, gen: int | None = None, read_id: int = 0,
    missing: int = 0,
) -> tuple[Any, ...]:  # fmt: skip
    """As the session's edge announces it (cluster/edge.py): it has everything that the owner knows of, but for the last
    few deliveries."""
    held = list(session.unacknowledged)[: len(session.unacknowledged) - missing]
    last_id = max([id_ for _, id_, _ in held if id_ is not None], default=0 if missing else session.last_id)
    return (
        session.sid, session.gen if gen is None else gen, session.bare, session.resource,
        session.conf if conf is None else conf, session.q - missing, session.acknowledged,
        tuple((q, id_, tuple(stanza)) for q, id_, stanza in held if stanza is not None), last_id,
        session.pack_state(), session.seen if n is None else n, session.n0, session.q0, session.is_resumable, read_id,
    )  # fmt: skip
