"""All that clients are connected by, whatever carries their streams: written to and looked at together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from c2s.stream import ClientStream, Transport
from cluster.edge import Edge

RECEIVE_BYTES: Final = 65_536
CHECKED_AT_ONCE: Final = 500  # a millisecond


class Carrier(Transport, Protocol):
    """A connection, or a session over HTTP, as transport of its stream."""

    stream: ClientStream | None

    def flush(self) -> None:
        """Write what is queued."""

    def check(self) -> None:
        """About once a second: time-outs."""

    @property
    def queued_bytes(self) -> int:
        """What was written and nobody has taken."""


StreamFactory = Callable[[Carrier], ClientStream]


class Connections:
    """Those of one process, and what they share."""

    def __init__(self, edge: Edge, make_stream: StreamFactory) -> None:
        self.edge = edge
        self.make_stream = make_stream
        self.plain_buffer = memoryview(bytearray(RECEIVE_BYTES))
        self.tls_buffer = memoryview(bytearray(RECEIVE_BYTES))
        self.all: set[Carrier] = set()
        self.dirty: set[Carrier] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    def flush(self) -> None:
        """Write what streams have queued: each connection once. Called after every batch of input."""
        if self.dirty:
            dirty, self.dirty = self.dirty, set()
            for connection in dirty:
                connection.flush()

    async def check(self) -> None:
        """About once a second: what was written, and the time-outs of every connection. Everything else has its turn
        after each few of them."""
        connections = list(self.all)
        for begin in range(0, len(connections), CHECKED_AT_ONCE):
            for connection in connections[begin : begin + CHECKED_AT_ONCE]:
                connection.check()
            self.flush()
            await asyncio.sleep(0)
