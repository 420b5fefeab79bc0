"""Real buses (cluster/bus.py) over ipc:// and over tcp:// with CURVE: what arrives, who is let in, what is survived."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgpack
import pytest
import uvloop
import zmq
from prometheus_client import REGISTRY

from cluster.bus import Bus, ipc_address
from cluster.config import load
from cluster.keys import generate
from cluster.link import WINDOW_FRAMES
from cluster.membership import PeerDown, PeerUp
from cluster.wire import (
    ARITY,
    CONFIRMED,
    DELIVER,
    GOODBYE,
    HELLO,
    MAP,
    NO_ACK,
    SUBMIT,
    WELCOME,
    WIRE_VERSION,
    Envelope,
    Incarnation,
    pack_frame,
)
from tests.support.bus import Node, Peer, Proxy, Wires, keys, linked, proxied, rejected, running, tcp, until
from xmpp.stanza import message

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a scenario to its end, on each event loop."""

    def start(scenario: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if request.param == "uvloop" else None) as runner:
            runner.run(scenario)

    return start


@pytest.fixture(params=["ipc", "tcp"])
def wires(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Wires:
    return Wires(request.param, tmp_path_factory.mktemp("bus"))


@pytest.fixture
def ipc(tmp_path_factory: pytest.TempPathFactory) -> Wires:
    return Wires("ipc", tmp_path_factory.mktemp("bus"))


@pytest.fixture
def curve(tmp_path_factory: pytest.TempPathFactory) -> Wires:
    return Wires("tcp", tmp_path_factory.mktemp("bus"))


def submit(item: int | str) -> Envelope:
    """What an edge may send."""
    return (SUBMIT, 1, 2, 3, 4, 5, 6, item)


def confirmed(item: int) -> Envelope:
    """What a router may send."""
    return (CONFIRMED, 1, 2, 3, 4, item)


# --- what is sent arrives


def test_envelopes_arrive_in_order_and_once_both_ways(run: Run, wires: Wires) -> None:
    async def scenario() -> None:
        router, edge = wires.node("router-0", "router"), wires.node("c2s-0", "c2s")
        async with linked(router, edge):
            assert router.events == [PeerUp(edge.incarnation, "c2s", edge.bus.address)]
            assert edge.events == [PeerUp(router.incarnation, "router", router.bus.address)]
            for item in range(300):
                assert edge.bus.send(router.incarnation, submit(item))
                assert router.bus.send(edge.incarnation, confirmed(item))
                if item % 7 == 0:
                    await asyncio.sleep(0)  # so that frames are many and of many sizes
            await until(lambda: len(router.received) >= 300 and len(edge.received) >= 300, "all is there")
            assert router.received == [(edge.incarnation, submit(item)) for item in range(300)]
            assert edge.received == [(router.incarnation, confirmed(item)) for item in range(300)]
            for node, role in ((router, "c2s"), (edge, "router")):
                await until(
                    lambda node=node, role=role: (  # type: ignore[misc]  # mypy has no type for a lambda's default
                        node.sample("stentor_bus_unacknowledged_envelopes", peer_role=role) == 0
                    ),
                    "all is acknowledged",
                )
                assert node.sample("stentor_bus_envelopes_total", direction="in", peer_role=role) == 300
                assert node.sample("stentor_bus_envelopes_total", direction="out", peer_role=role) == 300
                assert node.sample("stentor_bus_links", peer_role=role, state="up") == 1

    run(scenario())


def test_a_stanza_arrives_as_it_was(run: Run, wires: Wires) -> None:
    async def scenario() -> None:
        router, edge = wires.node("router-0", "router"), wires.node("c2s-0", "c2s")
        stanza = message(to="a@b", from_="c@d/\u00e9", id="1", inner="<body>\u20ac</body>".encode())
        async with linked(router, edge):
            router.bus.send(edge.incarnation, (DELIVER, ((1, 2, 3, 4, 5, None),), stanza))
            await until(lambda: edge.received != [], "it is there")
            assert edge.received == [(router.incarnation, (DELIVER, ((1, 2, 3, 4, 5, None),), stanza))]

    run(scenario())


def test_ten_thousand_envelopes_of_one_moment_arrive(run: Run, wires: Wires) -> None:
    async def scenario() -> None:
        router, edge = wires.node("router-0", "router"), wires.node("c2s-0", "c2s")
        async with linked(router, edge):
            for item in range(10_000):
                edge.bus.send(router.incarnation, submit(item))
            await until(lambda: len(router.received) >= 10_000, "all is there")
            assert router.got(edge) == list(range(10_000))

    run(scenario())


def test_great_envelopes_arrive(run: Run, wires: Wires) -> None:
    async def scenario() -> None:
        router, edge = wires.node("router-0", "router"), wires.node("c2s-0", "c2s")
        pieces = [bytes([item]) * 1_000_000 for item in range(10)]
        async with linked(router, edge):
            for piece in pieces:
                edge.bus.send(router.incarnation, (SUBMIT, 1, 2, 3, 4, 5, piece))
                await asyncio.sleep(0.001)
            await until(lambda: len(router.received) >= len(pieces), "all is there")
            assert router.got(edge) == pieces

    run(scenario())


def test_what_a_process_tells_itself_arrives_and_a_stranger_is_none(run: Run, ipc: Wires) -> None:
    async def scenario() -> None:
        router = ipc.node("router-0", "router")
        async with running(router):
            assert router.bus.send(router.incarnation, (MAP, "mine"))
            assert not router.bus.send(Incarnation("c2s-9#0000000000000009"), confirmed(1))
            assert router.received == [], "not in the middle of the sender's own turn"
            await until(lambda: router.got(router) == ["mine"], "it is there")

    run(scenario())


def test_a_handler_that_fails_takes_nothing_with_it_but_its_frame(run: Run, ipc: Wires) -> None:
    async def scenario() -> None:
        router, edge = ipc.node("router-0", "router"), ipc.node("c2s-0", "c2s")
        async with linked(router, edge):
            edge.bus.send(router.incarnation, submit(1))
            await until(lambda: router.got(edge) == [1], "the first")
            edge.bus.send(router.incarnation, submit("raise"))
            await until(
                lambda: router.sample("stentor_bus_envelopes_total", direction="in", peer_role="c2s") == 2, "came"
            )
            edge.bus.send(router.incarnation, submit(2))
            await until(lambda: router.got(edge) == [1, 2], "the next")

    run(scenario())


def test_routers_that_a_router_names_are_linked_too(run: Run, wires: Wires) -> None:
    async def scenario() -> None:
        first, second, edge = (
            wires.node("router-0", "router"),
            wires.node("router-1", "router"),
            wires.node("c2s-0", "c2s"),
        )
        async with linked(first, edge), running(second):
            first.bus.set_nodes([(n.incarnation, "router", n.bus.address) for n in (first, second)])
            await until(lambda: edge.is_linked(second) and second.is_linked(edge), "the other router")
            edge.bus.send(second.incarnation, submit(1))
            await until(lambda: second.got(edge) == [1], "it is there")

            late = wires.node("c2s-1", "c2s")
            async with running(late):
                late.bus.greet(first.bus.address)
                await until(lambda: late.is_linked(first, second), "who comes later is told too")

    run(scenario())


def test_who_is_greeted_may_come_later(run: Run, wires: Wires) -> None:
    async def scenario() -> None:
        router, edge = wires.node("router-0", "router"), wires.node("c2s-0", "c2s")
        async with running(edge):
            edge.bus.greet(router.bus.address)
            await asyncio.sleep(0)
            async with running(router):
                await until(lambda: edge.is_linked(router) and router.is_linked(edge), "linked")

    run(scenario())


# --- who is there


def test_goodbye_is_told_at_once(run: Run, wires: Wires) -> None:
    async def scenario() -> None:
        router, edge = wires.node("router-0", "router"), wires.node("c2s-0", "c2s")
        async with linked(router, edge):
            edge.bus.send(router.incarnation, submit(1))
            await edge.bus.stop()
            await until(lambda: PeerDown(edge.incarnation, "c2s") in router.events, "down, long before its silence")
            assert router.got(edge) == [1], "what was sent before came before"
            assert router.bus.peers == {}
            assert not router.bus.send(edge.incarnation, confirmed(1))

    run(scenario())


def test_silence_is_death(run: Run, ipc: Wires) -> None:
    async def scenario() -> None:
        router = ipc.node("router-0", "router", dead_after_s=0.5)
        async with running(router):
            with Peer("c2s-0", router) as peer:
                peer.greet("c2s")
                await until(lambda: router.is_linked(peer), "up")
                await until(lambda: router.events[-1] == PeerDown(peer.incarnation, "c2s"), "down")
                seen = rejected("unknown-sender")
                peer.send(1, [submit(1)])
                await until(lambda: rejected("unknown-sender") == seen + 1, "it has to greet first")
                assert router.received == []

    run(scenario())


def test_signs_of_life_keep_an_idle_link(run: Run, wires: Wires) -> None:
    async def scenario() -> None:
        router = wires.node("router-0", "router", dead_after_s=0.6, heartbeat_s=0.1)
        edge = wires.node("c2s-0", "c2s", dead_after_s=0.6, heartbeat_s=0.1)
        async with linked(router, edge):
            idle_since = time.monotonic()
            await until(lambda: time.monotonic() - idle_since > 1.5, "more than twice the time of death")
            assert len(router.events) == len(edge.events) == 1

    run(scenario())


def test_a_restarted_peer_is_linked_anew(run: Run, wires: Wires) -> None:
    async def scenario() -> None:
        router, edge = wires.node("router-0", "router"), wires.node("c2s-0", "c2s")
        async with linked(router, edge):
            edge.bus.send(router.incarnation, submit(1))
            await until(lambda: router.got(edge) == [1], "the first run is heard")
            await edge.bus.stop()
            successor = wires.node("c2s-0", "c2s", edge.bus.address, run=2)
            async with running(successor):
                successor.bus.greet(router.bus.address)
                await until(lambda: router.is_linked(successor) and successor.is_linked(router), "linked anew")
                assert router.events[1:] == [
                    PeerDown(edge.incarnation, "c2s"),
                    PeerUp(successor.incarnation, "c2s", edge.bus.address),
                ]
                for item in range(50):
                    successor.bus.send(router.incarnation, submit(item))
                    router.bus.send(successor.incarnation, confirmed(item))
                await until(lambda: len(router.got(successor)) == len(successor.received) == 50, "both ways")
                assert router.got(successor) == successor.got(router) == list(range(50))

    run(scenario())


def test_a_restarted_router_is_found_by_its_edges(run: Run, wires: Wires) -> None:
    async def scenario() -> None:
        router, edge = wires.node("router-0", "router"), wires.node("c2s-0", "c2s")
        async with linked(router, edge):
            await router.bus.stop()
            await until(lambda: edge.events[-1] == PeerDown(router.incarnation, "router"), "down")
            successor = wires.node("router-0", "router", router.bus.address, run=2)
            async with running(successor):
                await until(lambda: edge.is_linked(successor) and successor.is_linked(edge), "linked anew")
                edge.bus.send(successor.incarnation, submit(1))
                await until(lambda: successor.got(edge) == [1], "it is there")

    run(scenario())


def test_a_successor_replaces_a_run_that_died_without_a_word(run: Run, curve: Wires) -> None:
    async def scenario() -> None:
        at = tcp()
        proxy = Proxy(at)
        router = curve.node("router-0", "router", at, advertise=proxy.address)
        edge = curve.node("c2s-0", "c2s")
        async with proxied(proxy), linked(router, edge):
            await proxy.cut()
            await edge.bus.stop()  # nobody hears its goodbye
            await proxy.heal()
            assert router.is_linked(edge)
            successor = curve.node("c2s-0", "c2s", edge.bus.address, run=2)
            async with running(successor):
                successor.bus.greet(router.bus.address)
                await until(lambda: router.is_linked(successor), "linked anew")
                assert [type(event) for event in router.events] == [PeerUp, PeerDown, PeerUp]
                assert router.events[1] == PeerDown(edge.incarnation, "c2s")

    run(scenario())


def test_a_peer_that_could_not_be_reached_is_found_soon_after_it_can(run: Run, curve: Wires) -> None:
    # Packets vanish, and the kernel waits ever longer before it asks again whether a connection can be made.
    async def scenario() -> None:
        at = tcp()
        proxy = Proxy(at)
        router, edge = curve.node("router-0", "router", at, advertise=proxy.address), curve.node("c2s-0", "c2s")
        proxy.swallow()
        async with running(router, edge):
            edge.bus.greet(router.bus.address)
            await asyncio.sleep(7.5)  # Linux asks 7 s after the beginning, and then not before 11 s
            assert not edge.is_linked(router)
            async with proxied(proxy):
                await until(lambda: edge.is_linked(router), "linked", 2.5)

    run(scenario())


def test_a_late_goodbye_of_the_former_run_does_not_touch_its_successor(run: Run, wires: Wires) -> None:
    async def scenario() -> None:
        router = wires.node("router-0", "router")
        async with running(router):
            with Peer("c2s-0", router, wires.keys("c2s")) as old, Peer("c2s-0", router, wires.keys("c2s")) as new:
                old.greet("c2s")
                await until(lambda: router.is_linked(old), "the first run")
                new.greet("c2s")
                await until(lambda: router.is_linked(new), "its successor")
                old.greet("c2s", kind=GOODBYE)
                seen = rejected("unknown-sender")
                old.send(1, [submit("late")])
                await until(lambda: rejected("unknown-sender") == seen + 1, "the late words were read")
                new.send(1, [submit(1)])
                await until(lambda: router.got(new) == [1], "the successor is heard")
                assert router.got(old) == []
                assert [type(event) for event in router.events] == [PeerUp, PeerDown, PeerUp]

    run(scenario())


def test_a_peer_that_was_silent_for_long_may_go_on_where_it_was(run: Run, ipc: Wires) -> None:
    # It heard this process all the time, so it believes the link unbroken; its next frame is not number 1.
    async def scenario() -> None:
        router = ipc.node("router-0", "router", dead_after_s=0.05)
        async with running(router):
            with Peer("c2s-0", router) as peer:
                peer.greet("c2s")
                peer.send(1, [submit(1)])
                await until(lambda: router.got(peer) == [1], "heard")
                await until(
                    lambda: router.sample("stentor_bus_links", peer_role="c2s", state="down") == 1, "believed dead"
                )
                await until(lambda: router.sample("stentor_bus_links", peer_role="c2s", state="down") == 0, "forgotten")
                peer.greet("c2s")
                peer.send(1, [submit(1)])
                peer.send(2, [submit(2)])
                await until(lambda: router.got(peer) == [1, 2], "it goes on")

    run(scenario())


# --- what a link survives


def test_what_is_sent_through_a_cut_arrives_once_and_in_order(run: Run, curve: Wires) -> None:
    async def scenario() -> None:
        router_at, edge_at = tcp(), tcp()
        to_router, to_edge = Proxy(router_at), Proxy(edge_at)
        router = curve.node("router-0", "router", router_at, advertise=to_router.address)
        edge = curve.node("c2s-0", "c2s", edge_at, advertise=to_edge.address)
        sent = 0

        async def talk(seconds: float) -> None:
            nonlocal sent
            started = time.monotonic()
            while time.monotonic() - started < seconds:
                edge.bus.send(router.incarnation, submit(sent))
                router.bus.send(edge.incarnation, confirmed(sent))
                sent += 1
                await asyncio.sleep(0.01)

        async with proxied(to_router, to_edge), linked(router, edge):
            await talk(0.3)
            await to_router.cut()
            await to_edge.cut()
            before = len(router.received)
            await talk(2.5)
            assert len(router.received) == before, "it was a cut"
            await to_router.heal()
            await to_edge.heal()
            await talk(0.3)
            await until(lambda: len(router.received) >= sent and len(edge.received) >= sent, "all is there")
            assert router.got(edge) == edge.got(router) == list(range(sent))
            assert len(router.events) == len(edge.events) == 1, "a cut is a delay"

    run(scenario())


def test_a_cut_in_one_direction_is_a_delay_too(run: Run, curve: Wires) -> None:
    async def scenario() -> None:
        edge_at = tcp()
        to_edge = Proxy(edge_at)
        router, edge = curve.node("router-0", "router"), curve.node("c2s-0", "c2s", edge_at, advertise=to_edge.address)
        async with proxied(to_edge), linked(router, edge):
            await to_edge.cut()
            for item in range(20):
                edge.bus.send(router.incarnation, submit(item))
                router.bus.send(edge.incarnation, confirmed(item))
            resent = resends("router")
            await until(lambda: len(router.received) == 20 and resends("router") > resent, "unheard acknowledgements")
            await to_edge.heal()
            await until(lambda: len(edge.received) == 20, "all is there")
            await until(
                lambda: edge.sample("stentor_bus_unacknowledged_envelopes", peer_role="router") == 0, "acknowledged"
            )
            assert router.got(edge) == edge.got(router) == list(range(20))

    run(scenario())


def resends(peer_role: str) -> float:
    return REGISTRY.get_sample_value("stentor_bus_retransmits_total", {"peer_role": peer_role}) or 0.0


def test_a_cut_longer_than_the_time_of_death_ends_in_a_new_link(run: Run, curve: Wires) -> None:
    async def scenario() -> None:
        router_at, edge_at = tcp(), tcp()
        to_router, to_edge = Proxy(router_at), Proxy(edge_at)
        router = curve.node("router-0", "router", router_at, advertise=to_router.address, dead_after_s=0.8)
        edge = curve.node("c2s-0", "c2s", edge_at, advertise=to_edge.address, dead_after_s=0.8)
        async with proxied(to_router, to_edge), linked(router, edge):
            edge.bus.send(router.incarnation, submit(1))
            await until(lambda: router.got(edge) == [1], "before")
            await to_router.cut()
            await to_edge.cut()
            edge.bus.send(router.incarnation, submit(2))
            await until(lambda: not router.bus.peers and not edge.bus.peers, "both have given up")
            assert not edge.bus.send(router.incarnation, submit(3)), "to be offered again later"
            await to_router.heal()
            await to_edge.heal()
            await until(lambda: router.is_linked(edge) and edge.is_linked(router), "linked anew")
            assert [type(event) for event in edge.events] == [PeerUp, PeerDown, PeerUp]
            edge.bus.send(router.incarnation, submit(2))
            edge.bus.send(router.incarnation, submit(3))
            await until(lambda: router.got(edge) == [1, 2, 3], "what is offered again arrives")

    run(scenario())


def test_a_full_window_holds_back_and_loses_nothing(run: Run, curve: Wires) -> None:
    async def scenario() -> None:
        at = tcp()
        proxy = Proxy(at)
        router, edge = curve.node("router-0", "router", at, advertise=proxy.address), curve.node("c2s-0", "c2s")

        def left() -> float:
            return edge.sample("stentor_bus_envelopes_total", direction="out", peer_role="router")

        async with proxied(proxy), linked(router, edge):
            assert not edge.bus.is_congested(router.incarnation)
            await proxy.cut()
            sent = 0
            while not edge.bus.is_congested(router.incarnation):
                edge.bus.send(router.incarnation, submit(sent))
                sent += 1
                await asyncio.sleep(0)
            before = left()
            for _ in range(500):
                assert edge.bus.send(router.incarnation, submit(sent)), "it waits here"
                sent += 1
                await asyncio.sleep(0)
            resent = resends("router")
            await until(lambda: resends("router") > resent, "the bus has looked after its links")
            assert left() == before, "nothing leaves beyond the window"
            assert edge.sample("stentor_bus_unacknowledged_envelopes", peer_role="router") == sent
            assert not router.bus.is_congested(edge.incarnation), "each direction for itself"
            await proxy.heal()
            await until(lambda: len(router.received) >= sent, "all is there")
            await until(lambda: not edge.bus.is_congested(router.incarnation), "the window is open again")
            assert router.got(edge) == list(range(sent))
            assert sent > WINDOW_FRAMES

    run(scenario())


# --- who is let in


def test_a_key_of_no_role_is_refused(run: Run, curve: Wires) -> None:
    async def scenario() -> None:
        router, edge = curve.node("router-0", "router"), curve.node("c2s-0", "c2s")
        async with running(router):
            with Peer("c2s-9", router, keys("c2s", secret=generate()[1])) as stranger:
                stranger.greet("c2s")
                seen: set[zmq.Event] = set()
                await until(lambda: zmq.Event.HANDSHAKE_FAILED_AUTH in seen_by(stranger, seen), "refused")
                async with running(edge):
                    edge.bus.greet(router.bus.address)
                    await until(lambda: router.is_linked(edge), "who greeted later, with the right key, is let in")
                    assert [event.incarnation for event in router.events] == [edge.incarnation]

    run(scenario())


def seen_by(peer: Peer, before: set[zmq.Event]) -> set[zmq.Event]:
    before |= peer.happened()
    return before


def test_who_does_not_encrypt_is_refused(run: Run, curve: Wires) -> None:
    async def scenario() -> None:
        router = curve.node("router-0", "router")
        async with running(router):
            with Peer("c2s-9", router) as stranger:
                stranger.greet("c2s")
                seen: set[zmq.Event] = set()
                await until(lambda: zmq.Event.DISCONNECTED in seen_by(stranger, seen), "refused")
                assert zmq.Event.HANDSHAKE_SUCCEEDED not in seen
                assert router.events == []

    run(scenario())


def test_nobody_talks_to_who_has_not_the_key_of_a_router(run: Run, curve: Wires) -> None:
    # An impostor that edges were sent to: it lets everybody in, but has a key of its own.
    async def scenario() -> None:
        impostor = Node("router-9", "router", tcp(), keys=keys("router", secret=generate()[1]))
        async with running(impostor):
            with Peer("c2s-0", impostor, keys("c2s")) as edge:
                edge.greet("c2s")
                seen: set[zmq.Event] = set()
                await until(lambda: zmq.Event.DISCONNECTED in seen_by(edge, seen), "the handshake fails")
                assert zmq.Event.HANDSHAKE_SUCCEEDED not in seen
                assert impostor.events == []

    run(scenario())


def test_a_c2s_that_greets_as_a_router_is_refused(run: Run, curve: Wires) -> None:
    async def scenario() -> None:
        router = curve.node("router-0", "router")
        captured = Node("router-1", "router", tcp(), keys=keys("c2s"))
        seen = rejected("role-not-proven")
        async with running(router, captured):
            captured.bus.greet(router.bus.address)
            await until(lambda: rejected("role-not-proven") >= seen + 2, "refused, and again")
            assert router.events == []
            assert captured.events == []

    run(scenario())


def test_a_c2s_cannot_speak_for_a_router_that_is_linked(run: Run, curve: Wires) -> None:
    async def scenario() -> None:
        first, second = curve.node("router-0", "router"), curve.node("router-1", "router")
        async with linked(first, second):
            with Peer("c2s-0", first, keys("c2s")) as captured:
                seen = rejected("role-not-proven")
                captured.greet("router", as_=second.incarnation)
                captured.send(1, [(MAP, "forged")], generation=2**40, as_=second.incarnation)
                captured.greet("router", kind=GOODBYE, as_=second.incarnation)
                await until(lambda: rejected("role-not-proven") == seen + 3, "each is refused")
                captured.greet("c2s", node="router-1", as_=second.incarnation)
                captured.greet("c2s")
                await until(lambda: first.is_linked(captured), "as itself it is let in")
            second.bus.send(first.incarnation, (MAP, "true"))
            await until(lambda: first.got(second) == ["true"], "the link is as it was")
            assert PeerDown(second.incarnation, "router") not in first.events
            assert first.bus.peers[second.incarnation].role == "router"

    run(scenario())


def test_each_role_may_send_only_its_kinds(run: Run, wires: Wires) -> None:
    async def scenario() -> None:
        router, edge = wires.node("router-0", "router"), wires.node("c2s-0", "c2s")
        async with linked(router, edge):
            seen = rejected("kind-not-allowed")
            for envelope in (submit(1), (MAP, "forged"), submit(2), confirmed(9), (99, "unknown"), submit(3)):
                edge.bus.send(router.incarnation, envelope)
            router.bus.send(edge.incarnation, submit(9))
            router.bus.send(edge.incarnation, confirmed(1))
            await until(lambda: router.got(edge) == [1, 2, 3] and edge.got(router) == [1], "the rest, in order")
            assert rejected("kind-not-allowed") == seen + 4

    run(scenario())


def test_fields_of_a_newer_neighbour_are_cut_off(run: Run, wires: Wires) -> None:
    async def scenario() -> None:
        router, edge = wires.node("router-0", "router"), wires.node("c2s-0", "c2s")
        async with linked(router, edge):
            edge.bus.send(router.incarnation, (*submit(1), "new", {"x": 1}))
            edge.bus.send(router.incarnation, submit(2))
            await until(lambda: len(router.received) == 2, "both are there")
            assert [envelope for _, envelope in router.received] == [submit(1), submit(2)]
            assert len(submit(1)) == ARITY[SUBMIT]

    run(scenario())


# --- what nobody should say


def garbage(to: Node) -> list[tuple[bytes, str]]:
    """Frames, and why each is not accepted."""
    a, b = Incarnation("c2s-8#0000000000000008"), to.incarnation
    hello = (HELLO, "c2s", "c2s-8", "tcp://127.0.0.1:1", [WIRE_VERSION])

    def packed(*frame: Any) -> bytes:
        data: bytes = msgpack.packb(frame)
        return data

    whole = pack_frame(a, 1, b, 1, NO_ACK, [submit(1)])
    return [
        (b"", "undecodable"),
        (b"\0", "undecodable"),
        (b"\xc1" * 100, "undecodable"),
        (b"GET / HTTP/1.1\r\n\r\n", "undecodable"),
        (whole[:-1], "undecodable"),
        (whole + b"\0", "undecodable"),
        (packed(), "undecodable"),
        (packed(99, a, 1, b, 1, (0, 0), []), "undecodable"),
        (packed({}, a, 1, b, 1, (0, 0), []), "undecodable"),
        (packed(WIRE_VERSION, {}, 1, b, 1, (0, 0), []), "undecodable"),
        (packed(WIRE_VERSION, a, "1", b, 1, (0, 0), []), "undecodable"),
        (packed(WIRE_VERSION, a, 1, b, None, (0, 0), []), "undecodable"),
        (packed(WIRE_VERSION, a, 1, b, 1, (0,), []), "undecodable"),
        (packed(WIRE_VERSION, a, 1, b, 1, (0, 0), [{}]), "undecodable"),
        (packed(WIRE_VERSION, a, 1, b, 1, (0, 0), [[]]), "undecodable"),
        (packed(WIRE_VERSION, a, 1, b, 1, (0, 0), [[[HELLO]]]), "undecodable"),
        (packed(WIRE_VERSION, a, 0, "", 0, (0, 0), [[HELLO]]), "undecodable"),
        (packed(WIRE_VERSION, a, 0, "", 0, (0, 0), [[WELCOME, {}, [], None, 1]]), "undecodable"),
        (packed(WIRE_VERSION, a, 0, "", 0, (0, 0), [[*hello[:4], [99]]]), "undecodable"),
        (packed(WIRE_VERSION, a, 0, "", 0, (0, 0), [[*hello[:3], None, [1]]]), "undecodable"),
        (packed(WIRE_VERSION, a, 0, "", 0, (0, 0), [[HELLO, "c2s", "c2s-7", *hello[3:]]]), "undecodable"),
        (pack_frame(a, 1, "router-0#0", 1, NO_ACK, [submit(1)]), "other-incarnation"),
        (pack_frame(a, 1, "", 1, NO_ACK, [submit(1)]), "other-incarnation"),
        (whole, "unknown-sender"),
        (pack_frame(a, 1, b, 0, (5, 5), []), "unknown-sender"),
    ]


def test_garbage_is_counted_and_harms_nobody(run: Run, ipc: Wires) -> None:
    async def scenario() -> None:
        router, edge = ipc.node("router-0", "router"), ipc.node("c2s-0", "c2s")
        async with linked(router, edge):
            with Peer("c2s-8", router) as peer:
                for number, (data, reason) in enumerate(garbage(router)):
                    seen = rejected(reason)
                    peer.say(data)
                    await until(lambda r=reason, s=seen: rejected(r) == s + 1, f"counted as {reason}: {data!r}")  # type: ignore[misc]  # as above
                    edge.bus.send(router.incarnation, submit(number))
                    await until(lambda n=number: router.got(edge)[-1:] == [n], f"the others go on after {data!r}")  # type: ignore[misc]
            assert len(router.events) == len(edge.events) == 1
            assert router.got(edge) == list(range(len(garbage(router))))

    run(scenario())


def test_garbage_from_a_linked_peer_harms_nobody(run: Run, wires: Wires) -> None:
    async def scenario() -> None:
        router = wires.node("router-0", "router")
        async with running(router):
            with Peer("c2s-0", router, wires.keys("c2s")) as peer:
                peer.greet("c2s")
                peer.send(1, [submit(1)])
                peer.send(1, [submit("again")])
                peer.send(3, [submit("ahead")])
                peer.send(0, [submit("unnumbered")])
                peer.send(2, [submit("older generation")], generation=0)
                peer.say(pack_frame(peer.incarnation, 1, router.incarnation, 2, (2**60, 2**60), [submit(2)]))
                for number, (data, _) in enumerate(garbage(router)):
                    peer.say(data)
                    peer.send(3 + number, [submit(3 + number)])
                count = 2 + len(garbage(router))
                await until(lambda: len(router.received) >= count, "what is right arrives")
                assert router.got(peer) == list(range(1, count + 1))
                assert router.is_linked(peer)

    run(scenario())


@pytest.mark.parametrize("address", ["", "nowhere", "tcp://", "tcp://x:y", "udp://127.0.0.1:1", "ipc://" + "x" * 200])
def test_an_address_that_is_none_harms_only_who_names_it(run: Run, ipc: Wires, address: str) -> None:
    async def scenario() -> None:
        router, edge = ipc.node("router-0", "router"), ipc.node("c2s-0", "c2s")
        async with linked(router, edge):
            with Peer("c2s-8", router) as peer:
                seen = rejected("undecodable")
                hello = (HELLO, "c2s", "c2s-8", address, [WIRE_VERSION])
                peer.say(pack_frame(peer.incarnation, 0, "", 0, NO_ACK, [hello]))
                await until(lambda: rejected("undecodable") > seen, "counted")
                await until(lambda: router.events[-1] == PeerDown(peer.incarnation, "c2s"), "not linked")
                assert not router.bus.send(peer.incarnation, confirmed(1))
            edge.bus.send(router.incarnation, submit(1))
            await until(lambda: router.got(edge) == [1], "the others go on")
            router.bus.greet(address)  # and so a nonsense seed
            edge.bus.send(router.incarnation, submit(2))
            await until(lambda: router.got(edge) == [1, 2], "the others go on")

    run(scenario())


# --- where it listens


def loopbacks() -> list[str]:
    """Those that this machine has."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return ["127.0.0.1"]
    return ["127.0.0.1", "::1"]


@pytest.mark.parametrize("loopback", loopbacks())
def test_it_listens_where_it_is_told(run: Run, loopback: str) -> None:
    async def scenario() -> None:
        port = tcp().rpartition(":")[2]
        router = Node("router-0", "router", f"tcp://{loopback}:{port}")
        async with linked(router, Node("c2s-0", "c2s", tcp())):
            pass

    run(scenario())


def made(*overrides: str) -> Bus:
    return Bus.from_config(
        load(None, ["node.name=router-0", *overrides], {}), "router", Incarnation("router-0#1"),
        lambda sender, envelopes: None, lambda: None, lambda event: None,
    )  # fmt: skip


def test_the_configuration_says_where() -> None:
    assert made("bus.transport=ipc", "node.runtime_dir=/run/x").address == "ipc:///run/x/router-0.bus"
    assert made("bus.listen=127.0.0.1", "node.advertise=192.0.2.1").address == "tcp://192.0.2.1:7400"
    ipc = load(None, ["bus.transport=ipc", "node.runtime_dir=/run/x", 'bus.seeds=["router-1"]'], {})
    assert Bus.seeds(ipc) == [ipc_address(ipc.node.runtime_dir, "router-1")] == ["ipc:///run/x/router-1.bus"]
    assert Bus.seeds(load(None, ['bus.seeds=["a:1", "b:2"]'], {})) == ["tcp://a:1", "tcp://b:2"]


def test_an_open_network_without_keys_is_refused_with_its_remedy() -> None:
    with pytest.raises(ValueError, match=r"without encryption.*bus\.secret_key"):
        made()
    secret = keys("router").secret
    assert made(f"bus.secret_key={secret}").address == "tcp://127.0.0.1:7400"
    with pytest.raises(ValueError, match=r"bus\.secret_key is not"):
        made("bus.secret_key=hunter2")


def test_an_address_that_is_taken_is_an_error_at_the_start(run: Run, curve: Wires) -> None:
    async def scenario() -> None:
        router = curve.node("router-0", "router")
        second = curve.node("router-1", "router", router.bus.address)
        async with running(router):
            with pytest.raises(zmq.ZMQError, match="Address already in use"):
                await second.bus.start()
            await second.bus.stop()

    run(scenario())
