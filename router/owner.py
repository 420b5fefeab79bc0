"""The owner: every entity of this router's shards, and the one place where inputs become turns. Without I/O.

Envelopes, loaded accounts, answers of the database and ticks come in; effects go out through `Effects`. Sessions are
kept by `router/directory.py`, what waits for others by `router/outbox.py`, what waits for the database by
`router/batch.py`. The rules that are cited are those of docs/delivery.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final, NamedTuple, Protocol

from cluster.shards import SHARDS, ShardMap, shard_of
from cluster.wire import (
    AGAIN,
    CAST,
    CHECK,
    CONFIRM,
    FORWARD,
    MARKS,
    REPLAY,
    REVOKED,
    SUBMIT,
    WANT,
    Envelope,
    Epoch,
    Incarnation,
    SessionId,
    Shard,
)  # fmt: skip
from router import shared_groups
from router.batch import Batch, Item, Key, Queue
from router.bytestreams import Meetings, ProxyPipeline
from router.contacts import Roster
from router.entity import UNFINISHED, Entity, Session
from router.events import Event, HeardInRoom, LeftUnread, Recovered, SessionClosed
from router.outbox import Outbox
from router.peers import PeerPipeline
from router.pipeline import Pipeline
from router.pubsub import node as nodes
from router.pubsub.pipeline import ServicePipeline
from router.recipients import content, shown
from router.rooms.fanout import Fanout, Send
from router.rooms.mirror import Mirrors
from router.rooms.pipeline import RoomPipeline
from router.settings import Settings
from router.tracing import RouterTracing
from router.turn import Request, Turn
from storage import sessions as session_rows
from storage.log import FORWARD as TO_FORWARD
from storage.log import Ids, Row, Wanted, id_at
from xmpp import stanza as stanzas
from xmpp.errors import InternalServerError, RemoteServerNotFound, ServiceUnavailable, StanzaError
from xmpp.stanza import Stanza, from_wire

WAITING_ITEMS: Final = 20_000  # then submissions are ignored, and the edges' windows fill
MARK_LIFE_S: Final = 60.0
WANT_APART_S: Final = 1.0
ENTITY_LIFE_S: Final = 300.0
LOOK_BACK_S: Final = 3_600.0  # how far the log is searched for what somebody offers again


class Loaded(NamedTuple):
    """What the database knows of an entity. `values` are the loaders' results, in the order of the features."""

    key: int | None
    is_enabled: bool
    values: tuple[Any, ...]


class Effects(Protocol):
    """What the shell (or the simulator) does for an owner."""

    def send(self, to: Incarnation, envelope: Envelope) -> bool:
        """Put an envelope on the link to a process."""

    def commit(self, batch: Batch) -> None:
        """Run a fenced transaction; then call `owner.queue.committed`, `fenced` or `refused`."""

    def load(self, bare: str, shard: Shard, epoch: Epoch) -> None:
        """Read an entity; then call `owner.loaded`."""

    def look(self, bare: str, epoch: Epoch, key: int, origin: int, above: int) -> None:
        """Read the greatest number of a sender in an account's log, among ids above this; then call `owner.looked`."""

    def replay(self, wanted: Sequence[tuple[str, Epoch, Wanted]]) -> None:
        """Read what the sessions of these accounts have missed; then call `owner.replayed` for each."""

    def run(self, request: Request, token: int) -> None:
        """Run a turn's request; then call `owner.answered(token, value)`."""

    def new_id(self) -> int:
        """63 random bits."""

    def bits(self, k: int, /) -> int:
        """k random bits, quickly."""

    def monotonic(self) -> float:
        """Seconds, for time-outs."""

    def wall(self) -> float:
        """Unix seconds of the database's clock, for ids and for what people see."""


class _Asked(NamedTuple):
    """A request of a turn that is being run: where its answer belongs."""

    entity: Entity
    session: Session | None
    n: int
    stanza: Stanza | None
    request: Request


class Owner:
    """The entities of the shards that this router owns."""

    def __init__(
        self, me: Incarnation, pipeline: Pipeline, settings: Settings, effects: Effects, shard_map: ShardMap
    ) -> None:
        self.me = me
        self.pipeline = pipeline
        self.peers = PeerPipeline(pipeline, settings)
        self.settings = settings
        self.effects = effects
        self.map = shard_map
        self.tenures: list[Epoch | None] = [None] * SHARDS  # the epoch under which a shard is held
        self.entities: dict[str, Entity] = {}
        self.sessions: dict[SessionId, Session] = {}
        self.outbox = Outbox(shard_map, effects.send, self.settle)
        self.rooms = RoomPipeline(pipeline, settings, Fanout(shard_map, effects.send), self)
        self.everybody: dict[str, list[str]] = {}  # accounts, of domains that are groups (router/shared_groups.py)
        self.services = ServicePipeline(pipeline)
        self.meetings = Meetings(effects.monotonic)
        self.proxies = ProxyPipeline(pipeline, self.meetings, effects.send)
        self.mirrors = Mirrors(self, effects.send)
        self.queue = Queue(effects.commit, self._epoch_of, self._release, self._refused, self._demoted, self._forget)
        self.tracing: RouterTracing | None = None  # while somebody traces something
        self.ids = Ids(effects.bits)
        self.now = 0.0  # Unix seconds, set before each batch of input
        self.leaving: frozenset[Shard] = frozenset()  # being handed over: takes no input, its senders offer it again
        self.rejected = 0  # envelopes that no correct process sends
        self.deduplicated = 0
        self.stored = [0, 0, 0, 0]  # stanzas kept for somebody who was not there, by kind (xmpp/stanza.py)
        self.fenced = 0  # transactions that were refused because a shard had moved
        self._inputs: deque[Callable[[], None]] = deque()  # made by releases, run before the batch of input ends
        self._is_running = False
        self._asked: dict[int, _Asked] = {}
        self._next_token = 0
        self._marks: dict[Key, int] = {}  # (recipient, origin) -> greatest n accepted (rule 9)
        self._old_marks: dict[Key, int] = {}
        self._marks_turned_at = 0.0
        self._wanted_at: dict[tuple[Incarnation, Shard], float] = {}
        self._uncommitted: dict[Key, list[int]] = {}  # accepted and not committed, in order
        # Who has offered what is accepted and not committed once more, and up to which number: told when it is.
        self._repeated: dict[Key, dict[Incarnation, int]] = {}
        # Recipients, as they were, of items that wait to be committed, and of how many; None: they will be forwarded.
        self._undecided: dict[Key, tuple[Entity | None, int]] = {}
        self._to_load: dict[Entity, None] = {}
        self._replays: dict[str, Entity] = {}  # accounts whose sessions may have missed something
        self._timers: list[tuple[float, int, Entity, Callable[[Turn], None]]] = []  # a heap, by when they are due
        self._timer_ids = count()

    # --- shards

    def hold(self, shard: Shard, epoch: Epoch) -> None:
        """This router owns the shard from now on, under this epoch."""
        self.drop(shard)
        self.tenures[shard] = epoch

    def drop(self, shard: Shard) -> list[Session]:
        """Forget everything of a shard: it is somebody else's, or taken anew. Returns the sessions it had."""
        if self.tenures[shard] is None:
            return []
        self.tenures[shard] = None
        self.queue.lost()
        gone = [session for session in self.sessions.values() if session.shard == shard]
        for session in gone:
            del self.sessions[session.sid]
            self.mirrors.gone(session)
        for bare in [entity.bare for entity in self.entities.values() if entity.shard == shard]:
            del self.entities[bare]
        self.outbox.drop_shard(shard)
        for marks in (self._marks, self._old_marks, self._uncommitted, self._repeated):
            for key in [key for key in marks if shard_of(key[0]) == shard]:
                del marks[key]
        for bare in [bare for bare, entity in self._replays.items() if entity.shard == shard]:
            del self._replays[bare]
        return gone

    def is_busy(self, shards: frozenset[Shard]) -> bool:
        """Whether anything of these shards is still on its way: to the database, to others, or out of a request."""
        if len(self.queue) or any(asked.entity.shard in shards for asked in self._asked.values()):
            return True
        return self.outbox.holds_of(shards)

    def _epoch_of(self, shard: Shard) -> Epoch | None:
        return self.tenures[shard]

    # --- entities

    def entity(self, bare: str) -> Entity | None:
        """The entity, from memory or about to be loaded; None if its shard is not owned here."""
        entity = self.entities.get(bare)
        if entity is None:
            shard = shard_of(bare)
            epoch = self.tenures[shard]
            if epoch is None:
                return None
            is_room = bare.rpartition("@")[2] in self.settings.room_domains
            is_service = bare in self.settings.service_domains
            entity = Entity(bare, shard, epoch, SessionId(self.effects.new_id()), is_room, is_service)
            entity.is_proxy = bare.rpartition("@")[2] in self.settings.proxy_domains
            self.entities[bare] = entity
        return entity

    def when_loaded(self, entity: Entity, act: Callable[[], None]) -> None:
        """Run an input of an entity: at once, or after those that wait for it to be loaded."""
        entity.used_at = self.outbox.now
        if entity.is_loaded and not entity.inputs:
            act()
            return
        entity.inputs.append(act)
        if len(entity.inputs) == 1 and not entity.is_settling and not entity.holds and not entity.is_draining:
            self._load(entity)

    def _load(self, entity: Entity) -> None:
        if entity.waiting:
            self._to_load[entity] = None  # what is on its way to the database is read back
            return
        self.effects.load(entity.bare, entity.shard, entity.epoch)

    def settled(self, entity: Entity) -> None:
        """The numbers of all its sessions are known: what they have missed is read, then what waited goes on."""
        if entity.is_settling and self.entities.get(entity.bare) is entity:
            self._replays[entity.bare] = entity

    def _ask_replays(self) -> None:
        wanted = []
        for entity in self._replays.values():
            sessions = list(entity.sessions.values())
            if entity.key is None or not sessions or entity.is_peer:
                self._open(entity)  # what a peer has not got is read with it: its streams are not views of one log
                continue
            after = min(min((id_ - 1 for _, id_, s in e.unacknowledged if id_ is not None and id_ > 0 and s is None),
                            default=e.last_id) for e in sessions)  # fmt: skip
            since = id_at(self.now - LOOK_BACK_S)
            of_sent = [session for session in sessions if session.reach != session.conf or session.known_q is not None]
            sids, confs = tuple(s.sid for s in of_sent), tuple(s.conf for s in of_sent)
            wanted.append((entity.bare, entity.epoch, Wanted(entity.key, after, since, sids, confs)))
        self._replays.clear()
        if wanted:
            self.effects.replay(wanted)

    def replayed(self, bare: str, epoch: Epoch, rows: Sequence[Row], sent: Sequence[Row]) -> None:
        """Rule 17: what the account's log holds beyond what its sessions were given, and what they had sent beyond
        what was confirmed (rule 6)."""
        entity = self.entities.get(bare)
        if entity is None or entity.epoch != epoch or not entity.is_settling:
            return
        to_offer: dict[tuple[int, str], None] = {}
        for row in sent:
            sender = self.sessions.get(SessionId(row.sid))
            if sender is not None and sender.entity is entity:
                sender.logged.add(row.n)
                if sender.known_q is not None:  # else its edge offers everything again, also what has no row
                    sender.seen = max(sender.seen, row.n)
                if row.forward == TO_FORWARD and (place := self._place_of(row.peer)) is not None:
                    self.outbox.hold_row(entity, sender, row, place)
                    to_offer[(row.sid, place)] = None
        for session in entity.sessions.values():
            session.conf = session.lowest_pending - 1 if session.pending else session.seen
            self.outbox.conf_rose(session)
        for sid, place in to_offer:
            self.outbox.offer_again(sid, place)
        for row in rows:
            seen_by = shown(entity, row)
            for session, stanza in seen_by:
                if row.id > session.last_id:
                    self.outbox.deliver(((session, row.id),), stanza)
            for session in entity.sessions.values():
                if session.known_q is not None:
                    # Also what was passed on to it later than it would have seen it by itself.
                    _fill(session, row.id, dict(seen_by).get(session, content(entity, row)))
        self._open(entity)

    def _open(self, entity: Entity) -> None:
        entity.is_settling = False
        if self.mirrors.waits:
            self._inputs.append(self.mirrors.settled)
        for session in entity.sessions.values():
            if UNFINISHED in session.marks:
                entity.inputs.append(partial(self._recover, session))
        if entity.inputs:
            self._load(entity)

    def _recover(self, session: Session) -> None:
        if self.sessions.get(session.sid) is session:
            self.act(session.entity, lambda turn: self.emit(turn, Recovered(session)))

    def loaded(self, bare: str, epoch: Epoch, found: Loaded) -> None:
        """The database's answer about an entity; its waiting inputs run now."""
        entity = self.entities.get(bare)
        if entity is None or entity.epoch != epoch or entity.is_loaded:
            return
        entity.key = found.key
        entity.is_enabled = found.is_enabled
        if entity.is_peer:
            delivered, rows = found.values
            self.peers.assign(entity, delivered, rows, self.now)
        elif entity.is_room:
            self.rooms.assign(entity, *found.values)
        elif entity.is_service:
            nodes.assign(entity, *found.values)
        elif found.key is None:
            entity.roster, entity.blocks, entity.data = Roster(), set(), {}
        else:
            assigns = [assign for feature in self.pipeline.features for _, assign in feature.loaders]
            for assign, value in zip(assigns, found.values, strict=True):
                assign(entity, value)
            shared_groups.apply(entity, self.settings, self.everybody)
        entity.is_loaded = True
        self._drain(entity)

    def _drain(self, entity: Entity) -> None:
        """Run what has waited, as far as that goes."""
        if entity.is_draining:
            return
        entity.is_draining = True
        while entity.inputs and entity.is_loaded and not entity.holds:
            entity.inputs.popleft()()
        entity.is_draining = False
        if entity.inputs and not entity.holds:
            self._load(entity)

    def _hold(self, entity: Entity, first: Callable[[], None]) -> None:
        """Everything waits for a request under way; `first` runs first when it is answered."""
        entity.holds += 1
        entity.inputs.appendleft(first)

    def _held_no_more(self, entity: Entity) -> None:
        entity.holds -= 1
        if not entity.holds and self.entities.get(entity.bare) is entity:
            self._drain(entity)

    def looked(self, bare: str, epoch: Epoch, origin: int, mark: int) -> None:
        """The answer to `look`."""
        entity = self.entities.get(bare)
        if entity is not None and entity.epoch == epoch:
            self._marks.setdefault((bare, origin), mark)
            self._held_no_more(entity)

    def reload(self, entity: Entity) -> None:
        """What is in memory is not what the database has: read it again before the next input."""
        entity.is_loaded = False

    # --- inputs from other processes

    def receive(self, sender: Incarnation, kind: int, fields: tuple[Any, ...]) -> None:
        """One envelope of a kind that concerns entities and rooms, without its kind."""
        if kind == SUBMIT:
            self._on_submit(sender, *fields)
        elif kind == FORWARD:
            self._on_forward(sender, *fields)
        elif kind == CONFIRM:
            self.outbox.confirmed(*fields)
        elif kind == AGAIN:
            self.outbox.offer_again(*fields)
        elif kind == MARKS:
            self._on_marks(sender, *fields)
        elif kind in (CAST, CHECK, REPLAY):
            self.mirrors.receive(sender, kind, fields)

    def _on_marks(
        self, sender: Incarnation, shard: Shard, epoch: Epoch, room: str, marks: Sequence[tuple[int, int]]
    ) -> None:
        """What a router has seen of a room (router/rooms/fanout.py)."""
        entity = self.entity(room) if self.tenures[shard] == epoch else None
        if entity is not None:
            run = partial(self.rooms.marks, sender, marks)
            self.when_loaded(entity, partial(self.act, entity, run))

    def owners_changed(self, shards: Iterable[Shard]) -> None:
        """Shards have a new owner, or their owner a new link: what it may have missed is offered again."""
        news = frozenset(shards)
        self.outbox.owners_changed(news)
        rooms = [entity for entity in self.entities.values() if entity.room is not None]
        self.rooms.fanout.owners_changed(rooms, news)

    def recover(self, bare: str) -> None:
        """The shard of a room or a peer was taken, and somebody waits for it: bring it into memory."""
        entity = self.entity(bare)
        if entity is not None:
            self.when_loaded(entity, _nothing)

    def _on_submit(
        self, sender: Incarnation, shard: Shard, epoch: Epoch, sid: SessionId, gen: int, n: int,
        fields: tuple[Any, ...], is_again: bool,
    ) -> None:  # fmt: skip
        session = self.sessions.get(sid)
        if session is None or session.gen != gen or not session.is_adopted or session.place != sender:
            # Rule 4. The edge and this owner do not agree about the session: its announcement will settle that.
            if self.tenures[shard] == epoch:
                self.want(sender, shard)
            return
        if self.leaving and shard in self.leaving:
            return
        if n != session.seen + 1:
            if n <= session.seen:
                self.deduplicated += 1
                session.told = min(session.told, session.conf - 1)
                self.outbox.conf_rose(session)
            return
        if len(self.queue) >= WAITING_ITEMS:
            return
        stanza = from_wire(fields)
        if stanza.from_ != session.jid and not session.entity.is_peer:
            self.rejected += 1  # `from` is stamped at the edge and checked here
            stanza = stanza._replace(from_=session.jid)
        session.seen = n
        entity = session.entity
        if session.logged and n in session.logged:  # the owner before has dealt with it
            session.pending[n] = session.pending.get(n, 0) + 1
            self.settle(session, n)
        elif entity.is_loaded and not entity.inputs:
            entity.used_at = self.outbox.now
            self._submitted(session, n, stanza, is_again)
        else:
            session.pending[n] = 1
            self.when_loaded(entity, partial(self._submitted_late, session, n, stanza, is_again))

    def want(self, edge: Incarnation, shard: Shard) -> None:
        """Ask an edge to announce a shard, once a second at most."""
        now = self.outbox.now
        if now - self._wanted_at.get((edge, shard), -WANT_APART_S) >= WANT_APART_S:
            self._wanted_at[(edge, shard)] = now
            self.effects.send(edge, (WANT, shard, self.tenures[shard]))

    def _submitted_late(self, session: Session, n: int, stanza: Stanza, is_again: bool) -> None:
        # The owner before may have dealt with it, as its log has told meanwhile. Of a session that has ended meanwhile
        # nobody knows: what its edge held from before is nobody's any more, and was not acknowledged.
        is_known = n > session.reach or self.sessions.get(session.sid) is session
        if n not in session.logged and is_known:
            self._submitted(session, n, stanza, is_again)
        self.settle(session, n)

    def _submitted(self, session: Session, n: int, stanza: Stanza, is_again: bool) -> None:
        turn = Turn(session.entity, session, stanza, self.settings, self.now, session.sid, n, self.ids)
        turn.is_again = is_again
        if self.tracing is not None:
            self.tracing.accepted(turn, stanza)
        (self.peers if session.entity.is_peer else self.pipeline).outgoing(turn, stanza)
        self.finish(turn)
        if not session.pending:
            session.conf = session.seen
            self.outbox.conf_rose(session)

    def _on_forward(
        self, sender: Incarnation, shard: Shard, epoch: Epoch, origin: int, n: int, is_retry: bool,
        targets: tuple[tuple[str, int, Epoch], ...], bundle: tuple[tuple[Any, ...], ...], origin_id: int,
    ) -> None:  # fmt: skip
        if sender != self.me and not self.map.is_current(shard, epoch):
            return
        stanzas_ = tuple(map(from_wire, bundle))
        for to, prev, for_epoch in targets:
            entity = self.entity(to)
            if entity is None or (self.leaving and entity.shard in self.leaving):
                continue  # not owned here (soon): its sender offers it again to whoever does
            if for_epoch != entity.epoch:
                continue  # on its way since another stretch of ownership: what is known of it now is offered again
            if entity.is_loaded and not entity.inputs:
                entity.used_at = self.outbox.now
                self._forwarded(entity, sender, origin, n, is_retry, prev, stanzas_, origin_id)
            else:
                self.when_loaded(
                    entity, partial(self._forwarded, entity, sender, origin, n, is_retry, prev, stanzas_, origin_id)
                )

    def _forwarded(
        self, entity: Entity, sender: Incarnation, origin: int, n: int, is_retry: bool, prev: int,
        bundle: Sequence[Stanza], origin_id: int,
    ) -> None:  # fmt: skip
        """Rule 9: what was seen is confirmed, a gap is asked for, else it is accepted."""
        to = entity.bare
        mark = self._mark(to, origin)
        if mark is None:
            if is_retry and entity.key is not None:
                self._look(
                    entity, origin, origin_id,
                    partial(self._forwarded, entity, sender, origin, n, is_retry, prev, bundle, origin_id),
                )  # fmt: skip
                return
            mark = 0
        if n <= mark:
            self.deduplicated += 1
            waiting = self._uncommitted.get((to, origin))
            if waiting is None or n < waiting[0]:
                self.outbox.confirm(sender, origin, to, n)
            else:
                # Perhaps by another than who had offered it first: the sender's shard has moved.
                self._repeated.setdefault((to, origin), {})[sender] = n
            return
        if prev > mark:
            self.outbox.ask_again(sender, origin, to)
            return
        key = (to, origin)
        self._marks[key] = n
        turn = self._incoming(entity, (origin, n), bundle, self.now, origin_id)
        if self.finish(turn, partial(self._accepted, sender, key, n), key):
            self._uncommitted.setdefault(key, []).append(n)

    def _incoming(self, entity: Entity, key: tuple[int, int], bundle: Sequence[Stanza], now: float, above: int) -> Turn:
        """The recipient's turn: each stanza of a bundle stands for itself, a refused one takes nothing with it."""
        entity.counter += 1
        turn = Turn(entity, None, bundle[0], self.settings, now, entity.origin, entity.counter, self.ids, key, above)
        pipeline: Any = self.pipeline
        if entity.is_room:
            pipeline = self.rooms
        elif entity.is_peer:
            pipeline = self.peers
        elif entity.is_service:
            pipeline = self.services
        elif entity.is_proxy:
            pipeline = self.proxies
        if self.tracing is not None:
            self.tracing.accepted(turn, *bundle)
        if len(bundle) == 1:
            pipeline.incoming(turn, bundle[0])
            return turn
        for stanza in bundle:
            turn.stanza = stanza
            pipeline.incoming(turn, stanza)
            turn.keep()
        return turn

    def _look(self, entity: Entity, origin: int, origin_id: int, act: Callable[[], None]) -> None:
        """Rule 11: the mark of this sender is unknown, and somebody may have accepted this before: the log knows."""
        assert entity.key is not None
        above = id_at(self.now - LOOK_BACK_S)
        if origin_id:
            above = min(above, origin_id)
        self._hold(entity, act)
        self.effects.look(entity.bare, entity.epoch, entity.key, origin, above)

    def _accepted(self, sender: Incarnation, key: Key, n: int) -> None:
        self._decided(key, n)
        self.outbox.confirm(sender, key[1], key[0], n)
        self._confirm_repeated(key, n)

    def _confirm_repeated(self, key: Key, n: int) -> None:
        repeated = self._repeated.get(key)
        if repeated is None:
            return
        for peer, last in list(repeated.items()):
            self.outbox.confirm(peer, key[1], key[0], min(n, last))
            if last <= n:
                del repeated[peer]
        if not repeated:
            del self._repeated[key]

    def _decide_later(self, item: Item, to: str, entity: Entity | None) -> None:
        """Rule 12: until this item is out, what follows it to this recipient goes the same way."""
        key = (to, item.main.origin)
        item.undecided += (key,)
        self._undecided[key] = (entity, self._undecided.get(key, (None, 0))[1] + 1)

    def _now_decided(self, item: Item) -> None:
        if not item.undecided:
            return
        for key in item.undecided:
            self._decided(key, item.main.n)
            entity, count = self._undecided[key]
            if count > 1:
                self._undecided[key] = (entity, count - 1)
            else:
                del self._undecided[key]
        item.undecided = ()

    def _decided(self, key: Key, n: int) -> None:
        waiting = self._uncommitted.get(key)
        if waiting is not None and n in waiting:
            waiting.remove(n)
            if not waiting:
                del self._uncommitted[key]

    def _mark(self, to: str, origin: int) -> int | None:
        """The greatest n of this sender that was accepted for this recipient; None where nobody here knows."""
        key = (to, origin)
        mark = self._marks.get(key)
        if mark is None:
            mark = self._old_marks.get(key)
        return mark

    def _forget(self, item: Item) -> None:
        """Rule 13: an item was dropped; the marks it moved are taken back to what the log has."""
        if self.tracing is not None:
            self.tracing.undone(item, "a shard has moved: its next owner decides anew")
        self._now_decided(item)
        self._let_go(item)
        for turn in item.turns():
            if self.tenures[turn.entity.shard] != turn.entity.epoch:
                continue
            if turn.entity.is_peer:
                self.peers.forgotten(turn)
            if turn.writes:
                self.reload(turn.entity)  # memory has what the database will never have
        for key in item.marks():
            self._marks.pop(key, None)
            self._old_marks.pop(key, None)
            self._uncommitted.pop(key, None)
            for peer in self._repeated.pop(key, ()):
                self.outbox.ask_again(peer, key[1], key[0])

    # --- inputs made here

    def act(
        self, entity: Entity, run: Callable[[Turn], None], then: Callable[[], None] | None = None,
        origin: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        """One input that is no stanza: `run` writes to the turn, `then` is called when it is released. `origin`
        gives the turn another identity than the entity's own (a session that ends speaks last as itself)."""
        if origin is None:
            entity.counter += 1
            origin = (entity.origin, entity.counter)
        turn = Turn(entity, None, None, self.settings, self.now, *origin, self.ids)
        run(turn)
        self.finish(turn, then)

    def heard(self, session: Session, message: Stanza) -> None:
        """A session without a stream was given something that was said in a room (router/rooms/mirror.py)."""
        if not session.entity.is_peer:
            run = partial(self._heard, session, message)
            self._inputs.append(partial(self.when_loaded, session.entity, partial(self.act, session.entity, run)))

    def _heard(self, session: Session, message: Stanza, turn: Turn) -> None:
        self.emit(turn, HeardInRoom(session, message))

    def emit(self, turn: Turn, event: Event) -> None:
        """Tell whoever it concerns what has happened to an entity."""
        if turn.entity.is_peer:
            self.peers.emit(turn, event)
        else:
            self.pipeline.emit(turn, event)

    def answered(self, token: int, value: Any) -> None:
        """The answer to a turn's request: its `then` runs as a turn of the same entity and session."""
        asked = self._asked.pop(token, None)
        if asked is None or self.tenures[asked.entity.shard] != asked.entity.epoch:
            return
        entity, session = asked.entity, asked.session
        if session is not None:
            origin, n = session.sid, asked.n
        else:
            entity.counter += 1
            origin, n = entity.origin, entity.counter
        turn = Turn(entity, session, asked.stanza, self.settings, self.now, origin, n, self.ids)
        self._run_then(turn, asked, value)
        self.finish(turn)
        if session is not None:
            self.settle(session, n)
        if asked.request.holds:
            self._held_no_more(entity)

    def _run_then(self, turn: Turn, asked: _Asked, value: Any) -> None:
        stanza = asked.stanza
        try:
            if isinstance(value, StanzaError):
                raise value
            asked.request.then(turn, value)
            if turn.events:
                self.pipeline.tell(turn)
        except StanzaError as fault:
            turn.drop_effects()
            if stanza is not None:
                turn.fail(stanza, fault)
        except Exception as bug:
            self.pipeline.record_bug(bug)
            turn.drop_effects()
            if stanza is not None:
                turn.fail(stanza, InternalServerError())

    # --- a turn is over

    def finish(self, turn: Turn, then: Callable[[], None] | None = None, accepts: Key | None = None) -> bool:
        """Route what the turn sends, then release it or let it wait for its batch; True if it waits."""
        item = Item(turn, then, accepts)
        if turn.sends:
            self._route(item)
        if self.tracing is not None:
            self.tracing.decided(item)
        if item.must_wait():
            if turn.session is not None:
                turn.session.pending[turn.n] = turn.session.pending.get(turn.n, 0) + 1
            if turn.requests:
                self._hold_for(item, turn)
            for part in item.parts:
                self._decide_later(item, part.entity.bare, part.entity)
                self._uncommitted.setdefault((part.entity.bare, turn.origin), []).append(turn.n)
                if part.requests:
                    self._hold_for(item, part)
            for to in item.forwards:
                self._decide_later(item, to, None)
            self.queue.add(item)
            return True
        self._release(item)
        return False

    def _hold_for(self, item: Item, turn: Turn) -> None:
        """Requests that hold do so from now on, not only when the item is committed and they are asked."""
        if any(request.holds for request in turn.requests):
            item.holding += (turn.entity,)
            self._hold(turn.entity, _nothing)

    def _route(self, item: Item) -> None:
        """Recipients owned and loaded here join the item; for others the stanzas are forwarded."""
        turn = item.main
        sends = turn.sends
        if len(sends) == 1 and len(sends[0][1]) == 1:
            stanza, (to,) = sends[0]
            place = to if to in self.entities else self._place_of(to)
            if place is None:
                self._bounce(turn, stanza, to)
            else:
                said = stanza if stanza.to is not None else _addressed(stanza, to, place)
                self._route_to(item, place, (said,))
            return
        bundles: dict[str, list[Stanza]] = {}
        for stanza, recipients in sends:
            for to in recipients:
                place = self._place_of(to)
                if place is not None:
                    bundles.setdefault(place, []).append(_addressed(stanza, to, place))
                else:
                    self._bounce(turn, stanza, to)
        for place, bundle in bundles.items():
            self._route_to(item, place, bundle)

    def _place_of(self, to: str) -> str | None:
        """The entity where what is sent to a bare JID goes: an account here, else the peer of its domain; None where
        there is none."""
        _, at, domain = to.rpartition("@")
        settings = self.settings
        if domain in settings.domains or domain in settings.room_domains:
            return to if at else None
        if domain in settings.service_domains:
            return None if at else to
        if domain in settings.proxy_domains:
            return to if at else None
        if domain in settings.upload_domains:
            return None  # it is asked only
        if settings.reaches_others or domain in settings.components:
            return domain
        return None

    def _bounce(self, turn: Turn, stanza: Stanza, to: str) -> None:
        fault: StanzaError = RemoteServerNotFound("This server speaks to no others.")
        domain = to.rpartition("@")[2]
        settings = self.settings
        if (
            to in settings.domains
            or to in settings.room_domains
            or domain in settings.service_domains | settings.proxy_domains | settings.upload_domains
        ):
            fault = ServiceUnavailable()  # the domain itself is no entity, or has nobody but itself
        if stanza.kind == stanzas.PRESENCE or not stanzas.is_answerable(stanza) or turn.session is None:
            return
        error = stanzas.error(stanza, fault)
        if error.to == turn.session.jid:
            turn.deliver(turn.session, error)

    def _route_to(self, item: Item, to: str, bundle: Sequence[Stanza]) -> None:
        turn = item.main
        entity = self.entities.get(to)
        if entity is None or not entity.is_loaded or entity.inputs or self.outbox.is_queued(turn.origin, to):
            item.forward(to, bundle)
            return
        if self.leaving and entity.shard in self.leaving:
            item.forward(to, bundle)
            return
        key = (to, turn.origin)
        if self._undecided and key in self._undecided and self._undecided[key][0] is not entity:
            # Rule 12: an earlier one will be forwarded, or may yet have to be: it ran under another epoch of the shard.
            item.forward(to, bundle)
            return
        if turn.is_again:
            mark = self._mark(to, turn.origin)
            if mark is None:
                item.forward(to, bundle)  # a former owner may have sent it: the recipient's log will tell
                return
            if turn.n <= mark:
                waiting = self._uncommitted.get(key)
                if waiting is not None and turn.n >= waiting[0]:
                    item.forward(to, bundle)  # an earlier run of it may yet be fenced out: ask again when that is known
                else:
                    self.deduplicated += 1  # the owner before ran this turn; its recipient has been here all along
                return
        self._marks[key] = turn.n
        entity.used_at = self.outbox.now
        item.parts += (self._incoming(entity, turn.key, bundle, turn.now, turn.log_id or 0),)

    # --- releasing

    def _release(self, item: Item) -> None:
        """Everything durable is: let the item's effects out. Halves whose shard is lost since stay silent."""
        main = item.main
        session = main.session
        is_held = self.tenures[main.entity.shard] == main.entity.epoch
        if is_held:
            self._release_turn(main)
            forwards = item.forwards
            if forwards:
                if len(forwards) == 1:
                    ((to, bundle),) = forwards.items()
                    self.outbox.forward(main, to, bundle)
                else:
                    self.outbox.forward_many(main, forwards)
        self._now_decided(item)
        for part in item.parts:
            if self.tenures[part.entity.shard] == part.entity.epoch:
                self._release_turn(part)
                if self._repeated:
                    self._confirm_repeated((part.entity.bare, main.origin), main.n)
                if part.sends:
                    self._inputs.append(partial(self._send_on, part))
        if self.tracing is not None:
            self.tracing.released(item)
        self._let_go(item)
        if not is_held:
            return
        if item.then is not None:
            item.then()
        if item.is_waiting and session is not None:
            self.settle(session, main.n)
        if self._inputs and not self._is_running:
            self.run_inputs()

    def _let_go(self, item: Item) -> None:
        for entity in item.holding:
            self._inputs.append(partial(self._held_no_more, entity))
        item.holding = ()

    def _release_turn(self, turn: Turn) -> None:
        deliveries = turn.deliveries
        if len(deliveries) == 1:
            session, stanza, id_ = deliveries[0]
            self.outbox.deliver_one(session, id_, stanza)
        elif deliveries:
            self._deliver_many(deliveries)
        elif turn.rows and turn.session is None:
            self.stored[stanzas.MESSAGE] += 1
        if turn.waits:
            self.peers.released(turn)
        if turn.casts:
            self.rooms.released(turn)
        for session in turn.touched:
            self.outbox.tell_state(session)
        for request in turn.requests:
            self._ask(turn, request)
        for seconds, then in turn.timers:
            heappush(self._timers, (self.outbox.now + seconds, next(self._timer_ids), turn.entity, then))
        for session, condition in turn.closing:
            self._inputs.append(partial(self.end_session, session, condition))
        if turn.reloads:
            self._inputs.append(partial(self.reload, turn.entity))

    def _deliver_many(self, deliveries: Sequence[tuple[Session, Stanza, int | None]]) -> None:
        """Consecutive deliveries of one stanza share their copy; the order of different ones is kept."""
        group: list[tuple[Session, int | None]] = []
        current: Stanza | None = None
        for session, stanza, id_ in deliveries:
            if stanza is not current and group:
                assert current is not None
                self.outbox.deliver(group, current)
                group = []
            current = stanza
            group.append((session, id_))
        assert current is not None
        self.outbox.deliver(group, current)

    def _ask(self, turn: Turn, request: Request) -> None:
        self._next_token += 1
        session = turn.session
        if session is not None:
            session.pending[turn.n] = session.pending.get(turn.n, 0) + 1
        if request.holds:
            self._hold(turn.entity, _nothing)
        self._asked[self._next_token] = _Asked(turn.entity, session, turn.n, turn.stanza, request)
        self.effects.run(request, self._next_token)

    def _send_on(self, part: Turn) -> None:
        """What a recipient's turn sends becomes an input of its own, in the entity's name."""
        turn = Turn(part.entity, None, None, self.settings, part.now, part.origin, part.n, self.ids)
        turn.sends = part.sends
        self.finish(turn)

    def send_event(self, entity: Entity, origin: int, id: int, sends: Sequence[Send], is_again: bool) -> None:
        """What an event of a room is for others than its local occupants (router/rooms/pipeline.py, Elsewhere)."""
        turn = Turn(entity, None, None, self.settings, self.now, origin, id, self.ids)
        turn.is_again = is_again
        turn.log_id = id
        turn.sends = tuple(sends)
        self._inputs.append(partial(self._finish, turn))

    def _finish(self, turn: Turn) -> None:
        self.finish(turn)

    def is_on_its_way(self, origin: int) -> bool:
        """Whether anything of this sender is not confirmed yet."""
        return self.outbox.holds(origin)

    def soon(self, act: Callable[[], None]) -> None:
        """Run a function at the end of this batch of input."""
        self._inputs.append(act)

    def run_inputs(self) -> None:
        """Run the inputs that releases made. Called at the end of each batch of input, too."""
        self._is_running = True
        try:
            while self._inputs:
                self._inputs.popleft()()
        finally:
            self._is_running = False

    def end_session(self, session: Session, condition: str, reason: str = "") -> None:
        """A session is over: its presence is taken back, its row deleted, its edge told to close the stream with
        `condition` ("" = without an error). It speaks last as itself, behind everything it has sent."""
        entity = session.entity
        if entity.is_settling and session.is_exact and session.sid in self.sessions:
            # What it has missed is not read yet, and would be nobody's.
            self.when_loaded(entity, partial(self.end_session, session, condition, reason))
            return
        if self.sessions.pop(session.sid, None) is None:
            return
        self.mirrors.gone(session)
        if entity.sessions.get(session.resource) is session:
            del entity.sessions[session.resource]
        if entity.is_peer:
            self.peers.ends(session)
        self.when_loaded(entity, partial(self._ended, session, condition, reason or condition.partition("\n")[0]))

    def _ended(self, session: Session, condition: str, reason: str) -> None:
        def run(turn: Turn) -> None:
            turn.write(session_rows.delete, session.sid)
            self.emit(turn, SessionClosed(session, reason))

        def released() -> None:
            # Everything that was decided before has been delivered by now: what of it the client never got is left.
            self._revoke(session, condition)
            self.act(session.entity, lambda turn: self.emit(turn, LeftUnread(session)))

        self.act(session.entity, run, released, (session.sid, session.seen + 1))

    def _revoke(self, session: Session, condition: str) -> None:
        if session.place is not None:
            entity = session.entity
            revoked = (REVOKED, entity.shard, entity.epoch, session.sid, session.gen + 1, condition)
            self.effects.send(session.place, revoked)

    def settle(self, session: Session, n: int) -> None:
        """Rule 6: one thing that n waited for is done; conf follows the lowest pending number."""
        pending = session.pending
        left = pending.get(n, 0) - 1
        if left > 0:
            pending[n] = left
            return
        pending.pop(n, None)
        conf = session.lowest_pending - 1 if pending else session.seen
        if session.logged and conf >= max(session.logged):
            session.logged.clear()
        if conf > session.conf:
            session.conf = conf
            self.outbox.conf_rose(session)
        if session.on_settled is not None and not pending:
            session.on_settled()

    def _refused(self, item: Item) -> None:
        """The database refuses the item's data: the sender gets an error, memory is read anew."""
        if self.tracing is not None:
            self.tracing.undone(item, "the database has refused it; the log of this router says why")
        self._now_decided(item)
        self._let_go(item)
        for turn in item.turns():
            if turn.entity.is_peer:
                self.peers.forgotten(turn)
                turn.waits = ()
            self.reload(turn.entity)
        main = item.main
        if self.tenures[main.entity.shard] != main.entity.epoch:
            return
        stanza = main.stanza
        main.drop_effects()
        if stanza is not None:
            main.fail(stanza, InternalServerError())
        failed = Item(main, item.then)
        failed.is_waiting = True
        self._release(failed)

    def _demoted(self, item: Item, part: Turn) -> None:
        """Rule 13: the recipient's shard went away between turn and commit: its new owner gets the stanzas."""
        to = part.entity.bare
        bundle = [
            _addressed(stanza, recipient, to)
            for stanza, recipients in item.main.sends
            for recipient in recipients
            if self._place_of(recipient) == to
        ]
        item.forward(to, bundle)

    # --- time

    def begin(self) -> None:
        """Before a batch of input: all of it happens at one moment."""
        self.outbox.now = self.effects.monotonic()
        self.now = self.effects.wall()
        self.ids.set_clock(self.now)

    def end(self) -> None:
        """After a batch of input: start a transaction if something waits, say what is confirmed."""
        if self._inputs:
            self.run_inputs()
        if self._replays:
            self._ask_replays()
        if self._to_load:
            waiting, self._to_load = self._to_load, {}
            for entity in waiting:
                if self.entities.get(entity.bare) is entity:
                    self._load(entity)
        self.queue.pump()
        self.outbox.flush()

    def tick(self) -> None:
        """About once a second: safety nets, forgetting."""
        now = self.outbox.now
        self.outbox.tick()
        self.rooms.fanout.tick(self.entities)
        while self._timers and self._timers[0][0] <= now:
            _, _, entity, then = heappop(self._timers)
            if self.entities.get(entity.bare) is entity:
                self.when_loaded(entity, partial(self.act, entity, then))
        if now - self._marks_turned_at >= MARK_LIFE_S:
            self._marks_turned_at = now
            self._old_marks, self._marks = self._marks, {}
            self._wanted_at.clear()
            self._forget_idle(now)
            self.mirrors.tick()

    def _forget_idle(self, now: float) -> None:
        for entity in list(self.entities.values()):
            if (
                not entity.sessions
                and not entity.waiting
                and not entity.inputs
                and not (entity.is_peer and entity.strays)
                and not (entity.room is not None and entity.room.occupants)
                and now - entity.used_at >= ENTITY_LIFE_S
            ):
                del self.entities[entity.bare]


def _addressed(stanza: Stanza, to: str, place: str) -> Stanza:
    """What another domain gets says for whom it is, also where that is the domain itself."""
    return stanza if stanza.to is not None or (place == to and "@" in to) else stanza._replace(to=to)


def _nothing() -> None:
    """Stands first among the inputs of an entity that is held."""


def _fill(session: Session, id_: int, stanza: Stanza) -> None:
    """The content of a delivery of which a snapshot knew the id only."""
    for index, (q, known, present) in enumerate(session.unacknowledged):
        if known == id_ and present is None:
            session.unacknowledged[index] = (q, id_, stanza)
            return
