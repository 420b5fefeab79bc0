"""What happens to an entity besides stanzas; features subscribe by type (`Feature.on_event`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lxml import etree

from router.entity import Session
from xmpp.stanza import Stanza


class SessionBound(NamedTuple):
    """A resource is being bound; its client is told when this turn is committed. `facts`: what its c2s said of the
    stream, and what the client wants with it (c2s/sasl2.py)."""

    session: Session
    facts: Mapping[str, Any]


class SessionClosed(NamedTuple):
    """A session is over; it is already gone from `entity.sessions`. `reason` is a word for the log."""

    session: Session
    reason: str


class LeftUnread(NamedTuple):
    """A session has ended, and nothing more is on its way to it: `session.unacknowledged` is what its client never
    had."""

    session: Session


class Recovered(NamedTuple):
    """A session was taken over whose last owner had something under way for it (entity.py, UNFINISHED)."""

    session: Session


class SaidInRoom(NamedTuple):
    """Something was said in a room of which the account is a member, while no session of it was there."""

    room: str
    message: Stanza
    id: int  # of the account's row


class HeardInRoom(NamedTuple):
    """Something was said in a room where a session is that has no stream at the moment."""

    session: Session
    message: Stanza


class WereRead(NamedTuple):
    """Clients of sessions that are over had these rows of the account's log; their c2s could not say so before."""

    ids: tuple[int, ...]


class BecameAvailable(NamedTuple):
    """Initial presence was sent (RFC 6121, 4.2.2); contacts have been told by then."""

    session: Session


class SentPresence(NamedTuple):
    """Available presence was sent, initial or not, and everybody has been told. `asked`: the nodes of which contacts
    were asked for the newest items together with their presence."""

    session: Session
    asked: frozenset[str]


class BecameReachable(NamedTuple):
    """The priority of an available session is not negative any more: it takes messages to the bare JID from now on."""

    session: Session


class BecameUnavailable(NamedTuple):
    """The session sent unavailable presence, or ended while available."""

    session: Session
    presence: Stanza  # the unavailable presence, with its status if it had one


class NodeChanged(NamedTuple):
    """Something was published at a node of the account (XEP-0163), or taken away; or the node has gone."""

    name: str


class Reported(NamedTuple):
    """While blocking, the account's user has reported whom (XEP-0377): `<report/>`."""

    jid: str
    report: etree._Element


class AccountRemoved(NamedTuple):
    """The account is being deleted in this turn; sessions are still there."""


Event = (
    SessionBound
    | SessionClosed
    | LeftUnread
    | Recovered
    | SaidInRoom
    | HeardInRoom
    | WereRead
    | BecameAvailable
    | SentPresence
    | BecameReachable
    | BecameUnavailable
    | NodeChanged
    | Reported
    | AccountRemoved
)
