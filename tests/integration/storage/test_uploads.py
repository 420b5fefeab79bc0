"""Slots and quotas of uploads, in the database (storage/uploads.py)."""

from __future__ import annotations

import asyncio
import itertools
import time

from storage import uploads
from storage.rows import Connection, fetch_value
from storage.uploads import Draft, Quota, Verdict
from tests.support.database import asynchronous, connected

QUOTA = Quota(100_000, 20_000, 50_000)
_owners = itertools.count(1_000_001)
_ids = itertools.count(1)


def new_id() -> bytes:
    return next(_ids).to_bytes(16)


def draft(owner: int, size: int = 10_000, is_kept: bool = False, expires_s: float = 1_000) -> Draft:
    return Draft(new_id(), owner, size, is_kept, "image/png", 600, None if is_kept else time.time() + expires_s)


async def usage(conn: Connection, owner: int) -> tuple[int, int, int, int]:
    cursor = await conn.execute(
        "select files, bytes, kept_bytes, day_bytes from upload_usage where owner = %s", (owner,)
    )
    found = await cursor.fetchone()
    assert found is not None
    return (int(found[0]), int(found[1]), int(found[2]), int(found[3]))


async def make_due(conn: Connection, *ids: bytes) -> None:
    await conn.execute("update uploads set due_at = now() where id = any (%s)", (list(ids),))


async def claimed(conn: Connection) -> dict[bytes, str]:
    return {due.id: due.state for due in await uploads.claim(conn, 100)}


@asynchronous
async def test_what_is_granted_counts(database: str) -> None:
    async with connected(database) as conn:
        owner = next(_owners)
        one = draft(owner)
        granted = await uploads.grant(conn, one, QUOTA)
        assert granted.key is not None
        assert len(granted.key) == 32
        assert await uploads.grant(conn, one, QUOTA) == granted, "again, as nobody knew how it ended: it counts once"
        await uploads.grant(conn, draft(owner, 5_000, is_kept=True), QUOTA)
        assert await usage(conn, owner) == (2, 10_000, 5_000, 15_000)


@asynchronous
async def test_each_limit_is_a_limit(database: str) -> None:
    async with connected(database) as conn:
        owner = next(_owners)
        for size in (20_000, 20_000):
            assert (await uploads.grant(conn, draft(owner, size), QUOTA)).key is not None
        refused = await uploads.grant(conn, draft(owner, 10_001), QUOTA)
        assert refused[:4] == (None, 40_000, 0, 40_000), "the day"
        assert (await uploads.grant(conn, draft(owner, 10_000, is_kept=True), QUOTA)).key is not None
        no_day = QUOTA._replace(day_bytes=0)
        assert (await uploads.grant(conn, draft(owner, 10_001, is_kept=True), no_day)).key is None, "what is kept"
        assert (await uploads.grant(conn, draft(owner, 60_001), no_day)).key is None, "all"
        assert (await uploads.grant(conn, draft(owner, 60_000), no_day)).key is not None
        assert await usage(conn, owner) == (4, 100_000, 10_000, 110_000)


@asynchronous
async def test_a_new_day_begins_at_nothing(database: str) -> None:
    async with connected(database) as conn:
        owner = next(_owners)
        await uploads.grant(conn, draft(owner, 50_000), QUOTA)
        await conn.execute("update upload_usage set day = day - 1 where owner = %s", (owner,))
        assert (await uploads.grant(conn, draft(owner, 50_000), QUOTA)).key is not None
        assert await usage(conn, owner) == (2, 100_000, 0, 50_000)
        await conn.execute("update upload_usage set day = day - 1 where owner = %s", (owner,))
        assert (await uploads.grant(conn, draft(owner, 5_000), QUOTA))[3] == 0, "of today"


@asynchronous
async def test_two_do_not_get_the_same_rest(database: str) -> None:
    """Ten at a time, of which five have room."""
    async with connected(database) as first:
        owner = next(_owners)
        await uploads.grant(first, draft(owner, 4_096, is_kept=True), QUOTA)

        async def ask() -> Verdict:
            async with connected(database) as conn:
                return await uploads.grant(conn, draft(owner, 9_000), QUOTA)

        found = await asyncio.gather(*(ask() for _ in range(10)))
        assert sum(verdict.key is not None for verdict in found) == 5
        assert await usage(first, owner) == (6, 45_000, 4_096, 49_096)


@asynchronous
async def test_it_is_told_when_enough_has_expired(database: str) -> None:
    async with connected(database) as conn:
        owner, no_day = next(_owners), QUOTA._replace(day_bytes=0)
        drafts = [draft(owner, 25_000, expires_s=1_000 * n) for n in (3, 1, 2, 4)]
        for one in drafts:
            await uploads.grant(conn, one, no_day)
        for size, nth in ((1, 1), (25_000, 1), (25_001, 2), (50_001, 0), (100_000, 3)):
            refused = await uploads.grant(conn, draft(owner, size), no_day)
            expected = drafts[nth].expires_at
            assert refused.free_at is not None
            assert expected is not None
            assert abs(refused.free_at - expected) < 0.01, size


@asynchronous
async def test_a_row_is_dealt_with_by_one(database: str) -> None:
    async with connected(database) as one, connected(database) as other:
        drafts = [draft(next(_owners)) for _ in range(6)]
        for each in drafts:
            await uploads.grant(one, each, QUOTA)
        assert not {each.id for each in drafts} & (await claimed(one)).keys(), "their time is not over"
        await make_due(one, *(each.id for each in drafts))
        both = await asyncio.gather(uploads.claim(one, 3), uploads.claim(other, 3))
        assert {due.id for due in both[0]}.isdisjoint(due.id for due in both[1])
        taken = {due.id for found in both for due in found} | (await claimed(one)).keys()
        assert taken >= {each.id for each in drafts}
        assert await claimed(other) == {}
        left = await fetch_value(
            one, "select extract(epoch from min(due_at) - now()) from uploads where id = %s", drafts[0].id
        )
        assert 290 < left <= 300, "another one gets it, if nothing comes of it"


@asynchronous
async def test_used_slots_stay_and_others_give_back(database: str) -> None:
    async with connected(database) as conn:
        owner = next(_owners)
        used, unused, kept = draft(owner), draft(owner, 20_000), draft(owner, 5_000, is_kept=True)
        for one in (used, unused, kept):
            await uploads.grant(conn, one, QUOTA)
        await make_due(conn, used.id, unused.id, kept.id)
        assert await claimed(conn) == dict.fromkeys((used.id, unused.id, kept.id), "open")
        await uploads.settle(conn, [used.id, kept.id])
        for _ in range(2):
            await uploads.forget(conn, [unused.id])
        assert await usage(conn, owner) == (2, 10_000, 5_000, 15_000)
        due = await fetch_value(conn, "select due_at = expires_at from uploads where id = %s", used.id)
        assert due is True
        assert await fetch_value(conn, "select due_at = 'infinity' from uploads where id = %s", kept.id) is True
        await make_due(conn, used.id)
        assert await claimed(conn) == {used.id: "stored"}
        assert await uploads.forget(conn, [used.id]) == 1
        assert await usage(conn, owner) == (1, 0, 5_000, 15_000), "what was sent today was sent today"


@asynchronous
async def test_an_owner_that_ends(database: str) -> None:
    async with connected(database) as conn:
        owner = next(_owners)
        stored, opened = draft(owner), draft(owner)
        for one in (stored, opened):
            await uploads.grant(conn, one, QUOTA)
        await uploads.settle(conn, [stored.id])
        assert await uploads.open_of(conn, owner) == [opened.id]
        assert await uploads.doom(conn, owner, 10) == [stored.id]
        assert await uploads.forget(conn, [stored.id]) == 1
        assert await uploads.disown(conn, owner, False) == 1
        assert await uploads.disown(conn, owner, False) == 0
        assert await fetch_value(conn, "select count(*) from upload_usage where owner = %s", owner) == 0
        assert await claimed(conn) == {}, "it may still be put"
        await make_due(conn, opened.id)
        assert await claimed(conn) == {opened.id: "doomed"}
        assert await uploads.forget(conn, [opened.id]) == 1


@asynchronous
async def test_what_there_is_altogether(database: str) -> None:
    async with connected(database) as conn:
        before = await uploads.total(conn)
        await uploads.grant(conn, draft(next(_owners), 7_000), QUOTA)
        await uploads.grant(conn, draft(next(_owners), 5_000, is_kept=True), QUOTA)
        after = await uploads.total(conn)
        assert (after.files - before.files, after.bytes - before.bytes) == (2, 12_000)
