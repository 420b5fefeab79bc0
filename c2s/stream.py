"""A client's XML stream (RFC 6120) from header to close: bytes and answers in, bytes and requests out. No sockets.

It negotiates TLS, SASL and a resource, then hands each stanza, `from` stamped, to the edge. After the resource is
bound it originates no stanza and drops none: every reply, errors included, is the owner's (docs/delivery.md, rule 21).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import structlog

from c2s import features, sasl2, upgrades
from c2s.attempts import network_of
from c2s.client_certificates import ClientCertificates
from c2s.login import ANONYMOUS, INTERNAL, Login, Offer, offered
from c2s.management import Management, failed, parse_token, resumptions
from c2s.metrics import stats
from c2s.negotiation import (
    ABORT,
    ACK,
    ACK_REQUEST,
    ACTIVE,
    AUTH,
    ELEMENTS,
    ENABLE,
    INACTIVE,
    RESPONSE,
    RESUME,
    STARTTLS,
    State,
)  # fmt: skip
from c2s.newcomer import Newcomer, Newcomers
from cluster.edge import Attached, Edge, EdgeSession, Refused
from xmpp import errors, ns
from xmpp.errors import JidError, StanzaError, StreamError
from xmpp.jid import JID, prepare
from xmpp.scram import HASHES
from xmpp.sm import parse_h
from xmpp.stanza import BAD_TO, IQ, TO_FULL, Stanza, encode, error, is_answerable, result
from xmpp.stream import (
    Element,
    Event,
    Limits,
    StreamClose,
    StreamOpen,
    StreamParser,
    Violation,
    open_stream,
)
from xmpp.xml import element, text_of

log = structlog.get_logger(__name__)

PARSER_SLEEPS_S: Final = 1.0  # a parser costs 12 KB to keep and 5 us to make anew
CLOSE_WITHIN_S: Final = 5.0  # how long a client that has closed its stream waits for what it sent to be confirmed

# RFC 6120, 4.7.5: major and minor are separate integers; leading zeros are ignored, a minor version is no obstacle.
_VERSION_1: Final = re.compile(r"0*1\.[0-9]+")


class Transport(Protocol):
    """What carries a stream: TCP (c2s/tcp.py), WebSocket or BOSH (c2s/http/)."""

    transport_name: str
    is_framed: bool  # each piece of input is one first-level element (RFC 7395)
    has_starttls: bool  # TLS may begin within the stream

    def write(self, data: bytes) -> None:
        """Queue one first-level element."""

    def open_stream(self, header: Header) -> None:
        """Queue our stream header."""

    def close_stream(self) -> None:
        """Queue the end of our stream."""

    def keep_alive(self) -> None:
        """Queue what shows that we are there, and is nothing."""

    def start_tls(self) -> None:
        """Begin the TLS handshake; `tls_established` follows."""

    def close(self) -> None:
        """Write what is queued, then end the connection."""

    def abort(self) -> None:
        """End the connection at once."""

    def pause_reading(self) -> None:
        """Read no more for now."""

    def resume_reading(self) -> None:
        """Read again."""

    @property
    def is_secure(self) -> bool:
        """Whether TLS is in force."""

    @property
    def address(self) -> str:
        """The client's address."""

    def channel_bindings(self) -> dict[str, bytes]:
        """Channel binding data by type."""

    def chain(self) -> tuple[bytes, ...]:
        """The certificates that the client has shown (DER, its own first)."""


class Header(NamedTuple):
    """Our stream header (RFC 6120, 4.7); `to` is whoever the client says it is."""

    from_: str
    id: str
    to: str | None
    lang: str = "en"

    def to_bytes(self) -> bytes:
        """As XML."""
        return open_stream(namespace=ns.CLIENT, from_=self.from_, id=self.id, to=self.to, lang=self.lang)


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What every client stream of a process keeps to."""

    domains: frozenset[str]
    is_tls_required: bool
    before_login: Limits
    after_login: Limits
    before_login_bytes: int
    sasl_tries: int
    sessions: int  # of this process
    login_timeout_s: float
    idle_timeout_s: float
    keepalive_s: float
    resume_timeout_s: int  # 0: streams are not resumed
    limits_before_login: bytes  # XEP-0478, ready to send
    limits_after_login: bytes
    hashes: tuple[str, ...] = tuple(HASHES)  # for which SCRAM is offered
    backends: Mapping[str, str] = field(default_factory=dict)  # who checks passwords, by domain: internal unless named
    newcomers: Newcomers = field(default_factory=Newcomers)
    certificates: ClientCertificates | None = None  # by which clients may sign in


class Facts:
    """What routers have told this process: ready stream features by domain."""

    __slots__ = ("features",)

    def __init__(self) -> None:
        self.features: Mapping[str, bytes] = {}


class ClientStream:
    """One client's stream. Also the sink of its session."""

    __slots__ = (
        "_authentication", "_bare", "_before_login", "_claimed", "_domain", "_edge", "_facts", "_identities",
        "_is_closed", "_is_held", "_is_resumed", "_lang", "_last_in", "_last_out", "_log", "_login", "_management",
        "_new_id", "_newcomer", "_now", "_opened_at", "_parked", "_parser", "_request", "_settings", "_state",
        "_transport", "_tries", "_version", "session",
    )  # fmt: skip

    def __init__(
        self, transport: Transport, edge: Edge, settings: StreamSettings, facts: Facts, new_id: Callable[[], str],
        now: Callable[[], float],
    ) -> None:  # fmt: skip
        self._transport = transport
        self._edge = edge
        self._settings = settings
        self._facts = facts
        self._new_id = new_id
        self._now = now  # monotonic seconds
        self._parser = StreamParser(ns.CLIENT, settings.before_login, is_framed=transport.is_framed)
        self._state = State.HEADER
        self._is_held = False  # an answer is awaited
        self._is_resumed = False  # the session was another stream's before
        self._before_login = 0  # bytes read before authentication
        self._domain = ""
        self._bare = ""
        self._lang: str | None = None
        self._version = ""  # of what it was offered (XEP-0509)
        self._claimed: str | None = None  # who the client says it is, in its header
        self._identities: tuple[JID, ...] = ()  # who it may be, by its certificate
        self._login: Login | None = None
        self._authentication: sasl2.Authentication | None = None  # until it has entered
        self._tries = 0
        self._request: str | None = None
        self._newcomer: Newcomer | None = None  # whoever has no account yet
        self._opened_at = self._last_in = self._last_out = now()
        self.session: EdgeSession | None = None
        self._management: Management | None = None
        self._parked: deque[tuple[int, Stanza]] = deque()  # deliveries that wait, and until which n is safe
        self._is_closed = False
        self._log = log.bind()
        stats.opened(transport.transport_name)

    @property
    def state(self) -> State:
        """Where the stream is."""
        return self._state

    @property
    def is_signed_in(self) -> bool:
        """Whether the client has shown who it is."""
        return bool(self._bare)

    @property
    def awaits_header(self) -> bool:
        """Whether a stream header comes next."""
        return self._state is State.HEADER

    @property
    def input_limit(self) -> int:
        """Bytes of the greatest piece of input that makes sense now."""
        settings = self._settings
        return settings.after_login.stanza_bytes if self._bare else settings.before_login_bytes

    # --- the transport's side

    def receive_data(self, data: bytes) -> None:
        """Bytes from the client, however cut."""
        stats.bytes_in += len(data)
        if self._state is State.BOUND:
            self._last_in = self._now()
            self._handle_all(self._parser.feed(data))
            return
        if self._state is State.CLOSING or self._is_closed:
            return  # RFC 6120, 4.4: who has closed its stream sends nothing more
        self._last_in = self._now()
        self._parser.push(data)
        if not self._bare:
            self._before_login += len(data)
            if self._before_login > self._settings.before_login_bytes:
                self.fail(errors.StreamPolicyViolation("Too much data before authentication."))
                return
        if self._is_held:
            self._transport.pause_reading()  # until the answer is there
        else:
            self._negotiate()

    def receive_eof(self) -> None:
        """The client has half-closed its connection: as if it had closed the stream. It may still read."""
        if not self._is_closed:
            if self._state not in (State.HEADER, State.HANDSHAKE):  # else there is no stream of ours to close
                self._transport.close_stream()
            self._end("client" if self._state is State.CLOSING else "client-eof")
            self._transport.close()

    def connection_lost(self) -> None:
        """The connection is gone."""
        if not self._is_closed:
            self._end("client" if self._state is State.CLOSING else "connection-lost")

    def tls_established(self) -> None:
        """The STARTTLS handshake is done: the client opens a new stream (RFC 6120, 5.4.3.3). What it sent in clear
        behind <starttls/> is thrown away: it was not protected."""
        if self._is_closed:
            return
        self._parser.restart(drop=True)
        self._is_held = False
        self._state = State.HEADER

    def check_time(self) -> None:
        """About once a second: time-outs, keepalive, sleep of an idle parser."""
        now = self._now()
        settings = self._settings
        if self._state is not State.BOUND:
            if self._state is State.CLOSING:
                if now - self._last_in > CLOSE_WITHIN_S:
                    self._finish_close()
            elif now - self._opened_at > settings.login_timeout_s:
                self.fail(errors.ConnectionTimeout("No resource was bound in time."))
            return
        if now - self._last_in > settings.idle_timeout_s and not self._is_paused():
            self.fail(errors.ConnectionTimeout("Nothing was received for too long."))
        elif self._management is not None and not self._management.check_time(now):
            self.fail(errors.ConnectionTimeout("What was sent is not acknowledged."))
        elif now - max(self._last_out, self._last_in) > settings.keepalive_s:
            self._last_out = now
            self._transport.keep_alive()
        elif now - self._last_in > PARSER_SLEEPS_S:
            self._parser.hibernate()

    # --- events

    def _handle_all(self, events: list[Event]) -> None:
        for event in events:
            if event.__class__ is Stanza:
                self._submit(event)
            else:
                self._handle(event)
            if self._state is not State.BOUND:
                return

    def _negotiate(self) -> None:
        """One event at a time: each may change what the next one means."""
        while not self._is_held and not self._is_closed:
            event = self._parser.next_event()
            if event is None:
                return
            self._handle(event)

    def _hold(self) -> None:
        """Handle nothing more until an answer is there."""
        self._is_held = True

    def _release(self) -> None:
        if self._is_held and not self._is_closed:
            self._is_held = False
            self._transport.resume_reading()
            self._negotiate()

    def _handle(self, event: Event) -> None:
        match event:
            case Stanza():
                self._on_stanza(event)
            case StreamOpen():
                self._on_open(event)
            case Element():
                self._on_element(event)
            case StreamClose():
                self._on_close()
            case Violation():
                self.fail(event.error)

    def _on_open(self, event: StreamOpen) -> None:
        """RFC 6120, 4.7: the header is checked, ours goes out, then the features."""
        fault = self._header_fault(event) or self._shortage()
        self._lang = event.lang
        self._claimed = sasl2.claimed(event.from_)
        from_ = self._domain or next(iter(self._settings.domains))
        self._transport.open_stream(Header(from_, self._new_id(), self._header_from(event)))
        if fault is not None:
            self._fail_after_header(fault)
            return
        if self._bare:
            self._state = State.AUTHENTICATED
            of_domain = self._facts.features.get(self._domain, b"")
            self._transport.write(features.after_login(of_domain, self._settings.limits_after_login))
            return
        self._state = State.UNAUTHENTICATED
        offer = self._features()
        self._version = offer.version
        self._transport.write(offer.features)

    def _header_fault(self, event: StreamOpen) -> StreamError | None:
        if not event.to:
            # RFC 6120, 4.7.2: a client has to say whom it wants; with one domain there is no doubt.
            if len(self._settings.domains) > 1:
                return errors.HostUnknown("The stream header has no 'to'.")
            domain = next(iter(self._settings.domains))
        else:
            try:
                domain = prepare(event.to)
            except JidError:
                return errors.ImproperAddressing("The 'to' of the stream header is not a domain.")
            if domain not in self._settings.domains:
                return errors.HostUnknown("This domain is not served here.")
        if self._bare and domain != self._domain:
            return errors.HostUnknown("The domain changed during the negotiation.")
        self._domain = domain
        if event.version is None:
            return errors.UnsupportedVersion("XMPP 1.0 is needed (RFC 6120).")
        transport = self._transport
        if self._settings.is_tls_required and not (transport.is_secure or transport.has_starttls):
            return errors.StreamPolicyViolation("Use an address that begins with https:// or wss://.")
        if _VERSION_1.fullmatch(event.version) is None:
            return errors.UnsupportedVersion()
        return None

    def _shortage(self) -> StreamError | None:
        """Whether this process holds all the sessions that it may: refused before the work of signing in is done."""
        if len(self._edge.sessions) < self._settings.sessions:
            return None
        return errors.StreamResourceConstraint("This server holds as many sessions as it may. Try again.")

    @staticmethod
    def _header_from(event: StreamOpen) -> str | None:
        try:
            return prepare(event.from_) if event.from_ else None
        except JidError:
            return None

    def _features(self) -> features.Offered:
        settings, transport = self._settings, self._transport
        may_login = transport.is_secure or not settings.is_tls_required
        if settings.certificates is not None and transport.is_secure:
            # Once for each header: what is offered stays as it was, for SCRAM signs it (XEP-0474).
            self._identities = settings.certificates.accounts(self._domain, transport.chain())
        offer = self._offer()
        return features.before_login(
            starttls=transport.has_starttls and not transport.is_secure,
            is_tls_required=settings.is_tls_required,
            mechanisms=tuple(offer.mechanisms),
            token_mechanisms=tuple(offer.tokens),
            bindings=tuple(offer.bindings) if transport.is_secure else (),
            may_register=may_login and settings.newcomers.may_register and self._backend == INTERNAL,
            takes_invitations=may_login and settings.newcomers.takes_invitations and self._backend == INTERNAL,
            limits=settings.limits_before_login,
            upgrades=tuple(offer.upgrades),
        )

    def _offer(self) -> Offer:
        """What one may sign in with on this connection."""
        is_secure, bindings = self._transport.is_secure, self._transport.channel_bindings()
        if not is_secure and self._settings.is_tls_required:
            return Offer(self._domain, is_secure, bindings, ())
        identities, settings = self._identities, self._settings
        names = offered(is_secure, bindings, self._backend, settings.hashes, has_certificate=bool(identities))
        network = network_of(self._transport.address) if self._backend == ANONYMOUS else ""
        if self._backend != INTERNAL:  # who was taken off the list there would come back with a token for ever
            return Offer(self._domain, is_secure, bindings, names, identities=identities, network=network)
        tokens = sasl2.token_mechanisms(is_secure, settings.is_tls_required, bindings)
        return Offer(self._domain, is_secure, bindings, names, tokens, tuple(upgrades.TASKS), identities)

    @property
    def _backend(self) -> str:
        """Who checks the passwords of the stream's domain."""
        return self._settings.backends.get(self._domain, INTERNAL)

    def _on_element(self, event: Element) -> None:
        if event.name not in ELEMENTS.get(self._state, frozenset()):
            if self._bare == "" and not event.name.startswith((ns.TLS, ns.SASL, ns.SASL2)):
                self.fail(errors.StreamNotAuthorized("Sign in first."))
            else:
                self.fail(errors.UnsupportedStanzaType("This element is not expected here."))
            return
        if event.name == STARTTLS:
            self._on_starttls()
        elif event.name == sasl2.AUTHENTICATE:
            self._on_authenticate(event)
        elif self._state is State.AUTHENTICATING and event.name.startswith(ns.SASL2) != (self._login is None):
            # XEP-0388, 2.4: within an exchange of one profile, nothing of the other.
            self.fail(errors.UnsupportedStanzaType("This element is not expected here."))
        elif self._authentication is not None:
            self._authentication.handle(event)
        elif event.name == AUTH:
            self._on_auth(event)
        elif event.name == RESPONSE:
            assert self._login is not None
            self._login.respond(event.text)
        elif event.name == ABORT:
            assert self._login is not None
            self._login.abort()
        elif event.name in (ACTIVE, INACTIVE):
            if self.session is not None:  # before a resource is bound, nobody is inactive yet
                self._edge.tell_activity(self.session, event.name == ACTIVE)
        elif self._state is State.BOUND:
            self._on_management(event)
        elif event.name == RESUME:
            self._on_resume(event)
        else:
            self._transport.write(failed("unexpected-request"))  # XEP-0198, 3: <enable/> comes after the bind

    def _on_starttls(self) -> None:
        if self._transport.is_secure or not self._transport.has_starttls:
            # RFC 6120, 5.4.2.2: failure, then the stream and the connection end.
            self._transport.write(element("failure", ns.TLS))
            self._transport.close_stream()
            self._end("starttls-refused")
            self._transport.close()
            return
        self._state = State.HANDSHAKE
        self._hold()
        self._transport.write(element("proceed", ns.TLS))
        self._transport.start_tls()

    # --- signing in (c2s/login.py drives the exchange)

    def _on_auth(self, event: Element) -> None:
        transport = self._transport
        mechanism = event.attributes.get("mechanism", "")
        if self._login is not None:
            # RFC 6120, 6.4.2: another <auth/> discards the negotiation that is going on.
            self._login.discard()
            self._login = None
        if not transport.is_secure and self._settings.is_tls_required:
            fault = errors.EncryptionRequired()
            stats.auth(mechanism, fault.condition, 0.0)
            self.auth_failed(fault)
            return
        self._state = State.AUTHENTICATING
        self._login = Login(self, self._edge, self._offer(), self._now)
        self._login.begin(mechanism, event.text or None)

    def auth_challenge(self, data: bytes) -> None:
        """The exchange goes on; the client answers."""
        if self._is_closed:
            return
        self._transport.write(element("challenge", ns.SASL, None, data))
        self._release()

    def auth_waits(self) -> None:
        """A router is asked; input waits."""
        self._hold()

    def auth_failed(self, fault: errors.SaslError) -> None:
        """RFC 6120, 6.4.5: failure; the client may try again, a few times."""
        if self._is_closed:
            return
        self._transport.write(fault.to_bytes())
        self.refused(fault)

    def refused(self, fault: errors.SaslError, *, is_final: bool = False) -> None:
        """An exchange has failed, and its client has been told."""
        if self._is_closed:
            return
        self._login = self._authentication = None
        self._state = State.REFUSED if is_final else State.UNAUTHENTICATED
        if not isinstance(fault, errors.TemporaryAuthFailure | errors.Aborted):
            self._tries += 1
        if self._tries >= self._settings.sasl_tries:
            self.fail(errors.StreamPolicyViolation("Too many failed attempts to sign in."))
            return
        self._release()

    def auth_succeeded(self, username: str, data: bytes | None) -> None:
        """RFC 6120, 6.4.6: success, and the client opens a new stream."""
        if self._is_closed:
            return
        self._login = None
        self.signed_in(f"{username}@{self._domain}")
        self._transport.write(element("success", ns.SASL, None, *((data,) if data is not None else ())))
        self._state = State.HEADER
        self._parser.restart()
        self._release()

    # --- signing in by XEP-0388 (c2s/sasl2.py does everything; here is what it does it to)

    def _on_authenticate(self, event: Element) -> None:
        transport = self._transport
        self._state = State.AUTHENTICATING
        self._authentication = sasl2.Authentication(
            self, self._edge, self._offer(), self._claimed, self._now, self._version
        )
        if not transport.is_secure and self._settings.is_tls_required:
            self._authentication.auth_failed(errors.EncryptionRequired())
        else:
            self._authentication.begin(event)

    def hold(self) -> None:
        """An answer is awaited."""
        self._hold()

    def go_on(self) -> None:
        """It is there."""
        self._release()

    def signed_in(self, bare: str) -> None:
        """This is who the client is."""
        self._bare = bare
        self._parser.limits = self._settings.after_login
        self._state = State.BINDING

    def facts(self) -> dict[str, Any]:
        """What the owner is told of the stream."""
        return {"address": self._transport.address, "transport": self._transport.transport_name}

    def shortage(self) -> StreamError | None:
        """Why no session can be had."""
        return self._shortage()

    def attached(self, session: EdgeSession) -> None:
        """There is a session; its client does not know of it yet."""
        self.session = session
        self._log = self._log.bind(sid=session.sid)

    def enable(self, request: Element) -> bytes:
        """XEP-0198, 3: both sides count from what is written next."""
        assert self.session is not None
        self._management = Management(self, self._edge, self.session)
        # A guest comes back as another one, who may not have the session of somebody else.
        timeout_s = self._settings.resume_timeout_s if self._backend != ANONYMOUS else 0
        return self._management.enable(request, timeout_s)

    def resume(self, previd: str) -> bytes:
        """XEP-0198, 5."""
        assert self.session is not None
        self._management = Management(self, self._edge, self.session)
        self._is_resumed = True
        return self._management.resumed(previd)

    def entered(self, success: bytes) -> None:
        """The client has all that it asked for."""
        if self._is_closed:
            return
        self._authentication = None
        self._transport.write(success)
        of_domain = self._facts.features.get(self._domain, b"")
        if self.session is None:
            self._state = State.AUTHENTICATED
            self._transport.write(features.after_login(of_domain, self._settings.limits_after_login))
            self._release()
            return
        self._state = State.BOUND
        self._log.info("stream_bound", transport=self._transport.transport_name)
        is_managed = self._management is not None
        self._transport.write(features.after_bind(of_domain, self._settings.limits_after_login, is_managed=is_managed))
        self._write_parked()
        self._flow()

    # --- stanzas before a resource is bound

    def _on_stanza(self, stanza: Stanza) -> None:
        if self._state is State.BOUND:
            self._submit(stanza)
        elif self._state is State.AUTHENTICATED and stanza.kind == IQ and stanza.payload == f"{ns.BIND} bind":
            self._on_bind(stanza)
        elif (
            self._state is State.UNAUTHENTICATED
            and stanza.kind == IQ
            and stanza.payload in (f"{ns.REGISTER} query", f"{ns.PARS} preauth")
            and (self._transport.is_secure or not self._settings.is_tls_required)
        ):
            if self._newcomer is None:
                self._newcomer = Newcomer(
                    self, self._edge, self._settings.newcomers, self._domain, self.facts()["address"]
                )
            self._newcomer.handle(stanza)
        elif self._state is State.HEADER:
            self.fail(errors.NotWellFormed("A stanza before the stream header."))
        else:
            # RFC 6120, 4.9.3.12: stanzas before authentication (or binding) are completed.
            self.fail(errors.StreamNotAuthorized())

    def _on_bind(self, stanza: Stanza) -> None:
        if stanza.type != "set" or not stanza.id:
            self._reply_error(stanza, errors.BadRequest())
            return
        bind = stanza.child(ns.BIND, "bind")
        assert bind is not None
        wanted = text_of(bind.find(f"{{{ns.BIND}}}resource")) or None
        if wanted is not None:
            try:
                wanted = JID.parse(f"{self._bare}/{wanted}").resource
            except JidError as problem:
                self._reply_error(stanza, errors.BadRequest(str(problem)))  # RFC 6120, 7.7.2.1
                return
        if (shortage := self._shortage()) is not None:
            self.fail(shortage)
            return
        self._state = State.BINDING
        self._hold()
        self._request = self._edge.attach(
            self._bare, wanted, self.facts(), self, lambda answer: self._bound(stanza, answer)
        )

    def _bound(self, request: Stanza, answer: Attached | Refused) -> None:
        self._request = None
        if isinstance(answer, Refused):
            self._state = State.AUTHENTICATED
            self._reply_error(request, errors.stanza_error(answer.condition, answer.text or None))
            self._release()
            return
        self._start(answer.session)
        self._log.info("stream_bound", transport=self._transport.transport_name)
        jid = element("jid", None, None, answer.session.jid)
        self._transport.write(encode(result(request, element("bind", ns.BIND, None, jid))))
        self._flow()

    def _start(self, session: EdgeSession) -> None:
        self.session = session
        self._state = State.BOUND
        self._log = self._log.bind(sid=session.sid)

    def _flow(self) -> None:
        self._is_held = False
        self._transport.resume_reading()
        self._handle_all(self._parser.flow())

    # --- stream management (c2s/management.py)

    def _on_management(self, event: Element) -> None:
        management = self._management
        if management is None:
            if event.name != ENABLE:
                self._transport.write(failed("unexpected-request"))
                return
            assert self.session is not None
            self._transport.write(self.enable(event))
        elif event.name == ACK_REQUEST:
            management.on_request()
        elif event.name == ACK:
            management.on_ack(event)
        else:
            # XEP-0198, 3: a second <enable/> ends the stream.
            self.fail(errors.StreamPolicyViolation("Stream management is enabled already."))

    def _on_resume(self, event: Element) -> None:
        """XEP-0198, 5: instead of a bind, the session of an earlier stream."""
        previd = event.attributes.get("previd", "")
        sid, h = parse_token(previd), parse_h(event.attributes.get("h"))
        if sid is None or h is None:
            resumptions.labels("failed").inc()
            self._transport.write(failed("item-not-found" if h is not None else "bad-request"))
            return
        self._state = State.BINDING
        self._hold()
        self._request = self._edge.resume(self._bare, sid, h, self, lambda answer: self._resumed(previd, answer))

    def _resumed(self, previd: str, answer: Attached | Refused) -> None:
        self._request = None
        if isinstance(answer, Refused):
            resumptions.labels("failed").inc()
            if answer.condition == "handled-count-too-high":
                self.fail(errors.StreamUndefinedCondition(application=element(answer.condition, ns.SM)))
                return
            self._state = State.AUTHENTICATED
            self._transport.write(failed(answer.condition, answer.h))
            self._release()
            return
        resumptions.labels("ok").inc()
        self._start(answer.session)
        self._log.info("stream_resumed", transport=self._transport.transport_name)
        self._transport.write(self.resume(previd))
        self._flow()

    def write(self, data: bytes) -> None:
        """What the stream's parts write."""
        if not self._is_closed:
            self._transport.write(data)

    def confirmed(self) -> None:
        """Everything that the client asked about is safe (the session's sink)."""
        if self._authentication is not None:
            return
        if self._management is not None:
            self._management.confirmed()
        self._write_parked()

    def _write_parked(self) -> None:
        session, parked = self.session, self._parked
        while parked and session is not None:
            promised, stanza = parked[0]
            if promised > session.conf:
                session.owed = promised
                return
            parked.popleft()
            if not self._is_closed:
                self._write_stanza(stanza)

    def _reply_error(self, stanza: Stanza, fault: StanzaError) -> None:
        if is_answerable(stanza):
            self._transport.write(encode(error(stanza._replace(to=None, from_=None), fault)))

    # --- stanzas of a bound session

    def _submit(self, stanza: Stanza) -> None:
        """Stamp `from` and `xml:lang`, prepare `to`, hand over (RFC 6120, 8.1)."""
        session = self.session
        assert session is not None
        kind, type_, to, from_, id_, lang, flags, payload, extra, inner = stanza
        jid = session.jid
        if from_ is not None and from_ != jid and not self._is_mine(from_):
            self.fail(errors.InvalidFrom())  # RFC 6120, 8.1.2.1
            return
        if to is not None:
            try:
                to = prepare(to)
            except JidError:
                to, flags = None, flags | BAD_TO  # the owner answers jid-malformed
        if lang is None:
            lang = self._lang  # RFC 6120, 8.1.5: any stanza
        stats.stanzas_in[kind] += 1
        fields = (kind, type_, to, jid, id_, lang, flags, payload, extra, inner)
        self._edge.submit(session, tuple.__new__(Stanza, fields))  # as Stanza(...), in half the time

    def _is_mine(self, from_: str) -> bool:
        """COMPAT: Converse.js 14.0 names a resource of its own making where it has resumed a stream: there, any of the
        account's will do, for stamped is the true one (RFC 6120, 8.1.2.1)."""
        assert self.session is not None
        try:
            prepared = prepare(from_)
        except JidError:
            return False
        if self._is_resumed:
            return prepared.partition("/")[0] == self._bare
        return prepared in (self.session.jid, self._bare)

    # --- the sink of the session (cluster/edge.py)

    def deliver(self, stanza: Stanza) -> None:
        """Write a stanza to the client."""
        if self._is_closed:
            return  # its session waits for the owner's last word; nothing follows </stream:stream>
        promised = self._promised(stanza) if stanza.kind == IQ and self._management is None else 0
        if promised or self._parked or self._authentication is not None:
            self._parked.append((promised, stanza))
            return
        self._write_stanza(stanza)

    def _promised(self, stanza: Stanza) -> int:
        """Without stream management, an answer of the client's own server is its only acknowledgement: it says that
        everything sent before is safe, so it waits until that is true (docs/delivery.md, §7). Returns what has to be
        safe first, 0 for nothing."""
        session = self.session
        if session is None or stanza.type not in ("result", "error") or session.conf >= session.n:
            return 0
        if stanza.from_ not in (None, self._domain, self._bare):
            return 0
        session.owed = session.owed or session.n
        return session.n

    @property
    def parked(self) -> int:
        """How many deliveries are not written yet."""
        return len(self._parked)

    def _write_stanza(self, stanza: Stanza) -> None:
        self._last_out = self._now()
        stats.stanzas_out[stanza.kind] += 1
        to = self.session.jid if stanza.flags & TO_FULL and self.session is not None else self._bare
        self._transport.write(encode(stanza, to))
        if self._management is not None:
            self._management.delivered(self._last_out)

    def revoked(self, condition: str) -> None:
        """The session is over: the owner says so, or has heard that the stream ended."""
        self.session = None
        if self._state is State.CLOSING:
            self._finish_close()
        elif not self._is_closed:
            if condition:
                condition, _, text = condition.partition("\n")
                self.fail(errors.stream_error(condition, text))
            else:
                self._transport.close_stream()
                self._end("revoked")
                self._transport.close()

    def pause_reading(self) -> None:
        """Too much is unconfirmed."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on. The client's silence, if it is silent, begins now."""
        if not self._is_closed:
            self._last_in = self._now()
            self._transport.resume_reading()

    def _is_paused(self) -> bool:
        """Whether it is we who do not read: then silence is not the client's."""
        return self.session is not None and self.session.is_paused

    # --- ends

    def _on_close(self) -> None:
        """The client closes its stream; ours closes when everything it sent is confirmed (docs/delivery.md)."""
        session = self.session
        if session is None or self._state is not State.BOUND:
            self._transport.close_stream()
            self._end("client")
            self._transport.close()
            return
        self._state = State.CLOSING
        if not session.is_managed:
            # It reads on until our end of the stream comes: it has what was written.
            self._edge.written(session, session.q - self.parked)
        self._edge.detach(session, "client")

    def _finish_close(self) -> None:
        self._transport.close_stream()
        self._end("client")
        self._transport.close()

    def shut_down(self) -> None:
        """The process drains: tell the client to come back elsewhere (RFC 6120, 4.9.3.20)."""
        self.fail(errors.SystemShutdown())

    def fail(self, fault: StreamError) -> None:
        """Close the stream with an error (RFC 6120, 4.9.1.1), opening it first where that has not happened yet
        (4.9.1.2), be it the first stream or the one after TLS or SASL."""
        if self._is_closed:
            return
        if self._state is State.HEADER:
            from_ = self._domain or next(iter(self._settings.domains))
            self._transport.open_stream(Header(from_, self._new_id(), None))
        self._fail_after_header(fault)

    def _fail_after_header(self, fault: StreamError) -> None:
        if self._state is not State.HANDSHAKE:  # in the middle of it, there is no stream to write to
            stats.stream_error(fault.condition)
            self._transport.write(fault.to_bytes())
            self._transport.close_stream()
        self._end(fault.condition)
        self._transport.close()

    def _end(self, reason: str) -> None:
        """Nothing is read or written any more; the owner is told if there is a session."""
        self._is_closed = True
        was_bound = self._state in (State.BOUND, State.CLOSING)
        self._state = State.CLOSED
        self._parser.close()
        if self._request is not None:
            self._edge.cancel(self._request)
        if self._login is not None:
            self._login.cancel()
        if self._authentication is not None:
            self._authentication.cancel()
        if self._newcomer is not None:
            self._newcomer.cancel()
        session = self.session
        if session is not None and not session.is_closing:
            self._edge.detach(session, reason)
        stats.closed(reason)
        if was_bound:
            self._log.info("stream_closed", reason=reason, seconds=round(self._now() - self._opened_at, 3))
