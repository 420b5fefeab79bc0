"""JSON over HTTPS, as back ends need it: bounded, never redirected; and whatever goes wrong is `Away`."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any, Final

import aiohttp

from router.backends.backend import Away

ANSWER_BYTES: Final = 262_144
CONNECTIONS: Final = 20


class Https:
    """Asks web services."""

    def __init__(self, ca: Path | None, timeout_s: float) -> None:
        """`ca` has the certificates that are trusted, instead of the system's. Raises OSError or ValueError for it."""
        self._tls = ssl.create_default_context(cafile=ca)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str) -> dict[str, Any]:
        """The JSON object there. Raises Away."""
        return await self._ask("GET", url, None, "")

    async def post(self, url: str, body: dict[str, str], secret: str) -> dict[str, Any]:
        """The JSON object that answers this one. Raises Away."""
        return await self._ask("POST", url, body, secret)

    async def close(self) -> None:
        """End the connections."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls, limit=CONNECTIONS),
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def _ask(self, method: str, url: str, body: dict[str, str] | None, secret: str) -> dict[str, Any]:
        headers = {"Accept": "application/json", **({"Authorization": f"Bearer {secret}"} if secret else {})}
        try:
            async with self._opened().request(
                method, url, json=body, headers=headers, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise Away(f"{url} answers {response.status}")
                data = await self._read(response)
                found = json.loads(data)
        except TimeoutError as problem:
            raise Away(f"{url} does not answer in time") from problem
        except (aiohttp.ClientError, OSError, ValueError, RecursionError) as problem:
            raise Away(f"{url}: {problem}") from problem
        if not isinstance(found, dict):
            raise Away(f"{url} answers with no JSON object")
        return found

    @staticmethod
    async def _read(response: aiohttp.ClientResponse) -> bytes:
        data = bytearray()
        async for part in response.content.iter_chunked(16_384):
            data += part
            if len(data) > ANSWER_BYTES:
                raise ValueError(f"the answer is longer than {ANSWER_BYTES} bytes")
        return bytes(data)
