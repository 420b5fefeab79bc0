"""A place in a text that is read from its beginning to its end: what the readers of Lua and Erlang share."""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable


class Cursor:
    """`space` matches what lies between two words, maybe nothing; `fault` makes an error of a line and a problem."""

    def __init__(
        self, source: bytes | mmap.mmap, space: re.Pattern[bytes], fault: Callable[[int, str], ValueError],
        first_line: int = 1,
    ) -> None:  # fmt: skip
        self._source = source
        self._space = space
        self._fault = fault
        self._first_line = first_line
        self._at = 0

    def error(self, problem: str) -> ValueError:
        """What is wrong at this place."""
        return self._fault(self._first_line + self._source[: self._at].count(b"\n"), problem)

    def is_at_end(self) -> bool:
        """Whether nothing follows."""
        self._skip()
        return self._at >= len(self._source)

    def take(self, sign: bytes) -> bool:
        """Whether this follows; then it is behind us."""
        self._skip()
        if self._source[self._at : self._at + len(sign)] != sign:
            return False
        self._at += len(sign)
        return True

    def expect(self, sign: bytes) -> None:
        """The same where it must."""
        if not self.take(sign):
            raise self.error(f"{sign.decode()!r} is missing")

    def _skip(self) -> None:
        match = self._space.match(self._source, self._at)
        assert match is not None  # it matches nothing, too
        self._at = match.end()
