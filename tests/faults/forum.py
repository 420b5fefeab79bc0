"""The forum: people in rooms who all talk at once, whatever breaks, and write down what they hear.

Everybody keeps a stream with XEP-0198 and resumes it; who cannot, binds anew and comes into the room again. What is
heard is compared with the archive of the room, which says what was said, and in which order.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from xml.sax.saxutils import quoteattr

from tests.faults.bank import Bank, Terms, User, until
from tests.faults.ledger import Archived, Key, Sent, UserLog
from tests.support.client import CLIENT, Element
from tests.support.cluster import FACTOR, RunningCluster

ROOMS: Final = 4
OWN: Final = "110"  # XEP-0045: presence that says that one is in
_STATUS: Final = "{http://jabber.org/protocol/muc#user}status"


class Member(User):
    """Somebody in one room."""

    room = ""
    is_in = False
    left = 0  # how often somebody was shown leaving

    def _begin(self, how: str) -> None:
        super()._begin(how)
        if how == "bound":
            self.is_in = False
            nick = self.log.bare.partition("@")[0]
            history = "<history maxstanzas='0'/>"
            join = f"<presence to={quoteattr(f'{self.room}/{nick}')}>"
            self._send(f"{join}<x xmlns='http://jabber.org/protocol/muc'>{history}</x></presence>")

    def _send_message(self, key: Key) -> None:
        sent = self.log.sent.get(key)
        if sent is None:
            body = f"{self._bank.run} {key.pair} {key.direction} {key.seq}"
            sent = self.log.sent[key] = Sent(key, body.replace(" ", "-"), body)
            self._bank.sent += 1
            self._pending[key] = (
                f"<message to={quoteattr(self.room)} type='groupchat' id='{sent.id}'><body>{body}</body></message>"
            )
        self._written(key)
        self._not_pinged.append(key)
        self._send(self._pending[key], key)

    def _on_stanza(self, element: Element) -> None:
        super()._on_stanza(element)
        if element.tag == f"{CLIENT}presence" and (element.get("from") or "").startswith(f"{self.room}/"):
            if any(status.get("code") == OWN for status in element.iter(_STATUS)):
                self.is_in = element.get("type") is None
            elif element.get("type") == "unavailable":
                self.left += 1


class Forum(Bank):
    """All members. Use `open_forum`."""

    def __init__(self, cluster: RunningCluster, terms: Terms, rng: random.Random) -> None:
        super().__init__(cluster, terms, rng)
        self.rooms = [f"{self.run}-room{number}@conference.{self.domain}" for number in range(ROOMS)]
        self.said: dict[str, list[Archived]] = {}
        self.departures = 0

    async def hire(self) -> None:
        """Make the rooms, and `terms.pairs` members of each."""
        for room in self.rooms:
            body = {"jid": room, "config": {"persistentroom": "1"}}
            await asyncio.to_thread(self._cluster.api.call, "POST", "/rooms", body)
        names = [f"{self.run}-{number}" for number in range(ROOMS * self.terms.pairs)]
        accounts = await asyncio.gather(*(asyncio.to_thread(self._open_account, name) for name in names))
        for number, account in enumerate(accounts):
            log = UserLog(account.jid, number, 0, is_managed=True)
            member = Member(self, account, log, random.Random(self._rng.getrandbits(64)), None, 120.0)
            member.room = self.rooms[number % ROOMS]
            self.users.append(member)

    async def read_rooms(self) -> None:
        """What was said in each room, by its archive; and how often somebody was shown leaving so far."""
        for room, reader in zip(self.rooms, self.users, strict=False):
            await reader.read_archive(room)
            self.said[room] = reader.log.archive or []
        self.departures = sum(user.left for user in self.users if isinstance(user, Member))

    async def close(self) -> None:
        """Log everybody out, and end the rooms."""
        await super().close()
        for room in self.rooms:
            await asyncio.to_thread(self._cluster.api.call, "DELETE", f"/rooms/{room}")


@asynccontextmanager
async def open_forum(cluster: RunningCluster, terms: Terms, rng: random.Random) -> AsyncIterator[Forum]:
    """A forum whose members are all in their rooms and talk; it closes behind the block."""
    forum = Forum(cluster, terms, rng)
    await forum.hire()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(user.live()) for user in forum.users]
        members = [user for user in forum.users if isinstance(user, Member)]
        assert await until(lambda: all(member.is_in for member in members), 60 * FACTOR), "not everybody came in"
        forum.is_trading = True
        tasks.append(group.create_task(forum.measure_lag()))
        yield forum
        await forum.close()
        for task in tasks:
            task.cancel()


@dataclass(slots=True)
class Hearing:
    """What the auditor says about one run."""

    members: int = 0
    said: int = 0
    heard: int = 0
    rebound: int = 0  # members who had to bind anew
    departures: int = 0  # that somebody was shown, though nobody went
    findings: list[str] = field(default_factory=list)


def audit(forum: Forum) -> Hearing:
    """Nothing acknowledged is lost, nothing is doubled, and all hear it in the order of the archive."""
    hearing = Hearing(members=len(forum.users), departures=forum.departures)
    for room in forum.rooms:
        said = forum.said[room]
        hearing.said += len(said)
        order = {row.archive_id: index for index, row in enumerate(said)}
        members = [user for user in forum.users if isinstance(user, Member) and user.room == room]
        for member in members:
            _audit_member(hearing, member, said, order)
        again = {key for member in members for key, sent in member.log.sent.items() if sent.sessions > 1}
        keys = [row.key for row in said if row.key not in again]
        if len(set(keys)) < len(keys):
            hearing.findings.append(f"{room}: {len(keys) - len(set(keys))} messages stand twice in the archive")
    return hearing


def _audit_member(hearing: Hearing, member: Member, said: Sequence[Archived], order: dict[str, int]) -> None:
    name = member.log.bare
    sessions = {connection.session for connection in member.log.connections}
    hearing.rebound += len(sessions) > 1
    hearing.findings += [f"{name}: {complaint}" for complaint in member.log.complaints]
    kept = {row.key for row in said}
    for key, sent in member.log.sent.items():
        if sent.acked_at is None:
            hearing.findings.append(f"{name}: {key} is not acknowledged")
        elif key not in kept:
            hearing.findings.append(f"{name}: {key} is acknowledged and lost")
    for session in sessions:
        live = [got for got in member.log.received if got.session == session and not got.is_delayed]
        hearing.heard += len(live)
        places = [order.get(got.stanza_id or "", -1) for got in live]
        if -1 in places:
            hearing.findings.append(f"{name}: heard what is not in the archive")
        elif places != sorted(set(places)):
            hearing.findings.append(f"{name}: session {session} heard something twice or in another order")
        elif len(sessions) == 1 and places != list(range(len(said))):
            missing = sorted(set(range(len(said))) - set(places))
            again = {order.get(got.stanza_id or "", -1) for got in member.log.received if got.is_delayed}
            hearing.findings.append(
                f"{name}: never heard {len(missing)} of {len(said)}, from {missing[0]} to {missing[-1]}"
                f" ({len(again.intersection(missing))} of them as history), first {said[missing[0]]}"
            )
