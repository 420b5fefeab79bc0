"""Calls begin by messages (XEP-0353): each device rings, is woken for it, and falls silent when another one answers; and
who was away finds that somebody called."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.client_state import INACTIVE
from router.entity import Session
from storage.log import FROM_OWNER, TO_OWNER
from tests.support.turns import PLAIN, World

ROMEO, JULIET = "romeo@example.com", "juliet@example.com"
JMI = "urn:xmpp:jingle-message:0"
KINDS = ("propose", "ringing", "proceed", "reject", "retract", "finish")


class Scene:
    """Romeo, who calls; Juliet with two devices that want copies, one of which nobody looks at."""

    def __init__(self) -> None:
        self.world = World(replace(PLAIN, archive_default="always"))
        self.romeo = self.world.online(self.world.account(ROMEO), "orchard")
        account = self.world.account(JULIET)
        self.phone, self.laptop = self.world.online(account, "phone"), self.world.online(account, "laptop")
        for session in (self.phone, self.laptop):
            self.world.say(session, "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>")
            self.world.heard(session)
        self.phone.marks[INACTIVE] = True
        self.phone.held_back = {}

    def say(self, session: Session, to: str, kind: str) -> None:
        inner = f"<{kind} xmlns='{JMI}' id='call'/><store xmlns='urn:xmpp:hints'/>"
        self.world.say(session, f"<message type='chat' to='{to}' id='{kind}'>{inner}</message>")

    def rings(self, session: Session, kind: str) -> bool:
        heard = self.world.heard(session)
        assert len(heard) <= 1, "once"
        return any(f"<{kind} xmlns=" in stanza for stanza in heard)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_all_devices_ring_also_one_that_nobody_looks_at(scene: Scene) -> None:
    scene.say(scene.romeo, JULIET, "propose")
    assert (scene.rings(scene.phone, "propose"), scene.rings(scene.laptop, "propose")) == (True, True)


@pytest.mark.parametrize("kind", ["proceed", "reject"])
def test_the_others_hear_what_one_has_answered(scene: Scene, kind: str) -> None:
    scene.say(scene.laptop, scene.romeo.jid, kind)
    assert scene.rings(scene.romeo, kind)
    assert scene.rings(scene.phone, kind), "a copy (XEP-0280)"


def test_a_device_tells_its_own_account(scene: Scene) -> None:
    scene.say(scene.laptop, JULIET, "proceed")
    assert scene.rings(scene.phone, "proceed")


@pytest.mark.parametrize("kind", KINDS)
def test_both_archives_have_it(scene: Scene, kind: str) -> None:
    scene.say(scene.romeo, JULIET, kind)
    assert sorted(row.dir for row in scene.world.log) == [TO_OWNER, FROM_OWNER]


def test_who_was_away_is_told_of_the_call(scene: Scene) -> None:
    account = scene.phone.entity
    for session in (scene.phone, scene.laptop):
        scene.world.say(session, "<presence type='unavailable'/>")
        scene.world.end(session)
    scene.say(scene.romeo, JULIET, "propose")
    scene.say(scene.romeo, JULIET, "retract")
    assert len(account.offline) == 2
    tablet = scene.world.bind(account, "tablet")
    scene.world.say(tablet, "<presence/>")
    calls = [stanza for stanza in scene.world.heard(tablet) if JMI in stanza]
    assert ["propose" in calls[0], "retract" in calls[1], len(calls)] == [True, True, 2]
