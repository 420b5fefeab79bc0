"""An external component's connection to its server: the socket around `component.py`, made again whenever it breaks.

What comes is in a bounded queue; while it is full, the socket is not read. What is sent waits for the socket.
XEP-0114 acknowledges nothing: `confirm` asks instead, by a ping to ourselves that the server has to bring back behind
everything that was sent before.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cluster import logs
from s2s.gateways.backoff import Backoff, wait_for
from s2s.gateways.component import Accepted, Closed, ComponentStream
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.stanza import Stanza
from xmpp.xml import element

log = logs.get_logger()

READ_BYTES: Final = 65_536
QUEUE: Final = 1_000
WRITE_BUFFER_BYTES: Final = 262_144

Arrival = Accepted | Stanza


@dataclass(slots=True)
class Connection:
    """The connection of the component `jid`; `run` keeps it."""

    jid: str
    secret: str
    host: str
    port: int
    ping_s: float
    timeout_s: float
    problem: str = "not connected yet"  # why nothing can be sent, in words; "" while it can
    connects: int = 0  # how often it was made, and how often not
    failures: int = 0
    arrivals: asyncio.Queue[Arrival] = field(default_factory=lambda: asyncio.Queue(QUEUE))
    _stream: ComponentStream | None = None
    _writer: asyncio.StreamWriter | None = None
    _pings: dict[str, asyncio.Future[bool]] = field(default_factory=dict)
    _ids: itertools.count[int] = field(default_factory=itertools.count)
    _heard_at: float = 0.0
    _closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Connect, read, and connect again, until closed."""
        backoff = Backoff()
        while not self._closing.is_set():
            ended = await self._live(backoff)
            self.failures += bool(self.problem)
            self.problem = ended.reason
            self._lose()
            if self._closing.is_set():
                return
            wait_s = backoff.next_s()
            remedy = {"remedy": ended.remedy} if ended.remedy else {}
            log.warning("component_disconnected", reason=ended.reason, seconds=round(wait_s, 1), **remedy)
            await wait_for(self._closing, wait_s)

    async def _live(self, backoff: Backoff) -> Closed:
        """One connection, to its end."""
        where = f"{self.host} port {self.port}"
        try:
            async with asyncio.timeout(self.timeout_s):
                reader, writer = await asyncio.open_connection(self.host, self.port)
        except (OSError, TimeoutError) as error:
            return Closed(
                f"{where} cannot be reached: {error or 'no answer'}",
                remedy="Check component.host and component.port, and that the server listens for components there",
            )
        stream = ComponentStream(self.jid, self.secret)
        self._stream, self._writer = stream, writer
        writer.transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        pinger = asyncio.create_task(self._ping_when_silent(), name="component_ping")
        try:
            stream.begin()
            writer.write(stream.data_to_send())
            return await self._read(stream, reader, writer, backoff)
        except OSError as error:
            return Closed(f"{where}: {error}")
        finally:
            pinger.cancel()

    async def _read(
        self, stream: ComponentStream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, backoff: Backoff
    ) -> Closed:
        while True:
            try:
                async with asyncio.timeout(None if stream.is_accepted else self.timeout_s):
                    data = await reader.read(READ_BYTES)
            except TimeoutError:
                return Closed("the server does not answer the handshake")
            if not data:
                return Closed("the server closed the connection")
            self._heard_at = asyncio.get_running_loop().time()
            for event in stream.receive_data(data):
                if isinstance(event, Closed):
                    writer.write(stream.data_to_send())
                    return event
                if isinstance(event, Accepted):
                    self.problem = ""
                    self.connects += 1
                    backoff.reset()
                    log.info("component_connected")
                elif self._is_own_ping(event):
                    continue
                await self.arrivals.put(event)
            writer.write(stream.data_to_send())

    def _is_own_ping(self, stanza: Stanza) -> bool:
        """Whether it is a ping of ours that came back, as it was sent or as an answer: both say the same."""
        if stanza.kind != stanzas.IQ or stanza.id is None or (stanza.from_, stanza.to) != (self.jid, self.jid):
            return False
        waiting = self._pings.pop(stanza.id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(True)
        return True

    async def send(self, messages: Iterable[Stanza]) -> bool:
        """Write stanzas, and wait while the socket takes no more; False, and nothing is sent, without a stream."""
        stream, writer = self._stream, self._writer
        if stream is None or writer is None or not stream.is_accepted or stream.is_over:
            return False
        for message in messages:
            stream.send(message)
        try:
            writer.write(stream.data_to_send())
            await writer.drain()
        except OSError:
            return False  # the reader finds out why
        return True

    async def confirm(self) -> bool:
        """Whether the server has read everything sent before this call. Without an answer the connection is cut."""
        id_ = f"confirm-{next(self._ids)}"
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pings[id_] = answered
        ping = stanzas.iq(type="get", id=id_, to=self.jid, from_=self.jid, inner=element("ping", ns.PING))
        try:
            async with asyncio.timeout(self.timeout_s):  # also of a server that does not read while we do not
                return await self.send([ping]) and await answered
        except TimeoutError:
            log.warning("component_silent", seconds=self.timeout_s)
            if self._writer is not None:
                self._writer.transport.abort()
            return False
        finally:
            self._pings.pop(id_, None)

    async def _ping_when_silent(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.ping_s / 2)
            if not self.problem and loop.time() - self._heard_at >= self.ping_s / 2:
                await self.confirm()

    async def close(self) -> None:
        """End the stream, and `run`."""
        self._closing.set()
        if self._stream is not None and self._writer is not None:
            self._stream.close()
            self._writer.write(self._stream.data_to_send())
        self._lose()

    def _lose(self) -> None:
        for waiting in self._pings.values():
            if not waiting.done():
                waiting.set_result(False)
        self._pings.clear()
        if self._writer is not None:
            self._writer.close()
        self._stream = self._writer = None
