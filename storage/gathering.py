"""One read for all who ask at about the same time: a statement for a thousand accounts costs little more than for one.

Under load whoever asks while a read is under way, or so soon after the last one, shares the next. Nobody shares one
that has begun already: what is read is never older than the question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

APART_S: Final = 0.002  # two reads begin at least so far apart
MOST: Final = 500  # keys of one read


class Gathering(Generic[K, V]):
    """Reads values by key. `read` is given each key once; what it leaves out there is none of. What it raises, all get
    who have asked."""

    def __init__(self, read: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._read = read
        self._asked: dict[K, list[asyncio.Future[V | None]]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._began_at = 0.0

    async def get(self, key: K) -> V | None:
        """The value as it is now."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[V | None] = loop.create_future()
        self._asked.setdefault(key, []).append(future)
        if self._reading is None:
            self._reading = loop.create_task(self._read_all())
        return await future

    async def _read_all(self) -> None:
        time = asyncio.get_running_loop().time
        try:
            while self._asked:
                await asyncio.sleep(max(0.0, self._began_at + APART_S - time()))
                self._began_at = time()
                keys = list(self._asked)[:MOST]
                await self._answer({key: self._asked.pop(key) for key in keys})
        finally:
            self._reading = None

    async def _answer(self, asked: Mapping[K, list[asyncio.Future[V | None]]]) -> None:
        try:
            found = await self._read(list(asked))
        except Exception as problem:
            for future in _waiting(asked):
                future.set_exception(problem)
        else:
            for key, futures in asked.items():
                for future in futures:
                    if not future.done():
                        future.set_result(found.get(key))


def _waiting(asked: Mapping[K, list[asyncio.Future[V | None]]]) -> list[asyncio.Future[V | None]]:
    return [future for futures in asked.values() for future in futures if not future.done()]
