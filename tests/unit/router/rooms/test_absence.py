"""Who of those that are away gets what somebody has said (XEP-0452, XEP-0372, XEP-0513)."""

from __future__ import annotations

import pytest

from router.rooms import absence
from router.rooms.config import RoomConfig
from router.rooms.hats import Hat
from router.rooms.policy import Affiliation, Role
from router.rooms.room import Occupant, Room
from router.settings import Settings
from xmpp import stanza as stanzas
from xmpp.stanza import HAS_BODY, HAS_OTHER

ROOM = "verona@conference.example.com"
ROMEO, JULIET, NURSE, FRIAR = (f"{name}@example.com" for name in ("romeo", "juliet", "nurse", "friar"))
FAR = "paris@far.example"
SETTINGS = Settings(domains=frozenset({"example.com"}))
MENTIONS = "urn:xmpp:mentions:0"


def room_of(config: RoomConfig, role: Role = Role.PARTICIPANT) -> Room:
    """Romeo is in it, everybody else is away; the friar is nothing to it."""
    room = Room(ROOM, 1, 7, config, 100)
    for version, (bare, affiliation) in enumerate(
        (
            (ROMEO, Affiliation.OWNER),
            (JULIET, Affiliation.MEMBER),
            (NURSE, Affiliation.ADMIN),
            (FAR, Affiliation.MEMBER),
        )
    ):
        room.affiliate(bare, affiliation, version + 1)
    room.reserved["Julie"] = JULIET
    room.hats.make(Hat("urn:x:nurse", "Nurse"))
    room.hats.give(NURSE, "urn:x:nurse")
    room.add(Occupant(f"{ROMEO}/home", "romeo", role, 1, None, 5))
    return room


def told(room: Room, inner: str, settings: Settings = SETTINGS) -> list[tuple[str, ...]]:
    said = stanzas.message(
        to=None,
        from_=f"{ROOM}/romeo",
        type="groupchat",
        inner=f"<body>x</body>{inner}".encode(),
        flags=HAS_BODY | HAS_OTHER,
    )
    return [recipients for _, recipients in absence.sends_of(room, settings, said, 1 << 40)]


@pytest.mark.parametrize(
    ("config", "is_kept"),
    [
        (RoomConfig(), False),
        (RoomConfig(membersonly=True), True),
        (RoomConfig(keepformembers="always"), True),
        (RoomConfig(membersonly=True, keepformembers="never"), False),
        (RoomConfig(membersonly=True, enablelogging=False), False),
    ],
)
def test_local_members_who_are_away_get_everything_where_the_room_is_so(config: RoomConfig, is_kept: bool) -> None:
    assert told(room_of(config), "") == ([(JULIET, NURSE)] if is_kept else [])
    assert told(room_of(config), "", Settings(domains=SETTINGS.domains, rooms_keep_for_members=False)) == []


@pytest.mark.parametrize(
    ("inner", "mentioned"),
    [
        (f"<reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:{JULIET}'/>", {JULIET}),
        (f"<reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:{JULIET}/phone?message'/>", {JULIET}),
        (f"<reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:{ROOM}/Julie'/>", {JULIET}),
        (f"<reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:{ROOM}/nobody'/>", set()),
        (f"<reference xmlns='urn:xmpp:reference:0' type='data' uri='xmpp:{JULIET}'/>", set()),
        ("<reference xmlns='urn:xmpp:reference:0' type='mention' uri='https://example.com'/>", set()),
        ("<reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:@@'/>", set()),
        (f"<reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:{FRIAR}'/>", set()),
        (f"<reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:{ROMEO}'/>", set()),
        (f"<reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:{FAR}'/>", {FAR}),
        (f"<mention xmlns='{MENTIONS}' jid='{JULIET}/phone'/>", {JULIET}),
        (f"<mention xmlns='{MENTIONS}' jid='{JULIET}'><noping/></mention>", set()),
        (f"<mention xmlns='{MENTIONS}' jid='{JULIET}'><active/></mention>", set()),
        (f"<mention xmlns='{MENTIONS}' mentions='{MENTIONS}#admin'/>", {NURSE}),
        (f"<mention xmlns='{MENTIONS}' mentions='{MENTIONS}#member'/>", {JULIET, FAR}),
        (f"<mention xmlns='{MENTIONS}' mentions='{MENTIONS}#hats' uri='urn:x:nurse'/>", {NURSE}),
        (f"<mention xmlns='{MENTIONS}' mentions='{MENTIONS}#visitors'/>", set()),
        (f"<mention xmlns='{MENTIONS}' mentions='{MENTIONS}#channel'/>", set()),  # for moderators, at first
    ],
)
def test_who_is_mentioned(inner: str, mentioned: set[str]) -> None:
    assert {bare for (bare,) in told(room_of(RoomConfig()), inner)} == mentioned
    assert told(room_of(RoomConfig(forwardmentions=False)), inner) == []


def test_a_moderator_mentions_everybody() -> None:
    everybody = f"<mention xmlns='{MENTIONS}' mentions='{MENTIONS}#channel'/>"
    assert {bare for (bare,) in told(room_of(RoomConfig(), Role.MODERATOR), everybody)} == {JULIET, NURSE, FAR}


def test_an_occupant_id_names_somebody_too() -> None:
    room = room_of(RoomConfig())
    mention = f"<mention xmlns='{MENTIONS}' occupantid='{room.occupant_id(NURSE)}'/>"
    assert told(room, mention) == [(NURSE,)]
    assert told(room_of(RoomConfig(mentions_individual="none")), mention) == []


def test_too_many_mentions_are_none() -> None:
    mention = f"<mention xmlns='{MENTIONS}' jid='{JULIET}'/>"
    assert told(room_of(RoomConfig(mentions_count=2)), mention * 2) == [(JULIET,)]
    assert told(room_of(RoomConfig(mentions_count=2)), mention * 3) == []
