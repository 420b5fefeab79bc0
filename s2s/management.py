"""Stream management between servers (XEP-0198), without resumption: what was written and read, in order. No sockets.

A stream carries several sessions, one for each pair of domains, and XEP-0198 counts per stream. So the order in which
their stanzas went and came is kept here. `<a/>` says what is safe, never what was merely read (docs/delivery.md, §2).
Without XEP-0198, what the kernel has taken counts as acknowledged.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from cluster.edge import Edge, EdgeSession
from xmpp import errors, ns
from xmpp.errors import StreamError
from xmpp.sm import parse_h, too_high, unwrapped, wrapped
from xmpp.stream import Element
from xmpp.xml import element

ACK_WITHIN_S: Final = 60.0  # a peer that does not answer <r/> for so long is gone
REQUEST: Final = element("r", ns.SM)


class Host(Protocol):
    """The stream that is managed."""

    def write(self, data: bytes) -> None:
        """Write to the peer."""

    def fail(self, fault: StreamError) -> None:
        """Close the stream with an error."""


class Management:
    """What one stream has written and read. Numbers count from the beginning of the stream."""

    __slots__ = (
        "_asked_at", "_base", "_edge", "_h", "_host", "_is_asking", "_read", "_settled", "_written", "is_counting",
        "written",
    )  # fmt: skip

    def __init__(self, host: Host, edge: Edge) -> None:
        self._host = host
        self._edge = edge
        self._read: deque[tuple[EdgeSession, int]] = deque()  # not confirmed, as (session, n)
        self.is_counting = False  # we acknowledge what we read
        self._h = 0  # how many were confirmed since then
        self._written: deque[tuple[EdgeSession, int]] = deque()  # not acknowledged, as (session, q)
        self.written = 0  # stanzas written in all
        self._settled = 0  # of them acknowledged
        self._base: int | None = None  # `written` when the peer began to count
        self._is_asking = False  # an <r/> is not answered yet
        self._asked_at = 0.0

    # --- what we write

    @property
    def is_managed(self) -> bool:
        """Whether the peer acknowledges what we write."""
        return self._base is not None

    @property
    def awaits_kernel(self) -> bool:
        """Whether something was written that the peer will not acknowledge."""
        return self._settled < (self.written if self._base is None else self._base)

    @property
    def is_settled(self) -> bool:
        """Whether all that was written is acknowledged."""
        return not self._written

    def ask(self) -> None:
        """Send `<enable/>` (3): the peer counts what comes behind it; we count what comes behind its `<enabled/>`."""
        self._base = self.written
        self._host.write(element("enable", ns.SM))

    def refused(self) -> None:
        """`<failed/>`: the peer does not count."""
        self._base = None
        self._is_asking = False

    def accept(self) -> None:
        """The peer has sent `<enable/>`: both sides count."""
        self.is_counting = True
        self._base = self.written
        self._host.write(element("enabled", ns.SM))

    def sent(self, session: EdgeSession, now: float) -> None:
        """The session's stanza `session.q` was written: ask whether it arrives, unless a question is under way."""
        self.written += 1
        self._written.append((session, session.q))
        self._request(now)

    def skipped(self, session: EdgeSession) -> None:
        """The session's stanza `session.q` was not written, and will not be: it counts as acknowledged together with
        the one before it."""
        for index in reversed(range(len(self._written))):
            if self._written[index][0] is session:
                self._written[index] = (session, session.q)
                return
        self._edge.written(session, session.q)

    def taken(self, written: int) -> None:
        """The kernel has taken the first so many stanzas; without XEP-0198 that has to do."""
        self._settle(written if self._base is None else min(written, self._base))

    def on_ack(self, event: Element, now: float) -> None:
        """`<a/>` (4): the peer has everything up to h."""
        if self._base is None:
            self._host.fail(errors.UnsupportedStanzaType("Stream management is not enabled."))
            return
        h = parse_h(event.attributes.get("h"))
        if h is None:
            self._host.fail(errors.BadFormat("An <a/> needs an 'h' that is a number."))
            return
        reached = unwrapped(h, max(self._settled, self._base), self._base)
        if too_high(reached, self.written):
            detail = {"h": str(h), "send-count": str(wrapped(self.written, self._base))}
            too_much = element("handled-count-too-high", ns.SM, detail)
            self._host.fail(
                errors.StreamUndefinedCondition("You acknowledge more than was sent.", application=too_much)
            )
            return
        self._is_asking = False
        self._settle(reached)
        self._request(now)

    def check_time(self, now: float, is_paused: bool) -> bool:
        """About once a second; False where the peer has not answered for too long. While it is we who do not read, it
        cannot answer."""
        if is_paused:
            self._asked_at = now
        self._request(now)
        return not self._is_asking or now - self._asked_at < ACK_WITHIN_S

    def _request(self, now: float) -> None:
        if self._base is not None and self._written and not self._is_asking:
            self._is_asking = True
            self._asked_at = now
            self._host.write(REQUEST)

    def _settle(self, reached: int) -> None:
        if self._settled >= reached:
            return
        furthest: dict[EdgeSession, int] = {}
        take = self._written.popleft
        for _ in range(reached - self._settled):
            session, q = take()
            furthest[session] = q
        self._settled = reached
        for session, q in furthest.items():
            session.is_managed = self._base is not None and reached > self._base
            self._edge.written(session, q)

    # --- what we read

    def enable(self) -> None:
        """`<enabled/>` has come: we count what follows."""
        self.is_counting = True

    def read(self, session: EdgeSession) -> None:
        """A stanza was submitted as `session.n`."""
        if self.is_counting:
            self._read.append((session, session.n))

    def on_request(self) -> None:
        """`<r/>` (4): answered at once with what is safe now, and once more when all that was read is."""
        if not self.is_counting:
            self._host.fail(errors.UnsupportedStanzaType("Stream management is not enabled."))
            return
        self.acknowledge()
        for session, n in self._read:
            if n > session.conf:
                session.owed = n

    def acknowledge(self) -> None:
        """Write `<a/>`: what is safe now. Nothing where nobody counts."""
        if not self.is_counting:
            return
        while self._read and self._read[0][1] <= self._read[0][0].conf:
            self._read.popleft()
            self._h += 1
        self._host.write(b'<a xmlns="urn:xmpp:sm:3" h="%d"/>' % wrapped(self._h, 0))
