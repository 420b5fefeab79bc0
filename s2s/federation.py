"""Which streams this process has with other servers, and which it opens: decisions only, no sockets.

Owners ask for a way from one of our domains to another one (`dial`); incoming streams ask for keys to be verified
(`verify`). Both find a stream that serves already, or open one. Whoever is refused is not tried again at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import structlog

from cluster.edge import Edge
from s2s.incoming import IncomingStream
from s2s.metrics import dials
from s2s.negotiation import ENDING, State
from s2s.outgoing import OutgoingStream, Problem
from s2s.peer import Proof, StreamSettings, Transport
from s2s.stream import Pair, Stream
from xmpp import errors
from xmpp.dialback import Dialback
from xmpp.errors import StanzaError

log = structlog.get_logger(__name__)

OUTGOING: Final = 10_000  # streams that this process has opened or is opening
VERIFICATIONS: Final = 500  # keys that wait for their authoritative servers
FAILURES: Final = 1_000  # pairs whose last failure is remembered
RETRY_S: Final = 1.0  # after the first failure, then twice as long each time
RETRY_AT_MOST_S: Final = 30.0

Prove = Callable[[Transport, str, Callable[[Proof], None]], None]
Connect = Callable[[OutgoingStream], None]


@dataclass(slots=True)
class _Failure:
    """Why a pair could not be had, and from when on it is tried again."""

    problem: Problem
    at: float  # Unix seconds
    count: int
    retry_at: float  # monotonic


class FailureReport(NamedTuple):
    """For operators: what went wrong last between two domains."""

    remote: str
    local: str
    at: float  # Unix seconds
    times: int  # in a row
    condition: str
    text: str


class StreamReport(NamedTuple):
    """For operators: one stream."""

    direction: str
    remote: str
    local: str
    state: str
    address: str
    transport: str
    pairs: tuple[tuple[str, str, str, bool], ...]  # remote, local, by what authenticated, whether we send


class Federation:
    """All streams of one process with other servers."""

    def __init__(
        self, edge: Edge, settings: StreamSettings, *, connect: Connect, prove: Prove, new_id: Callable[[], str],
        now: Callable[[], float], clock: Callable[[], float],
    ) -> None:  # fmt: skip
        """`connect` begins to connect a stream, and ends with `connected` or `give_up` of it. `prove` judges a peer's
        certificate. `now` is monotonic, `clock` Unix time."""
        self._edge = edge
        self._settings = settings
        self._connect = connect
        self._prove = prove
        self._new_id = new_id
        self._now = now
        self._clock = clock
        self.secret = b""  # of dialback, from a router
        self.streams: dict[Stream, None] = {}  # all that are not closed, in order of age
        self._outgoing: dict[str, list[OutgoingStream]] = {}  # by every remote domain that they serve
        self._serves: dict[OutgoingStream, list[str]] = {}  # the other way round
        self._ways: dict[tuple[str, str], Stream] = {}  # (remote, local) -> where stanzas may be sent
        self._alone: dict[str, None] = {}  # remote domains whose servers end streams that another pair joins
        self._failures: dict[tuple[str, str], _Failure] = {}
        self._verifying = 0
        self._is_draining = False

    # --- what owners and listeners ask

    def incoming(self, transport: Transport) -> IncomingStream:
        """A stream for a connection that was accepted."""
        stream = IncomingStream(transport, self._edge, self._settings, self, self._new_id, self._now)
        self.streams[stream] = None
        return stream

    def dial(self, remote: str, local: str) -> None:
        """An owner has stanzas from `local` for `remote`. Asked again and again until there is a way, or it is told
        that there is none."""
        pair = (remote, local)
        if pair in self._ways or self._is_under_way(pair) or self._is_draining:
            return
        if (problem := self._objection(remote, local)) is not None:
            dials.labels("refused").inc()
            self._edge.tell_unreachable(remote, local, *problem)
            return
        stream = self._serving(remote)
        if stream is not None and remote not in self._alone:
            dials.labels("joined").inc()
        else:
            stream = self._open(remote, local)
        stream.want(remote, local)

    def verify(
        self, stream: Stream, question: Dialback, stream_id: str, done: Callable[[bool | StanzaError], None]
    ) -> None:
        """Have a key verified by the server of `question.from_`; never on the stream that has shown it (XEP-0288,
        2.2). `done` is told once, in bounded time."""
        remote, local = question.from_, question.to
        failure = self._failures.get((remote, local))
        if self._verifying >= VERIFICATIONS:
            done(errors.ResourceConstraint("Too many keys are being verified. Try again."))
            return
        if failure is not None and self._now() < failure.retry_at:
            done(errors.RemoteServerTimeout("Your server could not be reached just now."))
            return
        found = self._serving(remote, stream)
        if found is None and (len(self._serves) >= OUTGOING or self._is_draining):
            done(errors.ResourceConstraint("Too many streams. Try again."))
            return
        self._verifying += 1

        def verified(outcome: bool | StanzaError) -> None:
            self._verifying -= 1
            done(outcome)

        (found or self._open(remote, local)).ask_for(question, stream_id, verified)

    def join(self, stream: OutgoingStream, host: str, port: int) -> bool:
        """The server of a stream that is being connected is found. True if another stream goes there already, and
        takes other domains, too (XEP-0220, 2.6.2): the stream is over, what was wanted of it goes on there."""
        if stream.is_alone or stream.remote in self._alone:
            return False
        for other in self._serves:
            if other.target == (host, port) and other.is_multiplexing:
                self._serve(other, stream.remote)
                stream.move_to(other)
                return True
        return False

    def shut_down(self) -> None:
        """The process drains: every stream ends, and none is opened. To be called until there are none left: some may
        be accepted meanwhile."""
        self._is_draining = True
        for stream in list(self.streams):
            stream.shut_down()

    def tick(self) -> None:
        """About once a second: streams without a connection have nobody else who looks at their time."""
        for stream in list(self.streams):
            if stream.state is State.CONNECTING:
                stream.check_time()

    # --- for operators

    def reports(self, domain: str) -> list[StreamReport]:
        """Every stream with a domain, the oldest first."""
        return [_report(stream) for stream in self.streams if _concerns(stream, domain)]

    def failures(self, domain: str) -> list[FailureReport]:
        """The last failure of each pair with a domain that could not be had, the oldest first."""
        return [
            FailureReport(*pair, failure.at, failure.count, failure.problem.condition, failure.problem.text)
            for pair, failure in self._failures.items()
            if pair[0] == domain
        ]

    def close(self, domain: str) -> int:
        """End every stream with a domain, so that nothing is lost: what is written is acknowledged first, the rest goes
        back to its owner, who dials anew if there is anything. Returns how many there were."""
        found = [stream for stream in self.streams if _concerns(stream, domain) and stream.state not in ENDING]
        for stream in found:
            stream.leave("operator")
        return len(found)

    # --- what streams tell (s2s/stream.py and outgoing.py, Host)

    def prove(self, transport: Transport, domain: str, done: Callable[[Proof], None]) -> None:
        """Whether the peer is the server of a domain, without dialback."""
        self._prove(transport, domain, done)

    def attached(self, stream: Stream, pair: Pair) -> None:
        """A pair is authenticated."""
        if pair.sends:
            key = (pair.remote, pair.local)
            self._ways.setdefault(key, stream)
            self._failures.pop(key, None)
            if isinstance(stream, OutgoingStream):
                dials.labels("ok").inc()

    def leaving(self, stream: Stream) -> None:
        """The stream takes no more stanzas: whoever has some is given another one."""
        for key in stream.pairs:
            if self._ways.get(key) is stream:
                del self._ways[key]
        if isinstance(stream, OutgoingStream):
            self._forget(stream)

    def ended(self, stream: Stream, reason: str) -> None:
        """The stream is over."""
        self.leaving(stream)
        self.streams.pop(stream, None)
        if not isinstance(stream, OutgoingStream):
            return
        if stream.is_verifying and stream.problem is not None and not stream.pairs:
            self._note((stream.remote, stream.local), stream.problem)
        if not stream.wanted or self._is_draining:
            return
        if stream.pairs:
            # It ended when another pair was about to join it: that may have been the reason.
            if len(self._alone) >= FAILURES:
                del self._alone[next(iter(self._alone))]
            self._alone[stream.remote] = None
        elif stream.is_refused:
            # The peer has closed the stream with the failure of EXTERNAL: it may take a key.
            wanted = stream.withdraw()
            again = self._open(stream.remote, stream.local, can_external=False)
            for remote, local in wanted:
                again.want(remote, local)

    def unreachable(self, remote: str, local: str, problem: Problem) -> None:
        """A pair that was wanted cannot be had: its owner is told, and it is not tried again for a while."""
        dials.labels("failed").inc()
        self._note((remote, local), problem)
        self._edge.tell_unreachable(remote, local, *problem)

    def apart(self, remote: str, local: str) -> None:
        """A pair needs a stream of its own."""
        self._open(remote, local, is_alone=True).want(remote, local)

    def _note(self, pair: tuple[str, str], problem: Problem) -> None:
        failure = self._failures.pop(pair, None)
        count = failure.count + 1 if failure is not None else 1
        wait_s = min(RETRY_S * 2 ** min(count - 1, 10), RETRY_AT_MOST_S)
        if len(self._failures) >= FAILURES:
            del self._failures[next(iter(self._failures))]
        self._failures[pair] = _Failure(problem, self._clock(), count, self._now() + wait_s)
        log.info(
            "remote_unreachable", remote=pair[0], local=pair[1], condition=problem.condition, problem=problem.text,
            retry_s=wait_s,
        )  # fmt: skip

    # --- streams

    def _is_under_way(self, pair: tuple[str, str]) -> bool:
        return any(
            isinstance(stream, OutgoingStream) and pair in stream.wanted for stream in self._outgoing.get(pair[0], ())
        )

    def _objection(self, remote: str, local: str) -> Problem | None:
        """Why nobody is dialled."""
        settings = self._settings
        if remote in settings.domains or local not in settings.domains:
            return Problem("remote-server-not-found", "This is one of our own domains.", True)
        if settings.policy_of(remote) == "deny":
            return Problem("policy-violation", "s2s.domains or s2s.policy forbids traffic with this domain.", True)
        failure = self._failures.get((remote, local))
        if failure is not None and failure.problem.is_permanent and self._now() < failure.retry_at:
            return failure.problem  # of what is passing, the owner itself asks ever more seldom
        if len(self._serves) >= OUTGOING:
            return Problem("resource-constraint", "This process has opened as many streams as it may.")
        return None

    def _serving(self, remote: str, except_for: Stream | None = None) -> OutgoingStream | None:
        """A stream to this domain that takes requests."""
        streams = self._outgoing.get(remote, ())
        return next((stream for stream in streams if stream is not except_for and stream.state not in ENDING), None)

    def _open(
        self, remote: str, local: str, *, can_external: bool = True, is_alone: bool = False
    ) -> OutgoingStream:  # fmt: skip
        stream = OutgoingStream(
            self._edge, self._settings, self, self._now, remote, local, can_external=can_external, is_alone=is_alone
        )  # fmt: skip
        self.streams[stream] = None
        self._serves[stream] = []
        self._serve(stream, remote)
        self._connect(stream)
        return stream

    def _serve(self, stream: OutgoingStream, remote: str) -> None:
        self._serves[stream].append(remote)
        self._outgoing.setdefault(remote, []).append(stream)

    def _forget(self, stream: OutgoingStream) -> None:
        for remote in self._serves.pop(stream, ()):
            self._outgoing[remote].remove(stream)
            if not self._outgoing[remote]:
                del self._outgoing[remote]


def _concerns(stream: Stream, domain: str) -> bool:
    assert isinstance(stream, IncomingStream | OutgoingStream)
    return stream.remote == domain or any(remote == domain for remote, _ in stream.pairs)


def _report(stream: Stream) -> StreamReport:
    is_connected = stream.state is not State.CONNECTING
    assert isinstance(stream, IncomingStream | OutgoingStream)
    return StreamReport(
        stream.direction, stream.remote, stream.local, stream.state.name.lower(),
        stream.transport.address if is_connected else "", stream.transport.transport_name if is_connected else "",
        tuple((pair.remote, pair.local, pair.how, pair.sends) for pair in stream.pairs.values()),
    )  # fmt: skip
