"""Users of other servers who have gone without a word: their server is away for good, or has forgotten them. A room
asks those whom it has not heard for a while (XEP-0199), and lets go whoever cannot be reached."""

from __future__ import annotations

from functools import partial

from router.rooms import scene
from router.rooms.room import Room
from router.turn import Turn
from xmpp import ns
from xmpp.stanza import IQ, Stanza
from xmpp.xml import element

_PING = element("ping", ns.PING)


def begin(turn: Turn, room: Room) -> None:
    """Look after a while, and again, as long as there is anybody of another server."""
    if room.has_remote and not room.is_watched:
        room.is_watched = True
        turn.later(turn.settings.rooms_ask_s, partial(_look, room))


def _look(room: Room, turn: Turn) -> None:
    room.is_watched = False
    if turn.entity.room is not room:
        return
    silent_since = turn.now - turn.settings.rooms_ask_s
    for occupant in room.remote():
        if occupant.heard_at <= silent_since:
            ping = Stanza(
                IQ, "get", None, room.bare, f"ask-{turn.next_id():x}", None, 0, f"{ns.PING} ping", None, _PING
            )
            scene.send_to(turn, occupant.jid, ping)
    begin(turn, room)
