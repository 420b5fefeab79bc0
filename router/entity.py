"""The working state of one bare JID, held by the router that owns its shard and by nobody else.

An `Entity` is an account (or a name without one); a `Session` is one bound resource of it. Only turns change them
(`router/turn.py`), so there are no locks. What must outlive the router is in PostgreSQL or with the session's c2s.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from cluster.wire import Epoch, Incarnation, SessionId, Shard
from router.contacts import Roster
from xmpp.stanza import Stanza, from_wire

STATE_VERSION: Final = 1


class Session:
    """One bound resource. Features use the first group of fields; the rest is delivery's (docs/delivery.md)."""

    __slots__ = (
        "acknowledged",
        "bare",
        "bound_at",
        "conf",
        "entity",
        "gen",
        "is_adopted",
        "jid",
        "marks",
        "pending",
        "place",
        "presence",
        "priority",
        "q",
        "request",
        "resource",
        "seen",
        "shard",
        "sid",
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

        self.sid = sid
        self.gen = 0
        self.place: Incarnation | None = None  # the c2s that holds the stream
        self.request = ""  # the attach request answered last (rule 19)
        self.is_adopted = False  # False after a take until its c2s has announced it
        self.seen = 0  # the greatest inbound number accepted
        self.conf = 0  # everything up to here is safe
        self.told = 0  # the conf that the c2s knows
        self.pending: dict[int, int] = {}  # inbound number -> what it still waits for
        self.q = 0  # the outbound number given last
        self.acknowledged = 0
        self.unacknowledged: deque[tuple[int, int | None, Stanza]] = deque()

    @property
    def is_available(self) -> bool:
        """Whether the session has sent presence and not taken it back (RFC 6121, 4.2)."""
        return self.presence is not None

    def pack_state(self) -> tuple[Any, ...]:
        """What the session's c2s keeps for the next owner (rule 16): opaque there, versioned here."""
        return (STATE_VERSION, self.presence, self.priority, self.marks)

    def restore_state(self, state: tuple[Any, ...] | None) -> None:
        """Take over what the previous owner had handed to the c2s."""
        if not state or state[0] != STATE_VERSION:
            return
        _, presence, self.priority, marks = state[:4]
        self.presence = from_wire(presence) if presence is not None else None
        self.marks = dict(marks)

    def __repr__(self) -> str:
        return f"<Session {self.jid} sid={self.sid} gen={self.gen}>"


class Entity:
    """A bare JID. `key` is None where there is no such account."""

    __slots__ = (
        "bare",
        "blocks",
        "counter",
        "data",
        "epoch",
        "inputs",
        "is_enabled",
        "is_loaded",
        "is_settling",
        "key",
        "local",
        "origin",
        "roster",
        "sessions",
        "shard",
        "used_at",
        "waiting",
    )

    def __init__(self, bare: str, shard: Shard, epoch: Epoch, origin: SessionId) -> None:
        self.bare = bare
        self.local, _, _ = bare.rpartition("@")
        self.shard = shard
        self.epoch = epoch
        self.key: int | None = None
        self.is_enabled = True
        self.is_loaded = False
        self.is_settling = False  # taken over, and not every session's edge has said yet how far it is (rule 17)
        self.sessions: dict[str, Session] = {}  # resource -> bound session
        self.roster = Roster()
        self.blocks: set[str] = set()  # blocked JIDs, prepared (XEP-0191)
        self.data: dict[str, Any] = {}  # what features' loaders brought, by feature name
        self.origin = origin  # names what the entity itself sends, as sid does for a session
        self.counter = 0
        self.waiting = 0  # turns that have run and are not yet committed
        self.inputs: deque[Any] = deque()  # what waits for the entity to be loaded
        self.used_at = 0.0

    @property
    def exists(self) -> bool:
        """Whether there is an account, enabled or not."""
        return self.key is not None

    def available(self) -> list[Session]:
        """The available sessions ("available resources", RFC 6121, 1.4)."""
        return [session for session in self.sessions.values() if session.presence is not None]

    def __repr__(self) -> str:
        return f"<Entity {self.bare} sessions={len(self.sessions)}>"
