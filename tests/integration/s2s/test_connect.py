"""Connecting to other servers (s2s/connect.py) on loopback, with asyncio's loop and with uvloop."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvloop

from cluster.tls import chain_of
from cluster.trust import Authorities
from s2s.certificates import identify
from s2s.connect import Connected, ConnectError, connect
from s2s.dns import NotFound, Unresolved
from s2s.srv import Target
from s2s.tls import ALPN, ServerTls, server_name
from tests.support.cluster import FACTOR
from tests.support.pki import Issued, dns, issue
from xmpp.errors import RemoteServerNotFound, RemoteServerTimeout

HERE, THERE = "127.0.42.1", "127.0.42.2"
NOW = datetime.now(UTC)
ROOT = issue("root", ca=True, begin=NOW.replace(year=2020), end=NOW.replace(year=2090))
MIDDLE = issue("middle", ROOT, ca=True, begin=NOW.replace(year=2020), end=NOW.replace(year=2090))
AUTHORITIES = Authorities([ROOT.certificate])
DOMAIN = "bücher.example"
WAIT_S = 10.0 * FACTOR

Runner = Callable[[Coroutine[Any, Any, None]], None]
Names = dict[str, Sequence[str] | Exception]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    factory = uvloop.new_event_loop if request.param == "uvloop" else None

    async def bounded(test: Coroutine[Any, Any, None]) -> None:
        before = len(os.listdir("/proc/self/fd"))
        async with asyncio.timeout(4 * WAIT_S):
            await test
        async with asyncio.timeout(WAIT_S):  # else a task or a socket of ours was left behind; their end takes a moment
            while len(asyncio.all_tasks()) > 1 or len(os.listdir("/proc/self/fd")) > before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def go(test: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_warm_up())
            runner.run(bounded(test))

    return go


async def _warm_up() -> None:
    """Let the loop open what it keeps open."""
    reader, writer = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=reader)
    transport.close()
    writer.close()
    await asyncio.sleep(0)


def own(directory: Path, domain: str, *, is_trusted: bool = True) -> ServerTls:
    """A server's certificate: from the middle authority, or self-signed."""
    issued: Issued = issue(
        domain,
        MIDDLE if is_trusted else None,
        names=dns(domain),
        begin=NOW.replace(year=2020),
        end=NOW.replace(year=2090),
    )
    pair = issued.write(directory, domain, *((MIDDLE,) if is_trusted else ()))
    return ServerTls({domain: pair})


@pytest.fixture
def us(tmp_path: Path) -> ServerTls:
    return own(tmp_path, "us.example")


@pytest.fixture
def them(tmp_path: Path) -> ServerTls:
    return own(tmp_path, server_name(DOMAIN))


class Receiver(asyncio.Protocol):
    """Our end, or theirs."""

    def __init__(self, greeting: bytes = b"") -> None:
        self.greeting = greeting
        self.received: asyncio.Queue[bytes] = asyncio.Queue()
        self.made = 0
        self.ready = asyncio.Event()  # with TLS: their end of the handshake is done
        self.lost = asyncio.Event()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.made += 1
        self.ready.set()
        if self.greeting:
            transport.write(self.greeting)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.received.put_nowait(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class BufferedReceiver(asyncio.BufferedProtocol):
    """The kind of protocol that client streams are."""

    def __init__(self) -> None:
        self.buffer = bytearray(1_000)
        self.received: asyncio.Queue[bytes] = asyncio.Queue()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received.put_nowait(bytes(self.buffer[:nbytes]))


class Listening:
    """A server, and its ends of the connections that it took."""

    def __init__(self, greeting: bytes) -> None:
        self.greeting = greeting
        self.taken: asyncio.Queue[Receiver] = asyncio.Queue()
        self.all: list[Receiver] = []
        self.port = 0

    def __call__(self) -> Receiver:
        receiver = Receiver(self.greeting)
        self.all.append(receiver)
        self.taken.put_nowait(receiver)
        return receiver


@asynccontextmanager
async def listening(
    address: str, port: int = 0, tls: ssl.SSLContext | None = None, greeting: bytes = b""
) -> AsyncIterator[Listening]:
    listener = Listening(greeting)
    server = await asyncio.get_running_loop().create_server(listener, address, port, ssl=tls)
    listener.port = server.sockets[0].getsockname()[1]
    try:
        yield listener
    finally:
        server.close()
        for receiver in listener.all:
            if receiver.transport is not None:
                receiver.transport.abort()
        await asyncio.sleep(0)


def free_port(address: str) -> int:
    with closing(socket.socket()) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def at(names: Names) -> Callable[[Target], Awaitable[Sequence[str]]]:
    async def addresses(target: Target) -> Sequence[str]:
        found = names[target.host]
        if isinstance(found, Exception):
            raise found
        return found

    return addresses


async def reach(targets: list[Target], names: Names, tls: ServerTls, **options: float) -> Connected[Receiver]:
    context = tls.outgoing("us.example", is_direct_tls=True)
    name = server_name(DOMAIN)
    return await connect(targets, at(names), lambda target: Receiver(), tls=context, server_name=name, **options)


async def end(*connections: Connected[Receiver]) -> None:
    for connected in connections:
        connected.transport.abort()
        await connected.protocol.lost.wait()


def test_starttls_targets_are_connected_in_the_clear_and_then_upgraded(
    run: Runner, us: ServerTls, them: ServerTls
) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        async with listening(HERE) as there:
            connected = await reach([Target("h", there.port, False)], {"h": [HERE]}, us)
            assert connected.protocol.made == 1
            assert connected.transport.get_extra_info("ssl_object") is None
            theirs = await there.taken.get()
            connected.transport.write(b"<starttls/>")
            assert await theirs.received.get() == b"<starttls/>"
            assert theirs.transport is not None
            their_end, our_end = await asyncio.gather(
                loop.start_tls(theirs.transport, theirs, them.incoming, server_side=True),
                loop.start_tls(
                    connected.transport, connected.protocol, us.outgoing("us.example", is_direct_tls=False),
                    server_hostname=server_name(DOMAIN),
                ),
            )  # fmt: skip
            assert their_end is not None
            assert our_end is not None
            seen_by_them = identify(chain_of(their_end.get_extra_info("ssl_object")), AUTHORITIES, NOW)
            seen_by_us = identify(chain_of(our_end.get_extra_info("ssl_object")), AUTHORITIES, NOW)
            assert seen_by_them.proves("us.example")
            assert seen_by_us.proves(DOMAIN)
            assert len(seen_by_them.chain) == len(seen_by_us.chain) == 2
            our_end.write(b"over TLS")
            assert await theirs.received.get() == b"over TLS"
            our_end.abort()
            await connected.protocol.lost.wait()
            await theirs.lost.wait()

    run(test())


def test_direct_tls_names_the_domain_and_the_protocol(run: Runner, us: ServerTls, them: ServerTls) -> None:
    names: list[str | None] = []

    async def test() -> None:
        select = them.incoming.sni_callback
        assert select is not None

        def note(ssl_object: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            names.append(name)
            select(ssl_object, name, context)  # type: ignore[arg-type]

        them.incoming.sni_callback = note
        async with listening(HERE, tls=them.incoming) as there:
            connected = await reach([Target("h", there.port, True)], {"h": [HERE]}, us)
            theirs = await there.taken.get()
            await theirs.ready.wait()
            ours = connected.transport.get_extra_info("ssl_object")
            assert ours.selected_alpn_protocol() == ALPN
            assert identify(chain_of(ours), AUTHORITIES, NOW).proves(DOMAIN)
            assert theirs.transport is not None
            assert identify(chain_of(theirs.transport.get_extra_info("ssl_object")), AUTHORITIES, NOW).proves(
                "us.example"
            )
            connected.transport.write(b"hello")
            assert await theirs.received.get() == b"hello"
            await end(connected)

    run(test())
    assert names == ["xn--bcher-kva.example"]


def test_a_domain_that_is_an_address_is_asked_for_without_a_name(run: Runner, us: ServerTls, them: ServerTls) -> None:
    async def test() -> None:
        async with listening(HERE, tls=them.incoming) as there:
            connected = await connect(
                [Target(HERE, there.port, True)], at({HERE: [HERE]}), lambda target: Receiver(),
                tls=us.outgoing("us.example", is_direct_tls=True), server_name=server_name(HERE),
            )  # fmt: skip
            assert chain_of(connected.transport.get_extra_info("ssl_object"))
            await end(connected)

    run(test())


def test_untrusted_certificates_fail_no_handshake_and_prove_nothing(run: Runner, tmp_path: Path) -> None:
    async def test() -> None:
        them, us = (own(tmp_path, name, is_trusted=False) for name in (server_name(DOMAIN), "us.example"))
        async with listening(HERE, tls=them.incoming) as there:
            connected = await reach([Target("h", there.port, True)], {"h": [HERE]}, us)
            theirs = await there.taken.get()
            await theirs.ready.wait()
            assert theirs.transport is not None
            for transport, domain in ((connected.transport, DOMAIN), (theirs.transport, "us.example")):
                peer = identify(chain_of(transport.get_extra_info("ssl_object")), AUTHORITIES, NOW)
                assert not peer.proves(domain)
                assert peer.names.cover(domain)
                assert peer.problem == "the certificate is self-signed"
            await end(connected)

    run(test())


@pytest.mark.parametrize("is_direct_tls", [False, True])
def test_who_speaks_first_is_heard_by_the_protocol_that_comes_later(
    run: Runner, us: ServerTls, them: ServerTls, is_direct_tls: bool
) -> None:
    async def test() -> None:
        tls = them.incoming if is_direct_tls else None
        async with listening(HERE, tls=tls, greeting=b"x" * 500) as there:
            connected = await connect(
                [Target("h", there.port, is_direct_tls)], at({"h": [HERE]}), lambda target: BufferedReceiver(),
                tls=us.outgoing("us.example", is_direct_tls=True), server_name=server_name(DOMAIN),
            )  # fmt: skip
            assert await connected.protocol.received.get() == b"x" * 500
            connected.transport.abort()
            theirs = await there.taken.get()
            await theirs.lost.wait()

    run(test())


def test_the_next_target_is_tried_when_one_refuses(run: Runner, us: ServerTls) -> None:
    async def test() -> None:
        async with listening(THERE) as there:
            targets = [Target("a", free_port(HERE), False), Target("gone", 1, False), Target("b", there.port, False)]
            names: Names = {"a": [HERE], "gone": NotFound("gone does not exist"), "b": [THERE]}
            connected = await reach(targets, names, us, stagger_s=WAIT_S)
            assert (connected.target.host, connected.address) == ("b", THERE)
            await end(connected)

    run(test())


def test_every_address_of_a_target_is_tried(run: Runner, us: ServerTls) -> None:
    async def test() -> None:
        async with listening(THERE) as there:
            connected = await reach([Target("a", there.port, False)], {"a": ["::1", HERE, THERE]}, us)
            assert connected.address == THERE
            await end(connected)

    run(test())


def test_the_next_target_is_tried_when_direct_tls_fails(run: Runner, us: ServerTls) -> None:
    """The first speaks something else, as a port that is not for TLS does."""

    async def test() -> None:
        async with listening(HERE, greeting=b"<?xml version='1.0'?>") as wrong, listening(THERE) as right:
            targets = [Target("a", wrong.port, True), Target("b", right.port, False)]
            connected = await reach(targets, {"a": [HERE], "b": [THERE]}, us, stagger_s=WAIT_S)
            assert connected.target.host == "b"
            assert (await wrong.taken.get()).made == 1
            await end(connected)

    run(test())


def test_the_next_target_is_tried_when_a_handshake_hangs(run: Runner, us: ServerTls) -> None:
    async def test() -> None:
        async with listening(HERE) as silent, listening(THERE) as right:
            targets = [Target("a", silent.port, True), Target("b", right.port, False)]
            connected = await reach(targets, {"a": [HERE], "b": [THERE]}, us, stagger_s=0.01, handshake_s=0.2)
            assert connected.target.host == "b"
            await (await silent.taken.get()).lost.wait()
            await end(connected)

    run(test())


def test_a_handshake_that_takes_its_time_is_not_overtaken(run: Runner, us: ServerTls, them: ServerTls) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        async with listening(HERE) as slow, listening(THERE) as other:
            targets = [Target("a", slow.port, True), Target("b", other.port, False)]
            reaching = asyncio.create_task(reach(targets, {"a": [HERE], "b": [THERE]}, us, stagger_s=0.01))
            theirs = await slow.taken.get()
            await theirs.received.get()  # the ClientHello, which is lost: this handshake never succeeds
            assert theirs.transport is not None
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await asyncio.shield(reaching)
            assert not other.all
            theirs.transport.abort()
            connected = await reaching
            assert connected.target.host == "b"
            await end(connected)
            assert loop is asyncio.get_running_loop()

    run(test())


@asynccontextmanager
async def black_hole(address: str) -> AsyncIterator[int]:
    """A port that answers nothing: its queue of connections is full, so the kernel drops what comes."""
    with closing(socket.socket()) as listener, closing(socket.socket()) as first, closing(socket.socket()) as second:
        listener.bind((address, 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        first.connect((address, port))
        second.setblocking(False)
        second.connect_ex((address, port))
        yield port


def test_the_next_attempt_does_not_wait_for_one_that_hangs(run: Runner, us: ServerTls) -> None:
    async def test() -> None:
        async with black_hole(HERE) as port, listening(THERE) as right:
            targets = [Target("a", port, False), Target("b", right.port, False)]
            loop = asyncio.get_running_loop()
            began = loop.time()
            connected = await reach(targets, {"a": [HERE], "b": [THERE]}, us, stagger_s=0.1)
            assert connected.target.host == "b"
            assert 0.09 < loop.time() - began < WAIT_S
            await end(connected)

    run(test())


def test_only_one_of_two_that_answer_is_used(run: Runner, us: ServerTls) -> None:
    """The stagger is nothing, so both are under way at once; whichever loses is closed."""

    async def test() -> None:
        async with listening(HERE) as first, listening(THERE) as second:
            targets = [Target("a", first.port, False), Target("b", second.port, False)]
            for _ in range(20):
                connected = await reach(targets, {"a": [HERE], "b": [THERE]}, us, stagger_s=0)
                await end(connected)
            for receiver in first.all + second.all:
                await receiver.lost.wait()

    run(test())


def test_a_connection_that_is_lost_at_once_is_told_of_in_one_way_or_the_other(
    run: Runner, us: ServerTls, them: ServerTls
) -> None:
    """Either `connect` fails, or the protocol learns of it: it is not left waiting for ever."""

    class Aborting(Receiver):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            transport.abort()  # type: ignore[attr-defined]

    async def test() -> None:
        server = await asyncio.get_running_loop().create_server(Aborting, HERE, 0, ssl=them.incoming)
        targets = [Target("a", server.sockets[0].getsockname()[1], True)]
        for _ in range(30):
            try:
                connected = await reach(targets, {"a": [HERE]}, us)
            except ConnectError:
                continue
            async with asyncio.timeout(WAIT_S):
                await connected.protocol.lost.wait()
            connected.transport.abort()
        server.close()

    run(test())


def test_the_deadline_ends_everything(run: Runner, us: ServerTls) -> None:
    async def test() -> None:
        async with black_hole(HERE) as port, listening(THERE) as silent:
            targets = [Target("a", port, False), Target("b", silent.port, True)]
            with pytest.raises(ConnectError, match=r"no server answered within 0\.3 s") as caught:
                await reach(targets, {"a": [HERE], "b": [THERE]}, us, stagger_s=0.05, deadline_s=0.3)
            assert caught.value.error is RemoteServerTimeout
            await (await silent.taken.get()).lost.wait()

    run(test())


def test_who_no_longer_wants_it_leaves_nothing_behind(run: Runner, us: ServerTls) -> None:
    async def test() -> None:
        async with black_hole(HERE) as port, listening(THERE) as silent:
            targets = [Target("a", port, False), Target("b", silent.port, True)]
            task = asyncio.create_task(reach(targets, {"a": [HERE], "b": [THERE]}, us, stagger_s=0.01))
            theirs = await silent.taken.get()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await theirs.lost.wait()

    run(test())


@pytest.mark.parametrize("is_direct_tls", [False, True])
def test_whenever_it_is_cancelled_nothing_is_left_behind(
    run: Runner, us: ServerTls, them: ServerTls, is_direct_tls: bool
) -> None:
    """After each number of steps that it could be in: `run` looks for tasks and sockets."""

    async def test() -> None:
        async with listening(HERE, tls=them.incoming if is_direct_tls else None) as there:
            targets = [Target("a", there.port, is_direct_tls), Target("b", there.port, is_direct_tls)]
            for steps in range(60):
                task = asyncio.create_task(reach(targets, {"a": [HERE], "b": [HERE]}, us, stagger_s=0))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    await end(await task)
                except asyncio.CancelledError:
                    pass

    run(test())


@pytest.mark.parametrize("is_direct_tls", [False, True])
def test_a_protocol_that_cannot_be_made_leaves_nothing_behind(
    run: Runner, us: ServerTls, them: ServerTls, is_direct_tls: bool
) -> None:
    def fail(target: Target) -> Receiver:
        raise ZeroDivisionError

    async def test() -> None:
        async with listening(HERE, tls=them.incoming if is_direct_tls else None) as there:
            context = us.outgoing("us.example", is_direct_tls=True)
            with pytest.raises(ZeroDivisionError):
                await connect(
                    [Target("a", there.port, is_direct_tls)], at({"a": [HERE]}), fail, tls=context, server_name="x.example"
                )  # fmt: skip

    run(test())


def test_when_all_fail_each_is_told_of(run: Runner, us: ServerTls) -> None:
    async def test() -> None:
        port = free_port(HERE)
        async with listening(THERE, greeting=b"this is no TLS") as wrong:
            targets = [Target("a", port, False), Target("b", wrong.port, True), Target("c", 1, False)]
            with pytest.raises(ConnectError) as caught:
                await reach(targets, {"a": [HERE], "b": [THERE], "c": NotFound("c does not exist")}, us)
            assert caught.value.error is RemoteServerTimeout
            assert [attempt.target.host for attempt in caught.value.attempts] == ["a", "b", "c"]
            text = str(caught.value)
            assert f"a port {port} (STARTTLS) at {HERE}: Connection refused" in text
            assert f"b port {wrong.port} (direct TLS) at {THERE}: " in text
            assert "c port 1 (STARTTLS): c does not exist" in text

    run(test())


@pytest.mark.parametrize(
    ("problems", "error"),
    [
        ([NotFound("no")], RemoteServerNotFound),
        ([NotFound("no"), NotFound("no")], RemoteServerNotFound),
        ([NotFound("no"), Unresolved("down")], RemoteServerTimeout),
    ],
)
def test_targets_without_addresses(
    run: Runner, us: ServerTls, problems: list[Exception], error: type[Exception]
) -> None:
    async def test() -> None:
        targets = [Target(str(index), 1, False) for index in range(len(problems))]
        with pytest.raises(ConnectError) as caught:
            await reach(targets, {str(index): problem for index, problem in enumerate(problems)}, us)
        assert caught.value.error is error

    run(test())


def test_a_bug_below_is_not_taken_for_a_failure_of_the_network(run: Runner, us: ServerTls) -> None:
    async def test() -> None:
        with pytest.raises(ZeroDivisionError):
            await reach([Target("a", 1, False)], {"a": ZeroDivisionError()}, us)

    run(test())


def test_ipv6(run: Runner, us: ServerTls) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")

    async def test() -> None:
        try:
            async with listening("::1") as there:
                connected = await reach([Target("a", there.port, False)], {"a": ["::1"]}, us)
                assert connected.address == "::1"
                await end(connected)
        except OSError as problem:
            pytest.skip(f"no IPv6 here: {problem}")

    run(test())
