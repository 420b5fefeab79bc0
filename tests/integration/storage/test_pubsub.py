"""What the database keeps of nodes: each write may be repeated, each read finds what was written."""

from __future__ import annotations

import time

from cluster.shards import shard_of
from storage import capabilities, log, pubsub
from storage.log import ARCHIVE, DONE, TO_OWNER, Row, id_at
from storage.pubsub import Item, Wanted
from storage.rows import Connection, fetch_value, fetch_values
from tests.support.database import asynchronous, connected

SERVICE = "pubsub.example.com"
NODE = 1 << 62
PAYLOAD = b'<a xmlns="urn:x"/>'


async def made(conn: Connection, key: int = NODE, name: str = "n") -> int:
    """A node of the service; returns the service's key."""
    await log.maintain(conn, time.time(), {})
    owner = (await pubsub.load_service(conn, SERVICE, shard_of(SERVICE))).key
    for _ in range(2):
        await pubsub.create(conn, key, owner, name, '{"title": "Verse"}', "juliet@example.com")
    return owner


async def published(conn: Connection, *ids: str, keep: int | None = None, since: int = 0) -> None:
    start = await fetch_value(conn, "select coalesce(max(seq), 0) from pubsub_items")
    for seq, id_ in enumerate(ids, start + 1):
        item = Item(id_, seq, "juliet@example.com", PAYLOAD)
        for again in range(2):
            await pubsub.publish(conn, NODE, item._replace(seq=seq + again), (7, seq), keep, since, None)


async def names(conn: Connection) -> list[str]:
    return await pubsub.ids(conn, NODE, 100)


@asynchronous
async def test_everything_about_a_node_comes_back(database: str) -> None:
    async with connected(database) as conn:
        owner = await made(conn)
        await published(conn, "a", "b")
        for _ in range(2):
            await pubsub.set_affiliation(conn, NODE, "romeo@example.com", 2)
            await pubsub.set_affiliation(conn, NODE, "romeo@example.com", 4)
            await pubsub.set_affiliation(conn, NODE, "nurse@example.com", 0)
            await pubsub.subscribe(conn, NODE, "nurse@example.com", "s1", True)
            await pubsub.subscribe(conn, NODE, "nurse@example.com", "s1", False)
            await pubsub.subscribe(conn, NODE, "friar@example.com", "s2", True)
        found = await pubsub.load_service(conn, SERVICE, shard_of(SERVICE))
        assert found.key == owner
        (row,) = found.nodes
        assert (row.key, row.node, row.config, row.creator) == (NODE, "n", {"title": "Verse"}, "juliet@example.com")
        assert row.affiliations == [["romeo@example.com", 4]]
        assert sorted(row.subscriptions) == [["friar@example.com", "s2", True], ["nurse@example.com", "s1", False]]
        assert row.last == ("b", 2, "juliet@example.com", PAYLOAD)
        for _ in range(2):
            await pubsub.unsubscribe(conn, NODE, "nurse@example.com")
            await pubsub.unsubscribe(conn, NODE, "friar@example.com")
            await pubsub.set_affiliation(conn, NODE, "romeo@example.com", 0)
            await pubsub.configure(conn, NODE, "{}", None)
            await pubsub.purge(conn, NODE)
        (row,) = (await pubsub.load(conn, [owner]))[owner]
        assert (row.config, row.affiliations, row.subscriptions, row.last, row.has_items) == ({}, [], [], None, False)


@asynchronous
async def test_a_large_item_is_not_read_with_its_node(database: str) -> None:
    async with connected(database) as conn:
        owner = await made(conn)
        large = b"<a>" + b"x" * pubsub.SMALL + b"</a>"
        await pubsub.publish(conn, NODE, Item("a", 1, "juliet@example.com", large), (7, 1), None, 0, None)
        (row,) = (await pubsub.load(conn, [owner]))[owner]
        assert (row.last, row.has_items) == (None, True)
        assert await pubsub.last_items(conn, [NODE, 5]) == {NODE: Item("a", 1, "juliet@example.com", large)}


@asynchronous
async def test_so_many_items_stay(database: str) -> None:
    async with connected(database) as conn:
        await made(conn)
        await published(conn, "a", "b", "c", keep=2)
        assert await names(conn) == ["b", "c"]
        await published(conn, "b", keep=2)
        assert await names(conn) == ["c", "b"]
        await published(conn, "d", keep=5, since=4)
        assert await names(conn) == ["b", "d"]
        for _ in range(2):
            await pubsub.configure(conn, NODE, "{}", 1)
        assert await names(conn) == ["d"]
        for _ in range(2):
            await pubsub.retract(conn, NODE, ["d", "x"])
        assert await names(conn) == []


@asynchronous
async def test_pages(database: str) -> None:
    async with connected(database) as conn:
        await made(conn)
        await published(conn, *"abcdef")

        async def page(limit: int = 2, **wanted: object) -> tuple[str, int, int, bool]:
            items, place, total, is_known = await pubsub.page(conn, Wanted(NODE, limit, **wanted))  # type: ignore[arg-type]
            return "".join(item.id for item in items), place, total, is_known

        assert await page() == ("ab", 0, 6, True)
        assert await page(after="b") == ("cd", 2, 6, True)
        assert await page(after="f") == ("", 6, 6, True)
        assert await page(is_backwards=True) == ("ef", 4, 6, True)
        assert await page(before="c", is_backwards=True) == ("ab", 0, 6, True)
        assert await page(start=3) == ("de", 3, 6, True)
        assert await page(since=3) == ("cd", 0, 4, True)
        assert await page(limit=0) == ("", 6, 6, True)
        assert (await page(after="x"))[3] is False
        assert [item.id for item in await pubsub.items_by_id(conn, NODE, ["e", "b", "x"])] == ["b", "e"]
        assert [item.id for item in await pubsub.items_by_id(conn, NODE, ["e", "b"], 3)] == ["e"]


@asynchronous
async def test_what_is_carried_out_twice_is_archived_once(database: str) -> None:
    """Whoever carried it out may have died before it said so (docs/delivery.md, rule 22)."""
    async with connected(database) as conn:
        await made(conn)
        now = id_at(time.time())
        for n, offered in ((1, 2), (2, 1), (3, 3)):
            for again in range(offered):
                item = Item("a", now + 10 * n + again, "juliet@example.com", b"%d" % n)
                row = Row(1, NODE, item.seq, ARCHIVE, TO_OWNER, DONE, SERVICE, 7, n, b"", item.payload)
                await pubsub.publish(conn, NODE, item, (7, n), 1, 0, row)
        found = await fetch_values(conn, "select inner_xml from log where owner = %s order by id", NODE)
        assert [bytes(xml) for xml in found] == [b"1", b"2", b"3"]
        assert [item.payload for item in await pubsub.items_by_id(conn, NODE, ["a"])] == [b"3"]
        await pubsub.publish(conn, NODE, Item("a", now + 99, "juliet@example.com", b"1"), (7, 1), 1, 0, None)
        assert [item.payload for item in await pubsub.items_by_id(conn, NODE, ["a"])] == [b"3"], "the later one stays"


@asynchronous
async def test_a_page_is_no_longer_than_an_answer_may_be(database: str) -> None:
    async with connected(database) as conn:
        await made(conn)
        for seq in range(5):
            payload = b"x" * (pubsub.MOST_BYTES // 2)
            item = Item(f"{seq}", seq + 1, "juliet@example.com", payload)
            await pubsub.publish(conn, NODE, item, (7, seq), None, 0, None)
        items, _, total, _ = await pubsub.page(conn, Wanted(NODE, 5))
        assert ([item.id for item in items], total) == (["0", "1"], 5)


@asynchronous
async def test_a_node_goes_with_everything_of_it(database: str) -> None:
    async with connected(database) as conn:
        owner = await made(conn)
        await published(conn, "a")
        await pubsub.set_affiliation(conn, NODE, "romeo@example.com", 4)
        await pubsub.subscribe(conn, NODE, "nurse@example.com", "s1", True)
        for _ in range(2):
            await pubsub.delete(conn, NODE)
        assert (await pubsub.load(conn, [owner]))[owner] == []
        for table in ("pubsub_items", "pubsub_affiliations", "pubsub_subscriptions"):
            assert await fetch_value(conn, f"select count(*) from {table}") == 0


@asynchronous
async def test_capabilities_are_kept(database: str) -> None:
    async with connected(database) as conn:
        assert await capabilities.find(conn, "1 sha-1 x") is None
        for wants in (["a"], ["a", "b"]):
            await capabilities.put(conn, "1 sha-1 x", wants)
        assert await capabilities.find(conn, "1 sha-1 x") == ["a", "b"]
        assert [tuple(known) for known in await capabilities.newest(conn)] == [("1 sha-1 x", ["a", "b"])]
        await capabilities.put(conn, "1 sha-1 y", [])
        await capabilities.prune(conn)
        assert len(await capabilities.newest(conn)) == 2
        monkeypatched, capabilities.KEPT = capabilities.KEPT, 0  # type: ignore[misc]
        await capabilities.prune(conn)
        capabilities.KEPT = monkeypatched  # type: ignore[misc]
        assert [known.name for known in await capabilities.newest(conn)] == ["1 sha-1 y"]
