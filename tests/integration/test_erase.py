"""The end of an account in a real cluster: whatever table there is, nothing names it any more."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql

from stentor.client import Refused
from tests.support.client import CLIENT, Client, condition, sign_in
from tests.support.cluster import Account, RunningCluster, deadline, wait_until
from tests.support.nodes import PUBSUB, become_friends, publish
from tests.support.rooms import admin, archived, join, new_room, said, submit

SERVICE = "<subscribe node='{}' jid='{}'/>"
RETRACTED = "{urn:xmpp:message-retract:1}retracted"

# What belongs to others, and may name whoever is gone.
OF_OTHERS = {
    ("rosters", "contact"): "their contact, without a subscription",
    ("roster_removed", "contact"): "likewise",
    ("log", "peer"): "their copies of messages",
    ("log", "head"): "likewise",
    ("log", "inner_xml"): "likewise",
    ("blocks", "jid"): "whom they have blocked",
}


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    from tests.support.cluster import start_cluster

    running = start_cluster(
        tmp_path_factory.mktemp("erase"),
        "--tls", "optional", "--set", "limits.enabled=false", "--set", "registration.mode=open",
    )  # fmt: skip
    yield running
    assert running.stop() == 0


@pytest.fixture
def database(realm: RunningCluster) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(realm.facts["database_url"], autocommit=True) as conn:
        yield conn


def naming(conn: psycopg.Connection[tuple[object, ...]], jid: str, key: int) -> dict[tuple[str, str], int]:
    """In how many rows each column of the schema names a JID, as text or bytes wherever it stands, or is its key."""
    found: dict[tuple[str, str], int] = {}
    columns = conn.execute(
        """
        select c.table_name, c.column_name, c.data_type from information_schema.columns c
        join information_schema.tables t using (table_schema, table_name)
        where c.table_schema = 'public' and t.table_type = 'BASE TABLE'
            and c.table_name not in (select inhrelid::regclass::text from pg_inherits)
        """
    ).fetchall()
    assert len(columns) > 100
    for table, column, type_ in columns:
        name = sql.Identifier(str(column))
        if type_ == "bytea":
            test = sql.SQL("position(convert_to({jid}, 'UTF8') in {column}) > 0")
        elif type_ in ("bigint", "integer", "smallint"):
            test = sql.SQL("{column} = {key}")
        else:
            test = sql.SQL("position({jid} in {column}::text) > 0")
        query = sql.SQL("select count(*) from {table} where ").format(table=sql.Identifier(str(table)))
        ((count,),) = conn.execute(query + test.format(jid=jid, key=key, column=name)).fetchall()
        if count:
            found[(str(table), str(column))] = int(str(count))
    return found


def known(conn: psycopg.Connection[tuple[object, ...]], jid: str) -> int:
    ((key,),) = conn.execute("select key from entities where jid = %s", (jid,)).fetchall()
    return int(str(key))


def distinct(conn: psycopg.Connection[tuple[object, ...]]) -> None:
    """The next key is a number that nothing else is."""
    conn.execute(f"alter sequence entities_key_seq restart with {7_700_000_000_000 + time.monotonic_ns() % 10**9}")


def live(cluster: RunningCluster, account: Account, friend: Client, room: str, open_room: str) -> None:
    """Leave something in every table that there is."""
    with sign_in(cluster, account, "phone") as romeo:
        become_friends(romeo, friend)
        romeo.iq("set", "<block xmlns='urn:xmpp:blocking'><item jid='tybalt@verona.example'/></block>")
        romeo.iq("set", "<query xmlns='jabber:iq:private'><x xmlns='urn:x'/></query>")
        romeo.iq("set", "<vCard xmlns='vcard-temp'><FN>Romeo</FN></vCard>")
        romeo.iq("set", "<query xmlns='jabber:iq:roster'><item jid='old@verona.example'/></query>")
        romeo.iq(
            "set", "<query xmlns='jabber:iq:roster'><item jid='old@verona.example' subscription='remove'/></query>"
        )
        romeo.iq("set", f"<enable xmlns='urn:xmpp:push:0' jid='{friend.jid}' node='{romeo.bare}'/>")
        publish(romeo, "urn:test:mine", "one", "<tune xmlns='http://jabber.org/protocol/tune'/>")
        service = f"pubsub.{cluster.domain}"
        name = account.jid.partition("@")[0]
        theirs, mine = f"theirs-{name}", f"mine-{name}"
        form = (
            "<configure><x xmlns='jabber:x:data' type='submit'>"
            "<field var='pubsub#publish_model'><value>open</value></field></x></configure>"
        )
        for owner, node in ((friend, theirs), (romeo, mine)):
            made = owner.iq("set", f"<pubsub xmlns='{PUBSUB}'><create node='{node}'/>{form}</pubsub>", service)
            assert made.get("type") == "result"
        assert publish(romeo, theirs, "his", "<a xmlns='urn:a'/>", service).get("type") == "result"
        assert publish(friend, theirs, "hers", "<a xmlns='urn:a'/>", service).get("type") == "result"
        for node in (theirs, mine):
            subscribe = f"<pubsub xmlns='{PUBSUB}'>{SERVICE.format(node, romeo.bare)}</pubsub>"
            assert romeo.iq("set", subscribe, service).get("type") == "result"
        for place in (room, open_room):
            join(romeo, place, "romeo")
            romeo.message(place, f"in {place}", "groupchat")
            said(romeo, f"in {place}")
            said(friend, f"in {place}")
        romeo.message(friend.bare, "to juliet")
        said(friend, "to juliet")
        friend.message(romeo.bare, "to romeo")
        said(romeo, "to romeo")
        romeo.message("benvolio@nowhere.invalid", "abroad")
        romeo.ping()
    friend.message(account.jid, "waits")
    friend.ping()


@pytest.fixture
def rooms(realm: RunningCluster) -> Iterator[tuple[Client, str, str]]:
    """Juliet, a room of hers in which Romeo will be a member, and one where anybody comes and goes."""
    with sign_in(realm, realm.account("juliet"), "balcony") as juliet:
        juliet.iq("get", "<query xmlns='jabber:iq:roster'/>")  # RFC 6121, 2.2: she hears what concerns it
        room, open_room = new_room(realm), new_room(realm)
        for place in (room, open_room):
            join(juliet, place, "juliet")
            assert submit(juliet, place, persistentroom="1").get("type") == "result"
        yield juliet, room, open_room


def test_nothing_names_who_is_erased(
    realm: RunningCluster, rooms: tuple[Client, str, str], database: psycopg.Connection[tuple[object, ...]]
) -> None:
    juliet, room, open_room = rooms
    distinct(database)
    romeo = realm.account("romeo")
    key = known(database, romeo.jid)
    assert admin(juliet, room, f"jid='{romeo.jid}' affiliation='admin'").get("type") == "result"
    live(realm, romeo, juliet, room, open_room)
    before = naming(database, romeo.jid, key)
    for table in (
        "accounts", "credentials", "rosters", "roster_removed", "blocks", "private_xml", "vcards", "push_services",
        "pubsub_nodes", "pubsub_items", "pubsub_affiliations", "pubsub_subscriptions", "room_affiliations",
        "room_occupants", "room_visits", "log", "entities",
    ):  # fmt: skip
        assert any(found == table for found, _ in before), f"the test has left nothing in {table}"

    with sign_in(realm, romeo, "desk") as desk:
        done = realm.command("user", "erase", romeo.jid, "--json")
        assert done.returncode == 0, done.stderr
        assert desk.end() == "not-authorized"
    report = json.loads(done.stdout)
    removed = report["removed"]
    assert report["is_finished"]
    for kind, count in {
        "account": 1, "blocks": 1, "private_data": 1, "vcard": 1, "push_services": 1, "contacts": 1,
        "former_contacts": 1, "room_affiliations": 1, "published": 1, "subscriptions": 2,
    }.items():  # fmt: skip
        assert removed[kind] == count, (kind, removed)
    for kind in ("credentials", "nodes", "items", "archive", "room_visits", "room_occupancies", "sessions"):
        assert removed[kind] >= 1, (kind, removed)

    after = naming(database, romeo.jid, key)
    assert set(after) - OF_OTHERS.keys() == set(), after
    assert ("log", "owner") not in after
    gone = juliet.presence("unsubscribed", romeo.jid)
    assert gone.get("to") == juliet.bare
    juliet.presence("unsubscribe", romeo.jid)
    assert condition(juliet.iq("get", "<vCard xmlns='vcard-temp'/>", romeo.jid)) == "service-unavailable"
    bodies = [message.findtext(f"{CLIENT}body") for message in archived(juliet, open_room)]
    assert f"in {open_room}" in bodies, "what was said in rooms stays, unless that is asked for"
    assert admin(juliet, room, f"jid='{romeo.jid}' affiliation='none'").get("type") == "result", "nothing to take"


def test_what_was_said_in_rooms_goes_where_that_is_asked_for(
    realm: RunningCluster, rooms: tuple[Client, str, str]
) -> None:
    juliet, room, open_room = rooms
    romeo = realm.account("romeo")
    with sign_in(realm, romeo) as client:
        for place in (room, open_room):
            join(client, place, "romeo")
            client.message(place, "his", "groupchat")
            said(juliet, "his")
            juliet.message(place, "hers", "groupchat")
            said(client, "hers")
    done = realm.command("user", "erase", romeo.jid, "--rooms")
    assert done.returncode == 0, done.stderr
    assert ["room_messages", "2"] in [line.split() for line in done.stdout.splitlines()]
    for place in (room, open_room):
        found = archived(juliet, place)
        assert [message.findtext(f"{CLIENT}body") for message in found] == [None, "hers"]
        assert found[0].find(RETRACTED) is not None  # XEP-0424, 5


def test_who_cancels_an_account_is_erased_too(
    realm: RunningCluster, rooms: tuple[Client, str, str], database: psycopg.Connection[tuple[object, ...]]
) -> None:
    """XEP-0077, 3.2."""
    juliet, room, open_room = rooms
    distinct(database)
    romeo = realm.account("romeo")
    key = known(database, romeo.jid)
    live(realm, romeo, juliet, room, open_room)
    with sign_in(realm, romeo, "phone") as client:
        client.send("<iq type='set' id='r'><query xmlns='jabber:iq:register'><remove/></query></iq>")
        # Without stream management a result waits until all that was sent is safe; the end of the stream does not.
        assert client.end() == "not-authorized"
    wait_until(lambda: not set(naming(database, romeo.jid, key)) - OF_OTHERS.keys(), 20, "nothing names it")
    with Client(realm) as stranger:
        stranger.open()
        assert condition(stranger.plain(romeo)) == "not-authorized"


def test_a_name_that_was_erased_is_nobodys_for_a_while(realm: RunningCluster) -> None:
    romeo = realm.account("romeo")
    assert realm.command("user", "erase", romeo.jid).returncode == 0
    with pytest.raises(Refused, match="erased"):
        realm.api.call("POST", "/users", {"jid": romeo.jid, "password": "other"})
    name = romeo.jid.partition("@")[0]
    with Client(realm) as stranger:
        stranger.open()
        wanted = f"<query xmlns='jabber:iq:register'><username>{name}</username><password>x</password></query>"
        assert condition(stranger.iq("set", wanted)) == "conflict"
    given_back = realm.command("user", "add", romeo.jid, "--password", "new", "--reuse")
    assert given_back.returncode == 0, given_back.stderr
    with sign_in(realm, Account(romeo.jid, "new")) as client:
        assert archived(client, None) == []


def test_again_and_for_who_never_was_here(realm: RunningCluster, rooms: tuple[Client, str, str]) -> None:
    """Idempotent; also of a name that has no account, and of another server's user."""
    juliet, room, _ = rooms
    romeo = realm.account("romeo")
    for name in (romeo.jid, romeo.jid, f"never@{realm.domain}"):
        done = realm.command("user", "erase", name)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"{name} erased"), done.stderr
    assert done.stdout == f"never@{realm.domain} erased\n", "there was nothing"
    paris = "paris@verona.example"
    assert admin(juliet, room, f"jid='{paris}' affiliation='member'").get("type") == "result"
    done = realm.command("user", "erase", paris)
    assert done.stdout.split() == ["room_affiliations", "1", paris, "erased"], done
    assert realm.command("user", "erase", room).returncode == 1, "that is no person"


def test_it_is_finished_by_the_next_owner(new_cluster: Callable[..., RunningCluster]) -> None:
    """Every step may be repeated, and the list of what is to be done is in the database."""
    running = new_cluster("--tls", "optional", "--set", "limits.enabled=false")
    romeo, juliet = running.account("romeo"), running.account("juliet")
    with sign_in(running, romeo) as one, sign_in(running, juliet) as other:
        for number in range(200):
            one.message(other.bare, f"m{number}")
        one.ping()
    begun = running.api.call("POST", "/erasures", {"jid": romeo.jid})
    for node in ("router-0", "router-1"):
        running.kill(node)
    running.wait_ready(30)
    give_up_at = deadline(30)
    while not running.api.call("GET", f"/erasures/{begun['id']}")["is_finished"]:
        assert time.monotonic() < give_up_at
        time.sleep(0.2)
    with psycopg.connect(running.facts["database_url"]) as conn:
        ((left,),) = conn.execute("select count(*) from entities where jid = %s", (romeo.jid,)).fetchall()
        assert left == 0
