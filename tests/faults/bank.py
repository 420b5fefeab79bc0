"""The bank: pairs of users who send each other numbered messages, whatever breaks, and write down what they see.

Half of the users keep their streams with XEP-0198 and resume them; the other half, plain, ping their server now and
then: the answer acknowledges what they sent before it. After any loss a user comes back by itself and sends what is
not acknowledged again, before anything new: the same stanzas after a resume, the same messages (and ids) after a new
bind. Some users log out for a while. All c2s share one port, so nobody knows where a connection will end.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from stentor.client import Refused as ApiRefused
from tests.faults.ledger import Absence, Archived, Bounced, Connection, Key, Received, Sent, UserLog, Write
from tests.support.client import CLIENT, Element, condition
from tests.support.cluster import FACTOR, Account, RunningCluster
from tests.support.faults_stream import SM, Broken, Refused, Stream

SIGN_IN_S: Final = 40.0  # a database that is away delays it
ASK_S: Final = 0.4  # what is not acknowledged for so long is asked about again
BACKOFF_S: Final = (0.02, 1.0)  # the first wait before a new connection, and the longest
HIRE_S: Final = 20.0
SETTLE_S: Final = 30.0
QUIET_S: Final = 1.0
LEAVE_S: Final = 10.0
PAGE: Final = 100

STANZA_ID: Final = "{urn:xmpp:sid:0}stanza-id"
DELAY: Final = "{urn:xmpp:delay}delay"
MAM: Final = "{urn:xmpp:mam:2}"
RSM: Final = "{http://jabber.org/protocol/rsm}"
FORWARDED: Final = "{urn:xmpp:forward:0}forwarded"
_STANZAS: Final = frozenset(f"{CLIENT}{name}" for name in ("message", "presence", "iq"))

_runs = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Terms:
    """How a bank works."""

    pairs: int = 20
    rate: float = 1.25  # messages per second and user
    absent: float = 0.1  # share of the users who are logged out at any time
    absence_s: float = 1.5
    patience_s: tuple[float, ...] = (120.0,)  # of a user, one of these: then a server that says nothing is left alone


class _Out(NamedTuple):
    """A stanza that a managed user has written and the server has not acknowledged."""

    number: int
    text: str
    key: Key | None


class User:
    """One user with one client."""

    def __init__(
        self, bank: Bank, account: Account, log: UserLog, rng: random.Random, resource: str | None, patience_s: float
    ) -> None:
        self.log = log
        self.partner: User | None = None
        self.jid = ""
        self.wants_to_be_here = asyncio.Event()
        self.wants_to_be_here.set()
        self.is_here = False
        self.had_first_stream = asyncio.Event()
        self._bank = bank
        self._account = account
        self._rng = rng
        self._resource = resource
        self._patience_s = patience_s * FACTOR
        self._stream: Stream | None = None
        self._seq = 0
        self._pending: dict[Key, str] = {}  # messages without an acknowledgement, in order
        self._session = self._streams = 0
        self._is_leaving = False  # has closed its stream; whether the server knows is not known
        self._why = ""  # this side cut the connection
        # of a managed session, from <enable/> on
        self._token: str | None = None
        self._out: deque[_Out] = deque()
        self._out_number = self._acked_number = self._in_number = 0
        # of a stream
        self._asked_at: float | None = None  # an <r/> or ping is not answered
        self._pings: dict[str, list[Key]] = {}
        self._not_pinged: list[Key] = []
        self._answers: dict[str, asyncio.Future[Element]] = {}
        self._rows: list[Archived] | None = None
        self._ids = itertools.count(1)

    @property
    def unacknowledged(self) -> int:
        """Messages that the server has not taken responsibility for."""
        return len(self._pending)

    @property
    def full(self) -> str | None:
        """The full JID at which the user can be found, where it is the same each time."""
        return f"{self.log.bare}/{self._resource}" if self._resource else None

    # --- life

    async def live(self) -> None:
        """Sign in, again after every loss, until cancelled."""
        wait_s = BACKOFF_S[0]
        while True:
            await self.wants_to_be_here.wait()
            stream = None
            try:
                stream = await Stream.connect(self._bank.host, self._bank.port, self._bank.domain)
                self._stream = stream
                async with asyncio.timeout(SIGN_IN_S * FACTOR):
                    await self._sign_in(stream)
                wait_s = BACKOFF_S[0]
                await self._stay(stream)
            except Broken as problem:
                self._lost(str(problem))
            except TimeoutError:
                self._lost("signing in took too long")
            except Refused as problem:
                self._lost(f"refused: {problem}")
                if str(problem) not in ("temporary-auth-failure", "resource-constraint", "remote-server-timeout"):
                    self.log.complaints.append(f"could not sign in: {problem}")
            finally:
                self._why = ""
                self._stream = None
                if stream is not None:
                    await stream.abort()
            if self.wants_to_be_here.is_set():
                await asyncio.sleep(wait_s * self._rng.uniform(0.5, 1.5))
                wait_s = min(wait_s * 2, BACKOFF_S[1])

    async def _sign_in(self, stream: Stream) -> None:
        await stream.sign_in(self._account.jid.partition("@")[0], self._account.password)
        if self._token is None or not await self._resume(stream):
            await self._bind(stream)

    async def _resume(self, stream: Stream) -> bool:
        assert self._token is not None
        stream.send(f"<resume xmlns='urn:xmpp:sm:3' previd='{self._token}' h='{self._in_number}'/>")
        answer = await stream.read()
        h = answer.get("h")
        if answer.tag == f"{SM}resumed" and h is not None:
            is_back = self._is_leaving
            self._begin("resumed")
            self._covered(int(h))
            for out in self._out:
                if out.key is not None:
                    self._written(out.key)
                stream.send(out.text)
            if is_back:
                self._send("<presence/>")  # what it repeats takes its presence back: it had meant to go
            self._ask()
            return True
        if answer.tag != f"{SM}failed":
            raise Broken(f"<resume/> was answered by {answer.tag}")
        self.log.failed_resumes += not self._is_leaving
        if h is not None:
            self._covered(int(h))
        self._token = None
        return False

    async def _bind(self, stream: Stream) -> None:
        wanted = f"<resource>{self._resource}</resource>" if self._resource else ""
        stream.send(f"<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>{wanted}</bind></iq>")
        answer = await stream.read()
        if answer.get("type") != "result":
            raise Refused(condition(answer))
        self.jid = answer[0][0].text or ""
        self._session += 1
        self._token = None
        self._out.clear()
        self._out_number = self._acked_number = self._in_number = 0
        if self.log.is_managed:
            stream.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
            while (answer := await stream.read()).tag in _STANZAS:
                self._on_stanza(answer)
            if answer.tag != f"{SM}enabled" or answer.get("resume") not in ("true", "1"):
                raise Refused(f"<enable/> was answered by {ElementTree.tostring(answer, 'unicode')}")
            self._token = answer.get("id")
        self._begin("bound")
        self._send("<presence/>")
        for key in list(self._pending):
            self._send_message(key)
        self._ask()

    def _begin(self, how: str) -> None:
        self._streams += 1
        self._is_leaving = False
        self._asked_at = None
        self._pings.clear()
        self._not_pinged.clear()
        self.log.connections.append(Connection(self._session, self._streams, self.jid, how, self._bank.now()))
        self.is_here = True
        self.had_first_stream.set()

    def _lost(self, reason: str) -> None:
        reason = self._why or reason
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Broken(reason))
        self._answers.clear()
        if self.is_here:
            self.is_here = False
            connection = self.log.connections[-1]
            connection.ended_at = self._bank.now()
            connection.reason = reason
            if self._is_leaving and reason == "closed":
                self._token = None
                connection.reason = "left"

    async def _stay(self, stream: Stream) -> None:
        """Read until the stream breaks, talking meanwhile."""
        async with asyncio.TaskGroup() as tasks:
            others = [tasks.create_task(self._talk()), tasks.create_task(self._watch(stream))]
            try:
                while True:
                    self._on_element(await stream.read())
            except Broken as problem:
                reason = str(problem)
            for other in others:
                other.cancel()
        raise Broken(reason)

    async def _talk(self) -> None:
        rate = self._bank.terms.rate
        while True:
            await asyncio.sleep(min(self._rng.expovariate(rate), 4 / rate))
            if self._bank.is_trading and self.wants_to_be_here.is_set():
                self._seq += 1
                self._send_message(Key(self.log.pair, self.log.side, self._seq))
                self._ask()

    async def _watch(self, stream: Stream) -> None:
        """Ask about what is not acknowledged; leave a server that does not answer."""
        while True:
            await asyncio.sleep(ASK_S)
            if self._asked_at is not None and time.monotonic() - self._asked_at > self._patience_s:
                self._why = "no answer"
                stream.cut()
            elif self._pending:
                self._ask()

    # --- out

    def _send(self, text: str, key: Key | None = None) -> None:
        if self._token is not None:
            self._out_number += 1
            self._out.append(_Out(self._out_number, text, key))
        assert self._stream is not None
        self._stream.send(text)

    def _send_message(self, key: Key) -> None:
        assert self.partner is not None
        sent = self.log.sent.get(key)
        if sent is None:
            body = f"{self._bank.run} {key.pair} {key.direction} {key.seq}"
            sent = self.log.sent[key] = Sent(key, f"{body.replace(' ', '-')}-{self._rng.getrandbits(32):08x}", body)
            to = self.partner.full or self.partner.log.bare
            self._bank.sent += 1
            self._pending[key] = (
                f"<message to={quoteattr(to)} type='chat' id='{sent.id}'><body>{sent.body}</body></message>"
            )
        self._written(key)
        self._not_pinged.append(key)
        self._send(self._pending[key], key)

    def _written(self, key: Key) -> None:
        self.log.sent[key].writes.append(Write(self._bank.now(), self._session, self._streams))

    def _ask(self) -> None:
        """Ask how far everything is safe; with a ping, unless one is under way."""
        assert self._stream is not None
        if self._token is not None:
            self._stream.send("<r xmlns='urn:xmpp:sm:3'/>")
            self._asked_at = self._asked_at or time.monotonic()
        elif self._asked_at is None:
            self._asked_at = time.monotonic()
            id_ = f"ping{next(self._ids)}"
            self._pings[id_], self._not_pinged = self._not_pinged, []
            self._send(f"<iq type='get' id='{id_}' to='{self._bank.domain}'><ping xmlns='urn:xmpp:ping'/></iq>")

    # --- in

    def _on_element(self, element: Element) -> None:
        self._bank.last_sign_of_life = time.monotonic()
        if element.tag in _STANZAS:
            self._in_number += 1
            self._on_stanza(element)
        elif element.tag == f"{SM}r":
            assert self._stream is not None
            self._stream.send(f"<a xmlns='urn:xmpp:sm:3' h='{self._in_number}'/>")
        elif element.tag == f"{SM}a":
            self._asked_at = None
            self._covered(int(element.get("h") or "-1"))

    def _on_stanza(self, element: Element) -> None:
        id_ = element.get("id") or ""
        if element.tag == f"{CLIENT}iq":
            if id_ in self._answers:
                answer = self._answers.pop(id_)
                if not answer.done():
                    answer.set_result(element)
            elif id_ in self._pings:
                self._on_pong(id_, element)
        elif element.tag == f"{CLIENT}message":
            self._on_message(element)
        elif element.get("from") == self.jid and element.get("type") is None and self.is_here:
            self.log.connections[-1].available_at = self._bank.now()

    def _on_pong(self, id_: str, element: Element) -> None:
        self._asked_at = None
        if element.get("type") != "result":
            self._not_pinged = self._pings.pop(id_) + self._not_pinged  # the next one asks again
            return
        for key in self._pings.pop(id_):
            self._acknowledged(key)
        if self._not_pinged:
            self._ask()

    def _on_message(self, element: Element) -> None:
        now = self._bank.now()
        result = element.find(f"{MAM}result")
        if result is not None:
            self._on_archived(result)
            return
        if element.get("type") == "error":
            for key, sent in self.log.sent.items():
                if sent.id == element.get("id"):
                    self.log.bounced.append(Bounced(key, now, condition(element)))
                    self._bank.came.add(key)
            return
        body = element.findtext(f"{CLIENT}body") or ""
        key_or_none = self._bank.key(body)
        if key_or_none is None:
            return
        self._bank.came.add(key_or_none)
        stamp = element.find(STANZA_ID)
        self.log.received.append(
            Received(
                key_or_none, now, element.get("id") or "", body, element.get("from") or "",
                stamp.get("id") if stamp is not None else None, element.find(DELAY) is not None,
                self._session, self._streams,
            )
        )  # fmt: skip

    def _covered(self, h: int) -> None:
        """The server is responsible for everything up to h."""
        if not self._acked_number <= h <= self._out_number:
            self.log.complaints.append(
                f"h={h} on stream {self._streams}, after h={self._acked_number} and {self._out_number} stanzas"
            )
            return
        self._acked_number = h
        while self._out and self._out[0].number <= h:
            key = self._out.popleft().key
            if key is not None:
                self._acknowledged(key)

    def _acknowledged(self, key: Key) -> None:
        sent = self.log.sent[key]
        if sent.acked_at is None:
            sent.acked_at = self._bank.now()
        self._pending.pop(key, None)

    # --- comes and goes

    async def leave(self, may_wait_s: float) -> None:
        """Log out as one should: when everything is acknowledged, and reading to the end."""
        self.wants_to_be_here.clear()
        await until(lambda: not self._pending, may_wait_s)
        if self._stream is None or not self.is_here:
            return
        self._is_leaving = True
        self.log.connections[-1].closing_at = self._bank.now()
        if self._token is not None:
            self._stream.send(f"<a xmlns='urn:xmpp:sm:3' h='{self._in_number}'/>")
        self._send("<presence type='unavailable'/>")
        self._stream.send("</stream:stream>")
        await until(lambda: not self.is_here, LEAVE_S)
        if self.is_here and self._stream is not None:
            self._why = "no answer to </stream:stream>"
            self._stream.cut()

    async def be_absent(self, seconds: float) -> None:
        """Log out, come back, be online again."""
        await self.leave(2.0)
        began_at = self._bank.now()
        await asyncio.sleep(seconds)
        self.wants_to_be_here.set()
        try:
            await until(lambda: self.is_here, SIGN_IN_S)
        finally:
            self.log.absences.append(Absence(began_at, self._bank.now()))

    # --- the archive

    async def read_archive(self, of: str | None = None) -> None:
        """Page the whole archive (XEP-0313), the user's own or a room's, again from its beginning where the stream
        breaks meanwhile."""
        for _ in range(3):
            await until(lambda: self.is_here, SIGN_IN_S)
            with suppress(Broken):
                await self._read_archive(of)
                return
        self.log.complaints.append("could not read the archive")

    async def _read_archive(self, of: str | None) -> None:
        rows: list[Archived] = []
        after = ""
        while True:
            self._rows = rows
            set_ = f"<set xmlns='http://jabber.org/protocol/rsm'><max>{PAGE}</max>{after}</set>"
            answer = await self._request(f"<query xmlns='urn:xmpp:mam:2'>{set_}</query>", of)
            if answer.get("type") != "result":
                self.log.archive = None
                return
            fin = answer.find(f"{MAM}fin")
            assert fin is not None, ElementTree.tostring(answer)
            last = fin.findtext(f"{RSM}set/{RSM}last")
            if fin.get("complete") == "true" or not last:
                break
            after = f"<after>{last}</after>"
        self.log.archive = rows

    def _on_archived(self, result: Element) -> None:
        message = result.find(f"{FORWARDED}/{CLIENT}message")
        assert message is not None, ElementTree.tostring(result)
        body = message.findtext(f"{CLIENT}body") or ""
        key = self._bank.key(body)
        if key is not None and self._rows is not None:
            from_ = message.get("from") or ""
            self._rows.append(Archived(key, result.get("id") or "", message.get("id") or "", body, from_))

    async def _request(self, payload: str, to: str | None = None) -> Element:
        id_ = f"iq{next(self._ids)}"
        answer: asyncio.Future[Element] = asyncio.get_running_loop().create_future()
        self._answers[id_] = answer
        addressed = f" to={quoteattr(to)}" if to is not None else ""
        self._send(f"<iq type='set' id='{id_}'{addressed}>{payload}</iq>")
        async with asyncio.timeout(LEAVE_S * FACTOR):
            return await answer


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until `condition`; False where it is not so after `seconds`."""
    give_up_at = time.monotonic() + seconds * FACTOR
    while True:
        if condition():
            return True
        if time.monotonic() > give_up_at:
            return False
        await asyncio.sleep(0.02)


class Bank:
    """All users. Use `open_bank`."""

    def __init__(self, cluster: RunningCluster, terms: Terms, rng: random.Random) -> None:
        self.run = f"r{next(_runs)}"
        self.terms = terms
        self.host, self.port, self.domain = cluster.host, cluster.port, cluster.domain
        self.is_trading = False
        self.opened_at = time.time()  # for whoever reads other logs beside ours
        self.worst_lag_s = 0.0  # of this process: what the clients did not measure, but make
        self.last_sign_of_life = time.monotonic()
        self.sent = 0
        self.came: set[Key] = set()  # or bounced
        self.users: list[User] = []
        self._cluster = cluster
        self._rng = rng
        self._zero = time.monotonic()
        self._absent: set[asyncio.Task[None]] = set()

    @property
    def logs(self) -> list[UserLog]:
        """What was written down."""
        return [user.log for user in self.users]

    def now(self) -> float:
        """Seconds since the bank was opened: the clock of all its logs."""
        return time.monotonic() - self._zero

    def key(self, body: str) -> Key | None:
        """The message that a body names, if it is one of this bank."""
        run, *numbers = body.split(" ")
        return Key(*map(int, numbers)) if run == self.run and len(numbers) == 3 else None

    async def hire(self) -> None:
        """Make the accounts and users. Of each four pairs one is managed at fixed full JIDs, one plain so, one managed
        at whatever resource the server gives, one plain so; the two of each second pair differ in it."""
        accounts = await asyncio.gather(
            *(asyncio.to_thread(self._open_account, f"{self.run}-{n}") for n in range(self.terms.pairs * 2))
        )
        for number, account in enumerate(accounts):
            pair, side = divmod(number, 2)
            is_managed = bool((pair + side * (pair // 4)) % 2)
            resource = f"till{number}" if pair // 2 % 2 else None
            log = UserLog(account.jid, pair, side, is_managed)
            rng = random.Random(self._rng.getrandbits(64))
            patience_s = self.terms.patience_s[number % len(self.terms.patience_s)]
            self.users.append(User(self, account, log, rng, resource, patience_s))
        for first, second in zip(self.users[::2], self.users[1::2], strict=True):
            first.partner, second.partner = second, first

    def _open_account(self, name: str) -> Account:
        give_up_at = time.monotonic() + HIRE_S * FACTOR
        while True:
            try:
                return self._cluster.account(name)
            except ApiRefused as problem:
                if problem.status != 503 or time.monotonic() > give_up_at:
                    raise
                time.sleep(0.1)  # its shard is on its way to a router that was away

    async def absences(self) -> None:
        """Send users away and have them back, until cancelled."""
        terms = self.terms
        per_second = len(self.users) * terms.absent / terms.absence_s
        while per_second:
            await asyncio.sleep(self._rng.expovariate(per_second))
            present = [user for user in self.users if user.wants_to_be_here.is_set() and user.is_here]
            if present and self.is_trading:
                user = self._rng.choice(present)
                away = asyncio.create_task(user.be_absent(terms.absence_s * self._rng.uniform(0.5, 1.5)))
                self._absent.add(away)
                away.add_done_callback(self._absent.discard)

    async def measure_lag(self) -> None:
        """How late this process itself is, until cancelled."""
        while True:
            due = time.monotonic() + 0.05
            await asyncio.sleep(0.05)
            self.worst_lag_s = max(self.worst_lag_s, time.monotonic() - due)

    async def settle(self) -> float:
        """Stop trading and wait until everybody is here, everything is acknowledged and has come, or nothing moves any
        more; then read the archives. Returns how long it took."""
        began_at = time.monotonic()
        self.is_trading = False

        def is_settled() -> bool:
            if self._absent or any(not user.is_here or user.unacknowledged for user in self.users):
                return False
            return len(self.came) >= self.sent or time.monotonic() - self.last_sign_of_life > QUIET_S

        await until(is_settled, SETTLE_S)
        took_s = time.monotonic() - began_at
        for user in self.users:
            user.log.is_back = user.is_here
        await asyncio.gather(*(user.read_archive() for user in self.users if user.is_here))
        return took_s

    async def close(self) -> None:
        """Log everybody out."""
        for away in self._absent:
            away.cancel()
        await asyncio.gather(*self._absent, return_exceptions=True)
        await asyncio.gather(*(user.leave(0.0) for user in self.users if user.is_here))


@asynccontextmanager
async def open_bank(cluster: RunningCluster, terms: Terms, rng: random.Random) -> AsyncIterator[Bank]:
    """A bank whose users are all signed in and trade; it closes behind the block."""
    bank = Bank(cluster, terms, rng)
    await bank.hire()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(user.live()) for user in bank.users]
        async with asyncio.timeout(60 * FACTOR):
            for user in bank.users:
                await user.had_first_stream.wait()
        bank.is_trading = True
        tasks += [group.create_task(bank.absences()), group.create_task(bank.measure_lag())]
        yield bank
        await bank.close()
        for task in tasks:
            task.cancel()
