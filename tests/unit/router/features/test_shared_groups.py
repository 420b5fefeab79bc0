"""Groups that an operator has put together: in the roster, in presence, and nowhere else."""

from __future__ import annotations

import dataclasses

import pytest

from router import shared_groups
from router.entity import Session
from storage import rosters
from tests.support.turns import PLAIN, World, error
from xmpp import ns

JULIET, ROMEO, NURSE = "juliet@example.com", "romeo@example.com", "nurse@example.com"
EVERYBODY = {"example.com": [JULIET, ROMEO, NURSE]}


class Scene:
    """Juliet and Romeo are in a group, the nurse is not."""

    def __init__(self, **groups: tuple[str, ...]) -> None:
        settings = dataclasses.replace(PLAIN, shared_groups=groups or {"Verona": (JULIET, ROMEO)})
        self.world = World(settings)
        self.accounts = [self.world.account(bare) for bare in (JULIET, ROMEO, NURSE)]
        for account in self.accounts:
            shared_groups.apply(account, settings, EVERYBODY)
        self.juliet, self.romeo, self.nurse = (self.world.bind(account) for account in self.accounts)

    def roster(self, session: Session, inner: str = "", type: str = "get") -> str:
        self.world.say(session, f'<iq type="{type}" id="r"><query xmlns="{ns.ROSTER}">{inner}</query></iq>')
        return next(said for said in self.world.heard(session) if 'id="r"' in said)

    def online(self, session: Session) -> None:
        self.world.say(session, "<presence/>")


@pytest.fixture
def scene() -> Scene:
    return Scene()


def item(jid: str, *groups: str, name: str | None = None) -> str:
    written = "".join(f"<group>{group}</group>" for group in groups)
    return f'<item jid="{jid}" name="{name or jid.partition("@")[0]}" subscription="both">{written}</item>'


def test_members_are_in_each_others_rosters(scene: Scene) -> None:
    assert item(ROMEO, "Verona") in scene.roster(scene.juliet)
    assert item(JULIET, "Verona") in scene.roster(scene.romeo)
    assert "<item" not in scene.roster(scene.nurse)
    assert scene.world.writes == [], "nothing of it is stored"


def test_members_see_each_other(scene: Scene) -> None:
    scene.online(scene.romeo)
    scene.online(scene.juliet)
    assert any(f'from="{scene.romeo.jid}"' in said for said in scene.world.heard(scene.juliet))
    assert any(f'from="{scene.juliet.jid}"' in said for said in scene.world.heard(scene.romeo))
    scene.online(scene.nurse)
    assert scene.world.heard(scene.nurse) == [f'<presence to="{NURSE}" from="{scene.nurse.jid}"/>']


def test_everybody_may_be_in_a_group() -> None:
    scene = Scene(All=("*@example.com",), Verona=(JULIET, ROMEO))
    found = scene.roster(scene.juliet)
    assert item(ROMEO, "All", "Verona") in found
    assert item(NURSE, "All") in found
    assert JULIET not in found.partition("<query")[2]
    assert shared_groups.wildcards(scene.world.settings) == ["example.com"]


def test_a_contact_may_have_another_name_and_groups_beside(scene: Scene) -> None:
    scene.roster(scene.juliet)
    answer = scene.roster(scene.juliet, f'<item jid="{ROMEO}" name="My love"><group>Secret</group></item>', "set")
    assert ' type="result"' in answer
    assert item(ROMEO, "Secret", "Verona", name="My love") in scene.roster(scene.juliet)
    (row,) = [write.arguments[1] for write in scene.world.writes if write.statement is rosters.upsert]
    assert (row.groups, row.subscription) == (("Secret",), "none")
    assert ' type="result"' in scene.roster(scene.juliet, f'<item jid="{ROMEO}" subscription="remove"/>', "set")
    assert item(ROMEO, "Verona") in scene.roster(scene.juliet), "and stays in the group"
    answer = scene.roster(scene.juliet, f'<item jid="{ROMEO}" subscription="remove"/>', "set")
    assert error("not-allowed", "cancel") in answer


@pytest.mark.parametrize("type", ["subscribe", "subscribed", "unsubscribe", "unsubscribed"])
def test_nobody_asks(scene: Scene, type: str) -> None:
    """And nobody takes back what the operator has made."""
    for session in (scene.romeo, scene.juliet):
        scene.online(session)
    for session in (scene.romeo, scene.juliet):
        scene.world.heard(session)
    scene.world.say(scene.juliet, f'<presence to="{ROMEO}" type="{type}"/>')
    said = f'<presence from="{ROMEO}" to="{JULIET}" type="{type}"/>'
    scene.world.arrive(scene.accounts[0], said)
    assert scene.world.heard(scene.romeo) == scene.world.heard(scene.juliet) == []
    assert item(ROMEO, "Verona") in scene.roster(scene.juliet)


def test_a_roster_with_groups_is_told_as_a_whole(scene: Scene) -> None:
    """Groups change without a version."""
    scene.accounts[0].roster.version = 5
    said = f'<iq type="get" id="r"><query xmlns="{ns.ROSTER}" ver="5"/></iq>'
    scene.world.say(scene.juliet, said)
    (answer,) = scene.world.heard(scene.juliet)
    assert item(ROMEO, "Verona") in answer
