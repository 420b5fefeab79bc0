"""Tokens (router/backends/jwt.py): whose they are, and every way in which one is nobody's."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any, cast

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cluster.authentication import Jwt
from router.backends.backend import Away
from router.backends.https import Https
from router.backends.jwt import JwtBackend

ISSUER = "https://id.example.org"
KEYS = f"{ISSUER}/keys"
DISCOVERY = f"{ISSUER}/.well-known/openid-configuration"
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
SECRET = "a secret that is long enough for it"


def jwk(private: Any, kid: str, **more: str) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(private, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    found: dict[str, Any] = algorithm.to_jwk(private.public_key(), as_dict=True)
    return {**found, "kid": kid, **more}


def claims(**changed: Any) -> dict[str, Any]:
    now = int(time.time())
    said = {"iss": ISSUER, "aud": "xmpp", "sub": "romeo", "iat": now, "exp": now + 60, **changed}
    return {name: value for name, value in said.items() if value is not None}


def token(private: Any = RSA, algorithm: str = "RS256", kid: str | None = "one", **changed: Any) -> str:
    return jwt.encode(claims(**changed), private, algorithm, {"kid": kid} if kid else None)


class Provider:
    """The web pages of an identity provider, in the place of `Https`."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.pages: dict[str, dict[str, Any]] = {
            DISCOVERY: {"issuer": ISSUER, "jwks_uri": KEYS}, KEYS: {"keys": list(keys)},
        }  # fmt: skip
        self.asked: list[str] = []

    async def get(self, url: str) -> dict[str, Any]:
        self.asked.append(url)
        if url not in self.pages:
            raise Away(f"{url} answers 404")
        return self.pages[url]


def backend(provider: Provider | None = None, **settings: Any) -> JwtBackend:
    chosen = Jwt.model_validate({"backend": "jwt", "issuer": ISSUER, "audience": ["xmpp"], **settings})
    return JwtBackend(chosen, https=cast(Https, provider or Provider(jwk(RSA, "one"), jwk(EC, "two"))))


def owner(of: JwtBackend, said: str) -> str | None:
    return asyncio.run(of.check_token(said))


def test_a_token_says_whose_it_is() -> None:
    assert owner(backend(), token()) == "romeo"
    assert owner(backend(), token(EC, "ES256", "two")) == "romeo"
    assert owner(backend(claim="preferred_username"), token(preferred_username="Juliet")) == "Juliet"


def test_a_password_is_a_token_of_this_very_user() -> None:
    async def conversation() -> None:
        checks = backend().check_password
        assert await checks("romeo", "example.org", token())
        assert await checks("romeo", "example.org", token(sub="Romeo@Example.org"))
        assert not await checks("juliet", "example.org", token())
        assert not await checks("romeo", "example.org", token(sub="romeo@example.net"))
        assert not await checks("romeo", "example.org", "secret")

    asyncio.run(conversation())


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://id.example.net"},
        {"iss": None},
        {"aud": "web"},
        {"aud": None},
        {"exp": int(time.time()) - 120},
        {"exp": None},
        {"nbf": int(time.time()) + 3_600},
        {"sub": None},
        {"sub": ""},
    ],
    ids=lambda changed: "-".join(changed),
)
def test_a_token_for_somebody_else_or_another_time_is_nobodys(changed: dict[str, Any]) -> None:
    assert owner(backend(), token(**changed)) is None


def test_clocks_may_be_a_little_apart() -> None:
    late = token(exp=int(time.time()) - 20)
    assert owner(backend(), late) == "romeo"
    assert owner(backend(leeway_s=0), late) is None


def unsigned() -> str:
    return jwt.encode(claims(), "", "none", {"kid": "one"})


def signed_with_the_public_key() -> str:
    """RFC 8725, 2.1: who takes the public key for the secret of an HMAC lets everybody sign. PyJWT would not make it."""
    public = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def part(said: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()

    body = f"{part({'alg': 'HS256', 'kid': 'one'})}.{part(claims())}"
    signature = base64.urlsafe_b64encode(hmac.digest(public, body.encode(), hashlib.sha256)).rstrip(b"=").decode()
    return f"{body}.{signature}"


@pytest.mark.parametrize(
    "said",
    [
        unsigned(),
        signed_with_the_public_key(),
        token(kid="two"),  # a key of another kind than the signature
        token(rsa.generate_private_key(65537, 2048)),
        token(algorithm="RS512"),  # not allowed by the settings
        jwt.encode(claims(), RSA, "RS256", {"kid": "one", "crit": ["what"], "what": 1}),
        token()[:-4],
        "",
        "a.b.c",
        base64.urlsafe_b64encode(b"[" * 6_000).decode() + ".e30.e30",
    ],
    ids=["unsigned", "public-key-as-secret", "other-kind", "other-key", "not-allowed", "critical", "cut", "empty",
         "no-token", "deep"],
)  # fmt: skip
def test_a_forged_token_is_nobodys(said: str) -> None:
    assert owner(backend(), said) is None


def test_a_secret_among_the_providers_keys_signs_nothing() -> None:
    """Whatever the set of keys says: a signature of the allowed kinds is by a key pair."""
    symmetric = {"kty": "oct", "kid": "one", "alg": "RS256", "k": base64.urlsafe_b64encode(SECRET.encode()).decode()}
    assert owner(backend(Provider(symmetric)), jwt.encode(claims(), SECRET, "HS256", {"kid": "one"})) is None
    assert owner(backend(Provider(symmetric)), token()) is None


def test_a_key_is_used_for_what_it_is_for() -> None:
    assert owner(backend(Provider(jwk(RSA, "one", use="enc"))), token()) is None
    assert owner(backend(Provider(jwk(RSA, "one", alg="PS256"))), token()) is None
    assert owner(backend(Provider({"kty": "RSA", "kid": "one"}, {})), token()) is None
    only = backend(Provider(jwk(RSA, "one")), algorithms=["RS512"])
    assert owner(only, token(algorithm="RS512")) == "romeo"  # a key without alg serves each kind that is allowed


def test_a_token_that_names_no_key_is_tried_with_all() -> None:
    assert owner(backend(), token(EC, "ES256", kid=None)) == "romeo"
    assert owner(backend(), token(rsa.generate_private_key(65537, 2048), kid=None)) is None


def test_the_keys_are_where_the_issuer_says_or_the_settings() -> None:
    provider = Provider(jwk(RSA, "one"))
    found = backend(provider)
    assert (owner(found, token()), provider.asked) == ("romeo", [DISCOVERY, KEYS])
    assert found.configuration == DISCOVERY
    provider = Provider(jwk(RSA, "one"))
    assert (owner(backend(provider, jwks=KEYS), token()), provider.asked) == ("romeo", [KEYS])


@pytest.mark.parametrize(
    ("url", "page"),
    [
        (DISCOVERY, {"issuer": "https://id.example.net", "jwks_uri": KEYS}),
        (DISCOVERY, {"issuer": ISSUER, "jwks_uri": "http://id.example.org/keys"}),
        (DISCOVERY, {"issuer": ISSUER}),
        (KEYS, {"keys": "none"}),
        (KEYS, {"keys": ["none"]}),
        (KEYS, {}),
    ],
)
def test_a_provider_that_talks_nonsense_has_said_nothing(url: str, page: dict[str, Any]) -> None:
    provider = Provider(jwk(RSA, "one"))
    provider.pages[url] = page
    with pytest.raises(Away):
        owner(backend(provider), token())


def test_a_secret_or_a_public_key_may_be_in_the_settings(tmp_path: Path) -> None:
    kept = Provider()
    shared = backend(kept, secret=SECRET, algorithms=["HS256"])
    assert owner(shared, jwt.encode(claims(), SECRET, "HS256")) == "romeo"
    assert owner(shared, jwt.encode(claims(), SECRET + "!", "HS256")) is None
    file = tmp_path / "key.pem"
    file.write_bytes(RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    static = backend(kept, key=file)
    assert owner(static, token(kid=None)) == "romeo"
    assert owner(static, signed_with_the_public_key()) is None
    assert owner(static, token(EC, "ES256")) is None
    assert kept.asked == []
    assert static.configuration == ""


def test_a_file_without_a_public_key_ends_the_start(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text("nothing")
    with pytest.raises(ValueError, match="PUBLIC KEY"):
        backend(key=file)
