"""vCards (XEP-0054)."""

from __future__ import annotations

import pytest

from router.entity import Session
from router.settings import Settings
from storage import vcards
from tests.support.turns import DOMAIN, World, error
from xmpp import ns

JULIET, ROMEO, NOBODY = "juliet@example.com", "romeo@example.com", "mercutio@example.com"
CARD = (
    f'<vCard xmlns="{ns.VCARD}"><FN>Juliet &amp; co</FN><N><FAMILY>Capulet</FAMILY><MIDDLE/></N>'
    '<PHOTO><TYPE>image/png</TYPE><BINVAL>aGk=</BINVAL></PHOTO><x xmlns="urn:x" xml:lang="it">ciao</x></vCard>'
)
EMPTY = f'<vCard xmlns="{ns.VCARD}"/>'


class Scene:
    """Juliet and Romeo with a session each; the database has Juliet's vCard once she has stored one."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.world = World(settings)
        self.juliet = self.world.bind(self.world.account(JULIET), "balcony")
        self.romeo = self.world.bind(self.world.account(ROMEO), "orchard")
        self.world.nobody(NOBODY)
        self.rows: dict[int, bytes] = {}
        self.world.database[vcards.get] = self.rows.get

    def ask(self, session: Session, type: str, to: str | None = None, payload: str = EMPTY) -> str:
        address = f' to="{to}"' if to else ""
        self.world.say(session, f'<iq{address} type="{type}" id="v">{payload}</iq>')
        for write in self.world.writes:
            if write.statement is vcards.put:
                key, xml = write.arguments
                self.rows[key] = xml
        self.world.writes.clear()
        (answer,) = self.world.heard(session)
        return answer


@pytest.fixture
def scene() -> Scene:
    return Scene()


def result(session: Session, to: str | None = None, payload: str = "") -> str:
    head = f'<iq to="{session.jid}"{f" from=^{to}^" if to else ""} type="result" id="v"'.replace("^", '"')
    return f"{head}>{payload}</iq>" if payload else f"{head}/>"


@pytest.mark.parametrize("to", [None, JULIET])
def test_the_own_vcard(scene: Scene, to: str | None) -> None:
    """3.1 and 3.2; who has none gets an empty one."""
    assert scene.ask(scene.juliet, "get", to) == result(scene.juliet, to, EMPTY)
    assert scene.ask(scene.juliet, "set", to, CARD) == result(scene.juliet, to)
    assert scene.rows == {scene.juliet.entity.key: CARD.encode()}
    assert scene.ask(scene.juliet, "get", to) == result(scene.juliet, to, CARD)


def test_an_update_replaces_the_whole_vcard(scene: Scene) -> None:
    """3.2: "the entire vCard must be sent to the server"."""
    scene.ask(scene.juliet, "set", None, CARD)
    changed = f'<vCard xmlns="{ns.VCARD}"><FN>J</FN></vCard>'
    scene.ask(scene.juliet, "set", None, changed)
    assert scene.ask(scene.juliet, "get") == result(scene.juliet, None, changed)


def test_everybody_may_read_a_vcard(scene: Scene) -> None:
    """3.3: answered on the account's behalf, nothing reaches its sessions."""
    scene.ask(scene.juliet, "set", None, CARD)
    assert scene.ask(scene.romeo, "get", JULIET) == result(scene.romeo, JULIET, CARD)
    assert scene.world.heard(scene.juliet) == []


def test_no_vcard_and_no_account_look_the_same(scene: Scene) -> None:
    """3.3: "MUST return the same error condition in both cases to help prevent directory harvesting attacks"."""
    answer = scene.ask(scene.romeo, "get", JULIET)
    assert error("service-unavailable", "cancel") in answer
    assert answer == scene.ask(scene.romeo, "get", NOBODY).replace(NOBODY, JULIET)


def test_another_accounts_vcard_cannot_be_written(scene: Scene) -> None:
    answer = scene.ask(scene.romeo, "set", JULIET, CARD)
    assert answer.startswith(f'<iq to="{scene.romeo.jid}" from="{JULIET}" type="error" id="v">')
    assert error("forbidden", "auth") in answer
    assert scene.rows == {}


def test_a_vcard_may_be_too_large() -> None:
    scene = Scene(Settings(domains=frozenset({DOMAIN}), vcard_bytes=len(CARD)))
    assert scene.ask(scene.juliet, "set", None, CARD) == result(scene.juliet)
    larger = CARD.replace("aGk=", "aGk=x")
    assert error("not-acceptable", "modify") in scene.ask(scene.juliet, "set", None, larger)
    assert list(scene.rows.values()) == [CARD.encode()]


def test_the_server_has_no_vcard(scene: Scene) -> None:
    assert error("service-unavailable", "cancel") in scene.ask(scene.juliet, "get", DOMAIN)
