"""BOSH (XEP-0124, XEP-0206): the requests of its sessions. What a session makes of them is in `bosh_session.py`; those
whose session is on another process go there (`relay.py`)."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from typing import Final

from aiohttp import web

from c2s.connections import Connections
from c2s.http.bosh_session import MAX_RID, Answer, Body, BoshSession, number, terminal
from c2s.http.framing import parsed
from c2s.http.relay import Relay
from c2s.http.server import HttpServer
from cluster.config import Config
from cluster.wire import Incarnation, mark_of
from xmpp import errors, ns
from xmpp.errors import StreamError
from xmpp.stream import Limits
from xmpp.xml import canonical, parse_document

PATH: Final = "/http-bind"
CONTENT_TYPE: Final = "text/xml"
BODY: Final = f"{ns.HTTPBIND} body"
OVERHEAD_BYTES: Final = 4_096  # of <body/>
FORGOTTEN_AFTER_S: Final = 60.0  # how long a client may ask for the last answers of a session that is over
_DECLARATION: Final = rb"^\s*(?:<\?xml\s[^>]*\?>\s*)?"  # no request needs one, some have it
_PROLOGUE: Final = re.compile(_DECLARATION)
_SID: Final = re.compile(_DECLARATION + rb"""<body\s(?:[^<>]*?\s)?sid=["']([A-Za-z0-9_-]{22}\.([0-9a-f]{16}))["']""")
_PREFIXED: Final = re.compile(
    rb"""<[^\s/>:"']+:|\s(?!xmlns:|xml:)[^\s=/>:"']+:[^\s=/>"']+\s*="""
)  # a name that has one


class Bosh:
    """The route, and the sessions of this process."""

    def __init__(
        self, server: HttpServer, connections: Connections, config: Config, incarnation: Incarnation, relay: Relay
    ) -> None:
        self._server = server
        self._connections = connections
        self._wait_s = config.http.bosh_wait_s
        self._inactivity_s = config.http.bosh_inactivity_s
        self._mark = mark_of(incarnation)
        self._relay = relay
        self._sessions: dict[str, BoshSession] = {}
        self._strangers: set[BoshSession] = set()  # nobody has signed in on them, as far as was looked
        self._most_strangers = config.http.connections
        c2s = config.c2s
        self._limits = Limits(c2s.stanza_bytes + OVERHEAD_BYTES, c2s.depth + 1, c2s.attributes)
        relay.handler = self._handle
        server.add("bosh", "POST", PATH, self._post)
        server.add("bosh", "OPTIONS", PATH, self._options)

    async def _options(self, request: web.Request) -> web.StreamResponse:
        """A preflight request of a browser (Fetch, 3.2)."""
        return web.Response(status=204, headers=self._server.cors(request, "POST, OPTIONS"))

    async def _post(self, request: web.Request) -> web.StreamResponse:
        server = self._server
        server.require_allowed_origin(request)
        raw = await server.body_of(request, self._limits.stanza_bytes)
        address, is_secure = server.address_of(request), server.is_secure(request)
        match = _SID.match(raw)
        if match is not None and (mark := match[2].decode()) != self._mark:
            exists, data = await self._relay.ask(mark, raw, address, is_secure, self._wait_s)
            if not exists:
                data = terminal("item-not-found")
        else:
            data = await self._answered(raw, address, is_secure)
        if data is None:  # another request has taken its place, or a process is away: who still waits asks again
            raise web.HTTPServiceUnavailable(headers={"Retry-After": "1"})
        headers = self._server.cors(request, "POST, OPTIONS")
        return web.Response(body=data, content_type=CONTENT_TYPE, charset="utf-8", headers=headers)

    async def _answered(self, raw: bytes, address: str, is_secure: bool) -> bytes | None:
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

        def answer(body: bytes | None) -> None:
            if not future.done():
                future.set_result(body)

        self._handle(raw, address, is_secure, answer)
        return await future

    def _handle(self, raw: bytes, address: str, is_secure: bool, answer: Answer) -> None:
        """A request that is for this process; its answer may come later."""
        match = _SID.match(raw)
        session = self._sessions.get(match[1].decode()) if match is not None else None
        try:
            body = parse(raw, self._limits)
        except StreamError as fault:
            if session is None or session.stream is None:
                answer(terminal("bad-request"))
            else:
                session.violate(fault, answer)
        else:
            self._on_body(body, session, address, is_secure, answer)
        self._connections.flush()

    def _on_body(self, body: Body, session: BoshSession | None, address: str, is_secure: bool, answer: Answer) -> None:
        get = body.attributes.get
        rid, sid = number(get("rid")), get("sid")
        if rid is None or not 0 < rid < MAX_RID:
            answer(terminal("bad-request"))
        elif sid is None and self._is_full():
            answer(None)
        elif sid is None:
            made = BoshSession(
                self._connections, f"{secrets.token_urlsafe(16)}.{self._mark}", body, address, is_secure, self._wait_s,
                self._inactivity_s, time.monotonic, self._ended,
            )  # fmt: skip
            self._sessions[made.sid] = made
            self._strangers.add(made)
            made.receive(rid, body, answer)
        elif session is None or session.sid != sid:
            answer(terminal("item-not-found"))
        elif session.is_secure and not is_secure:
            answer(terminal("policy-violation"))  # XEP-0124, 7.1: what began in private stays so
        else:
            session.receive(rid, body, answer)

    def _is_full(self) -> bool:
        """Whether as many as may be have a session and have not signed in: of connections, the kernel would run out."""
        if len(self._strangers) >= self._most_strangers:
            self._strangers = {one for one in self._strangers if one.stream is not None and not one.stream.is_signed_in}
        return len(self._strangers) >= self._most_strangers

    def _ended(self, session: BoshSession) -> None:
        self._strangers.discard(session)
        asyncio.get_running_loop().call_later(FORGOTTEN_AFTER_S, self._sessions.pop, session.sid, None)


def parse(raw: bytes, limits: Limits) -> Body:
    """The <body/> of a request. Raises StreamError."""
    raw = _PROLOGUE.sub(b"", raw, count=1)
    found = parsed(raw, limits)
    if found.name != BODY:
        raise errors.BadFormat("Requests are <body/> (XEP-0124).")
    inner = found.inner
    if _PREFIXED.search(inner) is not None:
        inner = canonical(parse_document(raw), ns.CLIENT)  # a prefix may be declared on <body/>
    return Body(found.attributes, inner)
