"""What an owner holds for others until they confirm it, and what it tells them (docs/delivery.md, rules 8 to 12).

One queue per (origin, recipient): the stanzas of each of the origin's turns, held until the recipient's owner has
accepted them, offered again from the front when that owner changes. Confirmations are cumulative and leave once per
batch of input. Without I/O: `send` puts an envelope on the bus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from cluster.shards import ShardMap, shard_of
from cluster.wire import AGAIN, CONFIRM, CONFIRMED, DELIVER, FORWARD, STATE, Envelope, Incarnation, Shard
from router.client_state import INACTIVE, holds_back, take_held_back
from router.entity import Entity, Session
from router.turn import Turn
from storage.log import Row
from xmpp.stanza import Stanza

Send = Callable[[Incarnation, Envelope], bool]
OFFER_AGAIN_S: Final = 3.0


class Held:
    """The stanzas of one turn for one recipient, not yet confirmed."""

    __slots__ = ("entity", "id", "n", "offered_at", "session", "stanzas")

    def __init__(self, n: int, stanzas: Sequence[Stanza], id: int, entity: Entity, session: Session | None) -> None:
        self.n = n
        self.stanzas = stanzas
        self.id = id  # of the sender's row, 0 without one
        self.entity = entity
        self.session = session  # whose submission waits for it; None: nobody's
        self.offered_at = 0.0


class Outbox:
    """The queues towards other owners, and the words to edges."""

    def __init__(self, shard_map: ShardMap, send: Send, settle: Callable[[Session, int], None]) -> None:
        self._map = shard_map
        self._send = send
        self._settle = settle
        self._queues: dict[tuple[int, str], list[Held]] = {}
        self._confirms: dict[tuple[Incarnation, int, str], int] = {}
        self._to_tell: dict[int, Session] = {}  # sessions whose conf has risen, by sid
        self.delivered = [0, 0, 0, 0]  # stanzas given to sessions, by kind (xmpp/stanza.py)
        self.now = 0.0  # monotonic seconds, set by the owner before it calls

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def is_queued(self, origin: int, to: str) -> bool:
        """Rule 12: while anything of this origin to this recipient is queued, the next one is queued too."""
        return (origin, to) in self._queues

    def holds(self, origin: int) -> bool:
        """Whether anything of this sender is not confirmed yet."""
        return any(key[0] == origin for key in self._queues)

    def holds_of(self, shards: frozenset[Shard]) -> bool:
        """Whether anything that entities of these shards sent is not confirmed yet."""
        return any(queue[0].entity.shard in shards for queue in self._queues.values())

    # --- to other owners

    def forward(self, turn: Turn, to: str, stanzas: Sequence[Stanza]) -> None:
        """Hold a turn's stanzas for one recipient and offer them to its owner."""
        prev = self._hold(turn, to, stanzas)
        shard = shard_of(to)
        owner = self._map.owners[shard]
        if owner is not None:
            entity = turn.entity
            targets = ((to, prev, self._map.epochs[shard]),)
            retry, id_ = turn.is_again, turn.log_id or 0
            self._send(owner, (FORWARD, entity.shard, entity.epoch, turn.origin, turn.n, retry, targets, stanzas, id_))

    def forward_many(self, turn: Turn, bundles: Mapping[str, Sequence[Stanza]]) -> None:
        """The same for many recipients: one copy for each owner and each distinct bundle."""
        groups: dict[tuple[Incarnation, tuple[int, ...]], tuple[Sequence[Stanza], list[tuple[str, int, int]]]] = {}
        for to, stanzas in bundles.items():
            prev = self._hold(turn, to, stanzas)
            shard = shard_of(to)
            owner = self._map.owners[shard]
            if owner is not None:
                key = (owner, tuple(map(id, stanzas)))
                groups.setdefault(key, (stanzas, []))[1].append((to, prev, self._map.epochs[shard]))
        entity = turn.entity
        retry, id_ = turn.is_again, turn.log_id or 0
        for (owner, _), (stanzas, targets) in groups.items():
            self._send(owner, (FORWARD, entity.shard, entity.epoch, turn.origin, turn.n, retry, targets, stanzas, id_))

    def _hold(self, turn: Turn, to: str, stanzas: Sequence[Stanza]) -> int:
        """Queue it; returns the number of the item before it, 0 at the front (rule 9)."""
        held = Held(turn.n, stanzas, turn.log_id or 0, turn.entity, turn.session)
        held.offered_at = self.now
        return self._queue((turn.origin, to), held)

    def hold_row(self, entity: Entity, session: Session | None, row: Row, to: str) -> None:
        """A row of the log that its recipient's owner may not have: hold it as the former owner did. `offer_again`
        follows."""
        self._queue((row.sid, to), Held(row.n, [row.stanza], row.id, entity, session))

    def _queue(self, key: tuple[int, str], held: Held) -> int:
        session = held.session
        if session is not None:
            session.pending[held.n] = session.pending.get(held.n, 0) + 1
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = [held]
            return 0
        prev = queue[-1].n
        queue.append(held)
        return prev

    def confirmed(self, origin: int, to: str, n: int) -> None:
        """Rule 10: the recipient's owner has accepted everything up to n."""
        queue = self._queues.get((origin, to))
        if queue is None:
            return
        count = 0
        while count < len(queue) and queue[count].n <= n:
            count += 1
        confirmed = queue[:count]
        del queue[:count]
        if not queue:
            del self._queues[(origin, to)]
        for held in confirmed:
            if held.session is not None:
                self._settle(held.session, held.n)

    def offer_again(self, origin: int, to: str) -> None:
        """The whole queue from its front, marked `retry` (rule 10)."""
        queue = self._queues.get((origin, to))
        owner = self._map.owners[shard_of(to)]
        if queue is None or owner is None:
            return
        prev = 0
        for held in queue:
            entity = held.entity
            held.offered_at = self.now
            targets = ((to, prev, self._map.epochs[shard_of(to)]),)
            self._send(
                owner, (FORWARD, entity.shard, entity.epoch, origin, held.n, True, targets, held.stanzas, held.id)
            )
            prev = held.n

    def owners_changed(self, shards: Iterable[Shard]) -> None:
        """Recipients in these shards have a new owner, or their owner a new link: offer everything again."""
        news = frozenset(shards)
        for origin, to in [key for key in self._queues if shard_of(key[1]) in news]:
            self.offer_again(origin, to)

    def tick(self) -> None:
        """The safety net: what has waited long is offered again."""
        for (origin, to), queue in list(self._queues.items()):
            if self.now - queue[0].offered_at >= OFFER_AGAIN_S:
                self.offer_again(origin, to)

    def drop_shard(self, shard: Shard) -> None:
        """The origin's shard is lost: its next owner runs the turns again, from what the edges hold."""
        for key in [key for key, queue in self._queues.items() if queue[0].entity.shard == shard]:
            del self._queues[key]

    def confirm(self, peer: Incarnation, origin: int, to: str, n: int) -> None:
        """Tell the origin's owner that everything up to n is accepted (with the next flush)."""
        self._confirms[(peer, origin, to)] = n

    def ask_again(self, peer: Incarnation, origin: int, to: str) -> None:
        """There is a gap (rule 9)."""
        self._send(peer, (AGAIN, origin, to))

    # --- to edges

    def deliver(self, sessions: Sequence[tuple[Session, int | None]], stanza: Stanza) -> None:
        """Number one stanza for each of these sessions and send one copy to each edge (rule 21)."""
        if len(sessions) == 1:
            self.deliver_one(*sessions[0], stanza)
            return
        self.delivered[stanza.kind] += len(sessions)
        places: dict[Incarnation, list[tuple[int, ...]]] = {}
        for session, id_ in sessions:
            if session.held_back is not None and self._waits(session, stanza):
                continue
            q = session.q = session.q + 1
            session.unacknowledged.append((q, id_, stanza))
            if id_ is not None and id_ > session.last_id:
                session.last_id = id_
            if session.place is not None:
                places.setdefault(session.place, []).append(
                    (session.shard, session.entity.epoch, session.sid, session.gen, q, id_)  # type: ignore[arg-type]
                )
        for place, targets in places.items():
            self._send(place, (DELIVER, targets, stanza))

    def deliver_one(self, session: Session, id_: int | None, stanza: Stanza) -> None:
        """The same for one session."""
        self.delivered[stanza.kind] += 1
        if session.held_back is not None and self._waits(session, stanza):
            return
        q = session.q = session.q + 1
        session.unacknowledged.append((q, id_, stanza))
        if id_ is not None and id_ > session.last_id:
            session.last_id = id_
        if session.place is not None:
            target = (session.shard, session.entity.epoch, session.sid, session.gen, q, id_)
            self._send(session.place, (DELIVER, (target,), stanza))

    def _waits(self, session: Session, stanza: Stanza) -> bool:
        """XEP-0352: an inactive client is not woken for this; for anything else, it gets all that has waited."""
        if holds_back(session, stanza):
            return True
        self.release_held_back(session)
        return False

    def release_held_back(self, session: Session) -> None:
        """What was held back goes out."""
        held_back, session.held_back = take_held_back(session), None
        for stanza in held_back:
            self.deliver_one(session, None, stanza)
        if INACTIVE in session.marks:
            session.held_back = {}

    def deliver_again(self, session: Session, q: int, id_: int | None, stanza: Stanza) -> None:
        """Send what the session's edge has missed, under its old number."""
        if session.place is not None:
            target = (session.shard, session.entity.epoch, session.sid, session.gen, q, id_)
            self._send(session.place, (DELIVER, (target,), stanza))

    def tell_state(self, session: Session) -> None:
        """The session's edge keeps the state for the next owner (rule 16)."""
        if session.place is not None:
            entity = session.entity
            self._send(
                session.place, (STATE, session.shard, entity.epoch, session.sid, session.gen, session.pack_state())
            )

    def conf_rose(self, session: Session) -> None:
        """Tell the session's edge its conf (with the next flush)."""
        self._to_tell[session.sid] = session

    def flush(self) -> None:
        """Once per batch of input: cumulative confirmations to owners and edges."""
        if self._confirms:
            confirms, self._confirms = self._confirms, {}
            for (peer, origin, to), n in confirms.items():
                self._send(peer, (CONFIRM, origin, to, n))
        if self._to_tell:
            to_tell, self._to_tell = self._to_tell, {}
            for session in to_tell.values():
                if session.place is not None and session.is_adopted and session.conf > session.told:
                    session.told = session.conf
                    epoch = session.entity.epoch
                    self._send(session.place, (CONFIRMED, session.shard, epoch, session.sid, session.gen, session.conf))
