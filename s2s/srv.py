"""The order in which the servers of a domain are tried (RFC 2782; XEP-0368, 3): values only, no DNS.

`merge` makes one list of the records of `_xmpps-server` and `_xmpp-server`, for `s2s/dns.py`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import groupby
from typing import Final, NamedTuple

MOST_TARGETS: Final = 32  # of one domain; who publishes more gets no more attempts


class Srv(NamedTuple):
    """One SRV record. `target` is in lower case, without the final dot; "" stands for ".", "not offered"."""

    priority: int
    weight: int
    port: int
    target: str


class Target(NamedTuple):
    """Somewhere to connect to: a host name (A-labels) or an IP address, and how."""

    host: str
    port: int
    is_direct_tls: bool  # TLS from the first byte (XEP-0368), else STARTTLS (RFC 6120, 5)
    is_secure: bool = False  # DNSSEC vouches for the way from the domain to this name and port


class _Offer(NamedTuple):
    record: Srv
    target: Target


def merge(direct: Iterable[Srv], starttls: Iterable[Srv], dice: random.Random, is_secure: bool = False) -> list[Target]:
    """Both kinds in one list: by priority, and within one by chance in proportion to the weights."""
    offers = {
        (record.target, record.port, is_direct_tls): _Offer(
            record, Target(record.target, record.port, is_direct_tls, is_secure)
        )
        for records, is_direct_tls in ((direct, True), (starttls, False))
        for record in records
        if record.target and record.port
    }
    ordered: list[Target] = []
    by_priority = sorted(offers.values(), key=lambda offer: offer.record.priority)
    for _, alike in groupby(by_priority, key=lambda offer: offer.record.priority):
        ordered += _by_weight(list(alike), dice)
    return ordered[:MOST_TARGETS]


def _by_weight(offers: list[_Offer], dice: random.Random) -> list[Target]:
    """RFC 2782, "Weight": again and again one is drawn; those of weight 0 stand first, so they have a small chance."""
    waiting = sorted(dice.sample(offers, len(offers)), key=lambda offer: offer.record.weight)
    ordered: list[Target] = []
    while waiting:
        drawn = dice.randint(0, sum(offer.record.weight for offer in waiting))
        sum_so_far = 0
        for index, offer in enumerate(waiting):
            sum_so_far += offer.record.weight
            if sum_so_far >= drawn:
                ordered.append(waiting.pop(index).target)
                break
    return ordered
