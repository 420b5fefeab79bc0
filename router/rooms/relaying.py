"""IQ stanzas between occupants, and to oneself (XEP-0045, 17.4; XEP-0410)."""

from __future__ import annotations

from typing import Final

from router.pipeline import check_iq
from router.rooms import scene
from router.rooms.room import Occupant, Room
from router.turn import Turn
from xmpp import ns
from xmpp.errors import ItemNotFound, NotAcceptable
from xmpp.stanza import Stanza

_PING: Final = f"{ns.PING} ping"
_OF_ACCOUNTS: Final = frozenset({f"{ns.VCARD} vCard", f"{ns.PUBSUB} pubsub"})


def relay(turn: Turn, room: Room, iq: Stanza, nick: str) -> None:
    """An IQ to an occupant. A request goes to the occupant's last session, or to the account for what accounts answer;
    its id says, in the way there and back, which session has asked."""
    if iq.type in ("result", "error"):
        _answer(turn, room, iq, nick)
        return
    check_iq(iq)
    sender = room.occupants.get(iq.from_ or "")
    if sender is None:
        raise NotAcceptable("Only occupants may send to occupants.")  # XEP-0410, 3.1
    if iq.payload == _PING and nick == sender.nick:
        turn.answer(iq)  # XEP-0410, 3.3
        return
    others = room.nicks.get(nick)
    if not others:
        raise ItemNotFound("There is nobody of that nickname.")
    other = others[-1]
    to = other.bare if iq.payload in _OF_ACCOUNTS else other.jid
    resource = sender.jid.partition("/")[2]
    asked = iq._replace(from_=f"{room.bare}/{sender.nick}", id=f"{len(iq.id or '')}/{iq.id}{resource}")
    scene.send_to(turn, to, asked)


def _answer(turn: Turn, room: Room, iq: Stanza, nick: str) -> None:
    length, _, rest = (iq.id or "").partition("/")
    if not (length.isascii() and length.isdigit() and len(length) < 6):
        return  # nobody here has asked
    id_, resource = rest[: int(length)], rest[int(length) :]
    bare = (iq.from_ or "").partition("/")[0]
    answering: Occupant | None = next(iter(room.sessions_of(bare)), None)
    asker = next((o for o in room.nicks.get(nick, ()) if o.jid.partition("/")[2] == resource), None)
    if answering is not None and asker is not None:
        scene.send_to(turn, asker.jid, iq._replace(from_=f"{room.bare}/{answering.nick}", id=id_))
