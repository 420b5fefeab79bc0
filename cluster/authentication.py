"""The settings of the back ends that check passwords and tokens (router/backends/): one model for each.

docs/authentication.md shows each by example. A rule between two settings is checked at the later one, so that the
error can name it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator

from cluster.section import Seconds, Secret, Section

SECRET_BYTES: Final = 32  # RFC 7518, 3.2: an HMAC key is as long as the hash, or longer
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"
]

_SERVER = re.compile(r"ldaps?://([A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(:[1-9][0-9]{0,4})?")
_PLACEHOLDER = re.compile(r"\{(\w*)\}")


class _Backend(Section):
    """What every back end that is elsewhere has."""

    change: str = Field(
        default="", max_length=500, description="where users change their password: what they are told who try it here"
    )
    ca: Path | None = Field(default=None, description="trusted certificates, PEM; without it those of the system")


class Internal(Section):
    """Passwords are kept here, as SCRAM credentials."""

    backend: Literal["internal"] = "internal"


class Ldap(_Backend):
    """A directory is asked by a bind (RFC 4511, 4.2)."""

    backend: Literal["ldap"]
    servers: tuple[str, ...] = Field(
        min_length=1, max_length=8, description="ldaps://HOST[:PORT] or ldap://HOST[:PORT], tried in this order"
    )
    starttls: bool = Field(
        default=True, description="whether ldap:// has to begin TLS; false: passwords cross the network in clear"
    )
    timeout_s: int = Field(default=3, ge=1, le=8, description="time to connect, and for each answer")
    threads: int = Field(default=4, ge=1, le=32, description="sign-ins that one router asks about at a time")
    bind_dn: str = Field(default="", description="who searches; without it nobody (anonymous)")
    bind_password: Secret = Field(
        default="", validate_default=True, description="that belongs to bind_dn; one is not given without the other"
    )
    filter: str = Field(
        default="(uid={user})", description="with base: finds the entry; {user} and {domain} stand for the JID's parts"
    )
    base: str = Field(default="", description="where to search for the entry of a user")
    dn: str = Field(
        default="",
        validate_default=True,
        description="instead of base: the DN of a user, for instance uid={user},ou=people,dc=example,dc=org",
    )

    @field_validator("servers")
    @classmethod
    def _are_urls(cls, servers: tuple[str, ...]) -> tuple[str, ...]:
        for server in servers:
            if not _SERVER.fullmatch(server):
                raise ValueError(f"{server!r} is not the address of a directory")
        return servers

    @field_validator("bind_password")
    @classmethod
    def _belongs_to_somebody(cls, password: str, info: ValidationInfo) -> str:
        # RFC 4513, 5.1.2: a name without a password is an unauthenticated bind, which proves nothing.
        if bool(password) != bool(info.data.get("bind_dn")):
            raise ValueError("one of bind_dn and bind_password is missing")
        return password

    @field_validator("filter", "dn")
    @classmethod
    def _names_the_user(cls, template: str) -> str:
        if template:
            names = _PLACEHOLDER.findall(template)
            if "user" not in names:
                raise ValueError("{user} is missing")
            if unknown := set(names) - {"user", "domain"}:
                raise ValueError(f"{{{min(unknown)}}} stands for nothing")
        return template

    @field_validator("dn")
    @classmethod
    def _is_one_way(cls, dn: str, info: ValidationInfo) -> str:
        if bool(dn) == bool(info.data.get("base")):
            raise ValueError("one of base and dn is needed, and not both")
        return dn


class Jwt(_Backend):
    """A token, signed by an identity provider, is checked here (RFC 7519, OpenID Connect)."""

    backend: Literal["jwt"]
    issuer: str = Field(
        min_length=1, description="who signs: `iss` of every token; where its keys are found by default"
    )
    audience: tuple[str, ...] = Field(min_length=1, description="`aud` of a token has to be one of these")
    claim: str = Field(
        default="sub",
        min_length=1,
        description="the claim that is the user's name, or bare JID; never one that users may choose for themselves",
    )
    algorithms: tuple[Algorithm, ...] = Field(
        default=("RS256", "ES256"), min_length=1, description="the signatures that are accepted"
    )
    leeway_s: int = Field(default=30, ge=0, le=300, description="how far the clocks may be apart, seconds")
    jwks: str = Field(
        default="",
        description="https:// address of the keys (RFC 7517); without it, "
        "where ISSUER/.well-known/openid-configuration says",
    )
    refetch_s: Seconds = Field(
        default=10.0, description="pause between two fetches of the keys; a key that is not known is the usual reason"
    )
    refresh_s: Seconds = Field(default=3_600.0, description="age at which keys are fetched again anyway")
    keep_s: int = Field(
        default=86_400, ge=60, le=2_592_000, description="age at which keys are given up while the provider is away"
    )
    timeout_s: int = Field(default=4, ge=1, le=8, description="time for one fetch")
    key: Path | None = Field(default=None, description="instead of a provider's keys: a public key, PEM")
    secret: Secret = Field(
        default="",
        validate_default=True,
        description="instead of a provider's keys: a secret of 32 bytes or more that HS256, HS384, HS512 are made with",
    )

    @field_validator("jwks")
    @classmethod
    def _is_https(cls, url: str) -> str:
        return _secure(url) if url else url

    @field_validator("secret")
    @classmethod
    def _is_one_source(cls, secret: str, info: ValidationInfo) -> str:
        given = [name for name in ("jwks", "key") if info.data.get(name)] + (["secret"] if secret else [])
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are given, which exclude each other")
        if not given:
            try:
                _secure(info.data.get("issuer", "https://localhost"))
            except ValueError as problem:
                raise ValueError(f"issuer {problem}, so no keys are found there") from None
        if secret and len(secret.encode()) < SECRET_BYTES:
            raise ValueError(f"it is shorter than {SECRET_BYTES} bytes")
        # One key for two kinds of signature lets anybody who knows the public key sign (RFC 8725, 2.1).
        for name in info.data.get("algorithms", ()):
            if name.startswith("HS") and not secret:
                raise ValueError(f"algorithms has {name}, and there is no secret")
            if secret and not name.startswith("HS"):
                raise ValueError(f"algorithms has {name}, which is not made with a secret")
        return secret


class Http(_Backend):
    """A service of the operator's is asked over HTTPS."""

    backend: Literal["http"]
    url: str = Field(description="https:// address that is asked (http:// on this machine)")
    secret: Secret = Field(default="", description="bearer token that the request carries")
    timeout_s: int = Field(default=5, ge=1, le=8, description="time for one request")

    @field_validator("url")
    @classmethod
    def _is_https(cls, url: str) -> str:
        return _secure(url)


class Anonymous(Section):
    """Nobody is asked: whoever comes is a guest, with a name made for this session (RFC 4505, XEP-0175)."""

    backend: Literal["anonymous"]
    sessions: int = Field(default=1_000, ge=1, le=1_000_000, description="guests at a time, about")
    per_address: int = Field(
        default=10, ge=0, le=1_000_000, description="of one IPv4 address, or one /64 of IPv6; 0: any number"
    )
    remote: bool = Field(
        default=False, description="whether guests and other servers (and components) may write to each other"
    )


Backend = Annotated[Internal | Ldap | Jwt | Http | Anonymous, Field(discriminator="backend")]
INTERNAL: Final = Internal()
BACKENDS: Final[dict[str, type[Section]]] = {
    "internal": Internal, "ldap": Ldap, "jwt": Jwt, "http": Http, "anonymous": Anonymous,
}  # fmt: skip


def _secure(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname
        parts.port  # noqa: B018  # raises where it is none
    except ValueError:
        host = None
    if not host or (parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK)):
        raise ValueError(f"{url!r} is no https:// address")
    return url
