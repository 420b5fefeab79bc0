"""Reads that share one statement (storage/gathering.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import pytest

from storage.gathering import MOST, Gathering


class Table:
    """Values, and which keys were read together. A read waits for `gate`."""

    def __init__(self) -> None:
        self.values = {str(number): number for number in range(1_200)}
        self.reads: list[list[str]] = []
        self.problems: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.gathering = Gathering(self._read)

    async def _read(self, keys: Sequence[str]) -> Mapping[str, int]:
        self.reads.append(list(keys))
        found = {key: self.values[key] for key in keys if key in self.values}
        await self.gate.wait()
        if self.problems:
            raise self.problems.pop()
        return found

    def ask(self, key: str) -> asyncio.Task[int | None]:
        return asyncio.get_running_loop().create_task(self.gathering.get(key))

    async def until_reads(self, count: int) -> None:
        while len(self.reads) < count:  # noqa: ASYNC110  # the test ends it
            await asyncio.sleep(0)


def played(conversation: Callable[[Table], Awaitable[None]]) -> None:
    async def run() -> None:
        await conversation(Table())

    asyncio.run(run())


def test_who_asks_at_once_shares_a_read() -> None:
    async def conversation(table: Table) -> None:
        assert await asyncio.gather(*map(table.ask, ("1", "2", "1", "nobody"))) == [1, 2, 1, None]
        assert table.reads == [["1", "2", "nobody"]]
        assert await table.gathering.get("3") == 3
        assert table.reads[1:] == [["3"]]

    played(conversation)


def test_nobody_shares_a_read_that_has_begun() -> None:
    """What it finds may be older than the question."""

    async def conversation(table: Table) -> None:
        table.gate.clear()
        first = table.ask("1")
        await table.until_reads(1)
        table.values["1"] = 100
        later = [table.ask("1"), table.ask("2")]
        await asyncio.sleep(0)
        table.gate.set()
        assert (await first, await asyncio.gather(*later)) == (1, [100, 2])
        assert table.reads == [["1"], ["1", "2"]]

    played(conversation)


def test_what_goes_wrong_is_for_those_who_have_asked() -> None:
    async def conversation(table: Table) -> None:
        table.problems.append(OSError("away"))
        for asked in (table.ask("1"), table.ask("2")):
            with pytest.raises(OSError, match="away"):
                await asked
        assert await table.gathering.get("1") == 1

    played(conversation)


def test_who_does_not_wait_any_more_holds_nobody_up() -> None:
    async def conversation(table: Table) -> None:
        table.gate.clear()
        gone, other = table.ask("1"), table.ask("1")
        await table.until_reads(1)
        gone.cancel()
        table.gate.set()
        assert await other == 1
        assert gone.cancelled() or gone.cancelling()

    played(conversation)


def test_a_read_has_its_limit() -> None:
    async def conversation(table: Table) -> None:
        keys = [str(number) for number in range(2 * MOST + 1)]
        assert await asyncio.gather(*map(table.ask, keys)) == [int(key) for key in keys]
        assert [len(read) for read in table.reads] == [MOST, MOST, 1]

    played(conversation)
