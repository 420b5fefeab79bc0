"""SASL, the server's side (RFC 6120, 6; RFC 4422): SCRAM with and without channel binding, PLAIN, OAUTHBEARER,
EXTERNAL, ANONYMOUS, and the hashed tokens of XEP-0484.

An `Exchange` is the conversation with one client, without I/O. What it cannot know, it asks its driver for: `NeedSalt`,
`NeedProof`, `NeedPassword`, `NeedToken`, `NeedTokenProof`, `NeedAccount` and `NeedGuest` are questions to a router,
which checks them with `xmpp/scram.py`, `xmpp/tokens.py` or a back end; the driver hands the answer back. So the process
that talks to the client never holds a key.

    step(data) -> Challenge | Success
               -> NeedSalt     -> salt(...)             -> Challenge
               -> NeedProof    -> verified(...)         -> Success
               -> NeedPassword -> password_checked(...) -> Success
               -> NeedToken    -> token_checked(...)    -> Success, or Challenge with the reason for its failure
               -> NeedTokenProof -> token_proved(...)   -> Success
               -> NeedAccount  -> admitted(...)         -> Success
               -> NeedGuest    -> admitted(...)         -> Success

Every failure is a SaslError. Whether an account exists shows in none of them.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from hmac import compare_digest
from typing import Final

from xmpp.errors import (
    EncryptionRequired,
    IncorrectEncoding,
    InvalidAuthzid,
    InvalidMechanism,
    JidError,
    MalformedRequest,
    SaslNotAuthorized,
)
from xmpp.jid import JID
from xmpp.scram import DIGEST_BYTES, HASHES

MESSAGE_BYTES: Final = 8_192  # greatest message of a client, decoded

_SCRAM: Final = {f"SCRAM-{name}{suffix}": name for name in reversed(HASHES) for suffix in ("-PLUS", "")}
MECHANISMS: Final = frozenset({*_SCRAM, "PLAIN", "OAUTHBEARER", "EXTERNAL"})  # of ANONYMOUS, encryption is no part

TRACE_CHARACTERS: Final = 255  # of ANONYMOUS (RFC 4505, 2)
_NO_TRACE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # RFC 4505, 3: control characters

# Mechanisms of tokens (draft-schmaus-kitten-sasl-ht, 2) and the channel binding that each needs, the better first.
TOKEN_MECHANISMS: Final = {
    "HT-SHA-256-EXPR": "tls-exporter",
    "HT-SHA-256-UNIQ": "tls-unique",
    "HT-SHA-256-ENDP": "tls-server-end-point",
    "HT-SHA-256-NONE": "",
}

# RFC 5802, 7. An attribute that is no extension cannot stand in the place of one; the reserved `m` least of all (5.1).
_NONCE = r"[!-+\--~]+"
_BASE64 = r"[A-Za-z0-9+/]+={0,2}"
_EXTENSIONS = r"(?:,(?![aceimnprsv])[A-Za-z]=[^,]+)*"
_CLIENT_FIRST = re.compile(
    r"(?P<gs2>(?P<flag>n|y|p=(?P<type>[A-Za-z0-9.-]+)),(?:a=(?P<authzid>[^,]+))?,)"
    rf"(?P<bare>n=(?P<username>[^,]+),r=(?P<nonce>{_NONCE}){_EXTENSIONS})"
)
_CLIENT_FINAL = re.compile(
    rf"(?P<without_proof>c=(?P<binding>{_BASE64}),r=(?P<nonce>{_NONCE}){_EXTENSIONS}),p=(?P<proof>{_BASE64})"
)
_ESCAPE = re.compile(r"=(2C|3D)?")

# RFC 7628, 3.1, and RFC 6750, 2.1. There is no channel binding: "p" cannot be.
_BEARER = re.compile(r"[ny],(?:a=(?P<authzid>[^,\x01]+))?,\x01(?P<pairs>(?:[A-Za-z]+=[\t\n\r -~]*\x01)*)\x01", re.ASCII)
_TOKEN = re.compile(r"bearer +(?P<token>[A-Za-z0-9._~+/-]+=*)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send `<challenge/>` with this data, which may be empty."""

    data: bytes


@dataclass(frozen=True, slots=True)
class NeedSalt:
    """Ask the router for salt and iterations, then call `salt`. An unknown account has them too (`fake_salt`)."""

    username: str  # the account's localpart, prepared
    hash: str  # a key of xmpp.scram.HASHES


@dataclass(frozen=True, slots=True)
class NeedProof:
    """Ask the router to check the proof (`verify_proof`), then call `verified` with the signature, or None."""

    username: str
    hash: str
    auth_message: bytes
    proof: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class NeedPassword:
    """Ask the router to check the password (`check_password`), then call `password_checked`."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NeedToken:
    """Ask a router to check the token, then call `token_checked` with the localpart of the account that it is for."""

    username: str  # the localpart that the client wants to be; "" where it leaves that to the token
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NeedTokenProof:
    """Ask the router to check what was made of a token (`xmpp/tokens.py`), then call `token_proved` with the answer to
    it, or None."""

    username: str
    mechanism: str  # a key of TOKEN_MECHANISMS
    binding: bytes  # the data of its channel binding
    proof: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class NeedAccount:
    """The client has proved outside of SASL who it is. Ask the router whether there is such an account, and whether it
    may sign in, then call `admitted`."""

    username: str


@dataclass(frozen=True, slots=True)
class NeedGuest:
    """Somebody wants to be nobody. Ask the router to make an account of this name, then call `admitted`."""

    username: str


@dataclass(frozen=True, slots=True)
class Success:
    """Send `<success/>`, with the data if there is any. `authzid` is who the client now is: a bare JID."""

    username: str  # the localpart of authzid
    authzid: str
    data: bytes | None = None


Step = Challenge | NeedSalt | NeedProof | NeedPassword | NeedToken | NeedTokenProof | NeedAccount | NeedGuest | Success


def offered(
    credential_hashes: Collection[str],
    channel_bindings: Collection[str],
    *,
    tls: bool,
    plain_allowed_without_tls: bool = False,
    external: bool = False,
    tokens: bool = False,
) -> list[str]:
    """The mechanisms to offer, strongest first (RFC 6120, 6.3.3).

    `credential_hashes` are those that accounts have credentials for, `channel_bindings` the types that this connection
    has data for; `external` says that the peer's certificate proved an identity (XEP-0178), `tokens` that there is
    somebody who checks them.
    """
    names = ["EXTERNAL"] if external else []
    bound = ["-PLUS", ""] if channel_bindings else [""]
    for suffix in bound:
        names += [f"SCRAM-{name}{suffix}" for name in reversed(HASHES) if name in credential_hashes]
    if tokens and tls:  # RFC 7628, 4: TLS MUST be used
        names.append("OAUTHBEARER")
    if tls or plain_allowed_without_tls:
        names.append("PLAIN")
    return names


def offered_tokens(channel_bindings: Collection[str]) -> list[str]:
    """The mechanisms by which a client may sign in with a token, the best first: those that this connection has the
    channel binding for, and the one without (XEP-0484, 3.1: there SHOULD be one of each kind)."""
    return [name for name, binding in TOKEN_MECHANISMS.items() if not binding or binding in channel_bindings]


def downgrade_protection(mechanisms: Collection[str], channel_bindings: Collection[str]) -> bytes:
    """What a SCRAM server signs of its offer (XEP-0474, 4.1): the mechanisms of the profile that the client uses, and
    the types of channel binding, each sorted by octets. Mechanisms of tokens are no part of it: they are offered
    elsewhere (XEP-0484, 3.1)."""
    text = "\x1e".join(sorted(mechanisms))
    if channel_bindings:
        text += "\x1f" + "\x1e".join(sorted(channel_bindings))
    return text.encode()


def begin(
    mechanism: str,
    *,
    offered: Collection[str],
    domain: str,
    nonce: str,
    tls: bool,
    channel_bindings: Mapping[str, bytes],
    identities: Sequence[JID] = (),
    protected: bytes = b"",
    guest: str = "",
) -> Exchange:
    """Begin an exchange with the mechanism that the client names in `<auth/>`; `step` takes its initial response.

    `domain` is the one the stream is for. `nonce` is random printable ASCII without a comma, 18 bytes of entropy or
    more. `channel_bindings` holds the data of this TLS connection by type. `identities` are the accounts that the
    client's certificate is for, bare JIDs of `domain`. `protected` is what SCRAM signs of the offer
    (`downgrade_protection`). `guest` is a localpart that nobody can guess, for ANONYMOUS. Raises InvalidMechanism, or
    EncryptionRequired when it is TLS that is missing (RFC 6120, 6.5).
    """
    if mechanism not in offered:
        raise EncryptionRequired if mechanism in MECHANISMS and not tls else InvalidMechanism
    if mechanism == "PLAIN":
        return _Plain(domain)
    if mechanism == "OAUTHBEARER":
        return _Bearer(domain)
    if mechanism == "EXTERNAL":
        return _External(identities)
    if mechanism == "ANONYMOUS":
        return _Anonymous(domain, guest)
    if mechanism in TOKEN_MECHANISMS:
        return _HashedToken(mechanism, domain, channel_bindings)
    return _Scram(_SCRAM[mechanism], mechanism.endswith("-PLUS"), domain, nonce, channel_bindings, protected)


def decode_payload(text: str) -> bytes:
    """The data in `<auth/>` or `<response/>`; "=" stands for no data (RFC 6120, 6.4.2).

    An `<auth/>` without text has no initial response: give `step` None then. Raises IncorrectEncoding unless this is
    strict base64: no white space, no lack of padding, no stray bits (RFC 6120, 13.9.1).
    """
    if text == "=":
        return b""
    if len(text) > MESSAGE_BYTES // 3 * 4 + 4:
        raise MalformedRequest("the message is too long")
    data = _from_base64(text)
    if data is None:
        raise IncorrectEncoding
    return data


class _Waits(Enum):
    """Whom an exchange waits for."""

    CLIENT = "the client"
    SALT = "the answer to NeedSalt"
    PROOF = "the answer to NeedProof"
    PASSWORD = "the answer to NeedPassword"
    TOKEN = "the answer to NeedToken"
    TOKEN_PROOF = "the answer to NeedTokenProof"
    ACCOUNT = "the answer to NeedAccount or NeedGuest"
    NOBODY = "nobody, it is over"


class Exchange(ABC):
    """One SASL exchange. After a SaslError or Success it is over, as it is when a question is left unanswered."""

    __slots__ = ("_has_begun", "_waits")

    def __init__(self) -> None:
        self._has_begun = False
        self._waits = _Waits.CLIENT

    def step(self, data: bytes | None) -> Step:
        """Take the client's next message; None only for an `<auth/>` without an initial response. Raises SaslError."""
        waits, self._waits = self._waits, _Waits.NOBODY
        has_begun, self._has_begun = self._has_begun, True
        if waits is not _Waits.CLIENT:
            raise MalformedRequest("the client spoke out of turn")
        if data is None:
            if has_begun:
                raise MalformedRequest("only the initial response may be left out")
            self._waits = _Waits.CLIENT
            return Challenge(b"")  # each mechanism here begins with the client (RFC 4422, 5)
        if len(data) > MESSAGE_BYTES:
            raise MalformedRequest("the message is too long")
        return self._take(data)

    def _take(self, data: bytes) -> Step:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise MalformedRequest("the message is not UTF-8") from None
        return self._read(text)

    @abstractmethod
    def _read(self, text: str) -> Step: ...

    def salt(self, salt: bytes, iterations: int) -> Challenge:
        """Answer NeedSalt."""
        raise self._unasked(_Waits.SALT)

    def verified(self, server_signature: bytes | None) -> Success:
        """Answer NeedProof. Raises SaslNotAuthorized when the signature is None."""
        raise self._unasked(_Waits.PROOF)

    def password_checked(self, is_right: bool) -> Success:
        """Answer NeedPassword. Raises SaslNotAuthorized when it is not right."""
        raise self._unasked(_Waits.PASSWORD)

    def token_checked(self, username: str | None, configuration: str = "") -> Success | Challenge:
        """Answer NeedToken: whose token it is, None for nobody's; `configuration` is where clients learn of the
        provider (OpenID Connect Discovery, 4)."""
        raise self._unasked(_Waits.TOKEN)

    def token_proved(self, answer: bytes | None) -> Success:
        """Answer NeedTokenProof. Raises SaslNotAuthorized when it is None."""
        raise self._unasked(_Waits.TOKEN_PROOF)

    def admitted(self, is_there: bool) -> Success:
        """Answer NeedAccount or NeedGuest. Raises SaslNotAuthorized where there is no such account."""
        raise self._unasked(_Waits.ACCOUNT)

    def _answered(self, question: _Waits) -> None:
        if self._waits is not question:
            raise self._unasked(question)
        self._waits = _Waits.NOBODY

    def _unasked(self, question: _Waits) -> RuntimeError:
        return RuntimeError(f"this is {question.value}, but the exchange waits for {self._waits.value}")


class _Scram(Exchange):
    """RFC 5802, with channel binding if `is_plus`."""

    __slots__ = (
        "_channel_bindings", "_client_first_bare", "_domain", "_expected_binding", "_hash", "_is_plus", "_nonce",
        "_protected", "_server_first", "_username",
    )  # fmt: skip

    def __init__(
        self, hash: str, is_plus: bool, domain: str, nonce: str, channel_bindings: Mapping[str, bytes],
        protected: bytes,
    ) -> None:  # fmt: skip
        super().__init__()
        self._hash = hash
        self._is_plus = is_plus
        self._domain = domain
        self._nonce = nonce  # ours, and then the client's and ours
        self._channel_bindings = channel_bindings
        self._protected = protected
        self._username = ""
        self._client_first_bare = ""
        self._server_first = ""
        self._expected_binding = b""

    def _read(self, text: str) -> Step:
        if "\0" in text:
            raise MalformedRequest("the message has a NUL character")
        return self._client_final(text) if self._server_first else self._client_first(text)

    def _client_first(self, text: str) -> NeedSalt:
        message = _CLIENT_FIRST.fullmatch(text)
        if message is None:
            raise MalformedRequest("this is not a client-first-message")
        self._expected_binding = message["gs2"].encode() + self._binding_data(message["flag"], message["type"])
        self._username = _account(_from_saslname(message["username"]), self._domain)
        if message["authzid"] is not None:
            _check_authzid(_from_saslname(message["authzid"]), self._username, self._domain)
        self._client_first_bare = message["bare"]
        self._nonce = message["nonce"] + self._nonce
        self._waits = _Waits.SALT
        return NeedSalt(self._username, self._hash)

    def _binding_data(self, flag: str, binding_type: str | None) -> bytes:
        """The channel binding data that the client's choice calls for (RFC 5802, 6)."""
        if (binding_type is not None) != self._is_plus:
            raise MalformedRequest("channel binding is used with -PLUS mechanisms, and only with them")
        if flag == "y" and self._channel_bindings:
            # The client believes we have no channel binding: somebody took it from our offer.
            raise SaslNotAuthorized("the offer of channel binding did not reach the client")
        if binding_type is None:
            return b""
        if binding_type not in self._channel_bindings:
            raise SaslNotAuthorized("this type of channel binding is not offered")
        return self._channel_bindings[binding_type]

    def salt(self, salt: bytes, iterations: int) -> Challenge:
        """Make server-first-message."""
        self._answered(_Waits.SALT)
        self._waits = _Waits.CLIENT
        self._server_first = f"r={self._nonce},s={b64encode(salt).decode()},i={iterations}"
        if self._protected:  # XEP-0474: a client that does not know the attribute has to ignore it (RFC 5802, 5.1)
            digest = hashlib.new(HASHES[self._hash], self._protected).digest()
            self._server_first += f",h={b64encode(digest).decode()}"
        return Challenge(self._server_first.encode())

    def _client_final(self, text: str) -> NeedProof:
        message = _CLIENT_FINAL.fullmatch(text)
        if message is None:
            raise MalformedRequest("this is not a client-final-message")
        binding, proof = _from_base64(message["binding"]), _from_base64(message["proof"])
        if binding is None or proof is None or len(proof) != DIGEST_BYTES[self._hash]:
            raise MalformedRequest("the channel binding or the proof is not well formed")
        if not compare_digest(binding, self._expected_binding):
            raise SaslNotAuthorized("the channel binding is not that of this connection")
        if not compare_digest(message["nonce"], self._nonce):
            raise SaslNotAuthorized("the nonce is not the one given")
        self._waits = _Waits.PROOF
        auth_message = f"{self._client_first_bare},{self._server_first},{message['without_proof']}"
        return NeedProof(self._username, self._hash, auth_message.encode(), proof)

    def verified(self, server_signature: bytes | None) -> Success:
        """Make server-final-message; it travels inside `<success/>` (RFC 6120, 6.3.10)."""
        self._answered(_Waits.PROOF)
        if server_signature is None:
            raise SaslNotAuthorized
        return Success(self._username, f"{self._username}@{self._domain}", b"v=" + b64encode(server_signature))


class _Plain(Exchange):
    """RFC 4616."""

    __slots__ = ("_domain", "_username")

    def __init__(self, domain: str) -> None:
        super().__init__()
        self._domain = domain
        self._username = ""

    def _read(self, text: str) -> Step:
        parts = text.split("\0")
        if len(parts) != 3:
            raise MalformedRequest("PLAIN has three parts")
        authzid, username, password = parts
        if not username or not password:
            raise MalformedRequest("user name or password is empty")
        self._username = _account(username, self._domain)
        if authzid:
            _check_authzid(authzid, self._username, self._domain)
        self._waits = _Waits.PASSWORD
        return NeedPassword(self._username, password)

    def password_checked(self, is_right: bool) -> Success:
        self._answered(_Waits.PASSWORD)
        if not is_right:
            raise SaslNotAuthorized
        return Success(self._username, f"{self._username}@{self._domain}")


class _HashedToken(Exchange):
    """draft-schmaus-kitten-sasl-ht, 3: one message of the client, one answer."""

    __slots__ = ("_bindings", "_domain", "_mechanism", "_proof", "_username")

    def __init__(self, mechanism: str, domain: str, channel_bindings: Mapping[str, bytes]) -> None:
        super().__init__()
        self._mechanism = mechanism
        self._domain = domain
        self._bindings = channel_bindings
        self._proof = b""
        self._username = ""

    def _take(self, data: bytes) -> Step:
        """What the client sends is no text: a name, NUL, and a digest."""
        name, separator, self._proof = data.partition(b"\0")
        if not separator or len(self._proof) != DIGEST_BYTES["SHA-256"]:
            raise MalformedRequest("this is not an initiator message")
        return super()._take(name)

    def _read(self, text: str) -> Step:
        self._username = _account(text, self._domain)
        self._waits = _Waits.TOKEN_PROOF
        binding = TOKEN_MECHANISMS[self._mechanism]
        return NeedTokenProof(self._username, self._mechanism, self._bindings[binding] if binding else b"", self._proof)

    def token_proved(self, answer: bytes | None) -> Success:
        self._answered(_Waits.TOKEN_PROOF)
        if answer is None:
            raise SaslNotAuthorized
        return Success(self._username, f"{self._username}@{self._domain}", answer)


class _Bearer(Exchange):
    """RFC 7628: a bearer token of an identity provider."""

    __slots__ = ("_domain", "_has_failed", "_username")

    def __init__(self, domain: str) -> None:
        super().__init__()
        self._domain = domain
        self._username = ""
        self._has_failed = False

    def _read(self, text: str) -> Step:
        if self._has_failed:
            raise SaslNotAuthorized  # 3.2.3: whatever the client says to the challenge, \x01 by the book
        message = _BEARER.fullmatch(text)
        if message is None:
            raise MalformedRequest("this is not a client response of OAUTHBEARER")
        pairs = dict(pair.split("=", 1) for pair in message["pairs"].split("\x01") if pair)
        token = _TOKEN.fullmatch(pairs.get("auth", ""))
        if token is None:
            raise MalformedRequest("there is no bearer token")
        if message["authzid"] is not None:
            self._username = _account(_from_saslname(message["authzid"]), self._domain)
        self._waits = _Waits.TOKEN
        return NeedToken(self._username, token["token"])

    def token_checked(self, username: str | None, configuration: str = "") -> Success | Challenge:
        self._answered(_Waits.TOKEN)
        if username is not None and self._username in ("", username):
            return Success(username, f"{username}@{self._domain}")
        self._has_failed = True
        self._waits = _Waits.CLIENT
        reason = {"status": "invalid_token"}  # 3.2.2
        if configuration:
            reason["openid-configuration"] = configuration
        return Challenge(json.dumps(reason).encode())


class _External(Exchange):
    """RFC 4422, Appendix A, with certificates of clients as XEP-0178, 2, has it."""

    __slots__ = ("_identities", "_identity")

    def __init__(self, identities: Sequence[JID]) -> None:
        super().__init__()
        self._identities = identities
        self._identity: JID | None = None

    def _read(self, text: str) -> Step:
        if text:
            identity = _bare_jid(text)
            if identity is None or identity not in self._identities:
                raise InvalidAuthzid("the certificate is not for this identity")
        elif len(self._identities) == 1:
            identity = self._identities[0]
        else:
            raise InvalidAuthzid("the certificate is for several identities, and none was named")
        self._identity = identity
        self._waits = _Waits.ACCOUNT
        return NeedAccount(identity.local)

    def admitted(self, is_there: bool) -> Success:
        self._answered(_Waits.ACCOUNT)
        assert self._identity is not None
        if not is_there:
            raise SaslNotAuthorized
        return Success(self._identity.local, str(self._identity))


class _Anonymous(Exchange):
    """RFC 4505. What the client says of itself ("trace information") is nobody's business, and forgotten."""

    __slots__ = ("_domain", "_guest")

    def __init__(self, domain: str, guest: str) -> None:
        super().__init__()
        self._domain = domain
        self._guest = guest

    def step(self, data: bytes | None) -> Step:
        """XEP-0175, 2: there need be no initial response; a challenge would only cost a round trip."""
        return super().step(b"" if data is None else data)

    def _read(self, text: str) -> Step:
        if len(text) > TRACE_CHARACTERS or _NO_TRACE.search(text):
            raise MalformedRequest("this is not trace information")
        self._waits = _Waits.ACCOUNT
        return NeedGuest(self._guest)

    def admitted(self, is_there: bool) -> Success:
        self._answered(_Waits.ACCOUNT)
        if not is_there:
            raise SaslNotAuthorized
        return Success(self._guest, f"{self._guest}@{self._domain}")


def _account(username: str, domain: str) -> str:
    """The localpart of the account that a user name means: a localpart, or the whole bare JID.

    A name that cannot be one is treated like a wrong password: RFC 5802, 5.1 has us abort, and this tells nothing.
    """
    jid = _bare_jid(username if "@" in username else f"{username}@{domain}")
    if jid is None or not jid.local or jid.domain != domain:
        raise SaslNotAuthorized("no account can have this name")
    return jid.local


def _check_authzid(authzid: str, username: str, domain: str) -> None:
    """Nobody acts for somebody else here; naming oneself is allowed (RFC 6120, 6.3.8)."""
    jid = _bare_jid(authzid)
    if jid is None or (jid.local, jid.domain) != (username, domain):
        raise InvalidAuthzid


def _bare_jid(text: str) -> JID | None:
    """Parse a bare JID. Not with `JID.parse`: its cache is not for names that strangers make up."""
    local, at, domain = text.partition("@")
    try:
        if not at:
            return JID.of("", local)
        return JID.of(local, domain) if local else None
    except JidError:
        return None


def _from_saslname(name: str) -> str:
    """Decode `=2C` and `=3D`; any other `=` MUST fail the exchange (RFC 5802, 5.1)."""

    def decode(escape: re.Match[str]) -> str:
        if escape[1] is None:
            raise MalformedRequest("a stray '=' in a name")
        return "," if escape[1] == "2C" else "="

    return _ESCAPE.sub(decode, name)


def _from_base64(text: str) -> bytes | None:
    """Decode canonical base64 (RFC 4648, 4), else None."""
    try:
        data = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        return None
    return data if b64encode(data).decode() == text else None
