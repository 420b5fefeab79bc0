"""Nodes and push services while processes die: what was acknowledged as published is there, once, and who wants it
hears of it; a device that is away is told."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import pytest

from tests.support.client import CLIENT, Client, condition, place, sign_in, sign_in_apart
from tests.support.cluster import RunningCluster, wait_until
from tests.support.faults import IS_LONG, SEED, Site
from tests.support.nodes import EVENT, PUBSUB, become_friends, items, options, publish, say_what_it_wants

ITEMS = 200 if IS_LONG else 40
PAYLOAD = "<tune xmlns='http://jabber.org/protocol/tune'><title>{}</title></tune>"
PUSH = "urn:xmpp:push:0"


@pytest.fixture
def couple(site: Site) -> Iterator[tuple[Client, Client]]:
    """Romeo and Juliet, friends, whose routers are not the same."""
    romeo, juliet = sign_in_apart(site.cluster, other_c2s=True, other_router=True)
    with romeo, juliet:
        become_friends(romeo, juliet)
        yield romeo, juliet


def archived(client: Client, service: str, node: str) -> list[str]:
    """The ids of everything that was ever published, page by page."""
    found: list[str] = []
    after = ""
    while True:
        set_ = f"<set xmlns='http://jabber.org/protocol/rsm'><max>50</max>{after}</set>"
        answer = client.iq("set", f"<query xmlns='urn:xmpp:mam:2' node='{node}'>{set_}</query>", service)
        assert answer.get("type") == "result", condition(answer)
        results = [e for e in client._waiting if e.find("{urn:xmpp:mam:2}result") is not None]
        client._waiting = [e for e in client._waiting if e not in results]
        found += [item.get("id") or "" for e in results for item in e.iter(f"{EVENT}item")]
        if answer[0].get("complete") == "true":
            return found
        after = f"<after>{results[-1][0].get('id')}</after>"


def heard(client: Client, node: str) -> list[str]:
    """The ids of the notifications that have come."""
    client.ping()
    events = [e.find(f"{EVENT}event") for e in client._waiting]
    return [event[0][0].get("id") or "" for event in events if event is not None and event[0].get("node") == node]


def wait_told(clients: Iterable[Client], node: str, id_: str) -> None:
    """Until each has heard of the last item."""
    for client in clients:
        wait_until(lambda c=client: heard(c, node)[-1:] == [id_], 20, f"{client.jid} is told of {id_}")  # type: ignore[misc]


def publish_while_dying(
    cluster: RunningCluster, juliet: Client, node: str, victims: list[str], to: str | None, more: str,
    listeners: Iterable[Client],
) -> list[str]:  # fmt: skip
    """Publish item after item, each when the one before is acknowledged, while these processes are killed, one after
    the other: each when all listeners have got over the death before. Every item is acknowledged."""
    rng = random.Random(SEED)
    ids = [str(number) for number in range(ITEMS)]
    moments = dict(zip(sorted(rng.sample(range(2, ITEMS - 5), len(victims))), victims, strict=True))
    killed: list[tuple[str, int]] = []
    for number, id_ in enumerate(ids):
        if number in moments:
            for node_, pid in killed:  # two that die together are another matter (docs/delivery.md, §8)
                cluster.wait_restarted(node_, pid)
            cluster.wait_ready()
            wait_told(listeners, node, ids[number - 1])
            killed.append((moments[number], cluster.kill(moments[number])))
        answer = publish(juliet, node, id_, PAYLOAD.format(id_), to, more)
        assert answer.get("type") == "result", condition(answer)
    cluster.wait_ready()
    return ids


def test_what_a_person_publishes_outlives_their_router(site: Site, couple: tuple[Client, Client]) -> None:
    """And the contact's: notifications are on their way until it has them, and a new owner finds out what clients
    want."""
    romeo, juliet = couple
    cluster, node = site.cluster, f"urn:test:{juliet.bare}"
    name = say_what_it_wants(romeo, node)
    say_what_it_wants(juliet, node, name=name)
    routers = [place(cluster, juliet)[1], place(cluster, romeo)[1]]
    more = options(max_items="max")
    ids = publish_while_dying(cluster, juliet, node, routers, None, more, (romeo, juliet))
    assert list(items(juliet, node)) == ids
    assert list(items(romeo, node, juliet.bare)) == ids
    wait_told((romeo, juliet), node, ids[-1])
    for client in (romeo, juliet):
        told = list(dict.fromkeys(heard(client, node)))
        assert told == sorted(told, key=int), "each after those before it"
        # What a router has accepted and not yet given to its c2s goes with it (docs/delivery.md, rule 22).
        assert len(set(ids).difference(told)) <= 1, sorted(set(ids).difference(told), key=int)


def test_what_a_service_has_outlives_its_owner(site: Site, couple: tuple[Client, Client]) -> None:
    romeo, juliet = couple
    cluster = site.cluster
    service, node = f"pubsub.{cluster.domain}", f"news of {juliet.bare}"
    made = juliet.iq("set", f"<pubsub xmlns='{PUBSUB}'><create node='{node}'/></pubsub>", service)
    assert made.get("type") == "result"
    subscribe = f"<pubsub xmlns='{PUBSUB}'><subscribe node='{node}' jid='{romeo.bare}'/></pubsub>"
    assert romeo.iq("set", subscribe, service).get("type") == "result"
    ids = publish_while_dying(cluster, juliet, node, ["router-0", "router-1"], service, "", (romeo,))
    kept = list(items(romeo, node, service))
    assert kept == ids[-100:]
    assert archived(romeo, service, node) == ids, "once each, also what was carried out again"
    wait_told((romeo,), node, ids[-1])
    told = list(dict.fromkeys(heard(romeo, node)))
    assert told == sorted(told, key=int)
    assert len(set(ids).difference(told)) <= 1, sorted(set(ids).difference(told), key=int)


def test_a_device_is_told_by_the_next_owner(site: Site) -> None:
    """Services are durable; what was sent while nobody owned the account is told, too."""
    cluster = site.cluster
    juliet, service = sign_in_apart(cluster, other_c2s=True, other_router=True)
    with juliet, service, sign_in(cluster, cluster.account()) as other:
        router = place(cluster, juliet)[1]
        enabled = juliet.iq("set", f"<enable xmlns='{PUSH}' jid='{service.jid}' node='n1'/>")
        assert enabled.get("type") == "result"
        juliet.send("</stream:stream>")
        juliet.end()
        romeo = service if place(cluster, other)[1] == router else other
        pid = cluster.kill(router)
        romeo.message(juliet.bare, "hello?")
        told = service.expect(lambda e: e.find(f".//{{{PUSH}}}notification") is not None, 20)
        assert told.get("from") == juliet.bare
        assert told.tag == f"{CLIENT}iq"
        service.send(f"<iq type='result' to='{juliet.bare}' id='{told.get('id')}'/>")
        cluster.wait_restarted(router, pid)
