"""One run of the simulated cluster: clients that talk, faults that happen, and what is checked afterwards.

Without the log, docs/delivery.md §0 says what holds: nothing unsent arrives; order per sender and recipient; exactly
once as long as no process dies; and after any faults the cluster heals: sessions bind, messages flow, nothing is held
for ever.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import partial
from typing import Literal

from c2s.edge import Attached, EdgeSession, Refused
from tests.sim.network import Network
from tests.sim.processes import DOMAIN, Beliefs, EdgeNode, RouterNode
from tests.sim.scheduler import Scheduler
from tests.sim.store import SimStore
from xmpp import stanza as stanzas
from xmpp.stanza import HAS_BODY, Stanza

ACCOUNTS = tuple(f"user{i}@{DOMAIN}" for i in range(4))
TALK_S = 20.0
HEAL_S = 25.0

Mode = Literal["network", "processes"]


class Client:
    """One device. Without stream management it does not resend: a broken stream is the end of what was in it."""

    def __init__(self, world: World, number: int, account: str) -> None:
        self.world = world
        self.number = number
        self.account = account
        self.edge: EdgeNode | None = None
        self.session: EdgeSession | None = None
        self.binds = 0
        self.sequence = 0
        self.received: list[tuple[int, int, int]] = []  # (sender, its sequence number, own bind)
        self.is_connecting = False

    def connect(self) -> None:
        """Bind on any edge that lives."""
        world = self.world
        if self.is_connecting or self.session is not None:
            return
        edges = [edge for edge in world.edges if edge.is_alive and not edge.is_paused]
        if not edges:
            world.scheduler.at(0.3, self.connect)
            return
        self.is_connecting = True
        self.binds += 1
        self.edge = world.scheduler.random.choice(edges)
        self.edge.edge.attach(self.account, f"device{self.number}", {}, _Sink(self, self.binds), self.attached, 8.0)

    def attached(self, answer: Attached | Refused) -> None:
        """Bound, or try again."""
        self.is_connecting = False
        if isinstance(answer, Attached):
            self.session = answer.session
        else:
            self.lost(self.binds)

    def lost(self, bind: int) -> None:
        """The stream is broken."""
        if bind == self.binds:
            self.session = None
            self.is_connecting = False
            self.world.scheduler.at(self.world.scheduler.random.uniform(0.05, 0.5), self.connect)

    def say(self, to: str) -> tuple[int, int] | None:
        """One numbered message; None where nothing can be said now."""
        session, edge = self.session, self.edge
        if session is None or edge is None or edge.is_paused or session.is_paused or session.is_closing:
            return None
        self.sequence += 1
        body = f"{self.number}:{self.sequence}".encode()
        message = stanzas.message(to=to, from_=session.jid, type="chat", inner=body, flags=HAS_BODY)
        edge.edge.submit(session, message)
        return self.number, self.sequence


class _Sink:
    """The stream of one bind."""

    def __init__(self, client: Client, bind: int) -> None:
        self._client = client
        self._bind = bind

    def deliver(self, stanza: Stanza) -> None:
        """What the client reads."""
        if self._client.binds == self._bind and stanza.kind == stanzas.MESSAGE and stanza.type == "chat":
            sender, _, sequence = stanza.inner.decode().partition(":")
            self._client.received.append((int(sender), int(sequence), self._bind))

    def revoked(self, condition: str) -> None:
        """The owner ended the session."""
        self._client.lost(self._bind)

    def pause_reading(self) -> None:
        """`EdgeSession.is_paused` says so, too."""

    def resume_reading(self) -> None:
        """Likewise."""


class World:
    """Two edges, two routers, a database, five clients."""

    def __init__(
        self, seed: int, mode: Mode, router: type[RouterNode] = RouterNode, edge: type[EdgeNode] = EdgeNode
    ) -> None:
        self.scheduler = Scheduler(seed)
        self.mode = mode
        self.network = Network(self.scheduler)
        self.store = SimStore(self.scheduler, ACCOUNTS)
        self.beliefs = Beliefs(self.network)
        self.routers = [router(self.network, f"router-{i}", self.store, self.beliefs) for i in range(2)]
        self.edges = [edge(self.network, f"c2s-{i}") for i in range(2)]
        self.clients = [Client(self, i, ACCOUNTS[max(0, i - 1)]) for i in range(5)]  # user0 has two devices
        self.sent: dict[tuple[int, int], str] = {}
        self.faults: Counter[str] = Counter()
        for node in self.nodes:
            node.boot()
            self.beliefs.announce(node, True, node.incarnation, 0.01)
        self.scheduler.at(1.0, self._everybody_connects)

    @property
    def nodes(self) -> list[RouterNode | EdgeNode]:
        """All processes."""
        return [*self.routers, *self.edges]

    def run(self) -> list[str]:
        """Talk under faults, heal, talk again; returns what is wrong."""
        s = self.scheduler
        for client in self.clients:
            s.at(2.0, partial(self._talk, client))
        at = 3.0
        while at < TALK_S:
            s.at(at, self._fault)
            at += s.random.uniform(0.5, 3.0)
        s.run(TALK_S)
        self._heal()
        s.run(TALK_S + HEAL_S)
        faulty = self.check()
        return faulty + self._last_round()

    # --- talk

    def _everybody_connects(self) -> None:
        for client in self.clients:
            client.connect()

    def _talk(self, client: Client) -> None:
        r = self.scheduler.random
        if self.scheduler.now >= TALK_S:
            return
        for _ in range(r.choice((1, 1, 1, 5))):
            self.say(client, r.choice(ACCOUNTS))
        self.scheduler.at(r.expovariate(5), partial(self._talk, client))

    def say(self, client: Client, to: str) -> tuple[int, int] | None:
        """One message, remembered."""
        key = client.say(to)
        if key is not None:
            self.sent[key] = to
        return key

    # --- faults

    def _fault(self) -> None:
        r = self.scheduler.random
        kinds = ["cut", "cut", "pause", "away"]
        if self.mode == "processes":
            kinds += ["kill", "kill", "give", "give", "long-pause"]
        kind = r.choice(kinds)
        self.faults[kind] += 1
        node = r.choice(self.nodes)
        if kind == "cut":
            other = r.choice([n for n in self.nodes if n is not node])
            pair = frozenset((node.name, other.name))
            self.network.cut.add(pair)
            self.scheduler.at(r.uniform(0.1, 5.0), lambda: self.network.cut.discard(pair))
        elif kind == "away":
            self.store.is_away = True
            self.scheduler.at(r.uniform(0.1, 2.0), partial(setattr, self.store, "is_away", False))
        elif kind == "pause" and node.is_alive and not node.is_paused:
            self._pause(node, r.uniform(0.1, 1.0), is_noticed=False)
        elif kind == "long-pause" and node.is_alive and not node.is_paused:
            self._pause(node, r.uniform(2.0, 4.0), is_noticed=True)
        elif kind == "kill" and node.is_alive:
            self._kill(node, r.uniform(0.3, 3.0))
        elif kind == "give":
            self._give()

    def _pause(self, node: RouterNode | EdgeNode, seconds: float, is_noticed: bool) -> None:
        incarnation = node.incarnation
        node.pause()

        def noticed() -> None:
            if node.is_paused and node.incarnation == incarnation:
                self.beliefs.dead.add(incarnation)
                self.beliefs.announce(node, False, incarnation, 0.0)

        def back() -> None:
            if not node.is_alive or node.incarnation != incarnation:
                return
            was_dead = incarnation in self.beliefs.dead
            self.beliefs.dead.discard(incarnation)
            node.resume()
            if was_dead:
                self.beliefs.announce(node, True, incarnation, 0.3)

        if is_noticed:
            self.scheduler.at(1.5, noticed)
        self.scheduler.at(seconds, back)

    def _kill(self, node: RouterNode | EdgeNode, down_s: float) -> None:
        incarnation = node.incarnation
        node.kill()
        self.beliefs.announce(node, False, incarnation, self.scheduler.random.uniform(0.05, 0.5))
        if isinstance(node, EdgeNode):
            for client in self.clients:
                if client.edge is node:
                    self.scheduler.at(0.05, partial(client.lost, client.binds))
        self.scheduler.at(down_s, partial(self._restart, node))

    def _restart(self, node: RouterNode | EdgeNode) -> None:
        if not node.is_alive:
            node.boot()
            self.beliefs.announce(node, True, node.incarnation, 0.2)

    def _give(self) -> None:
        """A planned handover of any shard to any living router."""
        r = self.scheduler.random
        router, to = r.sample(self.routers, 2)
        if router.is_alive and to.is_alive and not router.is_paused:
            shard = r.choice(list(self.store.table))
            router.when_running(partial(router.give, shard, to.incarnation))

    def _heal(self) -> None:
        self.network.cut.clear()
        self.store.is_away = False
        for node in self.nodes:
            if node.is_alive and node.is_paused:
                incarnation = node.incarnation
                was_dead = incarnation in self.beliefs.dead
                self.beliefs.dead.discard(incarnation)
                node.resume()
                if was_dead:
                    self.beliefs.announce(node, True, incarnation, 0.3)
            self._restart(node)

    # --- checks

    def check(self) -> list[str]:
        """C2 (nothing unsent), C3 and C4 (once, in order), C5 (epochs of commits rise)."""
        wrong = []
        for client in self.clients:
            last: dict[int, int] = defaultdict(int)
            seen: Counter[tuple[int, int]] = Counter()
            for sender, sequence, _ in client.received:
                key = (sender, sequence)
                if self.sent.get(key) != client.account:
                    wrong.append(f"C2: {client.account} got {key}, which was not sent to it")
                seen[key] += 1
                if self.mode == "network":
                    if seen[key] > 1:
                        wrong.append(f"C3: client {client.number} got {key} {seen[key]} times")
                    elif sequence < last[sender]:
                        wrong.append(f"C4: client {client.number} got {key} after {last[sender]}")
                last[sender] = max(last[sender], sequence)
            if self.mode == "network":
                wanted = {key for key, to in self.sent.items() if to == client.account}
                missing = sorted(wanted - set(seen))
                if missing:
                    wrong.append(f"C1: client {client.number} never got {missing[:5]} ({len(missing)})")
        epochs: dict[int, int] = defaultdict(int)
        for shard, epoch in self.store.commits:
            if epoch < epochs[shard]:
                wrong.append(f"C5: shard {shard} committed under epoch {epoch} after {epochs[shard]}")
            epochs[shard] = max(epochs[shard], epoch)
        return wrong

    def _last_round(self) -> list[str]:
        """Everybody is bound again, nothing is held, and a message from each reaches everybody, once."""
        wrong = [f"stuck: client {c.number} is not bound" for c in self.clients if c.session is None]
        for client in self.clients:
            if client.session is not None and client.session.held:
                held = [n for n, _ in client.session.held]
                wrong.append(f"stuck: client {client.number} holds {held[:5]} (conf {client.session.conf})")
        before = {client.number: len(client.received) for client in self.clients}
        said: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for client in self.clients:
            for account in ACCOUNTS:
                key = self.say(client, account)
                if key is not None:
                    said[account].append(key)
        self.scheduler.run(self.scheduler.now + 8.0)
        for client in self.clients:
            got = Counter((sender, sequence) for sender, sequence, _ in client.received[before[client.number] :])
            for key in said[client.account]:
                if got[key] != 1:
                    wrong.append(f"after healing: client {client.number} got {key} {got[key]} times")
        known = {session.sid for router in self.routers for session in router.owner.sessions.values()}
        rows = set(self.store.sessions)
        bound = {client.session.sid for client in self.clients if client.session is not None}
        if not bound <= known or not bound <= rows:
            wrong.append(f"directory: {len(bound)} bound, {len(bound & known)} known, {len(bound & rows)} in rows")
        if rows - bound:
            wrong.append(f"ghosts: {len(rows - bound)} rows without a session")
        return wrong
