"""IRC through biboumi, a component that other people wrote (XEP-0114), and ngircd."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

import pytest

from tests.peers.slixmpp_client import Slixmpp
from tests.support.cluster import RunningCluster
from tests.support.peers.irc import IrcClient
from tests.support.peers.peers import Peers

SECRET: Final = "s3cret-of-irc"
IRC: Final = "irc.localhost"
TEXT: Final = "Wherefore <art> thou? & 薔薇"


@pytest.fixture
def cluster(new_cluster: Callable[..., RunningCluster]) -> RunningCluster:
    """A cluster with a place for the gateway."""
    components = json.dumps({IRC: {"secret": SECRET}})
    return new_cluster("--set", f"components.domains={components}", "--set", "limits.enabled=false")


def test_a_channel_is_a_room(cluster: RunningCluster, peers: Peers) -> None:
    ngircd = peers.ngircd()
    biboumi = peers.biboumi(IRC, SECRET, "127.0.0.1", cluster.facts["ports"]["component"])
    room = biboumi.room("#verona", ngircd)
    with IrcClient(ngircd, "mercutio") as mercutio, Slixmpp(cluster, cluster.account("romeo")) as romeo:
        assert IRC in romeo.items(cluster.domain), "service discovery names it"
        assert ("conference", "irc") in romeo.info(IRC)[0]
        mercutio.join("#verona")
        romeo.join(room, "romeo")
        mercutio.expect("JOIN", "romeo")
        romeo.occupant(f"{room}/mercutio")
        mercutio.say("#verona", TEXT)
        assert romeo.body(f"{room}/mercutio") == TEXT
        romeo.say(room, TEXT)
        assert mercutio.expect("PRIVMSG", "romeo").parameters == ("#verona", TEXT)
        romeo.message(biboumi.user("mercutio", ngircd), "psst")
        assert mercutio.expect("PRIVMSG", "romeo").parameters == ("mercutio", "psst")
        romeo.leave(room, "romeo")
        mercutio.expect("PART", "romeo")
    shown = cluster.command("s2s", "list").stdout
    assert f"{IRC}  component  1 streams" in shown


def test_a_gateway_with_a_wrong_secret_stays_outside(cluster: RunningCluster, peers: Peers) -> None:
    with pytest.raises(RuntimeError, match="The handshake does not match the secret"):
        peers.biboumi(IRC, "not the secret", "127.0.0.1", cluster.facts["ports"]["component"])
    assert "and that of the component to the same text" in cluster.log("s2s-0"), "the remedy"
    with Slixmpp(cluster, cluster.account("romeo")) as romeo:
        romeo.message(f"mercutio@{IRC}", TEXT)
        assert romeo.messages.take().error == "service-unavailable"
