"""Looking for people among the accounts of a domain (XEP-0055), by what their addresses and vCards say."""

from __future__ import annotations

from typing import Final, NamedTuple

from storage.rows import Connection, fetch_all

MOST: Final = 100


class Found(NamedTuple):
    """Somebody."""

    jid: str
    name: str
    nick: str
    email: str


async def people(conn: Connection, domain: str, jid: str, name: str, nick: str, email: str) -> list[Found]:
    """Those who have all of these in the right place ("": anything), by JID."""
    return await fetch_all(
        conn,
        Found,
        rf"""
        select * from (
            select e.jid, coalesce(substring(v.xml from '<FN>([^<]*)'), '') as name,
                coalesce(substring(v.xml from '<NICKNAME>([^<]*)'), '') as nick,
                coalesce(substring(v.xml from '<USERID>([^<]*)'), '') as email
            from entities e join accounts a using (key)
            left join (select owner, convert_from(xml, 'UTF8') as xml from vcards) v on v.owner = a.key
            where split_part(e.jid, '@', 2) = %s and a.enabled
        ) people
        where split_part(jid, '@', 1) ilike %s and name ilike %s and nick ilike %s and email ilike %s
        order by jid limit {MOST}
        """,
        domain,
        *(_pattern(text) for text in (jid, name, nick, email)),
    )


def _pattern(text: str) -> str:
    return "%" + text.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_") + "%"
