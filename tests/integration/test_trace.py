"""`stentor trace` in a real cluster: what an operator sees of messages on all their ways, and what nobody sees."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest

from stentor.client import Refused
from tests.integration.test_push import answer, enable, make_resumable, notification
from tests.support.client import Client, place, sign_in, sign_in_apart
from tests.support.cluster import FACTOR, RunningCluster, deadline, wait_until
from tests.support.rooms import join, new_room, said, submit

SECRET = "Wherefore-art-thou"  # of every body here
COMPOSING = "<composing xmlns='http://jabber.org/protocol/chatstates'/>"
Event = dict[str, Any]


class Tracing:
    """A running `stentor trace --json`."""

    def __init__(self, cluster: RunningCluster, jid: str, *options: str) -> None:
        command = [sys.executable, "-m", "stentor", "trace", jid, "--json", "--data", str(cluster.directory), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.events: list[Event] = []
        self.lines: list[str] = []
        self.said: list[str] = []
        self._arrived: queue.Queue[str] = queue.Queue()
        self._begun = threading.Event()
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()
        assert self._begun.wait(20 * FACTOR), self.said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.end()
        for reader in self._readers:
            reader.join()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self._arrived.put(line)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as output:
            for line in output:
                self.said.append(line)
                if "tracing" in line:
                    self._begun.set()

    @property
    def id(self) -> str:
        """Of the trace."""
        (line,) = [line for line in self.said if "tracing" in line]
        return line.partition(" as ")[2].partition(";")[0]

    def wait(self, matches: Callable[[Event], bool], what: str = "", seconds: float = 15) -> Event:
        """The first event so far that matches."""
        give_up_at = deadline(seconds)
        seen = 0
        while True:
            for event in self.events[seen:]:
                if matches(event):
                    return event
            seen = len(self.events)
            try:
                line = self._arrived.get(timeout=max(0.0, give_up_at - time.monotonic()))
            except queue.Empty:
                shown = "\n".join(f"{e['node']} {e['hop']} {e['kind']} {e['id']} {e['text']}" for e in self.events)
                pytest.fail(f"{what or 'an event'} did not come:\n{shown}")
            self.lines.append(line)
            self.events.append(json.loads(line))

    def find(self, decision: str, id_: str | None, node: str = "", hop: str = "", seconds: float = 15) -> Event:
        """The event of this decision about the stanza with this id."""
        return self.wait(
            lambda e: (e["decision"], e["id"]) == (decision, id_) and node in ("", e["node"]) and hop in ("", e["hop"]),
            f"{decision} of {id_} {node} {hop}", seconds,
        )  # fmt: skip

    def of(self, number: int) -> list[Event]:
        """What has come of one stanza."""
        return [event for event in self.events if event["stanza"] == number]

    def end(self) -> int:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20 * FACTOR)


@pytest.fixture
def pair(cluster: RunningCluster) -> Iterator[tuple[Client, Client]]:
    romeo, juliet = sign_in_apart(cluster, other_c2s=True, other_router=True)
    with romeo, juliet:
        yield romeo, juliet


@pytest.fixture(autouse=True)
def no_word_in_the_logs(cluster: RunningCluster) -> Iterator[None]:
    yield
    for process in cluster.facts["processes"]:
        assert SECRET not in cluster.log(process["node"])


def acknowledging(client: Client) -> None:
    client.send("<enable xmlns='urn:xmpp:sm:3'/>")
    client.expect(lambda e: e.tag == "{urn:xmpp:sm:3}enabled")


def test_a_message_from_one_end_to_the_other(cluster: RunningCluster, pair: tuple[Client, Client]) -> None:
    romeo, juliet = pair
    (c2s, router), (her_c2s, her_router) = place(cluster, romeo), place(cluster, juliet)
    acknowledging(juliet)
    with Tracing(cluster, romeo.bare) as tracing:
        id_ = romeo.message(juliet.bare, SECRET)
        juliet.body()
        juliet.expect(lambda e: e.tag == "{urn:xmpp:sm:3}r")
        juliet.send("<a xmlns='urn:xmpp:sm:3' h='1'/>")
        end = tracing.find("acknowledged", id_, her_c2s)
        tracing.find("confirmed", id_, c2s)
        way = [(e["node"], e["hop"], e["decision"]) for e in tracing.of(end["stanza"]) if e["decision"] != "confirmed"]
        assert way == [
            (c2s, "client", "received"), (router, "sender", "accepted"), (router, "sender", "archived"),
            (router, "sender", "routed"), (router, "sender", "committed"), (router, "sender", "forwarded"),
            (her_router, "recipient", "accepted"), (her_router, "recipient", "archived"),
            (her_router, "recipient", "committed"), (her_router, "recipient", "delivered"),
            (her_c2s, "client", "delivered"), (her_c2s, "client", "acknowledged"),
        ]  # fmt: skip
        received = tracing.find("received", id_)
        assert received["details"]["children"] == ["body"]
        assert (received["from"], received["to"], received["type"]) == (romeo.jid, juliet.bare, "chat")
        assert [e["at"] for e in tracing.events] == sorted(e["at"] for e in tracing.events)
        assert end["since_ms"] > 0
        assert tracing.end() == 0
        assert SECRET not in "".join(tracing.lines + tracing.said)
    log = cluster.log(tracing.id.rpartition("-")[0])
    lines = [json.loads(line) for line in log.splitlines() if tracing.id in line]
    assert [line["event"] for line in lines if line["event"] != "administered"] == ["trace_started", "trace_ended"]
    lines = [line for line in lines if line["event"] != "administered"]
    assert {line["account"] for line in lines} == {romeo.bare}
    assert lines[1]["reason"] == "stopped"
    assert all(line["by"] for line in lines)


def test_the_recipients_trace_shows_it_too_and_that_of_others_does_not(
    cluster: RunningCluster, pair: tuple[Client, Client]
) -> None:
    romeo, juliet = pair
    with (
        sign_in(cluster, cluster.account()) as nurse,
        Tracing(cluster, juliet.bare) as hers,
        Tracing(cluster, nurse.bare) as others,
    ):
        id_ = romeo.message(juliet.bare, SECRET)
        juliet.body()
        hers.find("taken", id_)
        assert {e["decision"] for e in hers.events} >= {"received", "accepted", "forwarded", "delivered"}
        marker = nurse.message(nurse.bare, SECRET)
        others.find("taken", marker)
        told = "".join(others.lines)
        assert id_ not in [event["id"] for event in others.events]
        assert romeo.bare not in told
        assert juliet.bare not in told
        assert SECRET not in told + "".join(hers.lines)


def test_somebody_who_is_offline_and_comes_back(cluster: RunningCluster, pair: tuple[Client, Client]) -> None:
    romeo, _ = pair
    account = cluster.account()
    with Tracing(cluster, romeo.bare) as tracing:
        id_ = romeo.message(account.jid, SECRET)
        waits = tracing.find("offline", id_)
        with sign_in(cluster, account) as later:
            assert later.body() == SECRET
            had = tracing.find("taken", id_)
        assert had["stanza"] == waits["stanza"]
        assert had["details"]["session"] == later.jid
        assert SECRET not in "".join(tracing.lines)


def test_what_comes_back(cluster: RunningCluster, pair: tuple[Client, Client]) -> None:
    """From nobody, from somebody who has blocked the sender, and from a server that is not there."""
    romeo, juliet = pair
    juliet.iq("set", f"<block xmlns='urn:xmpp:blocking'><item jid='{romeo.bare}'/></block>")
    with Tracing(cluster, romeo.bare) as tracing:
        nobody = romeo.message(f"nobody@{cluster.domain}", SECRET)
        assert tracing.find("bounced", nobody)["details"]["condition"] == "service-unavailable"
        blocked = romeo.message(juliet.bare, SECRET)
        told = tracing.find("blocked", blocked)
        assert told["details"]["reason"] == "the recipient has blocked the sender"
        assert told["node"] == place(cluster, juliet)[1]
        gone = romeo.message("friar@verona.invalid", SECRET)
        dialed = tracing.find("dialed", gone)
        assert dialed["details"]["by"] == "s2s-0"
        returned = tracing.find("returned", gone, seconds=30)
        assert returned["stanza"] == dialed["stanza"]
        assert tracing.find("unreachable", gone)["details"]["problem"]
        for id_ in (nobody, blocked, gone):
            there = tracing.find("received", id_)
            back = tracing.wait(
                lambda e, id_=id_: e["id"] == id_ and e["type"] == "error" and e["decision"] == "taken"  # type: ignore[misc]
            )
            assert back["stanza"] == there["stanza"], "an error is of the stanza that it answers"
        assert SECRET not in "".join(tracing.lines)


def test_a_room(cluster: RunningCluster, pair: tuple[Client, Client]) -> None:
    romeo, juliet = pair
    room = new_room(cluster)
    join(romeo, room, "romeo")
    assert submit(romeo, room, persistentroom="1").get("type") == "result"
    join(juliet, room, "juliet")
    with Tracing(cluster, room) as of_room, Tracing(cluster, romeo.bare) as of_romeo:
        id_ = romeo.message(room, SECRET, "groupchat")
        said(juliet, SECRET)
        told = of_room.find("told", id_, hop="room")
        assert told["details"]["occupants"] == 2
        assert of_room.find("archived", id_, hop="room")["stanza"] == told["stanza"]
        for client in (romeo, juliet):
            jid = client.jid
            had = of_room.wait(
                lambda e, jid=jid: (e["decision"], e["id"]) == ("taken", id_) and e["details"]["session"] == jid  # type: ignore[misc]
            )
            assert had["stanza"] == told["stanza"]
        own = of_romeo.wait(lambda e: (e["decision"], e["id"], e["from"]) == ("taken", id_, f"{room}/romeo"))
        assert own["stanza"] == of_romeo.find("told", id_)["stanza"]
        assert juliet.bare not in "".join(of_romeo.lines), "of others in the room nothing is shown"
        assert SECRET not in "".join(of_room.lines + of_romeo.lines)
        juliet.send(f"<message to='{room}' type='groupchat' id='quiet'>{COMPOSING}</message>")
        assert of_room.find("unarchived", "quiet", hop="room")["details"]["reason"]


def test_push_and_a_device_that_has_gone(cluster: RunningCluster, pair: tuple[Client, Client]) -> None:
    juliet, service = pair
    phone = sign_in(cluster, cluster.account(), "phone")
    make_resumable(phone)
    enable(phone, service)
    phone.socket.close()
    with Tracing(cluster, juliet.bare) as tracing:
        ids = []

        def is_kept() -> bool:
            ids.append(juliet.message(phone.bare, SECRET))
            tracing.find("committed", ids[-1])
            return any(e["decision"] == "kept" for e in tracing.events)

        wait_until(is_kept, 20, "the phone's stream is gone")
        pushed = tracing.wait(lambda e: e["decision"] == "pushed")
        assert pushed["details"] == {"service": cluster.domain}
        assert pushed["id"] in ids
        answer(service, notification(service)[2])
        assert SECRET not in "".join(tracing.lines)


def test_an_inactive_client_and_a_copy(cluster: RunningCluster, pair: tuple[Client, Client]) -> None:
    romeo, juliet = pair
    juliet.iq("set", "<enable xmlns='urn:xmpp:carbons:2'/>")
    juliet.send("<inactive xmlns='urn:xmpp:csi:0'/>")
    juliet.ping()
    with Tracing(cluster, romeo.bare) as tracing:
        romeo.send(f"<message to='{juliet.jid}' type='chat' id='typing'>{COMPOSING}</message>")
        held = tracing.find("held", "typing")
        assert held["details"]["sessions"] == [f"{juliet.jid} on {place(cluster, juliet)[0]}"]
        juliet.send("<active xmlns='urn:xmpp:csi:0'/>")
        assert tracing.find("delivered", "typing", place(cluster, juliet)[0])["stanza"] == held["stanza"]
        account = cluster.account()
        romeo.iq("get", "<ping xmlns='urn:xmpp:ping'/>", cluster.domain)
        with sign_in(cluster, account, "a") as first, sign_in(cluster, account, "b") as second:
            second.iq("set", "<enable xmlns='urn:xmpp:carbons:2'/>")
            id_ = romeo.message(first.jid, SECRET)
            first.body()
            copied = tracing.find("copied", id_)
            assert copied["details"]["sessions"][0].startswith(second.jid)
            had = tracing.wait(lambda e: e["decision"] == "delivered" and bool(e["details"].get("copy")))
            assert (had["stanza"], had["details"]["session"]) == (copied["stanza"], second.jid)
        assert SECRET not in "".join(tracing.lines)


def test_any_router_answers_and_a_trace_is_over_after_its_time(cluster: RunningCluster) -> None:
    account = cluster.account()
    begun = cluster.api.call("POST", "/traces", {"jid": account.jid, "seconds": 2, "by": "nurse"})
    nodes = set()
    for _ in range(20):  # routers share the port: each connection is one's or the other's
        listed = cluster.api.call("GET", "/traces")["traces"]
        nodes |= {trace["id"] for trace in listed if trace["by"] == "nurse"}
        page = cluster.api.call("GET", f"/traces/{begun['id']}", query={"after": "0"})
        if page["is_over"]:
            break
    assert nodes == {begun["id"]}
    assert page["is_over"]
    assert all(trace["id"] != begun["id"] for trace in cluster.api.call("GET", "/traces")["traces"])
    wait_until(lambda: _known(cluster) == 0, 10, "no process traces any more")


def _known(cluster: RunningCluster) -> float:
    """Traces that any process knows of."""
    total = 0.0
    for process in cluster.facts["processes"]:
        _, text = cluster.get(process["node"], "/metrics")
        total += sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("stentor_traces "))
    return total


@pytest.mark.parametrize(
    ("jid", "status"),
    [("", 400), ("a@b@c", 400), ("romeo@localhost/x", 400), ("localhost", 400), ("conference.localhost", 400)],
)
def test_what_cannot_be_traced(cluster: RunningCluster, jid: str, status: int) -> None:
    with pytest.raises(Refused) as refused:
        cluster.api.call("POST", "/traces", {"jid": jid})
    assert refused.value.status == status


@pytest.mark.parametrize("seconds", [0, 3601, "60", True, None])
def test_a_trace_has_an_end(cluster: RunningCluster, seconds: object) -> None:
    with pytest.raises(Refused) as refused:
        cluster.api.call("POST", "/traces", {"jid": "romeo@localhost", "seconds": seconds})
    assert refused.value.status == 400


def test_so_many_at_once_and_hints(cluster: RunningCluster) -> None:
    ids = []
    try:
        for number in range(5):
            begun = cluster.api.call("POST", "/traces", {"jid": f"nobody{number}@localhost", "seconds": 30})
            ids.append(begun["id"])
            assert "has no account" in begun["hint"]
        everywhere = 5.0 * len(cluster.facts["processes"])
        wait_until(lambda: _known(cluster) == everywhere, 10, "everybody has been told")
        with pytest.raises(Refused) as refused:
            cluster.api.call("POST", "/traces", {"jid": "nobody@localhost"})
        assert refused.value.status == 409
    finally:
        for id_ in ids:
            cluster.api.call("DELETE", f"/traces/{id_}")
    begun = cluster.api.call("POST", "/traces", {"jid": "nowhere@conference.localhost"})
    assert "is no room" in begun["hint"]
    cluster.api.call("DELETE", f"/traces/{begun['id']}")
    with pytest.raises(Refused) as gone:
        cluster.api.call("DELETE", f"/traces/{begun['id']}")
    assert gone.value.status == 404
    for id_ in ("router-0-nothing", "router-7-nothing", "x"):
        with pytest.raises(Refused) as unknown:
            cluster.api.call("GET", f"/traces/{id_}")
        assert unknown.value.status == 404


def test_a_router_that_dies_ends_its_traces_and_one_that_comes_learns_of_others(cluster: RunningCluster) -> None:
    romeo, juliet = sign_in_apart(cluster, other_c2s=True, other_router=True)
    with romeo, juliet, Tracing(cluster, romeo.bare, "--for", "5m") as tracing:
        node = tracing.id.rpartition("-")[0]
        other = {"router-0": "router-1", "router-1": "router-0"}[node]
        pid = cluster.kill(other)
        cluster.wait_restarted(other, pid, 30)
        cluster.wait_ready()

        def is_told() -> bool:
            id_ = romeo.message(juliet.bare, SECRET)
            tracing.find("received", id_)
            return any(event["node"] == other for event in tracing.events)

        wait_until(is_told, 60, "the router that has come tells of stanzas, too")
        pid = cluster.kill(node)
        assert tracing.process.wait(30 * FACTOR) == 1
        assert any("ended" in line or "does not answer" in line for line in tracing.said), tracing.said
        wait_until(
            lambda: '"trace_ended"' in cluster.log(other) and tracing.id in cluster.log(other), 30, "it is logged"
        )
        cluster.wait_restarted(node, pid, 30)
        cluster.wait_ready()
        wait_until(lambda: _known(cluster) == 0, 10, "no process traces any more")
        romeo.message(juliet.bare, SECRET)
        assert SECRET not in "".join(tracing.lines)


def test_a_reader_that_is_killed_leaves_nothing_for_good(cluster: RunningCluster) -> None:
    account = cluster.account()
    with Tracing(cluster, account.jid, "--for", "3s") as tracing:
        tracing.process.kill()
        wait_until(lambda: _known(cluster) == 0, 15, "it is over by itself")
