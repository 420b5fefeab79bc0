"""The migration runner against a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cluster.config import Database
from storage import migrate
from storage.migrate import MigrationError
from storage.rows import fetch_value, fetch_values
from storage.store import Store
from tests.support.database import asynchronous, connected


def write(directory: Path, **files: str) -> Path:
    for name, sql in files.items():
        (directory / f"{name.removeprefix('m')}.sql").write_text(sql)
    return directory


async def check(url: str, directory: Path) -> None:
    store = await Store.open(Database(url=url), "test")
    try:
        await migrate.check(store, directory)
    finally:
        await store.close()


@asynchronous
async def test_from_nothing_and_again(empty_database: str) -> None:
    names = [file.name for file in migrate.read(migrate.FILES)]
    assert await migrate.status(empty_database) == [(name, False) for name in names]
    assert await migrate.migrate(empty_database) == names
    assert await migrate.migrate(empty_database) == []
    assert await migrate.status(empty_database) == [(name, True) for name in names]
    await check(empty_database, migrate.FILES)
    async with connected(empty_database) as conn:
        assert await fetch_value(conn, "select count(*) from shards where owner is null and epoch = 0") == 1024


@asynchronous
async def test_two_at_once_apply_everything_once(empty_database: str) -> None:
    applied = await asyncio.gather(*(migrate.migrate(empty_database) for _ in range(3)))
    assert sorted(applied, key=len)[:2] == [[], []]
    assert sorted(map(len, applied))[2] == len(migrate.read(migrate.FILES))


@asynchronous
async def test_a_later_file_is_applied_alone(empty_database: str, tmp_path: Path) -> None:
    directory = write(tmp_path, m0001_one="create table one (a int)")
    assert await migrate.migrate(empty_database, directory) == ["0001_one"]
    write(directory, m0002_two="alter table one add b int; insert into one values (1, 2)")
    assert await migrate.status(empty_database, directory) == [("0001_one", True), ("0002_two", False)]
    assert await migrate.migrate(empty_database, directory) == ["0002_two"]


@asynchronous
async def test_a_changed_file_is_refused(empty_database: str, tmp_path: Path) -> None:
    directory = write(tmp_path, m0001_one="create table one (a int)")
    await migrate.migrate(empty_database, directory)
    write(directory, m0001_one="create table one (a int, b int)", m0002_two="create table two (a int)")
    for action in (migrate.migrate, migrate.status):
        with pytest.raises(MigrationError, match="0001_one is not what was applied"):
            await action(empty_database, directory)
    async with connected(empty_database) as conn:
        assert await fetch_value(conn, "select to_regclass('two')") is None


@asynchronous
async def test_a_failing_file_leaves_nothing_behind(empty_database: str, tmp_path: Path) -> None:
    directory = write(
        tmp_path, m0001_one="create table one (a int)", m0002_two="create table two (a int); select no_such_column"
    )
    with pytest.raises(MigrationError, match=r"0002_two: .*no_such_column"):
        await migrate.migrate(empty_database, directory)
    assert await migrate.status(empty_database, directory) == [("0001_one", True), ("0002_two", False)]
    async with connected(empty_database) as conn:
        assert await fetch_value(conn, "select to_regclass('two')") is None


@asynchronous
async def test_an_index_is_built_outside_a_transaction(empty_database: str, tmp_path: Path) -> None:
    directory = write(
        tmp_path,
        m0001_one="create table one (a int)",
        m0002_index="-- outside transaction\ncreate index concurrently if not exists one_a on one (a)",
    )
    assert await migrate.migrate(empty_database, directory) == ["0001_one", "0002_index"]
    async with connected(empty_database) as conn:
        assert await fetch_values(conn, "select indisvalid from pg_index where indexrelid = 'one_a'::regclass") == [
            True
        ]


@asynchronous
async def test_a_schema_that_is_too_old_is_refused(empty_database: str, tmp_path: Path) -> None:
    directory = write(tmp_path, m0001_one="create table one (a int)")
    with pytest.raises(MigrationError, match=r"0001 is not applied\. Run: stentor db migrate"):
        await check(empty_database, directory)
    await migrate.migrate(empty_database, directory)
    write(directory, m0002_two="create table two (a int)")
    with pytest.raises(MigrationError, match="0002 is not applied"):
        await check(empty_database, directory)


@asynchronous
async def test_a_newer_schema_is_used_until_it_excludes_this_release(empty_database: str, tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    for directory in (old, new):
        directory.mkdir()
        write(directory, m0001_one="create table one (a int)")
    write(new, m0002_two="-- adds\ncreate table two (a int)")
    await migrate.migrate(empty_database, new)
    await check(empty_database, old)
    assert await migrate.migrate(empty_database, old) == []
    assert await migrate.status(empty_database, old) == [("0001_one", True), ("0002_two", True)]
    write(new, m0003_contract="-- oldest: 2\nalter table one drop a")
    await migrate.migrate(empty_database, new)
    await check(empty_database, new)
    with pytest.raises(MigrationError, match=r"releases from migration 0002 on.* Start a newer release"):
        await check(empty_database, old)
