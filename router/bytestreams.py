"""Where connections of bytestreams meet (XEP-0065, 6; `c2s/bytestreams.py`): for each destination, which process has
the first of the two. Kept in memory by the router that owns the destination's name; who activates it asks there.

The destination is a name `<SHA-1>@<proxy's domain>`, an entity as others are, of which nothing is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha1
from typing import Final, NamedTuple

from cluster.wire import ACTIVATE, Envelope, Incarnation
from router.pipeline import Pipeline, refuse
from router.turn import Turn
from xmpp import ns
from xmpp.errors import InternalServerError, ItemNotFound, NotAllowed, ServiceUnavailable, StanzaError
from xmpp.stanza import IQ, Stanza

LIFE_S: Final = 180.0
MOST: Final = 10_000
PAYLOAD: Final = f"{ns.BYTESTREAMS} query"


class _Meeting(NamedTuple):
    address: str
    process: Incarnation
    until: float
    connections: int


class Meetings:
    """The destinations of this router."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._known: dict[str, _Meeting] = {}

    def meet(self, name: str, address: str, process: str) -> str:
        """A connection has come: where the first one is, "" if it is this one."""
        now = self._now()
        known = self._known.get(name)
        if known is None or known.until < now or known.connections > 1:
            self._forget(now)
            self._known[name] = _Meeting(address, Incarnation(process), now + LIFE_S, 1)
            return ""
        self._known[name] = known._replace(connections=2)
        return known.address

    def place(self, name: str) -> Incarnation:
        """The process that has both connections. Raises what XEP-0065, 6.3.5 names."""
        known = self._known.get(name)
        if known is None or known.until < self._now():
            raise ItemNotFound("Nobody is connected to the proxy.")
        if known.connections < 2:
            raise NotAllowed("Only one of the two is connected to the proxy.")
        return known.process

    def _forget(self, now: float) -> None:
        if len(self._known) >= MOST:
            self._known = {name: known for name, known in self._known.items() if known.until >= now}
        if len(self._known) >= MOST:
            del self._known[next(iter(self._known))]


def destination(sid: str, requester: str, target: str) -> str:
    """XEP-0065, 5.3.3: what both name."""
    return sha1(f"{sid}{requester}{target}".encode(), usedforsecurity=False).hexdigest()


class ProxyPipeline:
    """What arrives for a destination: the requester's activation (6.3.5)."""

    def __init__(self, accounts: Pipeline, meetings: Meetings, send: Callable[[Incarnation, Envelope], bool]) -> None:
        self._accounts = accounts
        self._meetings = meetings
        self._send = send

    def incoming(self, turn: Turn, stanza: Stanza) -> None:
        """A stanza for a destination, which answers as the proxy."""
        name, _, domain = turn.entity.bare.partition("@")
        stanza = stanza._replace(to=domain)
        turn.stanza = stanza
        try:
            if stanza.kind != IQ or stanza.type not in ("get", "set"):
                return
            if stanza.payload != PAYLOAD or stanza.type != "set":
                raise ServiceUnavailable
            if not self._send(self._meetings.place(name), (ACTIVATE, name)):
                raise InternalServerError("The process that has the connections is gone.")
            turn.answer(stanza)
        except StanzaError as fault:
            refuse(turn, stanza, fault)
        except Exception as bug:
            self._accounts.record_bug(bug)
            refuse(turn, stanza, InternalServerError())
