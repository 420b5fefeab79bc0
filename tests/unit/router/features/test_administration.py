"""Service administration by ad-hoc commands (XEP-0133, XEP-0050): which commands are run with what, and what is told."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from router.adhoc import NODES
from router.administration import ALL
from router.administration.service import checked
from router.entity import Session
from router.features.administration import METHOD
from tests.support.turns import DOMAIN, PLAIN, World, error
from xmpp import ns
from xmpp.errors import ItemNotFound

ADMIN = "admin@example.com"
ROMEO = "romeo@example.com"
PREFIX = "http://jabber.org/protocol/admin#"
COMMANDS = {command.name: command for command in ALL}
ANSWERS: dict[str, Any] = {
    "stats": {"domains": [{"domain": DOMAIN, "accounts": 2, "banned": 1, "online": 1, "sessions": 3}]},
    "user list": {"users": [{"jid": ROMEO}], "next": None},
    "user restricted": {"restrictions": [{"jid": ROMEO}], "next": None},
    "session list": {"sessions": [{"jid": f"{ROMEO}/orchard"}], "next": None},
    "user show": {"jid": ROMEO, "contacts": 7, "last_at": "2026-11-24T10:00:00Z", "sessions": []},
    "roster list": {"contacts": [{"jid": "j@x", "subscription": "both", "in_roster": True}]},
}


class Scene:
    """An administrator, a user, and an administration that checks what it is given as the real one does."""

    def __init__(self) -> None:
        self.world = World(dataclasses.replace(PLAIN, admins=frozenset({ADMIN})))
        self.admin = self.world.bind(self.world.account(ADMIN))
        self.romeo = self.world.bind(self.world.account(ROMEO))
        self.used: list[tuple[str, dict[str, Any]]] = []
        self.world.database[METHOD] = self.use

    def use(self, bare: str, name: str, given: dict[str, Any]) -> Any:
        assert bare == ADMIN
        self.used.append((name, checked(COMMANDS[name], dict(given))))
        return ANSWERS.get(name, {})

    def ask(self, session: Session, type: str, inner: str) -> str:
        self.world.say(session, f'<iq to="{DOMAIN}" type="{type}" id="c">{inner}</iq>')
        (answer,) = self.world.heard(session)
        return answer

    def run(self, session: Session, name: str, attributes: str = "") -> str:
        return self.ask(session, "set", f'<command xmlns="{ns.COMMANDS}" node="{PREFIX}{name}"{attributes}/>')

    def fill_in(self, name: str, **fields: str) -> str:
        written = "".join(
            f'<field var="{var.replace("_", "-")}"><value>{value}</value></field>' for var, value in fields.items()
        )
        form = f'<x xmlns="jabber:x:data" type="submit">{written}</x>'
        command = f'<command xmlns="{ns.COMMANDS}" node="{PREFIX}{name}" action="complete">{form}</command>'
        return self.ask(self.admin, "set", command)


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("get-registered-users-num", "registeredusersnum", "2"),
        ("get-disabled-users-num", "disabledusersnum", "1"),
        ("get-online-users-num", "onlineusersnum", "1"),
        ("get-registered-users-list", "registereduserjids", ROMEO),
        ("get-disabled-users-list", "disableduserjids", ROMEO),
        ("get-online-users-list", "onlineuserjids", f"{ROMEO}/orchard"),
    ],
)
def test_operators_ask(scene: Scene, name: str, field: str, value: str) -> None:
    answer = scene.run(scene.admin, name)
    assert 'status="completed"' in answer
    assert f'<field var="{field}"><value>{value}</value></field>' in answer
    assert error("forbidden", "auth") in scene.run(scene.romeo, name)
    assert scene.used[0][1]["domain"] == DOMAIN


def test_what_there_is_is_found(scene: Scene) -> None:
    """XEP-0050, 2.2."""
    query = f'<query xmlns="{ns.DISCO_ITEMS}" node="{ns.COMMANDS}"/>'
    assert scene.ask(scene.admin, "get", query).count(f'node="{PREFIX}') == len(NODES)
    assert PREFIX not in scene.ask(scene.romeo, "get", query)


@pytest.mark.parametrize("name", [name for name, adhoc in NODES.items() if adhoc.fields])
def test_what_needs_a_form_has_one(scene: Scene, name: str) -> None:
    answer = scene.run(scene.admin, name)
    assert 'status="executing"' in answer
    assert 'var="accountjid' in answer or 'var="announcement"' in answer
    assert not scene.used
    assert error("forbidden", "auth") in scene.run(scene.romeo, name)


@pytest.mark.parametrize(
    ("name", "fields", "used"),
    [
        ("add-user", {"accountjid": ROMEO, "password": "p", "password_verify": "p"}, ("user add", {"password": "p"})),
        ("delete-user", {"accountjids": ROMEO}, ("user del", {})),
        ("disable-user", {"accountjids": f"{ROMEO}/orchard", "reason": "spam"}, ("user ban", {"reason": "spam"})),
        ("reenable-user", {"accountjids": ROMEO}, ("user unban", {})),
        ("change-user-password", {"accountjid": ROMEO, "password": "n"}, ("user passwd", {"password": "n"})),
    ],
)
def test_accounts_are_changed(
    scene: Scene, name: str, fields: dict[str, str], used: tuple[str, dict[str, Any]]
) -> None:
    """XEP-0133, 4.1 to 4.6."""
    assert 'status="completed"' in scene.fill_in(name, **fields)
    command, given = used
    assert scene.used == [(command, {"jid": ROMEO, **given})]


def test_sessions_are_ended_one_or_all(scene: Scene) -> None:
    """XEP-0133, 4.5: an address with a resource is that session."""
    scene.fill_in("end-user-session", accountjids=f"{ROMEO}/orchard")
    assert scene.used == [("session kick", {"jid": f"{ROMEO}/orchard"})]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("get-user-lastlogin", '<field var="lastlogin"><value>2026-11-24T10:00:00Z</value></field>'),
        ("user-stats", '<field var="rostersize"><value>7</value></field>'),
        ("get-user-roster", '<field var="contacts"><value>j@x both</value></field>'),
    ],
)
def test_accounts_are_looked_at(scene: Scene, name: str, told: str) -> None:
    assert told in scene.fill_in(name, accountjids=ROMEO)


def test_an_announcement_is_for_who_is_online(scene: Scene) -> None:
    """XEP-0133, 4.23."""
    assert 'status="completed"' in scene.fill_in("announce", announcement="Maintenance")
    assert scene.used == [("announce", {"domain": DOMAIN, "to": "online", "body": "Maintenance"})]
    assert error("bad-request", "modify") in scene.fill_in("announce", announcement="  ")


def test_what_is_refused_is_told(scene: Scene) -> None:
    def refuse(*arguments: object) -> object:
        return ItemNotFound("nobody@example.com does not exist.")

    scene.world.database[METHOD] = refuse
    answer = scene.fill_in("disable-user", accountjids="nobody@example.com")
    assert error("item-not-found", "cancel") in answer or "does not exist" in answer
    assert error("bad-request", "modify") in scene.fill_in("disable-user", reason="spam")
    assert "bad-request" in scene.fill_in("add-user", accountjid=ROMEO, password="p", password_verify="q")
    assert "bad-request" in scene.fill_in("add-user", password="p")


def test_commands_that_are_none(scene: Scene) -> None:
    assert error("item-not-found", "cancel") in scene.run(scene.admin, "shutdown")
    assert 'status="canceled"' in scene.run(scene.admin, "get-online-users-num", ' action="cancel"')
    assert "<malformed-action" in scene.run(scene.admin, "get-online-users-num", ' action="jump"')
