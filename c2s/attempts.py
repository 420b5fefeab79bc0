"""How often somebody has tried something lately, by address: an IPv4 address, or the /64 of an IPv6 one. Values alone;
the clock is given."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

MOST: Final = 10_000  # addresses remembered; then those that tried longest ago are forgotten
WINDOW_S: Final = 3_600.0


class Attempts:
    """At most `most` attempts of one address in an hour; 0: any number."""

    __slots__ = ("_by_address", "_most", "_now")

    def __init__(self, most: int, now: Callable[[], float]) -> None:
        self._most = most
        self._now = now
        self._by_address: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, address: str) -> bool:
        """Count an attempt; False where it is one too many."""
        if not self._most:
            return True
        now, name = self._now(), network_of(address)
        times = self._by_address.setdefault(name, deque())
        self._by_address.move_to_end(name)
        while times and times[0] <= now - WINDOW_S:
            times.popleft()
        if len(self._by_address) > MOST:
            self._by_address.popitem(last=False)
        if len(times) >= self._most:
            return False
        times.append(now)
        return True


def network_of(address: str) -> str:
    """The address itself, or the /64 of one of IPv6, which is what one host has."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
