"""What the HTTP listener makes of requests (c2s/http/server.py). It listens nowhere here."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from c2s.http.server import HttpServer
from cluster.config import Http


def server(**settings: object) -> HttpServer:
    return HttpServer(Http.model_validate(settings), None)  # type: ignore[arg-type]  # it does not listen


def request(*headers: tuple[str, str], remote: str = "192.0.2.1") -> web.Request:
    return make_mocked_request("POST", "/", headers=CIMultiDict(headers)).clone(remote=remote)


@pytest.mark.parametrize(
    ("remote", "forwarded", "address"),
    [
        ("192.0.2.1", (), "192.0.2.1"),
        ("192.0.2.1", ("198.51.100.7",), "192.0.2.1"),  # no proxy of ours: anybody can write that
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("198.51.100.7",), "198.51.100.7"),
        ("10.0.0.1", ("203.0.113.9, 198.51.100.7",), "198.51.100.7"),
        ("10.0.0.1", ("203.0.113.9", "198.51.100.7, 10.0.0.2"), "198.51.100.7"),
        ("10.0.0.1", ("10.0.0.3",), "10.0.0.3"),
        ("2001:db8::1", ("2001:db8:1::1",), "2001:db8:1::1"),
    ],
)
def test_whose_address_it_is(remote: str, forwarded: tuple[str, ...], address: str) -> None:
    headers = [("X-Forwarded-For", value) for value in forwarded]
    found = server(proxies=["10.0.0.0/8", "2001:db8::1"]).address_of(request(*headers, remote=remote))
    assert found == address


def test_a_proxy_is_an_address_or_a_network() -> None:
    with pytest.raises(ValueError, match=r"proxy\.example"):
        server(proxies=["proxy.example"])


@pytest.mark.parametrize(
    ("headers", "is_fine"),
    [
        ({}, True),  # no browser
        ({"Origin": "https://chat.example"}, True),
        ({"Origin": "http://chat.example"}, True),  # behind a proxy that has TLS
        ({"Origin": "null"}, True),  # a browser of before Sec-Fetch-Site, under no-referrer
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "https://chat.example:8443"}, False),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site", "Origin": "null"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://chat.example"}, False),
    ],
)
def test_forms_come_from_our_own_pages(headers: dict[str, str], is_fine: bool) -> None:
    asked = request(("Host", "chat.example"), *headers.items())
    if is_fine:
        server().require_same_origin(asked)
        return
    with pytest.raises(web.HTTPForbidden):
        server().require_same_origin(asked)
