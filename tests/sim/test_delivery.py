"""The delivery protocol under faults, by seed. A failing seed replays exactly: `World(seed, mode).run()`."""

from __future__ import annotations

import os

import pytest

from tests.sim.world import Mode, World

SEEDS = int(os.environ.get("STENTOR_SIM_SEEDS", "150"))


@pytest.mark.parametrize("mode", ["network", "processes"])
def test_faults_do_no_more_harm_than_promised(mode: Mode) -> None:
    bad = {}
    messages = 0
    for seed in range(SEEDS):
        world = World(seed, mode)
        wrong = world.run()
        messages += len(world.sent)
        if wrong:
            bad[seed] = wrong[:3]
    print(f"{mode}: {SEEDS} seeds, {messages} messages")
    assert not bad, f"{len(bad)} of {SEEDS} seeds: {dict(list(bad.items())[:5])}"
    assert messages > 100 * SEEDS  # the clients did talk
