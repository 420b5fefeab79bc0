"""What occupants see of each other."""

from __future__ import annotations

from router.rooms import scene
from router.rooms.config import RoomConfig
from router.rooms.fanout import ALL, MODERATORS, ONLY, OTHERS
from router.rooms.policy import Affiliation, Role
from router.rooms.room import Occupant, Room
from router.rooms.scene import Frame

ROOM = "verona@conference.example.com"


def room_of(*roles: Role, config: RoomConfig | None = None, crowd: int = 100) -> Room:
    room = Room(ROOM, 1, 7, config or RoomConfig(), crowd)
    for number, role in enumerate(roles, 1):
        room.add(Occupant(f"user{number}@example.com/home", f"nick{number}", role, number, None, number))
    return room


def first(room: Room) -> Occupant:
    return next(iter(room.occupants.values()))


def test_moderators_see_addresses_and_others_do_not() -> None:
    room = room_of(Role.PARTICIPANT, Role.MODERATOR)
    parts = {audience: (sids, stanzas[0]) for audience, sids, stanzas in scene.parts_of(room, first(room), (Frame(),))}
    assert set(parts) == {MODERATORS, OTHERS, ONLY}
    assert b"user1@example.com/home" in parts[MODERATORS][1].inner
    assert b"user1@example.com" not in parts[OTHERS][1].inner
    assert (parts[MODERATORS][0], parts[OTHERS][0], parts[ONLY][0]) == ((1,), (1,), (1,))
    assert b'code="110"' in parts[ONLY][1].inner
    assert b'code="110"' not in parts[MODERATORS][1].inner


def test_where_anyone_sees_addresses_all_see_the_same() -> None:
    room = room_of(Role.PARTICIPANT, config=RoomConfig(whois="anyone"))
    audiences = [audience for audience, _, _ in scene.parts_of(room, first(room), (Frame(),))]
    assert audiences == [ALL, ONLY]


def test_in_a_crowd_moderators_alone_are_shown_and_everybody_sees_themselves() -> None:
    crowd = room_of(Role.PARTICIPANT, Role.MODERATOR, crowd=1)
    participant, moderator = crowd.occupants.values()
    assert [part[0] for part in scene.parts_of(crowd, participant, (Frame(),))] == [ONLY]
    assert [part[0] for part in scene.parts_of(crowd, moderator, (Frame(),))] == [MODERATORS, OTHERS, ONLY]


def test_roles_that_are_not_broadcast_are_not_shown() -> None:
    room = room_of(Role.VISITOR, config=RoomConfig(presencebroadcast=("moderator",)))
    assert [part[0] for part in scene.parts_of(room, first(room), (Frame(),))] == [ONLY]


def test_an_occupant_id_is_the_same_for_a_user_and_another_in_another_room() -> None:
    room, other = room_of(), Room(ROOM, 2, 8, RoomConfig(), 100)
    assert room.occupant_id("romeo@example.com") == room_of().occupant_id("romeo@example.com")
    assert room.occupant_id("romeo@example.com") != room.occupant_id("juliet@example.com")
    assert room.occupant_id("romeo@example.com") != other.occupant_id("romeo@example.com")


def test_a_room_counts_the_shards_of_its_local_occupants() -> None:
    room = room_of(Role.PARTICIPANT, Role.PARTICIPANT)
    room.add(Occupant("friar@verona.example/cell", "friar", Role.PARTICIPANT, 0, None, 9))
    assert room.shards.total() == 2
    assert [occupant.nick for occupant in room.remote()] == ["friar"]
    room.remove(first(room))
    assert room.shards.total() == 1
    assert set(room.left) == {"user1@example.com/home"}
    assert room.affiliation("nobody@example.com") == Affiliation.NONE
