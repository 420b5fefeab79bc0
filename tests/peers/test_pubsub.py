"""Nodes, pictures, bookmarks and what rides on them, by the libraries of clients: slixmpp, nbxmpp, @xmpp/client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from hashlib import sha1
from typing import Any

import pytest
from slixmpp.plugins.xep_0118.stanza import UserTune

from tests.peers.common import Inbox, apart
from tests.peers.persons import Nbxmpp, XmppJs
from tests.peers.slixmpp_client import Refused, Slixmpp, befriend
from tests.support.cluster import RunningCluster

TUNE = "http://jabber.org/protocol/tune"
PUBSUB = "http://jabber.org/protocol/pubsub"
PICTURE = b"\x89PNG a picture"
HASH = sha1(PICTURE, usedforsecurity=False).hexdigest()


@pytest.fixture
def pair(cluster: RunningCluster) -> Iterator[tuple[Slixmpp, Slixmpp]]:
    romeo, juliet = apart(cluster, lambda a: Slixmpp(cluster, a), lambda a: Slixmpp(cluster, a))
    with romeo, juliet:
        yield romeo, juliet


def test_slixmpp_tells_its_contacts_what_it_hears(pair: tuple[Slixmpp, Slixmpp]) -> None:
    """XEP-0118 by XEP-0163, with slixmpp's own capabilities (XEP-0115)."""
    romeo, juliet = pair
    befriend(romeo, juliet)
    heard: Inbox[str] = Inbox("tune")
    romeo.on_event("user_tune_publish", heard, lambda m: m["pubsub_event"]["items"]["item"]["tune"]["title"])
    romeo.wants("xep_0118")
    juliet.plugin("xep_0118", lambda p: p.publish_tune(artist="Gerald Finzi", title="Introduction"))
    assert heard.take() == "Introduction"


def test_slixmpp_sets_a_picture_that_is_in_the_vcard(pair: tuple[Slixmpp, Slixmpp]) -> None:
    romeo, juliet = pair
    befriend(romeo, juliet)
    juliet.plugin("xep_0084", lambda p: p.publish_avatar(PICTURE))
    info = {"id": HASH, "type": "image/png", "bytes": len(PICTURE)}
    juliet.plugin("xep_0084", lambda p: p.publish_avatar_metadata([info]))
    data = romeo.plugin("xep_0084", lambda p: p.retrieve_avatar(juliet.bare, HASH))
    assert data["pubsub"]["items"]["item"]["avatar_data"]["value"] == PICTURE
    card = romeo.plugin("xep_0054", lambda p: p.get_vcard(juliet.bare))
    assert card["vcard_temp"]["PHOTO"]["BINVAL"] == PICTURE


def test_slixmpp_uses_a_service(cluster: RunningCluster, pair: tuple[Slixmpp, Slixmpp]) -> None:
    """XEP-0060: make, configure, subscribe, publish, read, take back, delete."""
    romeo, juliet = pair
    service, node = f"pubsub.{cluster.domain}", f"news of {juliet.bare}"
    heard: Inbox[str] = Inbox("event")
    romeo.on_event("pubsub_publish", heard, lambda m: m["pubsub_event"]["items"]["item"]["id"])
    retracted: Inbox[str] = Inbox("retraction")
    romeo.on_event("pubsub_retract", retracted, lambda m: m["pubsub_event"]["items"]["retract"]["id"])
    juliet.plugin("xep_0060", lambda p: p.create_node(service, node))
    config = juliet.plugin("xep_0060", lambda p: p.get_node_config(service, node))["pubsub_owner"]["configure"]["form"]
    assert config.get_values()["pubsub#access_model"] == "open"
    answer = romeo.plugin("xep_0060", lambda p: p.subscribe(service, node))
    assert answer["pubsub"]["subscription"]["subscription"] == "subscribed"
    for id_ in ("one", "two"):
        juliet.plugin("xep_0060", lambda p, i=id_: p.publish(service, node, id=i, payload=_payload()))  # type: ignore[misc]
        assert heard.take() == id_
    found = romeo.plugin("xep_0060", lambda p: p.get_items(service, node))["pubsub"]["items"]
    assert [item["id"] for item in found] == ["one", "two"]
    juliet.plugin("xep_0060", lambda p: p.retract(service, node, "one", notify=True))
    assert retracted.take() == "one"
    with pytest.raises(Refused) as refused:
        romeo.plugin("xep_0060", lambda p: p.delete_node(service, node))
    assert refused.value.condition == "forbidden"
    juliet.plugin("xep_0060", lambda p: p.delete_node(service, node))
    with pytest.raises(Refused) as refused:
        romeo.plugin("xep_0060", lambda p: p.get_items(service, node))
    assert refused.value.condition == "item-not-found"


def _payload() -> Any:
    from xml.etree import ElementTree

    return ElementTree.fromstring("<entry xmlns='http://www.w3.org/2005/Atom'><title>x</title></entry>")


def test_slixmpp_keeps_private_data(pair: tuple[Slixmpp, Slixmpp]) -> None:
    """XEP-0223."""
    romeo, juliet = pair
    befriend(romeo, juliet)
    node, tune = "urn:test:private", UserTune()
    tune["title"] = "private"
    juliet.plugin("xep_0223", lambda p: p.store(tune, node=node, id="current"))
    found = juliet.plugin("xep_0223", lambda p: p.retrieve(node))["pubsub"]["items"]
    assert [(item["id"], item["payload"].tag) for item in found] == [("current", f"{{{TUNE}}}tune")]
    with pytest.raises(Refused) as refused:
        romeo.plugin("xep_0060", lambda p: p.get_items(juliet.bare, node))
    assert refused.value.condition == "not-allowed"


def test_gajims_library(cluster: RunningCluster) -> None:
    """What it publishes it is told of, by its own capabilities; devices for OMEMO; bookmarks in three ways."""
    account = cluster.account()
    with Nbxmpp(cluster, account) as person, Slixmpp(cluster, cluster.account()) as juliet:
        person.ask("presence", "Gajim", [f"{TUNE}+notify", "urn:xmpp:bookmarks:1+notify"])
        person.ask("tune", "Gerald Finzi", "Introduction")
        assert "Introduction" in person.event(TUNE)["data"]
        person.ask("set devices", [12345, 4223])
        assert "12345" in str(person.ask("devices", account.jid))
        room = f"verona@conference.{cluster.domain}"
        person.ask("bookmark", room, "Verona")
        assert "verona" in person.event("urn:xmpp:bookmarks:1")["data"]
        for way in ("bookmarks", "old bookmarks", "pep bookmarks"):
            assert person.ask(way) == [[room, "Verona", True, None]]
        devices = "eu.siacs.conversations.axolotl.devicelist"
        found = juliet.plugin("xep_0060", lambda p: p.get_items(account.jid, devices))["pubsub"]["items"]
        assert len(list(found)) == 1, "nbxmpp makes it open"


def test_javascripts_library(cluster: RunningCluster) -> None:
    with XmppJs(cluster, cluster.account()) as person, Slixmpp(cluster, cluster.account()) as juliet:
        service, node = f"pubsub.{cluster.domain}", f"notes of {juliet.bare}"
        juliet.plugin("xep_0060", lambda p: p.create_node(service, node))
        bare = person.jid.partition("/")[0]
        subscribe = f"<pubsub xmlns='{PUBSUB}'><subscribe node='{node}' jid='{bare}'/></pubsub>"
        assert "subscribed" in person.iq("set", subscribe, service)
        juliet.plugin("xep_0060", lambda p: p.publish(service, node, id="one", payload=_payload()))
        assert 'id="one"' in person.wait("http://www.w3.org/2005/Atom")
        items = f"<pubsub xmlns='{PUBSUB}'><items node='{node}'/></pubsub>"
        assert 'id="one"' in person.iq("get", items, service)
        publish = f"<pubsub xmlns='{PUBSUB}'><publish node='{node}'><item><x xmlns='urn:x'/></item></publish></pubsub>"
        assert person.iq("set", publish, service) == {"condition": "forbidden"}


def test_slixmpp_sends_a_file_through_the_proxy(pair: tuple[Slixmpp, Slixmpp]) -> None:
    """XEP-0065, 6, as slixmpp finds the proxy and speaks to it."""
    romeo, juliet = pair
    got: Inbox[bytes] = Inbox("piece")
    juliet.on_event("socks5_data", got, lambda data: data)
    juliet.plugin("xep_0065", _accept_all)
    proxies = romeo.plugin("xep_0065", lambda p: p.discover_proxies())
    assert [str(jid) for jid in proxies] == [f"proxy.{romeo.bare.partition('@')[2]}"]
    romeo.plugin("xep_0065", lambda p: _send_by(p, juliet.jid, b"a file"))
    assert got.take() == b"a file"
    for client in (romeo, juliet):
        client.plugin("xep_0065", _hang_up)


async def _accept_all(plugin: Any) -> None:
    plugin.auto_accept = True


async def _hang_up(plugin: Any) -> None:
    for connection in plugin._sessions.values():  # its own close() calls what its protocol does not have
        connection.transport.close()
    plugin._sessions.clear()
    await asyncio.sleep(0)


async def _send_by(plugin: Any, jid: str, data: bytes) -> None:
    stream = await plugin.handshake(jid)
    stream.transport.write(data)
