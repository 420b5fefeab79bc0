"""HTTP for operators: the admin port that every process has, and the administration API that routers serve.

The admin port answers /metrics, /healthz and /readyz. `ApiServer` carries /api/v1: it checks the token, reads and
writes JSON and turns `ApiError` into an answer; what the routes do is their owner's (docs/admin-api.md lists them).
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from prometheus_client import REGISTRY, CollectorRegistry

from cluster import logs, metrics

log = logs.get_logger()

Check = Callable[[], str | None]  # None: all is well; else the reason in words
Checks = Mapping[str, Check]

KEEPALIVE_S: Final = 30.0
SHUTDOWN_S: Final = 1.0
BODY_BYTES: Final = 4_194_304  # whoever has no token does not come so far; imports bring messages and pictures


def results(checks: Checks) -> list[dict[str, Any]]:
    """What /healthz and /readyz say: one object per check, `{"check", "ok", "reason"}`. A check that breaks fails."""
    found = []
    for name, check in checks.items():
        try:
            reason = check()
        except Exception as error:
            log.exception("check_failed", check=name)
            reason = f"the check itself failed: {error}"
        found.append({"check": name, "ok": reason is None, "reason": reason or ""})
    return found


class AdminServer:
    """/metrics, /healthz and /readyz of this process. The checks are asked at each request."""

    def __init__(
        self,
        host: str,
        port: int,
        health: Callable[[], Checks],
        ready: Callable[[], Checks],
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._registry = registry
        self.app = web.Application()
        self.app.router.add_get("/metrics", self._metrics)
        self.app.router.add_get("/healthz", _probe(health))
        self.app.router.add_get("/readyz", _probe(ready))
        self._listener = _Listener(self.app, host, port, reuse_port=False)

    async def start(self) -> None:
        """Listen; raises OSError where the port is taken."""
        await self._listener.start()

    async def stop(self) -> None:
        """Stop listening and close what is open."""
        await self._listener.stop()

    async def _metrics(self, request: web.Request) -> web.Response:
        body = metrics.exposition(self._registry)
        return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})


def _probe(checks: Callable[[], Checks]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        found = results(checks())
        return web.json_response(found, status=200 if all(result["ok"] for result in found) else 503)

    return answer


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One call of the administration API."""

    path: Mapping[str, str]  # what stands for {name} in the route
    query: Mapping[str, str]
    body: Mapping[str, Any]  # the JSON object sent, empty if none

    def text(self, key: str) -> str:
        """A string that must be in the body; raises ApiError 400."""
        value = self.body.get(key)
        if not isinstance(value, str) or not value:
            raise ApiError(400, f"{key} is missing", f'Send a JSON object with "{key}"')
        return value


class ApiError(Exception):
    """An answer that is an error: HTTP status, what is wrong, and what to do about it."""

    def __init__(self, status: int, error: str, remedy: str = "") -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.remedy = remedy


ApiHandler = Callable[[ApiRequest], Awaitable[Any]]  # returns what becomes the JSON answer; raises ApiError
Route = tuple[str, str, ApiHandler]  # method, path below /api/v1 as in "/users/{jid}", handler


class ApiServer:
    """The administration API, /api/v1, for whoever knows the token. Routers on one machine share its port."""

    def __init__(self, host: str, port: int, token: str, routes: Sequence[Route]) -> None:
        if not token:
            raise ValueError("the administration API needs a token")
        self._expected = f"Bearer {token}".encode()
        self.app = web.Application(middlewares=[self._guard], client_max_size=BODY_BYTES)
        for method, path, handler in routes:
            self.app.router.add_route(method, f"/api/v1{path}", _json_handler(handler))
        self._listener = _Listener(self.app, host, port, reuse_port=True)

    async def start(self) -> None:
        """Listen; raises OSError where the port is taken."""
        await self._listener.start()

    async def stop(self) -> None:
        """Stop listening and close what is open."""
        await self._listener.stop()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
            if not hmac.compare_digest(given, self._expected):
                raise ApiError(401, "wrong or missing token", "Send the header Authorization: Bearer TOKEN")
            return await handler(request)
        except ApiError as error:
            return web.json_response({"error": error.error, "remedy": error.remedy}, status=error.status)
        except web.HTTPException as error:
            remedy = "docs/admin-api.md lists paths, methods and sizes"
            return web.json_response({"error": error.reason, "remedy": remedy}, status=error.status)
        except Exception:
            log.exception("api_call_failed", method=request.method, path=request.path)
            remedy = "The log of the router says more"
            return web.json_response({"error": "internal error", "remedy": remedy}, status=500)


def _json_handler(handler: ApiHandler) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        raw = await request.read()
        try:
            body = json.loads(raw) if raw else {}
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise ApiError(400, "the body is not a JSON object", "Send one with Content-Type: application/json")
        return web.json_response(await handler(ApiRequest(request.match_info, request.query, body)))

    return answer


class _Listener:
    """aiohttp's runner and site, with this project's settings."""

    def __init__(self, app: web.Application, host: str, port: int, reuse_port: bool) -> None:
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=KEEPALIVE_S,
            shutdown_timeout=SHUTDOWN_S,
        )
        self._address = (host, port, reuse_port)

    async def start(self) -> None:
        host, port, reuse_port = self._address
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, reuse_port=reuse_port or None).start()

    async def stop(self) -> None:
        await self._runner.cleanup()
