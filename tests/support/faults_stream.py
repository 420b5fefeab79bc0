"""A client's XML stream on asyncio, as little as the fault suite needs: plain TCP, PLAIN, elements in and text out.

It counts nothing and resends nothing; `tests/faults/bank.py` does.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Iterator
from typing import Final, cast
from xml.etree import ElementTree

from tests.support.client import SASL, STREAM_ERRORS, STREAMS, Element
from tests.support.cluster import FACTOR

SM: Final = "{urn:xmpp:sm:3}"
HEADER_S: Final = 2.0  # the c2s alone answers a header: no answer means that it is paused or gone

_LOST: Final = (ConnectionError, TimeoutError, OSError)


class Broken(Exception):
    """The stream is over; the text says how: the condition of a stream error, or what became of the connection."""


class Refused(Exception):
    """The server does not sign us in; the text is the condition."""


class Stream:
    """One connection with the stream on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, domain: str) -> None:
        self.domain = domain
        self._reader = reader
        self._writer = writer
        self._elements: Iterator[Element] = iter(())
        self._restart()

    @classmethod
    async def connect(cls, host: str, port: int, domain: str) -> Stream:
        """Connect and open a stream. Raises Broken, also where nobody answers."""
        try:
            async with asyncio.timeout(HEADER_S * FACTOR):
                reader, writer = await asyncio.open_connection(host, port)
        except _LOST as problem:
            raise Broken(f"no connection: {problem or type(problem).__name__}") from None
        stream = cls(reader, writer, domain)
        try:
            async with asyncio.timeout(HEADER_S * FACTOR):
                await stream.open()
        except TimeoutError:
            await stream.abort()
            raise Broken("nobody answered the header") from None
        except Broken:
            await stream.abort()
            raise
        return stream

    # --- bytes and elements

    def _restart(self) -> None:
        self._parser: ElementTree.XMLPullParser[Element] = ElementTree.XMLPullParser(("start", "end"))
        self._elements = self._parsed()

    def _parsed(self) -> Iterator[Element]:
        """First-level elements of what was fed so far; starts again after each feed."""
        depth = 0
        root: Element | None = None
        while True:
            for event, element in cast(Iterator[tuple[str, Element]], self._parser.read_events()):
                if event == "start":
                    depth += 1
                    root = element if depth == 1 else root
                    continue
                depth -= 1
                if depth == 0:
                    raise Broken("closed")
                if depth == 1:
                    assert root is not None
                    root.clear()
                    if element.tag == f"{STREAMS}error":
                        raise Broken(element[0].tag.removeprefix(STREAM_ERRORS))
                    yield element
            yield _MORE

    async def read(self) -> Element:
        """The next first-level element. Raises Broken."""
        while (element := next(self._elements)) is _MORE:
            try:
                data = await self._reader.read(65_536)
            except _LOST as problem:
                raise Broken(f"connection lost: {type(problem).__name__}") from None
            if not data:
                raise Broken("connection lost")
            self._parser.feed(data)
        return element

    def send(self, text: str) -> None:
        """Write; what cannot be written any more is noticed by `read`."""
        if not self._writer.is_closing():
            self._writer.write(text.encode())

    async def abort(self) -> None:
        """Cut the connection."""
        self._writer.transport.abort()
        try:
            await self._writer.wait_closed()
        except _LOST:
            pass

    def cut(self) -> None:
        """Cut the connection; `read` raises Broken then."""
        self._writer.transport.abort()

    # --- negotiation

    async def open(self) -> Element:
        """Send a header; returns the features."""
        self._restart()
        self.send(
            f"<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' "
            f"to='{self.domain}' version='1.0'>"
        )
        return await self.read()

    async def sign_in(self, name: str, password: str) -> None:
        """SASL PLAIN and the header behind it. Raises Refused."""
        data = b64encode(f"\0{name}\0{password}".encode()).decode()
        self.send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{data}</auth>")
        answer = await self.read()
        if answer.tag != f"{SASL}success":
            raise Refused(answer[0].tag.removeprefix(SASL))
        await self.open()


_MORE: Final = ElementTree.Element("more")
