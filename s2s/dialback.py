"""The answering side of Server Dialback (XEP-0220): as receiving server, and as authoritative one. No sockets.

A peer asks to be believed that it is the server of a domain (`on_result`). A certificate that proves it is enough
(XEP-0344, "dialback without dialback"); else the key goes to the authoritative server of that domain, which DNS names.
The asking side is `s2s/outgoing.py`; keys and elements are in `xmpp/dialback.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final, Protocol

import structlog

from cluster.edge import Refused
from s2s.metrics import keys_checked, stats, verifications
from s2s.peer import Proof, StreamSettings
from xmpp import errors
from xmpp.dialback import Dialback, answer, is_key
from xmpp.errors import StanzaError

log = structlog.get_logger(__name__)

PENDING: Final = 100  # pairs of one stream, asked for and not decided
PAIRS: Final = 1_000  # of one stream


class Asked(Protocol):
    """The stream on which the peer asks."""

    direction: ClassVar[str]

    @property
    def is_secure(self) -> bool:
        """Whether TLS is in force."""

    @property
    def secret(self) -> bytes:
        """Of dialback, the same in the whole cluster."""

    @property
    def pair_count(self) -> int:
        """How many pairs are authenticated."""

    def has_pair(self, remote: str, local: str) -> bool:
        """Whether a pair is authenticated."""

    def prove(self, domain: str, done: Callable[[Proof], None]) -> None:
        """Whether the peer is the server of this domain, without dialback."""

    def verify(self, question: Dialback, done: Callable[[bool | StanzaError], None]) -> None:
        """Have a key verified by its authoritative server."""

    def attach(self, remote: str, local: str, how: str, done: Callable[[Refused | None], None]) -> None:
        """The pair is authenticated; stanzas flow after `done`."""

    def write(self, data: bytes) -> None:
        """Write to the peer."""


class Answering:
    """What one stream answers."""

    __slots__ = ("_is_over", "_pending", "_settings", "_stream")

    def __init__(self, stream: Asked, settings: StreamSettings) -> None:
        self._stream = stream
        self._settings = settings
        self._pending: set[tuple[str, str]] = set()  # (remote, local)
        self._is_over = False

    @property
    def is_busy(self) -> bool:
        """Whether the peer waits for an answer."""
        return bool(self._pending)

    def close(self) -> None:
        """The stream is over: nobody waits for answers."""
        self._is_over = True

    def on_verify(self, question: Dialback) -> None:
        """As authoritative server (2.2.2): is it our key? Whoever asks may know; it says nothing of our domains."""
        outcome: bool | StanzaError
        if question.to not in self._settings.domains:
            outcome = errors.ItemNotFound("This domain is not served here.")
        else:
            outcome = is_key(question.key, self._stream.secret, question.from_, question.to, question.id)
        keys_checked.labels(_name(outcome)).inc()
        self._stream.write(answer(question, outcome))

    def on_result(self, question: Dialback) -> None:
        """As receiving server (2.2.1): may the peer send stanzas of its domain to ours?"""
        key = (question.from_, question.to)
        if key in self._pending:
            return  # it is answered once, when it is decided
        if (fault := self._fault(question)) is not None:
            self._refuse(question, fault)
        elif self._stream.has_pair(*key):
            self._stream.write(answer(question, True))
        else:
            self._pending.add(key)
            self._stream.prove(question.from_, lambda proof: self._proved(question, proof))

    def _fault(self, question: Dialback) -> StanzaError | None:
        """Why it is refused whatever the key (2.5)."""
        settings = self._settings
        if question.to not in settings.domains:
            return errors.ItemNotFound("This domain is not served here.")
        if question.from_ in settings.domains:
            return errors.NotAcceptable("You are not the server of this domain.")
        if settings.policy_of(question.from_) == "deny":
            return errors.PolicyViolation("There is no traffic with this domain.")
        if settings.is_tls_required and not self._stream.is_secure:
            return errors.PolicyViolation("TLS is needed first.")
        if len(self._pending) >= PENDING or self._stream.pair_count >= PAIRS:
            return errors.ResourceConstraint("Too many domains on one stream.")
        return None

    def _proved(self, question: Dialback, proof: Proof) -> None:
        if self._is_over:
            return
        if proof is Proof.PROVEN:
            self._accept(question)
        elif self._settings.policy_of(question.from_) == "secure":
            self._refuse(question, errors.NotAuthorized("A valid certificate of this domain is needed."))
        else:
            self._stream.verify(question, lambda outcome: self._verified(question, outcome))

    def _verified(self, question: Dialback, outcome: bool | StanzaError) -> None:
        verifications.labels(_name(outcome)).inc()
        if self._is_over:
            return
        if outcome is True:
            self._accept(question)
        elif outcome is False:
            # 2.1.2: instead of "invalid", which ends the stream for the pairs that are authenticated, too.
            self._refuse(question, errors.Forbidden("The server of this domain says that the key is wrong."))
        else:
            self._refuse(question, outcome)

    def _accept(self, question: Dialback) -> None:
        def attached(refused: Refused | None) -> None:
            self._pending.discard((question.from_, question.to))
            if refused is None:
                self._stream.write(answer(question, True))
            else:
                fault = errors.stanza_error(refused.condition, refused.text or None)
                self._stream.write(answer(question, fault))

        self._stream.attach(question.from_, question.to, "dialback", attached)

    def _refuse(self, question: Dialback, fault: StanzaError) -> None:
        self._pending.discard((question.from_, question.to))
        stats.authenticated(self._stream.direction, "dialback", "refused")
        log.info("dialback_refused", remote=question.from_, local=question.to, problem=str(fault))
        self._stream.write(answer(question, fault))


def _name(outcome: bool | StanzaError) -> str:
    return "error" if isinstance(outcome, StanzaError) else "valid" if outcome else "invalid"
