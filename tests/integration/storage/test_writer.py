"""Fenced commits and takes, against each other: what must never be is a write that lands after its shard was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from struct import Struct

import psycopg
import pytest
from psycopg import errors

from cluster.shards import shard_of
from cluster.wire import Epoch, Shard
from storage import accounts, blocks, rosters, sessions, shards, writer
from storage.arrays import Array, Bytes, Int4, Int8, Int8Records, Text, record_format
from storage.pool import clock_ms, is_away
from storage.rosters import Item
from storage.rows import Connection, fetch_value, fetch_values
from storage.sessions import SessionRow
from storage.writer import Committed, Fenced, Refused, Write
from tests.support.database import asynchronous, connected, eventually

ME, OTHER = "router-0#a", "router-1#b"
Fence = dict[Shard, Epoch]


async def take(conn: Connection, owner: str, *numbers: int) -> Fence:
    rows = {row.shard: (row.owner, row.epoch) for row in await shards.load_all(conn)}
    return await shards.take(conn, owner, {Shard(number): rows[Shard(number)] for number in numbers})


def session(sid: int, shard: int = 1, gen: int = 1) -> SessionRow:
    return SessionRow(sid, shard, 1, "a@x", f"r{sid}", "c2s-0#a", gen, "", 0.0)


def save(sid: int, shard: int = 1, gen: int = 1) -> Write:
    return (sessions.save, (session(sid, shard, gen),))


def block(jid: str) -> Write:
    return (blocks.add, (1, [jid]))


async def sids(conn: Connection) -> list[int]:
    return await fetch_values(conn, "select sid from sessions order by sid")


# --- takes


@asynchronous
async def test_a_take_raises_the_epoch_to_the_clock_at_least(database: str) -> None:
    async with connected(database) as conn:
        before = await clock_ms(conn)
        first = await take(conn, ME, 3, 1, 2)
        assert set(first) == {1, 2, 3}
        after = await clock_ms(conn)
        assert all(before <= epoch <= after for epoch in first.values())
        ahead = before + 10**9
        await conn.execute("update shards set epoch = %s where shard = 1", (ahead,))
        assert await take(conn, ME, 1) == {1: ahead + 1}  # also the same owner's take raises it
        rows = await shards.load_all(conn)
        assert [row.shard for row in rows] == list(range(1024))
        assert rows[1] == (1, ME, ahead + 1)
        assert rows[0] == (0, None, 0)


@asynchronous
async def test_a_take_leaves_what_is_not_as_expected(database: str) -> None:
    async with connected(database) as conn:
        fence = await take(conn, ME, 1, 2, 3)
        one, two, three = sorted(fence)
        expected = {one: (ME, fence[one]), two: (ME, Epoch(fence[two] - 1)), three: (None, fence[three])}
        assert set(await shards.take(conn, OTHER, expected)) == {1}
        owners = [row.owner for row in await shards.load_all(conn)]
        assert owners[1:4] == [OTHER, ME, ME]


@asynchronous
async def test_of_two_takes_one_wins(database: str) -> None:
    async with connected(database) as one, connected(database) as two:
        nobody: tuple[str | None, Epoch] = (None, Epoch(0))
        expected = {Shard(number): nobody for number in range(1024)}
        backwards = dict(reversed(expected.items()))
        won = await asyncio.gather(shards.take(one, ME, expected), shards.take(two, OTHER, backwards))
        assert sorted(map(len, won)) == [0, 1024]


@asynchronous
async def test_a_release_names_the_next_owner_and_raises_the_epoch(database: str) -> None:
    async with connected(database) as conn:
        fence = await take(conn, ME, 1, 2)
        stale = fence | {Shard(2): Epoch(fence[Shard(2)] - 1)}
        assert await shards.release(conn, ME, stale, OTHER) == [1]
        rows = await shards.load_all(conn)
        assert rows[1].owner == OTHER
        assert rows[1].epoch > fence[Shard(1)]
        assert rows[2].owner == ME
        assert await writer.commit(conn, ME, fence, [save(1)]) == Fenced(frozenset({Shard(1)}))
        assert await shards.release(conn, ME, fence, OTHER) == [2]


# --- commits


@asynchronous
async def test_a_batch_of_sessions_is_one_statement(database: str) -> None:
    async with connected(database) as conn:
        fence = await take(conn, ME, 1, 2)
        writes = [save(1), save(2, 2), save(3), (sessions.delete, (2,)), save(1, gen=2), (sessions.delete, (9,))]
        before = await fetch_value(conn, "select pg_current_xact_id()::text::int8")
        assert await writer.commit(conn, ME, fence, writes) == Committed()
        assert await fetch_value(conn, "select pg_current_xact_id()::text::int8") == before + 2  # itself, and one
        assert await sids(conn) == [1, 3]
        assert [row.gen for row in await sessions.load_shards(conn, [1])] == [2, 1]


@asynchronous
async def test_general_writes_run_in_order_with_the_sessions(database: str) -> None:
    async with connected(database) as conn:
        fence = await take(conn, ME, shard_of("a@x"))
        writes: list[Write] = [
            (accounts.create, ("a@x", shard_of("a@x"), ())),
            save(1),
            block("b@x"),
            (blocks.clear, (1,)),
            block("c@x"),
            (rosters.upsert, (1, Item("d@x"), 5)),
        ]
        for _ in range(2):  # of unknown outcome: the identical batch again
            assert await writer.commit(conn, ME, fence, writes) == Committed()
            assert (await blocks.load(conn, [1]))[1] == {"c@x"}
            assert await sids(conn) == [1]
            assert [item.jid for item in (await rosters.load(conn, [1]))[1]] == ["d@x"]
        assert await accounts.find(conn, "a@x") is not None


@asynchronous
async def test_a_batch_without_writes_still_looks(database: str) -> None:
    async with connected(database) as conn:
        fence = await take(conn, ME, 1)
        assert await writer.commit(conn, ME, fence, []) == Committed()
        assert await writer.commit(conn, OTHER, fence, []) == Fenced(frozenset({Shard(1)}))


@pytest.mark.parametrize("writes", [[save(1)], [(sessions.delete, (7,))], [block("b@x")], [save(1), block("b@x")]])
@asynchronous
async def test_a_lost_shard_fences_the_whole_batch(database: str, writes: Sequence[Write]) -> None:
    async with connected(database) as conn:
        fence = await take(conn, ME, 1, 2, 3)
        await sessions.save(conn, session(7))
        await take(conn, OTHER, 2)
        newer = await take(conn, ME, 3)  # lost and taken back: another epoch, what was decided before must not land
        assert await writer.commit(conn, ME, fence, writes) == Fenced(frozenset({Shard(2), Shard(3)}))
        assert await sids(conn) == [7]
        assert (await blocks.load(conn, [1]))[1] == set()
        assert await writer.commit(conn, ME, {Shard(1): fence[Shard(1)]} | newer, writes) == Committed()


async def check(conn: Connection, value: int) -> None:
    await conn.execute("insert into shards (shard, owner, epoch) values (%s, null, 0)", (value,))


async def buggy(conn: Connection) -> None:
    raise ValueError("a bug")


@pytest.mark.parametrize(
    ("writes", "guilty", "kind"),
    [
        ([save(1), block("b@x"), (check, (5000,)), block("c@x")], 2, errors.CheckViolation),
        ([save(1), save(2), (sessions.save, (session(2**70),))], 2, errors.NumericValueOutOfRange),
        ([block("b@x"), block("nul\0")], 1, psycopg.DataError),
        ([save(1), (sessions.save, (SessionRow(3, 1, 1, "a@x", "\0", "", 1, "", 0.0),))], 1, psycopg.DataError),
        ([block("b@x"), (buggy, ()), block("c@x")], 1, ValueError),
    ],
)
@asynchronous
async def test_a_refused_write_is_named_and_leaves_nothing_behind(
    database: str, writes: list[Write], guilty: int, kind: type[Exception]
) -> None:
    async with connected(database) as conn:
        fence = await take(conn, ME, 1)
        outcome = await writer.commit(conn, ME, fence, writes)
        assert isinstance(outcome, Refused)
        assert outcome.index == guilty
        assert isinstance(outcome.error, kind)
        assert await sids(conn) == []
        assert (await blocks.load(conn, [1]))[1] == set()
        del writes[guilty]
        assert await writer.commit(conn, ME, fence, writes) == Committed()


# --- against each other


async def is_waiting_for_a_lock(conn: Connection, pid: int) -> bool:
    query = "select wait_event_type = 'Lock' from pg_stat_activity where pid = %s"
    return bool(await fetch_value(conn, query, pid))


@asynchronous
async def test_a_take_waits_for_the_batch_that_runs(database: str) -> None:
    async with connected(database) as mine, connected(database) as theirs, connected(database) as watcher:
        fence = await take(mine, ME, 1)
        wait = asyncio.Event()

        async def dawdle(conn: Connection) -> None:
            await conn.execute("select 1")
            await wait.wait()

        commit = asyncio.create_task(writer.commit(mine, ME, fence, [save(1), (dawdle, ())]))
        await eventually(lambda: is_in_transaction(watcher, mine.info.backend_pid), 5, "the batch holds its fence")
        taking = asyncio.create_task(take(theirs, OTHER, 1))
        await eventually(lambda: is_waiting_for_a_lock(watcher, theirs.info.backend_pid), 5, "the take waits")
        wait.set()
        assert await commit == Committed()
        assert set(await taking) == {1}
        assert [row.sid for row in await sessions.load_shards(theirs, [1])] == [1]  # the taker sees the write
        assert isinstance(await writer.commit(mine, ME, fence, [save(2)]), Fenced)


async def is_in_transaction(conn: Connection, pid: int) -> bool:
    query = """
        select exists (select from pg_locks where pid = %s and relation = 'shards'::regclass and mode = 'RowShareLock')
    """
    return bool(await fetch_value(conn, query, pid))


@pytest.mark.parametrize("writes", [[save(1)], [block("b@x"), save(1)]])
@asynchronous
async def test_a_batch_that_waits_for_a_take_is_fenced_out(database: str, writes: list[Write]) -> None:
    async with connected(database) as mine, connected(database) as theirs, connected(database) as watcher:
        fence = await take(mine, ME, 1, 2)
        async with theirs.transaction():
            await take(theirs, OTHER, 2)
            commit = asyncio.create_task(writer.commit(mine, ME, fence, writes))
            await eventually(lambda: is_waiting_for_a_lock(watcher, mine.info.backend_pid), 5, "the batch waits")
        assert await commit == Fenced(frozenset({Shard(2)}))
        assert await sids(mine) == []
        assert (await blocks.load(mine, [1]))[1] == set()


@asynchronous
async def test_the_fence_waits_for_any_change_of_the_row(database: str) -> None:
    """FOR KEY SHARE would pass by an update of owner or epoch."""
    async with connected(database) as mine, connected(database) as theirs, connected(database) as watcher:
        fence = await take(mine, ME, 1)
        async with theirs.transaction():
            await theirs.execute("update shards set owner = %s, epoch = epoch + 1 where shard = 1", (OTHER,))
            commit = asyncio.create_task(writer.commit(mine, ME, fence, [save(1)]))
            await eventually(lambda: is_waiting_for_a_lock(watcher, mine.info.backend_pid), 5, "the batch waits")
        assert await commit == Fenced(frozenset({Shard(1)}))


@asynchronous
async def test_a_take_that_is_taken_back_lets_the_batch_through(database: str) -> None:
    async with connected(database) as mine, connected(database) as theirs, connected(database) as watcher:
        fence = await take(mine, ME, 1)
        async with theirs.transaction(force_rollback=True):
            await take(theirs, OTHER, 1)
            commit = asyncio.create_task(writer.commit(mine, ME, fence, [save(1)]))
            await eventually(lambda: is_waiting_for_a_lock(watcher, mine.info.backend_pid), 5, "the batch waits")
        assert await commit == Committed()


@asynchronous
async def test_commits_and_takes_in_a_crowd(database: str) -> None:
    """Each commit writes the epochs it ran under; in the table they may only rise, whoever wrote them."""
    async with connected(database) as setup:
        await setup.execute("create table history (at bigserial, shard int, epoch int8)")

    async def note(conn: Connection, fence: Fence) -> None:
        for shard, epoch in fence.items():
            await conn.execute("insert into history (shard, epoch) values (%s, %s)", (shard, epoch))

    committed = fenced = 0

    async def router(name: str, step: int) -> None:
        nonlocal committed, fenced
        async with connected(database) as conn:
            for _ in range(12):
                numbers = [(number * step) % 8 for number in range(1, 5)]
                fence = await take(conn, name, *numbers)
                for _ in range(3):
                    outcome = await writer.commit(conn, name, fence, [(note, (fence,)), save(step)])
                    committed += isinstance(outcome, Committed)
                    fenced += isinstance(outcome, Fenced)

    await asyncio.gather(*(router(f"router-{step}#x", step) for step in (1, 3, 5, 7)))
    assert committed
    assert fenced
    async with connected(database) as conn:
        for shard in range(8):
            epochs = await fetch_values(conn, "select epoch from history where shard = %s order by at", shard)
            assert epochs == sorted(epochs)


# --- the database goes away


@asynchronous
async def test_a_batch_cut_off_is_sent_again_as_it_was(database: str) -> None:
    async with connected(database) as mine, connected(database) as watcher:
        fence = await take(mine, ME, 1)

        async def die(conn: Connection) -> None:
            await watcher.execute("select pg_terminate_backend(%s)", (mine.info.backend_pid,))
            await conn.execute("select 1")

        with pytest.raises(psycopg.OperationalError) as caught:
            await writer.commit(mine, ME, fence, [block("b@x"), (die, ()), save(1)])
        assert is_away(caught.value)
        assert (await blocks.load(watcher, [1]))[1] == set()
        for _ in range(2):
            assert await writer.commit(watcher, ME, fence, [block("b@x"), save(1)]) == Committed()


@asynchronous
async def test_a_lock_that_is_not_had_in_time_is_no_ones_guilt(database: str) -> None:
    async with connected(database) as mine, connected(database) as theirs:
        fence = await take(mine, ME, 1)
        await mine.execute("set lock_timeout = 50")
        async with theirs.transaction():
            await take(theirs, OTHER, 1)
            for writes in ([save(1)], [block("b@x")]):
                with pytest.raises(errors.LockNotAvailable) as caught:
                    await writer.commit(mine, ME, fence, writes)
                assert is_away(caught.value)


@asynchronous
async def test_a_read_only_database_is_away(database: str) -> None:
    async with connected(database) as conn:
        fence = await take(conn, ME, 1)
        await conn.execute("set default_transaction_read_only = on")
        for writes in ([save(1)], [block("b@x")]):
            with pytest.raises(errors.ReadOnlySqlTransaction) as caught:
                await writer.commit(conn, ME, fence, writes)
            assert is_away(caught.value)


# --- arrays (storage/arrays.py)

TWO = Struct(record_format(2))


@pytest.mark.parametrize(
    ("array", "read"),
    [
        (Int4([]), []),
        (Int4([-(2**31), 0, 2**31 - 1]), [-(2**31), 0, 2**31 - 1]),
        (Int8([-(2**63), 2**63 - 1]), [-(2**63), 2**63 - 1]),
        (Int8Records([], 2), []),
        (Int8Records([TWO.pack(8, 1, 8, -2), TWO.pack(8, 2**63 - 1, 8, 4)], 2), [1, -2, 2**63 - 1, 4]),
        (Text(["", "Juliët"]), ["", "Juliët"]),
        (Bytes([b"", b"\0\xff", b"x" * 70_000]), [b"", b"\0\xff", b"x" * 70_000]),
    ],
)
@asynchronous
async def test_the_server_reads_an_array_as_it_was_meant(database: str, array: Array, read: list[object]) -> None:
    async with connected(database) as conn:
        assert await fetch_value(conn, "select %b", array) == read
        assert await fetch_value(conn, "select coalesce(array_length(%b, 1), 0)", array) == len(read)
