"""A stream that we open to another server (RFC 6120): for pairs of domains, and to verify keys of dialback. No sockets.

It exists from the moment that somebody wants it, and takes requests while its connection is made. TLS first; then SASL
EXTERNAL if the peer offers it, else (or if it refuses) dialback as originating server (XEP-0220, 2.1). More pairs join
it by dialback ("multiplexing", 2.6), where the peer can.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple, Protocol

from cluster.edge import Edge, Refused
from s2s import features
from s2s.features import Features
from s2s.metrics import OUT, stats
from s2s.negotiation import (
    FEATURES,
    OUTGOING,
    PROCEED,
    SASL_FAILURE,
    SUCCESS,
    TLS_FAILURE,
    State,
)
from s2s.peer import Proof, StreamSettings, Transport
from s2s.stream import Host, Stream
from xmpp import dialback, errors, ns
from xmpp.dialback import Dialback, ask, make_key
from xmpp.errors import StanzaError, StreamError
from xmpp.stream import Element, StreamOpen, open_stream
from xmpp.xml import element, parse_children, split_tag

LINGER_S: Final = 10.0  # how long a stream without any pair waits for something to do

# RFC 6120, 4.9.3: what the peer's stream error means for those who wanted the stream.
_LASTING: Final = frozenset({"host-unknown", "host-gone"})


class Problem(NamedTuple):
    """Why a domain cannot be reached: a stanza error condition (RFC 6120, 8.3.3), and the reason for an operator."""

    condition: str
    text: str
    is_permanent: bool = False


class OutgoingHost(Host, Protocol):
    """What an outgoing stream needs of its process, besides."""

    def unreachable(self, remote: str, local: str, problem: Problem) -> None:
        """A pair that was wanted cannot be had."""

    def apart(self, remote: str, local: str) -> None:
        """A pair needs a stream of its own."""


@dataclass(slots=True)
class _Want:
    """A pair that is wanted."""

    deadline: float
    is_asked: bool = False  # the peer is to answer


@dataclass(slots=True)
class _Verification:
    """A key that is to be verified here."""

    question: Dialback
    done: Callable[[bool | StanzaError], None]
    deadline: float


class OutgoingStream(Stream):
    """One stream that we open, from `local` to `remote`."""

    __slots__ = (
        "_can_external", "_features", "_has_dialback", "_is_authenticated", "_quiet_since", "_verifying", "_wants",
        "is_alone", "is_refused", "local", "problem", "remote", "target",
    )  # fmt: skip

    direction = OUT
    elements: ClassVar = OUTGOING
    _host: OutgoingHost

    def __init__(
        self, edge: Edge, settings: StreamSettings, host: OutgoingHost, now: Callable[[], float], remote: str,
        local: str, *, can_external: bool = True, is_alone: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(edge, settings, host, now, State.CONNECTING, None)
        self.remote = remote
        self.local = local
        self.target = ("", 0)
        self.problem: Problem | None = None  # why it came to nothing
        self._wants: dict[tuple[str, str], _Want] = {}  # (remote, local), not authenticated yet
        self._verifying: dict[tuple[str, str, str], _Verification] = {}  # (remote, local, stream id)
        self._features = Features()
        self._has_dialback = False  # its header declares the namespace
        self.is_alone = is_alone  # it may not join another stream
        self._can_external = can_external
        self.is_refused = False  # the peer has offered EXTERNAL, and did not take our certificate
        self._is_authenticated = False  # by SASL
        self._quiet_since = now()

    # --- what the process calls

    @property
    def is_multiplexing(self) -> bool:
        """Whether the peer takes pairs of other domains of its own, too (XEP-0220, 2.6.2)."""
        return self._features.has_dialback_errors and self._state in (State.NEGOTIATING, State.OPEN)

    @property
    def sends_stanzas(self) -> bool:
        """Always: that is what it is opened for."""
        return True

    @property
    def wanted(self) -> tuple[tuple[str, str], ...]:
        """The pairs that are wanted and not authenticated yet, as (remote, local)."""
        return tuple(self._wants)

    def want(self, remote: str, local: str) -> None:
        """A pair is to be authenticated; `Host.attached` or `Host.unreachable` follows, once."""
        if (remote, local) not in self._wants and not self.has_pair(remote, local):
            self._wants[remote, local] = _Want(self._deadline())
            self._advance()

    def ask_for(self, question: Dialback, stream_id: str, done: Callable[[bool | StanzaError], None]) -> None:
        """As receiving server (XEP-0220, 2.1.2), have a key verified that `question.from_` has shown on a stream of
        this id. `done` is told once."""
        key = (question.from_, question.to, stream_id)
        if key in self._verifying:
            done(errors.ResourceConstraint("This is being verified already."))
            return
        self._verifying[key] = _Verification(question, done, self._deadline())
        if self._can_dialback():
            self._write_verification(key)

    @property
    def is_verifying(self) -> bool:
        """Whether keys wait to be verified here."""
        return bool(self._verifying)

    def withdraw(self) -> tuple[tuple[str, str], ...]:
        """The pairs that are wanted; nobody is told that they cannot be had here."""
        wanted = self.wanted
        self._wants.clear()
        return wanted

    def move_to(self, other: OutgoingStream) -> None:
        """Its server is that of another stream: what is wanted here is wanted there. For a stream that connects."""
        for remote, local in self._wants:
            other.want(remote, local)
        for (_, _, stream_id), verification in self._verifying.items():
            other.ask_for(verification.question, stream_id, verification.done)
        self._wants.clear()
        self._verifying.clear()
        self._end("joined")

    def connected(self, transport: Transport, target: tuple[str, int]) -> None:
        """The connection is there, with direct TLS after the handshake: the stream begins. `target` is the host name
        and the port that DNS has named."""
        if self._is_closed:
            transport.close()
            return
        self._transport = transport
        self.target = target
        self._opened_at = self._last_in = self._now()
        deadline = self._deadline()
        for want in self._wants.values():
            want.deadline = deadline
        for verification in self._verifying.values():
            verification.deadline = deadline
        self._restart()

    def give_up(self, problem: Problem) -> None:
        """It cannot be had."""
        if not self._is_closed:
            self.problem = problem
            self._stop("not-connected", None)

    def _deadline(self) -> float:
        return self._now() + self._settings.login_timeout_s

    # --- negotiation

    def _restart(self) -> None:
        self._write_header()
        self._state = State.HEADER

    def _write_header(self) -> None:
        # No xml:lang: it would be that of every stanza which does not name its own (RFC 6120, 8.1.5).
        self.transport.write(open_stream(namespace=ns.SERVER, from_=self.local, to=self.remote))
        self._is_open = True

    def _on_open(self, event: StreamOpen) -> None:
        """RFC 6120, 4.7: the peer's header. Its `from` is no proof, and some leave it out."""
        self._lang = event.lang
        self.id = event.id or ""
        self._has_dialback = event.has_dialback
        if event.version is None or not event.version.strip().startswith("1."):
            raise errors.UnsupportedVersion("XMPP 1.0 is needed (RFC 6120).")
        self._state = State.FEATURES

    def _on_step(self, event: Element) -> None:
        if event.name == FEATURES:
            self._on_features(features.parse(event.inner))
        elif event.name == PROCEED:
            self._state = State.HANDSHAKE
            self._hold()
            self.transport.start_tls()
        elif event.name == TLS_FAILURE:
            self.give_up(Problem("remote-server-timeout", "The server refuses TLS."))
        elif event.name == SUCCESS:
            self._is_authenticated = True
            self._parser.limits = self._settings.after_login
            self._parser.restart()
            self._restart()
        elif event.name == SASL_FAILURE:
            self._on_sasl_failure(event)

    def _on_features(self, offered: Features) -> None:
        settings = self._settings
        self._features = offered
        if self._is_authenticated:
            self._max_bytes = offered.max_bytes
            self._hold()
            self.attach(self.remote, self.local, "external", lambda refused: self._attached(self._primary, refused))
        elif not self.is_secure and offered.has_starttls:
            self._state = State.TLS_ASKED
            self.write(element("starttls", ns.TLS))
        elif not self.is_secure and (settings.is_tls_required or settings.policy_of(self.remote) == "secure"):
            self.give_up(Problem("policy-violation", "The server offers no TLS, which is required here.", True))
        else:
            self._hold()
            self.prove(self.remote, self._judged)

    def _judged(self, proof: Proof) -> None:
        """Who the peer is, as far as its certificate says; without a valid one the policy decides."""
        if proof is Proof.CONTRADICTED:
            self.give_up(Problem("remote-server-timeout", "The certificate is another one than DNS says (DANE)."))
        elif proof is Proof.UNPROVEN and self._settings.policy_of(self.remote) == "secure":
            reason = self.transport.identity.problem if self.is_secure else "there is no TLS"
            text = f"The server has no valid certificate: {reason or 'it is for other domains'}."
            self.give_up(Problem("policy-violation", text, True))
        else:
            self._state = State.NEGOTIATING
            self._quiet_since = self._now()
            for key in tuple(self._verifying):
                self._write_verification(key)
            self._advance()
            self._release()

    @property
    def _primary(self) -> tuple[str, str]:
        return self.remote, self.local

    def _can_dialback(self) -> bool:
        return self._state in (State.NEGOTIATING, State.AUTHENTICATING, State.OPEN)

    def _advance(self) -> None:
        """Ask for the pairs that are wanted, by what the peer has to offer."""
        if self._state is State.NEGOTIATING and self._wants:
            if not any(want.is_asked for want in self._wants.values()):
                self._ask_for_bidi()
            if self._offers_external() and self._primary in self._wants:
                self._wants[self._primary].is_asked = True
                self._state = State.AUTHENTICATING
                authzid = b64encode(self.local.encode()).decode()
                self.write(element("auth", ns.SASL, {"mechanism": features.EXTERNAL}, authzid))
                return
        if self._state in (State.NEGOTIATING, State.OPEN):
            for pair in [pair for pair, want in self._wants.items() if not want.is_asked]:
                self._ask(*pair)

    def _offers_external(self) -> bool:
        return self._features.has_external and self._can_external and self.is_secure

    def _ask_for_bidi(self) -> None:
        """XEP-0288, 2.2: before any pair is authenticated; our limits come with it (XEP-0478, 3.2)."""
        if self._settings.has_bidi and self._features.has_bidi and not self._is_bidi:
            self._is_bidi = True
            self.write(element("bidi", ns.BIDI, None, self._settings.limits))

    def _on_sasl_failure(self, event: Element) -> None:
        """The peer does not take our certificate; it may take a key (XEP-0178, 3; RFC 6120, 13.8.4)."""
        self._can_external = False
        self.is_refused = True
        stats.authenticated(OUT, "external", "refused")
        self._log.info("external_refused", remote=self.remote, local=self.local, condition=_sasl_condition(event.inner))
        self._state = State.NEGOTIATING
        if (want := self._wants.get(self._primary)) is not None:
            want.is_asked = False
        self._advance()

    # --- dialback, as originating server (XEP-0220, 2.1.1)

    def _ask(self, remote: str, local: str) -> None:
        self._wants[remote, local].is_asked = True
        # Some declare the namespace in their header and take no keys: where our certificate will do, it is not tried.
        offers_dialback = self._features.has_dialback or (self._has_dialback and not self._is_authenticated)
        if not self.id or not offers_dialback:
            self._cannot(remote, local, "The server offers nothing that proves our domain to it.")
        elif remote == self.remote:
            self._show_key(remote, local)
        elif not self._features.has_dialback_errors:
            self._cannot(remote, local, "")
        else:
            self.prove(remote, lambda proof: self._judged_for(remote, local, proof))

    def _judged_for(self, remote: str, local: str, proof: Proof) -> None:
        """Another domain of the same server: what its policy asks for is asked for here."""
        if proof is Proof.PROVEN or (proof is Proof.UNPROVEN and self._settings.policy_of(remote) != "secure"):
            self._show_key(remote, local)
        else:
            self._cannot(remote, local, "")

    def _cannot(self, remote: str, local: str, text: str) -> None:
        if (remote, local) == self._primary:
            self._lose(remote, local, Problem("remote-server-timeout", text))
        else:
            del self._wants[remote, local]
            self._host.apart(remote, local)

    def _show_key(self, remote: str, local: str) -> None:
        key = make_key(self.secret, remote, local, self.id)
        self.write(ask(dialback.RESULT, to=remote, from_=local, key=key))

    def _on_answer(self, event: Dialback) -> None:
        if event.name == dialback.VERIFY:
            self._on_verified(event)
            return
        pair = (event.from_, event.to)
        want = self._wants.get(pair)
        if want is None or not want.is_asked or self._state is State.AUTHENTICATING:
            return  # nobody has asked: that would make anybody the server of any domain (XEP-0220, 3.1)
        if event.type == "valid":
            self.attach(*pair, "dialback", lambda refused: self._attached(pair, refused))
            return
        stats.authenticated(OUT, "dialback", "refused")
        if event.type == "invalid":
            # 2.1.1: the stanzas go back with internal-server-error.
            problem = Problem("internal-server-error", "The server says that our key is wrong.", True)
        elif event.condition == "item-not-found":
            problem = Problem("remote-server-not-found", "The server does not serve this domain.", True)
        else:
            problem = Problem("remote-server-timeout", f"The server does not let us in: {event.condition}.")
        self._lose(*pair, problem)

    def _attached(self, pair: tuple[str, str], refused: Refused | None) -> None:
        if refused is not None:
            self._lose(*pair, Problem("resource-constraint", refused.text or "This is not possible now."))
            return
        self._wants.pop(pair, None)
        if self._features.has_management and len(self.pairs) == 1:
            self._management.ask()

    def _flow(self) -> None:
        super()._flow()
        self._advance()

    def _lose(self, remote: str, local: str, problem: Problem) -> None:
        """A pair is not to be had on this stream; without any, the stream is of no use."""
        self._wants.pop((remote, local), None)
        self._host.unreachable(remote, local, problem)
        if not self.pairs and not self._wants and not self._verifying:
            self.give_up(problem)

    # --- keys of others, as receiving server (XEP-0220, 2.1.2)

    def _write_verification(self, key: tuple[str, str, str]) -> None:
        remote, local, stream_id = key
        shown = self._verifying[key].question.key
        self.write(ask(dialback.VERIFY, to=remote, from_=local, key=shown, id=stream_id))

    def _on_verified(self, event: Dialback) -> None:
        verification = self._verifying.pop((event.from_, event.to, event.id), None)
        if verification is None:
            return  # nobody has asked
        self._quiet_since = self._now()
        if event.type == "error":
            # 2.5: whatever it is, the originating server is told so.
            verification.done(errors.RemoteServerNotFound(f"Your server says {event.condition}."))
        else:
            verification.done(event.type == "valid")

    # --- time, and the end

    def check_time(self) -> None:
        """About once a second; requests that are not answered in time are over."""
        now = self._now()
        late = [key for key, verification in self._verifying.items() if verification.deadline < now]
        for verification in [self._verifying.pop(key) for key in late]:
            verification.done(errors.RemoteServerTimeout("Your server does not answer."))
        for pair in [pair for pair, want in self._wants.items() if want.deadline < now]:
            self._lose(*pair, Problem("remote-server-timeout", "The server did not let us in in time."))
        if self._state is not State.NEGOTIATING:
            if not self._is_closed:
                super().check_time()
        elif not self._wants and not self._verifying and now - self._quiet_since > LINGER_S:
            self.leave("idle")

    def _is_quiet(self) -> bool:
        return super()._is_quiet() and not self._wants and not self._verifying

    def receive_eof(self) -> None:
        """The peer has closed the connection."""
        self._explain("The server has closed the connection.")
        super().receive_eof()

    def connection_lost(self) -> None:
        """The connection is gone."""
        self._explain("The connection was lost.")
        super().connection_lost()

    def tls_failed(self, problem: str) -> None:
        """The STARTTLS handshake has failed."""
        self._explain(f"TLS: {problem}.")
        super().tls_failed(problem)

    def fail(self, fault: StreamError) -> None:
        """Close the stream with an error."""
        self._explain(f"We have ended the stream: {str(fault).rstrip('.')}.")
        super().fail(fault)

    def _explain(self, text: str) -> None:
        if self.problem is None:
            self.problem = Problem("remote-server-timeout", text)

    def _end(self, reason: str) -> None:
        if self.peer_error:
            condition = "remote-server-not-found" if self.peer_error in _LASTING else "remote-server-timeout"
            self.problem = Problem(condition, f"The server says {self.peer_error}.", self.peer_error in _LASTING)
        self._explain("The stream has ended.")
        super()._end(reason)
        wants, self._wants = self._wants, {}
        verifying, self._verifying = self._verifying, {}
        assert self.problem is not None
        for remote, local in wants:
            self._host.unreachable(remote, local, self.problem)
        for verification in verifying.values():
            verification.done(errors.stanza_error(_for_originating(self.problem), "Your server cannot be reached."))


def _for_originating(problem: Problem) -> str:
    """2.5: remote-server-not-found or remote-server-timeout."""
    return "remote-server-not-found" if problem.condition == "remote-server-not-found" else "remote-server-timeout"


def _sasl_condition(inner: bytes) -> str:
    return next((split_tag(str(child.tag))[1] for child in parse_children(inner, ns.SASL)), "")
