"""What commands have at hand: the database, the owners of entities, the map of shards, the bus, the settings.

Accounts are read from the database and changed by their owners, wherever those are (`router/calls.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cluster.admin import ApiError
from cluster.bus import Bus
from cluster.shards import ShardMap, shard_of
from cluster.wire import node_of
from router.calls import CallError, Calls
from router.ordering import Ordering
from router.settings import Settings
from router.traces import Traces
from storage.pool import is_away
from storage.store import Store
from xmpp.errors import JidError
from xmpp.jid import JID

Answers = Mapping[str, tuple[int, str, str]]  # condition: status, what is wrong (after the JID), what to do

ANSWERS: Final = {
    "conflict": (409, "exists", "Choose another name"),
    "item-not-found": (404, "does not exist", "stentor user list shows the accounts"),
    "not-allowed": (409, "has no password here", "authentication.domains says who checks those of its domain"),
    "gone": (409, "was erased not long ago", "Choose another name, or say that it is to be the same person's again"),
    "not-acceptable": (400, "cannot have this password", "Choose another one"),
    "resource-constraint": (503, "cannot be changed now", "Try again"),
    "remote-server-timeout": (503, "cannot be changed now", "Try again; is its router up?"),
    "temporary-auth-failure": (503, "cannot be changed now", "Try again; is the database up?"),
}


@dataclass(frozen=True, slots=True)
class Desk:
    """Any router has one, and answers for the whole cluster."""

    settings: Settings
    store: Store
    calls: Calls
    map: ShardMap
    bus: Bus
    traces: Traces
    ordering: Ordering
    later: Callable[..., None]  # a repository function with its arguments, run when the database is there

    async def read(self, statement: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Run a repository function. Raises ApiError 503 where the database is away."""
        try:
            return await self.store.run(statement, *arguments)
        except Exception as problem:
            if not is_away(problem):
                raise
            raise ApiError(503, "the database is away", "Try again; `stentor db status` tells more") from problem

    async def ask(self, bare: str, method: str, *arguments: Any, answers: Answers = ANSWERS) -> Any:
        """Call the owner of an entity. Raises ApiError as `answers` tell its conditions."""
        try:
            return await self.calls.ask(bare, shard_of(bare), method, arguments)
        except CallError as problem:
            raise answer(bare, problem, answers) from problem

    def router_of(self, bare: str) -> str | None:
        """The node that owns an entity."""
        owner = self.map.owners[shard_of(bare)]
        return node_of(owner) if owner is not None else None

    def account(self, text: str) -> str:
        """The bare JID of an account that may be here. Raises ApiError 400."""
        jid = jid_of(text)
        if jid.resource or not jid.local:
            raise ApiError(400, f"{text} is not the bare JID of an account", "Write it as name@domain")
        self.require_domain(jid.domain)
        return jid.bare

    def require_domain(self, domain: str) -> None:
        """Raises ApiError 400 where a domain has no accounts here."""
        if domain not in self.settings.domains:
            served = ", ".join(sorted(self.settings.domains))
            raise ApiError(400, f"{domain} is not served here", f"The domains are: {served} (server.domains)")


def answer(bare: str, problem: CallError, answers: Answers) -> ApiError:
    """What an owner's refusal is to whoever has called the API."""
    unknown = (500, f"failed: {problem.condition}", "The log of the router says more")
    status, words, remedy = answers.get(problem.condition) or ANSWERS.get(problem.condition, unknown)
    return ApiError(status, f"{bare} {words}", remedy)


def jid_of(text: str) -> JID:
    """Raises ApiError 400."""
    try:
        return JID.parse(text)
    except JidError as problem:
        raise ApiError(400, f"{text} is no JID: {problem}", "Write it as name@domain") from problem


def stamp(unix_seconds: float) -> str:
    """RFC 3339, to the second."""
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def stamp_or_none(unix_seconds: float | None) -> str | None:
    """The same of a time that there may not be."""
    return None if unix_seconds is None else stamp(unix_seconds)


def moment(name: str, text: str) -> float:
    """Unix seconds of a time that was written so; without an offset it is UTC. Raises ApiError 400."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ApiError(400, f"{name} is no time", "Write it as 2027-01-31T12:00:00Z") from None


def number(text: str, name: str = "after") -> int:
    """A cursor that is a number, "" for the beginning. Raises ApiError 400."""
    found = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else (0 if not text else 2**63)
    if found >= 2**63:
        raise ApiError(400, f"{name} is no place in this list", "Give `next` of the page before")
    return found
