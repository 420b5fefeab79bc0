"""Devices and their tokens in a real PostgreSQL (storage/devices.py)."""

from __future__ import annotations

from storage import accounts, devices, erasures
from storage.devices import MOST, Device, Token
from storage.rows import Connection
from tests.support.database import asynchronous, connected

JULIET = "juliet@example.com"
PHONE, LAPTOP = b"p" * 16, b"l" * 16
FAR = 4e9


def token(name: str, expires_at: float = FAR) -> Token:
    return Token(name, "HT-SHA-256-NONE", expires_at)


async def account(conn: Connection, jid: str = JULIET) -> int:
    key = await accounts.create(conn, jid, 7, ())
    assert key is not None
    return key


async def slots(conn: Connection, device: bytes = PHONE) -> tuple[str | None, str | None]:
    """The names of the current and of the new token."""
    found = (await devices.tokens(conn, [(JULIET, device)])).get((JULIET, device))
    assert found is not None
    current, new = (slot.token if slot is not None else None for slot in (found.current, found.new))
    return current, new


async def listed(conn: Connection, key: int) -> list[Device]:
    return await devices.list_(conn, key)


@asynchronous
async def test_a_new_token_takes_the_place_of_the_last_that_was_not_used(database: str) -> None:
    """XEP-0484, 6.1."""
    async with connected(database) as conn:
        key = await account(conn)
        assert (await devices.tokens(conn, [(JULIET, PHONE)])).get((JULIET, PHONE)) is None
        for name in ("one", "two"):
            await devices.give(conn, key, PHONE, "Gajim", "phone", token(name))
        assert await slots(conn) == (None, "two")
        for _ in range(2):
            await devices.used_new(conn, key, PHONE, "two")
        await devices.used_new(conn, key, PHONE, "one")
        assert await slots(conn) == ("two", None)
        await devices.give(conn, key, PHONE, "Gajim", "phone", token("three"))
        assert await slots(conn) == ("two", "three")
        found = (await devices.tokens(conn, [(JULIET, PHONE)])).get((JULIET, PHONE))
        assert found is not None
        assert (found.key, found.enabled, found.new) == (key, True, token("three"))
        assert (await devices.tokens(conn, [(JULIET, LAPTOP)])).get((JULIET, LAPTOP)) is None


@asynchronous
async def test_tokens_are_void_for_one_device_or_for_all_others(database: str) -> None:
    async with connected(database) as conn:
        key = await account(conn)
        for device in (PHONE, LAPTOP):
            await devices.give(conn, key, device, "", "", token("t"))
        await devices.invalidate_all(conn, key, PHONE)
        assert (await slots(conn), await slots(conn, LAPTOP)) == ((None, "t"), (None, None))
        await devices.invalidate(conn, key, PHONE)
        assert await slots(conn) == (None, None)


@asynchronous
async def test_who_was_seen_is_listed_and_may_be_forgotten(database: str) -> None:
    async with connected(database) as conn:
        key = await account(conn)
        for _ in range(2):
            await devices.seen(conn, key, PHONE, "Gajim", "phone", "192.0.0.0/16", 1e9, True)
            await devices.seen(conn, key, PHONE, "Gajim 2", "phone", "192.1.0.0/16", 1e9 + 9, False)
        await devices.give(conn, key, PHONE, "Gajim 2", "phone", token("t", 1e9))
        await devices.seen(conn, key, LAPTOP, "Dino", "", "", 1e9 + 99, False)
        await devices.give(conn, key, LAPTOP, "Dino", "", token("t"))
        assert await listed(conn, key) == [
            Device(LAPTOP, "Dino", "", "", 1e9 + 99, 1e9 + 99, False, True),
            Device(PHONE, "Gajim 2", "phone", "192.1.0.0/16", 1e9, 1e9 + 9, True, False),
        ]
        for _ in range(2):
            await devices.forget(conn, key, LAPTOP)
        assert [device.device for device in await listed(conn, key)] == [PHONE]


@asynchronous
async def test_of_too_many_whoever_was_not_seen_for_longest_is_forgotten(database: str) -> None:
    async with connected(database) as conn:
        key, other = await account(conn), await account(conn, "romeo@example.com")
        await devices.seen(conn, other, PHONE, "", "", "", 1.0, False)
        for number in range(MOST + 3):
            await devices.seen(conn, key, bytes([number]) * 16, "", "", "", 1e9 + number, False)
        known = [device.device[0] for device in await listed(conn, key)]
        assert known == list(range(MOST + 2, 2, -1))
        assert len(await listed(conn, other)) == 1


@asynchronous
async def test_with_an_account_its_devices_go(database: str) -> None:
    async with connected(database) as conn:
        key = await account(conn)
        await devices.seen(conn, key, PHONE, "", "", "", 1e9, False)
        await erasures.begin(conn, 1, JULIET, 7, False, "user", 0.0)
        assert await listed(conn, key) == []
        await devices.seen(conn, key, PHONE, "", "", "", 1e9, False)
        await devices.give(conn, key, PHONE, "", "", token("t"))
        assert await listed(conn, key) == [], "nobody comes back by a late write"
