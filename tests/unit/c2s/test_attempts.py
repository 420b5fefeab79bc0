"""How often an address has tried something (c2s/attempts.py)."""

from __future__ import annotations

import pytest

from c2s.attempts import MOST, WINDOW_S, Attempts
from tests.support.streams import Clock


def test_one_address_may_try_so_often_in_an_hour() -> None:
    clock = Clock()
    attempts = Attempts(2, clock)
    assert [attempts.take("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert attempts.take("192.0.2.2")
    clock.now += WINDOW_S
    assert attempts.take("192.0.2.1")


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("unix", "unix", True),
    ],
)
def test_an_address_of_ipv6_is_its_network(one: str, other: str, is_same: bool) -> None:
    attempts = Attempts(1, Clock())
    assert attempts.take(one)
    assert attempts.take(other) != is_same


def test_none_is_too_many_where_there_is_no_limit() -> None:
    attempts = Attempts(0, Clock())
    assert all(attempts.take("192.0.2.1") for _ in range(100))


def test_so_many_addresses_are_remembered() -> None:
    attempts = Attempts(1, Clock())
    assert attempts.take("192.0.2.1")
    for number in range(MOST):
        attempts.take(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert attempts.take("192.0.2.1"), "forgotten"
