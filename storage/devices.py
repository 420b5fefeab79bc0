"""Devices of accounts: who has signed in, when, and with which token (XEP-0484, XEP-0494). Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from storage.rows import Connection, fetch_all

MOST: Final = 50  # of one account; whoever was not seen for longest is forgotten


@dataclass(frozen=True, slots=True)
class Token:
    """One slot of a device."""

    token: str = field(repr=False)
    mechanism: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a device may sign in with, if its account may sign in at all."""

    key: int  # of the account
    enabled: bool
    banned: bool  # storage/restrictions.py says why
    last_seen: float
    current: Token | None
    new: Token | None


@dataclass(frozen=True, slots=True)
class Device:
    """What people are shown of a device."""

    device: bytes
    software: str
    name: str
    address: str
    first_seen: float
    last_seen: float
    by_password: bool  # it has presented the password (or a token of before)
    has_token: bool


@dataclass(frozen=True, slots=True)
class _Row:
    jid: str
    device: bytes
    key: int
    enabled: bool
    banned: bool
    last_seen: float
    token: str | None = field(repr=False)
    mechanism: str | None
    expires_at: float | None
    new_token: str | None = field(repr=False)
    new_mechanism: str | None
    new_expires_at: float | None

    def tokens(self) -> Tokens:
        current = _slot(self.token, self.mechanism, self.expires_at)
        new = _slot(self.new_token, self.new_mechanism, self.new_expires_at)
        return Tokens(self.key, self.enabled, self.banned, self.last_seen, current, new)


async def tokens(conn: Connection, wanted: Sequence[tuple[str, bytes]]) -> dict[tuple[str, bytes], Tokens]:
    """The tokens of devices, by bare JID and device: one row each, as far as there are such accounts and devices."""
    rows = await fetch_all(
        conn,
        _Row,
        """
        select e.jid, d.device, a.key, a.enabled, exists (
                select from restrictions r
                where r.owner = a.key and r.kind = 'ban' and (r.until is null or r.until > now())
            ) as banned, extract(epoch from d.last_seen)::float8 as last_seen,
            d.token, d.mechanism, extract(epoch from d.expires_at)::float8 as expires_at,
            d.new_token, d.new_mechanism, extract(epoch from d.new_expires_at)::float8 as new_expires_at
        from unnest(%s::text[], %s::bytea[]) w (jid, device)
            join entities e using (jid) join accounts a using (key)
            join devices d on d.key = a.key and d.device = w.device
        """,
        [jid for jid, _ in wanted],
        [device for _, device in wanted],
    )
    return {(row.jid, row.device): row.tokens() for row in rows}


def _slot(token: str | None, mechanism: str | None, expires_at: float | None) -> Token | None:
    return None if token is None or mechanism is None or expires_at is None else Token(token, mechanism, expires_at)


async def used_new(conn: Connection, key: int, device: bytes, token: str) -> None:
    """The token given last was used: it is the current one, and the one before is void (XEP-0484, 4.5)."""
    await conn.execute(
        """
        update devices set token = new_token, mechanism = new_mechanism, expires_at = new_expires_at,
            new_token = null, new_mechanism = null, new_expires_at = null
        where key = %s and device = %s and new_token = %s
        """,
        (key, device, token),
    )


async def give(conn: Connection, key: int, device: bytes, software: str, name: str, token: Token) -> None:
    """A new token for a device, in the place of the last that it has not used (XEP-0484, 4.5)."""
    await conn.execute(
        """
        insert into devices as d (key, device, software, name, new_token, new_mechanism, new_expires_at)
        select key, %s, %s, %s, %s, %s, to_timestamp(%s) from accounts where key = %s
        on conflict (key, device) do update set software = excluded.software, name = excluded.name,
            new_token = excluded.new_token, new_mechanism = excluded.new_mechanism,
            new_expires_at = excluded.new_expires_at
        """,
        (device, software, name, token.token, token.mechanism, token.expires_at, key),
    )


async def invalidate(conn: Connection, key: int, device: bytes) -> None:
    """A device has no token any more (XEP-0484, 4.6)."""
    await conn.execute(f"update devices set {_NO_TOKENS} where key = %s and device = %s", (key, device))


async def invalidate_all(conn: Connection, key: int, but: bytes) -> None:
    """No device but this (b"": none) signs in without the password any more."""
    await conn.execute(f"update devices set {_NO_TOKENS} where key = %s and device <> %s", (key, but))


_NO_TOKENS: Final = """
    token = null, mechanism = null, expires_at = null, new_token = null, new_mechanism = null, new_expires_at = null
"""


async def seen(
    conn: Connection, key: int, device: bytes, software: str, name: str, address: str, at: float, by_password: bool
) -> None:
    """A device has signed in."""
    await conn.execute(
        """
        with old as (
            delete from devices where key = %(key)s and device in (
                select device from devices where key = %(key)s and device <> %(device)s
                order by last_seen desc, device offset %(most)s
            )
        )
        insert into devices as d (key, device, software, name, address, first_seen, last_seen, by_password)
        select key, %(device)s, %(software)s, %(name)s, %(address)s, to_timestamp(%(at)s), to_timestamp(%(at)s),
            %(by_password)s from accounts where key = %(key)s
        on conflict (key, device) do update set software = excluded.software, name = excluded.name,
            address = excluded.address, last_seen = excluded.last_seen,
            by_password = d.by_password or excluded.by_password
        """,
        {
            "key": key, "device": device, "software": software, "name": name, "address": address, "at": at,
            "by_password": by_password, "most": MOST - 1,
        },
    )  # fmt: skip


async def list_(conn: Connection, key: int) -> list[Device]:
    """Those of an account, whoever was seen last first."""
    return await fetch_all(
        conn,
        Device,
        """
        select device, software, name, address, extract(epoch from first_seen)::float8 as first_seen,
            extract(epoch from last_seen)::float8 as last_seen, by_password,
            (token is not null and expires_at > now() or new_token is not null and new_expires_at > now()) as has_token
        from devices where key = %s order by last_seen desc, device
        """,
        key,
    )


async def forget(conn: Connection, key: int, device: bytes) -> None:
    """A device is gone, and its tokens with it."""
    await conn.execute("delete from devices where key = %s and device = %s", (key, device))
