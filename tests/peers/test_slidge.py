"""Components that others wrote, with privileges (XEP-0356): slidge, a gateway, and slixmpp, a library, for what slidge
does not use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.peers.common import apart
from tests.peers.slixmpp_client import Contact, Refused, Slixmpp
from tests.peers.slixmpp_component import SlixmppComponent
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


TOOL: Final = "tool.localhost"
TOOL_MAY: Final[dict[str, Any]] = {**PRIVILEGES, "iq": {"vcard-temp": "get"}}


@pytest.fixture(scope="module")
def stentor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Two routers, two c2s, and who listens for components."""
    components = {
        JID: {"secret": SECRET, "privileges": PRIVILEGES},
        TOOL: {"secret": SECRET, "privileges": TOOL_MAY},
    }
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


# --- what slidge does not use


@pytest.fixture
def tool(stentor: RunningCluster) -> SlixmppComponent:
    """Not connected yet."""
    return SlixmppComponent(TOOL, SECRET, stentor.host, int(stentor.facts["ports"]["component"]))


def came_or_went(tool: SlixmppComponent, jid: str) -> str:
    """The next presence of somebody that the tool gets."""
    return tool.presences.take(lambda presence: presence.from_ == jid).type


def test_a_component_knows_what_it_may_do(tool: SlixmppComponent) -> None:
    with tool:
        granted = tool.granted("localhost")
        assert (granted.roster, granted.message, granted.presence) == ("both", "outgoing", "managed_entity")
        assert dict(granted.iq) == {"vcard-temp": "get"}


def test_a_component_sees_who_was_there_before_it_on_every_router_and_who_comes_and_goes(
    stentor: RunningCluster, tool: SlixmppComponent
) -> None:
    romeo, juliet = apart(stentor, lambda a: Slixmpp(stentor, a), lambda a: Slixmpp(stentor, a))
    with romeo, juliet:
        with tool:
            for client in (romeo, juliet):
                assert came_or_went(tool, client.jid) == "available"
            nurse = Slixmpp(stentor, stentor.account("nurse"))
            with nurse:
                assert came_or_went(tool, nurse.jid) == "available"
            assert came_or_went(tool, nurse.jid) == "unavailable"
        with Slixmpp(stentor, stentor.account("friar")) as friar:
            friar.ping(friar.bare)
            assert [p.type for p in friar.presences.left() if p.type == "error"] == [], "the tool is away"


def test_a_component_reads_and_writes_rosters(
    stentor: RunningCluster, tool: SlixmppComponent, account: Account
) -> None:
    with tool, Slixmpp(stentor, account) as romeo:
        romeo.roster()
        tool.set_roster(account.jid, {f"a@{TOOL}": {"name": "A", "subscription": "to"}, f"b@{TOOL}": {"name": "B"}})
        assert romeo.push(f"a@{TOOL}") == Contact("to", "A", (), is_asked=False)
        assert romeo.push(f"b@{TOOL}") == Contact("none", "B", (), is_asked=False)
        assert tool.roster(account.jid) == {f"a@{TOOL}": "to", f"b@{TOOL}": "none"}
        # COMPAT: slixmpp 1.17 does not find the conditions of errors that are of a component's namespace.
        with pytest.raises(Refused):
            tool.set_roster(account.jid, {account.jid: {"subscription": "both"}})
        assert set(tool.roster(account.jid)) == {f"a@{TOOL}", f"b@{TOOL}"}


def test_a_component_writes_as_a_user_to_another(stentor: RunningCluster, tool: SlixmppComponent) -> None:
    romeo, juliet = apart(stentor, lambda a: Slixmpp(stentor, a), lambda a: Slixmpp(stentor, a))
    with romeo, juliet, tool:
        romeo.enable_carbons()
        for body in (TEXT, "and again"):
            tool.say_as(romeo.bare, juliet.bare, body)
            assert juliet.body(romeo.bare) == body
            assert romeo.carbons.take().body == body


def test_a_component_asks_as_a_user(stentor: RunningCluster, tool: SlixmppComponent, account: Account) -> None:
    with tool, Slixmpp(stentor, account) as romeo, Slixmpp(stentor, stentor.account("juliet")) as juliet:
        for client, name in ((romeo, "Romeo M."), (juliet, "Juliet C.")):
            client.publish_vcard(name, name)
            assert tool.vcard_as(romeo.bare, client.bare) == name
        with pytest.raises(Refused, match="service-unavailable"):
            tool.vcard_as(romeo.bare, "nobody-at-all@localhost")
