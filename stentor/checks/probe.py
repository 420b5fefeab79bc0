"""A stream that is opened only to see what is offered: by which TLS, with which certificate, and which features.

`Greeting` is the exchange without I/O (RFC 6120, 4.3 and 5.4): headers, STARTTLS, features, the end. `probe` connects
to one address and carries it out, each step in bounded time.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, TypeVar

from cluster.tls import chain_of
from s2s import features
from s2s.features import Features
from s2s.negotiation import FEATURES, PROCEED, STREAM_ERROR, TLS_FAILURE
from s2s.srv import Target
from xmpp import ns
from xmpp.stream import (
    CLOSE_STREAM,
    Element,
    Event,
    Limits,
    StreamClose,
    StreamOpen,
    StreamParser,
    Violation,
    open_stream,
)
from xmpp.xml import element, parse_children, split_tag, text_of

CONNECT_S: Final = 5.0
HANDSHAKE_S: Final = 10.0
ANSWER_S: Final = 10.0  # for one step of the stream
LIMITS: Final = Limits(stanza_bytes=65_536, depth=16, attributes=64, elements=1_000)
READ_BYTES: Final = 16_384
MOST_BYTES: Final = 262_144  # of one answer
NO_FEATURES: Final = Features()


class Stage(Enum):
    """How far it came."""

    CONNECT = "connecting"
    TLS = "the TLS handshake"
    STREAM = "the stream"
    DONE = "all is seen"


class Next(Enum):
    """What a greeting needs to go on."""

    READ = "bytes of the peer"
    TLS = "the TLS handshake; then `tls_established`"
    NOTHING = "it is over"


@dataclass(frozen=True, slots=True)
class Offer:
    """What a stream has shown."""

    problem: str = ""  # why it ended early, "" if the features were seen
    condition: str = ""  # of the peer's stream error (RFC 6120, 4.9.3)
    has_starttls: bool = False
    is_secure: bool = False  # the features are those behind TLS
    features: Features = NO_FEATURES
    has_dialback: bool = False  # offered, or declared in the header (XEP-0220, 2.4.1)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen at one address of one target."""

    target: Target
    address: str
    stage: Stage = Stage.CONNECT
    problem: str = ""
    tls: str = ""  # version, as in TLSv1.3
    alpn: str = ""
    chain: tuple[bytes, ...] = ()  # DER, the server's own certificate first
    offer: Offer = field(default_factory=Offer)


class Greeting:
    """The exchange, as the side that opens the stream."""

    def __init__(self, to: str, from_: str, namespace: str = ns.SERVER, *, is_secure: bool) -> None:
        self.next = Next.READ
        self.offer = Offer(is_secure=is_secure)
        self._header = open_stream(namespace=namespace, from_=from_, to=to)
        self._parser = StreamParser(namespace, LIMITS)

    def begin(self) -> bytes:
        """The first thing to write."""
        return self._header

    def receive(self, data: bytes) -> bytes:
        """Bytes of the peer; returns what to write."""
        self._parser.push(data)
        written = b""
        while self.next is Next.READ and (event := self._parser.next_event()) is not None:
            written += self._on(event)
        return written

    def receive_eof(self) -> None:
        """The peer has closed the connection."""
        if self.next is Next.READ:
            self._end("the server closed the connection before it said what it offers")

    def tls_established(self) -> bytes:
        """The handshake is done: a new stream begins (RFC 6120, 5.4.3.3)."""
        self._parser.restart(drop=True)
        self.offer = replace(self.offer, is_secure=True, has_dialback=False)
        self.next = Next.READ
        return self._header

    def _on(self, event: Event) -> bytes:
        match event:
            case StreamOpen():
                self.offer = replace(self.offer, has_dialback=event.has_dialback)
                if event.version is None or not event.version.strip().startswith("1."):
                    self._end("the server speaks no XMPP 1.0")
            case Element(name=name) if name == FEATURES:
                return self._on_features(features.parse(event.inner))
            case Element(name=name) if name == PROCEED:
                self.next = Next.TLS
            case Element(name=name) if name == TLS_FAILURE:
                self._end("the server refuses STARTTLS")
            case Element(name=name) if name == STREAM_ERROR:
                self._on_error(event)
            case StreamClose():
                self._end("the server closed the stream before it said what it offers")
            case Violation(error=error):
                self._end(f"what the server sends is no XMPP stream: {error.text or error.condition}")
            case _:
                self._end("the server sends something else than its features")
        return b""

    def _on_features(self, offered: Features) -> bytes:
        if not self.offer.is_secure and offered.has_starttls:
            self.offer = replace(self.offer, has_starttls=True)
            return element("starttls", ns.TLS)
        self.offer = replace(
            self.offer, features=offered, has_dialback=self.offer.has_dialback or offered.has_dialback
        )  # fmt: skip
        self.next = Next.NOTHING
        return CLOSE_STREAM

    def _on_error(self, error: Element) -> None:
        names = [(split_tag(str(child.tag)), text_of(child)) for child in parse_children(error.inner, ns.SERVER)]
        of_stream = {local: text for (namespace, local), text in names if namespace == ns.STREAM_ERRORS}
        text = of_stream.pop("text", "")
        condition = next(iter(of_stream), "undefined-condition")
        self._end(f"the server ends the stream: {condition}{f' ({text})' if text else ''}", condition)

    def _end(self, problem: str, condition: str = "") -> None:
        self.offer = replace(self.offer, problem=problem, condition=condition)
        self.next = Next.NOTHING


class _Stopped(Exception):
    """A step has failed; the text says how."""


async def probe(
    target: Target,
    address: str,
    greeting: Greeting,
    *,
    tls: ssl.SSLContext,
    server_name: str,
    connect_s: float = CONNECT_S,
    handshake_s: float = HANDSHAKE_S,
    answer_s: float = ANSWER_S,
) -> Seen:
    """Look at what listens there; `tls` is for direct TLS or STARTTLS, as the target has it. Never raises."""
    seen = Seen(target, address)
    try:
        reader, writer = await _within(connect_s, "connection", asyncio.open_connection(address, target.port))
    except _Stopped as problem:
        return replace(seen, problem=str(problem))
    try:
        if target.is_direct_tls:
            seen = replace(seen, stage=Stage.TLS)
            seen = await _handshake(writer, tls, server_name, handshake_s, seen)
        seen = replace(seen, stage=Stage.STREAM)
        writer.write(greeting.begin())
        while greeting.next is not Next.NOTHING:
            if greeting.next is Next.TLS:
                seen = replace(seen, stage=Stage.TLS)
                seen = await _handshake(writer, tls, server_name, handshake_s, seen)
                seen = replace(seen, stage=Stage.STREAM)
                writer.write(greeting.tls_established())
            await _within(answer_s, "answer", _answered(reader, writer, greeting))
    except _Stopped as problem:
        return replace(seen, problem=str(problem), offer=greeting.offer)
    finally:
        await _close(writer)
    offer = greeting.offer
    return replace(seen, stage=Stage.STREAM if offer.problem else Stage.DONE, problem=offer.problem, offer=offer)


_Result = TypeVar("_Result")


async def _within(seconds: float, what: str, step: Awaitable[_Result]) -> _Result:
    """The outcome of a step. Raises _Stopped."""
    try:
        async with asyncio.timeout(seconds):
            return await step
    except ssl.SSLError as problem:
        raise _Stopped(f"TLS: {problem.reason or problem}") from problem
    except TimeoutError as problem:
        raise _Stopped(f"no {what} within {seconds:g} s") from problem
    except OSError as problem:
        raise _Stopped(
            os.strerror(problem.errno) if problem.errno else str(problem) or "the connection was cut off"
        ) from problem


async def _answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, greeting: Greeting) -> None:
    """Read until the greeting goes on: it writes something, wants TLS or is over."""
    read = 0
    while greeting.next is Next.READ:
        data = await reader.read(READ_BYTES)
        if not data:
            greeting.receive_eof()
            return
        read += len(data)
        if read > MOST_BYTES:
            raise _Stopped("the server sends and sends, but no features")
        if written := greeting.receive(data):
            writer.write(written)
            return


async def _handshake(
    writer: asyncio.StreamWriter, tls: ssl.SSLContext, server_name: str, seconds: float, seen: Seen
) -> Seen:
    await _within(
        seconds, "handshake",
        writer.start_tls(tls, server_hostname=server_name, ssl_handshake_timeout=seconds),
    )  # fmt: skip
    secure = writer.get_extra_info("ssl_object")
    return replace(seen, tls=secure.version() or "", alpn=secure.selected_alpn_protocol() or "", chain=chain_of(secure))


async def _close(writer: asyncio.StreamWriter) -> None:
    """At once; nobody tells when a connection is gone whose handshake was given up, so that is not waited for."""
    writer.transport.abort()
    await asyncio.sleep(0)
