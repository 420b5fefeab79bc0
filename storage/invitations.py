"""Invitations: who may have an account or a contact by which token, and who has had it.

Nothing of them is in any router's memory: each function is one statement, and any router may run it. A use is claimed
first and confirmed in the transaction of what it was claimed for, so that a token counts as used when the account is
there, and not before (XEP-0445, 3). What was claimed and never confirmed, because a process died, is free after a
minute.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from storage.rows import Connection, fetch_all, fetch_one, fetch_value

Kind = Literal["account", "contact", "reset"]

KEEP_DAYS: Final = 30  # after an invitation has expired or is used up, it is still listed

_COLUMNS: Final = """
    id, kind, domain, maker, jid, contact, uses, cardinality(used) as used,
    extract(epoch from created_at)::float8 as created_at, extract(epoch from expires_at)::float8 as expires_at,
    coalesce(expires_at <= now(), false) as is_expired
"""
_STALE: Final = "pending_at < now() - interval '1 minute'"
_OPEN: Final = "cardinality(used) < uses and (expires_at is null or expires_at > now())"


class Draft(NamedTuple):
    """An invitation to be made. `expires_s` is from now on, None for never."""

    kind: Kind
    domain: str
    maker: str
    jid: str
    contact: str
    uses: int
    expires_s: float | None


class Invitation(NamedTuple):
    """An invitation as it is now. Times are Unix seconds."""

    id: int
    kind: Kind
    domain: str
    maker: str
    jid: str
    contact: str
    uses: int
    used: int
    created_at: float
    expires_at: float | None
    is_expired: bool

    @property
    def is_used_up(self) -> bool:
        """Whether nobody can use it any more, because others have."""
        return self.used >= self.uses

    @property
    def is_open(self) -> bool:
        """Whether somebody can still use it."""
        return not self.is_used_up and not self.is_expired


async def create(conn: Connection, hash: bytes, draft: Draft) -> None:
    """Make an invitation."""
    await conn.execute(
        """
        insert into invitations (hash, kind, domain, maker, jid, contact, uses, expires_at)
        values (%(hash)s, %(kind)s, %(domain)s, %(maker)s, %(jid)s, %(contact)s, %(uses)s,
            now() + make_interval(secs => %(expires_s)s::float8))
        on conflict do nothing
        """,
        draft._asdict() | {"hash": hash},
    )


async def find(conn: Connection, hash: bytes) -> Invitation | None:
    """The invitation of a token, expired and used up ones, too."""
    return await fetch_one(conn, Invitation, f"select {_COLUMNS} from invitations where hash = %s", hash)


async def claim(conn: Connection, hash: bytes, jid: str, is_admitted: bool = False) -> Invitation | None:
    """Take one use for this bare JID; None where there is none to take. Whoever was admitted before the token expired
    may still use it (XEP-0445, 3)."""
    return await fetch_one(
        conn,
        Invitation,
        f"""
        update invitations set pending_at = now(),
            pending = case when {_STALE} then '{{}}' else array_remove(pending, %s::text) end || %s::text
        where hash = %s and %s <> all (used) and (expires_at is null or expires_at > now() or %s)
            and cardinality(used) + case when {_STALE} then 0 else cardinality(array_remove(pending, %s::text)) end
                < uses
        returning {_COLUMNS}
        """,
        jid, jid, hash, jid, is_admitted, jid,
    )  # fmt: skip


async def release(conn: Connection, hash: bytes, jid: str) -> None:
    """What was claimed is not needed."""
    await conn.execute("update invitations set pending = array_remove(pending, %s::text) where hash = %s", (jid, hash))


async def confirm(conn: Connection, hash: bytes, jid: str) -> None:
    """What was claimed is used."""
    await conn.execute(
        """
        update invitations set pending = array_remove(pending, %s::text),
            used = array_remove(used, %s::text) || %s::text
        where hash = %s
        """,
        (jid, jid, jid, hash),
    )


async def tell(conn: Connection, contact: str, jid: str) -> None:
    """Whoever used an invitation of this contact is in the contact's roster, in this transaction."""
    await conn.execute(
        """
        update invitations set told = array_remove(told, %s::text) || %s::text
        where contact = %s and %s = any (used)
        """,
        (jid, jid, contact, jid),
    )


class Untold(NamedTuple):
    """A contact whose owner has not heard that somebody has an account by its invitation."""

    contact: str
    jid: str


async def untold(conn: Connection, limit: int) -> list[Untold]:
    """Those who should have been told a while ago: the process that meant to has died."""
    return await fetch_all(
        conn,
        Untold,
        f"""
        select contact, e.jid
        from invitations i, unnest(i.used) u (jid) join entities e using (jid) join accounts using (key)
        where contact <> '' and cardinality(told) < cardinality(used) and u.jid <> all (told) and {_STALE} limit %s
        """,
        limit,
    )


async def is_reserved(conn: Connection, jid: str) -> bool:
    """Whether the name is promised to whoever has a token for it (XEP-0445, 4)."""
    found: bool = await fetch_value(
        conn, f"select exists (select from invitations where jid = %s and kind = 'account' and {_OPEN})", jid
    )
    return found


async def count_open(conn: Connection, maker: str) -> int:
    """How many invitations of an account can still be used."""
    found: int = await fetch_value(conn, f"select count(*) from invitations where maker = %s and {_OPEN}", maker)
    return found


async def list_(conn: Connection, domain: str, after: int, limit: int) -> list[Invitation]:
    """A page of a domain's invitations ("": of all), in the order in which they were made."""
    return await fetch_all(
        conn,
        Invitation,
        f"select {_COLUMNS} from invitations where id > %s and %s in ('', domain) order by id limit %s",
        after,
        domain,
        limit,
    )


async def revoke(conn: Connection, id: int) -> bool:
    """Make a token unknown; False where there is no such invitation."""
    found: int | None = await fetch_value(conn, "delete from invitations where id = %s returning 1", id)
    return found is not None


async def forget(conn: Connection, jid: str) -> None:
    """An account is gone: nobody becomes its contact, or sets its password, by what it or others have made."""
    await conn.execute(
        "delete from invitations where maker = %s or contact = %s or (jid = %s and kind = 'reset')", (jid, jid, jid)
    )


async def prune(conn: Connection) -> None:
    """Forget what has been of no use for a while."""
    await conn.execute(
        f"""
        delete from invitations where not ({_OPEN})
            and greatest(pending_at, created_at, expires_at) < now() - make_interval(days => %s)
        """,
        (KEEP_DAYS,),
    )
