"""Tokens of the administration API and its audit log, in a real database."""

from __future__ import annotations

import time

from storage import api_tokens, audit
from tests.support.database import asynchronous, connected


@asynchronous
async def test_a_token_is_found_by_its_hash_until_it_is_revoked(database: str) -> None:
    async with connected(database) as conn:
        made = await api_tokens.create(conn, "ci", b"h1", ["users:read"], "admin.token", None)
        assert made is not None
        assert (made.name, made.scopes, made.expires_at, made.used_at) == ("ci", ["users:read"], None, None)
        assert await api_tokens.create(conn, "ci", b"h2", ["users:read"], "admin.token", None) is None
        assert await api_tokens.use(conn, b"h2") is None
        assert (await api_tokens.use(conn, b"h1")) == made
        (used,) = await api_tokens.list_(conn, "", 10)
        assert used.used_at is not None
        assert used.used_at % 3600 == 0
        assert await api_tokens.revoke(conn, "ci")
        assert not await api_tokens.revoke(conn, "ci")
        assert await api_tokens.use(conn, b"h1") is None


@asynchronous
async def test_a_token_is_of_no_use_after_its_time(database: str) -> None:
    async with connected(database) as conn:
        await api_tokens.create(conn, "old", b"h", ["users:read"], "admin.token", -1.0)
        assert await api_tokens.use(conn, b"h") is None
        (known,) = await api_tokens.list_(conn, "", 10)
        assert known.is_expired


@asynchronous
async def test_who_is_erased_is_not_named_any_more(database: str) -> None:
    async with connected(database) as conn:
        kept = [
            ("ci", "user add", "ann@b.example"),
            ("ci", "user add", "a@b.example.org"),
            ("ci", "user add", "xa@b.example"),
        ]
        gone = [("ci", "user del", "a@b.example"), ("ci", "session kick", "a@b.example/phone"),
                ("ci", "room affiliation", "room@c.example a@b.example")]  # fmt: skip
        for who, command, target in (*kept, *gone):
            await audit.end(conn, await audit.begin(conn, who, "", command, target), f"404: {target} does not exist")
        await audit.begin(conn, "a@b.example", "", "user ban", "ann@b.example")
        await audit.forget(conn, "a@b.example", "erasure 7")
        newest, *others = await audit.list_(conn, 0.0, "", "", 2**63 - 1, 10)
        assert (newest.who, newest.target) == ("erasure 7", "ann@b.example")
        found = [(deed.who, deed.command, deed.target, deed.outcome) for deed in reversed(others)]
        assert found == [
            *((who, command, target, f"404: {target} does not exist") for who, command, target in kept),
            *((who, command, "erasure 7", "404") for who, command, _ in gone),
        ]


@asynchronous
async def test_deeds_are_listed_newest_first_and_go_when_they_are_old(database: str) -> None:
    async with connected(database) as conn:
        first = await audit.begin(conn, "ci", "127.0.0.1", "user add", "a@b")
        second = await audit.begin(conn, "boss@b", "", "user del", "a@b")
        await audit.end(conn, first, "done")
        await audit.add(conn, time.time() - 40 * 86_400, "ci", "", "cluster drain", "c2s-0", "done")
        found = await audit.list_(conn, 0.0, "", "", 2**63 - 1, 10)
        assert [deed.command for deed in found] == ["cluster drain", "user del", "user add"]
        assert [deed.outcome for deed in found] == ["done", None, "done"]
        assert [deed.id for deed in await audit.list_(conn, 0.0, "", "a@", second, 10)] == [first]
        assert [deed.id for deed in await audit.list_(conn, 0.0, "boss@b", "", 2**63 - 1, 10)] == [second]
        assert len(await audit.list_(conn, time.time() - 3_600, "", "", 2**63 - 1, 10)) == 2
        await audit.prune(conn, 30)
        assert len(await audit.list_(conn, 0.0, "", "", 2**63 - 1, 10)) == 2
