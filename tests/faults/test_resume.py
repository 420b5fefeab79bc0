"""Streams that are resumed (XEP-0198, 5): from a c2s that lives, was killed or drained, by two at once, by others, too
late. Nothing is lost, doubled or reordered on the way."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Final

import pytest

from tests.support.client import CLIENT, ERRORS, SASL, WAIT_S, Client, Element, StreamEnded, place, sign_in
from tests.support.cluster import Account, RunningCluster, deadline
from tests.support.faults import IS_LONG, SEED, Site

SM: Final = "{urn:xmpp:sm:3}"
DELAY: Final = "{urn:xmpp:delay}delay"
RACES: Final = 100 if IS_LONG else 10


class Managed:
    """A client that counts what it gets, and may have its session back."""

    def __init__(self, cluster: RunningCluster, account: Account, resource: str | None = None) -> None:
        self.cluster = cluster
        self.account = account
        self.client = knock(cluster, account)
        self.jid = self.client.bind(resource)
        self.client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        enabled = self.client.expect(lambda element: element.tag == f"{SM}enabled")
        assert enabled.get("resume") in ("true", "1")
        self.token = enabled.get("id")
        self.h = 0
        self.client.send("<presence/>")
        assert self.take().tag == f"{CLIENT}presence"

    @property
    def bare(self) -> str:
        """The account."""
        return self.account.jid

    def take(self) -> Element:
        """The next stanza."""
        element = self.client.expect(lambda element: element.tag.startswith(CLIENT))
        self.h += 1
        return element

    def body(self) -> str:
        """The body of the next stanza, a message."""
        return self.take().findtext(f"{CLIENT}body") or ""

    def close(self) -> None:
        """Cut the connection: the session waits."""
        self.client.socket.close()

    def ask_back(self, client: Client) -> None:
        """Ask for the session on another connection."""
        client.send(f"<resume xmlns='urn:xmpp:sm:3' previd='{self.token}' h='{self.h}'/>")

    def resume(self) -> int:
        """Get the session back on a new connection; returns how much of what was sent is safe."""
        self.close()
        self.client = client = knock(self.cluster, self.account)
        self.ask_back(client)
        answer = client.read()
        assert answer.tag == f"{SM}resumed", (answer.tag, [child.tag for child in answer])
        assert answer.get("previd") == self.token
        return int(answer.get("h") or "-1")


def knock(cluster: RunningCluster, account: Account) -> Client:
    """A connection that is signed in, without a resource. One that the kernel still gave to a killed process is reset,
    and made again, as any client does."""
    until = time.monotonic() + WAIT_S
    while True:
        client = Client(cluster)
        try:
            client.open()
            break
        except (ConnectionError, StreamEnded):
            client.socket.close()
            if time.monotonic() > until:
                raise
    assert client.plain(account).tag == f"{SASL}success"
    client.open()
    return client


@contextmanager
def couple(cluster: RunningCluster) -> Iterator[tuple[Client, Managed]]:
    """Romeo, an ordinary client, and Juliet, whose stream is managed, on different c2s."""
    with sign_in(cluster, cluster.account("romeo")) as romeo:
        node = place(cluster, romeo)[0]
        for _ in range(100):
            juliet = Managed(cluster, cluster.account("juliet"))
            if place(cluster, juliet.client)[0] != node:
                break
            juliet.close()
        else:
            raise AssertionError("the sessions did not spread over the processes")
        with closing(juliet):
            yield romeo, juliet


def read_to_the_end(client: Client) -> tuple[list[str], str]:
    """What still comes on a stream, and how it ends."""
    bodies = []
    try:
        while True:
            bodies.append(client.read().findtext(f"{CLIENT}body") or "")
    except StreamEnded as ended:
        return [body for body in bodies if body], ended.error


def exchange(romeo: Client, juliet: Managed, text: str) -> None:
    """Both directions work, and nothing else was on its way."""
    romeo.message(juliet.bare, text)
    assert juliet.body() == text
    juliet.client.message(romeo.bare, f"{text} too")
    assert romeo.body() == f"{text} too"


def test_a_session_moves_while_its_old_connection_lives(site: Site) -> None:
    with couple(site.cluster) as (romeo, juliet):
        for number in range(5):
            romeo.message(juliet.bare, f"message {number}")
        assert [juliet.body(), juliet.body()] == ["message 0", "message 1"]
        with juliet.client as old:
            juliet.client = knock(site.cluster, juliet.account)
            juliet.ask_back(juliet.client)
            assert juliet.client.read().tag == f"{SM}resumed"
            assert read_to_the_end(old) == (["message 2", "message 3", "message 4"], "conflict")
            assert [juliet.body() for _ in range(3)] == ["message 2", "message 3", "message 4"]
            exchange(romeo, juliet, "after")


def test_a_session_outlives_its_killed_c2s(site: Site) -> None:
    with couple(site.cluster) as (romeo, juliet):
        exchange(romeo, juliet, "before")
        node = place(site.cluster, juliet.client)[0]
        for number in range(3):
            juliet.client.message(romeo.bare, f"said {number}")
        old_pid = site.cluster.kill(node)
        assert read_to_the_end(juliet.client)[1] == "connection closed"
        for number in range(3):
            romeo.message(juliet.bare, f"message {number}")
        safe = juliet.resume()
        for number in range(safe - 2, 3):  # behind the presence and "before too"
            juliet.client.message(romeo.bare, f"said {number}")
        assert [juliet.body() for _ in range(3)] == ["message 0", "message 1", "message 2"]
        assert [romeo.body() for _ in range(3)] == ["said 0", "said 1", "said 2"]
        exchange(romeo, juliet, "after")
        site.cluster.wait_restarted(node, old_pid)
        site.cluster.wait_ready()
        exchange(romeo, juliet, "later")


def test_a_session_outlives_its_drained_c2s(site: Site) -> None:
    with couple(site.cluster) as (romeo, juliet):
        exchange(romeo, juliet, "before")
        node = place(site.cluster, juliet.client)[0]
        old_pid = site.cluster.kill(node, signal.SIGTERM)
        assert read_to_the_end(juliet.client) == ([], "system-shutdown")
        romeo.message(juliet.bare, "meanwhile")
        assert juliet.resume() == 2  # the presence and "before too"
        assert juliet.body() == "meanwhile"
        exchange(romeo, juliet, "after")
        site.cluster.wait_restarted(node, old_pid)
        site.cluster.wait_ready()
        exchange(romeo, juliet, "later")


def test_a_session_is_resumed_when_its_owner_was_killed_too(site: Site) -> None:
    with couple(site.cluster) as (romeo, juliet):
        exchange(romeo, juliet, "before")
        router = place(site.cluster, juliet.client)[1]
        juliet.close()
        romeo.message(juliet.bare, "to a stream that is gone")
        romeo.ping()
        old_pid = site.cluster.kill(router)
        romeo.message(juliet.bare, "to an owner that is gone")
        assert juliet.resume() == 2
        assert [juliet.body(), juliet.body()] == ["to a stream that is gone", "to an owner that is gone"]
        exchange(romeo, juliet, "after")
        site.cluster.wait_restarted(router, old_pid)
        site.cluster.wait_ready()


def test_of_two_who_resume_at_once_one_gets_the_session(site: Site) -> None:
    print(f"STENTOR_FAULTS_SEED={SEED}")
    rng = random.Random(SEED)
    with couple(site.cluster) as (romeo, juliet):
        for race in range(RACES):
            texts = [f"race {race}, {number}" for number in range(3)]
            for text in texts:
                romeo.message(juliet.bare, text)
            with ExitStack() as stack:
                rivals = [stack.enter_context(knock(site.cluster, juliet.account)) for _ in range(2)]
                rng.shuffle(rivals)
                for rival in rivals:
                    juliet.ask_back(rival)
                juliet.close()
                juliet.client = winner(rivals)
                stack.pop_all()
            romeo.message(juliet.bare, f"race {race} is over")
            assert [juliet.body() for _ in range(4)] == [*texts, f"race {race} is over"]
        exchange(romeo, juliet, "after")


def winner(rivals: list[Client]) -> Client:
    """The connection that has the session when all is over: the other one was refused, or had it and lost it. Nobody
    is left without an answer: who asks again because of that takes the session from its winner later."""
    left = list(rivals)
    give_up_at = deadline(1)
    while len(left) > 1:
        assert time.monotonic() < give_up_at, "both have the session, or one does not know"
        left = [rival for rival in left if not has_lost(rival)]
    for rival in rivals:
        if rival not in left:
            rival.socket.close()
    (found,) = left
    assert found.expect(lambda element: element.tag in (f"{SM}resumed", f"{SM}failed")).tag == f"{SM}resumed"
    return found


def has_lost(rival: Client) -> bool:
    """Whether it was refused, or its stream has ended; what else it got is kept."""
    try:
        rival.expect(lambda element: element.tag == f"{SM}failed", 0.02)
    except StreamEnded as ended:
        return ended.error == "conflict"
    except TimeoutError:
        return False
    return True


def test_nobody_resumes_the_stream_of_another(site: Site) -> None:
    with couple(site.cluster) as (romeo, juliet):
        exchange(romeo, juliet, "before")
        with knock(site.cluster, site.cluster.account("mallory")) as mallory:
            juliet.ask_back(mallory)
            failed = mallory.expect(lambda element: element.tag.startswith(SM))
            assert failed.tag == f"{SM}failed"
            assert [child.tag for child in failed] == [f"{ERRORS}item-not-found"]
            assert failed.get("h") is None  # not even how far it has come
            mallory.bind()
        juliet.client.ping()
        exchange(romeo, juliet, "after")


@pytest.mark.parametrize("has_other_client", [False, True])
def test_who_does_not_come_back_in_time_loses_the_session_and_no_message(
    small_site: Site, has_other_client: bool
) -> None:
    cluster = small_site.cluster
    romeo, juliet = sign_in(cluster, cluster.account("romeo")), Managed(cluster, cluster.account("juliet"), "lost")
    with romeo, closing(juliet):
        romeo.send(f"<presence type='subscribe' to='{juliet.bare}'/>")
        assert juliet.take().get("type") == "subscribe"
        juliet.client.send(f"<presence type='subscribed' to='{romeo.bare}'/>")
        romeo.presence(None, juliet.jid)
        for number in range(3):
            romeo.message(juliet.jid, f"message {number}")
        assert juliet.body() == "message 0"
        juliet.client.send(f"<a xmlns='urn:xmpp:sm:3' h='{juliet.h}'/>")
        juliet.client.ping()  # the server has read that
        juliet.close()
        other = sign_in(cluster, juliet.account, "other") if has_other_client else None
        romeo.message(juliet.jid, "message 3")
        romeo.ping()
        romeo.presence("unavailable", juliet.jid)  # not before: until then she is expected back
        if other is None:
            other = sign_in(cluster, juliet.account, "other")
        with other:
            romeo.message(juliet.bare, "and now")
            came = [message_of(other) for _ in range(4)]
            assert [body for body, _ in came] == [*(f"message {number}" for number in range(1, 4)), "and now"]
            assert [is_delayed for _, is_delayed in came] == [True, True, True, False]
            other.ping()
            with pytest.raises(TimeoutError):
                other.body(0.2)
        with knock(cluster, juliet.account) as late:
            juliet.ask_back(late)
            assert late.expect(lambda element: element.tag.startswith(SM)).tag == f"{SM}failed"
            late.bind()


def message_of(client: Client) -> tuple[str, bool]:
    """The body of the next message, and whether it bears a delay (XEP-0203)."""
    message = client.expect(lambda element: element.find(f"{CLIENT}body") is not None)
    return message.findtext(f"{CLIENT}body") or "", message.find(DELAY) is not None
