"""Who owns which shard, under which epoch (docs/delivery.md, rules 13 to 15).

Epochs rise at every take and every release, to the database's clock in milliseconds at least, so that a failover or
a restore that lost commits does not send them backwards. Rows are always locked in the order of their numbers: a
take waits for the batches that hold them FOR SHARE (`storage/writer.py`), and neither can deadlock the other.
Listeners are notified when shards change hands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cluster.wire import Epoch, Shard
from storage.listen import CHANNEL
from storage.rows import Connection, fetch_all


class ShardRow(NamedTuple):
    """One shard: `owner` is an incarnation, None where nobody has owned it yet."""

    shard: Shard
    owner: str | None
    epoch: Epoch


async def load_all(conn: Connection) -> list[ShardRow]:
    """All 1,024, in order."""
    return await fetch_all(conn, ShardRow, "select shard, owner, epoch from shards order by shard")


async def take(conn: Connection, owner: str, expected: Mapping[Shard, tuple[str | None, Epoch]]) -> dict[Shard, Epoch]:
    """Make `owner` the owner of those shards that are still as expected (owner and epoch), each under a new epoch.

    Returns the shards taken with their epochs. Waits for transactions that hold the rows. Where the outcome stays
    unknown, read the rows: only the epoch that was returned is a success (rule 15).
    """
    return await _move(conn, owner, expected)


async def release(conn: Connection, owner: str, epochs: Mapping[Shard, Epoch], to: str) -> list[Shard]:
    """Hand shards that `owner` holds under these epochs over to `to`, which takes them under epochs of its own.

    Returns the shards that changed hands; the others were no longer held.
    """
    return sorted(await _move(conn, to, {shard: (owner, epoch) for shard, epoch in epochs.items()}))


async def _move(conn: Connection, to: str, rows: Mapping[Shard, tuple[str | None, Epoch]]) -> dict[Shard, Epoch]:
    moved = await fetch_all(
        conn,
        ShardRow,
        """
        with locked as (
            select s.shard from shards s join unnest(%s::int[], %s::text[], %s::int8[]) w (shard, owner, epoch)
                on s.shard = w.shard and s.epoch = w.epoch and s.owner is not distinct from w.owner
            order by s.shard for update of s
        ), moved as (
            update shards s set owner = %s,
                epoch = greatest(s.epoch + 1, (extract(epoch from clock_timestamp()) * 1000)::int8)
            from locked where s.shard = locked.shard returning s.shard, s.owner, s.epoch
        ), told as materialized (
            select pg_notify(%s, '') where exists (select from moved)
        )
        select shard, owner, epoch from moved where (select count(*) from told) >= 0
        """,
        list(rows),
        [owner for owner, _ in rows.values()],
        [epoch for _, epoch in rows.values()],
        to,
        CHANNEL,
    )
    return {row.shard: row.epoch for row in moved}
