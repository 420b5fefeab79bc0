"""The owner: every entity of this router's shards, and the one place where inputs become turns. Without I/O.

Envelopes, loaded accounts, answers of the database and ticks come in; effects go out through `Effects`. Sessions are
kept by `router/directory.py`, what waits for others by `router/outbox.py`, what waits for the database by
`router/batch.py`. The rules that are cited are those of docs/delivery.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from cluster.shards import SHARDS, ShardMap, shard_of
from cluster.wire import (
    AGAIN,
    CONFIRM,
    FORWARD,
    REVOKED,
    SUBMIT,
    WANT,
    Envelope,
    Epoch,
    Incarnation,
    SessionId,
    Shard,
)  # fmt: skip
from router.batch import Batch, Item, Queue
from router.contacts import Roster
from router.entity import Entity, Session
from router.events import SessionClosed
from router.outbox import Outbox
from router.pipeline import Pipeline
from router.settings import Settings
from router.turn import Request, Turn
from storage import sessions as session_rows
from xmpp import stanza as stanzas
from xmpp.errors import InternalServerError, RemoteServerNotFound, ServiceUnavailable, StanzaError
from xmpp.stanza import Stanza, from_wire

WAITING_ITEMS: Final = 20_000  # then submissions are ignored, and the edges' windows fill
MARK_LIFE_S: Final = 60.0
WANT_APART_S: Final = 1.0
ENTITY_LIFE_S: Final = 300.0


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

    def run(self, request: Request, token: int) -> None:
        """Run a turn's request; then call `owner.answered(token, value)`."""

    def new_id(self) -> int:
        """63 random bits."""

    def monotonic(self) -> float:
        """Seconds, for time-outs."""

    def wall(self) -> float:
        """Unix seconds, for what people see."""


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
        self.settings = settings
        self.effects = effects
        self.map = shard_map
        self.tenures: list[Epoch | None] = [None] * SHARDS  # the epoch under which a shard is held
        self.entities: dict[str, Entity] = {}
        self.sessions: dict[SessionId, Session] = {}
        self.outbox = Outbox(shard_map, effects.send, self.settle)
        self.queue = Queue(effects.commit, self._epoch_of, self._release, self._refused, self._demoted)
        self.leaving: frozenset[Shard] = frozenset()  # being handed over: takes no input, its senders offer it again
        self.rejected = 0  # envelopes that no correct process sends
        self.deduplicated = 0
        self.fenced = 0  # transactions that were refused because a shard had moved
        self._inputs: deque[Callable[[], None]] = deque()  # made by releases, run before the batch of input ends
        self._is_running = False
        self._asked: dict[int, _Asked] = {}
        self._next_token = 0
        self._marks: dict[tuple[str, int], int] = {}  # (recipient, origin) -> greatest n accepted (rule 9)
        self._old_marks: dict[tuple[str, int], int] = {}
        self._marks_turned_at = 0.0
        self._wanted_at: dict[tuple[Incarnation, Shard], float] = {}
        self._uncommitted: dict[tuple[str, int], list[int]] = {}  # accepted and not committed, in order

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
        gone = [session for session in self.sessions.values() if session.shard == shard]
        for session in gone:
            del self.sessions[session.sid]
        for bare in [entity.bare for entity in self.entities.values() if entity.shard == shard]:
            del self.entities[bare]
        self.outbox.drop_shard(shard)
        for marks in (self._marks, self._old_marks, self._uncommitted):
            for key in [key for key in marks if shard_of(key[0]) == shard]:
                del marks[key]
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
            entity = Entity(bare, shard, epoch, SessionId(self.effects.new_id()))
            self.entities[bare] = entity
        return entity

    def when_loaded(self, entity: Entity, act: Callable[[], None]) -> None:
        """Run an input of an entity: at once, or after those that wait for it to be loaded."""
        entity.used_at = self.outbox.now
        if entity.is_loaded and not entity.inputs:
            act()
            return
        entity.inputs.append(act)
        if len(entity.inputs) == 1 and not entity.is_settling:
            self.effects.load(entity.bare, entity.shard, entity.epoch)

    def settled(self, entity: Entity) -> None:
        """The numbers of all its sessions are known: what waited for that goes on."""
        if entity.is_settling:
            entity.is_settling = False
            if entity.inputs:
                self.effects.load(entity.bare, entity.shard, entity.epoch)

    def loaded(self, bare: str, epoch: Epoch, found: Loaded) -> None:
        """The database's answer about an entity; its waiting inputs run now."""
        entity = self.entities.get(bare)
        if entity is None or entity.epoch != epoch or entity.is_loaded:
            return
        entity.key = found.key
        entity.is_enabled = found.is_enabled
        if found.key is None:
            entity.roster, entity.blocks, entity.data = Roster(), set(), {}
        else:
            assigns = [assign for feature in self.pipeline.features for _, assign in feature.loaders]
            for assign, value in zip(assigns, found.values, strict=True):
                assign(entity, value)
        entity.is_loaded = True
        while entity.inputs and entity.is_loaded:
            entity.inputs.popleft()()
        if entity.inputs:
            self.effects.load(entity.bare, entity.shard, entity.epoch)

    def reload(self, entity: Entity) -> None:
        """What is in memory is not what the database has: read it again before the next input."""
        entity.is_loaded = False

    # --- inputs from other processes

    def receive(self, sender: Incarnation, kind: int, fields: tuple[Any, ...]) -> None:
        """One envelope of kind SUBMIT, FORWARD, CONFIRM or AGAIN, without its kind."""
        if kind == SUBMIT:
            self._on_submit(sender, *fields)
        elif kind == FORWARD:
            self._on_forward(sender, *fields)
        elif kind == CONFIRM:
            self.outbox.confirmed(*fields)
        elif kind == AGAIN:
            self.outbox.offer_again(*fields)

    def _on_submit(
        self, sender: Incarnation, shard: Shard, epoch: Epoch, sid: SessionId, gen: int, n: int, fields: tuple[Any, ...]
    ) -> None:
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
        if stanza.from_ != session.jid:
            self.rejected += 1  # `from` is stamped at the edge and checked here
            stanza = stanza._replace(from_=session.jid)
        session.seen = n
        entity = session.entity
        if entity.is_loaded and not entity.inputs:
            entity.used_at = self.outbox.now
            self._submitted(session, n, stanza)
        else:
            session.pending[n] = 1
            self.when_loaded(entity, partial(self._submitted_late, session, n, stanza))

    def want(self, edge: Incarnation, shard: Shard) -> None:
        """Ask an edge to announce a shard, once a second at most."""
        now = self.outbox.now
        if now - self._wanted_at.get((edge, shard), -WANT_APART_S) >= WANT_APART_S:
            self._wanted_at[(edge, shard)] = now
            self.effects.send(edge, (WANT, shard, self.tenures[shard]))

    def _submitted_late(self, session: Session, n: int, stanza: Stanza) -> None:
        self._submitted(session, n, stanza)
        self.settle(session, n)

    def _submitted(self, session: Session, n: int, stanza: Stanza) -> None:
        turn = Turn(session.entity, session, stanza, self.settings, self.effects.wall(), session.sid, n)
        self.pipeline.outgoing(turn, stanza)
        self.finish(turn)
        if not session.pending:
            session.conf = session.seen
            self.outbox.conf_rose(session)

    def _on_forward(
        self, sender: Incarnation, shard: Shard, epoch: Epoch, origin: int, n: int, is_retry: bool,
        targets: tuple[tuple[str, int], ...], bundle: tuple[tuple[Any, ...], ...],
    ) -> None:  # fmt: skip
        if sender != self.me and not self.map.is_current(shard, epoch):
            return
        stanzas_ = [from_wire(fields) for fields in bundle]
        for to, prev in targets:
            entity = self.entity(to)
            if entity is None or (self.leaving and entity.shard in self.leaving):
                continue  # not owned here (soon): its sender offers it again to whoever does
            self.when_loaded(entity, partial(self._forwarded, entity, sender, origin, n, prev, stanzas_))

    def _forwarded(
        self, entity: Entity, sender: Incarnation, origin: int, n: int, prev: int, bundle: Sequence[Stanza]
    ) -> None:
        """Rule 9: what was seen is confirmed, a gap is asked for, else it is accepted."""
        to = entity.bare
        mark = self._mark(to, origin)
        if n <= mark:
            self.deduplicated += 1
            waiting = self._uncommitted.get((to, origin))
            if waiting is None or n < waiting[0]:
                self.outbox.confirm(sender, origin, to, n)
            return
        if prev > mark:
            self.outbox.ask_again(sender, origin, to)
            return
        key = (to, origin)
        self._marks[key] = n
        entity.counter += 1
        turn = Turn(entity, None, bundle[0], self.settings, self.effects.wall(), entity.origin, entity.counter)
        for stanza in bundle:
            self.pipeline.incoming(turn, stanza)
        if self.finish(turn, partial(self._accepted, sender, key, n)):
            self._uncommitted.setdefault(key, []).append(n)

    def _accepted(self, sender: Incarnation, key: tuple[str, int], n: int) -> None:
        waiting = self._uncommitted.get(key)
        if waiting is not None and waiting[0] <= n:
            waiting.remove(n)
            if not waiting:
                del self._uncommitted[key]
        self.outbox.confirm(sender, key[1], key[0], n)

    def _mark(self, to: str, origin: int) -> int:
        key = (to, origin)
        mark = self._marks.get(key)
        if mark is None:
            mark = self._old_marks.get(key, 0)
        return mark

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
        turn = Turn(entity, None, None, self.settings, self.effects.wall(), *origin)
        run(turn)
        self.finish(turn, then)

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
        turn = Turn(entity, session, asked.stanza, self.settings, self.effects.wall(), origin, n)
        self._run_then(turn, asked, value)
        self.finish(turn)
        if session is not None:
            self.settle(session, n)

    def _run_then(self, turn: Turn, asked: _Asked, value: Any) -> None:
        stanza = asked.stanza
        try:
            if isinstance(value, StanzaError):
                raise value
            asked.request.then(turn, value)
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

    def finish(self, turn: Turn, then: Callable[[], None] | None = None) -> bool:
        """Route what the turn sends, then release it or let it wait for its batch; True if it waits."""
        item = Item(turn, then)
        if turn.sends:
            self._route(item)
        if item.must_wait():
            if turn.session is not None:
                turn.session.pending[turn.n] = turn.session.pending.get(turn.n, 0) + 1
            self.queue.add(item)
            return True
        self._release(item)
        return False

    def _route(self, item: Item) -> None:
        """Recipients owned and loaded here join the item; for others the stanzas are forwarded."""
        turn = item.main
        sends = turn.sends
        if len(sends) == 1 and len(sends[0][1]) == 1:
            stanza, (to,) = sends[0]
            if self._is_local(turn, stanza, to):
                self._route_to(item, to, [stanza])
            return
        bundles: dict[str, list[Stanza]] = {}
        # A refusal by `_is_local` appends to the turn's deliveries, never to `sends`: errors to oneself are delivered.
        for stanza, recipients in list(sends):
            for to in recipients:
                if self._is_local(turn, stanza, to):
                    bundles.setdefault(to, []).append(stanza)
        for to, bundle in bundles.items():
            self._route_to(item, to, bundle)

    def _is_local(self, turn: Turn, stanza: Stanza, to: str) -> bool:
        """Whether the recipient is an entity of this cluster; if not, its sender gets the error that says why."""
        _, at, domain = to.rpartition("@")
        if domain not in self.settings.domains:
            self._bounce(turn, stanza, to, RemoteServerNotFound())
            return False
        if not at:
            self._bounce(turn, stanza, to, ServiceUnavailable())  # the domain itself is no entity here
            return False
        return True

    def _bounce(self, turn: Turn, stanza: Stanza, to: str, fault: StanzaError) -> None:
        if stanza.kind == stanzas.PRESENCE or not stanzas.is_answerable(stanza) or turn.session is None:
            return
        error = stanzas.error(stanza, fault)
        if error.to == turn.session.jid:
            turn.deliver(turn.session, error)

    def _route_to(self, item: Item, to: str, bundle: list[Stanza]) -> None:
        turn = item.main
        entity = self.entities.get(to)
        if entity is None or not entity.is_loaded or entity.inputs or self.outbox.is_queued(turn.origin, to):
            item.forwards[to] = bundle
            return
        if self.leaving and entity.shard in self.leaving:
            item.forwards[to] = bundle
            return
        if turn.n <= self._mark(to, turn.origin):
            self.deduplicated += 1  # the owner before ran this turn, and its recipient has been here all along
            return
        self._marks[(to, turn.origin)] = turn.n
        entity.used_at = self.outbox.now
        entity.counter += 1
        part = Turn(entity, None, bundle[0], self.settings, turn.now, entity.origin, entity.counter)
        for stanza in bundle:
            self.pipeline.incoming(part, stanza)
        item.parts.append(part)

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
        for part in item.parts:
            if self.tenures[part.entity.shard] == part.entity.epoch:
                self._release_turn(part)
                if part.sends:
                    self._inputs.append(partial(self._send_on, part))
        if not is_held:
            return
        if item.then is not None:
            item.then()
        if item.is_waiting and session is not None:
            self.settle(session, main.n)
        if self._inputs and not self._is_running:
            self.run_inputs()

    def _release_turn(self, turn: Turn) -> None:
        deliveries = turn.deliveries
        if len(deliveries) == 1:
            session, stanza = deliveries[0]
            self.outbox.deliver(((session, None),), stanza)
        elif deliveries:
            self._deliver_many(deliveries)
        for session in turn.touched:
            self.outbox.tell_state(session)
        for request in turn.requests:
            self._ask(turn, request)
        for session, condition in turn.closing:
            self._inputs.append(partial(self.end_session, session, condition))
        if turn.reloads:
            self._inputs.append(partial(self.reload, turn.entity))

    def _deliver_many(self, deliveries: Sequence[tuple[Session, Stanza]]) -> None:
        """Consecutive deliveries of one stanza share their copy; the order of different ones is kept."""
        group: list[tuple[Session, int | None]] = []
        current: Stanza | None = None
        for session, stanza in deliveries:
            if stanza is not current and group:
                assert current is not None
                self.outbox.deliver(group, current)
                group = []
            current = stanza
            group.append((session, None))
        assert current is not None
        self.outbox.deliver(group, current)

    def _ask(self, turn: Turn, request: Request) -> None:
        self._next_token += 1
        session = turn.session
        if session is not None:
            session.pending[turn.n] = session.pending.get(turn.n, 0) + 1
        self._asked[self._next_token] = _Asked(turn.entity, session, turn.n, turn.stanza, request)
        self.effects.run(request, self._next_token)

    def _send_on(self, part: Turn) -> None:
        """What a recipient's turn sends becomes an input of its own, in the entity's name."""
        turn = Turn(part.entity, None, None, self.settings, part.now, part.origin, part.n)
        turn.sends = part.sends
        self.finish(turn)

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
        if self.sessions.pop(session.sid, None) is None:
            return
        entity = session.entity
        if entity.sessions.get(session.resource) is session:
            del entity.sessions[session.resource]
        self.when_loaded(entity, partial(self._ended, session, condition, reason or condition))

    def _ended(self, session: Session, condition: str, reason: str) -> None:
        def run(turn: Turn) -> None:
            turn.write(session_rows.delete, session.sid)
            self.pipeline.emit(turn, SessionClosed(session, reason))

        self.act(session.entity, run, partial(self._revoke, session, condition), (session.sid, session.seen + 1))

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
        conf = next(iter(pending)) - 1 if pending else session.seen
        if conf > session.conf:
            session.conf = conf
            self.outbox.conf_rose(session)

    def _refused(self, item: Item) -> None:
        """The database refuses the item's data: the sender gets an error, memory is read anew."""
        for turn in item.turns():
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
        item.forwards[to] = [stanza for stanza, recipients in item.main.sends if to in recipients]

    # --- time

    def begin(self) -> None:
        """Before a batch of input."""
        self.outbox.now = self.effects.monotonic()

    def end(self) -> None:
        """After a batch of input: start a transaction if something waits, say what is confirmed."""
        if self._inputs:
            self.run_inputs()
        self.queue.pump()
        self.outbox.flush()

    def tick(self) -> None:
        """About once a second: safety nets, forgetting."""
        now = self.outbox.now
        self.outbox.tick()
        if now - self._marks_turned_at >= MARK_LIFE_S:
            self._marks_turned_at = now
            self._old_marks, self._marks = self._marks, {}
            self._wanted_at.clear()
            self._forget_idle(now)

    def _forget_idle(self, now: float) -> None:
        for entity in list(self.entities.values()):
            if (
                not entity.sessions
                and not entity.waiting
                and not entity.inputs
                and now - entity.used_at >= ENTITY_LIFE_S
            ):
                del self.entities[entity.bare]
