"""Fenced writes: one transaction for the writes of many turns, which commits only if every shard is still owned.

The fence is a lock, not a look: rows of `shards` are locked FOR SHARE in the order of shards, so that a take waits for
the transaction, and a transaction after a take sees the new owner (docs/delivery.md §4).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection

from storage.pool import is_away

Connection = AsyncConnection[Any]
Statement = Callable[..., Awaitable[Any]]


class Committed(NamedTuple):
    """It is durable."""


class Fenced(NamedTuple):
    """Nothing was written: these shards are owned by others, or under another epoch."""

    lost: tuple[int, ...]


class Refused(NamedTuple):
    """Nothing was written: the database will not have the data of write number `index`."""

    index: int
    error: psycopg.Error


Outcome = Committed | Fenced | Refused


async def commit(
    conn: Connection, owner: str, fence: Mapping[int, int], writes: Sequence[tuple[Statement, tuple[Any, ...]]]
) -> Outcome:
    """Run the writes under the fence: shard -> epoch, held by `owner`. Raises where the outcome is unknown; the
    identical call may then be made again, because every write is one that may be repeated."""
    index = -1
    try:
        async with conn.transaction():
            lost = await _lost(conn, owner, fence)
            if lost:
                return Fenced(lost)
            async with conn.pipeline():
                for index, (statement, arguments) in enumerate(writes):  # noqa: B007  # read behind the loop
                    await statement(conn, *arguments)
    except psycopg.Error as problem:
        if is_away(problem):
            raise
        return await _guilty(conn, owner, fence, writes, index, problem)
    return Committed()


async def _lost(conn: Connection, owner: str, fence: Mapping[int, int]) -> tuple[int, ...]:
    cursor = await conn.execute(
        """
        SELECT s.shard FROM shards s JOIN unnest(%s::int[], %s::bigint[]) AS w (shard, epoch) USING (shard, epoch)
        WHERE s.owner = %s ORDER BY s.shard FOR SHARE OF s
        """,
        (list(fence), list(fence.values()), owner),
    )
    held = {shard for (shard,) in await cursor.fetchall()}
    return tuple(shard for shard in fence if shard not in held)


async def _guilty(
    conn: Connection, owner: str, fence: Mapping[int, int], writes: Sequence[tuple[Statement, tuple[Any, ...]]],
    reached: int, problem: psycopg.Error,
) -> Outcome:  # fmt: skip
    """In a pipeline an error shows late: run the writes one by one, to know whose it is, and take all back."""
    if len(writes) == 1:
        return Refused(0, problem)
    try:
        async with conn.transaction(force_rollback=True):
            for index, (statement, arguments) in enumerate(writes):
                try:
                    await statement(conn, *arguments)
                except psycopg.Error as error:
                    if is_away(error):
                        raise
                    return Refused(index, error)
    except psycopg.Error as error:
        if is_away(error):
            raise
    return Refused(max(reached, 0), problem)
