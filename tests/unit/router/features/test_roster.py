"""Rosters (RFC 6121, 2): get, set, remove, pushes, versions and errors."""

from __future__ import annotations

import pytest

from router.contacts import Contact
from router.entity import Session
from router.features import roster as roster_feature
from router.settings import Settings
from storage import rosters
from storage.rosters import Item, Removed
from tests.support.turns import DOMAIN, World, error, stored
from xmpp import ns

GET = f'<iq type="get" id="g"><query xmlns="{ns.ROSTER}"/></iq>'
BAD_REQUEST = error("bad-request", "modify")
NOT_ACCEPTABLE = error("not-acceptable", "modify")


def set_(item: str) -> str:
    return f'<iq type="set" id="s"><query xmlns="{ns.ROSTER}">{item}</query></iq>'


def get_since(version: str) -> str:
    return f'<iq type="get" id="g"><query xmlns="{ns.ROSTER}" ver="{version}"/></iq>'


def push(session: Session, version: int, item: str) -> str:
    return (
        f'<iq to="{session.jid}" type="set" id="push-{version}"><query xmlns="{ns.ROSTER}" ver="{version}">{item}'
        "</query></iq>"
    )


def result(session: Session) -> str:
    return f'<iq to="{session.jid}" type="result" id="s"/>'


class Scene:
    """Juliet with two sessions that have asked for the roster and one that has not."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.world = World(settings)
        self.account = self.world.account("juliet@example.com")
        self.account.roster.version = 10
        self.balcony = self.world.bind(self.account, "balcony")
        self.chamber = self.world.bind(self.account, "chamber")
        self.silent = self.world.bind(self.account, "silent")
        for session in (self.balcony, self.chamber):
            self.world.say(session, GET)
            self.world.heard(session)

    def ask(self, xml: str) -> list[str]:
        self.world.say(self.balcony, xml)
        return self.world.heard(self.balcony)

    def refused(self, xml: str, condition: str) -> None:
        """The request is refused, and nothing has changed."""
        version, contacts = self.account.roster.version, set(self.account.roster.contacts)
        (answer,) = self.ask(xml)
        assert answer.startswith(f'<iq to="{self.balcony.jid}" type="error" id="s">')
        assert condition in answer
        assert self.world.heard(self.chamber) == []
        assert self.world.writes == []
        assert (self.account.roster.version, set(self.account.roster.contacts)) == (version, contacts)


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- get


def test_an_empty_roster(scene: Scene) -> None:
    assert scene.ask(GET) == [f'<iq to="{scene.balcony.jid}" type="result" id="g"><query xmlns="{ns.ROSTER}"/></iq>']


def test_all_that_a_contact_may_be(scene: Scene) -> None:
    contact = scene.world.contact
    contact(scene.account, "romeo@example.net", "both", name='"R" & <M>', groups=("Friends", "Lovers & <co>"))
    contact(scene.account, "mercutio@example.com", "from", ask=True)
    contact(scene.account, "nurse@example.com", approved=True)
    contact(scene.account, "stranger@example.org", pending_in=True, in_roster=False)
    contact(scene.account, "tybalt@example.com", "to", pending_in=True)
    (answer,) = scene.ask(GET)
    assert answer == (
        f'<iq to="{scene.balcony.jid}" type="result" id="g"><query xmlns="{ns.ROSTER}">'
        '<item jid="romeo@example.net" name="&quot;R&quot; &amp; &lt;M&gt;" subscription="both">'
        "<group>Friends</group><group>Lovers &amp; &lt;co&gt;</group></item>"
        '<item jid="mercutio@example.com" subscription="from" ask="subscribe"/>'
        '<item jid="nurse@example.com" subscription="none" approved="true"/>'
        '<item jid="tybalt@example.com" subscription="to"/>'
        "</query></iq>"
    ), "who only waits for an answer is not in the roster (A.1)"


def test_a_get_to_the_own_bare_jid_is_the_same(scene: Scene) -> None:
    (answer,) = scene.ask(GET.replace("<iq", '<iq to="juliet@example.com"'))
    assert answer.startswith(f'<iq to="{scene.balcony.jid}" from="juliet@example.com" type="result" id="g"><query')


def test_a_get_has_no_items(scene: Scene) -> None:
    (answer,) = scene.ask(GET.replace("/></iq>", '><item jid="a@b"/></query></iq>'))
    assert BAD_REQUEST in answer


def test_asking_makes_a_session_interested_once(scene: Scene) -> None:
    turn = scene.world.say(scene.silent, GET)
    assert turn.touched == (scene.silent,), "its c2s keeps that for the next owner"
    assert scene.world.say(scene.silent, GET).touched == ()


# --- set


def test_adding_a_contact_pushes_to_the_interested_and_stores(scene: Scene) -> None:
    turn = scene.world.say(scene.balcony, set_('<item jid="Nurse@Example.com" name="N"><group>S</group></item>'))
    item = '<item jid="nurse@example.com" name="N" subscription="none"><group>S</group></item>'
    assert scene.world.heard(scene.balcony) == [push(scene.balcony, 11, item), result(scene.balcony)]
    assert scene.world.heard(scene.chamber) == [push(scene.chamber, 11, item)]
    assert scene.world.heard(scene.silent) == []
    assert stored(turn) == [Item("nurse@example.com", "N", ("S",), version=11)]
    assert turn.writes[0].arguments[2] == 11


def test_a_session_that_is_not_interested_gets_the_result_alone(scene: Scene) -> None:
    scene.world.say(scene.silent, set_('<item jid="nurse@example.com"/>'))
    assert scene.world.heard(scene.silent) == [result(scene.silent)]
    assert len(scene.world.heard(scene.chamber)) == 1


def test_changing_a_contact_leaves_its_subscription(scene: Scene) -> None:
    """2.1.2.5: what a client says of the subscription is ignored, unless it is "remove"; of ask and approved, too."""
    scene.world.contact(scene.account, "romeo@example.net", "both", name="old", groups=("a",), approved=True)
    heard = scene.ask(set_('<item jid="romeo@example.net" name="new" subscription="none" ask="subscribe"/>'))
    item = '<item jid="romeo@example.net" name="new" subscription="both" approved="true"/>'
    assert heard == [push(scene.balcony, 11, item), result(scene.balcony)]


def test_adding_somebody_who_waits_for_an_answer_keeps_the_request(scene: Scene) -> None:
    contact = scene.world.contact(
        scene.account, "romeo@example.net", pending_in=True, pending_inner=b"<status/>", in_roster=False
    )
    heard = scene.ask(set_('<item jid="romeo@example.net"/>'))
    assert '<item jid="romeo@example.net" subscription="none"/>' in heard[0]
    assert (contact.in_roster, contact.pending_in, contact.pending_inner) == (True, True, b"<status/>")


@pytest.mark.parametrize(
    ("items", "condition"),
    [
        ("", BAD_REQUEST),
        ('<item jid="a@example.com"/><item jid="b@example.com"/>', BAD_REQUEST),
        ('<item jid="a@example.com"/><x/>', BAD_REQUEST),
        ("<item/>", BAD_REQUEST),
        ('<item jid=""/>', BAD_REQUEST),
        ('<item jid="@example.com"/>', BAD_REQUEST),
        ('<item xmlns="urn:x" jid="a@example.com"/>', BAD_REQUEST),
        ('<item jid="a@example.com"><group>g</group><group>g</group></item>', BAD_REQUEST),
        ('<item jid="a@example.com"><group/></item>', NOT_ACCEPTABLE),
        (f'<item jid="a@example.com"><group>{"g" * 1024}</group></item>', NOT_ACCEPTABLE),
        (f'<item jid="a@example.com" name="{"n" * 1024}"/>', NOT_ACCEPTABLE),
        ('<item jid="juliet@example.com"/>', error("not-allowed", "cancel")),
        ('<item jid="a@example.com" subscription="remove"/>', error("item-not-found", "cancel")),
    ],
)
def test_wrong_sets(scene: Scene, items: str, condition: str) -> None:
    """2.3.3 and 2.5.3."""
    scene.refused(set_(items), condition)


def test_the_roster_may_be_full() -> None:
    scene = Scene(Settings(domains=frozenset({DOMAIN}), roster_contacts=2))
    for name in "abc":
        scene.world.contact(scene.account, f"{name}@example.org", pending_in=True, in_roster=False)
    scene.ask(set_('<item jid="one@example.com"/>'))
    scene.ask(set_('<item jid="a@example.org"/>'))
    scene.world.heard(scene.chamber)
    scene.world.written()
    full = error("resource-constraint", "wait")
    scene.refused(set_('<item jid="three@example.com"/>'), full)
    scene.refused(set_('<item jid="b@example.org"/>'), full)
    assert result(scene.balcony) in scene.ask(set_('<item jid="one@example.com" name="still changeable"/>'))


def test_requests_of_strangers_leave_room_for_contacts() -> None:
    scene = Scene(Settings(domains=frozenset({DOMAIN}), roster_contacts=2))
    for name in "abc":
        scene.world.contact(scene.account, f"{name}@example.org", pending_in=True, in_roster=False)
    assert result(scene.balcony) in scene.ask(set_('<item jid="one@example.com"/>'))
    scene.world.say(scene.balcony, '<presence to="two@example.com" type="subscribe"/>')
    assert scene.account.roster.contacts["two@example.com"].ask


@pytest.mark.parametrize("type", ["get", "set"])
def test_the_roster_of_somebody_else_is_forbidden(scene: Scene, type: str) -> None:
    romeo = scene.world.bind(scene.world.account("romeo@example.com"))
    scene.world.say(
        romeo,
        f'<iq to="juliet@example.com" type="{type}" id="s"><query xmlns="{ns.ROSTER}"><item jid="x"/></query></iq>',
    )
    (answer,) = scene.world.heard(romeo)
    assert error("forbidden", "auth") in answer
    assert scene.world.writes == []


# --- remove

REMOVE = set_('<item jid="romeo@example.net" subscription="remove"/>')
REMOVED = '<item jid="romeo@example.net" subscription="remove"/>'
UNAVAILABLE = '<presence to="romeo@example.net" from="juliet@example.com/street" type="unavailable"/>'
UNSUBSCRIBED = '<presence to="romeo@example.net" from="juliet@example.com" type="unsubscribed"/>'
UNSUBSCRIBE = '<presence to="romeo@example.net" from="juliet@example.com" type="unsubscribe"/>'


@pytest.mark.parametrize(
    ("contact", "told"),
    [
        (Contact("", subscription="none"), []),
        (Contact("", subscription="none", ask=True), [UNSUBSCRIBE]),
        (Contact("", subscription="none", approved=True), []),
        (Contact("", subscription="to"), [UNSUBSCRIBE]),
        (Contact("", subscription="from"), [UNAVAILABLE, UNSUBSCRIBED]),
        (Contact("", subscription="from", ask=True), [UNAVAILABLE, UNSUBSCRIBED, UNSUBSCRIBE]),
        (Contact("", subscription="both"), [UNAVAILABLE, UNSUBSCRIBED, UNSUBSCRIBE]),
    ],
)
def test_removing_ends_the_subscriptions(scene: Scene, contact: Contact, told: list[str]) -> None:
    """2.5.2: "the user's server MUST generate" unsubscribe and unsubscribed, and unavailable before the latter."""
    contact.jid = "romeo@example.net"
    scene.account.roster.contacts[contact.jid] = contact
    scene.world.online(scene.account, "street")
    assert scene.ask(REMOVE) == [push(scene.balcony, 11, REMOVED), result(scene.balcony)]
    assert scene.world.heard(scene.chamber) == [push(scene.chamber, 11, REMOVED)]
    assert scene.world.away == told
    assert scene.world.written() == [rosters.remove]
    assert scene.account.roster.contacts == {}


def test_removing_keeps_a_request_that_waits(scene: Scene) -> None:
    scene.world.contact(scene.account, "romeo@example.net", "to", pending_in=True, pending_inner=b"<status/>", name="R")
    assert push(scene.balcony, 11, REMOVED) in scene.ask(REMOVE)
    assert scene.world.away == [UNSUBSCRIBE]
    assert scene.account.roster.contacts["romeo@example.net"] == Contact(
        "romeo@example.net", pending_in=True, pending_inner=b"<status/>", in_roster=False
    )
    assert scene.world.written() == [rosters.remove, rosters.upsert]


def test_removing_somebody_who_only_waits_for_an_answer(scene: Scene) -> None:
    scene.world.contact(scene.account, "romeo@example.net", pending_in=True, in_roster=False)
    scene.refused(REMOVE, error("item-not-found", "cancel"))


# --- versions (2.6)


def test_a_client_without_a_cached_roster_gets_all_with_a_version(scene: Scene) -> None:
    scene.world.contact(scene.account, "romeo@example.net", version=4)
    for version in ("", "11", "0", "-1", "x", "\u0661", "1" * 5000):
        (answer,) = scene.ask(get_since(version))
        assert f'<query xmlns="{ns.ROSTER}" ver="10"><item jid="romeo@example.net"' in answer, version


def test_a_client_that_knows_everything_gets_an_empty_result(scene: Scene) -> None:
    scene.world.contact(scene.account, "romeo@example.net", version=4)
    assert scene.ask(get_since("10")) == [f'<iq to="{scene.balcony.jid}" type="result" id="g"/>']


def test_a_client_that_was_away_gets_the_changes_as_pushes_in_order(scene: Scene) -> None:
    scene.account.roster.version = 10
    scene.world.contact(scene.account, "a@example.org", version=4)
    scene.world.contact(scene.account, "b@example.org", version=9)
    scene.world.contact(scene.account, "c@example.org", version=7)
    scene.world.contact(scene.account, "d@example.org", version=8, pending_in=True, in_roster=False)
    scene.account.roster.removed = {"old@example.org": 3, "gone@example.org": 8}
    assert scene.ask(get_since("5")) == [
        f'<iq to="{scene.balcony.jid}" type="result" id="g"/>',
        push(scene.balcony, 7, '<item jid="c@example.org" subscription="none"/>'),
        push(scene.balcony, 8, '<item jid="gone@example.org" subscription="remove"/>'),
        push(scene.balcony, 9, '<item jid="b@example.org" subscription="none"/>'),
    ]
    assert scene.world.heard(scene.chamber) == []


def test_what_came_back_is_not_told_as_removed(scene: Scene) -> None:
    scene.world.contact(scene.account, "romeo@example.net", version=2)
    scene.ask(REMOVE)
    scene.ask(set_('<item jid="romeo@example.net"/>'))
    assert scene.ask(get_since("10"))[1:] == [
        push(scene.balcony, 12, '<item jid="romeo@example.net" subscription="none"/>')
    ]


def test_rows_become_a_roster() -> None:
    world = World()
    account = world.account("juliet@example.com")
    item = Item("romeo@example.net", "R", ("G",), "from", True, False, False, b"", True, 7)
    roster_feature._assign(account, roster_feature._Rows([item], 9, [Removed("x@example.org", 8)]))
    contact = account.roster.contacts["romeo@example.net"]
    assert contact == Contact("romeo@example.net", "R", ("G",), "from", True, False, False, b"", True, 7)
    assert (account.roster.version, account.roster.removed) == (9, {"x@example.org": 8})
