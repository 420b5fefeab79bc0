"""Other servers of the simulation, and the s2s processes that hold streams to them: the real edge, played streams.

A stream is one connection for one pair of domains. With stream management (XEP-0198) the remote server acknowledges what
it has read; without, what the kernel has taken counts as handed over, and is lost if the stream breaks before it is read.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from cluster.edge import Attached, EdgeSession, Refused
from cluster.wire import DIAL, Envelope, Incarnation
from router.peers import Line, PeerPipeline
from router.turn import Turn
from tests.sim.clients import Key, key_of
from tests.sim.network import Network
from tests.sim.processes import DOMAIN, EdgeNode
from tests.sim.scheduler import Scheduler
from xmpp import stanza as stanzas
from xmpp.errors import StanzaError
from xmpp.stanza import HAS_BODY, Stanza

FIRST_NUMBER = 100  # clients of the cluster are numbered below


class Surroundings(Protocol):
    """What remote servers need of the world."""

    scheduler: Scheduler
    gateways: list[S2sNode]
    remotes: list[Remote]


class S2sNode(EdgeNode):
    """An s2s process."""

    def __init__(self, network: Network, name: str, world: Surroundings) -> None:
        super().__init__(network, name, "s2s")
        self._world = world

    def start(self) -> None:
        """No streams yet."""
        super().start()
        self._under_way: set[str] = set()

    def handle(self, sender: Incarnation, envelopes: tuple[Envelope, ...]) -> None:
        """As s2s/service.py does."""
        for envelope in envelopes:
            if envelope[0] == DIAL:
                self._dial(envelope[3], envelope[4])
            else:
                self.edge.receive(sender, envelope[0], envelope[1:])

    def _dial(self, domain: str, local: str) -> None:
        """Try to connect, unless a stream to the domain is there or under way."""
        (remote,) = (remote for remote in self._world.remotes if remote.domain == domain)
        if domain not in self._under_way and not any(s.node is self and s.is_ours for s in remote.streams()):
            self._under_way.add(domain)
            self.later(self.scheduler.random.uniform(0.02, 0.6), partial(self._connect, remote, local))

    def _connect(self, remote: Remote, local: str) -> None:
        self._under_way.discard(remote.domain)
        r = self.scheduler.random
        if not remote.is_reachable or r.random() < 0.1 * remote.trouble:
            self.edge.tell_unreachable(remote.domain, local, "remote-server-timeout", "It does not answer.", False)
        elif r.random() < 0.02 * remote.trouble:
            self.edge.tell_unreachable(remote.domain, local, "remote-server-not-found", "There is none.", True)
        else:
            Stream(remote, self, is_ours=True, sends=True, brings=r.random() < 0.5)


class Copy:
    """One time that a message was written to a stream."""

    __slots__ = ("is_acknowledged", "key", "q", "stream")

    def __init__(self, stream: Stream, q: int, key: Key | None) -> None:
        self.stream = stream
        self.q = q
        self.key = key
        self.is_acknowledged = False  # the edge has been told `written`


class Stream:
    """One connection, as its session's sink. `sends`: to the remote server; `brings`: from it."""

    def __init__(self, remote: Remote, node: S2sNode, *, is_ours: bool, sends: bool, brings: bool) -> None:
        self.remote = remote
        self.node = node
        self.incarnation = node.incarnation
        self.is_ours = is_ours
        self.sends = sends
        self.brings = brings
        self.session: EdgeSession | None = None
        self.is_broken = False  # nothing arrives any more
        self.is_closing = False  # nothing is written any more
        self.is_over = False  # as the s2s process sees it
        self._in_flight: deque[Copy] = deque()
        self._submitted: deque[tuple[int, Key]] = deque()
        self._due_in = 0.0
        self._due_out = 0.0
        self._socket: deque[tuple[Key, Stanza]] = deque()
        remote.all_streams.append(self)
        facts = {"kind": "s2s", "local": DOMAIN, "sends": sends}
        node.edge.attach(remote.domain, None, facts, self, self._attached, 8.0)

    @property
    def may_bring(self) -> bool:
        """Whether the remote server writes to it."""
        return self.brings and self.session is not None and not (self.is_broken or self.is_closing or self.is_over)

    def _attached(self, answer: Attached | Refused) -> None:
        if isinstance(answer, Refused):
            self._end()
            return
        self.session = answer.session
        if self.is_broken or self.is_closing:
            self._detach("connection-lost")
        else:
            self.remote.flush()

    # --- the edge's side

    def deliver(self, stanza: Stanza) -> None:
        """Written: it reaches the remote server a moment later, unless the connection breaks before."""
        session = self.session
        assert session is not None
        if self.is_closing or self.is_over:
            return
        remote, s = self.remote, self.remote.scheduler
        copy = Copy(self, session.q, key_of(stanza) if b"<body>" in stanza.inner else None)
        if copy.key is not None:
            remote.copies[copy.key].append(copy)
        self._in_flight.append(copy)
        if not remote.has_management:
            self._written(copy.q)
        self._due_out = max(self._due_out, s.now + s.random.uniform(0.001, 0.02))

        def arrive() -> None:
            if self.is_broken:
                if copy.key is not None and not remote.has_management:
                    remote.swallowed.add(copy.key)
                return
            if copy.key is not None:
                remote.received.append(copy.key)
            if remote.has_management:
                s.at(s.random.uniform(0.01, 0.5), partial(self._acknowledge, copy.q))

        s.at(self._due_out - s.now, arrive)

    def _acknowledge(self, q: int) -> None:
        if not self.is_broken:
            self.when_edge_runs(lambda: None if self.is_over else self._written(q))

    def _written(self, q: int) -> None:
        assert self.session is not None
        while self._in_flight and self._in_flight[0].q <= q:
            self._in_flight.popleft().is_acknowledged = True
        self.node.edge.written(self.session, q)

    def revoked(self, condition: str) -> None:
        """The owner has ended the session: the stream is closed, what was written still arrives."""
        self.is_closing = self.is_over = True
        self.remote.scheduler.at(0.05, self._end)

    def pause_reading(self) -> None:
        """`session.is_paused` says so, too."""

    def resume_reading(self) -> None:
        """The edge reads again."""
        self.remote.scheduler.at(0, lambda: self.when_edge_runs(self._read))

    def confirmed(self) -> None:
        """`look` is asked instead."""

    # --- the remote server's side

    def submit(self, key: Key, stanza: Stanza) -> None:
        """Sent: it reaches the s2s process a moment later."""
        s = self.remote.scheduler
        self._due_in = max(self._due_in, s.now + s.random.uniform(0.001, 0.02))

        def arrive() -> None:
            if not self.is_broken:
                self._socket.append((key, stanza))
                self.when_edge_runs(self._read)

        s.at(self._due_in - s.now, arrive)

    def _read(self) -> None:
        session = self.session
        while self._socket and session is not None and not self.is_over and not session.is_closing:
            if session.is_paused:
                return
            key, stanza = self._socket.popleft()
            self.node.edge.submit(session, stanza)
            self._submitted.append((session.n, key))

    def look(self) -> None:
        """What is confirmed by now: an s2s would write it in an <a/>."""
        while self._submitted and self.session is not None and self._submitted[0][0] <= self.session.conf:
            self.remote.confirmed.add(self._submitted.popleft()[1])

    # --- its end

    def when_edge_runs(self, act: Callable[[], None]) -> None:
        """Run at the s2s process, if it is still the same."""
        if self.node.is_alive and self.node.incarnation == self.incarnation:
            self.node.when_running(act)

    def cut(self) -> None:
        """The connection is gone; both sides notice at their own times."""
        if self.is_broken:
            return
        self.is_broken = True
        s = self.remote.scheduler
        s.at(s.random.uniform(0, 2.0), lambda: self.when_edge_runs(partial(self._detach, "connection-lost")))
        s.at(s.random.uniform(0, 1.0), self._end)

    def close(self) -> None:
        """Nobody needs it (XMPP's closing handshake): what was written arrives and is acknowledged before it ends."""
        self.is_closing = True

        def closed() -> None:
            self.when_edge_runs(partial(self._detach, "client"))
            self._end()

        self.remote.scheduler.at(0.6, closed)

    def died(self) -> None:
        """The s2s process was killed."""
        self.is_over = True
        self._end()

    def _detach(self, reason: str) -> None:
        self.is_over = True
        if self.session is not None:
            self.node.edge.detach(self.session, reason)

    def _end(self) -> None:
        self.is_broken = self.is_closing = True
        self.is_over = self.is_over or self.session is None
        self.remote.flush()


class Remote:
    """Another server. It lives for ever; streams to it do not."""

    def __init__(self, world: Surroundings, number: int, domain: str, *, has_management: bool) -> None:
        self._world = world
        self.scheduler = world.scheduler
        self.domain = domain
        self.has_management = has_management
        self.is_reachable = True
        self.trouble = 1.0  # how often connecting fails although it is reachable
        numbers = range(FIRST_NUMBER + 10 * number, FIRST_NUMBER + 10 * number + 2)
        self.users = {n: f"friar{n}@{domain}" for n in numbers}
        self.all_streams: list[Stream] = []
        self.received: list[Key] = []
        self.copies: dict[Key, list[Copy]] = defaultdict(list)
        self.swallowed: set[Key] = set()  # the kernel had taken them, the stream broke
        self.confirmed: set[Key] = set()
        self._sequences = dict.fromkeys(numbers, 0)
        self._waiting: deque[tuple[Key, Stanza]] = deque()
        self._is_connecting = False

    def streams(self) -> list[Stream]:
        """Those that are not over, as their s2s process sees it."""
        self.all_streams = [
            s for s in self.all_streams if not s.is_over and s.node.is_alive and s.node.incarnation == s.incarnation
        ]
        return self.all_streams

    def say(self, number: int, to: str, is_kept: bool) -> Key:
        """One numbered message of one of its users."""
        self._sequences[number] += 1
        key = (number, self._sequences[number])
        flags = HAS_BODY if is_kept else stanzas.HAS_CHAT_STATE
        message = stanzas.message(
            to=to, from_=f"{self.users[number]}/cell", type="chat", inner=b"<body>%d:%d</body>" % key, flags=flags,
            id=f"{key[0]}-{key[1]}",
        )  # fmt: skip
        self._waiting.append((key, message))
        self.flush()
        return key

    def flush(self) -> None:
        """Write what waits; connect for it if there is no stream."""
        stream = next((stream for stream in self.streams() if stream.may_bring), None)
        if stream is not None:
            while self._waiting:
                stream.submit(*self._waiting.popleft())
        elif self._waiting and not self._is_connecting:
            self._is_connecting = True
            self.scheduler.at(self.scheduler.random.uniform(0.02, 0.5), self._connect)

    def _connect(self) -> None:
        self._is_connecting = False
        r = self.scheduler.random
        nodes = [node for node in self._world.gateways if node.is_alive and not node.is_paused]
        if not nodes or not self.is_reachable:
            self.scheduler.at(0.3, self.flush)
        elif not any(stream.brings and not stream.is_closing for stream in self.streams()):
            Stream(self, r.choice(nodes), is_ours=False, sends=r.random() < 0.3, brings=True)

    def look(self) -> None:
        """Learn what is confirmed."""
        for stream in self.all_streams:
            stream.look()


class Peers(PeerPipeline):
    """The real one, which remembers what it gave back."""

    came_back: set[Key]

    def incoming(self, turn: Turn, stanza: Stanza) -> None:
        """A stanza for a peer; refused or not."""
        before = sum(self.bounced)
        super().incoming(turn, stanza)
        if sum(self.bounced) > before:
            self._note(stanza)

    def give_back(self, turn: Turn, line: Line, fault: StanzaError, before: float | None = None) -> None:
        """What has waited too long, or for nothing."""
        waiting = list(line.waiting)
        super().give_back(turn, line, fault, before)
        for item in waiting[: len(waiting) - len(line.waiting)]:
            self._note(item.stanza)

    def _note(self, stanza: Stanza) -> None:
        if b"<body>" in stanza.inner:
            self.came_back.add(key_of(stanza))


def close_all(remotes: list[Remote]) -> None:
    """Every stream ends in order."""
    for remote in remotes:
        for stream in remote.streams():
            stream.close()
