"""The archive's reads of the log (XEP-0313): pages, positions, counts. And what an account wants archived (XEP-0441).

Every read goes along the primary key, one account's rows in the order of their ids, and ends after so many rows:
`MOST_BYTES` for what it returns, `step` for what it looks at. What takes longer is done in several reads, so that none
runs into the time-out of a statement or keeps a connection for long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, LiteralString, NamedTuple

import msgpack
from psycopg.rows import scalar_row

from storage.accounts import Account
from storage.log import ARCHIVE, GROUP, ID_BITS, Row
from storage.rows import Connection, fetch_value
from xmpp.stanza import Stanza

LAST_ID: Final = 2**63 - 1
MOST_BYTES: Final = 1_048_576  # of the messages that one read returns
STEP: Final = 50_000  # rows that one read looks at: some 10 ms
STEP_OF_TEXT: Final = 10_000  # the same for full text, of which there is no index: some 80 ms
COUNTED: Final = 20_000  # rows before and behind a page that are counted, by the key alone: some 2 ms
COUNTED_FILTERED: Final = 10_000  # the same where the rows have to be looked at
COUNTED_OF_TEXT: Final = 2_000

_COLUMNS: Final = "shard, owner, id, class, dir, forward, peer, sid, n, head, inner_xml"

# The text of each <body/>, as it stands in the XML. The parser of PostgreSQL's text search knows tags and entities, and
# leaves them out.
_BODIES: Final = r"""
    array_to_string(array(
        select m[1] from regexp_matches(convert_from(inner_xml, 'UTF8'), '<body(?:\s[^>]*)?>((?:[^<]|<[^/])*)', 'g') m
    ), ' ')
"""


# --- what is archived


class Preferences(NamedTuple):
    """What an account wants archived: "always", "roster" or "never" (None: as the server does by default), but for
    these addresses."""

    default: str | None = None
    always: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()

    @classmethod
    def of(cls, account: Account) -> Preferences:
        """An account's."""
        return cls(account.archive_default, frozenset(account.archive_always), frozenset(account.archive_never))


async def set_preferences(
    conn: Connection, key: int, default: str | None, always: Sequence[str], never: Sequence[str]
) -> None:
    """Replace them."""
    await conn.execute(
        "update accounts set archive_default = %s, archive_always = %s, archive_never = %s where key = %s",
        (default, list(always), list(never), key),
    )


# --- what is asked for


class Query(NamedTuple):
    """Rows of one account's archive: with ids between `after` and `before` (both not included) or one of `ids`, with
    `peer` (bare) as the other party, `address` (full) as sender or recipient, `text` in a body."""

    owner: int
    after: int = -1
    before: int = LAST_ID
    peer: str | None = None
    address: str | None = None
    text: str | None = None
    ids: tuple[int, ...] | None = None
    with_groups: bool = False  # also what was kept of rooms

    @property
    def is_filtered(self) -> bool:
        """Whether rows may have to be looked at in vain."""
        return (self.peer, self.address, self.text) != (None, None, None)

    @property
    def step(self) -> int:
        """Rows that one read looks at."""
        return STEP if self.text is None else STEP_OF_TEXT

    @property
    def counted(self) -> int:
        """Rows to each side of a page that are counted."""
        if self.text is not None:
            return COUNTED_OF_TEXT
        return COUNTED_FILTERED if self.is_filtered else COUNTED

    def has(self, message: Stanza) -> bool:
        """What SQL leaves open: which of a message's attributes is the address."""
        return self.address is None or self.address in (message.to, message.from_)


class Found(NamedTuple):
    """Rows in the order of reading; behind `position` (an id) there may be more, None: there are not."""

    rows: list[Row]
    position: int | None


class Ends(NamedTuple):
    """The ids of the first and the last row of an archive."""

    first: int
    last: int


def first_since(microseconds: int) -> int:
    """The least id of a moment (microseconds since the Unix epoch) or later."""
    return _id_of_ms(-(-microseconds // 1000))


def first_beyond(microseconds: int) -> int:
    """The least id that is later than this moment."""
    return _id_of_ms(microseconds // 1000 + 1)


def _id_of_ms(milliseconds: int) -> int:
    return max(0, min(milliseconds << ID_BITS, LAST_ID))


# --- reading


async def has_all(conn: Connection, owner: int, ids: Sequence[int]) -> bool:
    """Whether all these rows are in the archive."""
    wanted = set(ids)
    number: int = await fetch_value(
        conn,
        f"select count(*) from log where class in ({ARCHIVE}, {GROUP}) and owner = %s and id = any (%s::int8[])",
        owner,
        list(wanted),
    )
    return number == len(wanted)


async def find(conn: Connection, query: Query, limit: int, is_backwards: bool) -> Found:
    """At most `limit` rows, the oldest first, or the newest first."""
    order: LiteralString = "desc" if is_backwards else "asc"
    values = values_of(query, limit=limit, bytes=MOST_BYTES, step=query.step)
    cursor = await conn.execute(page_sql(query, order), values, binary=True)
    found = await cursor.fetchall()
    rows = [Row._make(columns[:-1]) for columns in found]
    candidates = found[0][-1] if found else 0
    position: int | None = None
    if candidates == limit or len(rows) < candidates:
        position = rows[-1].id
    elif query.is_filtered:
        position = await _value(conn, edge_sql(query, order), values)
    return Found([row for row in rows if query.address is None or query.has(row.stanza)], position)


def page_sql(query: Query, order: LiteralString) -> LiteralString:
    """The statement that reads a page. Each row ends with the number of rows there were before too many bytes cut some
    off."""
    rows: LiteralString = f"select {_COLUMNS} from log where {_range(query)} order by id {order}"
    if query.is_filtered:
        rows = f"select * from ({rows} limit %(step)s) as looked_at where {_filter(query)} order by id {order}"
    return f"""
        select {_COLUMNS}, candidates from (
            select *, count(*) over () as candidates,
                sum(octet_length(inner_xml)) over (order by id {order}) - octet_length(inner_xml) as bytes_before
            from ({rows} limit %(limit)s) as page
        ) as weighed where bytes_before < %(bytes)s order by id {order}
        """


def edge_sql(query: Query, order: LiteralString) -> LiteralString:
    """The statement for the id of the last row that a page looks at, if there are so many; the key alone answers it."""
    return f"select id from log where {_range(query)} order by id {order} limit 1 offset %(step)s - 1"


async def at_index(conn: Connection, query: Query, index: int) -> int | None:
    """The id of the row at this place among those that match, the oldest being at 0."""
    id_: int | None = await _value(
        conn,
        f"select id from log where {_range(query)} and {_filter(query)} order by id limit 1 offset %(index)s",
        values_of(query, index=index),
    )
    return id_


async def count(conn: Connection, query: Query, most: int) -> int | None:
    """How many rows match; None where that would take a look at more than `most`."""
    cursor = await conn.execute(count_sql(query), values_of(query, most=most + 1))
    row = await cursor.fetchone()
    assert row is not None
    return row[0] if row[1] <= most else None


def count_sql(query: Query) -> LiteralString:
    """The statement that counts: how many match, and among how many."""
    columns: LiteralString = "peer, head, inner_xml" if query.is_filtered else "id"
    return f"""
        select count(*) filter (where {_filter(query)}), count(*) from (
            select {columns} from log where {_range(query)} order by id limit %(most)s
        ) as looked_at
        """


async def around(conn: Connection, query: Query, first: int, last: int) -> tuple[int | None, int | None]:
    """How many rows match before the row `first` and behind the row `last`; None for a number that is too great to be
    counted each time."""
    before = await count(conn, query._replace(before=min(first, query.before)), query.counted)
    behind = await count(conn, query._replace(after=max(last, query.after)), query.counted)
    return before, behind


async def ends(conn: Connection, owner: int) -> Ends | None:
    """The first and the last row of an archive; None where it is empty."""
    cursor = await conn.execute("select min(id), max(id) from log_archive where owner = %s", (owner,))
    first, last = (await cursor.fetchall())[0]
    return None if first is None or last is None else Ends(first, last)


async def ends_of(conn: Connection, jids: Sequence[str]) -> dict[str, Ends]:
    """The same of the archives of these accounts, by their bare JIDs, as far as there is anything in them."""
    cursor = await conn.execute(
        """
        select jid, first, last from entities cross join lateral (
            select min(id) as first, max(id) as last from log_archive where owner = entities.key
        ) ends
        where jid = any (%s) and first is not null
        """,
        (list(jids),),
    )
    return {jid: Ends(first, last) for jid, first, last in await cursor.fetchall()}


# --- the parts of a statement


def _range(query: Query) -> LiteralString:
    """What the primary key answers."""
    classes: LiteralString = f"class in ({ARCHIVE}, {GROUP})" if query.with_groups else f"class = {ARCHIVE}"
    whole: LiteralString = f"{classes} and owner = %(owner)s and id > %(after)s and id < %(before)s"
    return whole if query.ids is None else f"{whole} and id = any (%(ids)s::int8[])"


def _filter(query: Query) -> LiteralString:
    """What a row has to be looked at for."""
    parts: list[LiteralString] = []
    if query.peer is not None:
        parts.append("peer = %(peer)s")
    if query.address is not None:
        # The head is msgpack, in which a string stands as its length and its bytes: so this finds the rows that have
        # the address in some attribute. Which one is seen when the row is unpacked.
        parts.append("position(%(address)s::bytea in head) > 0")
    if query.text is not None:
        parts.append(f"to_tsvector('simple', {_BODIES}) @@ websearch_to_tsquery('simple', %(text)s)")
    both: LiteralString = " and "
    return both.join(parts) or "true"


def values_of(query: Query, **others: int) -> dict[str, Any]:
    """What the statements refer to by name."""
    values: dict[str, Any] = {**query._asdict(), **others}
    if query.ids is not None:
        values["ids"] = list(query.ids)
    if query.address is not None:
        values["address"] = msgpack.packb(query.address)
    return values


async def _value(conn: Connection, sql: LiteralString, values: dict[str, Any]) -> Any:
    async with conn.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(sql, values)
        return await cursor.fetchone()
