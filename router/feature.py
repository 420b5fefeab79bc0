"""What a feature may declare. One capability, one file, one registration (`router/features/__init__.py`).

A feature is synchronous and does no I/O: its functions read the entity and write to the turn. Raise a `StanzaError`
to refuse the stanza; the pipeline answers it, once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum, IntEnum
from typing import Any, Literal, TypeVar

from router.entity import Entity
from router.events import Event
from router.turn import Turn
from storage.accounts import Account
from storage.rows import Connection
from storage.store import Loader
from xmpp.stanza import Stanza

Step = Callable[[Turn, Stanza], bool | Stanza | None]
IqHandler = Callable[[Turn, Stanza], None]
EventHandler = Callable[[Turn, Any], None]
Assign = Callable[[Entity, Any], None]

S = TypeVar("S", bound=Step)
H = TypeVar("H", bound=IqHandler)
E = TypeVar("E", bound=EventHandler)


class Stage(IntEnum):
    """The life of a message or presence, in order. Inside a stage, the order of `features.ALL` decides."""

    OUT_SCREEN = 1  # the sender's owner: may it be sent?
    OUT_RECORD = 2  # the sender's copy in the log
    OUT_COPY = 3  # the sender's other devices
    OUT_ACT = 4  # presence: what it changes for the sender; sends it on
    # then the stanza is routed to its recipient's owner (messages: always; presence: by OUT_ACT only)
    IN_SCREEN = 5  # the recipient's owner: may it come in?
    IN_RECORD = 6  # the recipient's copy in the log
    IN_COPY = 7  # the recipient's other devices
    IN_DELIVER = 8  # to sessions, by RFC 6121, 8
    IN_FALLBACK = 9  # nobody took it: offline, push, bounce


class At(Enum):
    """Where an IQ request is addressed."""

    OWN = "own account"  # a session's to its own bare JID, or without `to`
    ACCOUNT = "account"  # somebody else's to this bare JID: answered on the account's behalf
    ROOMS = "rooms"  # to a domain that has rooms: likewise
    PROXY = "proxy"  # to a domain of the proxy for bytestreams: likewise
    UPLOAD = "upload"  # to a domain of the upload service, by whom it is for: likewise
    SERVER = "server"  # to a served domain: answered by the asker's owner, nobody's entity is touched


def by_key(load: Callable[[Connection, Sequence[int]], Awaitable[Mapping[int, Any]]]) -> Loader:
    """A loader that needs no more of the accounts than their keys."""

    async def loader(conn: Connection, found: Sequence[Account]) -> Mapping[int, Any]:
        return await load(conn, [account.key for account in found])

    return loader


class Feature:
    """The declaration of one capability: everything that the rest of the server needs to know of it.

    `xep` is (number, version) or several of them; `server_features`, `account_features` go into disco#info of the
    domain and of the bare JID; `stream_features` is XML advertised to clients after authentication.
    """

    def __init__(
        self,
        name: str,
        *,
        xep: tuple[tuple[int, str], ...] = (),
        rfc: str | None = None,
        server_features: tuple[str, ...] = (),
        account_features: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.xep = xep
        self.rfc = rfc
        self.server_features = server_features
        self.account_features = account_features
        self.iq_handlers: dict[tuple[At, str, str], IqHandler] = {}  # (where, type, payload name) -> handler
        self.message_steps: list[tuple[Stage, Step]] = []
        self.presence_steps: list[tuple[Stage, Step]] = []
        self.iq_steps: list[tuple[Stage, Step]] = []
        self.event_handlers: list[tuple[type[Event], EventHandler]] = []
        self.loaders: list[tuple[Loader, Assign]] = []

    def on_iq(self, type: Literal["get", "set"], namespace: str, local: str, *, at: At) -> Callable[[H], H]:
        """Answer requests whose payload is `{namespace}local`. The handler answers, fetches, or raises."""

        def register(handler: H) -> H:
            self.iq_handlers[(at, type, f"{namespace} {local}")] = handler
            return handler

        return register

    def on_message(self, stage: Stage) -> Callable[[S], S]:
        """A step of each message's way. True: the message is dealt with, later steps are skipped. A stanza: what later
        steps see instead."""

        def register(step: S) -> S:
            self.message_steps.append((stage, step))
            return step

        return register

    def on_presence(self, stage: Stage) -> Callable[[S], S]:
        """A step of each presence's way, likewise."""

        def register(step: S) -> S:
            self.presence_steps.append((stage, step))
            return step

        return register

    def on_any_iq(self, stage: Stage) -> Callable[[S], S]:
        """A step that every IQ passes before it is answered or delivered (OUT_SCREEN, IN_SCREEN only)."""

        def register(step: S) -> S:
            self.iq_steps.append((stage, step))
            return step

        return register

    def on_event(self, event: type[Event]) -> Callable[[E], E]:
        """React to an event of `router/events.py`, in the turn in which it happens."""

        def register(handler: E) -> E:
            self.event_handlers.append((event, handler))
            return handler

        return register

    def on_load(self, loader: Loader, assign: Assign) -> None:
        """When accounts come into memory: `values = await loader(connection, accounts)`, then for each of them
        `assign(entity, values[key])`."""
        self.loaders.append((loader, assign))
