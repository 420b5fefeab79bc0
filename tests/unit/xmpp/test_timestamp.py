"""Moments (XEP-0082)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmpp.timestamp import format_moment, parse_moment


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1969-07-21T02:56:15Z", -14_159_025_000_000),
        ("1969-07-20T21:56:15-05:00", -14_159_025_000_000),  # the examples of 3.2
        ("2010-06-07T00:00:00Z", 1_275_868_800_000_000),
        ("2010-06-07T00:00:00.5Z", 1_275_868_800_500_000),
        ("2010-06-07T00:00:00.123456789Z", 1_275_868_800_123_456),
        ("2010-06-07T05:30:00.001+05:30", 1_275_868_800_001_000),
        ("9999-12-31T23:59:59Z", 253_402_300_799_000_000),
    ],
)
def test_moments_are_read(text: str, microseconds: int) -> None:
    assert parse_moment(text) == microseconds


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "2010-06-07", "2010-06-07T00:00:00", "20100607T00:00:00", "2010-06-07 00:00:00Z", "2010-06-07T00:00Z",
        "2010-06-07T00:00:00.Z", "2010-06-07T00:00:00+0530", "2010-06-07T00:00:00z", "2010-13-07T00:00:00Z",
        "2010-06-31T00:00:00Z", "2010-06-07T24:00:00Z", "2010-06-07T00:00:60Z", "2010-06-07T00:00:00+24:00",
        "0000-01-01T00:00:00Z", "12010-06-07T00:00:00Z", " 2010-06-07T00:00:00Z", "2010-06-07T00:00:00Z\n",
        "\u0662010-06-07T00:00:00Z",
    ],
)  # fmt: skip
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_moment(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_800_000_000.123, "2027-01-15T08:00:00.123Z"),
        (1_800_000_000.9996, "2027-01-15T08:00:01.000Z"),
    ],
)
def test_moments_are_written(seconds: float, text: str) -> None:
    assert format_moment(seconds) == text


@given(st.integers(0, 253_402_300_799_999))
def test_what_is_written_is_read(milliseconds: int) -> None:
    assert parse_moment(format_moment(milliseconds / 1000)) == milliseconds * 1000
