"""The running gateway: moves messages between the XMPP server, the book and the SMSC. What to do is decided elsewhere.

Everything that may not be lost is in the book before anybody is told that it is safe, and leaves it only when the
other side has confirmed it.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, TypeVar

from cluster import logs
from cluster.process import Drain, Process
from s2s.gateways.backoff import wait_for
from s2s.gateways.component import Accepted
from s2s.gateways.connection import Connection
from s2s.gateways.sms import desk, incoming, metrics, outgoing, pdu, presence, status
from s2s.gateways.sms.book import Book
from s2s.gateways.sms.link import KINDS, Link
from s2s.gateways.sms.outgoing import Job
from s2s.gateways.sms.pace import Pace
from s2s.gateways.sms.pdu import PduError, ShortMessage
from s2s.gateways.sms.session import Submitted
from s2s.gateways.sms.settings import SmsSettings
from s2s.gateways.sms.store import Store, StoreClosed, StoreError
from xmpp import errors
from xmpp import stanza as stanzas
from xmpp.stanza import Stanza

log = logs.get_logger()

T = TypeVar("T")

BATCH: Final = 100
POLL_S: Final = 1.0  # how late a postponed part may be
GOODBYE_S: Final = 1.0  # time for the SMSC to answer an unbind


class Gateway:
    """One component, one SMSC account, one book."""

    def __init__(self, settings: SmsSettings, store: Store, context: ssl.SSLContext | None) -> None:
        component = settings.component
        self.settings = settings
        self.connection = Connection(
            component.jid, component.secret, component.host, component.port, component.ping_s, component.timeout_s
        )
        self.links = [Link(kind, settings.smpp, self, context) for kind in KINDS[settings.smpp.bind]]
        self._store = store
        self._pace = Pace(settings.smpp.per_second)
        self._jobs: deque[Job] = deque()
        self._reading = 0  # what was read from the book under an older number is out of date
        self._in_flight: dict[int, float] = {}  # part -> when it was submitted
        self._noting: set[int] = set()  # parts whose answer is being written to the book
        self._is_idle = asyncio.Event()  # none of either
        self._is_idle.set()
        self._may_submit = asyncio.Event()
        self._has_stanzas = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    # --- life

    def start(self, process: Process) -> None:
        """Begin everything."""
        process.essential("component", self.connection.run())
        for link in self.links:
            process.essential(pdu.NAMES[link.kind], link.run())
        process.essential("stanzas", self._handle_stanzas())
        process.essential("courier", self._send_stanzas())
        process.essential("submitter", self._submit())
        process.essential("expiry", self._expire())

    async def drain(self, drain: Drain) -> None:
        """Take nothing more, and wait for the SMSC's answers; what is left stays in the book."""
        self._is_stopping = True
        await self._tell(lambda book, settings, _: presence.stopping(book, settings))
        await self.connection.confirm()  # what the server has sent so far has been read
        await self.connection.arrivals.join()
        await self.connection.close()
        await self._is_idle.wait()
        for link in self.links:
            link.unbind()
        for link in self.links:
            await wait_for(link.over, GOODBYE_S)

    async def close(self) -> None:
        """End the links, whether the SMSC has answered or not."""
        for link in self.links:
            link.close()
        for link in self.links:
            await wait_for(link.over, GOODBYE_S)

    @property
    def _is_up(self) -> bool:
        return all(not link.problem for link in self.links)

    # --- from the XMPP server

    async def _handle_stanzas(self) -> None:
        """One after the other, so that a user's messages keep their order."""
        while True:
            arrival = await self.connection.arrivals.get()
            if isinstance(arrival, Accepted):
                await self._tell(presence.started)
                self._has_stanzas.set()
            else:
                await self._handle(arrival)
            self.connection.arrivals.task_done()

    async def _handle(self, stanza: Stanza) -> None:
        is_up, now = self._is_up, time.time()
        try:
            answers = await self._store.do(lambda book: desk.handle(book, self.settings, stanza, is_up, now))
        except StoreError as error:
            log.error("store_failed", problem=str(error), key="store.file")
            fault = errors.InternalServerError("The gateway cannot keep the message.", type="wait")
            answers = [stanzas.error(stanza, fault)] if stanzas.is_answerable(stanza) else []
        except Exception:
            log.exception("stanza_failed")
            answers = [stanzas.error(stanza, errors.InternalServerError())] if stanzas.is_answerable(stanza) else []
        await self._send(answers)
        if stanza.kind == stanzas.MESSAGE:
            self._may_submit.set()

    async def _send(self, messages: Iterable[Stanza]) -> None:
        """What may be lost: presence and answers."""
        waiting = list(messages)
        if waiting and not await self.connection.send(waiting):
            metrics.dropped.inc(len(waiting))

    async def _tell(self, what: Callable[[Book, SmsSettings, bool], list[Stanza]]) -> None:
        is_up = self._is_up
        await self._send(await self._write(lambda book: what(book, self.settings, is_up)))

    async def _write(self, work: Callable[[Book], T]) -> T:
        """What cannot be refused to anybody is tried until it works."""
        while True:
            try:
                return await self._store.do(work)
            except StoreClosed:
                await asyncio.Event().wait()  # the process ends, and cancels this
            except StoreError as error:
                log.error("store_failed", problem=str(error), key="store.file")
                await asyncio.sleep(POLL_S)

    # --- to the XMPP server

    async def _send_stanzas(self) -> None:
        """What may not be lost, in batches; each leaves the book when the server has read it."""
        while True:
            waiting = await self._write(lambda book: book.waiting_stanzas(BATCH))
            if not waiting or self.connection.problem:
                self._has_stanzas.clear()
                await self._pause(self._has_stanzas)
                continue
            now, jid = time.time(), self.settings.component.jid
            sent = [incoming.delayed(each.stanza, each.at, now, jid) for each in waiting]
            if await self.connection.send(sent) and await self.connection.confirm():
                last = waiting[-1].id
                await self._write(partial(Book.remove_stanzas, up_to=last))

    # --- to the SMSC

    async def _submit(self) -> None:
        sender = self.links[0]
        loop = asyncio.get_running_loop()
        while True:
            if self._is_stopping or not sender.free:
                await self._pause(self._may_submit)
                continue
            if not self._jobs:
                if not await self._refill():
                    await self._pause(self._may_submit)
                continue
            if (wait_s := self._pace.wait_s(loop.time())) > 0:
                await asyncio.sleep(min(wait_s, POLL_S))
                continue
            job = self._jobs.popleft()
            try:
                sender.submit(job.part, job.message)
            except PduError as error:
                await self._give_up(job, str(error))
                continue
            self._in_flight[job.part] = loop.time()
            self._is_idle.clear()
            self._pace.take(loop.time())

    async def _refill(self) -> bool:
        """Read what waits; whether anything may do that is not on its way."""
        busy, reading = self._noting | self._in_flight.keys(), self._reading
        now, limit = time.time(), BATCH + len(busy)
        found = await self._write(lambda book: outgoing.due(book, now, limit))
        if reading != self._reading:
            return True
        self._jobs.extend(job for job in found if job.part not in busy)
        return bool(self._jobs)

    def _reread(self) -> None:
        """What was on its way waits again: read anew, so that the first comes first."""
        self._jobs.clear()
        self._reading += 1

    async def _give_up(self, job: Job, reason: str) -> None:
        now = time.time()
        await self._write(lambda book: outgoing.unsendable(book, self.settings, job.part, reason, now))
        self._has_stanzas.set()

    async def _pause(self, event: asyncio.Event) -> None:
        """Until the event, or a moment: some things become due by time alone."""
        await wait_for(event, POLL_S)
        event.clear()

    # --- from the SMSC (Owner)

    async def bound(self, kind: int) -> int:
        """A link can be used."""
        session = await self._write(Book.begin_bind)
        await self._tell(presence.link_changed)
        self._may_submit.set()
        return session

    async def unbound(self, kind: int, session: int) -> None:
        """A link is gone: what it had not answered is in the book, and is submitted again."""
        now = time.time()
        if kind == self.links[0].kind:
            self._in_flight.clear()
            self._reread()
            self._check_idle()
        await self._write(lambda book: book.end_bind(session, now))
        await self._tell(presence.link_changed)

    def submitted(self, answer: Submitted) -> None:
        """The SMSC has answered; noted in the order of the answers."""
        now = asyncio.get_running_loop().time()
        metrics.submit_seconds.observe(now - self._in_flight.pop(answer.token, now))
        self._noting.add(answer.token)
        meaning = status.meaning(answer.status)
        if answer.status == status.OK:
            self._pace.accepted(now)
        elif meaning.action == "slow":
            log.warning("smsc_throttles", reason=meaning.words, remedy=meaning.remedy or "It is tried again")
            self._pace.throttled(now)
        task = asyncio.create_task(self._note(answer), name="note")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _note(self, answer: Submitted) -> None:
        now = time.time()
        token, refusal, message_id = answer
        result = await self._write(lambda book: outgoing.answered(book, self.settings, token, refusal, message_id, now))
        metrics.parts_out.labels(result).inc()
        self._noting.discard(token)
        if result == "throttled":
            self._reread()
        self._check_idle()
        self._may_submit.set()
        self._has_stanzas.set()

    def _check_idle(self) -> None:
        if not self._in_flight and not self._noting:
            self._is_idle.set()

    async def received(self, message: ShortMessage, session: int) -> int:
        """A deliver_sm; the answer says that it is stored."""
        now = time.time()
        try:
            answer = await self._store.do(lambda book: incoming.received(book, self.settings, message, session, now))
        except StoreError as error:
            log.error("store_failed", problem=str(error), key="store.file")
            return status.TRY_LATER
        self._has_stanzas.set()
        return answer

    # --- with time

    async def _expire(self) -> None:
        while True:
            if await self._write(self._expire_in):
                self._has_stanzas.set()
            await asyncio.sleep(POLL_S)

    def _expire_in(self, book: Book) -> int:
        now = time.time()
        count = outgoing.expire(book, self.settings, now) + incoming.expire(book, self.settings, now)
        metrics.queue.labels("smsc").set(book.waiting_parts())
        metrics.queue.labels("xmpp").set(book.count_stanzas())
        return count
