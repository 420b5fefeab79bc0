"""The bus: ZeroMQ around links and membership. One ROUTER socket receives, one DEALER per peer sends.

Everything of one tick of the event loop for one peer leaves as one frame, and frames to one peer are at least a
millisecond apart: work is cheap, waking a sleeping peer is dear. Sockets are read by their file descriptor, until
nothing is left; high-water marks are off, because the links bound what is under way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import zmq
from prometheus_client import REGISTRY, CollectorRegistry

from cluster import logs, metrics
from cluster.config import Config
from cluster.keys import ZAP_DOMAIN, Keys, ZapHandler, problem_with
from cluster.link import ReceiveLink, SendLink
from cluster.membership import ROLES, Membership, Peer, PeerAway, PeerDown, PeerEvent, PeerUp
from cluster.wire import (
    ARITY,
    GOODBYE,
    GREETINGS,
    MAY_SEND,
    NO_ACK,
    NODES,
    Ack,
    Envelope,
    Incarnation,
    WireError,
    node_of,
    pack_frame,
    unpack_frame,
)

log = logs.get_logger()

FRAME_APART_S: Final = 0.001
ACK_WITHIN_S: Final = 0.05
ACK_EVERY: Final = 32  # frames
TICK_S: Final = 0.1
STOOD_STILL_S: Final = 1.0
DRAIN_FRAMES: Final = 200  # read at one go, then others get their turn
REJECTIONS: Final = ("undecodable", "other-incarnation", "unknown-sender", "kind-not-allowed", "role-not-proven")

_rejected = metrics.counter(
    "stentor_bus_rejected_total", "Frames or envelopes that were not accepted", {"reason": list(REJECTIONS)}
)
_retransmits = metrics.counter("stentor_bus_retransmits_total", "Frames sent again", {"peer_role": list(ROLES)})
_batch_sizes = metrics.histogram(
    "stentor_bus_batch_envelopes", "Envelopes in one frame", {"peer_role": list(ROLES)}, buckets=metrics.SIZE_BUCKETS
)
_round_trip = metrics.histogram(
    "stentor_bus_round_trip_seconds", "From sending a frame to its acknowledgement", {"peer_role": list(ROLES)}
)


class _Link:
    """Both directions with one peer."""

    __slots__ = (
        "asked_at",
        "incarnation",
        "is_timer_set",
        "pending",
        "probe",
        "receive",
        "role",
        "send",
        "sent_at",
        "sizes",
        "socket",
        "unacked_frames",
    )  # fmt: skip

    def __init__(
        self, incarnation: Incarnation, role: str, socket: zmq.Socket[bytes], send: SendLink, receive: ReceiveLink
    ) -> None:
        self.incarnation = incarnation
        self.role = role
        self.socket = socket
        self.send = send
        self.receive = receive
        self.pending: list[Envelope] = []
        self.is_timer_set = False
        self.sent_at = 0.0
        self.unacked_frames = 0
        self.asked_at = 0.0  # when the oldest frame came that it has not been told of
        self.probe: tuple[int, float] | None = None  # a frame whose round trip is measured
        self.sizes = _batch_sizes.labels(role)


class _Counts:
    """Envelopes and bytes by direction and peer role."""

    def __init__(self) -> None:
        self.envelopes = {(d, r): 0 for d in ("in", "out") for r in ROLES}
        self.bytes = dict(self.envelopes)


class Bus:
    """The links of one process to all its peers."""

    def __init__(
        self,
        *,
        incarnation: Incarnation,
        role: str,
        bind_address: str,
        advertise_address: str,
        keys: Keys | None,
        handlers: Callable[[Incarnation, tuple[Envelope, ...]], None],
        after_batch: Callable[[], None],
        on_peer: Callable[[PeerEvent], None],
        heartbeat_s: float = 0.5,
        dead_after_s: float = 5.0,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self.incarnation = incarnation
        self.role = role
        self.address = advertise_address
        self._bind_address = bind_address
        self._keys = keys
        self._handle = handlers
        self._after_batch = after_batch
        self._on_peer = on_peer
        self._heartbeat_s = heartbeat_s
        self._membership = Membership(incarnation, role, advertise_address, dead_after_s)
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._links: dict[Incarnation, _Link] = {}
        self._generations: dict[Incarnation, int] = {}
        # What was received from a process stays known while it may live, whatever this one believes of it: the two
        # directions of a link are given up and begun anew independently of each other.
        self._received: dict[Incarnation, ReceiveLink] = {}
        self._ticked_at = time.monotonic()
        self._greeters: dict[str, tuple[zmq.Socket[bytes], float]] = {}
        self._nodes: Envelope | None = None
        self._own: list[Envelope] = []  # to this very process
        self._router: zmq.Socket[bytes] | None = None
        self._zap: ZapHandler | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._is_drain_due = False
        self._flush_due: list[_Link] = []
        self._counts = _Counts()
        self._registry = registry

    @classmethod
    def from_config(
        cls,
        config: Config,
        role: str,
        incarnation: Incarnation,
        handlers: Callable[[Incarnation, tuple[Envelope, ...]], None],
        after_batch: Callable[[], None],
        on_peer: Callable[[PeerEvent], None],
    ) -> Bus:
        """The bus as configured. Raises ValueError, with the remedy, where it may not run so."""
        bus, node = config.bus, config.node
        keys = Keys.of(bus.secret_key, bus.public_keys.model_dump()) if bus.secret_key else None
        problem = problem_with(bus.transport, bus.listen, keys)
        if problem is not None:
            raise ValueError(problem)
        if bus.transport == "ipc":
            address = bind = ipc_address(node.runtime_dir, node.name)
        else:
            bind, address = f"tcp://{bus.listen}:{bus.port}", f"tcp://{node.advertise}:{bus.port}"
        return cls(
            incarnation=incarnation, role=role, bind_address=bind, advertise_address=address,
            keys=keys if bus.transport == "tcp" else None, handlers=handlers, after_batch=after_batch,
            on_peer=on_peer, heartbeat_s=bus.heartbeat_s, dead_after_s=bus.dead_after_s,
        )  # fmt: skip

    @staticmethod
    def seeds(config: Config) -> list[str]:
        """The addresses to greet first."""
        if config.bus.transport == "ipc":
            return [ipc_address(config.node.runtime_dir, seed) for seed in config.bus.seeds]
        return [f"tcp://{seed}" for seed in config.bus.seeds]

    def role_of(self, peer: Incarnation) -> str | None:
        """What a peer has proved to be, alive or not."""
        known = self._membership.peers.get(peer)
        return None if known is None else known.role

    @property
    def peers(self) -> dict[Incarnation, Peer]:
        """Living peers by incarnation."""
        return {name: peer for name, peer in self._membership.peers.items() if peer.is_alive}

    # --- life

    async def start(self) -> None:
        """Listen and begin to look around. Raises OSError (zmq.ZMQError) where the address is taken."""
        self._loop = loop = asyncio.get_running_loop()
        self._context = context = zmq.Context(1)
        if self._keys is not None:
            self._zap = ZapHandler(context, self._keys)
            loop.add_reader(self._zap.socket.FD, self._drain_zap)
        router = context.socket(zmq.ROUTER)
        router.linger = 0
        router.rcvhwm = router.sndhwm = 0
        router.router_handover = True
        router.ipv6 = _is_ipv6(self._bind_address)
        if self._keys is not None:
            router.curve_server = True
            router.curve_secretkey = self._keys.secret.encode()
            router.zap_domain = ZAP_DOMAIN.encode()
        self._router = router
        router.bind(self._bind_address)
        loop.add_reader(router.FD, self._drain)
        self._export()
        self._tick()
        self._plan_drain()

    async def stop(self) -> None:
        """Say goodbye and close; what is queued leaves within a moment."""
        loop = self._loop
        if loop is None or self._router is None or self._context is None:
            return
        for link in self._links.values():
            self._flush(link)
            farewell = pack_frame(self.incarnation, 0, link.incarnation, 0, NO_ACK, ((GOODBYE, "stop"),))
            link.socket.send(farewell, zmq.NOBLOCK)
        if self._ticker is not None:
            self._ticker.cancel()
        loop.remove_reader(self._router.FD)
        if self._zap is not None:
            loop.remove_reader(self._zap.socket.FD)
            self._zap.close()
        self._router.close()
        self._router = None
        for link in self._links.values():
            link.socket.close(linger=200)
        for socket, _ in self._greeters.values():
            socket.close(linger=0)
        self._links.clear()
        await loop.run_in_executor(None, self._context.term)

    def greet(self, address: str) -> None:
        """Look for a process at this address until it answers."""
        self._membership.greet(address)
        self._send_greetings()

    def set_nodes(self, nodes: Sequence[tuple[Incarnation, str, str]]) -> None:
        """What this router tells edges about routers: (incarnation, role, address)."""
        envelope = (NODES, tuple(nodes))
        if envelope != self._nodes:
            self._nodes = envelope
            for link in self._links.values():
                if link.role != "router":
                    self.send(link.incarnation, envelope)

    # --- sending

    def send(self, to: Incarnation, envelope: Envelope) -> bool:
        """Add an envelope to what leaves for this peer; False where there is no such peer (offer it again later)."""
        link = self._links.get(to)
        if link is None:
            if to != self.incarnation:
                return False
            self._own.append(envelope)
            self._plan_drain()
            return True
        pending = link.pending
        pending.append(envelope)
        if len(pending) == 1 and not link.is_timer_set:
            if not self._flush_due:
                assert self._loop is not None
                self._loop.call_soon(self._flush_all)
            self._flush_due.append(link)
        return True

    def is_congested(self, to: Incarnation) -> bool:
        """Whether the window towards a peer is full: what is sent now waits here."""
        link = self._links.get(to)
        return link is not None and link.send.is_full

    def _flush_all(self) -> None:
        """The end of a tick: a frame to each peer, unless the last one left less than a millisecond ago."""
        links, self._flush_due = self._flush_due, []
        now = time.monotonic()
        for link in links:
            wait = link.sent_at + FRAME_APART_S - now
            if wait <= 0:
                self._flush(link)
            elif not link.is_timer_set:
                link.is_timer_set = True
                assert self._loop is not None
                self._loop.call_later(wait, self._flush_late, link)

    def _flush_late(self, link: _Link) -> None:
        link.is_timer_set = False
        self._flush(link)

    def _flush(self, link: _Link) -> None:
        if not link.pending or link.send.is_full or self._links.get(link.incarnation) is not link:
            return
        envelopes, link.pending = link.pending, []
        now = time.monotonic()
        frame = link.send.offer(envelopes, link.receive.ack, now)
        self._counts.envelopes["out", link.role] += len(envelopes)
        link.sizes.observe(len(envelopes))
        if link.probe is None:
            link.probe = (link.send.last_seq, now)
        self._put(link, frame, now)

    def _put(self, link: _Link, frame: bytes, now: float) -> None:
        link.sent_at = now
        link.unacked_frames = 0
        self._counts.bytes["out", link.role] += len(frame)
        link.socket.send(frame, zmq.NOBLOCK)

    # --- receiving

    def _drain(self) -> None:
        """Everything that has arrived. The descriptor is edge-triggered: stop only when nothing is left, or come
        back by `call_soon`."""
        self._is_drain_due = False
        router = self._router
        if router is None or router.closed:
            return
        self._look_at_clock(time.monotonic())  # before anything is read that is too old to be acted on
        is_secure = self._keys is not None
        try:
            for _ in range(DRAIN_FRAMES):
                if is_secure:
                    parts = router.recv_multipart(zmq.NOBLOCK, copy=False)
                    self._on_frame(parts[-1].bytes, str(parts[-1].get("User-Id")))
                else:
                    self._on_frame(router.recv_multipart(zmq.NOBLOCK)[-1], None)
            self._plan_drain()
        except zmq.Again:
            pass
        except Exception:
            log.exception("frame_failed")
            self._plan_drain()  # the rest is still there, and the descriptor will not tell of it again
        if self._own:
            own, self._own = self._own, []
            self._deliver(self.incarnation, tuple(own))
        self._after_batch()

    def _plan_drain(self) -> None:
        if not self._is_drain_due:
            self._is_drain_due = True
            assert self._loop is not None
            self._loop.call_soon(self._drain)

    def _drain_zap(self) -> None:
        if self._zap is not None:
            self._zap.drain()

    def _on_frame(self, data: bytes, proven_role: str | None) -> None:
        try:
            _, sender, generation, receiver, seq, ack, envelopes = unpack_frame(data)
        except WireError as problem:
            _rejected.labels("undecodable").inc()
            log.debug("frame_rejected", problem=str(problem))
            return
        now = time.monotonic()
        if envelopes and envelopes[0][0] in GREETINGS:
            self._on_greeting(sender, envelopes[0], proven_role, now)
            return
        if receiver != self.incarnation:
            _rejected.labels("other-incarnation").inc()
            return
        link = self._links.get(sender)
        if link is None or not self._membership.heard(sender, now):
            _rejected.labels("unknown-sender").inc()
            return
        if proven_role is not None and proven_role != link.role:
            _rejected.labels("role-not-proven").inc()
            return
        self._counts.bytes["in", link.role] += len(data)
        self._acknowledged(link, ack, now)
        if seq == 0:
            return
        if not link.unacked_frames:
            link.asked_at = now
        link.unacked_frames += 1
        if link.receive.accept(generation, seq):
            self._counts.envelopes["in", link.role] += len(envelopes)
            self._deliver(sender, self._allowed(link.role, envelopes))
        if link.unacked_frames >= ACK_EVERY and not link.pending:
            self._put(link, link.send.sign_of_life(link.receive.ack), now)

    def _allowed(self, role: str, envelopes: tuple[Envelope, ...]) -> tuple[Envelope, ...]:
        """What this role may say; the routers' word about routers is for the bus itself."""
        may_send = MAY_SEND[role]
        is_clean = True
        for envelope in envelopes:
            kind = envelope[0]
            if kind not in may_send:
                is_clean = False
                _rejected.labels("kind-not-allowed").inc()
                continue
            if len(envelope) > ARITY[kind]:
                is_clean = False  # a newer neighbour knows more fields
            if kind == NODES:
                self._membership.nodes(envelope[1])
                self._send_greetings()
        return envelopes if is_clean else tuple(e[: ARITY[e[0]]] for e in envelopes if e[0] in may_send)

    def _deliver(self, sender: Incarnation, envelopes: tuple[Envelope, ...]) -> None:
        try:
            self._handle(sender, envelopes)
        except Exception:
            log.exception("envelopes_failed", kinds=sorted({e[0] for e in envelopes}))

    def _acknowledged(self, link: _Link, ack: Ack, now: float) -> None:
        if not link.send.acknowledged(ack):
            return
        if link.probe is not None and link.probe[0] <= ack[1]:
            _round_trip.labels(link.role).observe(now - link.probe[1])
            link.probe = None
        if link.pending and not link.is_timer_set:
            self._flush(link)

    # --- who is there

    def _on_greeting(self, sender: Incarnation, envelope: Envelope, proven_role: str | None, now: float) -> None:
        if proven_role is not None and proven_role != self._claimed_role(sender, envelope, proven_role):
            _rejected.labels("role-not-proven").inc()
            return
        if not self._membership.greeted(sender, envelope, now):
            _rejected.labels("undecodable").inc()
        self._tell_events()
        self._send_greetings()

    def _claimed_role(self, sender: Incarnation, envelope: Envelope, proven_role: str) -> object:
        """The role that a greeting speaks for. GOODBYE names none: the one by which its sender is known counts."""
        if envelope[0] == GOODBYE:
            known = self._membership.peers.get(sender)
            return known.role if known is not None else proven_role
        return envelope[1] if len(envelope) > 1 else None

    def _tell_events(self) -> None:
        while self._membership.events:
            event = self._membership.events.pop(0)
            if isinstance(event, PeerUp):
                self._connect(event)
            else:
                self._disconnect(event)
            if not isinstance(event, PeerAway):
                self._on_peer(event)

    def _connect(self, event: PeerUp) -> None:
        """A new link, of a generation that was never used before (rule 2)."""
        generation = self._generations[event.incarnation] = max(
            self._generations.get(event.incarnation, 0) + 1, int(time.time())
        )
        try:
            socket = self._dealer(event.address, event.role)
        except zmq.ZMQError as problem:
            self._unusable(event.address, problem)
            self._membership.lose(event.incarnation)
            return
        send = SendLink(self.incarnation, event.incarnation, generation)
        receive = self._received.setdefault(event.incarnation, ReceiveLink())
        link = self._links[event.incarnation] = _Link(event.incarnation, event.role, socket, send, receive)
        log.info("peer_up", peer=event.incarnation)
        if self._nodes is not None and event.role != "router":
            self.send(link.incarnation, self._nodes)

    def _disconnect(self, event: PeerDown | PeerAway) -> None:
        link = self._links.pop(event.incarnation, None)
        if link is not None:
            link.socket.close(linger=0)
            log.info("peer_down", peer=event.incarnation)

    def _dealer(self, address: str, role: str) -> zmq.Socket[bytes]:
        """A socket towards a peer. Raises ZMQError where the address is none, or the role has no key."""
        assert self._context is not None
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = 0
        socket.reconnect_ivl = 50
        socket.reconnect_ivl_max = 1_000
        socket.connect_timeout = 1_000  # the kernel would ask again ever later, in the end after a minute
        socket.heartbeat_ivl = 1_000
        socket.heartbeat_timeout = 3_000
        socket.ipv6 = _is_ipv6(address)
        try:
            if self._keys is not None:
                socket.curve_publickey = self._keys.public.encode()
                socket.curve_secretkey = self._keys.secret.encode()
                socket.curve_serverkey = self._keys.of_role[role].encode()
            socket.connect(address)
        except zmq.ZMQError:
            socket.close()
            raise
        return socket

    def _unusable(self, address: str, problem: zmq.ZMQError) -> None:
        """A peer or a seed names an address that cannot be one."""
        _rejected.labels("undecodable").inc()
        log.warning("bus_address_unusable", addresses=[address], problem=str(problem))

    def _send_greetings(self) -> None:
        """Greetings have sockets of their own: whom they reach is not known yet. Only routers are looked for."""
        greetings, self._membership.greetings = self._membership.greetings, []
        now = time.monotonic()
        for address, envelope in greetings:
            role = self._role_at(address)
            greeter = self._greeters.get(address)
            try:
                socket = greeter[0] if greeter is not None else self._dealer(address, role)
            except zmq.ZMQError as problem:
                self._unusable(address, problem)
                continue
            self._greeters[address] = (socket, now)
            socket.send(pack_frame(self.incarnation, 0, "", 0, NO_ACK, (envelope,)), zmq.NOBLOCK)

    def _role_at(self, address: str) -> str:
        return next((peer.role for peer in self._membership.peers.values() if peer.address == address), "router")

    # --- time

    def _tick(self) -> None:
        assert self._loop is not None
        self._ticker = self._loop.call_later(TICK_S, self._tick)
        now = time.monotonic()
        self._look_at_clock(now)
        for link in list(self._links.values()):
            self._tend(link, now)
        self._membership.tick(now)
        if len(self._received) > len(self._membership.peers):
            self._forget_replaced()
        self._tell_events()
        self._send_greetings()
        for address, (socket, used_at) in list(self._greeters.items()):
            if now - used_at > 5.0:
                socket.close(linger=0)
                del self._greeters[address]

    def _look_at_clock(self, now: float) -> None:
        """Whether this process stood still: then the silence of the others proves nothing."""
        if now - self._ticked_at > STOOD_STILL_S:
            self._membership.was_away(now, now - self._ticked_at)
            self._tell_events()
            self._send_greetings()
        self._ticked_at = now

    def _forget_replaced(self) -> None:
        """What came from a process that is merely silent stays known: it may have been able to hear all the time,
        believes the link unbroken, and goes on where it was. Only its successor proves that it is over."""
        nodes = {node_of(incarnation) for incarnation in self._membership.peers}
        for incarnation in self._received.keys() - self._membership.peers.keys():
            if node_of(incarnation) in nodes:
                del self._received[incarnation]

    def _tend(self, link: _Link, now: float) -> None:
        if link.send.is_given_up(now):
            # Rule 2: the peer may live, but takes nothing; it will hear a higher generation.
            self._membership.lose(link.incarnation)
            return
        frames = link.send.resend(now)
        if frames:
            _retransmits.labels(link.role).inc(len(frames))
            for frame in frames:
                self._put(link, frame, now)
        if link.pending and not link.is_timer_set:
            self._flush(link)
        has_unacked = link.unacked_frames and now - link.asked_at >= ACK_WITHIN_S
        if has_unacked or now - link.sent_at >= self._heartbeat_s:
            self._put(link, link.send.sign_of_life(link.receive.ack), now)

    def _export(self) -> None:
        counts = self._counts
        metrics.sampled_counter(
            "stentor_bus_envelopes_total",
            "Envelopes on the bus",
            ("direction", "peer_role"),
            {key: (lambda key=key: counts.envelopes[key]) for key in counts.envelopes},  # type: ignore[misc]
            self._registry,
        )
        metrics.sampled_counter(
            "stentor_bus_bytes_total",
            "Bytes on the bus",
            ("direction", "peer_role"),
            {key: (lambda key=key: counts.bytes[key]) for key in counts.bytes},  # type: ignore[misc]
            self._registry,
        )

        def unacknowledged(role: str) -> float:
            return sum(link.send.unacknowledged + len(link.pending) for link in self._of(role))

        metrics.sampled_gauge(
            "stentor_bus_unacknowledged_envelopes",
            "Envelopes that peers have not acknowledged",
            ("peer_role",),
            {(role,): (lambda role=role: unacknowledged(role)) for role in ROLES},  # type: ignore[misc]
            self._registry,
        )

        def links(role: str, is_up: bool) -> float:
            peers = self._membership.peers.values()
            return sum(peer.role == role and peer.is_alive == is_up for peer in peers)

        metrics.sampled_gauge(
            "stentor_bus_links",
            "Peers by whether they are linked",
            ("peer_role", "state"),
            {
                (role, state): (lambda role=role, state=state: links(role, state == "up"))  # type: ignore[misc]
                for role in ROLES
                for state in ("up", "down")
            },
            self._registry,
        )

    def _of(self, role: str) -> list[_Link]:
        return [link for link in self._links.values() if link.role == role]


def ipc_address(folder: Path, node: str) -> str:
    """Where the bus of a node listens inside one host (107 bytes is the limit of a socket path)."""
    return f"ipc://{folder}/{node}.bus"


def _is_ipv6(address: str) -> bool:
    return address.startswith("tcp://") and address.count(":") > 2
