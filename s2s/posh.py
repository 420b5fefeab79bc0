"""PKIX over Secure HTTP (POSH: RFC 7711; for XMPP RFC 7712): a domain says on its web site which certificate is good.

So whoever hosts the XMPP service of a domain needs no certificate for it. Both of a domain's web site and its
certificate are asked of the web's authorities, by HTTPS.

    posh = Posh(clock)                                      # one for a process
    fingerprints = await posh.fingerprints("example.org")    # empty: there are none, or they could not be had
    is_proved = matches(peer.chain, fingerprints)
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import ssl
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urljoin, urlsplit

import aiohttp

from cluster.clock import SYSTEM, Clock
from s2s.domains import ip_literal, to_ascii
from s2s.lookups import Lookups

PATH: Final = "/.well-known/posh/xmpp-server.json"
TIMEOUT_S: Final = 10.0  # for all of one fetch, redirections included
DOCUMENT_BYTES: Final = 65_536
MOST_FINGERPRINTS: Final = 100
MOST_REDIRECTS: Final = 5
KEPT_S: Final = 86_400.0  # the longest that a document is believed, whatever it says
MISSING_S: Final = 60.0
CACHED: Final = 1_000


class PoshError(ValueError):
    """The document is not one of RFC 7711, or could not be had."""


class Fingerprint(NamedTuple):
    """Hashes of one certificate (DER); b"" where the document has none of that kind."""

    sha256: bytes
    sha512: bytes


class Document(NamedTuple):
    """Fingerprints, or the place where they are (RFC 7711, 3.1 and 3.2)."""

    fingerprints: tuple[Fingerprint, ...]
    url: str
    expires_s: float


def parse(content: bytes) -> Document:
    """Read a document. Raises PoshError."""
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise PoshError("this is not JSON") from problem
    if not isinstance(document, dict):
        raise PoshError("this is not a JSON object")
    expires = document.get("expires", 0)
    if isinstance(expires, bool) or not isinstance(expires, int | float) or not 0 <= expires < float("inf"):
        raise PoshError("`expires` is not a number of seconds")
    url, listed = document.get("url"), document.get("fingerprints")
    if isinstance(url, str) and listed is None:
        if not _is_https(url):
            raise PoshError("`url` does not begin with https:")
        return Document((), url, float(expires))
    if url is not None or not isinstance(listed, list):
        raise PoshError("there is neither `fingerprints` nor `url`, or both")
    return Document(tuple(map(_fingerprint, listed[:MOST_FINGERPRINTS])), "", float(expires))


def matches(chain: Sequence[bytes], fingerprints: Sequence[Fingerprint]) -> bool:
    """Whether the peer's own certificate, the first of its chain (DER), is one of these.

    Of several hashes of one certificate the strongest decides.
    """
    if not chain:
        return False
    sha256, sha512 = hashlib.sha256(chain[0]).digest(), hashlib.sha512(chain[0]).digest()
    return any(
        fingerprint.sha512 == sha512 if fingerprint.sha512 else fingerprint.sha256 == sha256
        for fingerprint in fingerprints
    )


class Posh:
    """Fetches the documents of other domains and keeps them as long as they say. One for a process."""

    def __init__(
        self,
        clock: Clock = SYSTEM,
        *,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
        connector: aiohttp.BaseConnector | None = None,
    ) -> None:
        """`tls` decides which web sites are trusted: without it, what the system trusts. Needs a running loop."""
        self._session = aiohttp.ClientSession(
            connector=connector or aiohttp.TCPConnector(ssl=tls or ssl.create_default_context(), limit=20),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._timeout_s = timeout_s
        self._lookups: Lookups[str, tuple[Fingerprint, ...]] = Lookups(clock.monotonic, CACHED)

    async def fingerprints(self, domain: str) -> tuple[Fingerprint, ...]:
        """The fingerprints of certificates that are good for this domain; empty if it offers none. Never raises."""
        if ip_literal(domain) is not None:
            return ()
        try:
            name = to_ascii(domain)
        except ValueError:
            return ()
        return await self._lookups.get(name, lambda: self._fetch(name))

    async def close(self) -> None:
        """Give up what is under way, and close the connections."""
        await self._lookups.close()
        await self._session.close()

    async def _fetch(self, name: str) -> tuple[tuple[Fingerprint, ...], float]:
        try:
            async with asyncio.timeout(self._timeout_s):
                document = await self._get(f"https://{name}{PATH}")
                expires_s = document.expires_s
                if document.url:
                    document = await self._get(document.url)
                    expires_s = min(expires_s, document.expires_s)  # RFC 7711, 6
        except (aiohttp.ClientError, OSError, ValueError):  # TimeoutError is an OSError
            return (), MISSING_S
        # A second `url` is not followed (RFC 7711, 3.2): then there are no fingerprints.
        return document.fingerprints, min(expires_s, KEPT_S) if document.fingerprints else MISSING_S

    async def _get(self, url: str) -> Document:
        """One document, over redirections of HTTP as long as they stay within HTTPS (RFC 7711, 4)."""
        for _ in range(MOST_REDIRECTS):
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status in (301, 302, 303, 307, 308):
                    url = urljoin(str(response.url), response.headers.get("Location", ""))
                    if not _is_https(url):
                        raise PoshError("redirected away from HTTPS")
                    continue
                if response.status != 200:
                    raise PoshError(f"the web site answers {response.status}")
                content = await response.content.read(DOCUMENT_BYTES + 1)
                while len(content) <= DOCUMENT_BYTES and (more := await response.content.read(DOCUMENT_BYTES)):
                    content += more
                if len(content) > DOCUMENT_BYTES:
                    raise PoshError(f"the document is longer than {DOCUMENT_BYTES} bytes")
                return parse(content)
        raise PoshError("too many redirections")


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and bool(parts.hostname)
    except ValueError:
        return False


def _fingerprint(entry: object) -> Fingerprint:
    if not isinstance(entry, dict):
        raise PoshError("a fingerprint is not an object")
    return Fingerprint(_hash(entry.get("sha-256"), 32), _hash(entry.get("sha-512"), 64))


def _hash(text: object, length: int) -> bytes:
    if text is None:
        return b""
    if not isinstance(text, str):
        raise PoshError("a hash is not a string")
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as problem:
        raise PoshError("a hash is not in base64") from problem
    if len(value) != length:
        raise PoshError(f"a hash has {len(value)} bytes instead of {length}")
    return value
