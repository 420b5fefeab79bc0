"""slidge, a gateway that others wrote, as a component of ours (XEP-0114) with the privileges it asks for (XEP-0356)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.peers.slixmpp_client import Contact, Slixmpp
from tests.support.cluster import Account, RunningCluster, start_cluster
from tests.support.peers.peers import running_peers
from tests.support.peers.slidge import Slidge

JID: Final = "slidge.localhost"
SECRET: Final = "0123456789abcdef"
TEXT: Final = "Wherefore <art> thou? & 薔薇"
PUBSUB: Final = "http://jabber.org/protocol/pubsub"
PRIVILEGES: Final[dict[str, Any]] = {
    "roster": "both",
    "message": "outgoing",
    "presence": "managed_entity",
    "iq": {PUBSUB: "both", f"{PUBSUB}#owner": "set"},
}


@pytest.fixture(scope="module")
def stentor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Two routers, two c2s, and who listens for components."""
    components = {JID: {"secret": SECRET, "privileges": PRIVILEGES}}
    cluster = start_cluster(
        tmp_path_factory.mktemp("stentor"), "--tls", "optional", "--set", "limits.enabled=false",
        "--set", f"components.domains={json.dumps(components)}",
    )  # fmt: skip
    yield cluster
    assert cluster.stop() == 0


@pytest.fixture(scope="module")
def slidge(stentor: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slidge]:
    """Connected, and it knows what it may do."""
    with running_peers(tmp_path_factory.mktemp("peers")) as peers:
        slidge = peers.slidge(JID, SECRET, stentor.host, int(stentor.facts["ports"]["component"]))
        yield slidge


@pytest.fixture
def account(stentor: RunningCluster) -> Account:
    """A user."""
    return stentor.account("romeo")


def register(client: Slixmpp, slidge: Slidge) -> None:
    """Sign up at the gateway, and have its friend."""
    client.register_with(JID)
    client.push(slidge.friend, "both")
    client.presence(slidge.friend)


def test_who_registers_has_the_gateway_and_a_friend_in_the_roster(
    stentor: RunningCluster, slidge: Slidge, account: Account
) -> None:
    with Slixmpp(stentor, account, befriends=True) as romeo:
        register(romeo, slidge)
        roster = romeo.roster()
        assert roster[JID] == Contact("both", "Echo network", ("Slidge",), is_asked=False)
        assert roster[slidge.friend].subscription == "both"
        assert roster[slidge.friend].name == "A friend"


def test_a_chat_and_its_echo(stentor: RunningCluster, slidge: Slidge, account: Account) -> None:
    with Slixmpp(stentor, account, befriends=True) as romeo:
        register(romeo, slidge)
        for text in (TEXT, "and again"):
            romeo.message(slidge.friend, text)
            assert romeo.body(slidge.friend) == text


def test_what_was_written_elsewhere_is_on_every_device_and_in_the_archive(
    stentor: RunningCluster, slidge: Slidge, account: Account
) -> None:
    with Slixmpp(stentor, account, befriends=True) as romeo, Slixmpp(stentor, account) as phone:
        register(romeo, slidge)
        for device in (romeo, phone):
            device.enable_carbons()
        romeo.message(slidge.friend, f"elsewhere: {TEXT}")
        for device in (romeo, phone):
            copy = device.carbons.take(lambda carbon: carbon.body == TEXT)
            assert (copy.direction, copy.from_, copy.to) == ("sent", account.jid, slidge.friend)
            assert copy.archive_id
        kept = romeo.archive()
        assert [message.body for message in kept if message.from_ == account.jid][-1] == TEXT
        romeo.message(slidge.friend, "still there?")
        assert romeo.body(slidge.friend) == "still there?", "it did not take its own words for the user's"


def test_the_friend_is_there_again_after_a_new_login(stentor: RunningCluster, slidge: Slidge, account: Account) -> None:
    with Slixmpp(stentor, account, befriends=True) as romeo:
        register(romeo, slidge)
    with Slixmpp(stentor, account, befriends=True) as romeo:
        romeo.presence(slidge.friend)
        romeo.message(slidge.friend, TEXT)
        assert romeo.body(slidge.friend) == TEXT
        assert all(message.error == "" for message in romeo.messages.left())
