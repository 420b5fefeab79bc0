"""The small repositories: accounts, rosters, block lists, private XML, vCards, secrets, nodes, sessions."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from psycopg import errors

from cluster.shards import shard_of
from cluster.wire import WIRE_VERSION
from storage import (
    accounts,
    blocks,
    devices,
    entities,
    erasures,
    invitations,
    nodes,
    private,
    rosters,
    secrets,
    sessions,
    vcards,
)
from storage.invitations import Draft
from storage.nodes import NodeRow
from storage.rosters import Item
from storage.rows import Connection, fetch_value
from storage.sessions import SessionRow
from tests.support.database import asynchronous, connected
from xmpp.scram import Credentials

ROMEO, JULIET = "romeo@montague.lit", "juliet@capulet.lit"


def credentials(*hashes: str) -> list[Credentials]:
    return [Credentials(name, b"salt\0" + name.encode(), 4096, b"\1stored", b"\2server") for name in hashes]


async def account(conn: Connection, jid: str = ROMEO) -> int:
    key = await accounts.create(conn, jid, shard_of(jid), credentials("SHA-1"))
    assert key is not None
    return key


# --- accounts


@asynchronous
async def test_an_account_is_made_once(database: str) -> None:
    async with connected(database) as conn:
        assert await accounts.find(conn, ROMEO) is None
        assert await accounts.credentials(conn, [ROMEO]) == {}
        key = await accounts.create(conn, ROMEO, shard_of(ROMEO), credentials("SHA-1", "SHA-256"))
        assert await accounts.create(conn, ROMEO, shard_of(ROMEO), credentials("SHA-512")) is None
        found = await accounts.find(conn, ROMEO)
        assert found is not None
        assert (found.key, found.jid, found.shard, found.enabled) == (key, ROMEO, shard_of(ROMEO), True)
        assert (found.last_at, found.last_status) == (None, "")
        assert abs(found.created_at - time.time()) < 60
        assert list((await accounts.credentials(conn, [ROMEO]))[ROMEO].values()) == credentials("SHA-1", "SHA-256")


@asynchronous
async def test_a_new_password_replaces_every_hash(database: str) -> None:
    async with connected(database) as conn:
        key = await account(conn)
        new = [replace(old, salt=b"new") for old in credentials("SHA-1", "SHA-512")]
        await accounts.set_credentials(conn, key, new)
        assert list((await accounts.credentials(conn, [ROMEO]))[ROMEO].values()) == new
        await accounts.set_credentials(conn, key, new[1:])
        assert list((await accounts.credentials(conn, [ROMEO]))[ROMEO].values()) == new[1:]
        await accounts.set_credentials(conn, key + 1000, new)
        assert await fetch_value(conn, "select count(*) from credentials") == 1


@asynchronous
async def test_which_credentials_accounts_have_is_counted_by_domain(database: str) -> None:
    async with connected(database) as conn:
        assert await accounts.guises(conn, 0, 10) == ([], None)
        await conn.execute("alter table entities alter key restart with 1000000000000")  # keys may be far apart
        for jid, hashes in ((ROMEO, ("SHA-1",)), (JULIET, ("SHA-1", "SHA-512")), ("nurse@capulet.lit", ()),
                            ("paris@capulet.lit", ("SHA-512", "SHA-1"))):  # fmt: skip
            await accounts.create(conn, jid, shard_of(jid), credentials(*hashes))
        found, last = await accounts.guises(conn, 0, 10)
        assert sorted(found) == [
            ("capulet.lit", {"SHA-1": 4096, "SHA-512": 4096}, 2), ("montague.lit", {"SHA-1": 4096}, 1),
        ]  # fmt: skip
        assert last is not None
        assert last == await fetch_value(conn, "select max(key) from credentials")
        assert await accounts.guises(conn, last, 10) == ([], None)
        page, last = await accounts.guises(conn, 0, 2)
        assert last is not None
        rest, _ = await accounts.guises(conn, last, 2)
        assert sum(count for *_, count in page) == 2
        assert sum(count for *_, count in rest) == 1


@asynchronous
async def test_an_upgrade_adds_what_is_missing_or_weaker_and_takes_nothing(database: str) -> None:
    async with connected(database) as conn:
        key = await account(conn)
        (old,) = credentials("SHA-1")
        (more,) = credentials("SHA-512")
        stronger = replace(old, iterations=old.iterations + 1, salt=b"new", stored_key=b"new", server_key=b"new")
        await accounts.upgrade_credentials(conn, key, [replace(old, salt=b"no better"), more])
        assert list((await accounts.credentials(conn, [ROMEO]))[ROMEO].values()) == [old, more]
        await accounts.upgrade_credentials(conn, key, [stronger])
        await accounts.upgrade_credentials(conn, key, [old, replace(more, salt=b"of a former password")])
        assert list((await accounts.credentials(conn, [ROMEO]))[ROMEO].values()) == [stronger, more]
        await accounts.upgrade_credentials(conn, key + 1000, [more])
        assert await fetch_value(conn, "select count(*) from credentials") == 2


@asynchronous
async def test_an_account_that_is_erased_leaves_its_name_until_the_rest_is_gone(database: str) -> None:
    async with connected(database) as conn:
        key, other = await account(conn), await account(conn, JULIET)
        for owner, bare in ((key, ROMEO), (other, JULIET)):
            await rosters.upsert(conn, owner, Item("a@b"), 2)
            await rosters.remove(conn, owner, "c@d", 3)
            await blocks.add(conn, owner, ["e@f"])
            await private.put(conn, owner, "ns x", b"<x/>")
            await vcards.put(conn, owner, b"<vCard/>")
            await conn.execute("insert into room_visits (owner, room, id) values (%s, 'r@c', 1)", (owner,))
            await devices.seen(conn, owner, b"d" * 16, "", "", "", 1e9, False)
            await invitations.create(
                conn, bytes([owner % 256]) * 32, Draft("contact", "capulet.lit", bare, "", "", 1, None)
            )
            await sessions.save(conn, session(bare, owner, "home", sid=owner))
        first = await accounts.find(conn, ROMEO)
        await erasures.begin(conn, 1, ROMEO, shard_of(ROMEO), False, "user", 30)
        await erasures.begin(conn, 2, ROMEO, shard_of(ROMEO), False, "user", 30)  # the same batch again, or another
        assert await accounts.find(conn, ROMEO) is None
        for table in (
            "accounts",
            "credentials",
            "rosters",
            "roster_removed",
            "blocks",
            "private_xml",
            "vcards",
            "room_visits",
            "devices",
            "invitations",
        ):
            assert await fetch_value(conn, f"select count(*) from {table}") == 1, table
        assert [row.bare for row in await sessions.load_shards(conn, range(1024))] == [JULIET]
        (job,) = await erasures.pending(conn)
        assert {kind: count for kind, count in job.removed.items() if kind != "credentials"} == {
            "account": 1, "contacts": 1, "former_contacts": 1, "blocks": 1, "private_data": 1, "vcard": 1,
            "push_services": 0, "room_visits": 1, "restrictions": 0, "devices": 1, "invitations": 1, "sessions": 1,
        }  # fmt: skip
        assert await accounts.create(conn, ROMEO, shard_of(ROMEO), credentials("SHA-1")) is None
        assert await erasures.is_reserved(conn, ROMEO, False)
        await erasures.finish(conn, job.id, ROMEO, {"account": 1})
        assert await erasures.pending(conn) == []
        assert await erasures.is_reserved(conn, ROMEO, True)
        assert not await erasures.is_reserved(conn, ROMEO, False)
        assert not await erasures.is_reserved(conn, JULIET, True)
        again = await accounts.create(conn, ROMEO, shard_of(ROMEO), credentials("SHA-1"))
        second = await accounts.find(conn, ROMEO)
        assert again not in (None, key, other)
        assert first is not None
        assert second is not None
        assert second.roster_version > first.roster_version  # no client holds a version of it


@asynchronous
async def test_accounts_are_listed_by_domain_in_pages(database: str) -> None:
    async with connected(database) as conn:
        names = ["Zoe@a.lit", "abe@a.lit", "bob@a.lit", "été@a.lit"]  # bytewise
        for jid in [*reversed(names), "abe@b.lit"]:
            await account(conn, jid)
        await entities.key_of(conn, "nobody@a.lit", 1, "account")
        assert [row.jid for row in await accounts.list_(conn, "a.lit")] == names
        assert [row.jid for row in await accounts.list_(conn, "a.lit", "abe@a.lit", 1)] == ["bob@a.lit"]
        assert await accounts.count(conn, "a.lit") == 4
        assert await accounts.count(conn, "c.lit") == 0


@asynchronous
async def test_an_account_can_be_disabled_and_remembers_its_last_words(database: str) -> None:
    async with connected(database) as conn:
        key = await account(conn)
        await accounts.set_enabled(conn, key, False)
        await accounts.record_last(conn, key, 1_700_000_000.25, "zzz")
        found = await accounts.find(conn, ROMEO)
        assert found is not None
        assert (found.enabled, found.last_at, found.last_status) == (False, 1_700_000_000.25, "zzz")
        assert await accounts.find_all(conn, ["nobody@a.lit", ROMEO]) == [found]


@asynchronous
async def test_an_entity_keeps_its_key(database: str) -> None:
    async with connected(database) as conn:
        room = await entities.key_of(conn, "room@conference.lit", 5, "room")
        assert await entities.key_of(conn, "room@conference.lit", 5, "room") == room
        assert await entities.key_of(conn, ROMEO, 6, "account") == await account(conn) != room


@asynchronous
async def test_a_secret_is_the_same_for_everybody(database: str) -> None:
    async def ask(name: str) -> bytes:
        async with connected(database) as conn:
            return await secrets.secret(conn, name)

    first, *others, different = await asyncio.gather(*(ask(name) for name in ("a", "a", "a", "b")))
    assert others == [first, first]
    assert different != first
    assert len(first) == 32


# --- rosters, block lists, private XML, vCards


@asynchronous
async def test_a_roster_keeps_every_field(database: str) -> None:
    whole = Item(JULIET, "Juliet é", ("Friends", "a,b {c}"), "from", True, True, True, b"<status>\0</status>", False, 7)
    async with connected(database) as conn:
        key = await account(conn)
        await rosters.upsert(conn, key, whole, 7)
        await rosters.upsert(conn, key, Item("x@y"), 8)
        assert set((await rosters.load(conn, [key]))[key]) == {whole, Item("x@y", version=8)}
        await rosters.upsert(conn, key, whole._replace(name="J", groups=(), in_roster=True), 9)
        assert whole._replace(name="J", groups=(), in_roster=True, version=9) in (await rosters.load(conn, [key]))[key]
        assert (await rosters.load(conn, [key + 1]))[key + 1] == []


async def roster_version(conn: Connection, key: int) -> int:
    found: int = await fetch_value(conn, "select roster_version from accounts where key = %s", key)
    return found


@asynchronous
async def test_the_rosters_version_rises_and_removals_are_known(database: str) -> None:
    async with connected(database) as conn:
        key = await account(conn)
        start = await roster_version(conn, key)
        for step, jid in enumerate(("a@x", "b@x", "c@x"), 1):
            await rosters.upsert(conn, key, Item(jid), start + step)
        await rosters.remove(conn, key, "a@x", start + 4)
        await rosters.remove(conn, key, "b@x", start + 5)
        assert await roster_version(conn, key) == start + 5
        assert (await rosters.removed(conn, [key]))[key] == [("a@x", start + 4), ("b@x", start + 5)]
        await rosters.upsert(conn, key, Item("a@x", in_roster=False, pending_in=True), start + 5)
        assert len((await rosters.removed(conn, [key]))[key]) == 2  # only asks; is still not in the roster
        await rosters.upsert(conn, key, Item("a@x"), start + 6)
        assert (await rosters.removed(conn, [key]))[key] == [("b@x", start + 5)]
        await rosters.upsert(conn, key, Item("c@x"), start)  # an old version sends nothing back
        assert await roster_version(conn, key) == start + 6


@asynchronous
async def test_only_a_contact_outside_the_roster_is_forgotten(database: str) -> None:
    async with connected(database) as conn:
        key = await account(conn)
        await rosters.upsert(conn, key, Item("a@x"), 1)
        await rosters.upsert(conn, key, Item("b@x", in_roster=False, pending_in=True), 1)
        for jid in ("a@x", "b@x"):
            await rosters.forget(conn, key, jid)
        assert [item.jid for item in (await rosters.load(conn, [key]))[key]] == ["a@x"]
        assert (await rosters.removed(conn, [key]))[key] == []


@asynchronous
async def test_a_subscription_that_there_is_not_is_refused(database: str) -> None:
    async with connected(database) as conn:
        with pytest.raises(errors.CheckViolation):
            await rosters.upsert(conn, 1, Item("a@x", subscription="remove"), 1)  # type: ignore[arg-type]  # the point


@asynchronous
async def test_block_lists(database: str) -> None:
    async with connected(database) as conn:
        await blocks.add(conn, 1, ["a@x", "b@x"])
        await blocks.add(conn, 1, ["b@x", "c.lit"])
        await blocks.add(conn, 2, ["a@x"])
        assert (await blocks.load(conn, [1]))[1] == {"a@x", "b@x", "c.lit"}
        await blocks.remove(conn, 1, ["a@x", "never"])
        assert (await blocks.load(conn, [1]))[1] == {"b@x", "c.lit"}
        await blocks.clear(conn, 1)
        assert (await blocks.load(conn, [1]))[1] == set()
        assert (await blocks.load(conn, [2]))[2] == {"a@x"}


@asynchronous
async def test_private_elements(database: str) -> None:
    async with connected(database) as conn:
        assert await private.get(conn, 1, "ns a") is None
        assert await private.total_size(conn, 1) == 0
        await private.put(conn, 1, "ns a", b"<a/>")
        await private.put(conn, 1, "ns b", b"<b>1</b>")
        await private.put(conn, 1, "ns a", b"<a>2</a>")
        assert await private.get(conn, 1, "ns a") == b"<a>2</a>"
        assert await private.total_size(conn, 1) == 16
        assert await private.total_size(conn, 1, ("ns a", "ns c")) == 8


@asynchronous
async def test_vcards(database: str) -> None:
    async with connected(database) as conn:
        assert await vcards.get(conn, 1) is None
        for xml in (b"<vCard/>", b"<vCard>2</vCard>"):
            await vcards.put(conn, 1, xml)
            assert await vcards.get(conn, 1) == xml


# --- nodes


def node(incarnation: str, role: str = "router") -> NodeRow:
    name = incarnation.partition("#")[0]
    return NodeRow.of(name=name, incarnation=incarnation, role=role, address="ipc://x", wire=WIRE_VERSION)


@asynchronous
async def test_a_heartbeat_moves_and_shows_everybody(database: str) -> None:
    async with connected(database) as conn:
        await nodes.register(conn, node("router-1#a"))
        await nodes.register(conn, node("router-0#b"))
        first = await nodes.beat(conn, "router-1#a", False)
        second = await nodes.beat(conn, "router-1#a", True)
        assert [row.incarnation for row in second] == ["router-0#b", "router-1#a"]
        assert second[0] == first[0]
        assert second[1].seen_at > first[1].seen_at
        assert (first[1].is_leaving, second[1].is_leaving) == (False, True)
        assert second[1].started_at == first[1].started_at
        assert abs(second[1].seen_at - time.time()) < 60
        assert await nodes.list_(conn) == second


@asynchronous
async def test_a_restarted_node_takes_the_row_of_its_former_run(database: str) -> None:
    async with connected(database) as conn:
        await nodes.register(conn, node("router-0#a"))
        await nodes.register(conn, node("router-0#b"))
        assert [row.incarnation for row in await nodes.beat(conn, "router-0#a", False)] == ["router-0#b"]
        await nodes.remove(conn, "router-0#a")
        assert len(await nodes.list_(conn)) == 1
        await nodes.remove(conn, "router-0#b")
        assert await nodes.list_(conn) == []


# --- sessions


def session(bare: str, owner: int, resource: str, *, sid: int, node: str = "c2s-0#a") -> SessionRow:
    return SessionRow(sid, shard_of(bare), owner, bare, resource, node, 1, f"request-{sid}", at=1_700_000_000.5 + sid)


@asynchronous
async def test_a_session_keeps_every_field(database: str) -> None:
    whole = SessionRow(
        2**63 - 1, 1023, 2**40, ROMEO, "balcony é", "c2s-0#ff", 3, "r", 1_700_000_000.125, 2**40, 9, 8, 2**62,
        (5, None, 2**62), (1, ("presence", b"\0"), -1, {"csi": True, "count": 3}),
    )  # fmt: skip
    plain = session(JULIET, 2, "home", sid=5)
    async with connected(database) as conn:
        for row in (whole, plain):
            await sessions.save(conn, row)
        assert await sessions.load_shards(conn, [1023, plain.shard]) == sorted([whole, plain], key=lambda r: r.shard)
        changed = replace(plain, node="c2s-1#b", gen=2, state=None, unacknowledged=(None,))
        await sessions.save(conn, changed)
        assert await sessions.find(conn, JULIET) == [changed]
        await sessions.delete(conn, plain.sid)
        await sessions.delete(conn, plain.sid)
        assert await sessions.load_shards(conn, range(1024)) == [whole]
        assert await sessions.load_shards(conn, []) == []


@asynchronous
async def test_sessions_are_listed_and_counted(database: str) -> None:
    rows = [
        session("a@x.lit", 1, "r1", sid=1),
        session("a@x.lit", 1, "r2", sid=2, node="c2s-1#b"),
        session("b@x.lit", 2, "r", sid=3),
        session("a@y.lit", 3, "r", sid=4, node="c2s-1#b"),
    ]
    async with connected(database) as conn:
        for row in rows:
            await sessions.save(conn, row)

        async def sids(user: str = "", domain: str = "", node: str = "", after: str = "", limit: int = 10) -> list[int]:
            found = await sessions.list_(conn, user, domain, node, after, limit)
            if not after and limit == 10:
                assert await sessions.count(conn, user, domain, node) == len(found)
            return [row.sid for row in found]

        assert await sids() == [1, 2, 4, 3]
        assert await sids(after="a@x.lit/r2", limit=1) == [4]
        assert await sids("a@x.lit") == [1, 2]
        assert await sids(domain="x.lit") == [1, 2, 3]
        assert await sids(node="c2s-1") == [2, 4]
        assert await sids("a@x.lit", "x.lit", "c2s-1") == [2]
        assert await sids("c@x.lit") == []
        assert [row.sid for row in await sessions.find(conn, "a@x.lit")] == [1, 2]
        counts = await sessions.count_by_node(conn)
        assert sorted(counts) == sorted((row.node, row.shard, 1) for row in rows)
