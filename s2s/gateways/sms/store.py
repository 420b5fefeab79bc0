"""Transactions on the SQLite file, in a thread of their own: the event loop waits for no disk.

What comes while a transaction runs is committed together in the next one. A commit is on the disk (synchronous=FULL).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from s2s.gateways.sms.book import Book

T = TypeVar("T")
Work = Callable[[Book], Any]

BUSY_S: Final = 1.0  # another process may be about to let the file go


class StoreError(Exception):
    """SQLite has failed; the text is its own."""


class StoreClosed(StoreError):
    """The process ends."""


class Store:
    """The file; `open` before and `close` after."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1, "store")
        self._pending: list[tuple[Work, asyncio.Future[Any]]] = []
        self._pump: asyncio.Task[None] | None = None
        self._db: sqlite3.Connection | None = None
        self._is_closed = True

    async def open(self) -> None:
        """Open or make the file; raises StoreError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        self._is_closed = False

    def _open(self) -> None:
        try:
            db = sqlite3.connect(self._file, timeout=BUSY_S, isolation_level=None)
            db.execute("PRAGMA locking_mode = EXCLUSIVE")  # a second gateway on this file would send everything twice
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            db.execute("COMMIT")
            Book(db).prepare()
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(str(error)) from None
        self._db = db

    async def close(self) -> None:
        """End what runs, and close the file."""
        self._is_closed = True
        if self._pump is not None:
            await self._pump
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    async def do(self, work: Callable[[Book], T]) -> T:
        """Run `work` in a transaction of its own, in the order of the calls; its result, once it is committed.

        Raises StoreError; whatever else `work` raises is raised here, and what it wrote is undone.
        """
        if self._is_closed:
            raise StoreClosed("the store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append((work, future))
        if self._pump is None:
            self._pump = asyncio.create_task(self._run(), name="store")
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._pending:
            batch, self._pending = self._pending, []
            results = await loop.run_in_executor(self._thread, self._transaction, [work for work, _ in batch])
            for (_, future), (result, error) in zip(batch, results, strict=True):
                if future.done():
                    continue  # nobody waits any more
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(result)
        self._pump = None

    def _transaction(self, works: list[Work]) -> list[tuple[Any, BaseException | None]]:
        results: list[tuple[Any, BaseException | None]] = []
        db = self._db
        assert db is not None
        try:
            db.execute("BEGIN IMMEDIATE")
            for work in works:
                db.execute("SAVEPOINT work")
                try:
                    results.append((work(Book(db)), None))
                except sqlite3.Error:
                    raise
                except Exception as error:
                    results.append((None, error))
                    db.execute("ROLLBACK TO work")
                db.execute("RELEASE work")
            db.execute("COMMIT")
        except sqlite3.Error as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            return [(None, StoreError(str(error)))] * len(works)
        return results
