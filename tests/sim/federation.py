"""What is checked of other servers (tests/sim/world.py has the rest).

F1  a kept message to another server, acknowledged to a client: the remote server has read it, or it came back (without
    stream management, what the kernel had taken when a stream broke is lost)
F2  the remote server gets a message once; again only where the stream ended with it unacknowledged, or the s2s process
    that had carried it was lost. Without faults of streams and s2s processes, never
F3  order of one sender to one recipient, but for such repetitions
F4  what an s2s has confirmed to the remote server is in the recipient's log once, in order (C3, C4), and shown (C1)
F5  at the end no line waits, no row is left, nothing is sent again by the next owner, entities can be forgotten
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import partial

from cluster.shards import shard_of
from router.entity import Entity
from storage.log import OUTBOUND, TO_OWNER
from tests.sim.clients import Client, Key, key_of
from tests.sim.processes import RouterNode
from tests.sim.remotes import FIRST_NUMBER, Copy, Remote
from tests.sim.store import SimStore

Sent = dict[Key, tuple[str, bool]]


class Federation:
    """The remote servers of one run, looked at when it is over."""

    def __init__(self, remotes: list[Remote], clients: list[Client], store: SimStore, sent: Sent) -> None:
        self.remotes = remotes
        self.clients = clients
        self.store = store
        self.sent = sent
        self.came_back: set[Key] = set()
        self.lost_nodes: set[str] = set()  # s2s processes that were killed or believed dead
        self.repeated = 0  # messages that a remote server got more than once
        self.unnoticed = 0  # that came back and whose sender saw no error: it had gone, or a process had died

    def check(self, *, is_calm: bool, is_single: bool) -> list[str]:
        """F1 to F4. `is_calm`: no process and no stream was touched; `is_single`: one fault at a time."""
        wrong: list[str] = []
        anew = {key for client in self.clients for key in client.resent_anew}
        errors = {key for client in self.clients for key in client.errors}
        acked = {key for client in self.clients for key in client.acked}
        for remote in self.remotes:
            rows = [row for row in self.store.log[self.store.domains[remote.domain]] if row.class_ == OUTBOUND]
            logged = Counter(key_of(row.stanza) for row in rows)
            twice = [key for key, n in logged.items() if n > 1 and key not in anew]
            wrong += [f"F2: more than one row of {key} for {remote.domain}" for key in twice]
            got = set(remote.received)
            for key in sorted(acked):
                to, is_kept = self.sent[key]
                if not is_kept or to.partition("@")[2] != remote.domain:
                    continue
                if not logged[key] and key not in self.came_back:
                    wrong.append(f"F1: {key} was acknowledged and is not in the log of {remote.domain}")
                elif key not in got and key not in remote.swallowed:
                    if key not in self.came_back:
                        wrong.append(f"F1: {key} was acknowledged, {remote.domain} never got it, it never came back")
                    elif key not in errors:
                        self.unnoticed += 1
                        if is_calm and self.clients[key[0]].binds == 1:
                            wrong.append(f"F1: {key} came back and its sender never saw it")
                elif is_calm and key in self.came_back and key not in anew:  # then one of the two may come back
                    wrong.append(f"F1: {key} came back although {remote.domain} got it")
            wrong += self._check_repeated(remote, anew, is_calm=is_calm, is_single=is_single)
            sids = {key_of(row.stanza): row.sid for row in rows}
            wrong += self._check_order(remote, {} if is_single else sids, anew)
            wrong += self._check_confirmed(remote)
        return wrong

    def _check_repeated(self, remote: Remote, anew: set[Key], *, is_calm: bool, is_single: bool) -> list[str]:
        wrong = []
        for key, n in Counter(remote.received).items():
            if n < 2 or key in anew:
                continue
            self.repeated += 1
            if is_calm or (is_single and sum(not self._may_repeat(copy) for copy in remote.copies[key]) > 1):
                wrong.append(f"F2: {remote.domain} got {key} {n} times")
        return wrong

    def _may_repeat(self, copy: Copy) -> bool:
        """Whether its stream ended and nobody could know that it had been handed over."""
        stream = copy.stream
        return (stream.is_over and not copy.is_acknowledged) or stream.incarnation in self.lost_nodes

    def _check_order(self, remote: Remote, sids: dict[Key, int], anew: set[Key]) -> list[str]:
        wrong = []
        seen: set[Key] = set()
        last: dict[tuple[int, str, int], int] = defaultdict(int)
        for key in remote.received:
            to, is_kept = self.sent[key]
            if key in seen or not is_kept or key in anew:
                continue
            seen.add(key)
            number, sequence = key
            pair = (number, to, sids.get(key, 0))
            if sequence < last[pair]:
                wrong.append(f"F3: {remote.domain} got {key} after {last[pair]}")
            last[pair] = max(last[pair], sequence)
        return wrong

    def _check_confirmed(self, remote: Remote) -> list[str]:
        wrong = []
        shown = Counter(key for client in self.clients for key, _, _ in client.received)
        for key in sorted(remote.confirmed):
            to, is_kept = self.sent[key]
            if not is_kept:
                continue
            rows = [row for row in self.store.log[self.store.accounts[to]] if row.dir == TO_OWNER]
            n = sum(key_of(row.stanza) == key for row in rows)
            if n != 1:
                wrong.append(f"F4: {key} was confirmed and is {n} times in the log of {to}")
            elif all(c.is_managed for c in self.clients if c.account == to) and not shown[key]:
                wrong.append(f"F4: {key} was confirmed and no device of {to} got it")
        return wrong

    # --- the end

    def left(self, routers: list[RouterNode]) -> list[str]:
        """F5: what waits though everybody is back."""
        wrong = []
        for remote in self.remotes:
            rows = self.store.log[self.store.domains[remote.domain]]
            entity = self._entity(routers, remote.domain)
            if entity is None:
                if self.store.peer(remote.domain).rows:
                    wrong.append(f"F5: rows wait for {remote.domain}, which nobody has in memory")
                continue
            waiting = {line.local: len(line.waiting) for line in entity.lines.values() if line.waiting}
            unread = [len(session.unacknowledged) for session in entity.sessions.values() if session.unacknowledged]
            if waiting or unread or entity.inputs or entity.waiting or entity.holds:
                wrong.append(f"F5: {remote.domain} waits: {waiting} {unread} {len(entity.inputs)} {entity.holds}")
            if entity.strays:
                wrong.append(f"F5: {len(entity.strays)} strays of {remote.domain}")
            if rows and entity.is_loaded and entity.delivered < max(row.id for row in rows):
                wrong.append(f"F5: the cursor of {remote.domain} is not at the end")
        return wrong

    def hand_over(self, routers: list[RouterNode]) -> None:
        """Every peer gets another owner, while its streams live."""
        for remote in self.remotes:
            shard = shard_of(remote.domain)
            for router, other in (routers, routers[::-1]):
                if router.owner.tenures[shard] is not None:
                    router.when_running(partial(router.give, shard, other.incarnation))
                    break

    def unsaved(self) -> list[str]:
        """F5: what the next owner would send, now that every stream has ended in order."""
        return [
            f"F5: {len(rows)} rows of {remote.domain} would be sent again"
            for remote in self.remotes
            if (rows := self.store.peer(remote.domain).rows)
        ]

    @staticmethod
    def _entity(routers: list[RouterNode], domain: str) -> Entity | None:
        owners = [router for router in routers if router.owner.tenures[shard_of(domain)] is not None]
        return owners[0].owner.entities.get(domain) if owners else None


def is_remote(key: Key) -> bool:
    """Whether a message is from a user of another server."""
    return key[0] >= FIRST_NUMBER
