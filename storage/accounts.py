"""Accounts and their SCRAM credentials. Only an account's owner changes it, in a fenced batch (`storage/writer.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from storage.rows import Connection, fetch_all, fetch_one, fetch_value, fetch_values
from xmpp.scram import Credentials

_COLUMNS: Final = """
    a.key, e.jid, a.shard, a.enabled, a.roster_version, a.last_status, a.archive_default, a.archive_always,
    a.archive_never,
    extract(epoch from a.created_at)::float8 as created_at, extract(epoch from a.last_at)::float8 as last_at
"""


@dataclass(frozen=True, slots=True)
class Account:
    """One account. Times are Unix seconds; `last_at` and `last_status` are of its last unavailable presence, what
    begins with `archive` is what it wants archived (`storage/archive.py`)."""

    key: int
    jid: str  # prepared bare JID
    shard: int
    enabled: bool
    roster_version: int
    created_at: float
    last_at: float | None
    last_status: str
    archive_default: str | None = None
    archive_always: Sequence[str] = ()
    archive_never: Sequence[str] = ()


async def find(conn: Connection, jid: str) -> Account | None:
    """The account of a bare JID."""
    return await fetch_one(
        conn,
        Account,
        f"select {_COLUMNS} from entities e join accounts a using (key) where e.jid = %s",
        jid,
    )


async def find_all(conn: Connection, jids: Sequence[str]) -> list[Account]:
    """The accounts that there are of these bare JIDs."""
    return await fetch_all(
        conn,
        Account,
        f"select {_COLUMNS} from entities e join accounts a using (key) where e.jid = any (%s)",
        list(jids),
    )


async def create(conn: Connection, jid: str, shard: int, credentials: Sequence[Credentials]) -> int | None:
    """Make an account; returns its key, None where it exists already or is being erased (`storage/erasures.py`).

    A name that has a key already keeps it. The roster's version starts at the clock's milliseconds, so
    that a client which knew the former account never holds a version of the new one.
    """
    key: int | None = await fetch_value(
        conn,
        """
        with entity as (
            insert into entities (jid, shard, kind) values (%s, %s, 'account')
            on conflict (jid) do update set kind = excluded.kind returning key, shard
        ), account as (
            insert into accounts (key, shard, roster_version)
            select key, shard, (extract(epoch from clock_timestamp()) * 1000)::int8 from entity
            where not exists (select from erasures where jid = %s)
            on conflict do nothing returning key
        ), secret as (
            insert into credentials (key, hash, salt, iterations, stored_key, server_key)
            select account.key, c.* from account,
                unnest(%s::text[], %s::bytea[], %s::int[], %s::bytea[], %s::bytea[]) c
        )
        select key from account
        """,
        jid,
        shard,
        jid,
        *_columns(credentials),
    )
    return key


async def credentials(conn: Connection, jids: Sequence[str]) -> dict[str, dict[str, Credentials]]:
    """The credentials of these accounts by the name of their hash, as far as there are any."""
    cursor = await conn.execute(
        """
        select e.jid, c.hash, c.salt, c.iterations, c.stored_key, c.server_key
        from entities e join credentials c using (key) where e.jid = any (%s) order by c.hash
        """,
        (list(jids),),
    )
    found: dict[str, dict[str, Credentials]] = {}
    for jid, *columns in await cursor.fetchall():
        known = Credentials(*columns)
        found.setdefault(jid, {})[known.hash] = known
    return found


async def set_credentials(conn: Connection, key: int, credentials: Sequence[Credentials]) -> None:
    """Replace all credentials of an account: a new password."""
    hashes, *others = _columns(credentials)
    await conn.execute(
        """
        with old as (delete from credentials where key = %s and hash <> all (%s::text[]))
        insert into credentials (key, hash, salt, iterations, stored_key, server_key)
        select a.key, c.* from accounts a,
            unnest(%s::text[], %s::bytea[], %s::int[], %s::bytea[], %s::bytea[]) c where a.key = %s
        on conflict (key, hash) do update set salt = excluded.salt, iterations = excluded.iterations,
            stored_key = excluded.stored_key, server_key = excluded.server_key
        """,
        (key, hashes, hashes, *others, key),
    )


async def upgrade_credentials(conn: Connection, key: int, credentials: Sequence[Credentials]) -> None:
    """Add credentials made of the password that an account has: of hashes that it lacks, or has with fewer iterations.
    Of a password that was changed meanwhile there is nothing to add: its credentials are not worse."""
    await conn.execute(
        """
        insert into credentials (key, hash, salt, iterations, stored_key, server_key)
        select a.key, c.* from accounts a,
            unnest(%s::text[], %s::bytea[], %s::int[], %s::bytea[], %s::bytea[]) c where a.key = %s
        on conflict (key, hash) do update set salt = excluded.salt, iterations = excluded.iterations,
            stored_key = excluded.stored_key, server_key = excluded.server_key
            where credentials.iterations < excluded.iterations
        """,
        (*_columns(credentials), key),
    )


class Guises(NamedTuple):
    """Which credentials accounts have: domain, iterations by hash, and how many accounts are so; and the greatest of
    their keys, None if there was none to look at."""

    found: list[tuple[str, dict[str, int], int]]
    last: int | None


async def guises(conn: Connection, above: int, limit: int) -> Guises:
    """Those of so many accounts with the least keys above this one. Reads all of them: 0.3 s for 100,000."""
    cursor = await conn.execute(
        """
        select split_part(e.jid, '@', 2), c.hashes, c.iterations, count(*), max(c.key)
        from entities e join (
            select key, array_agg(hash order by hash) as hashes, array_agg(iterations order by hash) as iterations
            from credentials where key > %s group by key order by key limit %s
        ) c using (key)
        group by 1, 2, 3
        """,
        (above, limit),
    )
    rows = await cursor.fetchall()
    found = [
        (domain, dict(zip(hashes, iterations, strict=True)), count) for domain, hashes, iterations, count, _ in rows
    ]
    return Guises(found, max((row[-1] for row in rows), default=None))


class Offline(NamedTuple):
    """How far an account's clients are: the cursor, and all ids that it had passed or not reached (XEP-0160)."""

    delivered: int
    ids: tuple[int, ...]


async def offline(conn: Connection, keys: Sequence[int], limit: int) -> dict[int, Offline]:
    """The cursors of these accounts and the ids, in order, of what nobody has got by them; at most `limit` beyond
    each."""
    cursor = await conn.execute(
        """
        select key, delivered, array(
            select id from log where owner = key and (id > delivered or id = any (strays)) and dir = 0 and class <> 3
            order by id limit %s
        ) from accounts where key = any (%s)
        """,
        (limit, list(keys)),
    )
    found = dict.fromkeys(keys, Offline(0, ()))
    for key, delivered, ids in await cursor.fetchall():
        found[key] = Offline(delivered, tuple(ids))
    return found


async def set_delivered(conn: Connection, key: int, delivered: int, strays: Sequence[int]) -> None:
    """Move the offline cursor."""
    await conn.execute("update accounts set delivered = %s, strays = %s where key = %s", (delivered, list(strays), key))


async def list_(conn: Connection, domain: str, after: str = "", limit: int = 100) -> list[Account]:
    """A page of a domain's accounts, ordered by JID (bytewise), from the first one above `after`."""
    return await fetch_all(
        conn,
        Account,
        f"""
        select {_COLUMNS} from entities e join accounts a using (key)
        where split_part(e.jid, '@', 2) = %s and e.jid > %s order by e.jid limit %s
        """,
        domain,
        after,
        limit,
    )


async def page(conn: Connection, domains: Sequence[str], search: str, after: str, limit: int) -> list[str]:
    """A page of bare JIDs of these domains' accounts, ordered bytewise, from the first one above `after`; only those
    with `search` in them, "" for all."""
    return await fetch_values(
        conn,
        """
        select e.jid from entities e join accounts a using (key)
        where split_part(e.jid, '@', 2) = any (%s) and e.jid > %s and (%s = '' or position(%s in e.jid) > 0)
        order by e.jid limit %s
        """,
        list(domains), after, search, search, limit,
    )  # fmt: skip


async def count(conn: Connection, domain: str) -> int:
    """How many accounts a domain has."""
    found: int = await fetch_value(
        conn,
        "select count(*) from entities e join accounts a using (key) where split_part(e.jid, '@', 2) = %s",
        domain,
    )
    return found


async def set_enabled(conn: Connection, key: int, enabled: bool) -> None:
    """Let an account in, or keep it out without deleting it."""
    await conn.execute("update accounts set enabled = %s where key = %s", (enabled, key))


async def record_last(conn: Connection, key: int, at: float, status: str) -> None:
    """The account has become unavailable at this time (Unix seconds), saying this (XEP-0012, RFC 6121, 4.5)."""
    await conn.execute(
        "update accounts set last_at = to_timestamp(%s), last_status = %s where key = %s", (at, status, key)
    )


def _columns(credentials: Sequence[Credentials]) -> tuple[list[str], list[bytes], list[int], list[bytes], list[bytes]]:
    return (
        [c.hash for c in credentials],
        [c.salt for c in credentials],
        [c.iterations for c in credentials],
        [c.stored_key for c in credentials],
        [c.server_key for c in credentials],
    )
