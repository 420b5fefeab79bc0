"""People who are not contacts: what of theirs comes in, and how much."""

from __future__ import annotations

import dataclasses

import pytest

from router.blocklists import NONE, Blocklists, Rule
from router.restrictions import restriction
from router.settings import Strangers
from tests.support.turns import DOMAIN, PLAIN, World, error

ROMEO, JULIET, TYBALT, ADMIN = (f"{name}@{DOMAIN}" for name in ("romeo", "juliet", "tybalt", "admin"))
PARIS = "paris@elsewhere.example"
ROOMS = f"conference.{DOMAIN}"


class Scene:
    """Juliet is written to: by Romeo, her contact, and by Tybalt and Paris, who are none."""

    def __init__(self, policy: Strangers, lists: Blocklists = NONE) -> None:
        settings = dataclasses.replace(
            PLAIN, admins=frozenset({ADMIN}), room_domains=frozenset({ROOMS}), strangers=policy, blocklists=lists
        )
        self.world = world = World(settings)
        self.juliet = world.online(world.account(JULIET), "balcony")
        self.romeo = world.online(world.account(ROMEO), "orchard")
        self.tybalt = world.online(world.account(TYBALT), "street")
        self.admin = world.online(world.account(ADMIN), "desk")
        world.friends(self.juliet.entity, self.romeo.entity)

    def arrives(self, from_: str, xml: str = "<body>hi</body>", type: str = "chat") -> bool:
        """A message from there; whether she gets it."""
        self.world.away.clear()
        to = self.juliet.jid if type == "groupchat" else JULIET
        self.world.arrive(self.juliet.entity, f"<message from='{from_}' to='{to}' type='{type}'>{xml}</message>")
        return bool(self.world.heard(self.juliet))

    def asks(self, from_: str) -> bool:
        """A request for a subscription; whether she sees it."""
        self.world.arrive(self.juliet.entity, f"<presence from='{from_}' to='{JULIET}' type='subscribe'/>")
        return bool(self.world.heard(self.juliet))

    def says(self, to: str, xml: str = "<body>hi</body>") -> list[str]:
        self.world.heard(self.juliet)
        self.world.say(self.juliet, f"<message to='{to}' type='chat' id='1'>{xml}</message>")
        return self.world.heard(self.juliet)


@pytest.mark.parametrize("from_", [TYBALT, PARIS])
def test_nothing_of_strangers_comes_in_where_it_is_refused(from_: str) -> None:
    scene = Scene(Strangers(local="refuse", remote="refuse"))
    scene.world.entities.pop(TYBALT)  # what he is told is seen
    assert not scene.arrives(from_)
    assert error("policy-violation", "cancel") in scene.world.away[0]
    assert not scene.arrives(from_, "<x xmlns='urn:x'/>")
    assert not scene.asks(from_)
    assert scene.juliet.entity.roster.contacts.keys() == {ROMEO}


@pytest.mark.parametrize(
    "from_",
    [f"{ROMEO}/orchard", JULIET, ADMIN, DOMAIN, f"tea@{ROOMS}/tybalt", f"tea@{ROOMS}"],
    ids=["contact", "herself", "admin", "server", "occupant", "room"],
)
def test_who_is_no_stranger(from_: str) -> None:
    scene = Scene(Strangers(local="refuse", remote="refuse", sender_per_hour=1))
    assert scene.arrives(from_)
    assert scene.arrives(from_)


def test_what_is_said_in_a_room_elsewhere_comes_in() -> None:
    scene = Scene(Strangers(remote="refuse"))
    assert scene.arrives("tea@rooms.elsewhere.example/paris", type="groupchat")
    scene.world.say(scene.juliet, "<presence to='tea@rooms.elsewhere.example/juliet'/>")
    assert scene.arrives("tea@rooms.elsewhere.example/paris"), "whoever has joined a room is written to by who is there"


def test_who_was_written_to_may_answer() -> None:
    scene = Scene(Strangers(local="refuse", remote="refuse"))
    assert scene.says(PARIS) == []
    assert scene.arrives(f"{PARIS}/home")
    scene.world.say(scene.juliet, f"<presence to='{TYBALT}' type='subscribe'/>")
    assert scene.arrives(TYBALT)


def test_a_request_that_waits_makes_nobody_a_contact() -> None:
    scene = Scene(Strangers(local="requests"))
    assert scene.asks(TYBALT)
    assert TYBALT in scene.juliet.entity.roster.contacts
    assert not scene.arrives(TYBALT)


def test_local_and_remote_are_told_apart_and_a_domain_has_its_own() -> None:
    scene = Scene(Strangers(local="refuse"))
    assert not scene.arrives(TYBALT)
    assert scene.arrives(PARIS)
    scene = Scene(Strangers(local="refuse", domains={DOMAIN: "accept"}))
    assert scene.arrives(TYBALT)


def test_strangers_together_have_a_limit_within_an_hour() -> None:
    scene = Scene(Strangers(remote="limit", per_hour=3))
    senders = [f"paris{number}@elsewhere.example" for number in range(5)]
    assert [scene.arrives(sender) for sender in senders] == [True, True, True, False, False]
    assert error("resource-constraint", "wait") in scene.world.away[0]
    assert not scene.asks(PARIS)
    assert scene.arrives(ROMEO)
    scene.world.wait(3_600)
    assert scene.arrives(senders[4])


def test_one_stranger_has_a_limit_also_where_all_are_accepted() -> None:
    scene = Scene(Strangers(sender_per_hour=2))
    assert [scene.arrives(f"{PARIS}/{number}") for number in range(3)] == [True, True, False]
    assert error("policy-violation", "wait") in scene.world.away[0]
    assert scene.arrives("other@elsewhere.example")
    assert scene.says(PARIS) == []
    assert scene.arrives(PARIS), "she has answered"


def test_what_is_no_message_for_people_is_not_counted() -> None:
    scene = Scene(Strangers(sender_per_hour=1))
    for _ in range(3):
        assert scene.arrives(PARIS, "<composing xmlns='http://jabber.org/protocol/chatstates'/>")
    assert scene.arrives(PARIS)


def test_an_account_that_writes_to_too_many_strangers_is_put_into_quarantine() -> None:
    """It is told so once; what it said last went nowhere."""
    scene = Scene(Strangers(quarantine_after=2))
    scene.world.arrive(scene.juliet.entity, f"<message from='{PARIS}' to='{JULIET}'><body>hi</body></message>")
    assert scene.says(PARIS) == [], "an answer"
    for to in (f"a@{DOMAIN}", "b@elsewhere.example", "b@elsewhere.example", ROMEO, ADMIN, f"tea@{ROOMS}/x"):
        scene.says(to)
    entity = scene.juliet.entity
    assert restriction(entity, "quarantine", scene.world.now) is None
    scene.world.away.clear()
    heard = scene.says("c@elsewhere.example")
    assert error("policy-violation", "cancel") in heard[0]
    assert "2 strangers within an hour" in heard[1]
    assert scene.world.away == []
    found = restriction(entity, "quarantine", scene.world.now)
    assert found is not None
    assert found.by == "strangers"
    assert len(scene.says("d@elsewhere.example")) == 1


@pytest.mark.parametrize("from_", [TYBALT, PARIS])
def test_a_stranger_on_a_blocklist_is_refused_and_a_contact_on_it_is_not(from_: str) -> None:
    rule = Rule("lists.example", "bans", frozenset({"strangers"}))
    lists = Blocklists([rule])
    scene = Scene(Strangers(), lists)
    scene.world.entities.pop(TYBALT)  # what he is told is seen
    assert scene.arrives(from_)
    lists.replace(rule.name, [TYBALT, ROMEO, "elsewhere.example"])
    assert not scene.arrives(from_)
    assert error("policy-violation", "cancel") in scene.world.away[0]
    assert not scene.asks(from_)
    assert scene.arrives(ROMEO)
    assert scene.arrives(ADMIN)
    scene.says(from_)
    assert scene.arrives(from_), "whom she has written to may answer"
