"""Push notifications (XEP-0357): which device is told of what, and when no more."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from lxml import etree

from cluster.wire import Incarnation
from router.contacts import Contact
from router.entity import Session
from router.events import HeardInRoom, SaidInRoom
from router.features.push import APART_S, FAILURES, RETRY_S, SERVICES, UNACKNOWLEDGED_S
from router.turn import Turn
from storage import push
from tests.support.turns import PLAIN, World, error, parse
from xmpp import ns
from xmpp.stanza import OF_PRIVATE_ROOM

JULIET, ROMEO = "juliet@example.com", "romeo@example.com"
SERVICE, ROOM = "push.app.example", "verona@conference.example.com"
C2S = Incarnation("c2s-0#1")
OPTIONS = (
    '<x xmlns="jabber:x:data" type="submit"><field var="FORM_TYPE">'
    f'<value>{ns.PUBSUB_OPTIONS}</value></field><field var="secret"><value>eruio</value></field></x>'
)
FIELD = f"{{{ns.DATA_FORMS}}}field"


class Scene:
    """Juliet's phone has a stream; Romeo writes to her."""

    def __init__(self, **settings: Any) -> None:
        self.world = World(dataclasses.replace(PLAIN, **settings))
        self.account = self.world.account(JULIET)
        self.phone = self.world.online(self.account, "phone")
        self.phone.place = C2S
        self.romeo = self.world.online(self.world.account(ROMEO))

    def ask(self, inner: str, to: str | None = None, session: Session | None = None) -> str:
        session = session or self.phone
        address = f' to="{to}"' if to else ""
        self.world.say(session, f'<iq{address} type="set" id="p">{inner}</iq>')
        return self.world.heard(session)[-1]

    def enable(self, node: str = "n1", inner: str = "", session: Session | None = None, jid: str = SERVICE) -> str:
        return self.ask(f'<enable xmlns="{ns.PUSH}" jid="{jid}" node="{node}">{inner}</enable>', None, session)

    def detach(self, session: Session | None = None) -> None:
        """Its stream is gone, and may come back."""
        (session or self.phone).place = None

    def write(self, inner: str = "<body>hello</body>", attributes: str = ' type="chat"') -> None:
        self.world.say(self.romeo, f'<message to="{JULIET}"{attributes}>{inner}</message>')

    def told(self) -> list[etree._Element]:
        """The notifications that were sent."""
        away, self.world.away = self.world.away, []
        return [etree.fromstring(said) for said in away if said.startswith("<iq")]

    def nodes(self) -> list[str | None]:
        """The nodes that were told."""
        return [next(iq.iter(f"{{{ns.PUBSUB}}}publish")).get("node") for iq in self.told()]

    def answer(self, iq: etree._Element, type: str, inner: str = "") -> None:
        said = f'<iq from="{SERVICE}" to="{JULIET}" type="{type}" id="{iq.get("id")}">{inner}</iq>'
        self.world.arrive(self.account, said)

    def emit(self, event: Any) -> None:
        turn = Turn(self.account, None, None, self.world.settings, self.world.now, 1, 1, self.world.ids)
        self.world.pipeline.emit(turn, event)
        self.world._over(turn)

    def bookmark(self, jid: str, notify: str) -> None:
        extension = f'<notify xmlns="{ns.NOTIFICATION_SETTINGS}">{notify}</notify>'
        payload = f'<conference xmlns="{ns.BOOKMARKS}"><extensions>{extension}</extensions></conference>'
        inner = f'<publish node="{ns.BOOKMARKS}"><item id="{jid}">{payload}</item></publish>'
        self.ask(f'<pubsub xmlns="{ns.PUBSUB}">{inner}</pubsub>')


@pytest.fixture
def scene() -> Scene:
    return Scene()


def summary(iq: etree._Element) -> dict[str, str]:
    return {field.get("var") or "": field[0].text or "" for field in iq.iter(FIELD) if field.get("var") != "FORM_TYPE"}


# --- enabling


def test_a_device_that_is_away_is_told(scene: Scene) -> None:
    """7: a publication at the node, from the user, with a summary and the options."""
    assert ' type="result"' in scene.enable(inner=OPTIONS)
    scene.detach()
    scene.write()
    (iq,) = scene.told()
    assert (iq.get("type"), iq.get("from"), iq.get("to")) == ("set", JULIET, SERVICE)
    publish, options = iq[0]
    assert publish.get("node") == "n1"
    assert publish[0][0].tag == f"{{{ns.PUSH}}}notification"
    assert etree.tostring(options[0]).decode() == OPTIONS.replace("<x xmlns=", "<x xmlns=", 1)
    assert summary(publish) == {"message-count": "1", "last-message-body": "New message"}


def test_a_device_that_is_there_is_not(scene: Scene) -> None:
    scene.enable()
    scene.write()
    assert scene.told() == []


def test_a_device_that_does_not_acknowledge_is_told(scene: Scene) -> None:
    """A phone whose network is gone looks connected for minutes."""
    scene.enable()
    scene.write()
    scene.phone.unacknowledged.append((1, None, None))
    scene.world.wait(UNACKNOWLEDGED_S)
    assert scene.nodes() == ["n1"]
    scene.write()
    scene.phone.acknowledged = scene.phone.q + 1
    scene.world.wait(UNACKNOWLEDGED_S)
    assert scene.told() == []


def test_of_several_devices_those_that_are_away_are_told(scene: Scene) -> None:
    tablet = scene.world.online(scene.account, "tablet")
    tablet.place = C2S
    scene.enable("n1")
    scene.enable("n2", session=tablet)
    scene.detach(tablet)
    scene.write()
    assert scene.nodes() == ["n2"]
    del scene.account.sessions["phone"]
    scene.world.wait(APART_S)
    scene.write()
    assert scene.nodes() == ["n1", "n2"]


def test_enabled_again_the_last_options_count(scene: Scene) -> None:
    """5."""
    scene.enable(inner=OPTIONS)
    scene.enable()
    scene.detach()
    scene.write()
    (iq,) = scene.told()
    assert len(iq[0]) == 1


@pytest.mark.parametrize(
    ("inner", "condition"),
    [
        (f'<enable xmlns="{ns.PUSH}" node="n"/>', error("jid-malformed", "modify")),
        (f'<enable xmlns="{ns.PUSH}" jid="{SERVICE}" node="{"n" * 2_000}"/>', "<not-acceptable"),
        (f'<enable xmlns="{ns.PUSH}" jid="{SERVICE}">{OPTIONS.replace("publish-options", "x")}</enable>', "<bad-request"),
        (f'<enable xmlns="{ns.PUSH}" jid="{SERVICE}">{OPTIONS.replace("eruio", "x" * 20_000)}</enable>', "<not-acceptable"),
    ],
)  # fmt: skip
def test_services_that_are_none(scene: Scene, inner: str, condition: str) -> None:
    assert condition in scene.ask(inner)
    assert not [write for write in scene.world.writes if write.statement is push.enable]


def test_there_are_so_many_services(scene: Scene) -> None:
    for number in range(SERVICES):
        assert ' type="result"' in scene.enable(f"n{number}")
    assert "<resource-constraint" in scene.enable("one more")
    assert ' type="result"' in scene.enable("n0")


def test_another_may_not(scene: Scene) -> None:
    for name in ("enable", "disable"):
        answer = scene.ask(f'<{name} xmlns="{ns.PUSH}" jid="{SERVICE}"/>', JULIET, scene.romeo)
        assert error("forbidden", "auth") in answer


@pytest.mark.parametrize(("node", "left"), [(' node="n1"', ["n2"]), ("", [])])
def test_disabling(scene: Scene, node: str, left: list[str]) -> None:
    """6: one node, or all of a service; of no other service."""
    scene.enable("n1")
    scene.enable("n2")
    scene.enable("other", jid="push.other.example")
    assert ' type="result"' in scene.ask(f'<disable xmlns="{ns.PUSH}" jid="{SERVICE}"{node}/>')
    scene.detach()
    scene.write()
    assert scene.nodes() == [*left, "other"]


def test_a_service_takes_no_more(scene: Scene) -> None:
    """8: only it may say so."""
    scene.enable()
    scene.detach()
    said = (
        f'<message from="{{}}" to="{JULIET}"><pubsub xmlns="{ns.PUBSUB}" node="n1">'
        f'<affiliation jid="{JULIET}" affiliation="none"/></pubsub></message>'
    )
    scene.world.arrive(scene.account, said.format("push.other.example"))
    scene.write()
    assert scene.nodes() == ["n1"]
    scene.world.arrive(scene.account, said.format(SERVICE))
    scene.world.wait(APART_S)
    scene.write()
    assert scene.told() == []


# --- what is told


@pytest.mark.parametrize(
    ("inner", "attributes", "is_told"),
    [
        ("<body>hello</body>", ' type="chat"', True),
        ("<body>hello</body>", "", True),
        ("<body>hello</body>", ' type="headline"', False),
        (f'<body>x</body><no-store xmlns="{ns.HINTS}"/>', ' type="chat"', False),
        ("<subject>x</subject>", ' type="chat"', False),
        (f'<composing xmlns="{ns.CHAT_STATES}"/>', ' type="chat"', False),
        (f'<received xmlns="{ns.RECEIPTS}" id="1"/>', ' type="chat"', False),
        (f'<displayed xmlns="{ns.MARKERS}" id="1"/>', ' type="chat"', False),
        ('<reactions xmlns="urn:xmpp:reactions:0" id="1"/>', ' type="chat"', False),
        (f'<encrypted xmlns="urn:xmpp:omemo:2"/><store xmlns="{ns.HINTS}"/>', ' type="chat"', True),
        ('<encrypted xmlns="urn:xmpp:omemo:2"/>', ' type="chat"', False),
        ('<propose xmlns="urn:xmpp:jingle-message:0" id="c"/>', ' type="chat"', True),
        ('<retract xmlns="urn:xmpp:jingle-message:0" id="c"/>', ' type="chat"', False),
        (f'<x xmlns="{ns.MUC_USER}"><invite from="a@b"/></x>', "", True),
    ],
)
def test_what_would_be_shown_is_told(scene: Scene, inner: str, attributes: str, is_told: bool) -> None:
    scene.enable()
    scene.detach()
    scene.write(inner, attributes)
    assert bool(scene.told()) == is_told


def test_what_is_refused_is_not_told(scene: Scene) -> None:
    scene.enable()
    scene.detach()
    scene.account.blocks.add(ROMEO)
    scene.write()
    assert scene.told() == []


def test_a_request_to_see_presence_is_told(scene: Scene) -> None:
    scene.enable()
    scene.detach()
    scene.world.say(scene.romeo, f'<presence to="{JULIET}" type="subscribe"/>')
    (iq,) = scene.told()
    assert summary(iq) == {"message-count": "0", "pending-subscription-count": "1"}


@pytest.mark.parametrize(
    ("tell", "fields"),
    [
        ("nothing", {"last-message-body": "New message"}),
        ("sender", {"last-message-sender": f"{ROMEO}/home", "last-message-body": "New message"}),
        ("body", {"last-message-sender": f"{ROMEO}/home", "last-message-body": "hello"}),
    ],
)
def test_operators_decide_what_services_learn(tell: str, fields: dict[str, str]) -> None:
    """11."""
    scene = Scene(push_tell=tell)
    scene.enable()
    scene.detach()
    scene.account.roster.contacts["nurse@example.com"] = Contact("nurse@example.com", pending_in=True)
    scene.write()
    (iq,) = scene.told()
    assert summary(iq) == {"message-count": "1", "pending-subscription-count": "1", **fields}


def test_what_comes_at_once_is_told_once(scene: Scene) -> None:
    scene.enable()
    scene.detach()
    for _ in range(10):
        scene.write()
    assert len(scene.told()) == 1
    scene.world.wait(APART_S)
    assert len(scene.told()) == 1
    scene.world.wait(APART_S)
    assert scene.told() == []


# --- muted chats (XEP-0492) and rooms


@pytest.mark.parametrize(
    ("notify", "is_told"),
    [
        ("<never/>", False),
        ("<always/>", True),
        ("<on-mention/>", False),
        ('<never identity-category="client" identity-type="pc"/><always/>', True),
        ('<always/><never identity-category="client" identity-type="phone"/>', False),
        ('<always/><never identity-category="client"/>', False),
        ("<unheard-of/>", True),
    ],
)
def test_a_chat_may_be_muted(scene: Scene, notify: str, is_told: bool) -> None:
    """XEP-0492, 3: the most specific setting; without any, always."""
    scene.enable()
    scene.bookmark(ROMEO, notify)
    scene.detach()
    scene.write()
    assert bool(scene.told()) == is_told


def test_a_new_setting_counts_at_once(scene: Scene) -> None:
    scene.enable()
    scene.bookmark(ROMEO, "<never/>")
    scene.detach()
    scene.write()
    assert scene.told() == []
    scene.bookmark(ROMEO, "<always/>")
    scene.write()
    assert scene.nodes() == ["n1"]


def in_room(scene: Scene, text: str, is_private: bool = False, inner: str = "") -> HeardInRoom:
    stanza = parse(f'<message from="{ROOM}/romeo" type="groupchat"><body>{text}</body>{inner}</message>')
    return HeardInRoom(scene.phone, stanza._replace(flags=stanza.flags | (OF_PRIVATE_ROOM if is_private else 0)))


@pytest.mark.parametrize(
    ("text", "is_private", "inner", "notify", "is_told"),
    [
        ("hello", False, "", None, False),
        ("hello", True, "", None, True),
        ("hello Juliet!", False, "", None, True),
        ("hello", False, f'<reference xmlns="{ns.REFERENCE}" type="mention" uri="xmpp:{JULIET}"/>', None, True),
        ("hello", False, f'<mention xmlns="{ns.MENTIONS}" jid="{JULIET}"/>', None, True),
        ("hello", False, "", "<always/>", True),
        ("hello", True, "", "<on-mention/>", False),
        ("hello Juliet!", True, "", "<never/>", False),
    ],
)
def test_rooms(scene: Scene, text: str, is_private: bool, inner: str, notify: str | None, is_told: bool) -> None:
    """XEP-0492, 3: all of a private room, mentions in a public one, if nothing else is said."""
    scene.enable()
    if notify is not None:
        scene.bookmark(ROOM, notify)
    scene.detach()
    scene.emit(in_room(scene, text, is_private, inner))
    assert bool(scene.told()) == is_told


def test_a_room_from_which_one_is_away(scene: Scene) -> None:
    scene.enable()
    scene.detach()
    scene.emit(SaidInRoom(ROOM, in_room(scene, "hello").message, 1))
    assert scene.nodes() == ["n1"]


# --- what services answer


def test_an_error_that_stays_disables(scene: Scene) -> None:
    """7.1."""
    scene.enable()
    scene.detach()
    scene.write()
    scene.answer(scene.told()[0], "error", error("item-not-found", "cancel") + "</error>")
    scene.world.wait(APART_S)
    scene.write()
    assert scene.told() == []
    assert [write.arguments for write in scene.world.writes if write.statement is push.disable] == [(1, SERVICE, "n1")]


def test_an_error_that_may_go_is_tried_again_a_few_times(scene: Scene) -> None:
    scene.enable()
    scene.detach()
    scene.write()
    for failure in range(FAILURES):
        (iq,) = scene.told()
        scene.answer(iq, "error", error("remote-server-timeout", "wait") + "</error>")
        scene.world.wait(RETRY_S * 2**failure)
    assert scene.told() == []
    scene.write()
    assert scene.told() == [], "it is disabled"


def test_a_service_that_answers_begins_anew(scene: Scene) -> None:
    scene.enable()
    scene.detach()
    scene.write()
    for _ in range(FAILURES - 1):
        (iq,) = scene.told()
        scene.answer(iq, "error", error("remote-server-timeout", "wait") + "</error>")
        scene.world.wait(RETRY_S * 2**FAILURES)
    (iq,) = scene.told()
    scene.answer(iq, "result")
    written = [write.arguments[-1] for write in scene.world.writes if write.statement is push.enable]
    assert written == [0, 1, 2, 3, 4, 0]


def test_nobody_answers_for_a_service(scene: Scene) -> None:
    scene.enable()
    scene.detach()
    scene.write()
    (iq,) = scene.told()
    said = f'<iq from="push.other.example" to="{JULIET}" type="error" id="{iq.get("id")}">{error("gone", "cancel")}</error></iq>'
    scene.world.arrive(scene.account, said)
    scene.world.wait(APART_S)
    scene.write()
    assert scene.nodes() == ["n1"]
