"""The bus of a test's cluster, seen from outside: its connections cut, and black holes in them.

Every process advertises an address at which a proxy listens, in a process of its own: what the tests themselves do
must not delay the bus. A black hole takes what one process says to another, on whichever connection, and so also the
acknowledgements of what that one says. Nothing is lost in it for good, as TCP sends it again once it can; but also
the end of a connection is not heard of before.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

HERE: Final = "127.0.41.1"  # where the proxy listens: what processes advertise
THERE: Final = "127.0.0.1"  # where they listen
READ_BYTES: Final = 65_536

Way = tuple[str, str]  # from one node to another


class Links:
    """All links between the processes of one cluster. Close it when the cluster has ended."""

    def __init__(self, directory: Path, ports: Mapping[str, int]) -> None:
        """For the cluster that keeps its run.json in `directory`, whose nodes listen on these `ports`."""
        context = multiprocessing.get_context("spawn")
        self._pipe, pipe = context.Pipe()
        self._process = context.Process(target=_serve, args=(pipe, directory, dict(ports)), daemon=True)
        self._process.start()
        pipe.close()
        self._pipe.recv()  # it listens

    def cut(self, node: str) -> int:
        """Reset every connection that a process has with others, both ways; returns how many there were."""
        return int(self._ask("cut", node))

    def block(self, ways: Iterable[Way]) -> None:
        """Let nothing through on these ways, until `heal`."""
        self._ask("block", list(ways))

    def heal(self) -> int:
        """Let everything through; returns how much has waited: bytes that came at once, and ends of connections."""
        return int(self._ask("heal", None))

    def close(self) -> None:
        """End the proxy."""
        self._pipe.close()
        self._process.join()

    def _ask(self, what: str, argument: object) -> Any:
        self._pipe.send((what, argument))
        return self._pipe.recv()


def _serve(pipe: Connection, directory: Path, ports: dict[str, int]) -> None:
    with suppress(KeyboardInterrupt):
        asyncio.run(_Proxy(pipe, directory, ports).run())


class _Proxy:
    def __init__(self, pipe: Connection, directory: Path, ports: dict[str, int]) -> None:
        self._pipe = pipe
        self._run_json = directory / "run.json"
        self._ports = ports
        self._blocked: set[Way] = set()
        self._swallowed = 0
        self._healed = asyncio.Event()
        self._ended = asyncio.Event()
        self._connections: dict[asyncio.Task[None], tuple[Way, tuple[asyncio.StreamWriter, asyncio.StreamWriter]]] = {}

    async def run(self) -> None:
        for node, port in self._ports.items():
            await asyncio.start_server(partial(self._accept, node), HERE, port)
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._obey)
        self._pipe.send(None)
        await self._ended.wait()

    def _obey(self) -> None:
        try:
            what, argument = self._pipe.recv()
        except (EOFError, OSError):
            self._ended.set()
            return
        answer = 0
        if what == "cut":
            for way, writers in self._connections.values():
                if argument in way:
                    answer += 1
                    for writer in writers:
                        writer.transport.abort()
        elif what == "block":
            self._blocked = set(argument)
            self._healed.clear()
        else:
            answer, self._swallowed = self._swallowed, 0
            self._blocked = set()
            self._healed.set()
        self._pipe.send(answer)

    async def _accept(self, to: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        by = self._node_at(writer.get_extra_info("peername"))
        try:
            onward_reader, onward = await asyncio.open_connection(THERE, self._ports[to])
        except OSError:
            writer.transport.abort()
            return
        if by is None:  # it has ended, or the connection has
            writer.transport.abort()
            onward.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = ((by, to), (writer, onward))
        try:
            await asyncio.gather(
                self._pass_on((by, to), reader, onward),
                self._pass_on((to, by), onward_reader, writer),
            )
        finally:
            del self._connections[task]

    async def _pass_on(self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):  # cut, or ended by one side: then the other learns it
            while data := await source.read(READ_BYTES):
                await self._is_open(way)
                sink.write(data)
                await sink.drain()
        await self._is_open(way)
        sink.close()

    async def _is_open(self, way: Way) -> None:
        self._swallowed += way in self._blocked
        while way in self._blocked:
            await self._healed.wait()

    def _node_at(self, peer: tuple[str, int]) -> str | None:
        """Which process has the other end of a connection: the kernel knows the socket, run.json the processes."""
        host, port = peer
        local = f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}:{port:04X}"
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
        inode = next((row[9] for row in rows if row[1] == local), None)
        for process in json.loads(self._run_json.read_text())["processes"]:
            folder = Path(f"/proc/{process['pid']}/fd")
            with suppress(OSError):
                for descriptor in os.listdir(folder):
                    with suppress(OSError):
                        if os.readlink(folder / descriptor) == f"socket:[{inode}]":
                            return str(process["node"])
        return None
