"""Accounts that last as long as their session, in the database (storage/guests.py, storage/erasures.py)."""

from __future__ import annotations

from cluster.shards import shard_of
from storage import accounts, erasures, guests, restrictions, sessions
from storage.rows import Connection, fetch_value
from storage.sessions import SessionRow
from tests.support.database import asynchronous, connected

DOMAIN = "guest.lit"
ONE, TWO = f"4f2a@{DOMAIN}", f"9c01@{DOMAIN}"


async def come(conn: Connection, jid: str, network: str = "192.0.2.1") -> int:
    """As often as an unknown outcome makes it be repeated."""
    for _ in range(2):
        await accounts.create(conn, jid, shard_of(jid), ())
        await guests.add(conn, jid, network)
    found = await accounts.find(conn, jid)
    assert found is not None
    return found.key


@asynchronous
async def test_guests_are_counted_by_domain_and_network(database: str) -> None:
    async with connected(database) as conn:
        await come(conn, ONE)
        await come(conn, TWO, "192.0.2.2")
        await come(conn, "4f2a@other.lit")
        assert await guests.count(conn, DOMAIN, "192.0.2.1", "") == (2, 1)
        assert await guests.count(conn, DOMAIN, "192.0.2.1", ONE) == (1, 0), "who asks again is not two"
        assert await guests.count(conn, "nobody.lit", "192.0.2.1", "") == (0, 0)


@asynchronous
async def test_an_account_is_known_to_be_a_guests(database: str) -> None:
    async with connected(database) as conn:
        key = await come(conn, ONE)
        assert [found.kind for found in (await restrictions.load(conn, [key]))[key]] == ["guest"]
        await accounts.create(conn, "romeo@x.lit", 1, ())
        romeo = await accounts.find(conn, "romeo@x.lit")
        assert romeo is not None
        assert (await restrictions.load(conn, [romeo.key]))[romeo.key] == []


@asynchronous
async def test_whoever_has_no_session_in_time_is_forsaken(database: str) -> None:
    async with connected(database) as conn:
        await come(conn, ONE)
        key = await come(conn, TWO)
        assert await guests.forsaken(conn, 40.0) == []
        await conn.execute("update guests set at = at - interval '1 minute'")
        row = SessionRow(1, shard_of(TWO), key, TWO, "tab", "c2s-0#1", 1, "request", 1_800_000_000.0)
        await sessions.save(conn, row)
        assert await guests.forsaken(conn, 40.0) == [ONE]
        await sessions.delete(conn, 1)
        assert await guests.forsaken(conn, 40.0) == [ONE, TWO]


@asynchronous
async def test_of_a_guest_not_even_the_hash_of_the_name_is_kept(database: str) -> None:
    async with connected(database) as conn:
        await come(conn, ONE)
        for _ in range(2):
            await erasures.begin(conn, 7, ONE, shard_of(ONE), False, "guest", 30.0)
        assert await fetch_value(conn, "select count(*) from guests") == 0
        assert [(job.jid, job.by) for job in await erasures.pending(conn)] == [(ONE, "guest")]
        for _ in range(2):
            await erasures.finish(conn, 7, ONE, {}, is_kept=False)
        for table in ("erasures", "accounts", "entities"):
            assert await fetch_value(conn, f"select count(*) from {table}") == 0
