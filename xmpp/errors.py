"""What can go wrong, as the standards name it.

    XmppError
        JidError            not a JID (RFC 7622); also a ValueError
        StanzaError         answers one stanza (RFC 6120, 8.3); one class for each defined condition
        StreamError         closes one stream (RFC 6120, 4.9); likewise
        SaslError           ends one SASL exchange (RFC 6120, 6.5); likewise

Each class carries its condition, so no call site repeats a string. This module knows nothing of stanzas.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from xmpp import ns
from xmpp.xml import element

ErrorType = Literal["auth", "cancel", "continue", "modify", "wait"]


class XmppError(Exception):
    """Root of all the others."""


class JidError(XmppError, ValueError):
    """The text is not an address (RFC 7622)."""


def _text(text: str | None, namespace: str) -> bytes:
    return element("text", namespace, {"xml:lang": "en"}, text) if text else b""


class StanzaError(XmppError):
    """Refuses one stanza. `application` is a serialised application-specific condition, `by` who refuses it,
    `content` the character data of the condition: of gone and redirect, the IRI of the new address."""

    condition: ClassVar[str] = "undefined-condition"
    default_type: ClassVar[ErrorType] = "cancel"

    def __init__(
        self,
        text: str | None = None,
        *,
        by: str | None = None,
        application: bytes | None = None,
        type: ErrorType | None = None,
        content: str = "",
    ) -> None:
        super().__init__(text or self.condition)
        self.text = text
        self.by = by
        self.application = application
        self.type: ErrorType = type or self.default_type
        self.content = content

    def to_bytes(self) -> bytes:
        """The whole `<error/>` element (RFC 6120, 8.3.2)."""
        return element(
            "error",
            None,
            {"type": self.type, "by": self.by},
            element(self.condition, ns.STANZAS, None, self.content),
            _text(self.text, ns.STANZAS),
            self.application or b"",
        )


class StreamError(XmppError):
    """Closes one stream. `application` is a serialised application-specific condition, `content` the character data
    of the condition: of see-other-host, the other host."""

    condition: ClassVar[str] = "undefined-condition"

    def __init__(self, text: str | None = None, *, application: bytes | None = None, content: str = "") -> None:
        super().__init__(text or self.condition)
        self.text = text
        self.application = application
        self.content = content

    def to_bytes(self) -> bytes:
        """The whole `<stream:error/>` element; the stream header declares the prefix (RFC 6120, 4.9.2)."""
        condition = element(self.condition, ns.STREAM_ERRORS, None, self.content)
        return b"<stream:error>%b%b%b</stream:error>" % (
            condition,
            _text(self.text, ns.STREAM_ERRORS),
            self.application or b"",
        )


class SaslError(XmppError):
    """Ends one SASL exchange without success."""

    condition: ClassVar[str] = "not-authorized"

    def __init__(self, text: str | None = None) -> None:
        super().__init__(text or self.condition)
        self.text = text

    def to_bytes(self) -> bytes:
        """The whole `<failure/>` element (RFC 6120, 6.4.5)."""
        return element("failure", ns.SASL, None, element(self.condition), _text(self.text, ns.SASL))


# --- RFC 6120, 8.3.3: defined stanza conditions, with the type that the RFC recommends


class BadRequest(StanzaError):
    """The XML of the stanza does not follow its schema (8.3.3.1)."""

    condition = "bad-request"
    default_type = "modify"


class Conflict(StanzaError):
    """A resource or session of this name exists (8.3.3.2)."""

    condition = "conflict"


class FeatureNotImplemented(StanzaError):
    """Known, and not done here (8.3.3.3)."""

    condition = "feature-not-implemented"


class Forbidden(StanzaError):
    """The sender has no permission (8.3.3.4)."""

    condition = "forbidden"
    default_type = "auth"


class Gone(StanzaError):
    """The recipient cannot be reached at this address any more (8.3.3.5)."""

    condition = "gone"


class InternalServerError(StanzaError):
    """A misconfiguration or bug of the server (8.3.3.6)."""

    condition = "internal-server-error"


class ItemNotFound(StanzaError):
    """The addressed item does not exist (8.3.3.7)."""

    condition = "item-not-found"


class JidMalformed(StanzaError):
    """An address is no JID (8.3.3.8)."""

    condition = "jid-malformed"
    default_type = "modify"


class NotAcceptable(StanzaError):
    """The content does not meet the recipient's or server's criteria (8.3.3.9)."""

    condition = "not-acceptable"
    default_type = "modify"


class NotAllowed(StanzaError):
    """Nobody may do this (8.3.3.10)."""

    condition = "not-allowed"


class NotAuthorized(StanzaError):
    """Credentials are needed first (8.3.3.11)."""

    condition = "not-authorized"
    default_type = "auth"


class PolicyViolation(StanzaError):
    """A local policy is violated (8.3.3.12)."""

    condition = "policy-violation"
    default_type = "modify"


class RecipientUnavailable(StanzaError):
    """The recipient is temporarily unavailable (8.3.3.13)."""

    condition = "recipient-unavailable"
    default_type = "wait"


class Redirect(StanzaError):
    """The recipient redirects elsewhere (8.3.3.14)."""

    condition = "redirect"
    default_type = "modify"


class RegistrationRequired(StanzaError):
    """Registration is needed first (8.3.3.15)."""

    condition = "registration-required"
    default_type = "auth"


class RemoteServerNotFound(StanzaError):
    """The remote domain does not exist or cannot be resolved (8.3.3.16)."""

    condition = "remote-server-not-found"


class RemoteServerTimeout(StanzaError):
    """The remote domain could not be reached in time (8.3.3.17)."""

    condition = "remote-server-timeout"
    default_type = "wait"


class ResourceConstraint(StanzaError):
    """The server or recipient lacks resources (8.3.3.18)."""

    condition = "resource-constraint"
    default_type = "wait"


class ServiceUnavailable(StanzaError):
    """The service is not provided here (8.3.3.19)."""

    condition = "service-unavailable"


class SubscriptionRequired(StanzaError):
    """A subscription is needed first (8.3.3.20)."""

    condition = "subscription-required"
    default_type = "auth"


class UndefinedCondition(StanzaError):
    """Something else, told by `application` (8.3.3.21)."""

    condition = "undefined-condition"


class UnexpectedRequest(StanzaError):
    """Out of order (8.3.3.22)."""

    condition = "unexpected-request"
    default_type = "wait"


# --- RFC 6120, 4.9.3: defined stream conditions


class BadFormat(StreamError):
    """XML that cannot be processed (4.9.3.1)."""

    condition = "bad-format"


class BadNamespacePrefix(StreamError):
    """An unsupported namespace prefix (4.9.3.2)."""

    condition = "bad-namespace-prefix"


class StreamConflict(StreamError):
    """A new stream or resource takes the place of this one (4.9.3.3)."""

    condition = "conflict"


class ConnectionTimeout(StreamError):
    """Nothing came for too long (4.9.3.4)."""

    condition = "connection-timeout"


class HostGone(StreamError):
    """The domain is served no longer (4.9.3.5)."""

    condition = "host-gone"


class HostUnknown(StreamError):
    """The domain is not served here (4.9.3.6)."""

    condition = "host-unknown"


class ImproperAddressing(StreamError):
    """'to' or 'from' is missing or no JID (4.9.3.7)."""

    condition = "improper-addressing"


class StreamInternalServerError(StreamError):
    """A misconfiguration or bug of the server (4.9.3.8)."""

    condition = "internal-server-error"


class InvalidFrom(StreamError):
    """'from' is not the sender's address (4.9.3.9)."""

    condition = "invalid-from"


class InvalidNamespace(StreamError):
    """The stream or content namespace is another (4.9.3.10)."""

    condition = "invalid-namespace"


class InvalidXml(StreamError):
    """XML that does not validate (4.9.3.11)."""

    condition = "invalid-xml"


class StreamNotAuthorized(StreamError):
    """Data before the stream was authenticated (4.9.3.12)."""

    condition = "not-authorized"


class NotWellFormed(StreamError):
    """XML that is not well-formed (4.9.3.13)."""

    condition = "not-well-formed"


class StreamPolicyViolation(StreamError):
    """A local policy is violated (4.9.3.14)."""

    condition = "policy-violation"


class RemoteConnectionFailed(StreamError):
    """A remote entity that is needed cannot be reached (4.9.3.15)."""

    condition = "remote-connection-failed"


class Reset(StreamError):
    """The stream has to be negotiated anew (4.9.3.16)."""

    condition = "reset"


class StreamResourceConstraint(StreamError):
    """The server lacks resources for the stream (4.9.3.17)."""

    condition = "resource-constraint"


class RestrictedXml(StreamError):
    """Comments, processing instructions, DTDs, entities (4.9.3.18)."""

    condition = "restricted-xml"


class SeeOtherHost(StreamError):
    """The client shall connect elsewhere (4.9.3.19)."""

    condition = "see-other-host"


class SystemShutdown(StreamError):
    """The server or process shuts down (4.9.3.20)."""

    condition = "system-shutdown"


class StreamUndefinedCondition(StreamError):
    """Something else, told by `application` (4.9.3.21)."""

    condition = "undefined-condition"


class UnsupportedEncoding(StreamError):
    """An encoding other than UTF-8 (4.9.3.22)."""

    condition = "unsupported-encoding"


class UnsupportedFeature(StreamError):
    """A mandatory feature is not supported (4.9.3.23)."""

    condition = "unsupported-feature"


class UnsupportedStanzaType(StreamError):
    """A first-level element that means nothing here (4.9.3.24)."""

    condition = "unsupported-stanza-type"


class UnsupportedVersion(StreamError):
    """A version of XMPP other than 1.0 (4.9.3.25)."""

    condition = "unsupported-version"


# --- RFC 6120, 6.5: SASL conditions


class Aborted(SaslError):
    """The client gave up (6.5.1)."""

    condition = "aborted"


class AccountDisabled(SaslError):
    """The account is temporarily disabled (6.5.2)."""

    condition = "account-disabled"


class CredentialsExpired(SaslError):
    """The credentials have expired (6.5.3)."""

    condition = "credentials-expired"


class EncryptionRequired(SaslError):
    """Not without TLS (6.5.4)."""

    condition = "encryption-required"


class IncorrectEncoding(SaslError):
    """Not base64 (6.5.5)."""

    condition = "incorrect-encoding"


class InvalidAuthzid(SaslError):
    """The authorization identity is malformed or not the account's (6.5.6)."""

    condition = "invalid-authzid"


class InvalidMechanism(SaslError):
    """A mechanism that was not offered (6.5.7)."""

    condition = "invalid-mechanism"


class MalformedRequest(SaslError):
    """The exchange does not follow its mechanism (6.5.8)."""

    condition = "malformed-request"


class MechanismTooWeak(SaslError):
    """A stronger mechanism is needed (6.5.9)."""

    condition = "mechanism-too-weak"


class SaslNotAuthorized(SaslError):
    """Wrong credentials, or no such account (6.5.10)."""

    condition = "not-authorized"


class TemporaryAuthFailure(SaslError):
    """The server cannot say now (6.5.11)."""

    condition = "temporary-auth-failure"


STANZA_ERRORS: Final = {kind.condition: kind for kind in StanzaError.__subclasses__()}
STREAM_ERRORS: Final = {kind.condition: kind for kind in StreamError.__subclasses__()}
SASL_ERRORS: Final = {kind.condition: kind for kind in SaslError.__subclasses__()}


def stanza_error(condition: str, text: str | None = None) -> StanzaError:
    """The stanza error of this condition; `undefined-condition` where the RFC does not know it."""
    return STANZA_ERRORS.get(condition, UndefinedCondition)(text)


def stream_error(condition: str, text: str | None = None) -> StreamError:
    """The stream error of this condition; likewise."""
    return STREAM_ERRORS.get(condition, StreamUndefinedCondition)(text)


def sasl_error(condition: str, text: str | None = None) -> SaslError:
    """The SASL failure of this condition; `temporary-auth-failure` where the RFC does not know it."""
    return SASL_ERRORS.get(condition, TemporaryAuthFailure)(text)
