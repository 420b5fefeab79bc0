"""Service discovery of rooms, and of the service that has them (XEP-0045, 6)."""

from __future__ import annotations

from router.rooms import config as configs
from router.rooms import dressing
from router.rooms.policy import Affiliation
from router.rooms.room import Room
from router.turn import Turn
from xmpp import ns
from xmpp.disco import Form, Identity, Info, info_payload, items_payload
from xmpp.errors import ItemNotFound
from xmpp.stanza import Stanza
from xmpp.xml import text_of

FEATURES = (
    ns.DISCO_INFO, ns.DISCO_ITEMS, ns.MUC, ns.OCCUPANT_ID, ns.SID, ns.PING, ns.MAM, ns.MAM_EXTENDED, ns.REGISTER,
    f"{ns.MUC}#stable_id", f"{ns.MUC}#self-ping-optimization", ns.VCARD, ns.RETRACT, ns.RETRACT_TOMBSTONE, ns.MODERATE,
    ns.HATS, ns.COMMANDS, ns.AFFILIATIONS, ns.MENTIONS, f"{ns.MENTIONS}#channel", f"{ns.MENTIONS}#associations",
    f"{ns.MENTIONS}#hats",
)  # fmt: skip


def info(turn: Turn, room: Room, iq: Stanza) -> None:
    """6.4: what a room is. A hidden one tells nothing to who does not know its name, which whoever asks does."""
    query = iq.child(ns.DISCO_INFO, "query")
    assert query is not None
    node = query.get("node")
    if node == "x-roomuser-item":  # 7.12: the nickname that the user has registered
        bare = (iq.from_ or "").partition("/")[0]
        nick = next((nick for nick, owner in room.reserved.items() if owner == bare), None)
        found = (Identity("conference", "text", nick),) if nick is not None else ()
        turn.answer(iq, info_payload(Info(found, ()), node))
        return
    if node:
        raise ItemNotFound("There is no such node.")
    config = room.config
    subject = "" if room.subject is None else text_of(room.subject.child(ns.CLIENT, "subject"))
    fields = configs.info_fields(config, occupants=len(room.nicks), subject=subject)
    if room.photos:
        fields += (("muc#roominfo_avatarhash", tuple(room.photos)),)  # XEP-0486, 3.3
    if hash_ := room.hats.hash():
        fields += (("hats#hash", (hash_,)),)  # XEP-0317, 2
    identity = Identity("conference", "text", config.roomname or room.bare.partition("@")[0])
    form = Form(f"{ns.MUC}#roominfo", fields)
    turn.answer(iq, info_payload(Info((identity,), (*FEATURES, *configs.features(config)), (form,)), node))


def items(turn: Turn, room: Room, iq: Stanza) -> None:
    """6.5: its occupants, for those who may know. Under the node of XEP-0050: its commands."""
    query = iq.child(ns.DISCO_ITEMS, "query")
    assert query is not None
    if query.get("node") == ns.COMMANDS:
        dressing.items(turn, room, iq)
        return
    bare = (iq.from_ or "").partition("/")[0]
    may_know = bool(room.sessions_of(bare)) or (
        room.config.publicroom and not room.config.membersonly and room.affiliation(bare) > Affiliation.OUTCAST
    )
    found = tuple((f"{room.bare}/{nick}", "") for nick in sorted(room.nicks)) if may_know else ()
    turn.answer(iq, items_payload(found))


def ping(turn: Turn, room: Room, iq: Stanza) -> None:
    """XEP-0199 of the room itself."""
    turn.answer(iq)
