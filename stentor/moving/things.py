"""What moves, in one form, whatever server it comes from. Addresses are as the other server wrote them, `xml` is one
element that declares its namespaces (none for 'jabber:client'), moments are microseconds since the Unix epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True, slots=True)
class Scram:
    """What SCRAM stores (RFC 5802, 3), as base64; `hash` as in "SHA-256"."""

    hash: str
    salt: str
    iterations: int
    stored_key: str = field(repr=False)
    server_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody, with SCRAM credentials, or a password, or neither."""

    kind: ClassVar = "account"
    credentials: tuple[Scram, ...] = ()
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Contact:
    """A contact in the roster."""

    kind: ClassVar = "contact"
    jid: str
    name: str = ""
    groups: tuple[str, ...] = ()
    subscription: str = "none"
    ask: bool = False
    approved: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody wants to see the account's presence and waits for an answer; `xml` is the presence, "" if that is not
    known."""

    kind: ClassVar = "request"
    jid: str
    xml: str = ""


@dataclass(frozen=True, slots=True)
class Blocked:
    """The account wants nothing from this address."""

    kind: ClassVar = "block"
    jid: str


@dataclass(frozen=True, slots=True)
class VCard:
    """vcard-temp (XEP-0054)."""

    kind: ClassVar = "vcard"
    xml: str


@dataclass(frozen=True, slots=True)
class Private:
    """An element of private storage (XEP-0049)."""

    kind: ClassVar = "private"
    xml: str


@dataclass(frozen=True, slots=True)
class Preferences:
    """What the account wants archived (XEP-0441)."""

    kind: ClassVar = "preferences"
    default: str  # always, roster, never
    always: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the account (XEP-0163); `options` by the name of the field."""

    kind: ClassVar = "node"
    node: str
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    affiliations: Mapping[str, str] = field(default_factory=dict)
    subscribers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """What is published at a node; `xml` may be ""."""

    kind: ClassVar = "item"
    node: str
    id: str
    xml: str
    publisher: str = ""
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A message in the archive, of the account or of a room. Of a room, `nick` has said it, and `jid` is the address of
    whoever that was, if it is known."""

    kind: ClassVar = "message"
    at: int
    id: str  # that the other server gave it
    xml: str
    nick: str = ""
    jid: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that the account has not got yet."""

    kind: ClassVar = "waiting"
    at: int
    xml: str


@dataclass(frozen=True, slots=True)
class Room:
    """A room; `options` as `stentor room set` takes them."""

    kind: ClassVar = "room"
    options: Mapping[str, str] = field(default_factory=dict)
    subject: str = ""
    subject_nick: str = ""
    subject_at: int | None = None


@dataclass(frozen=True, slots=True)
class Affiliation:
    """What somebody is to a room, and the nickname that they have registered."""

    kind: ClassVar = "affiliation"
    jid: str
    affiliation: str
    nick: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that cannot come along."""

    kind: ClassVar = "left out"
    what: str  # the kind that it would have been
    why: str


Thing = (
    Account | Contact | Request | Blocked | VCard | Private | Preferences | Node | Item | Message | Waiting | Room
    | Affiliation | LeftOut
)  # fmt: skip
Owned = tuple[str, Thing]  # the bare JID of the account or the room, as the other server has it


class Source(Protocol):
    """What another server has kept. Reading raises `Unreadable`."""

    def accounts(self) -> Iterator[Owned]:
        """Every account, and nothing else."""

    def data(self) -> Iterator[Owned]:
        """Everything else; of an account or a room in an order in which it can be taken: nodes before items and what
        may become items, rooms before what was said there, the archive before what waits."""


class Unreadable(Exception):
    """A file cannot be read any further: which one, where, and why. What came before it was right."""

    def __init__(self, file: object, problem: str) -> None:
        super().__init__(f"{file}: {problem}")


def as_json(thing: Thing) -> dict[str, Any]:
    """As the administration API takes it."""
    return {"kind": thing.kind, **asdict(thing)}
