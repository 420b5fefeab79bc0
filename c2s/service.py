"""The c2s process: composes listeners, streams, the edge and the bus, and drains them."""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from c2s import features
from c2s.attempts import Attempts
from c2s.bytestreams import Bytestreams
from c2s.channel_binding import exporter_works
from c2s.client_certificates import ClientCertificates
from c2s.connections import Carrier, Connections
from c2s.http.relay import Relay
from c2s.http.server import HttpServer
from c2s.http.site import Site
from c2s.metrics import TRANSPORTS, stats
from c2s.negotiation import State
from c2s.newcomer import Newcomers
from c2s.proxy_protocol import NOBODY, Gate, Proxied
from c2s.stream import ClientStream, Facts, StreamSettings
from c2s.tcp import Connection
from c2s.tls import ServerTls
from cluster import any_certificate, logs, metrics
from cluster.admin import Check
from cluster.authentication import Anonymous
from cluster.bus import Bus
from cluster.certificates import CertificateError
from cluster.config import Config
from cluster.edge import Answer, Edge
from cluster.edge_tracing import EdgeTracing
from cluster.membership import PeerDown, PeerEvent, PeerUp
from cluster.orders import Orders
from cluster.process import CannotStart, Drain, Process
from cluster.tracing import Tracer
from cluster.wire import ACTIVATE, DRAIN, ORDER, RELAYED, TRACE, Envelope, Incarnation, new_incarnation
from xmpp.stream import Limits

log = logs.get_logger()

TICK_S: Final = 1.0
MAP_YOUNG_S: Final = 30.0
STANZA_ELEMENTS: Final = 5_000
PHASES: Final = ("handshake", "auth", "bound")


class C2SApplication:
    """One c2s process. It holds no database credentials: what it needs to know it asks routers."""

    role = "c2s"

    def __init__(self, config: Config) -> None:
        self._config = config
        self._incarnation = new_incarnation(config.node.name, secrets.randbits(64))
        requests = itertools.count(1)
        self._edge = Edge(self._send, lambda: f"{self._incarnation}/{next(requests):x}", time.monotonic, stats.failed)
        self._tracer = Tracer(
            send=self._send, is_congested=self._is_congested, switch=self._switch_tracing,
            later=lambda seconds, act: asyncio.get_running_loop().call_later(seconds, act),
            now=time.monotonic, clock=time.time,
        )  # fmt: skip
        self._edge.hear(TRACE, self._tracer.told)
        self._facts = Facts()
        self._certificates = _client_certificates(config)
        self._settings = _stream_settings(config, self._certificates)
        self._tls = _server_tls(config)
        self._bytestreams = Bytestreams(config, self._edge, self._incarnation)
        self._connections = Connections(self._edge, self._make_stream)
        self._relay = Relay(self._send, lambda: self._routers)
        self._http: HttpServer | None = None
        if config.http.enabled:
            attempts = self._settings.newcomers.attempts
            self._http = Site(config, self._edge, self._connections, attempts, self._incarnation, self._relay).server
        self._servers: list[asyncio.Server] = []
        self._bus: Bus | None = None
        self._orders: Orders | None = None
        self._process: Process | None = None
        self._routers: set[Incarnation] = set()
        self._heard_at = 0.0
        self._has_facts = False

    def ready_checks(self) -> Mapping[str, Check]:
        """Listeners bound, a router linked, every shard's owner known."""
        return {
            "listeners": lambda: None if self._servers else "not listening yet",
            "routers": lambda: None if self._routers else "no link to a router; check bus.seeds",
            "shard_map": self._check_map,
            "facts": lambda: None if self._has_facts else "no router has told the stream features yet",
            "sessions": self._check_sessions,
            **({"http": self._http.check} if self._http is not None else {}),
        }

    def _check_map(self) -> str | None:
        unowned = sum(owner is None for owner in self._edge.map.owners)
        if unowned:
            return f"{unowned} of 1024 shards have no known owner"
        if not self._routers and time.monotonic() - self._heard_at > MAP_YOUNG_S:
            return "the shard map is older than 30 s"
        return None

    def _check_sessions(self) -> str | None:
        bound, limit = len(self._edge.sessions), self._config.limits.sessions
        return None if bound < limit else f"{bound} sessions are bound, and limits.sessions is {limit}"

    async def start(self, process: Process) -> None:
        """Join the bus, then listen."""
        self._process = process
        config = self._config
        self._bus = bus = Bus.from_config(
            config, self.role, self._incarnation, self._receive, self._after_batch, self._on_peer
        )
        self._orders = Orders(process, config, self.role)
        self._orders.offer("tls.list", self._tls.certificates.describe)
        await bus.start()
        for seed in bus.seeds(config):
            bus.greet(seed)
        process.essential("c2s_tick", self._tick())
        process.essential("certificates", self._tls.certificates.follow())
        process.on_hangup(self._tls.certificates.renew)
        if self._certificates is not None:
            process.essential("client_authorities", self._certificates.follow())
            process.on_hangup(self._certificates.renew)
        await self._listen()
        await self._bytestreams.start()
        if self._http is not None:
            await self._http.start(process)
        self._export()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        c2s = self._config.c2s
        for address in c2s.listen:
            for port, is_direct_tls in ((c2s.port, False), (c2s.tls_port, True)):
                try:
                    server = await loop.create_server(
                        lambda is_direct_tls=is_direct_tls: self._protocol(is_direct_tls),  # type: ignore[misc]
                        address,
                        port,
                        reuse_port=True,
                        backlog=c2s.backlog,
                        **self._tls_options(is_direct_tls),
                    )
                except OSError as problem:
                    key = "c2s.tls_port" if is_direct_tls else "c2s.port"
                    raise CannotStart(
                        f"cannot listen on {address} port {port}: {problem}. Change {key} or c2s.listen, "
                        "or end what uses the port"
                    ) from problem
                self._servers.append(server)
        log.info("listening", addresses=list(c2s.listen), port=c2s.port, tls_port=c2s.tls_port)

    def _protocol(self, is_direct_tls: bool) -> Connection | Gate:
        c2s = self._config.c2s

        def connection(proxied: Proxied = NOBODY) -> Connection:
            return Connection(self._connections, self._tls, is_direct_tls, c2s.tls_handshake_timeout_s, proxied)

        def accept(transport: asyncio.Transport, proxied: Proxied) -> None:
            connection(proxied).accept(transport, is_direct_tls=is_direct_tls)

        if not c2s.proxy_protocol:
            return connection()
        return Gate(c2s.proxy_protocol, c2s.tls_handshake_timeout_s, accept)

    def _tls_options(self, is_direct_tls: bool) -> dict[str, Any]:
        if not is_direct_tls or self._config.c2s.proxy_protocol:  # a PROXY header comes before TLS
            return {}
        return {"ssl": self._tls.context, "ssl_handshake_timeout": self._config.c2s.tls_handshake_timeout_s}

    # --- drain and stop

    async def drain(self, drain: Drain) -> None:
        """Close the listeners, then the streams: in random order, spread evenly over the window."""
        for server in self._servers:
            server.close()
        if self._http is not None:
            self._http.drain()
        connections = list(self._connections.all)
        random.shuffle(connections)
        window = min(self._config.drain.window_s, drain.remaining_s())
        started = time.monotonic()
        for index, connection in enumerate(connections):
            due = started + min(window, drain.remaining_s()) * index / max(1, len(connections))
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if connection.stream is not None:
                connection.stream.shut_down()
                self._connections.flush()
        while self._edge.sessions or self._connections.all or self._has_uploads():  # the drain's time bounds this
            for connection in list(self._connections.all):
                if connection.stream is not None:
                    connection.stream.shut_down()  # it was still in its handshake above
            self._connections.flush()
            await asyncio.sleep(0.05)  # owners confirm what was held

    def _has_uploads(self) -> bool:
        return self._http is not None and self._http.is_busy()

    async def stop(self) -> None:
        """Leave the bus."""
        for server in self._servers:
            server.close()
        self._bytestreams.stop()
        if self._http is not None:
            await self._http.stop()
        for connection in list(self._connections.all):
            connection.abort()
        if self._bus is not None:
            await self._bus.stop()

    # --- bus

    def _send(self, to: Incarnation, envelope: Envelope) -> bool:
        return self._bus is not None and self._bus.send(to, envelope)

    def _is_congested(self, to: Incarnation) -> bool:
        return self._bus is not None and self._bus.is_congested(to)

    def _switch_tracing(self, is_on: bool) -> None:
        if is_on and self._edge.tracing is None:
            self._edge.tracing = EdgeTracing(self._tracer, self.role)
        elif not is_on:
            self._edge.tracing = None

    def _receive(self, sender: Incarnation, envelopes: tuple[Envelope, ...]) -> None:
        self._heard_at = time.monotonic()
        receive = self._edge.receive
        for envelope in envelopes:
            if envelope[0] == DRAIN and self._process is not None:
                self._process.terminate()
            elif envelope[0] == ORDER and self._orders is not None and self._bus is not None:
                self._orders.receive(self._bus.send, sender, *envelope[1:])
            elif envelope[0] == ACTIVATE:
                self._bytestreams.activate(envelope[1])
            elif envelope[0] == RELAYED:
                self._relay.receive(*envelope[1:])
            else:
                receive(sender, envelope[0], envelope[1:])

    def _after_batch(self) -> None:
        self._connections.flush()

    def _on_peer(self, event: PeerEvent) -> None:
        if isinstance(event, PeerUp) and event.role == "router":
            self._routers.add(event.incarnation)
            self._edge.peer_up(event.incarnation)
        elif isinstance(event, PeerDown):
            self._routers.discard(event.incarnation)
            self._relay.router_lost(event.incarnation)
            self._tracer.gone(event.incarnation)

    # --- time

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._edge.tick()
            if not self._has_facts and all(self._edge.map.owners):
                self._ask_facts()
            await self._connections.check()

    def _ask_facts(self) -> None:
        domain = self._config.server.domains[0]

        def done(answer: Answer) -> None:
            if answer.ok:
                self._facts.features = dict(answer.value)
                self._has_facts = True

        self._edge.call(domain, "stream_features", (), done, timeout_s=TICK_S)

    # --- streams

    def _make_stream(self, carrier: Carrier) -> ClientStream:
        return ClientStream(
            carrier, self._edge, self._settings, self._facts, lambda: secrets.token_urlsafe(12), time.monotonic
        )

    def _export(self) -> None:
        connections = self._connections.all
        self._tls.certificates.export_expiry()
        self._bytestreams.export()
        if self._http is not None:
            self._http.export()
        metrics.counted_gauge(
            "stentor_c2s_connections",
            "Client connections by what they are doing",
            {"transport": TRANSPORTS, "state": PHASES},
            lambda: Counter((connection.transport_name, _phase(connection)) for connection in connections),
        )
        sessions = self._edge.sessions
        metrics.sampled_gauge("stentor_c2s_sessions", "Bound sessions", (), {(): lambda: len(sessions)})
        metrics.sampled_gauge(
            "stentor_c2s_paused_readers",
            "Connections not read from, because too much of theirs is unconfirmed",
            (),
            {(): lambda: sum(session.is_paused and not session.is_closing for session in sessions.values())},
        )
        metrics.sampled_gauge(
            "stentor_c2s_unacknowledged_stanzas",
            "Stanzas written to clients and not yet acknowledged",
            (),
            {(): lambda: sum(len(session.unacknowledged) for session in sessions.values())},
        )
        metrics.sampled_gauge(
            "stentor_c2s_output_queue_bytes",
            "Bytes written to clients that the kernel has not taken",
            (),
            {(): lambda: sum(connection.queued_bytes for connection in connections)},
        )


def _phase(connection: Carrier) -> str:
    stream = connection.stream
    if stream is None or stream.state in (State.HEADER, State.HANDSHAKE):
        return "handshake"
    return "bound" if stream.session is not None else "auth"


def _stream_settings(config: Config, certificates: ClientCertificates | None = None) -> StreamSettings:
    c2s = config.c2s
    before = Limits(stanza_bytes=min(c2s.stanza_bytes, 16_384), depth=16, attributes=c2s.attributes, elements=200)
    after = Limits(stanza_bytes=c2s.stanza_bytes, depth=c2s.depth, attributes=c2s.attributes, elements=STANZA_ELEMENTS)
    return StreamSettings(
        domains=frozenset(config.server.domains),
        is_tls_required=config.tls.c2s == "required",
        before_login=before,
        after_login=after,
        before_login_bytes=c2s.pre_auth_bytes,
        sasl_tries=c2s.sasl_tries,
        sessions=config.limits.sessions,
        login_timeout_s=c2s.login_timeout_s,
        idle_timeout_s=c2s.idle_timeout_s,
        keepalive_s=c2s.keepalive_s,
        resume_timeout_s=config.resume.timeout_s,
        limits_before_login=features.stream_limits(before.stanza_bytes, None),
        limits_after_login=features.stream_limits(after.stanza_bytes, c2s.idle_timeout_s),
        hashes=tuple(config.authentication.hashes),
        backends={domain: backend.backend for domain, backend in config.authentication.domains.items()},
        newcomers=Newcomers(
            may_register=config.registration.mode != "closed",
            takes_invitations=config.registration.mode != "closed",
            attempts=Attempts(config.registration.per_address, time.monotonic),
        ),
        certificates=certificates,
    )


def _server_tls(config: Config) -> ServerTls:
    pairs = config.tls.pairs(config.server.domains)
    if not pairs:
        raise CannotStart("no certificate is configured. Set tls.certificate and tls.key, or tls.certificates")
    try:
        tls = ServerTls(pairs, asks=bool(config.tls.clients))
    except CertificateError as problem:
        raise CannotStart(str(problem)) from problem
    if config.tls.clients and not any_certificate.works():
        log.warning(
            "client_certificates_not_asked_for",
            remedy="run one of the versions of Python that docs/decisions/0008 names",
        )
    if not exporter_works():
        log.warning("tls_exporter_missing", remedy="channel binding is by tls-server-end-point alone")
    return tls


def _client_certificates(config: Config) -> ClientCertificates | None:
    for domain in config.tls.clients:
        if domain not in config.server.domains:
            raise CannotStart(
                f"tls.clients.{domain}: {domain} is not served here. Add it to server.domains, or remove the key"
            )
        if isinstance(config.authentication.of(domain), Anonymous):
            raise CannotStart(f"tls.clients.{domain}: whoever signs in there is a guest. Remove one of the two keys")
    try:
        return ClientCertificates(config.tls.clients) if config.tls.clients else None
    except CertificateError as problem:
        raise CannotStart(f"tls.clients: {problem}") from problem


def application(config: Config) -> C2SApplication:
    """The application that `stentor c2s` runs."""
    return C2SApplication(config)
