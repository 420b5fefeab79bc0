"""Client connections on loopback (c2s/tcp.py): TLS by both ways, slow readers, connections that are lost. The router
is played; everything else is real, uvloop included."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from c2s import tcp
from c2s.connections import RECEIVE_BYTES, Carrier, Connections
from c2s.metrics import stats
from c2s.stream import ClientStream, Facts
from c2s.tcp import Connection
from c2s.tls import ServerTls
from cluster.edge import Edge
from cluster.tls import Pair
from tests.support.cluster import FACTOR, deadline
from tests.support.streams import (
    BIND,
    CLOSE,
    DOMAIN,
    HEADER,
    ROMEO,
    SETTINGS,
    STARTTLS,
    Clock,
    Router,
    auth,
    closed,
    plain,
    sample,
    stream_error,
)
from tests.support.tls import EagerTls, client_context, write_pair
from xmpp import ns
from xmpp.stanza import message

CA = trustme.CA()
WAIT_S = 10.0
PROCEED = f'<proceed xmlns="{ns.TLS}"/>'


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    return ServerTls({DOMAIN: write_pair(tmp_path_factory.mktemp("tls"), "server", CA.issue_cert(DOMAIN))})


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


class Server:
    """Both ports of a c2s process."""

    def __init__(self, tls: ServerTls, handshake_timeout_s: float, clock: Callable[[], float], **changes: Any) -> None:
        loop = asyncio.get_running_loop()
        self.router = Router()
        requests, ids = count(1), count(1)
        self.edge = self.router.edge = Edge(self.router.send, lambda: f"r{next(requests)}", clock)
        self.router.own_everything()
        self.router.wake = lambda: loop.call_soon(self._answer)
        settings = replace(SETTINGS, **changes)
        facts = Facts()

        def make_stream(carrier: Carrier) -> ClientStream:
            return ClientStream(carrier, self.edge, settings, facts, lambda: f"s{next(ids)}", clock)

        self.connections = Connections(self.edge, make_stream)
        self._tls = tls
        self._handshake_timeout_s = handshake_timeout_s
        self.port = self.tls_port = 0

    def protocol(self, is_direct_tls: bool) -> Connection:
        return Connection(self.connections, self._tls, is_direct_tls, self._handshake_timeout_s)

    def _answer(self) -> None:
        self.router.pump()
        self.connections.flush()

    @property
    def only(self) -> Connection:
        """The one connection there is."""
        (connection,) = self.connections.all
        assert isinstance(connection, Connection)
        return connection


@asynccontextmanager
async def serve(
    tls: ServerTls, *, handshake_timeout_s: float = WAIT_S, clock: Callable[[], float] | None = None, **changes: Any
) -> AsyncIterator[Server]:
    loop = asyncio.get_running_loop()
    server = Server(tls, handshake_timeout_s * FACTOR, clock or loop.time, **changes)
    connections = server.connections
    plain_port = await loop.create_server(lambda: server.protocol(False), "127.0.0.1", 0)
    tls_port = await loop.create_server(
        lambda: server.protocol(True), "127.0.0.1", 0, ssl=tls.context,
        ssl_handshake_timeout=handshake_timeout_s * FACTOR,
    )  # fmt: skip
    server.port = plain_port.sockets[0].getsockname()[1]
    server.tls_port = tls_port.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        plain_port.close()
        tls_port.close()
        for connection in list(connections.all):
            connection.abort()
        await until(lambda: not connections.all, "every connection has ended")


class Client:
    """The other end, reading when the test says so."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, text: str) -> None:
        self.writer.write(text.encode())

    async def read_until(self, end: str) -> str:
        found = await asyncio.wait_for(self.reader.readuntil(end.encode()), WAIT_S * FACTOR)
        return found.decode()

    async def rest(self) -> str:
        return (await asyncio.wait_for(self.reader.read(), WAIT_S * FACTOR)).decode()

    async def start_tls(self, domain: str = DOMAIN) -> None:
        self.send(HEADER.replace(DOMAIN, domain))
        await self.read_until("</stream:features>")
        self.send(STARTTLS)
        await self.read_until('<proceed xmlns="urn:ietf:params:xml:ns:xmpp-tls"/>')
        await self.writer.start_tls(client_context(CA), server_hostname=domain)

    async def bind(self) -> None:
        self.send(HEADER + auth("PLAIN", plain()) + HEADER + BIND)
        await self.read_until("</jid></bind></iq>")

    def reset(self) -> None:
        """End the connection as a crash would."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@asynccontextmanager
async def connect(port: int, ssl: ssl.SSLContext | None = None, domain: str = DOMAIN) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ssl, server_hostname=domain if ssl else None)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


def handshakes(result: str) -> float:
    return sample("stentor_c2s_tls_handshake_seconds_count", result=result)


# --- TLS


@pytest.mark.parametrize("is_direct", [False, True])
def test_a_session_over_tls(tls: ServerTls, is_direct: bool) -> None:
    async def test() -> None:
        before = handshakes("ok"), handshakes("failed")
        async with (
            serve(tls, is_tls_required=True) as server,
            connect(server.tls_port if is_direct else server.port, client_context(CA) if is_direct else None) as client,
        ):
            if not is_direct:
                await client.start_tls()
            await client.bind()
            assert server.only.is_secure
            assert server.only.transport_name == ("tls" if is_direct else "starttls")
            assert list(server.only.channel_bindings()) == ["tls-exporter", "tls-server-end-point"]
            assert server.only.address == "127.0.0.1"
            client.send(f"<message to='{ROMEO}' id='1'/>" + CLOSE)
            assert (await client.rest()).endswith(CLOSE)
            await until(lambda: not server.connections.all and not server.edge.sessions, "the session has ended")
            assert [stanza.id for stanza in server.router.submitted()] == ["1"]
        gc.collect()
        assert (handshakes("ok"), handshakes("failed")) == (before[0] + 1, before[1])

    run(test())


def test_what_comes_in_clear_behind_starttls_never_reaches_the_stream(tls: ServerTls) -> None:
    async def test() -> None:
        async with serve(tls) as server, connect(server.port) as client:
            client.send(HEADER + STARTTLS + HEADER + auth("PLAIN", plain()))
            await client.read_until(PROCEED)
            await client.writer.start_tls(client_context(CA), server_hostname=DOMAIN)
            client.send(HEADER)
            assert "<mechanisms" in await client.read_until("</stream:features>")
            assert server.router.sent == []

    run(test())


@pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_what_comes_in_one_segment_with_the_end_of_the_handshake_is_not_lost(
    tls: ServerTls, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def test() -> None:
        async with serve(tls) as server:
            with socket.create_connection(("127.0.0.1", server.port)) as opened:
                opened.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(opened, (HEADER + STARTTLS).encode())
                answered = b""
                while not answered.endswith(PROCEED.encode()):
                    answered += await asyncio.wait_for(loop.sock_recv(opened, 65_536), WAIT_S * FACTOR)
                eager = EagerTls(opened, client_context(CA), DOMAIN)
                await eager.say(HEADER + auth("PLAIN", plain()))
                answer = await asyncio.wait_for(eager.read_until(f'<success xmlns="{ns.SASL}"/>'), WAIT_S * FACTOR)
                assert "starttls" not in answer

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(test())


@pytest.mark.parametrize("is_direct", [False, True])
@pytest.mark.parametrize("how", ["nonsense", "reset", "eof"])
def test_a_handshake_that_fails_leaves_nothing_behind(tls: ServerTls, is_direct: bool, how: str) -> None:
    async def test() -> None:
        before = handshakes("ok"), handshakes("failed")
        async with serve(tls) as server:
            lost = closed("connection-lost")
            async with connect(server.tls_port if is_direct else server.port) as client:
                if not is_direct:
                    client.send(HEADER + STARTTLS)
                    await client.read_until(PROCEED)
                client.send("no TLS at all\r\n\r\n" if how == "nonsense" else "\x16\x03\x01")
                if how == "reset":
                    client.reset()
                elif how == "eof":
                    client.writer.write_eof()
                await until(lambda: handshakes("failed") == before[1] + 1, "the failure is counted")
                await until(lambda: not server.connections.all, "the connection is forgotten")
            assert closed("connection-lost") == lost + (not is_direct)
        assert handshakes("ok") == before[0]

    run(test())


@pytest.mark.parametrize("is_direct", [False, True])
def test_a_handshake_may_not_take_for_ever(tls: ServerTls, is_direct: bool) -> None:
    async def test() -> None:
        before = handshakes("failed")
        async with (
            serve(tls, handshake_timeout_s=0.1) as server,
            connect(server.tls_port if is_direct else server.port) as client,
        ):
            if not is_direct:
                client.send(HEADER + STARTTLS)
            await client.rest()
            await until(lambda: handshakes("failed") == before + 1, "the failure is counted")
            await until(lambda: not server.connections.all, "the connection is forgotten")

    run(test())


def test_the_login_timeout_ends_a_handshake_too(tls: ServerTls) -> None:
    async def test() -> None:
        clock = Clock()
        async with serve(tls, clock=clock) as server, connect(server.port) as client:
            client.send(HEADER + STARTTLS)
            await client.read_until(PROCEED)
            clock.now += 31
            await server.connections.check()
            assert await client.rest() == ""
            await until(lambda: not server.connections.all, "the connection is forgotten")

    run(test())


# --- certificates


OTHER = "capulet.example"


def new_pairs(directory: Path) -> dict[str, Pair]:
    """Files of certificates for two domains, made anew."""
    return {domain: write_pair(directory, domain, CA.issue_cert(domain)) for domain in (DOMAIN, OTHER)}


def shown_in(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair[0].read_text().partition("-----END")[0] + "-----END CERTIFICATE-----")


@pytest.mark.parametrize("is_direct", [False, True])
def test_two_domains_are_told_by_sni_and_renewed_under_open_streams(tmp_path: Path, is_direct: bool) -> None:
    async def shown(server: Server, domain: str) -> bytes:
        port = server.tls_port if is_direct else server.port
        async with connect(port, client_context(CA) if is_direct else None, domain) as client:
            if not is_direct:
                await client.start_tls(domain)
            found: bytes = client.writer.get_extra_info("ssl_object").getpeercert(True)
            return found

    async def test() -> None:
        pairs = new_pairs(tmp_path)
        tls = ServerTls(pairs)
        domains = frozenset(pairs)
        async with (
            serve(tls, is_tls_required=True, domains=domains) as server,
            connect(server.tls_port if is_direct else server.port, client_context(CA) if is_direct else None) as old,
        ):
            if not is_direct:
                await old.start_tls()
            await old.bind()
            connection = server.only
            before = connection.channel_bindings()
            assert [await shown(server, domain) for domain in pairs] == [shown_in(pair) for pair in pairs.values()]
            first = [shown_in(pair) for pair in pairs.values()]
            assert [shown_in(pair) for pair in new_pairs(tmp_path).values()] != first
            assert [await shown(server, domain) for domain in pairs] == first
            tls.certificates.renew(force=False)
            second = [shown_in(pair) for pair in pairs.values()]
            assert [await shown(server, domain) for domain in pairs] == second
            assert connection.channel_bindings() == before
            old.send(f"<message to='{ROMEO}' id='1'/>" + CLOSE)
            assert (await old.rest()).endswith(CLOSE)
            assert [stanza.id for stanza in server.router.submitted()] == ["1"]

    run(test())


# --- reading and writing


def test_bytes_are_counted_in_both_directions(tls: ServerTls) -> None:
    async def test() -> None:
        before = stats.bytes_in, stats.bytes_out
        async with serve(tls) as server, connect(server.port) as client:
            client.send(HEADER)
            written = await client.read_until("</stream:features>")
            client.send(CLOSE)
            written += await client.rest()
            assert stats.bytes_in - before[0] == len(HEADER + CLOSE)
            assert stats.bytes_out - before[1] == len(written)

    run(test())


def test_a_client_that_pipelines_thousands_of_stanzas_is_paused_and_loses_none(tls: ServerTls) -> None:
    async def test() -> None:
        async with serve(tls) as server, connect(server.port) as client:
            await client.bind()
            server.router.is_confirming = False
            (sid,) = server.edge.sessions
            session = server.edge.sessions[sid]
            for n in range(10_000):
                client.send(f"<message id='{n}'><body>{'x' * 50}</body></message>")
            while len(server.router.submitted()) < 10_000:
                await until(lambda: session.is_paused or session.n == 10_000, "the window is full")
                assert len(session.held) <= 64 + RECEIVE_BYTES // 80, "no more than one read above the window"
                server.router.confirm(sid)
            assert [stanza.id for stanza in server.router.submitted()] == [str(n) for n in range(10_000)]

    run(test())


def big(n: int) -> str:
    return f"<body>{n}{'x' * 100_000}</body>"


def test_what_the_kernel_takes_counts_as_acknowledged(tls: ServerTls) -> None:
    async def test() -> None:
        async with serve(tls) as server, connect(server.port) as client:
            await client.bind()
            (session,) = server.edge.sessions.values()
            for n in range(3):
                server.router.deliver(session.sid, message(to=None, from_=DOMAIN, inner=big(n).encode()))
            server.connections.flush()
            await client.reader.readexactly(300_000)
            await server.connections.check()
            assert session.acknowledged == 3
            assert not session.unacknowledged

    run(test())


def test_a_client_that_reads_nothing_is_cut_off(tls: ServerTls) -> None:
    async def test() -> None:
        async with serve(tls) as server, connect(server.port) as client:
            await client.bind()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's stubs call it a WriteTransport
            (session,) = server.edge.sessions.values()
            before = closed("resource-constraint")
            connection = server.only
            n = 0
            while connection.queued_bytes <= tcp.OUTPUT_BYTES:
                await server.connections.check()
                assert server.connections.all == {connection}, "not before there is too much"
                server.router.deliver(session.sid, message(to=None, from_=DOMAIN, inner=big(n).encode()))
                server.connections.flush()
                await asyncio.sleep(0)
                n += 1
            assert session.unacknowledged, "it has not read them"
            await server.connections.check()
            await until(lambda: not server.connections.all and not server.edge.sessions, "the session has ended")
            assert closed("resource-constraint") == before + 1

    run(test())


@pytest.mark.parametrize("is_direct", [False, True])
def test_a_client_that_does_not_read_the_end_is_not_waited_for(
    tls: ServerTls, is_direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with (
            serve(tls) as server,
            connect(server.tls_port if is_direct else server.port, client_context(CA) if is_direct else None) as client,
        ):
            await client.bind()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's stubs call it a WriteTransport
            (session,) = server.edge.sessions.values()
            connection = server.only
            for n in range(100):
                server.router.deliver(session.sid, message(to=None, from_=DOMAIN, inner=big(n).encode()))
            assert connection.stream is not None
            connection.stream.shut_down()
            server.connections.flush()
            await asyncio.sleep(0)
            await server.connections.check()
            assert server.connections.all == {connection}, "it has a while"
            monkeypatch.setattr(tcp, "CLOSE_WITHIN_S", -1.0)
            await server.connections.check()
            await until(lambda: not server.connections.all, "the connection is forgotten")

    run(test())


# --- ends


@pytest.mark.parametrize("is_direct", [False, True])
def test_a_connection_that_breaks_ends_its_session(tls: ServerTls, is_direct: bool) -> None:
    async def test() -> None:
        before = closed("connection-lost")
        async with (
            serve(tls) as server,
            connect(server.tls_port if is_direct else server.port, client_context(CA) if is_direct else None) as client,
        ):
            await client.bind()
            client.reset()
            await until(lambda: not server.connections.all and not server.edge.sessions, "the session has ended")
        assert closed("connection-lost") == before + 1

    run(test())


def test_a_client_that_ends_its_half_ends_its_session(tls: ServerTls) -> None:
    async def test() -> None:
        before = closed("client-eof")
        async with serve(tls) as server, connect(server.port) as client:
            await client.bind()
            client.writer.write_eof()
            assert await client.rest() == CLOSE
            await until(lambda: not server.connections.all and not server.edge.sessions, "the session has ended")
        assert closed("client-eof") == before + 1

    run(test())


def test_an_error_is_read_by_the_client_before_the_connection_ends(tls: ServerTls) -> None:
    async def test() -> None:
        async with serve(tls) as server, connect(server.port) as client:
            client.send("GET / HTTP/1.1\r\n\r\n")
            assert stream_error(await client.rest()) == "not-well-formed"

    run(test())


def test_a_process_that_is_full_refuses_the_next_client(tls: ServerTls) -> None:
    async def test() -> None:
        async with serve(tls, sessions=1) as server, connect(server.port) as first, connect(server.port) as second:
            await first.bind()
            second.send(HEADER)
            assert stream_error(await second.rest()) == "resource-constraint"
            first.send(f"<message id='1'/>{CLOSE}")
            assert (await first.rest()).endswith(CLOSE)

    run(test())


def test_a_bug_in_one_stream_ends_that_stream_and_no_other(tls: ServerTls, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with serve(tls) as server, connect(server.port) as victim, connect(server.port) as bystander:
            await bystander.bind()
            victim.send(HEADER)
            await victim.read_until("</stream:features>")
            monkeypatch.setattr(ClientStream, "_on_element", lambda self, event: 1 // 0)
            before = sample("stentor_c2s_stream_failures_total")
            victim.send(auth("PLAIN", plain()))
            assert stream_error(await victim.rest()) == "internal-server-error"
            assert sample("stentor_c2s_stream_failures_total") == before + 1
            bystander.send("<message id='1'/>" + CLOSE)
            assert (await bystander.rest()).endswith(CLOSE)
            assert [stanza.id for stanza in server.router.submitted()] == ["1"]

    run(test())
