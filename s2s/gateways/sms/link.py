"""A link to the SMSC: the socket around `session.py`, made again whenever it breaks.

What comes from the SMSC is handed to the owner, whose answer goes back; until then nothing more is read.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Final, Protocol

from cluster import logs
from s2s.gateways.backoff import Backoff, wait_for
from s2s.gateways.sms import pdu, status
from s2s.gateways.sms.pdu import ShortMessage
from s2s.gateways.sms.session import Bound, Ended, Received, Session, Submitted, Timing
from s2s.gateways.sms.settings import Smpp

log = logs.get_logger()

READ_BYTES: Final = 65_536
TICK_S: Final = 1.0
KINDS: Final = {
    "transceiver": (pdu.BIND_TRANSCEIVER,),
    "pair": (pdu.BIND_TRANSMITTER, pdu.BIND_RECEIVER),
}


class Owner(Protocol):
    """Who uses a link."""

    async def bound(self, kind: int) -> int:
        """The link of this bind is usable; returns the number of the session."""
        ...

    async def received(self, message: ShortMessage, session: int) -> int:
        """A deliver_sm; returns the status to answer."""
        ...

    def submitted(self, answer: Submitted) -> None:
        """The answer to a submit."""
        ...

    async def unbound(self, kind: int, session: int) -> None:
        """It is not usable any more: what was not answered has to be submitted again."""
        ...


@dataclass(slots=True)
class Link:
    """One link, for one of the three binds; `run` keeps it."""

    kind: int
    settings: Smpp
    owner: Owner
    context: ssl.SSLContext | None
    problem: str = "not connected yet"  # why it cannot be used, in words; "" while it can
    connects: int = 0  # how often it was bound, and how often not
    failures: int = 0
    _session: Session | None = None
    _writer: asyncio.StreamWriter | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)  # it was closed, and `run` has ended
    _closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Connect, bind, read, and connect again, until closed."""
        backoff = Backoff()
        bind = pdu.NAMES[self.kind]
        while not self._closing.is_set():
            ended = await self._live(backoff)
            found = status.meaning(ended.status) if ended.status else None
            self.problem = f"{ended.reason}: {found.words} ({found.name})" if found is not None else ended.reason
            if self._closing.is_set():
                break
            wait_s = backoff.next_s()
            remedy = {"remedy": found.remedy} if found is not None and found.remedy else {}
            log.warning("smsc_disconnected", reason=self.problem, method=bind, seconds=round(wait_s, 1), **remedy)
            await wait_for(self._closing, wait_s)
        self.over.set()

    @property
    def free(self) -> int:
        """How many messages may be submitted now."""
        return self._session.free if self._session is not None else 0

    def submit(self, token: int, message: ShortMessage) -> None:
        """Submit a message, if `free`; the owner hears of it under this token. Raises PduError."""
        assert self._session is not None
        self._session.submit(token, message, asyncio.get_running_loop().time())
        self._flush()

    def unbind(self) -> None:
        """Say goodbye; `run` returns when the SMSC has answered, or when closed."""
        self._closing.set()
        if self._session is not None:
            self._session.unbind(asyncio.get_running_loop().time())
            self._flush()

    def close(self) -> None:
        """End it now."""
        self._closing.set()
        if self._writer is not None:
            self._writer.transport.abort()

    async def _live(self, backoff: Backoff) -> Ended:
        """One connection, to its end."""
        where = f"{self.settings.host} port {self.settings.port}"
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                reader, writer = await asyncio.open_connection(self.settings.host, self.settings.port, ssl=self.context)
        except (OSError, TimeoutError) as error:
            self.failures += 1
            return Ended(f"{where} cannot be reached: {error or 'no answer'}")
        settings = self.settings
        session = Session(
            self.kind,
            pdu.Bind(settings.system_id, settings.password, settings.system_type, settings.address_range),
            Timing(settings.window, settings.enquire_link_s, settings.timeout_s),
        )
        self._session, self._writer = session, writer
        number = None
        try:
            session.begin(asyncio.get_running_loop().time())
            self._flush()
            ended: Ended | None = None
            while ended is None:
                data = await self._read(reader)
                now = asyncio.get_running_loop().time()
                if data == b"":
                    ended = Ended("the SMSC closed the connection")
                    break
                events = session.tick(now) if data is None else session.receive_data(data, now)
                for event in events:
                    match event:
                        case Bound():
                            number = await self._bound(event, backoff)
                        case Submitted():
                            self.owner.submitted(event)
                        case Ended():
                            ended = event
                if received := [event for event in events if isinstance(event, Received)]:
                    await self._deliver(received, session, number or 0)
                self._flush()
        except OSError as error:
            ended = Ended(f"{where}: {error}")
        finally:
            self._session = self._writer = None
            writer.close()
        if number is None:
            self.failures += 1
        else:
            self.problem = ended.reason
            await self.owner.unbound(self.kind, number)
        return ended

    async def _read(self, reader: asyncio.StreamReader) -> bytes | None:
        """What comes, b"" at the end, None if nothing comes for a while."""
        try:
            async with asyncio.timeout(TICK_S):
                return await reader.read(READ_BYTES)
        except TimeoutError:
            return None

    async def _bound(self, event: Bound, backoff: Backoff) -> int:
        self.connects += 1
        backoff.reset()
        self.problem = ""
        log.info("smsc_bound", method=pdu.NAMES[self.kind], peer=event.system_id)
        return await self.owner.bound(self.kind)

    async def _deliver(self, received: list[Received], session: Session, number: int) -> None:
        """Hand all of them over at once, in their order, so that they are stored in one transaction."""
        answers = await asyncio.gather(*(self.owner.received(event.message, number) for event in received))
        for event, answer in zip(received, answers, strict=True):
            session.answer(event.sequence, answer)

    def _flush(self) -> None:
        if self._session is not None and self._writer is not None:
            data = self._session.data_to_send()
            if data:
                self._writer.write(data)
