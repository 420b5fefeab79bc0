"""Connections with other servers over TCP: I/O only, no protocol decisions (those are in `s2s/stream.py` and beyond).

One `Connection` per socket, opened by them or by us, STARTTLS or direct TLS. As in `c2s/tcp.py`, plain sockets share
one receive buffer and TLS sockets another, and what one batch of input brings is written at once, by `flush`.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, cast

import structlog

from cluster.tls import chain_of
from cluster.trust import Authorities
from s2s.certificates import PeerIdentity, identify
from s2s.connect import HANDSHAKE_S, ConnectError, connect
from s2s.dns import DnsError, Resolver
from s2s.federation import Federation
from s2s.metrics import IN, OUT, stats, tls_handshake_seconds
from s2s.negotiation import State
from s2s.outgoing import OutgoingStream, Problem
from s2s.srv import Target
from s2s.stream import Stream
from s2s.tls import ServerTls, server_name
from xmpp import errors
from xmpp.errors import RemoteServerNotFound

log = structlog.get_logger(__name__)

RECEIVE_BYTES: Final = 65_536
WRITE_HIGH_BYTES: Final = 1_048_576  # a peer that lets so much pile up is watched
OUTPUT_BYTES: Final = 33_554_432  # and one that lets so much pile up is cut off
LOOK_AGAIN_S: Final = 0.05  # whether the kernel has taken what was written; owners wait for it when a window is full
CLOSE_WITHIN_S: Final = 10.0  # how long a peer may take to read the end of its stream, and to close TLS


class Connections:
    """The connections of one process, and what they share."""

    def __init__(self, tls: ServerTls, authorities: Authorities, resolver: Resolver, connect_timeout_s: float) -> None:
        self.tls = tls
        self.authorities = authorities
        self.resolver = resolver
        self.connect_timeout_s = connect_timeout_s
        self.federation: Federation  # set by the process: each needs the other
        self.plain_buffer = memoryview(bytearray(RECEIVE_BYTES))
        self.tls_buffer = memoryview(bytearray(RECEIVE_BYTES))
        self.all: set[Connection] = set()
        self.dirty: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsettled: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None

    def accept(self, is_direct_tls: bool) -> Connection:
        """A protocol for a connection that is about to be accepted."""
        return Connection(self, is_direct_tls, None, None)

    def open(self, stream: OutgoingStream) -> None:
        """Begin to look for the stream's server, and to connect to it; the stream is told what comes of it."""
        self.start(self._open(stream))

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something to its end, which may have given streams something to write."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            log.error("stream_failed", exc_info=bug)
            stats.failed()
        self.flush()

    async def _open(self, stream: OutgoingStream) -> None:
        problem = Problem("internal-server-error", "Connecting has failed; the log of the s2s process says why.")
        try:
            targets = await self.resolver.find(stream.remote)
            if self.federation.join(stream, targets[0].host, targets[0].port):
                return
            await connect(
                targets,
                self.resolver.addresses,
                lambda target: Connection(self, target.is_direct_tls, stream, target),
                tls=self.tls.outgoing(stream.local, is_direct_tls=True),
                server_name=server_name(stream.remote),
                deadline_s=self.connect_timeout_s,
            )
        except (DnsError, ConnectError) as failed:
            problem = Problem(failed.error.condition, f"{failed}.", failed.error is RemoteServerNotFound)
        finally:
            if stream.state is State.CONNECTING:
                stream.give_up(problem)

    def flush(self) -> None:
        """Write what streams have queued: each connection once. Called after every batch of input."""
        if self.dirty:
            dirty, self.dirty = self.dirty, set()
            for connection in dirty:
                connection.flush()

    def watch(self, connection: Connection) -> None:
        """Stanzas were written that nobody but the kernel acknowledges: look soon whether it has."""
        self._unsettled.add(connection)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._look)

    def _look(self) -> None:
        self._timer = None
        unsettled, self._unsettled = self._unsettled, set()
        for connection in unsettled:
            connection.note_written()
            if connection.is_unsettled:
                self.watch(connection)
        self.flush()

    def check(self) -> None:
        """About once a second: the time-outs of every connection."""
        for connection in list(self.all):
            connection.check()
        self.flush()

    def abort(self) -> None:
        """The process ends: nothing is waited for."""
        for task in self._tasks:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self.all):
            connection.abort()


class Connection(asyncio.BufferedProtocol):
    """One socket, as transport of its stream."""

    __slots__ = (
        "_buffer", "_closed_at", "_connections", "_early", "_flushed", "_identity", "_is_lost", "_is_slow", "_opener",
        "_out", "_transport", "stream", "target", "transport_name",
    )  # fmt: skip

    def __init__(
        self, connections: Connections, is_direct_tls: bool, opener: OutgoingStream | None, target: Target | None
    ) -> None:  # fmt: skip
        self._connections = connections
        self._buffer = connections.tls_buffer if is_direct_tls else connections.plain_buffer
        self._opener = opener  # the stream that we have opened the connection for
        self.target = target
        self._transport: asyncio.Transport | None = None
        self._identity: PeerIdentity | None = None
        self._out: list[bytes] = []
        self._early: list[bytes] | None = None  # decrypted before the event loop has told that the handshake is done
        self._flushed = 0  # stanzas of the stream that were given to the transport
        self._is_lost = False
        self._is_slow = False
        self._closed_at: float | None = None
        self.transport_name = "tls" if is_direct_tls else "tcp"
        self.stream: Stream | None = None

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A new connection, with direct TLS after the handshake."""
        self._use(cast(asyncio.Transport, transport))  # uvloop's are not its subclasses
        opened: socket.socket | None = transport.get_extra_info("socket")
        if opened is not None and opened.family in (socket.AF_INET, socket.AF_INET6):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._connections.all.add(self)
        if self._opener is None:
            self.stream = self._connections.federation.incoming(self)
            return
        self.stream = self._opener
        self._call(lambda: self._opener.connected(self, (self.target.host, self.target.port)))  # type: ignore[union-attr]  # both are there
        self._connections.flush()

    def _use(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)

    def get_buffer(self, sizehint: int) -> memoryview:
        """The buffer shared by all connections of this kind."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have arrived."""
        stream = self.stream
        if stream is None:
            return
        if self._early is not None:
            self._early.append(bytes(self._buffer[:nbytes]))
            return
        try:
            stream.receive_data(bytes(self._buffer[:nbytes]))
        except Exception:
            self._give_up()
        self._connections.flush()

    def eof_received(self) -> bool:
        """The peer sends no more."""
        if self.stream is not None:
            self._call(self.stream.receive_eof)
            self._connections.flush()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._is_lost = True
        self._connections.all.discard(self)
        self._connections.dirty.discard(self)
        if self.stream is not None:
            self._call(self.stream.connection_lost)
            self.stream = None
        self._out.clear()
        self._transport = None
        self._connections.flush()  # of other streams, which the end of this one concerns

    def pause_writing(self) -> None:
        """The peer reads slower than we write; owners bound how many stanzas may pile up, `check` the bytes."""
        self._is_slow = True

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._is_slow = False

    def _call(self, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception:
            self._give_up()

    def _give_up(self) -> None:
        """A bug: this stream ends, the process lives."""
        log.exception("stream_failed")
        stats.failed()
        try:
            if self.stream is not None:
                self.stream.fail(errors.StreamInternalServerError())
        except Exception:
            log.exception("stream_failed")
            self.abort()

    # --- the stream's side (s2s/peer.py, Transport)

    def write(self, data: bytes) -> None:
        """Queue bytes; they leave with the next flush."""
        self._out.append(data)
        self._connections.dirty.add(self)

    def flush(self) -> None:
        """One write for everything queued."""
        transport = self._transport
        if transport is None or not self._out:
            return
        self.note_written()
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        transport.write(data)
        stats.bytes_out += len(data)
        self._out.clear()
        if self.stream is not None:
            self._flushed = self.stream.written
            if self.is_unsettled:
                self._connections.watch(self)

    @property
    def is_unsettled(self) -> bool:
        """Whether stanzas wait to be taken by the kernel."""
        return self.stream is not None and self._transport is not None and self.stream.awaits_kernel

    def note_written(self) -> None:
        """Whether the kernel has taken all that was given to the transport."""
        if self.stream is not None and self._transport is not None and self._transport.get_write_buffer_size() == 0:
            flushed, stream = self._flushed, self.stream
            self._call(lambda: stream.taken(flushed))

    def check(self) -> None:
        """About once a second: time-outs, and whether the peer is too slow."""
        stream = self.stream
        if stream is None:
            return
        if self._closed_at is not None:
            if time.monotonic() - self._closed_at > CLOSE_WITHIN_S:
                self.abort()  # it does not read, or does not answer TLS's close
            return
        if self._is_slow and self.queued_bytes > OUTPUT_BYTES:
            self._call(lambda: stream.fail(errors.StreamResourceConstraint("Too much is waiting to be read.")))
            self.abort()
        else:
            self._call(stream.check_time)

    def start_tls(self) -> None:
        """Begin the STARTTLS handshake, behind everything queued."""
        self.flush()
        self.pause_reading()  # what comes from here on is for TLS
        self._early = []
        self._connections.start(self._handshake())

    async def _handshake(self) -> None:
        loop = asyncio.get_running_loop()
        plain, stream, shared = self._transport, self._opener, self._connections
        if plain is None or self._is_lost:
            return
        if stream is None:
            context, name = shared.tls.incoming, None
        else:
            context, name = shared.tls.outgoing(stream.local, is_direct_tls=False), server_name(stream.remote)
        self._buffer = shared.tls_buffer
        started, problem = loop.time(), "the connection was closed"
        transport: asyncio.Transport | None = None
        try:
            transport = await loop.start_tls(
                plain, self, context, server_side=stream is None, server_hostname=name,
                ssl_handshake_timeout=HANDSHAKE_S,
            )  # fmt: skip
        except (OSError, RuntimeError) as failed:  # ssl.SSLError and TimeoutError are OSErrors
            problem = str(failed) or type(failed).__name__
        except asyncio.CancelledError:  # the process ends
            self._drop(plain, problem)
            raise
        outcome = tls_handshake_seconds.labels(IN if stream is None else OUT, "ok" if transport else "failed")
        outcome.observe(loop.time() - started)
        if transport is None or transport.is_closing():  # closing: uvloop's answer when we closed it meanwhile
            self._drop(plain, problem)
            return
        early, self._early = self._early or [], None
        if self.stream is not None:
            self._use(transport)
            self.transport_name = "starttls"
            self._call(self.stream.tls_established)
            for data in early:
                self._call(partial(self.stream.receive_data, data))

    def _drop(self, plain: asyncio.Transport, problem: str) -> None:
        """There is no TLS, and so no connection."""
        plain.abort()
        if self.stream is not None:
            self.stream.tls_failed(problem)
        if not self._is_lost:
            self.connection_lost(None)  # the event loop says so only after a handshake

    def close(self) -> None:
        """Write what is queued, then end the connection."""
        self.flush()
        if self._closed_at is None:
            self._closed_at = time.monotonic()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._out.clear()
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        """Read no more from this peer for now."""
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self._transport is not None and not self._transport.is_reading() and not self._transport.is_closing():
            self._transport.resume_reading()

    @property
    def queued_bytes(self) -> int:
        """What was written and the kernel has not taken."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    @property
    def is_secure(self) -> bool:
        """Whether TLS is in force."""
        return self._transport is not None and self._transport.get_extra_info("ssl_object") is not None

    @property
    def identity(self) -> PeerIdentity:
        """What the peer's certificate says, judged when it is first asked for, which is right after the handshake."""
        if self._identity is None:
            ssl_object = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
            chain = chain_of(ssl_object) if ssl_object is not None else ()
            now = datetime.fromtimestamp(time.time(), UTC)
            judged = identify(chain, self._connections.authorities, now)
            if ssl_object is None:
                return judged
            self._identity = judged
        return self._identity

    @property
    def domain(self) -> str:
        """For which domain DNS has named the target; "" if the peer has connected to us."""
        return self._opener.remote if self._opener is not None else ""

    @property
    def address(self) -> str:
        """The peer's address."""
        peer: Any = self._transport.get_extra_info("peername") if self._transport is not None else None
        return str(peer[0]) if peer else ""
