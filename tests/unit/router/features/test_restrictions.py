"""Accounts that are banned or in quarantine: what reaches them, what they may send, what they are told."""

from __future__ import annotations

import dataclasses

import pytest

from router import restrictions
from router.entity import Session
from router.restrictions import restriction
from storage import restrictions as rows
from storage import vcards
from storage.restrictions import Kind
from tests.support.turns import DOMAIN, PLAIN, World, error
from xmpp import ns

ROMEO, JULIET, TYBALT, ADMIN = (f"{name}@{DOMAIN}" for name in ("romeo", "juliet", "tybalt", "admin"))
ROOMS = f"conference.{DOMAIN}"
VCARD = '<vCard xmlns="vcard-temp"/>'


class Scene:
    """Romeo is restricted, Juliet is his contact, Tybalt a stranger."""

    def __init__(self) -> None:
        settings = dataclasses.replace(PLAIN, admins=frozenset({ADMIN}), room_domains=frozenset({ROOMS}))
        self.world = world = World(settings)
        self.romeo = world.online(world.account(ROMEO), "orchard")
        self.juliet = world.online(world.account(JULIET), "balcony")
        self.tybalt = world.online(world.account(TYBALT), "street")
        self.admin = world.online(world.account(ADMIN), "desk")
        world.friends(self.romeo.entity, self.juliet.entity)

    def impose(self, kind: Kind, reason: str = "spam", until: float | None = None) -> None:
        """An operator does it."""
        world, entity = self.world, self.romeo.entity
        turn = world._turn(entity, None, None)
        restrictions.impose(turn, kind, reason, "operator", until)
        world._over(turn)

    def lift(self, kind: Kind) -> bool:
        turn = self.world._turn(self.romeo.entity, None, None)
        was = restrictions.lift(turn, kind, "operator")
        self.world._over(turn)
        return was

    def says(self, xml: str, by: Session | None = None) -> list[str]:
        """What whoever says it hears of it."""
        session = by or self.romeo
        self.world.heard(session)
        self.world.say(session, xml)
        return self.world.heard(session)


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- banned


def test_sessions_of_a_banned_account_end_with_the_reason(scene: Scene) -> None:
    """RFC 6120, 4.9.3.14."""
    scene.impose("ban")
    condition = "policy-violation\nThis account is disabled. Reason: spam"
    assert scene.world.closed == [(scene.romeo.jid, condition)]
    (write,) = scene.world.writes
    assert write.statement is rows.impose
    assert write.arguments[1][:3] == ("ban", "spam", "operator")


def test_to_others_it_is_as_an_account_that_does_not_exist(scene: Scene) -> None:
    """RFC 6121, 8.5.1."""
    scene.impose("ban")
    scene.world.end(scene.romeo)
    scene.world.nobody(f"nobody@{DOMAIN}")
    for inner in ("<message to='{}' id='1'><body>hi</body></message>", f"<iq to='{{}}' id='1' type='get'>{VCARD}</iq>"):
        banned = scene.says(inner.format(ROMEO), scene.juliet)
        unknown = scene.says(inner.format(f"nobody@{DOMAIN}"), scene.juliet)
        assert banned == [answer.replace("nobody", "romeo") for answer in unknown]
        assert error("service-unavailable", "cancel") in banned[0]
    for kind in ("groupchat", "headline", "error"):
        assert scene.says(f"<message to='{ROMEO}' type='{kind}'><body>hi</body></message>", scene.juliet) == []
    assert scene.world.log == []


def test_a_subscription_that_ends_meanwhile_ends_on_both_sides(scene: Scene) -> None:
    scene.impose("ban")
    assert scene.says(f"<presence to='{ROMEO}' type='subscribe'/>", scene.tybalt) == []
    assert TYBALT not in scene.romeo.entity.roster.contacts
    scene.says(f"<presence to='{ROMEO}' type='unsubscribe'/>", scene.juliet)
    assert scene.romeo.entity.roster.contacts[JULIET].subscription == "to"


def test_a_ban_ends_when_it_was_said_to(scene: Scene) -> None:
    scene.impose("ban", until=scene.world.now + 60)
    message = f"<message to='{ROMEO}' type='chat'><body>hi</body></message>"
    assert len(scene.says(message, scene.juliet)) == 1
    scene.world.wait(61)
    assert scene.says(message, scene.juliet) == []
    assert restriction(scene.romeo.entity, "ban", scene.world.now) is None


def test_it_can_be_lifted(scene: Scene) -> None:
    scene.impose("ban")
    scene.impose("quarantine")
    assert scene.lift("ban")
    assert not scene.lift("ban")
    assert restriction(scene.romeo.entity, "quarantine", scene.world.now) is not None
    assert scene.says(f"<message to='{ROMEO}' type='chat'><body>hi</body></message>", scene.juliet) == []


# --- in quarantine


def test_the_user_is_told_once(scene: Scene) -> None:
    scene.impose("quarantine")
    scene.impose("quarantine", "more spam")
    (told,) = scene.world.heard(scene.romeo)
    assert told.startswith(f'<message to="{ROMEO}" from="{DOMAIN}"')
    assert "Reason: spam</body>" in told
    assert scene.world.closed == []
    scene.lift("quarantine")
    assert len(scene.world.heard(scene.romeo)) == 1


@pytest.mark.parametrize(
    "to", [TYBALT, f"{TYBALT}/street", "paris@elsewhere.example", f"tea@{ROOMS}", f"tea@{ROOMS}/x"]
)
def test_nothing_goes_to_strangers_nor_to_rooms(scene: Scene, to: str) -> None:
    scene.impose("quarantine")
    refused = "policy-violation"
    for inner in (
        f"<message to='{to}' id='1'><body>hi</body></message>", f"<presence to='{to}' id='1'/>",
        f"<presence to='{to}' id='1' type='subscribe'/>", f"<iq to='{to}' id='1' type='set'>{VCARD}</iq>",
        f"<iq to='{to}' id='1' type='get'>{VCARD}</iq>",
    ):  # fmt: skip
        (answer,) = scene.says(inner)
        assert error(refused, "cancel") in answer
        assert "Reason: spam" in answer
    assert scene.world.heard(scene.tybalt) == []
    assert scene.world.away == []
    assert scene.says(f"<presence to='{to}' type='unavailable'/>") == [], "one may leave"


def test_what_it_publishes_at_services_it_does_not(scene: Scene) -> None:
    scene.impose("quarantine")
    inner = f'<pubsub xmlns="{ns.PUBSUB}"><publish node="x"/></pubsub>'
    (answer,) = scene.says(f"<iq to='pubsub.{DOMAIN}' id='1' type='set'>{inner}</iq>")
    assert error("policy-violation", "cancel") in answer


def test_contacts_and_administrators_are_written_to(scene: Scene) -> None:
    scene.impose("quarantine")
    for session in (scene.juliet, scene.admin):
        assert scene.says(f"<message to='{session.bare}' type='chat'><body>hi</body></message>") == []
        assert len(scene.world.heard(session)) == 1
    assert scene.says(f"<iq to='{DOMAIN}' id='1' type='get'><ping xmlns='urn:xmpp:ping'/></iq>")[0].count("result") == 1


def test_who_is_in_the_roster_without_having_agreed_is_a_stranger(scene: Scene) -> None:
    scene.world.contact(scene.romeo.entity, TYBALT, "none", ask=True)
    scene.impose("quarantine")
    assert len(scene.says(f"<message to='{TYBALT}'><body>hi</body></message>")) == 1


def test_strangers_read_nothing_of_it(scene: Scene) -> None:
    scene.world.database[vcards.get] = lambda key: b"<FN>Romeo</FN>"
    scene.impose("quarantine")
    ask = f"<iq to='{ROMEO}' id='1' type='get'>{VCARD}</iq>"
    assert error("service-unavailable", "cancel") in scene.says(ask, scene.tybalt)[0]
    assert "<FN>Romeo</FN>" in scene.says(ask, scene.juliet)[0]
