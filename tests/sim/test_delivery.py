"""The delivery protocol under faults, by seed. A failing seed replays exactly: `World(seed, mode).run()`.

STENTOR_SIM_SEEDS sets how many seeds of each kind; `make faults` runs thousands.
"""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests.sim.world import Mode, World

SEEDS: Final = int(os.environ.get("STENTOR_SIM_SEEDS", "30"))


@pytest.mark.parametrize("mode", ["network", "separate", "overlapping", "nasty"])
def test_faults_do_no_more_harm_than_promised(mode: Mode) -> None:
    bad = {}
    messages = doubled = 0
    for seed in range(SEEDS):
        world = World(seed, mode)
        wrong = world.run()
        messages += len(world.sent)
        doubled += world.doubled
        if wrong:
            bad[seed] = wrong[:3]
    print(f"{mode}: {SEEDS} seeds, {messages} messages, {doubled} shown twice")
    assert not bad, f"{len(bad)} of {SEEDS} seeds: {dict(list(bad.items())[:5])}"
    assert messages > 300 * SEEDS  # the clients did talk
    assert doubled < messages / 100  # docs/delivery.md, §8: seldom, and only where two died together


@pytest.mark.parametrize("mode", ["network", "separate", "overlapping", "nasty"])
def test_the_same_holds_with_other_servers(mode: Mode) -> None:
    bad = {}
    messages = doubled = repeated = came_back = unnoticed = 0
    for seed in range(SEEDS):
        world = World(seed, mode, federated=True)
        wrong = world.run()
        federation = world.federation
        messages += len(world.sent)
        doubled += world.doubled
        repeated += federation.repeated
        came_back += len(federation.came_back)
        unnoticed += federation.unnoticed
        if wrong:
            bad[seed] = wrong[:3]
    print(f"{mode}: {SEEDS} seeds, {messages} messages, {doubled} shown twice, {repeated} sent twice to other servers")
    print(f"    {came_back} came back from there, of which {unnoticed} to nobody")
    assert not bad, f"{len(bad)} of {SEEDS} seeds: {dict(list(bad.items())[:5])}"
    assert messages > 600 * SEEDS
    assert doubled < messages / 100
    assert repeated < messages / 25  # streams that broke with something unacknowledged
    assert unnoticed < messages / 250


@pytest.mark.parametrize("mode", ["network", "separate", "overlapping", "nasty"])
def test_the_same_holds_in_rooms(mode: Mode) -> None:
    bad = {}
    messages = heard = 0
    for seed in range(SEEDS):
        world = World(seed, mode, with_rooms=True)
        wrong = world.run()
        messages += sum(to in world.rooms for to, _ in world.sent.values())
        heard += sum(len(client.heard) for client in world.clients)
        if wrong:
            bad[seed] = wrong[:3]
    print(f"{mode}: {SEEDS} seeds, {messages} messages in rooms, heard {heard} times")
    assert not bad, f"{len(bad)} of {SEEDS} seeds: {dict(list(bad.items())[:5])}"
    assert messages > 100 * SEEDS
    assert heard > 2 * messages
