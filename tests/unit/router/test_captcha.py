"""Questions to whoever registers (router/captcha.py; XEP-0158, 4)."""

from __future__ import annotations

import pytest

from router import captcha

QUESTIONS = (("Who?", frozenset({"romeo"})), ("Where?", frozenset({"verona", "verona, italy"})))
KEY = b"key"
NOW = 1_800_000_000.0


def challenges() -> dict[str, str]:
    """A challenge for each question."""
    found: dict[str, str] = {}
    while len(found) < len(QUESTIONS):
        challenge, question = captcha.ask(QUESTIONS, KEY, NOW)
        found[question] = challenge
    return found


@pytest.mark.parametrize("answer", ["verona", " Verona ", "VERONA, Italy"])
def test_a_right_answer_is_right_however_it_is_written(answer: str) -> None:
    assert captcha.is_right(QUESTIONS, KEY, NOW, challenges()["Where?"], answer)


@pytest.mark.parametrize("answer", ["", "romeo", "Mantua"])
def test_an_answer_belongs_to_its_question(answer: str) -> None:
    assert not captcha.is_right(QUESTIONS, KEY, NOW, challenges()["Where?"], answer)


def test_a_challenge_is_good_for_a_while_and_only_if_it_is_ours() -> None:
    challenge = challenges()["Who?"]
    assert captcha.is_right(QUESTIONS, KEY, NOW + captcha.VALID_S, challenge, "romeo")
    assert not captcha.is_right(QUESTIONS, KEY, NOW + captcha.VALID_S + 1, challenge, "romeo")
    assert not captcha.is_right(QUESTIONS, b"other", NOW, challenge, "romeo")
    number, until, proof = challenge.split("-")
    assert not captcha.is_right(QUESTIONS, KEY, NOW, f"{number}-{int(until) + 1}-{proof}", "romeo")
    assert not captcha.is_right(QUESTIONS, KEY, NOW, f"1-{until}-{proof}", "verona")
    assert not captcha.is_right(QUESTIONS[:0], KEY, NOW, challenge, "romeo"), "the questions have changed"


@pytest.mark.parametrize("challenge", ["", "-", "a-b-c", "0-1", "0-1-2-3", "0-1-é"])
def test_what_is_no_challenge_is_answered_by_nothing(challenge: str) -> None:
    assert not captcha.is_right(QUESTIONS, KEY, NOW, challenge, "romeo")
