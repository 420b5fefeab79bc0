"""What becomes of a thing that is to be imported."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

IMPORTED: Final = "imported"
THERE: Final = "there"
LEFT_OUT: Final = "left_out"

Thing = dict[str, Any]  # as docs/admin-api.md lists them; `checking.py` has looked at it


class Result(NamedTuple):
    """`note` says why it was left out, or what of it was."""

    status: str
    note: str = ""


DONE: Final = Result(IMPORTED)
KNOWN: Final = Result(THERE)


def left_out(why: str) -> Result:
    """It does not come along."""
    return Result(LEFT_OUT, why)
