"""The order of targets (s2s/srv.py)."""

from __future__ import annotations

import random
from collections import Counter

from s2s.srv import MOST_TARGETS, Srv, Target, merge

DICE = random.Random(1)


def hosts(targets: list[Target]) -> list[str]:
    return [target.host for target in targets]


def test_a_lower_priority_comes_first_whatever_its_kind() -> None:
    direct = [Srv(20, 1, 5270, "d20"), Srv(5, 1, 5270, "d5")]
    starttls = [Srv(10, 1, 5269, "s10"), Srv(1, 1, 5269, "s1")]
    ordered = merge(direct, starttls, DICE)
    assert hosts(ordered) == ["s1", "d5", "s10", "d20"]
    assert [target.is_direct_tls for target in ordered] == [False, True, False, True]


def test_of_equal_priority_both_kinds_are_drawn_by_weight() -> None:
    dice = random.Random(7)
    firsts = Counter(merge([Srv(1, 30, 1, "d")], [Srv(1, 10, 2, "s")], dice)[0].host for _ in range(4_000))
    # RFC 2782's sum runs from 0: of 41 draws, 0 to 10 are the smaller's.
    assert 0.22 < firsts["s"] / 4_000 < 0.32


def test_weight_0_is_drawn_seldom_but_is_drawn() -> None:
    dice = random.Random(7)
    firsts = Counter(merge([], [Srv(1, 0, 1, "zero"), Srv(1, 99, 2, "heavy")], dice)[0].host for _ in range(4_000))
    assert 0 < firsts["zero"] < 120


def test_of_several_weights_0_none_is_preferred() -> None:
    dice = random.Random(7)
    firsts = Counter(merge([], [Srv(1, 0, 1, "a"), Srv(1, 0, 2, "b")], dice)[0].host for _ in range(2_000))
    assert 800 < firsts["a"] < 1_200


def test_every_target_is_there_once() -> None:
    records = [Srv(priority, weight, 5269, f"h{priority}{weight}") for priority in range(3) for weight in range(9)]
    ordered = merge(records, [*records, *records], random.Random(3))
    assert len(ordered) == MOST_TARGETS
    assert len(set(ordered)) == MOST_TARGETS
    assert [int(target.host[1]) for target in ordered] == sorted(int(target.host[1]) for target in ordered)


def test_not_offered_and_port_0_are_no_targets() -> None:
    assert merge([Srv(0, 0, 0, "")], [Srv(0, 0, 5269, ""), Srv(0, 0, 0, "host")], DICE) == []


def test_targets_say_whether_dnssec_vouches_for_them() -> None:
    assert merge([], [Srv(0, 0, 5269, "h")], DICE, is_secure=True) == [Target("h", 5269, False, True)]
