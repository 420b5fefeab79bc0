"""Nodes of accounts and services (XEP-0060, XEP-0163) in a real cluster of two c2s and two routers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.support.client import Client, Element, condition, sign_in, sign_in_apart
from tests.support.cluster import RunningCluster
from tests.support.nodes import (
    EVENT,
    PUBSUB,
    become_friends,
    event,
    heard_events,
    is_asked,
    items,
    options,
    publish,
    say_what_it_wants,
)

TUNE = "http://jabber.org/protocol/tune"
PAYLOAD = f"<tune xmlns='{TUNE}'><title>{{}}</title></tune>"


@pytest.fixture
def pair(cluster: RunningCluster) -> Iterator[tuple[Client, Client]]:
    romeo, juliet = sign_in_apart(cluster, other_c2s=True, other_router=True)
    with romeo, juliet:
        yield romeo, juliet


def ids(told: Element) -> list[str]:
    return [item.get("id") or "" for item in told]


def test_friends_are_told_of_what_they_want(cluster: RunningCluster, pair: tuple[Client, Client]) -> None:
    romeo, juliet = pair
    become_friends(romeo, juliet)
    node = f"urn:test:{uuid.uuid4()}"
    for client in pair:
        say_what_it_wants(client, node)
    assert publish(juliet, node, "one", PAYLOAD.format("Verse")).get("type") == "result"
    for client in pair:
        told = event(client, node)
        assert ids(told) == ["one"]
        assert told[0].findtext(f"{{{TUNE}}}tune/{{{TUNE}}}title") == "Verse"
    assert list(items(romeo, node, juliet.bare)) == ["one"]
    publish(juliet, f"{node}:other", "one", PAYLOAD.format("x"))
    assert heard_events(romeo) == []


def test_a_client_that_comes_gets_the_newest_items(cluster: RunningCluster) -> None:
    account = cluster.account()
    with sign_in(cluster, account) as romeo, sign_in(cluster, cluster.account()) as juliet:
        become_friends(romeo, juliet)
        node = f"urn:test:{uuid.uuid4()}"
        for id_ in ("one", "two"):
            publish(juliet, node, id_, PAYLOAD.format(id_))
        say_what_it_wants(romeo, node)
        assert ids(event(romeo, node)) == ["two"]
    with sign_in(cluster, account) as romeo:
        say_what_it_wants(romeo, node)
        assert ids(event(romeo, node)) == ["two"]


def test_what_a_client_wants_is_known_to_the_whole_cluster(
    cluster: RunningCluster, pair: tuple[Client, Client]
) -> None:
    """Of two clients with the same capabilities, at different routers, one is asked."""
    romeo, juliet = pair
    node = f"urn:test:{uuid.uuid4()}"
    publish(juliet, node, "one", PAYLOAD.format("x"))
    name = say_what_it_wants(romeo, node)
    publish(romeo, node, "one", PAYLOAD.format("x"))
    assert ids(event(romeo, node)) == ["one"]
    say_what_it_wants(juliet, node, name=name)
    assert ids(event(juliet, node)) == ["one"]
    assert not is_asked(juliet)


def test_strangers_read_what_is_open(pair: tuple[Client, Client]) -> None:
    """As OMEMO has it (XEP-0384, 5.3): who has never been there finds out about devices and keys."""
    romeo, juliet = pair
    devices, bundles = "urn:xmpp:omemo:2:devices", "urn:xmpp:omemo:2:bundles"
    payload = "<devices xmlns='urn:xmpp:omemo:2'><device id='12345'/></devices>"
    assert publish(juliet, devices, "current", payload, None, options(access_model="open")).get("type") == "result"
    for id_ in ("12345", "4223"):
        bundle = f"<bundle xmlns='urn:xmpp:omemo:2'><spk id='0'>{'x' * 5_000}</spk></bundle>"
        more = options(access_model="open", max_items="max")
        assert publish(juliet, bundles, id_, bundle, None, more).get("type") == "result"
    assert list(items(romeo, devices, juliet.bare)) == ["current"]
    assert list(items(romeo, bundles, juliet.bare)) == ["12345", "4223"]
    old = "eu.siacs.conversations.axolotl"
    publish(juliet, f"{old}.devicelist", "current", f"<list xmlns='{old}'><device id='5'/></list>")
    answer = romeo.iq("get", f"<pubsub xmlns='{PUBSUB}'><items node='{old}.devicelist'/></pubsub>", juliet.bare)
    assert condition(answer) == "not-authorized"
    juliet.socket.close()
    assert list(items(romeo, bundles, juliet.bare)) == ["12345", "4223"], "whether she is there or not"


def test_private_data_stay_private(pair: tuple[Client, Client]) -> None:
    """XEP-0223."""
    romeo, juliet = pair
    become_friends(romeo, juliet)
    node = f"urn:test:{uuid.uuid4()}"
    say_what_it_wants(romeo, node)
    publish(juliet, node, "current", PAYLOAD.format("x"), None, options(persist_items="true", access_model="whitelist"))
    refused = romeo.iq("get", f"<pubsub xmlns='{PUBSUB}'><items node='{node}'/></pubsub>", juliet.bare)
    assert condition(refused) == "not-allowed"
    assert heard_events(romeo) == []
    assert list(items(juliet, node)) == ["current"]


def test_a_service_for_everybody(cluster: RunningCluster, pair: tuple[Client, Client]) -> None:
    romeo, juliet = pair
    service, node = f"pubsub.{cluster.domain}", f"news-{uuid.uuid4()}"
    made = juliet.iq("set", f"<pubsub xmlns='{PUBSUB}'><create node='{node}'/></pubsub>", service)
    assert made.get("type") == "result"
    subscribed = romeo.iq(
        "set", f"<pubsub xmlns='{PUBSUB}'><subscribe node='{node}' jid='{romeo.bare}'/></pubsub>", service
    )
    assert subscribed.get("type") == "result"
    for id_ in ("one", "two"):
        assert publish(juliet, node, id_, PAYLOAD.format(id_), service).get("type") == "result"
        assert ids(event(romeo, node)) == [id_]
    assert list(items(romeo, node, service)) == ["one", "two"]
    archived = romeo.iq("set", f"<query xmlns='urn:xmpp:mam:2' node='{node}'/>", service)
    assert archived.get("type") == "result"
    results = [e for e in romeo._waiting if e.find("{urn:xmpp:mam:2}result") is not None]
    assert [item.get("id") for e in results for item in e.iter(f"{EVENT}item")] == ["one", "two"]
    deleted = juliet.iq("set", f"<pubsub xmlns='{PUBSUB}#owner'><delete node='{node}'/></pubsub>", service)
    assert deleted.get("type") == "result"
    assert event(romeo, node).tag == f"{EVENT}delete"


def test_nodes_go_with_their_account(cluster: RunningCluster) -> None:
    account = cluster.account()
    with sign_in(cluster, account) as romeo:
        publish(romeo, TUNE, "one", PAYLOAD.format("x"), None, options(access_model="open"))
        assert list(items(romeo, TUNE)) == ["one"]
        romeo.send("<iq type='set' id='remove'><query xmlns='jabber:iq:register'><remove/></query></iq>")
        romeo.end()
    with sign_in(cluster, cluster.account()) as juliet:
        answer = juliet.iq("get", f"<pubsub xmlns='{PUBSUB}'><items node='{TUNE}'/></pubsub>", account.jid)
        assert condition(answer) == "service-unavailable"
