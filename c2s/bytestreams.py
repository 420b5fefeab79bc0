"""The proxy for bytestreams between clients (XEP-0065, 6): two connections that name the same destination are one
stream, once the requester has said so.

Connections come in at any c2s. The router that owns the destination's name (`router/bytestreams.py`) tells the second
one where the first is; if that is another process, this one connects there as a client would, and passes on what comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from prometheus_client import Counter

from cluster import logs, metrics
from cluster.config import Config
from cluster.edge import Answer, Edge
from cluster.process import CannotStart
from cluster.wire import Incarnation

log = logs.get_logger()

relayed_bytes = Counter("stentor_c2s_bytestream_bytes_total", "Bytes that bytestreams have brought")

HANDSHAKE_S: Final = 10.0
WAIT_S: Final = 120.0  # for the other connection, and for the activation
IDLE_S: Final = 600.0
CHUNK: Final = 65_536
METHOD: Final = "bytestreams.meet"
_DOMAIN: Final = 3  # RFC 1928, 5: ATYP of a name
_HASH: Final = 40  # characters of a SHA-1


class Refused(Exception):
    """The connection says what it should not, or too late."""


class _Half:
    """A connection that waits for its other half."""

    __slots__ = ("paired", "reader", "writer")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.paired: asyncio.Event = asyncio.Event()


class _Stream:
    """Two connections with one destination, both here; nothing flows before it is activated."""

    __slots__ = ("activated", "ended", "first", "second")

    def __init__(self, first: _Half, second: _Half) -> None:
        self.first = first
        self.second = second
        self.activated: asyncio.Event = asyncio.Event()
        self.ended: asyncio.Event = asyncio.Event()


class Bytestreams:
    """The bytestreams of one process."""

    def __init__(self, config: Config, edge: Edge, incarnation: Incarnation) -> None:
        self._config = config
        self._edge = edge
        self._incarnation = incarnation
        self._servers: list[asyncio.Server] = []
        self._waiting: dict[str, _Half] = {}
        self._streams: dict[str, _Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._address = ""  # where other processes reach this one

    async def start(self) -> None:
        """Listen for clients, and for other processes. Raises CannotStart."""
        proxy = self._config.proxy
        if not proxy.enabled:
            return
        for address in self._config.c2s.listen:
            try:
                server = await asyncio.start_server(self._accept, address, proxy.port, reuse_port=True)
            except OSError as problem:
                raise CannotStart(
                    f"cannot listen on {address} port {proxy.port}: {problem}. Change proxy.port or c2s.listen, "
                    "or set proxy.enabled to false"
                ) from problem
            self._servers.append(server)
        host = "127.0.0.1" if self._config.bus.transport == "ipc" else self._config.node.advertise
        inner = await asyncio.start_server(self._accept_inner, host, 0)
        self._servers.append(inner)
        self._address = f"{host}:{inner.sockets[0].getsockname()[1]}"
        log.info("listening_for_bytestreams", addresses=list(self._config.c2s.listen), port=proxy.port)

    def export(self) -> None:
        """Have Prometheus see it; once in a process."""
        metrics.sampled_gauge(
            "stentor_c2s_bytestreams", "Bytestreams that this process relays", (), {(): lambda: len(self._streams)}
        )

    def stop(self) -> None:
        """End everything."""
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()

    def activate(self, name: str) -> None:
        """The requester wants the stream to begin."""
        stream = self._streams.get(name)
        if stream is not None:
            stream.activated.set()

    # --- connections

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._begin(reader, writer, self._from_client)

    def _accept_inner(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._begin(reader, writer, self._from_process)

    def _begin(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        run: Callable[[_Half], Coroutine[Any, Any, None]],
    ) -> None:
        if len(self._tasks) >= self._config.proxy.connections:
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._run(run, _Half(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, run: Callable[[_Half], Coroutine[Any, Any, None]], half: _Half) -> None:
        try:
            await run(half)
        except (Refused, OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # nobody is told: the clients see their connections end
        finally:
            half.writer.close()

    async def _from_client(self, half: _Half) -> None:
        name = await _asked(half.reader, half.writer)
        place = await self._meet(name)
        if place not in ("", self._address):
            await self._pass_on(name, half, place)
            return
        await self._arrive(name, half, is_first=not place)

    async def _from_process(self, half: _Half) -> None:
        await self._arrive(await _asked(half.reader, half.writer), half, is_first=False)

    async def _arrive(self, name: str, half: _Half, is_first: bool) -> None:
        """The first one waits for the second, which makes the stream."""
        first = self._waiting.pop(name, None)
        if is_first:
            if first is not None:
                raise Refused
            self._waiting[name] = half
            await _accepted(half.writer, name)
            try:
                await asyncio.wait_for(half.paired.wait(), WAIT_S)
            finally:
                if self._waiting.get(name) is half:
                    del self._waiting[name]
            stream = self._streams[name]
            try:
                await asyncio.wait_for(stream.activated.wait(), WAIT_S)
                await self._relay(stream.first, stream.second)
            finally:
                self._streams.pop(name, None)
                stream.ended.set()
            return
        if first is None:
            raise Refused
        stream = self._streams[name] = _Stream(first, half)
        await _accepted(half.writer, name)
        first.paired.set()
        await stream.ended.wait()  # the first one's task relays; this one keeps the connection

    async def _pass_on(self, name: str, half: _Half, place: str) -> None:
        """The first one is at another process: be its second."""
        host, _, port = place.rpartition(":")
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), HANDSHAKE_S)
        try:
            writer.write(b"\5\1\0")
            if await asyncio.wait_for(reader.readexactly(2), HANDSHAKE_S) != b"\5\0":
                raise Refused
            writer.write(b"\5\1\0" + _destination(name))
            answer = await asyncio.wait_for(reader.readexactly(len(_destination(name)) + 3), HANDSHAKE_S)
            if answer[1]:
                raise Refused
            await _accepted(half.writer, name)
            await self._relay(half, _Half(reader, writer))
        finally:
            writer.close()

    async def _meet(self, name: str) -> str:
        """Where the first of the two is; "" where this is the first. Raises Refused."""
        told: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def done(answer: Answer) -> None:
            if not told.done():
                told.set_result(answer)

        proxy = self._config.proxying_domains()[0]
        self._edge.call(f"{name}@{proxy}", METHOD, (name, self._address, self._incarnation), done, HANDSHAKE_S)
        answer = await told
        if not answer.ok:
            raise Refused
        return str(answer.value)

    # --- data

    async def _relay(self, one: _Half, other: _Half) -> None:
        """Both ways, until both have ended, or nothing has come for long."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pump(one, other))
            group.create_task(self._pump(other, one))

    async def _pump(self, from_: _Half, to: _Half) -> None:
        rate = self._config.proxy.bytes_per_s
        spent, since = 0, time.monotonic()
        with contextlib.suppress(OSError):
            while data := await asyncio.wait_for(from_.reader.read(CHUNK), IDLE_S):
                to.writer.write(data)
                await to.writer.drain()
                relayed_bytes.inc(len(data))
                spent += len(data)
                ahead_s = spent / rate - (time.monotonic() - since)
                if ahead_s > 0:
                    await asyncio.sleep(ahead_s)
            to.writer.write_eof()


# --- SOCKS5 (RFC 1928), as far as XEP-0065, 5.3.3 has it


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """The destination that a connection names. Raises Refused."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    async with asyncio.timeout(HANDSHAKE_S):
        version, methods = await reader.readexactly(2)
        if version != 5 or 0 not in await reader.readexactly(methods):
            writer.write(b"\5\xff")
            raise Refused
        writer.write(b"\5\0")
        version, command, _, kind, length = await reader.readexactly(5)
        name = await reader.readexactly(length)
        await reader.readexactly(2)
    is_hash = length == _HASH and set(name) <= set(b"0123456789abcdef")
    if (version, command, kind) != (5, 1, _DOMAIN) or not is_hash:
        writer.write(b"\5\2\0\1\0\0\0\0\0\0")
        raise Refused
    return name.decode()


def _destination(name: str) -> bytes:
    return bytes((_DOMAIN, len(name))) + name.encode() + b"\0\0"


async def _accepted(writer: asyncio.StreamWriter, name: str) -> None:
    """XEP-0065, 6.3.2: the answer names the same destination."""
    writer.write(b"\5\0\0" + _destination(name))
    await writer.drain()
