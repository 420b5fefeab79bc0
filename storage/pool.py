"""Connections to PostgreSQL: how they are opened, what is refused, and which errors mean "away, try again".

The database is reached directly, never through a transaction-mode pooler, which would drop LISTEN and prepared
statements. Connections are in autocommit mode: one statement is one transaction, several take `conn.transaction()`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool

from storage.rows import Connection, fetch_value

Pool = AsyncConnectionPool[AsyncConnection[Any]]

WAIT_S: Final = 3.0  # for a connection of the pool
RETRY_S: Final = 3.0  # so long the pool tries to connect for somebody who waits: at once, after 1 s, after 3 s

# A connection that is cut in silence is given up within about 25 s, at once where somebody waits for its statement.
_KEEPALIVE: Final = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

ErrorClass = Literal["connection", "resources", "read_only", "timeout", "conflict", "data", "other"]
_BY_SQLSTATE: Final[dict[str, ErrorClass]] = {
    "08": "connection",
    "57P": "connection",  # shutdown, crash, cannot connect now
    "58": "resources",  # errors of the system below
    "53": "resources",  # disk full, out of memory, too many connections
    "25006": "read_only",  # a standby, or a primary that was made read-only
    "57014": "timeout",
    "55P03": "timeout",
    "25P03": "timeout",
    "40": "conflict",
    "22": "data",
    "23": "data",
}
_AWAY: Final = frozenset({"connection", "resources", "read_only", "timeout", "conflict"})


class StorageError(Exception):
    """The database cannot be used as it is. The text is for the operator: the problem and its remedy."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}. {remedy}")
        self.problem = problem
        self.remedy = remedy


def classify(error: BaseException) -> ErrorClass:
    """Which kind of failure this is, for `is_away` and for `stentor_db_errors_total`."""
    if not isinstance(error, psycopg.Error):
        return "connection" if isinstance(error, OSError) else "other"
    sqlstate = error.sqlstate
    if sqlstate is None:  # the driver's own, not the server's
        if isinstance(error, psycopg.OperationalError):
            return "connection"
        return "data" if isinstance(error, psycopg.DataError) else "other"
    for size in (5, 3, 2):
        found = _BY_SQLSTATE.get(sqlstate[:size])
        if found is not None:
            return found
    return "other"


def is_away(error: BaseException) -> bool:
    """Whether the database is away or overloaded, so that the same may succeed later. It says nothing about whether
    a statement was carried out: where the connection broke while it ran, that is unknown."""
    return classify(error) in _AWAY


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds on waiting, in seconds; 0 for none. A transaction may be idle as long as a statement may run."""

    connect_s: float = 5.0
    statement_s: float = 10.0
    lock_s: float = 5.0

    def options(self) -> str:
        """As the server takes them at connect."""
        statement, lock = round(self.statement_s * 1000), round(self.lock_s * 1000)
        return (
            f"-c statement_timeout={statement} -c idle_in_transaction_session_timeout={statement}"
            f" -c lock_timeout={lock}"
        )


DEFAULT: Final = Timeouts()


def conninfo(url: str, name: str, timeouts: Timeouts) -> str:
    """The connection string: what `url` says, and for what it leaves out, Stentor's. Raises StorageError."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise StorageError(
            f"database.url is no connection string: {str(error).strip()}",
            "Write postgresql://USER:PASSWORD@HOST:PORT/NAME",
        ) from None
    options = timeouts.options()
    defaults: dict[str, Any] = {
        "connect_timeout": math.ceil(timeouts.connect_s),
        "application_name": f"stentor {name}",
        "target_session_attrs": "read-write",
        **_KEEPALIVE,
    }
    return make_conninfo("", **{**defaults, **given, "options": f"{options} {given.get('options') or ''}".rstrip()})


async def connect(url: str, name: str, timeouts: Timeouts = DEFAULT) -> AsyncConnection[Any]:
    """One connection outside the pool, in autocommit mode. Raises psycopg.Error."""
    return await AsyncConnection.connect(conninfo(url, name, timeouts), autocommit=True)


async def open_pool(url: str, *, size: int, name: str, min_size: int = 2, timeouts: Timeouts = DEFAULT) -> Pool:
    """Connections for a process called `name`, at most `size`, after a look whether the database may be trusted.

    Raises StorageError where it may not (see `check_durable`); psycopg.Error where it is away: try again.
    """
    async with await connect(url, name, timeouts) as conn:
        await check_durable(conn)
    pool: Pool = AsyncConnectionPool(
        conninfo(url, name, timeouts),
        kwargs={"autocommit": True},
        min_size=min(min_size, size),
        max_size=size,
        open=False,
        name=name,
        timeout=WAIT_S,
        reconnect_timeout=RETRY_S,
    )
    await pool.open()
    return pool


async def check_durable(conn: Connection) -> None:
    """Raise StorageError where a commit would promise too much, or where text would not be kept."""
    for setting in ("fsync", "synchronous_commit"):
        if await fetch_value(conn, "select current_setting(%s)", setting) == "off":
            raise StorageError(
                f"PostgreSQL has {setting} off, so that a crash would lose messages that were acknowledged",
                f"Set {setting} = on in postgresql.conf, for the database and for the role, and reload",
            )
    encoding = await fetch_value(conn, "select current_setting('server_encoding')")
    if encoding != "UTF8":
        raise StorageError(
            f"the database's encoding is {encoding}", "Create it with: encoding 'UTF8' template template0"
        )


async def clock_ms(conn: Connection) -> int:
    """The database's clock, in Unix milliseconds."""
    now: int = await fetch_value(conn, "select (extract(epoch from clock_timestamp()) * 1000)::int8")
    return now
