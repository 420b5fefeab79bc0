"""The back end `http`: a service of the operator's is asked about each password.

    POST URL  {"username": "romeo", "domain": "example.org", "password": "..."}
    200       {"ok": true} or {"ok": false}

Anything else is no answer.
"""

from __future__ import annotations

from cluster.authentication import Http
from router.backends.backend import Away
from router.backends.https import Https


class HttpBackend:
    """One service."""

    def __init__(self, settings: Http) -> None:
        self._settings = settings
        self._https = Https(settings.ca, settings.timeout_s)

    async def check_password(self, username: str, domain: str, password: str) -> bool:
        """Whether the service says so. Raises Away."""
        body = {"username": username, "domain": domain, "password": password}
        answer = await self._https.post(self._settings.url, body, self._settings.secret)
        ok = answer.get("ok")
        if not isinstance(ok, bool):
            raise Away(f"{self._settings.url} answers without ok, true or false")
        return ok

    async def stop(self) -> None:
        """End the connections."""
        await self._https.close()
