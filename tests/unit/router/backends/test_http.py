"""The operator's own service (router/backends/http.py, https.py): what it is asked, and what is no answer."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from cluster.authentication import Http
from router.backends.backend import Away
from router.backends.http import HttpBackend
from router.backends.https import ANSWER_BYTES

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
AUTHORITY = trustme.CA()


async def ask(
    tmp_path: Path, handler: Handler, *, trusts: bool = True, timeout_s: int = 5, host: str = "localhost"
) -> bool:
    """Whether a service that answers by this handler takes a password."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("localhost").configure_cert(tls)
    ca = tmp_path / "ca.pem"
    (AUTHORITY if trusts else trustme.CA()).cert_pem.write_to_path(str(ca))
    server = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = server.addresses[0][1]
    asked = HttpBackend(
        Http(backend="http", url=f"https://{host}:{port}/check", secret="ours", ca=ca, timeout_s=timeout_s)
    )
    try:
        return await asked.check_password("romeo", "example.org", "o'\"ne")
    finally:
        await asked.stop()
        await server.cleanup()


def says(body: str, status: int = 200) -> Handler:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=body, status=status, content_type="application/json")

    return handler


def test_the_service_is_told_who_it_is_and_by_whom_it_is_asked(tmp_path: Path) -> None:
    heard: list[Any] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        heard.extend([request.method, request.path, request.headers["Authorization"], await request.json()])
        return web.json_response({"ok": True, "more": 1})

    assert asyncio.run(ask(tmp_path, handler))
    told = {"username": "romeo", "domain": "example.org", "password": "o'\"ne"}
    assert heard == ["POST", "/check", "Bearer ours", told]


def test_no_is_an_answer(tmp_path: Path) -> None:
    assert not asyncio.run(ask(tmp_path, says('{"ok": false}')))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"ok": true}', 500),
        ('{"ok": true}', 401),
        ('{"ok": true}', 302),
        ('{"ok": 1}', 200),
        ('{"ok": "true"}', 200),
        ("{}", 200),
        ("true", 200),
        ("[" * 100_000, 200),
        ("<html/>", 200),
        ("", 200),
        (json.dumps({"ok": True, "more": "x" * ANSWER_BYTES}), 200),
    ],
    ids=[
        "error",
        "unauthorized",
        "redirect",
        "number",
        "text",
        "empty",
        "no-object",
        "deep",
        "no-json",
        "nothing",
        "long",
    ],
)
def test_nonsense_is_no_answer(body: str, status: int, tmp_path: Path) -> None:
    with pytest.raises(Away):
        asyncio.run(ask(tmp_path, says(body, status)))


def test_a_service_that_is_slow_is_away(tmp_path: Path) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(3_600)
        raise AssertionError

    with pytest.raises(Away, match="in time"):
        asyncio.run(ask(tmp_path, handler, timeout_s=1))


def test_the_certificate_has_to_be_good_and_for_the_host(tmp_path: Path) -> None:
    with pytest.raises(Away, match="certificate"):
        asyncio.run(ask(tmp_path, says('{"ok": true}'), trusts=False))
    with pytest.raises(Away, match="certificate"):
        asyncio.run(ask(tmp_path, says('{"ok": true}'), host="127.0.0.1"))


def test_nobody_there_is_away(tmp_path: Path) -> None:
    async def conversation() -> None:
        asked = HttpBackend(Http(backend="http", url="https://127.0.0.1:1/"))
        with pytest.raises(Away):
            await asked.check_password("romeo", "example.org", "secret")
        await asked.stop()

    asyncio.run(conversation())
