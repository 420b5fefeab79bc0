"""HTTP File Upload (XEP-0363), the files: PUT by whoever has a permit, GET by whoever has the URL. What may be put was
decided when the slot was granted (`router/features/upload.py`) and is signed, so any c2s serves it, without a database.

A file is there when all of it is there, or not at all. An upload that broke may be begun anew as long as the slot is
good. Nothing that is served runs in a browser (`c2s/http/content.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import Final, TypeVar

from aiohttp import ClientPayloadError, HttpVersion11, web

from c2s.http.content import CROSS_ORIGIN, INERT, PREFLIGHT, Span, headers_of, is_same, names, span_of
from c2s.http.server import HttpServer, ask
from cluster import logs, metrics
from cluster.config import Config, Upload
from cluster.edge import Answer, Edge
from cluster.files import Files, FilesAway, Stored
from xmpp import upload
from xmpp.upload import FOR_EVER, File, Permit

log = logs.get_logger()

T = TypeVar("T")

PATH: Final = "/upload/{id}/{name:[^/]+}"
PIECE_BYTES: Final = 1_048_576  # read from the storage at a time
SLICE_BYTES: Final = 65_536  # written to a client at a time
BUSY_S: Final = 5  # then somebody who was turned away may try again
ENDING_S: Final = 5.0  # for an upload to give up what it has begun
COMPLAIN_S: Final = 60.0

REASONS: Final = (
    "unknown", "expired", "permit", "length", "too-large", "type", "conflict", "range", "busy", "slow", "broken",
    "away",
)  # fmt: skip
_refused = metrics.counter(
    "stentor_upload_refused_total", "Requests for files, or to put one, that were refused", {"reason": REASONS}
)
_received = metrics.counter(
    "stentor_upload_received_total",
    "Files that were put; repeated: the same file was there already",
    {"result": ["stored", "repeated"]},
)


class Refused(Exception):
    """A request is refused; `reason` is one of REASONS."""

    def __init__(self, status: HTTPStatus, reason: str, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
        self.headers = headers or {}


class Uploads:
    """The routes, and what is under way."""

    def __init__(self, server: HttpServer, edge: Edge, config: Config, files: Files) -> None:
        self._server = server
        self._edge = edge
        self._domains = config.server.domains
        self._settings: Upload = config.upload
        self._files = files
        self._key: bytes | None = None
        self._asking: asyncio.Task[Answer] | None = None
        self._puts: dict[bytes, web.Request] = {}  # by object: the one that counts
        self._accounts: Counter[bytes] = Counter()
        self._addresses: Counter[str] = Counter()
        self._uploads = self._downloads = 0
        self._bytes_in = self._bytes_out = 0
        self._complained_at = -COMPLAIN_S
        server.add("upload", "GET", PATH, partial(self._answer, self._get))
        server.add("upload", "PUT", PATH, partial(self._answer, self._put), waits_for_body=True)
        server.add("upload", "OPTIONS", PATH, partial(self._answer, self._options))
        server.busy.append(lambda: self._uploads > 0)
        server.exports.append(self.export)

    def export(self) -> None:
        """Have Prometheus see it; once in a process."""
        metrics.sampled_gauge(
            "stentor_upload_transfers", "Uploads (in) and downloads (out) under way", ("direction",),
            {("in",): lambda: self._uploads, ("out",): lambda: self._downloads},
        )  # fmt: skip
        metrics.sampled_counter(
            "stentor_upload_bytes_total", "Bytes of files from and to clients", ("direction",),
            {("in",): lambda: self._bytes_in, ("out",): lambda: self._bytes_out},
        )  # fmt: skip

    # --- every request

    async def _answer(
        self, work: Callable[[web.Request], Awaitable[web.StreamResponse]], request: web.Request
    ) -> web.StreamResponse:
        try:
            return await work(request)
        except Refused as problem:
            refused = problem
        except FilesAway as problem:
            self._complain(problem)
            refused = _later(HTTPStatus.SERVICE_UNAVAILABLE, "away", "Files cannot be reached just now.")
        except TimeoutError:
            refused = Refused(HTTPStatus.REQUEST_TIMEOUT, "slow", "This takes too long.")
        except (ConnectionError, ClientPayloadError, web.RequestPayloadError):
            refused = Refused(HTTPStatus.BAD_REQUEST, "broken", "The request ended too early.")
        _refused.labels(refused.reason).inc()
        response = web.Response(text=f"{refused}\n", status=refused.status, headers={**CROSS_ORIGIN, **INERT})
        response.headers.update(refused.headers)
        if request.can_read_body:
            response.force_close()
        return response

    async def _options(self, request: web.Request) -> web.StreamResponse:
        """What a browser asks before a page of another site may do something."""
        return web.Response(status=HTTPStatus.NO_CONTENT, headers={**CROSS_ORIGIN, **PREFLIGHT})

    async def _file(self, request: web.Request) -> tuple[bytes, File]:
        """The key, and what the URL says. Raises Refused."""
        key = await self._known_key()
        file = upload.parse(key, request.match_info["id"], request.match_info["name"])
        if file is None:
            raise _unknown()
        if file.expires_at != FOR_EVER and file.expires_at <= time.time():
            raise Refused(HTTPStatus.GONE, "expired", "This file is not kept any longer.")
        return key, file

    async def _known_key(self) -> bytes:
        if self._key is None:
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(ask(self._edge, self._domains[0], "uploads.key"))
            answer = await asyncio.shield(self._asking)  # all who wait
            if not answer.ok:
                raise _later(HTTPStatus.SERVICE_UNAVAILABLE, "away", "Files cannot be reached just now.")
            self._key = bytes(answer.value)
        return self._key

    def _complain(self, problem: FilesAway) -> None:
        now = time.monotonic()
        if now - self._complained_at >= COMPLAIN_S:
            self._complained_at = now
            log.warning(
                "upload_storage_away", problem=str(problem),
                remedy="Look at upload.storage and what belongs to it. Clients are told to come back",
            )  # fmt: skip

    # --- PUT

    async def _put(self, request: web.Request) -> web.StreamResponse:
        """5: 201 when the file is there."""
        key, file = await self._file(request)
        permit = self._permit(request, key, file)
        check_body(request, file)
        with self._counted(request, file, permit):
            stored = await self._files.look(file.stored_as)
            await _invite_body(request)
            if stored is not None:
                await self._compare(request, file, permit)
                _received.labels("repeated").inc()
            else:
                await self._receive(request, file, permit)
                _received.labels("stored").inc()
        return web.Response(status=HTTPStatus.CREATED, headers={**CROSS_ORIGIN, **INERT})

    def _permit(self, request: web.Request, key: bytes, file: File) -> Permit:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        permit = upload.permitted(key, file, token.strip()) if scheme.lower() == "bearer" else None
        if permit is None or permit.domain not in self._domains:
            raise Refused(HTTPStatus.FORBIDDEN, "permit", "The Authorization header of the slot is needed.")
        if permit.until <= time.time():
            raise Refused(HTTPStatus.FORBIDDEN, "expired", "The slot is not good any longer. Ask for another one.")
        return permit

    @contextmanager
    def _counted(self, request: web.Request, file: File, permit: Permit) -> Iterator[None]:
        """One of so many. One that comes anew ends the one before, whose client has given it up."""
        before = self._puts.pop(file.object, None)
        if before is not None and before.transport is not None:
            before.transport.abort()
        elif self._uploads >= self._settings.uploads:
            raise _later(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "There are too many uploads just now.")
        elif self._accounts[permit.account] >= self._settings.uploads_per_account:
            raise _later(HTTPStatus.TOO_MANY_REQUESTS, "busy", "You have too many uploads under way.")
        self._puts[file.object] = request
        self._accounts[permit.account] += 1
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1
            _subtract(self._accounts, permit.account)
            if self._puts.get(file.object) is request:
                del self._puts[file.object]

    async def _receive(self, request: web.Request, file: File, permit: Permit) -> None:
        """The storage is never left in the middle: where this ends early, the body is made to end, and it cleans up."""
        task = asyncio.ensure_future(
            self._files.put(file.stored_as, self._body(request, file.size, permit.end), file.size)
        )
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if request.transport is not None:
                request.transport.abort()
            await asyncio.wait([task], timeout=ENDING_S)
            raise

    async def _compare(self, request: web.Request, file: File, permit: Permit) -> None:
        """The same again is fine (a client may not have seen that it is there); something else is not."""
        at = 0
        known = memoryview(b"")
        async for chunk in self._body(request, file.size, permit.end):
            given = memoryview(chunk)
            while given:
                if not known:
                    known = await self._files.read(file.stored_as, at, min(file.size, at + PIECE_BYTES))
                    at += len(known)
                size = min(len(given), len(known))
                if given[:size] != known[:size]:
                    raise Refused(HTTPStatus.CONFLICT, "conflict", "Another file is there already.")
                given, known = given[size:], known[size:]

    async def _body(self, request: web.Request, size: int, end: int) -> AsyncIterator[bytes]:
        """All of it, exactly; what does not come in time is not waited for. Raises Refused, TimeoutError, and what the
        connection raises."""
        left = size
        while left:
            async with asyncio.timeout(min(self._settings.stall_s, end - time.time())):
                chunk = await request.content.readany()
            if not chunk:
                raise Refused(HTTPStatus.BAD_REQUEST, "broken", "The file ended too early.")
            left -= len(chunk)
            self._bytes_in += len(chunk)
            if left < 0:
                raise _too_large()
            yield chunk
        if time.time() > end:
            raise TimeoutError

    # --- GET

    async def _get(self, request: web.Request) -> web.StreamResponse:
        """The file, or a part of it (RFC 9110, 14); HEAD likewise, without it."""
        _, file = await self._file(request)
        if self._downloads >= self._settings.downloads:
            raise _later(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "There are too many downloads just now.")
        address = self._server.address_of(request)
        if self._addresses[address] >= self._settings.downloads_per_address:
            raise _later(HTTPStatus.TOO_MANY_REQUESTS, "busy", "You have too many downloads under way.")
        self._downloads += 1
        self._addresses[address] += 1
        try:
            return await self._serve(request, file)
        finally:
            self._downloads -= 1
            _subtract(self._addresses, address)

    async def _serve(self, request: web.Request, file: File) -> web.StreamResponse:
        left_s = None if file.expires_at == FOR_EVER else int(file.expires_at - time.time())
        headers = headers_of(file.name, file.type, left_s)
        wanted = request.headers.get("Range") if request.method == "GET" else None
        span = span_of(wanted, file.size)
        etag = None
        if request.method == "HEAD" or "If-None-Match" in request.headers or "If-Range" in request.headers:
            etag = headers["ETag"] = self._there(file, await self._files.look(file.stored_as)).etag
            if names(request.headers.get("If-None-Match"), etag):
                return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
            if not is_same(request.headers.get("If-Range"), etag):
                span = None
        if request.method == "HEAD":
            headers["Content-Length"] = str(file.size)
            return web.Response(headers=headers)
        if span is not None and not span.is_there:
            self._there(file, await self._files.look(file.stored_as))
            unmet = {"Content-Range": f"bytes */{file.size}"}
            raise Refused(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "range", "No such part of the file.", unmet)
        return await self._send(request, file, span, headers)

    def _there(self, file: File, stored: Stored | None) -> Stored:
        """What the storage has. Raises Refused where that is nothing, or not what was put there."""
        if stored is None:
            raise _unknown()
        if stored.size != file.size:
            log.error("upload_damaged", path=file.stored_as, problem=f"{stored.size} bytes, not {file.size}")
            raise _unknown()
        return stored

    async def _send(
        self, request: web.Request, file: File, span: Span | None, headers: dict[str, str]
    ) -> web.StreamResponse:
        start, end = span or Span(0, file.size)
        first = await self._files.open(file.stored_as, start, min(end, start + PIECE_BYTES))
        stored = self._there(file, first[0] if first is not None else None)
        assert first is not None
        piece = first[1]
        headers["ETag"] = stored.etag
        if span is not None:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
        response = web.StreamResponse(
            status=HTTPStatus.PARTIAL_CONTENT if span is not None else HTTPStatus.OK, headers=headers
        )
        response.content_length = end - start
        await response.prepare(request)
        give_up_at = time.monotonic() + self._settings.stall_s + (end - start) / self._settings.slowest_bytes_per_s
        try:
            while True:
                for at in range(0, len(piece), SLICE_BYTES):
                    async with asyncio.timeout(min(self._settings.stall_s, give_up_at - time.monotonic())):
                        await response.write(piece[at : at + SLICE_BYTES])
                start += len(piece)
                self._bytes_out += len(piece)
                if start >= end:
                    break
                piece = await self._files.read(file.stored_as, start, min(end, start + PIECE_BYTES))
            await response.write_eof()
        except (TimeoutError, FilesAway, ConnectionError) as problem:
            # The answer has begun: that it is not whole can only be told by ending the connection.
            _refused.labels("away" if isinstance(problem, FilesAway) else "slow").inc()
            if isinstance(problem, FilesAway):
                self._complain(problem)
            if request.transport is not None:
                request.transport.abort()
        return response


def check_body(request: web.Request, file: File) -> None:
    """5: what is announced is what the slot is for. Raises Refused; nothing of the body has been read."""
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "type", "Files are taken as they are, not encoded.")
    if request.headers.get("Content-Range") is not None:
        raise Refused(HTTPStatus.BAD_REQUEST, "length", "A file is put as a whole.")  # RFC 9110, 14.5
    if request.content_length is None:
        raise Refused(HTTPStatus.LENGTH_REQUIRED, "length", "Say how long it is.")
    if request.content_length > file.size:
        raise _too_large()
    if request.content_length < file.size:
        raise Refused(HTTPStatus.BAD_REQUEST, "length", f"The slot is for {file.size} bytes.")
    if file.type and "Content-Type" in request.headers and request.content_type != file.type:
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "type", f"The slot is for {file.type}.")


def _subtract(counter: Counter[T], of: T) -> None:
    counter[of] -= 1
    if not counter[of]:
        del counter[of]


async def _invite_body(request: web.Request) -> None:
    """To a client that waits for that (RFC 9110, 10.1.1)."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun


def _unknown() -> Refused:
    return Refused(HTTPStatus.NOT_FOUND, "unknown", "There is no such file.")


def _too_large() -> Refused:
    return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", "This is more than the slot is for.")


def _later(status: HTTPStatus, reason: str, text: str) -> Refused:
    return Refused(status, reason, text, {"Retry-After": str(BUSY_S)})
