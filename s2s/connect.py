"""A connection to one of the targets that DNS has named, whichever answers first (RFC 8305).

    targets = await resolver.find(domain)                                          # s2s/dns.py
    connected = await connect(
        targets, resolver.addresses, lambda target: OutgoingConnection(target, ...),
        tls=tls.outgoing(our_domain, is_direct_tls=True), server_name=server_name(domain),
    )
    connected.transport, connected.protocol, connected.target

The protocol is made for the winner alone: its `connection_made` runs before `connect` returns, with direct TLS after
the handshake. On a target without direct TLS the stream begins in the clear and does STARTTLS itself (`loop.start_tls`
with `tls.outgoing(our_domain, is_direct_tls=False)` and the same server name).
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast

from s2s.dns import DnsError
from s2s.srv import Target
from xmpp.errors import RemoteServerNotFound, RemoteServerTimeout, StanzaError

STAGGER_S: Final = 0.25  # RFC 8305, 5: the next attempt begins when one has had so long
HANDSHAKE_S: Final = 10.0
DEADLINE_S: Final = 30.0
MOST_ATTEMPTS: Final = 20

Protocol = TypeVar("Protocol", bound=asyncio.BaseProtocol)
Addresses = Callable[[Target], Awaitable[Sequence[str]]]


class Connected(NamedTuple, Generic[Protocol]):
    """An open connection."""

    transport: asyncio.Transport
    protocol: Protocol
    target: Target
    address: str


class Attempt(NamedTuple):
    """One that failed. `address` is "" where the target had none."""

    target: Target
    address: str
    problem: str

    def __str__(self) -> str:
        kind = "direct TLS" if self.target.is_direct_tls else "STARTTLS"
        place = f"{self.target.host} port {self.target.port} ({kind})"
        return f"{place}{f' at {self.address}' if self.address else ''}: {self.problem}"


class ConnectError(Exception):
    """No target could be reached. `error` is what the sender of a stanza is told, `attempts` what was tried."""

    def __init__(self, message: str, attempts: Sequence[Attempt], error: type[StanzaError]) -> None:
        super().__init__("; ".join((message, *map(str, attempts))))
        self.attempts = tuple(attempts)
        self.error = error


async def connect(
    targets: Sequence[Target],
    addresses: Addresses,
    make_protocol: Callable[[Target], Protocol],
    *,
    tls: ssl.SSLContext,
    server_name: str,
    stagger_s: float = STAGGER_S,
    handshake_s: float = HANDSHAKE_S,
    deadline_s: float = DEADLINE_S,
) -> Connected[Protocol]:
    """Connect to the first target that answers, in this order; `tls` and `server_name` are for those of direct TLS.

    The next attempt begins when one fails, or has not reached its server within `stagger_s`; whoever is in its
    handshake is waited for, so that a preferred target is not lost to the round trips of TLS. Raises ConnectError.
    """
    race = _Race(targets, addresses, tls, server_name, stagger_s, handshake_s)
    try:
        async with asyncio.timeout(deadline_s):
            opened, target, address = await race.run()
    except TimeoutError as problem:
        raise ConnectError(f"no server answered within {deadline_s:g} s", race.failed, RemoteServerTimeout) from problem
    if isinstance(opened, socket.socket):
        with _closed_on_error(opened):
            protocol = make_protocol(target)
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=opened)
        return Connected(transport, protocol, target, address)
    if cast(_Waiting, opened.get_protocol()).is_lost:
        raise ConnectError("the connection was lost at once", race.failed, RemoteServerTimeout)
    with _closed_on_error(opened):
        protocol = make_protocol(target)
        opened.set_protocol(protocol)
        protocol.connection_made(opened)
    if not opened.is_closing():
        opened.resume_reading()
    return Connected(opened, protocol, target, address)


class _Waiting(asyncio.Protocol):
    """Holds a TLS connection until it is known whether it is the one: reads nothing."""

    is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True


# A plain connection stays a socket until it has its protocol: a transport of uvloop would read what its first protocol
# does not want to have yet.
_Opened = socket.socket | asyncio.Transport
_Won = tuple[_Opened, Target, str]


@contextmanager
def _closed_on_error(opened: _Opened) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _discard(opened)
        raise


def _discard(opened: _Opened) -> None:
    if isinstance(opened, socket.socket):
        opened.close()
    else:
        opened.abort()


class _Race:
    """The attempts of one call of `connect`. The first that succeeds wins; of the others nothing is left."""

    def __init__(
        self,
        targets: Sequence[Target],
        addresses: Addresses,
        tls: ssl.SSLContext,
        server_name: str,
        stagger_s: float,
        handshake_s: float,
    ) -> None:
        self.failed: list[Attempt] = []
        self._targets = targets
        self._addresses = addresses
        self._tls = tls
        self._server_name = server_name
        self._stagger_s = stagger_s
        self._handshake_s = handshake_s
        self._winner: asyncio.Future[_Won] = asyncio.get_running_loop().create_future()
        self._attempts: set[asyncio.Task[None]] = set()
        self._handshakes: set[asyncio.Task[None]] = set()  # those of them that have reached their server
        self._unnamed: list[type[StanzaError]] = []  # why targets had no address

    async def run(self) -> _Won:
        """The winner. Raises ConnectError when all have failed."""
        starter = asyncio.get_running_loop().create_task(self._start_attempts())
        try:
            return await self._wait_for_winner(starter)
        except BaseException:  # cancelled, perhaps with a winner that nobody will get
            if not self._winner.cancel() and not self._winner.cancelled():
                _discard(self._winner.result()[0])
            raise

    async def _wait_for_winner(self, starter: asyncio.Task[None]) -> _Won:
        try:
            outcomes: set[asyncio.Future[Any]] = {starter, self._winner}
            await asyncio.wait(outcomes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            tasks = {starter, *self._attempts}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._winner.done():
            return self._winner.result()
        starter.result()
        is_missing = not self._attempts and all(error is RemoteServerNotFound for error in self._unnamed)
        error = RemoteServerNotFound if is_missing else RemoteServerTimeout
        raise ConnectError("no server could be reached", self.failed, error)

    async def _start_attempts(self) -> None:
        """Start one after the other, and end when all have ended."""
        for target in self._targets:
            try:
                addresses = await self._addresses(target)
            except DnsError as problem:
                self.failed.append(Attempt(target, "", str(problem)))
                self._unnamed.append(problem.error)
                continue
            for address in addresses:
                if len(self._attempts) == MOST_ATTEMPTS:
                    break
                task = asyncio.get_running_loop().create_task(self._attempt(target, address))
                self._attempts.add(task)
                await asyncio.wait({task}, timeout=self._stagger_s)
                while self._handshakes:
                    await asyncio.wait(self._handshakes, return_when=asyncio.FIRST_COMPLETED)
        if self._attempts:
            await asyncio.wait(self._attempts)

    async def _attempt(self, target: Target, address: str) -> None:
        try:
            opened = await self._open(target, address)
        except OSError as problem:  # ssl.SSLError and TimeoutError are OSErrors
            self.failed.append(Attempt(target, address, _reason(problem)))
            return
        if self._winner.done():
            _discard(opened)
        else:
            self._winner.set_result((opened, target, address))

    async def _open(self, target: Target, address: str) -> _Opened:
        opened = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        with _closed_on_error(opened):
            opened.setblocking(False)
            await asyncio.get_running_loop().sock_connect(opened, (address, target.port))
        return await self._handshake(opened) if target.is_direct_tls else opened

    async def _handshake(self, opened: socket.socket) -> asyncio.Transport:
        """TLS on this socket, which from here on belongs to the event loop."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        self._handshakes.add(task)
        connecting = loop.create_task(
            loop.create_connection(
                _Waiting,
                sock=opened,
                ssl=self._tls,
                server_hostname=self._server_name,
                ssl_handshake_timeout=self._handshake_s,
            )
        )
        try:
            transport, _ = await asyncio.shield(connecting)
        except asyncio.CancelledError:
            # Cancelled before its first step of TLS, asyncio would leave the connection open: it gets two rounds of
            # the loop, for its own first step and for that of TLS.
            connecting.add_done_callback(_discard_result)
            loop.call_soon(lambda: loop.call_soon(connecting.cancel))
            raise
        finally:
            self._handshakes.discard(task)
        if transport.is_closing():  # uvloop's answer to some failures of a handshake
            transport.abort()
            raise ConnectionAbortedError("the connection was closed")
        return transport


def _discard_result(connecting: asyncio.Task[tuple[asyncio.Transport, _Waiting]]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        _discard(connecting.result()[0])


def _reason(problem: OSError) -> str:
    if isinstance(problem, ssl.SSLError):
        return f"TLS: {problem.reason or problem}"
    if problem.errno is not None:
        return os.strerror(problem.errno)
    return str(problem) or type(problem).__name__
