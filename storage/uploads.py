"""Files that accounts upload (XEP-0363): slots, what they come to, and what is to be done about them.

Nothing of them is in any router's memory: each function may run at any router, and twice. What an account has is in
`upload_usage`, changed in the statement that changes a row, so that two slots never share the same rest of a quota.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from storage.rows import Connection, fetch_all, fetch_one, fetch_value, fetch_values

CLAIM_S: Final = 300  # who has taken a row has so long to deal with it, then somebody else may
RETRY_ROWS: Final = 1_000  # of an owner's files, so many are looked at for when there is room again

State = Literal["open", "stored", "doomed"]


class Draft(NamedTuple):
    """A slot that is asked for. `expires_at` is in Unix seconds, None: never; `settle_s` is from now on: then the
    upload is over, or there is none."""

    id: bytes
    owner: int
    bytes: int
    is_kept: bool
    type: str
    settle_s: int
    expires_at: float | None


class Quota(NamedTuple):
    """What an owner may have, in bytes; `day` 0: no limit."""

    bytes: int
    kept_bytes: int
    day_bytes: int


class Verdict(NamedTuple):
    """`key` signs the slot; it is None where there is no room: then `free_at` is when there may be room among all
    files (Unix seconds, None: that is not known), and the rest is what there is today."""

    key: bytes | None
    bytes: int = 0
    kept_bytes: int = 0
    day_bytes: int = 0
    free_at: float | None = None


class Due(NamedTuple):
    """A row about which something is to be done now."""

    id: bytes
    state: State


class Total(NamedTuple):
    """What all accounts have together."""

    files: int
    bytes: int


async def grant(conn: Connection, draft: Draft, quota: Quota) -> Verdict:
    """Grant a slot if there is room for it."""
    values = {**draft._asdict(), **{f"most_{name}": value for name, value in quota._asdict().items()}}
    key: bytes | None = await _value(
        conn,
        """
        with added as (
            insert into upload_usage as u (owner, files, bytes, kept_bytes, day, day_bytes)
            select %(owner)s, 1, case when %(is_kept)s then 0 else %(bytes)s end,
                case when %(is_kept)s then %(bytes)s else 0 end, (now() at time zone 'UTC')::date, %(bytes)s
            where not exists (select from uploads where id = %(id)s)
            on conflict (owner) do update set
                files = u.files + 1, bytes = u.bytes + excluded.bytes, kept_bytes = u.kept_bytes + excluded.kept_bytes,
                day = excluded.day,
                day_bytes = case when u.day = excluded.day then u.day_bytes else 0 end + excluded.day_bytes
            where (excluded.bytes = 0 or u.bytes + excluded.bytes <= %(most_bytes)s)
                and (excluded.kept_bytes = 0 or u.kept_bytes + excluded.kept_bytes <= %(most_kept_bytes)s)
                and (%(most_day_bytes)s = 0 or excluded.day_bytes <= %(most_day_bytes)s
                    - case when u.day = excluded.day then u.day_bytes else 0 end)
            returning 1
        ), slot as (
            insert into uploads (id, owner, bytes, kept, type, expires_at, due_at)
            select %(id)s, %(owner)s, %(bytes)s, %(is_kept)s, %(type)s, to_timestamp(%(expires_at)s::float8),
                now() + make_interval(secs => %(settle_s)s)
            from added
        )
        select value from secrets where name = 'uploads'
            and (exists (select from added) or exists (select from uploads where id = %(id)s))
        """,
        values,
    )
    return Verdict(key) if key is not None else await _usage(conn, draft, quota)


async def _usage(conn: Connection, draft: Draft, quota: Quota) -> Verdict:
    found = await fetch_one(
        conn, Verdict,
        """
        select null::bytea as key, bytes, kept_bytes,
            case when day = (now() at time zone 'UTC')::date then day_bytes else 0 end as day_bytes,
            (
                select extract(epoch from coalesce(min(expires_at) filter (where freed >= %s - (%s - u.bytes)),
                    max(expires_at)))::float8
                from (
                    select expires_at, sum(bytes) over (order by expires_at, id) as freed from uploads
                    where owner = u.owner and not kept order by expires_at, id limit %s
                ) f
            ) as free_at
        from upload_usage u where owner = %s
        """,
        draft.bytes, quota.bytes, RETRY_ROWS, draft.owner,
    )  # fmt: skip
    return found or Verdict(None)


async def _value(conn: Connection, sql: Any, values: dict[str, Any]) -> Any:
    """As `fetch_value`, for parameters with names."""
    cursor = await conn.execute(sql, values)
    row = await cursor.fetchone()
    return None if row is None else row[0]


# --- what is to be done


async def claim(conn: Connection, limit: int) -> list[Due]:
    """Take some of the rows that are due. Nobody else gets them for a while; if this router dies, somebody does."""
    return await fetch_all(
        conn, Due,
        """
        update uploads set due_at = now() + make_interval(secs => %s)
        where id in (select id from uploads where due_at <= now() order by due_at limit %s for update skip locked)
        returning id, state
        """,
        CLAIM_S, limit,
    )  # fmt: skip


async def settle(conn: Connection, ids: Sequence[bytes]) -> None:
    """These slots were used: their files stay until they expire."""
    await conn.execute(
        """
        update uploads set state = 'stored', due_at = coalesce(expires_at, 'infinity')
        where id = any (%s) and state = 'open'
        """,
        (list(ids),),
    )


async def forget(conn: Connection, ids: Sequence[bytes]) -> int:
    """The files of these are not there (any more): their owners have the room back, and that of the day for a slot that
    was never used. Returns how many there were."""
    found: int = await fetch_value(
        conn,
        """
        with gone as (
            delete from uploads where id = any (%s) returning owner, bytes, kept, state, granted_at
        ), sums as (
            select owner, count(*) as files, coalesce(sum(bytes) filter (where not kept), 0) as bytes,
                coalesce(sum(bytes) filter (where kept), 0) as kept_bytes,
                coalesce(sum(bytes) filter (where state = 'open'
                    and (granted_at at time zone 'UTC')::date = (now() at time zone 'UTC')::date), 0) as day_bytes
            from gone where owner is not null group by owner
        ), usage as (
            update upload_usage u set files = u.files - s.files, bytes = u.bytes - s.bytes,
                kept_bytes = u.kept_bytes - s.kept_bytes,
                day_bytes = case when u.day = (now() at time zone 'UTC')::date
                    then greatest(u.day_bytes - s.day_bytes, 0) else u.day_bytes end
            from sums s where s.owner = u.owner
        )
        select count(*) from gone
        """,
        list(ids),
    )
    return found


async def total(conn: Connection) -> Total:
    """What there is altogether."""
    found = await fetch_one(
        conn, Total,
        "select coalesce(sum(files), 0)::int8 as files, coalesce(sum(bytes + kept_bytes), 0)::int8 as bytes "
        "from upload_usage",
    )  # fmt: skip
    assert found is not None
    return found


# --- the end of an account


async def doom(conn: Connection, owner: int, limit: int) -> list[bytes]:
    """Some of the owner's files that nobody puts any more, to be deleted at once."""
    return await fetch_values(
        conn,
        """
        update uploads set state = 'doomed', due_at = now() + make_interval(secs => %s)
        where id in (select id from uploads where owner = %s and state <> 'open' limit %s)
        returning id
        """,
        CLAIM_S, owner, limit,
    )  # fmt: skip


async def open_of(conn: Connection, owner: int) -> list[bytes]:
    """The slots of an owner that may still be used, or were a moment ago."""
    return await fetch_values(conn, "select id from uploads where owner = %s and state = 'open'", owner)


async def disown(conn: Connection, owner: int, is_all: bool) -> int:
    """Of what is left, files that are being put just now (or all files), nobody knows the owner: each is deleted when
    its time comes. Returns how many."""
    found: int = await fetch_value(
        conn,
        """
        with left_over as (
            update uploads set owner = null, due_at = case when state = 'open' then due_at else now() end,
                state = 'doomed'
            where owner = %s and (%s or state = 'open') returning 1
        ), usage as (delete from upload_usage where owner = %s)
        select count(*) from left_over
        """,
        owner, is_all, owner,
    )  # fmt: skip
    return found
