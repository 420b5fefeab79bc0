"""A room's vCard, and with it its picture (XEP-0054, XEP-0486; presence of the room itself as in XEP-0153)."""

from __future__ import annotations

from base64 import b64decode
from hashlib import sha1

from router.rooms import scene
from router.rooms.policy import Affiliation
from router.rooms.room import Room
from router.turn import Turn
from storage import rooms, vcards
from xmpp import ns
from xmpp.errors import BadRequest, Forbidden, NotAcceptable
from xmpp.jid import bare_of
from xmpp.stanza import HAS_OTHER, PRESENCE, TO_FULL, Stanza
from xmpp.xml import canonical_element, element, text_of

_PHOTO = f"{{{ns.VCARD}}}PHOTO"
_BINVAL = f"{{{ns.VCARD}}}BINVAL"


def show(turn: Turn, room: Room, iq: Stanza) -> None:
    """XEP-0486, 3.4. A room without one has an empty one (XEP-0054, 3.1)."""

    def found(later: Turn, xml: bytes | None) -> None:
        later.answer(iq, xml if xml is not None else element("vCard", ns.VCARD))

    if room.affiliation(bare_of(iq.from_ or "")) == Affiliation.OUTCAST:
        raise Forbidden("You are banned from this room.")
    turn.fetch(vcards.get, found, room.key)


def publish(turn: Turn, room: Room, iq: Stanza) -> None:
    """XEP-0486, 3.2: owners alone may do that; everybody is told that there is something new."""
    if room.affiliation(bare_of(iq.from_ or "")) != Affiliation.OWNER:
        raise Forbidden("Owners of the room alone may set its picture.")
    card = iq.child(ns.VCARD, "vCard")
    assert card is not None
    xml = canonical_element(card, ns.CLIENT)
    if len(xml) > turn.settings.vcard_bytes:
        raise NotAcceptable("The vCard is too large.")
    try:
        pictures = [b64decode(text_of(photo.find(_BINVAL))) for photo in card.iterfind(_PHOTO)]
    except ValueError as problem:
        raise BadRequest("A picture is not base64.") from problem
    photos = [sha1(picture, usedforsecurity=False).hexdigest() for picture in pictures if picture]
    is_new = photos != room.photos
    room.photos = photos
    turn.write(vcards.put, room.key, xml)
    turn.write(rooms.set_photos, room.key, photos)
    turn.answer(iq)
    scene.tell_codes(turn, room, (104,))
    if is_new:
        scene.tell_everybody(turn, room, update_of(room))


def update_of(room: Room) -> Stanza:
    """The presence by which older clients hear of the picture (XEP-0153, 4.3; XEP-0486, 5.2); empty: there is none."""
    photo = element("photo", None, None, *room.photos[:1])
    inner = element("x", ns.VCARD_UPDATE, None, photo)
    return Stanza(PRESENCE, None, None, room.bare, None, None, TO_FULL | HAS_OTHER, None, None, inner)
