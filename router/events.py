"""What happens to an entity besides stanzas; features subscribe by type (`Feature.on_event`)."""

from __future__ import annotations

from typing import NamedTuple

from router.entity import Session
from xmpp.stanza import Stanza


class SessionBound(NamedTuple):
    """A resource was bound and its client has been told."""

    session: Session


class SessionClosed(NamedTuple):
    """A session is over; it is already gone from `entity.sessions`. `reason` is a word for the log."""

    session: Session
    reason: str


class BecameAvailable(NamedTuple):
    """Initial presence was sent (RFC 6121, 4.2.2); contacts have been told by then."""

    session: Session


class BecameUnavailable(NamedTuple):
    """The session sent unavailable presence, or ended while available."""

    session: Session
    presence: Stanza  # the unavailable presence, with its status if it had one


class AccountRemoved(NamedTuple):
    """The account is being deleted in this turn; sessions are still there."""


Event = SessionBound | SessionClosed | BecameAvailable | BecameUnavailable | AccountRemoved
