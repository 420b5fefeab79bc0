"""Stentor with the servers that other people wrote: everything that crosses, both ways, by certificate and by dialback.

`st.example` has a certificate of the authority that all trust, `self.example` one that nobody does; so one pair of
servers shows SASL EXTERNAL, the other dialback.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

from tests.peers.common import Inbox
from tests.peers.slixmpp_client import Refused, Slixmpp, befriend
from tests.support.cluster import FACTOR, Account, RunningCluster, start_cluster, wait_until
from tests.support.peers.ejabberd import Ejabberd
from tests.support.peers.peers import Peers, running_peers
from tests.support.peers.prosody import Prosody
from tests.support.peers.server import publish, trusted_file

TEXT: Final = "Wherefore <art> thou? & 薔薇"
STRICT: Final = ("wrong-name.example", "expired.example")  # nothing but a valid certificate will do
TRUSTED, UNTRUSTED = "st.example", "self.example"
Foreign = Prosody | Ejabberd


@dataclass(frozen=True, slots=True)
class Stentor:
    """One of our domains, as a client sees it."""

    cluster: RunningCluster
    domain: str
    certificate: Path

    @property
    def host(self) -> str:
        """Where it listens."""
        return self.cluster.host

    @property
    def port(self) -> int:
        """STARTTLS."""
        return self.cluster.port

    @property
    def tls_port(self) -> int:
        """Direct TLS."""
        return self.cluster.tls_port

    def account(self, name: str) -> Account:
        """A new account."""
        return self.cluster.account(name, domain=self.domain)


@dataclass(frozen=True, slots=True)
class World:
    """Everything of this module."""

    peers: Peers
    cluster: RunningCluster
    trusted: Stentor
    untrusted: Stentor
    prosody: Prosody
    ejabberd: Ejabberd
    prosody_untrusted: Prosody
    ejabberd_untrusted: Ejabberd

    def pair(self, name: str) -> tuple[Stentor, Foreign]:
        """The two servers of a case."""
        _, how = name.split(" ")
        ours = self.trusted if how == "external" else self.untrusted
        theirs: dict[str, Foreign] = {
            "prosody external": self.prosody,
            "ejabberd external": self.ejabberd,
            "prosody dialback": self.prosody_untrusted,
            "ejabberd dialback": self.ejabberd_untrusted,
        }
        return ours, theirs[name]


def start_stentor(peers: Peers, directory: Path, *options: str, **certificates: bool) -> RunningCluster:
    """A cluster that the others find in the DNS; `domain=True`: its certificate is self-signed."""
    names = {name.replace("_", "."): is_self_signed for name, is_self_signed in certificates.items()}
    with_rooms = names | {f"conference.{name}": is_self_signed for name, is_self_signed in names.items()}
    issued = {d: peers.certificate(d, is_self_signed=is_self_signed) for d, is_self_signed in with_rooms.items()}
    pairs = {domain: {"certificate": str(c.chain), "key": str(c.key)} for domain, c in issued.items()}
    directory.mkdir(parents=True)
    trusted_file(directory, peers.authority.file, issued.values())
    running = start_cluster(
        directory,
        *(part for domain in names for part in ("--domain", domain)),
        *("--set", f"tls.certificates={json.dumps(pairs)}"),
        *("--set", f"s2s.ca={peers.authority.file}"),
        *("--set", f's2s.resolvers=["{peers.zone.host}:{peers.zone.port}"]'),
        *("--set", "limits.enabled=false"),
        *options,
    )
    ports = running.facts["ports"]
    publish(peers.zone, running.host, with_rooms, direct_tls=False, s2s=ports["s2s"], s2s_tls=ports["s2s_tls"])
    return running


def as_server(cluster: RunningCluster, domain: str) -> Stentor:
    """One domain of a cluster, for clients."""
    return Stentor(cluster, domain, cluster.directory / "trusted.pem")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Four foreign servers and a cluster of ours, two domains of it."""
    directory = tmp_path_factory.mktemp("federation")
    with running_peers(directory / "peers") as peers:
        without = frozenset({"dialback"})
        prosody = peers.prosody("pr.example", secure=True, without=without, muc=True)
        ejabberd = peers.ejabberd("ej.example", dialback=False, muc=True)
        prosody_untrusted = peers.prosody("prself.example", is_self_signed=True, muc=True)
        ejabberd_untrusted = peers.ejabberd("ejself.example", is_self_signed=True, muc=True)
        policies = json.dumps(dict.fromkeys(STRICT, "secure"))
        cluster = start_stentor(
            peers, directory / "cluster", "--c2s", "2", "--router", "2", "--set", f"s2s.domains={policies}",
            st_example=False, self_example=True,
        )  # fmt: skip
        yield World(
            peers, cluster, as_server(cluster, TRUSTED), as_server(cluster, UNTRUSTED),
            prosody, ejabberd, prosody_untrusted, ejabberd_untrusted,
        )  # fmt: skip
        assert cluster.stop() == 0


CASES: Final = ("prosody external", "ejabberd external", "prosody dialback", "ejabberd dialback")


@pytest.fixture(params=CASES)
def pair(world: World, request: pytest.FixtureRequest) -> tuple[Stentor, Foreign]:
    """One of our domains and one foreign server, which take each other by certificate or by dialback."""
    return world.pair(request.param)


def test_messages_presence_and_requests_cross_both_ways(pair: tuple[Stentor, Foreign]) -> None:
    ours, theirs = pair
    with Slixmpp(ours, ours.account("romeo")) as romeo, Slixmpp(theirs, theirs.account("juliet")) as juliet:
        for speaker, listener in ((romeo, juliet), (juliet, romeo)):
            speaker.message(listener.bare, f"{TEXT} says {speaker.bare}")
            assert listener.body(speaker.jid) == f"{TEXT} says {speaker.bare}"
        befriend(romeo, juliet)
        juliet.send_presence("away", "on the balcony")
        assert romeo.presence(juliet.jid, "away").status == "on the balcony"
        romeo.send_presence("dnd", "in the orchard")
        assert juliet.presence(romeo.jid, "dnd").status == "in the orchard"
        for asker, asked in ((romeo, juliet), (juliet, romeo)):
            server = asked.bare.partition("@")[2]
            assert ("server", "im") in asker.info(server)[0]
            asker.ping(server)
            asker.ping(asked.jid)
        romeo.publish_vcard("Romeo Montague", "Romeo")
        assert juliet.vcard(romeo.bare) == ("Romeo Montague", ["Romeo"])
        juliet.publish_vcard("Juliet Capulet", "Julie")
        assert romeo.vcard(juliet.bare) == ("Juliet Capulet", ["Julie"])
        assert f"{TEXT} says {juliet.bare}" in [message.body for message in romeo.archive()], "what came in is kept"


def test_a_room_of_theirs(pair: tuple[Stentor, Foreign]) -> None:
    ours, theirs = pair
    room = f"verona-{ours.domain.partition('.')[0]}@conference.{theirs.domain}"
    with Slixmpp(theirs, theirs.account("juliet")) as juliet, Slixmpp(ours, ours.account("romeo")) as romeo:
        juliet.join(room, "juliet")
        romeo.join(room, "romeo")
        juliet.occupant(f"{room}/romeo")
        romeo.say(room, TEXT)
        assert juliet.body(f"{room}/romeo") == TEXT
        assert romeo.body(f"{room}/romeo") == TEXT, "its reflection"
        romeo.leave(room, "romeo")
        juliet.occupant(f"{room}/romeo", "unavailable")


def test_a_room_of_ours(pair: tuple[Stentor, Foreign]) -> None:
    ours, theirs = pair
    room = f"mantua-{theirs.domain.partition('.')[0]}@conference.{ours.domain}"
    with Slixmpp(ours, ours.account("romeo")) as romeo, Slixmpp(theirs, theirs.account("juliet")) as juliet:
        romeo.join(room, "romeo")
        romeo.open_room(room)
        juliet.join(room, "juliet")
        romeo.occupant(f"{room}/juliet")
        for speaker, nick in ((romeo, "romeo"), (juliet, "juliet"), (romeo, "romeo")):
            speaker.say(room, f"{TEXT} says {nick}")
            for listener in (romeo, juliet):
                assert listener.body(f"{room}/{nick}") == f"{TEXT} says {nick}"
        juliet.leave(room, "juliet")
        romeo.occupant(f"{room}/juliet", "unavailable")


def test_one_room_for_clients_of_all_servers(world: World) -> None:
    """Two of ours on different c2s and routers, one of Prosody, one of ejabberd: all hear the same in the same order."""
    room = f"agora@conference.{world.trusted.domain}"
    with ExitStack() as stack:
        romeo = stack.enter_context(Slixmpp(world.trusted, world.trusted.account("romeo")))
        others: dict[str, Slixmpp] = {"mercutio": _elsewhere(world, romeo, stack)}
        for name, server in (("juliet", world.prosody), ("rosaline", world.ejabberd)):
            others[name] = stack.enter_context(Slixmpp(server, server.account(name)))
        romeo.join(room, "romeo")
        romeo.open_room(room)
        for name, client in others.items():
            client.join(room, name)
        everybody = {"romeo": romeo, **others}
        for listener in everybody.values():
            listener.occupant(f"{room}/rosaline")
        for number in range(5):
            for name, client in everybody.items():
                client.say(room, f"{name} {number}")
        heard = [
            [client.messages.take(lambda m: m.from_.startswith(room) and bool(m.body)).body for _ in range(20)]
            for client in everybody.values()
        ]
        assert len(set(heard[0])) == 20
        assert all(others_heard == heard[0] for others_heard in heard)


def _elsewhere(world: World, romeo: Slixmpp, stack: ExitStack) -> Slixmpp:
    """A client whose c2s and router are others than romeo's."""

    def place(client: Slixmpp) -> tuple[str, str]:
        shown = world.cluster.api.call("GET", f"/sessions/{quote(client.jid, safe='')}")
        return shown["node"], shown["router"]

    node, router = place(romeo)
    for _ in range(50):
        client = stack.enter_context(Slixmpp(world.trusted, world.trusted.account("mercutio")))
        at = place(client)
        if at[0] != node and at[1] != router:
            return client
    raise AssertionError("the sessions did not spread over the processes")


def test_somebody_who_is_away_reads_it_later(pair: tuple[Stentor, Foreign]) -> None:
    ours, theirs = pair
    account = ours.account("romeo")
    with Slixmpp(theirs, theirs.account("juliet")) as juliet:
        juliet.message(account.jid, TEXT)
        juliet.ping(ours.domain)  # it went by the same stream
        with Slixmpp(ours, account) as romeo:
            message = romeo.messages.take()
            assert (message.body, message.from_) == (TEXT, juliet.jid)
            assert message.sent_at is not None


def test_what_one_publishes_contacts_elsewhere_hear(pair: tuple[Stentor, Foreign]) -> None:
    """XEP-0163 both ways, whoever finds out first what the other's client wants."""
    ours, theirs = pair
    with Slixmpp(ours, ours.account("romeo")) as romeo, Slixmpp(theirs, theirs.account("juliet")) as juliet:
        befriend(romeo, juliet)
        heard: dict[Slixmpp, Inbox[str]] = {}
        for client in (romeo, juliet):
            heard[client] = Inbox("tune")
            client.on_event("user_tune_publish", heard[client], _title)
            client.wants("xep_0118")
        for number, (speaker, listener) in enumerate(((romeo, juliet), (juliet, romeo))):
            title = f"song {number}"
            speaker.plugin("xep_0118", lambda plugin, t=title: plugin.publish_tune(title=t))  # type: ignore[misc]
            assert heard[listener].take(lambda said, t=title: said == t) == title  # type: ignore[misc]


def _title(message: Any) -> str:
    return str(message["pubsub_event"]["items"]["item"]["tune"]["title"])


def test_a_push_service_elsewhere_is_told(pair: tuple[Stentor, Foreign]) -> None:
    """XEP-0357: of what comes while the device is away; an error from there disables it."""
    ours, theirs = pair
    account = ours.account("phone")
    with Slixmpp(ours, ours.account("romeo")) as romeo, Slixmpp(theirs, theirs.account("service")) as service:
        told: Inbox[str] = Inbox("notification")
        service.takes_pushes(told)
        with Slixmpp(ours, account) as phone:
            phone.ask("set", f"<enable xmlns='urn:xmpp:push:0' jid='{service.jid}' node='n1'/>")
        romeo.message(account.jid, "hello?")
        assert told.take() == "n1"


def test_who_does_not_exist_is_no_secret_and_no_black_hole(pair: tuple[Stentor, Foreign]) -> None:
    ours, theirs = pair
    with Slixmpp(ours, ours.account("romeo")) as romeo, Slixmpp(theirs, theirs.account("juliet")) as juliet:
        for asker, domain in ((romeo, theirs.domain), (juliet, ours.domain)):
            asker.message(f"nobody@{domain}", TEXT)
            assert asker.messages.take(lambda m: bool(m.error)).error == "service-unavailable"
        with pytest.raises(Refused, match="service-unavailable"):
            juliet.vcard(f"nobody@{ours.domain}")
        with pytest.raises(Refused, match="service-unavailable"):
            juliet.ping(f"nobody@{ours.domain}/nowhere")
        with pytest.raises(Refused):  # Prosody says item-not-found, ejabberd service-unavailable
            romeo.ping(f"nobody@{theirs.domain}/nowhere")


def test_a_domain_that_does_not_exist_is_told_at_once(world: World) -> None:
    with Slixmpp(world.trusted, world.trusted.account("romeo")) as romeo:
        romeo.message("x@nowhere.example", TEXT)
        assert romeo.messages.take().error == "remote-server-not-found"
        with pytest.raises(Refused, match="remote-server-not-found"):
            romeo.ping("nowhere.example")


def test_a_server_that_dies_gets_what_waited_when_it_is_back(world: World) -> None:
    """Nothing vanishes: what is written while it is away arrives when it is back."""
    ours, theirs = world.trusted, world.prosody
    juliet_account = theirs.account("juliet")
    with Slixmpp(ours, ours.account("romeo")) as romeo:
        with Slixmpp(theirs, juliet_account) as juliet:
            romeo.message(juliet.bare, "before")
            assert juliet.body() == "before"
        theirs.process.kill()
        wait_until(lambda: _streams(world.cluster, theirs.domain) == 0, 10, "our side knows that the stream is gone")
        for number in range(5):
            romeo.message(juliet_account.jid, f"waits {number}")
        theirs.process.start()
        with Slixmpp(theirs, juliet_account) as juliet:
            assert [juliet.body() for _ in range(5)] == [f"waits {number}" for number in range(5)]
            juliet.message(romeo.bare, "after")
            assert romeo.body() == "after"


def _streams(cluster: RunningCluster, domain: str) -> int:
    found = cluster.api.call("GET", "/peers", query={"domain": domain})["peers"]
    return sum(int(peer["streams"]) for peer in found)


def test_certificates_that_prove_nothing_are_not_believed(world: World, tmp_path: Path) -> None:
    """Wrong name, expired: where policy wants a certificate there is no stream, whoever the DNS says it is."""
    authority = world.peers.authority
    for domain, certificate in (
        (STRICT[0], authority.issue("somebody.example")),
        (STRICT[1], authority.issue(STRICT[1], expired=True)),
    ):
        directory = tmp_path / domain
        directory.mkdir()
        server = Prosody(
            directory,
            world.peers.zone,
            {domain: certificate},
            authority=authority.file,
            without=frozenset({"dialback"}),
        )
        try:
            with Slixmpp(world.trusted, world.trusted.account("romeo")) as romeo:
                romeo.message(f"juliet@{domain}", TEXT)
                # COMPAT: slixmpp 1.17 has no name for policy-violation.
                assert (romeo.messages.take().type, romeo.messages.left()) == ("error", [])
            assert "certificate" in world.cluster.command("s2s", "show", domain).stdout
        finally:
            server.process.terminate()
            server.process.wait_ended()


def test_an_operator_sees_the_streams(world: World) -> None:
    ours, theirs = world.trusted, world.prosody
    with Slixmpp(ours, ours.account("romeo")) as romeo, Slixmpp(theirs, theirs.account("juliet")) as juliet:
        romeo.message(juliet.bare, TEXT)
        juliet.body()
        shown = world.cluster.command("s2s", "list").stdout
        assert f"{theirs.domain}  {ours.domain}  " in shown
        shown = world.cluster.command("s2s", "show", theirs.domain).stdout
        assert re.search(rf"^stream out .*  open  .*{re.escape(ours.domain)} by external$", shown, re.MULTILINE), shown


def test_an_operator_closes_streams(world: World) -> None:
    """Streams that are closed are made anew by whoever has something to say."""
    ours, theirs = world.trusted, world.prosody
    with Slixmpp(ours, ours.account("romeo")) as romeo, Slixmpp(theirs, theirs.account("juliet")) as juliet:
        romeo.message(juliet.bare, TEXT)
        assert juliet.body() == TEXT
    closed = world.cluster.command("s2s", "close", theirs.domain)
    assert "end" in closed.stdout, closed.stderr
    wait_until(lambda: _streams(world.cluster, theirs.domain) == 0, 10, "there is none left")
    with Slixmpp(ours, ours.account("romeo")) as romeo, Slixmpp(theirs, theirs.account("juliet")) as juliet:
        romeo.message(juliet.bare, TEXT)
        assert juliet.body() == TEXT


def test_a_room_of_ours_outlives_its_router_for_users_of_other_servers(tmp_path: Path) -> None:
    """Both routers die, one after the other and both at once, while both say something: each sees everything once."""
    with running_peers(tmp_path / "peers") as peers:
        prosody = peers.prosody("pr.example", secure=True)
        cluster = start_stentor(peers, tmp_path / "cluster", "--router", "2", st_example=False)
        try:
            ours = as_server(cluster, TRUSTED)
            room = f"mantua@conference.{ours.domain}"
            with Slixmpp(ours, ours.account("romeo")) as romeo, Slixmpp(prosody, prosody.account("juliet")) as juliet:
                romeo.join(room, "romeo")
                romeo.open_room(room)
                juliet.join(room, "juliet")
                romeo.occupant(f"{room}/juliet")
                bodies = []

                def speak(words: str) -> None:
                    for number in range(20):
                        for speaker, nick in ((romeo, "romeo"), (juliet, "juliet")):
                            bodies.append(f"{words} {number} by {nick}")
                            speaker.say(room, bodies[-1])

                speak("before")
                for node in ("router-0", "router-1"):
                    pid = cluster.kill(node)
                    speak(f"without {node}")
                    cluster.wait_restarted(node, pid)
                    cluster.wait_ready()
                owner = cluster.api.call("GET", f"/rooms/{room}")["router"]
                (other,) = {"router-0", "router-1"} - {owner}
                cluster.kill(other, signal.SIGSTOP)  # what it has not read dies with it
                heard = [romeo.messages.take(lambda m: bool(m.body)).body for _ in bodies]
                in_order = heard.copy()
                speak("while nobody passes it on")
                heard += [romeo.messages.take(lambda m: m.body.endswith("romeo")).body for _ in range(20)]
                pids = {node: cluster.kill(node) for node in (owner, other)}
                for node, pid in pids.items():
                    cluster.wait_restarted(node, pid)
                cluster.wait_ready()
                speak("after")
                heard += [romeo.messages.take(lambda m: bool(m.body)).body for _ in bodies[len(heard) :]]
                seen = [juliet.messages.take(lambda m: bool(m.body)).body for _ in bodies]
                assert sorted(heard) == sorted(seen) == sorted(bodies)
                assert seen[: len(in_order)] == in_order
                for client in (romeo, juliet):
                    client.ping(ours.domain)
                    assert [m for m in client.messages.left() if m.body] == []
        finally:
            assert cluster.stop() == 0


def test_who_has_vanished_with_their_server_leaves_a_room(tmp_path: Path) -> None:
    with running_peers(tmp_path / "peers") as peers:
        prosody = peers.prosody("pr.example", secure=True)
        impatient = ("--set", "rooms.ask_s=2", "--set", "s2s.queue_s=2")
        cluster = start_stentor(peers, tmp_path / "cluster", *impatient, st_example=False)
        try:
            ours = as_server(cluster, TRUSTED)
            room = f"mantua@conference.{ours.domain}"
            with Slixmpp(ours, ours.account("romeo")) as romeo:
                romeo.join(room, "romeo")
                romeo.open_room(room)
                with Slixmpp(prosody, prosody.account("juliet")) as juliet:
                    juliet.join(room, "juliet")
                    romeo.occupant(f"{room}/juliet")
                    time.sleep(5.0)  # she is asked meanwhile, and nothing shall come of it
                    assert not [p for p in romeo.occupants.left() if p.type == "unavailable"], "who answers stays"
                    prosody.process.kill()
                    romeo.occupant(f"{room}/juliet", "unavailable")
        finally:
            assert cluster.stop() == 0


def test_streams_go_on_when_one_of_two_s2s_dies(tmp_path: Path) -> None:
    with running_peers(tmp_path / "peers") as peers:
        prosody = peers.prosody("pr.example", secure=True)
        cluster = start_stentor(peers, tmp_path / "cluster", "--s2s", "2", st_example=False)
        try:
            ours = as_server(cluster, TRUSTED)
            with Slixmpp(ours, ours.account("romeo")) as romeo, Slixmpp(prosody, prosody.account("juliet")) as juliet:
                romeo.message(juliet.bare, "0")
                assert juliet.body() == "0"
                juliet.message(romeo.bare, "0")
                assert romeo.body() == "0"
                for number, node in enumerate(("s2s-0", "s2s-1"), start=1):
                    pid, killed_at = cluster.kill(node), time.monotonic()
                    romeo.message(juliet.bare, str(number))
                    assert juliet.messages.take(lambda m, n=number: m.body == str(n)).body == str(number)  # type: ignore[misc]
                    juliet.message(romeo.bare, str(number))
                    assert romeo.messages.take(lambda m, n=number: m.body == str(n)).body == str(number)  # type: ignore[misc]
                    away_s = time.monotonic() - killed_at
                    print(f"{node} killed: both ways again after {away_s:.2f} s")
                    assert away_s < 5 * FACTOR
                    cluster.wait_restarted(node, pid)
        finally:
            assert cluster.stop() == 0
