"""Accounts and their SCRAM credentials. Only an account's owner changes it, in a fenced batch (`storage/writer.py`)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from storage.rows import Connection, fetch_all, fetch_one, fetch_value
from xmpp.scram import Credentials

SECRET_BYTES: Final = 32

_COLUMNS: Final = """
    a.key, e.jid, e.shard, a.is_enabled as enabled, a.roster_version, a.last_at, a.last_status,
    extract(epoch from a.created_at)::float8 as created_at
"""


@dataclass(frozen=True, slots=True)
class Account:
    """One account. Times are Unix seconds; `last_at` and `last_status` are of its last unavailable presence."""

    key: int
    jid: str  # prepared bare JID
    shard: int
    enabled: bool
    roster_version: int
    created_at: float
    last_at: float | None
    last_status: str


async def find(conn: Connection, jid: str) -> Account | None:
    """The account of a bare JID."""
    return await fetch_one(
        conn,
        Account,
        f"select {_COLUMNS} from entities e join accounts a using (key) where e.jid = %s",
        jid,
    )


async def create(conn: Connection, jid: str, shard: int, credentials: Sequence[Credentials]) -> int | None:
    """Make an account; returns its key, None where it exists already.

    A name that had an account before gets the same key. The roster's version starts at the clock's milliseconds, so
    that a client which knew the former account never holds a version of the new one.
    """
    key: int | None = await fetch_value(
        conn,
        """
        with entity as (
            insert into entities (jid, shard) values (%s, %s)
            on conflict (jid) do update set shard = excluded.shard returning key
        ), account as (
            insert into accounts (key, roster_version)
            select key, (extract(epoch from clock_timestamp()) * 1000)::int8 from entity
            on conflict do nothing returning key
        ), secret as (
            insert into credentials (owner, hash, salt, iterations, stored_key, server_key)
            select account.key, c.* from account,
                unnest(%s::text[], %s::bytea[], %s::int[], %s::bytea[], %s::bytea[]) c
        )
        select key from account
        """,
        jid,
        shard,
        *_columns(credentials),
    )
    return key


async def credentials(conn: Connection, jid: str) -> dict[str, Credentials]:
    """The account's credentials by the name of their hash; empty where there is no such account."""
    rows = await fetch_all(
        conn,
        Credentials,
        """
        select c.hash, c.salt, c.iterations, c.stored_key, c.server_key
        from entities e join credentials c on c.owner = e.key where e.jid = %s order by c.hash
        """,
        jid,
    )
    return {row.hash: row for row in rows}


async def set_credentials(conn: Connection, key: int, credentials: Sequence[Credentials]) -> None:
    """Replace all credentials of an account: a new password."""
    hashes, *others = _columns(credentials)
    await conn.execute(
        """
        with old as (delete from credentials where owner = %s and hash <> all (%s::text[]))
        insert into credentials (owner, hash, salt, iterations, stored_key, server_key)
        select a.key, c.* from accounts a,
            unnest(%s::text[], %s::bytea[], %s::int[], %s::bytea[], %s::bytea[]) c where a.key = %s
        on conflict (owner, hash) do update set salt = excluded.salt, iterations = excluded.iterations,
            stored_key = excluded.stored_key, server_key = excluded.server_key
        """,
        (key, hashes, hashes, *others, key),
    )


async def delete(conn: Connection, key: int) -> None:
    """Delete an account with everything that belongs to it. Its key stays reserved for its name."""
    await conn.execute(
        """
        with gone as (
            delete from sessions s using entities e where e.key = %s and s.shard = e.shard and s.owner = e.key
        )
        delete from accounts where key = %s
        """,
        (key, key),
    )


async def list_(conn: Connection, domain: str, after: str = "", limit: int = 100) -> list[Account]:
    """A page of a domain's accounts, ordered by JID (bytewise), from the first one above `after`."""
    return await fetch_all(
        conn,
        Account,
        f"""
        select {_COLUMNS} from entities e join accounts a using (key)
        where split_part(e.jid, '@', 2) = %s and e.jid collate "C" > %s order by e.jid collate "C" limit %s
        """,
        domain,
        after,
        limit,
    )


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
    await conn.execute("update accounts set is_enabled = %s where key = %s", (enabled, key))


async def record_last(conn: Connection, key: int, at: float, status: str) -> None:
    """The account has become unavailable at this time (Unix seconds), saying this (XEP-0012, RFC 6121, 4.5)."""
    await conn.execute(
        "update accounts set last_at = %s, last_status = %s where key = %s", (at, status, key)
    )


async def secret(conn: Connection, name: str) -> bytes:
    """The cluster's secret of this name: random bytes, the same for every process and for ever, made by whoever asks
    first."""
    value: bytes = await fetch_value(
        conn,
        """
        insert into secrets (name, value) values (%s, %s)
        on conflict (name) do update set value = secrets.value returning value
        """,
        name,
        secrets.token_bytes(SECRET_BYTES),
    )
    return value


def _columns(credentials: Sequence[Credentials]) -> tuple[list[str], list[bytes], list[int], list[bytes], list[bytes]]:
    return (
        [c.hash for c in credentials],
        [c.salt for c in credentials],
        [c.iterations for c in credentials],
        [c.stored_key for c in credentials],
        [c.server_key for c in credentials],
    )
