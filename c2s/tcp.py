"""Client connections over TCP: I/O only, no protocol decisions (those are in `c2s/stream.py`).

One `Connection` per socket, STARTTLS or direct TLS. It is a `BufferedProtocol`: all plain sockets share one receive
buffer, all TLS sockets another, because a read is consumed before the next begins. Writes of one batch are joined
and made once, by `Connections.flush`.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any, Final, cast

import structlog

from c2s.channel_binding import bindings
from c2s.connections import Connections
from c2s.metrics import stats
from c2s.proxy_protocol import NOBODY, Proxied
from c2s.stream import ClientStream, Header
from c2s.tls import ServerTls
from cluster import metrics
from cluster.tls import chain_of
from xmpp import errors
from xmpp.stream import CLOSE_STREAM

log = structlog.get_logger(__name__)

WRITE_HIGH_BYTES: Final = 1_048_576  # a client that lets so much pile up is watched
OUTPUT_BYTES: Final = 8_388_608  # and one that lets so much pile up is cut off
CLOSE_WITHIN_S: Final = 10.0  # how long a client may take to read the end of its stream, and to close TLS

tls_handshake_seconds = metrics.histogram(
    "stentor_c2s_tls_handshake_seconds", "Time of a TLS handshake with a client", {"result": ["ok", "failed"]}
)
_handshake_ok = tls_handshake_seconds.labels("ok")
_handshake_failed = tls_handshake_seconds.labels("failed")


class Connection(asyncio.BufferedProtocol):
    """One client's socket, as transport of its stream."""

    __slots__ = (
        "_buffer", "_closed_at", "_connections", "_early", "_handshake_timeout_s", "_is_lost", "_is_slow", "_out",
        "_proxied", "_q_written", "_started_at", "_tls", "_transport", "stream", "transport_name",
    )  # fmt: skip

    is_framed = False
    has_starttls = True

    def __init__(
        self, connections: Connections, tls: ServerTls, is_direct_tls: bool, handshake_timeout_s: float = 10.0,
        proxied: Proxied = NOBODY,
    ) -> None:  # fmt: skip
        self._proxied = proxied
        self._tls = tls
        self._handshake_timeout_s = handshake_timeout_s
        self._started_at: float | None = time.monotonic() if is_direct_tls else None  # of a direct TLS handshake
        self._connections = connections
        self._buffer = connections.tls_buffer if is_direct_tls else connections.plain_buffer
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._early: list[bytes] | None = None  # decrypted before the event loop has told that the handshake is done
        self._q_written = 0
        self._is_lost = False
        self._is_slow = False
        self._closed_at: float | None = None
        self.transport_name = "tls" if is_direct_tls else "tcp"
        self.stream: ClientStream | None = None

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A new connection, with direct TLS after the handshake."""
        self._use(cast(asyncio.Transport, transport))  # uvloop's are not its subclasses
        if self._started_at is not None:
            _handshake_ok.observe(time.monotonic() - self._started_at)
            self._started_at = None
        connection: socket.socket | None = transport.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._connections.all.add(self)
        self.stream = self._connections.make_stream(self)

    def __del__(self) -> None:
        # A connection whose direct TLS handshake fails is dropped by the event loop without a word to its protocol.
        if self._started_at is not None:
            _handshake_failed.observe(time.monotonic() - self._started_at)

    def _use(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)

    def get_buffer(self, sizehint: int) -> memoryview:
        """The buffer shared by all connections of this kind."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have arrived."""
        stream = self.stream
        if self._early is not None:
            self._early.append(bytes(self._buffer[:nbytes]))
            return
        if stream is None:
            return
        try:
            self._take(stream, bytes(self._buffer[:nbytes]))
        except Exception:
            self._give_up()
        self._connections.flush()

    def _take(self, stream: ClientStream, data: bytes) -> None:
        stream.receive_data(data)

    def eof_received(self) -> bool:
        """The client sends no more."""
        if self.stream is not None:
            self.stream.receive_eof()
            self._connections.flush()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._is_lost = True
        self._connections.all.discard(self)
        self._connections.dirty.discard(self)
        if self.stream is not None:
            self.stream.connection_lost()
            self.stream = None
        self._out.clear()
        self._transport = None

    def pause_writing(self) -> None:
        """The client reads slower than we write; its owner bounds how many stanzas may pile up, `check` the bytes."""
        self._is_slow = True

    def resume_writing(self) -> None:
        """The client reads again."""
        self._is_slow = False
        self._note_written()

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

    # --- the stream's side (c2s/stream.py, Transport)

    def write(self, data: bytes) -> None:
        """Queue bytes; they leave with the next flush."""
        self._out.append(data)
        self._connections.dirty.add(self)

    def open_stream(self, header: Header) -> None:
        """Queue our stream header."""
        self.write(header.to_bytes())

    def close_stream(self) -> None:
        """Queue the end of our stream."""
        self.write(CLOSE_STREAM)

    def keep_alive(self) -> None:
        """RFC 6120, 4.6.1: white space."""
        self.write(b" ")

    def flush(self) -> None:
        """One write for everything queued."""
        transport = self._transport
        if transport is None or not self._out:
            return
        self._note_written()
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        transport.write(data)
        stats.bytes_out += len(data)
        self._out.clear()
        session = self.stream.session if self.stream is not None else None
        if session is not None:
            self._q_written = session.q - self.stream.parked  # type: ignore[union-attr]  # it has a session

    def check(self) -> None:
        """About once a second: whether the kernel has taken what was written, whether the client is too slow."""
        stream = self.stream
        if stream is None:
            return
        if self._closed_at is not None:
            if time.monotonic() - self._closed_at > CLOSE_WITHIN_S:
                self.abort()  # it does not read, or does not answer TLS's close
            return
        try:
            if stream.session is not None:
                self._note_written()
            if self._is_slow and self.queued_bytes > OUTPUT_BYTES:
                stream.fail(errors.StreamResourceConstraint("Too much is waiting to be read."))
                self.abort()
            else:
                stream.check_time()
        except Exception:
            self._give_up()

    def _note_written(self) -> None:
        """Without stream management, what the kernel took counts as acknowledged (docs/delivery.md)."""
        stream, transport = self.stream, self._transport
        if stream is None or stream.session is None or stream.session.is_managed or transport is None:
            return
        if self._q_written > stream.session.acknowledged and transport.get_write_buffer_size() == 0:
            self._connections.edge.written(stream.session, self._q_written)

    def start_tls(self) -> None:
        """Begin the STARTTLS handshake, behind everything queued."""
        self.flush()
        self.pause_reading()  # what comes from here on is for TLS
        self._early = []
        task = asyncio.get_running_loop().create_task(self._handshake())
        self._connections.tasks.add(task)
        task.add_done_callback(self._connections.tasks.discard)

    def accept(self, transport: asyncio.Transport, *, is_direct_tls: bool) -> None:
        """Take over a connection from whoever had it until now, with all that comes of it."""
        transport.set_protocol(self)
        if not is_direct_tls:
            self.connection_made(transport)
            return
        self._transport = transport
        self.start_tls()

    async def _handshake(self) -> None:
        loop = asyncio.get_running_loop()
        shared, plain = self._connections, self._transport
        if plain is None or self._is_lost:
            return
        self._buffer = shared.tls_buffer
        started = loop.time()
        transport: asyncio.Transport | None = None
        try:
            transport = await loop.start_tls(
                plain, self, self._tls.context, server_side=True, ssl_handshake_timeout=self._handshake_timeout_s
            )
        except (OSError, RuntimeError) as problem:  # ssl.SSLError and TimeoutError are OSErrors
            log.debug("tls_handshake_failed", problem=str(problem))
        if transport is None or transport.is_closing():  # closing: uvloop's answer when we closed it meanwhile
            _handshake_failed.observe(loop.time() - started)
            self._started_at = None
            plain.abort()
            if not self._is_lost:
                self.connection_lost(None)  # the event loop says so only after a handshake
            return
        early, self._early = self._early or [], None
        if self._started_at is not None:  # direct TLS, behind a load balancer
            self.connection_made(transport)
        elif self.stream is not None:
            _handshake_ok.observe(loop.time() - started)
            self._use(transport)
            self.transport_name = "starttls"
            self.stream.tls_established()
        for data in early:
            if self.stream is not None:
                self.stream.receive_data(data)
        shared.flush()

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
        """Read no more from this client for now."""
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
        """Whether TLS is in force, here or at the load balancer before us."""
        if self._proxied.is_secure:
            return True
        return self._transport is not None and self._transport.get_extra_info("ssl_object") is not None

    @property
    def address(self) -> str:
        """The client's address, for logs and limits."""
        if self._proxied.address:
            return self._proxied.address
        peer: Any = self._transport.get_extra_info("peername") if self._transport is not None else None
        return str(peer[0]) if peer else ""

    def channel_bindings(self) -> dict[str, bytes]:
        """Channel binding data by type (RFC 9266, RFC 5929); empty without TLS."""
        ssl_object = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        if ssl_object is None:
            return {}
        return bindings(ssl_object, self._tls.certificate_of(ssl_object))

    def chain(self) -> tuple[bytes, ...]:
        """The certificates that the client has shown (DER, its own first)."""
        ssl_object = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        return () if ssl_object is None else chain_of(ssl_object)
