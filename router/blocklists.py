"""Lists of known abusers that others keep and publish (docs/abuse.md): who is on one. Every router has all of them in
memory; `router/blocklist_keeper.py` follows their services.

An entry is the SHA-256 of a bare JID or of a domain, in hexadecimal, or one of them as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final, Literal

from cluster import metrics
from xmpp.jid import domain_of

Place = Literal["rooms", "strangers"]
ENTRY_CHARACTERS: Final = 3_071  # of the longest JID without a resource (RFC 7622, 3.1)

refused = metrics.counter(
    "stentor_blocklist_refused_total", "What was refused because its sender is on a blocklist",
    {"place": ["rooms", "strangers"]},
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """A list to follow: the node of a service, and where it counts."""

    service: str  # a domain
    node: str
    places: frozenset[Place] = frozenset({"rooms", "strangers"})

    @property
    def name(self) -> str:
        """What operators call it."""
        return f"{self.service}/{self.node}"


@lru_cache(maxsize=65_536)
def hashed(name: str) -> str:
    """As lists write it."""
    return sha256(name.encode()).hexdigest()


class Blocklists:
    """The lists as they are now. `allowed` are bare JIDs and domains that no list counts for; `ours` are domains
    served here: no list takes them all out of service."""

    def __init__(self, rules: Sequence[Rule] = (), allowed: Iterable[str] = (), ours: Iterable[str] = ()) -> None:
        self.rules: dict[str, Rule] = {rule.name: rule for rule in rules}
        self._allowed = frozenset(allowed)
        self._never = frozenset(entry for domain in ours for entry in (domain, hashed(domain)))
        self._entries: dict[str, frozenset[str]] = {}
        self._of: dict[Place, dict[str, str]] = {"rooms": {}, "strangers": {}}  # entry -> name of a list

    def cleaned(self, entries: Iterable[str]) -> set[str]:
        """Entries as they are compared, without those that may not be: they would shut out a domain of ours."""
        found = {entry.strip().lower() for entry in entries if len(entry) <= ENTRY_CHARACTERS}
        return found - self._never - {""}

    def replace(self, name: str, entries: Iterable[str]) -> None:
        """What is on a list. One that is followed no more is forgotten."""
        if name not in self.rules:
            return
        self._entries[name] = frozenset(self.cleaned(entries))
        for place in self._of:
            self._of[place] = {
                entry: rule.name
                for rule in self.rules.values()
                if place in rule.places
                for entry in self._entries.get(rule.name, ())
            }

    def entries(self, name: str) -> frozenset[str]:
        """What is on a list."""
        return self._entries.get(name, frozenset())

    def of(self, bare: str, place: Place) -> str:
        """The list that somebody is on and that counts there; "" for none."""
        of = self._of[place]
        if not of:
            return ""
        domain = domain_of(bare)
        if bare in self._allowed or domain in self._allowed:
            return ""
        for name in (hashed(bare), hashed(domain), bare, domain):
            if name in of:
                return of[name]
        return ""

    def refuses(self, bare: str, place: Place) -> bool:
        """The same as a question that is counted."""
        if not self.of(bare, place):
            return False
        refused.labels(place).inc()
        return True


NONE: Final = Blocklists()
