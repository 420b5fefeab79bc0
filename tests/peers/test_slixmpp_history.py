"""What is remembered, by slixmpp's own plugins: streams that are resumed, the archive, copies for other devices, what
an inactive client is spared, messages to who is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from tests.peers.common import apart, place
from tests.peers.gosendxmpp import Listener, send
from tests.peers.slixmpp_client import Carbon, Preferences, Slixmpp, State, befriend
from tests.support.cluster import Account, RunningCluster

NewCluster = Callable[..., RunningCluster]
Pair = tuple[Slixmpp, Slixmpp]
MANAGEMENT: Final = "slixmpp.plugins.xep_0198"


@pytest.fixture
def pair(cluster: RunningCluster) -> Iterator[Pair]:
    """Romeo and Juliet, who share neither a c2s nor a router."""
    romeo, juliet = apart(cluster, lambda a: Slixmpp(cluster, a), lambda a: Slixmpp(cluster, a, direct_tls=True))
    with romeo, juliet:
        yield romeo, juliet


@pytest.fixture
def managed(cluster: RunningCluster, caplog: pytest.LogCaptureFixture) -> Iterator[Pair]:
    """The same, with stream management: slixmpp must find nothing wrong with the server's counting."""
    romeo, juliet = apart(
        cluster,
        lambda a: Slixmpp(cluster, a, resumes=True),
        lambda a: Slixmpp(cluster, a, resumes=True, direct_tls=True),
    )
    with romeo, juliet:
        yield romeo, juliet
    assert [r.getMessage() for r in caplog.get_records("call") if r.name.startswith(MANAGEMENT)] == []


def account_of(client: Slixmpp) -> Account:
    """Another device of the same user signs in with it."""
    return Account(client.bare, "secret")


def talk(romeo: Slixmpp, juliet: Slixmpp, bodies: list[str]) -> None:
    """A conversation: Romeo begins, and each line is read before the next is said."""
    for number, body in enumerate(bodies):
        speaker, listener = (romeo, juliet) if number % 2 == 0 else (juliet, romeo)
        speaker.message(listener.bare, body)
        assert listener.body(speaker.jid) == body


def texts(prefix: str, count: int) -> list[str]:
    """Numbered bodies."""
    return [f"{prefix} {number}" for number in range(count)]


# --- stream management (XEP-0198)


def test_one_question_is_answered_until_everything_before_it_is_safe(managed: Pair) -> None:
    romeo, juliet = managed
    bodies = texts("line", 30)
    for body in bodies:
        romeo.message(juliet.bare, body)
    romeo.ask_for_acknowledgement()
    assert [romeo.acknowledged.take() for _ in bodies] == bodies
    assert [juliet.body() for _ in bodies] == bodies


def test_a_stream_that_was_cut_goes_on_at_every_c2s(cluster: RunningCluster, managed: Pair) -> None:
    """Juliet loses her connection in the middle of what both say, until each c2s has had her."""
    romeo, juliet = managed
    jid, visited = juliet.jid, set()
    for turn in range(30):
        said, heard = texts(f"said {turn}", 10), texts(f"heard {turn}", 10)
        for mine, his in zip(said[:5], heard[:5], strict=True):
            juliet.message(romeo.bare, mine)
            romeo.message(juliet.bare, his)
        juliet.cut()
        for his in heard[5:]:
            romeo.message(juliet.bare, his)
        assert juliet.come_back()
        assert juliet.jid == jid
        for mine in said[5:]:
            juliet.message(romeo.bare, mine)
        assert [juliet.body(romeo.jid) for _ in heard] == heard
        assert [romeo.body(jid) for _ in said] == said
        visited.add(place(cluster, jid)[0])
        if len(visited) == len(cluster.processes("c2s")):
            break
    assert visited == {process.node for process in cluster.processes("c2s")}
    juliet.ping(cluster.domain)
    romeo.ping(cluster.domain)
    assert juliet.messages.left() == romeo.messages.left() == []


def test_what_is_written_without_a_connection_goes_out_with_the_next(managed: Pair) -> None:
    romeo, juliet = managed
    juliet.message(romeo.bare, "before")
    juliet.ask_for_acknowledgement()
    assert juliet.acknowledged.take() == "before"
    juliet.cut()
    said, heard = texts("said", 20), texts("heard", 20)
    for mine, his in zip(said, heard, strict=True):
        juliet.message(romeo.bare, mine)
        romeo.message(juliet.bare, his)
    assert juliet.come_back()
    assert [romeo.body(juliet.jid) for _ in range(21)] == ["before", *said]
    assert [juliet.body(romeo.jid) for _ in heard] == heard
    juliet.ask_for_acknowledgement()
    assert [juliet.acknowledged.take() for _ in said] == said


def test_nobody_is_seen_to_leave_while_a_stream_may_be_resumed(managed: Pair) -> None:
    romeo, juliet = managed
    befriend(romeo, juliet)
    juliet.cut()
    romeo.send_presence("dnd", "fighting")
    assert juliet.come_back()
    assert juliet.presence(romeo.jid, "dnd").status == "fighting"
    juliet.message(romeo.bare, "I am here")
    assert romeo.body(juliet.jid) == "I am here"
    assert [presence for presence in romeo.presences.left() if presence.type == "unavailable"] == []


def test_who_comes_back_too_late_gets_in_a_new_session_what_was_missed(new_cluster: NewCluster) -> None:
    cluster = new_cluster("--set", "resume.timeout_s=1")
    with Slixmpp(cluster, cluster.account()) as romeo, Slixmpp(cluster, cluster.account(), resumes=True) as juliet:
        befriend(romeo, juliet)
        juliet.cut()
        for body in ("to her stream", "to her session"):
            romeo.message(juliet.jid, body)
        romeo.presence(juliet.jid, "unavailable")
        romeo.message(juliet.bare, "to nobody")
        assert not juliet.come_back()
        juliet.ping(cluster.domain)
        assert juliet.messages.left() == [], "without presence it takes nothing"
        juliet.send_presence()
        waited = [juliet.messages.take() for _ in range(3)]
        assert [message.body for message in waited] == ["to her stream", "to her session", "to nobody"]
        read = juliet.archive()
        assert [(message.id, message.at) for message in read] == [(m.archive_id, m.sent_at) for m in waited]


# --- the archive (XEP-0313)


def test_both_archives_have_the_conversation_under_the_ids_that_came_with_it(pair: Pair) -> None:
    romeo, juliet = pair
    bodies = [f"line {number}, <&> 薔薇" for number in range(25)]
    live: dict[str, list[str]] = {romeo.bare: [], juliet.bare: []}
    for number, body in enumerate(bodies):
        speaker, listener = (romeo, juliet) if number % 2 == 0 else (juliet, romeo)
        speaker.message(listener.bare, body)
        arrived = listener.messages.take()
        assert (arrived.body, arrived.sent_at) == (body, None)
        live[listener.bare].append(arrived.archive_id)
    for client, other in ((romeo, juliet), (juliet, romeo)):
        read = client.archive(page=10)
        assert [message.body for message in read] == bodies
        assert [message.id for message in read if message.from_ == other.jid] == live[client.bare]
        assert {message.from_ for message in read} == {romeo.jid, juliet.jid}
        assert {message.to for message in read} == {romeo.bare, juliet.bare}
        ids = [int(message.id) for message in read]
        assert ids == sorted(ids)
        assert [message.at for message in read] == sorted(message.at for message in read)
        assert client.archive(page=7, reverse=True) == read[:-8:-1]
        assert client.archive_ends() == ((read[0].id, read[0].at), (read[-1].id, read[-1].at))


def test_a_page_says_where_it_is(pair: Pair) -> None:
    romeo, juliet = pair
    bodies = texts("line", 12)
    talk(romeo, juliet, bodies)
    first, index, count = juliet.archive_page(max=5)
    assert ([message.body for message in first], index, count) == (bodies[:5], 0, 12)
    second, index, count = juliet.archive_page(max=5, after=first[-1].id)
    assert ([message.body for message in second], index, count) == (bodies[5:10], 5, 12)
    back, index, count = juliet.archive_page(max=2, before=second[0].id)
    assert ([message.body for message in back], index, count) == (bodies[3:5], 3, 12)


def test_a_search_by_partner_and_time(cluster: RunningCluster, pair: Pair) -> None:
    romeo, juliet = pair
    assert juliet.archive_fields() >= {"with", "start", "end", "before-id", "after-id", "ids"}
    talk(romeo, juliet, texts("love", 4))
    with Slixmpp(cluster, cluster.account()) as nurse:
        talk(nurse, juliet, texts("gossip", 6))
        everything = juliet.archive()
        assert [message.body for message in juliet.archive(with_=romeo.bare)] == texts("love", 4)
        assert juliet.archive(with_=nurse.bare, page=4) == everything[4:]
        assert juliet.archive(with_=nurse.jid) == [message for message in everything if message.from_ == nurse.jid]
        assert juliet.archive(with_=f"nobody@{cluster.domain}") == []
    fourth, last = everything[3].at, everything[-1].at
    assert juliet.archive(start=fourth) == [message for message in everything if message.at >= fourth]
    assert juliet.archive(end=fourth) == [message for message in everything if message.at <= fourth]
    assert juliet.archive(with_=romeo.bare, start=fourth, end=fourth)[-1] == everything[3]
    assert juliet.archive(start=last + timedelta(seconds=1)) == []


def test_what_is_of_the_moment_is_not_archived(pair: Pair) -> None:
    romeo, juliet = pair
    romeo.type_to(juliet.bare)
    assert juliet.states.take() == State(romeo.jid, "composing")
    talk(romeo, juliet, ["said"])
    assert [message.body for message in juliet.archive()] == [message.body for message in romeo.archive()] == ["said"]


# --- preferences (XEP-0441)


def test_whoever_wants_no_archive_has_none(cluster: RunningCluster, pair: Pair) -> None:
    romeo, juliet = pair
    assert juliet.preferences() == Preferences("always")
    juliet.set_preferences(Preferences("never"))
    romeo.message(juliet.bare, "off the record")
    assert juliet.messages.take().archive_id == ""
    talk(juliet, romeo, ["and mine", "too"])
    assert juliet.archive() == []
    assert [message.body for message in romeo.archive()] == ["off the record", "and mine", "too"]
    with Slixmpp(cluster, account_of(juliet)) as laptop:
        assert laptop.preferences() == Preferences("never")
        laptop.set_preferences(Preferences("always", never=frozenset({romeo.bare})))
        assert juliet.preferences() == Preferences("always", never=frozenset({romeo.bare}))
    talk(romeo, juliet, ["still", "nothing"])
    assert juliet.archive() == []


def test_an_archive_of_contacts_alone(pair: Pair) -> None:
    romeo, juliet = pair
    juliet.set_preferences(Preferences("roster"))
    talk(romeo, juliet, ["a stranger", "unknown"])
    befriend(romeo, juliet)
    talk(romeo, juliet, ["a friend", "known"])
    assert [message.body for message in juliet.archive()] == ["a friend", "known"]


def test_a_message_that_is_not_archived_waits_for_who_is_away_all_the_same(cluster: RunningCluster) -> None:
    account = cluster.account()
    with Slixmpp(cluster, account) as juliet:
        juliet.set_preferences(Preferences("never"))
    with Slixmpp(cluster, cluster.account()) as romeo:
        romeo.message(account.jid, "while you were away")
        romeo.ping(cluster.domain)
    with Slixmpp(cluster, account) as juliet:
        waited = juliet.messages.take()
        assert (waited.body, waited.archive_id) == ("while you were away", "")
        assert waited.sent_at is not None
        assert juliet.archive() == []


# --- copies for other devices (XEP-0280)


def test_each_device_has_both_sides_of_a_conversation(cluster: RunningCluster, pair: Pair) -> None:
    romeo, phone = pair
    with Slixmpp(cluster, account_of(phone)) as laptop:
        laptop.enable_carbons()
        romeo.message(phone.jid, "Wherefore art thou?")
        live = phone.messages.take()
        assert live.body == "Wherefore art thou?"
        assert laptop.carbons.take() == Carbon("received", romeo.jid, phone.jid, live.body, live.archive_id)
        phone.message(romeo.jid, "Here")
        assert romeo.body(phone.jid) == "Here"
        copy = laptop.carbons.take()
        mine = phone.archive()[-1]
        assert copy == Carbon("sent", phone.jid, romeo.jid, "Here", mine.id)
        romeo.message(phone.bare, "to all of you")
        assert [client.body(romeo.jid) for client in (phone, laptop)] == ["to all of you"] * 2
        laptop.disable_carbons()
        phone.message(romeo.jid, "between us")
        assert romeo.body(phone.jid) == "between us"
        laptop.ping(cluster.domain)
        assert laptop.carbons.left() == phone.carbons.left() == []
        assert laptop.messages.left() == []


def test_copies_are_made_while_a_stream_waits_to_be_resumed(cluster: RunningCluster, managed: Pair) -> None:
    romeo, phone = managed
    with Slixmpp(cluster, account_of(phone), resumes=True) as laptop:
        laptop.enable_carbons()
        laptop.cut()
        bodies = texts("said", 5)
        for body in bodies:
            phone.message(romeo.jid, body)
        assert [romeo.body(phone.jid) for _ in bodies] == bodies
        assert laptop.come_back()
        assert [laptop.carbons.take().body for _ in bodies] == bodies
        laptop.ping(cluster.domain)
        assert laptop.carbons.left() == []


# --- an inactive client (XEP-0352)


def test_an_inactive_client_is_spared_presence_and_typing(cluster: RunningCluster, pair: Pair) -> None:
    """Of what was held back, only the newest is ever seen."""
    romeo, juliet = pair
    befriend(romeo, juliet)
    juliet.look_away()
    for show in ("away", "dnd", "xa"):
        romeo.send_presence(show)
    for state in ("composing", "paused"):
        romeo.type_to(juliet.bare, state)
    romeo.ping(cluster.domain)  # all of it has reached Juliet's router
    juliet.look_at()
    assert juliet.presence(romeo.jid, "xa").type == "xa"
    assert juliet.states.take() == State(romeo.jid, "paused")
    romeo.send_presence("chat")
    juliet.presence(romeo.jid, "chat")
    romeo.type_to(juliet.bare, "active")
    assert juliet.states.take() == State(romeo.jid, "active")
    assert {presence.type for presence in juliet.presences.left() if presence.from_ == romeo.jid} <= {"available"}
    assert juliet.states.left() == []


def test_a_message_wakes_an_inactive_client(cluster: RunningCluster, pair: Pair) -> None:
    """It brings what was held back along; what comes after it is held back again."""
    romeo, juliet = pair
    befriend(romeo, juliet)
    juliet.look_away()
    romeo.send_presence("away")
    romeo.send_presence("dnd")
    romeo.type_to(juliet.bare)
    romeo.message(juliet.bare, "wake up")
    assert juliet.body(romeo.jid) == "wake up"
    assert [p.type for p in juliet.presences.left() if p.type in ("away", "dnd")] == ["dnd"]
    assert juliet.states.left() == [State(romeo.jid, "composing")]
    romeo.send_presence("xa")
    romeo.send_presence("chat")
    romeo.message(juliet.bare, "and again")
    assert juliet.body(romeo.jid) == "and again"
    assert [p.type for p in juliet.presences.left() if p.type in ("xa", "chat")] == ["chat"]


def test_a_resumed_stream_begins_as_active(managed: Pair) -> None:
    romeo, juliet = managed
    befriend(romeo, juliet)
    juliet.look_away()
    romeo.send_presence("away")
    juliet.cut()
    assert juliet.come_back()
    juliet.presence(romeo.jid, "away")
    romeo.send_presence("dnd")
    juliet.presence(romeo.jid, "dnd")


# --- messages to who is not there (XEP-0160)


def test_go_sendxmpp_reaches_slixmpp_that_was_away(cluster: RunningCluster) -> None:
    alice, bob = cluster.account("alice"), cluster.account("bob")
    before = datetime.now(UTC)
    for body in ("one", "two", "three"):
        done = send(cluster, alice, bob.jid, body)
        assert (done.returncode, done.stderr) == (0, "")
    after = datetime.now(UTC)
    with Slixmpp(cluster, bob, appears=False) as hidden:
        hidden.ping(cluster.domain)
        assert hidden.messages.left() == [], "without presence it takes nothing"
        hidden.send_presence()
        waited = [hidden.messages.take() for _ in range(3)]
        assert [message.body for message in waited] == ["one", "two", "three"]
        times = [message.sent_at for message in waited if message.sent_at is not None]
        assert times == sorted(times)
        assert before - timedelta(seconds=1) < times[0] < times[-1] < after + timedelta(seconds=1)
        read = hidden.archive()
        assert [(message.id, message.at) for message in read] == [(m.archive_id, m.sent_at) for m in waited]
    with Slixmpp(cluster, bob) as again:
        again.ping(cluster.domain)
        assert again.messages.left() == [], "they were delivered once"


def test_go_sendxmpp_gets_what_came_while_it_was_away(cluster: RunningCluster) -> None:
    alice, bob = cluster.account("alice"), cluster.account("bob")
    assert send(cluster, alice, bob.jid, "from a script").returncode == 0
    with Slixmpp(cluster, cluster.account("carol")) as carol:
        carol.message(bob.jid, "from slixmpp")
        carol.ping(cluster.domain)
        with Listener(cluster, bob) as listener:
            assert listener.body(alice.jid) == "from a script"
            assert listener.body(carol.bare) == "from slixmpp"
            carol.message(bob.jid, "live")
            assert listener.body(carol.bare) == "live"
            assert listener.messages.left() == []
        assert carol.messages.left() == [], "nothing came back"
