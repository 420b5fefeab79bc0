"""Transactions: in their order, whole or not at all, and one process for a file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from s2s.gateways.sms.book import VERSION, Book
from s2s.gateways.sms.store import Store, StoreError


def with_store(file: Path, body: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        store = Store(file)
        await store.open()
        try:
            await body(store)
        finally:
            await store.close()

    asyncio.run(run())


def test_what_is_written_is_there_after_opening_again(tmp_path: Path) -> None:
    async def write(store: Store) -> None:
        await store.do(lambda book: book.register("juliet@example.org", None))

    async def read(store: Store) -> None:
        assert await store.do(Book.registered) == ["juliet@example.org"]
        assert await store.do(Book.sessions) == []

    with_store(tmp_path / "s", write)
    with_store(tmp_path / "s", read)


def test_they_run_in_the_order_of_the_calls(tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        numbers = await asyncio.gather(*(store.do(Book.begin_bind) for _ in range(200)))
        assert numbers == list(range(1, 201))

    with_store(tmp_path / "s", body)


def test_what_fails_is_undone_alone(tmp_path: Path) -> None:
    def breaks(book: Book) -> None:
        book.register("romeo@example.org", None)
        raise KeyError("bug")

    async def body(store: Store) -> None:
        results = await asyncio.gather(
            store.do(lambda book: book.register("juliet@example.org", None)),
            store.do(breaks),
            store.do(lambda book: book.register("nurse@example.org", None)),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [type(None), KeyError, type(None)]
        assert await store.do(Book.registered) == ["juliet@example.org", "nurse@example.org"]

    with_store(tmp_path / "s", body)


def test_what_sqlite_refuses_is_a_store_error(tmp_path: Path) -> None:
    def refused(book: Book) -> None:
        book.register("juliet@example.org", "+49301")
        book.register("romeo@example.org", "+49301")

    async def body(store: Store) -> None:
        with pytest.raises(StoreError, match="UNIQUE"):
            await store.do(refused)
        assert await store.do(Book.registered) == []

    with_store(tmp_path / "s", body)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        second = Store(tmp_path / "s")
        with pytest.raises(StoreError, match="locked"):
            await second.open()
        await second.close()

    with_store(tmp_path / "s", body)


def test_a_file_of_another_version_or_place_is_refused(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "newer")
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    (tmp_path / "text").write_text("this is no database, however long one looks at it" * 100)
    for name in ("newer", "text", "nowhere/s"):
        with pytest.raises(StoreError):
            with_store(tmp_path / name, lambda store: asyncio.sleep(0))


def test_a_closed_store_ends_what_runs_and_takes_nothing_more(tmp_path: Path) -> None:
    async def run() -> None:
        store = Store(tmp_path / "s")
        await store.open()
        last = asyncio.create_task(store.do(Book.begin_bind))
        await asyncio.sleep(0)
        await store.close()
        assert await last == 1
        with pytest.raises(StoreError, match="closed"):
            await store.do(Book.registered)

    asyncio.run(run())
