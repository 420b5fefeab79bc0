"""The log: each message that is kept, once for each owner (docs/delivery.md, §4).

Rows are written by `storage/writer.py` in fenced batches; here are their shape, the reads that delivery needs, and the
partitions. What the archive reads is in `storage/archive.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final, LiteralString, NamedTuple

import msgpack

from storage.arrays import Array, Bytes, Int8Records, Text, record_format
from storage.rows import Connection, fetch_value, fetch_values
from xmpp.stanza import Stanza

TO_OWNER: Final = 0
FROM_OWNER: Final = 1

QUEUE: Final = 0  # kept until it is delivered
ARCHIVE: Final = 1
OUTBOUND: Final = 2  # for another server or a component, until it was handed over
GROUP: Final = 3  # of a room, for a member who was not there

DONE: Final = 0
FORWARD: Final = 1
BY_OTHER: Final = 2  # said in the owner's name by a privileged entity (XEP-0356): sid and n are of its stream

ID_BITS: Final = 20  # of an id below the milliseconds
STEP_BITS: Final = 8  # how far two ids of one millisecond are apart
PERIOD_MS: Final = {QUEUE: 7 * 86_400_000, ARCHIVE: 30 * 86_400_000, OUTBOUND: 86_400_000, GROUP: 7 * 86_400_000}
_NAMES: Final = {QUEUE: "log_queue", ARCHIVE: "log_archive", OUTBOUND: "log_outbound", GROUP: "log_groups"}
AHEAD: Final = 3  # partitions that exist beyond the present one
MAINTENANCE_LOCK: Final = 0x5374656E746F73  # one process makes partitions at a time

FIELDS: Final = "shard, owner, id, class, dir, forward, peer, sid, n, head, inner_xml"


class Row(NamedTuple):
    """One message in one owner's log. `owner` is the key of an account or of another domain, `peer` the bare JID of the
    other party (of a row for another domain, the sender's)."""

    shard: int
    owner: int
    id: int
    class_: int
    dir: int
    forward: int
    peer: str
    sid: int
    n: int
    head: bytes
    inner: bytes

    @property
    def stanza(self) -> Stanza:
        """The stanza as it was sent (dir 1) or has arrived (dir 0), without a stanza-id of ours."""
        kind, type_, to, from_, id_, lang, flags, payload, extra = msgpack.unpackb(self.head, use_list=False)
        return Stanza(kind, type_, to, from_, id_, lang, flags, payload, extra, bytes(self.inner))


_packer: Final = msgpack.Packer(autoreset=True)
_last_packed: tuple[Stanza | None, bytes] = (None, b"")


def pack_head(stanza: Stanza) -> bytes:
    """Everything of a stanza but its content. The sender's row and the recipient's follow each other: packed once."""
    global _last_packed
    if _last_packed[0] is stanza:
        return _last_packed[1]
    packed: bytes = _packer.pack(stanza[:9])
    _last_packed = (stanza, packed)
    return packed


def id_at(seconds: float) -> int:
    """The least id of a moment, Unix seconds."""
    return int(seconds * 1000) << ID_BITS


def time_of(id_: int) -> float:
    """When a row was made, Unix seconds."""
    return (id_ >> ID_BITS) / 1000


class Ids:
    """Ids of one router: they only rise, and follow the clock where they can. `bits(k)` gives k random bits: one cannot
    guess another's id from one's own (XEP-0313, 3; the simulation replays its own)."""

    __slots__ = ("_bits", "floor", "last")

    def __init__(self, bits: Callable[[int], int] = lambda _: 0) -> None:
        self._bits = bits
        self.last = 0
        self.floor = 0  # the least id of the present moment

    def set_clock(self, now: float) -> None:
        """It is `now`, Unix seconds."""
        self.floor = int(now * 1000) << ID_BITS

    def random(self, k: int) -> int:
        """k random bits."""
        return self._bits(k)

    def next(self, above: int) -> int:
        """A new id, greater than `above` and than all before."""
        last = self.last
        if last < self.floor:
            last = self.floor + self._bits(ID_BITS - 2)
        if last < above:
            last = above
        last += 1 + self._bits(STEP_BITS)
        self.last = last
        return last


# --- writing


def append_sql(condition: LiteralString) -> LiteralString:
    """The statement that appends many rows where a condition holds. Its values are those of `columns`. Rows that are
    there already (the same batch again) are left alone."""
    return f"""
        insert into log ({FIELDS})
        select v[i * 8 - 7], v[i * 8 - 6], v[i * 8 - 5], v[i * 8 - 4], v[i * 8 - 3], v[i * 8 - 2],
            peer, v[i * 8 - 1], v[i * 8], head, inner_xml
        from (select %b::int8[] v) numbers,
            unnest(%b::text[], %b::bytea[], %b::bytea[]) with ordinality r (peer, head, inner_xml, i)
        where {condition}
        on conflict do nothing
        """


_NUMBERS: Final = 8  # in a row: all of it but text and bytes
_pack_numbers: Final = Struct(record_format(_NUMBERS)).pack


def columns(rows: Sequence[Row]) -> list[Array]:
    """The values of `append_sql`: an array for the numbers of all rows, which costs a third of one for each column (any
    element of an array is found at once where all have one size), and one for each of the rest."""
    numbers = [
        _pack_numbers(8, shard, 8, owner, 8, id_, 8, class_, 8, dir_, 8, forward, 8, sid, 8, n)
        for shard, owner, id_, class_, dir_, forward, _, sid, n, _, _ in rows
    ]
    _, _, _, _, _, _, peers, _, _, heads, inners = zip(*rows, strict=True)
    return [Int8Records(numbers, _NUMBERS), Text(peers), Bytes(heads), Bytes(inners)]


async def is_there(conn: Connection, owner: int, id_: int) -> bool:
    """Whether a row was committed (a batch of unknown outcome commits all its rows or none)."""
    return await fetch_value(conn, "select 1 from log where owner = %s and id = %s", owner, id_) is not None


# --- what an owner reads


class Wanted(NamedTuple):
    """What the next owner of an account wants to know: rows that its sessions have not seen (ids above `after`), and
    what its sessions had sent (`sids`, with numbers above `confs`) since the id `since`."""

    owner: int
    after: int
    since: int
    sids: tuple[int, ...]
    confs: tuple[int, ...]


REPLAY_ROWS: Final = 1_000  # for one account; what is beyond is offline


async def replay(conn: Connection, wanted: Sequence[Wanted]) -> list[Row]:
    """The rows above `after` of each account, ordered by account and id."""
    return await _read(
        conn,
        f"""
        select {_columns("l")} from unnest(%s::int8[], %s::int8[]) w (owner, after)
        cross join lateral (
            select * from log where log.owner = w.owner and log.id > w.after and log.class <> {GROUP}
            order by log.id limit {REPLAY_ROWS}
        ) l order by l.owner, l.id
        """,
        [w.owner for w in wanted],
        [w.after for w in wanted],
    )


async def sent(conn: Connection, wanted: Sequence[Wanted]) -> list[Row]:
    """The rows that sessions have sent with numbers above their `confs`, ordered by account and id."""
    flat = [(w.owner, w.since, sid, conf) for w in wanted for sid, conf in zip(w.sids, w.confs, strict=True)]
    if not flat:
        return []
    return await _read(
        conn,
        f"""
        select {_columns("l")} from unnest(%s::int8[], %s::int8[], %s::int8[], %s::int8[]) w (owner, since, sid, conf)
        cross join lateral (
            select * from log where log.owner = w.owner and log.id > w.since and log.dir = {FROM_OWNER}
                and log.sid = w.sid and log.n > w.conf
        ) l order by l.owner, l.id
        """,
        *([item[index] for item in flat] for index in range(4)),
    )


async def mark(conn: Connection, owner: int, sid: int, above: int) -> int:
    """The greatest number of one sender among the rows of an account with ids above this; 0 where there is none."""
    found: int | None = await fetch_value(
        conn,
        f"""
        select max(n) from log where owner = %s and id > %s and (dir = {TO_OWNER} or forward = {BY_OTHER}) and sid = %s
        """,
        owner,
        above,
        sid,
    )
    return found or 0


async def by_ids(conn: Connection, owner: int, ids: Sequence[int]) -> list[Row]:
    """These rows of one account, in order."""
    return await _read(
        conn,
        f"select {_columns('log')} from log where owner = %s and id = any (%s::int8[]) order by id",
        owner,
        list(ids),
    )


async def rewrite(conn: Connection, owner: int, id_: int, head: bytes, inner: bytes) -> None:
    """A message has other content from now on: a tombstone (XEP-0424, 5). Its place and its sender stay."""
    await conn.execute(
        "update log set head = %s, inner_xml = %s where owner = %s and id = %s", (head, inner, owner, id_)
    )


async def above(conn: Connection, owner: int, id_: int, others: Sequence[int], limit: int) -> list[Row]:
    """The rows of one owner above an id, and these others, in order."""
    return await _read(
        conn,
        f"""
        select {_columns("log")} from log where owner = %s and (id > %s or id = any (%s::int8[]))
        order by id limit %s
        """,
        owner,
        id_,
        list(others),
        limit,
    )


def _columns(table: LiteralString) -> LiteralString:
    names: LiteralString = ", "
    return names.join(f"{table}.{name}" for name in FIELDS.split(", "))


async def _read(conn: Connection, sql: LiteralString, *values: object) -> list[Row]:
    cursor = await conn.execute(sql, values, binary=True)
    return [Row._make(row) for row in await cursor.fetchall()]


# --- partitions


async def maintain(conn: Connection, now: float, keep_days: dict[int, int]) -> list[str]:
    """Make the partitions that will be needed and drop those that are older than `keep_days` of their class (0: for
    ever). Returns what was dropped. Any process may call it at any time; nobody is made to wait for it."""
    dropped: list[str] = []
    if not await fetch_value(conn, "select pg_try_advisory_lock(%s)", MAINTENANCE_LOCK):
        return dropped
    try:
        for class_, parent in _NAMES.items():
            period = PERIOD_MS[class_]
            present = int(now * 1000) // period
            wanted = range(present - 1, present + AHEAD + 1)
            there = {int(name.rpartition("_")[2]) for name in await _partitions(conn, parent)}
            for number in wanted:
                if number not in there:
                    await _create(conn, parent, number, period)
            days = keep_days.get(class_, 0)
            for number in sorted(there):
                if days and (number + 1) * period < now * 1000 - days * 86_400_000:
                    name = f"{parent}_{number}"
                    await conn.execute(f"alter table {parent} detach partition {name} concurrently")
                    await conn.execute(f"drop table {name}")
                    dropped.append(name)
    finally:
        await conn.execute("select pg_advisory_unlock(%s)", (MAINTENANCE_LOCK,))
    return dropped


def period_of(class_: int, id_: int) -> int:
    """The number of the partition that a row is in."""
    return (id_ >> ID_BITS) // PERIOD_MS[class_]


async def make_partitions(conn: Connection, class_: int, numbers: Sequence[int]) -> None:
    """Rows of long ago, which come from elsewhere, need partitions that nobody has made yet."""
    parent, period = _NAMES[class_], PERIOD_MS[class_]
    await conn.execute("select pg_advisory_lock(%s)", (MAINTENANCE_LOCK,))
    try:
        there = {int(name.rpartition("_")[2]) for name in await _partitions(conn, parent)}
        for number in sorted(set(numbers) - there):
            await _create(conn, parent, number, period)
    finally:
        await conn.execute("select pg_advisory_unlock(%s)", (MAINTENANCE_LOCK,))


async def _partitions(conn: Connection, parent: str) -> list[str]:
    return await fetch_values(
        conn, "select inhrelid::regclass::text from pg_inherits where inhparent = %s::regclass", parent
    )


async def _create(conn: Connection, parent: str, number: int, period: int) -> None:
    """Made apart and attached: that does not block the writers of the other partitions."""
    name = f"{parent}_{number}"
    least, end = number * period << ID_BITS, (number + 1) * period << ID_BITS
    async with conn.transaction():
        await conn.execute(f"create table {name} (like {parent} including defaults including constraints)")
        await conn.execute(f"alter table {parent} attach partition {name} for values from ({least}) to ({end})")
