"""What becomes of uploaded files: slots that nobody has used give their room back, files expire, those of an account
that ends go with it. Every router does it, for rows that it has taken for a while (`storage/uploads.py`): if it dies
over them, another one takes them.

Whether a slot was used is seen in the storage when its time is over, not told by the c2s: a c2s that dies right after
an upload, or whose word is lost, changes nothing, and a c2s cannot say what is not so. It costs one look a file, and
that what was granted counts until then.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar

from cluster import logs, metrics
from cluster.files import Files, FilesAway
from router.calls import CallError
from storage import secrets, uploads
from storage.pool import is_away
from storage.store import Store
from xmpp.upload import place

log = logs.get_logger()

LOOK_S: Final = 5.0
AWAY_S: Final = 60.0  # after the storage could not be asked
TOTAL_S: Final = 60.0  # between counts of what all have together
PAGE: Final = 100
AT_ONCE: Final = 8  # requests to the storage

removed = metrics.counter(
    "stentor_upload_files_removed_total",
    "Files that were deleted, and slots that nobody has used",
    {"reason": ["expired", "erased", "unused"]},
)
_files = metrics.gauge("stentor_upload_stored_files", "Files and open slots of all accounts, at one of the routers")
_bytes = metrics.gauge("stentor_upload_stored_bytes", "What they count together, at the same router")

T = TypeVar("T")


class UploadKeeper:
    """`files` is None where there is no storage; `counts` tells whether this router is the one that counts."""

    def __init__(self, store: Store, files: Files | None, counts: Callable[[], bool]) -> None:
        self._store = store
        self._files = files
        self._counts = counts
        self._total_at = 0.0

    def methods(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        """By the names that calls have."""
        return {"uploads.key": self.key}

    async def key(self) -> bytes:
        """A call of a c2s: what URLs and permits are signed by. It may read and write every file anyway."""
        if self._files is None:
            raise CallError("item-not-found")
        return await self._store.run(secrets.secret, "uploads")

    async def follow(self) -> None:
        """As long as the router lives."""
        while True:
            pause = LOOK_S
            try:
                if self._files is not None:
                    while await self.look(self._files) == PAGE:
                        pass
                await self._count()
            except FilesAway as problem:
                pause = AWAY_S
                log.warning(
                    "upload_storage_away", problem=str(problem),
                    remedy="Files expire when it is back. Look at upload.storage and what belongs to it",
                )  # fmt: skip
            except Exception as problem:
                if not is_away(problem):
                    log.error("uploads_failed", exc_info=problem)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))

    async def look(self, files: Files) -> int:
        """Do some of what is due; returns how many rows that were. Raises FilesAway, and does them again later."""
        due = await self._store.run(uploads.claim, PAGE)
        opened = [row.id for row in due if row.state == "open"]
        found = await _each(opened, lambda id_: files.look(place(id_)))
        used = [id_ for id_, stored in zip(opened, found, strict=True) if stored is not None]
        await self._store.run(uploads.settle, used)
        unused = [id_ for id_, stored in zip(opened, found, strict=True) if stored is None]
        await self._remove(files, unused, "unused")
        for state, reason in (("stored", "expired"), ("doomed", "erased")):
            await self._remove(files, [row.id for row in due if row.state == state], reason)
        return len(due)

    async def erase(self, owner: int) -> int:
        """Delete the files of an account that has ended. Whoever has a permit may still put one for a while: such a row
        stays, as nobody's, and what has come is deleted when that time is over; likewise all of them where there is no
        storage now. Returns how many rows there were. Raises FilesAway."""
        count = 0
        if self._files is not None:
            while ids := await self._store.run(uploads.doom, owner, PAGE):
                count += await self._remove(self._files, ids, "erased")
            await _each(await self._store.run(uploads.open_of, owner), self._delete(self._files))
        left = await self._store.run(uploads.disown, owner, self._files is None)
        if left and self._files is None:
            log.warning("uploads_not_deleted", count=left, remedy="They are, once upload.storage is set again")
        return count + left

    async def _remove(self, files: Files, ids: list[bytes], reason: str) -> int:
        if not ids:
            return 0
        await _each(ids, self._delete(files))
        count = await self._store.run(uploads.forget, ids)
        removed.labels(reason).inc(count)
        return count

    @staticmethod
    def _delete(files: Files) -> Callable[[bytes], Awaitable[None]]:
        return lambda id_: files.delete(place(id_))

    async def _count(self) -> None:
        now = time.monotonic()
        if now - self._total_at < TOTAL_S:
            return
        self._total_at = now
        total = await self._store.run(uploads.total) if self._counts() else uploads.Total(0, 0)
        _files.set(total.files)
        _bytes.set(total.bytes)


async def _each(ids: Iterable[bytes], act: Callable[[bytes], Awaitable[T]]) -> list[T]:
    """A few at a time, in their order."""
    few = asyncio.Semaphore(AT_ONCE)

    async def one(id_: bytes) -> T:
        async with few:
            return await act(id_)

    return await asyncio.gather(*map(one, ids))
