"""An identity provider over HTTPS, in a thread: discovery, keys that change, and tokens. It can go away and come back."""

from __future__ import annotations

import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import jwt
import trustme
from cryptography.hazmat.primitives.asymmetric import ec

DISCOVERY: Final = "/.well-known/openid-configuration"


class Provider:
    """Issues tokens for the audience `xmpp`, signed by ES256."""

    def __init__(self, authority: trustme.CA) -> None:
        """It has a port of its own from now on, and answers from `start` on."""
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(self._tls)
        self._keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self._server: ThreadingHTTPServer | None = None
        with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as probe:
            self._port: int = probe.server_port
        self.issuer = f"https://localhost:{self._port}"
        self.asked: list[str] = []
        self.rotate()

    def rotate(self) -> None:
        """A new key, and no other any more."""
        self.kid = f"key-{time.monotonic_ns()}"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._keys = {self.kid: self._key}

    def token(self, name: str, **changed: Any) -> str:
        """A token of the current key: this is somebody's `preferred_username`."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": "xmpp",
            "sub": f"id-of-{name}",
            "preferred_username": name,
            "exp": now + 300,
        }
        return jwt.encode({**claims, **changed}, self._key, "ES256", {"kid": self.kid})

    def start(self) -> None:
        """Answer."""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                page = provider._page(self.path)
                self.send_response(200 if page is not None else 404)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(page).encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        assert self._server is None
        self._server = server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        server.socket = self._tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Go away."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _page(self, path: str) -> dict[str, Any] | None:
        if path == DISCOVERY:
            return {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"}
        if path == "/keys":
            return {
                "keys": [
                    {**jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}
                    for kid, key in self._keys.items()
                ]
            }
        return None
