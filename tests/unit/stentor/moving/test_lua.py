"""What Prosody writes is read; anything else is an error that says where, and nothing is run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stentor.moving.lua import FALSE, LuaError, Table, Value, read_items, read_value

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
CONSTANTS: st.SearchStrategy[Any] = st.booleans() | NUMBERS | TEXTS
VALUES: st.SearchStrategy[Any] = st.recursive(
    CONSTANTS,
    lambda inner: st.builds(
        Table,
        st.lists(inner, max_size=4),
        st.dictionaries(TEXTS.filter(lambda key: "\0" not in key), inner, max_size=4),
    ),
    max_leaves=20,
)


def written(value: Value) -> str:
    """A value as Prosody writes it (util/serialization)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(_char(byte) for byte in value.encode()) + '"'
    if isinstance(value, Table):
        fields = [f"\t[{written(key)}] = {written(one)};\n" for key, one in value.fields.items()]
        return "{\n" + "".join(f"\t{written(item)};\n" for item in value.items) + "".join(fields) + "}"
    return repr(value)


def _char(byte: int) -> str:
    plain = chr(byte)
    return plain if byte >= 32 and byte < 127 and plain not in '"\\' else f"\\{byte:03d}"


@given(VALUES)
def test_what_is_written_is_read(value: Value) -> None:
    assert read_value(f"return {written(value)};\n".encode()) == value


@given(st.lists(VALUES, max_size=4))
def test_a_list_is_read_item_by_item(values: list[Value]) -> None:
    source = "".join(f"item({written(value)});\n" for value in values)
    assert list(read_items(source.encode())) == values


@given(st.binary(max_size=200))
def test_anything_is_a_value_or_an_error(source: bytes) -> None:
    for head in (b"", b"return ", b"return {", b'return "', b"return [["):
        try:
            read_value(head + source)
            list(read_items(head.replace(b"return ", b"item(") + source))
        except LuaError:
            pass


@given(VALUES, st.data())
def test_a_file_that_is_cut_is_an_error_or_whole(value: Value, data: st.DataObject) -> None:
    source = f"return {written(value)};\n".encode()
    cut = source[: data.draw(st.integers(0, len(source) - 3))]
    try:
        found = read_value(cut)
    except LuaError:
        return
    assert isinstance(value, int | float)  # of a number some digits may be missing
    assert isinstance(found, int | float)


def test_the_keys_false_and_true_are_no_numbers() -> None:
    table = read_value(b'return { [false] = { ["version"] = 1 }; [0] = "zero"; [true] = "yes"; [7] = "seven" };')
    assert isinstance(table, Table)
    assert table.table(FALSE).number("version") == 1
    assert (table.fields[0], table.fields[7]) == ("zero", "seven")


def test_numbered_keys_are_items() -> None:
    assert read_value(b'return { [1] = "a"; [2] = "b"; x = "c" }') == Table(["a", "b"], {"x": "c"})


def test_other_ways_to_write_text() -> None:
    assert read_value(b"return { 'a\\'b', [==[long]]\ntext]==], \"\\x41\\65\\\n\" }") == Table(
        ["a'b", "long]]\ntext", "AA\n"]
    )


def test_bytes_that_are_no_text_are_kept() -> None:
    value = read_value(b'return "\\255\\000";')
    assert isinstance(value, str)
    assert value.encode("utf-8", "surrogateescape") == b"\xff\0"


@pytest.mark.parametrize(
    "source",
    [
        b"return os.execute('true')",
        b"return (function() end)()",
        b'return "a" .. "b"',
        b"os.execute('true') return {}",
        b"return { [os.time()] = 1 }",
        b"return {} + {}",
        b"return 1 return 2",
        b"return setmetatable({}, {})",
    ],
)
def test_a_program_is_refused(source: bytes) -> None:
    with pytest.raises(LuaError):
        read_value(source)


def test_an_error_says_where() -> None:
    with pytest.raises(LuaError, match="line 3"):
        read_value(b"return {\n\t['a'] = 1;\n\t['b'] = os;\n};")


def test_tables_within_tables_end_somewhere() -> None:
    with pytest.raises(LuaError, match="deep"):
        read_value(b"return " + b"{" * 100_000)
