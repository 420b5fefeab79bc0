"""Who is there: greetings, silence, and the news of both (docs/delivery.md, rule 3). No sockets, no clock.

Greetings stand outside the numbered frames of a link. A process greets an address until somebody answers; whoever is
greeted answers, and both know each other's name, role and address. News name the *incarnation*: a late "c2s-1 is
dead" cannot touch its successor.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from cluster.wire import (
    GOODBYE,
    HELLO,
    SUPPORTED_VERSIONS,
    WELCOME,
    Envelope,
    Incarnation,
    node_of,
)

GREET_AGAIN_S: Final = 0.5
ROLES: Final = ("c2s", "s2s", "router")


class PeerUp(NamedTuple):
    """A process is linked, for the first time or again."""

    incarnation: Incarnation
    role: str
    address: str


class PeerDown(NamedTuple):
    """A process is gone, or silent for too long."""

    incarnation: Incarnation
    role: str


class PeerAway(NamedTuple):
    """The link to a process is begun anew, though nothing is known against it: news for the bus alone."""

    incarnation: Incarnation
    role: str


PeerEvent = PeerUp | PeerDown


class Peer:
    """One process as this one knows it."""

    __slots__ = ("address", "heard_at", "incarnation", "is_alive", "is_awaited", "role")

    def __init__(self, incarnation: Incarnation, role: str, address: str, heard_at: float) -> None:
        self.incarnation = incarnation
        self.role = role
        self.address = address
        self.heard_at = heard_at
        self.is_alive = True
        self.is_awaited = False  # its link is begun anew; it is not dead yet


class Membership:
    """The peers of one process. Events collect in `events`; envelopes to addresses in `greetings`."""

    def __init__(self, me: Incarnation, role: str, address: str, dead_after_s: float) -> None:
        self.me = me
        self.role = role
        self.address = address
        self.dead_after_s = dead_after_s
        self.peers: dict[Incarnation, Peer] = {}
        self.events: list[PeerEvent | PeerAway] = []
        self.greetings: list[tuple[str, Envelope]] = []  # (address, envelope), to be sent outside of any link
        self._wanted: dict[str, float] = {}  # address -> when it was greeted last

    def greet(self, address: str) -> None:
        """Say hello to whoever listens there, until one answers; again if it goes silent."""
        if address != self.address:
            self._wanted.setdefault(address, -GREET_AGAIN_S)

    def forget(self, address: str) -> None:
        """Nobody is expected there any more."""
        self._wanted.pop(address, None)

    def heard(self, sender: Incarnation, now: float) -> bool:
        """Any valid frame of a peer is a sign of life; False if the sender has to say hello first. A peer that was
        believed dead is not: its links are over, so it greets anew."""
        peer = self.peers.get(sender)
        if peer is None or not peer.is_alive:
            return False
        peer.heard_at = now
        return True

    def greeted(self, sender: Incarnation, envelope: Envelope, now: float) -> bool:
        """A greeting has arrived; `envelope` is checked here, because its sender is not known yet. False if it is
        not one that can be answered."""
        kind = envelope[0]
        known = self.peers.get(sender)
        if kind == GOODBYE:
            self._down(known)
            return True
        if sender == self.me:
            return True
        if len(envelope) < 5:
            return False
        _, role, node, address, versions = envelope[:5]
        if role not in ROLES or node != node_of(sender) or not _shares_version(versions):
            return False
        if not isinstance(address, str) or (known is not None and known.role != role):
            return False
        if kind == HELLO:
            self.greetings.append((address, self._greeting(WELCOME)))
        self._up(sender, role, address, now)
        return True

    def lose(self, incarnation: Incarnation) -> None:
        """The link to a peer is given up; if the peer lives, it is greeted anew."""
        self._down(self.peers.get(incarnation))

    def was_away(self, now: float, seconds: float) -> None:
        """This process did not run for a while: everybody's silence counts from now. After so long that the others
        believe it dead, its links are over: what is still under way on them is nothing to act on any more, and it
        greets them anew at once."""
        is_believed_dead = seconds > self.dead_after_s
        for peer in self.peers.values():
            peer.heard_at = now
            if is_believed_dead and peer.is_alive:
                peer.is_alive, peer.is_awaited = False, True
                self.events.append(PeerAway(peer.incarnation, peer.role))
        if is_believed_dead:
            for address in self._wanted:
                self._greet_now(address, now)

    def nodes(self, entries: tuple[tuple[Incarnation, str, str], ...]) -> None:
        """A router names all routers (NODES): greet those that are not known."""
        for incarnation, _, address, *_ in entries:
            if incarnation != self.me and incarnation not in self.peers and address != self.address:
                # At once, also where a former run of that node is still believed alive.
                self.greet(address)
                self.greetings.append((address, self._greeting(HELLO)))

    def tick(self, now: float) -> None:
        """Greet who has not answered, or is silent (another run may listen there by now); notice who is gone."""
        for peer in list(self.peers.values()):
            if (peer.is_alive or peer.is_awaited) and now - peer.heard_at > self.dead_after_s:
                self._down(peer)
        silent_s = self.dead_after_s / 2
        heard = {peer.address for peer in self.peers.values() if peer.is_alive and now - peer.heard_at <= silent_s}
        for address, at in self._wanted.items():
            if address not in heard and now - at >= GREET_AGAIN_S:
                self._greet_now(address, now)
        for peer in list(self.peers.values()):
            if not peer.is_alive and now - peer.heard_at > 20 * self.dead_after_s:
                del self.peers[peer.incarnation]

    def _greet_now(self, address: str, now: float) -> None:
        self._wanted[address] = now
        self.greetings.append((address, self._greeting(HELLO)))

    def _greeting(self, kind: int) -> Envelope:
        return (kind, self.role, node_of(self.me), self.address, sorted(SUPPORTED_VERSIONS))

    def _up(self, incarnation: Incarnation, role: str, address: str, now: float) -> None:
        node = node_of(incarnation)
        for other in list(self.peers.values()):
            if other.incarnation != incarnation and node_of(other.incarnation) == node and other.role == role:
                # One node, one run: the older one is over, whatever its last words say.
                self._down(other)
                del self.peers[other.incarnation]
        peer = self.peers.get(incarnation)
        if peer is not None and peer.is_alive:
            peer.heard_at = now
            return
        if peer is None:
            self.peers[incarnation] = Peer(incarnation, role, address, now)
        else:
            peer.is_alive, peer.is_awaited, peer.heard_at, peer.address = True, False, now, address
        if role == "router":
            self.greet(address)  # should it go silent, look for it
        self.events.append(PeerUp(incarnation, role, address))

    def _down(self, peer: Peer | None) -> None:
        if peer is not None and (peer.is_alive or peer.is_awaited):
            peer.is_alive = peer.is_awaited = False
            self.events.append(PeerDown(peer.incarnation, peer.role))


def _shares_version(versions: Any) -> bool:
    return isinstance(versions, list | tuple) and any(v in SUPPORTED_VERSIONS for v in versions if type(v) is int)
