"""Streams between servers on loopback (s2s/tcp.py): real DNS, TCP and TLS, with asyncio's loop and with uvloop. The
routers are played."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Final, cast

import pytest
import uvloop

from cluster.clock import SYSTEM
from cluster.edge import Edge, EdgeSession
from cluster.trust import Authorities
from cluster.wire import ATTACH, UNREACHABLE
from s2s.dns import Resolver
from s2s.federation import Federation
from s2s.metrics import stats
from s2s.peer import Proof, StreamSettings, Transport
from s2s.proof import Prover
from s2s.stream import Stream
from s2s.tcp import Connection, Connections
from s2s.tls import ServerTls
from tests.support.cluster import FACTOR, deadline
from tests.support.federation import SETTINGS, header
from tests.support.nameserver import Zone, nameserver
from tests.support.pki import Issued, dns, issue
from tests.support.streams import Router
from tests.support.tls import EagerTls, client_context
from xmpp import ns
from xmpp.dialback import make_key
from xmpp.stanza import Stanza, message

HERE: Final = "127.0.45.1"
NEAR: Final = "montague.example"
FAR: Final = "capulet.example"
ROOMS: Final = "rooms.capulet.example"
WAIT_S: Final = 10.0

NOW = datetime.now(UTC)
VALID: dict[str, Any] = {"begin": NOW.replace(year=2020, month=1, day=1), "end": NOW.replace(year=2090, month=1, day=1)}
ROOT = issue("root", ca=True, **VALID)
AUTHORITIES = Authorities([ROOT.certificate])

Runner = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    factory = uvloop.new_event_loop if request.param == "uvloop" else None

    def go(test: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(test)

    return go


async def until(condition: Callable[[], object], what: str) -> None:
    """Let the loop turn until `condition`; fails after a while."""
    give_up_at = deadline(WAIT_S)
    while not condition():
        assert asyncio.get_running_loop().time() < give_up_at, f"still not so: {what}"
        await asyncio.sleep(0.005)


class Server:
    """One s2s process without its bus."""

    def __init__(
        self, tls: ServerTls, resolver: Resolver, secret: bytes, domains: Sequence[str], **changes: Any
    ) -> None:  # fmt: skip
        loop = asyncio.get_running_loop()
        self.router = Router()
        requests, ids = count(1), count(1)
        self.edge = self.router.edge = Edge(
            self.router.send, lambda: f"r{next(requests)}", time.monotonic, stats.failed
        )
        self.router.own_everything()
        self.router.wake = lambda: loop.call_soon(self._answer)
        self.connections = Connections(tls, AUTHORITIES, resolver, WAIT_S * FACTOR)
        prover = Prover(None, None, SYSTEM, self.connections.start)

        def prove(transport: Transport, domain: str, done: Callable[[Proof], None]) -> None:
            prover.prove(cast(Connection, transport), domain, done)

        self.federation = self.connections.federation = Federation(
            self.edge, _settings(domains, changes), connect=self.connections.open, prove=prove,
            new_id=lambda: f"{domains[0]}-{next(ids)}", now=time.monotonic, clock=time.time,
        )  # fmt: skip
        self.federation.secret = secret
        self.ports: dict[bool, int] = {}  # by "is direct TLS"

    def _answer(self) -> None:
        self.router.pump()
        self.connections.flush()

    def dial(self, remote: str, local: str) -> None:
        """An owner wants a stream."""
        self.federation.dial(remote, local)

    def way(self, remote: str, local: str) -> Stream | None:
        """The stream on which we may send."""
        streams = [stream for stream in self.federation.streams if (remote, local) in stream.pairs]
        return next((stream for stream in streams if stream.pairs[remote, local].sends), None)

    def session(self, remote: str, local: str) -> EdgeSession:
        """Its session."""
        stream = self.way(remote, local)
        assert stream is not None
        session = stream.pairs[remote, local].session
        assert session is not None
        return session

    def send(self, remote: str, local: str, id: str) -> None:
        """The owner delivers a message."""
        stanza = message(to=f"juliet@{remote}", from_=f"romeo@{local}", id=id, inner=b"<body>hello</body>")
        self.router.deliver(self.session(remote, local).sid, stanza)
        self.connections.flush()

    @property
    def attached(self) -> list[tuple[str, str, str, str]]:
        """Peer, our domain, by what authenticated, and the kind of connection."""
        found = [(fields[1], fields[3]) for fields in self.router.of_kind(ATTACH)]
        return [(bare, facts["local"], facts["how"], facts["transport"]) for bare, facts in found]

    @property
    def got(self) -> list[Stanza]:
        """What has come."""
        return self.router.submitted()


def _settings(domains: Sequence[str], changes: dict[str, Any]) -> StreamSettings:
    return replace(SETTINGS, domains=frozenset(domains), **changes)


class Net:
    """Servers and the DNS between them."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.zone = Zone("")
        self._records: list[str] = []
        self._directory = directory
        self._stack = stack
        self._address = stack.enter_context(nameserver(self.zone, "127.0.45.9"))

    async def server(
        self, *domains: str, is_direct_tls: bool = False, issued: Issued | None = None, **changes: Any
    ) -> Server:  # fmt: skip
        """A server for these domains; `issued` instead of its good certificate."""
        issued = issued or issue(domains[0], ROOT, names=dns(*domains), **VALID)
        tls = ServerTls({domains[0]: issued.write(self._directory, domains[0])})
        resolver = Resolver([self._address])
        self._stack.push_async_callback(resolver.close)
        server = Server(tls, resolver, domains[0].encode(), domains, **changes)
        loop = asyncio.get_running_loop()
        for kind in (False, True):
            listening = await loop.create_server(
                lambda kind=kind: server.connections.accept(kind), HERE, 0,
                ssl=tls.incoming if kind else None,
            )  # fmt: skip
            server.ports[kind] = listening.sockets[0].getsockname()[1]
            self._stack.callback(listening.close)
        self._stack.push_async_callback(_end, server)
        service = "_xmpps-server" if is_direct_tls else "_xmpp-server"
        for domain in domains:
            self._records.append(
                f"{service}._tcp.{domain}. 60 IN SRV 0 0 {server.ports[is_direct_tls]} h.{domains[0]}."
            )
        self._records.append(f"h.{domains[0]}. 60 IN A {HERE}")
        self.zone.set("\n".join(self._records))
        return server


async def _end(server: Server) -> None:
    server.connections.abort()
    await until(lambda: not server.connections.all, "every connection has ended")


@asynccontextmanager
async def net(directory: Path) -> AsyncIterator[Net]:
    async with AsyncExitStack() as stack:
        yield Net(directory, stack)


def self_signed(*domains: str) -> Issued:
    return issue(domains[0], names=dns(*domains), **VALID)


@pytest.mark.parametrize("is_direct_tls", [False, True])
@pytest.mark.parametrize("is_valid", [True, False])
def test_two_servers_talk_over_tls(run: Runner, tmp_path: Path, is_direct_tls: bool, is_valid: bool) -> None:
    async def scene() -> None:
        async with net(tmp_path) as world:
            near = await world.server(
                NEAR, is_direct_tls=is_direct_tls, issued=None if is_valid else self_signed(NEAR)
            )  # fmt: skip
            far = await world.server(FAR, is_direct_tls=is_direct_tls, issued=None if is_valid else self_signed(FAR))
            near.dial(FAR, NEAR)
            await until(lambda: near.way(FAR, NEAR), "there is a way")
            await until(lambda: far.way(NEAR, FAR), "and back")
            how, kind = "external" if is_valid else "dialback", "tls" if is_direct_tls else "starttls"
            assert near.attached == [(FAR, NEAR, how, kind)]
            assert far.attached == [(NEAR, FAR, how, kind)]
            for number in range(200):
                near.send(FAR, NEAR, str(number))
                far.send(NEAR, FAR, str(-number))
            await until(lambda: len(far.got) == len(near.got) == 200, "all stanzas have come")
            assert [stanza.id for stanza in far.got] == [str(number) for number in range(200)]
            await until(lambda: near.session(FAR, NEAR).acknowledged == 200, "all are acknowledged")
            near.federation.shut_down()
            near.connections.flush()
            await until(lambda: not near.connections.all and not far.connections.all, "the connections have ended")
            assert not near.federation.streams
            assert not near.edge.sessions
            assert not far.edge.sessions

    run(scene())


def test_what_comes_in_one_segment_with_the_end_of_the_handshake_is_not_lost(run: Runner, tmp_path: Path) -> None:
    async def scene() -> None:
        async with net(tmp_path) as world:
            far = await world.server(FAR)
            with socket.create_connection((HERE, far.ports[False])) as opened:
                opened.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(opened, (header(NEAR, FAR) + f"<starttls xmlns='{ns.TLS}'/>").encode())
                answered = b""
                while b"<proceed" not in answered:
                    answered += await asyncio.wait_for(loop.sock_recv(opened, 65_536), WAIT_S * FACTOR)
                eager = EagerTls(opened, client_context(), FAR)
                await eager.say(header(NEAR, FAR))
                features = await asyncio.wait_for(eager.read_until("</stream:features>"), WAIT_S * FACTOR)
                assert "starttls" not in features

    run(scene())


def test_all_pairs_share_one_connection(run: Runner, tmp_path: Path) -> None:
    async def scene() -> None:
        async with net(tmp_path) as world:
            near = await world.server(NEAR, "verona.example")
            far = await world.server(FAR, ROOMS)
            pairs = [(FAR, NEAR), (FAR, "verona.example"), (ROOMS, NEAR)]
            near.dial(*pairs[0])
            await until(lambda: near.way(*pairs[0]), "there is a way")
            for pair in pairs[1:]:
                near.dial(*pair)
            await until(lambda: all(near.way(*pair) for pair in pairs), "there are all ways")
            assert len(near.connections.all) == len(far.connections.all) == 1
            near.send(ROOMS, NEAR, "hello")
            await until(lambda: far.got, "it has come")

    run(scene())


def test_a_valid_certificate_is_demanded_of_the_server_too(run: Runner, tmp_path: Path) -> None:
    async def scene() -> None:
        async with net(tmp_path) as world:
            expired = issue(FAR, ROOT, names=dns(FAR), begin=NOW.replace(year=2019), end=NOW.replace(year=2020))
            near = await world.server(NEAR, policies={FAR: "secure"})
            far = await world.server(FAR, issued=expired)
            near.dial(FAR, NEAR)
            far.dial(NEAR, FAR)
            await until(lambda: near.router.of_kind(UNREACHABLE), "the owner is told")
            [(_, _, condition, text, is_permanent)] = near.router.of_kind(UNREACHABLE)
            assert (condition, is_permanent) == ("policy-violation", True)
            assert "the certificate expired" in text
            await until(lambda: far.router.of_kind(UNREACHABLE), "the other one, too")
            assert "not-authorized" in far.router.of_kind(UNREACHABLE)[0][3]
            assert near.attached == far.attached == []

    run(scene())


@pytest.mark.parametrize("records", [[], ["_xmpp-server._tcp.paris.example. 60 IN SRV 0 0 1 h.paris.example.",
                                          f"h.paris.example. 60 IN A {HERE}"]])  # fmt: skip
def test_who_cannot_be_reached_is_told_and_why(run: Runner, tmp_path: Path, records: list[str]) -> None:
    async def scene() -> None:
        async with net(tmp_path) as world:
            near = await world.server(NEAR)
            world.zone.set("\n".join(records))
            near.dial("paris.example", NEAR)
            await until(lambda: near.router.of_kind(UNREACHABLE), "the owner is told")
            [(_, _, condition, text, is_permanent)] = near.router.of_kind(UNREACHABLE)
            if records:
                assert (condition, is_permanent) == ("remote-server-timeout", False)
                assert "h.paris.example port 1 (STARTTLS)" in text
            else:
                assert (condition, is_permanent) == ("remote-server-not-found", True)
            assert not near.federation.streams

    run(scene())


def test_a_server_that_does_not_speak_tls_is_given_up(run: Runner, tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b">")
        await reader.readuntil(b">")
        writer.write(header(FAR, NEAR).replace(" version", " id='1' version").encode())
        writer.write(f"<stream:features><starttls xmlns='{ns.TLS}'/></stream:features>".encode())
        await reader.readuntil(b"/>")
        writer.write(f"<proceed xmlns='{ns.TLS}'/>".encode())
        await reader.read(10)  # its hello
        writer.write(b"and now for something completely different")
        await reader.read()
        writer.close()

    async def scene() -> None:
        async with net(tmp_path) as world:
            near = await world.server(NEAR)
            listening = await asyncio.start_server(answer, HERE, 0)
            port = listening.sockets[0].getsockname()[1]
            world.zone.set(f"_xmpp-server._tcp.{FAR}. 60 IN SRV 0 0 {port} h.{FAR}.\nh.{FAR}. 60 IN A {HERE}")
            near.dial(FAR, NEAR)
            await until(lambda: near.router.of_kind(UNREACHABLE), "the owner is told")
            [(_, _, condition, text, _)] = near.router.of_kind(UNREACHABLE)
            assert condition == "remote-server-timeout"
            assert text.startswith("TLS: ")
            await until(lambda: not near.connections.all, "the connection has ended")
            listening.close()

    run(scene())


def test_without_stream_management_what_the_kernel_has_taken_is_acknowledged(run: Runner, tmp_path: Path) -> None:
    """And what it has not is given back, when the connection is lost."""

    async def scene() -> None:
        async with net(tmp_path) as world:
            far = await world.server(FAR, is_tls_required=False)
            reader, writer = await asyncio.open_connection(HERE, far.ports[False])
            writer.write(header(NEAR, FAR).encode() + f"<bidi xmlns='{ns.BIDI}'/>".encode())
            near = await world.server(NEAR, is_tls_required=False)  # verifies the key
            await reader.readuntil(b"</stream:features>")
            key = make_key(NEAR.encode(), FAR, NEAR, f"{FAR}-1")
            writer.write(f"<db:result from='{NEAR}' to='{FAR}'>{key}</db:result>".encode())
            await until(lambda: far.way(NEAR, FAR), "the key was verified")
            assert near.attached == []
            session = far.session(NEAR, FAR)
            far.send(NEAR, FAR, "taken")
            await reader.readuntil(b"</message>")
            far.connections.check()
            await until(lambda: session.acknowledged == 1, "it is acknowledged")
            body = b"<body>%b</body>" % (b"x" * 200_000)
            for number in range(60):
                stanza = message(to=f"juliet@{NEAR}", from_=f"romeo@{FAR}", id=str(number), inner=body)
                far.router.deliver(session.sid, stanza)
                far.connections.flush()
            far.connections.check()
            assert session.acknowledged < 61
            writer.transport.abort()
            await until(lambda: session.is_closing, "the stream has ended")
            assert len(session.unacknowledged) == 61 - session.acknowledged

    run(scene())
