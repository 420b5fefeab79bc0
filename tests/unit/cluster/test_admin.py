"""Probes, metrics and the administration API, asked without a socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from aiohttp.test_utils import make_mocked_request
from prometheus_client import CollectorRegistry

from cluster import metrics
from cluster.admin import AdminServer, ApiError, ApiHandler, ApiRequest, ApiServer, Checks

TOKEN = {"Authorization": "Bearer t0ken"}


def ask(
    app: web.Application, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
) -> tuple[int, bytes]:
    async def answer() -> tuple[int, bytes]:
        app.freeze()
        payload = StreamReader(Mock(spec=BaseProtocol, _reading_paused=False), 2**16, loop=asyncio.get_running_loop())
        payload.feed_data(body)
        payload.feed_eof()
        request = make_mocked_request(method, path, headers or {}, app=app, payload=payload)
        response = await app._handle(request)
        assert isinstance(response, web.Response)
        assert isinstance(response.body, bytes)
        return response.status, response.body

    return asyncio.run(answer())


def admin(health: Checks, ready: Checks, registry: CollectorRegistry | None = None) -> web.Application:
    return AdminServer("127.0.0.1", 1, lambda: health, lambda: ready, registry or CollectorRegistry()).app


def api(method: str, path: str, handler: ApiHandler) -> web.Application:
    return ApiServer("127.0.0.1", 1, "t0ken", [(method, path, handler)]).app


async def echo(request: ApiRequest) -> Any:
    return {"path": dict(request.path), "query": dict(request.query), "body": dict(request.body)}


def test_a_probe_answers_200_when_every_check_is_well() -> None:
    status, body = ask(admin({}, {"listeners": lambda: None}), "GET", "/readyz")
    assert status == 200
    assert json.loads(body) == [{"check": "listeners", "ok": True, "reason": ""}]


def test_a_probe_answers_503_with_reasons_in_words() -> None:
    checks: Checks = {"listeners": lambda: None, "database": lambda: "no answer for 12 s"}
    status, body = ask(admin(checks, {}), "GET", "/healthz")
    assert status == 503
    assert json.loads(body)[1] == {"check": "database", "ok": False, "reason": "no answer for 12 s"}


def test_a_check_that_breaks_fails() -> None:
    def broken() -> str | None:
        raise RuntimeError("oops")

    status, body = ask(admin({}, {"x": broken}), "GET", "/readyz")
    assert status == 503
    assert "oops" in json.loads(body)[0]["reason"]


def test_metrics_are_in_prometheus_text() -> None:
    registry = CollectorRegistry()
    metrics.gauge("stentor_answer", "The answer", registry=registry).set(42)
    status, body = ask(admin({}, {}, registry), "GET", "/metrics")
    assert status == 200
    assert b"stentor_answer 42.0\n" in body


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer t0ke"}, {"Authorization": "t0ken"}, {"Authorization": "Bearer tökén"}]
)
def test_the_api_wants_the_token_also_where_there_is_no_route(headers: dict[str, str]) -> None:
    for path in ("/api/v1/users", "/api/v1/nothing"):
        status, body = ask(api("GET", "/users", echo), "GET", path, headers)
        assert status == 401
        assert set(json.loads(body)) == {"error", "remedy"}


def test_a_handler_gets_path_query_and_body() -> None:
    app = api("PUT", "/users/{jid}/password", echo)
    status, body = ask(app, "PUT", "/api/v1/users/a@b%2Fc%20d/password?x=1", TOKEN, b'{"password": "p"}')
    assert status == 200
    assert json.loads(body) == {"path": {"jid": "a@b/c d"}, "query": {"x": "1"}, "body": {"password": "p"}}


@pytest.mark.parametrize("body", [b"[1]", b"{", b"\xff"])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    status, answer = ask(api("POST", "/users", echo), "POST", "/api/v1/users", TOKEN, body)
    assert status == 400
    assert "JSON" in json.loads(answer)["error"]


def test_errors_carry_status_and_remedy() -> None:
    async def refuse(request: ApiRequest) -> Any:
        raise ApiError(409, "a@b exists", "Choose another name")

    status, body = ask(api("POST", "/users", refuse), "POST", "/api/v1/users", TOKEN)
    assert status == 409
    assert json.loads(body) == {"error": "a@b exists", "remedy": "Choose another name"}


def test_a_bug_in_a_handler_is_an_internal_error_without_its_text() -> None:
    async def broken(request: ApiRequest) -> Any:
        raise KeyError("password hash")

    status, body = ask(api("GET", "/users", broken), "GET", "/api/v1/users", TOKEN)
    assert status == 500
    assert b"password hash" not in body


def test_unknown_paths_and_methods_are_json_too() -> None:
    app = api("GET", "/users", echo)
    assert ask(app, "GET", "/api/v1/nothing", TOKEN)[0] == 404
    status, body = ask(app, "DELETE", "/api/v1/users", TOKEN)
    assert status == 405
    assert json.loads(body)["remedy"]


def test_a_missing_string_is_asked_for() -> None:
    for body in ({}, {"jid": 3}, {"jid": ""}):
        with pytest.raises(ApiError, match="jid") as caught:
            ApiRequest({}, {}, body).text("jid")
        assert caught.value.status == 400
    assert ApiRequest({}, {}, {"jid": "a@b"}).text("jid") == "a@b"


def test_an_api_without_a_token_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="token"):
        ApiServer("127.0.0.1", 1, "", [])
