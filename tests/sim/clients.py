"""Simulated clients: devices that talk, lose their connections, resume, log out and come back.

A client is on the far side of a connection that delays and may swallow what is in flight when it breaks. With stream
management (XEP-0198) it resends what is not acknowledged; without, a broken connection is the end of what was in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from cluster.edge import Attached, EdgeSession, Refused
from cluster.wire import SessionId
from tests.sim.processes import EdgeNode
from tests.sim.scheduler import Scheduler
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.sm import unwrapped, wrapped
from xmpp.stanza import HAS_BODY, Stanza

Key = tuple[int, int]  # (client, its sequence number)

JOIN = b'<x xmlns="http://jabber.org/protocol/muc"/>'
ENABLE_CARBONS = b'<enable xmlns="urn:xmpp:carbons:2"/>'


class Surroundings(Protocol):
    """What a client needs of the world."""

    scheduler: Scheduler
    edges: list[EdgeNode]
    rooms: tuple[str, ...]


class Connection:
    """One connection of a client to an edge, as the session's sink."""

    def __init__(self, client: Client, edge: EdgeNode) -> None:
        self.client = client
        self.edge = edge
        self.incarnation = edge.incarnation
        self.session: EdgeSession | None = None
        self.is_broken = False  # as the client sees it
        self.is_over = False  # as the edge sees it
        self._due_in = 0.0
        self._due_out = 0.0
        self._socket: deque[Stanza] = deque()

    # --- the edge's side

    def deliver(self, stanza: Stanza) -> None:
        """Written: it reaches the client a moment later, unless the connection breaks before."""
        if self.is_over:
            return
        session = self.session
        assert session is not None
        q = session.q
        if not session.is_managed and not self.is_broken:
            self.edge.edge.written(session, q)  # the kernel has taken it
        s = self.client.world.scheduler
        self._due_in = max(self._due_in, s.now + s.random.uniform(0.001, 0.02))

        def arrive() -> None:
            if not self.is_broken:
                self.client.got(self, q, stanza)

        s.at(self._due_in - s.now, arrive)

    def revoked(self, condition: str) -> None:
        """The owner ended the session."""
        self.is_over = True
        self.client.world.scheduler.at(0.01, lambda: self.client.broken(self))

    def pause_reading(self) -> None:
        """`session.is_paused` says so, too."""

    def resume_reading(self) -> None:
        """The edge reads again."""
        self.client.world.scheduler.at(0, lambda: self.when_edge_runs(self._read))

    def confirmed(self) -> None:
        """The client looks by itself."""

    # --- the client's side

    def submit(self, stanza: Stanza) -> None:
        """Sent: it reaches the edge a moment later."""
        s = self.client.world.scheduler
        self._due_out = max(self._due_out, s.now + s.random.uniform(0.001, 0.02))

        def arrive() -> None:
            self._socket.append(stanza)
            self.when_edge_runs(self._read)

        s.at(self._due_out - s.now, arrive)

    def _read(self) -> None:
        """What waits in the socket, as long as the edge reads."""
        session = self.session
        while self._socket and session is not None and not self.is_over and not session.is_closing:
            if session.is_paused:
                return
            self.edge.edge.submit(session, self._socket.popleft())

    def when_edge_runs(self, act: Callable[[], None]) -> None:
        """Run at the edge, if it is still the same process."""
        if self.edge.is_alive and self.edge.incarnation == self.incarnation:
            self.edge.when_running(act)

    def close(self, reason: str, delay_s: float) -> None:
        """The client is gone; the edge notices after a while."""
        self.is_broken = True

        def notice() -> None:
            def act() -> None:
                self.is_over = True
                if self.session is not None and not self.session.is_closing:
                    self.edge.edge.detach(self.session, reason)

            self.when_edge_runs(act)

        self.client.world.scheduler.at(delay_s, notice)


class Client:
    """One device of an account."""

    def __init__(self, world: Surroundings, number: int, account: str, is_managed: bool) -> None:
        self.world = world
        self.number = number
        self.account = account
        self.is_managed = is_managed
        self.connection: Connection | None = None  # that is bound or resumed
        self.sequence = 0
        self.binds = 0
        self.is_away = False  # logged out, on purpose
        self.received: list[tuple[Key, int, str]] = []  # (key, bind, stanza-id or carbon)
        self.heard: list[tuple[str, Key, int, int]] = []  # in rooms: (room, key, bind, id), but for history
        self.acked: set[Key] = set()
        self.errors: set[Key] = set()  # what came back to it
        self.resent_anew: set[Key] = set()  # after a session was lost: these may be there twice
        self._unacked: deque[tuple[Key, Stanza]] = deque()
        self._sent = 0  # of this session
        self._h = 0  # received in this session
        self._previd: SessionId | None = None
        self._attempt: Connection | None = None  # the connection on which it waits for an answer
        self._waiting: list[tuple[Key, Stanza]] = []

    @property
    def is_bound(self) -> bool:
        """Whether it has a connection."""
        return self.connection is not None

    # --- connecting

    def connect(self) -> None:
        """Bind or resume on any edge that lives."""
        if self._attempt is not None or self.connection is not None or self.is_away:
            return
        s = self.world.scheduler
        edges = [edge for edge in self.world.edges if edge.is_alive and not edge.is_paused]
        if not edges:
            s.at(0.3, self.connect)
            return
        edge = s.random.choice(edges)
        connection = self._attempt = Connection(self, edge)
        if self._previd is not None:
            edge.edge.resume(
                self.account, self._previd, wrapped(self._h, 0), connection, lambda a: self._resumed(connection, a), 8.0
            )
        else:
            self.binds += 1
            edge.edge.attach(
                self.account, f"device{self.number}", {}, connection, lambda a: self._attached(connection, a), 8.0
            )
        s.at(9.0, lambda: self._give_up(connection))

    def _give_up(self, connection: Connection) -> None:
        """The edge died with the request, or takes too long: that connection is left."""
        if self._attempt is connection:
            self._attempt = None
            connection.is_broken = True
            self.connect()

    def _attached(self, connection: Connection, answer: Attached | Refused) -> None:
        if not self._is_wanted(connection, answer):
            return
        assert isinstance(answer, Attached)
        self.connection = connection
        self._h = self._sent = 0
        if self.is_managed:
            answer.session.is_managed = True
            connection.edge.edge.enable(answer.session, True)
            self._previd = answer.session.sid
        unacked, self._unacked = self._unacked, deque()
        enable = stanzas.iq(
            type="set", id="c", to=None, from_=None, payload=f"{ns.CARBONS} enable", inner=ENABLE_CARBONS
        )
        self._submit(None, enable)
        for room in self.world.rooms:
            join = stanzas.presence(to=f"{room}/nick{self.number}", from_=None, inner=JOIN, flags=stanzas.HAS_MUC)
            self._submit(None, join)
        # What the lost session had not acknowledged is sent again, with the same ids.
        for key, stanza in unacked:
            if key is not None:
                self.resent_anew.add(key)
                self._submit(key, stanza)
        self._flush()

    def _resumed(self, connection: Connection, answer: Attached | Refused) -> None:
        if isinstance(answer, Refused) and answer.condition == "item-not-found" and self._attempt is connection:
            self._previd = None
        if not self._is_wanted(connection, answer):
            return
        assert isinstance(answer, Attached)
        self.connection = connection
        answer.session.is_managed = True
        h = unwrapped(wrapped(answer.session.conf, answer.session.n0), self._sent - len(self._unacked), 0)
        self._acknowledged(h)
        for _, stanza in self._unacked:
            connection.submit(stanza._replace(from_=answer.session.jid))
        self._flush()

    def _is_wanted(self, connection: Connection, answer: Attached | Refused) -> bool:
        """Whether this is the answer that the client waits for, and a session."""
        is_awaited = self._attempt is connection
        if is_awaited:
            self._attempt = None
        if isinstance(answer, Attached):
            connection.session = answer.session
            if is_awaited and not self.is_away:
                return True
            connection.close("connection-lost", 0.0)  # it has gone meanwhile
        elif is_awaited:
            self.world.scheduler.at(0.2, self.connect)
        return False

    def broken(self, connection: Connection) -> None:
        """The connection is gone, as the client learns."""
        connection.is_broken = True
        if self.connection is connection:
            self.connection = None
            if not self.is_managed:
                self._unacked.clear()
            self.world.scheduler.at(self.world.scheduler.random.uniform(0.05, 0.5), self.connect)

    def lose_connection(self) -> None:
        """The network is gone: the client comes back soon, perhaps before the edge has noticed."""
        connection = self.connection
        if connection is not None:
            connection.close("connection-lost", self.world.scheduler.random.uniform(0, 2.0))
            self.broken(connection)

    def log_out(self, seconds: float) -> None:
        """The person closes the client, and opens it again later."""
        connection = self.connection
        if connection is None or self._unacked:
            return
        self.is_away = True
        self._previd = None
        connection.close("client", 0.02)
        self.connection = None
        self.world.scheduler.at(seconds, self.come_back)

    def sleep(self, seconds: float) -> None:
        """Out of reach for longer than its session lives."""
        self.is_away = True
        connection = self.connection
        if connection is not None:
            connection.close("connection-lost", 0.1)
            self.broken(connection)
        self.world.scheduler.at(seconds, self.come_back)

    def come_back(self) -> None:
        """After `log_out` or `sleep`."""
        self.is_away = False
        self.connect()

    # --- talking

    def say(self, to: str, is_kept: bool) -> Key | None:
        """One numbered message; None where nothing can be said now."""
        if self.is_away or (self.connection is None and not self.is_managed):
            return None
        self.sequence += 1
        key = (self.number, self.sequence)
        body = b"<body>%d:%d</body>" % key
        flags = HAS_BODY if is_kept else stanzas.HAS_CHAT_STATE
        type_ = "groupchat" if to in self.world.rooms else "chat"
        message = stanzas.message(to=to, from_=None, type=type_, inner=body, flags=flags, id=f"{key[0]}-{key[1]}")
        self._waiting.append((key, message))
        self._flush()
        return key

    def _flush(self) -> None:
        if self.connection is not None:
            waiting, self._waiting = self._waiting, []
            for key, message in waiting:
                self._submit(key, message)

    def _submit(self, key: Key | None, stanza: Stanza) -> None:
        connection = self.connection
        assert connection is not None
        assert connection.session is not None
        stanza = stanza._replace(from_=connection.session.jid)
        self._sent += 1
        self._unacked.append((key, stanza))  # type: ignore[arg-type]  # None: not a message, not checked
        connection.submit(stanza)

    def look(self) -> None:
        """An <r/> and its answer, or an iq ping to one's own server: what is safe by now?"""
        connection = self.connection
        if connection is None or connection.session is None:
            return
        session = connection.session

        def ask() -> None:
            conf = session.conf
            self.world.scheduler.at(0.01, lambda: self._answered(connection, conf - session.n0))

        connection.when_edge_runs(ask)

    def _answered(self, connection: Connection, h: int) -> None:
        if self.connection is connection and not connection.is_broken:
            self._acknowledged(h)

    def _acknowledged(self, h: int) -> None:
        while self._unacked and self._sent - len(self._unacked) < h:
            key, _ = self._unacked.popleft()
            if key is not None:
                self.acked.add(key)

    def _hear(self, stanza: Stanza) -> None:
        """Something said in a room, live and kept; the rest is not checked."""
        if stanza.flags & HAS_BODY and not stanza.flags & stanzas.HAS_DELAY:
            room = (stanza.from_ or "").partition("/")[0]
            self.heard.append((room, key_of(stanza), self.binds, _id_in(stanza)))

    def got(self, connection: Connection, q: int, stanza: Stanza) -> None:
        """A stanza has arrived; it is acknowledged a little later."""
        self._h += 1
        if stanza.type == "groupchat":
            self._hear(stanza)
        elif stanza.kind == stanzas.MESSAGE and b"<body>" in stanza.inner:
            self.received.append((key_of(stanza), self.binds, _name(stanza)))
        elif stanza.kind == stanzas.MESSAGE and stanza.type == "error" and stanza.id:  # and not a carbon of one
            number, _, sequence = stanza.id.partition("-")
            self.errors.add((int(number), int(sequence)))
        if self.is_managed:
            h = self._h
            s = self.world.scheduler

            def acknowledge() -> None:
                session = connection.session
                if session is not None and not connection.is_over and not connection.is_broken:
                    self_q = unwrapped(wrapped(h, 0), session.acknowledged, session.q0)
                    assert self_q <= session.q, f"{self.number} acknowledges {self_q} of {session.q} at {s.now}"
                    connection.edge.edge.written(session, self_q)

            s.at(s.random.uniform(0.01, 0.5), lambda: connection.when_edge_runs(acknowledge))


def _id_in(stanza: Stanza) -> int:
    """The id that the archive of the room gave it."""
    return int(stanza.inner.rpartition(b' id="')[2].partition(b'"')[0])


def key_of(stanza: Stanza) -> Key:
    """Which message it is."""
    number, _, sequence = stanza.inner.partition(b"<body>")[2].partition(b"</body>")[0].partition(b":")
    return int(number), int(sequence)


def _name(stanza: Stanza) -> str:
    if b"urn:xmpp:carbons:2" in stanza.inner:
        return "carbon"
    return "offline" if b"urn:xmpp:delay" in stanza.inner else "live"
