"""What accounts may not: those that are banned, and those in quarantine. Only an account's owner changes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from storage.rows import Connection, fetch_all

Kind = Literal["ban", "quarantine", "guest"]


class Restriction(NamedTuple):
    """By whom (a bare JID, "operator" or the rule that has done it), since when, until when if not for good; Unix
    seconds."""

    kind: Kind
    reason: str
    by: str
    at: float
    until: float | None


class Restricted(NamedTuple):
    """A restriction and whose it is."""

    jid: str
    kind: str
    reason: str
    by: str
    at: float
    until: float | None


_COLUMNS: Final = """
    r.kind, r.reason, r.by, extract(epoch from r.at)::float8 as at, extract(epoch from r.until)::float8 as until
"""
_ACTIVE: Final = "(r.until is null or r.until > now())"


async def load(conn: Connection, owners: Sequence[int]) -> dict[int, list[Restriction]]:
    """Those of each of these accounts; that it is a guest's (`storage/guests.py`) is one."""
    cursor = await conn.execute(
        f"""
        select r.owner, {_COLUMNS} from restrictions r where r.owner = any (%s) and {_ACTIVE}
        union all
        select key, 'guest', '', '', extract(epoch from at)::float8, null from guests where key = any (%s)
        """,
        (list(owners), list(owners)),
    )
    found: dict[int, list[Restriction]] = {owner: [] for owner in owners}
    for owner, *columns in await cursor.fetchall():
        found[owner].append(Restriction(*columns))
    return found


async def bans(conn: Connection, jids: Sequence[str]) -> dict[str, Restriction]:
    """Why bare JIDs may not sign in, as far as these may not."""
    cursor = await conn.execute(
        f"""
        select e.jid, {_COLUMNS} from entities e join restrictions r on r.owner = e.key
        where e.jid = any (%s) and r.kind = 'ban' and {_ACTIVE}
        """,
        (list(jids),),
    )
    return {jid: Restriction(*columns) for jid, *columns in await cursor.fetchall()}


async def list_(conn: Connection, domain: str, kind: str, after: str, limit: int) -> list[Restricted]:
    """A page of all that are in force (of a domain, of a kind; "" for all), in the order of JID and kind, from the
    first one above `after` ("JID kind")."""
    return await fetch_all(
        conn, Restricted,
        f"""
        select e.jid, {_COLUMNS} from restrictions r join entities e on e.key = r.owner
        where {_ACTIVE} and %s in ('', split_part(e.jid, '@', 2)) and %s in ('', r.kind)
            and e.jid || ' ' || r.kind > %s order by e.jid || ' ' || r.kind limit %s
        """,
        domain, kind, after, limit,
    )  # fmt: skip


async def impose(conn: Connection, owner: int, restriction: Restriction) -> None:
    """It holds from now on, instead of one of its kind that is there."""
    kind, reason, by, at, until = restriction
    await conn.execute(
        """
        insert into restrictions (owner, kind, reason, by, at, until)
        values (%s, %s, %s, %s, to_timestamp(%s), to_timestamp(%s))
        on conflict (owner, kind) do update set reason = excluded.reason, by = excluded.by, at = excluded.at,
            until = excluded.until
        """,
        (owner, kind, reason, by, at, until),
    )


async def lift(conn: Connection, owner: int, kind: str) -> None:
    """It does not hold any more."""
    await conn.execute("delete from restrictions where owner = %s and kind = %s", (owner, kind))
