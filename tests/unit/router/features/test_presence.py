"""Presence (RFC 6121, 4): who is told what, when, and who learns nothing."""

from __future__ import annotations

from typing import Any

import pytest

from router.contacts import Subscription
from router.entity import Session
from router.features.presence import DIRECTED
from router.settings import Settings
from storage import accounts
from tests.support.turns import DOMAIN, World, error
from xmpp import ns

ROMEO, JULIET, MERCUTIO = "romeo@example.com", "juliet@example.com", "mercutio@example.com"
REMOTE, ROOM = "benvolio@example.net", "balcony@rooms.example.net/romeo"
INITIAL = "<presence/>"
AWAY = '<presence id="p2"><show>away</show></presence>'
GONE = '<presence type="unavailable"><status>going on vacation</status></presence>'
BAD_REQUEST = error("bad-request", "modify")


class Scene:
    """Romeo has one session that has sent nothing yet, Juliet one that is available; they know nothing of each other."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.world = World(settings)
        self.romeo = self.world.bind(self.world.account(ROMEO), "orchard")
        self.juliet = self.world.online(self.world.account(JULIET), "balcony")

    def friends(self) -> None:
        self.world.friends(self.romeo.entity, self.juliet.entity)

    def say(self, session: Session, xml: str) -> list[str]:
        """The session sends it; what it hears itself."""
        self.world.say(session, xml)
        return self.world.heard(session)

    def come(self) -> None:
        """Romeo becomes available; whatever follows from that has been heard."""
        self.world.say(self.romeo, INITIAL)
        self.forget()

    def forget(self) -> None:
        for entity in self.world.entities.values():
            for session in entity.sessions.values():
                self.world.heard(session)
        self.world.away.clear()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def pres(from_: str, to: str, type: str | None = None, inner: str = "", id: str | None = None) -> str:
    """Presence as it is heard."""
    head = f'<presence to="{to}" from="{from_}"'
    head += f' type="{type}"' if type else ""
    head += f' id="{id}"' if id else ""
    return f"{head}>{inner}</presence>" if inner else f"{head}/>"


# --- initial presence (4.2)


@pytest.mark.parametrize(("subscription", "is_told"), [("none", False), ("to", False), ("from", True), ("both", True)])
def test_the_subscription_decides_who_is_told(scene: Scene, subscription: Subscription, is_told: bool) -> None:
    """4.2.2, 4.4.2, 4.5.2: "'subscription' attribute set to a value of "from" or "both"."""
    scene.world.contact(scene.romeo.entity, JULIET, subscription)
    for xml, type, inner, id in (
        (INITIAL, None, "", None),
        (AWAY, None, "<show>away</show>", "p2"),
        (GONE, "unavailable", "<status>going on vacation</status>", None),
    ):
        scene.say(scene.romeo, xml)
        expected = [pres(scene.romeo.jid, JULIET, type, inner, id)] if is_told else []
        assert [heard for heard in scene.world.heard(scene.juliet) if "probe" not in heard] == expected


@pytest.mark.parametrize("facts", [{"pending_in": True}, {"ask": True}, {"approved": True}])
def test_who_only_waits_for_an_answer_is_told_nothing(scene: Scene, facts: dict[str, Any]) -> None:
    scene.world.contact(scene.romeo.entity, JULIET, **facts)
    scene.say(scene.romeo, INITIAL)
    assert scene.world.heard(scene.juliet) == []


def test_all_available_resources_of_a_contact_are_told_and_no_others(scene: Scene) -> None:
    """4.2.3; whatever their priority (8.5.2.1.2)."""
    scene.friends()
    chamber = scene.world.online(scene.juliet.entity, "chamber", -5)
    silent = scene.world.bind(scene.juliet.entity, "silent")
    scene.say(scene.romeo, INITIAL)
    for session in (scene.juliet, chamber):
        assert scene.world.heard(session) == [pres(scene.romeo.jid, JULIET)]
    assert scene.world.heard(silent) == []


def test_all_own_resources_are_told_the_sender_included(scene: Scene) -> None:
    """4.2.2: "an entity is implicitly subscribed to its own presence"; a new resource learns of the others, too."""
    street = scene.world.online(scene.romeo.entity, "street", 3)
    silent = scene.world.bind(scene.romeo.entity, "silent")
    assert scene.say(scene.romeo, INITIAL) == [
        pres(scene.romeo.jid, ROMEO),
        pres(street.jid, ROMEO, inner="<priority>3</priority>"),
    ]
    assert scene.world.heard(street) == [pres(scene.romeo.jid, ROMEO)]
    assert scene.world.heard(silent) == []


def test_the_full_stanza_is_broadcast(scene: Scene) -> None:
    """4.4.2: "the full XML of that presence stanza"."""
    scene.friends()
    inner = '<show>dnd</show><status xml:lang="cs">Dvořím se</status><priority>-1</priority><x xmlns="urn:x"/>'
    scene.say(scene.romeo, f'<presence id="a" xml:lang="en">{inner}</presence>')
    assert scene.world.heard(scene.juliet) == [
        f'<presence to="{JULIET}" from="{scene.romeo.jid}" id="a" xml:lang="en">{inner}</presence>'
    ]


def test_the_state_is_handed_to_the_edge(scene: Scene) -> None:
    assert scene.world.say(scene.romeo, INITIAL).touched == (scene.romeo,)
    assert scene.world.say(scene.romeo, GONE).touched == (scene.romeo,)


# --- probes of the server (4.3, 4.3.1)


@pytest.mark.parametrize("subscription", ["to", "both"])
def test_initial_presence_asks_for_the_contacts_presence(scene: Scene, subscription: Subscription) -> None:
    scene.world.contact(scene.romeo.entity, JULIET, subscription)
    scene.world.contact(scene.juliet.entity, ROMEO, "from")
    chamber = scene.world.online(scene.juliet.entity, "chamber", 1)
    assert scene.say(scene.romeo, INITIAL) == [
        pres(scene.romeo.jid, ROMEO),
        pres(scene.juliet.jid, scene.romeo.jid),
        pres(chamber.jid, scene.romeo.jid, inner="<priority>1</priority>"),
    ]


@pytest.mark.parametrize("subscription", ["none", "from"])
def test_whom_one_does_not_see_is_not_asked(scene: Scene, subscription: Subscription) -> None:
    scene.world.contact(scene.romeo.entity, REMOTE, subscription)
    scene.say(scene.romeo, INITIAL)
    assert not [away for away in scene.world.away if "probe" in away]


def test_only_initial_presence_asks(scene: Scene) -> None:
    scene.friends()
    scene.come()
    assert scene.say(scene.romeo, AWAY) == [pres(scene.romeo.jid, ROMEO, inner="<show>away</show>", id="p2")]


def test_presence_after_unavailable_presence_is_initial_again(scene: Scene) -> None:
    """4.5.2: "MUST be treated as equivalent to initial presence for a new presence session"."""
    scene.friends()
    scene.come()
    scene.say(scene.romeo, GONE)
    scene.forget()
    assert scene.say(scene.romeo, INITIAL) == [
        pres(scene.romeo.jid, ROMEO),
        pres(scene.juliet.jid, scene.romeo.jid),
    ]
    assert scene.world.heard(scene.juliet) == [pres(scene.romeo.jid, JULIET)]


def test_a_probe_to_another_server_comes_from_the_bare_jid(scene: Scene) -> None:
    """4.3: "the value of the 'from' address MUST be the bare JID of the subscribed user"."""
    scene.world.contact(scene.romeo.entity, REMOTE, "to")
    scene.say(scene.romeo, INITIAL)
    assert scene.world.away == [pres(ROMEO, REMOTE, "probe")]


def test_other_resources_do_not_get_what_the_new_one_asked_for(scene: Scene) -> None:
    scene.friends()
    street = scene.world.online(scene.romeo.entity, "street")
    scene.say(scene.romeo, INITIAL)
    assert scene.world.heard(street) == [pres(scene.romeo.jid, ROMEO)]


# --- answers to probes (4.3.2)


def probe(scene: Scene, to: str = ROMEO, from_: str = REMOTE) -> list[str]:
    """A probe arrives from another server; what is sent back."""
    scene.world.away.clear()
    entity = scene.world.entities[to.partition("/")[0]]
    scene.world.arrive(entity, f'<presence from="{from_}" to="{to}" type="probe" id="ign291v5"/>')
    return scene.world.away


@pytest.mark.parametrize("subscription", ["from", "both"])
def test_a_probe_of_a_subscriber_is_answered_for_each_resource(scene: Scene, subscription: Subscription) -> None:
    """4.3.2, rule 4, and 4.3.2.1: the last presence in full, with its own id."""
    scene.world.contact(scene.romeo.entity, REMOTE, subscription)
    scene.world.bind(scene.romeo.entity, "silent")
    street = scene.world.online(scene.romeo.entity, "street", 2)
    scene.come()
    scene.say(scene.romeo, AWAY)
    assert probe(scene) == [
        pres(scene.romeo.jid, REMOTE, inner="<show>away</show>", id="p2"),
        pres(street.jid, REMOTE, inner="<priority>2</priority>"),
    ]


def test_a_directed_presence_is_not_what_a_probe_gets(scene: Scene) -> None:
    """4.3.2, rule 4: "the last presence stanza with no 'to' attribute"."""
    scene.world.contact(scene.romeo.entity, REMOTE, "from")
    scene.come()
    scene.say(scene.romeo, f'<presence to="{REMOTE}"><show>chat</show></presence>')
    assert probe(scene) == [pres(scene.romeo.jid, REMOTE)]


def test_a_probe_of_a_subscriber_when_nobody_is_available(scene: Scene) -> None:
    """4.3.2, rule 3, from the bare JID and with the probe's id (4.3.2.1)."""
    scene.world.contact(scene.romeo.entity, REMOTE, "from")
    assert probe(scene) == [pres(ROMEO, REMOTE, "unavailable", id="ign291v5")]


@pytest.mark.parametrize("facts", [None, {}, {"ask": True}, {"approved": True}, {"subscription": "to"}])
def test_a_probe_of_a_stranger_is_answered_unsubscribed(scene: Scene, facts: dict[str, Any] | None) -> None:
    """4.3.2, rule 1; a pre-approval stays (3.4)."""
    if facts is not None:
        contact = scene.world.contact(scene.romeo.entity, REMOTE, **facts)
    scene.come()
    for to in (ROMEO, scene.romeo.jid, f"{ROMEO}/nowhere"):
        assert probe(scene, to, f"{REMOTE}/street") == [pres(ROMEO, REMOTE, "unsubscribed", id="ign291v5")]
    assert facts is None or contact.approved == ("approved" in facts)


def test_a_probe_when_nobody_is_available_tells_since_when(scene: Scene) -> None:
    """4.3.2, rule 3: "SHOULD include information about the time when the last unavailable presence" was sent."""
    scene.world.contact(scene.romeo.entity, REMOTE, "both")
    scene.come()
    other = scene.world.online(scene.romeo.entity, "closet")
    scene.world.now += 60.9
    scene.say(scene.romeo, GONE)
    scene.world.now += 3_600
    scene.forget()
    assert probe(scene) == [pres(other.jid, REMOTE)]
    scene.world.end(other)
    scene.world.now += 100
    scene.forget()
    delay = f'<delay xmlns="{ns.DELAY}" stamp="2027-01-15T09:01:00Z"/>'
    assert probe(scene) == [pres(ROMEO, REMOTE, "unavailable", delay, id="ign291v5")]
    full = f"{ROMEO}/closet"
    assert probe(scene, full) == [pres(full, REMOTE, "unavailable", id="ign291v5")], "rule 3 is of the account"


def test_a_probe_for_a_name_without_account_looks_the_same(scene: Scene) -> None:
    scene.world.nobody(MERCUTIO)
    assert probe(scene, MERCUTIO) == [pres(MERCUTIO, REMOTE, "unsubscribed", id="ign291v5")]


def test_a_probe_does_not_refuse_a_request_that_waits(scene: Scene) -> None:
    scene.world.contact(scene.romeo.entity, REMOTE, pending_in=True)
    scene.come()
    assert probe(scene) == []


def test_a_probe_to_a_full_jid_is_answered_for_that_resource_alone(scene: Scene) -> None:
    """4.3.2: "SHOULD communicate only the fact that the resource is available"."""
    scene.world.contact(scene.romeo.entity, REMOTE, "from")
    scene.world.online(scene.romeo.entity, "street")
    scene.come()
    scene.say(scene.romeo, AWAY)
    assert probe(scene, scene.romeo.jid) == [pres(scene.romeo.jid, REMOTE, id="p2")]


@pytest.mark.parametrize("resource", ["silent", "nowhere"])
def test_a_probe_to_a_full_jid_that_is_not_available(scene: Scene, resource: str) -> None:
    scene.world.contact(scene.romeo.entity, REMOTE, "from")
    scene.world.bind(scene.romeo.entity, "silent")
    scene.come()
    full = f"{ROMEO}/{resource}"
    assert probe(scene, full) == [pres(full, REMOTE, "unavailable", id="ign291v5")]


def test_a_probe_of_the_account_itself(scene: Scene) -> None:
    scene.come()
    assert scene.say(scene.romeo, f'<presence to="{ROMEO}" type="probe"/>') == [pres(scene.romeo.jid, scene.romeo.jid)]


def test_a_probe_that_a_client_sends_is_processed(scene: Scene) -> None:
    """4.3: "MUST NOT use its receipt of the presence probe from a connected client as the sole cause" for an error."""
    scene.friends()
    assert scene.say(scene.romeo, f'<presence to="{JULIET}" type="probe"/>') == [
        pres(scene.juliet.jid, scene.romeo.jid)
    ]
    assert scene.say(scene.romeo, f'<presence to="{REMOTE}" type="probe" id="1"/>') == []
    assert scene.world.away == [pres(scene.romeo.jid, REMOTE, "probe", id="1")]
    assert DIRECTED not in scene.romeo.marks


# --- unavailable presence (4.5)


def test_unavailable_presence_goes_to_the_own_resources_and_back(scene: Scene) -> None:
    """4.5.2: "as well as to the resource that generated the unavailable presence in the first place"."""
    street = scene.world.online(scene.romeo.entity, "street")
    silent = scene.world.bind(scene.romeo.entity, "silent")
    scene.come()
    gone = pres(scene.romeo.jid, ROMEO, "unavailable", "<status>going on vacation</status>")
    assert scene.say(scene.romeo, GONE) == [gone]
    assert scene.world.heard(street) == [gone]
    assert scene.world.heard(silent) == []
    assert (scene.romeo.presence, scene.romeo.priority) == (None, 0)


def test_who_was_not_available_cannot_become_unavailable(scene: Scene) -> None:
    scene.friends()
    assert scene.say(scene.romeo, GONE) == []
    assert scene.world.heard(scene.juliet) == []
    assert scene.world.writes == []


def test_a_session_that_ends_is_unavailable(scene: Scene) -> None:
    """4.5.2: "the server MUST generate the unavailable presence broadcast on the user's behalf"."""
    scene.friends()
    street = scene.world.online(scene.romeo.entity, "street")
    scene.come()
    turn = scene.world.end(scene.romeo)
    gone = pres(scene.romeo.jid, JULIET, "unavailable")
    assert scene.world.heard(scene.juliet) == [gone]
    assert scene.world.heard(street) == [pres(scene.romeo.jid, ROMEO, "unavailable")]
    assert turn.touched == (), "nothing of it is left to keep"


def test_a_session_that_ends_after_unavailable_presence_says_nothing_more(scene: Scene) -> None:
    scene.friends()
    scene.come()
    scene.say(scene.romeo, GONE)
    scene.forget()
    scene.world.end(scene.romeo)
    assert scene.world.heard(scene.juliet) == []


def test_the_last_resource_to_go_is_remembered(scene: Scene) -> None:
    street = scene.world.online(scene.romeo.entity, "street")
    scene.come()
    scene.say(scene.romeo, GONE)
    assert scene.world.written() == []
    scene.world.end(street)
    assert accounts.record_last in scene.world.written()


# --- directed presence (4.6)


def direct(scene: Scene, to: str, type: str | None = None) -> list[str]:
    """Romeo sends directed presence; what he hears."""
    return scene.say(scene.romeo, f'<presence to="{to}"{f" type=`{type}`" if type else ""}/>'.replace("`", '"'))


@pytest.mark.parametrize("to", [JULIET, f"{JULIET}/balcony"])
def test_directed_presence_is_delivered_in_full(scene: Scene, to: str) -> None:
    scene.say(scene.romeo, f'<presence to="{to}" id="d"><show>chat</show></presence>')
    assert scene.world.heard(scene.juliet) == [pres(scene.romeo.jid, to, inner="<show>chat</show>", id="d")]
    assert scene.romeo.presence is None


def test_directed_presence_to_a_full_jid_is_for_that_resource_alone(scene: Scene) -> None:
    """8.5.3.1 ("connected resource" is enough), 8.5.3.2.2."""
    silent = scene.world.bind(scene.juliet.entity, "silent")
    direct(scene, silent.jid)
    assert scene.world.heard(silent) == [pres(scene.romeo.jid, silent.jid)]
    assert direct(scene, f"{JULIET}/nowhere") == []
    assert scene.world.heard(scene.juliet) == []


@pytest.mark.parametrize("is_available", [True, False])
@pytest.mark.parametrize("how", ["unavailable", "lost"])
def test_whoever_got_directed_presence_is_told_of_the_end(scene: Scene, is_available: bool, how: str) -> None:
    """4.6.3, rules 2 and 3: not of updates, but of the end, once."""
    if is_available:
        scene.come()
    direct(scene, JULIET)
    direct(scene, ROOM)
    if is_available:
        scene.say(scene.romeo, AWAY)
    assert scene.world.heard(scene.juliet) == [pres(scene.romeo.jid, JULIET)]
    assert scene.world.away == [pres(scene.romeo.jid, ROOM)]
    scene.forget()
    inner = "<status>going on vacation</status>" if how == "unavailable" else ""
    if how == "unavailable":
        scene.say(scene.romeo, GONE)
        assert scene.romeo.marks.get(DIRECTED) is None
    scene.world.end(scene.romeo)
    assert scene.world.heard(scene.juliet) == [pres(scene.romeo.jid, JULIET, "unavailable", inner)]
    assert scene.world.away == [pres(scene.romeo.jid, ROOM, "unavailable", inner)]


def test_presence_directed_before_initial_presence_does_not_ask_for_updates(scene: Scene) -> None:
    direct(scene, JULIET)
    scene.forget()
    scene.say(scene.romeo, INITIAL)
    assert scene.world.heard(scene.juliet) == []


def test_directed_unavailable_presence_ends_it(scene: Scene) -> None:
    """4.6.1: "MUST remove from the directed presence list"."""
    scene.come()
    direct(scene, JULIET)
    direct(scene, ROOM)
    direct(scene, JULIET, "unavailable")
    assert scene.world.heard(scene.juliet)[1:] == [pres(scene.romeo.jid, JULIET, "unavailable")]
    scene.world.end(scene.romeo)
    assert scene.world.heard(scene.juliet) == []
    assert scene.world.away[1:] == [pres(scene.romeo.jid, ROOM, "unavailable")]


def test_who_leaves_need_not_be_told(scene: Scene) -> None:
    """4.6.1: "SHOULD remove any entity that sends unavailable presence to the user"; a room that closes, say."""
    scene.come()
    direct(scene, ROOM)
    other = ROOM.replace("/romeo", "/paris")
    direct(scene, other)
    scene.forget()
    unavailable = f'<presence from="{ROOM}" to="{scene.romeo.jid}" type="unavailable"/>'
    turn = scene.world.arrive(scene.romeo.entity, unavailable)
    assert scene.world.heard(scene.romeo) == [pres(ROOM, scene.romeo.jid, "unavailable")]
    assert turn.touched == (scene.romeo,)
    scene.world.end(scene.romeo)
    assert scene.world.away == [pres(scene.romeo.jid, other, "unavailable")]


def test_who_leaves_one_resource_is_still_known_to_the_other(scene: Scene) -> None:
    scene.come()
    street = scene.world.online(scene.romeo.entity, "street")
    direct(scene, ROOM)
    scene.world.say(street, f'<presence to="{ROOM}"/>')
    scene.world.arrive(scene.romeo.entity, f'<presence from="{ROOM}" to="{street.jid}" type="unavailable"/>')
    assert (scene.romeo.marks[DIRECTED], street.marks[DIRECTED]) == ([ROOM], [])


def test_who_goes_offline_by_broadcast_is_forgotten_by_all(scene: Scene) -> None:
    scene.come()
    scene.world.contact(scene.juliet.entity, ROMEO, "from")
    direct(scene, scene.juliet.jid)
    scene.world.say(scene.juliet, '<presence type="unavailable"/>')
    assert scene.romeo.marks[DIRECTED] == []


def test_a_subscriber_is_told_by_the_broadcast_alone(scene: Scene) -> None:
    """4.6.3, rule 1: directed presence does not change what a subscriber gets."""
    scene.friends()
    scene.come()
    direct(scene, JULIET)
    direct(scene, JULIET, "unavailable")
    direct(scene, JULIET)
    scene.forget()
    scene.say(scene.romeo, AWAY)
    scene.say(scene.romeo, '<presence type="unavailable"/>')
    assert scene.world.heard(scene.juliet) == [
        pres(scene.romeo.jid, JULIET, inner="<show>away</show>", id="p2"),
        pres(scene.romeo.jid, JULIET, "unavailable"),
    ]


def test_who_became_a_subscriber_since_is_told_once(scene: Scene) -> None:
    """4.6.1: "the user's server MUST treat the contact just as it would any normal subscriber"."""
    scene.come()
    direct(scene, JULIET)
    scene.world.contact(scene.romeo.entity, JULIET, "from")
    scene.forget()
    scene.say(scene.romeo, AWAY)
    scene.world.end(scene.romeo)
    assert scene.world.heard(scene.juliet) == [
        pres(scene.romeo.jid, JULIET, inner="<show>away</show>", id="p2"),
        pres(scene.romeo.jid, JULIET, "unavailable"),
    ]


def test_a_subscriber_who_got_it_while_we_were_unavailable_is_told_of_the_end(scene: Scene) -> None:
    """4.6.3, rule 3."""
    scene.world.contact(scene.romeo.entity, JULIET, "from")
    direct(scene, JULIET)
    scene.forget()
    scene.world.end(scene.romeo)
    assert scene.world.heard(scene.juliet) == [pres(scene.romeo.jid, JULIET, "unavailable")]


def test_directed_presence_is_remembered_once_and_kept_by_the_edge(scene: Scene) -> None:
    turn = scene.world.say(scene.romeo, f'<presence to="{ROOM}"/>')
    assert turn.touched == (scene.romeo,)
    assert scene.world.say(scene.romeo, f'<presence to="{ROOM}"/>').touched == ()
    assert scene.romeo.marks[DIRECTED] == [ROOM]


def test_directed_presence_has_a_limit() -> None:
    scene = Scene(Settings(domains=frozenset({DOMAIN}), directed_presences=2))
    for name in ("a", "b"):
        assert direct(scene, f"{name}@example.net") == []
    scene.world.away.clear()
    (answer,) = direct(scene, "c@example.net")
    assert error("resource-constraint", "wait") in answer
    assert scene.world.away == []
    assert direct(scene, "a@example.net") == [], "known already"
    direct(scene, "a@example.net", "unavailable")
    assert direct(scene, "c@example.net") == []


# --- probes and directed presence (4.6.6)


def test_who_got_directed_presence_may_ask_whether_we_are_still_there(scene: Scene) -> None:
    """4.6.6: "with only mere presence", "only for that full JID"."""
    scene.come()
    scene.world.online(scene.romeo.entity, "street")
    scene.say(scene.romeo, f'<presence to="{ROOM}"><show>chat</show></presence>')
    assert probe(scene, scene.romeo.jid, ROOM) == [pres(scene.romeo.jid, ROOM)]
    room = ROOM.partition("/")[0]
    for to, from_ in ((ROMEO, ROOM), (f"{ROMEO}/street", ROOM), (scene.romeo.jid, room), (scene.romeo.jid, REMOTE)):
        bare = from_.partition("/")[0]
        assert probe(scene, to, from_) == [pres(ROMEO, bare, "unsubscribed", id="ign291v5")]


def test_directed_presence_to_a_bare_jid_lets_all_its_resources_ask(scene: Scene) -> None:
    direct(scene, REMOTE)
    assert probe(scene, scene.romeo.jid, f"{REMOTE}/street") == [pres(scene.romeo.jid, f"{REMOTE}/street")]
    direct(scene, REMOTE, "unavailable")
    assert probe(scene, scene.romeo.jid, f"{REMOTE}/street") == [pres(ROMEO, REMOTE, "unsubscribed", id="ign291v5")]


# --- syntax (4.7)


@pytest.mark.parametrize("to", ["", f' to="{JULIET}"'])
def test_a_type_that_does_not_exist_is_a_bad_request(scene: Scene, to: str) -> None:
    (answer,) = scene.say(scene.romeo, f'<presence id="1" type="available"{to}/>')
    assert answer.startswith("<presence ")
    assert ' type="error" id="1">' in answer
    assert BAD_REQUEST in answer
    assert scene.world.heard(scene.juliet) == []


@pytest.mark.parametrize("to", [ROMEO, f"{ROMEO}/orchard"])
def test_such_a_type_from_another_server_too(scene: Scene, to: str) -> None:
    scene.come()
    scene.world.arrive(scene.romeo.entity, f'<presence from="{REMOTE}" to="{to}" type="available"/>')
    (answer,) = scene.world.away
    assert BAD_REQUEST in answer
    assert scene.world.heard(scene.romeo) == []


def test_errors_need_an_address_and_are_for_one_resource(scene: Scene) -> None:
    assert scene.say(scene.romeo, '<presence type="error"/>') == [], "no error for an error (RFC 6120, 8.3.1)"
    scene.say(scene.romeo, f'<presence to="{JULIET}" type="error"/>')
    assert scene.world.heard(scene.juliet) == []
    scene.say(scene.romeo, f'<presence to="{scene.juliet.jid}" type="error"/>')
    assert scene.world.heard(scene.juliet) == [pres(scene.romeo.jid, scene.juliet.jid, "error")]
    assert DIRECTED not in scene.romeo.marks


def test_a_probe_needs_an_address(scene: Scene) -> None:
    (answer,) = scene.say(scene.romeo, '<presence type="probe"/>')
    assert BAD_REQUEST in answer


@pytest.mark.parametrize(
    ("written", "priority"),
    [("-128", -128), ("127", 127), ("0", 0), ("-0", 0), ("+5", 5), (" 7\n", 7), ("007", 7)],
)
def test_priorities(scene: Scene, written: str, priority: int) -> None:
    scene.say(scene.romeo, f"<presence><show>away</show><priority>{written}</priority></presence>")
    assert scene.romeo.priority == priority


def test_without_a_priority_it_is_zero(scene: Scene) -> None:
    """4.7.2.3; also after another one, and where only a foreign element is called so."""
    scene.say(scene.romeo, "<presence><priority>5</priority></presence>")
    scene.say(scene.romeo, '<presence><priority xmlns="urn:x">6</priority></presence>')
    assert scene.romeo.priority == 0


@pytest.mark.parametrize("written", ["128", "-129", "", "x", "1.0", "1e1", "--1", "+", "0x1", "1 2", "٣", "9" * 5000])
def test_no_priorities(scene: Scene, written: str) -> None:
    scene.friends()
    (answer,) = scene.say(scene.romeo, f"<presence><priority>{written}</priority></presence>")
    assert BAD_REQUEST in answer
    assert scene.romeo.presence is None
    assert scene.world.heard(scene.juliet) == []


# --- nobody there (8.5.1, 8.5.2.2.2), and blocked contacts (XEP-0191)


@pytest.mark.parametrize("type", ["", ' type="unavailable"', ' type="error"'])
@pytest.mark.parametrize("resource", ["", "/x"])
def test_presence_for_nobody_is_ignored(scene: Scene, type: str, resource: str) -> None:
    offline = scene.world.account("paris@example.com")
    for entity in (scene.world.nobody(MERCUTIO), offline):
        scene.world.arrive(entity, f'<presence from="{REMOTE}" to="{entity.bare}{resource}"{type}/>')
    assert scene.world.away == []
    assert scene.world.writes == []


def test_a_blocked_contact_is_neither_told_nor_asked_nor_heard(scene: Scene) -> None:
    scene.friends()
    scene.romeo.entity.blocks.add(JULIET)
    assert scene.say(scene.romeo, INITIAL) == [pres(scene.romeo.jid, ROMEO)]
    scene.say(scene.romeo, AWAY)
    scene.world.say(scene.juliet, AWAY)
    scene.world.say(scene.juliet, f'<presence to="{ROMEO}" type="probe"/>')
    scene.say(scene.romeo, GONE)
    own = pres(scene.juliet.jid, JULIET, inner="<show>away</show>", id="p2")
    assert scene.world.heard(scene.juliet) == [own]


def test_nothing_goes_to_a_blocked_contact_of_another_server(scene: Scene) -> None:
    scene.world.contact(scene.romeo.entity, REMOTE, "both")
    scene.romeo.entity.blocks.add("example.net")
    for xml in (INITIAL, AWAY, GONE):
        scene.say(scene.romeo, xml)
    assert scene.world.away == []


def test_who_has_blocked_us_gives_no_answer(scene: Scene) -> None:
    scene.friends()
    scene.juliet.entity.blocks.add(ROMEO)
    assert scene.say(scene.romeo, INITIAL) == [pres(scene.romeo.jid, ROMEO)]
    assert scene.world.heard(scene.juliet) == []


def test_the_end_of_a_session_is_kept_from_blocked_subscribers(scene: Scene) -> None:
    scene.friends()
    scene.come()
    scene.romeo.entity.blocks.add("example.com")
    scene.world.end(scene.romeo)
    assert scene.world.heard(scene.juliet) == []


def test_requests_that_wait_are_shown_with_initial_presence_alone(scene: Scene) -> None:
    """3.1.3; the rule itself is tested with subscriptions."""
    scene.world.contact(scene.romeo.entity, REMOTE, pending_in=True, pending_inner=b"<status>hi</status>")
    asked = pres(REMOTE, ROMEO, "subscribe", "<status>hi</status>")
    assert scene.say(scene.romeo, INITIAL) == [pres(scene.romeo.jid, ROMEO), asked]
    assert asked not in scene.say(scene.romeo, AWAY)


def test_presence_does_not_touch_rosters(scene: Scene) -> None:
    scene.friends()
    scene.say(scene.romeo, f'<iq type="get" id="r"><query xmlns="{ns.ROSTER}"/></iq>')
    for xml in (INITIAL, AWAY, f'<presence to="{JULIET}"/>'):
        scene.say(scene.romeo, xml)
    assert scene.world.writes == []
