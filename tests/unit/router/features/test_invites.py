"""Invitations by ad-hoc commands (XEP-0401), and subscriptions that come with one (XEP-0379)."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from router.entity import Session
from router.invitations import hash_of
from router.subscription_table import State, state_of
from storage import accounts
from storage import invitations as stored
from storage.invitations import Draft, Invitation
from tests.support.turns import DOMAIN, NOW, PLAIN, World, error
from xmpp import ns

ADMIN, ROMEO, JULIET = "admin@example.com", "romeo@example.com", "juliet@example.com"
SETTINGS = dataclasses.replace(
    PLAIN, admins=frozenset({ADMIN}), registration_mode="invite", invitations=2, reserved_names=frozenset({"root"}),
    public_url="https://chat.example.com",
)  # fmt: skip
FULL = error("resource-constraint", "wait")


class Scene:
    def __init__(self, **changes: Any) -> None:
        self.world = World(dataclasses.replace(SETTINGS, **changes))
        self.admin = self.world.bind(self.world.account(ADMIN))
        self.romeo = self.world.online(self.world.account(ROMEO), "orchard")
        self.juliet = self.world.online(self.world.account(JULIET), "balcony")
        self.open = 0
        self.taken: set[str] = set()
        self.reserved: set[str] = set()
        self.good: dict[bytes, Invitation] = {}
        self.world.database |= {
            stored.count_open: lambda maker: self.open,
            stored.is_reserved: lambda jid: jid in self.reserved,
            stored.claim: lambda hash, jid: self.good.get(hash),
            accounts.find: lambda jid: object() if jid in self.taken else None,
        }

    def ask(self, session: Session, type: str, inner: str, to: str = DOMAIN) -> str:
        self.world.say(session, f'<iq to="{to}" type="{type}" id="c">{inner}</iq>')
        (answer,) = self.world.heard(session)
        return answer

    def run(self, session: Session, name: str, **fields: str) -> str:
        given = "".join(f'<field var="{v.replace("_", "-")}"><value>{t}</value></field>' for v, t in fields.items())
        form = f'<x xmlns="{ns.DATA_FORMS}" type="submit">{given}</x>' if fields else ""
        return self.ask(session, "set", f'<command xmlns="{ns.COMMANDS}" node="{ns.INVITE}#{name}">{form}</command>')

    def made(self) -> Draft:
        """The one invitation that was made."""
        (write,) = self.world.writes
        assert write.statement is stored.create
        draft = write.arguments[1]
        assert isinstance(draft, Draft)
        return draft

    def invitation(self, token: str, contact: str) -> None:
        """There is this one."""
        self.good[hash_of(token)] = Invitation(1, "contact", DOMAIN, contact, "", contact, 1, 0, NOW, None, False)

    def subscribe(self, token: str) -> None:
        preauth = f'<preauth xmlns="{ns.PARS}" token="{token}"/>'
        self.world.say(self.juliet, f'<presence type="subscribe" to="{ROMEO}">{preauth}</presence>')

    def states(self) -> tuple[State, State]:
        """Romeo's view of Juliet and hers of him."""
        views = ((self.romeo, JULIET), (self.juliet, ROMEO))
        mine, hers = (state_of(session.entity.roster.contacts.get(other)) for session, other in views)
        return mine, hers


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- what there is (XEP-0401, 2)


def commands(scene: Scene, session: Session) -> list[str]:
    answer = scene.ask(session, "get", f'<query xmlns="{ns.DISCO_ITEMS}" node="{ns.COMMANDS}"/>')
    return [name for name in ("invite", "create-account") if f'node="{ns.INVITE}#{name}"' in answer]


def test_commands_are_listed_for_who_may_run_them() -> None:
    scene, closed, few = Scene(), Scene(registration_mode="closed"), Scene(invitations=0)
    assert commands(scene, scene.romeo) == ["invite", "create-account"]
    assert commands(closed, closed.romeo) == ["invite"]
    assert commands(few, few.romeo) == []
    assert commands(few, few.admin) == ["invite", "create-account"]


def test_what_is_not_listed_cannot_be_run() -> None:
    few = Scene(invitations=0)
    assert error("forbidden", "auth") in few.run(few.romeo, "invite")
    closed = Scene(registration_mode="closed")
    assert error("forbidden", "auth") in closed.run(closed.admin, "create-account", username="bill")
    assert closed.world.writes == []


# --- an invitation to be a contact (4.1)


def test_an_invitation_is_made_at_once(scene: Scene) -> None:
    answer = scene.run(scene.romeo, "invite")
    assert 'status="completed"' in answer
    assert f"<value>{ns.INVITE}#invitation</value>" in answer
    assert f'<field var="uri"><value>xmpp:{ROMEO}?roster;preauth=' in answer
    assert '<field var="landing-url"><value>https://chat.example.com/invite/' in answer
    assert '<field var="expire"><value>2027-01-22T08:00:00.000Z</value>' in answer
    assert scene.made() == Draft("contact", DOMAIN, ROMEO, "", ROMEO, 1, 604_800.0)


def test_a_user_has_a_quota_and_an_admin_has_none(scene: Scene) -> None:
    scene.open = 2
    assert FULL in scene.run(scene.romeo, "invite")
    assert FULL in scene.run(scene.romeo, "create-account", username="bill")
    assert scene.world.writes == []
    assert 'status="completed"' in scene.run(scene.admin, "invite")


# --- an invitation to an account (4.4)


def test_the_form_comes_first(scene: Scene) -> None:
    answer = scene.run(scene.romeo, "create-account")
    assert 'status="executing"' in answer
    assert '<actions execute="complete"><complete/></actions>' in answer
    assert '<field type="text-single" var="username"' in answer
    assert '<field type="boolean" var="roster-subscription"' in answer
    assert scene.world.writes == []


@pytest.mark.parametrize(
    ("fields", "jid", "contact"),
    [
        ({"username": "Bill"}, "bill@example.com", ""),
        ({"username": "bill", "roster_subscription": "true"}, "bill@example.com", ROMEO),
        ({"username": "", "roster_subscription": "1"}, "", ROMEO),
        ({"roster_subscription": "0"}, "", ""),
    ],
)
def test_an_account_with_a_name_or_without(scene: Scene, fields: dict[str, str], jid: str, contact: str) -> None:
    answer = scene.run(scene.romeo, "create-account", **fields)
    assert f"<value>xmpp:{jid or DOMAIN}?register;preauth=" in answer
    assert scene.made() == Draft("account", DOMAIN, ROMEO, jid, contact, 1, 604_800.0)


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("a b", error("bad-request", "modify")),
        ("root", error("not-allowed", "cancel")),
        ("taken", error("conflict", "cancel")),
        ("promised", error("conflict", "cancel")),
    ],
)
def test_names_that_nobody_can_be_invited_to(scene: Scene, name: str, refusal: str) -> None:
    scene.taken.add("taken@example.com")
    scene.reserved.add("promised@example.com")
    assert refusal in scene.run(scene.romeo, "create-account", username=name)
    assert scene.world.writes == []


# --- a subscription with a token (XEP-0379)


def test_a_token_makes_contacts_of_both(scene: Scene) -> None:
    """3.4 to 3.6: nobody is asked on either side."""
    scene.invitation("t", ROMEO)
    scene.subscribe("t")
    assert scene.states() == (State.BOTH, State.BOTH)
    assert not any("subscribe" in heard for heard in scene.world.heard(scene.romeo))
    confirmed = [write.arguments for write in scene.world.writes if write.statement is stored.confirm]
    assert confirmed == [(hash_of("t"), JULIET)]
    told = [write.arguments for write in scene.world.writes if write.statement is stored.tell]
    assert told == [(ROMEO, JULIET)], "nobody needs to do it later"


def test_a_contact_of_another_server_is_approved_and_asked(scene: Scene) -> None:
    """3.5."""
    scene.invitation("t", ROMEO)
    paris = "paris@example.org"
    preauth = f'<preauth xmlns="{ns.PARS}" token="t"/>'
    scene.world.arrive(
        scene.romeo.entity, f'<presence type="subscribe" from="{paris}" to="{ROMEO}">{preauth}</presence>'
    )
    assert state_of(scene.romeo.entity.roster.contacts[paris]) is State.FROM_OUT
    assert f'<presence to="{paris}" from="{ROMEO}" type="subscribed"/>' in scene.world.away
    assert f'<presence to="{paris}" from="{ROMEO}" type="subscribe"/>' in scene.world.away


@pytest.mark.parametrize("owner", ["", "mercutio@example.com"])
def test_a_token_that_is_not_theirs_means_nothing(scene: Scene, owner: str) -> None:
    """4.1: "MUST ignore it and act as if no preauth token was contained"."""
    if owner:
        scene.invitation("t", owner)
    scene.subscribe("t")
    assert scene.states() == (State.NONE_IN, State.NONE_OUT)
    assert any('type="subscribe"' in heard for heard in scene.world.heard(scene.romeo))
    written = [write.statement for write in scene.world.writes]
    assert stored.confirm not in written
    assert (stored.release in written) == bool(owner)


def test_who_comes_by_an_invitation_approves_whoever_invited(scene: Scene) -> None:
    """3.4: what the client SHOULD say is said for it."""
    scene.subscribe("of another server")
    assert scene.juliet.entity.roster.contacts[ROMEO].approved


def test_what_an_account_has_made_goes_with_it(scene: Scene) -> None:
    scene.world.say(scene.romeo, f'<iq type="set" id="r"><query xmlns="{ns.REGISTER}"><remove/></query></iq>')
    assert [write.arguments for write in scene.world.writes if write.statement is stored.forget] == [(ROMEO,)]
