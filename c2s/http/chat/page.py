"""The page at `/`, and the files that it loads. Nothing of it comes from elsewhere, and nothing else is asked there.

Files of Converse.js lie below their version, so browsers keep them for ever; ours are asked for again each time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web

from c2s.http import bosh, websocket
from c2s.http.html import Markup, tag
from c2s.http.server import HttpServer
from cluster.config import Config

HERE: Final = Path(__file__).parent
DIST: Final = HERE / "dist"
BASE: Final = "/chat"
START: Final = "start.js"
STYLE: Final = "style.css"
ICON: Final = "icon.svg"
FOR_EVER: Final = "public, max-age=31536000, immutable"
TYPES: Final = {
    ".js": "text/javascript", ".css": "text/css", ".json": "application/json", ".wasm": "application/wasm",
    ".svg": "image/svg+xml", ".png": "image/png", ".ttf": "font/ttf", ".woff2": "font/woff2", ".woff": "font/woff",
    ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".gif": "image/gif", ".webp": "image/webp", ".ico": "image/x-icon",
}  # fmt: skip
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


class ChatPage:
    """The routes."""

    def __init__(self, server: HttpServer, config: Config, files: Path = DIST) -> None:
        self._server = server
        self._config = config
        self._files = _files(files)
        self._version = next((path.partition("/")[0] for path in self._files), "")
        server.add("chat", "GET", "/", self._page)
        server.add("chat", "GET", BASE + "/{path:.+}", self._file)

    @property
    def is_installed(self) -> bool:
        """Whether there is a Converse.js to show."""
        return bool(self._version)

    async def _page(self, request: web.Request) -> web.StreamResponse:
        if not self.is_installed:
            text = "The web chat is not installed here. Its operator can change that: make webchat (needs npm).\n"
            return web.Response(status=503, text=text)
        host = request.headers.get("Host", "")
        if _HOST.fullmatch(host) is None:
            raise web.HTTPBadRequest
        own = f"{BASE}/{self._version}"
        content = (
            tag("title", self._domain(host)),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", charset="utf-8"),
            tag("link", rel="icon", type="image/svg+xml", href=f"{BASE}/{ICON}"),
            tag("link", rel="stylesheet", href=f"{own}/converse.min.css"),
            tag("link", rel="stylesheet", href=f"{BASE}/{STYLE}"),
            tag("script", type="module", src=f"{own}/converse.min.js"),
            tag("script", type="module", src=f"{BASE}/{START}"),
        )
        settings = json.dumps(self.settings(self._domain(host)))
        no_script = tag("noscript", "The chat needs JavaScript.")
        head, body = tag("head", *content), tag("body", no_script, data_settings=settings)
        text = Markup("<!doctype html>") + tag("html", head, body, lang="en")
        headers = {"Content-Security-Policy": self.policy(host)}
        return web.Response(text=text, content_type="text/html", headers=headers)

    def _domain(self, host: str) -> str:
        """The domain that people sign in to here: the one that the address names, or the first."""
        domains = self._config.server.domains
        name = host.rsplit(":", 1)[0]
        return name if name in domains else domains[0]

    def settings(self, domain: str) -> Mapping[str, Any]:
        """What start.js gives to Converse.js, beside what depends on the browser alone."""
        may_register = self._config.registration.mode == "open"
        rooms = f"conference.{domain}"
        return {
            "assets_path": f"{BASE}/{self._version}/",
            "locked_domain": domain,
            "default_domain": domain,
            "muc_domain": rooms,
            "muc_search_service": rooms,
            "allow_registration": may_register,
            "registration_domain": domain if may_register else "",
            "websocket_path": websocket.PATH,
            "bosh_path": bosh.PATH,
            "render_media": [host for host in (self._public_host(domain),) if host],
        }

    def _public_host(self, domain: str) -> str:
        return urlsplit(self._config.http.public_url.replace("{domain}", domain)).hostname or ""

    def policy(self, host: str) -> str:
        """The Content-Security-Policy of the page: it loads from here alone, and OMEMO needs WebAssembly."""
        public = self._config.http.public_url.replace("{domain}", self._domain(host))
        from_here = f"'self' {public}".strip()
        parts = {
            "default-src": "'none'",
            "script-src": "'self' 'wasm-unsafe-eval'",
            "style-src": "'self' 'unsafe-inline'",  # Converse.js sets styles inline
            "img-src": f"{from_here} data: blob:",
            "media-src": f"{from_here} blob:",
            "font-src": "'self'",
            "worker-src": "'self'",
            "manifest-src": "'self'",
            "connect-src": f"{from_here} data: ws://{host} wss://{host}",  # not every browser counts these as 'self'
            "form-action": "'self'",
            "base-uri": "'none'",
            "frame-ancestors": "'none'",
        }
        return "; ".join(f"{name} {value}" for name, value in parts.items())

    async def _file(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        if path in (START, STYLE, ICON):
            file, kept = HERE / path, "no-cache"
        elif path in self._files:
            file, kept = self._files[path], FOR_EVER
        else:
            raise web.HTTPNotFound
        content_type = TYPES.get(file.suffix, "text/plain")  # the licences have none
        response = web.FileResponse(file, headers={"Content-Type": content_type, "Cache-Control": kept})
        return response


def _files(folder: Path) -> dict[str, Path]:
    """Path below BASE -> file; what is not here is not served."""
    if not folder.is_dir():
        return {}
    found = (file for file in sorted(folder.glob("*/**/*")) if file.is_file() and file.suffix != ".gz")
    return {str(file.relative_to(folder)): file for file in found}
