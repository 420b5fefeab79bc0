"""One run of the simulated cluster: clients that talk, faults that happen, and what is checked afterwards.

C1  acknowledged to a client that manages its stream (or that had its ping answered): once in both parties' logs, and
    given to a device of the recipient
C2  nothing arrives that was not sent to that account
C3  one row for each owner and message; no device gets a message twice in one session
C4  order of one sender: in the recipient's log and at each device
C5  the epochs of a shard's commits never fall
and at the end: everybody is back, nothing is held or waits, no session's row is left behind, messages flow.
What is checked of other servers, in a federated world, is in tests/sim/federation.py.

Faults come one at a time ("separate"), on top of each other ("overlapping"), or worse than the protocol promises to
bear without a trace ("nasty": more unknown outcomes, shards taken from living owners). With the last two, docs/delivery.md
§8 says what may happen: a session's numbers may be lost with both its holders, then messages may be shown twice.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import partial
from typing import Literal

from storage.log import FROM_OWNER, TO_OWNER, Row
from tests.sim import hearing
from tests.sim.clients import Client, Key, key_of
from tests.sim.federation import Federation, is_remote
from tests.sim.network import Network
from tests.sim.processes import DOMAIN, PIPELINE, RESUME_TIMEOUT_S, SETTINGS, Beliefs, EdgeNode, RouterNode
from tests.sim.remotes import Peers, Remote, S2sNode, close_all
from tests.sim.rooms import ROOMS
from tests.sim.scheduler import Scheduler
from tests.sim.store import SimStore

ACCOUNTS = tuple(f"user{i}@{DOMAIN}" for i in range(4))
REMOTES = {"acknowledging.far": True, "plain.far": False}  # domain -> whether it has stream management
TALK_S = 30.0
HEAL_S = 25.0

Mode = Literal["network", "separate", "overlapping", "nasty"]


class World:
    """Two edges, two routers, a database, six clients on four accounts, two of them without stream management; where it
    is `federated`, two s2s processes and two remote servers, too; `with_rooms`, two rooms that everybody is in."""

    def __init__(
        self, seed: int, mode: Mode, router: type[RouterNode] = RouterNode, edge: type[EdgeNode] = EdgeNode, *,
        federated: bool = False, with_rooms: bool = False,
    ) -> None:  # fmt: skip
        self.scheduler = Scheduler(seed)
        self.mode = mode
        self.network = Network(self.scheduler)
        domains = REMOTES if federated else {}
        self.rooms: tuple[str, ...] = ROOMS if with_rooms else ()
        self.store = SimStore(self.scheduler, ACCOUNTS, domains, 0.08 if mode == "nasty" else 0.02, self.rooms)
        self.beliefs = Beliefs(self.network)
        self.routers = [
            router(self.network, f"router-{i}", self.store, self.beliefs, self._new_peers) for i in range(2)
        ]
        self.edges = [edge(self.network, f"c2s-{i}") for i in range(2)]
        owners = (0, 0, 1, 2, 3, 3)
        self.clients = [Client(self, i, ACCOUNTS[of], is_managed=i not in (3, 5)) for i, of in enumerate(owners)]
        self.sent: dict[Key, tuple[str, bool]] = {}  # to whom, and whether it is kept
        self.gateways = [S2sNode(self.network, f"s2s-{i}", self) for i in range(2 if federated else 0)]
        self.remotes = [Remote(self, i, domain, has_management=REMOTES[domain]) for i, domain in enumerate(domains)]
        self.addressees = [*ACCOUNTS, *self.rooms, *(user for remote in self.remotes for user in remote.users.values())]
        self.federation = Federation(self.remotes, self.clients, self.store, self.sent)
        self.faults: Counter[str] = Counter()
        self.doubled = 0  # deliveries that came twice in one session, where that is allowed
        for node in self.nodes:
            node.boot()
            self.beliefs.announce(node, True, node.incarnation, 0.01)
        self.scheduler.at(1.0, self._everybody_connects)

    @property
    def nodes(self) -> list[RouterNode | EdgeNode]:
        """All processes."""
        return [*self.routers, *self.edges, *self.gateways]

    def _new_peers(self) -> Peers:
        peers = Peers(PIPELINE, SETTINGS)
        peers.came_back = self.federation.came_back
        return peers

    def run(self) -> list[str]:
        """Talk under faults, heal, talk again; returns what is wrong."""
        s = self.scheduler
        for client in self.clients:
            s.at(2.0, partial(self._talk, client))
            s.at(2.0, partial(self._look, client))
        for remote in self.remotes:
            s.at(0.2, partial(self._look_from_afar, remote))
            for number in remote.users:
                s.at(2.0, partial(self._talk_from_afar, remote, number))
        at = 4.0
        while at < TALK_S:
            s.at(at, self._fault)
            at += 9.0 if self.mode in ("separate", "network") else s.random.uniform(0.3, 3.0)
        s.run(TALK_S)
        self._heal()
        s.run(TALK_S + HEAL_S)
        wrong = self._last_round()
        return self.check() + wrong

    # --- talk

    def _everybody_connects(self) -> None:
        for client in self.clients:
            client.connect()

    def _talk(self, client: Client) -> None:
        r = self.scheduler.random
        if self.scheduler.now >= TALK_S:
            return
        for _ in range(r.choice((1, 1, 1, 5))):
            self.say(client, r.choice(self.addressees), r.random() < 0.8)
        what = r.random()
        if what < 0.02:
            client.lose_connection()
        elif what < 0.03:
            client.log_out(r.uniform(1.0, 5.0))
        elif what < 0.035:
            client.sleep(r.uniform(1.0, 2.0) * RESUME_TIMEOUT_S)
        self.scheduler.at(r.expovariate(3), partial(self._talk, client))

    def _look(self, client: Client) -> None:
        client.look()
        self.scheduler.at(0.4, partial(self._look, client))

    def _talk_from_afar(self, remote: Remote, number: int) -> None:
        r = self.scheduler.random
        if self.scheduler.now >= TALK_S:
            return
        for _ in range(r.choice((1, 1, 1, 5))):
            self.say_from_afar(remote, number, r.choice(ACCOUNTS), r.random() < 0.8)
        if self.mode != "network" and r.random() < 0.03 and (streams := remote.streams()):
            r.choice(streams).close()  # nobody has used it for long, its server thinks
        self.scheduler.at(r.expovariate(1.5), partial(self._talk_from_afar, remote, number))

    def _look_from_afar(self, remote: Remote) -> None:
        remote.look()
        self.scheduler.at(0.3, partial(self._look_from_afar, remote))

    def say_from_afar(self, remote: Remote, number: int, to: str, is_kept: bool) -> Key:
        """One message of a user of another server, remembered."""
        key = remote.say(number, to, is_kept)
        self.sent[key] = (to, is_kept)
        return key

    def say(self, client: Client, to: str, is_kept: bool) -> Key | None:
        """One message, remembered."""
        key = client.say(to, is_kept)
        if key is not None:
            self.sent[key] = (to, is_kept)
        return key

    # --- faults

    def _fault(self) -> None:
        r = self.scheduler.random
        kinds = ["cut", "cut", "pause", "away"]
        if self.mode != "network":
            kinds += ["kill", "kill", "kill", "give", "give", "long-pause"]
        if self.mode == "nasty":
            kinds += ["give", "give", "steal", "steal"]
        if self.remotes:
            kinds += ["unreachable"] if self.mode == "network" else ["unreachable", "break", "break", "break"]
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
        elif kind == "unreachable":
            self._part(r.choice(self.remotes), r.uniform(0.5, 8.0))
        elif kind == "break":
            for remote in self.remotes:
                for stream in r.sample(streams := remote.streams(), min(len(streams), r.randint(1, 3))):
                    stream.cut()
        elif kind == "give":
            self._give()
        elif kind == "steal":
            for _ in range(r.randint(1, 4)):
                self.scheduler.at(r.uniform(0, 0.2), self._steal)

    def _part(self, remote: Remote, seconds: float) -> None:
        """No new stream to a remote server for a while; the old ones go, too, or stay."""
        remote.is_reachable = False
        if self.mode != "network" and self.scheduler.random.random() < 0.7:
            for stream in remote.streams():
                stream.cut()
        self.scheduler.at(seconds, partial(setattr, remote, "is_reachable", True))

    def _pause(self, node: RouterNode | EdgeNode, seconds: float, is_noticed: bool) -> None:
        incarnation = node.incarnation
        node.pause()

        def noticed() -> None:
            if node.is_paused and node.incarnation == incarnation:
                self.beliefs.dead.add(incarnation)
                self.federation.lost_nodes.add(incarnation)
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
            if isinstance(node, EdgeNode):  # its clients notice, too, and go elsewhere
                for client in self.clients:
                    connection = client.connection
                    if connection is not None and connection.edge is node:
                        self.scheduler.at(self.scheduler.random.uniform(1.0, 2.0), partial(client.broken, connection))
        self.scheduler.at(seconds, back)

    def _kill(self, node: RouterNode | EdgeNode, down_s: float) -> None:
        incarnation = node.incarnation
        node.kill()
        self.federation.lost_nodes.add(incarnation)
        for stream in [s for remote in self.remotes for s in remote.all_streams if s.incarnation == incarnation]:
            stream.died()
        self.beliefs.announce(node, False, incarnation, self.scheduler.random.uniform(0.05, 0.5))
        if isinstance(node, EdgeNode):
            for client in self.clients:
                connection = client.connection
                if connection is not None and connection.edge is node:
                    self.scheduler.at(0.05, partial(client.broken, connection))
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

    def _steal(self) -> None:
        """A shard is taken from an owner that lives."""
        r = self.scheduler.random
        thief = r.choice(self.routers)
        if thief.is_alive and not thief.is_paused:
            thief.when_running(partial(thief.steal, r.choice(list(self.store.table))))

    def _heal(self) -> None:
        self.network.cut.clear()
        self.store.is_away = False
        for remote in self.remotes:
            remote.is_reachable, remote.trouble = True, 0.0
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
        """C1 to C5, and F1 to F4, over the whole run."""
        wrong: list[str] = []
        in_log: dict[tuple[str, int], Counter[Key]] = {}
        for account, owner in self.store.accounts.items():
            for dir_ in (TO_OWNER, FROM_OWNER):
                rows = [row for row in self.store.log[owner] if row.dir == dir_]
                in_log[account, dir_] = Counter(key_of(row.stanza) for row in rows)
                if dir_ == TO_OWNER:
                    wrong += self._check_order(account, rows)
        anew = {key for client in self.clients for key in client.resent_anew}
        for (account, _), counter in in_log.items():
            wrong += [f"C3: {account} has {n} rows of {k}" for k, n in counter.items() if n > 1 and k not in anew]
        given: dict[str, Counter[Key]] = defaultdict(Counter)
        for client in self.clients:
            wrong += self._check_received(client, anew)
            given[client.account].update(key for key, _, _ in client.received)
        managed = {account for account in ACCOUNTS if all(c.is_managed for c in self.clients if c.account == account)}
        for client in self.clients:
            for key in sorted(client.acked):
                to, is_kept = self.sent[key]
                if not is_kept or to in self.rooms:
                    continue
                if to not in self.store.accounts:
                    if not in_log[client.account, FROM_OWNER][key]:
                        wrong.append(f"C1: {key} was acknowledged and is not in the log of {client.account}")
                    continue
                if not in_log[client.account, FROM_OWNER][key]:
                    wrong.append(f"C1: {key} was acknowledged and is not in the log of {client.account}")
                if not in_log[to, TO_OWNER][key]:
                    wrong.append(f"C1: {key} was acknowledged and is not in the log of {to}")
                elif to in managed and not given[to][key]:
                    wrong.append(f"C1: {key} was acknowledged and no device of {to} got it")
        epochs: dict[int, int] = defaultdict(int)
        for shard, epoch in self.store.commits:
            if epoch < epochs[shard]:
                wrong.append(f"C5: shard {shard} committed under epoch {epoch} after {epochs[shard]}")
            epochs[shard] = max(epochs[shard], epoch)
        is_single = self.mode in ("network", "separate")
        wrong += hearing.check(
            self.store.rooms.by_bare, lambda key: self.store.log[key], self.clients, self.sent, is_single=is_single
        )
        return wrong + self.federation.check(is_calm=self.mode == "network", is_single=is_single)

    def _check_order(self, account: str, rows: list[Row]) -> list[str]:
        wrong = []
        last: dict[tuple[int, int], int] = defaultdict(int)
        anew = {key for client in self.clients for key in client.resent_anew}
        is_single = self.mode in ("network", "separate")
        for row in rows:
            number, sequence = key = key_of(row.stanza)
            # Else, and from other servers, only within one session (docs/delivery.md, §8).
            sender = (number, 0 if is_single and not is_remote(key) else row.sid)
            if key in anew:
                continue
            if sequence < last[sender]:
                wrong.append(f"C4: the log of {account} has {key} after {last[sender]}")
            last[sender] = max(last[sender], sequence)
        return wrong

    def _check_received(self, client: Client, anew: set[Key]) -> list[str]:
        wrong = []
        seen: Counter[tuple[Key, int]] = Counter()
        last: dict[tuple[int, int], int] = defaultdict(int)
        for key, bind, how in client.received:
            to, is_kept = self.sent.get(key, ("", False))
            own = not is_remote(key) and self.clients[key[0]].account == client.account
            if to != client.account and not (own and how == "carbon"):
                wrong.append(f"C2: {client.account} got {key}, which was not sent to it")
            if not is_kept or key in anew:
                continue
            seen[key, bind] += 1
            if seen[key, bind] > 1 and not (own and to == client.account):
                self.doubled += 1
                if self.mode in ("network", "separate"):
                    wrong.append(f"C3: client {client.number} got {key} {seen[key, bind]} times in one session")
            elif (
                not is_remote(key)
                and key[1] < last[key[0], bind]
                and how == "live"
                and self.mode in ("network", "separate")
            ):
                wrong.append(f"C4: client {client.number} got {key} after {last[key[0], bind]}")
            if how == "live":
                last[key[0], bind] = max(last[key[0], bind], key[1])
        return wrong

    def _last_round(self) -> list[str]:
        """Everybody is back, nothing is held, and a message from each reaches everybody."""
        wrong = [f"stuck: client {c.number} is not bound" for c in self.clients if not c.is_bound]
        before = {client.number: len(client.received) for client in self.clients}
        heard_before = {client.number: len(client.heard) for client in self.clients}
        said: dict[str, list[Key]] = defaultdict(list)
        for client in self.clients:
            for addressee in self.addressees:
                key = self.say(client, addressee, True)
                if key is not None:
                    said[addressee].append(key)
        for remote in self.remotes:
            for number in remote.users:
                for account in ACCOUNTS:
                    said[account].append(self.say_from_afar(remote, number, account, True))
        self.scheduler.run(self.scheduler.now + 8.0)
        for client in self.clients:
            connection = client.connection
            if connection is not None and connection.session is not None and connection.session.held:
                held = [n for n, _ in connection.session.held]
                wrong.append(f"stuck: client {client.number} holds {held[:5]} (conf {connection.session.conf})")
            got = Counter(key for key, _, _ in client.received[before[client.number] :])
            for key in said[client.account]:
                if not got[key]:
                    wrong.append(f"after healing: client {client.number} never got {key}")
            heard = {key for _, key, _, _ in client.heard[heard_before[client.number] :]}
            deaf = [key for room in self.rooms for key in said[room] if key not in heard]
            wrong += [f"after healing: client {client.number} never heard {key}" for key in deaf]
        known = {session.sid for router in self.routers for session in router.owner.sessions.values()}
        rows = set(self.store.sessions)
        bound = self._bound()
        if not bound <= known or not bound <= rows:
            wrong.append(f"directory: {len(bound)} bound, {len(bound & known)} known, {len(bound & rows)} in rows")
        wrong += self._last_of_remotes(said)
        self.scheduler.run(self.scheduler.now + RESUME_TIMEOUT_S + 3.0)
        if left := set(self.store.sessions) - self._bound():
            wrong.append(f"ghosts: {len(left)} rows without a session")
        return wrong

    def _bound(self) -> set[int]:
        """The sessions of clients that are there, and of streams to remote servers."""
        bound = {int(c.connection.session.sid) for c in self.clients if c.connection and c.connection.session}
        return bound.union(sid for node in self.gateways for sid in node.edge.sessions)

    def _last_of_remotes(self, said: dict[str, list[Key]]) -> list[str]:
        """Messages from each client have reached everybody there, and nothing is sent again by the next owner."""
        wrong = self.federation.left(self.routers)
        for remote in self.remotes:
            missing = [key for user in remote.users.values() for key in said[user] if key not in remote.received]
            wrong += [f"after healing: {remote.domain} never got {key}" for key in missing]
        before = [len(remote.received) for remote in self.remotes]
        self.federation.hand_over(self.routers)
        self.scheduler.run(self.scheduler.now + 4.0)
        for remote, count in zip(self.remotes, before, strict=True):
            wrong += [f"F5: {remote.domain} got {key} from the next owner" for key in remote.received[count:]]
        wrong += self.federation.left(self.routers)
        close_all(self.remotes)
        self.scheduler.run(self.scheduler.now + 4.0)
        return wrong + self.federation.unsaved() + self._while_nobody_writes()

    def _while_nobody_writes(self) -> list[str]:
        """What waits for a server that cannot be reached is sent by the next owner, though nothing wakes it."""
        for remote in self.remotes:
            remote.is_reachable = False
        addressees = [(remote, next(iter(remote.users.values()))) for remote in self.remotes]
        said = [(remote, self.say(client, to, True)) for remote, to in addressees for client in self.clients]
        self.scheduler.run(self.scheduler.now + 1.0)
        self.federation.hand_over(self.routers)
        for remote in self.remotes:
            remote.is_reachable = True
        self.scheduler.run(self.scheduler.now + 4.0)
        return [
            f"F5: {remote.domain} never got {key} from the next owner"
            for remote, key in said
            if key is not None and key not in remote.received
        ]
