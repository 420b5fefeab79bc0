"""The page at / (c2s/http/chat/page.py): what it loads is there and nothing else is, and it is told what holds here."""

from __future__ import annotations

import asyncio
import json
import re
from html import unescape
from pathlib import Path
from typing import cast

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from c2s.http.chat.page import FOR_EVER, HERE, ChatPage
from c2s.http.server import HttpServer
from c2s.tls import ServerTls
from cluster.config import load


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("1.2.3/converse.min.js", "1.2.3/converse.min.js.gz", "1.2.3/images/a.svg", "1.2.3/LICENSE"):
        file = tmp_path / "dist" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (tmp_path / "dist" / ".installed").write_text("")
    (tmp_path / "secret.js").write_text("secret")
    return tmp_path / "dist"


def chat(files: Path, *overrides: str) -> ChatPage:
    config = load(None, ['server.domains=["a.example","b.example"]', *overrides], {})
    return ChatPage(HttpServer(config.http, cast(ServerTls, None)), config, files)


def shown(page: ChatPage, host: str = "a.example") -> web.Response:
    request = make_mocked_request("GET", "/", headers={"Host": host})
    return cast(web.Response, asyncio.run(page._page(request)))


def fetched(page: ChatPage, path: str) -> web.FileResponse:
    request = make_mocked_request("GET", f"/chat/{path}", match_info={"path": path})
    return cast(web.FileResponse, asyncio.run(page._file(request)))


def settings(response: web.Response) -> dict[str, object]:
    found = re.search(r'data-settings="([^"]*)"', response.text or "")
    assert found is not None
    return dict(json.loads(unescape(found[1])))


def test_the_page_loads_what_is_there(files: Path) -> None:
    page = chat(files)
    text = shown(page).text or ""
    paths = re.findall(r'(?:src|href)="/chat/([^"]+)"', text)
    assert {"1.2.3/converse.min.js", "start.js", "style.css", "icon.svg"} < set(paths)
    for path in ("start.js", "style.css", "icon.svg"):
        assert (HERE / path).is_file()
        assert fetched(page, path).headers["Cache-Control"] == "no-cache"
    response = fetched(page, "1.2.3/converse.min.js")
    assert (response.headers["Content-Type"], response.headers["Cache-Control"]) == ("text/javascript", FOR_EVER)
    assert fetched(page, "1.2.3/LICENSE").headers["Content-Type"] == "text/plain"


@pytest.mark.parametrize(
    "path", ["../secret.js", "1.2.3/../../secret.js", "1.2.3", "", ".installed", "page.py", "1.2.3/converse.min.js.gz"]
)
def test_nothing_else_is_served(files: Path, path: str) -> None:
    with pytest.raises(web.HTTPNotFound):
        fetched(chat(files), path)


@pytest.mark.parametrize(
    ("host", "domain"),
    [("a.example", "a.example"), ("b.example:5443", "b.example"), ("chat.else.example", "a.example")],
)
def test_people_sign_in_to_the_domain_that_the_address_names(files: Path, host: str, domain: str) -> None:
    found = settings(shown(chat(files), host))
    assert (found["locked_domain"], found["muc_domain"]) == (domain, f"conference.{domain}")


def test_registration_follows_the_server(files: Path) -> None:
    assert settings(shown(chat(files)))["allow_registration"] is False
    assert settings(shown(chat(files, "registration.mode=invite")))["allow_registration"] is False
    assert settings(shown(chat(files, "registration.mode=open")))["allow_registration"] is True


def test_the_policy_lets_in_nothing_from_elsewhere(files: Path) -> None:
    page = chat(files, "http.public_url=https://chat.{domain}")
    policy = shown(page, "b.example").headers["Content-Security-Policy"]
    parts = dict(part.split(" ", 1) for part in policy.split("; "))
    assert parts["default-src"] == "'none'"
    assert parts["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert parts["connect-src"] == "'self' https://chat.b.example data: ws://b.example wss://b.example"
    assert set(re.findall(r"https?://[^ ;]+", policy)) == {"https://chat.b.example"}


@pytest.mark.parametrize("host", ["", "a b", "a;script-src *", "a\u00e9", "[::1", 'a"'])
def test_a_host_that_is_none_is_refused(files: Path, host: str) -> None:
    with pytest.raises(web.HTTPBadRequest):
        shown(chat(files), host)


def test_without_converse_js_the_page_says_how_to_get_it(tmp_path: Path) -> None:
    response = shown(chat(tmp_path / "nothing"))
    assert response.status == 503
    assert "make webchat" in (response.text or "")
