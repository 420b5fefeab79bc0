"""The back end `jwt`: signed tokens of an identity provider (RFC 7519; RFC 8725 has what goes wrong with them).

A token comes by OAUTHBEARER, or in the place of the password by PLAIN. The keys are the provider's, or one that the
configuration has. Which signatures are accepted the configuration says, never the token alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from cluster import logs
from cluster.authentication import Jwt
from router.backends.backend import Away, localpart
from router.backends.https import Https
from router.backends.jwks import Key, KeySet

log = logs.get_logger()

DISCOVERY: Final = "/.well-known/openid-configuration"
KTY: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}  # the kind of key by the begin of a signature's name
TRIED: Final = 10  # keys, for a token that names none


class JwtBackend:
    """The tokens of one issuer."""

    def __init__(self, settings: Jwt, now: Callable[[], float] = time.monotonic, https: Https | None = None) -> None:
        self._settings = settings
        self._https = https or Https(settings.ca, settings.timeout_s)
        self._static: Any = settings.secret or (_public_key(settings.key.read_bytes()) if settings.key else None)
        self._found_at = settings.jwks
        self._keys = KeySet(
            self._fetch, now, refetch_s=settings.refetch_s, refresh_s=settings.refresh_s, keep_s=settings.keep_s
        )
        has_discovery = self._static is None and not settings.jwks
        self.configuration = self._discovery_url() if has_discovery else ""

    async def check_password(self, username: str, domain: str, password: str) -> bool:
        """Whether the password is a token for this user. Raises Away."""
        found = await self.check_token(password)
        return found is not None and localpart(found, domain) == username

    async def check_token(self, token: str) -> str | None:
        """What the token says in the claim that names the user. Raises Away."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            return None
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._settings.algorithms or "crit" in header:  # RFC 7515, 4.1.11: none is understood here
            return None
        for key in await self._candidates(algorithm, kid):
            claims = self._verified(token, key, algorithm)
            if claims is not None:
                name = claims.get(self._settings.claim)
                return name if isinstance(name, str) and name else None
        return None

    async def stop(self) -> None:
        """End the connections."""
        await self._keys.stop()
        await self._https.close()

    def _verified(self, token: str, key: Any, algorithm: str) -> dict[str, Any] | None:
        settings = self._settings
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=settings.issuer,
                audience=settings.audience,
                leeway=settings.leeway_s,
                options={"require": ["exp", "iss", "aud"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as problem:  # OverflowError: of times
            log.debug("token_refused", reason=str(problem))
            return None
        return claims

    async def _candidates(self, algorithm: str, kid: str | None) -> list[Any]:
        """The keys that may have signed a token. A key serves one kind of signature (RFC 8725, 3.1), so the public key
        of a provider is never the secret of an HMAC."""
        if self._static is not None:
            return [self._static]
        found = []
        for key in (await self._keys.named(kid))[:TRIED]:
            if (
                key.get("kty") == KTY.get(algorithm[:2])
                and key.get("alg", algorithm) == algorithm
                and key.get("use", "sig") == "sig"
            ):
                try:
                    found.append(jwt.PyJWK(key, algorithm).key)
                except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
                    continue
        return found

    async def _fetch(self) -> Sequence[Key]:
        """The provider's keys now. Raises Away."""
        if not self._found_at:
            self._found_at = await self._discover()
        document = await self._https.get(self._found_at)
        keys = document.get("keys")
        if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
            raise Away(f"{self._found_at} is no set of keys")
        return keys

    async def _discover(self) -> str:
        """OpenID Connect Discovery, 4.3: where the keys are, by the document of the issuer's own."""
        url = self._discovery_url()
        document = await self._https.get(url)
        if document.get("issuer") != self._settings.issuer:
            raise Away(f"{url} is about another issuer")
        found = document.get("jwks_uri")
        if not isinstance(found, str) or not found.startswith("https://"):
            raise Away(f"{url} has no https:// address of keys")
        return found

    def _discovery_url(self) -> str:
        return self._settings.issuer.rstrip("/") + DISCOVERY


def _public_key(data: bytes) -> Any:
    """The public key in a PEM file. Raises ValueError."""
    try:
        return load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as problem:
        raise ValueError("the file of `key` has no PUBLIC KEY (PEM)") from problem
