"""What one c2s has for another (a request of a BOSH session that landed on the wrong one, c2s/http/relay.py) goes by a
router: processes that hold streams have no links to each other. Nothing is read of it, and nothing kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cluster.membership import Peer
from cluster.wire import RELAYED, Envelope, Incarnation, mark_of


class Relaying:
    """Of one router."""

    def __init__(
        self, send: Callable[[Incarnation, Envelope], bool], peers: Callable[[], Mapping[Incarnation, Peer]]
    ) -> None:
        self._send = send
        self._peers = peers

    def relay(self, sender: Incarnation, mark: str, request: str, data: tuple[Any, ...]) -> None:
        """From a c2s, for the one of this mark."""
        for peer in self._of_role("c2s"):
            if mark_of(peer) == mark and self._send(peer, (RELAYED, mark_of(sender), request, data)):
                return
        self._send(sender, (RELAYED, mark, request, ("nobody",)))

    def gone(self, incarnation: Incarnation) -> None:
        """A c2s has ended: nobody waits for its answers any more."""
        for peer in self._of_role("c2s"):
            self._send(peer, (RELAYED, mark_of(incarnation), "", ("gone",)))

    def _of_role(self, role: str) -> list[Incarnation]:
        return [name for name, peer in self._peers().items() if peer.role == role]
