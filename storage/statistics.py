"""Numbers of domains, counted when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from storage.rows import Connection, fetch_all


class Numbers(NamedTuple):
    """Of one domain: its accounts, those that are banned, those that are online, and their sessions."""

    domain: str
    accounts: int
    banned: int
    online: int
    sessions: int


async def of_domains(conn: Connection, domains: Sequence[str]) -> list[Numbers]:
    """Of these domains, in their order. Reads every account and session once for each."""
    return await fetch_all(
        conn, Numbers,
        """
        select d.domain,
            (select count(*) from entities e join accounts a using (key) where split_part(e.jid, '@', 2) = d.domain)
                as accounts,
            (select count(*) from restrictions r join entities e on e.key = r.owner
                where r.kind = 'ban' and (r.until is null or r.until > now()) and split_part(e.jid, '@', 2) = d.domain)
                as banned,
            (select count(distinct bare) from sessions s
                where position('@' in bare) > 0 and split_part(bare, '@', 2) = d.domain) as online,
            (select count(*) from sessions s
                where position('@' in bare) > 0 and split_part(bare, '@', 2) = d.domain) as sessions
        from unnest(%s::text[]) d (domain) order by d.domain
        """,
        list(domains),
    )  # fmt: skip
