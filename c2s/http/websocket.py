"""XMPP over WebSocket (RFC 7395): the handshake is HTTP's, then the socket is a client's connection as any other, with
frames around its stanzas."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from typing import Final

from aiohttp import web

from c2s.connections import Connections
from c2s.http import frames
from c2s.http.framing import CLOSE, alone, opening, unframed
from c2s.http.server import HttpServer
from c2s.proxy_protocol import Proxied
from c2s.stream import ClientStream, Header
from c2s.tcp import Connection
from c2s.tls import ServerTls
from xmpp import errors
from xmpp.errors import StreamError

PATH: Final = "/xmpp-websocket"
PROTOCOL: Final = "xmpp"  # RFC 7395, 3.1
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_PING: Final = frames.frame(frames.PING, b"")


class WebSockets:
    """The route."""

    def __init__(self, server: HttpServer, connections: Connections, tls: ServerTls) -> None:
        self._server = server
        self._connections = connections
        self._tls = tls
        server.add("websocket", "GET", PATH, self._upgrade)

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        """RFC 6455, 4.2; RFC 7395, 3.1."""
        server, headers = self._server, request.headers
        if "websocket" not in _tokens(request, "Upgrade") or "upgrade" not in _tokens(request, "Connection"):
            raise web.HTTPUpgradeRequired(headers={"Upgrade": "websocket"}, text="This is a WebSocket.\n")
        if headers.get("Sec-WebSocket-Version") != "13":
            raise web.HTTPUpgradeRequired(headers={"Sec-WebSocket-Version": "13"}, text="Version 13 is spoken here.\n")
        key = headers.get("Sec-WebSocket-Key", "")
        if not _is_key(key):
            raise web.HTTPBadRequest(text="Sec-WebSocket-Key is missing or wrong.\n")
        if PROTOCOL not in _tokens(request, "Sec-WebSocket-Protocol"):
            raise web.HTTPBadRequest(text='The sub-protocol "xmpp" is not asked for (RFC 7395).\n')
        server.require_allowed_origin(request)
        client = Proxied(server.address_of(request), server.is_secure(request))
        transport, early = server.hand_over(request)
        accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest())
        transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: %b\r\n\r\n" % (accept, PROTOCOL.encode())
        )
        WebSocketConnection(self._connections, self._tls, client).begin(transport, early)
        return web.Response(status=101)  # counted, and written by nobody


class WebSocketConnection(Connection):
    """One client's WebSocket, as transport of its stream."""

    __slots__ = ("_last", "_reader")

    is_framed = True
    has_starttls = False

    def __init__(self, connections: Connections, tls: ServerTls, client: Proxied) -> None:
        """`client`: who connects, with the proxies before us taken off."""
        super().__init__(connections, tls, False, proxied=client)
        self.transport_name = "websocket"
        self._reader = frames.Reader()
        self._last = frames.close_frame(frames.NORMAL)

    def begin(self, transport: asyncio.Transport, early: bytes) -> None:
        """The handshake is done; `early`: what the client has sent behind it."""
        transport.set_protocol(self)
        if transport.get_extra_info("ssl_object") is not None:
            self._buffer = self._connections.tls_buffer
        self.connection_made(transport)
        self.resume_reading()
        if early and self.stream is not None:
            self._take(self.stream, early)
            self._connections.flush()

    # --- what comes in

    def _take(self, stream: ClientStream, data: bytes) -> None:
        try:
            for opcode, payload in self._reader.feed(data, stream.input_limit):
                if opcode == frames.TEXT:
                    stream.receive_data(payload if payload[1:2] not in (b"o", b"c") else unframed(payload))
                elif opcode == frames.PING:
                    self._put(frames.frame(frames.PONG, payload))
                elif opcode == frames.CLOSE:
                    self._closed(stream)
                    return
                elif opcode == frames.BINARY:
                    raise frames.FrameError(frames.UNSUPPORTED_DATA, "XMPP is text")  # RFC 7395, 3.2
        except StreamError as fault:
            stream.fail(fault)
        except frames.FrameError as fault:
            self._last = frames.close_frame(fault.code, fault.reason)
            is_big = fault.code == frames.TOO_BIG
            too_big = errors.StreamPolicyViolation("The stanza is too large.")
            stream.fail(too_big if is_big else errors.BadFormat(fault.reason))
            self.close()  # its stream may have ended before

    def _closed(self, stream: ClientStream) -> None:
        """The client closes the WebSocket. RFC 7395, 3.6: without a <close/> before, its stream is broken, not over."""
        stream.connection_lost()
        self.close()
        if self._transport is not None:
            self._transport.close()

    def eof_received(self) -> bool:
        """RFC 6455 knows no half-closed connection: this one is lost."""
        return False

    # --- what goes out

    def _put(self, data: bytes) -> None:
        if self._closed_at is None:
            super().write(data)

    def write(self, data: bytes) -> None:
        """Queue one first-level element."""
        self._put(frames.text_frame(alone(data)))

    def open_stream(self, header: Header) -> None:
        """RFC 7395, 3.4."""
        self._put(frames.text_frame(opening(header)))

    def close_stream(self) -> None:
        """RFC 7395, 3.6."""
        self._put(frames.text_frame(CLOSE))

    def keep_alive(self) -> None:
        """RFC 7395, 3.8: a ping of WebSocket, never white space."""
        self._put(_PING)

    def close(self) -> None:
        """Say that it is over; the client's answer ends the connection, or time does (`check`)."""
        self._put(self._last)
        self.flush()
        if self._closed_at is None:
            self._closed_at = time.monotonic()


def _tokens(request: web.Request, header: str) -> list[str]:
    return [token.strip().lower() for value in request.headers.getall(header, []) for token in value.split(",")]


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except ValueError:
        return False
