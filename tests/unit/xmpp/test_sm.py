"""The arithmetic of stream management (xmpp/sm.py; XEP-0198, 4): counters that wrap on the wire only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmpp.sm import MODULUS, parse_h, too_high, unwrapped, wrapped

numbers = st.integers(0, 2**63)
windows = st.integers(0, MODULUS // 2 - 1)  # how much may be sent and not acknowledged: far more than anybody holds


def test_h_goes_from_its_greatest_value_back_to_zero() -> None:
    """4: "the value of 'h' SHALL be reset from 2^32-1 back to zero (rather than being incremented to 2^32)"."""
    assert [wrapped(n, 0) for n in (0, 1, MODULUS - 1, MODULUS, MODULUS + 1)] == [0, 1, MODULUS - 1, 0, 1]


def test_both_sides_count_from_where_stream_management_was_enabled() -> None:
    """4: "The value of 'h' starts at zero at the point stream management is enabled"."""
    assert wrapped(17, 17) == 0
    assert wrapped(20, 17) == 3
    assert unwrapped(3, 17, 17) == 20


@given(numbers, windows, numbers)
def test_what_was_wrapped_is_found_again(acknowledged: int, ahead: int, base: int) -> None:
    reached = acknowledged + ahead
    assert unwrapped(wrapped(reached, base), acknowledged, base) == reached


@given(numbers, st.integers(1, MODULUS // 2), numbers)
def test_an_acknowledgement_that_comes_late_says_nothing_new(acknowledged: int, behind: int, base: int) -> None:
    assert unwrapped(wrapped(acknowledged - behind, base), acknowledged, base) == acknowledged


@given(st.integers(0, MODULUS - 1), numbers, numbers)
def test_no_h_takes_an_acknowledgement_back(h: int, acknowledged: int, base: int) -> None:
    reached = unwrapped(h, acknowledged, base)
    assert acknowledged <= reached < acknowledged + MODULUS // 2


def test_what_was_sent_before_counting_began_is_acknowledged_by_the_first_zero() -> None:
    """Ten stanzas were written before <enable/>, and the kernel had taken eight when it came."""
    assert unwrapped(0, 8, 10) == 10
    assert unwrapped(2, 8, 10) == 12


@given(numbers, windows)
def test_nobody_can_have_more_than_was_sent(sent: int, ahead: int) -> None:
    assert not too_high(sent, sent)
    assert too_high(sent + 1 + ahead, sent)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("7", 7), ("007", 7), ("4294967295", MODULUS - 1)])
def test_an_h_is_an_unsigned_integer_of_32_bits(text: str, number: int) -> None:
    assert parse_h(text) == number


@pytest.mark.parametrize(
    "text",
    [None, "", " ", "-1", "+1", "1.0", "0x1", "1e3", "one", "4294967296", "99999999999999999999", "٣", "²", "1\n"],
)
def test_all_else_is_no_h(text: str | None) -> None:
    assert parse_h(text) is None


@given(st.text(max_size=12))
def test_whatever_is_no_number_of_32_bits_is_refused(text: str) -> None:
    number = parse_h(text)
    assert number is None or (0 <= number < MODULUS and int(text) == number)
