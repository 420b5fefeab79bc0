"""A client stream without sockets: a transport that is a value, a real edge, and all routers played by one object."""

from __future__ import annotations

import re
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import count
from typing import Any, Final

from prometheus_client import REGISTRY

from c2s import features
from c2s.newcomer import Newcomers
from c2s.stream import ClientStream, Facts, Header, StreamSettings
from cluster.edge import Edge
from cluster.shards import SHARDS, shard_of
from cluster.wire import (
    ANSWER,
    ATTACH,
    ATTACHED,
    CALL,
    CONFIRMED,
    DELIVER,
    DETACH,
    MAP,
    REFUSED,
    REVOKED,
    SUBMIT,
    Envelope,
    Epoch,
    Incarnation,
    SessionId,
    Shard,
)
from xmpp import ns, scram, tokens
from xmpp.scram import Credentials
from xmpp.stanza import Stanza, from_wire
from xmpp.stream import CLOSE_STREAM, Limits

ROUTER: Final = Incarnation("router-1#0000000000000001")
OTHER_ROUTER: Final = Incarnation("router-2#0000000000000002")
DOMAIN: Final = "montague.example"
ROMEO: Final = f"romeo@{DOMAIN}"
PASSWORD: Final = "wherefore"
BINDINGS: Final = {"tls-exporter": b"e" * 32, "tls-server-end-point": b"p" * 32}

HEADER: Final = f"<stream:stream xmlns='jabber:client' xmlns:stream='{ns.STREAMS}' to='{DOMAIN}' version='1.0'>"
BIND: Final = f"<iq type='set' id='bind'><bind xmlns='{ns.BIND}'/></iq>"
STARTTLS: Final = f"<starttls xmlns='{ns.TLS}'/>"
CLOSE: Final = "</stream:stream>"

SETTINGS: Final = StreamSettings(
    domains=frozenset({DOMAIN}),
    is_tls_required=False,
    before_login=Limits(stanza_bytes=16_384, depth=16, attributes=64, elements=200),
    after_login=Limits(),
    before_login_bytes=65_536,
    sasl_tries=3,
    sessions=1_000,
    login_timeout_s=30.0,
    idle_timeout_s=1_800.0,
    keepalive_s=120.0,
    resume_timeout_s=600,
    limits_before_login=features.stream_limits(16_384, None),
    limits_after_login=features.stream_limits(262_144, 1_800.0),
)


_OF_NEWCOMERS: Final = frozenset({"may_register", "takes_invitations", "attempts"})


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class FakeTransport:
    """What a stream did to its connection."""

    is_framed = False
    has_starttls = True

    def __init__(self, *, is_secure: bool = False) -> None:
        self.transport_name = "tls" if is_secure else "tcp"
        self.is_secure = is_secure
        self.address = "192.0.2.1"
        self.written = b""
        self.is_reading = True
        self.is_closed = False
        self.is_in_handshake = False
        self.shown: tuple[bytes, ...] = ()  # certificates of the client

    def write(self, data: bytes) -> None:
        assert not self.is_closed, f"written after the end: {data!r}"
        self.written += data

    def open_stream(self, header: Header) -> None:
        self.write(header.to_bytes())

    def close_stream(self) -> None:
        self.write(CLOSE_STREAM)

    def keep_alive(self) -> None:
        self.write(b" ")

    def start_tls(self) -> None:
        self.is_in_handshake = True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        assert not self.is_closed
        self.is_reading = True

    def channel_bindings(self) -> dict[str, bytes]:
        return dict(BINDINGS) if self.is_secure else {}

    def chain(self) -> tuple[bytes, ...]:
        return self.shown if self.is_secure else ()


@lru_cache
def credentials(password: str, hash: str) -> Credentials:
    """As an account would have them."""
    return scram.derive(password, hash, b"salt" * 4, 4096)


class Router:
    """Owns every shard. Keeps what it is sent; `pump` answers, where it is told to."""

    def __init__(self) -> None:
        self.edge: Edge
        self.sent: list[Envelope] = []
        self.passwords = {ROMEO: PASSWORD}
        self.is_answering = True
        self.is_confirming = True
        self.call_error: Any = None  # the answer to every call, if set
        self.refusal: tuple[str, str] | None = None  # the answer to every attach, if set
        self.tokens: dict[tuple[str, str], str] = {}  # by account and mechanism
        self.rotated = ("", 0.0)  # what comes with the answer to a token
        self.attached_with: Mapping[str, Any] = {}  # the facts of the last attach
        self.asked_with = b""  # the device of the last token
        self.lacking: tuple[str, ...] = ()  # hashes of which accounts have no credentials
        self.upgraded: list[tuple[Any, ...]] = []
        self.ends: tuple[tuple[int, float], ...] = ()  # of every archive
        self.guests: list[tuple[Any, ...]] = []
        self.registered: list[tuple[Any, ...]] = []
        self.checked: list[tuple[Any, ...]] = []  # tokens
        self.wake: Callable[[], object] = lambda: None  # something waits to be answered
        self._unanswered: deque[Envelope] = deque()
        self._sids = count(101)
        self._seen: dict[SessionId, int] = {}
        self.q: dict[SessionId, int] = {}

    def send(self, to: Incarnation, envelope: Envelope) -> bool:
        """What the edge sends."""
        assert to == ROUTER
        self.sent.append(envelope)
        self._unanswered.append(envelope)
        self.wake()
        return True

    def of_kind(self, kind: int) -> list[Envelope]:
        """What was sent of this kind, without kind, shard and epoch."""
        return [envelope[3:] for envelope in self.sent if envelope[0] == kind]

    def submitted(self) -> list[Stanza]:
        """Every stanza sent by a client, in order."""
        return [from_wire(fields[3]) for fields in self.of_kind(SUBMIT)]

    def own_everything(self) -> None:
        """The edge learns the map."""
        entries = tuple((Shard(shard), Epoch(1), ROUTER) for shard in range(SHARDS))
        self.edge.receive(ROUTER, MAP, (entries,))
        self.sent.clear()
        self._unanswered.clear()

    def pump(self) -> None:
        """Answer everything that has come."""
        while self.is_answering and self._unanswered:
            kind, *fields = self._unanswered.popleft()
            if kind == CALL:
                self._on_call(*fields)
            elif kind == ATTACH:
                self._on_attach(*fields)
            elif kind == SUBMIT:
                self._seen[fields[2]] = fields[4]
                if self.is_confirming:
                    self.confirm(fields[2])
            elif kind == DETACH:
                self.revoke(fields[2], "")

    def confirm(self, sid: SessionId) -> None:
        """Everything of this session is safe."""
        session = self.edge.sessions[sid]
        self.edge.receive(ROUTER, CONFIRMED, (session.shard, 1, sid, session.gen, session.n))

    def revoke(self, sid: SessionId, condition: str) -> None:
        """The session is over."""
        session = self.edge.sessions.get(sid)
        if session is not None:
            self.edge.receive(ROUTER, REVOKED, (session.shard, 1, sid, session.gen + 1, condition))

    def deliver(self, sid: SessionId, stanza: Stanza) -> None:
        """The session's next stanza."""
        session = self.edge.sessions[sid]
        q = self.q[sid] = self.q.get(sid, 0) + 1
        self.edge.receive(ROUTER, DELIVER, (((session.shard, 1, sid, session.gen, q, None),), tuple(stanza)))

    def _on_call(self, shard: Shard, epoch: Epoch, request: str, method: str, arguments: tuple[Any, ...]) -> None:
        if self.call_error is not None:
            self.edge.receive(ROUTER, ANSWER, (request, False, self.call_error))
            return
        value: Any
        if method == "auth.salt":
            found = self._credentials(*arguments)
            value = (found.salt, found.iterations)
        elif method == "auth.proof":
            bare, hash, auth_message, proof = arguments
            value = scram.verify_proof(self._credentials(bare, hash), auth_message, proof)
        elif method == "auth.password":
            bare, password = arguments
            value = self.passwords.get(bare) == password
        elif method == "auth.certificate":
            value = arguments[0] in self.passwords
        elif method == "auth.guest":
            value = True
            self.guests.append(arguments)
        elif method == "auth.token_proof":
            value = self._check_token(*arguments[:5])
        elif method == "auth.issue":
            value = ("a new token", 1_800_000_000.0)
        elif method == "auth.upgrades":
            bare, hashes = arguments
            value = tuple((hash, b"salt" * 4, 5_000) for hash in hashes if hash in self.lacking)
        elif method == "auth.upgrade":
            value = None
            self.upgraded.append(arguments)
        elif method == "archive.ends":
            value = self.ends
        elif method == "invitations.check":
            value = None
            self.checked.append(arguments)
        else:
            assert method == "register"
            self.registered.append(arguments)
            value = b""
        self.edge.receive(ROUTER, ANSWER, (request, True, value))

    def _check_token(self, bare: str, device: bytes, mechanism: str, binding: bytes, proof: bytes) -> tuple[Any, ...]:
        self.asked_with = device
        token = self.tokens.get((bare, mechanism))
        if token == "expired":
            return None, True, "", 0.0, False
        answer = None if token is None else tokens.verify(token, binding, proof)
        return answer, False, *(self.rotated if answer is not None else ("", 0.0)), True

    def _credentials(self, bare: str, hash: str) -> Credentials:
        return credentials(self.passwords.get(bare, "a password that nobody has"), hash)

    def _on_attach(
        self, shard: Shard, epoch: Epoch, request: str, bare: str, resource: str | None, facts: Mapping[str, Any]
    ) -> None:
        assert shard == shard_of(bare)
        if self.refusal is not None:
            self.edge.receive(ROUTER, REFUSED, (shard, epoch, request, *self.refusal))
            return
        self.attached_with = facts
        answer = (shard, epoch, request, next(self._sids), 1, resource or "generated", 0, 0, None)
        self.edge.receive(ROUTER, ATTACHED, answer)


class Talk:
    """One client's conversation with its stream."""

    def __init__(
        self, *, is_secure: bool = False, router: Router | None = None, clock: Clock | None = None, **changes: Any
    ) -> None:
        self.clock = clock or Clock()
        self.transport = FakeTransport(is_secure=is_secure)
        requests = count(1)
        if router is None:
            router = Router()
            router.edge = Edge(router.send, lambda: f"request-{next(requests)}", self.clock)
            router.own_everything()
        self.router = router
        self.edge = router.edge
        self.transport.has_starttls = changes.pop("has_starttls", True)
        of_newcomers = {name: changes.pop(name) for name in _OF_NEWCOMERS & changes.keys()}
        self.settings = replace(SETTINGS, newcomers=Newcomers(**of_newcomers), **changes)
        ids = count(1)
        self.stream = ClientStream(
            self.transport, self.edge, self.settings, Facts(), lambda: f"stream-{next(ids)}", self.clock
        )
        self._read = 0

    @property
    def sid(self) -> SessionId:
        """The bound session."""
        assert self.stream.session is not None
        return self.stream.session.sid

    def is_read(self) -> bool:
        """Whether input is taken."""
        return self.transport.is_reading

    def is_over(self) -> bool:
        """Whether the connection has been closed."""
        return self.transport.is_closed

    def say(self, *pieces: str | bytes) -> str:
        """Send each piece; what has been written since the last time."""
        for piece in pieces:
            self.stream.receive_data(piece.encode() if isinstance(piece, str) else piece)
            self.router.pump()
        return self.heard()

    def heard(self) -> str:
        """What has been written since the last time."""
        new, self._read = self.transport.written[self._read :], len(self.transport.written)
        return new.decode()

    def tick(self, seconds: float) -> str:
        """Let time pass; what was written then."""
        self.clock.now += seconds
        self.edge.tick()
        self.stream.check_time()
        self.router.pump()
        return self.heard()

    def open(self) -> str:
        """Open a stream; our header and features."""
        return self.say(HEADER)

    def sign_in(self) -> None:
        """Two streams, the second one authenticated."""
        self.open()
        assert "<success" in self.say(auth("PLAIN", plain()))
        self.open()

    def bind(self) -> None:
        """A stream with a bound resource."""
        self.sign_in()
        assert f"<jid>{ROMEO}/generated</jid>" in self.say(BIND)


def plain(username: str = "romeo", password: str = PASSWORD, authzid: str = "") -> bytes:
    """PLAIN's only message (RFC 4616)."""
    return f"{authzid}\0{username}\0{password}".encode()


def auth(mechanism: str, initial: bytes | None = None) -> str:
    """`<auth/>`, with or without an initial response."""
    text = "" if initial is None else b64encode(initial).decode() or "="
    return f"<auth xmlns='{ns.SASL}' mechanism='{mechanism}'>{text}</auth>"


def response(data: bytes) -> str:
    """`<response/>`."""
    return f"<response xmlns='{ns.SASL}'>{b64encode(data).decode()}</response>"


def stream_error(written: str) -> str:
    """The condition of the stream error that ends what was written."""
    found = re.search(
        rf'<stream:error><([a-z-]+) xmlns="{ns.STREAM_ERRORS}"/>.*</stream:error></stream:stream>$', written
    )
    assert found is not None, written
    return found[1]


def failure(written: str) -> str:
    """The condition of the SASL failure in what was written."""
    found = re.search(rf'<failure xmlns="{ns.SASL}"><([a-z-]+)/>', written)
    assert found is not None, written
    return found[1]


def stanza_error(written: str) -> tuple[str, str]:
    """Type and condition of the error stanza in what was written."""
    found = re.search(rf'<error type="([a-z]+)"><([a-z-]+) xmlns="{ns.STANZAS}"/>', written)
    assert found is not None, written
    return found[1], found[2]


def sample(name: str, **labels: str) -> float:
    """The present value of a metric."""
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None, name
    return value


def closed(reason: str) -> float:
    """How many streams have ended for this reason."""
    return sample("stentor_c2s_connections_closed_total", reason=reason)


def encrypt(talk: Talk) -> None:
    """The TLS handshake is done."""
    talk.transport.is_secure = True
    talk.stream.tls_established()
