"""Fenced group commit: the writes of many turns in one transaction, which commits only if every shard is still owned
under the epoch of its turns (docs/delivery.md, rule 13).

The fence is a lock, not a look: rows of `shards` are locked FOR SHARE, in the order of their numbers. A take waits
for the transaction, and a transaction that comes after the take sees the new owner. FOR KEY SHARE would not do: it
does not conflict with an update of owner or epoch.

When to commit, and what, is decided elsewhere; here is only how.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from cluster.wire import Epoch, Shard
from storage import log, sessions
from storage.arrays import Int4, Int8
from storage.pool import is_away
from storage.rows import Connection, fetch_value, fetch_values

Write = tuple[Callable[..., Awaitable[Any]], tuple[Any, ...]]  # a repository function, its arguments after `conn`

_FENCE: Final = """
    select s.shard from shards s join unnest(%b::int4[], %b::int8[]) f (shard, epoch) using (shard, epoch)
    where s.owner = %s order by s.shard for share of s
"""
_IS_WHOLE: Final = "(select count(*) from fence) = %s"
_SESSIONS: Final = f"""
    with fence as ({_FENCE}), saved as ({sessions.save_sql(_IS_WHOLE)}), deleted as ({sessions.delete_sql(_IS_WHOLE)})
    select shard from fence
"""
_LOG: Final = f"with fence as ({_FENCE}), logged as ({log.append_sql(_IS_WHOLE)}) select count(*) from fence"


@dataclass(frozen=True, slots=True)
class Committed:
    """All of it is durable."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """Nothing was written: these shards are owned by others, or under another epoch."""

    lost: frozenset[Shard]


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was written: the database will not have the data of write number `index`, or, where that is not below
    the number of writes, of the row of the log that far beyond them."""

    index: int
    error: Exception


Outcome = Committed | Fenced | Refused


async def commit(
    conn: Connection, owner: str, fence: Mapping[Shard, Epoch], writes: Sequence[Write], rows: Sequence[log.Row] = ()
) -> Outcome:
    """Append rows to the log and run the writes, in order, under the fence: each shard must be owned by `owner` under
    its epoch. A batch of rows alone, or of sessions alone, is one statement and one round trip.

    Session rows may be written before the rest, all at once. Raises what `is_away` recognises; then the outcome may be
    unknown, and the identical call is to be made again: every repository function may be repeated.
    """
    bound, others = _sorted_out(writes)
    try:
        if not others and not rows:
            return _outcome(fence, await _write_sessions(conn, owner, fence, bound))
        if not writes:
            return _outcome(fence, await _append(conn, owner, fence, rows))
        async with conn.transaction():
            held = await _write_sessions(conn, owner, fence, bound)
            if len(held) == len(fence):
                async with conn.pipeline():
                    if rows:
                        await conn.execute(log.append_sql("true"), log.columns(rows))
                    for function, arguments in others:
                        await function(conn, *arguments)
        return _outcome(fence, held)
    except Exception as error:
        if is_away(error):
            raise
    return await _one_by_one(conn, owner, fence, writes, rows)


class _Guilty(Exception):
    """Write number `index` failed; behind the writes, rows of the log are counted on."""

    def __init__(self, index: int, error: Exception) -> None:
        self.index = index
        self.error = error


class _Rows(NamedTuple):
    """What becomes of each session in a batch, whatever the number of its writes."""

    saved: list[sessions.SessionRow]
    deleted: list[int]


async def _one_by_one(
    conn: Connection, owner: str, fence: Mapping[Shard, Epoch], writes: Sequence[Write], rows: Sequence[log.Row]
) -> Outcome:
    """The same again without grouping, so that it is known which write the database refuses."""
    try:
        async with conn.transaction():
            held = await _write_sessions(conn, owner, fence, _Rows([], []))
            if len(held) == len(fence):
                appends: list[Write] = [(_append_one, (row,)) for row in rows]
                for index, (function, arguments) in enumerate([*writes, *appends]):
                    try:
                        await function(conn, *arguments)
                    except Exception as error:
                        raise _Guilty(index, error) from error
    except _Guilty as guilty:
        if is_away(guilty.error):
            raise guilty.error from None
        return Refused(guilty.index, guilty.error)
    return _outcome(fence, held)


async def _write_sessions(conn: Connection, owner: str, fence: Mapping[Shard, Epoch], rows: _Rows) -> Sequence[Shard]:
    """Lock the fence and, if it is whole, write session rows; in one statement. Returns the shards that are held."""
    locks = (Int4(list(fence)), Int8(list(fence.values())), owner)
    if not rows.saved and not rows.deleted:
        return await fetch_values(conn, _FENCE, *locks)
    size = len(fence)
    values = (*locks, *sessions.columns(rows.saved), size, rows.deleted, size)
    return await fetch_values(conn, _SESSIONS, *values)


async def _append(
    conn: Connection, owner: str, fence: Mapping[Shard, Epoch], rows: Sequence[log.Row]
) -> Sequence[Shard]:
    """Lock the fence and, if it is whole, append to the log; in one statement. Returns the shards that are held."""
    locks = (Int4(list(fence)), Int8(list(fence.values())), owner)
    count = await fetch_value(conn, _LOG, *locks, *log.columns(rows), len(fence))
    if count == len(fence):
        return list(fence)
    return await fetch_values(conn, _FENCE, *locks)  # what was lost stays lost: epochs only rise


async def _append_one(conn: Connection, row: log.Row) -> None:
    await conn.execute(log.append_sql("true"), log.columns([row]))


def _outcome(fence: Mapping[Shard, Epoch], held: Sequence[Shard]) -> Outcome:
    return Committed() if len(held) == len(fence) else Fenced(frozenset(fence).difference(held))


def _sorted_out(writes: Sequence[Write]) -> tuple[_Rows, list[Write]]:
    """Session rows apart from the rest; of several writes to one row only the last counts."""
    last: dict[int, sessions.SessionRow | None] = {}
    others: list[Write] = []
    for write in writes:
        function, arguments = write
        if function is sessions.save:
            last[arguments[0].sid] = arguments[0]
        elif function is sessions.delete:
            last[arguments[0]] = None
        else:
            others.append(write)
    saved = [row for row in last.values() if row is not None]
    return _Rows(saved, [sid for sid, row in last.items() if row is None]), others
