"""Rosters (RFC 6121, 2): contacts, requests that wait for an answer, and what was removed since which version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from storage.rows import Connection

Subscription = Literal["none", "to", "from", "both"]


class Item(NamedTuple):
    """One contact of one account.

    `ask`: a request of ours is pending (RFC 6121, 2.1.2.2). `approved`: pre-approved (3.4). `pending_in`: a request
    of theirs waits, kept with the inner bytes of its presence. `in_roster` is False for a contact that is known only
    for that request: the account's clients are not told of it.
    """

    jid: str  # prepared
    name: str = ""
    groups: tuple[str, ...] = ()
    subscription: Subscription = "none"
    ask: bool = False
    approved: bool = False
    pending_in: bool = False
    pending_inner: bytes = b""
    in_roster: bool = True
    version: int = 0


class Removed(NamedTuple):
    """A contact that is no longer in the roster, and the version that took it out."""

    jid: str
    version: int


async def load(conn: Connection, owners: Sequence[int]) -> dict[int, list[Item]]:
    """All contacts of each of these accounts, ordered by JID, with those that only wait for an answer."""
    cursor = await conn.execute(
        """
        select owner, contact, name, groups, subscription, ask, approved, pending_in, pending_stanza, in_roster, version
        from rosters where owner = any (%s) order by owner, contact
        """,
        (list(owners),),
    )
    found: dict[int, list[Item]] = {owner: [] for owner in owners}
    for owner, contact, name, groups, *more in await cursor.fetchall():
        found[owner].append(Item(contact, name, tuple(groups), *more))
    return found


async def removed(conn: Connection, owners: Sequence[int]) -> dict[int, list[Removed]]:
    """What was removed from each roster and has not come back, in the order of removal."""
    cursor = await conn.execute(
        "select owner, contact, version from roster_removed where owner = any (%s) order by owner, version, contact",
        (list(owners),),
    )
    found: dict[int, list[Removed]] = {owner: [] for owner in owners}
    for owner, contact, version in await cursor.fetchall():
        found[owner].append(Removed(contact, version))
    return found


async def upsert(conn: Connection, owner: int, item: Item, version: int) -> None:
    """Store a contact as it is now; the roster has this version from then on (the present one, where clients need
    not know of the change)."""
    await conn.execute(
        """
        with versioned as (
            update accounts set roster_version = %(version)s where key = %(owner)s and roster_version < %(version)s
        ), back as (
            delete from roster_removed where owner = %(owner)s and contact = %(jid)s and %(in_roster)s
        )
        insert into rosters (owner, contact, name, groups, subscription, ask, approved, pending_in, pending_stanza,
            in_roster, version)
        values (%(owner)s, %(jid)s, %(name)s, %(groups)s, %(subscription)s, %(ask)s, %(approved)s, %(pending_in)s,
            %(pending_inner)s, %(in_roster)s, %(version)s)
        on conflict (owner, contact) do update set name = excluded.name, groups = excluded.groups,
            subscription = excluded.subscription, ask = excluded.ask, approved = excluded.approved,
            pending_in = excluded.pending_in, pending_stanza = excluded.pending_stanza,
            in_roster = excluded.in_roster, version = excluded.version
        """,
        item._asdict() | {"owner": owner, "version": version, "groups": list(item.groups)},
    )


async def add_mutual(conn: Connection, jid: str, contact: str) -> None:
    """Of an account made in this transaction: a contact, and each sees the other's presence."""
    await conn.execute(
        """
        insert into rosters (owner, contact, name, groups, subscription, ask, approved, pending_in, pending_stanza,
            in_roster, version)
        select a.key, %s, '', '{}', 'both', false, false, false, '', true, a.roster_version
        from entities e join accounts a using (key) where e.jid = %s
        on conflict do nothing
        """,
        (contact, jid),
    )


async def remove(conn: Connection, owner: int, contact: str, version: int) -> None:
    """Take a contact out of the roster, under this new version of it."""
    await conn.execute(
        """
        with gone as (delete from rosters where owner = %(owner)s and contact = %(contact)s), versioned as (
            update accounts set roster_version = %(version)s where key = %(owner)s and roster_version < %(version)s
        )
        insert into roster_removed (owner, contact, version) values (%(owner)s, %(contact)s, %(version)s)
        on conflict (owner, contact) do update set version = excluded.version
        """,
        {"owner": owner, "contact": contact, "version": version},
    )


async def forget(conn: Connection, owner: int, contact: str) -> None:
    """Drop a contact that was never in the roster: its request is answered or withdrawn."""
    await conn.execute("delete from rosters where owner = %s and contact = %s and not in_roster", (owner, contact))
