"""Buses in one process for tests: real ones that remember what comes, a peer that says what a test wants, a proxy."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import zmq
from prometheus_client import REGISTRY, CollectorRegistry
from zmq.utils.monitor import recv_monitor_message

from cluster.bus import Bus
from cluster.keys import Keys, generate
from cluster.membership import PeerEvent
from cluster.wire import (
    GOODBYE,
    HELLO,
    NO_ACK,
    SUPPORTED_VERSIONS,
    Envelope,
    Incarnation,
    new_incarnation,
    node_of,
    pack_frame,
)
from tests.support.cluster import FACTOR

WAIT_S: Final = 10.0
DEAD_AFTER_S: Final = 60.0  # no test waits for it, so what happens sooner has another cause

_PAIRS: Final = {role: generate() for role in ("router", "c2s", "s2s")}
_OF_ROLE: Final = {role: pair[0] for role, pair in _PAIRS.items()}
_names = itertools.count(1)


def keys(role: str, secret: str | None = None) -> Keys:
    """The keys of a process of this role, or of one that has another secret."""
    return Keys.of(secret or _PAIRS[role][1], _OF_ROLE)


def free_port() -> int:
    """A TCP port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tcp() -> str:
    """An address on the loopback."""
    return f"tcp://127.0.0.1:{free_port()}"


async def until(condition: Callable[[], bool], what: str, seconds: float = WAIT_S) -> None:
    """Let the loop turn until `condition`."""
    try:
        async with asyncio.timeout(seconds * FACTOR):
            while not condition():  # noqa: ASYNC110  # conditions of many kinds; the deadline bounds it
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"after {seconds * FACTOR:.0f} s still not so: {what}") from None


def rejected(reason: str) -> float:
    """How many frames and envelopes were not accepted for this reason, in this test process."""
    return REGISTRY.get_sample_value("stentor_bus_rejected_total", {"reason": reason}) or 0.0


class Node:
    """A bus with a name, and everything that it has told."""

    def __init__(
        self,
        name: str,
        role: str,
        address: str,
        *,
        keys: Keys | None = None,
        advertise: str | None = None,
        run: int = 1,
        heartbeat_s: float = 0.2,
        dead_after_s: float = DEAD_AFTER_S,
    ) -> None:
        self.incarnation = new_incarnation(name, run)
        self.received: list[tuple[Incarnation, Envelope]] = []
        self.events: list[PeerEvent] = []
        self.registry = CollectorRegistry()
        self.bus = Bus(
            incarnation=self.incarnation,
            role=role,
            bind_address=address,
            advertise_address=advertise or address,
            keys=keys,
            handlers=self._receive,
            after_batch=lambda: None,
            on_peer=self.events.append,
            heartbeat_s=heartbeat_s,
            dead_after_s=dead_after_s,
            registry=self.registry,
        )

    def _receive(self, sender: Incarnation, envelopes: tuple[Envelope, ...]) -> None:
        for envelope in envelopes:
            if envelope[-1] == "raise":
                raise RuntimeError("a bug in a handler")
            self.received.append((sender, envelope))

    def got(self, sender: Node | Peer) -> list[Any]:
        """The last fields of what came from `sender`."""
        return [envelope[-1] for name, envelope in self.received if name == sender.incarnation]

    def is_linked(self, *others: Node | Peer) -> bool:
        return all(other.incarnation in self.bus.peers for other in others)

    def sample(self, metric: str, **labels: str) -> float:
        return self.registry.get_sample_value(metric, labels) or 0.0


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    """Start these, and stop them in the end."""
    try:
        for node in nodes:
            await node.bus.start()
        yield
    finally:
        for node in nodes:
            await node.bus.stop()


@asynccontextmanager
async def linked(router: Node, *edges: Node) -> AsyncIterator[None]:
    """Start these, and have each linked with the router."""
    async with running(router, *edges):
        for edge in edges:
            edge.bus.greet(router.bus.address)
        await until(lambda: router.is_linked(*edges) and all(edge.is_linked(router) for edge in edges), "linked")
        yield


class Peer:
    """A socket that says to one bus what the test wants said, and hears nothing."""

    def __init__(self, node: str, to: Node, keys: Keys | None = None, server_role: str = "router") -> None:
        self.incarnation = new_incarnation(node, next(_names))
        self._to = to
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self._monitor = self.socket.get_monitor_socket()
        if keys is not None:
            self.socket.curve_publickey = keys.public.encode()
            self.socket.curve_secretkey = keys.secret.encode()
            self.socket.curve_serverkey = keys.of_role[server_role].encode()
        self.socket.connect(to.bus.address)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.disable_monitor()
        self._monitor.close(linger=0)
        self._context.destroy(linger=0)

    def say(self, data: bytes) -> None:
        """Bytes as they are."""
        self.socket.send(data)

    def greet(
        self,
        role: str,
        address: str = "",
        *,
        kind: int = HELLO,
        node: str | None = None,
        as_: Incarnation | None = None,
    ) -> None:
        """A greeting; by default one that is right, from an address where nobody listens."""
        sender = as_ or self.incarnation
        envelope: Envelope = (kind, role, node or node_of(sender), address or tcp(), sorted(SUPPORTED_VERSIONS))
        self.say(pack_frame(sender, 0, "", 0, NO_ACK, [(GOODBYE, "stop") if kind == GOODBYE else envelope]))

    def send(
        self,
        seq: int,
        envelopes: Sequence[Envelope],
        *,
        generation: int = 1,
        to: str = "",
        as_: Incarnation | None = None,
    ) -> None:
        """A numbered frame."""
        receiver = to or self._to.incarnation
        self.say(pack_frame(as_ or self.incarnation, generation, receiver, seq, NO_ACK, envelopes))

    def happened(self) -> set[zmq.Event]:
        """What the socket has seen of its connection since the last call."""
        found = set()
        while self._monitor.poll(0):
            found.add(zmq.Event(recv_monitor_message(self._monitor)["event"]))
        return found


class Proxy:
    """Passes a TCP port on to another, until it is cut."""

    def __init__(self, target: str) -> None:
        self._target = int(target.rpartition(":")[2])
        self.port = free_port()
        self._server: asyncio.Server | None = None
        self._deaf: tuple[socket.socket, socket.socket] | None = None
        self._cuts = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def swallow(self) -> None:
        """Instead of `heal`: attempts to connect get no answer at all, since the kernel drops them where a listener's
        queue is full."""
        listener, filler = self._deaf = socket.socket(), socket.socket()
        listener.bind(("127.0.0.1", self.port))
        listener.listen(0)  # room for one
        filler.connect(listener.getsockname())

    async def heal(self) -> None:
        """Listen."""
        if self._deaf is not None:
            for deaf in self._deaf:
                deaf.close()
        self._server = await asyncio.start_server(partial(self._accept, self._cuts), "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Close all connections, with what is under way in them, and refuse new ones."""
        self._cuts += 1
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._writers.clear()

    async def _accept(self, cuts: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            there, onward = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(onward)
        if cuts != self._cuts:  # while this connection was being made
            writer.transport.abort()
            onward.transport.abort()
            return
        for source, sink in ((reader, onward), (there, writer)):
            self._tasks.add(asyncio.create_task(_pass_on(source, sink)))


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass  # cut, or ended by one side: the other side learns it
    sink.transport.abort()


@asynccontextmanager
async def proxied(*proxies: Proxy) -> AsyncIterator[None]:
    """These proxies, until the end."""
    try:
        for proxy in proxies:
            await proxy.heal()
        yield
    finally:
        for proxy in proxies:
            await proxy.cut()


class Wires:
    """Addresses and keys for one kind of transport."""

    def __init__(self, transport: str, folder: Path) -> None:
        self.transport = transport
        self._folder = folder

    def node(self, name: str, role: str, address: str | None = None, **more: Any) -> Node:
        """A bus that does not run yet, encrypted over tcp."""
        return Node(name, role, address or self.address(), keys=self.keys(role), **more)

    def address(self) -> str:
        return tcp() if self.transport == "tcp" else f"ipc://{self._folder}/{next(_names)}.bus"

    def keys(self, role: str) -> Keys | None:
        return keys(role) if self.transport == "tcp" else None
