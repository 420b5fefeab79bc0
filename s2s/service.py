"""The s2s process: composes listeners, streams with other servers and components, the edge and the bus, and drains
them."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, cast

from cluster import logs, metrics
from cluster.admin import Check
from cluster.bus import Bus
from cluster.certificates import CertificateError
from cluster.clock import SYSTEM
from cluster.config import Config
from cluster.edge import Answer, Edge
from cluster.edge_tracing import EdgeTracing
from cluster.membership import PeerDown, PeerEvent, PeerUp
from cluster.orders import Orders
from cluster.process import CannotStart, Drain, Process
from cluster.tracing import Tracer
from cluster.trust import Authorities
from cluster.wire import DIAL, DRAIN, ORDER, TRACE, Envelope, Epoch, Incarnation, Shard, new_incarnation
from s2s import features
from s2s.component_listener import ComponentListener
from s2s.connect import HANDSHAKE_S
from s2s.dns import Resolver
from s2s.federation import Federation
from s2s.metrics import DIRECTIONS, stats
from s2s.negotiation import ENDING, State
from s2s.peer import Proof, StreamSettings, Transport
from s2s.posh import Posh
from s2s.proof import Prover
from s2s.stream import Stream
from s2s.tcp import Connection, Connections
from s2s.tls import ServerTls
from xmpp.stream import Limits

log = logs.get_logger()

TICK_S: Final = 1.0
BEGIN_STEP_S: Final = 0.05  # between looks at whether listening can begin
EARLY_DIALS: Final = 1_000  # domains to be dialled as soon as it has
MAP_YOUNG_S: Final = 30.0
BEFORE_LOGIN_BYTES: Final = 65_536  # of one stream, until a domain is authenticated
STANZA_ELEMENTS: Final = 5_000
# Of what a domain has acknowledged last, remembered for its next owner: as much as may be under way to the database.
READ_IDS: Final = 2_000
PHASES: Final = ("connecting", "negotiating", "open", "ending")


class S2SApplication:
    """One s2s process. It holds no database credentials: what it needs to know it asks routers."""

    role = "s2s"

    def __init__(self, config: Config) -> None:
        self._config = config
        self._incarnation = new_incarnation(config.node.name, secrets.randbits(64))
        requests = itertools.count(1)
        self._edge = Edge(
            self._send, lambda: f"{self._incarnation}/{next(requests):x}", time.monotonic, stats.failed, READ_IDS
        )
        self._tracer = Tracer(
            send=self._send, is_congested=self._is_congested, switch=self._switch_tracing,
            later=lambda seconds, act: asyncio.get_running_loop().call_later(seconds, act),
            now=time.monotonic, clock=time.time,
        )  # fmt: skip
        self._edge.hear(TRACE, self._tracer.told)
        self._components = ComponentListener(config, self._edge)
        self._tls = _server_tls(config)
        self._authorities = _authorities(config)
        self._servers: list[asyncio.Server] = []
        self._bus: Bus | None = None
        self._orders: Orders | None = None
        self._process: Process | None = None
        self._posh: Posh | None = None
        self._resolver: Resolver
        self._connections: Connections
        self._federation: Federation
        self._routers: set[Incarnation] = set()
        self._is_serving = False
        self._has_asked = False  # for the facts
        self._early: dict[tuple[str, str], tuple[Shard, Epoch]] = {}  # (remote, local): asked for before we serve
        self._heard_at = 0.0

    def ready_checks(self) -> Mapping[str, Check]:
        """A router linked, every shard's owner known, the secret of dialback known, which is when we listen."""
        return {
            "routers": lambda: None if self._routers else "no link to a router; check bus.seeds",
            "shard_map": self._check_map,
            "facts": lambda: None if self._is_serving else "no router has told the secret of dialback yet",
        }

    def _check_map(self) -> str | None:
        unowned = sum(owner is None for owner in self._edge.map.owners)
        if unowned:
            return f"{unowned} of 1024 shards have no known owner"
        if not self._routers and time.monotonic() - self._heard_at > MAP_YOUNG_S:
            return "the shard map is older than 30 s"
        return None

    async def start(self, process: Process) -> None:
        """Take the ports, and join the bus. Listening begins with the first facts: without the secret, no key of ours
        could be verified."""
        self._process = process
        config = self._config
        self._compose()
        if config.s2s.enabled:
            await self._bind()
        self._bus = bus = Bus.from_config(
            config, self.role, self._incarnation, self._receive, self._after_batch, self._on_peer
        )
        self._orders = Orders(process, config, self.role)
        self._orders.offer("tls.list", self._tls.certificates.describe)
        self._orders.offer("s2s.streams", lambda domain: self._federation.reports(domain))
        self._orders.offer("s2s.failures", lambda domain: self._federation.failures(domain))
        self._orders.offer("s2s.close", self._close)
        await bus.start()
        for seed in bus.seeds(config):
            bus.greet(seed)
        await self._components.start()
        process.essential("s2s_tick", self._tick())
        process.essential("certificates", self._tls.certificates.follow())
        process.on_hangup(self._tls.certificates.renew)
        self._export()
        self._components.export()

    def _compose(self) -> None:
        s2s = self._config.s2s
        try:
            self._resolver = Resolver(s2s.resolvers, dane=s2s.dane)
        except ValueError as problem:
            raise CannotStart(f"s2s.resolvers: {problem}") from problem
        self._posh = Posh() if s2s.posh else None
        self._connections = Connections(self._tls, self._authorities, self._resolver, s2s.connect_timeout_s)
        prover = Prover(self._resolver if s2s.dane else None, self._posh, SYSTEM, self._connections.start)

        def prove(transport: Transport, domain: str, done: Callable[[Proof], None]) -> None:
            prover.prove(cast(Connection, transport), domain, done)

        self._federation = self._connections.federation = Federation(
            self._edge,
            stream_settings(self._config),
            connect=self._connections.open,
            prove=prove,
            new_id=lambda: secrets.token_urlsafe(12),
            now=time.monotonic,
            clock=time.time,
        )

    async def _bind(self) -> None:
        loop = asyncio.get_running_loop()
        s2s = self._config.s2s
        for address in s2s.listen:
            for port, is_direct_tls in ((s2s.port, False), (s2s.tls_port, True)):
                try:
                    server = await loop.create_server(
                        partial(self._connections.accept, is_direct_tls),
                        address,
                        port,
                        reuse_port=True,
                        backlog=s2s.backlog,
                        ssl=self._tls.incoming if is_direct_tls else None,
                        ssl_handshake_timeout=HANDSHAKE_S if is_direct_tls else None,
                        start_serving=False,
                    )
                except OSError as problem:
                    key = "s2s.tls_port" if is_direct_tls else "s2s.port"
                    raise CannotStart(
                        f"cannot listen on {address} port {port}: {problem}. Change {key} or s2s.listen, "
                        "or end what uses the port"
                    ) from problem
                self._servers.append(server)

    async def _serve(self) -> None:
        """Listen and dial, once the facts are there."""
        if not self._federation.secret:
            if all(self._edge.map.owners):
                self._ask_facts()
            return
        for server in self._servers:
            await server.start_serving()
        self._is_serving = True
        s2s = self._config.s2s
        if self._servers:
            log.info("listening", addresses=list(s2s.listen), port=s2s.port, tls_port=s2s.tls_port)
        early, self._early = self._early, {}
        for (remote, local), (shard, epoch) in early.items():
            self._on_dial(shard, epoch, remote, local)

    # --- drain and stop

    async def drain(self, drain: Drain) -> None:
        """Close the listeners, then the streams, each when what it has written is acknowledged."""
        await asyncio.gather(self._drain_streams(), self._components.drain())

    async def _drain_streams(self) -> None:
        for server in self._servers:
            server.close()
        while self._federation.streams or self._edge.sessions or self._connections.all:  # the drain's time bounds this
            self._federation.shut_down()
            self._connections.flush()
            await asyncio.sleep(0.05)  # peers acknowledge what was written, owners confirm what was read

    async def stop(self) -> None:
        """Leave the bus."""
        for server in self._servers:
            server.close()
        self._connections.abort()
        self._components.close()
        if self._bus is not None:
            await self._bus.stop()
        await self._resolver.close()
        if self._posh is not None:
            await self._posh.close()

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
            if envelope[0] == DIAL:
                self._on_dial(*envelope[1:])
            elif envelope[0] == DRAIN and self._process is not None:
                self._process.terminate()
            elif envelope[0] == ORDER and self._orders is not None and self._bus is not None:
                self._orders.receive(self._bus.send, sender, *envelope[1:])
            else:
                receive(sender, envelope[0], envelope[1:])

    def _on_dial(self, shard: Shard, epoch: Epoch, remote: str, local: str) -> None:
        if not self._is_serving:
            if len(self._early) < EARLY_DIALS:
                self._early[(remote, local)] = (shard, epoch)
        elif self._edge.map.is_current(shard, epoch):  # else the owner asks again
            self._federation.dial(remote, local)

    def _close(self, domain: str) -> int:
        """An operator wants the streams with a domain to end."""
        closed = self._federation.close(domain)
        self._after_batch()
        log.info("streams_closed", remote=domain, count=closed)
        return closed

    def _after_batch(self) -> None:
        self._connections.flush()
        self._components.flush()

    def _on_peer(self, event: PeerEvent) -> None:
        if isinstance(event, PeerUp) and event.role == "router":
            self._routers.add(event.incarnation)
            self._edge.peer_up(event.incarnation)
        elif isinstance(event, PeerDown):
            self._routers.discard(event.incarnation)
            self._tracer.gone(event.incarnation)

    # --- time

    async def _tick(self) -> None:
        tick_at = time.monotonic() + TICK_S
        while True:
            await asyncio.sleep(TICK_S if self._is_serving else BEGIN_STEP_S)
            if not self._is_serving:
                await self._serve()
            if time.monotonic() < tick_at:
                continue
            tick_at = time.monotonic() + TICK_S / 2
            self._edge.tick()
            self._federation.tick()
            self._connections.check()
            self._components.check()

    def _ask_facts(self) -> None:
        """Ask a router for what all s2s processes must have alike."""

        if self._has_asked:
            return
        self._has_asked = True

        def done(answer: Answer) -> None:
            self._has_asked = False
            if answer.ok:
                self._federation.secret = answer.value["dialback"]

        self._edge.call(self._config.server.domains[0], "federation.facts", (), done, timeout_s=TICK_S)

    # --- metrics

    def _export(self) -> None:
        streams, sessions, connections = self._federation.streams, self._edge.sessions, self._connections.all
        self._tls.certificates.export_expiry()
        metrics.counted_gauge(
            "stentor_s2s_streams",
            "Streams with other servers by what they are doing",
            {"direction": DIRECTIONS, "state": PHASES},
            lambda: Counter((stream.direction, _phase(stream)) for stream in streams),
        )
        metrics.sampled_gauge(
            "stentor_s2s_sessions",
            "Pairs of domains that streams are authenticated for",
            (),
            {(): lambda: len(sessions)},
        )
        metrics.sampled_gauge(
            "stentor_s2s_paused_readers",
            "Pairs of domains not read from, because too much of theirs is unconfirmed",
            (),
            {(): lambda: sum(session.is_paused and not session.is_closing for session in sessions.values())},
        )
        metrics.sampled_gauge(
            "stentor_s2s_unacknowledged_stanzas",
            "Stanzas written to other servers and not yet acknowledged",
            (),
            {(): lambda: sum(len(session.unacknowledged) for session in sessions.values())},
        )
        metrics.sampled_gauge(
            "stentor_s2s_output_queue_bytes",
            "Bytes written to other servers that the kernel has not taken",
            (),
            {(): lambda: sum(connection.queued_bytes for connection in connections)},
        )


def stream_settings(config: Config) -> StreamSettings:
    """What the streams of a process keep to."""
    s2s, c2s = config.s2s, config.c2s
    before = Limits(stanza_bytes=min(s2s.stanza_bytes, 16_384), depth=16, attributes=c2s.attributes, elements=200)
    after = Limits(stanza_bytes=s2s.stanza_bytes, depth=c2s.depth, attributes=c2s.attributes, elements=STANZA_ELEMENTS)
    return StreamSettings(
        domains=_domains(config),
        is_tls_required=s2s.tls == "required",
        policy=s2s.policy if s2s.enabled else "deny",
        policies=s2s.domains if s2s.enabled else {},
        before_login=before,
        after_login=after,
        before_login_bytes=BEFORE_LOGIN_BYTES,
        login_timeout_s=s2s.login_timeout_s,
        idle_timeout_s=s2s.idle_timeout_s,
        keepalive_s=s2s.keepalive_s,
        limits=features.stream_limits(after.stanza_bytes, s2s.idle_timeout_s),
        has_bidi=s2s.bidi,
    )


def _domains(config: Config) -> frozenset[str]:
    """Ours, those of rooms and components too: nobody outside speaks for them, and others write to them."""
    return frozenset({*config.server.domains, *config.service_domains(), *config.components.domains})


def _phase(stream: Stream) -> str:
    if stream.state is State.CONNECTING:
        return "connecting"
    if stream.state is State.OPEN:
        return "open"
    return "ending" if stream.state in ENDING else "negotiating"


def _server_tls(config: Config) -> ServerTls:
    pairs = config.tls.pairs(_domains(config))
    if not pairs:
        raise CannotStart("no certificate is configured. Set tls.certificate and tls.key, or tls.certificates")
    try:
        tls = ServerTls(pairs)
    except CertificateError as problem:
        raise CannotStart(str(problem)) from problem
    if not tls.asks_for_certificates:
        log.warning(
            "peer_certificates_missing", remedy="other servers are let in by dialback alone; use CPython 3.11-3.13"
        )
    return tls


def _authorities(config: Config) -> Authorities:
    try:
        return Authorities.load([config.s2s.ca] if config.s2s.ca is not None else [])
    except CertificateError as problem:
        raise CannotStart(f"s2s.ca: {problem}") from problem


def application(config: Config) -> S2SApplication:
    """The application that `stentor s2s` runs."""
    return S2SApplication(config)
