"""One direction of one link between two incarnations (docs/delivery.md, rules 1 to 3). No sockets, no clock.

Frames are numbered from 1 in each *generation*. The receiver takes the next number only; what is not acknowledged is
sent again. So cuts become delays, and what the layer above sees is in order and once, until a link is given up: then
a higher generation begins at 1, and the layer above offers again what matters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from cluster.wire import Ack, Envelope, Incarnation, pack_frame

RESEND_S: Final = 0.5
FULL_TOO_LONG_S: Final = 10.0
WINDOW_FRAMES: Final = 1_000
WINDOW_BYTES: Final = 64 * 1024 * 1024


class SendLink:
    """What was sent to a peer and is not acknowledged yet."""

    __slots__ = (
        "_bytes",
        "_full_since",
        "_seq",
        "_unacknowledged",
        "generation",
        "receiver",
        "sender",
        "window_frames",
    )

    def __init__(
        self, sender: Incarnation, receiver: Incarnation, generation: int, window_frames: int = WINDOW_FRAMES
    ) -> None:
        self.sender = sender
        self.receiver = receiver
        self.generation = generation
        self.window_frames = window_frames
        self._seq = 0
        self._bytes = 0
        self._unacknowledged: deque[tuple[int, float, bytes, int]] = deque()  # seq, sent at, frame, envelopes
        self._full_since: float | None = None

    @property
    def last_seq(self) -> int:
        """The number of the last frame."""
        return self._seq

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be sent until something is acknowledged."""
        return len(self._unacknowledged) >= self.window_frames or self._bytes >= WINDOW_BYTES

    @property
    def unacknowledged(self) -> int:
        """Envelopes sent and not acknowledged."""
        return sum(item[3] for item in self._unacknowledged)

    def offer(self, envelopes: Sequence[Envelope], ack: Ack, now: float) -> bytes:
        """The next frame, to be sent. `ack` acknowledges the other direction."""
        self._seq += 1
        frame = pack_frame(self.sender, self.generation, self.receiver, self._seq, ack, envelopes)
        self._unacknowledged.append((self._seq, now, frame, len(envelopes)))
        self._bytes += len(frame)
        if self._full_since is None and self.is_full:
            self._full_since = now
        return frame

    def sign_of_life(self, ack: Ack) -> bytes:
        """A frame that carries nothing but an acknowledgement."""
        return pack_frame(self.sender, self.generation, self.receiver, 0, ack, ())

    def acknowledged(self, ack: Ack) -> bool:
        """The peer has everything up to `ack`, if that speaks of this generation; True if it is news."""
        generation, last = ack
        if generation != self.generation:
            return False
        unacknowledged = self._unacknowledged
        is_news = False
        while unacknowledged and unacknowledged[0][0] <= last:
            self._bytes -= len(unacknowledged.popleft()[2])
            is_news = True
        if is_news and not self.is_full:
            self._full_since = None
        return is_news

    def resend(self, now: float) -> list[bytes]:
        """Frames that have waited too long for their acknowledgement: all, in order, since one may have been lost."""
        if not self._unacknowledged or now - self._unacknowledged[0][1] < RESEND_S:
            return []
        self._unacknowledged = deque((seq, now, frame, count) for seq, _, frame, count in self._unacknowledged)
        return [frame for _, _, frame, _ in self._unacknowledged]

    def is_given_up(self, now: float) -> bool:
        """Rule 2: the window has been full for too long."""
        return self._full_since is not None and now - self._full_since >= FULL_TOO_LONG_S


class ReceiveLink:
    """What was received from a peer."""

    __slots__ = ("generation", "last")

    def __init__(self) -> None:
        self.generation = 0
        self.last = 0

    @property
    def ack(self) -> Ack:
        """What the peer may forget."""
        return (self.generation, self.last)

    def accept(self, generation: int, seq: int) -> bool:
        """Whether a frame is the next one. A higher generation starts at 1; a lower one is over (rule 2)."""
        if generation != self.generation:
            if generation < self.generation:
                return False
            self.generation = generation
            self.last = 0
        if seq != self.last + 1:
            return False
        self.last = seq
        return True
