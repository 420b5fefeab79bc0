"""Answers that are kept and shared (s2s/lookups.py)."""

from __future__ import annotations

import asyncio

import pytest

from s2s.lookups import Lookups


class Question:
    """Counts how often it is asked; answers when it may."""

    def __init__(self, keep_s: float = 10.0) -> None:
        self.asked = 0
        self.keep_s = keep_s
        self.may_answer = asyncio.Event()

    async def ask(self) -> tuple[int, float]:
        self.asked += 1
        await self.may_answer.wait()
        return self.asked, self.keep_s


class Now:
    def __init__(self) -> None:
        self.value = 100.0

    def __call__(self) -> float:
        return self.value


def test_an_answer_is_kept_for_its_time() -> None:
    async def test() -> None:
        now, question = Now(), Question()
        question.may_answer.set()
        lookups: Lookups[str, int] = Lookups(now, 10)
        assert await lookups.get("a", question.ask) == 1
        now.value += 9.9
        assert await lookups.get("a", question.ask) == 1
        now.value += 0.1
        assert await lookups.get("a", question.ask) == 2
        lookups.forget()
        assert await lookups.get("a", question.ask) == 3

    asyncio.run(test())


def test_what_may_not_be_kept_is_asked_again() -> None:
    async def test() -> None:
        question = Question(keep_s=0)
        question.may_answer.set()
        lookups: Lookups[str, int] = Lookups(Now(), 10)
        assert [await lookups.get("a", question.ask) for _ in range(2)] == [1, 2]
        assert len(lookups) == 0

    asyncio.run(test())


def test_those_asked_for_longest_ago_go_first() -> None:
    async def test() -> None:
        question = Question()
        question.may_answer.set()
        lookups: Lookups[str, int] = Lookups(Now(), 2)
        for key in "ab":
            await lookups.get(key, question.ask)
        await lookups.get("a", question.ask)  # a hit: now "b" is the older
        await lookups.get("c", question.ask)
        assert len(lookups) == 2
        assert await lookups.get("a", question.ask) == 1
        assert await lookups.get("b", question.ask) == 4

    asyncio.run(test())


def test_one_question_serves_all_who_wait_even_if_the_first_leaves() -> None:
    async def test() -> None:
        question = Question()
        lookups: Lookups[str, int] = Lookups(Now(), 10)
        first, second, third = (asyncio.create_task(lookups.get("a", question.ask)) for _ in range(3))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        question.may_answer.set()
        assert list(await asyncio.gather(second, third)) == [1, 1]
        assert question.asked == 1

    asyncio.run(test())


def test_a_failure_is_everybodys_and_is_not_kept() -> None:
    async def test() -> None:
        asked = 0

        async def fail() -> tuple[int, float]:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0)
            raise OSError("no")

        lookups: Lookups[str, int] = Lookups(Now(), 10)
        results = await asyncio.gather(*(lookups.get("a", fail) for _ in range(2)), return_exceptions=True)
        assert [type(result) for result in results] == [OSError, OSError]
        assert asked == 1
        with pytest.raises(OSError, match="no"):
            await lookups.get("a", fail)
        assert asked == 2

    asyncio.run(test())


def test_closing_cancels_what_is_out() -> None:
    async def test() -> None:
        lookups: Lookups[str, int] = Lookups(Now(), 10)
        waiter = asyncio.create_task(lookups.get("a", Question().ask))
        await asyncio.sleep(0)
        await lookups.close()
        with pytest.raises(asyncio.CancelledError):
            await waiter

    asyncio.run(test())
