"""The schema: numbered SQL files, applied in order, forward only, once.

A file NNNN_words.sql runs in one transaction under an advisory lock and is recorded with its SHA-256; a released file
never changes. Two markers may stand on lines of their own at the top of a file:

    -- outside transaction      one statement that cannot run inside (create index concurrently). It may run twice, if
                                the process dies before it is recorded: write it so that this is harmless.
    -- oldest: N                from here on code that knows only migrations below N must not run any more

So a rolling upgrade has two numbers: `check` refuses where the schema is older than this code expects, and where
the schema no longer admits code as old as this one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from psycopg import Error

from storage.pool import StorageError, Timeouts, connect
from storage.rows import Connection, fetch_all, fetch_value
from storage.store import Store

FILES: Final = Path(__file__).parent / "migrations"
LOCK: Final = 0x5374656E746F72  # "Stentor": one process migrates at a time

_NAME: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_OLDEST: Final = re.compile(r"^-- oldest: (\d+)$", re.MULTILINE)
_OUTSIDE: Final = re.compile(r"^-- outside transaction$", re.MULTILINE)


class MigrationError(StorageError):
    """The schema cannot be brought up to date, or does not fit this release."""


class Migration(NamedTuple):
    """One file. `oldest` is 0 where it excludes nobody."""

    number: int
    name: str
    sql: bytes
    oldest: int
    is_outside: bool

    @property
    def sha256(self) -> bytes:
        """What is recorded."""
        return hashlib.sha256(self.sql).digest()


class Applied(NamedTuple):
    """One line of the record."""

    number: int
    name: str
    sha256: bytes
    oldest: int


async def migrate(url: str, directory: Path = FILES) -> list[str]:
    """Apply what is missing; returns the names of the files applied. Safe to run twice and at once.

    Raises MigrationError where a file has changed since it was applied or fails, psycopg.Error where the database is
    away.
    """
    files = read(directory)
    async with await connect(url, "migrate", Timeouts(statement_s=0, lock_s=0)) as conn:
        await conn.execute("select pg_advisory_lock(%s)", (LOCK,))
        await conn.execute(
            """
            create table if not exists migrations (number int primary key, name text not null, sha256 bytea not null,
                oldest int not null, applied_at timestamptz not null default now())
            """
        )
        recorded = await _recorded(conn)
        _require_unchanged(files, recorded)
        done = {row.number for row in recorded}
        pending = [file for file in files if file.number not in done]
        for file in pending:
            await _apply(conn, file)
        return [file.name for file in pending]


async def status(url: str, directory: Path = FILES) -> list[tuple[str, bool]]:
    """Each migration's name and whether it is applied; also those that only a newer release has."""
    files = read(directory)
    async with await connect(url, "migrate") as conn:
        recorded = await _recorded(conn)
    _require_unchanged(files, recorded)
    names = {file.number: file.name for file in files} | {row.number: row.name for row in recorded}
    done = {row.number for row in recorded}
    return [(names[number], number in done) for number in sorted(names)]


async def check(store: Store, directory: Path = FILES) -> None:
    """Raise MigrationError unless this code and the schema fit together."""
    expected = max(file.number for file in read(directory))
    recorded = await store.run(_recorded)
    if expected not in {row.number for row in recorded}:
        raise MigrationError(
            f"the schema is older than this release: migration {expected:04} is not applied", "Run: stentor db migrate"
        )
    oldest = max(row.oldest for row in recorded)
    if oldest > expected:
        raise MigrationError(
            f"the schema admits releases from migration {oldest:04} on, this one ends with {expected:04}",
            "Start a newer release",
        )


def read(directory: Path) -> list[Migration]:
    """The files in order. Raises MigrationError for a name or number that does not fit."""
    found: dict[int, Migration] = {}
    for path in sorted(directory.glob("*.sql")):
        file = parse(path.name, path.read_bytes())
        if file.number in found:
            raise MigrationError(f"{path.name} has the number of {found[file.number].name}", "Give it the next one")
        found[file.number] = file
    return list(found.values())


def parse(file_name: str, sql: bytes) -> Migration:
    """One file from its name and text. Raises MigrationError."""
    match = _NAME.fullmatch(file_name)
    if match is None:
        raise MigrationError(f"{file_name}: not a migration's name", "Call it NNNN_words.sql")
    text = sql.decode()
    oldest = _OLDEST.search(text)
    return Migration(
        int(match[1]), file_name.removesuffix(".sql"), sql, int(oldest[1]) if oldest else 0, bool(_OUTSIDE.search(text))
    )


async def _recorded(conn: Connection) -> list[Applied]:
    if await fetch_value(conn, "select to_regclass('migrations')") is None:
        return []
    return await fetch_all(conn, Applied, "select number, name, sha256, oldest from migrations order by number")


def _require_unchanged(files: Sequence[Migration], recorded: Sequence[Applied]) -> None:
    known = {file.number: file for file in files}
    for row in recorded:
        file = known.get(row.number)
        if file is not None and file.sha256 != row.sha256:
            raise MigrationError(
                f"migration {file.name} is not what was applied to this database (as {row.name})",
                "Restore the released file; changes go into a new one",
            )


async def _apply(conn: Connection, file: Migration) -> None:
    record = "insert into migrations (number, name, sha256, oldest) values (%s, %s, %s, %s)"
    values = (file.number, file.name, file.sha256, file.oldest)
    try:
        if file.is_outside:
            await conn.execute(file.sql)
            await conn.execute(record, values)
        else:
            async with conn.transaction():
                await conn.execute(file.sql)
                await conn.execute(record, values)
    except Error as error:
        remedy = "It may be half done" if file.is_outside else "Nothing of it was applied"
        raise MigrationError(f"migration {file.name}: {str(error).strip()}", remedy) from error
