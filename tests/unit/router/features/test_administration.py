"""Service administration by ad-hoc commands (XEP-0133, XEP-0050)."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from router.entity import Session
from storage import accounts, sessions
from tests.support.turns import DOMAIN, PLAIN, World, error
from xmpp import ns
from xmpp.errors import ItemNotFound

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
    assert scene.ask(scene.admin, "get", query).count(f'node="{PREFIX}') == 6
    assert PREFIX not in scene.ask(scene.romeo, "get", query)


def fill_in(scene: Scene, name: str, **fields: str) -> str:
    written = "".join(f'<field var="{var}"><value>{value}</value></field>' for var, value in fields.items())
    form = f'<x xmlns="jabber:x:data" type="submit">{written}</x>'
    command = f'<command xmlns="{ns.COMMANDS}" node="{PREFIX}{name}" action="complete">{form}</command>'
    return scene.ask(scene.admin, "set", command)


def test_accounts_are_disabled_and_enabled_again(scene: Scene) -> None:
    """XEP-0133, 4.4 and 4.5: a form first; then their owners do it."""
    calls: list[tuple[object, ...]] = []
    scene.world.database |= {
        "admin.restrict": lambda *arguments: calls.append(arguments),
        "admin.unrestrict": lambda *arguments: calls.append(arguments),
    }
    answer = scene.run(scene.admin, "disable-user")
    assert 'status="executing"' in answer
    assert '<field type="jid-multi" var="accountjids"' in answer
    assert error("forbidden", "auth") in scene.run(scene.romeo, "disable-user")
    answer = fill_in(scene, "disable-user", accountjids="Romeo@example.com/orchard", reason="spam")
    assert 'status="completed"' in answer
    assert 'status="completed"' in fill_in(scene, "reenable-user", accountjids="romeo@example.com")
    assert calls == [("romeo@example.com", "ban", "spam", ADMIN), ("romeo@example.com", "ban", ADMIN)]


def test_accounts_that_cannot_be_disabled(scene: Scene) -> None:
    def refuse(*arguments: object) -> object:
        return ItemNotFound()

    scene.world.database["admin.restrict"] = refuse
    for jid, condition, kind in (
        ("nobody@example.com", "item-not-found", "cancel"),
        ("romeo@elsewhere.example", "item-not-found", "cancel"),
        ("a@b@c", "bad-request", "modify"),
    ):
        assert error(condition, kind) in fill_in(scene, "disable-user", accountjids=jid)
    assert error("bad-request", "modify") in fill_in(scene, "disable-user", reason="spam")


def test_commands_that_are_none(scene: Scene) -> None:
    assert error("item-not-found", "cancel") in scene.run(scene.admin, "shutdown")
    assert 'status="canceled"' in scene.run(scene.admin, "get-online-users-num", ' action="cancel"')
    assert "<malformed-action" in scene.run(scene.admin, "get-online-users-num", ' action="jump"')
