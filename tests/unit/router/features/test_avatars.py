"""Pictures (XEP-0084, XEP-0153, XEP-0398): set in one way, seen in every way."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1

import pytest

from router.entity import Session
from storage import vcards
from tests.support.turns import World, error
from xmpp import ns

JULIET, ROMEO, NURSE = "juliet@example.com", "romeo@example.com", "nurse@example.com"
PICTURE = b"\x89PNG picture"
HASH = sha1(PICTURE, usedforsecurity=False).hexdigest()
DATA = b64encode(PICTURE).decode()
PHOTO = f"<PHOTO><TYPE>image/png</TYPE><BINVAL>{DATA}</BINVAL></PHOTO>"
CARD = f'<vCard xmlns="{ns.VCARD}"><FN>Juliet</FN></vCard>'
UPDATE = f'<x xmlns="{ns.VCARD_UPDATE}">{{}}</x>'
OPEN = (
    f'<publish-options><x xmlns="jabber:x:data" type="submit"><field var="FORM_TYPE"><value>{ns.PUBSUB_OPTIONS}</value>'
    '</field><field var="pubsub#access_model"><value>{}</value></field></x></publish-options>'
)


class Scene:
    """Juliet and Romeo see each other; the nurse is a stranger. The database has Juliet's vCard."""

    def __init__(self) -> None:
        self.world = World()
        self.accounts = {bare: self.world.account(bare) for bare in (JULIET, ROMEO, NURSE)}
        self.world.friends(self.accounts[JULIET], self.accounts[ROMEO])
        self.juliet, self.romeo, self.nurse = (self.world.online(account) for account in self.accounts.values())
        self.world.database[vcards.get] = lambda key: self.card
        self.card: bytes | None = None

    def publish(self, model: str = "presence", hash_: str = HASH, url: str = "") -> None:
        """As XEP-0084, 3.1 and 3.2."""
        info = f'<info id="{hash_}" type="image/png" bytes="9"/>' if hash_ else ""
        metadata = f'<metadata xmlns="{ns.AVATAR_METADATA}">{url}{info}</metadata>'
        for node, payload in (
            (ns.AVATAR_DATA, f'<data xmlns="{ns.AVATAR_DATA}">{DATA}</data>'),
            (ns.AVATAR_METADATA, metadata),
        ):
            item = f'<publish node="{node}"><item id="{hash_ or "x"}">{payload}</item></publish>'
            inner = f'<pubsub xmlns="{ns.PUBSUB}">{item}{OPEN.format(model)}</pubsub>'
            self.world.say(self.juliet, f'<iq type="set" id="p">{inner}</iq>')

    def card_of(self, session: Session, to: str | None = JULIET) -> str:
        self.forget()
        address = f' to="{to}"' if to else ""
        self.world.say(session, f'<iq{address} type="get" id="v"><vCard xmlns="{ns.VCARD}"/></iq>')
        (answer,) = self.world.heard(session)
        return answer

    def set_card(self, card: str) -> str:
        self.forget()
        self.world.say(self.juliet, f'<iq type="set" id="v">{card}</iq>')
        for write in self.world.writes:
            if write.statement is vcards.put:
                self.card = write.arguments[1]
        return next(said for said in self.world.heard(self.juliet) if 'id="v"' in said)

    def items(self, session: Session, node: str) -> str:
        self.forget()
        inner = f'<pubsub xmlns="{ns.PUBSUB}"><items node="{node}"/></pubsub>'
        self.world.say(session, f'<iq to="{JULIET}" type="get" id="i">{inner}</iq>')
        (answer,) = self.world.heard(session)
        return answer

    def forget(self) -> None:
        for session in (self.juliet, self.romeo, self.nurse):
            self.world.heard(session)

    def shown(self) -> list[str]:
        """The presence that Romeo sees."""
        return [said for said in self.world.heard(self.romeo) if said.startswith("<presence")]


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- presence


def test_presence_has_the_hash(scene: Scene) -> None:
    """XEP-0398, 4.3: "in every available presence"; directed ones, too."""
    scene.publish()
    scene.forget()
    scene.world.say(scene.juliet, "<presence><show>away</show></presence>")
    assert scene.shown() == [
        f'<presence to="{ROMEO}" from="{scene.juliet.jid}"><show>away</show>{UPDATE.format(f"<photo>{HASH}</photo>")}'
        "</presence>"
    ]
    scene.world.say(scene.juliet, f'<presence to="{NURSE}"/>')
    assert HASH in scene.world.heard(scene.nurse)[-1]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("", f"<photo>{HASH}</photo>"),
        (UPDATE.format("<photo/>"), "<photo/>"),
        (UPDATE.format(""), f"<photo>{HASH}</photo>"),
        (UPDATE.format("<photo>abc</photo>"), f"<photo>{HASH}</photo>"),
        (UPDATE.format(f"<photo>{HASH}</photo>"), f"<photo>{HASH}</photo>"),
    ],
)
def test_what_a_client_says_itself(scene: Scene, said: str, shown: str) -> None:
    """4.3: an empty <photo/> is left alone, everything else is made right."""
    scene.publish()
    scene.forget()
    scene.world.say(scene.juliet, f"<presence>{said}<status>&amp;</status></presence>")
    (presence,) = scene.shown()
    assert UPDATE.format(shown) in presence
    assert presence.count("vcard-temp:x:update") == 1
    assert "<status>&amp;</status>" in presence


@pytest.mark.parametrize(
    ("said", "shown"),
    [("", None), (UPDATE.format(""), "<photo/>"), (UPDATE.format("<photo>abc</photo>"), "<photo>abc</photo>")],
)
def test_without_a_picture(scene: Scene, said: str, shown: str | None) -> None:
    """4.3: an <x/> without a <photo/> "MUST be overwritten"."""
    scene.world.say(scene.juliet, f"<presence>{said}</presence>")
    (presence,) = scene.shown()
    assert (UPDATE.format(shown) in presence) if shown else ("vcard-temp" not in presence)


def test_a_new_picture_is_seen_at_once(scene: Scene) -> None:
    """Clients that know of no nodes see the presence."""
    scene.publish()
    assert [HASH in presence for presence in scene.shown()] == [True]
    scene.publish(hash_="")
    (presence,) = scene.shown()
    assert UPDATE.format("<photo/>") in presence
    assert scene.juliet.presence is not None
    assert HASH not in scene.juliet.presence.inner.decode()


def test_unavailable_presence_has_none(scene: Scene) -> None:
    scene.publish()
    scene.forget()
    scene.world.say(scene.juliet, '<presence type="unavailable"/>')
    assert "vcard-temp" not in "".join(scene.shown())


# --- from nodes to vCards


def test_a_vcard_has_the_picture_of_the_nodes(scene: Scene) -> None:
    """4.1: and nothing else of it changes."""
    scene.card = f'<vCard xmlns="{ns.VCARD}"><FN>Juliet</FN><PHOTO><BINVAL>b2xk</BINVAL></PHOTO></vCard>'.encode()
    assert "b2xk" in scene.card_of(scene.romeo)
    scene.publish()
    for session, to in ((scene.romeo, JULIET), (scene.juliet, None)):
        assert f'<vCard xmlns="{ns.VCARD}"><FN>Juliet</FN>{PHOTO}</vCard>' in scene.card_of(session, to)


def test_who_may_not_see_the_nodes_does_not_see_it_there(scene: Scene) -> None:
    """5.2."""
    scene.card = CARD.encode()
    scene.publish()
    assert CARD in scene.card_of(scene.nurse)
    scene.card = None
    assert error("service-unavailable", "cancel") in scene.card_of(scene.nurse)


def test_everybody_sees_what_is_open(scene: Scene) -> None:
    scene.publish("open")
    assert f'<vCard xmlns="{ns.VCARD}">{PHOTO}</vCard>' in scene.card_of(scene.nurse)


def test_a_picture_elsewhere_is_no_picture_here(scene: Scene) -> None:
    """4.1: "MUST pick the info element that does not point to an external URL"."""
    scene.publish(url='<info id="other" type="image/gif" bytes="5" url="http://x/y"/>')
    assert PHOTO in scene.card_of(scene.romeo)


def test_no_picture_is_no_picture_everywhere(scene: Scene) -> None:
    """XEP-0084, 4.2.2: empty metadata."""
    scene.card = f'<vCard xmlns="{ns.VCARD}"><FN>Juliet</FN>{PHOTO}</vCard>'.encode()
    scene.publish(hash_="")
    assert CARD in scene.card_of(scene.romeo)


# --- from vCards to nodes


def test_the_picture_of_a_vcard_is_published(scene: Scene) -> None:
    """4.2: data first, then metadata, for everybody as the vCard is; once."""
    scene.juliet.interest = frozenset({ns.AVATAR_METADATA})
    assert ' type="result"' in scene.set_card(f'<vCard xmlns="{ns.VCARD}">{PHOTO}</vCard>')
    assert f'<item id="{HASH}"><data xmlns="{ns.AVATAR_DATA}">{DATA}</data></item>' in scene.items(
        scene.nurse, ns.AVATAR_DATA
    )
    info = f'<info id="{HASH}" type="image/png" bytes="{len(PICTURE)}"/>'
    metadata = f'<metadata xmlns="{ns.AVATAR_METADATA}">{info}</metadata>'
    assert metadata in scene.items(scene.nurse, ns.AVATAR_METADATA)
    scene.world.say(scene.juliet, "<presence/>")
    assert HASH in scene.shown()[-1]
    scene.world.heard(scene.juliet)
    scene.set_card(f'<vCard xmlns="{ns.VCARD}">{PHOTO}<FN>Juliet</FN></vCard>')
    assert scene.shown() == [], "the same picture"


def test_a_vcard_without_a_picture_takes_back_its_own_alone(scene: Scene) -> None:
    """A client that knows of no nodes takes its picture away; one that writes a name only leaves that of the nodes."""
    scene.set_card(f'<vCard xmlns="{ns.VCARD}">{PHOTO}</vCard>')
    assert PHOTO in scene.card_of(scene.romeo)
    scene.set_card(CARD)
    assert CARD in scene.card_of(scene.romeo)
    scene.publish("open")
    scene.set_card(CARD)
    assert PHOTO in scene.card_of(scene.romeo)


def test_a_picture_without_a_type_is_looked_at(scene: Scene) -> None:
    scene.set_card(f'<vCard xmlns="{ns.VCARD}"><PHOTO><BINVAL>{DATA}</BINVAL></PHOTO></vCard>')
    assert 'type="image/png"' in scene.items(scene.nurse, ns.AVATAR_METADATA)


def test_a_picture_that_is_none(scene: Scene) -> None:
    card = f'<vCard xmlns="{ns.VCARD}"><PHOTO><BINVAL>no base64!</BINVAL></PHOTO></vCard>'
    assert error("bad-request", "modify") in scene.set_card(card)
    assert scene.card is None
