"""A component's connection over a real socket, to a server of a few lines that can be silent or gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from s2s.gateways.component import Accepted
from s2s.gateways.connection import Connection
from s2s.gateways.sms import status
from s2s.gateways.sms.gateway import Gateway
from s2s.gateways.sms.store import Store
from tests.support.cluster import FACTOR
from tests.unit.s2s.gateways.sms.support import GATEWAY, JULIET, NURSE, delivered, parsed, settings
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.stanza import Stanza
from xmpp.stream import Element, Limits, StreamOpen, StreamParser
from xmpp.xml import element

HOST = "127.0.43.2"
TIMEOUT_S = 0.5


class Server:
    """Takes the component `GATEWAY`; keeps what it gets; brings back what the component sends to itself, if it `answers`."""

    def __init__(self) -> None:
        self.answers = True
        self.connections = 0
        self.got: asyncio.Queue[Stanza] = asyncio.Queue()
        self.writer: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        if self.writer is not None:
            self.writer.close()

    def send(self, xml: str) -> None:
        assert self.writer is not None
        self.writer.write(xml.encode())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.connections += 1
        parser = StreamParser(ns.COMPONENT, Limits())
        while data := await reader.read(65_536):
            parser.push(data)
            while (event := parser.next_event()) is not None:
                if isinstance(event, StreamOpen):
                    self.send(f"<stream:stream xmlns='{ns.COMPONENT}' xmlns:stream='{ns.STREAMS}' id='1'>")
                elif isinstance(event, Element):
                    self.send("<handshake/>")
                elif isinstance(event, Stanza):
                    if event.to != GATEWAY:
                        self.got.put_nowait(event)
                    elif self.answers:
                        writer.write(stanzas.encode(event))
        writer.close()


def run(body: Callable[[Server, Connection], Awaitable[None]]) -> None:
    async def live() -> None:
        server = Server()
        connection = Connection(GATEWAY, "secret", HOST, await server.start(), ping_s=60, timeout_s=TIMEOUT_S)
        running = asyncio.create_task(connection.run())
        try:
            async with asyncio.timeout(20 * FACTOR):
                assert await connection.arrivals.get() == Accepted()
                await body(server, connection)
        finally:
            await connection.close()
            await running
            await server.stop()

    asyncio.run(live())


def test_confirmed_means_that_the_server_has_read_it() -> None:
    async def body(server: Server, connection: Connection) -> None:
        assert await connection.send(
            [stanzas.message(to=JULIET, from_=GATEWAY, inner=element("body", None, None, "x"))]
        )
        assert await connection.confirm()
        assert server.got.get_nowait().to == JULIET
        assert connection.arrivals.empty()  # the ping is not for the gateway to see

    run(body)


def test_without_an_answer_the_connection_is_made_anew() -> None:
    async def body(server: Server, connection: Connection) -> None:
        server.answers = False
        assert not await connection.confirm()
        assert await connection.arrivals.get() == Accepted()
        assert server.connections == 2
        server.answers = True
        assert await connection.confirm()

    run(body)


def test_a_connection_that_breaks_confirms_nothing() -> None:
    async def body(server: Server, connection: Connection) -> None:
        server.answers = False
        confirming = asyncio.create_task(connection.confirm())
        await asyncio.sleep(0)
        assert server.writer is not None
        server.writer.transport.abort()
        assert not await confirming
        assert not await connection.send([stanzas.presence(to=JULIET, from_=GATEWAY)])
        assert await connection.arrivals.get() == Accepted()

    run(body)


def test_what_comes_faster_than_it_is_taken_waits_at_the_server() -> None:
    async def body(server: Server, connection: Connection) -> None:
        count = 3 * connection.arrivals.maxsize
        for number in range(count):
            server.send(f"<message from='{JULIET}/x' to='{NURSE}@{GATEWAY}' id='{number}'/>")
        ids = []
        for _ in range(count):
            arrival = await connection.arrivals.get()
            assert isinstance(arrival, Stanza)
            assert connection.arrivals.qsize() <= connection.arrivals.maxsize
            ids.append(arrival.id)
        assert ids == [str(number) for number in range(count)]

    run(body)


def test_a_store_that_fails_is_no_loss() -> None:
    """The SMSC is told to keep the message, and the user that it was not taken."""

    async def body(server: Server, connection: Connection) -> None:
        gateway = Gateway(settings(), Store(settings().store.file), None)  # never opened
        gateway.connection = connection
        assert await gateway.received(delivered(b"x"), 1) == status.TRY_LATER
        await gateway._handle(
            parsed(f"<message id='m1' from='{JULIET}/x' to='{NURSE}@{GATEWAY}'><body>x</body></message>")
        )
        answer = await server.got.get()
        assert (answer.to, answer.id, answer.type) == (f"{JULIET}/x", "m1", "error")
        assert b'<error type="wait"><internal-server-error ' in answer.inner

    run(body)


def test_a_server_that_is_not_there_is_a_reason_in_words() -> None:
    async def live() -> None:
        server = Server()
        port = await server.start()
        await server.stop()
        connection = Connection(GATEWAY, "secret", HOST, port, ping_s=60, timeout_s=TIMEOUT_S)
        running = asyncio.create_task(connection.run())
        async with asyncio.timeout(20 * FACTOR):
            while "cannot be reached" not in connection.problem:  # noqa: ASYNC110 - the reason is no event
                await asyncio.sleep(0.01)
        await connection.close()
        await running

    asyncio.run(live())
