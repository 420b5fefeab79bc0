"""What a room costs with twenty thousand people in it: whatever one of them does, nobody goes through all the others."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from cluster.shards import shard_of
from cluster.wire import Epoch, SessionId
from router.entity import Entity
from router.rooms import joining, speaking
from router.rooms.config import RoomConfig
from router.rooms.fanout import Cast
from router.rooms.policy import Role
from router.rooms.room import Occupant, Room
from router.settings import Settings
from router.turn import Turn
from storage.log import Ids
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.stanza import HAS_BODY, HAS_MUC, Stanza

ROOM = "arena@conference.example.com"
CROWD = 20_000
MOST = 40.0  # how much more it may cost in a crowd than in a room of ten
SETTINGS = Settings(
    domains=frozenset({"example.com"}), room_domains=frozenset({"conference.example.com"}), room_occupants=30_000
)
JOIN = f"<x xmlns='{ns.MUC}'/>".encode()


def room_of(count: int) -> Room:
    room = Room(ROOM, 1, 7, RoomConfig(), 500)
    for number in range(count):
        role = Role.MODERATOR if number < 3 else Role.PARTICIPANT
        room.add(Occupant(f"user{number}@example.com/home", f"nick{number}", role, number + 1, None, number))
    return room


def turn_of(room: Room, stanza: Stanza) -> Turn:
    entity = Entity(ROOM, shard_of(ROOM), Epoch(1), SessionId(1), is_room=True)
    entity.room, entity.key = room, room.key
    return Turn(entity, None, stanza, SETTINGS, time.time(), 1, 1, Ids(), key=(99_999, 1))


def come_in(room: Room) -> Turn:
    presence = stanzas.presence(to=f"{ROOM}/new", from_="new@example.com/home", inner=JOIN, flags=HAS_MUC)
    turn = turn_of(room, presence)
    joining.enter(turn, presence)
    return turn


def go(room: Room) -> Turn:
    presence = stanzas.presence(to=f"{ROOM}/nick9", from_="user9@example.com/home", type="unavailable")
    turn = turn_of(room, presence)
    joining.go(turn, presence)
    return turn


def speak(room: Room) -> Turn:
    message = stanzas.message(
        to=ROOM, from_="user5@example.com/home", type="groupchat", inner=b"<body>hear</body>", flags=HAS_BODY
    )
    turn = turn_of(room, message)
    speaking.to_all(turn, room, message)
    return turn


def casts(turn: Turn) -> list[Cast]:
    return [event for _, event in turn.casts]


def test_who_comes_into_a_crowd_is_shown_its_moderators_and_shown_to_nobody() -> None:
    (event,) = casts(come_in(room_of(CROWD)))
    (answer,) = event.answers
    shown = [stanza.from_ for stanza in answer.stanzas if stanza.kind == stanzas.PRESENCE]
    assert shown == [f"{ROOM}/nick0", f"{ROOM}/nick1", f"{ROOM}/nick2", f"{ROOM}/new"]
    assert [audience for audience, _, stanzas_ in event.parts if stanzas_ and audience != 3] == []


def test_who_is_made_a_moderator_in_a_crowd_is_seen_from_then_on() -> None:
    room = room_of(CROWD)
    room.give_role(room.occupants["user7@example.com/home"], Role.MODERATOR)
    room.give_role(room.occupants["user1@example.com/home"], Role.PARTICIPANT)
    ((answer,),) = [event.answers for event in casts(come_in(room))]
    shown = {stanza.from_ for stanza in answer.stanzas if stanza.kind == stanzas.PRESENCE}
    assert shown == {f"{ROOM}/nick0", f"{ROOM}/nick2", f"{ROOM}/nick7", f"{ROOM}/new"}


@pytest.mark.parametrize("act", [come_in, go, speak])
def test_nobody_goes_through_the_crowd(act: Callable[[Room], Turn]) -> None:
    """A tenth of a microsecond for each of them would be fifty times what it costs in a small room."""
    took = {count: min(_timed(act, room_of(count)) for _ in range(5)) for count in (10, CROWD)}
    assert took[CROWD] < MOST * took[10], took


def _timed(act: Callable[[Room], Turn], room: Room) -> float:
    began_at = time.perf_counter()
    act(room)
    return time.perf_counter() - began_at
