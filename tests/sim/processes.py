"""Routers and edges of the simulation: the real cores, with the shells' part played by virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from cluster.edge import Edge
from cluster.shards import ShardMap
from cluster.wire import (
    ACKNOWLEDGED,
    ACTIVITY,
    AGAIN,
    ANNOUNCE,
    ATTACH,
    CAST,
    CHECK,
    CONFIRM,
    DETACH,
    ENABLED,
    FORWARD,
    MAP,
    MARKS,
    READ,
    REPLAY,
    RESUME,
    SUBMIT,
    UNREACHABLE,
    Envelope,
    Epoch,
    Incarnation,
    Shard,
)  # fmt: skip
from router.batch import Batch
from router.dialing import Dialing
from router.directory import Directory
from router.events import BecameAvailable, SessionBound, SessionClosed
from router.feature import Feature, Stage
from router.features import carbons, delivery, offline
from router.features.presence import DIRECTED
from router.owner import Loaded, Owner
from router.peers import PeerPipeline
from router.pipeline import Pipeline
from router.placement import Row as Placement
from router.placement import plan
from router.rooms.room import HISTORY
from router.settings import Settings
from router.turn import Request, Turn
from storage.log import ARCHIVE, FROM_OWNER, TO_OWNER, Row, Wanted, id_at
from tests.sim.network import Network, Node
from tests.sim.rooms import ROOMS_DOMAIN
from tests.sim.store import UNKNOWN, SimStore
from xmpp import stanza as stanzas
from xmpp.stanza import HAS_BODY, Stanza

DOMAIN = "sim"
PEER_QUEUE_S = 6.0  # so that stanzas for a server that cannot be reached do come back
PEER_QUEUE = 80

# In the simulation everybody is available from the moment of the bind: presence is not what is tested here.
available = Feature("available")


@available.on_event(SessionBound)
def _become_available(turn: Turn, event: SessionBound) -> None:
    event.session.presence = stanzas.presence(to=None, from_=event.session.jid)
    turn.touch(event.session)

    turn.emit(BecameAvailable(event.session))


# And of presence, what rooms need: it is sent to them, and taken back when a session ends.
@available.on_presence(Stage.OUT_ACT)
def _send_presence(turn: Turn, presence: Stanza) -> bool:
    session = turn.session
    assert session is not None
    assert presence.to is not None
    session.marks[DIRECTED] = [*session.marks.get(DIRECTED, ()), presence.to]
    turn.touch(session)
    turn.send(presence)
    return True


@available.on_event(SessionClosed)
def _take_presence_back(turn: Turn, event: SessionClosed) -> None:
    for to in event.session.marks.get(DIRECTED, ()):
        turn.send(stanzas.presence(to=to, from_=event.session.jid, type="unavailable"))


# And every message with a body is kept, at both sides.
record = Feature("record")


@record.on_message(Stage.OUT_RECORD)
def _record_sent(turn: Turn, message: Stanza) -> None:
    if message.flags & HAS_BODY and message.type != "groupchat":
        turn.log(message, FROM_OWNER, ARCHIVE)


@record.on_message(Stage.IN_RECORD)
def _record_received(turn: Turn, message: Stanza) -> None:
    if message.flags & HAS_BODY:
        turn.log(message, TO_OWNER, ARCHIVE)


FEATURES = (record, available, carbons.feature, offline.feature, delivery.feature)
PIPELINE = Pipeline(FEATURES, frozenset({DOMAIN}))
RESUME_TIMEOUT_S = 8
SETTINGS = Settings(
    domains=frozenset({DOMAIN}),
    room_domains=frozenset({ROOMS_DOMAIN}),
    resume_timeout_s=RESUME_TIMEOUT_S,
    peer_queue_s=PEER_QUEUE_S,
    peer_queue=PEER_QUEUE,
)


class RouterNode(Node):
    """A router: owner, directory, ownership."""

    owner_class: type[Owner] = Owner

    def __init__(
        self, network: Network, name: str, store: SimStore, beliefs: Beliefs, new_peers: Callable[[], PeerPipeline]
    ) -> None:
        super().__init__(network, name, "router")
        self.store = store
        self.beliefs = beliefs
        self.new_peers = new_peers

    def start(self) -> None:
        """An owner of nothing yet."""
        self.map = ShardMap()
        self.owner = type(self).owner_class(self.incarnation, PIPELINE, SETTINGS, self, self.map)
        self.owner.peers = self.new_peers()
        self.directory = Directory(self.owner, lambda: f"r{self.bits(32)}")
        self.dialing = Dialing(self.owner, self.owner.peers)
        self.directory.on_room = self.dialing.acknowledged
        self._is_acting = False
        self.leaving: set[Shard] = set()

    def handle(self, sender: Incarnation, envelopes: tuple[Envelope, ...]) -> None:
        """As router/service.py does."""
        self.owner.begin()
        for envelope in envelopes:
            kind, fields = envelope[0], envelope[1:]
            if kind in (SUBMIT, FORWARD, CONFIRM, AGAIN, CAST, CHECK, MARKS, REPLAY):
                self.owner.receive(sender, kind, fields)
            elif kind in (ATTACH, DETACH, ANNOUNCE, ACKNOWLEDGED, ENABLED, RESUME, ACTIVITY, READ):
                self.directory.receive(sender, kind, fields)
            elif kind == UNREACHABLE:
                self.dialing.unreachable(sender, *fields)
            elif kind == MAP:
                self._on_map(fields[0])
        self.owner.end()

    def around(self, act: Callable[[], None]) -> None:
        """A batch of input."""
        self.owner.begin()
        act()
        self.owner.end()

    def _on_map(self, entries: tuple[tuple[Shard, Epoch, Incarnation], ...]) -> None:
        changed = []
        for shard, epoch, owner in entries:
            if self.map.update(shard, epoch, owner):
                changed.append(shard)
                held = self.owner.tenures[shard]
                if held is not None and held < epoch:
                    self.directory.dropped(self.owner.drop(shard))
        self.owner.owners_changed(changed)

    def every_tick(self) -> None:
        """Ownership and the cores' own ticks."""

        def act() -> None:
            self.owner.tick()
            self.directory.tick()
            self.dialing.tick()

        self.around(act)
        if not self._is_acting and not self.store.is_away:
            self._look()

    def _held(self) -> dict[Shard, Epoch]:
        tenures = self.owner.tenures
        return {shard: epoch for shard in self.store.table if (epoch := tenures[shard]) is not None}

    def _look(self) -> None:
        living = self.beliefs.living_routers(self)
        todo = plan(self.incarnation, dict(self.store.table), self._held(), living, ())
        if todo.lost:
            self.around(partial(self._drop, todo.lost))
        if todo.take:
            self._is_acting = True
            self.store.execute(
                lambda: self.store.take(self.incarnation, todo.take), self._in_run(partial(self._taken, todo.take))
            )

    def _drop(self, shards: Iterable[Shard]) -> None:
        for shard in shards:
            self.directory.dropped(self.owner.drop(shard))

    def _in_run(self, act: Callable[[Any], None]) -> Callable[[Any], None]:
        """Answers of the database belong to the run that asked."""
        incarnation = self.incarnation

        def answer(value: Any) -> None:
            if self.incarnation == incarnation:
                self.when_running(lambda: act(value))

        return answer

    def _taken(self, wanted: dict[Shard, Placement], taken: Any) -> None:
        if taken is UNKNOWN or not taken:
            self._is_acting = False  # rule 15: the rows will tell; a shard that is ours by them is taken anew
            return

        def read() -> Any:
            return self.store.rows(taken), self.store.waiting(taken)

        self.store.execute(read, self._in_run(partial(self._loaded_rows, taken)))

    def _loaded_rows(self, taken: dict[Shard, Epoch], found: Any) -> None:
        self._is_acting = False
        if found is UNKNOWN:
            return
        rows, waiting = found

        def adopt() -> None:
            self.owner.ids.last = max(self.owner.ids.last, id_at(self.wall()))
            for shard, epoch in taken.items():
                self.directory.taken(shard, epoch, [row for row in rows if row.shard == shard])
                self.map.update(shard, epoch, self.incarnation)
            self.tell(list(self._links))
            self.owner.owners_changed(list(taken))
            for bare in waiting:
                self.owner.recover(bare)

        self.around(adopt)

    def tell(self, peers: list[Incarnation]) -> None:
        """What this router owns, to these peers."""
        entries = tuple((shard, epoch, self.incarnation) for shard, epoch in self._held().items())
        for peer in peers:
            self.send(peer, (MAP, entries))

    def give(self, shard: Shard, to: Incarnation) -> None:
        """A planned handover of one shard, wherever rendezvous hashing would have it."""
        epoch = self.owner.tenures[shard]
        if epoch is None:
            return

        def released(given: Any) -> None:
            if given is not UNKNOWN and given:
                self.around(lambda: self.directory.dropped(self.owner.drop(shard)))

        self.store.execute(lambda: self.store.release(self.incarnation, {shard: epoch}, to), self._in_run(released))

    def steal(self, shard: Shard) -> None:
        """Take a shard from whoever has it, though it lives: as if it were believed dead."""
        row = self.store.table[shard]
        if not self._is_acting and not self.store.is_away:
            self._is_acting = True
            wanted = {shard: row}
            self.store.execute(
                lambda: self.store.take(self.incarnation, wanted), self._in_run(partial(self._taken, wanted))
            )

    def peer_changed(self, peer: Incarnation, role: str, is_up: bool) -> None:
        """What membership says."""

        def act() -> None:
            if is_up:
                self.linked(peer)
                if role != "router":
                    self.directory.edge_up(peer)
                if role == "s2s":
                    self.dialing.edge_up(peer)
                self.tell([peer])
                self.owner.owners_changed([Shard(s) for s, owner in enumerate(self.map.owners) if owner == peer])
            else:
                self.unlinked(peer)
                if role != "router":
                    self.dialing.edge_down(peer)
                    self.directory.edge_down(peer)

        self.around(act)

    # --- the owner's effects

    def commit(self, batch: Batch, is_again: bool = False) -> None:
        """A transaction; the same again while its outcome is unknown."""

        def done(lost: Any) -> None:
            if lost is UNKNOWN:
                self.later(self.scheduler.random.uniform(0.05, 0.3), lambda: self.commit(batch, True))
            elif lost and is_again and batch.rows:
                self._ask(
                    lambda: self.store.is_there(batch.rows[0].owner, batch.rows[0].id),
                    lambda there: fenced(lost, there),
                )
            elif lost:
                fenced(lost, False)
            else:
                self.around(self.owner.queue.committed)

        def fenced(lost: Any, is_there: bool) -> None:
            def act() -> None:
                self._drop(lost)
                if is_there:
                    self.owner.queue.committed()
                else:
                    self.owner.queue.fenced()

            self.around(act)

        self.store.execute(lambda: self.store.commit(self.incarnation, batch), self._in_run(done))

    def _ask(self, read: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """A read, again until it is answered."""

        def done(value: Any) -> None:
            if value is UNKNOWN:
                self.later(0.1, lambda: self._ask(read, then))
            else:
                then(value)

        self.store.execute(read, self._in_run(done))

    def load(self, bare: str, shard: Shard, epoch: Epoch) -> None:
        """An account, a domain, or a room."""

        def read() -> Loaded:
            if "@" not in bare:
                peer = self.store.peer(bare)
                return Loaded(peer.key, True, (peer.delivered, peer.rows))
            if (room := self.store.rooms.by_bare.get(bare)) is not None:
                return Loaded(room.key, True, (room.loaded(self.store.log[room.key], HISTORY),))
            key = self.store.accounts[bare]
            return Loaded(key, True, (self.store.offline(key),))

        def then(found: Loaded) -> None:
            self.around(lambda: self.owner.loaded(bare, epoch, found))

        self._ask(read, then)

    def look(self, bare: str, epoch: Epoch, key: int, origin: int, above: int) -> None:
        """A mark."""
        self._ask(
            lambda: self.store.mark(key, origin, above),
            lambda mark: self.around(lambda: self.owner.looked(bare, epoch, origin, mark)),
        )

    def replay(self, wanted: Any) -> None:
        """What sessions have missed."""
        asked: list[Wanted] = [item[2] for item in wanted]

        def read() -> tuple[list[Row], list[Row]]:
            return self.store.replay(asked), self.store.sent(asked)

        def then(value: tuple[list[Row], list[Row]]) -> None:
            def act() -> None:
                for bare, epoch, want in wanted:
                    rows, sent = ([row for row in found if row.owner == want.owner] for found in value)
                    self.owner.replayed(bare, epoch, rows, sent)

            self.around(act)

        self._ask(read, then)

    def run(self, request: Request, token: int) -> None:
        """What a feature asks for."""
        self._ask(
            lambda: self.store.request(request.statement, request.arguments),
            lambda value: self.around(lambda: self.owner.answered(token, value)),
        )

    def new_id(self) -> int:
        """Random, from the seed."""
        return self.scheduler.random.getrandbits(62)

    def bits(self, count: int) -> int:
        """From the seed, too."""
        return self.scheduler.random.getrandbits(count)

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self.scheduler.now

    def wall(self) -> float:
        """Virtual seconds, too."""
        return self.scheduler.now


class EdgeNode(Node):
    """A c2s (or s2s) process: the real edge, without streams."""

    edge_class: type[Edge] = Edge

    def __init__(self, network: Network, name: str, role: str = "c2s") -> None:
        super().__init__(network, name, role)

    def start(self) -> None:
        """No sessions yet."""
        requests = iter(range(10**9))
        self.edge = type(self).edge_class(
            self.send, lambda: f"{self.incarnation}/{next(requests)}", lambda: self.scheduler.now
        )
        self._ticked_at = 0.0

    def handle(self, sender: Incarnation, envelopes: tuple[Envelope, ...]) -> None:
        """As c2s/service.py does."""
        for envelope in envelopes:
            self.edge.receive(sender, envelope[0], envelope[1:])

    def every_tick(self) -> None:
        """About once a second."""
        if self.scheduler.now - self._ticked_at >= 1.0:
            self._ticked_at = self.scheduler.now
            self.edge.tick()

    def peer_changed(self, peer: Incarnation, role: str, is_up: bool) -> None:
        """What membership says."""
        if is_up:
            self.linked(peer)
            self.edge.peer_up(peer)
        else:
            self.unlinked(peer)


class Beliefs:
    """What membership tells, late and differently to everybody. A paused process is believed dead after a while."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.dead: set[Incarnation] = set()

    def living_routers(self, asker: Node) -> list[Incarnation]:
        """The routers that the database's heartbeats show."""
        nodes = self._network.nodes.values()
        return [
            node.incarnation
            for node in nodes
            if node.role == "router" and node.is_alive and node.incarnation not in self.dead
        ]

    def announce(self, who: Node, is_up: bool, incarnation: Incarnation, delay_s: float) -> None:
        """Tell every other process, each at its own time; edges care for routers only."""
        for node in self._network.nodes.values():
            if node is who or (node.role != "router" and who.role != "router"):
                continue
            assert isinstance(node, RouterNode | EdgeNode)
            delay = delay_s + self._network.scheduler.random.uniform(0, 0.3)
            node.later(delay, partial(node.peer_changed, incarnation, who.role, is_up))
            if is_up:  # the newcomer hears of those who are there
                assert isinstance(who, RouterNode | EdgeNode)
                if node.is_alive and node.incarnation not in self.dead:
                    who.later(delay, partial(who.peer_changed, node.incarnation, node.role, True))
