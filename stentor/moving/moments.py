"""Moments of an archive, and of messages that wait: microseconds since the Unix epoch."""

from __future__ import annotations

from stentor.moving.trees import Tree
from xmpp import ns
from xmpp.timestamp import parse_moment

LEGACY_DELAY = "jabber:x:delay"  # XEP-0091


class InOrder:
    """Servers that keep seconds give one to many messages: each gets a microsecond of its own, in the order in which
    they are kept, so that they keep their order, and are the same each time they are read."""

    def __init__(self) -> None:
        self._last = -1
        self._times = 0

    def next(self, at: int) -> int:
        """When the next message was, which its server says was at this moment."""
        self._times = self._times + 1 if at == self._last else 0
        self._last = at
        return at + self._times


def of_seconds(seconds: float) -> int:
    """Unix seconds; raises ValueError for what is none."""
    try:
        return round(seconds * 1_000_000)
    except (OverflowError, ValueError):
        raise ValueError(f"{seconds} is no moment") from None


def take_delay(message: Tree) -> int | None:
    """When a message was sent, by what a server said that kept it (XEP-0203), which is taken out of it. The last such
    element is the one that was added last. None where there is none."""
    for child in reversed([*message.elements("delay", ns.DELAY), *message.elements("x", LEGACY_DELAY)]):
        try:
            at = of_stamp(child.attributes.get("stamp", ""))
        except ValueError:
            continue
        message.children = [other for other in message.children if other is not child]
        return at
    return None


def of_stamp(stamp: str) -> int:
    """A moment as XEP-0082 or XEP-0091 write it. Raises ValueError."""
    if len(stamp) == 17 and stamp[8] == "T" and "-" not in stamp:  # CCYYMMDDThh:mm:ss
        stamp = f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}{stamp[8:]}Z"
    return parse_moment(stamp)
