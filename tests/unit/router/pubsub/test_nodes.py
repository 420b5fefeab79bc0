"""Nodes (XEP-0060): each rule, at an account's nodes or at a service's."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from lxml import etree

from router.entity import Session
from router.pubsub.node import host_of
from router.settings import Guests
from tests.support.turns import DOMAIN, PLAIN, World, error
from xmpp import ns

JULIET, ROMEO, NURSE = "juliet@example.com", "romeo@example.com", "nurse@example.com"
SERVICE = "pubsub.example.com"
PUBSUB = f"{{{ns.PUBSUB}}}"
EVENT = f"{{{ns.PUBSUB_EVENT}}}"
TUNE = "http://jabber.org/protocol/tune"
ENTRY = '<entry xmlns="http://www.w3.org/2005/Atom"><title>Soliloquy</title></entry>'
FORBIDDEN = error("forbidden", "auth")
NOT_FOUND = error("item-not-found", "cancel")
BAD = error("bad-request", "modify")
UNAVAILABLE = error("service-unavailable", "cancel")


class Scene:
    """Juliet and Romeo, who see each other; the nurse, who is nobody to them; a service. All are online."""

    def __init__(self, **settings: Any) -> None:
        chosen: dict[str, Any] = {
            "service_domains": frozenset({SERVICE}),
            "admins": frozenset({"admin@example.com"}),
            **settings,
        }
        self.world = World(dataclasses.replace(PLAIN, **chosen))
        self.accounts = {bare: self.world.account(bare) for bare in (JULIET, ROMEO, NURSE)}
        self.service = self.world.service(SERVICE)
        self.juliet, self.romeo, self.nurse = (self.world.online(account) for account in self.accounts.values())
        self.world.friends(self.accounts[JULIET], self.accounts[ROMEO])
        self._n = 0

    def ask(self, session: Session, type: str, inner: str, to: str | None = None, of: str = ns.PUBSUB) -> str:
        """The answer; what else the session hears is left for later."""
        self._n += 1
        address = f' to="{to}"' if to else ""
        self.world.say(
            session, f'<iq{address} type="{type}" id="r{self._n}"><pubsub xmlns="{of}">{inner}</pubsub></iq>'
        )
        heard = self.world.heard(session)
        (answer,) = [said for said in heard if f'id="r{self._n}"' in said]
        self.world._heard[session.jid] = [said for said in heard if said is not answer]
        return answer

    def own(self, session: Session, type: str, inner: str, to: str | None = None) -> str:
        return self.ask(session, type, inner, to, ns.PUBSUB_OWNER)

    def publish(
        self, session: Session, node: str, id_: str | None = None, to: str | None = None, more: str = ""
    ) -> str:
        name = f' id="{id_}"' if id_ else ""
        return self.ask(session, "set", f'<publish node="{node}"><item{name}>{ENTRY}</item></publish>{more}', to)

    def items(self, session: Session, node: str, to: str | None = None, more: str = "", set_: str = "") -> list[str]:
        answer = self.ask(session, "get", f'<items node="{node}"{more}/>{set_}', to)
        assert ' type="result"' in answer, answer
        return [item.get("id") or "" for item in etree.fromstring(answer).iter(f"{PUBSUB}item")]

    def events(self, session: Session) -> list[etree._Element]:
        """What the session has heard of nodes: what is inside of each <event/>."""
        messages = [etree.fromstring(said) for said in self.world.heard(session) if said.startswith("<message")]
        return [event[0] for message in messages for event in message.iterchildren(f"{EVENT}event")]

    def wants(self, *sessions: Session) -> None:
        """Their clients want notifications of everything that is asked about in these tests."""
        for session in sessions:
            session.interest = frozenset({"n", TUNE})


def form(kind: str, **fields: str) -> str:
    type_ = f'<field var="FORM_TYPE" type="hidden"><value>http://jabber.org/protocol/pubsub#{kind}</value></field>'
    written = "".join(
        f'<field var="{"x-stentor_archive" if var == "archive" else f"pubsub#{var}"}"><value>{value}</value></field>'
        for var, value in fields.items()
    )
    return f'<x xmlns="jabber:x:data" type="submit">{type_}{written}</x>'


def options(**fields: str) -> str:
    return f"<publish-options>{form('publish-options', **fields)}</publish-options>"


def configure(**fields: str) -> str:
    return f"<configure>{form('node_config', **fields)}</configure>"


def is_refused(answer: str, condition: str, application: str | None = None) -> bool:
    """Whether it is this error, with this condition of the protocol's own."""
    return condition in answer and (application is None or f"<{application} xmlns=" in answer)


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- 7.1: publishing


def test_what_is_published_is_there_and_told(scene: Scene) -> None:
    """7.1.2: the answer names the item; XEP-0163, 4: the node is made, contacts and the publisher are told."""
    scene.wants(scene.juliet, scene.romeo, scene.nurse)
    answer = scene.publish(scene.juliet, "n", "one")
    assert f'<pubsub xmlns="{ns.PUBSUB}"><publish node="n"><item id="one"/></publish></pubsub>' in answer
    for session in (scene.juliet, scene.romeo):
        (items,) = scene.events(session)
        assert items.tag == f"{EVENT}items"
        assert items.get("node") == "n"
        assert items[0].get("id") == "one"
        assert items[0][0].tag == "{http://www.w3.org/2005/Atom}entry"
    assert scene.events(scene.nurse) == []
    assert scene.items(scene.juliet, "n") == ["one"]


def test_a_notification_says_who_it_is_from(scene: Scene) -> None:
    """XEP-0163, 4.3.1: from the bare JID, a headline, with the publishing resource as "replyto"."""
    scene.wants(scene.romeo)
    scene.publish(scene.juliet, "n", "one")
    (said,) = scene.world.heard(scene.romeo)
    message = etree.fromstring(said)
    assert (message.get("from"), message.get("to"), message.get("type")) == (JULIET, scene.romeo.jid, "headline")
    (address,) = message.iter(f"{{{ns.ADDRESS}}}address")
    assert (address.get("type"), address.get("jid")) == ("replyto", scene.juliet.jid)


def test_an_item_without_an_id_gets_one(scene: Scene) -> None:
    """7.1.2, and 12.8: the same if the request is carried out again, another otherwise."""
    first, second = scene.publish(scene.juliet, "n", more=options(max_items="5")), scene.publish(scene.juliet, "n")
    ids = [re.findall(r'item id="([0-9a-f]{16})"', answer)[0] for answer in (first, second)]
    assert ids[0] != ids[1]
    assert scene.items(scene.juliet, "n") == ids


def test_publishing_again_replaces(scene: Scene) -> None:
    """7.1.2: "overwrite"; the item is the newest then."""
    for id_ in ("one", "two", "one"):
        scene.publish(scene.juliet, "n", id_, more=options(max_items="5"))
    assert scene.items(scene.juliet, "n") == ["two", "one"]


def test_a_node_keeps_so_many_items(scene: Scene) -> None:
    """16.4.4, max_items; "max" is what the service keeps."""
    for node, most, kept in (("n", "2", ["b", "c"]), ("m", "max", ["a", "b", "c"])):
        for id_ in "abc":
            scene.publish(scene.juliet, node, id_, more=options(max_items=most))
        assert scene.items(scene.juliet, node) == kept


def test_items_expire(scene: Scene) -> None:
    scene.publish(scene.juliet, "n", "one", more=options(item_expire="60", max_items="5"))
    scene.world.wait(30)
    scene.publish(scene.juliet, "n", "two")
    assert scene.items(scene.juliet, "n") == ["one", "two"]
    scene.world.wait(40)
    assert scene.items(scene.juliet, "n") == ["two"]


def test_options_are_preconditions(scene: Scene) -> None:
    """7.1.5: of a new node they are its configuration; then they have to be met."""
    assert ' type="result"' in scene.publish(scene.juliet, "n", "one", more=options(access_model="whitelist"))
    assert host_of(scene.accounts[JULIET]).nodes["n"].config.access_model == "whitelist"
    assert ' type="result"' in scene.publish(scene.juliet, "n", "two", more=options(access_model="whitelist"))
    answer = scene.publish(scene.juliet, "n", "three", more=options(access_model="open"))
    assert is_refused(answer, error("conflict", "cancel")[:-2], "precondition-not-met")
    assert scene.items(scene.juliet, "n") == ["two"]
    unknown = options(access_model="whitelist").replace("pubsub#access_model", "pubsub#unheard_of")
    assert is_refused(scene.publish(scene.juliet, "n", "x", more=unknown), "<conflict", "precondition-not-met")


@pytest.mark.parametrize(
    ("inner", "condition", "application"),
    [
        ('<publish node="n"/>', BAD, "item-required"),
        (f'<publish node="n"><item>{ENTRY}{ENTRY}</item></publish>', BAD, "invalid-payload"),
        (f'<publish><item>{ENTRY}</item></publish>', BAD, "nodeid-required"),
        ('<publish node="n"><item/><item/></publish>', error("not-allowed", "cancel"), "max-items-exceeded"),
        (f'<publish node="{"n" * 1_024}"><item/></publish>', "<not-acceptable", None),
        (f'<publish node="n"><item id="{"i" * 1_024}"/></publish>', "<not-acceptable", None),
        ("", BAD, None),
        ('<publish node="n"><item/></publish><retract node="n"/>', BAD, None),
        ('<items node="n"/>', BAD, None),
        ("<unheard-of/>", error("feature-not-implemented", "cancel"), None),
    ],
)  # fmt: skip
def test_publications_that_are_none(scene: Scene, inner: str, condition: str, application: str | None) -> None:
    """7.1.3. Nothing is made of them."""
    assert is_refused(scene.ask(scene.juliet, "set", inner), condition, application)
    assert host_of(scene.accounts[JULIET]).nodes == {}


def test_items_have_a_size() -> None:
    """7.1.3.4: that of the service, or a lesser one of the node."""
    scene = Scene(item_bytes=200)
    for size, most, is_right in ((150, "0", True), (250, "0", False), (150, "100", False), (250, "300", False)):
        inner = f'<publish node="n"><item><a xmlns="urn:x">{"x" * (size - 19)}</a></item></publish>'
        answer = scene.ask(scene.juliet, "set", inner + options(max_payload_size=most))
        if is_right:
            assert ' type="result"' in answer
            scene.own(scene.juliet, "set", '<delete node="n"/>')
        else:
            assert is_refused(answer, "<not-acceptable", "payload-too-big")
    assert host_of(scene.accounts[JULIET]).nodes == {}


def test_a_node_of_notifications_alone(scene: Scene) -> None:
    """4.3: neither kept nor delivered, there is no item."""
    scene.wants(scene.romeo)
    fields = {"persist_items": "0", "deliver_payloads": "0"}
    assert ' type="result"' in scene.ask(scene.juliet, "set", f'<create node="n"/>{configure(**fields)}')
    assert is_refused(scene.publish(scene.juliet, "n", "one"), BAD, "item-forbidden")  # 7.1.3.6
    assert ' type="result"' in scene.ask(scene.juliet, "set", '<publish node="n"/>')
    (items,) = scene.events(scene.romeo)
    assert len(items) == 0
    answer = scene.ask(scene.juliet, "get", '<items node="n"/>')
    assert is_refused(answer, "<feature-not-implemented", "unsupported")  # 6.5.9.4
    assert 'feature="persistent-items"' in answer


def test_payloads_are_left_out_where_the_node_says_so(scene: Scene) -> None:
    """7.1.2.2."""
    scene.wants(scene.romeo)
    scene.publish(scene.juliet, "n", "one", more=options(deliver_payloads="0"))
    (items,) = scene.events(scene.romeo)
    assert (items[0].get("id"), len(items[0])) == ("one", 0)
    assert "Soliloquy" in scene.ask(scene.romeo, "get", '<items node="n"/>', JULIET)


def test_nobody_is_told_where_the_node_says_so(scene: Scene) -> None:
    scene.wants(scene.romeo, scene.juliet)
    scene.publish(scene.juliet, "n", "one", more=options(deliver_notifications="0"))
    assert scene.events(scene.romeo) == scene.events(scene.juliet) == []


def test_others_publish_to_an_account_if_it_lets_them(scene: Scene) -> None:
    """7.1.3.1; 4.1, publish models."""
    assert is_refused(scene.publish(scene.romeo, "n", "one", JULIET), NOT_FOUND)
    scene.publish(scene.juliet, "n", "one", more=options(max_items="9"))
    assert is_refused(scene.publish(scene.romeo, "n", "two", JULIET), FORBIDDEN)
    scene.own(
        scene.juliet,
        "set",
        f'<affiliations node="n"><affiliation jid="{ROMEO}" affiliation="publisher"/></affiliations>',
    )
    assert ' type="result"' in scene.publish(scene.romeo, "n", "two", JULIET)
    assert is_refused(scene.publish(scene.nurse, "n", "three", JULIET), FORBIDDEN)
    scene.own(
        scene.juliet,
        "set",
        f'<configure node="n">{form("node_config", publish_model="open", access_model="open")}</configure>',
    )
    assert ' type="result"' in scene.publish(scene.nurse, "n", "three", JULIET)
    assert scene.items(scene.juliet, "n") == ["one", "two", "three"]
    assert f'<item id="three" publisher="{NURSE}">' in scene.ask(scene.juliet, "get", '<items node="n"/>')
    scene.own(
        scene.juliet, "set", f'<affiliations node="n"><affiliation jid="{NURSE}" affiliation="outcast"/></affiliations>'
    )
    assert is_refused(scene.publish(scene.nurse, "n", "four", JULIET), FORBIDDEN)


def test_private_nodes_are_private_by_themselves(scene: Scene) -> None:
    """XEP-0402, XEP-0490: a client that forgets to say so does not tell its contacts."""
    for node in (ns.BOOKMARKS, ns.DISPLAYED):
        scene.publish(scene.juliet, node, "room@x")
        assert is_refused(
            scene.ask(scene.romeo, "get", f'<items node="{node}"/>', JULIET), "<not-allowed", "closed-node"
        )


def test_a_request_that_is_carried_out_twice_changes_nothing(scene: Scene) -> None:
    """Its owner may die before it says that it has done it (docs/delivery.md, rule 22)."""
    for inner in (f'<publish node="n"><item>{ENTRY}</item></publish>', '<create node="m"/>', "<create/>"):
        first = scene.ask(scene.juliet, "set", inner)
        scene.juliet.seen -= 1
        second = scene.ask(scene.juliet, "set", inner)
        assert re.sub(r'id="r\d+"', "", first) == re.sub(r'id="r\d+"', "", second)
    assert len(host_of(scene.accounts[JULIET]).nodes) == 3
    assert len(scene.items(scene.juliet, "n")) == 1


# --- 7.2: taking back


def test_an_item_is_taken_back(scene: Scene) -> None:
    """7.2.2: whoever is told of items is told."""
    scene.wants(scene.romeo)
    for id_ in "ab":
        scene.publish(scene.juliet, "n", id_, more=options(max_items="5"))
    scene.events(scene.romeo)
    assert ' type="result"' in scene.ask(
        scene.juliet, "set", '<retract node="n" notify="true"><item id="a"/></retract>'
    )
    (items,) = scene.events(scene.romeo)
    assert (items[0].tag, items[0].get("id")) == (f"{EVENT}retract", "a")
    assert scene.items(scene.juliet, "n") == ["b"]


def test_notify_decides_whether_others_hear_of_it(scene: Scene) -> None:
    scene.wants(scene.romeo)
    for notify, is_told in (("", True), (' notify="0"', False), (' notify="1"', True)):
        scene.publish(scene.juliet, "n", "a")
        scene.events(scene.romeo)
        scene.ask(scene.juliet, "set", f'<retract node="n"{notify}><item id="a"/></retract>')
        assert bool(scene.events(scene.romeo)) == is_told


@pytest.mark.parametrize(
    ("inner", "condition", "application"),
    [
        ('<retract node="n"/>', BAD, "item-required"),
        ('<retract node="n"><item/></retract>', BAD, "item-required"),
        ('<retract><item id="a"/></retract>', BAD, "nodeid-required"),
        ('<retract node="n"><item id="x"/></retract>', NOT_FOUND, None),
        ('<retract node="n"><item id="a"/><item id="x"/></retract>', NOT_FOUND, None),
        ('<retract node="x"><item id="a"/></retract>', NOT_FOUND, None),
        ('<retract node="n" notify="maybe"><item id="a"/></retract>', BAD, None),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_back(scene: Scene, inner: str, condition: str, application: str | None) -> None:
    """7.2.3; 12.17: all of them or none."""
    scene.publish(scene.juliet, "n", "a")
    assert is_refused(scene.ask(scene.juliet, "set", inner), condition, application)
    assert scene.items(scene.juliet, "n") == ["a"]


def test_whose_items_one_may_take_back(scene: Scene) -> None:
    """4.1: publishers any, who may only publish their own, everybody else none."""
    scene.publish(scene.juliet, "n", "a", more=options(max_items="5"))
    retract = '<retract node="n"><item id="{}"/></retract>'
    assert is_refused(scene.ask(scene.romeo, "set", retract.format("a"), JULIET), FORBIDDEN)
    for affiliation, may_others in (("publish-only", False), ("publisher", True)):
        affiliate = f'<affiliations node="n"><affiliation jid="{ROMEO}" affiliation="{affiliation}"/></affiliations>'
        scene.own(scene.juliet, "set", affiliate)
        scene.publish(scene.romeo, "n", "b", JULIET)
        assert ' type="result"' in scene.ask(scene.romeo, "set", retract.format("b"), JULIET)
        answer = scene.ask(scene.romeo, "set", retract.format("a"), JULIET)
        assert (' type="result"' in answer) == may_others, answer


# --- 6.5: reading


def test_items_are_read_in_order_and_by_name(scene: Scene) -> None:
    """6.5.2, 6.5.7 ("the N most recent"), 6.5.8."""
    for id_ in "abcd":
        scene.publish(scene.juliet, "n", id_, more=options(max_items="9"))
    assert scene.items(scene.romeo, "n", JULIET) == ["a", "b", "c", "d"]
    assert scene.items(scene.romeo, "n", JULIET, ' max_items="2"') == ["c", "d"]
    answer = scene.ask(scene.romeo, "get", '<items node="n"><item id="b"/><item id="x"/></items>', JULIET)
    assert re.findall('item id="(.)"', answer) == ["b"]
    nothing = scene.ask(scene.romeo, "get", '<items node="n"><item id="x"/></items>', JULIET)
    assert '<items node="n"/>' in nothing  # 6.5.9.11
    assert is_refused(scene.ask(scene.romeo, "get", '<items node="n" max_items="0"/>', JULIET), BAD)


def test_items_are_read_in_pages(scene: Scene) -> None:
    """6.5.4; XEP-0059, 2.1 to 2.6."""
    for id_ in "abcde":
        scene.publish(scene.juliet, "n", id_, more=options(max_items="9"))

    def page(inner: str) -> tuple[str, dict[str, str]]:
        set_ = f'<set xmlns="{ns.RSM}">{inner}</set>'
        answer = scene.ask(scene.romeo, "get", f'<items node="n"/>{set_}', JULIET)
        node = next(etree.fromstring(answer).iter(f"{{{ns.RSM}}}set"))
        return "".join(re.findall('item id="(.)"', answer)), {
            str(child.tag).partition("}")[2]: child.text or "" for child in node
        }

    assert page("<max>2</max>") == ("ab", {"first": "a", "last": "b", "count": "5"})
    assert page("<max>2</max><after>b</after>") == ("cd", {"first": "c", "last": "d", "count": "5"})
    assert page("<max>2</max><before/>") == ("de", {"first": "d", "last": "e", "count": "5"})
    assert page("<max>2</max><before>c</before>") == ("ab", {"first": "a", "last": "b", "count": "5"})
    assert page("<max>2</max><index>3</index>") == ("de", {"first": "d", "last": "e", "count": "5"})
    assert page("<max>0</max>") == ("", {"count": "5"})
    unknown = f'<items node="n"/><set xmlns="{ns.RSM}"><max>2</max><after>x</after></set>'
    assert is_refused(scene.ask(scene.romeo, "get", unknown, JULIET), NOT_FOUND)


@pytest.mark.parametrize(
    ("model", "friend", "stranger", "condition", "application"),
    [
        ("open", True, True, "", ""),
        ("presence", True, False, "<not-authorized", "presence-subscription-required"),
        ("roster", False, False, "<not-authorized", ""),
        ("whitelist", False, False, "<not-allowed", "closed-node"),
        ("authorize", False, False, "<not-authorized", "not-subscribed"),
    ],
)
def test_who_may_read(scene: Scene, model: str, friend: bool, stranger: bool, condition: str, application: str) -> None:
    """4.5, 6.1.3, 6.5.9: and who may not is told why, also who would subscribe."""
    scene.publish(scene.juliet, "n", "one", more=options(access_model=model))
    for session, may in ((scene.romeo, friend), (scene.nurse, stranger)):
        answer = scene.ask(session, "get", '<items node="n"/>', JULIET)
        assert (' type="result"' in answer) == may, answer
        if not may:
            assert is_refused(answer, condition, application or None)
        subscribe = scene.ask(session, "set", f'<subscribe node="n" jid="{session.bare}"/>', JULIET)
        assert (' type="result"' in subscribe) == (may or model == "authorize"), subscribe
    assert scene.items(scene.juliet, "n") == ["one"]


def test_a_node_for_some_groups_of_the_roster(scene: Scene) -> None:
    """6.1.3.4; XEP-0163, 7.1: what counts is the roster as it is now."""
    scene.publish(scene.juliet, "n", "one", more=options(access_model="roster", roster_groups_allowed="Friends"))
    refused = scene.ask(scene.romeo, "get", '<items node="n"/>', JULIET)
    assert is_refused(refused, "<not-authorized", "not-in-roster-group")
    scene.accounts[JULIET].roster.contacts[ROMEO].groups = ("Servants", "Friends")
    assert scene.items(scene.romeo, "n", JULIET) == ["one"]
    scene.wants(scene.romeo)
    scene.publish(scene.juliet, "n", "two")
    assert len(scene.events(scene.romeo)) == 1
    scene.accounts[JULIET].roster.contacts[ROMEO].groups = ()
    scene.publish(scene.juliet, "n", "three")
    assert scene.events(scene.romeo) == []


def test_members_of_a_whitelist(scene: Scene) -> None:
    """4.5: the owner is on it."""
    scene.publish(scene.juliet, "n", "one", more=options(access_model="whitelist"))
    scene.own(
        scene.juliet, "set", f'<affiliations node="n"><affiliation jid="{NURSE}" affiliation="member"/></affiliations>'
    )
    assert scene.items(scene.nurse, "n", JULIET) == scene.items(scene.juliet, "n") == ["one"]
    scene.wants(scene.romeo, scene.juliet)
    scene.publish(scene.juliet, "n", "two")
    assert scene.events(scene.romeo) == []
    assert len(scene.events(scene.juliet)) == 1


def test_to_strangers_an_account_without_the_node_looks_like_none(scene: Scene) -> None:
    """RFC 6121, 8.5.1."""
    for to in (JULIET, "nobody@example.com"):
        scene.world.entities.setdefault(to, scene.world.nobody(to) if to not in scene.accounts else scene.accounts[to])
        assert is_refused(scene.ask(scene.nurse, "get", '<items node="n"/>', to), UNAVAILABLE)
    assert is_refused(scene.ask(scene.romeo, "get", '<items node="n"/>', JULIET), NOT_FOUND)


# --- 6.1, 6.2: subscribing


def test_who_subscribes_is_told(scene: Scene) -> None:
    """6.1.2, 6.1.7: of everything that follows, after the newest item, stamped."""
    scene.publish(scene.juliet, "n", "one", more=options(access_model="open", max_items="3"))
    answer = scene.ask(scene.nurse, "set", f'<subscribe node="n" jid="{NURSE}"/>', JULIET)
    (subscription,) = etree.fromstring(answer).iter(f"{PUBSUB}subscription")
    assert subscription.get("subscription") == "subscribed"
    assert (subscription.get("jid"), subscription.get("node")) == (NURSE, "n")
    assert subscription.get("subid")
    (said,) = scene.world.heard(scene.nurse)
    assert 'item id="one"' in said
    assert "<delay" in said
    scene.publish(scene.juliet, "n", "two")
    (items,) = scene.events(scene.nurse)
    assert items[0].get("id") == "two"
    again = scene.ask(scene.nurse, "set", f'<subscribe node="n" jid="{NURSE}"/>', JULIET)
    assert (subscription.get("subid") or "?") in again


@pytest.mark.parametrize(
    ("inner", "condition", "application"),
    [
        (f'<subscribe node="n" jid="{ROMEO}"/>', BAD, "invalid-jid"),
        ('<subscribe node="n"/>', BAD, "invalid-jid"),
        (f'<subscribe jid="{NURSE}"/>', BAD, "nodeid-required"),
        (f'<unsubscribe node="n" jid="{NURSE}"/>', "<unexpected-request", "not-subscribed"),
        (f'<unsubscribe node="n" jid="{ROMEO}"/>', FORBIDDEN, None),
        (f'<options node="n" jid="{NURSE}"/>', "<feature-not-implemented", "unsupported"),
    ],
)  # fmt: skip
def test_subscriptions_that_are_none(scene: Scene, inner: str, condition: str, application: str | None) -> None:
    """6.1.3, 6.2.3, 6.3.4."""
    scene.publish(scene.juliet, "n", "one", more=options(access_model="open"))
    assert is_refused(scene.ask(scene.nurse, "set", inner, JULIET), condition, application)


def test_unsubscribing(scene: Scene) -> None:
    """6.2.2, 6.2.3.5."""
    scene.publish(scene.juliet, "n", "one", more=options(access_model="open", send_last_published_item="never"))
    scene.ask(scene.nurse, "set", f'<subscribe node="n" jid="{NURSE}"/>', JULIET)
    wrong = scene.ask(scene.nurse, "set", f'<unsubscribe node="n" jid="{NURSE}" subid="wrong"/>', JULIET)
    assert is_refused(wrong, "<not-acceptable", "invalid-subid")
    answer = scene.ask(scene.nurse, "set", f'<unsubscribe node="n" jid="{NURSE}"/>', JULIET)
    assert 'subscription="none"' in answer
    scene.publish(scene.juliet, "n", "two")
    assert scene.events(scene.nurse) == []


def test_a_node_that_takes_no_subscribers(scene: Scene) -> None:
    """6.1.3.9; of a contact's client that says what it wants, it asks nothing."""
    scene.publish(scene.juliet, "n", "one", more=options(access_model="open", subscribe="0"))
    answer = scene.ask(scene.romeo, "set", f'<subscribe node="n" jid="{ROMEO}"/>', JULIET)
    assert is_refused(answer, "<feature-not-implemented", "unsupported")


def test_there_are_so_many_subscribers() -> None:
    """6.1.3.11."""
    scene = Scene(node_subscriptions=1)
    scene.publish(scene.juliet, "n", "one", more=options(access_model="open"))
    scene.ask(scene.romeo, "set", f'<subscribe node="n" jid="{ROMEO}"/>', JULIET)
    answer = scene.ask(scene.nurse, "set", f'<subscribe node="n" jid="{NURSE}"/>', JULIET)
    assert is_refused(answer, "<policy-violation", "too-many-subscriptions")


def test_who_subscribes_and_wants_it_too_is_told_once(scene: Scene) -> None:
    """XEP-0163, 4.3.2."""
    scene.wants(scene.romeo)
    scene.publish(scene.juliet, "n", "one", more=options(send_last_published_item="never"))
    scene.events(scene.romeo)
    scene.ask(scene.romeo, "set", f'<subscribe node="n" jid="{ROMEO}"/>', JULIET)
    scene.publish(scene.juliet, "n", "two")
    assert len(scene.events(scene.romeo)) == 1


# --- 8.6: owners are asked


@pytest.mark.parametrize(("allow", "state"), [("1", "subscribed"), ("0", "none")])
def test_an_owner_lets_somebody_subscribe_or_not(scene: Scene, allow: str, state: str) -> None:
    """6.1.4, 8.6, 6.1.3.7."""
    scene.publish(scene.juliet, "n", "one", more=options(access_model="authorize"))
    answer = scene.ask(scene.nurse, "set", f'<subscribe node="n" jid="{NURSE}"/>', JULIET)
    assert 'subscription="pending"' in answer
    pending = scene.ask(scene.nurse, "set", f'<subscribe node="n" jid="{NURSE}"/>', JULIET)
    assert is_refused(pending, "<not-authorized", "pending-subscription")
    (asked,) = [said for said in scene.world.heard(scene.juliet) if "subscribe_authorization" in said]
    request = etree.fromstring(asked)
    fields = {f.get("var"): f[0].text for f in request.iter(f"{{{ns.DATA_FORMS}}}field")}
    assert fields["pubsub#node"] == "n"
    assert fields["pubsub#subscriber_jid"] == NURSE
    fields["pubsub#allow"] = allow
    written = "".join(f'<field var="{var}"><value>{value}</value></field>' for var, value in fields.items())
    said = f'<message to="{JULIET}" id="{request.get("id")}"><x xmlns="jabber:x:data" type="submit">{written}</x></message>'
    scene.world.say(scene.juliet, said)
    events = scene.events(scene.nurse)
    assert (events[0].tag, events[0].get("subscription")) == (f"{EVENT}subscription", state)
    assert [event[0].get("id") for event in events[1:]] == (["one"] if allow == "1" else [])
    may = ' type="result"' in scene.ask(scene.nurse, "get", '<items node="n"/>', JULIET)
    assert may == (allow == "1")


def test_nobody_else_lets_them(scene: Scene) -> None:
    scene.publish(scene.juliet, "n", "one", more=options(access_model="authorize"))
    scene.ask(scene.nurse, "set", f'<subscribe node="n" jid="{NURSE}"/>', JULIET)
    fields = {"node": "n", "subscriber_jid": NURSE, "allow": "1"}
    scene.world.say(scene.nurse, f'<message to="{JULIET}">{form("subscribe_authorization", **fields)}</message>')
    assert is_refused(scene.ask(scene.nurse, "get", '<items node="n"/>', JULIET), "<not-authorized", "not-subscribed")


# --- 8.1 to 8.5: owners


def test_making_a_node(scene: Scene) -> None:
    """8.1.1 to 8.1.3."""
    assert ' type="result"' in scene.ask(scene.juliet, "set", f'<create node="n"/>{configure(title="Verse")}')
    assert host_of(scene.accounts[JULIET]).nodes["n"].config.title == "Verse"
    assert is_refused(scene.ask(scene.juliet, "set", '<create node="n"/>'), error("conflict", "cancel"))
    (name,) = re.findall('create node="([0-9a-f]+)"', scene.ask(scene.juliet, "set", "<create/>"))
    assert name in host_of(scene.accounts[JULIET]).nodes
    wrong = configure(title="x").replace("<configure>", '<configure node="m">')
    assert is_refused(scene.ask(scene.juliet, "set", f'<create node="m"/>{wrong}'), BAD)
    assert is_refused(scene.ask(scene.romeo, "set", '<create node="m"/>', JULIET), NOT_FOUND)


@pytest.mark.parametrize(
    "fields",
    [{"access_model": "x"}, {"max_items": "many"}, {"max_items": "-1"}, {"persist_items": "perhaps"}, {"title": "t" * 5_000}],
)  # fmt: skip
def test_configurations_that_are_none(scene: Scene, fields: dict[str, str]) -> None:
    """8.2.5: and nothing is made."""
    assert "<not-acceptable" in scene.ask(scene.juliet, "set", f'<create node="n"/>{configure(**fields)}')
    assert host_of(scene.accounts[JULIET]).nodes == {}


def test_configuring_a_node(scene: Scene) -> None:
    """8.2: what is not said stays; fewer items are kept; subscribers are told if they shall be."""
    scene.wants(scene.romeo)
    for id_ in "abc":
        scene.publish(scene.juliet, "n", id_, more=options(max_items="3"))
    shown = scene.own(scene.juliet, "get", '<configure node="n"/>')
    assert '<field type="text-single" var="pubsub#max_items"' in shown
    assert "<value>3</value>" in shown
    scene.events(scene.romeo)
    change = f'<configure node="n">{form("node_config", max_items="1", notify_config="1", title="Verse")}</configure>'
    assert ' type="result"' in scene.own(scene.juliet, "set", change)
    assert scene.items(scene.juliet, "n") == ["c"]
    (told,) = scene.events(scene.romeo)
    assert (told.tag, told.get("node")) == (f"{EVENT}configuration", "n")
    assert host_of(scene.accounts[JULIET]).nodes["n"].config.access_model == "presence"
    cancel = '<configure node="n"><x xmlns="jabber:x:data" type="cancel"/></configure>'
    assert ' type="result"' in scene.own(scene.juliet, "set", cancel)
    assert is_refused(scene.own(scene.juliet, "set", '<configure node="n"/>'), BAD)
    assert "pubsub#access_model" in scene.own(scene.juliet, "get", "<default/>")  # 8.3


@pytest.mark.parametrize(
    ("type", "inner"),
    [
        ("get", '<configure node="{}"/>'),
        ("set", f'<configure node="{{}}">{form("node_config", title="x")}</configure>'),
        ("set", '<delete node="{}"/>'),
        ("set", '<purge node="{}"/>'),
        ("get", '<subscriptions node="{}"/>'),
        ("get", '<affiliations node="{}"/>'),
        ("set", '<affiliations node="{}"><affiliation jid="romeo@example.com" affiliation="owner"/></affiliations>'),
        ("set", '<subscriptions node="{}"><subscription jid="a@b" subscription="subscribed"/></subscriptions>'),
    ],
)  # fmt: skip
def test_owners_alone(scene: Scene, type: str, inner: str) -> None:
    """8.2.3, 8.4.3, 8.5.3, 8.8.1, 8.9.1: forbidden; item-not-found of what is not; bad-request without a node."""
    scene.publish(scene.juliet, "n", "one")
    assert is_refused(scene.own(scene.romeo, type, inner.format("n"), JULIET), FORBIDDEN)
    assert is_refused(scene.own(scene.juliet, type, inner.format("x")), NOT_FOUND)
    assert is_refused(scene.own(scene.juliet, type, inner.format("")), BAD, "nodeid-required")
    assert scene.items(scene.juliet, "n") == ["one"]


def test_deleting_a_node(scene: Scene) -> None:
    """8.4.2: who is subscribed is told, pending ones, too; with where to look instead."""
    scene.wants(scene.romeo)
    scene.publish(scene.juliet, "n", "one", more=options(access_model="presence"))
    scene.events(scene.romeo)
    answer = scene.own(scene.juliet, "set", '<delete node="n"><redirect uri="xmpp:x@y?;node=m"/></delete>')
    assert ' type="result"' in answer
    (told,) = scene.events(scene.romeo)
    assert (told.tag, told.get("node"), told[0].get("uri")) == (f"{EVENT}delete", "n", "xmpp:x@y?;node=m")
    assert is_refused(scene.ask(scene.romeo, "get", '<items node="n"/>', JULIET), NOT_FOUND)


def test_purging_a_node(scene: Scene) -> None:
    """8.5.2: one notification, whatever the number of items."""
    scene.wants(scene.romeo)
    for id_ in "ab":
        scene.publish(scene.juliet, "n", id_, more=options(max_items="3"))
    scene.events(scene.romeo)
    assert ' type="result"' in scene.own(scene.juliet, "set", '<purge node="n"/>')
    (told,) = scene.events(scene.romeo)
    assert told.tag == f"{EVENT}purge"
    assert scene.items(scene.juliet, "n") == []


# --- 8.8, 8.9: who is what


def test_owners_manage_subscriptions(scene: Scene) -> None:
    """8.8.1, 8.8.2, 8.8.4; 5.6."""
    scene.publish(scene.juliet, "n", "one", more=options(access_model="open", send_last_published_item="never"))
    change = '<subscriptions node="n"><subscription jid="{}" subscription="{}"/></subscriptions>'
    assert ' type="result"' in scene.own(scene.juliet, "set", change.format(NURSE, "subscribed"))
    (told,) = scene.events(scene.nurse)
    assert (told.tag, told.get("subscription")) == (f"{EVENT}subscription", "subscribed")
    assert f'jid="{NURSE}"' in scene.own(scene.juliet, "get", '<subscriptions node="n"/>')
    mine = scene.ask(scene.nurse, "get", "<subscriptions/>", JULIET)
    assert '<subscription node="n"' in mine
    scene.own(scene.juliet, "set", change.format(NURSE, "none"))
    assert "<subscriptions/>" in scene.ask(scene.nurse, "get", "<subscriptions/>", JULIET)
    wrong = scene.own(scene.juliet, "set", change.format(NURSE, "friend"))
    assert "<not-acceptable" in wrong
    assert 'subscription="none"' in wrong  # 8.8.2.2: as it is


def test_owners_manage_affiliations(scene: Scene) -> None:
    """8.9.1, 8.9.2, 8.9.4; 5.7. The account stays the owner (8.9.2.3)."""
    scene.publish(scene.juliet, "n", "one", more=options(access_model="whitelist"))
    change = '<affiliations node="n"><affiliation jid="{}" affiliation="{}"/></affiliations>'
    scene.own(scene.juliet, "set", change.format(NURSE, "member"))
    listed = scene.own(scene.juliet, "get", '<affiliations node="n"/>')
    assert f'jid="{JULIET}" affiliation="owner"' in listed
    assert f'jid="{NURSE}" affiliation="member"' in listed
    assert 'node="n" affiliation="member"' in scene.ask(scene.nurse, "get", "<affiliations/>", JULIET)
    refused = scene.own(scene.juliet, "set", change.format(JULIET, "none"))
    assert "<not-acceptable" in refused
    assert 'affiliation="owner"' in refused
    assert "<not-acceptable" in scene.own(scene.juliet, "set", change.format(NURSE, "friend"))
    scene.own(scene.juliet, "set", change.format(NURSE, "none"))
    assert NURSE not in scene.own(scene.juliet, "get", '<affiliations node="n"/>')


def test_an_outcast_is_subscribed_no_more(scene: Scene) -> None:
    """4.1, 6.1.3.10."""
    scene.publish(scene.juliet, "n", "one", more=options(access_model="open", send_last_published_item="never"))
    scene.ask(scene.romeo, "set", f'<subscribe node="n" jid="{ROMEO}"/>', JULIET)
    scene.wants(scene.romeo)
    scene.own(
        scene.juliet, "set", f'<affiliations node="n"><affiliation jid="{ROMEO}" affiliation="outcast"/></affiliations>'
    )
    scene.events(scene.romeo)
    scene.publish(scene.juliet, "n", "two")
    assert scene.events(scene.romeo) == []
    assert is_refused(scene.ask(scene.romeo, "get", '<items node="n"/>', JULIET), FORBIDDEN)
    assert is_refused(scene.ask(scene.romeo, "set", f'<subscribe node="n" jid="{ROMEO}"/>', JULIET), FORBIDDEN)


# --- limits


def test_there_are_so_many_nodes() -> None:
    scene = Scene(account_nodes=2)
    for node in "ab":
        assert ' type="result"' in scene.publish(scene.juliet, node)
    assert "<resource-constraint" in scene.publish(scene.juliet, "c")
    assert "<resource-constraint" in scene.ask(scene.juliet, "set", "<create/>")


# --- services


def test_a_service_has_nodes_of_anybody_who_may_make_them(scene: Scene) -> None:
    """8.1, 4.5: open to all; their makers own them."""
    assert ' type="result"' in scene.ask(scene.romeo, "set", '<create node="n"/>', SERVICE)
    assert is_refused(scene.publish(scene.nurse, "n", "one", SERVICE), FORBIDDEN)
    assert ' type="result"' in scene.publish(scene.romeo, "n", "one", SERVICE)
    assert scene.items(scene.nurse, "n", SERVICE) == ["one"]
    owners = scene.own(scene.romeo, "get", '<affiliations node="n"/>', SERVICE)
    assert owners.count("<affiliation ") == 1
    change = f'<affiliations node="n"><affiliation jid="{ROMEO}" affiliation="none"/></affiliations>'
    assert "<not-acceptable" in scene.own(scene.romeo, "set", change, SERVICE)  # 8.9.2.3


def test_a_service_tells_its_subscribers(scene: Scene) -> None:
    scene.publish(scene.romeo, "n", "one", SERVICE)
    scene.ask(scene.nurse, "set", f'<subscribe node="n" jid="{scene.nurse.jid}"/>', SERVICE)
    (last,) = scene.events(scene.nurse)
    assert last[0].get("id") == "one"
    scene.publish(scene.romeo, "n", "two", SERVICE)
    (said,) = scene.world.heard(scene.nurse)
    message = etree.fromstring(said)
    assert (message.get("from"), message.get("to")) == (SERVICE, scene.nurse.jid)
    assert not list(message.iter(f"{{{ns.ADDRESS}}}addresses"))


def test_a_service_has_no_roster(scene: Scene) -> None:
    """8.1.2: unsupported-access-model."""
    for model in ("presence", "roster"):
        answer = scene.ask(scene.romeo, "set", f'<create node="n"/>{configure(access_model=model)}', SERVICE)
        assert is_refused(answer, "<not-acceptable", "unsupported-access-model")
    assert "roster_groups_allowed" not in scene.own(scene.romeo, "get", "<default/>", SERVICE)


@pytest.mark.parametrize(("who", "may"), [("anyone", True), ("local", True), ("admins", False)])
def test_who_may_make_a_node_there(who: str, may: bool) -> None:
    scene = Scene(nodes_create=who)
    answer = scene.ask(scene.romeo, "set", '<create node="n"/>', SERVICE)
    assert (' type="result"' in answer) == may
    if not may:
        assert is_refused(answer, FORBIDDEN)


def test_guests_make_no_nodes() -> None:
    """Also where anyone may: nothing of theirs shall stay."""
    scene = Scene(nodes_create="anyone", guests={"example.com": Guests()})
    assert is_refused(scene.ask(scene.romeo, "set", '<create node="n"/>', SERVICE), FORBIDDEN)


def test_operators_own_every_node_of_a_service(scene: Scene) -> None:
    scene.publish(scene.romeo, "n", "one", SERVICE)
    admin = scene.world.online(scene.world.account("admin@example.com"))
    assert ' type="result"' in scene.own(admin, "set", '<delete node="n"/>', SERVICE)


def test_a_service_answers_nothing_else(scene: Scene) -> None:
    for said in (
        f'<iq to="{SERVICE}" type="get" id="x"><query xmlns="jabber:iq:version"/></iq>',
        f'<message to="{SERVICE}" id="x"><body>hello</body></message>',
    ):
        scene.world.say(scene.romeo, said)
        (answer,) = scene.world.heard(scene.romeo)
        assert is_refused(answer, UNAVAILABLE)
    scene.world.say(scene.romeo, f'<presence to="{SERVICE}"/>')
    assert scene.world.heard(scene.romeo) == []


# --- 5: discovery


def discover(scene: Scene, session: Session, to: str, namespace: str, node: str | None = None) -> str:
    name = f' node="{node}"' if node else ""
    scene.world.say(session, f'<iq to="{to}" type="get" id="d"><query xmlns="{namespace}"{name}/></iq>')
    (answer,) = [said for said in scene.world.heard(session) if 'id="d"' in said]
    return answer


@pytest.mark.parametrize("to", [JULIET, SERVICE])
def test_nodes_and_items_are_found_by_those_who_may_read_them(scene: Scene, to: str) -> None:
    """5.2 to 5.5; XEP-0163, 6.2."""
    publisher = scene.juliet
    for node, model in (("open", "open"), ("closed", "whitelist")):
        scene.publish(publisher, node, "one", to, options(access_model=model, title=f"The {node}"))
    found = discover(scene, scene.romeo, to, ns.DISCO_ITEMS)
    assert f'<item jid="{to}" node="open" name="The open"/>' in found
    assert 'node="closed"' not in found
    info = discover(scene, scene.romeo, to, ns.DISCO_INFO, "open")
    assert '<identity category="pubsub" type="leaf" name="The open"/>' in info
    assert ns.PUBSUB_META_DATA in info
    assert f'<field var="pubsub#creator"><value>{JULIET}</value></field>' in info
    items = discover(scene, scene.romeo, to, ns.DISCO_ITEMS, "open")
    assert f'<item jid="{to}" name="one"/>' in items
    for namespace in (ns.DISCO_INFO, ns.DISCO_ITEMS):
        assert is_refused(discover(scene, scene.romeo, to, namespace, "closed"), "<not-allowed", "closed-node")
        assert is_refused(discover(scene, scene.romeo, to, namespace, "nothing"), NOT_FOUND)


def test_a_service_says_what_it_is(scene: Scene) -> None:
    """5.1."""
    info = discover(scene, scene.nurse, SERVICE, ns.DISCO_INFO)
    assert '<identity category="pubsub" type="service" name="Publishing"/>' in info
    assert f'<feature var="{ns.PUBSUB}#publish-options"/>' in info
    scene.world.say(scene.nurse, f'<iq to="{DOMAIN}" type="get" id="d"><query xmlns="{ns.DISCO_ITEMS}"/></iq>')
    (answer,) = scene.world.heard(scene.nurse)
    assert f'<item jid="{SERVICE}"/>' in answer


# --- the archive (XEP-0442)


def archived(scene: Scene, session: Session, to: str | None, node: str) -> list[str]:
    address = f' to="{to}"' if to else ""
    scene.world.say(session, f'<iq{address} type="set" id="q"><query xmlns="{ns.MAM}" node="{node}"/></iq>')
    heard = scene.world.heard(session)
    if not any(' type="result"' in said for said in heard):
        return heard
    return re.findall('<item id="(.)"', "".join(heard))


def test_what_was_published_stays_in_the_archive(scene: Scene) -> None:
    """3: replaced, and taken back, it is still there; for those who may read the node."""
    for to in (SERVICE, None):
        for id_ in "aba":
            scene.publish(scene.juliet, "n", id_, to, "" if to else options(access_model="open", archive="1"))
        scene.ask(scene.juliet, "set", '<retract node="n"><item id="a"/></retract>', to)
        assert archived(scene, scene.nurse, to or JULIET, "n") == ["a", "b", "a"]


def test_archives_that_are_none(scene: Scene) -> None:
    scene.publish(scene.juliet, "n", "a")
    scene.publish(scene.juliet, "w", "a", SERVICE, options(access_model="whitelist"))
    assert is_refused(archived(scene, scene.juliet, None, "n")[0], "<feature-not-implemented", "unsupported")
    assert is_refused(archived(scene, scene.juliet, None, "x")[0], NOT_FOUND)
    assert is_refused(archived(scene, scene.nurse, JULIET, "x")[0], UNAVAILABLE)
    assert is_refused(archived(scene, scene.nurse, SERVICE, "w")[0], "<not-allowed", "closed-node")
