"""Ranges, tags, names and headers of files (c2s/http/content.py)."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s.http.content import CACHED_S, SHOWN, Span, disposition, headers_of, is_same, names, span_of

SIZE = 1_000


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=0-499", Span(0, 500)),
        ("bytes=500-", Span(500, 1000)),
        ("bytes=-500", Span(500, 1000)),
        ("bytes=-2000", Span(0, 1000)),
        ("bytes=900-2000", Span(900, 1000)),
        ("BYTES= 0-1 ", Span(0, 2)),
        ("bytes=1000-", Span(1000, 1000)),  # not there
        ("bytes=5000-6000", Span(5000, 1000)),
        ("bytes=-0", Span(1000, 1000)),
        # RFC 9110, 14.2: what is no range is as if it were not there.
        ("bytes=-", None),
        ("bytes=5-4", None),
        ("bytes=0-1,3-4", None),
        ("bytes=a-b", None),
        ("bytes=0x1-2", None),
        ("bytes=\u0663-", None),
        ("lines=1-2", None),
        ("bytes=1-2-3", None),
        ("", None),
        (f"bytes={'9' * 30}-", None),
    ],
)
def test_the_part_that_is_asked_for(header: str | None, span: Span | None) -> None:
    assert span_of(header, SIZE) == span


@given(st.integers(1, 10**15), st.integers(0, 10**16), st.integers(0, 10**16))
def test_a_part_is_within_the_file(size: int, first: int, last: int) -> None:
    for header in (f"bytes={first}-{last}", f"bytes={first}-", f"bytes=-{last}"):
        span = span_of(header, size)
        if span is not None and span.is_there:
            assert 0 <= span.start < span.end <= size


@given(st.binary(min_size=1, max_size=50), st.integers(0, 60), st.integers(0, 60))
def test_parts_are_those_of_the_standard(data: bytes, first: int, last: int) -> None:
    span = span_of(f"bytes={first}-{last}", len(data))
    if last < first:
        assert span is None
    else:
        assert span is not None
        assert data[span.start : span.end] == data[first : last + 1]
    tail = span_of(f"bytes=-{last}", len(data))
    assert tail is not None
    assert data[tail.start : tail.end] == (data[-last:] if last else b"")


@given(st.text(max_size=40))
def test_no_header_breaks_it(text: str) -> None:
    span_of(text, SIZE)
    span_of(f"bytes={text}", SIZE)
    names(text, '"a"')
    is_same(text, '"a"')


def test_tags() -> None:
    assert names('"a"', '"a"')
    assert names('W/"a"', '"a"')
    assert names('"b", "a"', '"a"')
    assert names("*", '"a"')
    assert not names('"b"', '"a"')
    assert not names(None, '"a"')
    assert is_same(None, '"a"')
    assert is_same('"a"', '"a"')
    assert not is_same('W/"a"', '"a"')
    assert not is_same("Wed, 21 Oct 2026 07:28:00 GMT", '"a"')


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("a.png", 'attachment; filename="a.png"'),
        ("très.png", "attachment; filename=\"tr_s.png\"; filename*=UTF-8''tr%C3%A8s.png"),
        ('a"; x="y', "attachment; filename=\"a_; x=_y\"; filename*=UTF-8''a%22%3B%20x%3D%22y"),
        ("100%.txt", "attachment; filename=\"100_.txt\"; filename*=UTF-8''100%25.txt"),
    ],
)
def test_how_a_file_is_called(name: str, written: str) -> None:
    assert disposition(name, is_shown=False) == written


@given(st.text(min_size=1, max_size=60))
def test_no_name_gets_out_of_its_quotes(name: str) -> None:
    if any("\ud800" <= c <= "\udfff" for c in name):
        return
    written = disposition(name, is_shown=True)
    match = re.fullmatch(r"inline; filename=\"([^\"\\]*)\"(?:; filename\*=UTF-8''([A-Za-z0-9._~%-]*))?", written)
    assert match is not None, written
    assert written.isascii()
    assert "\n" not in written
    assert (unquote(match[2]) if match[2] is not None else match[1]) == name


@pytest.mark.parametrize(
    "type",
    ["text/html", "image/svg+xml", "application/xhtml+xml", "application/pdf", "text/xml", "text/plain", "", "image/x-unknown",
     "application/javascript", "multipart/x-mixed-replace", "application/octet-stream"],
)  # fmt: skip
def test_what_may_run_is_never_shown(type: str) -> None:
    headers = headers_of("a", type, None)
    assert headers["Content-Disposition"].startswith("attachment;")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "type", ["text/javascript", "application/x-javascript", "application/ecmascript", "text/css", "application/wasm"]
)
def test_a_page_of_this_site_cannot_load_it_as_a_script(type: str) -> None:
    """Attachments may be loaded so; that they are bytes of no type, and nosniff, is what stops it."""
    assert headers_of("a.js", type, None)["Content-Type"] == "application/octet-stream"


def test_what_is_shown_is_pictures_sounds_and_films() -> None:
    assert {type.partition("/")[0] for type in SHOWN} == {"image", "audio", "video"}
    assert not any("xml" in type for type in SHOWN)
    assert headers_of("a.png", "image/png", None)["Content-Disposition"].startswith("inline;")


def test_nothing_is_cached_for_longer_than_it_is_there() -> None:
    assert headers_of("a", "", 60)["Cache-Control"] == "private, max-age=60, immutable"
    assert headers_of("a", "", -1)["Cache-Control"] == "private, max-age=0, immutable"
    assert headers_of("a", "", None)["Cache-Control"] == f"private, max-age={CACHED_S}, immutable"
