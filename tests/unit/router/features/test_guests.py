"""People who signed in anonymously (XEP-0175; router/features/guests.py, router/guest_rules.py): what they may do, what
reaches them, and that nothing is left of them."""

from __future__ import annotations

import dataclasses

import pytest

from router.entity import Session
from router.restrictions import assign
from router.settings import Guests
from storage import erasures, rosters
from storage.restrictions import Restriction
from tests.support.turns import PLAIN, World, error
from xmpp import ns

DOMAIN = "guest.example.com"
ALICE = "alice@example.com"
ROOMS = "conference.example.com"
REFUSED = error("not-allowed", "cancel")


class Scene:
    """Two guests, and Alice, who has an account."""

    def __init__(self, *, remote: bool = False) -> None:
        settings = dataclasses.replace(
            PLAIN,
            domains=frozenset({"example.com", DOMAIN}),
            room_domains=frozenset({ROOMS}),
            guests={DOMAIN: Guests(remote=remote)},
            passwords_elsewhere={DOMAIN: "Whoever signs in is a guest."},
        )
        self.world = World(settings)
        self.one, self.two = self._guest("4f2a"), self._guest("9c01")
        self.alice = self.world.online(self.world.account(ALICE), "desk")

    def _guest(self, name: str) -> Session:
        entity = self.world.account(f"{name}@{DOMAIN}")
        assign(entity, [Restriction("guest", "", "", 0.0, None)])
        return self.world.online(entity, "tab")

    def says(self, xml: str, by: Session | None = None) -> str:
        session = by or self.one
        self.world.heard(session)
        self.world.say(session, xml)
        return "".join(self.world.heard(session))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_guests_talk_with_each_other_and_with_users(scene: Scene) -> None:
    for other in (scene.two, scene.alice):
        assert scene.says(f"<message to='{other.bare}' type='chat'><body>hi</body></message>") == ""
        (heard,) = scene.world.heard(other)
        assert f'from="{scene.one.jid}"' in heard
        scene.world.heard(scene.one)
        scene.world.say(other, f"<message to='{scene.one.bare}' type='chat'><body>hello</body></message>")
        assert "hello" in "".join(scene.world.heard(scene.one))


@pytest.mark.parametrize(
    "stanza",
    [
        "<message to='eve@elsewhere.example' type='chat' id='1'><body>hi</body></message>",
        "<presence to='room@conference.elsewhere.example/nick' id='1'/>",
        "<iq to='elsewhere.example' type='get' id='1'><query xmlns='jabber:iq:version'/></iq>",
        "<iq to='eve@elsewhere.example/x' type='set' id='1'><x xmlns='urn:x'/></iq>",
    ],
)
def test_other_servers_are_out_of_reach_unless_they_are_let(scene: Scene, stanza: str) -> None:
    assert REFUSED in scene.says(stanza)
    assert scene.world.away == []
    open_ = Scene(remote=True)
    assert open_.says(stanza) == ""
    assert len(open_.world.away) == 1


@pytest.mark.parametrize(
    "payload",
    [
        f"<query xmlns='{ns.REGISTER}'><remove/></query>",
        f"<query xmlns='{ns.REGISTER}'><username>4f2a</username><password>x</password></query>",
        f"<query xmlns='{ns.ROSTER}'><item jid='{ALICE}'/></query>",
        f"<query xmlns='{ns.PRIVATE}'><x xmlns='urn:x'/></query>",
        f"<vCard xmlns='{ns.VCARD}'><FN>x</FN></vCard>",
        f"<pubsub xmlns='{ns.PUBSUB}'><publish node='urn:x'><item><x xmlns='urn:x'/></item></publish></pubsub>",
        f"<enable xmlns='{ns.PUSH}' jid='push.example.com'/>",
        f"<block xmlns='{ns.BLOCKING}'><item jid='{ALICE}'/></block>",
        f"<prefs xmlns='{ns.MAM}' default='always'><always/><never/></prefs>",
        f"<command xmlns='{ns.COMMANDS}' node='{ns.INVITE}#invite' action='execute'/>",
    ],
)
def test_guests_keep_and_change_nothing(scene: Scene, payload: str) -> None:
    for to in ("", f" to='{scene.one.bare}'", f" to='{DOMAIN}'", " to='example.com'", f" to='room@{ROOMS}'"):
        assert REFUSED in scene.says(f"<iq type='set' id='1'{to}>{payload}</iq>")
    assert scene.world.writes == []


def test_relays_are_not_for_strangers(scene: Scene) -> None:
    for name in ("services", "credentials"):
        asked = f"<iq type='get' id='1' to='example.com'><{name} xmlns='{ns.EXTERNAL_SERVICES}'/></iq>"
        assert REFUSED in scene.says(asked)


@pytest.mark.parametrize(
    "stanza",
    [
        f"<iq type='set' id='1'><session xmlns='{ns.SESSION}'/></iq>",
        f"<iq type='set' id='1'><enable xmlns='{ns.CARBONS}'/></iq>",
        f"<iq type='get' id='1'><query xmlns='{ns.ROSTER}'/></iq>",
        f"<iq type='get' id='1' to='{DOMAIN}'><ping xmlns='{ns.PING}'/></iq>",
    ],
)
def test_what_clients_do_anyway_they_may_do(scene: Scene, stanza: str) -> None:
    assert 'type="result"' in scene.says(stanza)


def test_nobody_becomes_a_contact(scene: Scene) -> None:
    for type_ in ("subscribe", "subscribed"):
        assert REFUSED in scene.says(f"<presence to='{ALICE}' type='{type_}' id='1'/>")
    scene.world.say(scene.alice, f"<presence to='{scene.one.bare}' type='subscribe'/>")
    assert scene.world.heard(scene.one) == []
    assert rosters.upsert in scene.world.written(), "that Alice has asked is in her roster"
    assert scene.one.entity.roster.contacts == {}


def test_to_other_servers_a_guest_is_nobody(scene: Scene) -> None:
    """RFC 6121, 8.5.1, as for an account that does not exist."""
    nobody = scene.world.nobody(f"nobody@{DOMAIN}")
    for inner in (
        "<message from='eve@elsewhere.example/x' to='{}' id='1' type='chat'><body>hi</body></message>",
        "<iq from='eve@elsewhere.example/x' to='{}' id='1' type='get'><query xmlns='jabber:iq:version'/></iq>",
        "<presence from='eve@elsewhere.example/x' to='{}' type='subscribe'/>",
        "<presence from='eve@elsewhere.example/x' to='{}'/>",
    ):
        scene.world.away.clear()
        scene.world.arrive(nobody, inner.format(nobody.bare))
        of_nobody = [text.replace("nobody", "4f2a") for text in scene.world.away]
        scene.world.away.clear()
        scene.world.arrive(scene.one.entity, inner.format(scene.one.bare))
        assert scene.world.away == of_nobody or "presence" in inner
        assert scene.world.heard(scene.one) == []


def test_others_hear_that_it_is_a_guest(scene: Scene) -> None:
    found = scene.says(f"<iq type='get' id='1'><query xmlns='{ns.DISCO_INFO}'/></iq>")
    assert 'category="account" type="anonymous"' in found
    found = scene.says(f"<iq type='get' id='1'><query xmlns='{ns.DISCO_INFO}'/></iq>", scene.alice)
    assert 'category="account" type="registered"' in found


def test_with_the_session_the_account_ends(scene: Scene) -> None:
    scene.world.written()
    scene.world.end(scene.one)
    (write,) = [write for write in scene.world.writes if write.statement is erasures.begin]
    assert write.arguments[1] == scene.one.bare
    assert write.arguments[4] == "guest"
    assert scene.world.reloads == [scene.one.bare]
    scene.world.end(scene.alice)
    assert [w.arguments[1] for w in scene.world.writes if w.statement is erasures.begin] == [scene.one.bare]
