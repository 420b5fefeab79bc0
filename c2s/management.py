"""Stream management of a client stream (XEP-0198): counts, acknowledgements, resumption. No sockets.

`<a/>` to the client says what is safe, never what was merely read: the owner's `conf` (docs/delivery.md, §2). The
arithmetic is `xmpp/sm.py`, the owner's half `router/resumption.py`.
"""

from __future__ import annotations

from typing import Final, Protocol

from cluster import metrics
from cluster.edge import Edge, EdgeSession
from cluster.wire import SessionId
from xmpp import errors, ns
from xmpp.errors import StreamError
from xmpp.sm import parse_h, too_high, unwrapped, wrapped
from xmpp.stream import Element
from xmpp.xml import element

ACK_WITHIN_S: Final = 60.0  # a client that does not answer <r/> for so long is gone
REQUEST: Final = element("r", ns.SM)

resumptions = metrics.counter(
    "stentor_c2s_resumptions_total", "Streams that clients asked to resume, by outcome", {"result": ["ok", "failed"]}
)


class Host(Protocol):
    """The stream that is managed."""

    def write(self, data: bytes) -> None:
        """Write to the client."""

    def fail(self, fault: StreamError) -> None:
        """Close the stream with an error."""

    @property
    def parked(self) -> int:
        """How many deliveries are not written yet."""


class Management:
    """What a stream counts from `<enable/>` (or `<resumed/>`) on."""

    __slots__ = ("_asked_at", "_edge", "_host", "_is_asking", "_session")

    def __init__(self, host: Host, edge: Edge, session: EdgeSession) -> None:
        self._host = host
        self._edge = edge
        self._session = session
        self._is_asking = False  # an <r/> is not answered yet
        self._asked_at = 0.0

    def enable(self, event: Element, timeout_s: int) -> bytes:
        """`<enable/>` (3): from here on both sides count. Returns `<enabled/>`, the next thing to be written."""
        session = self._session
        wants_resume = event.attributes.get("resume") in ("true", "1") and timeout_s > 0
        session.is_managed = True
        self._edge.enable(session, wants_resume, self._host.parked)
        attributes: dict[str, str | None] = {}
        if wants_resume:
            attributes = {"id": token(session.sid), "resume": "true", "max": str(timeout_s)}
        return element("enabled", ns.SM, attributes)

    def resumed(self, previd: str) -> bytes:
        """Returns `<resumed/>` (5); what the client has not got follows it."""
        session = self._session
        session.is_managed = True
        h = wrapped(session.conf, session.n0)
        return element("resumed", ns.SM, {"previd": previd, "h": str(h)})

    def on_request(self) -> None:
        """`<r/>` (4): answered at once with what is safe now, and once more when all that was read is."""
        session = self._session
        self._acknowledge()
        if session.conf < session.n:
            session.owed = session.n

    def confirmed(self) -> None:
        """What an `<r/>` had asked about is safe now."""
        self._acknowledge()

    def _acknowledge(self) -> None:
        session = self._session
        self._host.write(b'<a xmlns="urn:xmpp:sm:3" h="%d"/>' % wrapped(session.conf, session.n0))

    def on_ack(self, event: Element) -> None:
        """`<a/>` (4): the client has everything up to h."""
        session = self._session
        h = parse_h(event.attributes.get("h"))
        if h is None:
            self._host.fail(errors.BadFormat("An <a/> needs an 'h' that is a number."))
            return
        reached = unwrapped(h, session.acknowledged, session.q0)
        if too_high(reached, session.q):
            detail = {"h": str(h), "send-count": str(wrapped(session.q, session.q0))}
            too_much = element("handled-count-too-high", ns.SM, detail)
            self._host.fail(
                errors.StreamUndefinedCondition("You acknowledge more than was sent.", application=too_much)
            )
            return
        self._is_asking = False
        self._edge.written(session, reached)

    def delivered(self, now: float) -> None:
        """A stanza was written: ask whether it arrives, unless a question is under way."""
        if not self._is_asking:
            self._is_asking = True
            self._asked_at = now
            self._host.write(REQUEST)

    def check_time(self, now: float) -> bool:
        """About once a second; False where the client has not answered for too long. While it is we who do not read,
        it cannot answer: its silence begins when it is read again."""
        if self._session.is_paused:
            self._asked_at = now
            return True
        if not self._is_asking:
            if self._session.acknowledged < self._session.q:
                self.delivered(now)
            return True
        return now - self._asked_at < ACK_WITHIN_S


def token(sid: SessionId) -> str:
    """The id by which a client resumes a session: 63 random bits, good for its account alone."""
    return f"{sid:x}"


def parse_token(previd: str) -> SessionId | None:
    """The session of an id, None where it can be none of ours."""
    try:
        number = int(previd, 16)
    except ValueError:
        return None
    return SessionId(number) if 0 < number < 2**63 and token(SessionId(number)) == previd else None


def failed(condition: str, h: int | None = None) -> bytes:
    """`<failed/>` (3, 5): `h` is how much of the former session is safe, where that is known."""
    attributes = {"h": str(h)} if h is not None else None
    return element("failed", ns.SM, attributes, element(condition, ns.STANZAS))
