"""A blocklist that a Prosody publishes, and a cluster that goes by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.peers.common import Inbox
from tests.peers.slixmpp_client import Slixmpp, befriend
from tests.peers.test_federation import Stentor, as_server, start_stentor
from tests.support.cluster import FACTOR, RunningCluster, wait_until
from tests.support.peers.peers import running_peers
from tests.support.peers.prosody import Prosody

SERVICE, NODE = "pubsub.lists.example", "bans"
LIST = f"{SERVICE}/{NODE}"
WAIT_S = 20 * FACTOR


def hashed(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def _payload() -> ElementTree.Element:
    return ElementTree.Element("{urn:xmpp:reporting:1}report", reason="urn:xmpp:reporting:spam")


def _condition(stanza: Any) -> str:
    """slixmpp's own list has no policy-violation."""
    found: str = stanza.find("{jabber:client}error")[0].tag.partition("}")[2]
    return found


async def _knock(muc: Any, room: str) -> None:
    presence = muc.xmpp.make_presence(pto=f"{room}/mallory")
    presence.enable("muc_join")
    presence.send()


@dataclass(frozen=True, slots=True)
class World:
    """The list's server, who keeps the list, and a cluster of two routers that follows it."""

    prosody: Prosody
    keeper: Slixmpp
    cluster: RunningCluster

    @property
    def ours(self) -> Stentor:
        """For clients."""
        return as_server(self.cluster, "st.example")

    def put(self, entry: str) -> None:
        """On the list."""
        self.keeper.plugin("xep_0060", lambda p: p.publish(SERVICE, NODE, id=entry, payload=_payload()))

    def take(self, entry: str) -> None:
        """From the list."""
        self.keeper.plugin("xep_0060", lambda p: p.retract(SERVICE, NODE, entry, notify=True))

    def wait_listed(self, jid: str, *, is_listed: bool = True) -> None:
        """Until every router says so: commands ask any of them."""
        told = f"rooms     {LIST if is_listed else '-'}\nstrangers {LIST if is_listed else '-'}\n"
        in_a_row = [0]

        def is_told() -> bool:
            in_a_row[0] = in_a_row[0] + 1 if self.cluster.command("blocklist", "check", jid).stdout == told else 0
            return in_a_row[0] >= 4

        wait_until(is_told, WAIT_S, f"{jid} is on the list: {is_listed}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("blocklists")
    with running_peers(directory / "peers") as peers:
        prosody = peers.prosody("lists.example", secure=True, without=frozenset({"dialback"}), publishing=True)
        with Slixmpp(prosody, prosody.make_admin()) as keeper:
            keeper.plugin("xep_0060", lambda p: p.create_node(SERVICE, NODE))
            known = hashed("known@spam.example")
            keeper.plugin("xep_0060", lambda p: p.publish(SERVICE, NODE, id=known, payload=_payload()))
            chosen = json.dumps([{"service": SERVICE, "node": NODE}])
            cluster = start_stentor(
                peers, directory / "cluster", "--router", "2", "--set", f"abuse.blocklists={chosen}", st_example=False
            )
            yield World(prosody, keeper, cluster)
            assert cluster.stop() == 0


def test_what_was_on_the_list_before_and_what_comes_on_it_counts_everywhere(world: World) -> None:
    """XEP-0060, 6.5 and 7.1.2.1; and 7.2.2.1 when it is taken off."""
    world.wait_listed("known@spam.example")
    shown = world.cluster.command("blocklist", "list").stdout
    assert shown.startswith(f"{SERVICE}  {NODE}  rooms,strangers  1 entries  2")
    world.put(hashed("new@spam.example"))
    world.put("spammers.example")
    world.wait_listed("new@spam.example")
    world.wait_listed("anybody@spammers.example")
    world.take("spammers.example")
    world.wait_listed("anybody@spammers.example", is_listed=False)


def test_who_is_on_it_is_refused_but_by_friends(world: World) -> None:
    ours, theirs = world.ours, world.prosody
    with (
        Slixmpp(ours, ours.account("romeo")) as romeo,
        Slixmpp(ours, ours.account("juliet")) as juliet,
        Slixmpp(theirs, theirs.account("mallory")) as mallory,
    ):
        befriend(romeo, mallory)
        room = f"hall@conference.{ours.domain}"
        juliet.join(room, "juliet")
        juliet.open_room(room)
        errors: Inbox[str] = Inbox("error")
        for event in ("message_error", "presence_error"):
            mallory.on_event(event, errors, lambda m: _condition(m.xml))
        world.put(hashed(mallory.bare))
        world.wait_listed(mallory.bare)
        mallory.plugin("xep_0045", lambda p: _knock(p, room))
        assert errors.take() == "forbidden"
        mallory.message(juliet.bare, "buy this")
        assert errors.take() == "policy-violation"
        mallory.message(romeo.bare, "are you there?")
        assert romeo.body() == "are you there?"
        world.take(hashed(mallory.bare))
        world.wait_listed(mallory.bare, is_listed=False)
        mallory.join(room, "mallory")
        mallory.message(juliet.bare, "hello")
        assert juliet.body() == "hello"


def test_a_router_that_dies_takes_nothing_with_it(world: World) -> None:
    """The next one to follow the list reads it anew, and one that starts has what was read before."""
    world.wait_listed("known@spam.example")
    for number, router in enumerate(("router-0", "router-1")):
        pid = world.cluster.kill(router)
        world.put(hashed(f"meanwhile{number}@spam.example"))
        world.cluster.wait_restarted(router, pid)
        world.cluster.wait_ready()
        world.wait_listed("known@spam.example")
        world.wait_listed(f"meanwhile{number}@spam.example")


def test_the_list_counts_while_its_server_is_away(world: World) -> None:
    world.wait_listed("known@spam.example")
    world.prosody.process.stop()
    try:
        pid = world.cluster.kill("router-0")
        world.cluster.wait_restarted("router-0", pid)
        world.cluster.wait_ready()
        world.wait_listed("known@spam.example")
    finally:
        world.prosody.process.start()


def test_an_operator_need_not_wait_for_the_next_reading(world: World) -> None:
    done = world.cluster.command("blocklist", "refresh")
    assert (done.returncode, done.stdout) == (0, "the lists are being read; stentor blocklist list shows when\n")
    assert world.cluster.command("blocklist", "check", "no jid @").returncode == 1
