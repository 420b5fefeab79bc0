"""XMPP ping (XEP-0199)."""

from __future__ import annotations

import pytest

from router.entity import Session
from tests.support.turns import DOMAIN, World, error
from xmpp import ns

JULIET, ROMEO = "juliet@example.com", "romeo@example.com"


class Scene:
    """Juliet and Romeo with a session each."""

    def __init__(self) -> None:
        self.world = World()
        self.juliet = self.world.bind(self.world.account(JULIET), "balcony")
        self.romeo = self.world.bind(self.world.account(ROMEO), "orchard")

    def ping(self, session: Session, to: str | None) -> list[str]:
        address = f' to="{to}"' if to else ""
        self.world.say(session, f'<iq{address} type="get" id="c2s1"><ping xmlns="{ns.PING}"/></iq>')
        return self.world.heard(session)


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize("to", [DOMAIN, JULIET, ROMEO])
def test_the_server_answers_for_itself_and_for_accounts(scene: Scene, to: str) -> None:
    """4.2 and 4.4: a bare JID "will be handled by the server on behalf of the client"."""
    pong = f'<iq to="{scene.juliet.jid}" from="{to}" type="result" id="c2s1"/>'
    assert scene.ping(scene.juliet, to) == [pong]
    assert scene.world.heard(scene.romeo) == []


def test_without_address_it_is_the_own_account(scene: Scene) -> None:
    assert scene.ping(scene.juliet, None) == [f'<iq to="{scene.juliet.jid}" type="result" id="c2s1"/>']


def test_a_client_is_pinged_itself(scene: Scene) -> None:
    assert scene.ping(scene.juliet, scene.romeo.jid) == []
    assert scene.world.heard(scene.romeo) == [
        f'<iq to="{scene.romeo.jid}" from="{scene.juliet.jid}" type="get" id="c2s1"><ping xmlns="{ns.PING}"/></iq>'
    ]


def test_a_client_that_is_not_there(scene: Scene) -> None:
    """8: from "the full JID provided in the 'to' address of the ping request"."""
    (answer,) = scene.ping(scene.juliet, f"{ROMEO}/gone")
    assert answer.startswith(
        f'<iq to="{scene.juliet.jid}" from="{ROMEO}/gone" type="error" id="c2s1">'
        f"{error('service-unavailable', 'cancel')}"
    )
