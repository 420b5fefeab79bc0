"""Requests for another process (c2s/http/relay.py, router/relaying.py): both ends, and the router between them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from c2s.http.relay import Relay
from cluster.membership import Peer
from cluster.wire import RELAY, Envelope, Incarnation, mark_of
from router.relaying import Relaying

ROUTER = Incarnation("router-0#00000000000000aa")
HERE, THERE = Incarnation("c2s-0#0000000000000001"), Incarnation("c2s-1#0000000000000002")
S2S = Incarnation("s2s-0#0000000000000003")


class World:
    """Two c2s and an s2s, linked to one router; envelopes arrive at once."""

    def __init__(self) -> None:
        self.ends: dict[Incarnation, Relay] = {}
        roles = {HERE: "c2s", THERE: "c2s", S2S: "s2s"}
        self.peers = {name: Peer(name, role, "", 0.0) for name, role in roles.items()}
        self.relaying = Relaying(self._to_edge, lambda: self.peers)
        self.routers = {ROUTER}
        for name in (HERE, THERE):
            self.ends[name] = Relay(self._to_router(name), lambda: self.routers)
        self.answers: list[Callable[[bytes | None], None]] = []
        self.asked: list[tuple[bytes, str, bool]] = []
        self.ends[THERE].handler = self._handle

    def _to_router(self, name: Incarnation) -> Callable[[Incarnation, Envelope], bool]:
        def send(to: Incarnation, envelope: Envelope) -> bool:
            assert envelope[0] == RELAY
            self.relaying.relay(name, *envelope[1:])
            return True

        return send

    def _to_edge(self, to: Incarnation, envelope: Envelope) -> bool:
        if to not in self.peers:
            return False
        self.ends[to].receive(*envelope[1:])
        return True

    def _handle(self, raw: bytes, address: str, is_secure: bool, answer: Callable[[bytes | None], None]) -> None:
        self.asked.append((raw, address, is_secure))
        self.answers.append(answer)

    def ask(self, mark: str = mark_of(THERE)) -> Awaitable[tuple[bool, bytes | None]]:
        return self.ends[HERE].ask(mark, b"<body/>", "192.0.2.1", True, 60.0)


async def begun(awaitable: Awaitable[Any]) -> asyncio.Task[Any]:
    task = asyncio.ensure_future(awaitable)
    await asyncio.sleep(0)
    return task


def run(test: Callable[[World], Awaitable[None]]) -> None:
    async def body() -> None:
        async with asyncio.timeout(5):
            await test(World())

    asyncio.run(body())


def test_the_answer_comes_back_whenever_it_is_there() -> None:
    async def test(world: World) -> None:
        first, second = await begun(world.ask()), await begun(world.ask())
        assert world.asked == [(b"<body/>", "192.0.2.1", True)] * 2
        world.answers[1](b"two")
        world.answers[0](None)
        assert await second == (True, b"two")
        assert await first == (True, None)

    run(test)


def test_a_process_that_is_gone_or_is_no_c2s_has_no_sessions() -> None:
    async def test(world: World) -> None:
        assert await world.ask(mark_of(S2S)) == (False, None)
        assert await world.ask("f" * 16) == (False, None)
        waiting = await begun(world.ask())
        del world.peers[THERE]
        world.relaying.gone(THERE)
        assert await waiting == (False, None), "it ended in the meantime"
        world.answers[0](b"late")

    run(test)


def test_where_no_router_is_reached_the_client_has_to_ask_again() -> None:
    async def test(world: World) -> None:
        waiting = await begun(world.ask())
        world.ends[HERE].router_lost(ROUTER)
        assert await waiting == (True, None)
        world.routers.clear()
        assert await world.ask() == (True, None)

    run(test)


def test_nobody_answers_for_another_one() -> None:
    async def test(world: World) -> None:
        waiting = await begun(world.ask())
        (request,) = world.ends[HERE]._asked
        mallory = mark_of(S2S)
        world.ends[HERE].receive(mallory, request, ("answer", b"forged"))
        world.ends[HERE].receive(mallory, "", ("gone",))
        assert not waiting.done()
        world.answers[0](b"true")
        assert await waiting == (True, b"true")

    run(test)
