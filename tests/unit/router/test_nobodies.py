"""Names that nobody has look like those that somebody has (router/nobodies.py)."""

from __future__ import annotations

from collections import Counter

from router.nobodies import Guise, Nobodies
from xmpp.scram import HASHES, SALT_BYTES

DOMAIN = "example.org"
OLD, NEW = 4_096, 10_000
ALL_NEW, ALL_OLD, ONE_HASH = (NEW, NEW, NEW), (OLD, OLD, OLD), (OLD, 0, 0)
NAMES = [f"name-{number}@{DOMAIN}" for number in range(2_000)]


def nobodies(counts: dict[Guise, int], secret: bytes = b"secret") -> Nobodies:
    made = Nobodies(secret, NEW)
    made.learn((DOMAIN, dict(zip(HASHES, guise, strict=True)), count) for guise, count in counts.items())
    return made


def test_each_guise_is_as_frequent_as_among_accounts() -> None:
    made = nobodies({ALL_NEW: 30, ALL_OLD: 60, ONE_HASH: 10})
    found = Counter(made.guise(name) for name in NAMES)
    assert set(found) == {ALL_NEW, ALL_OLD, ONE_HASH}
    assert abs(found[ALL_NEW] - 600) < 100
    assert abs(found[ALL_OLD] - 1_200) < 100
    assert abs(found[ONE_HASH] - 200) < 60


def test_every_router_draws_alike_and_nobody_else_can() -> None:
    counts: dict[Guise, int] = {ALL_NEW: 50, ALL_OLD: 50}
    drawn = [nobodies(counts).guise(name) for name in NAMES]
    assert drawn == [nobodies(counts).guise(name) for name in NAMES]
    assert drawn != [nobodies(counts, b"another").guise(name) for name in NAMES]


def test_as_accounts_get_better_names_do_and_none_gets_worse() -> None:
    """An account that was upgraded stays so."""
    before = nobodies({ONE_HASH: 20, ALL_OLD: 40, ALL_NEW: 40})
    after = nobodies({ONE_HASH: 10, ALL_OLD: 20, ALL_NEW: 70})
    moved = [(before.guise(name), after.guise(name)) for name in NAMES]
    assert all(new >= old for old, new in moved)
    assert 0 < sum(new > old for old, new in moved) < len(NAMES) / 2
    changed = next(name for name in NAMES if before.guise(name) != after.guise(name))
    kept = next(name for name in NAMES if before.guise(name) == after.guise(name))
    assert before.credentials(changed, "SHA-1").salt != after.credentials(changed, "SHA-1").salt
    assert before.credentials(kept, "SHA-1") == after.credentials(kept, "SHA-1")


def test_what_is_counted_in_several_reads_is_added_up() -> None:
    made = nobodies({})
    made.learn([(DOMAIN, dict.fromkeys(HASHES, iterations), 50) for iterations in (OLD, NEW, OLD, NEW)])
    assert [made.guise(name) for name in NAMES] == [
        nobodies({ALL_OLD: 100, ALL_NEW: 100}).guise(name) for name in NAMES
    ]


def test_domains_do_not_mix() -> None:
    made = nobodies({ONE_HASH: 1})
    made.learn([(DOMAIN, {"SHA-1": OLD}, 1), ("other.example", dict.fromkeys(HASHES, OLD), 1)])
    assert made.guise(f"nobody@{DOMAIN}") == ONE_HASH
    assert made.guise("nobody@other.example") == ALL_OLD


def test_where_nobody_has_an_account_names_look_like_new_ones() -> None:
    assert nobodies({}).guise(NAMES[0]) == ALL_NEW


def test_what_an_account_lacks_looks_like_what_a_name_lacks() -> None:
    made = nobodies({ONE_HASH: 1})
    (name,) = NAMES[:1]
    assert made.credentials(name) == made.credentials(name, "SHA-1")
    missing = made.missing(name, "SHA-512")
    assert made.credentials(name, "SHA-512") == missing
    assert (missing.iterations, len(missing.salt)) == (NEW, SALT_BYTES)
    assert missing.salt != made.missing(name, "SHA-256").salt
    assert missing.salt != nobodies({ALL_NEW: 1}).credentials(name, "SHA-512").salt, "an upgrade is seen"
