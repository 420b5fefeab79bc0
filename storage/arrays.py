"""Arrays for PostgreSQL in its binary format, made in one go: the driver's own way costs up to twice as much for each
element, and the log sends a dozen arrays with every batch (docs/decisions/0007-arrays-in-binary.md).

The format (array_send in PostgreSQL): dimensions, has-null flag, element type, then length and lower bound of each
dimension, then each element behind its length in bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat
from struct import Struct, pack
from typing import Final

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

_HEADER: Final = Struct(">iiIii")
_LENGTH: Final = Struct(">i")


class Array:
    """Elements of one type, none of them null. Use a subclass, and `%b` in the statement."""

    __slots__ = ("elements",)

    oid = 0  # of the array's type
    element_oid = 0
    width = 0  # bytes of an element, 0 where that varies
    code = ""  # of `struct`

    def __init__(self, elements: Sequence[object]) -> None:
        self.elements = elements

    def to_bytes(self) -> bytes:
        """The array as the server reads it."""
        elements = self.elements
        count = len(elements)
        if not count:
            return pack(">iiI", 0, 0, self.element_oid)
        head = _HEADER.pack(1, 0, self.element_oid, count, 1)
        if self.width:
            return head + pack(
                f">{('i' + self.code) * count}", *chain(*zip(repeat(self.width), elements, strict=False))
            )
        parts = self._bytes()
        return head + b"".join(chain.from_iterable(zip(map(_LENGTH.pack, map(len, parts)), parts, strict=True)))

    def _bytes(self) -> Sequence[bytes]:
        return self.elements  # type: ignore[return-value]  # a subclass says what it holds


class Int4(Array):
    """int4[]"""

    __slots__ = ()
    oid, element_oid, width, code = 1007, 23, 4, "i"


class Int8(Array):
    """int8[]"""

    __slots__ = ()
    oid, element_oid, width, code = 1016, 20, 8, "q"


class Int8Records(Array):
    """int8[] that holds records of equally many numbers, one after the other. `elements` are the records as a Struct of
    `record_format` packs them: the length of a number, which is 8, before each."""

    __slots__ = ("numbers",)
    oid, element_oid = 1016, 20

    def __init__(self, records: Sequence[bytes], numbers: int) -> None:
        super().__init__(records)
        self.numbers = numbers  # in each record

    def to_bytes(self) -> bytes:
        """The array as the server reads it."""
        if not self.elements:
            return super().to_bytes()
        count = self.numbers * len(self.elements)
        return _HEADER.pack(1, 0, self.element_oid, count, 1) + b"".join(self._bytes())


def record_format(numbers: int) -> str:
    """The format of one of `Int8Records`, for `struct`."""
    return ">" + "iq" * numbers


class Bytes(Array):
    """bytea[]"""

    __slots__ = ()
    oid, element_oid = 1001, 17


class Text(Array):
    """text[] of str"""

    __slots__ = ()
    oid, element_oid = 1009, 25

    def _bytes(self) -> Sequence[bytes]:
        return [element.encode() for element in self.elements]  # type: ignore[attr-defined]  # they are str


def _dumper(array: type[Array]) -> type[Dumper]:
    class ArrayDumper(Dumper):
        format = Format.BINARY
        oid = array.oid

        def dump(self, obj: Array) -> Buffer:
            return obj.to_bytes()

    return ArrayDumper


for _array in (Int4, Int8, Int8Records, Bytes, Text):
    psycopg.adapters.register_dumper(_array, _dumper(_array))  # every connection made from now on knows them
