"""How clients find WebSocket and BOSH (XEP-0156): host-meta in XML (RFC 6415) and JSON."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from c2s.http import bosh, websocket
from c2s.http.server import HttpServer
from xmpp.xml import element

PATH: Final = "/.well-known/host-meta"
XRD: Final = "http://docs.oasis-open.org/ns/xri/xrd-1.0"
WEBSOCKET: Final = "urn:xmpp:alt-connections:websocket"
XBOSH: Final = "urn:xmpp:alt-connections:xbosh"
KEPT_S: Final = 3_600


class HostMeta:
    """Both documents. They name `http.public_url`, or else the address by which they were asked for."""

    def __init__(self, server: HttpServer, public_url: str, domains: frozenset[str]) -> None:
        self._server = server
        self._public_url = public_url
        self._domains = domains
        server.add("discovery", "GET", PATH, self._xml)
        server.add("discovery", "GET", f"{PATH}.json", self._json)

    def links(self, request: web.Request) -> dict[str, str]:
        """Relation -> URL."""
        host = request.headers.get("Host", "")
        base = self._public_url
        if "{domain}" in base:
            name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
            base = base.replace("{domain}", name if name in self._domains else min(self._domains))
        if not base:
            base = f"{'https' if self._server.is_secure(request) else 'http'}://{host}"
        scheme, rest = ("wss", base[5:]) if base.startswith("https") else ("ws", base[4:])
        return {WEBSOCKET: f"{scheme}{rest}{websocket.PATH}", XBOSH: f"{base}{bosh.PATH}"}

    async def _xml(self, request: web.Request) -> web.StreamResponse:
        links = (element("Link", None, {"rel": rel, "href": url}) for rel, url in self.links(request).items())
        body = b'<?xml version="1.0" encoding="utf-8"?>' + element("XRD", XRD, None, *links)
        return web.Response(body=body, content_type="application/xrd+xml", headers=self._headers())

    async def _json(self, request: web.Request) -> web.StreamResponse:
        links = [{"rel": rel, "href": url} for rel, url in self.links(request).items()]
        return web.json_response({"links": links}, headers=self._headers())

    @staticmethod
    def _headers() -> dict[str, str]:
        """XEP-0156, 3: any page may read it."""
        return {"Access-Control-Allow-Origin": "*", "Cache-Control": f"max-age={KEPT_S}"}
