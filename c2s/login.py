"""Drives one SASL exchange of a client stream: what the exchange asks for, a router answers.

The proof, the password and PBKDF2 are the router's business (`router/calls.py`): nothing here ever sees a stored key.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from c2s.metrics import stats
from cluster.edge import Answer, Edge
from xmpp import errors, sasl
from xmpp.errors import SaslError
from xmpp.sasl import Challenge, Exchange, NeedPassword, NeedProof, NeedSalt, Step, Success
from xmpp.scram import HASHES

CALL_TIMEOUT_S: Final = 10.0


class Host(Protocol):
    """The stream that the exchange belongs to."""

    def auth_challenge(self, data: bytes) -> None:
        """Write a challenge (base64) and go on reading."""

    def auth_waits(self) -> None:
        """A router is asked: input waits."""

    def auth_failed(self, fault: SaslError) -> None:
        """The exchange is over, without success."""

    def auth_succeeded(self, username: str, data: bytes | None) -> None:
        """The exchange is over: this localpart is who the client is. `data` is base64."""


def offered(is_secure: bool, channel_bindings: Mapping[str, bytes]) -> list[str]:
    """The mechanisms to offer on a connection where signing in is allowed at all."""
    return sasl.offered(HASHES, channel_bindings, tls=is_secure, plain_allowed_without_tls=True)


class Login:
    """One attempt to sign in."""

    __slots__ = ("_bindings", "_domain", "_edge", "_exchange", "_host", "_is_secure", "_mechanism", "_now", "_request",
                 "_started_at")  # fmt: skip

    def __init__(
        self, host: Host, edge: Edge, domain: str, is_secure: bool, channel_bindings: Mapping[str, bytes],
        now: Callable[[], float],
    ) -> None:  # fmt: skip
        self._host = host
        self._edge = edge
        self._domain = domain
        self._is_secure = is_secure
        self._bindings = channel_bindings
        self._now = now
        self._started_at = now()
        self._mechanism = ""
        self._exchange: Exchange | None = None
        self._request: str | None = None

    def begin(self, mechanism: str, text: str) -> None:
        """`<auth/>` with its initial response, "" for none."""
        self._mechanism = mechanism
        try:
            self._exchange = sasl.begin(
                mechanism,
                offered=offered(self._is_secure, self._bindings),
                domain=self._domain,
                nonce=secrets.token_urlsafe(24),
                tls=self._is_secure,
                channel_bindings=self._bindings,
            )
            step = self._exchange.step(sasl.decode_payload(text) if text else None)
        except SaslError as fault:
            self._fail(fault)
            return
        self._follow(step)

    def respond(self, text: str) -> None:
        """`<response/>`."""
        assert self._exchange is not None
        try:
            step = self._exchange.step(sasl.decode_payload(text))
        except SaslError as fault:
            self._fail(fault)
            return
        self._follow(step)

    def abort(self) -> None:
        """`<abort/>` (RFC 6120, 6.4.4)."""
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
        bare = f"{username}@{self._domain}"
        self._request = self._edge.call(bare, method, (bare, *arguments), done, CALL_TIMEOUT_S)

    def _fail(self, fault: SaslError) -> None:
        stats.auth(self._mechanism, fault.condition, self._now() - self._started_at)
        self._host.auth_failed(fault)
