"""What a client may ask before anybody has signed in: an account (XEP-0077), perhaps by an invitation (XEP-0445). A
router decides; what is wrong with a request does not end the stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from c2s.attempts import Attempts
from cluster.edge import Answer, Edge
from xmpp import errors, ns, registration
from xmpp.errors import JidError, StanzaError
from xmpp.jid import JID, prepare
from xmpp.stanza import Stanza, encode, error, is_answerable, result


class Host(Protocol):
    """The stream."""

    def write(self, data: bytes) -> None:
        """Write to the client, if it is still there."""

    def hold(self) -> None:
        """An answer is awaited: input waits."""

    def go_on(self) -> None:
        """Take input again."""


@dataclass(frozen=True, slots=True)
class Newcomers:
    """What they may."""

    may_register: bool = False
    takes_invitations: bool = False
    attempts: Attempts = field(default_factory=lambda: Attempts(0, lambda: 0.0))  # by address


class Newcomer:
    """One of them. `domain` is that of the stream, `address` the client's."""

    __slots__ = ("_address", "_domain", "_edge", "_host", "_invitation", "_may", "_request")

    def __init__(self, host: Host, edge: Edge, may: Newcomers, domain: str, address: str) -> None:
        self._host = host
        self._edge = edge
        self._may = may
        self._domain = domain
        self._address = address
        self._invitation: tuple[str, ...] = ()  # the token that was accepted on this stream
        self._request: str | None = None

    def cancel(self) -> None:
        """The stream has ended."""
        if self._request is not None:
            self._edge.cancel(self._request)
            self._request = None

    def handle(self, stanza: Stanza) -> None:
        """An IQ request of XEP-0077, 3.1, or XEP-0445, 3."""
        is_preauth = stanza.payload == f"{ns.PARS} preauth"
        if not (self._may.takes_invitations if is_preauth else self._may.may_register):
            self._reply_error(stanza, errors.ServiceUnavailable())  # 3.1: "does not support In-Band Registration"
            return
        if not self._is_ours(stanza.to):
            self._reply_error(stanza, errors.ItemNotFound("This stream is with another domain."))
            return
        query, *others = stanza.children()
        if stanza.type not in ("get", "set") or not stanza.id or others:
            self._reply_error(stanza, errors.BadRequest())  # RFC 6120, 8.2.3
            return
        if is_preauth:
            self._on_preauth(stanza, query.get("token") or "")
            return
        try:
            given = registration.given(query)
        except StanzaError as fault:
            self._reply_error(stanza, fault)
            return
        if stanza.type == "set" and not self._may.attempts.take(self._address):
            self._reply_error(stanza, errors.ResourceConstraint("Too many attempts. Try again in an hour."))
            return
        arguments = (self._domain, stanza.type, given, self._address, *self._invitation)
        self._ask(stanza, self._account_to_be(given), "register", arguments)

    def _on_preauth(self, stanza: Stanza, token: str) -> None:
        """XEP-0445, 3: a token comes first, and is good for what follows on this stream."""
        if stanza.type != "set":
            self._reply_error(stanza, errors.BadRequest())
            return

        def accepted() -> None:
            self._invitation = (token,)

        self._ask(stanza, self._domain, "invitations.check", (self._domain, token), accepted)

    def _ask(
        self, stanza: Stanza, bare: str, method: str, arguments: tuple[Any, ...], then: Callable[[], None] | None = None
    ) -> None:
        """Let a router answer, and read on after that."""
        self._host.hold()

        def done(answer: Answer) -> None:
            self._request = None
            if answer.ok:
                if then is not None:
                    then()
                self._host.write(encode(result(stanza._replace(to=None, from_=None), answer.value or b"")))
            else:
                self._reply_error(stanza, _fault_of(answer.value))
            self._host.go_on()

        self._request = self._edge.call(bare, method, arguments, done)

    def _is_ours(self, to: str | None) -> bool:
        """Whether this names the domain of the stream; nothing does so, too."""
        try:
            return to is None or prepare(to) == self._domain
        except JidError:
            return False

    def _account_to_be(self, given: Mapping[str, str]) -> str:
        """Whose owner decides: the new account's; of a name that is none, any router says so."""
        try:
            return str(JID.of(given.get("username", ""), self._domain))
        except JidError:
            return self._domain

    def _reply_error(self, stanza: Stanza, fault: StanzaError) -> None:
        if is_answerable(stanza):
            self._host.write(encode(error(stanza._replace(to=None, from_=None), fault)))


def _fault_of(value: Any) -> StanzaError:
    """What a router said instead of an answer: a condition and a text, or a condition alone, also one of SASL's."""
    if not isinstance(value, str):
        return errors.stanza_error(*value)
    if value == "temporary-auth-failure":  # its database is away
        return errors.ResourceConstraint("This cannot be done right now. Try again.")
    return errors.stanza_error(value)
