"""What a name that nobody has looks like to who tries to sign in with it: like one of those that somebody has.

Accounts are not alike. One has a password from before `authentication.iterations` was changed, another came with one
hash from another server; SCRAM shows both before anybody has proved anything, and PLAIN by the time that it takes. So a
name that nobody has wears the guise of an account: a keyed digest of the name draws it out of those that the domain's
accounts have, each as often as they have it. As accounts get more hashes and iterations, so do these names, one by one.

    guise        for each hash the iterations, 0 for no credentials
    credentials  that no password fits, for a guise; and for a hash that an account lacks
"""

from __future__ import annotations

import hmac
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Final, NamedTuple

from xmpp import scram
from xmpp.jid import domain_of
from xmpp.scram import HASHES, Credentials

DRAWN_BITS: Final = 64

Guise = tuple[int, ...]  # in the order of HASHES


class _Guises(NamedTuple):
    """Those of one domain: the weaker first, so that an upgrade moves no more than what lies between."""

    guises: tuple[Guise, ...]
    up_to: tuple[int, ...]  # how many accounts have this one or one before it


class Nobodies:
    """Makes credentials for who does not exist. `secret` is the cluster's: every router makes the same."""

    def __init__(self, secret: bytes, iterations: int) -> None:
        self._secret = secret
        self._iterations = iterations
        self._by_domain: dict[str, _Guises] = {}
        new = (iterations,) * len(HASHES)
        self._of_new = _Guises((new,), (1,))  # where nobody has an account yet

    def learn(self, found: Iterable[tuple[str, Mapping[str, int], int]]) -> None:
        """What accounts have now: domain, iterations by hash, and how many are so."""
        counts: dict[str, dict[Guise, int]] = defaultdict(dict)
        for domain, iterations, count in found:
            guise = tuple(iterations.get(hash, 0) for hash in HASHES)
            counts[domain][guise] = counts[domain].get(guise, 0) + count
        self._by_domain = {}
        for domain, by_guise in counts.items():
            guises = tuple(sorted(by_guise))
            self._by_domain[domain] = _Guises(guises, tuple(accumulate(by_guise[guise] for guise in guises)))

    def guise(self, bare: str) -> Guise:
        """Of a name that nobody has."""
        guises, up_to = self._by_domain.get(domain_of(bare), self._of_new)
        digest = hmac.digest(self._secret, f"guise\0{bare}".encode(), "sha256")
        drawn = int.from_bytes(digest[: DRAWN_BITS // 8], "big") * up_to[-1] >> DRAWN_BITS
        return guises[bisect_right(up_to, drawn)]

    def credentials(self, bare: str, hash: str = "") -> Credentials:
        """What such a name has for a hash; for none in particular, what is cheapest of what it has."""
        found = dict(zip(HASHES, self.guise(bare), strict=True))
        hash = hash or next(name for name, iterations in found.items() if iterations)
        return self._made(bare, hash, found[hash], found[hash]) if found[hash] else self.missing(bare, hash)

    def missing(self, bare: str, hash: str) -> Credentials:
        """What stands for credentials of a hash that an account lacks, or a name in the guise of such a one."""
        return self._made(bare, hash, 0, self._iterations)

    def _made(self, bare: str, hash: str, of: int, iterations: int) -> Credentials:
        """The salt is another after an upgrade, as that of an account is."""
        return scram.fake_credentials(self._secret, f"{bare}\0{of}", hash, iterations)
