"""What was changed by whom (the audit log). Any router may run these. Times are Unix seconds."""

from __future__ import annotations

from typing import NamedTuple

from storage.rows import Connection, fetch_all, fetch_value


class Deed(NamedTuple):
    """A command that changes something: a token's name or an administrator's JID, from which address, on what, and
    what became of it; None: it is under way, or its router died over it."""

    id: int
    at: float
    who: str
    address: str
    command: str
    target: str
    outcome: str | None


async def begin(conn: Connection, who: str, address: str, command: str, target: str) -> int:
    """It is about to be done; returns its id."""
    found: int = await fetch_value(
        conn,
        "insert into audit (who, address, command, target) values (%s, %s, %s, %s) returning id",
        who, address, command, target,
    )  # fmt: skip
    return found


async def end(conn: Connection, id_: int, outcome: str) -> None:
    """It is done, or has failed."""
    await conn.execute("update audit set outcome = %s where id = %s", (outcome, id_))


async def add(conn: Connection, at: float, who: str, address: str, command: str, target: str, outcome: str) -> None:
    """It was done while the database was away."""
    await conn.execute(
        "insert into audit (at, who, address, command, target, outcome) values (to_timestamp(%s), %s, %s, %s, %s, %s)",
        (at, who, address, command, target, outcome),
    )


async def list_(conn: Connection, since: float, who: str, what: str, before: int, limit: int) -> list[Deed]:
    """A page, the newest first, with ids below `before`; of somebody ("" for all), and with `what` in the command or
    in what it was done on."""
    return await fetch_all(
        conn, Deed,
        """
        select id, extract(epoch from at)::float8 as at, who, address, command, target, outcome from audit
        where id < %s and at >= to_timestamp(%s) and %s in ('', who) and position(%s in command || ' ' || target) > 0
        order by id desc limit %s
        """,
        before, since, who, what, limit,
    )  # fmt: skip


async def forget(conn: Connection, jid: str, instead: str) -> None:
    """Somebody is erased: what was done to or by them stays, with `instead` in the place of their bare JID."""
    await conn.execute(
        """
        with t as (update api_tokens set created_by = %(instead)s where created_by = %(jid)s),
            j as (update jobs set created_by = %(instead)s where created_by = %(jid)s)
        update audit set target = case when found.is_target then %(instead)s else audit.target end,
            who = case when audit.who = %(jid)s then %(instead)s else audit.who end,
            outcome = split_part(audit.outcome, ':', 1)
        from (
            select id, position(' ' || %(jid)s || ' ' in ' ' || target || ' ') > 0
                or position(' ' || %(jid)s || '/' in ' ' || target) > 0 as is_target, who
            from audit
        ) found
        where audit.id = found.id and (found.is_target or found.who = %(jid)s)
        """,
        {"jid": jid, "instead": instead},
    )


async def prune(conn: Connection, keep_days: int) -> None:
    """Those that are so old."""
    await conn.execute("delete from audit where at < now() - make_interval(days => %s)", (keep_days,))
