"""What clients write down while things break around them: the only evidence that `checker.py` accepts.

One `UserLog` for each user of the bank; times are seconds on the bank's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Key(NamedTuple):
    """A message: `seq` counts what one user of a pair sends to the other. Direction 0 is from side 0 to side 1."""

    pair: int
    direction: int
    seq: int


class Write(NamedTuple):
    """A message was written on a stream. `session` and `stream` count the sender's binds and connections."""

    at: float
    session: int
    stream: int


@dataclass(slots=True)
class Sent:
    """A message, with every time that it was written: again after a resume, and after a new bind with the same id."""

    key: Key
    id: str
    body: str
    writes: list[Write] = field(default_factory=list)
    acked_at: float | None = None  # covered by an h, or by the answer to a ping behind it on the same stream

    @property
    def sessions(self) -> int:
        """In how many sessions it was written: the server may take it for a message each time."""
        return len({write.session for write in self.writes})


class Received(NamedTuple):
    """A message came, live or from the offline store (`is_delayed`)."""

    key: Key
    at: float
    id: str
    body: str
    from_: str
    stanza_id: str | None
    is_delayed: bool
    session: int
    stream: int


class Archived(NamedTuple):
    """A message in the user's own archive, in its order; sent ones, too."""

    key: Key
    archive_id: str
    id: str
    body: str
    from_: str


class Bounced(NamedTuple):
    """The server returned an error for a message."""

    key: Key
    at: float
    condition: str


@dataclass(slots=True)
class Connection:
    """One stream of a user from the moment at which it had a session. `how`: bound or resumed."""

    session: int
    stream: int
    jid: str
    how: str
    began_at: float
    available_at: float | None = None  # its presence came back: now it takes offline messages
    ended_at: float | None = None
    reason: str = ""  # "left" where the user wanted it
    closing_at: float | None = None  # the user has said good-bye


class Absence(NamedTuple):
    """The user was logged out, on purpose."""

    began_at: float
    ended_at: float


@dataclass(slots=True)
class UserLog:
    """Everything one user saw."""

    bare: str
    pair: int
    side: int
    is_managed: bool  # XEP-0198 with resumption; else plain
    sent: dict[Key, Sent] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    bounced: list[Bounced] = field(default_factory=list)
    archive: list[Archived] | None = None  # None: the server has no archive
    connections: list[Connection] = field(default_factory=list)
    absences: list[Absence] = field(default_factory=list)
    failed_resumes: int = 0
    complaints: list[str] = field(default_factory=list)  # what no correct server does, seen while it happened
    is_back: bool = False  # at the end, by itself

    def was_absent(self, begin: float, end: float) -> bool:
        """Whether the user was logged out at some moment between these."""
        return any(absence.began_at < end and absence.ended_at > begin for absence in self.absences)
