"""How repositories read: one statement, typed rows. The SQL stays where the table's functions are."""

from __future__ import annotations

from typing import Any, LiteralString, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import class_row, scalar_row

Connection = AsyncConnection[Any]
T = TypeVar("T")


async def fetch_all(conn: Connection, row: type[T], sql: LiteralString, *values: object) -> list[T]:
    """Every row, as `row` made from the columns by name."""
    async with conn.cursor(row_factory=class_row(row)) as cursor:
        await cursor.execute(sql, values)
        return await cursor.fetchall()


async def fetch_one(conn: Connection, row: type[T], sql: LiteralString, *values: object) -> T | None:
    """The first row, None where there is none."""
    async with conn.cursor(row_factory=class_row(row)) as cursor:
        await cursor.execute(sql, values)
        return await cursor.fetchone()


async def fetch_values(conn: Connection, sql: LiteralString, *values: object) -> list[Any]:
    """The first column of every row."""
    async with conn.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(sql, values)
        return await cursor.fetchall()


async def fetch_value(conn: Connection, sql: LiteralString, *values: object) -> Any:
    """The first column of the first row, None where there is none."""
    async with conn.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(sql, values)
        return await cursor.fetchone()
