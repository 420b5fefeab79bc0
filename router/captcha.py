"""Questions to whoever registers, so that robots have some trouble (XEP-0158, 4, the field "qa"): which one is asked,
and whether an answer is right. Nothing is remembered: the challenge says which question it was and until when, and
proves that it is ours. No sockets, no clock."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from typing import Final

VALID_S: Final = 600
FIELD: Final = "qa"
CHALLENGE: Final = "challenge"

Questions = Sequence[tuple[str, frozenset[str]]]  # with the right answers, casefolded


def ask(questions: Questions, key: bytes, now: float) -> tuple[str, str]:
    """A challenge, and the question that belongs to it."""
    number = secrets.randbelow(len(questions))
    until = int(now) + VALID_S
    return f"{number}-{until}-{_proof(key, number, until)}", questions[number][0]


def is_right(questions: Questions, key: bytes, now: float, challenge: str, answer: str) -> bool:
    """Whether this answers the question of the challenge, in time."""
    try:
        number, until, proof = challenge.split("-")
        asked, valid_until = int(number), int(until)
    except ValueError:
        return False
    if not hmac.compare_digest(proof.encode(), _proof(key, asked, valid_until).encode()):
        return False
    return now <= valid_until and asked < len(questions) and answer.strip().casefold() in questions[asked][1]


def _proof(key: bytes, number: int, until: int) -> str:
    return hmac.digest(key, f"captcha {number} {until}".encode(), "sha256").hex()
