"""External services (XEP-0215): who is told of them, and what credentials they get."""

from __future__ import annotations

import hmac
from base64 import b64encode
from dataclasses import replace

import pytest
from lxml import etree

from cluster.config import Calls, ConfigError, ExternalService, load
from router.settings import Settings, contacts_of
from tests.support.turns import NOW, PLAIN, World, error

NS = "urn:xmpp:extdisco:2"
SECRET = "north"
SERVICES = {
    "turn": ExternalService(type="turn", host="turn.example.com", secret=SECRET, ttl_s=3_600, name="Calls"),
    "stun": ExternalService(type="stun", host="turn.example.com"),
    "old": ExternalService(
        type="turns", host="old.example.com", port=5349, transport="tcp", username="u", password="p"
    ),
}


def ask(payload: str, settings: Settings | None = None, name: str = "romeo") -> etree._Element:
    world = World(settings or replace(PLAIN, external_services=SERVICES))
    session = world.online(world.account(f"{name}@example.com"), "home")
    world.say(session, f"<iq type='get' id='x' to='example.com'>{payload}</iq>")
    (answer,) = world.heard(session)
    return etree.fromstring(answer)


def services(answer: etree._Element) -> list[dict[str, str]]:
    return [{str(k): str(v) for k, v in service.attrib.items()} for service in answer.iter("{*}service")]


def test_a_client_is_told_of_all_and_gets_credentials_for_a_while() -> None:
    turn, stun, old = services(ask(f"<services xmlns='{NS}'/>"))
    until, _, who = turn["username"].partition(":")
    assert int(until) == NOW + 3_600
    assert who
    assert "romeo" not in who
    assert turn["password"] == b64encode(hmac.digest(SECRET.encode(), turn["username"].encode(), "sha1")).decode()
    assert turn["expires"] == "2027-01-15T09:00:00.000Z"
    assert (turn["restricted"], turn["name"], turn["port"], turn["transport"]) == ("true", "Calls", "3478", "udp")
    assert stun == {"type": "stun", "host": "turn.example.com", "port": "3478", "transport": "udp"}
    assert (old["username"], old["password"], "expires" in old) == ("u", "p", False)


def test_users_are_told_apart_and_the_same_one_is_known_again() -> None:
    names = [
        services(ask(f"<services xmlns='{NS}'/>", None, name))[0]["username"] for name in ("romeo", "romeo", "juliet")
    ]
    assert names[0] == names[1] != names[2]


def test_services_of_one_type() -> None:
    answer = ask(f"<services xmlns='{NS}' type='stun'/>")
    assert answer[0].get("type") == "stun"
    assert [service["type"] for service in services(answer)] == ["stun"]
    assert services(ask(f"<services xmlns='{NS}' type='ftp'/>")) == []
    assert services(ask(f"<services xmlns='{NS}'/>", PLAIN)) == []


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ("host='turn.example.com' type='turn'", 1),
        ("host='turn.example.com' type='turn' port='3478'", 1),
        ("host='turn.example.com' type='turn' port='1'", 0),
        ("host='elsewhere.example.com' type='turn'", 0),
    ],
)
def test_credentials_for_a_service_that_the_client_knows(attributes: str, found: int) -> None:
    answer = ask(f"<credentials xmlns='{NS}'><service {attributes}/></credentials>")
    assert len(services(answer)) == found
    assert answer.get("type") == ("result" if found else "error")


def test_a_service_without_host_or_type_is_none() -> None:
    for wrong in ("", "<service host='turn.example.com'/>", "<service type='turn'/>"):
        answer = etree.tostring(ask(f"<credentials xmlns='{NS}'>{wrong}</credentials>")).decode()
        assert error("bad-request", "modify").partition(">")[2] in answer


def test_credentials_are_of_one_kind_and_whole() -> None:
    for wrong in ('{"secret": "s", "username": "u", "password": "p"}', '{"username": "u"}'):
        service = wrong.replace("{", '{"type": "turn", "host": "h", ', 1)
        with pytest.raises(ConfigError):
            load(None, [f'calls.services={{"x": {service}}}'], {})
    assert Calls().services == {}


def test_contacts_are_those_that_are_set_or_else_the_admins() -> None:
    assert contacts_of(load(None, [], {})) == {}
    admins = ['server.admins=["romeo@localhost"]']
    assert contacts_of(load(None, admins, {})) == {"admin": ("xmpp:romeo@localhost",)}
    both = [*admins, 'server.contacts={"abuse": ["mailto:abuse@example.com"]}']
    assert contacts_of(load(None, both, {})) == {"abuse": ("mailto:abuse@example.com",)}
    with pytest.raises(ConfigError):
        load(None, ['server.contacts={"weather": ["mailto:x@example.com"]}'], {})


def test_others_are_told_whom_to_write_to() -> None:
    settings = replace(PLAIN, contacts={"abuse": ("mailto:abuse@example.com", "xmpp:abuse@example.com")})
    answer = ask("<query xmlns='http://jabber.org/protocol/disco#info'/>", settings)
    fields = {field.get("var"): [value.text for value in field] for field in answer.iter("{jabber:x:data}field")}
    assert fields["abuse-addresses"] == ["mailto:abuse@example.com", "xmpp:abuse@example.com"]
    types = [field[0].text for field in answer.iter("{jabber:x:data}field") if field.get("var") == "FORM_TYPE"]
    assert "http://jabber.org/network/serverinfo" in types
