"""Conversations of an account, and what is unread of them, read from the log (XEP-0430)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from storage.log import ARCHIVE, FROM_OWNER, GROUP, TO_OWNER
from storage.rows import Connection, fetch_all

LOOKED_AT: Final = 20_000  # the newest rows; what is older is not in the list


class Conversation(NamedTuple):
    """`peer` is a bare JID; `last` is the row of the newest message with a body."""

    peer: str
    last: int
    unread: int


async def conversations(conn: Connection, owner: int, displayed: Mapping[str, int]) -> list[Conversation]:
    """The one with the newest message first. A message is unread if it came after everything that the account has said
    in the conversation or has marked as displayed (XEP-0333), and after what `displayed` says of it (XEP-0490): an id
    of a row, or of a room its own id."""
    return await fetch_all(
        conn,
        Conversation,
        f"""
        with newest as materialized (
            select id, peer, dir, class, inner_xml from log
            where class in ({ARCHIVE}, {GROUP}) and owner = %s order by id desc limit {LOOKED_AT}
        ), seen as materialized (
            select id, peer, dir, position('<body'::bytea in inner_xml) > 0 as is_said,
                dir = {FROM_OWNER} and position('<displayed'::bytea in inner_xml) > 0 as is_marker,
                case when class = {GROUP} then (
                    substring(convert_from(inner_xml, 'UTF8') from '<stanza-id[^>]* id="([0-9]{{1,19}})"')
                )::numeric else id end as named
            from newest
        ), conversations as (
            select peer, max(id) filter (where is_said) as last,
                coalesce(max(id) filter (where dir = {FROM_OWNER} and (is_said or is_marker)), 0) as answered
            from seen group by peer
        )
        select c.peer, c.last, count(*) filter (
            where s.dir = {TO_OWNER} and s.is_said and s.id > greatest(c.answered, coalesce(v.id, 0))
                and s.named > coalesce(d.id, 0)
        ) as unread
        from conversations c join seen s using (peer)
        left join unnest(%s::text[], %s::int8[]) d (peer, id) using (peer)
        left join room_visits v on v.owner = %s and v.room = c.peer
        where c.last is not null group by c.peer, c.last order by c.last desc
        """,
        owner,
        list(displayed),
        list(displayed.values()),
        owner,
    )
