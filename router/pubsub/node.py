"""Nodes in memory, and whose they are. Only turns of the entity that has them change them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from hashlib import blake2b
from typing import Final, NamedTuple

from router.entity import Entity
from router.pubsub import config as configs
from router.pubsub.config import MAX, NodeConfig
from router.settings import Settings
from storage.log import id_at
from storage.pubsub import SMALL, Item, NodeRow
from xmpp.errors import ItemNotFound

_DATA: Final = "pubsub"  # key in an entity's data
_KEY_BITS: Final = 62


class Affiliation(IntEnum):
    """What somebody is to a node (XEP-0060, 4.1); who has more may do more."""

    OUTCAST = -1
    NONE = 0
    MEMBER = 1
    PUBLISH_ONLY = 2
    PUBLISHER = 3
    OWNER = 4

    @property
    def word(self) -> str:
        """As it is written."""
        return self.name.lower().replace("_", "-")


AFFILIATIONS: Final = {affiliation.word: affiliation for affiliation in Affiliation}


class Subscription(NamedTuple):
    """4.2. One that is pending waits for an owner."""

    subid: str
    is_pending: bool

    @property
    def state(self) -> str:
        """As it is written."""
        return "pending" if self.is_pending else "subscribed"


class Node:
    """`affiliations` (by bare JID) leaves out the owner of the account; `subscriptions` are by the JID that subscribed.
    `last` is the newest item where it is known and small; `is_last_known` is False where the database has to be asked.
    """

    __slots__ = ("affiliations", "config", "creator", "is_last_known", "key", "last", "name", "subscriptions")

    def __init__(self, key: int, name: str, config: NodeConfig, creator: str) -> None:
        self.key = key
        self.name = name
        self.config = config
        self.creator = creator
        self.affiliations: dict[str, Affiliation] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self.last: Item | None = None
        self.is_last_known = True

    def keep(self, most: int) -> int | None:
        """How many items stay, where the service keeps `most`."""
        return most if self.config.max_items == MAX else min(self.config.max_items, most)

    def is_subscribed(self, bare: str) -> bool:
        """Whether any address of somebody is, for good."""
        return any(not known.is_pending and jid.partition("/")[0] == bare for jid, known in self.subscriptions.items())

    def since(self, now: float) -> int:
        """The id before which items have expired; 0: none does."""
        return id_at(now - self.config.item_expire) if self.config.item_expire else 0

    def set_last(self, item: Item | None) -> None:
        """The newest item is another."""
        self.is_last_known = item is None or len(item.payload) <= SMALL
        self.last = item if self.is_last_known else None


class Host:
    """An account or a service with its nodes."""

    __slots__ = ("bare", "is_service", "nodes")

    def __init__(self, bare: str, is_service: bool) -> None:
        self.bare = bare
        self.is_service = is_service
        self.nodes: dict[str, Node] = {}

    def node(self, name: str) -> Node:
        """Raises ItemNotFound."""
        node = self.nodes.get(name)
        if node is None:
            raise ItemNotFound(f"There is no node '{name[:100]}'.")
        return node

    def affiliation(self, node: Node, bare: str, settings: Settings) -> Affiliation:
        """What somebody is. An account owns its nodes, operators those of services."""
        if bare == self.bare or (self.is_service and bare in settings.admins):
            return Affiliation.OWNER
        return node.affiliations.get(bare, Affiliation.NONE)

    def owners(self, node: Node) -> list[str]:
        """Bare JIDs."""
        own = [] if self.is_service else [self.bare]
        return own + [jid for jid, affiliation in node.affiliations.items() if affiliation == Affiliation.OWNER]


def host_of(entity: Entity) -> Host:
    """The nodes of an entity."""
    host: Host | None = entity.data.get(_DATA)
    if host is None:
        host = entity.data[_DATA] = Host(entity.bare, entity.is_service)
    return host


def find(entity: Entity, name: str) -> Node | None:
    """A node of an entity, None where it has none of this name."""
    host: Host | None = entity.data.get(_DATA)
    return None if host is None else host.nodes.get(name)


def assign(entity: Entity, rows: Sequence[NodeRow]) -> None:
    """What the database has."""
    if not rows:
        entity.data.pop(_DATA, None)  # most accounts have none, and a host costs a few hundred bytes
        return
    host = entity.data[_DATA] = Host(entity.bare, entity.is_service)
    for row in rows:
        node = Node(row.key, row.node, configs.from_json(row.config), row.creator)
        node.affiliations = {jid: Affiliation(affiliation) for jid, affiliation in row.affiliations}
        node.subscriptions = {jid: Subscription(subid, is_pending) for jid, subid, is_pending in row.subscriptions}
        node.last = None if row.last is None else Item(*row.last)
        node.is_last_known = row.last is not None or not row.has_items
        host.nodes[row.node] = node


def named_by(key: tuple[int, int], what: str) -> bytes:
    """Eight bytes that name what a stanza has made: the same if the stanza is carried out a second time, which happens
    when the owner that carried it out has died (docs/delivery.md, rule 22)."""
    return blake2b(f"{key[0]} {key[1]} {what}".encode(), digest_size=8).digest()


def new_key(key: tuple[int, int], what: str) -> int:
    """The key of a new node; those of accounts and rooms are small numbers."""
    return int.from_bytes(named_by(key, what)) % (1 << _KEY_BITS) + (1 << _KEY_BITS)
