"""The domains that have rooms, as services: what they are, and which rooms there are (XEP-0045, 6.2 and 6.3). The rooms
themselves are in `router/rooms/`."""

from __future__ import annotations

from typing import Final

from router.feature import At, Feature
from router.turn import Turn
from storage import rooms
from storage.rooms import PublicRoom
from xmpp import ns, rsm
from xmpp.disco import Identity, Info, info_payload
from xmpp.errors import ItemNotFound
from xmpp.stanza import Stanza
from xmpp.xml import element

feature = Feature(
    "rooms",
    xep=(
        (45, "1.35.5"), (50, "1.3.0"), (249, "1.2"), (317, "0.3.1"), (372, "0.5.0"), (410, "1.1.0"),
        (421, "1.0.1"), (425, "0.3.0"), (452, "0.2.2"), (463, "0.2.0"),
        (486, "0.1.0"), (500, "0.1.1"), (513, "0.1.0"),
    ),
)  # fmt: skip

LISTED: Final = 100  # rooms in one answer
_FEATURES: Final = (
    ns.CHANNEL_SEARCH, ns.DISCO_INFO, ns.DISCO_ITEMS, ns.MUC, ns.OCCUPANT_ID, ns.PING, ns.ROOM_ACTIVITY, ns.RSM,
    ns.VCARD,
)  # fmt: skip


@feature.on_iq("get", ns.DISCO_INFO, "query", at=At.ROOMS)
def info(turn: Turn, iq: Stanza) -> None:
    """6.2."""
    query = iq.child(ns.DISCO_INFO, "query")
    assert query is not None
    if query.get("node"):
        raise ItemNotFound("There is no such node.")
    turn.answer(iq, info_payload(Info((Identity("conference", "text", "Rooms"),), _FEATURES)))


@feature.on_iq("get", ns.DISCO_ITEMS, "query", at=At.ROOMS)
def items(turn: Turn, iq: Stanza) -> None:
    """6.3: the rooms that want to be found, a page at a time (XEP-0059)."""
    query = iq.child(ns.DISCO_ITEMS, "query")
    assert query is not None
    assert iq.to is not None
    if query.get("node"):
        raise ItemNotFound("There is no such node.")
    page = rsm.parse(query)
    most = LISTED if page is None or page.max is None else min(page.max, LISTED)
    after = page.after if page is not None and page.after is not None else ""

    def found(later: Turn, listed: list[PublicRoom]) -> None:
        shown, is_all = listed[:most], len(listed) <= most
        written = [
            element(
                "item", None, {"jid": room.jid, "name": f"{room.name or room.jid.partition('@')[0]} ({room.occupants})"}
            )
            for room in shown
        ]
        set_ = b""
        if shown and not (is_all and not after):
            set_ = rsm.build(first=shown[0].jid, last=shown[-1].jid)
        later.answer(iq, element("query", ns.DISCO_ITEMS, None, *written, set_))

    turn.fetch(rooms.public, found, iq.to, after, most + 1)


@feature.on_iq("get", ns.PING, "ping", at=At.ROOMS)
def ping(turn: Turn, iq: Stanza) -> None:
    """XEP-0199."""
    turn.answer(iq)
