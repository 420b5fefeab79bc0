"""Service administration by ad-hoc commands (XEP-0133, XEP-0050)."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from router.entity import Session
from storage import accounts, sessions
from tests.support.turns import DOMAIN, PLAIN, World, error
from xmpp import ns

ADMIN = "admin@example.com"
PREFIX = "http://jabber.org/protocol/admin#"


class Scene:
    def __init__(self) -> None:
        self.world = World(dataclasses.replace(PLAIN, admins=frozenset({ADMIN})))
        self.admin = self.world.bind(self.world.account(ADMIN))
        self.romeo = self.world.bind(self.world.account("romeo@example.com"))
        row = SimpleNamespace(jid="romeo@example.com", bare="romeo@example.com", resource="orchard")
        self.world.database |= {
            accounts.count: lambda domain: 2 if domain == DOMAIN else 0,
            sessions.count: lambda user, domain, node: 1,
            accounts.list_: lambda domain, after, limit: [row],
            sessions.list_: lambda user, domain, node, after, limit: [row],
        }

    def ask(self, session: Session, type: str, inner: str) -> str:
        self.world.say(session, f'<iq to="{DOMAIN}" type="{type}" id="c">{inner}</iq>')
        (answer,) = self.world.heard(session)
        return answer

    def run(self, session: Session, name: str, attributes: str = "") -> str:
        return self.ask(session, "set", f'<command xmlns="{ns.COMMANDS}" node="{PREFIX}{name}"{attributes}/>')


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("get-registered-users-num", "registeredusersnum", "2"),
        ("get-online-users-num", "onlineusersnum", "1"),
        ("get-registered-users-list", "registereduserjids", "romeo@example.com"),
        ("get-online-users-list", "onlineuserjids", "romeo@example.com/orchard"),
    ],
)
def test_operators_ask(scene: Scene, name: str, field: str, value: str) -> None:
    answer = scene.run(scene.admin, name)
    assert 'status="completed"' in answer
    assert f'<field var="{field}"><value>{value}</value></field>' in answer
    assert error("forbidden", "auth") in scene.run(scene.romeo, name)


def test_what_there_is_is_found(scene: Scene) -> None:
    """XEP-0050, 2.2."""
    query = f'<query xmlns="{ns.DISCO_ITEMS}" node="{ns.COMMANDS}"/>'
    assert scene.ask(scene.admin, "get", query).count(f'node="{PREFIX}') == 4
    assert PREFIX not in scene.ask(scene.romeo, "get", query)


def test_commands_that_are_none(scene: Scene) -> None:
    assert error("item-not-found", "cancel") in scene.run(scene.admin, "shutdown")
    assert 'status="canceled"' in scene.run(scene.admin, "get-online-users-num", ' action="cancel"')
    assert "<malformed-action" in scene.run(scene.admin, "get-online-users-num", ' action="jump"')
