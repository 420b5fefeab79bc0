"""A captured edge cannot do by a call what operators do (router/calls.py)."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from cluster.shards import ShardMap
from cluster.wire import ANSWER, Incarnation
from router.calls import Calls, Passwords
from router.nobodies import Nobodies
from router.owner import Effects
from router.registration import Registration
from storage.store import Store

EDGE, ROUTER = Incarnation("c2s-0#1"), Incarnation("router-0#1")


class World:
    """What is sent, and what the registration is asked."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.passwords: list[tuple[str, str]] = []

    def send(self, to: Incarnation, envelope: tuple[Any, ...]) -> bool:
        self.sent.append(envelope)
        return True

    async def set_password(self, bare: str, password: str) -> None:
        self.passwords.append((bare, password))

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


def play(method: str, is_router: bool) -> World:
    world = World()

    async def conversation() -> None:
        calls = Calls(
            cast(Store, world), cast(Effects, world), Passwords(), cast(Registration, world), {},
            Nobodies(b"secret", 4_096), ShardMap(), ROUTER, {"peers.retry": lambda domain: True},
        )  # fmt: skip
        calls.receive(EDGE, "r", method, ("admin@example.com", "taken"), is_router)
        async with asyncio.timeout(5):
            while not world.sent:  # noqa: ASYNC110  # a task of the calls' own sends it
                await asyncio.sleep(0)

    asyncio.run(conversation())
    return world


@pytest.mark.parametrize(
    "method", ["admin.password", "admin.create", "rooms.destroy", "peers.retry", "auth", "nodes.forget"]
)
def test_an_edge_is_refused(method: str) -> None:
    world = play(method, is_router=False)
    if method == "auth":  # a kind of methods, and none itself
        assert world.sent == [(ANSWER, "r", False, "feature-not-implemented")]
    else:
        assert world.sent == [(ANSWER, "r", False, "forbidden")]
    assert world.passwords == []


def test_a_router_may() -> None:
    world = play("admin.password", is_router=True)
    assert world.sent == [(ANSWER, "r", True, None)]
    assert world.passwords == [("admin@example.com", "taken")]
