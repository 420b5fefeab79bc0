"""HTTP for operators: the admin port that every process has, and the administration API that routers serve.

The admin port answers /metrics, /healthz and /readyz. `ApiServer` carries /api/v1: it checks the token, reads and
writes JSON and turns `ApiError` into an answer; what the routes do is their owner's (docs/admin-api.md lists them).
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
class Caller:
    """Who uses the API: a token's name or an administrator's bare JID, what they may (None: everything), from where."""

    name: str
    scopes: frozenset[str] | None = None
    address: str = ""
    is_account: bool = False

    def may(self, scope: str) -> bool:
        """Whether they have a scope."""
        return self.scopes is None or scope in self.scopes


OPERATOR: Final = Caller("admin.token")
_CALLER: Final = web.RequestKey("caller", Caller)


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One call of the administration API."""

    path: Mapping[str, str]  # what stands for {name} in the route
    query: Mapping[str, str]
    body: Mapping[str, Any]  # the JSON object sent, empty if none
    caller: Caller = OPERATOR

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


Recognise = Callable[[str], Awaitable[Caller | None]]  # whose token it is; raises ApiError


async def _nobody(token: str) -> Caller | None:
    return None


class ApiServer:
    """The administration API, /api/v1, for whoever knows the token, or one that `recognise` knows. Routers on one
    machine share its port."""

    def __init__(
        self, host: str, port: int, token: str, routes: Sequence[Route], recognise: Recognise = _nobody
    ) -> None:
        if not token:
            raise ValueError("the administration API needs a token")
        self._token = token.encode()
        self._recognise = recognise
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
            request[_CALLER] = await self._caller(request)
            return await handler(request)
        except ApiError as error:
            headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
            answer = {"error": error.error, "remedy": error.remedy}
            return web.json_response(answer, status=error.status, headers=headers)
        except web.HTTPException as error:
            remedy = "docs/admin-api.md lists paths, methods and sizes"
            allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            return web.json_response({"error": error.reason, "remedy": remedy}, status=error.status, headers=allowed)
        except Exception:
            log.exception("api_call_failed", method=request.method, path=request.path)
            remedy = "The log of the router says more"
            return web.json_response({"error": "internal error", "remedy": remedy}, status=500)

    async def _caller(self, request: web.Request) -> Caller:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        caller = None
        if scheme.lower() == "bearer" and token:
            is_operator = hmac.compare_digest(token.encode(errors="surrogateescape"), self._token)
            caller = OPERATOR if is_operator else await self._recognise(token)
        if caller is None:
            raise ApiError(401, "wrong or missing token", "Send the header Authorization: Bearer TOKEN")
        return replace(caller, address=request.remote or "")


def _json_handler(handler: ApiHandler) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        raw = await request.read()
        try:
            body = json.loads(raw) if raw else {}
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise ApiError(400, "the body is not a JSON object", "Send one with Content-Type: application/json")
        given = ApiRequest(request.match_info, request.query, body, request[_CALLER])
        return web.json_response(await handler(given))

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
