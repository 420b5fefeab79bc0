"""A real PostgreSQL for the whole run, and a fresh database with the schema for each test. A pytest plugin."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, Final, ParamSpec

import psycopg
import pytest
from psycopg import AsyncConnection

from storage import migrate
from storage.embedded import EmbeddedPostgres
from storage.pool import connect
from tests.support.cluster import FACTOR

P = ParamSpec("P")

TEST_S: Final = 30.0
TEMPLATE: Final = "schema"

_numbers = itertools.count(1)


def asynchronous(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run a coroutine function as a test, with a deadline."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def body() -> None:
            async with asyncio.timeout(TEST_S * FACTOR):
                await test(*args, **kwargs)

        asyncio.run(body())

    return run


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """Poll until `condition`; fails the test after `seconds`."""
    try:
        async with asyncio.timeout(seconds * FACTOR):
            while True:
                if await condition():
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"after {seconds * FACTOR:.0f} s still not so: {what}")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AsyncConnection[Any]]:
    """One connection, as the server's processes have it."""
    async with await connect(url, "test") as conn:
        yield conn


def with_database(url: str, name: str) -> str:
    """The same server, another database."""
    return f"{url.rpartition('/')[0]}/{name}"


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server's first database; the server ends with the run."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
    url = asyncio.run(server.start())
    yield url
    asyncio.run(server.stop())


@pytest.fixture(scope="session")
def template(postgres: str) -> str:
    """The name of a database that has the schema and nothing else."""
    with psycopg.connect(postgres, autocommit=True) as conn:
        conn.execute(f"create database {TEMPLATE}")
    asyncio.run(migrate.migrate(with_database(postgres, TEMPLATE)))
    return TEMPLATE


@pytest.fixture
def empty_database(postgres: str) -> Iterator[str]:
    """The URL of a database of this test alone, without the schema."""
    yield from _new_database(postgres, "template1")


@pytest.fixture
def database(postgres: str, template: str) -> Iterator[str]:
    """The URL of a database of this test alone, with the schema."""
    yield from _new_database(postgres, template)


def _new_database(postgres: str, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres, autocommit=True) as conn:
        conn.execute(f"create database {name} template {template}")
        yield with_database(postgres, name)
        conn.execute(f"drop database {name} with (force)")
