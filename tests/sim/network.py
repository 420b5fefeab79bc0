"""Processes with real links between them, over a network that delays, cuts and loses frames."""

from __future__ import annotations

from collections.abc import Callable

from cluster.link import ReceiveLink, SendLink
from cluster.wire import NO_ACK, Ack, Envelope, Incarnation, new_incarnation, unpack_frame
from tests.sim.scheduler import Scheduler

TICK_S = 0.2


class Network:
    """What is between the processes."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.nodes: dict[str, Node] = {}
        self.cut: set[frozenset[str]] = set()
        self._last: dict[tuple[str, str], float] = {}

    def carry(self, sender: Node, to: str, frame: bytes) -> None:
        """One frame, in order, some time later; lost where the way is cut."""
        pair = frozenset((sender.name, to))
        if pair in self.cut:
            return
        r = self.scheduler.random
        delay = r.uniform(0.001, 0.02) + (r.uniform(0, 0.5) if r.random() < 0.02 else 0)
        key = (sender.name, to)
        due = max(self.scheduler.now + delay, self._last.get(key, 0.0))
        self._last[key] = due
        receiver = self.nodes[to]

        def arrive() -> None:
            if pair not in self.cut:
                receiver.when_running(lambda: receiver.on_frame(frame))

        self.scheduler.at(due - self.scheduler.now, arrive)


class Node:
    """One process: its runs, its pauses, its links."""

    receive_link: Callable[[], ReceiveLink] = ReceiveLink  # a test plants bugs here

    def __init__(self, network: Network, name: str, role: str) -> None:
        self.network = network
        self.scheduler = network.scheduler
        self.name = name
        self.role = role
        self.runs = 0
        self.incarnation = Incarnation("")
        self.is_alive = False
        self.is_paused = False
        self._backlog: list[Callable[[], None]] = []
        network.nodes[name] = self

    # --- life

    def boot(self) -> None:
        """A new run, with nothing in memory."""
        self.runs += 1
        self.incarnation = new_incarnation(self.name, self.runs)
        self.is_alive, self.is_paused = True, False
        self._backlog = []
        self._links: dict[Incarnation, SendLink] = {}
        self._received: dict[Incarnation, ReceiveLink] = {}
        self._pending: dict[Incarnation, list[Envelope]] = {}
        self._generation = 0
        self.start()
        self._tick()

    def kill(self) -> None:
        """SIGKILL."""
        self.is_alive = False

    def pause(self) -> None:
        """SIGSTOP."""
        self.is_paused = True

    def resume(self) -> None:
        """SIGCONT: what has piled up runs now, as if nothing had been."""
        self.is_paused = False
        backlog, self._backlog = self._backlog, []
        for act in backlog:
            self.scheduler.at(0, act)

    def when_running(self, act: Callable[[], None]) -> None:
        """Run in this very run of the process: not after its death, later if it is paused."""
        incarnation = self.incarnation

        def guarded() -> None:
            if not self.is_alive or self.incarnation != incarnation:
                return
            if self.is_paused:
                self._backlog.append(guarded)
            else:
                act()

        guarded()

    def later(self, delay_s: float, act: Callable[[], None]) -> None:
        """The same after a delay."""
        incarnation = self.incarnation

        def due() -> None:
            if self.incarnation == incarnation:
                self.when_running(act)

        self.scheduler.at(delay_s, due)

    # --- links

    def linked(self, peer: Incarnation) -> None:
        """A link to a peer, of a new generation."""
        self._generation += 1
        self._links[peer] = SendLink(self.incarnation, peer, self._generation)

    def unlinked(self, peer: Incarnation) -> None:
        """The peer is believed dead."""
        self._links.pop(peer, None)
        self._pending.pop(peer, None)

    def send(self, to: Incarnation, envelope: Envelope) -> bool:
        """An envelope for the frame of this moment."""
        if to == self.incarnation:
            self.later(0, lambda: self.handle(to, (envelope,)))
            return True
        if to not in self._links:
            return False
        if not self._pending:
            self.later(0, self._flush)
        self._pending.setdefault(to, []).append(envelope)
        return True

    def _flush(self) -> None:
        pending, self._pending = self._pending, {}
        for peer, envelopes in pending.items():
            link = self._links.get(peer)
            if link is not None:
                self._carry(peer, link.offer(envelopes, self._acknowledgement(peer), self.scheduler.now))

    def _acknowledgement(self, peer: Incarnation) -> Ack:
        received = self._received.get(peer)
        return received.ack if received is not None else NO_ACK

    def _carry(self, peer: Incarnation, frame: bytes) -> None:
        self.network.carry(self, peer.rpartition("#")[0], frame)

    def on_frame(self, data: bytes) -> None:
        """A frame from the network."""
        _, sender, generation, receiver, seq, ack, envelopes = unpack_frame(data)
        if receiver != self.incarnation:
            return
        link = self._links.get(sender)
        if link is None:
            return
        link.acknowledged(ack)
        if seq == 0:
            return
        received = self._received.setdefault(sender, type(self).receive_link())
        is_next = received.accept(generation, seq)
        self._carry(sender, link.sign_of_life(received.ack))
        if is_next:
            self.handle(sender, envelopes)

    def _tick(self) -> None:
        for peer, link in list(self._links.items()):
            for frame in link.resend(self.scheduler.now):
                self._carry(peer, frame)
        self.every_tick()
        self.later(TICK_S, self._tick)

    # --- what a role does

    def start(self) -> None:
        """Make the cores."""
        raise NotImplementedError

    def handle(self, sender: Incarnation, envelopes: tuple[Envelope, ...]) -> None:
        """Envelopes in order, once."""
        raise NotImplementedError

    def every_tick(self) -> None:
        """Five times a second."""
        raise NotImplementedError
