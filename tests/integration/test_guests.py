"""People who sign in anonymously (XEP-0175), in a cluster of two c2s and two routers: what they may do, and that nothing
is left of them, however they end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import psycopg
import pytest

from tests.integration.test_erase import OF_OTHERS, distinct, known, naming
from tests.support.client import CLIENT, SASL, Client, condition, place, sign_in
from tests.support.cluster import RunningCluster, start_cluster, wait_until
from tests.support.rooms import admin, join, new_room, said, submit

GUESTS: Final = "guest.example"
FEW: Final = "few.example"
Database = psycopg.Connection[tuple[object, ...]]


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    domains = {
        GUESTS: {"backend": "anonymous", "per_address": 0},
        FEW: {"backend": "anonymous", "sessions": 3, "per_address": 2},
    }
    running = start_cluster(
        tmp_path_factory.mktemp("guests"), "--tls", "optional", "--set", "limits.enabled=false",
        "--domain", "localhost", "--domain", GUESTS, "--domain", FEW, "--set", "c2s.login_timeout_s=3",
        "--set", f"authentication.domains={json.dumps(domains)}",
    )  # fmt: skip
    yield running
    assert running.stop() == 0


@pytest.fixture
def database(realm: RunningCluster) -> Iterator[Database]:
    with psycopg.connect(realm.facts["database_url"], autocommit=True) as conn:
        distinct(conn)
        yield conn


def anonymous(cluster: RunningCluster, domain: str = GUESTS) -> tuple[Client, str]:
    """A client that has asked to be a guest: "success", or the condition of the failure."""
    client = Client(cluster, domain=domain)
    features = client.open()
    assert [name.text for name in features.iter(f"{SASL}mechanism")] == ["ANONYMOUS"]
    client.send(f"<auth xmlns='{SASL[1:-1]}' mechanism='ANONYMOUS'/>")
    answer = client.expect(lambda element: element.tag.startswith(SASL))
    return client, "success" if answer.tag == f"{SASL}success" else condition(answer)


def guest(cluster: RunningCluster, domain: str = GUESTS) -> Client:
    """A guest with a session, who is there."""
    client, result = anonymous(cluster, domain)
    assert result == "success"
    client.open()
    client.bind()
    client.send("<presence/>")
    client.presence(None, client.jid)
    return client


def guests_apart(cluster: RunningCluster) -> tuple[Client, Client]:
    """Two, on different c2s and of different routers."""
    first = guest(cluster)
    for _ in range(100):
        second = guest(cluster)
        if all(a != b for a, b in zip(place(cluster, first), place(cluster, second), strict=True)):
            return first, second
        second.socket.close()
    raise AssertionError("the guests did not spread over the processes")


def is_gone(conn: Database, jid: str, key: int) -> bool:
    """Whether nothing is left but what others keep of their own."""
    found = naming(conn, jid, key)
    return not set(found) - OF_OTHERS.keys() and ("log", "owner") not in found


def live(one: Client, two: Client, juliet: Client, room: str) -> None:
    """They talk with each other, with a user, and in a room."""
    for a, b in ((one, two), (two, one), (one, juliet), (juliet, two)):
        a.message(b.jid, f"from {a.bare}")
        said(b, f"from {a.bare}")
    for nick, client in (("one", one), ("two", two)):
        join(client, room, nick)
    one.message(room, "to all", "groupchat")
    for client in (one, two, juliet):
        said(client, "to all")


@pytest.fixture
def room(realm: RunningCluster) -> Iterator[tuple[Client, str]]:
    with sign_in(realm, realm.account("juliet", domain="localhost"), "balcony") as juliet:
        found = new_room(realm)
        join(juliet, found, "juliet")
        assert submit(juliet, found, persistentroom="1").get("type") == "result"
        yield juliet, found


def test_guests_chat_and_join_rooms_and_leave_nothing(
    realm: RunningCluster, room: tuple[Client, str], database: Database
) -> None:
    juliet, where = room
    one, two = guests_apart(realm)
    keys = {client.bare: known(database, client.bare) for client in (one, two)}
    live(one, two, juliet, where)
    assert admin(juliet, where, f"jid='{two.bare}' affiliation='member'").get("type") == "result"
    before = naming(database, two.bare, keys[two.bare])
    for table in ("accounts", "entities", "guests", "sessions", "log", "room_affiliations"):
        assert any(found == table for found, _ in before), f"the test has left nothing in {table}"
    one.send("</stream:stream>")
    assert one.end() == ""
    one.socket.close()
    two.socket.close()  # without a word
    juliet.presence("unavailable", f"{where}/one")
    juliet.presence("unavailable", f"{where}/two")
    for bare, key in keys.items():
        wait_until(lambda bare=bare, key=key: is_gone(database, bare, key), 20, f"{bare} has left nothing")  # type: ignore[misc]
        answer = juliet.iq("get", "<vCard xmlns='vcard-temp'/>", bare)
        assert condition(answer) == "service-unavailable"


def test_what_guests_may_not(realm: RunningCluster, database: Database) -> None:
    with guest(realm) as client:
        register = "<query xmlns='jabber:iq:register'>{}</query>"
        for payload in (
            register.format("<username>x</username><password>y</password>"),
            register.format("<remove/>"),
            "<query xmlns='jabber:iq:roster'><item jid='a@b.example'/></query>",
            "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:x'/></pubsub>",
            "<command xmlns='http://jabber.org/protocol/commands' node='urn:xmpp:invite#invite'/>",
        ):
            assert condition(client.iq("set", payload)) == "not-allowed"
        assert condition(client.iq("get", "<query xmlns='jabber:iq:version'/>", "elsewhere.example")) == "not-allowed"
        client.send(f"<presence to='{new_room(realm)}/me' id='made'/>")
        refused = client.expect(lambda e: e.tag == f"{CLIENT}presence" and e.get("type") == "error")
        assert condition(refused) == "not-allowed"
        ((count,),) = database.execute("select count(*) from log_outbound").fetchall()
        assert count == 0


def test_there_are_not_too_many(realm: RunningCluster) -> None:
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(guest(realm, FEW))
        client, result = anonymous(realm, FEW)
        stack.enter_context(client)
        assert result == "temporary-auth-failure"

    def is_let_in() -> bool:
        client, result = anonymous(realm, FEW)
        with client:
            return result == "success"

    wait_until(is_let_in, 20, "there is room again")


def test_who_signs_in_and_goes_before_having_a_session(realm: RunningCluster, database: Database) -> None:
    client, result = anonymous(realm)
    assert result == "success"
    ((jid, key),) = database.execute("select jid, key from guests order by at desc limit 1").fetchall()
    client.socket.close()
    wait_until(lambda: is_gone(database, str(jid), int(str(key))), 60, "nothing is left")


def test_a_session_is_not_resumed_by_another_guest(realm: RunningCluster) -> None:
    with guest(realm) as client:
        client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        enabled = client.expect(lambda element: element.tag == "{urn:xmpp:sm:3}enabled")
        assert enabled.get("resume") is None


@pytest.mark.parametrize("killed", [("c2s-0",), ("c2s-0", "router-0"), ("router-0",)])
def test_nothing_is_left_when_processes_die(
    realm: RunningCluster, room: tuple[Client, str], database: Database, killed: tuple[str, ...]
) -> None:
    _, where = room
    guests = [guest(realm) for _ in range(8)]
    keys = {client.bare: known(database, client.bare) for client in guests}
    for client in guests:
        join(client, where, client.bare[:8])
        client.message(guests[0].jid, "hello")
        client.ping()
    of_c2s = [client for client in guests if place(realm, client)[0] == "c2s-0"]
    assert of_c2s
    pids = {node: realm.kill(node) for node in killed}
    for node, pid in pids.items():
        realm.wait_restarted(node, pid, 60)
    realm.wait_ready(60)
    if "c2s-0" in killed:
        for client in of_c2s:
            assert client.end() == "connection closed"
    for client in guests:
        client.socket.close()
    for bare, key in keys.items():
        wait_until(lambda bare=bare, key=key: is_gone(database, bare, key), 60, f"{bare} has left nothing")  # type: ignore[misc]
