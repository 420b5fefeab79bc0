"""Tokens of the administration API, of which only hashes are kept. Any router may run these. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from storage.rows import Connection, fetch_all, fetch_one, fetch_value

_COLUMNS: Final = """
    name, scopes, created_by, extract(epoch from created_at)::float8 as created_at,
    extract(epoch from expires_at)::float8 as expires_at, extract(epoch from used_at)::float8 as used_at,
    coalesce(expires_at <= now(), false) as is_expired
"""


class ApiToken(NamedTuple):
    """A token. `used_at` is to the hour, None if it was never used."""

    name: str
    scopes: list[str]
    created_by: str
    created_at: float
    expires_at: float | None
    used_at: float | None
    is_expired: bool


async def create(
    conn: Connection, name: str, hash: bytes, scopes: Sequence[str], by: str, expires_s: float | None
) -> ApiToken | None:
    """There is a token; None where its name is taken, also by one that has expired."""
    return await fetch_one(
        conn, ApiToken,
        f"""
        insert into api_tokens (name, hash, scopes, created_by, expires_at)
        values (%s, %s, %s, %s, now() + make_interval(secs => %s::float8))
        on conflict do nothing returning {_COLUMNS}
        """,
        name, hash, list(scopes), by, expires_s,
    )  # fmt: skip


async def use(conn: Connection, hash: bytes) -> ApiToken | None:
    """The token of this hash, if it is still good; it is remembered that it was used."""
    return await fetch_one(
        conn, ApiToken,
        f"""
        with found as (
            select * from api_tokens where hash = %s and (expires_at is null or expires_at > now())
        ), used as (
            update api_tokens t set used_at = date_trunc('hour', now()) from found
            where t.name = found.name and (t.used_at is null or t.used_at < date_trunc('hour', now()))
        )
        select {_COLUMNS} from found
        """,
        hash,
    )  # fmt: skip


async def list_(conn: Connection, after: str, limit: int) -> list[ApiToken]:
    """A page of all of them, by name."""
    return await fetch_all(
        conn, ApiToken, f"select {_COLUMNS} from api_tokens where name > %s order by name limit %s", after, limit
    )


async def revoke(conn: Connection, name: str) -> bool:
    """It is of no use any more; False where there is none of this name."""
    return await fetch_value(conn, "delete from api_tokens where name = %s returning name", name) is not None
