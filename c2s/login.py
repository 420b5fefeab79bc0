"""Drives one SASL exchange of a client stream: what the exchange asks for, a router answers.

The proof, the password, the token and PBKDF2 are the router's business (`router/calls.py`, `router/tokens.py`): nothing
here ever sees a stored key. Which profile carries the exchange, RFC 6120 or XEP-0388, is the host's business.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from c2s.metrics import stats
from cluster.edge import Answer, Edge
from xmpp import errors, sasl
from xmpp.errors import SaslError
from xmpp.jid import JID
from xmpp.sasl import (
    Challenge,
    Exchange,
    NeedAccount,
    NeedGuest,
    NeedPassword,
    NeedProof,
    NeedSalt,
    NeedToken,
    NeedTokenProof,
    Step,
    Success,
)
from xmpp.scram import HASHES

CALL_TIMEOUT_S: Final = 10.0
GUEST_BYTES: Final = 16  # of randomness in the name of a guest, which is also all that protects it
# For people: what their app should have told them (docs/authentication.md, "users who are locked out").
NO_SCRAM: Final = (
    "The passwords of this domain are kept elsewhere, so SCRAM cannot be used. If this app insists on it, remove the "
    "account from the app and add it again: what is on the server stays."
)
INTERNAL: Final = "internal"  # the back end of domains whose passwords are kept here
ANONYMOUS: Final = "anonymous"  # that of domains where nobody has one


class Host(Protocol):
    """What the exchange belongs to."""

    def auth_challenge(self, data: bytes) -> None:
        """Write a challenge (base64) and go on reading."""

    def auth_waits(self) -> None:
        """A router is asked: input waits."""

    def auth_failed(self, fault: SaslError) -> None:
        """The exchange is over, without success."""

    def auth_succeeded(self, username: str, data: bytes | None) -> None:
        """The exchange is over: this localpart is who the client is. `data` is base64."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a connection may sign in with: `mechanisms` for all, `tokens` for who has a token (XEP-0484)."""

    domain: str
    is_secure: bool
    bindings: Mapping[str, bytes]  # channel binding data by type
    mechanisms: Sequence[str]
    tokens: Sequence[str] = ()
    upgrades: Sequence[str] = ()  # tasks of XEP-0480, for who has a password
    identities: Sequence[JID] = ()  # accounts of the domain that the client's certificate names
    network: str = ""  # of the client's address

    @property
    def protected(self) -> bytes:
        """What SCRAM signs of it (XEP-0474)."""
        return sasl.downgrade_protection(self.mechanisms, self.bindings)


class Fast(NamedTuple):
    """A client signs in with a token (XEP-0484, 4.4): of which device, whether it gives the token up, and what it
    wants instead (4.6, 4.2)."""

    is_last: bool
    device: bytes = b""
    wanted: str = ""
    software: str = ""
    name: str = ""


def offered(
    is_secure: bool, channel_bindings: Mapping[str, bytes], backend: str = INTERNAL, hashes: Collection[str] = HASHES,
    *, has_certificate: bool = False,
) -> list[str]:  # fmt: skip
    """The mechanisms to offer on a connection where signing in is allowed at all: what the domain's back end can do,
    and before that the client's certificate, if it has one that counts."""
    if backend == ANONYMOUS:
        return ["ANONYMOUS"]
    return sasl.offered(
        hashes if backend == INTERNAL else (), channel_bindings, tls=is_secure, plain_allowed_without_tls=True,
        external=has_certificate, tokens=backend == "jwt",
    )  # fmt: skip


class Login:
    """One attempt to sign in."""

    __slots__ = ("_edge", "_exchange", "_fast", "_host", "_mechanism", "_now", "_offer", "_request", "_started_at",
                 "given", "was_seen")  # fmt: skip

    def __init__(self, host: Host, edge: Edge, offer: Offer, now: Callable[[], float]) -> None:
        self._host = host
        self._edge = edge
        self._offer = offer
        self._now = now
        self._started_at = now()
        self._mechanism = ""
        self._exchange: Exchange | None = None
        self._fast: Fast | None = None
        self._request: str | None = None
        self.given: tuple[str, float] | None = None  # a new token, and until when it is good (Unix seconds)
        self.was_seen = False  # the device that signs in was seen just now

    def begin(self, mechanism: str, text: str | None, fast: Fast | None = None) -> None:
        """The mechanism that the client has chosen, with its initial response (base64), None for none. Tokens are taken
        from who says that it has one (XEP-0484, 4.4), and by their mechanisms alone."""
        self._mechanism = mechanism
        self._fast = fast
        offer = self._offer
        try:
            self._exchange = sasl.begin(
                mechanism,
                offered=offer.mechanisms if fast is None else offer.tokens,
                domain=offer.domain,
                nonce=secrets.token_urlsafe(24),
                tls=offer.is_secure,
                channel_bindings=offer.bindings,
                identities=offer.identities,
                protected=offer.protected,
                guest=secrets.token_hex(GUEST_BYTES) if mechanism == "ANONYMOUS" else "",
            )
            step = self._exchange.step(sasl.decode_payload(text) if text is not None else None)
        except errors.InvalidMechanism:
            names = offer.mechanisms
            insists = mechanism.startswith("SCRAM-") and "PLAIN" in names and not any("SCRAM" in name for name in names)
            self._fail(errors.InvalidMechanism(NO_SCRAM if insists else None))
            return
        except SaslError as fault:
            self._fail(fault)
            return
        self._follow(step)

    def respond(self, text: str) -> None:
        """The client's next message (base64)."""
        assert self._exchange is not None
        try:
            step = self._exchange.step(sasl.decode_payload(text))
        except SaslError as fault:
            self._fail(fault)
            return
        self._follow(step)

    def abort(self) -> None:
        """The client gives up (RFC 6120, 6.4.4)."""
        self._fail(errors.Aborted())

    def discard(self) -> None:
        """The client begins another exchange instead (RFC 6120, 6.4.2)."""
        stats.auth(self._mechanism, errors.Aborted.condition, self._now() - self._started_at)

    def cancel(self) -> None:
        """The stream has ended."""
        if self._request is not None:
            self._edge.cancel(self._request)
            self._request = None

    def _follow(self, step: Step) -> None:
        match step:
            case Challenge(data):
                self._host.auth_challenge(b64encode(data))
            case NeedSalt(username, hash):
                self._ask(username, "auth.salt", (hash,), self._salted)
            case NeedProof(username, hash, auth_message, proof):
                self._ask(username, "auth.proof", (hash, auth_message, proof), self._proved)
            case NeedPassword(username, password):
                self._ask(username, "auth.password", (password,), self._checked)
            case NeedTokenProof(username, mechanism, binding, proof):
                fast = self._fast
                assert fast is not None
                question = (mechanism, binding, proof, fast.is_last, fast.wanted, fast.software, fast.name)
                self._ask(username, "auth.token_proof", (fast.device, *question), self._tokened)
            case NeedAccount(username):
                self._ask(username, "auth.certificate", (), self._admitted)
            case NeedGuest(username):
                self._ask(username, "auth.guest", (self._offer.network,), self._admitted)
            case NeedToken(username, token):
                self._ask(username, "auth.token", (token,), self._identified)
            case Success(username, _, data):
                stats.auth(self._mechanism, None, self._now() - self._started_at)
                self._host.auth_succeeded(username, b64encode(data) if data is not None else None)

    def _salted(self, exchange: Exchange, value: Any) -> Step:
        salt, iterations = value
        return exchange.salt(salt, iterations)

    def _proved(self, exchange: Exchange, value: Any) -> Step:
        return exchange.verified(value)

    def _checked(self, exchange: Exchange, value: Any) -> Step:
        return exchange.password_checked(value)

    def _admitted(self, exchange: Exchange, value: Any) -> Step:
        return exchange.admitted(value)

    def _tokened(self, exchange: Exchange, value: Any) -> Step:
        answer, has_expired, token, expires_at, self.was_seen = value
        if has_expired:
            raise errors.CredentialsExpired  # XEP-0484, 5.2
        if token:
            self.given = (token, expires_at)
        return exchange.token_proved(answer)

    def _identified(self, exchange: Exchange, value: Any) -> Step:
        return exchange.token_checked(*value)

    def _ask(
        self, username: str, method: str, arguments: tuple[Any, ...], then: Callable[[Exchange, Any], Step]
    ) -> None:
        def done(answer: Answer) -> None:
            self._request = None
            exchange = self._exchange
            assert exchange is not None
            if not answer.ok:
                # The router or its database is away: never a wrong password. Or the account is disabled.
                condition, text = (answer.value, None) if isinstance(answer.value, str) else answer.value
                self._fail(errors.sasl_error(condition, text))
                return
            try:
                step = then(exchange, answer.value)
            except SaslError as fault:
                self._fail(fault)
                return
            self._follow(step)

        self._host.auth_waits()
        domain = self._offer.domain
        bare = f"{username}@{domain}" if username else domain
        self._request = self._edge.call(bare, method, (bare, *arguments), done, CALL_TIMEOUT_S)

    def _fail(self, fault: SaslError) -> None:
        stats.auth(self._mechanism, fault.condition, self._now() - self._started_at)
        self._host.auth_failed(fault)
