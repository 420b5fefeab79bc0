"""A stream that another server has opened to us (RFC 6120): TLS, and by what it proves its domains. No sockets.

SASL EXTERNAL is offered to who shows a certificate that we trust and that proves its domain (XEP-0178); dialback is
open to everybody whom the policy does not ask for more (`s2s/dialback.py`).
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from typing import ClassVar, Final

from cluster.edge import Edge, Refused
from s2s import features
from s2s.metrics import IN, stats
from s2s.negotiation import ABORT, AUTH, BIDI, INCOMING, RESPONSE, STARTTLS, State
from s2s.peer import Proof, StreamSettings, Transport
from s2s.stream import Host, Stream
from xmpp import errors, ns
from xmpp.dialback import parse_domain
from xmpp.errors import JidError, SaslError, StreamError
from xmpp.jid import prepare
from xmpp.stream import Element, StreamOpen, open_stream
from xmpp.xml import element

TRIES: Final = 3  # of SASL


class IncomingStream(Stream):
    """One stream that was opened to us."""

    __slots__ = ("_has_external", "_is_authenticated", "_new_id", "_tries", "local", "remote")

    direction = IN
    elements: ClassVar = INCOMING

    def __init__(
        self, transport: Transport, edge: Edge, settings: StreamSettings, host: Host, new_id: Callable[[], str],
        now: Callable[[], float],
    ) -> None:  # fmt: skip
        super().__init__(edge, settings, host, now, State.HEADER, transport)
        self._new_id = new_id
        self.remote = ""  # as the header says; nothing is proven by that
        self.local = ""
        self._has_external = False  # offered
        self._is_authenticated = False  # by SASL
        self._tries = 0

    @property
    def takes_stanzas(self) -> bool:
        """Always: that is what it was opened for."""
        return True

    def _on_open(self, event: StreamOpen) -> None:
        self._lang = event.lang
        fault = self._header_fault(event)
        self._write_header()
        if fault is not None:
            self.fail(fault)
        elif self._is_authenticated:
            self._hold()
            self.attach(self.remote, self.local, "external", self._attached)
        else:
            self._hold()
            self.prove(self.remote, self._offer)

    def _header_fault(self, event: StreamOpen) -> StreamError | None:
        """RFC 6120, 4.7: between servers `from` and `to` are there, and stay what they are."""
        if event.version is None or not event.version.strip().startswith("1."):
            return errors.UnsupportedVersion("XMPP 1.0 is needed (RFC 6120).")
        try:
            remote, local = parse_domain(event.from_), parse_domain(event.to)
        except StreamError as fault:
            return fault
        if self._is_authenticated and remote != self.remote:
            return errors.InvalidFrom("The domain changed during the negotiation.")
        if local not in self._settings.domains or (self._is_authenticated and local != self.local):
            return errors.HostUnknown("This domain is not served here.")
        self.remote, self.local = remote, local
        if remote in self._settings.domains:
            return errors.InvalidFrom("You are not the server of this domain.")
        if self._settings.policy_of(remote) == "deny":
            return errors.StreamPolicyViolation("There is no traffic with this domain.")
        return None

    def _write_header(self) -> None:
        self.id = self._new_id()
        from_ = self.local or min(self._settings.domains)
        self.transport.write(
            open_stream(namespace=ns.SERVER, from_=from_, id=self.id, to=self.remote or None, lang="en")
        )
        self._is_open = True

    def _offer(self, proof: Proof) -> None:
        settings = self._settings
        self._has_external = proof is Proof.PROVEN
        if self.is_secure:
            offered = features.after_tls(
                external=self._has_external, bidi=settings.has_bidi, limits=settings.limits
            )  # fmt: skip
        else:
            others = features.offers(bidi=settings.has_bidi, limits=settings.limits)
            offered = features.before_tls(is_required=settings.is_tls_required, others=others)
        self.write(offered)
        self._state = State.NEGOTIATING
        self._release()

    def _restart(self) -> None:
        self._is_open = False
        self._state = State.HEADER

    def _on_step(self, event: Element) -> None:
        if event.name == STARTTLS:
            self._on_starttls()
        elif event.name == AUTH:
            self._on_auth(event)
        elif event.name == RESPONSE:
            self._on_authzid(event.text)
        elif event.name == ABORT:
            self._refuse(errors.Aborted())
        elif event.name == BIDI:
            self._on_bidi(event)
        else:
            # XEP-0198, 3: <enable/> comes after the authentication.
            self.write(element("failed", ns.SM, None, element("unexpected-request", ns.STANZAS)))

    def _on_starttls(self) -> None:
        if self.is_secure:
            # RFC 6120, 5.4.2.2: failure, then the stream and the connection end.
            self.write(element("failure", ns.TLS))
            self._stop("peer", None)
            return
        self._state = State.HANDSHAKE
        self._hold()
        self.write(element("proceed", ns.TLS))
        self.transport.start_tls()

    def _on_bidi(self, event: Element) -> None:
        """XEP-0288, 2.2: TLS comes first, where it is needed, and then this, before there is any pair."""
        settings = self._settings
        if not settings.has_bidi or (settings.is_tls_required and not self.is_secure) or self._answering.is_busy:
            raise errors.UnsupportedStanzaType("A stream of two directions is not to be had now (XEP-0288).")
        self._is_bidi = True
        self._max_bytes = features.limits_in(event.inner)

    # --- SASL EXTERNAL (XEP-0178, 3)

    def _on_auth(self, event: Element) -> None:
        if event.attributes.get("mechanism") != features.EXTERNAL or not self._has_external:
            self._refuse(errors.InvalidMechanism())
        elif event.text:
            self._on_authzid(event.text)
        else:
            # RFC 6120, 6.4.2: without an initial response, it is asked for.
            self._state = State.AUTHENTICATING
            self.write(element("challenge", ns.SASL))

    def _on_authzid(self, text: str) -> None:
        try:
            authzid = b64decode("" if text.strip() == "=" else text.strip(), validate=True).decode()
            is_own = not authzid or prepare(authzid) == self.remote
        except JidError:
            is_own = False
        except ValueError:
            self._refuse(errors.IncorrectEncoding())
            return
        if not is_own:
            self._refuse(errors.InvalidAuthzid("The certificate is for the domain of the stream header."))
            return
        self._is_authenticated = True
        self.write(element("success", ns.SASL))
        self._parser.limits = self._settings.after_login
        self._parser.restart()
        self._restart()

    def _refuse(self, fault: SaslError) -> None:
        self._state = State.NEGOTIATING
        self.write(fault.to_bytes())
        self._tries += 1
        stats.authenticated(IN, "external", "refused")
        if self._tries >= TRIES:
            self.fail(errors.StreamPolicyViolation("Too many failed attempts to authenticate."))

    def _attached(self, refused: Refused | None) -> None:
        if refused is None:
            self.write(features.after_login(self._settings.limits))
        else:
            self.fail(errors.StreamResourceConstraint(refused.text or "This is not possible now. Try again."))
