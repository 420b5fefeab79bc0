"""Answers that are asked for once, kept for a while, and shared by all who ask at the same time.

Below the resolver (`s2s/dns.py`) and POSH (`s2s/posh.py`). A failure that may be remembered is an answer like any
other: say so in the type of the answer.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")


class Lookups(Generic[Key, Answer]):
    """A bounded memory in front of a question that takes time."""

    def __init__(self, monotonic: Callable[[], float], most: int) -> None:
        """Keep at most `most` answers; those not asked for longest go first."""
        self._monotonic = monotonic
        self._most = most
        self._kept: OrderedDict[Key, tuple[float, Answer]] = OrderedDict()
        self._running: dict[Key, asyncio.Task[Answer]] = {}

    async def get(self, key: Key, ask: Callable[[], Coroutine[Any, Any, tuple[Answer, float]]]) -> Answer:
        """The answer kept under this key; else that of `ask`, which also says for how many seconds it may be kept.

        Whoever asks while the question is out waits for the same answer; a waiter that is cancelled takes nothing
        from the others. What `ask` raises, all of them get, and nothing is kept.
        """
        if (kept := self._kept.get(key)) is not None:
            until, answer = kept
            if self._monotonic() < until:
                self._kept.move_to_end(key)
                return answer
            del self._kept[key]
        task = self._running.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._run(key, ask))
            self._running[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        return await asyncio.shield(task)

    def __len__(self) -> int:
        """How many answers are kept."""
        return len(self._kept)

    def forget(self) -> None:
        """Keep nothing of what was answered so far."""
        self._kept.clear()

    async def close(self) -> None:
        """Give up what is out; who waits for it is cancelled."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _run(self, key: Key, ask: Callable[[], Coroutine[Any, Any, tuple[Answer, float]]]) -> Answer:
        answer, keep_s = await ask()
        if keep_s > 0:
            self._kept[key] = (self._monotonic() + keep_s, answer)
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return answer

    def _finished(self, key: Key, task: asyncio.Task[Answer]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # everybody who asked may have been cancelled: then nobody else looks at it
