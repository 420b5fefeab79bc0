"""The working state of one bare JID, held by the router that owns its shard and by nobody else.

An `Entity` is an account (or a name without one); a `Session` is one bound resource of it. Only turns change them
(`router/turn.py`), so there are no locks. What must outlive the router is in PostgreSQL or with the session's c2s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final

from cluster.wire import Epoch, Incarnation, SessionId, Shard
from router.contacts import Roster
from xmpp.stanza import Stanza, from_wire

STATE_VERSION: Final = 1
UNFINISHED: Final = "unfinished"  # mark of a session: what is under way for it, the next owner has to begin again
READ_MOST: Final = 2_000  # ids of rows that clients have acknowledged, remembered
READ_SPARE: Final = 256  # and so many more until the oldest are forgotten, all at once
SAVE_EVERY: Final = 64  # well below what an s2s remembers (s2s/service.py, READ_IDS)


class Session:
    """One bound resource. Features use the first group of fields; the rest is delivery's (docs/delivery.md)."""

    __slots__ = (
        "acknowledged",
        "bare",
        "bound_at",
        "conf",
        "detached_at",
        "durable_gen",
        "entity",
        "gen",
        "held_back",
        "interest",
        "is_adopted",
        "is_exact",
        "is_resumable",
        "jid",
        "known_q",
        "last_id",
        "logged",
        "marks",
        "n0",
        "on_settled",
        "pending",
        "place",
        "presence",
        "priority",
        "q",
        "q0",
        "reach",
        "request",
        "resource",
        "rooms",
        "seen",
        "shard",
        "sid",
        "since",
        "told",
        "unacknowledged",
    )

    def __init__(self, entity: Entity, sid: SessionId, resource: str, bound_at: float) -> None:
        self.entity = entity
        self.bare = entity.bare
        self.shard = entity.shard
        self.resource = resource
        self.jid = f"{entity.bare}/{resource}"
        self.bound_at = bound_at  # Unix seconds
        self.presence: Stanza | None = None  # the last available presence, None while unavailable
        self.priority = 0
        self.marks: dict[str, Any] = {}  # features' own facts, by feature name; must survive msgpack
        # The nodes of which its client wants notifications (router/features/pep.py); None: not known (yet).
        self.interest: frozenset[str] | None = None

        self.sid = sid
        self.gen = 0
        self.durable_gen = 0  # the one that its row has: a client is told of no other
        self.place: Incarnation | None = None  # the c2s that holds the stream; None while it is detached
        self.detached_at: float | None = None  # Unix seconds: without a stream since then, waiting to be resumed
        self.is_resumable = False  # XEP-0198: its client has asked for it
        self.n0 = self.q0 = 0  # where the client began to count
        self.request = ""  # the attach request answered last (rule 19)
        self.is_adopted = False  # False after a take until its c2s has announced it
        self.seen = 0  # the greatest inbound number accepted
        self.reach = 0  # after a take: the greatest that its c2s has read
        self.logged: set[int] = set()  # after a take: those that the owner before has logged
        self.conf = 0  # everything up to here is safe
        self.told = 0  # the conf that the c2s knows
        self.held_back: dict[tuple[str, str], Stanza] | None = None  # None: active (router/client_state.py)
        self.is_exact = (
            True  # False: lost with c2s and owner; nobody knows how far `conf` had come (docs/delivery.md, §8)
        )
        self.pending: dict[int, int] = {}  # inbound number -> what it still waits for
        self.on_settled: Callable[[], None] | None = None  # called when nothing is pending any more
        self.q = 0  # the outbound number given last
        self.known_q: int | None = None  # rebuilt from a snapshot: numbers above are invented (rule 17)
        self.acknowledged = 0
        self.since = 0  # the id at which it was bound: older rows were not for it
        self.last_id = 0  # the greatest id of this account's log that it was given
        # (q, id, stanza); an id below 0 is minus that of a room's event. The stanza is None where only a snapshot knows
        # of it and its row has not been read yet.
        self.unacknowledged: deque[tuple[int, int | None, Stanza | None]] = deque()
        self.rooms: dict[str, int] = {}  # the last event of each room that it was given (router/rooms/mirror.py)

    @property
    def is_available(self) -> bool:
        """Whether the session has sent presence and not taken it back (RFC 6121, 4.2)."""
        return self.presence is not None

    @property
    def lowest_pending(self) -> int:
        """The least number that still waits for something. They come in order, but after a take: then what was logged
        is there before what is offered again."""
        return min(self.pending) if self.logged else next(iter(self.pending))

    def pack_state(self) -> tuple[Any, ...]:
        """What the session's c2s keeps for the next owner (rule 16): opaque there, versioned here."""
        return (STATE_VERSION, self.presence, self.priority, self.marks, tuple(self.rooms.items()))

    def restore_state(self, state: tuple[Any, ...] | None) -> None:
        """Take over what the previous owner had handed to the c2s."""
        if not state or state[0] != STATE_VERSION:
            return
        _, presence, self.priority, marks = state[:4]
        self.presence = from_wire(presence) if presence is not None else None
        self.marks = dict(marks)
        self.rooms = dict(state[4]) if len(state) > 4 else {}
        self.held_back = {} if "inactive" in self.marks else None

    def __repr__(self) -> str:
        return f"<Session {self.jid} sid={self.sid} gen={self.gen}>"


class Entity:
    """A bare JID. `key` is None where there is no such account."""

    __slots__ = (
        "bare",
        "blocks",
        "counter",
        "data",
        "delivered",
        "epoch",
        "holds",
        "inputs",
        "is_draining",
        "is_enabled",
        "is_loaded",
        "is_peer",
        "is_proxy",
        "is_room",
        "is_service",
        "is_settling",
        "key",
        "lines",
        "local",
        "offline",
        "origin",
        "read",
        "room",
        "roster",
        "sessions",
        "shard",
        "strays",
        "unsaved",
        "used_at",
        "waiting",
    )

    def __init__(
        self,
        bare: str,
        shard: Shard,
        epoch: Epoch,
        origin: SessionId,
        is_room: bool = False,
        is_service: bool = False,
    ) -> None:
        self.bare = bare
        self.is_room = is_room  # router/rooms/
        self.is_proxy = False  # router/bytestreams.py: where two connections meet
        self.is_service = is_service  # router/pubsub/: a domain whose nodes these are
        self.room: Any = None  # of a room: its state, None where there is no such room
        self.local, at, _ = bare.rpartition("@")
        self.is_peer = not at and not is_service  # the domain of another server or of a component (router/peers.py)
        self.lines: dict[str, Any] = {}  # of a peer: what waits for it, by the domain that it is from
        self.unsaved = 0  # of a peer: rows that it has got and the database does not know of
        self.shard = shard
        self.epoch = epoch
        self.key: int | None = None
        self.is_enabled = True
        self.is_loaded = False
        self.is_settling = False  # taken over, and not every session's edge has said yet how far it is (rule 17)
        self.sessions: dict[str, Session] = {}  # resource -> bound session
        self.roster = Roster()
        self.blocks: set[str] = set()  # blocked JIDs, prepared (XEP-0191)
        self.delivered = 0  # the greatest id of its log that any client has acknowledged
        self.offline: list[int] = []  # ids of what nobody has got yet (XEP-0160), in order
        # What clients have acknowledged, the last ones, while others may have left it unread.
        self.read: dict[int, None] = {}
        self.strays: set[int] = set()  # ids below `delivered` that are on their way to somebody once more
        self.data: dict[str, Any] = {}  # what features' loaders brought, by feature name
        self.origin = origin  # names what the entity itself sends, as sid does for a session
        self.counter = 0
        self.waiting = 0  # turns that have run and are not yet committed
        self.inputs: deque[Any] = deque()  # what waits for the entity to be loaded
        self.is_draining = False  # those inputs are being run
        self.holds = 0  # requests under way that everything else waits for
        self.used_at = 0.0

    @property
    def exists(self) -> bool:
        """Whether there is an account, enabled or not."""
        return self.key is not None

    def acknowledged(self, id_: int) -> bool:
        """A client has this row of the log; True where the database ought to hear of it soon."""
        self.delivered = max(self.delivered, id_)
        if self.is_peer:
            self.strays.discard(id_)
            self.remember_read((id_,))
            self.unsaved += 1
            return self.unsaved >= SAVE_EVERY
        if len(self.sessions) > 1:
            self.remember_read((id_,))
        if id_ not in self.strays:
            return False
        self.strays.discard(id_)
        return True

    def remember_read(self, ids: Iterable[int]) -> None:
        """Clients have these; should another session end without having read them, they are not delivered again."""
        read = self.read
        for id_ in ids:
            read[id_] = None
        if len(read) > READ_MOST + READ_SPARE:  # one at a time, each would pass over the places of all before it
            for id_ in list(islice(read, len(read) - READ_MOST)):
                del read[id_]

    def not_delivered(self) -> list[int]:
        """What the offline cursor has passed and nobody has got for sure, in order."""
        return sorted(self.strays.union(id_ for id_ in self.offline if id_ < self.delivered))

    def available(self) -> list[Session]:
        """The available sessions ("available resources", RFC 6121, 1.4)."""
        return [session for session in self.sessions.values() if session.presence is not None]

    def __repr__(self) -> str:
        return f"<Entity {self.bare} sessions={len(self.sessions)}>"
