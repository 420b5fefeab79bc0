"""Terms as ejabberd's dump has them; anything else is an error that says where."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stentor.moving.erlang import Atom, ErlangError, Found, Term, read, split

ATOMS = st.sampled_from(["none", "true", "scram", "node@host", "Odd one", "it's"]).map(Atom)
CONSTANTS: st.SearchStrategy[Any] = st.integers() | st.binary(max_size=20) | ATOMS
TERMS: st.SearchStrategy[Any] = st.recursive(
    CONSTANTS, lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple), max_leaves=20
)


def written(term: Term) -> bytes:
    """A term as io:format("~p") prints it into a file."""
    if isinstance(term, Atom):
        return term.encode() if term.isalpha() and term.islower() else b"'%b'" % term.replace("'", "\\'").encode()
    if isinstance(term, bytes):
        if any(byte < 32 or byte == 127 for byte in term):
            return b"<<%b>>" % b",".join(b"%d" % byte for byte in term)
        return b'<<"%b">>' % term.replace(b"\\", b"\\\\").replace(b'"', b'\\"') if term else b"<<>>"
    if isinstance(term, tuple):
        return b"{%b}" % b",\n  ".join(map(written, term))
    if isinstance(term, list):
        return b"[%b]" % b",".join(map(written, term))
    return repr(term).encode()


def found(text: bytes) -> Found:
    return Found(1, "", text)


@given(TERMS)
def test_what_is_printed_is_read(term: Term) -> None:
    assert read(found(written(term) + b".\n")) == term


@given(st.lists(TERMS, max_size=4))
def test_a_file_is_a_term_after_the_other(terms: list[Term]) -> None:
    lines = b"".join(b"{row,%b}.\n" % written(term) for term in terms).splitlines(keepends=True)
    rows = list(split(lines))
    assert [read(row) for row in rows] == [(Atom("row"), term) for term in terms]
    assert {row.name for row in rows} <= {"row"}


@given(st.binary(max_size=200))
def test_anything_is_a_term_or_an_error(source: bytes) -> None:
    for text in (source, b"{" + source, b'<<"' + source, b"[" + source, b"#{" + source):
        try:
            for one in split(text.splitlines(keepends=True)):
                read(one)
            read(found(text))
        except ErlangError:
            pass


def test_text_is_the_bytes_that_stand_there() -> None:
    """Binaries that are printed as text are so byte by byte."""
    assert read(found('<<"Grüße">>.'.encode())) == "Grüße".encode()
    assert read(found(b'<<"Gr\\303\\274\\x{df}e"/utf8>>.')) == b"Gr\xc3\xbc\xdfe".decode("latin-1").encode()
    assert read(found('<<"薔"/utf8>>.'.encode())) == "薔".encode()
    assert read(found(b'<<"\\x{8594}"/utf8>>.')) == "薔".encode()
    assert read(found(b'<<"one"\n  "two">>.')) == b"onetwo"


def test_maps_pids_and_numbers() -> None:
    assert read(found(b"#{a => 1,b => [x|y]}.")) == {"a": 1, "b": ["x", "y"]}
    assert read(found(b"{<0.1.2>,#Ref<0.1.2.3>,#Fun<a.1.2>,16#ff,1.5e3}.")) == (
        "<0.1.2>", "#Ref<0.1.2.3>", "#Fun<a.1.2>", 255, 1500.0,
    )  # fmt: skip


def test_an_error_says_where() -> None:
    rows = list(split([b"{a,1}.\n", b"{b,\n", b" ?}.\n"]))
    assert [row.line for row in rows] == [1, 2]
    with pytest.raises(ErlangError, match="line 3"):
        read(rows[1])


def test_a_dump_that_is_cut_is_told() -> None:
    with pytest.raises(ErlangError, match="line 2: the last term does not end"):
        list(split([b"{a,1}.\n", b"{b,\n", b" 2\n"]))


def test_terms_within_terms_end_somewhere() -> None:
    with pytest.raises(ErlangError, match="deep"):
        read(found(b"[" * 100_000))
