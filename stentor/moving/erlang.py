"""Erlang terms as text, as Mnesia's dumps are written: atoms, numbers, binaries, strings, tuples, lists. Read only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from stentor.moving.cursor import Cursor

DEPTH: Final = 150
TERM_BYTES: Final = 64 * 1024 * 1024

Term = Any  # Atom, int, float, bytes, str, and tuples, lists and dicts of them


class Atom(str):
    """An atom, by its name."""

    __slots__ = ()


class ErlangError(ValueError):
    """This is no term. `line` is where, from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line


class Found(NamedTuple):
    """A term that has not been read yet: its text, the line it begins at, and the first atom in it, which is the
    table of a row."""

    line: int
    name: str
    text: bytes


_FIRST: Final = re.compile(rb"\s*\{\s*(?:'([^'\\]*)'|([a-z]\w*))")
_END: Final = re.compile(rb"[}\])\w\"'>]\.\s*$")


def split(lines: Iterable[bytes]) -> Iterator[Found]:
    """The terms of a file. Each ends with a full stop at the end of a line, and text never goes over the end of one.
    Raises ErlangError."""
    begun, size, parts = 0, 0, list[bytes]()
    for number, line in enumerate(lines, 1):
        if not parts:
            if not line.strip() or line.lstrip().startswith(b"%"):
                continue
            begun, size = number, 0
        parts.append(line)
        size += len(line)
        if size > TERM_BYTES:
            raise ErlangError(begun, f"a term is longer than {TERM_BYTES // 1024 // 1024} MiB")
        if _END.search(line) is not None:
            text = b"".join(parts)
            first = _FIRST.match(text)
            yield Found(begun, (first[1] or first[2]).decode("utf-8", "replace") if first is not None else "", text)
            parts = []
    if parts:
        raise ErlangError(begun, "the last term does not end: is the file complete?")


def read(found: Found) -> Term:
    """Read a term. Raises ErlangError."""
    reader = _Reader(found.text, found.line)
    term = reader.term(0)
    reader.expect(b".")
    if not reader.is_at_end():
        raise reader.error("there is something behind the term")
    return term


_SPACE: Final = re.compile(rb"(?:\s|%[^\n]*(?:\n|$))*")
_NUMBER: Final = re.compile(rb"[+-]?\d+(?:\.\d+(?:[eE][+-]?\d+)?|#[0-9a-zA-Z]+)?")
_ATOM: Final = re.compile(rb"[a-z][\w@]*")
_PLAIN: Final = {b'"'[0]: re.compile(rb'[^"\\]*'), b"'"[0]: re.compile(rb"[^'\\]*")}
_OCTAL: Final = re.compile(rb"[0-7]{1,3}")
_HEX: Final = re.compile(rb"x(?:\{([0-9a-fA-F]{1,6})\}|([0-9a-fA-F]{2}))")
_UTF8: Final = re.compile(rb"/\s*utf8\b")
_OPAQUE: Final = re.compile(rb"#(?:Fun|Ref|Port)?<[^<>\n]*>|<\d+\.\d+\.\d+>")
_ESCAPES: Final = {
    b"b": "\b", b"d": "\x7f", b"e": "\x1b", b"f": "\f", b"n": "\n", b"r": "\r", b"s": " ", b"t": "\t", b"v": "\v",
}  # fmt: skip


class _Reader(Cursor):
    def __init__(self, source: bytes, line: int) -> None:
        super().__init__(source, _SPACE, ErlangError, line)

    def term(self, depth: int) -> Term:
        if depth > DEPTH:
            raise self.error(f"terms are nested more than {DEPTH} deep")
        self._skip()
        source, at = self._source, self._at
        first = source[at : at + 1]
        if first == b"{":
            self._at += 1
            return tuple(self._sequence(b"}", depth))
        if first == b"[":
            self._at += 1
            return self._list(depth)
        if source[at : at + 2] == b"<<":
            self._at += 2
            return self._binary()
        if first == b'"':
            text = self._quoted()
            while self._peek() == b'"':
                text += self._quoted()
            return _text_of(text)
        if first == b"'":
            return Atom(_text_of(self._quoted()))
        if source[at : at + 2] == b"#{":
            self._at += 2
            return self._map(depth)
        if (number := _NUMBER.match(source, at)) is not None:
            self._at = number.end()
            return self._number(number[0].decode())
        if (atom := _ATOM.match(source, at)) is not None:
            self._at = atom.end()
            return Atom(atom[0].decode("utf-8", "replace"))
        if (opaque := _OPAQUE.match(source, at)) is not None:
            self._at = opaque.end()
            return Atom(opaque[0].decode("utf-8", "replace"))
        raise self.error("here is no term")

    def _peek(self) -> bytes:
        self._skip()
        return self._source[self._at : self._at + 1]

    def _sequence(self, end: bytes, depth: int) -> list[Term]:
        found: list[Term] = []
        if self.take(end):
            return found
        while True:
            found.append(self.term(depth + 1))
            if self.take(b","):
                continue
            self.expect(end)
            return found

    def _list(self, depth: int) -> list[Term]:
        found: list[Term] = []
        if self.take(b"]"):
            return found
        while True:
            found.append(self.term(depth + 1))
            if self.take(b","):
                continue
            if self.take(b"|"):
                found.append(self.term(depth + 1))
            self.expect(b"]")
            return found

    def _map(self, depth: int) -> dict[Term, Term]:
        found: dict[Term, Term] = {}
        if self.take(b"}"):
            return found
        while True:
            key = self.term(depth + 1)
            self.expect(b"=>")
            value = self.term(depth + 1)
            try:
                found[key] = value
            except TypeError:
                raise self.error("a list as a key of a map is not read") from None
            if self.take(b","):
                continue
            self.expect(b"}")
            return found

    def _binary(self) -> bytes:
        parts: list[bytes] = []
        if self.take(b">>"):
            return b""
        while True:
            if self._peek() == b'"':
                text = self._quoted()
                while self._peek() == b'"':
                    text += self._quoted()
                parts.append(self._encoded(text))
            else:
                number = self.term(DEPTH)
                if not isinstance(number, int) or not 0 <= number <= 255:
                    raise self.error("a byte is a number up to 255")
                parts.append(bytes([number]))
            if self.take(b","):
                continue
            self.expect(b">>")
            return b"".join(parts)

    def _encoded(self, text: str) -> bytes:
        found = _bytes_of(text)
        if (match := _UTF8.match(self._source, self._at)) is not None:
            self._at = match.end()
            return found if _is_utf8(found) else text.encode("utf-8", "surrogatepass")
        return found

    def _number(self, text: str) -> int | float:
        if len(text) > 400:
            raise self.error("a number is too long")
        try:
            if "#" in text:
                base, _, digits = text.partition("#")
                return int(digits, int(base))
            return float(text) if "." in text else int(text)
        except ValueError:
            raise self.error(f"{text} is no number") from None

    def _quoted(self) -> str:
        start, quote = self._at, self._source[self._at]
        self._at += 1
        parts: list[str] = []
        while True:
            plain = _PLAIN[quote].match(self._source, self._at)
            assert plain is not None
            parts.append(plain[0].decode("latin-1"))
            self._at = plain.end()
            sign = self._source[self._at : self._at + 1]
            if not sign:
                self._at = start
                raise self.error("a text does not end")
            self._at += 1
            if sign != b"\\":
                return "".join(parts)
            parts.append(self._escape())

    def _escape(self) -> str:
        source, at = self._source, self._at
        if (digits := _OCTAL.match(source, at)) is not None:
            self._at = digits.end()
            return chr(int(digits[0], 8))
        if (digits := _HEX.match(source, at)) is not None:
            self._at = digits.end()
            value = int(digits[1] or digits[2], 16)
            if value > 0x10FFFF:
                raise self.error("there is no such character")
            return chr(value)
        sign = source[at : at + 1]
        if not sign:
            raise self.error("a text does not end")
        self._at += 1
        return _ESCAPES.get(sign, sign.decode("latin-1"))


def _bytes_of(text: str) -> bytes:
    """What stands between quotes is written byte by byte, and only what is escaped can be a character beyond those."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        parts = (char.encode("latin-1") if char < "\u0100" else char.encode("utf-8", "surrogatepass") for char in text)
        return b"".join(parts)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text_of(text: str) -> str:
    found = _bytes_of(text)
    return found.decode() if _is_utf8(found) else text
