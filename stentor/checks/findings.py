"""One line of a check: how it is, which step it is about, what was found, what to do."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """How it is."""

    OK = "ok"
    WARN = "warn"  # it works, but not for everybody, or not for long
    FAIL = "fail"


class Finding(NamedTuple):
    """What was found."""

    level: Level
    step: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.level:<5} {self.step:<12} {self.text}{f'. {self.remedy}' if self.remedy else ''}"
        # Some of it comes from other servers: no control characters for the terminal, and one line.
        return "".join(character if character.isprintable() else "?" for character in line)


def ok(step: str, text: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, step, text)


def warn(step: str, text: str, remedy: str = "") -> Finding:
    """Somebody may want to look at it."""
    return Finding(Level.WARN, step, text, remedy)


def fail(step: str, text: str, remedy: str) -> Finding:
    """It does not work: the cause, and what to do."""
    return Finding(Level.FAIL, step, text, remedy)
