"""Devices of an account: XEP-0494, and one session for each (XEP-0386, 3.2)."""

from __future__ import annotations

from typing import Any

import pytest

from router.events import SessionBound
from router.features.devices import DEVICE, network_of
from router.features.offline import FROM_ARCHIVE
from router.recipients import CARBONS
from storage import devices
from storage.devices import Device
from tests.support.turns import World, error
from xmpp import ns

JULIET = "juliet@example.com"
PHONE, LAPTOP = b"p" * 16, b"l" * 16


def device(of: bytes, name: str, **facts: Any) -> Device:
    known = {"address": "", "first_seen": 1e9, "last_seen": 1e9 + 60, "by_password": False, "has_token": True}
    return Device(of, "Conversations", name, **{**known, **facts})


@pytest.fixture
def world() -> World:
    world = World()
    world.account(JULIET)
    return world


def bound(world: World, resource: str, **facts: Any) -> None:
    session = world.bind(world.entities[JULIET], resource)
    world.happen(world.entities[JULIET], SessionBound(session, facts))


def ask(world: World, type: str, payload: str, resource: str = "orchard") -> list[str]:
    session = world.entities[JULIET].sessions[resource]
    world.say(session, f"<iq type='{type}' id='i'>{payload}</iq>")
    return world.heard(session)


def test_a_device_that_signs_in_is_remembered_without_its_exact_address(world: World) -> None:
    bound(world, "orchard", device=PHONE, software="Gajim", name="Juliet's", address="192.0.2.77", by_password=True)
    (write,) = world.writes
    key = world.entities[JULIET].key
    assert write.statement is devices.seen
    assert write.arguments == (key, PHONE, "Gajim", "Juliet's", "192.0.0.0/16", world.now, True)
    assert world.entities[JULIET].sessions["orchard"].marks[DEVICE] == PHONE


def test_its_former_session_ends(world: World) -> None:
    """XEP-0386, 3.2: "the server SHOULD terminate any earlier sessions from the same client"."""
    for resource, of in (("orchard", PHONE), ("balcony", LAPTOP), ("garden", PHONE)):
        bound(world, resource, device=of)
    assert world.closed == [(f"{JULIET}/orchard", "conflict")]


def test_who_is_no_device_is_not_remembered(world: World) -> None:
    bound(world, "orchard")
    assert world.writes == []
    assert world.entities[JULIET].sessions["orchard"].marks == {}


def test_carbons_and_the_archive_are_asked_for_with_the_resource(world: World) -> None:
    bound(world, "orchard", carbons=True, reads_archive=True)
    assert set(world.entities[JULIET].sessions["orchard"].marks) == {CARBONS, FROM_ARCHIVE}


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("198.51.100.7", "198.51.0.0/16"),
        ("::ffff:198.51.100.7", "198.51.0.0/16"),
        ("2001:db8:1:2::3", "2001:0db8:0001::/48"),
        ("fe80::1%eth0", "fe80:0000:0000::/48"),
        ("nonsense", ""),
    ],
)
def test_what_is_kept_of_an_address(address: str, network: str) -> None:
    assert network_of(address) == network


def test_devices_and_sessions_are_listed(world: World) -> None:
    """XEP-0494, 3.1."""
    world.devices = [device(PHONE, "phone"), device(LAPTOP, "", by_password=True, has_token=False)]
    bound(world, "orchard", device=PHONE)
    bound(world, "old")
    (answer,) = ask(world, "get", f"<list xmlns='{ns.CLIENT_ACCESS}'/>")
    assert f'<client connected="true" id="{PHONE.hex()}" type="session">' in answer
    assert "<auth><fast/></auth>" in answer
    assert f'<client connected="false" id="{LAPTOP.hex()}" type="session">' in answer
    assert "<first-seen>2001-09-09T01:46:40.000Z</first-seen>" in answer
    assert answer.count('<permission status="unrestricted"/>') == 3
    assert answer.count("<auth><password/></auth>") == 2, "one is a client that has said nothing of itself"
    assert "<software>old</software>" in answer


def revoke(world: World, id_: str) -> list[str]:
    return ask(world, "set", f"<revoke xmlns='{ns.CLIENT_ACCESS}' id='{id_}'/>")


def test_access_is_revoked(world: World) -> None:
    """XEP-0494, 3.2."""
    bound(world, "orchard")
    bound(world, "balcony", device=PHONE)
    world.devices = [device(PHONE, "phone")]
    world.writes.clear()
    (answer,) = revoke(world, PHONE.hex())
    assert 'type="result"' in answer
    assert [(write.statement, write.arguments[1]) for write in world.writes] == [(devices.forget, PHONE)]
    assert world.closed == [(f"{JULIET}/balcony", "not-authorized")]


def test_of_who_knows_the_password_it_cannot_be_and_that_is_said(world: World) -> None:
    """XEP-0494, 3.2: "the 'password-reset-required' application error"."""
    bound(world, "orchard")
    bound(world, "balcony", device=PHONE)
    world.devices = [device(PHONE, "phone", by_password=True)]
    (answer,) = revoke(world, PHONE.hex())
    assert error("service-unavailable", "cancel")[:-8] in answer
    assert f'<password-reset-required xmlns="{ns.CLIENT_ACCESS}"/>' in answer
    assert world.closed == [(f"{JULIET}/balcony", "not-authorized")], "it is signed out all the same"


def test_who_is_not_there_cannot_be_revoked(world: World) -> None:
    bound(world, "orchard")
    (answer,) = revoke(world, "ff" * 16)
    assert error("item-not-found", "cancel")[:-8] in answer
    assert world.closed == []


def test_a_user_logs_out_everywhere_else(world: World) -> None:
    """By an ad-hoc command of the own domain (XEP-0050)."""
    bound(world, "orchard", device=PHONE)
    bound(world, "balcony", device=LAPTOP)
    world.bind(world.entities[JULIET], "old")
    world.writes.clear()
    session = world.entities[JULIET].sessions["orchard"]
    world.say(
        session,
        f"<iq type='set' id='c' to='example.com'><command xmlns='{ns.COMMANDS}' node='{ns.CLIENT_ACCESS}#log-out-others'/></iq>",
    )
    (answer,) = world.heard(session)
    assert 'status="completed"' in answer
    assert "Sessions ended: 2." in answer
    assert [(write.statement, write.arguments[1]) for write in world.writes] == [(devices.invalidate_all, PHONE)]
    assert world.closed == [(f"{JULIET}/balcony", "not-authorized"), (f"{JULIET}/old", "not-authorized")]
