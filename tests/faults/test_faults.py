"""Each fault under load: nothing that was acknowledged is lost, doubled or out of order, and every client comes back.

`STENTOR_FAULTS=long` runs the long form, `STENTOR_FAULTS_SEED=N` one seed again: it decides the order of the faults,
their times, their victims and what users do.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Final

import pytest

from tests.faults.autopsy import examine
from tests.faults.bank import Terms, open_bank
from tests.faults.checker import Verdict, check
from tests.faults.faults import FAULTS, LONG_FAULTS, ONLY_ROUTER, Fault, Field
from tests.faults.forum import Hearing, audit, open_forum
from tests.support.cluster import FACTOR
from tests.support.faults import IS_LONG, SEED, Site, report

PAIRS: Final = 100 if IS_LONG else 20
MEMBERS: Final = 25 if IS_LONG else 8  # of each room
RATE: Final = 0.4 if IS_LONG else 1.25  # messages per second and user
REPETITIONS: Final = 3 if IS_LONG else 1
BEFORE_S: Final = 5.0 if IS_LONG else 1.0
AFTER_S: Final = 10.0 if IS_LONG else 1.5

HEAD: Final = ("fault", "seed", *Verdict.COLUMNS, "limit", "settled", "lag")


def _shuffled(faults: Sequence[Fault]) -> list[tuple[Fault, int]]:
    rng = random.Random(SEED)
    runs = [(fault, rng.randrange(1_000_000)) for fault in faults for _ in range(REPETITIONS)]
    rng.shuffle(runs)
    return runs


@pytest.mark.parametrize(
    ("fault", "seed"),
    _shuffled((*FAULTS, *LONG_FAULTS) if IS_LONG else FAULTS),
    ids=lambda value: getattr(value, "name", None),
)
def test_a_fault_loses_nothing(site: Site, fault: Fault, seed: int) -> None:
    _run(site, fault, seed)


@pytest.mark.parametrize("seed", [SEED + number for number in range(REPETITIONS)])
def test_while_the_only_router_is_dead_messages_wait(small_site: Site, seed: int) -> None:
    _run(small_site, ONLY_ROUTER, seed)


ROOM_FAULTS: Final = ("c2s killed", "router killed", "router stopped", "router drained", "routers parted")
ROOM_HEAD: Final = (
    "fault in rooms",
    "seed",
    "members",
    "said",
    "heard",
    "rebound",
    "departures",
    "findings",
    "settled",
)


@pytest.mark.parametrize(
    ("fault", "seed"),
    _shuffled([fault for fault in FAULTS if IS_LONG or fault.name in ROOM_FAULTS]),
    ids=lambda value: getattr(value, "name", None),
)
def test_a_fault_loses_nothing_of_what_is_said_in_rooms(site: Site, fault: Fault, seed: int) -> None:
    site.cluster.wait_ready()
    hearing, settled_s = asyncio.run(_in_rooms(site, fault, seed))
    numbers = (hearing.members, hearing.said, hearing.heard, hearing.rebound, hearing.departures, len(hearing.findings))
    report(ROOM_HEAD, [fault.name, str(seed), *map(str, numbers), f"{settled_s:.2f}"])
    print("\n".join([f"{fault.name}, seed {seed} (STENTOR_FAULTS_SEED={SEED})", *hearing.findings[:40]]))
    assert not hearing.findings
    assert hearing.said > 0
    assert fault.may_fail_resumes or (hearing.rebound, hearing.departures) == (0, 0)


async def _in_rooms(site: Site, fault: Fault, seed: int) -> tuple[Hearing, float]:
    rng = random.Random(seed)
    terms = Terms(pairs=MEMBERS, rate=RATE)
    async with open_forum(site.cluster, terms, random.Random(rng.getrandbits(64))) as forum:
        await asyncio.sleep(BEFORE_S * rng.uniform(0.5, 1.5))
        await fault.act(Field(site, rng, IS_LONG))
        await asyncio.sleep(AFTER_S)
        settled_s = await forum.settle()
        await forum.read_rooms()
    return audit(forum), settled_s


def _run(site: Site, fault: Fault, seed: int) -> None:
    site.cluster.wait_ready()
    verdict, limit_s, story = asyncio.run(_under_load(site, fault, seed))
    print("\n".join([f"{fault.name}, seed {seed} (STENTOR_FAULTS_SEED={SEED})", *story]))
    assert not verdict.findings
    assert verdict.has_archive
    assert verdict.acked == verdict.sent > 0
    assert fault.breaks_streams or verdict.dropped == 0
    assert fault.may_fail_resumes or verdict.failed_resumes == 0
    assert verdict.silence.seconds <= limit_s


async def _under_load(site: Site, fault: Fault, seed: int) -> tuple[Verdict, float, list[str]]:
    rng = random.Random(seed)
    terms = Terms(pairs=PAIRS, rate=RATE, absent=fault.absent, patience_s=fault.patience_s)
    async with open_bank(site.cluster, terms, random.Random(rng.getrandbits(64))) as bank:
        await asyncio.sleep(BEFORE_S * rng.uniform(0.5, 1.5))
        since = bank.now()
        limit_s = await fault.act(Field(site, rng, IS_LONG)) * FACTOR
        until = bank.now()
        await asyncio.sleep(AFTER_S)
        settled_s = await bank.settle()
    verdict = check(bank.logs, since)
    limit_s += bank.worst_lag_s
    times = [f"{seconds:.2f}" for seconds in (limit_s, settled_s, bank.worst_lag_s)]
    report(HEAD, [fault.name, str(seed), *verdict.cells(), *times])
    silence = verdict.silence
    story = [
        f"fault from {since:.3f} to {until:.3f} s",
        f"longest silence {silence.seconds:.2f} s (at most {limit_s:.2f}), over at {silence.ended_at:.3f}: {silence.what}",
        *(f"{rule}: {text}" for rule, text, _ in verdict.findings[:40]),
    ]
    if verdict.findings or silence.seconds > limit_s:
        story.extend(await asyncio.to_thread(lambda: list(examine(site, bank.run, bank.opened_at, verdict.findings))))
    return verdict, limit_s, story
