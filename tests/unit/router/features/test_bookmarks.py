"""Bookmarks (XEP-0402, 7): one list, for clients of all ages."""

from __future__ import annotations

import re

import pytest

from router.entity import Session
from storage import private
from tests.support.turns import World
from xmpp import ns

JULIET = "juliet@example.com"
PLAY, ORCHARD = "theplay@conference.example.com", "orchard@conference.example.com"
LINK = '<url name="Works" url="http://x/y"/>'
OPTIONS = (
    f'<publish-options><x xmlns="jabber:x:data" type="submit"><field var="FORM_TYPE"><value>{ns.PUBSUB_OPTIONS}</value>'
    '</field><field var="pubsub#access_model"><value>whitelist</value></field>'
    '<field var="pubsub#max_items"><value>max</value></field></x></publish-options>'
)


def old(jid: str, inner: str = "", attributes: str = "") -> str:
    """As XEP-0048 has it."""
    return (
        f'<conference jid="{jid}"{attributes}>{inner}</conference>'
        if inner
        else f'<conference jid="{jid}"{attributes}/>'
    )


def new(inner: str = "", attributes: str = "") -> str:
    """As XEP-0402 has it."""
    start = f'<conference xmlns="{ns.BOOKMARKS}"{attributes}'
    return f"{start}>{inner}</conference>" if inner else f"{start}/>"


def storage(*children: str) -> str:
    inner = "".join(children)
    return f'<storage xmlns="storage:bookmarks">{inner}</storage>' if inner else '<storage xmlns="storage:bookmarks"/>'


class Scene:
    def __init__(self) -> None:
        self.world = World()
        self.account = self.world.account(JULIET)
        self.juliet = self.world.online(self.account)
        self.juliet.interest = frozenset({ns.BOOKMARKS, ns.BOOKMARKS_OLD})
        self.rows: dict[str, bytes] = {}
        self.world.database[private.get] = lambda key, name: self.rows.get(name)

    def ask(self, type: str, inner: str) -> str:
        self.world.say(self.juliet, f'<iq type="{type}" id="b">{inner}</iq>')
        for write in self.world.writes:
            if write.statement is private.put:
                _, name, xml = write.arguments
                self.rows[name] = xml
        self.world.writes.clear()
        return next(said for said in self.world.heard(self.juliet) if 'id="b"' in said)

    def publish(self, jid: str, payload: str) -> None:
        inner = f'<publish node="{ns.BOOKMARKS}"><item id="{jid}">{payload}</item></publish>{OPTIONS}'
        assert ' type="result"' in self.ask("set", f'<pubsub xmlns="{ns.PUBSUB}">{inner}</pubsub>')

    def retract(self, jid: str) -> None:
        inner = f'<retract node="{ns.BOOKMARKS}" notify="1"><item id="{jid}"/></retract>'
        assert ' type="result"' in self.ask("set", f'<pubsub xmlns="{ns.PUBSUB}">{inner}</pubsub>')

    def items(self) -> dict[str, str]:
        """The node's items."""
        answer = self.ask("get", f'<pubsub xmlns="{ns.PUBSUB}"><items node="{ns.BOOKMARKS}"/></pubsub>')
        return dict(re.findall('<item id="([^"]+)">(.*?)</item>', answer))

    def private(self) -> str:
        """The list in private storage."""
        answer = self.ask("get", f'<query xmlns="{ns.PRIVATE}">{storage()}</query>')
        return answer.partition(f'<query xmlns="{ns.PRIVATE}">')[2].partition("</query>")[0]

    def put_private(self, *children: str) -> None:
        assert ' type="result"' in self.ask("set", f'<query xmlns="{ns.PRIVATE}">{storage(*children)}</query>')

    def old_node(self) -> str:
        """The one item of the node of XEP-0048."""
        answer = self.ask("get", f'<pubsub xmlns="{ns.PUBSUB}"><items node="{ns.BOOKMARKS_OLD}"/></pubsub>')
        found = re.findall('<item id="([^"]+)">(.*?)</item>', answer)
        assert [id_ for id_, _ in found] == ["current"]
        return str(found[0][1])

    def put_old_node(self, *children: str) -> None:
        item = f'<item id="current">{storage(*children)}</item>'
        inner = f'<publish node="{ns.BOOKMARKS_OLD}">{item}</publish>'
        assert ' type="result"' in self.ask("set", f'<pubsub xmlns="{ns.PUBSUB}">{inner}</pubsub>')


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_new_bookmarks_are_seen_in_the_old_ways(scene: Scene) -> None:
    scene.publish(PLAY, new("<nick>JC</nick>", ' name="The Play" autojoin="true"'))
    scene.publish(ORCHARD, new(attributes=' autojoin="0"'))
    both = storage(old(PLAY, "<nick>JC</nick>", ' name="The Play" autojoin="true"'), old(ORCHARD))
    assert scene.private() == both
    assert scene.old_node() == both
    scene.retract(PLAY)
    assert scene.private() == scene.old_node() == storage(old(ORCHARD))


@pytest.mark.parametrize("way", ["put_private", "put_old_node"])
def test_old_bookmarks_are_seen_in_the_new_way(scene: Scene, way: str) -> None:
    put = getattr(scene, way)
    put(old(PLAY, "<nick>JC</nick><password>x</password>", ' name="The Play" autojoin="1"'), old(ORCHARD))
    assert scene.items() == {
        PLAY: new("<nick>JC</nick><password>x</password>", ' name="The Play" autojoin="true"'),
        ORCHARD: new(),
    }
    put(old(ORCHARD))
    assert list(scene.items()) == [ORCHARD]
    put()
    assert scene.items() == {}


def test_nobody_sees_them(scene: Scene) -> None:
    """XEP-0402, 3.3."""
    scene.put_private(old(PLAY))
    romeo: Session = scene.world.online(scene.world.account("romeo@example.com"))
    scene.world.friends(scene.account, romeo.entity)
    for node in (ns.BOOKMARKS, ns.BOOKMARKS_OLD):
        inner = f'<pubsub xmlns="{ns.PUBSUB}"><items node="{node}"/></pubsub>'
        scene.world.say(romeo, f'<iq to="{JULIET}" type="get" id="x">{inner}</iq>')
        (answer,) = scene.world.heard(romeo)
        assert "<closed-node" in answer


@pytest.mark.parametrize("way", ["put_private", "put_old_node"])
def test_an_old_client_does_not_spoil_what_it_does_not_know(scene: Scene, way: str) -> None:
    """XEP-0402, 3: extensions "MUST" be preserved; what is the same is not published again."""
    extensions = '<extensions><notify xmlns="urn:xmpp:notification-settings:0"><never/></notify></extensions>'
    scene.publish(PLAY, new(f"<nick>JC</nick>{extensions}"))
    scene.publish(ORCHARD, new())
    getattr(scene, way)(old(PLAY, "<nick>Puck</nick>"), old(ORCHARD))
    assert scene.items() == {ORCHARD: new(), PLAY: new(f"<nick>Puck</nick>{extensions}")}, (
        "the changed one is the newest"
    )


def test_links_stay_in_private_storage(scene: Scene) -> None:
    scene.put_private(old(PLAY), LINK)
    assert scene.private() == storage(old(PLAY), LINK)
    assert scene.rows == {f"{ns.BOOKMARKS_OLD} storage": storage(LINK).encode()}


def test_old_clients_hear_of_new_bookmarks_and_the_other_way_round(scene: Scene) -> None:
    def heard() -> list[str]:
        return re.findall('<items node="([^"]+)"', "".join(scene.world.heard(scene.juliet)))

    item = f'<publish node="{ns.BOOKMARKS}"><item id="{PLAY}">{new()}</item></publish>'
    scene.world.say(scene.juliet, f'<iq type="set" id="b"><pubsub xmlns="{ns.PUBSUB}">{item}</pubsub></iq>')
    assert heard() == [ns.BOOKMARKS, ns.BOOKMARKS_OLD]
    inner = f'<publish node="{ns.BOOKMARKS_OLD}"><item id="current">{storage(old(ORCHARD))}</item></publish>'
    scene.world.say(scene.juliet, f'<iq type="set" id="b"><pubsub xmlns="{ns.PUBSUB}">{inner}</pubsub></iq>')
    assert heard() == [ns.BOOKMARKS_OLD, ns.BOOKMARKS, ns.BOOKMARKS], "published, and taken back"


def test_what_is_no_address_is_left_out(scene: Scene) -> None:
    scene.put_private(old("@"), old(PLAY), "<conference/>")
    assert list(scene.items()) == [PLAY]
