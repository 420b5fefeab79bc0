"""Servers in one test: real streams and managers, wired in memory; routers are played (tests/support/streams.py).

`Server` is one s2s process; a `Network` has several, and carries what they write. `Incoming` and `Outgoing` are
conversations with one stream, whose peer the test plays.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any, Final, NamedTuple

from cluster.edge import Edge, EdgeSession
from cluster.wire import ATTACH, UNREACHABLE
from s2s import features
from s2s.federation import Federation
from s2s.incoming import IncomingStream
from s2s.metrics import stats
from s2s.outgoing import OutgoingStream, Problem
from s2s.peer import Proof, StreamSettings, Transport
from s2s.stream import Stream
from tests.support.streams import Clock, FakeTransport, Router
from xmpp import ns
from xmpp.stanza import Stanza, message
from xmpp.stream import Limits

LOCAL: Final = "montague.example"
OTHER: Final = "verona.example"  # ours, too
REMOTE: Final = "capulet.example"
SECRET: Final = b"d14lb4ck43v3r"
CLOSE: Final = "</stream:stream>"
STARTTLS: Final = f"<starttls xmlns='{ns.TLS}'/>"
PROCEED: Final = f"<proceed xmlns='{ns.TLS}'/>"
BIDI: Final = f"<bidi xmlns='{ns.BIDI}'/>"

SETTINGS: Final = StreamSettings(
    domains=frozenset({LOCAL, OTHER}),
    is_tls_required=True,
    policy="allow",
    before_login=Limits(stanza_bytes=16_384, depth=16, attributes=64, elements=200),
    after_login=Limits(stanza_bytes=262_144),
    before_login_bytes=65_536,
    login_timeout_s=30.0,
    idle_timeout_s=600.0,
    keepalive_s=120.0,
    limits=features.stream_limits(262_144, 600.0),
)


class Certificate(NamedTuple):
    """What a peer has shown."""

    names: tuple[str, ...] = ()
    is_trusted: bool = True
    problem: str = ""

    def proves(self, domain: str) -> bool:
        """Whether it is one for this domain, from somebody whom we trust."""
        return self.is_trusted and domain in self.names


NONE: Final = Certificate((), False, "there is no certificate")


class PlainTransport(FakeTransport):
    """A connection of one stream, with the certificate that its peer shows in TLS."""

    def __init__(self, *, is_secure: bool = False, identity: Certificate = NONE) -> None:
        super().__init__(is_secure=is_secure)
        self.identity = identity


def prove(transport: Transport, domain: str, done: Callable[[Proof], None]) -> None:
    """By the certificate alone."""
    done(Proof.PROVEN if transport.identity.proves(domain) else Proof.UNPROVEN)


class Server:
    """One s2s process: its streams, its edge, and the routers behind it."""

    def __init__(self, *, clock: Clock | None = None, secret: bytes = SECRET, **changes: Any) -> None:
        self.clock = clock or Clock()
        self.router = Router()
        requests, ids = count(1), count(1)
        self.edge = self.router.edge = Edge(
            self.router.send, lambda: f"request-{next(requests)}", self.clock, stats.failed
        )
        self.router.own_everything()
        self.settings = replace(SETTINGS, **changes)
        self.dialled: list[OutgoingStream] = []  # not connected yet
        name = min(self.settings.domains)
        self.federation = Federation(
            self.edge, self.settings, connect=self.dialled.append, prove=prove,
            new_id=lambda: f"{name}-{next(ids)}", now=self.clock, clock=lambda: 1_700_000_000.0,
        )  # fmt: skip
        self.federation.secret = secret
        self.streams: list[Stream] = []  # all there have been
        self.certificate = Certificate(tuple(self.settings.domains))

    @property
    def unreachable(self) -> list[tuple[Any, ...]]:
        """What owners were told: (remote, local, condition, text, is permanent)."""
        return self.router.of_kind(UNREACHABLE)

    @property
    def attached(self) -> list[tuple[str, dict[str, Any]]]:
        """What was attached: the peer, and the facts."""
        return [(fields[1], fields[3]) for fields in self.router.of_kind(ATTACH)]

    def session(self, remote: str, local: str) -> EdgeSession:
        """The session of a pair that is authenticated on some stream: one that may be sent to before others, and the
        newest before older ones."""
        pairs = [stream.pairs[remote, local] for stream in self.streams if (remote, local) in stream.pairs]
        session = max(enumerate(pairs), key=lambda item: (item[1].sends, item[0]))[1].session
        assert session is not None
        return session

    def send(self, remote: str, local: str, text: str) -> None:
        """The owner of the peer delivers a message."""
        body = f"<body>{text}</body>".encode()
        stanza = message(to=f"juliet@{remote}", from_=f"romeo@{local}", id=text, inner=body)
        self.router.deliver(self.session(remote, local).sid, stanza)

    def got(self) -> list[Stanza]:
        """Every stanza that has come."""
        return self.router.submitted()

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.now += seconds
        self.edge.tick()
        self.federation.tick()
        for stream in list(self.federation.streams):
            stream.check_time()
        self.router.pump()


class Talk:
    """One stream, whose peer the test plays."""

    stream: Stream

    def __init__(self, server: Server, transport: PlainTransport) -> None:
        self.server = server
        self.transport = transport
        self._read = 0

    def say(self, *pieces: str | bytes) -> str:
        """Send each piece; what has been written since the last time."""
        for piece in pieces:
            self.stream.receive_data(piece.encode() if isinstance(piece, str) else piece)
            self.server.router.pump()
        return self.heard()

    def heard(self) -> str:
        """What has been written since the last time."""
        new, self._read = self.transport.written[self._read :], len(self.transport.written)
        return new.decode()

    def tick(self, seconds: float) -> str:
        """Let time pass; what was written then."""
        self.server.tick(seconds)
        return self.heard()

    def secure(self) -> str:
        """The TLS handshake is done."""
        assert self.transport.is_in_handshake
        self.transport.is_secure = True
        self.stream.tls_established()
        return self.heard()

    def is_over(self) -> bool:
        """Whether the connection has been closed."""
        return self.transport.is_closed

    def is_read(self) -> bool:
        """Whether input is taken."""
        return self.transport.is_reading


class Incoming(Talk):
    """A stream that the test opens."""

    def __init__(
        self, server: Server | None = None, *, is_secure: bool = True, certificate: Certificate = NONE, **changes: Any
    ) -> None:
        server = server or Server(**changes)
        super().__init__(server, PlainTransport(is_secure=is_secure, identity=certificate))
        self.stream: IncomingStream = server.federation.incoming(self.transport)
        server.streams.append(self.stream)

    def open(self, from_: str = REMOTE, to: str = LOCAL) -> str:
        """Open a stream; our header and features."""
        return self.say(header(from_, to))

    def sign_in(self, *before: str) -> None:
        """Authenticate by SASL EXTERNAL, with something said before; stanzas may flow."""
        self.open()
        self.say(*before)
        assert "<success" in self.say(auth("="))
        assert "<stream:features>" in self.open()

    def show_key(self, key: str = "key", from_: str = REMOTE, to: str = LOCAL) -> str:
        """`<db:result/>`; what was written, not the answer, if a verification comes first."""
        return self.say(f"<db:result from='{from_}' to='{to}'>{key}</db:result>")


class Outgoing(Talk):
    """A stream that is opened to the test."""

    def __init__(
        self, server: Server | None = None, *, is_secure: bool = True, certificate: Certificate = NONE,
        local: str = LOCAL, remote: str = REMOTE, is_wanted: bool = True, **changes: Any,
    ) -> None:  # fmt: skip
        server = server or Server(**changes)
        super().__init__(server, PlainTransport(is_secure=is_secure, identity=certificate))
        if is_wanted:
            server.federation.dial(remote, local)
        self.stream: OutgoingStream = server.dialled.pop()
        server.streams.append(self.stream)
        self.stream.connected(self.transport, ("host", 5269))

    def answer(self, *offers: str, id: str = "D60000229F", db: str = f" xmlns:db='{ns.DIALBACK}'") -> str:
        """The peer's header and features; what was written then."""
        opened = (
            f"<stream:stream xmlns='jabber:server' xmlns:stream='{ns.STREAMS}'{db} from='{REMOTE}' to='{LOCAL}' "
            f"id='{id}' version='1.0'>"
        )
        return self.say(opened + f"<stream:features>{''.join(offers)}</stream:features>")

    def sign_in(self, *after: str) -> None:
        """Authenticate by SASL EXTERNAL; `after` are the features then."""
        assert "<auth" in self.answer(EXTERNAL)
        self.say(f"<success xmlns='{ns.SASL}'/>")
        self.answer(*after)

    def valid(self, remote: str = REMOTE, local: str = LOCAL) -> str:
        """Our key is right; what was written then."""
        return self.say(f"<db:result from='{remote}' to='{local}' type='valid'/>")


EXTERNAL: Final = f"<mechanisms xmlns='{ns.SASL}'><mechanism>EXTERNAL</mechanism></mechanisms>"
OFFERS_STARTTLS: Final = f"<starttls xmlns='{ns.TLS}'><required/></starttls>"
OFFERS_DIALBACK: Final = f"<dialback xmlns='{ns.DIALBACK_FEATURE}'><errors/></dialback>"
OFFERS_BIDI: Final = f"<bidi xmlns='{ns.BIDI_FEATURE}'/>"
OFFERS_SM: Final = f"<sm xmlns='{ns.SM}'/>"


def header(from_: str = REMOTE, to: str = LOCAL) -> str:
    """A stream header of a peer."""
    return (
        f"<stream:stream xmlns='jabber:server' xmlns:stream='{ns.STREAMS}' xmlns:db='{ns.DIALBACK}' from='{from_}' "
        f"to='{to}' version='1.0'>"
    )


def auth(text: str) -> str:
    """`<auth/>` of SASL EXTERNAL."""
    return f"<auth xmlns='{ns.SASL}' mechanism='EXTERNAL'>{text}</auth>"


def dialback_error(written: str) -> str:
    """The condition of the dialback error in what was written."""
    found = re.search(rf'type="error"><error type="[a-z]+"><([a-z-]+) xmlns="{ns.STANZAS}"/>', written)
    assert found is not None, written
    return found[1]


class _Wire(PlainTransport):
    """One end of a connection in memory. TLS shows each end the other's certificate."""

    def __init__(self, server: Server, identity: Certificate, address: str, *, is_secure: bool) -> None:
        super().__init__(is_secure=is_secure, identity=identity)
        self.server = server
        self.address = address
        self.other: _Wire
        self.stream: Stream
        self.sent = 0  # bytes that the other end has
        self.is_heard = True  # else what comes is lost with the connection
        self.is_gone = False

    def write(self, data: bytes) -> None:
        super().write(data)
        self.is_heard = True


class Network:
    """Several servers, and DNS: who serves which domain."""

    def __init__(self, *servers: Server, is_direct_tls: bool = False) -> None:
        self.servers = servers
        self.is_direct_tls = is_direct_tls
        self.dns = {domain: server for server in servers for domain in server.settings.domains}
        self.wires: list[_Wire] = []
        self.has_kernel = True  # it takes what is written at once
        self.pieces = 65_536  # the largest read

    def run(self) -> None:
        """Until nobody has anything to say."""
        for _ in range(10_000):
            if not self._step():
                return
        raise AssertionError("the servers never stop talking")

    def _step(self) -> bool:
        has_moved = False
        for server in self.servers:
            server.router.pump()
            while server.dialled:
                has_moved = True
                self._connect(server, server.dialled.pop(0))
        for wire in self.wires:
            has_moved |= self._carry(wire)
        return has_moved

    def _connect(self, server: Server, stream: OutgoingStream) -> None:
        there = self.dns.get(stream.remote)
        if stream.is_closed:
            return
        if there is None:
            stream.give_up(Problem("remote-server-not-found", "There is no such domain.", True))
            return
        target = f"host-{self.servers.index(there)}", 5269
        if server.federation.join(stream, *target):
            return
        near = _Wire(server, there.certificate, "192.0.2.2", is_secure=self.is_direct_tls)
        far = _Wire(there, server.certificate, "192.0.2.1", is_secure=self.is_direct_tls)
        near.other, far.other = far, near
        near.stream, far.stream = stream, there.federation.incoming(far)
        server.streams.append(near.stream)
        there.streams.append(far.stream)
        self.wires += [near, far]
        stream.connected(near, target)

    def _carry(self, wire: _Wire) -> bool:
        """Bytes of one end to the other; TLS when both ends are ready; the end of the connection."""
        other = wire.other
        if wire.sent < len(wire.written) and not other.is_gone and other.is_reading:
            data = wire.written[wire.sent : wire.sent + self.pieces]
            wire.sent += len(data)
            other.stream.receive_data(data)
            if self.has_kernel:
                wire.stream.taken(wire.stream.written)
            return True
        if wire.is_in_handshake and other.is_in_handshake and not wire.is_secure:
            for end in (other, wire):
                end.is_secure = True
                end.is_reading = True
            for end in (other, wire):
                end.stream.tls_established()
            return True
        if wire.is_closed and wire.sent == len(wire.written) and not other.is_gone:
            other.is_gone = True
            if not other.is_closed:
                other.stream.receive_eof()
            return True
        return False

    def cut(self, server: Server) -> None:
        """Every connection of a server is lost."""
        for wire in self.wires:
            if server in (wire.server, wire.other.server) and not wire.is_gone:
                wire.is_gone = wire.is_closed = True
                wire.stream.connection_lost()
