"""Streams to other servers: who is asked for them, when, and what becomes of stanzas when there is none.

`router/peers.py` keeps what waits; here are time and the s2s processes. One of them is asked for each domain, by
rendezvous, again every few seconds while something waits; it says UNREACHABLE, or attaches a session.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final, NamedTuple

from cluster.shards import rendezvous
from cluster.wire import DIAL, Epoch, Incarnation, Shard, node_of
from router.entity import Entity, Session
from router.owner import Owner
from router.peers import LOCAL, SENDS, WINDOW, Line, PeerPipeline
from router.turn import Turn
from xmpp.errors import RemoteServerTimeout, ServiceUnavailable, StanzaError, stanza_error

DIAL_AGAIN_S: Final = 2.0
BACKOFF_S: Final = 60.0  # the longest pause between two tries
PERMANENT_S: Final = 1.0  # a domain that does not exist is looked for again; s2s remembers for longer


class PeerStatus(NamedTuple):
    """One line of one peer, for operators."""

    domain: str
    local: str
    streams: int
    waiting: int
    unacknowledged: int
    tries: int
    problem: str


class Dialing:
    """The peers of one owner that something waits for."""

    def __init__(self, owner: Owner, peers: PeerPipeline) -> None:
        self._owner = owner
        self._peers = peers
        peers.wake = self.wake
        self._edges: dict[str, Incarnation] = {}  # node -> the living run of each s2s
        self._waiting: dict[Entity, None] = {}

    # --- s2s processes

    @property
    def edges(self) -> list[Incarnation]:
        """Those that live."""
        return list(self._edges.values())

    def edge_up(self, edge: Incarnation) -> None:
        """An s2s process is there: it may be the one to ask."""
        self._edges[node_of(edge)] = edge
        for entity in self._waiting:
            for line in entity.lines.values():
                line.dial_at = min(line.dial_at, self._owner.outbox.now)
        self._owner.soon(self.tick)

    def edge_down(self, edge: Incarnation) -> None:
        """It is gone; whoever was asked for streams there asks another."""
        if self._edges.get(node_of(edge)) == edge:
            del self._edges[node_of(edge)]
            for entity in self._waiting:
                for line in entity.lines.values():
                    if not line.tries:
                        line.dial_at = 0.0
            self._owner.soon(self.tick)

    # --- what waits

    def wake(self, entity: Entity) -> None:
        """Something waits for this peer."""
        self._waiting[entity] = None
        self._owner.soon(partial(self._look, entity))

    def tick(self) -> None:
        """About once a second: streams that are still missing, stanzas that have waited too long."""
        for entity in list(self._waiting):
            self._look(entity)

    def _look(self, entity: Entity) -> None:
        owner = self._owner
        lines = [line for line in entity.lines.values() if line.waiting]
        if owner.entities.get(entity.bare) is not entity or not lines:
            self._waiting.pop(entity, None)
            return
        component = owner.settings.components.get(entity.bare)
        patience_s = owner.settings.peer_queue_s if component is None else component.queue_s
        for line in lines:
            streams = _streams(entity, line)
            if any(len(session.unacknowledged) < WINDOW for session in streams):
                self._act(entity, self._peers.flush)  # it waited before it was read from the database
            elif line.waiting[0].since < owner.now - patience_s:
                fault: StanzaError = RemoteServerTimeout(line.problem or "That server cannot be reached.")
                if component is not None:
                    fault = ServiceUnavailable("The service is not connected.")
                self._act(entity, partial(self._give_back, line, fault, owner.now - patience_s))
            elif component is None and not streams:
                self._dial(entity, line)

    def _dial(self, entity: Entity, line: Line) -> None:
        owner = self._owner
        if not self._edges or owner.outbox.now < line.dial_at:
            return
        line.dial_at = owner.outbox.now + DIAL_AGAIN_S
        edge = self._edges[rendezvous(entity.bare, self._edges)]
        owner.effects.send(edge, (DIAL, entity.shard, entity.epoch, entity.bare, line.local))
        if owner.tracing is not None:
            owner.tracing.waiting(entity, line, "dialed", by=node_of(edge), tries=line.tries)

    def _act(self, entity: Entity, run: Any) -> None:
        self._owner.when_loaded(entity, partial(self._owner.act, entity, run))

    def _give_back(self, line: Line, fault: StanzaError, before: float | None, turn: Turn) -> None:
        self._peers.give_back(turn, line, fault, before)

    def unreachable(
        self, edge: Incarnation, shard: Shard, epoch: Epoch, remote: str, local: str, condition: str, text: str,
        is_permanent: bool,
    ) -> None:  # fmt: skip
        """UNREACHABLE: the stream that an s2s was asked for cannot be had."""
        entity = self._owner.entities.get(remote)
        line: Line | None = entity.lines.get(local) if entity is not None else None
        if entity is None or line is None or entity.epoch != epoch or entity.shard != shard:
            return
        line.tries += 1
        line.problem = text
        pause_s = PERMANENT_S if is_permanent else min(BACKOFF_S, 2.0 ** min(line.tries, 10))
        line.dial_at = self._owner.outbox.now + pause_s
        if self._owner.tracing is not None:
            self._owner.tracing.waiting(
                entity, line, "unreachable", by=node_of(edge), condition=condition, problem=text,
                retry_s=None if is_permanent else pause_s,
            )  # fmt: skip
        if is_permanent:
            fault = stanza_error(condition, text or None)
            self._act(entity, partial(self._give_back, line, fault, None))

    def acknowledged(self, session: Session) -> None:
        """A stream has got rid of something: it may carry more."""
        entity = session.entity
        if entity in self._waiting and len(session.unacknowledged) <= WINDOW // 2:
            self._act(entity, self._peers.flush)

    def retry(self, domain: str) -> bool:
        """An operator does not want to wait; False where nothing waits."""
        entity = self._owner.entities.get(domain)
        if entity is None or entity not in self._waiting:
            return False
        for line in entity.lines.values():
            line.dial_at, line.tries = 0.0, 0
        self._owner.soon(partial(self._look, entity))
        return True

    def status(self) -> Iterator[PeerStatus]:
        """What there is to tell about each peer in memory."""
        for entity in self._owner.entities.values():
            if not entity.is_peer:
                continue
            locals_ = {*entity.lines, *(s.marks.get(LOCAL, "") for s in entity.sessions.values())}
            for local in sorted(locals_):
                line: Line | None = entity.lines.get(local)
                streams = [s for s in entity.sessions.values() if s.marks.get(LOCAL) == local]
                unacknowledged = sum(len(session.unacknowledged) for session in streams)
                waiting, tries, problem = (len(line.waiting), line.tries, line.problem) if line else (0, 0, "")
                yield PeerStatus(entity.bare, local, len(streams), waiting, unacknowledged, tries, problem)


def _streams(entity: Entity, line: Line) -> list[Session]:
    return [s for s in entity.sessions.values() if s.marks.get(SENDS) and s.marks.get(LOCAL) == line.local]
