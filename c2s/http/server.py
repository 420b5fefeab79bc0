"""The HTTP listeners of a c2s: connections, deadlines, sizes, headers that make browsers careful, and counts. What is
answered is its routes' (`add`); they ask routers, as streams do.

aiohttp has no deadline for the first request of a connection, and logs every wrong one with its traceback:
`_Connection` mends both, by names that aiohttp does not promise. Its tests fail where an upgrade changes them.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from c2s.http.html import STYLE_HASH
from c2s.proxy_protocol import NOBODY, Gate, Proxied
from c2s.tls import ServerTls
from cluster import logs, metrics
from cluster.config import Http
from cluster.edge import Answer, Edge
from cluster.process import CannotStart, Process

log = logs.get_logger()

# The names that requests are counted by
ROUTES: Final = ("invite", "upload", "websocket", "bosh", "discovery", "chat", "other")
KEEPALIVE_S: Final = 15.0
STOP_S: Final = 2.0
LINGER_S: Final = 2.0  # of a body that nobody wants, so much is read, lest its sender miss the answer
FIELDS: Final = 20
CALL_TIMEOUT_S: Final = 20.0
FORM: Final = "application/x-www-form-urlencoded"
KEPT: Final = {"Allow", "Retry-After", "Sec-WebSocket-Version", "Upgrade"}  # headers of an error that are its answer
HEADERS: Final = {
    "Content-Security-Policy": f"default-src 'none'; style-src {STYLE_HASH}; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "Stentor",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_requests = metrics.counter(
    "stentor_c2s_http_requests_total",
    "HTTP requests answered",
    {"route": list(ROUTES), "status": ["1xx", "2xx", "3xx", "4xx", "5xx"]},
)
_dropped = metrics.counter(
    "stentor_c2s_http_dropped_total",
    "HTTP connections ended before they were answered",
    {"reason": ["slow", "malformed", "too-many"]},
)


class HttpServer:
    """Both listeners, with and without TLS. Routes are added before they start."""

    def __init__(self, config: Http, tls: ServerTls) -> None:
        self._config = config
        self._tls = tls
        self._app = web.Application(middlewares=[self._around], client_max_size=config.body_bytes)
        self._app.on_response_prepare.append(self._dress)
        self._runner = web.AppRunner(self._app, access_log=None, handle_signals=False, keepalive_timeout=KEEPALIVE_S,
                                     shutdown_timeout=STOP_S, lingering_time=LINGER_S)  # fmt: skip
        self.exports: list[Callable[[], None]] = []  # what routes have Prometheus see
        self.busy: list[Callable[[], bool]] = []  # whether something is under way for which a drain waits
        self._servers: list[asyncio.Server] = []
        self._names: dict[str, str] = {}  # path of a route -> what it is counted by
        self._is_draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._proxies = [ipaddress.ip_network(proxy) for proxy in config.proxies]

    def add(self, name: str, method: str, path: str, handler: Handler, *, waits_for_body: bool = False) -> None:
        """Answer requests for a path, as in "/invite/{token}"; `name` is one of ROUTES. With `waits_for_body`,
        it is the handler that says "100 Continue" to who expects it."""
        assert name in ROUTES
        expect = _says_nothing if waits_for_body else None
        if method == "GET":
            route = self._app.router.add_get(path, handler)  # HEAD, too
        else:
            route = self._app.router.add_route(method, path, handler, expect_handler=expect)
        assert route.resource is not None
        self._names[route.resource.canonical] = name

    async def start(self, process: Process) -> None:
        """Listen. Raises CannotStart."""
        config, loop = self._config, asyncio.get_running_loop()
        await self._runner.setup()
        process.essential("http_certificates", self._tls.certificates.follow())
        process.on_hangup(self._tls.certificates.renew)
        with_tls = {"ssl": self._tls.context, "ssl_handshake_timeout": config.request_timeout_s}
        if config.proxy_protocol:  # a PROXY header comes before TLS
            with_tls = {}
        ports: tuple[tuple[str, int, Callable[[], asyncio.BaseProtocol], dict[str, Any]], ...]
        ports = (
            ("port", config.port, self._protocol, {}),
            ("tls_port", config.tls_port, lambda: self._protocol(is_tls=True), with_tls),
        )
        for address in config.listen:
            for key, port, factory, options in ports:
                try:
                    server = await loop.create_server(factory, address, port, reuse_port=True, **options)
                except OSError as problem:
                    raise CannotStart(
                        f"cannot listen on {address} port {port}: {problem}. Change http.{key} or http.listen, "
                        "or set http.enabled to false"
                    ) from problem
                self._servers.append(server)
        log.info("listening_for_http", addresses=list(config.listen), port=config.port, tls_port=config.tls_port)

    def export(self) -> None:
        """Have Prometheus see it; once in a process."""
        metrics.sampled_gauge(
            "stentor_c2s_http_connections", "HTTP connections", (), {(): lambda: self._open_connections()}
        )
        for export in self.exports:
            export()

    def is_busy(self) -> bool:
        """Whether a drain waits."""
        return any(is_busy() for is_busy in self.busy)

    def check(self) -> str | None:
        """For /readyz."""
        return None if self._servers else "not listening yet"

    def drain(self) -> None:
        """Accept nobody more; whoever is connected is answered and told to close."""
        self._is_draining = True
        for server in self._servers:
            server.close()
        if self._runner.server is not None:
            for connection in self._runner.server.connections:
                if connection._waiter is not None:  # between two requests
                    connection.close()

    async def stop(self) -> None:
        """End everything."""
        self.drain()
        await self._runner.cleanup()

    def _open_connections(self) -> int:
        return len(self._runner.server.connections) if self._runner.server is not None else 0

    def _protocol(self, *, is_tls: bool = False) -> asyncio.BaseProtocol:
        config = self._config
        if not config.proxy_protocol:
            return self._connection(NOBODY)

        def accept(transport: asyncio.Transport, proxied: Proxied) -> None:
            connection = self._connection(proxied)
            if is_tls:
                task = asyncio.get_running_loop().create_task(self._accept_tls(transport, connection))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                transport.set_protocol(connection)
                connection.connection_made(transport)

        return Gate(config.proxy_protocol, config.request_timeout_s, accept)

    def _connection(self, proxied: Proxied) -> _Connection:
        server = self._runner.server
        assert server is not None
        is_too_many = len(server.connections) >= self._config.connections
        within_s = self._config.request_timeout_s
        return _Connection(server, within_s, is_too_many, proxied, loop=asyncio.get_running_loop(), **server._kwargs)

    async def _accept_tls(self, plain: asyncio.Transport, connection: _Connection) -> None:
        loop, within_s = asyncio.get_running_loop(), self._config.request_timeout_s
        try:
            transport = await loop.start_tls(
                plain, connection, self._tls.context, server_side=True, ssl_handshake_timeout=within_s
            )
        except (OSError, RuntimeError) as problem:  # ssl.SSLError and TimeoutError are OSErrors
            log.debug("tls_handshake_failed", problem=str(problem))
            plain.abort()
            return
        if transport is not None:
            connection.connection_made(transport)

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        name = self._names.get(resource.canonical, "other") if resource is not None else "other"
        response: web.StreamResponse
        try:
            response = await handler(request)
        except web.HTTPException as problem:
            response = web.Response(text=problem.text or f"{problem.status} {problem.reason}\n", status=problem.status)
            for header in KEPT & problem.headers.keys():
                response.headers[header] = problem.headers[header]
        except TimeoutError:
            _dropped.labels("slow").inc()
            response = web.Response(text="408 Request Timeout\n", status=408)
            response.force_close()
        except Exception:
            log.exception("http_request_failed", path=name)  # never the path itself: it may have a token
            response = web.Response(text="500 Internal Server Error\n", status=500)
        _requests.labels(name, f"{response.status // 100}xx").inc()
        if self._is_draining:
            response.force_close()
        return response

    @staticmethod
    async def _dress(request: web.Request, response: web.StreamResponse) -> None:
        """What a route says otherwise stays."""
        for header, value in HEADERS.items():
            response.headers.setdefault(header, value)

    # --- for routes

    def address_of(self, request: web.Request) -> str:
        """The client's address: the last one in X-Forwarded-For that is no proxy of ours, where we believe it."""
        address = self._peer(request)
        named = [part.strip() for part in ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")]
        while named and self._is_proxy(address):
            address = named.pop() or address
        return address

    def _peer(self, request: web.Request) -> str:
        """Who has connected, with load balancers that do not speak HTTP taken off."""
        connection = request.protocol
        proxied = connection.proxied if isinstance(connection, _Connection) else NOBODY
        return proxied.address or request.remote or ""

    def is_secure(self, request: web.Request) -> bool:
        """Whether nobody can listen: TLS is in force here, or at a proxy that we believe, or nothing leaves this
        machine, where that is enough."""
        connection = request.protocol
        if request.secure or (isinstance(connection, _Connection) and connection.proxied.is_secure):
            return True
        address = self._peer(request)
        if self._is_proxy(address):
            return request.headers.get("X-Forwarded-Proto", "").rpartition(",")[2].strip().lower() == "https"
        return self._config.local_is_secure and _is_loopback(address)

    def hand_over(self, request: web.Request) -> tuple[asyncio.Transport, bytes]:
        """Take a connection away from HTTP, with what was read behind the request; its answer is the caller's."""
        connection = request.protocol
        assert isinstance(connection, _Connection)
        return connection.hand_over()

    def require_allowed_origin(self, request: web.Request) -> None:
        """Raises HTTPForbidden for a page of a site that is not in `http.origins` (RFC 6455, 10.2); who is no browser
        names none."""
        origin = request.headers.get("Origin")
        if origin is not None and not self.is_allowed_origin(request, origin):
            raise web.HTTPForbidden(text="Pages of this site may not connect; see http.origins.\n")

    def is_allowed_origin(self, request: web.Request, origin: str) -> bool:
        """Whether pages from there may use what is not a page."""
        allowed = self._config.origins
        return "*" in allowed or origin in allowed or urlsplit(origin).netloc == request.headers.get("Host")

    def _is_proxy(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)

    async def form_of(self, request: web.Request) -> dict[str, str]:
        """What a form was filled in with. Raises HTTPException; TimeoutError where it does not arrive in time."""
        if request.content_type != FORM:
            raise web.HTTPUnsupportedMediaType
        async with asyncio.timeout(self._config.request_timeout_s):
            body = await request.read()
        try:
            return dict(parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=FIELDS))
        except ValueError as problem:
            raise web.HTTPBadRequest from problem

    async def body_of(self, request: web.Request, limit: int) -> bytes:
        """The body of a request, of at most so many bytes. Raises HTTPException; TimeoutError as above."""
        length = request.content_length or 0
        parts: list[bytes] = []
        size = 0
        async with asyncio.timeout(self._config.request_timeout_s):
            while length <= limit and (part := await request.content.readany()):
                parts.append(part)
                size += len(part)
                length = max(length, size)
        if length > limit:
            raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=length)
        return b"".join(parts)

    def cors(self, request: web.Request, methods: str) -> dict[str, str]:
        """Headers that let pages of other sites read an answer (Fetch, 3.2): of those in `http.origins`."""
        origin = request.headers.get("Origin")
        if origin is None or not self.is_allowed_origin(request, origin):
            return {}
        return {
            "Access-Control-Allow-Origin": "*" if "*" in self._config.origins else origin,
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": "Content-Type",
            "Access-Control-Max-Age": "86400",
            "Vary": "Origin",
        }

    def require_same_origin(self, request: web.Request) -> None:
        """Raises HTTPForbidden for what another site's page sends. Under no-referrer, browsers say `Origin: null` also
        of our own forms: then Sec-Fetch-Site tells, where they have it. What is no browser sends neither."""
        site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
        if site is not None:
            if site not in ("same-origin", "none"):
                raise web.HTTPForbidden
        elif origin not in (None, "null") and urlsplit(origin).netloc != request.headers.get("Host"):
            raise web.HTTPForbidden


class _Connection(RequestHandler):  # type: ignore[type-arg,unused-ignore]
    """A connection whose first request has a deadline. Later ones have aiohttp's for kept connections."""

    __slots__ = ("_deadline", "_deadline_s", "_is_too_many", "proxied")

    def __init__(
        self, manager: Any, deadline_s: float, is_too_many: bool, proxied: Proxied = NOBODY, **kwargs: Any
    ) -> None:
        super().__init__(manager, **kwargs)
        self.proxied = proxied
        self._deadline_s = deadline_s
        self._is_too_many = is_too_many
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See RequestHandler."""
        super().connection_made(transport)
        if self._is_too_many:
            self._drop("too-many")
        else:
            self._deadline = asyncio.get_running_loop().call_later(self._deadline_s, self._check)

    def connection_lost(self, exc: BaseException | None) -> None:
        """See RequestHandler."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def hand_over(self) -> tuple[asyncio.Transport, bytes]:
        """It is somebody else's from here on, and over for HTTP. Returns what was read behind the request, too."""
        transport, early = self.transport, self._message_tail
        if transport is None:
            raise ConnectionResetError("the client is gone")
        self.transport = None
        self.connection_lost(None)
        return transport, early

    def _check(self) -> None:
        if self._request_count == 0:
            self._drop("slow")

    def _drop(self, reason: str) -> None:
        _dropped.labels(reason).inc()
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What was no HTTP request: counted and answered. A peer's bad input is no event of ours."""
        if status >= 500:
            log.error("http_request_failed", exc_info=exc)
        else:
            _dropped.labels("malformed").inc()
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        response = web.Response(text=f"{status}\n", status=status, headers=HEADERS)
        response.force_close()
        return response


async def _says_nothing(request: web.Request) -> None:
    """To who expects "100 Continue"."""


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


async def ask(edge: Edge, bare: str, method: str, *arguments: Any) -> Answer:
    """Ask the owner of a bare JID."""
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def done(answer: Answer) -> None:
        if not future.done():
            future.set_result(answer)

    request = edge.call(bare, method, arguments, done, CALL_TIMEOUT_S)
    try:
        return await future
    except asyncio.CancelledError:
        edge.cancel(request)
        raise
