"""The keys of a provider (router/backends/jwks.py): new ones are found, old ones are kept while it is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from router.backends.backend import Away
from router.backends.jwks import Key, KeySet


class World:
    """A provider, a clock, and what this router keeps."""

    def __init__(self, *kids: str) -> None:
        self.kids = kids
        self.now = 1_000.0
        self.fetches = 0
        self.is_away = False
        self.keys = KeySet(self.fetch, lambda: self.now, refetch_s=10, refresh_s=100, keep_s=1_000)

    async def fetch(self) -> list[Key]:
        self.fetches += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise Away("away")
        return [{"kid": kid} for kid in self.kids]

    async def finds(self, kid: str | None) -> bool:
        return bool(await self.keys.named(kid))


def played(conversation: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        world = World("one")
        await conversation(world)
        await world.keys.stop()

    asyncio.run(run())


def test_keys_are_fetched_once_and_used_again() -> None:
    async def conversation(world: World) -> None:
        assert [await world.finds("one") for _ in range(3)] == [True] * 3
        assert await world.finds(None)
        assert world.fetches == 1

    played(conversation)


def test_all_who_come_at_once_wait_for_one_fetch() -> None:
    async def conversation(world: World) -> None:
        assert await asyncio.gather(*(world.finds("one") for _ in range(20))) == [True] * 20
        assert world.fetches == 1

    played(conversation)


def test_a_key_that_is_not_known_is_looked_for_but_not_all_the_time() -> None:
    async def conversation(world: World) -> None:
        assert await world.finds("one")
        world.kids = ("two",)
        assert not await world.finds("two"), "just fetched"
        world.now += 10
        assert await world.finds("two")
        assert not await world.finds("one"), "the provider has taken it back"
        world.now += 9
        for n in range(50):
            assert not await world.finds(f"made-up-{n}")
        assert world.fetches == 2

    played(conversation)


def test_what_is_old_is_fetched_again_while_nobody_waits() -> None:
    async def conversation(world: World) -> None:
        assert await world.finds("one")
        world.kids = ("one", "two")
        world.now += 100
        assert await world.finds("one")
        assert world.fetches == 1
        for _ in range(5):
            await asyncio.sleep(0)
        assert world.fetches == 2
        assert await world.finds("two")
        assert world.fetches == 2

    played(conversation)


def test_while_the_provider_is_away_its_keys_are_good_until_they_are_too_old() -> None:
    async def conversation(world: World) -> None:
        assert await world.finds("one")
        world.is_away = True
        world.now += 900
        assert await world.finds("one")
        for _ in range(5):
            await asyncio.sleep(0)
        assert await world.finds("one")
        with pytest.raises(Away):  # it may be a new one, which nobody can know
            await world.finds("two")
        world.now += 101
        with pytest.raises(Away):
            await world.finds("one")
        world.is_away = False
        world.now += 10
        assert await world.finds("one")
        assert not await world.finds("two")

    played(conversation)


def test_a_provider_that_was_never_there_says_nothing() -> None:
    async def conversation(world: World) -> None:
        world.is_away = True
        for _ in range(3):
            with pytest.raises(Away):
                await world.finds("one")
        assert world.fetches == 1
        world.is_away = False
        world.now += 10
        assert await world.finds("one")

    played(conversation)


def test_one_who_waits_no_longer_ends_no_fetch() -> None:
    async def conversation(world: World) -> None:
        task = asyncio.ensure_future(world.finds("one"))
        await asyncio.sleep(0)
        task.cancel()
        assert await world.finds("one")
        assert world.fetches == 1

    played(conversation)
