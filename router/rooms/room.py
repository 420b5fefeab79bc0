"""A room and its occupants, as values: what the owner of a room keeps in memory (XEP-0045, 4 and 5)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final

import msgpack

from cluster.shards import shard_of
from cluster.wire import Incarnation, SessionId, Shard
from router.rooms.config import RoomConfig
from router.rooms.hats import Hats
from router.rooms.policy import Affiliation, Role
from xmpp.stanza import Stanza, from_wire

HISTORY: Final = 100  # messages kept in memory for who comes in
TAIL: Final = 256  # events kept in memory for routers that have missed some

History = tuple[int, Stanza]  # the id of a message's row, and the message


class Occupant:
    """A session in a room. A user may be in it with several sessions under one nickname ("multi-session nicks")."""

    __slots__ = ("bare", "changed", "heard_at", "jid", "nick", "presence", "role", "sid", "since")

    def __init__(self, jid: str, nick: str, role: Role, sid: int, presence: Stanza | None, changed: int) -> None:
        self.jid = jid  # the full JID of the user ("real JID")
        self.bare = jid.partition("/")[0]
        self.nick = nick
        self.role = role
        self.sid = SessionId(sid)  # of a local user's session; 0: a user of another server
        self.presence = presence  # what the client has sent last, without what is of the room itself
        self.changed = changed  # the id of the event that made it what it is
        self.heard_at = 0.0  # of another server: Unix seconds at which anything came from it
        self.since = 0  # the id of the event by which it came in, where this owner has let it in

    @property
    def is_local(self) -> bool:
        """Whether the session is of this cluster."""
        return self.sid != 0

    def pack_presence(self) -> bytes | None:
        """The presence as the database keeps it."""
        packed: bytes | None = None if self.presence is None else msgpack.packb(self.presence)
        return packed


def unpack_presence(packed: bytes | None) -> Stanza | None:
    """The reverse of `Occupant.pack_presence`."""
    return None if packed is None else from_wire(msgpack.unpackb(packed, use_list=False))


class Room:
    """The state of a room. Turns of its entity alone change it."""

    __slots__ = (
        "affiliations",
        "bare",
        "config",
        "crowd",
        "feeds",
        "floor",
        "handed_over",
        "hats",
        "history",
        "is_locked",
        "is_watched",
        "key",
        "last",
        "left",
        "moderators",
        "nicks",
        "noted",
        "occupants",
        "origin",
        "photos",
        "remotes",
        "reserved",
        "shards",
        "spoke_at",
        "subject",
        "tail",
        "unchecked",
        "users",
        "version",
        "versions",
    )

    def __init__(self, bare: str, key: int, origin: int, config: RoomConfig, crowd: int) -> None:
        self.bare = bare
        self.key = key
        self.origin = origin
        self.config = config
        self.crowd = crowd  # with more occupants, the presence of moderators alone is shown to others
        self.is_watched = False  # router/rooms/watching.py
        self.is_locked = False  # XEP-0045, 10.1.1: made, and its owner has not said yet how it shall be
        self.subject: Stanza | None = None  # the message that set it
        self.affiliations: dict[str, Affiliation] = {}  # by bare JID; who is not in it has none
        self.version = 0  # of the affiliations (XEP-0463): the id of the last change
        self.versions: dict[str, int] = {}  # the id of the last change of each, also of who has none any more
        self.reserved: dict[str, str] = {}  # nickname -> the bare JID that has registered it (7.10)
        self.photos: list[str] = []  # hashes of its pictures (XEP-0486)
        self.hats = Hats()  # XEP-0317
        self.spoke_at: dict[str, float] = {}  # by bare JID, in slow mode (XEP-0500): Unix seconds
        self.handed_over = 0  # up to this event, everything that was for others is with their owners
        self.noted = (0.0, 0)  # when that was looked at (Unix seconds), and the last event then
        self.occupants: dict[str, Occupant] = {}  # by full JID
        self.nicks: dict[str, list[Occupant]] = {}
        self.users: dict[str, list[Occupant]] = {}  # by bare JID
        # Some of the occupants, so that nobody has to look for them among twenty thousand.
        self.moderators: dict[str, Occupant] = {}
        self.remotes: dict[str, Occupant] = {}  # of other servers
        self.left: dict[str, Occupant] = {}  # who has gone lately, for routers that may not have heard of it
        self.history: deque[History] = deque(maxlen=HISTORY)
        self.last = 0  # the id of the last event that was let out
        self.tail: deque[Any] = deque(maxlen=TAIL)  # the last events (fanout.Cast)
        self.floor = 0  # of what the tail has: all events above this id
        self.shards: Counter[Shard] = Counter()  # of the accounts of local occupants, and how many
        self.feeds: dict[Incarnation, int] = {}  # routers of local occupants, and the last event each was told of
        self.unchecked: dict[str, Occupant] = {}  # local occupants whose router may not know of everything

    # --- who is in it

    def add(self, occupant: Occupant) -> None:
        """Somebody has come in."""
        self.left.pop(occupant.jid, None)
        self.occupants[occupant.jid] = occupant
        self.nicks.setdefault(occupant.nick, []).append(occupant)
        self.users.setdefault(occupant.bare, []).append(occupant)
        if occupant.role == Role.MODERATOR:
            self.moderators[occupant.jid] = occupant
        if occupant.is_local:
            self.shards[shard_of(occupant.bare)] += 1
        else:
            self.remotes[occupant.jid] = occupant

    def remove(self, occupant: Occupant) -> None:
        """Somebody has gone."""
        del self.occupants[occupant.jid]
        self.moderators.pop(occupant.jid, None)
        self.remotes.pop(occupant.jid, None)
        _drop(self.nicks, occupant.nick, occupant)
        _drop(self.users, occupant.bare, occupant)
        self.unchecked.pop(occupant.jid, None)
        self.left[occupant.jid] = occupant
        if occupant.is_local:
            shard = shard_of(occupant.bare)
            self.shards[shard] -= 1
            if not self.shards[shard]:
                del self.shards[shard]

    def give_role(self, occupant: Occupant, role: Role) -> None:
        """Somebody inside has this role from now on."""
        occupant.role = role
        if role == Role.MODERATOR:
            self.moderators[occupant.jid] = occupant
        else:
            self.moderators.pop(occupant.jid, None)

    def rename(self, occupant: Occupant, nick: str) -> None:
        """Somebody has another nickname from now on."""
        _drop(self.nicks, occupant.nick, occupant)
        occupant.nick = nick
        self.nicks.setdefault(nick, []).append(occupant)

    @property
    def has_remote(self) -> bool:
        """Whether there are occupants of other servers."""
        return bool(self.remotes)

    @property
    def is_for_others(self) -> bool:
        """Whether what happens in it is for others than its local occupants, too."""
        return self.has_remote or self.config.keeps_for_members

    def remote(self) -> Iterable[Occupant]:
        """The occupants of other servers."""
        return self.remotes.values()

    def sessions_of(self, bare: str) -> list[Occupant]:
        """A user's sessions in the room."""
        return list(self.users.get(bare, ()))

    def forget(self, bare: str) -> None:
        """Nothing is known any more of a user who is not in it."""
        self.affiliations.pop(bare, None)
        self.versions.pop(bare, None)
        self.spoke_at.pop(bare, None)
        self.reserved = {nick: jid for nick, jid in self.reserved.items() if jid != bare}
        self.left = {jid: occupant for jid, occupant in self.left.items() if occupant.bare != bare}

    # --- what somebody may

    def affiliation(self, bare: str) -> Affiliation:
        """Of a user (5.2)."""
        return self.affiliations.get(bare, Affiliation.NONE)

    def affiliate(self, bare: str, affiliation: Affiliation, changed: int) -> None:
        """What a user is to it from the event `changed` on."""
        if affiliation == Affiliation.NONE:
            self.affiliations.pop(bare, None)
        else:
            self.affiliations[bare] = affiliation
        self.versions[bare] = changed
        self.version = max(self.version, changed)

    def owners(self) -> list[str]:
        """The bare JIDs of its owners."""
        return [bare for bare, affiliation in self.affiliations.items() if affiliation == Affiliation.OWNER]

    def sees_jids(self, role: Role) -> bool:
        """Whether an occupant with this role is shown real JIDs."""
        return self.config.whois == "anyone" or role == Role.MODERATOR

    def occupant_id(self, bare: str) -> str:
        """XEP-0421: the same for all sessions of a user for the room's life, and nobody can tell the user by it."""
        return occupant_id(self.origin, bare)


def occupant_id(origin: int, bare: str) -> str:
    """XEP-0421: of a user in the room of this origin."""
    return blake2b(bare.encode(), key=origin.to_bytes(8), digest_size=16, person=b"occupant").hexdigest()


def _drop(lists: dict[str, list[Occupant]], key: str, occupant: Occupant) -> None:
    lists[key].remove(occupant)
    if not lists[key]:
        del lists[key]
