"""The archive's reads on a real PostgreSQL: against a plain model, and how the planner carries them out.

STENTOR_LONG=1 makes the great archive a million messages instead of 20,000.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final, LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection, sql

from cluster.shards import shard_of
from storage import accounts, archive, log
from storage.archive import Found, Preferences, Query
from storage.log import ARCHIVE, DONE, FROM_OWNER, ID_BITS, PERIOD_MS, QUEUE, TO_OWNER, Row, pack_head
from tests.support.archive import Model
from tests.support.cluster import FACTOR
from tests.support.database import asynchronous, connected
from xmpp import stanza as stanzas
from xmpp.scram import Credentials
from xmpp.stanza import Stanza

Connection = AsyncConnection[Any]

IS_LONG: Final = os.environ.get("STENTOR_LONG") == "1"
ME, OTHER = "juliet@capulet.lit", "nurse@capulet.lit"
PEERS: Final = ("romeo@montague.lit", "tybalt@capulet.lit", "capulet.lit", ME, "ünï@exämple.lit")
WORDS: Final = ("art", "thou", "not", "romeo", "and", "a", "montague")
PERIOD_S: Final = PERIOD_MS[ARCHIVE] / 1000
NOW: Final = (int(time.time() / PERIOD_S) + 0.5) * PERIOD_S  # in the middle of a partition


def row(owner: int, id_: int, message: Stanza, dir: int, class_: int = ARCHIVE) -> Row:
    other = (message.to if dir else message.from_) or ME
    return Row(1, owner, id_, class_, dir, DONE, other.partition("/")[0], 7, id_, pack_head(message), message.inner)


def messages(r: random.Random, owner: int, number: int) -> Iterator[Row]:
    """Messages of three partitions: in bursts, so that some share a millisecond, with all kinds of addresses."""
    ids = log.Ids()
    moment = NOW - PERIOD_S
    for n in range(number):
        if r.random() < 0.7:
            moment += r.expovariate(number / 2.5 / PERIOD_S)
        own = f"{ME}/{r.choice('ab')}"
        other = r.choice(PEERS) + r.choice(("", "/a", "/b"))
        dir = r.choice((TO_OWNER, FROM_OWNER))
        from_, to = (own, other) if dir else (other, r.choice((own, ME)))
        id_ = r.choice((None, f"m{n}", f"{r.choice(PEERS)}/a"))
        body = " ".join(r.choices(WORDS, k=r.randint(1, 4)))
        message = stanzas.message(to=to, from_=from_, type="chat", id=id_, inner=f"<body>{body}</body>".encode())
        ids.set_clock(moment)
        yield row(owner, ids.next(0), message, dir, r.choice((ARCHIVE, ARCHIVE, ARCHIVE, QUEUE)))


async def append(conn: Connection, rows: Sequence[Row]) -> None:
    await conn.execute(log.append_sql("true"), log.columns(rows))


async def partitions(conn: Connection) -> None:
    for days in range(-35, 36, 7):
        await log.maintain(conn, NOW + days * 86_400, {})


async def filled(conn: Connection, r: random.Random, number: int = 300) -> list[Row]:
    """Two accounts' messages."""
    await partitions(conn)
    rows = [*messages(r, 1, number), *messages(r, 2, number)]
    await append(conn, rows)
    return rows


def queries(r: random.Random, rows: Sequence[Row]) -> Query:
    """Any query for these rows."""
    ids = sorted(row.id for row in rows)
    query = Query(rows[0].owner)
    if r.random() < 0.4:
        query = query._replace(after=r.choice(ids) - r.choice((0, 1)))
    if r.random() < 0.4:
        query = query._replace(before=r.choice(ids) + r.choice((0, 1)))
    if r.random() < 0.2:
        query = query._replace(ids=tuple(r.choices(ids, k=5)))
    kind = r.randrange(5)
    if kind == 1:
        return query._replace(peer=r.choice(PEERS))
    if kind == 2:
        peer = r.choice(PEERS)
        return query._replace(peer=None if peer == ME else peer, address=f"{peer}/{r.choice('abc')}")
    if kind == 3:
        return query._replace(text=" ".join(r.choices(WORDS, k=r.randint(1, 2))))
    return query


# --- what is read


@pytest.fixture(params=range(3))
def chance(request: pytest.FixtureRequest) -> random.Random:
    seed: int = request.param
    return random.Random(seed)


@asynchronous
async def test_every_page_is_the_models(database: str, chance: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any query, paged to its end in both directions, by reads that look at some rows only."""
    monkeypatch.setattr(archive, "STEP", 20)
    monkeypatch.setattr(archive, "STEP_OF_TEXT", 7)
    async with connected(database) as conn:
        rows = await filled(conn, chance)
        model = Model(lambda: rows)
        for _ in range(60):
            query = queries(chance, [row for row in rows if row.owner == 1 and row.class_ == ARCHIVE])
            expected = model.matching(query)
            for is_backwards in (False, True):
                limit = chance.randint(1, 40)
                found = [r async for page in pages(conn, query, limit, is_backwards) for r in page]
                assert found == (expected[::-1] if is_backwards else expected), query


async def pages(conn: Connection, query: Query, limit: int, is_backwards: bool) -> AsyncIterator[list[Row]]:
    """The pages of a result set, until there is nothing beyond."""
    while True:
        found = await archive.find(conn, query, limit, is_backwards)
        assert len(found.rows) <= limit
        yield found.rows
        if found.position is None:
            return
        assert query.after < found.position < query.before  # it goes on
        query = query._replace(before=found.position) if is_backwards else query._replace(after=found.position)


@asynchronous
async def test_counts_and_places_are_the_models(database: str, chance: random.Random) -> None:
    async with connected(database) as conn:
        rows = await filled(conn, chance)
        model = Model(lambda: rows)
        mine = [row for row in rows if row.owner == 1 and row.class_ == ARCHIVE]
        for _ in range(40):
            query = queries(chance, mine)
            if query.address is not None:
                continue  # those are counted by what SQL sees: an id that is an address counts, too
            expected = model.matching(query)
            assert await archive.count(conn, query, 1_000) == len(expected)
            first, last = sorted((chance.choice(mine).id, chance.choice(mine).id))
            assert await archive.around(conn, query, first, last) == model.around(query, first, last)
            for index in (0, 5, len(expected) - 1, len(expected)):
                if index >= 0:
                    assert await archive.at_index(conn, query, index) == model.at_index(query, index)


@asynchronous
async def test_a_count_looks_at_so_many_rows_and_no_more(database: str) -> None:
    async with connected(database) as conn:
        rows = [row for row in await filled(conn, random.Random(1)) if row.owner == 1 and row.class_ == ARCHIVE]
        for query in (Query(1), Query(1, peer="nobody@x"), Query(1, text="nothing")):
            expected = len(rows) if query == Query(1) else 0
            assert await archive.count(conn, query, len(rows)) == expected
            assert await archive.count(conn, query, len(rows) - 1) is None


@asynchronous
async def test_an_address_is_found_in_to_and_from_alone(database: str) -> None:
    """The head of a row has other strings, too."""
    async with connected(database) as conn:
        await partitions(conn)
        there = stanzas.message(to="a@b/c", from_=ME, id="x", inner=b"<body/>")
        elsewhere = stanzas.message(to="a@b/d", from_=ME, id="a@b/c", inner=b"<body/>")
        longer = stanzas.message(to="a@b/cc", from_=ME, inner=b"<body/>")
        base = log.id_at(NOW)
        rows = [row(1, base + n, message, FROM_OWNER) for n, message in enumerate((elsewhere, there, longer, there))]
        await append(conn, rows)
        query = Query(1, peer="a@b", address="a@b/c")
        assert await archive.find(conn, query, 10, False) == Found([rows[1], rows[3]], None)
        assert await archive.find(conn, query, 1, False) == Found([], rows[0].id)  # not the end


@asynchronous
async def test_what_is_known_is_there(database: str) -> None:
    async with connected(database) as conn:
        rows = await filled(conn, random.Random(2))
        mine = [row.id for row in rows if row.owner == 1 and row.class_ == ARCHIVE]
        queued = next(row.id for row in rows if row.owner == 1 and row.class_ == QUEUE)
        assert await archive.has_all(conn, 1, [])
        assert await archive.has_all(conn, 1, [*mine, mine[0]])
        for other in (queued, mine[0] - 1, archive.LAST_ID, 0):
            assert not await archive.has_all(conn, 1, [mine[0], other])
        assert not await archive.has_all(conn, 3, mine[:1])


@asynchronous
async def test_the_ends_of_an_archive(database: str) -> None:
    async with connected(database) as conn:
        assert await archive.ends(conn, 1) is None
        rows = await filled(conn, random.Random(3))
        assert await archive.ends(conn, 1) == Model(lambda: rows).ends(1)
        assert await archive.ends(conn, 3) is None


@asynchronous
async def test_a_read_returns_so_many_bytes_and_one_message_at_least(database: str) -> None:
    async with connected(database) as conn:
        await partitions(conn)
        body = b"<body>%b</body>" % (b"w" * 250_000)
        base = log.id_at(NOW)
        message = stanzas.message(to=ME, from_="a@b", inner=body)
        rows = [row(1, base + n, message, TO_OWNER) for n in range(12)]
        await append(conn, rows)
        assert await archive.find(conn, Query(1), 100, False) == Found(rows[:5], rows[4].id)
        assert await archive.find(conn, Query(1), 100, True) == Found(rows[:6:-1], rows[7].id)
        assert await archive.find(conn, Query(1), 5, False) == Found(rows[:5], rows[4].id)
        assert await archive.find(conn, Query(1, after=rows[7].id), 100, False) == Found(rows[8:], None)


BODIES: Final = {
    "plain": "<body>Wherefore art thou Romeo?</body>",
    "entities": "<body>don&apos;t R&amp;D 1 &lt; 2</body>",
    "section": "<body><![CDATA[if a<b then romeo & juliet]]></body>",
    "languages": "<body xml:lang='en'>hello</body><body xml:lang='de'>Guten Morgen</body>",
    "elsewhere": "<subject>romeo</subject><thread>romeo</thread><x xmlns='u:romeo' romeo='romeo'>romeo</x><body/>",
    "foreign": "<body>日本語 Ünïcode 🌹 naïve</body>",
    "address": "<body>see https://example.com/a?b=c&amp;d or foo-bar, by me@example.com</body>",
}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("romeo", {"plain", "section"}),
        ("ROMEO wherefore", {"plain"}),
        ("romeo juliet", {"section"}),
        ("rome", set()),
        ('"art thou"', {"plain"}),
        ('"thou art"', set()),
        ("romeo -juliet", {"plain"}),
        ("hello or juliet", {"section", "languages"}),
        ("guten", {"languages"}),
        ("don't", {"entities"}),
        ("R&D", {"entities"}),
        ("lt", set()),
        ("日本語", {"foreign"}),
        ("Ünïcode naïve", {"foreign"}),
        ("foo-bar", {"address"}),
        ("bar", {"address"}),
        ("example.com", {"address"}),
        ("   ", set()),
        ("&|!()<->:*'\"\\ %s", set()),
        ("'; drop table log; --", set()),
    ],
)
@asynchronous
async def test_full_text(database: str, text: str, found: set[str]) -> None:
    """Words of bodies, in any order, whatever their case."""
    async with connected(database) as conn:
        await partitions(conn)
        base = log.id_at(NOW)
        kinds = list(BODIES)
        await append(
            conn,
            [
                row(1, base + n, stanzas.message(to=ME, from_="a@b", inner=BODIES[kind].encode()), TO_OWNER)
                for n, kind in enumerate(kinds)
            ],
        )
        page = await archive.find(conn, Query(1, text=text), 100, False)
        assert {kinds[row.id - base] for row in page.rows} == found


def test_moments_and_ids() -> None:
    """XEP-0313, 4.1.2: "equal to or later than" the start, "equal to or earlier than" the end."""
    at = log.id_at(1_800_000_000.123)
    assert archive.first_since(1_800_000_000_123_000) == at
    assert archive.first_since(1_800_000_000_122_001) == at
    assert archive.first_since(1_800_000_000_123_001) == at + (1 << ID_BITS)
    assert archive.first_beyond(1_800_000_000_123_000) == at + (1 << ID_BITS)
    assert archive.first_beyond(1_800_000_000_122_999) == at
    for moment in (-(10**20), -1, 10**20):
        assert 0 <= archive.first_since(moment) <= archive.first_beyond(moment) <= archive.LAST_ID


# --- preferences


@asynchronous
async def test_preferences(database: str) -> None:
    async with connected(database) as conn:
        secret = [Credentials("SHA-1", b"salt", 4096, b"\1", b"\2")]
        key, other = [await accounts.create(conn, jid, shard_of(jid), secret) for jid in (ME, OTHER)]
        assert key is not None
        assert other is not None

        async def chosen(jid: str) -> Preferences:
            account = await accounts.find(conn, jid)
            assert account is not None
            return Preferences.of(account)

        assert await chosen(ME) == Preferences()
        for _ in range(2):  # a batch may be written twice
            await archive.set_preferences(conn, key, "roster", ["a@b", "c@d/e"], ["f@g"])
        assert await chosen(ME) == Preferences("roster", frozenset({"a@b", "c@d/e"}), frozenset({"f@g"}))
        assert await chosen(OTHER) == Preferences()
        await archive.set_preferences(conn, key, "never", [], [])
        assert await chosen(ME) == Preferences("never")


# --- how it is read

SIZE: Final = 1_000_000 if IS_LONG else 20_000  # of the great archive
TOTAL: Final = 2_000_000 if IS_LONG else 200_000
PAGE: Final = 50
MOST_MS: Final = 10.0


@pytest.fixture(scope="module")
def great(postgres: str, template: str) -> Iterator[str]:
    """A database with one great archive among others, statistics included."""
    name = "great_archive"
    with psycopg.connect(postgres, autocommit=True) as conn:
        conn.execute(f"create database {name} template {template}")
    url = f"{postgres.rpartition('/')[0]}/{name}"
    period = PERIOD_MS[ARCHIVE]
    periods = 12 if IS_LONG else 3
    present = int(time.time() * 1000) // period
    first_ms = (present - periods + 1) * period
    with psycopg.connect(url, autocommit=True) as conn:
        for number in range(present - periods + 1, present + 3):
            partition = sql.Identifier(f"log_archive_{number}")
            bounds = sql.SQL("from ({}) to ({})").format(number * period << ID_BITS, (number + 1) * period << ID_BITS)
            conn.execute(sql.SQL("create table {} partition of log_archive for values ").format(partition) + bounds)
        conn.execute(
            """
            insert into log (shard, owner, id, class, dir, forward, peer, sid, n, head, inner_xml)
            select 1, case mod(g, %(every)s) when 0 then 1 else 2 + mod(g, 90) end,
                (%(first)s::int8 + g * (%(span)s::int8 - 1) / %(rows)s << 20) + mod(g, 1000), 1, mod(g, 2), 0,
                'peer' || mod(hashint4(g), 50) || '@example.com', 7, g,
                convert_to(repeat('h', 60), 'UTF8'),
                convert_to('<body>' || repeat(md5(g::text) || ' ', 4) || '</body>', 'UTF8')
            from generate_series(0, %(rows)s::int - 1) g
            """,
            {"first": first_ms, "span": periods * period, "rows": TOTAL, "every": TOTAL // SIZE},
        )
        conn.execute("vacuum analyze")
    yield url
    with psycopg.connect(postgres, autocommit=True) as conn:
        conn.execute(f"drop database {name} with (force)")


def statements(query: Query) -> tuple[dict[str, LiteralString], dict[str, Any]]:
    """Every statement that a page may take, and their values."""
    values = archive.values_of(query, limit=PAGE + 1, bytes=archive.MOST_BYTES, step=query.step, most=query.counted + 1)
    return {
        "page": archive.page_sql(query, "asc"),
        "page backwards": archive.page_sql(query, "desc"),
        "edge": archive.edge_sql(query, "asc"),
        "edge backwards": archive.edge_sql(query, "desc"),
        "count": archive.count_sql(query),
    }, values


async def plan(conn: Connection, statement: LiteralString, values: dict[str, Any], is_prepared: bool) -> str:
    """How a statement is carried out, and that in truth; prepared, the planner does not know the values."""
    explain: LiteralString = "explain (analyze, costs off, timing off)"
    if not is_prepared:
        cursor = await conn.execute(f"{explain} {statement}", values)
        return "\n".join(line for (line,) in await cursor.fetchall())
    used = [name for name in values if f"%({name})s" in statement]
    numbered = statement % {name: f"${number}" for number, name in enumerate(used, 1)}
    await conn.execute("set plan_cache_mode = force_generic_plan")
    await conn.execute(f"prepare q as {numbered}")
    literals = sql.SQL(", ").join(sql.Literal(values[name]) for name in used)
    cursor = await conn.execute(sql.SQL(f"{explain} execute q ({{}})").format(literals))
    await conn.execute("deallocate q")
    return "\n".join(line for (line,) in await cursor.fetchall())


@pytest.mark.parametrize("is_prepared", [False, True])
@asynchronous
async def test_no_partition_is_ever_read_as_a_whole(great: str, is_prepared: bool) -> None:
    """Wherever the page begins."""
    async with connected(great) as conn:
        conn.prepare_threshold = None
        whole = f"Seq Scan on ({'|'.join(await not_empty(conn))}) "
        ends = await archive.ends(conn, 1)
        middle = await archive.at_index(conn, Query(1), SIZE // 2)
        assert ends is not None
        assert middle is not None
        for query in (
            Query(1),
            Query(1, after=middle),
            Query(1, before=middle),
            Query(1, peer="peer7@example.com"),
            Query(1, peer="nobody@example.com"),
            Query(1, peer="peer7@example.com", address="peer7@example.com/a"),
            Query(1, ids=(ends.first, middle, ends.last)),
            Query(1_000_000),
        ):
            named, values = statements(query)
            for name, statement in named.items():
                found = await plan(conn, statement, values, is_prepared)
                assert not re.search(whole, found), (query, name, found)
                assert "Index" in found, (query, name, found)
                if name.startswith("page") and not query.is_filtered:
                    assert rows_read(found) <= PAGE + 1, found
        cursor = await conn.execute("explain select min(id), max(id) from log_archive where owner = 1")
        assert not re.search(whole, str(await cursor.fetchall()))


async def not_empty(conn: Connection) -> list[str]:
    """The partitions that have rows."""
    cursor = await conn.execute("select distinct tableoid::regclass::text from log_archive")
    names = [name for (name,) in await cursor.fetchall()]
    assert len(names) > 2
    return names


def rows_read(explained: str) -> int:
    """Rows that came out of indexes."""
    scans = re.findall(r"Index (?:Only )?Scan.*?actual rows=([\d.]+) loops=(\d+)", explained)
    assert scans
    return round(sum(float(rows) * int(loops) for rows, loops in scans))


@asynchronous
async def test_a_page_out_of_a_great_archive_is_quick(great: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with connected(great) as conn:
        middle = await archive.at_index(conn, Query(1), SIZE // 2)
        assert middle is not None
        times: dict[str, list[float]] = {}
        for _ in range(7):
            for name, query, is_backwards in (
                ("first page", Query(1), False),
                ("last page", Query(1), True),
                ("from the middle", Query(1, after=middle), False),
                ("before the middle", Query(1, before=middle), True),
                ("with one contact", Query(1, peer="peer7@example.com"), True),
            ):
                started = time.perf_counter()
                page = await archive.find(conn, query, PAGE + 1, is_backwards)
                read = time.perf_counter()
                ids = sorted(row.id for row in page.rows)
                await archive.around(conn, query, ids[0], ids[-2])
                counted = time.perf_counter()
                assert len(ids) == PAGE + 1
                times.setdefault(name, []).append((read - started) * 1000)
                times.setdefault(f"{name}: count", []).append((counted - read) * 1000)
        with capsys.disabled():
            print(f"\na page of {PAGE} out of {SIZE:,} among {TOTAL:,}, ms at the database (median of 7):")
            for name, measured in times.items():
                print(f"    {name:28} {sorted(measured)[3]:6.2f}")
        for name, measured in times.items():
            assert name.endswith("count") or min(measured) < MOST_MS * FACTOR, (name, measured)
