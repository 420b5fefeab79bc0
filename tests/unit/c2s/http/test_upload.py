"""The routes of files (c2s/http/upload.py) at a listener of their own, with files in a folder; nobody else is asked."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession, web

from c2s.http.server import HttpServer
from c2s.http.upload import Uploads
from cluster.config import load
from cluster.edge import Answer
from cluster.files import open_files
from xmpp import upload
from xmpp.upload import FOR_EVER, File, Permit

KEY = b"k" * 32
Test = Callable[["Site"], Awaitable[None]]


class Routers:
    """What is asked of them."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Callable[[Answer], None]]] = []

    def call(self, bare: str, method: str, arguments: Any, done: Callable[[Answer], None], timeout_s: float) -> str:
        self.asked.append((method, done))
        return "request"


async def until(condition: Callable[[], bool]) -> None:
    """The deadline is the test's."""
    while not condition():  # noqa: ASYNC110  # what is waited for happens at the other end of a socket
        await asyncio.sleep(0.01)


class Site:
    """A listener. `headers` of a slot are made here, as routers make them."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder = folder
        self.edge = Routers()
        config = load(None, [f"upload.storage={folder}", *settings], {})
        files = open_files(config)
        assert files is not None
        self.server = HttpServer(config.http, None)  # type: ignore[arg-type]  # it does not listen for TLS
        self.uploads = Uploads(self.server, self.edge, config, files)  # type: ignore[arg-type]
        self.uploads._key = KEY
        self.url = ""
        self.http: ClientSession

    async def __aenter__(self) -> Site:
        runner = self.runner = self.server._runner
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/upload/"
        self.http = ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()
        await self.runner.cleanup()

    def file(self, size: int = 5, expires_at: int = FOR_EVER) -> File:
        return File(os.urandom(16), "a.bin", size, "", expires_at)

    async def put(
        self, file: File, data: Any, who: str = "romeo", begin_s: int = 60, end_s: int = 120, domain: str = "localhost"
    ) -> int:
        now = int(time.time())
        permit = Permit(domain, upload.account_tag(who), now + begin_s, now + end_s)
        headers = {"Authorization": f"Bearer {upload.permission(KEY, file, permit)}", "Content-Length": str(file.size)}
        async with self.http.put(self.url + upload.path(KEY, file), data=data, headers=headers) as answer:
            return answer.status

    async def get(self, file: File) -> int:
        async with self.http.get(self.url + upload.path(KEY, file)) as answer:
            return answer.status

    async def begin(self, file: File, who: str = "romeo") -> tuple[asyncio.Task[int], asyncio.Event]:
        """An upload that has begun, and goes on when the event is set."""
        goes_on = asyncio.Event()

        async def data() -> Any:
            yield b"1"
            await goes_on.wait()
            yield b"2" * (file.size - 1)

        had = self.uploads._uploads
        task = asyncio.create_task(self.put(file, data(), who))
        await until(lambda: self.uploads._uploads > had or task.done())
        return task, goes_on

    def left(self) -> list[str]:
        return [path.name for path in self.folder.rglob("*") if path.is_file()]


def at_a_site(*settings: str) -> Callable[[Test], Callable[[Path], None]]:
    def decorate(test: Test) -> Callable[[Path], None]:
        @wraps(test)
        def run(tmp_path: Path) -> None:
            async def body() -> None:
                async with asyncio.timeout(30), Site(tmp_path / "uploads", *settings) as site:
                    await test(site)

            asyncio.run(body())

        del run.__wrapped__  # pytest would ask for its arguments
        return run

    return decorate


@at_a_site()
async def test_there_and_back(site: Site) -> None:
    file = site.file()
    assert await site.get(file) == 404
    assert await site.put(file, b"12345") == 201
    assert await site.get(file) == 200


@at_a_site()
async def test_a_slot_is_good_for_a_while(site: Site) -> None:
    file = site.file()
    assert await site.put(file, b"12345", begin_s=0) == 403
    assert await site.get(file) == 404
    assert await site.put(file, b"12345", begin_s=5) == 201


@at_a_site()
async def test_an_upload_has_an_end(site: Site) -> None:
    """However slowly it goes on, it is over when the permit says so."""
    file = site.file(100)

    async def data() -> Any:
        for _ in range(100):
            yield b"1"
            await asyncio.sleep(0.1)

    started = time.monotonic()
    with suppress(ClientError):
        assert await site.put(file, data(), end_s=2) == 408
    assert time.monotonic() - started < 8
    assert site.left() == []


@at_a_site()
async def test_a_file_that_has_expired_is_not_served_though_it_is_there(site: Site) -> None:
    file = site.file(expires_at=int(time.time()) + 2)
    assert await site.put(file, b"12345") == 201
    assert await site.get(file) == 200
    await until(lambda: file.expires_at <= time.time())
    assert await site.get(file) == 410
    assert await site.put(file, b"12345") == 410
    assert len(site.left()) == 1


@at_a_site()
async def test_a_permit_of_a_domain_that_is_not_served_here(site: Site) -> None:
    assert await site.put(site.file(), b"12345", domain="elsewhere.example") == 403


@at_a_site("upload.uploads=3", "upload.uploads_per_account=2")
async def test_uploads_at_a_time(site: Site) -> None:
    begun = [await site.begin(site.file(), who) for who in ("romeo", "romeo", "juliet")]
    assert await site.put(site.file(), b"12345", "nurse") == 503, "too many"
    begun[2][1].set()
    assert await begun[2][0] == 201
    assert await site.put(site.file(), b"12345", "romeo") == 429, "too many of this account"
    assert await site.put(site.file(), b"12345", "juliet") == 201
    for task, goes_on in begun[:2]:
        goes_on.set()
        assert await task == 201
    assert await site.put(site.file(), b"12345", "romeo") == 201
    assert not site.uploads._accounts
    assert not site.uploads._puts


@at_a_site("upload.uploads_per_account=1")
async def test_one_that_comes_anew_ends_the_one_before(site: Site) -> None:
    """A client whose connection is dead need not wait until that is seen."""
    file = site.file()
    task, goes_on = await site.begin(file)
    assert await site.put(file, b"12345") == 201
    with pytest.raises(ClientError):
        await task
    goes_on.set()
    assert await site.get(file) == 200
    await until(lambda: not site.uploads._uploads)
    assert site.left() == [file.object.hex()]


@at_a_site("upload.downloads=1", "upload.stall_s=0.5")
async def test_a_client_that_does_not_read_is_let_go(site: Site) -> None:
    """So it does not take one of the places for ever."""
    size = 30_000_000
    file = site.file(size)
    assert await site.put(file, BytesIO(b"x" * size)) == 201
    reader, writer = await asyncio.open_connection("127.0.0.1", site.runner.addresses[0][1], limit=1_000)
    writer.write(f"GET /upload/{upload.path(KEY, file)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await until(lambda: site.uploads._downloads > 0)
    assert await site.get(file) == 503
    await until(lambda: not site.uploads._downloads)
    with suppress(ConnectionError):
        received = len(await reader.read())
        assert received < size
    writer.close()
    assert await site.get(file) == 200


@at_a_site()
async def test_without_the_key_nothing_is_known(site: Site) -> None:
    """It is asked for once; until a router has said it, clients are told to come back."""
    site.uploads._key = None

    async def answer(ok: bool, value: Any) -> None:
        await until(lambda: bool(site.edge.asked))
        assert [method for method, _ in site.edge.asked] == ["uploads.key"]
        site.edge.asked.pop()[1](Answer(ok, value))

    file = site.file()
    refused, _ = await asyncio.gather(site.get(file), answer(False, "temporary-auth-failure"))
    assert refused == 503
    first, second, _ = await asyncio.gather(site.get(file), site.get(file), answer(True, KEY))
    assert (first, second) == (404, 404)
    assert site.edge.asked == []


@at_a_site()
async def test_the_end_of_the_process_leaves_nothing_half_done(site: Site) -> None:
    task, _ = await site.begin(site.file(6_000_000))
    assert site.server.is_busy()
    await site.runner.cleanup()
    with suppress(ClientError):
        await task
    assert site.left() == []
