"""Fetching POSH documents (s2s/posh.py) from real web sites on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import trustme
import uvloop
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from s2s.posh import DOCUMENT_BYTES, PATH, Fingerprint, Posh
from tests.support.cluster import FACTOR

ADDRESS = "127.0.42.80"
HASH = b"\x01" * 32
GOOD = {"fingerprints": [{"sha-256": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}], "expires": 600}
FOUND = (Fingerprint(HASH, b""),)
CA = trustme.CA()


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class Everywhere(AbstractResolver):
    """Every web site, on port 443 as they all are, is this one."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host.startswith("nowhere"):
            raise OSError("no such host")
        return [ResolveResult(hostname=host, host=ADDRESS, port=self.port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing to close."""


Answer = Callable[[], web.StreamResponse | Awaitable[web.StreamResponse]]


class Web:
    """Web sites: (host, path) -> what they answer; and how often they were asked."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Any] = {}
        self.asked: Counter[str] = Counter()
        self.clock = Clock()
        self.held = asyncio.Event()
        self.release = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        host = request.host.partition(":")[0]
        self.asked[host] += 1
        answer = self.answers.get((host, request.path))
        if answer is None:
            return web.Response(status=404)
        if isinstance(answer, dict):
            return web.json_response(answer)
        if isinstance(answer, bytes):
            return web.Response(body=answer)
        if isinstance(answer, str):
            return web.Response(status=302, headers={"Location": answer})
        self.held.set()
        await self.release.wait()
        return web.json_response(GOOD)


def run(test: Callable[[Web, Posh], Awaitable[None]], *, trusts: bool = True, timeout_s: float = 10.0) -> None:
    async def with_web() -> None:
        sites = Web()
        app = web.Application()
        app.router.add_get("/{path:.*}", sites.answer)
        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
        CA.issue_cert(*(f"{name}.example" for name in "abcdef"), "bücher.example").configure_cert(server)
        if trusts:
            CA.configure_trust(client)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, ADDRESS, 0, ssl_context=server)
        await site.start()
        port = runner.addresses[0][1]
        connector = aiohttp.TCPConnector(resolver=Everywhere(port), ssl=client)
        posh = Posh(sites.clock, connector=connector, timeout_s=timeout_s)
        try:
            async with asyncio.timeout(30 * FACTOR):
                await test(sites, posh)
        finally:
            sites.release.set()
            await posh.close()
            await runner.cleanup()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(with_web())


def test_a_domain_publishes_its_fingerprints() -> None:
    async def test(sites: Web, posh: Posh) -> None:
        sites.answers["a.example", PATH] = GOOD
        assert await posh.fingerprints("A.example") == FOUND
        sites.answers["xn--bcher-kva.example", PATH] = GOOD
        assert await posh.fingerprints("bücher.example") == FOUND

    run(test)


def test_a_domain_refers_to_its_hosting_service_once() -> None:
    async def test(sites: Web, posh: Posh) -> None:
        sites.answers["a.example", PATH] = {"url": "https://b.example/p", "expires": 600}
        sites.answers["b.example", "/p"] = GOOD
        assert await posh.fingerprints("a.example") == FOUND
        sites.answers["c.example", PATH] = {"url": "https://a.example" + PATH, "expires": 600}
        assert await posh.fingerprints("c.example") == ()

    run(test)


def test_redirections_stay_within_https_and_end() -> None:
    async def test(sites: Web, posh: Posh) -> None:
        sites.answers["a.example", PATH] = "https://b.example/p"
        sites.answers["b.example", "/p"] = "/q"
        sites.answers["b.example", "/q"] = GOOD
        assert await posh.fingerprints("a.example") == FOUND
        for name, place in (
            ("c", "http://b.example/q"),
            ("d", ""),
            ("e", "file:///etc/passwd"),
            ("f", "https://f.example" + PATH),
        ):
            sites.answers[f"{name}.example", PATH] = place
            assert await posh.fingerprints(f"{name}.example") == ()
        assert sites.asked["f.example"] == 5

    run(test)


def test_documents_are_kept_as_long_as_they_say() -> None:
    async def test(sites: Web, posh: Posh) -> None:
        sites.answers["a.example", PATH] = {"url": "https://b.example/p", "expires": 60}
        sites.answers["b.example", "/p"] = GOOD
        for after_s, asked in ((0, 1), (59, 1), (61, 2)):
            sites.clock.now = 1_000 + after_s
            assert await posh.fingerprints("a.example") == FOUND
            assert sites.asked["a.example"] == asked
        sites.answers["c.example", PATH] = {**GOOD, "expires": 1e12}
        for after_s, asked in ((0, 1), (86_399, 1), (86_401, 2)):
            sites.clock.now = 1_000 + after_s
            await posh.fingerprints("c.example")
            assert sites.asked["c.example"] == asked

    run(test)


@pytest.mark.parametrize(
    "answer", [None, b"", b"<html>", {"fingerprints": []}, b" " * (DOCUMENT_BYTES + 1) + json.dumps(GOOD).encode()]
)
def test_no_document_is_no_fingerprints_for_a_minute(answer: object) -> None:
    async def test(sites: Web, posh: Posh) -> None:
        if answer is not None:
            sites.answers["a.example", PATH] = answer
        for after_s, asked in ((0, 1), (59, 1), (61, 2)):
            sites.clock.now = 1_000 + after_s
            assert await posh.fingerprints("a.example") == ()
            assert sites.asked["a.example"] == asked

    run(test)


def test_a_document_of_greatest_size_is_read() -> None:
    async def test(sites: Web, posh: Posh) -> None:
        content = json.dumps(GOOD).encode()
        sites.answers["a.example", PATH] = content + b" " * (DOCUMENT_BYTES - len(content))
        assert await posh.fingerprints("a.example") == FOUND

    run(test)


def test_a_site_that_is_not_trusted_says_nothing() -> None:
    async def test(sites: Web, posh: Posh) -> None:
        sites.answers["a.example", PATH] = GOOD
        assert await posh.fingerprints("a.example") == ()
        assert not sites.asked

    run(test, trusts=False)


def test_a_site_with_another_name_says_nothing() -> None:
    async def test(sites: Web, posh: Posh) -> None:
        sites.answers["a.elsewhere.org", PATH] = GOOD
        assert await posh.fingerprints("a.elsewhere.org") == ()
        assert not sites.asked

    run(test)


def test_a_site_that_takes_too_long_is_given_up() -> None:
    async def test(sites: Web, posh: Posh) -> None:
        sites.answers["a.example", PATH] = 5  # answers when it is released
        assert await posh.fingerprints("a.example") == ()
        assert sites.asked["a.example"] == 1

    run(test, timeout_s=0.3)


@pytest.mark.parametrize("domain", ["nowhere.example", "192.0.2.1", "[::1]", "a..b", ""])
def test_domains_without_a_site_have_none(domain: str) -> None:
    async def test(sites: Web, posh: Posh) -> None:
        assert await posh.fingerprints(domain) == ()
        assert not sites.asked

    run(test)


def test_who_asks_at_once_shares_a_fetch() -> None:
    async def test(sites: Web, posh: Posh) -> None:
        sites.answers["a.example", PATH] = 5
        waiting = [asyncio.create_task(posh.fingerprints("a.example")) for _ in range(10)]
        await sites.held.wait()
        sites.release.set()
        assert list(await asyncio.gather(*waiting)) == [FOUND] * 10
        assert sites.asked["a.example"] == 1

    run(test)
