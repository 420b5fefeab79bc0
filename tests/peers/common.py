"""What the drivers of foreign programs share: what arrives from them, whom they trust, which processes serve them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar
from urllib.parse import quote

from tests.support.cluster import FACTOR, Account, RunningCluster, deadline

WAIT_S: Final = 10.0

T = TypeVar("T")


class Inbox(Generic[T]):
    """What arrived and was not taken yet, in order. Filled by the client's thread, emptied by the test's."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._items: list[T] = []
        self._changed = threading.Condition()

    def put(self, item: T) -> None:
        """Something has arrived."""
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def take(self, matches: Callable[[T], bool] = lambda _: True, seconds: float = WAIT_S) -> T:
        """The first that matches, once it is there. Raises TimeoutError."""
        give_up_at = deadline(seconds)
        with self._changed:
            while True:
                for index, item in enumerate(self._items):
                    if matches(item):
                        return self._items.pop(index)
                if not self._changed.wait(give_up_at - time.monotonic()):
                    raise TimeoutError(f"no such {self._what} within {seconds * FACTOR:.0f} s; arrived: {self._items}")

    def left(self) -> list[T]:
        """What nobody has taken."""
        with self._changed:
            return list(self._items)


class Server(Protocol):
    """Where clients sign in: a cluster of ours, or somebody else's server."""

    @property
    def host(self) -> str:
        """Where it listens."""

    @property
    def port(self) -> int:
        """The port for STARTTLS."""

    @property
    def tls_port(self) -> int:
        """The port for direct TLS."""

    @property
    def certificate(self) -> Path:
        """Whom clients are to trust, as PEM."""


class Peer(Protocol):
    """A client that is signed in."""

    @property
    def jid(self) -> str:
        """Its full JID."""

    def close(self) -> None:
        """End it."""


First = TypeVar("First", bound=Peer)
Second = TypeVar("Second", bound=Peer)


def place(cluster: RunningCluster, jid: str) -> tuple[str, str]:
    """The c2s that holds the connection of this full JID, and the router that owns its account."""
    shown = cluster.api.call("GET", f"/sessions/{quote(jid, safe='')}")
    return shown["node"], shown["router"]


def apart(
    cluster: RunningCluster, first: Callable[[Account], First], second: Callable[[Account], Second]
) -> tuple[First, Second]:
    """Two clients, each with an account of its own, that share neither a c2s nor a router."""
    one = first(cluster.account())
    here = place(cluster, one.jid)
    for _ in range(100):
        other = second(cluster.account())
        there = place(cluster, other.jid)
        if here[0] != there[0] and here[1] != there[1]:
            return one, other
        other.close()
    one.close()
    raise AssertionError("the sessions did not spread over the processes")
