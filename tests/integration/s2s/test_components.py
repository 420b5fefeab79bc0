"""Components on loopback (s2s/component_listener.py): slixmpp's and raw ones. The router is played; everything else is
real, uvloop included."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from hashlib import sha1
from itertools import count
from typing import Any, Final

import pytest
import uvloop
from slixmpp import JID, ComponentXMPP, Message
from slixmpp.exceptions import IqError

from cluster.config import Config, load
from cluster.edge import ACKNOWLEDGE_EVERY, Edge, EdgeSession
from cluster.process import CannotStart
from cluster.wire import ACKNOWLEDGED, DETACH
from s2s import component_listener
from s2s.component_listener import ComponentListener, Connection
from s2s.components import ComponentStream, State
from tests.support.cluster import FACTOR, deadline
from tests.support.streams import DOMAIN, Router, sample, stream_error
from xmpp import errors, ns
from xmpp.stanza import HAS_BODY, message

ADDRESS: Final = "127.0.46.1"
IRC: Final = f"irc.{DOMAIN}"
SECRET: Final = "a secret of eight or more"
ROMEO: Final = f"romeo@{DOMAIN}"
HEADER: Final = f"<stream:stream xmlns='{ns.COMPONENT}' xmlns:stream='{ns.STREAMS}' to='{IRC}'>"
CLOSE: Final = "</stream:stream>"
WAIT_S: Final = 10.0


def run(test: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Let the loop turn until `condition`; fails after a while."""
    give_up_at = deadline(WAIT_S)
    loop = asyncio.get_running_loop()
    while not condition():
        assert loop.time() < give_up_at, f"still not so: {what}"
        await asyncio.sleep(0.005)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port: int = probe.getsockname()[1]
        return port


def config_of(port: int, *domains: str) -> Config:
    secrets = ", ".join(f'"{domain}": {{"secret": "{SECRET}"}}' for domain in domains)
    return load(
        None,
        [
            f'server.domains=["{DOMAIN}"]', f'components.listen=["{ADDRESS}"]', f"components.port={port}",
            f"components.domains={{{secrets}}}",
        ],
        {},
    )  # fmt: skip


class Server:
    """The components' half of an s2s process."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.router = Router()
        requests = count(1)
        self.edge = self.router.edge = Edge(self.router.send, lambda: f"r{next(requests)}", loop.time)
        self.router.own_everything()
        self.router.wake = lambda: loop.call_soon(self._answer)
        self.port = free_port()
        self.listener = ComponentListener(config_of(self.port, IRC), self.edge)

    def _answer(self) -> None:
        self.router.pump()
        self.listener.flush()

    @property
    def only(self) -> Connection:
        """The one connection there is."""
        (connection,) = self.listener.all
        return connection

    @property
    def session(self) -> EdgeSession:
        """The one session there is."""
        (session,) = self.edge.sessions.values()
        return session

    def deliver(self, **fields: Any) -> None:
        """A message from Romeo to somebody at the component."""
        stanza = message(**{"to": f"nurse@{IRC}", "from_": ROMEO, "type": "chat"} | fields)
        self.router.deliver(self.session.sid, stanza)
        self.listener.flush()


@asynccontextmanager
async def serve() -> AsyncIterator[Server]:
    server = Server()
    await server.listener.start()
    try:
        yield server
    finally:
        server.listener.close()
        await until(lambda: not server.listener.all, "every connection has ended")


class Client:
    """A component that reads when the test says so."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, text: str) -> None:
        self.writer.write(text.encode())

    async def read_until(self, end: str) -> str:
        return (await asyncio.wait_for(self.reader.readuntil(end.encode()), WAIT_S * FACTOR)).decode()

    async def rest(self) -> str:
        return (await asyncio.wait_for(self.reader.read(), WAIT_S * FACTOR)).decode()

    async def join(self) -> None:
        self.send(HEADER)
        id = (await self.read_until('">')).rpartition(' id="')[2].removesuffix('">')
        self.send(f"<handshake>{sha1((id + SECRET).encode()).hexdigest()}</handshake>")
        await self.read_until("<handshake/>")

    def reset(self) -> None:
        """End the connection as a crash would."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(ADDRESS, port, limit=16_777_216)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def slixmpp_component(
    port: int, secret: str = SECRET, *, use_jc_ns: bool = False
) -> AsyncIterator[ComponentXMPP]:
    """slixmpp's component, connecting."""
    component = ComponentXMPP(IRC, secret, ADDRESS, port, use_jc_ns=use_jc_ns)  # type: ignore[no-untyped-call]  # slixmpp's
    component.register_plugin("xep_0030")
    component.connect()
    try:
        yield component
    finally:
        component.cancel_connection_attempt()  # it would try again for ever
        await component.disconnect()


async def event(component: ComponentXMPP, name: str) -> Any:
    return await asyncio.wait_for(component.wait_until(name, WAIT_S * FACTOR), WAIT_S * FACTOR)


def closed(reason: str) -> float:
    return sample("stentor_components_connections_closed_total", reason=reason)


# --- slixmpp


@pytest.mark.parametrize("use_jc_ns", [False, True])
def test_slixmpp_joins_and_sends_in_either_namespace(use_jc_ns: bool) -> None:
    async def test() -> None:
        async with serve() as server, slixmpp_component(server.port, use_jc_ns=use_jc_ns) as component:
            await event(component, "session_start")
            component.send_message(JID(ROMEO), "Peace!", mfrom=f"nurse@{IRC}/room", mtype="chat")
            await until(lambda: len(server.router.submitted()) == 1, "its message has come")
            (sent,) = server.router.submitted()
            assert (sent.from_, sent.to, sent.flags & HAS_BODY) == (f"nurse@{IRC}/room", ROMEO, HAS_BODY)
            assert b"<body>Peace!</body>" in sent.inner

    run(test())


def test_slixmpp_receives() -> None:
    async def test() -> None:
        async with serve() as server, slixmpp_component(server.port) as component:
            await event(component, "session_start")
            arrived: asyncio.Queue[Message] = asyncio.Queue()
            component.add_event_handler("message", arrived.put_nowait)
            server.deliver(inner=b"<body>Who calls?</body>")
            received = await asyncio.wait_for(arrived.get(), WAIT_S * FACTOR)
            assert (received["from"], received["to"], received["body"]) == (ROMEO, f"nurse@{IRC}", "Who calls?")

    run(test())


def test_errors_of_slixmpp_are_errors_of_ours() -> None:
    """It writes <error/> in another namespace than the stanza."""

    async def test() -> None:
        async with serve() as server, slixmpp_component(server.port) as component:
            await event(component, "session_start")
            inner = b"<query xmlns='urn:nobody:knows'/>"
            stanza = message(to=None, from_=None)._replace(
                kind=3, type="get", id="1", to=IRC, from_=ROMEO, payload="urn:nobody:knows query", inner=inner
            )
            server.router.deliver(server.session.sid, stanza)
            server.listener.flush()
            await until(lambda: len(server.router.submitted()) == 1, "its answer has come")
            (answer,) = server.router.submitted()
            error = next(child for child in answer.children() if child.tag == f"{{{ns.CLIENT}}}error")
            assert error.find(f"{{{ns.STANZAS}}}feature-not-implemented") is not None

    run(test())


def test_slixmpp_is_told_that_nobody_was_addressed() -> None:
    async def test() -> None:
        async with serve() as server, slixmpp_component(server.port) as component:
            await event(component, "session_start")
            request = component.make_iq_get("urn:x", ifrom=IRC)
            with pytest.raises(IqError) as refused:
                await request.send(timeout=WAIT_S * FACTOR)  # type: ignore[no-untyped-call]  # slixmpp's
            # Its own `condition` looks in the namespace of clients.
            assert refused.value.iq.xml.find(f"{{{ns.COMPONENT}}}error/{{{ns.STANZAS}}}bad-request") is not None

    run(test())


def test_slixmpp_with_a_wrong_secret_is_refused() -> None:
    async def test() -> None:
        before = sample("stentor_components_handshakes_total", result="wrong-secret")
        async with serve() as server:
            async with slixmpp_component(server.port, "another secret") as component:
                fault = await event(component, "stream_error")
                assert fault["condition"] == "not-authorized"
            assert server.edge.sessions == {}
        assert sample("stentor_components_handshakes_total", result="wrong-secret") > before

    run(test())


def test_a_drain_tells_slixmpp_and_waits_for_what_it_has_sent() -> None:
    async def test() -> None:
        async with serve() as server, slixmpp_component(server.port) as component:
            await event(component, "session_start")
            server.router.is_confirming = False
            component.send_message(JID(ROMEO), "Anon!", mfrom=IRC)
            await until(lambda: len(server.router.submitted()) == 1, "its message has come")
            sid = server.session.sid
            told = asyncio.ensure_future(event(component, "stream_error"))
            await asyncio.sleep(0)
            await asyncio.wait_for(server.listener.drain(), WAIT_S * FACTOR)
            assert (await told)["condition"] == "system-shutdown"
            assert server.router.of_kind(DETACH) == [], "what it sent is not confirmed yet"
            server.router.confirm(sid)
            assert server.router.of_kind(DETACH) == [(sid, 1, "system-shutdown")]
            await until(lambda: not server.edge.sessions, "the session has ended")
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(ADDRESS, server.port)

    run(test())


# --- reading and writing


def test_a_component_that_pipelines_thousands_of_stanzas_is_paused_and_loses_none() -> None:
    async def test() -> None:
        async with serve() as server, connect(server.port) as client:
            await client.join()
            server.router.is_confirming = False
            session = server.session
            for n in range(10_000):
                client.send(f"<message to='{ROMEO}' id='{n}'><body>{'x' * 50}</body></message>")
            most = 0
            while len(server.router.submitted()) < 10_000:
                await until(lambda: session.is_paused or session.n == 10_000, "the window is full")
                most = max(most, len(session.held))
                server.router.confirm(session.sid)
            assert [stanza.id for stanza in server.router.submitted()] == [str(n) for n in range(10_000)]
            assert most < 5_000, "no more than one read above the window"

    run(test())


def big(n: int) -> bytes:
    return f"<body>{n}{'x' * 100_000}</body>".encode()


def test_what_the_kernel_takes_counts_as_acknowledged() -> None:
    async def test() -> None:
        async with serve() as server, connect(server.port) as client:
            await client.join()
            session = server.session
            for n in range(3):
                server.deliver(inner=big(n))
            await client.reader.readexactly(300_000)
            await until(lambda: session.acknowledged == 3, "all are acknowledged")
            assert not session.unacknowledged

    run(test())


def test_the_owner_hears_of_acknowledgements_without_waiting_for_the_next_second() -> None:
    """It gives a stream only so many more than are acknowledged."""

    async def test() -> None:
        async with serve() as server, connect(server.port) as client:
            await client.join()
            for n in range(ACKNOWLEDGE_EVERY):
                server.deliver(id=str(n))
            await client.read_until(f'id="{ACKNOWLEDGE_EVERY - 1}"/>')
            sid = server.session.sid
            await until(
                lambda: server.router.of_kind(ACKNOWLEDGED) == [(sid, 1, ACKNOWLEDGE_EVERY)], "the owner has been told"
            )

    run(test())


def test_what_was_flushed_before_the_end_is_acknowledged_before_the_session_ends() -> None:
    """Else it would be given to another connection of the component, a second time."""

    async def test() -> None:
        async with serve() as server, connect(server.port) as client:
            await client.join()
            transport: Any = client.writer.transport
            transport.pause_reading()
            session, connection = server.session, server.only
            n = 0
            while not connection.queued_bytes:  # the kernel takes what it can, at the end of a turn of the loop
                server.deliver(inner=big(n))
                await asyncio.sleep(0)
                n += 1
            draining = asyncio.ensure_future(server.listener.drain())
            await until(lambda: connection.stream.state is State.LEAVING, "the drain has begun")
            assert session.acknowledged < n
            client.send(CLOSE)
            await until(lambda: connection.stream.state is State.CLOSED, "the stream is over")
            assert session.acknowledged < n
            transport.resume_reading()
            written = await client.rest()
            await asyncio.wait_for(draining, WAIT_S * FACTOR)
            assert written.count("<body>") == n
            assert stream_error(written) == "system-shutdown"
            assert session.acknowledged == n

    run(test())


def test_what_a_broken_connection_did_not_take_is_not_acknowledged() -> None:
    async def test() -> None:
        async with serve() as server, connect(server.port) as client:
            await client.join()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's stubs call it a WriteTransport
            session = server.session
            for n in range(100):
                server.deliver(inner=big(n))
            taken = session.acknowledged
            assert taken < 100, "the kernel has not taken everything"
            client.reset()
            await until(lambda: not server.listener.all and not server.edge.sessions, "the session has ended")
            assert (session.acknowledged, len(session.unacknowledged)) == (taken, 100 - taken)

    run(test())


def test_a_component_that_reads_nothing_is_cut_off() -> None:
    async def test() -> None:
        async with serve() as server, connect(server.port) as client:
            await client.join()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's stubs call it a WriteTransport
            session, connection = server.session, server.only
            before = closed("resource-constraint")
            for n in range(200):
                server.listener.check()
                assert server.listener.all == {connection}, "not before there is too much"
                server.deliver(inner=big(n))
                await asyncio.sleep(0)
                if connection.queued_bytes > component_listener.OUTPUT_BYTES:
                    break
            server.listener.check()
            await until(lambda: not server.listener.all and not server.edge.sessions, "the session has ended")
            assert session.unacknowledged, "it has not read them"
            assert closed("resource-constraint") == before + 1

    run(test())


def test_a_component_that_does_not_read_the_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with serve() as server, connect(server.port) as client:
            await client.join()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's stubs call it a WriteTransport
            connection = server.only
            for n in range(100):
                server.deliver(inner=big(n))
            connection.stream.fail(errors.Reset())
            server.listener.flush()
            await asyncio.sleep(0)
            server.listener.check()
            assert server.listener.all == {connection}, "it has a while"
            monkeypatch.setattr(component_listener, "CLOSE_WITHIN_S", -1.0)
            server.listener.check()
            await until(lambda: not server.listener.all, "the connection is forgotten")

    run(test())


# --- ends


def test_a_component_that_says_goodbye_is_answered() -> None:
    async def test() -> None:
        before = closed("component")
        async with serve() as server, connect(server.port) as client:
            await client.join()
            client.send(f"<message to='{ROMEO}' id='1'/>{CLOSE}")
            assert await client.rest() == CLOSE
            await until(lambda: not server.listener.all and not server.edge.sessions, "the session has ended")
            assert [stanza.id for stanza in server.router.submitted()] == ["1"]
        assert closed("component") == before + 1

    run(test())


@pytest.mark.parametrize("how", ["reset", "eof"])
def test_a_connection_that_ends_ends_its_session(how: str) -> None:
    async def test() -> None:
        reason = "connection-lost" if how == "reset" else "component-eof"
        before = closed(reason)
        async with serve() as server, connect(server.port) as client:
            await client.join()
            if how == "reset":
                client.reset()
            else:
                client.writer.write_eof()
                assert await client.rest() == CLOSE
            await until(lambda: not server.listener.all and not server.edge.sessions, "the session has ended")
        assert closed(reason) == before + 1

    run(test())


def test_a_bug_in_one_stream_ends_that_stream_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with serve() as server, connect(server.port) as victim, connect(server.port) as bystander:
            await bystander.join()
            victim.send(HEADER)
            await victim.read_until('">')
            monkeypatch.setattr(ComponentStream, "_on_element", lambda self, event: 1 // 0)
            before = sample("stentor_components_stream_failures_total")
            victim.send("<handshake/>")
            assert stream_error(await victim.rest()) == "internal-server-error"
            assert sample("stentor_components_stream_failures_total") == before + 1
            bystander.send(f"<message to='{ROMEO}' id='1'/>{CLOSE}")
            assert await bystander.rest() == CLOSE
            assert [stanza.id for stanza in server.router.submitted()] == ["1"]

    run(test())


# --- the listener


def test_without_components_nobody_is_let_in() -> None:
    """XEP-0114, 3: host-unknown."""

    async def test() -> None:
        port = free_port()
        listener = ComponentListener(config_of(port), Edge(lambda to, envelope: True, str, float))
        await listener.start()
        reader, writer = await asyncio.open_connection(ADDRESS, port)
        writer.write(
            b"<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='x.example'>"
        )
        said = await asyncio.wait_for(reader.readuntil(b"</stream:stream>"), 10)
        assert b"<host-unknown" in said
        writer.close()
        listener.check()
        await asyncio.wait_for(listener.drain(), 10)
        listener.close()

    run(test())


def test_a_port_that_is_taken_is_named_with_the_remedy() -> None:
    async def test() -> None:
        with socket.socket() as other:
            other.bind((ADDRESS, 0))
            other.listen()
            port = other.getsockname()[1]
            listener = ComponentListener(config_of(port, IRC), Edge(lambda to, envelope: True, str, float))
            with pytest.raises(CannotStart, match=rf"{ADDRESS} port {port}: .*Change components\.port"):
                await listener.start()

    run(test())


@pytest.mark.parametrize("domain", [DOMAIN, DOMAIN.upper(), f"x@{IRC}", f"{IRC}/x", "a b"])
def test_a_component_whose_name_cannot_be_is_told_before_anything_listens(domain: str) -> None:
    with pytest.raises(CannotStart, match=rf'components\.domains\."{domain}"'):
        ComponentListener(config_of(5347, domain), Edge(lambda to, envelope: True, str, float))


def test_connections_are_counted_by_what_they_are_doing() -> None:
    async def test() -> None:
        def states() -> list[float]:
            name = "stentor_components_connections"
            return [sample(name, state=state) for state in ("handshake", "bound", "closing")]

        async with serve() as server, connect(server.port) as first, connect(server.port) as second:
            server.listener.export()
            await first.join()
            second.send(HEADER)
            await second.read_until('">')
            assert states() == [1, 1, 0]
            server.router.is_confirming = False
            first.send(f"<message to='{ROMEO}'/>{CLOSE}")
            await until(lambda: states() == [1, 0, 1], "the first is closing")

    run(test())
