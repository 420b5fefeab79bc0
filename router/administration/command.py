"""What a command of the administration declares. The HTTP API, its OpenAPI document, docs/admin-api.md and ad-hoc
commands are made of these declarations (`__init__.py` has all of them)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from cluster.admin import Caller
from router.administration.desk import Desk
from router.administration.schema import Schema, list_of, or_null

Place = Literal["path", "query", "body"]

PAGE: Final = 1_000

SCOPES: Final[Mapping[str, str]] = {
    "users:read": "accounts, their devices, restrictions and contacts, invitations",
    "users:write": "make, change, ban and erase accounts, change rosters, invite",
    "users:move": "import and export accounts and rooms, with the keys of passwords and whole archives",
    "traces:read": "who writes to whom, of traces that run",
    "traces:write": "trace somebody's stanzas",
    "sessions:read": "who is connected, from which process",
    "sessions:write": "end sessions",
    "rooms:read": "rooms, who is in them, what was said last",
    "rooms:write": "make, change and end rooms",
    "abuse:read": "reports, blocklists, what operators have blocked",
    "abuse:write": "close reports, read blocklists anew, block and unblock",
    "federation:read": "the servers and components spoken with",
    "federation:write": "try them again",
    "messages:write": "write to accounts in the server's name",
    "archive:read": "read what accounts have in their archives",
    "archive:write": "remove from archives",
    "config:read": "what is configured, without secrets; certificates",
    "config:write": "have files read again, change what is logged",
    "cluster:read": "processes, shards, numbers",
    "cluster:write": "drain processes",
    "admins:write": "with users:write: also what concerns accounts of `server.admins`, who may do everything",
    "tokens:write": "see, make and revoke tokens, with no more than one's own scopes",
    "audit:read": "what was done by whom",
}


class Parameter(NamedTuple):
    """Something that a command is given."""

    name: str
    place: Place
    schema: Schema
    description: str
    is_required: bool


def path(name: str, schema: Schema, description: str) -> Parameter:
    """It stands in the path as {name}."""
    return Parameter(name, "path", schema, description, True)


def query(name: str, schema: Schema, description: str) -> Parameter:
    """It may stand in the query."""
    return Parameter(name, "query", schema, description, False)


def body(name: str, schema: Schema, description: str, *, required: bool = False) -> Parameter:
    """It is, or may be, a key of the JSON object that is sent."""
    return Parameter(name, "body", schema, description, required)


@dataclass(frozen=True, slots=True)
class Call:
    """One use of a command: who, and what was given, by name; what was left out is not there."""

    caller: Caller
    given: Mapping[str, Any]

    def text(self, name: str) -> str:
        """ "" where it was left out."""
        return str(self.given.get(name) or "")

    def flag(self, name: str) -> bool:
        """False where it was left out."""
        return self.given.get(name) is True

    @property
    def by(self) -> str:
        """What accounts are told of who has done it: an administrator's JID, or "operator"."""
        return self.caller.name if self.caller.is_account else "operator"

    @property
    def limit(self) -> int:
        """Of a list."""
        return int(self.given.get("limit", PAGE))


Run = Callable[[Desk, Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Command:
    """A command. `name` is what the CLI calls it; `errors` are the statuses besides those that any command may have;
    `writes`: it changes something, so it is audited; `on`: the parameters that say on what; `items`: the key of the
    answer that is a list, which then comes in pages."""

    name: str
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str  # below /api/v1
    scope: str
    summary: str
    run: Run
    answer: Schema
    parameters: Sequence[Parameter] = ()
    description: str = ""
    errors: Sequence[int] = ()
    writes: bool = False
    audited: bool = False  # though it changes nothing
    on: Sequence[str] = ()
    items: str = ""
    by_name: Mapping[str, Parameter] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {one.name: one for one in self.parameters})
        assert self.scope in SCOPES, f"{self.name}: {self.scope} is no scope"
        assert len(self.by_name) == len(self.parameters), f"{self.name}: a parameter twice"
        assert self.writes == (self.method != "GET"), f"{self.name}: {self.method} and writes do not go together"

    def target(self, given: Mapping[str, Any]) -> str:
        """On what it is done, for the audit log."""
        return " ".join(str(given[name]) for name in self.on if given.get(name) not in (None, ""))


LIMIT: Final = query(
    "limit", {"type": "integer", "minimum": 1, "maximum": PAGE}, f"entries in this page, {PAGE:,} if left out"
)
AFTER: Final = query("after", {"type": "string", "maxLength": 8_192}, "`next` of the page before; may be empty")


def paged(items: str, schema: Schema) -> Schema:
    """The answer of a command that lists."""
    following = {"type": "string", "description": "`after` of the next page; null: this was the last"}
    return {
        "type": "object",
        "properties": {items: list_of(schema), "next": or_null(following)},
        "required": [items, "next"],
        "additionalProperties": False,
    }


def page(items: str, rows: Sequence[Any], limit: int, key: Callable[[Any], str], show: Callable[[Any], Any]) -> Any:
    """A page of `limit` entries from rows of which one more was read; `key` of its last one begins the next."""
    shown = rows[:limit]
    return {items: [show(row) for row in shown], "next": key(shown[-1]) if len(rows) > limit else None}


class Area(NamedTuple):
    """Commands that belong together: a chapter of the reference."""

    title: str
    commands: Sequence[Command]
    text: str = ""
