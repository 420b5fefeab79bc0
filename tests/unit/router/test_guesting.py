"""Guests come, and those that never got a session go (router/guesting.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.shards import SHARDS, shard_of
from router.calls import CallError
from router.guesting import Guesting
from router.owner import Owner
from router.registration import Registration
from router.settings import Guests, Settings
from router.turn import Turn
from storage import guests
from storage.guests import Count
from storage.store import Store

DOMAIN = "guest.example.com"
NEW = f"4f2a@{DOMAIN}"


class World:
    """Database, owner and registration, as far as guests need them."""

    def __init__(self, sessions: int = 1_000, per_address: int = 10) -> None:
        self.there = Count(0, 0)
        self.counted: list[tuple[Any, ...]] = []
        self.admitted: list[tuple[str, tuple[Any, ...]]] = []
        self.forsaken: list[str] = []
        self.ended: list[str] = []
        self.settings = Settings(guests={DOMAIN: Guests(sessions, per_address)})
        self.tenures: list[int | None] = [1] * SHARDS
        self.guesting = Guesting(cast(Store, self), cast(Owner, self), cast(Registration, self), 30.0)

    async def run(self, statement: object, *arguments: Any) -> Any:
        if statement is guests.count:
            self.counted.append(arguments)
            return self.there
        assert statement is guests.forsaken
        assert arguments == (40.0,)
        return self.forsaken

    async def admit(self, bare: str, also: Callable[[Turn], None]) -> None:
        def write(statement: object, *values: Any) -> None:
            assert statement is guests.add
            self.admitted.append((bare, values))

        also(cast(Turn, SimpleNamespace(write=write)))

    async def command(self, bare: str, run: Callable[[Turn], None]) -> None:
        self.ended.append(bare)

    def come(self, bare: str = NEW, network: str = "192.0.2.1") -> bool:
        return asyncio.run(self.guesting.admit(bare, network))


def test_whoever_comes_gets_an_account_of_that_name() -> None:
    world = World()
    assert world.come()
    assert world.admitted == [(NEW, (NEW, "192.0.2.1"))]
    assert world.counted == [(DOMAIN, "192.0.2.1", NEW)]


@pytest.mark.parametrize(
    ("there", "limits", "is_let_in"),
    [
        (Count(9, 0), {"sessions": 10}, True),
        (Count(10, 0), {"sessions": 10}, False),
        (Count(5, 2), {"per_address": 3}, True),
        (Count(5, 3), {"per_address": 3}, False),
        (Count(500, 500), {"per_address": 0}, True),
    ],
)
def test_there_are_limits(there: Count, limits: dict[str, int], is_let_in: bool) -> None:
    world = World(**limits)
    world.there = there
    if is_let_in:
        assert world.come()
        return
    with pytest.raises(CallError) as refused:
        world.come()
    assert refused.value.condition == "temporary-auth-failure", "it is no try (RFC 6120, 6.5.11)"
    assert "too many guests" in refused.value.text
    assert world.admitted == []


def test_other_domains_have_no_guests() -> None:
    world = World()
    with pytest.raises(CallError):
        world.come("4f2a@example.com")
    assert world.admitted == []


def test_who_never_got_a_session_ends_by_the_owner_of_the_shard() -> None:
    world = World()
    world.forsaken = [NEW, f"9c01@{DOMAIN}"]
    world.tenures[shard_of(NEW)] = None
    asyncio.run(world.guesting.look())
    assert world.ended == [f"9c01@{DOMAIN}"]
