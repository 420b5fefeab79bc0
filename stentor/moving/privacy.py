"""Privacy lists (XEP-0016), of which only what says "nothing from this address" becomes a block list (XEP-0191)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from stentor.moving.things import Blocked, LeftOut, Thing


class Rule(NamedTuple):
    """A rule of a list: `is_all` where it holds for every kind of stanza."""

    type: str
    value: str
    action: str
    is_all: bool


def blocks(rules: Iterable[Rule], is_default: bool, name: str) -> Iterator[Thing]:
    """Of one list. One that is not the default is in force for nobody."""
    for rule in rules:
        if rule.type == "jid" and rule.action == "deny" and rule.is_all and is_default:
            yield Blocked(rule.value)
        elif rule.action == "deny" or not is_default:
            why = "privacy lists (XEP-0016) are not kept; of the default one, rules that block an address are"
            yield LeftOut(
                "block", f"{why}: list {name[:60]!r} says {rule.action} {rule.type} {rule.value[:60]}".rstrip()
            )
