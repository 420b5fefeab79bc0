"""Personal eventing (XEP-0163): whose clients are told of what, and when."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1

import pytest
from lxml import etree

from router import interests
from router.entity import Session
from storage import capabilities
from tests.support.turns import World
from xmpp import ns

JULIET, ROMEO, FRIAR = "juliet@example.com", "romeo@example.com", "friar@verona.example"
TUNE, MOOD = "http://jabber.org/protocol/tune", "http://jabber.org/protocol/mood"
EVENT = f"{{{ns.PUBSUB_EVENT}}}"


@pytest.fixture(autouse=True)
def nothing_is_known() -> None:
    interests.known.clear()


def disco(*wants: str) -> str:
    """The answer of a client."""
    features = "".join(f'<feature var="{node}+notify"/>' for node in sorted(wants))
    return f'<identity category="client" type="pc"/>{features}'


def ver_of(*wants: str) -> str:
    text = "client/pc//<" + "".join(f"{node}+notify<" for node in sorted(wants))
    return b64encode(sha1(text.encode(), usedforsecurity=False).digest()).decode()


def caps(*wants: str, hash_: str = ' hash="sha-1"', ver: str | None = None) -> str:
    return f'<c xmlns="{ns.CAPS}"{hash_} node="http://c.example" ver="{ver or ver_of(*wants)}"/>'


class Scene:
    """Juliet and Romeo see each other, and Friar Laurence, who is on another server."""

    def __init__(self) -> None:
        self.world = World()
        self.accounts = [self.world.account(bare) for bare in (JULIET, ROMEO)]
        self.world.friends(*self.accounts)
        self.world.contact(self.accounts[0], FRIAR, "both")
        self.juliet, self.romeo = (self.world.bind(account) for account in self.accounts)

    def online(self, session: Session, inner: str = "") -> None:
        self.world.say(session, f"<presence>{inner}</presence>")

    def publish(self, node: str, id_: str, more: str = "") -> None:
        item = f'<item id="{id_}"><tune xmlns="{TUNE}"/></item>'
        inner = f'<pubsub xmlns="{ns.PUBSUB}"><publish node="{node}">{item}</publish>{more}</pubsub>'
        self.world.say(self.juliet, f'<iq type="set" id="p">{inner}</iq>')

    def asked(self, session: Session) -> str | None:
        """The id of what the server has asked the client, if it has; everything else is lost."""
        requests = [said for said in self.world.heard(session) if said.startswith("<iq") and ns.DISCO_INFO in said]
        assert len(requests) < 2
        if not requests:
            return None
        request = etree.fromstring(requests[0])
        assert request.get("from") == session.bare
        assert request[0].get("node", "").startswith("http://c.example#")
        return request.get("id")

    def answer(self, session: Session, id_: str | None, inner: str, type: str = "result") -> None:
        assert id_ is not None
        query = f'<query xmlns="{ns.DISCO_INFO}">{inner}</query>' if type == "result" else inner
        self.world.say(session, f'<iq to="{session.bare}" type="{type}" id="{id_}">{query}</iq>')

    def told(self, session: Session) -> list[str]:
        """The items that a client is told of: "node id", "*" where it is stamped as an old one."""
        found = []
        for said in self.world.heard(session):
            message = etree.fromstring(said)
            for items in message.iter(f"{EVENT}items"):
                star = "*" if message.find(f"{{{ns.DELAY}}}delay") is not None else ""
                found.append(f"{items.get('node')} {items[0].get('id')}{star}")
                assert message.get("to") == session.jid
        return found

    def away(self) -> list[str]:
        """What was sent to Friar Laurence's server, notifications alone."""
        found, self.world.away = self.world.away, []
        return [said for said in found if said.startswith("<message")]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_client_is_asked_once_what_it_wants(scene: Scene) -> None:
    """4.3; XEP-0115, 5.4: the answer holds for every client with the same hash, and is kept."""
    scene.online(scene.romeo, caps(TUNE))
    scene.answer(scene.romeo, scene.asked(scene.romeo), disco(TUNE))
    scene.publish(TUNE, "one")
    scene.publish(MOOD, "two")
    assert scene.told(scene.romeo) == [f"{TUNE} one"]
    written = [write.arguments for write in scene.world.writes if write.statement is capabilities.put]
    assert written == [(f"1 sha-1 {ver_of(TUNE)}", [TUNE])]
    scene.online(scene.juliet, caps(TUNE))
    assert scene.asked(scene.juliet) is None
    scene.publish(TUNE, "three")
    assert scene.told(scene.juliet) == [f"{TUNE} three"]


def test_what_the_database_knows_is_not_asked(scene: Scene) -> None:
    scene.world.database[capabilities.find] = lambda name: [TUNE] if name == f"1 sha-1 {ver_of(TUNE)}" else None
    scene.online(scene.romeo, caps(TUNE))
    assert scene.asked(scene.romeo) is None
    scene.publish(TUNE, "one")
    assert scene.told(scene.romeo) == [f"{TUNE} one"]


def test_an_answer_that_the_hash_does_not_bear_out_counts_for_its_client_alone(scene: Scene) -> None:
    """XEP-0115, 5.4, 3.9 and 9.2."""
    scene.online(scene.romeo, caps(TUNE))
    scene.answer(scene.romeo, scene.asked(scene.romeo), disco(TUNE, MOOD))
    assert not [write for write in scene.world.writes if write.statement is capabilities.put]
    scene.publish(MOOD, "one")
    assert scene.told(scene.romeo) == [f"{MOOD} one"]
    scene.online(scene.juliet, caps(TUNE))
    assert scene.asked(scene.juliet) is not None


def test_a_client_without_a_hash_is_asked_each_time(scene: Scene) -> None:
    """XEP-0115, 4: clients of before version 1.4."""
    for _ in range(2):
        scene.online(scene.romeo, caps(TUNE, hash_=""))
        scene.answer(scene.romeo, scene.asked(scene.romeo), disco(TUNE))
    scene.publish(TUNE, "one")
    assert scene.told(scene.romeo) == [f"{TUNE} one"]


@pytest.mark.parametrize("inner", ["", caps(MOOD)])
def test_who_wants_nothing_is_told_nothing(scene: Scene, inner: str) -> None:
    scene.online(scene.romeo, inner)
    if inner:
        scene.answer(scene.romeo, scene.asked(scene.romeo), disco(MOOD))
    scene.publish(TUNE, "one")
    assert scene.told(scene.romeo) == []


def test_answers_that_are_none(scene: Scene) -> None:
    """An error, something else's id, something that is ill-formed: nothing comes of it."""
    scene.online(scene.romeo, caps(TUNE))
    id_ = scene.asked(scene.romeo)
    scene.answer(scene.romeo, "caps-1", disco(TUNE))
    scene.answer(scene.romeo, id_, disco(TUNE) + f'<feature var="{TUNE}+notify"/>')
    scene.answer(scene.romeo, id_, disco(TUNE))
    scene.publish(TUNE, "one")
    assert scene.told(scene.romeo) == []
    scene.online(scene.romeo, caps(TUNE))
    scene.answer(scene.romeo, scene.asked(scene.romeo), "", "error")
    scene.publish(TUNE, "two")
    assert scene.told(scene.romeo) == []


def test_another_client_cannot_answer_for_it(scene: Scene) -> None:
    scene.online(scene.romeo, caps(TUNE))
    id_ = scene.asked(scene.romeo)
    other = scene.world.online(scene.accounts[1], "other")
    scene.answer(other, id_, disco(TUNE))
    scene.publish(TUNE, "one")
    assert scene.told(scene.romeo) == []


def test_the_newest_items_come_with_presence(scene: Scene) -> None:
    """4.3.4: own ones and contacts', stamped; to the client that has come alone; once."""
    for node, id_ in ((TUNE, "one"), (TUNE, "two"), (MOOD, "three"), ("private", "four")):
        never = (
            '<publish-options><x xmlns="jabber:x:data" type="submit"><field var="FORM_TYPE"><value>{}</value></field>'
        )
        never = never.format(ns.PUBSUB_OPTIONS) + (
            '<field var="pubsub#send_last_published_item"><value>never</value></field></x></publish-options>'
        )
        scene.publish(node, id_, never if node == "private" else "")
    scene.online(scene.juliet, caps(TUNE, MOOD, "private"))
    scene.answer(scene.juliet, scene.asked(scene.juliet), disco(TUNE, MOOD, "private"))
    assert scene.told(scene.juliet) == [f"{MOOD} three*", f"{TUNE} two*"]
    scene.online(scene.romeo, caps(TUNE, "private"))
    scene.answer(scene.romeo, scene.asked(scene.romeo), disco(TUNE, "private"))
    assert scene.told(scene.romeo) == [f"{TUNE} two*"]
    scene.online(scene.romeo, "<show>away</show>" + caps(TUNE, "private"))
    assert scene.told(scene.romeo) == []
    assert scene.told(scene.juliet) == []
    other = scene.world.bind(scene.accounts[1], "other")  # now it is known what such a client wants
    scene.online(other, caps(TUNE, "private"))
    assert scene.told(other) == [f"{TUNE} two*"]
    assert scene.told(scene.romeo) == []


def test_who_wants_more_gets_more(scene: Scene) -> None:
    """A client whose capabilities change is given what it wants now and did not want before."""
    scene.publish(TUNE, "one")
    scene.publish(MOOD, "two")
    scene.online(scene.romeo, caps(TUNE))
    scene.answer(scene.romeo, scene.asked(scene.romeo), disco(TUNE))
    assert scene.told(scene.romeo) == [f"{TUNE} one*"]
    scene.online(scene.romeo, caps(TUNE, MOOD))
    scene.answer(scene.romeo, scene.asked(scene.romeo), disco(TUNE, MOOD))
    assert scene.told(scene.romeo) == [f"{MOOD} two*"]


def test_what_is_published_while_a_client_is_asked_comes_too(scene: Scene) -> None:
    """It is asked once, and told of everything when it has answered; one that never answers is left alone."""
    scene.publish(TUNE, "one")
    scene.online(scene.romeo, caps(TUNE))
    id_ = scene.asked(scene.romeo)
    scene.publish(TUNE, "two")
    scene.publish(MOOD, "three")
    assert scene.asked(scene.romeo) is None
    scene.answer(scene.romeo, id_, disco(TUNE))
    assert scene.told(scene.romeo) == [f"{TUNE} two", f"{TUNE} two*"]


def test_a_client_that_goes_is_not_waited_for(scene: Scene) -> None:
    scene.online(scene.romeo, caps(TUNE))
    id_ = scene.asked(scene.romeo)
    scene.world.say(scene.romeo, '<presence type="unavailable"/>')
    scene.world.heard(scene.romeo)
    scene.answer(scene.romeo, id_, disco(TUNE))
    scene.publish(TUNE, "one")
    assert scene.told(scene.romeo) == []
    scene.online(scene.romeo, caps(TUNE))
    assert scene.asked(scene.romeo) is not None


def test_a_large_newest_item_is_read(scene: Scene) -> None:
    from router.pubsub.node import host_of

    scene.publish(TUNE, "one")
    node = host_of(scene.accounts[0]).nodes[TUNE]
    node.last, node.is_last_known = None, False
    scene.online(scene.romeo, caps(TUNE))
    scene.answer(scene.romeo, scene.asked(scene.romeo), disco(TUNE))
    assert scene.told(scene.romeo) == [f"{TUNE} one*"]


def test_who_is_no_contact_any_more_is_told_nothing(scene: Scene) -> None:
    scene.online(scene.romeo, caps(TUNE))
    scene.answer(scene.romeo, scene.asked(scene.romeo), disco(TUNE))
    scene.accounts[0].roster.contacts[ROMEO].subscription = "to"
    scene.publish(TUNE, "one")
    assert scene.told(scene.romeo) == []


def test_a_contact_that_is_blocked_is_told_nothing(scene: Scene) -> None:
    """4.3.3, 3."""
    scene.online(scene.romeo, caps(TUNE))
    scene.answer(scene.romeo, scene.asked(scene.romeo), disco(TUNE))
    scene.accounts[0].blocks.add(ROMEO)
    scene.publish(TUNE, "one")
    assert scene.told(scene.romeo) == []


def test_who_is_let_see_presence_gets_the_newest_items(scene: Scene) -> None:
    """4.3.4: "to all new subscribers"."""
    scene.publish(TUNE, "one")
    scene.accounts[0].roster.contacts[ROMEO].subscription = "to"
    scene.accounts[1].roster.contacts[JULIET].subscription = "from"
    scene.online(scene.romeo, caps(TUNE))
    scene.answer(scene.romeo, scene.asked(scene.romeo), disco(TUNE))
    assert scene.told(scene.romeo) == []
    scene.world.say(scene.romeo, f'<presence to="{JULIET}" type="subscribe"/>')
    scene.world.say(scene.juliet, f'<presence to="{ROMEO}" type="subscribed"/>')
    assert scene.told(scene.romeo) == [f"{TUNE} one*"]


def test_a_new_owner_finds_out_what_clients_want(scene: Scene) -> None:
    """What a client wants is known by its presence, which its next owner has (docs/delivery.md, rule 16)."""
    scene.online(scene.romeo, caps(TUNE))
    scene.answer(scene.romeo, scene.asked(scene.romeo), disco(TUNE))
    interests.known.clear()
    scene.romeo.interest = None
    scene.publish(TUNE, "one")
    scene.answer(scene.romeo, scene.asked(scene.romeo), disco(TUNE))
    assert scene.told(scene.romeo) == [f"{TUNE} one"]
    scene.publish(TUNE, "two")
    assert scene.told(scene.romeo) == [f"{TUNE} two"]


def test_a_new_owner_finds_out_what_own_clients_want(scene: Scene) -> None:
    scene.online(scene.juliet, caps(TUNE))
    scene.answer(scene.juliet, scene.asked(scene.juliet), disco(TUNE))
    scene.juliet.interest = None
    scene.publish(TUNE, "one")
    scene.publish(TUNE, "two")
    assert scene.told(scene.juliet) == [f"{TUNE} one", f"{TUNE} two"]


# --- contacts on other servers


def arrives(scene: Scene, inner: str, type: str = "") -> None:
    kind = f' type="{type}"' if type else ""
    scene.world.arrive(scene.accounts[0], f'<presence from="{FRIAR}/cell" to="{JULIET}"{kind}>{inner}</presence>')


def answers(scene: Scene, *wants: str) -> None:
    (asked,) = [etree.fromstring(said) for said in scene.world.away if said.startswith("<iq")]
    assert (asked.get("from"), asked.get("to")) == (JULIET, f"{FRIAR}/cell")
    query = f'<query xmlns="{ns.DISCO_INFO}">{disco(*wants)}</query>'
    scene.world.away.clear()
    said = f'<iq from="{FRIAR}/cell" to="{JULIET}" type="result" id="{asked.get("id")}">{query}</iq>'
    scene.world.arrive(scene.accounts[0], said)


def test_a_contact_elsewhere_is_asked_and_told(scene: Scene) -> None:
    """4.3.2, 3: each of its clients that wants it, at its full JID; the newest items when it comes."""
    scene.publish(TUNE, "one")
    scene.away()
    arrives(scene, caps(TUNE))
    answers(scene, TUNE)
    (last,) = scene.away()
    assert f'to="{FRIAR}/cell"' in last
    assert 'id="one"' in last
    assert "<delay" in last
    scene.publish(TUNE, "two")
    scene.publish(MOOD, "three")
    (said,) = scene.away()
    assert f'to="{FRIAR}/cell"' in said
    assert 'id="two"' in said
    arrives(scene, "", "unavailable")
    scene.publish(TUNE, "four")
    assert scene.away() == []


def test_a_stranger_elsewhere_is_asked_nothing(scene: Scene) -> None:
    said = f'<presence from="stranger@verona.example/x" to="{JULIET}">{caps(TUNE)}</presence>'
    scene.world.arrive(scene.accounts[0], said)
    assert scene.world.away == []


def test_a_new_owner_looks_for_contacts_elsewhere(scene: Scene) -> None:
    """Nobody has told it of them: it asks for their presence, once, and they get the newest items."""
    scene.publish(TUNE, "one")
    scene.publish(TUNE, "two")
    assert scene.world.away == [f'<presence to="{FRIAR}" from="{JULIET}" type="probe"/>']
    scene.world.away.clear()
    arrives(scene, caps(TUNE))
    answers(scene, TUNE)
    (last,) = scene.away()
    assert 'id="two"' in last
