"""The archive of a room (XEP-0313, 6.1.1 and 8): what was said to everybody, for those who may be in the room."""

from __future__ import annotations

from router.archive_query import Reading
from router.features import archive
from router.rooms.policy import Affiliation
from router.rooms.room import Room
from router.turn import Turn
from xmpp.errors import Forbidden
from xmpp.jid import bare_of
from xmpp.stanza import Stanza


def _check(room: Room, iq: Stanza) -> None:
    bare = bare_of(iq.from_ or "")
    affiliation = room.affiliation(bare)
    least = Affiliation.MEMBER if room.config.membersonly or room.config.passwordprotectedroom else Affiliation.NONE
    if affiliation == Affiliation.OUTCAST or (affiliation < least and not room.sessions_of(bare)):
        raise Forbidden("The archive is for those who may be in the room.")


def tell_fields(turn: Turn, room: Room, iq: Stanza) -> None:
    """4.1.5: the form that a query may have."""
    archive.tell_fields(turn, iq)


def query(turn: Turn, room: Room, iq: Stanza) -> None:
    """4: a page of the archive."""
    _check(room, iq)
    Reading(turn, iq).begin(turn)


def tell_ends(turn: Turn, room: Room, iq: Stanza) -> None:
    """5: the first and the last message."""
    _check(room, iq)
    archive.tell_ends(turn, iq)
