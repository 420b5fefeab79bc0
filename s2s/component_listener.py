"""Where components connect, over TCP: I/O only, no protocol decisions (those are in `s2s/components.py`).

Their streams are in clear (XEP-0114 has no STARTTLS), so `components.listen` is loopback unless an operator says
otherwise. Writes of one batch are joined and made once, by `ComponentListener.flush`.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, cast

from cluster import logs, metrics
from cluster.config import Config
from cluster.edge import Edge
from cluster.process import CannotStart
from s2s.component_metrics import stats
from s2s.components import ComponentSettings, ComponentStream, State
from xmpp import errors
from xmpp.errors import JidError
from xmpp.jid import JID
from xmpp.stream import Limits

log = logs.get_logger()

OUTPUT_BYTES: Final = 8_388_608  # a component that lets so much pile up is cut off
CLOSE_WITHIN_S: Final = 10.0  # how long a component may take to read the end of its stream
BACKLOG: Final = 64
DRAIN_STEP_S: Final = 0.02

# A machine that vanished is noticed after some two minutes of silence: nothing else asks whether it is there.
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))

_PHASES: Final = {
    State.HEADER: "handshake", State.HANDSHAKE: "handshake", State.ATTACHING: "handshake", State.BOUND: "bound",
    State.LEAVING: "closing", State.CLOSING: "closing", State.CLOSED: "closing",
}  # fmt: skip


class ComponentListener:
    """The components of one process: its listening sockets and their connections. It listens, too, where
    `components.domains` has nobody: then nobody is let in."""

    def __init__(self, config: Config, edge: Edge) -> None:
        """Raises CannotStart where the settings name no domain, or one of ours."""
        self.edge = edge
        self.all: set[Connection] = set()
        self.dirty: set[Connection] = set()
        self._config = config
        self._settings = _settings(config)
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Listen. Raises CannotStart."""
        components = self._config.components
        loop = asyncio.get_running_loop()
        for address in components.listen:
            try:
                server = await loop.create_server(
                    lambda: Connection(self), address, components.port, reuse_port=True, backlog=BACKLOG
                )
            except OSError as problem:
                raise CannotStart(
                    f"cannot listen on {address} port {components.port}: {problem}. Change components.port or "
                    "components.listen, or end what uses the port"
                ) from problem
            self._servers.append(server)
        log.info("listening_for_components", addresses=list(components.listen), port=components.port)

    def export(self) -> None:
        """Have Prometheus see the connections; once in a process."""
        metrics.counted_gauge(
            "stentor_components_connections",
            "Connections of components by what they are doing",
            {"state": ["handshake", "bound", "closing"]},
            lambda: Counter((_PHASES[connection.stream.state],) for connection in self.all),
        )

    def make_stream(self, connection: Connection) -> ComponentStream:
        """The stream of a new connection."""
        return ComponentStream(connection, self.edge, self._settings, lambda: secrets.token_urlsafe(12), time.monotonic)

    def flush(self) -> None:
        """Write what streams have queued: each connection once. Called after every batch of input."""
        if self.dirty:
            dirty, self.dirty = self.dirty, set()
            for connection in dirty:
                connection.flush()

    def check(self) -> None:
        """About once a second: what was written, and the time-outs of every connection."""
        for connection in list(self.all):
            connection.check()
        self.flush()

    async def drain(self) -> None:
        """Accept nobody, tell each component to come back elsewhere; returns when all have gone."""
        for server in self._servers:
            server.close()
        while self.all:  # the drain's time bounds this
            for connection in list(self.all):
                connection.stream.shut_down()
            self.check()
            await asyncio.sleep(DRAIN_STEP_S)

    def close(self) -> None:
        """End everything at once."""
        for server in self._servers:
            server.close()
        for connection in list(self.all):
            connection.abort()


class Connection(asyncio.Protocol):
    """One component's socket, as transport of its stream."""

    __slots__ = (
        "_closed_at", "_listener", "_out", "_q_written", "_transport", "stream",
    )  # fmt: skip

    def __init__(self, listener: ComponentListener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport
        self._out: list[bytes] = []
        self._q_written = 0
        self._closed_at: float | None = None
        self.stream: ComponentStream

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A new connection."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not its subclasses
        self._transport.set_write_buffer_limits(high=0)  # `resume_writing` says when everything was taken
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self.stream = self._listener.make_stream(self)
        self._listener.all.add(self)

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        try:
            self.stream.receive_data(data)
        except Exception:
            self._give_up()
        self._listener.flush()

    def eof_received(self) -> bool:
        """The component sends no more."""
        self.stream.receive_eof()
        self._listener.flush()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._listener.all.discard(self)
        self._listener.dirty.discard(self)
        self.stream.connection_lost()

    def resume_writing(self) -> None:
        """The kernel has taken everything."""
        self._note_written()

    def _give_up(self) -> None:
        """A bug: this stream ends, the process lives."""
        log.exception("stream_failed")
        stats.failed()
        try:
            self.stream.fail(errors.StreamInternalServerError())
        except Exception:
            log.exception("stream_failed")
            self.abort()

    # --- the stream's side (s2s/components.py, Transport)

    def write(self, data: bytes) -> None:
        """Queue bytes; they leave with the next flush."""
        self._out.append(data)
        self._listener.dirty.add(self)

    def flush(self) -> None:
        """One write for everything queued."""
        if not self._out:
            return
        self._transport.write(b"".join(self._out))
        self._out.clear()
        self._q_written = self.stream.q
        self._note_written()

    def check(self) -> None:
        """About once a second: whether the component is too slow, and what its stream waits for."""
        if self._closed_at is not None:
            if time.monotonic() - self._closed_at > CLOSE_WITHIN_S:
                self.abort()  # it does not read
            return
        try:
            if self.queued_bytes > OUTPUT_BYTES:  # its owner bounds how many stanzas may pile up, this the bytes
                self.stream.fail(errors.StreamResourceConstraint("Too much is waiting to be read."))
                self.abort()
            else:
                self.stream.check_time()
        except Exception:
            self._give_up()

    def _note_written(self) -> None:
        """What the kernel took counts as acknowledged (docs/delivery.md). At once: the owner has only so much
        unacknowledged on one stream."""
        session = self.stream.session
        if session is not None and self._q_written > session.acknowledged and self.queued_bytes == 0:
            self._listener.edge.written(session, self._q_written)

    def close(self) -> None:
        """Write what is queued, then end the connection."""
        self.flush()
        if self._closed_at is None:
            self._closed_at = time.monotonic()
        self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._out.clear()
        self._transport.abort()

    def pause_reading(self) -> None:
        """Read no more from this component for now."""
        if self._transport.is_reading():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if not self._transport.is_reading() and not self._transport.is_closing():
            self._transport.resume_reading()

    @property
    def queued_bytes(self) -> int:
        """What was written and the kernel has not taken."""
        return self._transport.get_write_buffer_size()

    @property
    def address(self) -> str:
        """The component's address, for logs."""
        peer: Any = self._transport.get_extra_info("peername")
        return str(peer[0]) if peer else ""


def _settings(config: Config) -> ComponentSettings:
    return ComponentSettings(
        server=config.server.domains[0],
        secrets=_secrets(config),
        limits=Limits(stanza_bytes=config.s2s.stanza_bytes),
        login_timeout_s=config.s2s.login_timeout_s,
        keepalive_s=config.s2s.keepalive_s,
    )


def _secrets(config: Config) -> Mapping[str, str]:
    """The secret of each component, by its prepared domain."""
    found = {}
    for name, component in config.components.domains.items():
        key = f'components.domains."{name}"'
        try:
            jid = JID.parse(name)
        except JidError as problem:
            raise CannotStart(f"{key}: {problem} Name the component's domain") from problem
        if jid.local or jid.resource:
            raise CannotStart(f"{key}: a component is a domain. Leave out what is not its domain")
        if jid.domain in config.server.domains:
            raise CannotStart(f"{key}: server.domains has it, too. Give the component a domain of its own")
        found[jid.domain] = component.secret
    return found
