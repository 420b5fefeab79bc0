"""The arithmetic of stream management (XEP-0198): counters that wrap at 2^32 on the wire and nowhere else.

The stream's half is `c2s/management.py`, the owner's `router/resumption.py`.
"""

from __future__ import annotations

from typing import Final

MODULUS: Final = 2**32


def wrapped(number: int, base: int) -> int:
    """How the wire writes a number that counts from `base` (XEP-0198, 4: "h" is modulo 2^32)."""
    return (number - base) % MODULUS


def unwrapped(h: int, acknowledged: int, base: int) -> int:
    """The number that `h` stands for: the nearest one at or above what is acknowledged already. One that seems far
    ahead is an old one, come late: it says nothing new."""
    ahead = (h - wrapped(acknowledged, base)) % MODULUS
    return acknowledged if ahead >= MODULUS // 2 else acknowledged + ahead


def too_high(reached: int, sent: int) -> bool:
    """Whether a peer acknowledges what was never sent (XEP-0198, 4: <handled-count-too-high/>)."""
    return reached > sent


def parse_h(value: str | None) -> int | None:
    """The value of an `h` attribute (xs:unsignedInt), None where it is not one."""
    if value is None or not (value.isascii() and value.isdigit()) or len(value) > 10:
        return None
    number = int(value)
    return number if number < MODULUS else None
