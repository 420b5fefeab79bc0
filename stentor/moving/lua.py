"""The part of Lua that Prosody writes its data in: constants and tables of them. Nothing is ever run.

A `.dat` file is `return VALUE;`, a `.list` file `item(VALUE);` over and over. Text is decoded as UTF-8; bytes that are
not are kept as lone surrogates (`surrogateescape`), as in salts.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from stentor.moving.cursor import Cursor

DEPTH: Final = 150  # Prosody itself stops at 127

Key = str | int | float | bool


@dataclass(slots=True)
class Table:
    """`items` are the values without a key, in order; `fields` those with one."""

    items: list[Value] = field(default_factory=list)
    fields: dict[Key, Value] = field(default_factory=dict)

    def text(self, key: Key) -> str:
        """A text; "" where there is none of this key, or something else."""
        value = self.fields.get(key)
        return value if isinstance(value, str) else ""

    def table(self, key: Key) -> Table:
        """A table; an empty one where there is none of this key."""
        value = self.fields.get(key)
        return value if isinstance(value, Table) else Table()

    def number(self, key: Key) -> int | float | None:
        """A number; None where there is none of this key."""
        value = self.fields.get(key)
        return None if isinstance(value, bool) or not isinstance(value, int | float) else value


Value = str | int | float | bool | None | Table


class LuaError(ValueError):
    """This is not what Prosody writes. `line` is where, from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line


_SPACE: Final = re.compile(rb"(?:\s|--(?!\[\[)[^\n]*(?:\n|$))*")
_NUMBER: Final = re.compile(rb"-?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")
_WORD: Final = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN: Final = {b'"'[0]: re.compile(rb'[^"\\]*'), b"'"[0]: re.compile(rb"[^'\\]*")}
_DECIMAL: Final = re.compile(rb"\d{1,3}")
_HEX: Final = re.compile(rb"x[0-9a-fA-F]{2}")
_LONG: Final = re.compile(rb"\[(=*)\[\r?\n?")
_ESCAPES: Final = {
    b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v", b"\\": b"\\",
    b'"': b'"', b"'": b"'", b"\n": b"\n",
}  # fmt: skip
_WORDS: Final[dict[bytes, Value]] = {b"true": True, b"false": False, b"nil": None}


def read_value(source: bytes | mmap.mmap) -> Value:
    """The value of a `.dat` file. Raises LuaError."""
    reader = _Reader(source)
    reader.word(b"return")
    value = reader.value(0)
    reader.take(b";")
    if not reader.is_at_end():
        raise reader.error("there is something behind the value")
    return value


def read_items(source: bytes | mmap.mmap) -> Iterator[Value]:
    """The values of a `.list` file, one after the other. Raises LuaError; what came before it was right."""
    reader = _Reader(source)
    while not reader.is_at_end():
        reader.word(b"item")
        reader.expect(b"(")
        value = reader.value(0)
        reader.expect(b")")
        reader.take(b";")
        yield value


class _Reader(Cursor):
    def __init__(self, source: bytes | mmap.mmap) -> None:
        super().__init__(source, _SPACE, LuaError)

    def word(self, wanted: bytes) -> None:
        self._skip()
        match = _WORD.match(self._source, self._at)
        if match is None or match[0] != wanted:
            raise self.error(f"{wanted.decode()!r} is missing: is this a file of Prosody's storage?")
        self._at = match.end()

    def value(self, depth: int) -> Value:
        if depth > DEPTH:
            raise self.error(f"tables are nested more than {DEPTH} deep")
        self._skip()
        first = self._source[self._at : self._at + 1]
        if first == b"{":
            return self._table(depth)
        if first in (b'"', b"'"):
            return self._string()
        if first == b"[":
            return self._long_string()
        if (number := _NUMBER.match(self._source, self._at)) is not None:
            self._at = number.end()
            return self._number(number[0])
        word = _WORD.match(self._source, self._at)
        if word is not None and word[0] in _WORDS:
            self._at = word.end()
            return _WORDS[word[0]]
        raise self.error("here is no constant and no table; other Lua is not run")

    def _number(self, digits: bytes) -> int | float:
        text = digits.decode()
        if len(text) > 400:
            raise self.error("a number is too long")
        if "x" in text or "X" in text:
            return int(text, 16)
        return int(text) if text.lstrip("-").isdigit() else float(text)

    def _string(self) -> str:
        start, quote = self._at, self._source[self._at]
        self._at += 1
        parts: list[bytes] = []
        while True:
            plain = _PLAIN[quote].match(self._source, self._at)
            assert plain is not None
            parts.append(plain[0])
            self._at = plain.end()
            sign = self._source[self._at : self._at + 1]
            if not sign:
                self._at = start
                raise self.error("a string does not end")
            self._at += 1
            if sign != b"\\":
                return b"".join(parts).decode("utf-8", "surrogateescape")
            parts.append(self._escape())

    def _escape(self) -> bytes:
        source, at = self._source, self._at
        if (digits := _DECIMAL.match(source, at)) is not None:
            if int(digits[0]) > 255:
                raise self.error("an escaped byte is above 255")
            self._at = digits.end()
            return bytes([int(digits[0])])
        if (digits := _HEX.match(source, at)) is not None:
            self._at = digits.end()
            return bytes([int(digits[0][1:], 16)])
        sign = source[at : at + 1]
        if sign not in _ESCAPES:
            raise self.error("an escape that is not known")
        self._at += 1
        return _ESCAPES[sign]

    def _long_string(self) -> str:
        opening = _LONG.match(self._source, self._at)
        if opening is None:
            raise self.error("here is no constant and no table")
        closing = b"]" + opening[1] + b"]"
        end = self._source.find(closing, opening.end())
        if end < 0:
            raise self.error("a string does not end")
        self._at = end + len(closing)
        return self._source[opening.end() : end].decode("utf-8", "surrogateescape")

    def _table(self, depth: int) -> Table:
        self._at += 1
        table = Table()
        while not self.take(b"}"):
            self._field(table, depth)
            if not self.take(b";") and not self.take(b","):
                self.expect(b"}")
                break
        return table

    def _field(self, table: Table, depth: int) -> None:
        self._skip()
        source = self._source
        if source[self._at : self._at + 1] == b"[" and _LONG.match(source, self._at) is None:
            self._at += 1
            key = self.value(depth + 1)
            self.expect(b"]")
            self.expect(b"=")
            if key is None or isinstance(key, Table):
                raise self.error("this is no key of a table")
            self._put(table, key, self.value(depth + 1))
            return
        word = _WORD.match(source, self._at)
        if word is not None and word[0] not in _WORDS:
            self._at = word.end()
            self.expect(b"=")
            self._put(table, word[0].decode(), self.value(depth + 1))
            return
        table.items.append(self.value(depth + 1))

    def _put(self, table: Table, key: Key, value: Value) -> None:
        if isinstance(key, int) and not isinstance(key, bool) and key == len(table.items) + 1:
            table.items.append(value)  # [1] = is the first item
        else:
            # In Lua false is another key than 0, true another than 1; in Python neither is.
            table.fields[_BOOLEANS[key] if isinstance(key, bool) else key] = value


_BOOLEANS: Final = {False: "\0false", True: "\0true"}
FALSE: Final = _BOOLEANS[False]  # the key `false`, under which Prosody keeps what is about the whole table
