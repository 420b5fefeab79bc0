"""Where uploaded files are: a folder, or a bucket of an S3 server, by obstore, which is imported only if there is one.

What is put becomes visible when it is whole, or not at all. Nothing here knows whose a file is, or what it is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cluster.config import Config, Upload
from cluster.process import CannotStart

if TYPE_CHECKING:
    from obstore.store import LocalStore, S3Store

PART_BYTES: Final = 5 * 1024 * 1024  # the smallest part that S3 takes; what is not larger is put in one go
S3_TIMEOUT: Final = "60s"  # of one request


class FilesAway(Exception):
    """The storage cannot do it now. The text says why; nothing has become visible."""


class Stored(NamedTuple):
    """What the storage knows of a file. `etag` has its quotes."""

    size: int
    etag: str


class Files:
    """One storage. `folder` is None where it is no folder."""

    def __init__(self, store: LocalStore | S3Store, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    async def put(self, name: str, chunks: AsyncIterator[bytes], size: int) -> None:
        """Have a file of this size. Where `chunks` raises, that is raised, and there is no file; to end it early, have
        it raise: a cancelled call leaves parts behind on S3. Raises FilesAway."""
        import obstore

        problems: list[BaseException] = []
        guarded = _noting(chunks, problems)
        try:
            if size <= PART_BYTES:
                whole = b"".join([chunk async for chunk in guarded])
                await obstore.put_async(self._store, name, whole, use_multipart=False)
            else:
                await obstore.put_async(self._store, name, guarded, chunk_size=PART_BYTES, max_concurrency=1)
        except Exception as problem:
            if problems:
                raise problems[0] from None
            raise _away(problem) from problem

    async def look(self, name: str) -> Stored | None:
        """Whether there is a file. Raises FilesAway."""
        import obstore

        try:
            meta = await obstore.head_async(self._store, name)
        except FileNotFoundError:
            return None
        except Exception as problem:
            raise _away(problem) from problem
        return _stored(meta)

    async def open(self, name: str, start: int, end: int) -> tuple[Stored, memoryview] | None:
        """The bytes from `start` up to `end` of a file, and what it is; None where there is none. Raises FilesAway."""
        import obstore

        try:
            found = await obstore.get_async(self._store, name, options={"range": (start, end)})
            return _stored(found.meta), memoryview(await found.bytes_async())
        except FileNotFoundError:
            return None
        except Exception as problem:
            raise _away(problem) from problem

    async def read(self, name: str, start: int, end: int) -> memoryview:
        """More of it. Raises FilesAway, also where it is gone."""
        found = await self.open(name, start, end)
        if found is None:
            raise FilesAway("the file was deleted meanwhile")
        return found[1]

    async def delete(self, name: str) -> None:
        """Have it no more, nor what a process that died has left of it. Raises FilesAway."""
        import obstore

        try:
            await obstore.delete_async(self._store, name)
        except FileNotFoundError:
            pass
        except Exception as problem:
            raise _away(problem) from problem
        if self._folder is not None:
            await asyncio.to_thread(_sweep, self._folder / name)


def _noting(chunks: AsyncIterator[bytes], problems: list[BaseException]) -> AsyncIterator[bytes]:
    """The same; what it raises is kept, to be told from what the storage raises."""

    async def run() -> AsyncIterator[bytes]:
        try:
            async for chunk in chunks:
                yield chunk
        except Exception as problem:
            problems.append(problem)
            raise

    return run()


def _stored(meta: Any) -> Stored:
    etag = str(meta["e_tag"] or "")
    return Stored(int(meta["size"]), etag if etag.startswith('"') else f'"{etag}"')


def _away(problem: Exception) -> FilesAway:
    return FilesAway(" ".join(str(problem).split())[:300])


def _sweep(path: Path) -> None:
    """Files that are being written have a number behind their name; that of a process that died stays."""
    for left in path.parent.glob(f"{path.name}#*"):
        left.unlink(missing_ok=True)


def open_files(config: Config) -> Files | None:
    """The storage that is configured, None without one; a folder is made. Raises CannotStart."""
    upload = config.upload
    if not upload.storage:
        return None
    try:
        return _open(upload)
    except ModuleNotFoundError as problem:
        raise CannotStart(
            "upload.storage: obstore is not installed. Install the extra upload: pip install 'stentor[upload]'"
        ) from problem


def _open(upload: Upload) -> Files:
    from obstore.store import LocalStore, S3Store

    if not upload.storage.startswith("s3://"):
        folder = Path(upload.storage.removeprefix("file://"))
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = folder / ".writable"
            probe.touch()
            probe.unlink(missing_ok=True)
        except OSError as problem:
            raise CannotStart(
                f"upload.storage: {folder} cannot be written to: {problem.strerror}. Give it to the user that runs "
                "this process, or name another folder"
            ) from problem
        return Files(LocalStore(folder), folder)
    bucket, _, prefix = upload.storage.removeprefix("s3://").partition("/")
    options: dict[str, Any] = {}
    if upload.s3_endpoint:
        options |= {"endpoint": upload.s3_endpoint, "virtual_hosted_style_request": False}
    if upload.s3_access_key:
        options |= {"access_key_id": upload.s3_access_key, "secret_access_key": upload.s3_secret_key}
    is_plain = upload.s3_endpoint.startswith("http://")
    store = S3Store(
        bucket, prefix=prefix.strip("/") or None, region=upload.s3_region,
        client_options={"allow_http": is_plain, "timeout": S3_TIMEOUT},
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=60)}, **options,
    )  # fmt: skip
    return Files(store)
