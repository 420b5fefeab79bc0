"""What a router keeps of rooms in which its sessions are: each event once, none left out, whoever dies."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.shards import ShardMap, shard_of
from cluster.wire import CAST, CHECK, MARKS, REPLAY, Envelope, Epoch, Incarnation, SessionId
from router.entity import Entity, Session
from router.outbox import Outbox
from router.rooms.fanout import ALL, MODERATORS, ONLY
from router.rooms.mirror import Mirrors
from router.rooms.policy import Role
from router.tracing import RouterTracing
from xmpp import stanza as stanzas
from xmpp.stanza import Stanza

ROOM = "verona@conference.example.com"
ROMEO, JULIET = "romeo@example.com", "juliet@example.com"
THERE = Incarnation("router-2#1")
SHARD = shard_of(ROOM)


class Owner:
    """What `Mirrors` needs of one."""

    def __init__(self) -> None:
        self.map = ShardMap()
        self.map.update(SHARD, Epoch(5), THERE)
        self.tenures: list[Epoch | None] = [Epoch(1)] * 1024
        self.entities: dict[str, Entity] = {}
        self.sessions: dict[SessionId, Session] = {}
        self.outbox = Outbox(self.map, lambda to, envelope: True, lambda session, n: None)
        self.sent: list[Envelope] = []
        self.unseen: list[tuple[Session, Stanza]] = []  # given to sessions that have no stream
        self.tracing: RouterTracing | None = None
        self.mirrors = Mirrors(self, self.send)

    def send(self, to: Incarnation, envelope: Envelope) -> bool:
        self.sent.append(envelope)
        return True

    def heard(self, session: Session, message: Stanza) -> None:
        self.unseen.append((session, message))

    def session(self, bare: str, sid: int) -> Session:
        entity = self.entities[bare] = Entity(bare, shard_of(bare), Epoch(1), SessionId(1))
        session = self.sessions[SessionId(sid)] = Session(entity, SessionId(sid), "home", 0.0)
        session.is_adopted = True
        return session

    def cast(self, prev: int, id_: int | None, *parts: Any, members: Any = (), epoch: int = 5) -> None:
        self.mirrors.receive(THERE, CAST, (SHARD, epoch, ROOM, prev, id_, parts, members))

    def replay(self, last: int, events: Any, answers: Any, members: Any) -> None:
        self.mirrors.receive(THERE, REPLAY, (SHARD, 5, ROOM, last, events, answers, members))

    def check(self, *sessions: Session) -> None:
        asked = [(session.sid, session.jid) for session in sessions]
        self.mirrors.receive(THERE, CHECK, (SHARD, 5, ROOM, asked))


def test_what_a_session_without_a_stream_is_given_is_told() -> None:
    """Its device may have to be woken (XEP-0357)."""
    owner = Owner()
    here, away = owner.session(ROMEO, 1), owner.session(JULIET, 2)
    here.place = Incarnation("c2s-0#1")
    owner.cast(0, 5, (ALL, (), (said("hello"),)), members=((1, Role.PARTICIPANT), (2, Role.PARTICIPANT)))
    assert [(session, stanza.inner) for session, stanza in owner.unseen] == [(away, b"hello")]


def said(text: str) -> Stanza:
    return stanzas.message(to=None, from_=f"{ROOM}/romeo", type="groupchat", inner=text.encode())


def part(text: str, audience: int = ALL, *sids: int) -> Any:
    return (audience, sids, (said(text),))


def heard(session: Session) -> list[str]:
    return [stanza.inner.decode() for _, _, stanza in session.unacknowledged if stanza is not None]


@pytest.fixture
def owner() -> Owner:
    return Owner()


def test_members_hear_and_others_do_not(owner: Owner) -> None:
    romeo, juliet = owner.session(ROMEO, 1), owner.session(JULIET, 2)
    owner.cast(0, 10, part("welcome", ONLY, 1), members=((1, Role.PARTICIPANT),))
    owner.cast(10, 11, part("to all"))
    assert (heard(romeo), heard(juliet)) == (["welcome", "to all"], [])
    assert romeo.rooms == {ROOM: 11}
    assert [id_ for _, id_, _ in romeo.unacknowledged] == [-10, -11]


def test_a_part_is_for_its_audience(owner: Owner) -> None:
    romeo, juliet = owner.session(ROMEO, 1), owner.session(JULIET, 2)
    owner.cast(0, 10, members=((1, Role.MODERATOR), (2, Role.PARTICIPANT)))
    owner.cast(10, 11, part("moderators", MODERATORS), part("but romeo", ALL, 1), part("juliet", ONLY, 2))
    assert (heard(romeo), heard(juliet)) == (["moderators"], ["but romeo", "juliet"])


def test_who_goes_hears_of_it_and_nothing_more(owner: Owner) -> None:
    romeo = owner.session(ROMEO, 1)
    owner.session(JULIET, 2)
    owner.cast(0, 10, members=((1, Role.PARTICIPANT), (2, Role.PARTICIPANT)))
    owner.cast(10, 11, part("farewell", ONLY, 1), members=((1, Role.NONE),))
    owner.cast(11, 12, part("later"))
    assert heard(romeo) == ["farewell"]
    assert romeo.rooms == {}


@pytest.mark.parametrize(("prev", "epoch"), [(11, 5), (9, 5), (10, 6)])
def test_a_gap_is_told_and_nothing_of_it_is_shown(owner: Owner, prev: int, epoch: int) -> None:
    romeo = owner.session(ROMEO, 1)
    owner.cast(0, 10, members=((1, Role.PARTICIPANT),))
    owner.cast(prev, 12, part("too early"), epoch=epoch)
    assert heard(romeo) == []
    assert owner.sent == [(MARKS, SHARD, epoch, ROOM, ())]


def test_what_an_old_owner_says_is_not_heard(owner: Owner) -> None:
    romeo = owner.session(ROMEO, 1)
    owner.cast(0, 10, members=((1, Role.PARTICIPANT),))
    owner.map.update(SHARD, Epoch(6), THERE)
    owner.cast(10, 11, part("of a zombie"))
    assert heard(romeo) == []
    assert owner.sent == []


def test_a_replay_for_sessions_that_are_not_here_is_asked_for_again(owner: Owner) -> None:
    romeo = owner.session(ROMEO, 1)
    romeo.rooms = {ROOM: 10}
    owner.replay(11, [(11, [part("eleven")])], (), ((1, Role.PARTICIPANT), (2, Role.PARTICIPANT)))
    assert owner.sent == [(MARKS, SHARD, 5, ROOM, ())]
    assert romeo.rooms == {ROOM: 11}
    owner.cast(11, 12, part("twelve"))
    assert heard(romeo) == ["eleven"], "what comes before the answer is sent again with it"


def test_a_replay_shows_each_session_what_it_lacks(owner: Owner) -> None:
    romeo, juliet = owner.session(ROMEO, 1), owner.session(JULIET, 2)
    romeo.rooms, juliet.rooms = {ROOM: 10}, {ROOM: 11}
    events = [(10, [part("ten")]), (11, [part("eleven")]), (12, [part("twelve")])]
    owner.replay(12, events, (), ((1, Role.PARTICIPANT), (2, Role.PARTICIPANT)))
    assert (heard(romeo), heard(juliet)) == (["eleven", "twelve"], ["twelve"])
    owner.replay(12, events, (), ((1, Role.PARTICIPANT), (2, Role.PARTICIPANT)))
    owner.cast(12, 13, part("thirteen"))
    assert (heard(romeo)[2:], heard(juliet)[1:]) == (["thirteen"], ["thirteen"])


def test_who_knows_of_nothing_is_told_how_it_is_now(owner: Owner) -> None:
    romeo = owner.session(ROMEO, 1)
    owner.replay(12, [(12, [part("twelve")])], [part("welcome", ONLY, 1)], ((1, Role.PARTICIPANT),))
    assert heard(romeo) == ["welcome"]
    assert romeo.rooms == {ROOM: 12}


def test_a_question_is_answered_for_each_session(owner: Owner) -> None:
    romeo, juliet = owner.session(ROMEO, 1), owner.session(JULIET, 2)
    romeo.rooms = {ROOM: 10}
    del owner.sessions[juliet.sid]
    mercutio = owner.session("mercutio@example.com", 3)
    owner.check(romeo, juliet, mercutio)
    assert owner.sent == [(MARKS, SHARD, 5, ROOM, [(1, 10), (2, -1), (3, 0)])]


def test_a_question_waits_until_accounts_have_settled(owner: Owner) -> None:
    romeo = owner.session(ROMEO, 1)
    romeo.rooms = {ROOM: 10}
    romeo.entity.is_settling = True
    owner.check(romeo)
    assert owner.sent == []
    assert owner.mirrors.waits
    romeo.entity.is_settling = False
    owner.mirrors.settled()
    assert owner.sent == [(MARKS, SHARD, 5, ROOM, [(1, 10)])]


def test_a_question_about_accounts_of_others_is_not_answered(owner: Owner) -> None:
    romeo = owner.session(ROMEO, 1)
    owner.tenures[romeo.shard] = None
    owner.check(romeo)
    assert owner.sent == []


def test_a_session_that_ends_is_forgotten(owner: Owner) -> None:
    romeo = owner.session(ROMEO, 1)
    owner.cast(0, 10, members=((1, Role.PARTICIPANT),))
    owner.mirrors.gone(romeo)
    owner.cast(10, 11, part("to nobody"))
    assert heard(romeo) == []
    assert owner.sent == [], "who comes back at once is let in without questions"
    owner.mirrors.tick()
    owner.cast(11, 12, part("to nobody"))
    assert owner.sent == [(MARKS, SHARD, 5, ROOM, ())], "the room learns that nobody is here"
    assert heard(romeo) == []
