"""What the owner of a room tells the routers of its occupants, and what it tells them again."""

from __future__ import annotations

import pytest

from cluster.shards import ShardMap, shard_of
from cluster.wire import CAST, CHECK, REPLAY, Envelope, Epoch, Incarnation, SessionId, Shard
from router.entity import Entity
from router.rooms.config import RoomConfig
from router.rooms.fanout import ALL, ONLY, Answer, Cast, Fanout, Part, Replay
from router.rooms.policy import Role
from router.rooms.room import TAIL, Occupant, Room
from xmpp import stanza as stanzas

ROOM = "verona@conference.example.com"
HERE, THERE = Incarnation("router-1#1"), Incarnation("router-2#1")
HELLO = stanzas.message(to=None, from_=f"{ROOM}/romeo", type="groupchat")
PART: Part = (ALL, (), (HELLO,))


class World:
    """A room of two local occupants, whose accounts are owned by two routers."""

    def __init__(self) -> None:
        self.map = ShardMap()
        self.sent: list[tuple[Incarnation, Envelope]] = []
        self.is_linked = True
        self.fanout = Fanout(self.map, self.send)
        self.entity = Entity(ROOM, shard_of(ROOM), Epoch(5), SessionId(1), is_room=True)
        self.room = self.entity.room = Room(ROOM, 1, 7, RoomConfig(), 100)
        self.romeo = self.occupant("romeo", 1, HERE)
        self.juliet = self.occupant("juliet", 2, THERE)

    def send(self, to: Incarnation, envelope: Envelope) -> bool:
        self.sent.append((to, envelope))
        return self.is_linked

    def occupant(self, name: str, sid: int, router: Incarnation) -> Occupant:
        bare = f"{name}@example.com"
        self.map.update(shard_of(bare), Epoch(1), router)
        occupant = Occupant(f"{bare}/home", name, Role.PARTICIPANT, sid, None, sid)
        occupant.since = 10  # comes in by the first event of each test
        self.room.add(occupant)
        return occupant

    def out(self, *what: Cast | Replay) -> list[tuple[Incarnation, Envelope]]:
        """What leaves when these are committed."""
        self.sent.clear()
        for one in what:
            self.fanout.let_out(self.entity, self.room, one)
        return list(self.sent)


@pytest.fixture
def world() -> World:
    return World()


def test_each_router_is_told_once_with_the_event_before_it(world: World) -> None:
    first = world.out(Cast(10, (PART,)))
    assert [(to, envelope[4:6]) for to, envelope in first] == [(HERE, (0, 10)), (THERE, (0, 10))]
    second = world.out(Cast(11, (PART,)), Cast(None, (PART,)))
    assert [envelope[4:6] for _, envelope in second] == [(10, 11), (10, 11), (11, None), (11, None)]
    assert (world.room.last, [cast.id for cast in world.room.tail]) == (11, [10, 11])


def test_an_answer_goes_to_its_own_router_alone(world: World) -> None:
    sent = world.out(Cast(10, (), (Answer(world.juliet.jid, 2, (HELLO,)),)))
    assert [(to, envelope[6]) for to, envelope in sent] == [(HERE, []), (THERE, [(ONLY, (2,), (HELLO,))])]


def test_a_router_that_is_asked_gets_nothing_until_it_has_answered(world: World) -> None:
    world.out(Cast(10, (PART,)))
    world.sent.clear()
    world.fanout.owners_changed([world.entity], [Shard(shard_of(world.juliet.bare))])
    assert world.sent == [(THERE, (CHECK, world.entity.shard, 5, ROOM, [(2, world.juliet.jid)]))]
    assert [to for to, _ in world.out(Cast(11, (PART,)))] == [HERE]
    ((to, envelope),) = world.out(Replay(THERE, {}, 10, 10, (), ((2, 2),)))
    assert (to, envelope) == (THERE, (REPLAY, world.entity.shard, 5, ROOM, 11, [(11, (PART,))], [], ((2, 2),)))
    assert [(to, e[0], e[4]) for to, e in world.out(Cast(12, (PART,)))] == [(HERE, CAST, 11), (THERE, CAST, 11)]


def test_a_replay_has_what_was_let_out_while_it_waited(world: World) -> None:
    world.fanout.check(world.entity, [world.juliet])
    old: Part = (ALL, (), (HELLO._replace(id="old"),))
    sent = world.out(Cast(11, (PART,)), Replay(THERE, {10: (old,)}, 9, 10, (), ()))
    assert sent[-1][1][5] == [(10, (old,)), (11, (PART,))]


def test_what_memory_has_lost_is_asked_for_anew(world: World) -> None:
    world.fanout.check(world.entity, [world.juliet])
    casts = [Cast(10 + number, (PART,)) for number in range(TAIL + 2)]
    sent = world.out(*casts, Replay(THERE, {}, 9, 9, (), ()))
    assert sent[-1] == (THERE, (CHECK, world.entity.shard, 5, ROOM, [(2, world.juliet.jid)]))


def test_who_does_not_answer_is_asked_again(world: World) -> None:
    world.fanout.check(world.entity, [world.romeo])
    world.sent.clear()
    world.fanout.tick({ROOM: world.entity})
    assert [(to, envelope[0]) for to, envelope in world.sent] == [(HERE, CHECK)]
    world.out(Replay(HERE, {}, 0, 0, (), ((1, 2),)))
    world.sent.clear()
    world.fanout.tick({ROOM: world.entity})
    assert world.sent == []


def test_a_router_without_occupants_is_told_no_more_once_it_says_so(world: World) -> None:
    world.out(Cast(10, (PART,)))
    world.room.remove(world.juliet)
    assert [to for to, _ in world.out(Cast(11, (PART,)))] == [HERE, THERE], "it hears that she has gone"
    world.fanout.missed(world.entity, THERE)
    assert [to for to, _ in world.out(Cast(12, (PART,)))] == [HERE]


def test_who_has_come_to_a_router_since_it_answered_is_still_asked_for(world: World) -> None:
    nurse = world.occupant("nurse", 3, THERE)
    world.fanout.check(world.entity, [world.juliet, nurse])
    world.out(Replay(THERE, {}, 0, 0, (), ((2, 2),)))
    assert list(world.room.unchecked) == [nurse.jid], "the answer knew nothing of her"
    assert [to for to, _ in world.out(Cast(10, (PART,)))] == [HERE]
    world.out(Replay(THERE, {}, 0, 0, (), ((2, 2), (3, 2))))
    assert not world.room.unchecked
    assert [to for to, _ in world.out(Cast(11, (PART,)))] == [HERE, THERE]


def test_who_has_gone_to_another_router_since_is_still_asked_for(world: World) -> None:
    world.fanout.check(world.entity, [world.juliet])
    answer = Replay(THERE, {}, 0, 0, (), ((2, 2),))
    world.map.update(shard_of(world.juliet.bare), Epoch(2), HERE)
    world.out(answer)
    assert list(world.room.unchecked) == [world.juliet.jid], "the answer was of where she is no more"


def test_a_replay_that_no_link_takes_is_none(world: World) -> None:
    world.fanout.check(world.entity, [world.juliet])
    world.is_linked = False
    world.out(Replay(THERE, {}, 0, 0, (), ((2, 2),)))
    assert list(world.room.unchecked) == [world.juliet.jid]
    assert THERE not in world.room.feeds


def test_a_router_of_which_nothing_is_known_is_asked_before_it_is_told(world: World) -> None:
    world.out(Cast(10, (PART,)))
    world.room.feeds.clear()
    assert {(to, envelope[0]) for to, envelope in world.out(Cast(11, (PART,)))} == {(HERE, CHECK), (THERE, CHECK)}
