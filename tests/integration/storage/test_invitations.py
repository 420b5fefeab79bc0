"""Invitations in the database (storage/invitations.py): a use is taken once, whoever asks at the same time."""

from __future__ import annotations

import asyncio

from cluster.shards import shard_of
from storage import accounts, invitations, rosters
from storage.invitations import Draft
from storage.rows import Connection
from tests.support.database import asynchronous, connected

ROMEO, JULIET, NURSE = "romeo@x.lit", "juliet@x.lit", "nurse@x.lit"


def draft(uses: int = 1, expires_s: float | None = 60.0, jid: str = "", maker: str = ROMEO) -> Draft:
    return Draft("account", "x.lit", maker, jid, ROMEO, uses, expires_s)


async def made(conn: Connection, hash: bytes = b"h", wanted: Draft | None = None) -> None:
    await invitations.create(conn, hash, wanted or draft())
    await invitations.create(conn, hash, wanted or draft())  # repeated, as an unknown outcome is


async def age(conn: Connection, seconds: int) -> None:
    await conn.execute(
        "update invitations set pending_at = pending_at - make_interval(secs => %(s)s),"
        " created_at = created_at - make_interval(secs => %(s)s), expires_at = expires_at - make_interval(secs => %(s)s)",
        {"s": seconds},
    )


@asynchronous
async def test_an_invitation_keeps_every_field(database: str) -> None:
    async with connected(database) as conn:
        await made(conn, wanted=draft(3, None, JULIET))
        found = await invitations.find(conn, b"h")
        assert found is not None
        assert found[1:8] == ("account", "x.lit", ROMEO, JULIET, ROMEO, 3, 0)
        assert (found.expires_at, found.is_expired, found.is_open) == (None, False, True)
        assert await invitations.list_(conn, "x.lit", 0, 10) == [found] == await invitations.list_(conn, "", 0, 10)
        assert await invitations.list_(conn, "y.lit", 0, 10) == await invitations.list_(conn, "", found.id, 10) == []
        assert await invitations.find(conn, b"other") is None
        assert await invitations.revoke(conn, found.id)
        assert not await invitations.revoke(conn, found.id)
        assert await invitations.find(conn, b"h") is None


@asynchronous
async def test_of_many_at_once_as_many_get_a_use_as_there_are(database: str) -> None:
    async with connected(database) as conn:
        await made(conn, wanted=draft(3))

    async def claim(number: int) -> bool:
        async with connected(database) as own:
            return await invitations.claim(own, b"h", f"u{number}@x.lit") is not None

    assert sum(await asyncio.gather(*(claim(number) for number in range(12)))) == 3


@asynchronous
async def test_a_claim_is_used_when_it_is_confirmed_and_free_when_it_is_released(database: str) -> None:
    async with connected(database) as conn:
        await made(conn)
        assert await invitations.claim(conn, b"h", JULIET) is not None
        assert await invitations.claim(conn, b"h", JULIET) is not None, "the same again"
        assert await invitations.claim(conn, b"h", NURSE) is None
        found = await invitations.find(conn, b"h")
        assert found is not None
        assert not found.is_used_up, "nobody has an account yet"
        await invitations.release(conn, b"h", JULIET)
        assert await invitations.claim(conn, b"h", NURSE) is not None
        for _ in range(2):
            await invitations.confirm(conn, b"h", NURSE)
        found = await invitations.find(conn, b"h")
        assert found is not None
        assert (found.used, found.is_used_up) == (1, True)
        assert await invitations.claim(conn, b"h", NURSE) is None
        assert await invitations.claim(conn, b"h", JULIET) is None


@asynchronous
async def test_what_was_claimed_and_forgotten_is_free_after_a_minute(database: str) -> None:
    async with connected(database) as conn:
        await made(conn, wanted=draft(expires_s=3_600))
        assert await invitations.claim(conn, b"h", JULIET) is not None
        await age(conn, 50)
        assert await invitations.claim(conn, b"h", NURSE) is None
        await age(conn, 20)
        assert await invitations.claim(conn, b"h", NURSE) is not None


@asynchronous
async def test_who_was_admitted_in_time_may_be_late(database: str) -> None:
    """XEP-0445, 3."""
    async with connected(database) as conn:
        await made(conn)
        await age(conn, 61)
        found = await invitations.find(conn, b"h")
        assert found is not None
        assert found.is_expired
        assert await invitations.claim(conn, b"h", JULIET) is None
        assert await invitations.claim(conn, b"h", JULIET, True) is not None


@asynchronous
async def test_names_are_reserved_and_invitations_counted_while_they_are_open(database: str) -> None:
    async with connected(database) as conn:
        await made(conn, wanted=draft(jid=JULIET))
        await made(conn, b"i", draft(maker=""))
        assert await invitations.is_reserved(conn, JULIET)
        assert not await invitations.is_reserved(conn, NURSE)
        assert await invitations.count_open(conn, ROMEO) == 1
        await invitations.confirm(conn, b"h", JULIET)
        assert not await invitations.is_reserved(conn, JULIET)
        assert await invitations.count_open(conn, ROMEO) == 0
        await made(conn, b"j", draft(jid=NURSE))
        await age(conn, 61)
        assert not await invitations.is_reserved(conn, NURSE)


@asynchronous
async def test_what_is_of_no_use_goes_in_time_and_with_its_account(database: str) -> None:
    async with connected(database) as conn:
        await made(conn)
        await made(conn, b"i", draft(expires_s=None, maker=NURSE)._replace(contact=""))
        await made(conn, b"j", Draft("reset", "x.lit", "", NURSE, "", 1, None))
        await age(conn, 29 * 86_400)
        await invitations.prune(conn)
        assert await invitations.find(conn, b"h") is not None
        await age(conn, 2 * 86_400)
        await invitations.prune(conn)
        assert await invitations.find(conn, b"h") is None
        assert await invitations.find(conn, b"i") is not None, "it never expires"
        await invitations.forget(conn, NURSE)
        assert await invitations.list_(conn, "", 0, 10) == []


@asynchronous
async def test_inviters_are_told_of_who_has_an_account_if_nobody_has_in_a_minute(database: str) -> None:
    async with connected(database) as conn:
        await made(conn, wanted=draft(3, 3_600))
        await accounts.create(conn, JULIET, shard_of(JULIET), [])
        for jid in (JULIET, NURSE):  # the nurse has no account (any more)
            assert await invitations.claim(conn, b"h", jid) is not None
            await invitations.confirm(conn, b"h", jid)
        assert await invitations.untold(conn, 10) == [], "somebody is about to"
        await age(conn, 61)
        assert await invitations.untold(conn, 10) == [(ROMEO, JULIET)]
        for _ in range(2):
            await invitations.tell(conn, ROMEO, JULIET)
        assert await invitations.untold(conn, 10) == []


@asynchronous
async def test_a_new_account_has_a_contact_from_the_start(database: str) -> None:
    async with connected(database) as conn:
        for jid in (ROMEO, JULIET):
            await accounts.create(conn, jid, shard_of(jid), [])
        for _ in range(2):
            await rosters.add_mutual(conn, JULIET, ROMEO)
        account = await accounts.find(conn, JULIET)
        assert account is not None
        (item,) = (await rosters.load(conn, [account.key]))[account.key]
        assert (item.jid, item.subscription, item.in_roster, item.version) == (
            ROMEO,
            "both",
            True,
            account.roster_version,
        )
