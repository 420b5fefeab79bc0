"""A BOSH session (XEP-0124, XEP-0206) as transport of one client's stream: requests in, answers out. No sockets.

Requests are taken in the order of their rid, whatever order they come in; one is held until there is something to say,
its `wait` is over, or another comes. The last answers are kept, for a client whose connection broke asks again. That a
client has an answer is known once it asks so much further that it must have it: until then what was in it counts as
unacknowledged, as with every transport (docs/delivery.md).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from c2s.connections import Connections
from c2s.http.framing import alone
from c2s.stream import ClientStream, Header
from xmpp import errors, ns
from xmpp.errors import StreamError
from xmpp.stream import CLOSE_STREAM, open_stream
from xmpp.xml import element

VERSION: Final = (1, 11)  # of XEP-0124
HOLD: Final = 1  # requests kept waiting
POLLING_S: Final = 2.0  # between two empty requests of a client that polls
MAX_PAUSE_S: Final = 120
MAX_RID: Final = 2**53 - 1  # 14.1
OUTPUT_BYTES: Final = 8_388_608  # a client that lets so much pile up is cut off
RESTART: Final = f"{ns.XBOSH} restart"
_LANG: Final = f"{ns.XML} lang"
# The stream errors that XEP-0124, 17.2, has a condition of its own for.
_CONDITIONS: Final = frozenset({"host-gone", "host-unknown", "improper-addressing", "system-shutdown"})

Answer = Callable[[bytes | None], None]  # the body that answers a request; None: nobody asks any more


class Body(NamedTuple):
    """The <body/> of a request. Attributes are named as expat does: "namespace local"."""

    attributes: Mapping[str, str]
    inner: bytes


class _Held(NamedTuple):
    """A request without an answer yet."""

    answer: Answer
    until: float


def terminal(condition: str, content: bytes = b"") -> bytes:
    """The end of a session by a terminal binding error (XEP-0124, 17.2); "" is none."""
    return element("body", ns.HTTPBIND, {"type": "terminate", "condition": condition or None}, content)


def number(text: str | None) -> int | None:
    """A number that is not negative, as attributes have it."""
    return int(text) if text is not None and len(text) <= 16 and text.isascii() and text.isdigit() else None


class BoshSession:
    """One session, from the request that made it on."""

    transport_name = "bosh"
    is_framed = False
    has_starttls = False

    def __init__(
        self, connections: Connections, sid: str, body: Body, address: str, is_secure: bool, wait_s: int,
        inactivity_s: int, now: Callable[[], float], ended: Callable[[BoshSession], None],
    ) -> None:  # fmt: skip
        """`body`: the session request, whose `rid` is right. `ended` is called once; for some time then, the client may
        ask for the last answers again."""
        get = body.attributes.get
        self.sid = sid
        self.address = address
        self.is_secure = is_secure
        self._connections = connections
        self._now = now
        self._ended = ended
        self._rid = (number(get("rid")) or 0) - 1  # the last one that was taken
        self._wait_s = min(wait_s, _given(get("wait"), wait_s))
        self._hold = min(HOLD, _given(get("hold"), HOLD)) if self._wait_s else 0
        self._requests = self._hold + 1
        self._inactivity_s: float = inactivity_s
        self._allowed_s: float = inactivity_s  # now: a pause may make it another one
        self._key = get("newkey")
        self._version = _lower(get("ver"))
        self._acks = get("ack") == "1"
        self._waiting: dict[int, tuple[Body, Answer]] = {}  # too early, or not read for now
        self._held: dict[int, _Held] = {}
        self._answers: dict[int, bytes] = {}
        self._written: dict[int, int] = {}  # rid -> up to which q its answer, and those before, told
        self._out: list[bytes] = []
        self._queued = 0
        self._is_reading = True
        self._is_first = True  # the answer to the session request is due
        self._is_over = False
        self._condition = ""
        self._header: Header | None = None
        self._polled_at = -POLLING_S  # when there was a request for nothing, and nothing to tell
        self._idle_since = now()
        connections.all.add(self)
        self.stream: ClientStream | None = connections.make_stream(self)

    # --- requests

    def receive(self, rid: int, body: Body, answer: Answer) -> None:
        """A request with this rid. `answer` is called once, now or later."""
        if rid <= self._rid:
            self._again(rid, answer)
        elif self._is_over:
            answer(self._last())
        elif rid > self._rid + self._requests + ("pause" in body.attributes or "type" in body.attributes):
            self._fail("item-not-found", answer)  # 14.2
        else:
            earlier = self._waiting.pop(rid, None)
            if earlier is not None:
                earlier[1](None)
            self._waiting[rid] = (body, answer)
            self._take()

    def _again(self, rid: int, answer: Answer) -> None:
        """14.3: a connection was broken, and the client asks the same again."""
        if rid in self._answers:
            answer(self._answers[rid])
        elif rid in self._held:
            held = self._held[rid]
            self._held[rid] = held._replace(answer=answer)
            held.answer(None)
        else:
            self._fail("item-not-found", answer)

    def _take(self) -> None:
        """What comes next, in order (14.2)."""
        while self._is_reading and not self._is_over and self._rid + 1 in self._waiting:
            self._rid += 1
            body, answer = self._waiting.pop(self._rid)
            self._handle(self._rid, body, answer)
        if not self._is_over:
            self._connections.dirty.add(self)

    def _handle(self, rid: int, body: Body, answer: Answer) -> None:
        get, stream, now = body.attributes.get, self._stream(), self._now()
        kind, pause = get("type"), number(get("pause"))
        if not self._is_first and not self._is_right_key(get("key"), get("newkey")):
            self._fail("item-not-found", answer)  # 15.5
            return
        if kind not in (None, "terminate") or ("pause" in body.attributes and not pause):
            self._fail("bad-request", answer)
            return
        is_poll = not (self._is_first or self._hold or body.inner or kind or pause or RESTART in body.attributes)
        if is_poll and now - self._polled_at < POLLING_S:
            self._fail("policy-violation", answer)  # 12
            return
        self._polled_at = now if is_poll and not self._out else -POLLING_S
        self._acknowledge(max(rid - self._requests, number(get("ack")) or 0 if self._acks else 0))
        self._allowed_s = self._inactivity_s
        self._held[rid] = _Held(answer, now + self._wait_s)
        if pause is not None:
            self._pause(rid, min(pause, MAX_PAUSE_S))
            return
        if self._is_first or get(RESTART) in ("true", "1"):
            stream.receive_data(
                open_stream(namespace=ns.CLIENT, from_=get("from") or "", to=get("to"), lang=get(_LANG))
            )
        if body.inner:
            stream.receive_data(body.inner)
        elif not stream.awaits_header:
            stream.receive_data(b" ")  # its client lives
        if kind == "terminate":
            stream.receive_data(CLOSE_STREAM)

    def violate(self, fault: StreamError, answer: Answer) -> None:
        """A request was no XML, or not what a stream may have (RFC 6120, 11.1)."""
        self._rid += 1  # whatever it said
        self._held[self._rid] = _Held(answer, self._now())
        self._stream().fail(fault)

    def _stream(self) -> ClientStream:
        assert self.stream is not None
        return self.stream

    def _is_right_key(self, key: str | None, new: str | None) -> bool:
        """15.4: the hash of each key is the one before."""
        if self._key is None:
            return True
        digest = hashlib.sha1((key or "").encode(), usedforsecurity=False).hexdigest()
        is_right = hmac.compare_digest(digest.encode(), self._key.lower().encode())
        self._key = new or key
        return is_right

    def _pause(self, rid: int, seconds: float) -> None:
        """10: everything is answered at once, and the client may be silent for so long."""
        for other in sorted(self._held):
            if other != rid:
                self._answer(other)
        held = self._held.pop(rid)
        held.answer(self._body({}, b""))
        self._answers[rid] = self._body({}, b"")
        self._allowed_s = seconds
        self._idle_since = self._now()

    def _acknowledge(self, rid: int) -> None:
        """The client has the answers up to this one."""
        for known in [known for known in self._answers if known <= rid]:
            del self._answers[known]
        reached = [known for known in self._written if known <= rid]
        q = max((self._written.pop(known) for known in reached), default=0)
        session = self.stream.session if self.stream is not None else None
        if session is not None and not session.is_managed and q > session.acknowledged:
            self._connections.edge.written(session, q)

    # --- answers

    def flush(self) -> None:
        """Answer what can be answered: the oldest first."""
        if self._is_over:
            return
        if self._held and (self._out or self._is_first):
            self._answer(min(self._held))
        while len(self._held) > self._hold:
            self._answer(min(self._held))

    def _answer(self, rid: int) -> None:
        content = b"".join(self._out)
        self._out.clear()
        self._queued = 0
        attributes: dict[str, str | None] = {}
        if self._is_first:
            self._is_first = False
            attributes = self._opening()
        elif self._acks and self._rid != rid:
            attributes["ack"] = str(self._rid)
        stream = self.stream
        if content and stream is not None and stream.session is not None:
            self._written[rid] = stream.session.q - stream.parked
        self._say(rid, self._body(attributes, content))

    def _say(self, rid: int, data: bytes) -> None:
        held = self._held.pop(rid)
        self._answers[rid] = data
        while len(self._answers) > self._requests + (0 if not self._acks else 2):
            del self._answers[min(self._answers)]
        self._idle_since = self._now()
        held.answer(data)

    def _opening(self) -> dict[str, str | None]:
        """What the answer to the session request tells (XEP-0124, 7.2; XEP-0206, 4)."""
        is_polling, header = not self._hold, self._header
        return {
            "sid": self.sid,
            "wait": str(self._wait_s),
            "hold": str(self._hold),
            "requests": str(self._requests),
            "inactivity": str(int(self._inactivity_s)),
            "polling": str(int(POLLING_S)) if is_polling else None,
            "maxpause": str(MAX_PAUSE_S),
            "ver": self._version,
            "ack": str(self._rid) if self._acks else None,
            "from": header.from_ if header is not None else None,
            "authid": header.id if header is not None else None,
            "secure": "true" if self.is_secure else None,
            "xmlns:xmpp": ns.XBOSH,
            "xmpp:version": "1.0",
            "xmpp:restartlogic": "true",
        }

    @staticmethod
    def _body(attributes: Mapping[str, str | None], content: bytes) -> bytes:
        return element("body", ns.HTTPBIND, attributes, content)

    # --- ends

    def _fail(self, condition: str, answer: Answer) -> None:
        """The session is over: its stream is broken, not closed, and may be resumed."""
        stream, self._condition = self.stream, condition
        self._out.clear()
        self._over()
        answer(self._last())
        if stream is not None:
            stream.connection_lost()

    def _last(self) -> bytes:
        return terminal(self._condition)

    def _over(self) -> None:
        """Nothing is said any more but that."""
        if self._is_over:
            return
        self._is_over = True
        content = b"".join(self._out)
        self._out.clear()
        for rid in sorted(self._held):
            attributes = self._opening() if self._is_first else {}
            self._is_first = False
            last: dict[str, str | None] = {"type": "terminate", "condition": self._condition or None}
            self._say(rid, self._body(attributes | last, content))
            content = b""
        for _, answer in self._waiting.values():
            answer(self._last())
        self._waiting.clear()
        self._connections.all.discard(self)
        self._connections.dirty.discard(self)
        self.stream = None
        self._ended(self)

    def check(self) -> None:
        """About once a second: `wait`, inactivity, the stream's own times."""
        now, stream = self._now(), self.stream
        if stream is None:
            return
        for rid in sorted(self._held):
            if now >= self._held[rid].until:
                self._answer(rid)
        if not self._held and now - self._idle_since > self._allowed_s:
            self._over()
            stream.connection_lost()
        elif self._queued > OUTPUT_BYTES:
            stream.fail(errors.StreamResourceConstraint("Too much is waiting to be read."))
        else:
            stream.check_time()

    # --- the stream's side (c2s/stream.py, Transport)

    def write(self, data: bytes) -> None:
        """Queue one first-level element."""
        if data.startswith(b"<stream:error"):
            self._on_error(data)
            return
        self._out.append(alone(data))
        self._queued += len(data)
        self._connections.dirty.add(self)

    def _on_error(self, data: bytes) -> None:
        """XEP-0206, 6: the body has the content of <stream:error/>."""
        inner = data[data.index(b">") + 1 : data.rindex(b"<")]
        name = inner[1:].split(b" ", 1)[0].decode()
        if name in _CONDITIONS:
            self._condition = name
        else:
            self._condition = "remote-stream-error"
            self._out.append(inner)

    def open_stream(self, header: Header) -> None:
        """A BOSH session has no header (XEP-0206, 3); the first one is told in part."""
        if self._header is None:
            self._header = header

    def close_stream(self) -> None:
        """The end of the session says it."""

    def keep_alive(self) -> None:
        """Its requests do that."""

    def start_tls(self) -> None:
        """Never offered here."""
        raise NotImplementedError

    def close(self) -> None:
        """Say what is queued, and that it is over."""
        self._over()

    def abort(self) -> None:
        """The same: there is no connection of its own."""
        self._over()

    def pause_reading(self) -> None:
        """Take no more requests for now."""
        self._is_reading = False

    def resume_reading(self) -> None:
        """Take them again."""
        if not self._is_reading:
            self._is_reading = True
            self._take()

    @property
    def queued_bytes(self) -> int:
        """What was said and not asked for."""
        return self._queued

    def channel_bindings(self) -> dict[str, bytes]:
        """None: requests may come by any connection."""
        return {}

    def chain(self) -> tuple[bytes, ...]:
        """None."""
        return ()


def _lower(version: str | None) -> str:
    """7.2: the version of the client or ours, whichever is lower."""
    major, _, minor = (version or "").partition(".")
    theirs = (number(major) or VERSION[0], number(minor) or 0) if version else VERSION
    return ".".join(map(str, min(theirs, VERSION)))


def _given(text: str | None, default: int) -> int:
    found = number(text)
    return default if found is None else found
