"""Greetings, silence and the news of both (cluster/membership.py; docs/delivery.md, rule 3)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.membership import GREET_AGAIN_S, Membership, PeerAway, PeerDown, PeerEvent, PeerUp
from cluster.wire import GOODBYE, HELLO, SUPPORTED_VERSIONS, WELCOME, Envelope, Incarnation, node_of

DEAD_AFTER_S = 2.0
ME = Incarnation("router-0#00000000000000aa")
MINE = "tcp://192.0.2.1:7400"
EDGE = Incarnation("c2s-0#0000000000000001")
SUCCESSOR = Incarnation("c2s-0#0000000000000002")
EDGE_AT = "tcp://192.0.2.2:7400"
ROUTER = Incarnation("router-1#0000000000000001")
ROUTER_AT = "tcp://192.0.2.3:7400"
VERSIONS = tuple(sorted(SUPPORTED_VERSIONS))


@pytest.fixture
def members() -> Membership:
    return Membership(ME, "router", MINE, DEAD_AFTER_S)


def greeting(kind: int, sender: Incarnation, role: str, address: str) -> Envelope:
    return (kind, role, node_of(sender), address, VERSIONS)


def meet(members: Membership, sender: Incarnation = EDGE, role: str = "c2s", at: str = EDGE_AT, now: float = 0) -> None:
    """`sender` says hello; its news and the answer are taken off."""
    assert members.greeted(sender, greeting(HELLO, sender, role, at), now)
    assert news(members)[-1] == PeerUp(sender, role, at)
    members.greetings.clear()


def news(members: Membership) -> list[PeerEvent | PeerAway]:
    found = list(members.events)
    members.events.clear()
    return found


def said(members: Membership) -> list[tuple[str, int]]:
    """(address, kind) of what is to be sent."""
    found = [(address, envelope[0]) for address, envelope in members.greetings]
    members.greetings.clear()
    return found


def living(members: Membership) -> set[Incarnation]:
    return {name for name, peer in members.peers.items() if peer.is_alive}


# --- greetings


def test_a_hello_is_answered_and_both_know_each_other() -> None:
    router = Membership(ME, "router", MINE, DEAD_AFTER_S)
    edge = Membership(EDGE, "c2s", EDGE_AT, DEAD_AFTER_S)
    edge.greet(MINE)
    edge.tick(0.0)
    ((to, hello),) = edge.greetings
    assert (to, hello) == (MINE, (HELLO, "c2s", "c2s-0", EDGE_AT, list(VERSIONS)))
    router.greeted(EDGE, hello, 0.0)
    assert news(router) == [PeerUp(EDGE, "c2s", EDGE_AT)]
    ((to, welcome),) = router.greetings
    assert (to, welcome) == (EDGE_AT, (WELCOME, "router", "router-0", MINE, list(VERSIONS)))
    edge.greetings.clear()
    edge.greeted(ME, welcome, 0.1)
    assert news(edge) == [PeerUp(ME, "router", MINE)]
    assert said(edge) == [], "a welcome is not answered: that would never end"


def test_an_address_is_greeted_until_somebody_answers(members: Membership) -> None:
    members.greet(ROUTER_AT)
    members.greet(ROUTER_AT)
    times = [0.0, 0.1, GREET_AGAIN_S, GREET_AGAIN_S + 0.1, 2 * GREET_AGAIN_S]
    heard = []
    for now in times:
        members.tick(now)
        heard.append(said(members))
    assert heard == [[(ROUTER_AT, HELLO)], [], [(ROUTER_AT, HELLO)], [], [(ROUTER_AT, HELLO)]]
    meet(members, ROUTER, "router", ROUTER_AT, 1.1)
    members.tick(1.6)
    assert said(members) == []


def test_a_router_that_goes_silent_is_looked_for_and_an_edge_is_not(members: Membership) -> None:
    meet(members, ROUTER, "router", ROUTER_AT)
    meet(members, EDGE, "c2s", EDGE_AT)
    members.tick(DEAD_AFTER_S + 0.1)
    assert set(news(members)) == {PeerDown(ROUTER, "router"), PeerDown(EDGE, "c2s")}
    assert said(members) == [(ROUTER_AT, HELLO)]


def test_who_is_forgotten_is_greeted_no_more(members: Membership) -> None:
    members.greet(ROUTER_AT)
    members.forget(ROUTER_AT)
    members.forget("tcp://192.0.2.99:1")
    members.tick(0.0)
    assert said(members) == []


def test_nobody_greets_itself(members: Membership) -> None:
    members.greet(MINE)
    members.tick(0.0)
    assert said(members) == []
    assert members.greeted(ME, greeting(HELLO, ME, "router", MINE), 0.0), "its own, come back by another address"
    assert news(members) == []
    assert said(members) == []


GOOD = greeting(HELLO, EDGE, "c2s", EDGE_AT)


@pytest.mark.parametrize(
    "envelope",
    [
        (HELLO,),
        GOOD[:4],
        (HELLO, "admin", "c2s-0", EDGE_AT, VERSIONS),
        (HELLO, None, "c2s-0", EDGE_AT, VERSIONS),
        (HELLO, {}, "c2s-0", EDGE_AT, VERSIONS),
        (HELLO, "c2s", "c2s-1", EDGE_AT, VERSIONS),  # another node than its incarnation says
        (HELLO, "c2s", "c2s-0", None, VERSIONS),
        (HELLO, "c2s", "c2s-0", EDGE_AT, ()),
        (HELLO, "c2s", "c2s-0", EDGE_AT, (99,)),  # no version in common
        (HELLO, "c2s", "c2s-0", EDGE_AT, 1),
        (HELLO, "c2s", "c2s-0", EDGE_AT, ({}, "1", True)),
    ],
)
def test_a_greeting_that_is_none_is_not_answered(members: Membership, envelope: Envelope) -> None:
    assert not members.greeted(EDGE, envelope, 0.0)
    assert (news(members), said(members), members.peers) == ([], [], {})


@given(st.sampled_from([HELLO, WELCOME]), st.lists(st.none() | st.text() | st.integers() | st.dictionaries(st.text(), st.none()), max_size=6))  # fmt: skip
def test_no_greeting_breaks_anything(kind: int, fields: list[Any]) -> None:
    members = Membership(ME, "router", MINE, DEAD_AFTER_S)
    assert not members.greeted(EDGE, (kind, *fields), 0.0)
    assert members.peers == {}


def test_a_newer_neighbour_may_say_more_and_speak_more_versions(members: Membership) -> None:
    assert members.greeted(EDGE, (HELLO, "c2s", "c2s-0", EDGE_AT, (*VERSIONS, 99), "more"), 0.0)
    assert living(members) == {EDGE}
    members.nodes(((ROUTER, "router", ROUTER_AT, "more"),))  # type: ignore[arg-type]  # a newer router's entry
    assert said(members) == [(EDGE_AT, WELCOME), (ROUTER_AT, HELLO)]


# --- silence


def test_any_frame_is_a_sign_of_life(members: Membership) -> None:
    meet(members)
    for now in (1.0, 2.0, 3.0, 4.0, 5.0):
        assert members.heard(EDGE, now)
        members.tick(now + DEAD_AFTER_S)
    assert news(members) == []
    members.tick(5.1 + DEAD_AFTER_S)
    assert news(members) == [PeerDown(EDGE, "c2s")]


def test_who_is_unknown_or_believed_dead_has_to_say_hello_first(members: Membership) -> None:
    assert not members.heard(EDGE, 0.0)
    meet(members)
    members.tick(10.0)
    assert not members.heard(EDGE, 10.1), "its links are over"
    assert news(members) == [PeerDown(EDGE, "c2s")]
    meet(members, now=10.2)
    assert members.heard(EDGE, 10.3)


def test_death_is_told_once(members: Membership) -> None:
    meet(members)
    members.tick(10.0)
    members.tick(11.0)
    members.lose(EDGE)
    members.greeted(EDGE, (GOODBYE, "stop"), 12.0)
    assert news(members) == [PeerDown(EDGE, "c2s")]


def test_a_second_hello_of_a_living_peer_is_no_news(members: Membership) -> None:
    meet(members)
    assert members.greeted(EDGE, GOOD, 1.5)
    assert news(members) == []
    assert said(members) == [(EDGE_AT, WELCOME)], "it may not have heard the first answer"
    members.tick(1.5 + DEAD_AFTER_S)
    assert living(members) == {EDGE}, "and it was a sign of life"


def test_after_this_process_was_away_everybodys_silence_counts_from_now(members: Membership) -> None:
    meet(members)
    members.was_away(100.0, DEAD_AFTER_S)
    members.tick(100.0 + DEAD_AFTER_S)
    assert living(members) == {EDGE}
    members.tick(100.1 + DEAD_AFTER_S)
    assert living(members) == set()


def test_after_so_long_that_others_believe_it_dead_it_begins_anew(members: Membership) -> None:
    """What is still under way on its links is nothing to act on any more; nobody is believed dead for it."""
    meet(members)
    members.greet(ROUTER_AT)
    members.tick(2.0)
    said(members)
    members.was_away(100.0, DEAD_AFTER_S + 0.1)
    assert news(members) == [PeerAway(EDGE, "c2s")]
    assert said(members) == [(ROUTER_AT, HELLO)], "at once"
    assert not members.heard(EDGE, 100.0)
    assert members.greeted(EDGE, GOOD, 100.1)
    assert news(members) == [PeerUp(EDGE, "c2s", EDGE_AT)]
    members.was_away(200.0, DEAD_AFTER_S + 0.1)
    members.tick(200.1 + DEAD_AFTER_S)
    assert news(members) == [PeerAway(EDGE, "c2s"), PeerDown(EDGE, "c2s")], "who does not answer is dead after all"


def test_a_link_that_is_given_up_is_a_peer_lost(members: Membership) -> None:
    meet(members)
    members.lose(EDGE)
    members.lose(ROUTER)  # never known
    assert news(members) == [PeerDown(EDGE, "c2s")]


def test_the_dead_are_forgotten_in_the_end(members: Membership) -> None:
    meet(members)
    members.tick(10.0)
    assert EDGE in members.peers
    members.tick(20 * DEAD_AFTER_S + 0.1)
    assert members.peers == {}
    assert news(members) == [PeerDown(EDGE, "c2s")]


# --- incarnations


def test_goodbye_is_death_at_once(members: Membership) -> None:
    meet(members)
    assert members.greeted(EDGE, (GOODBYE, "stop"), 0.1)
    assert news(members) == [PeerDown(EDGE, "c2s")]
    assert not members.heard(EDGE, 0.2)


def test_the_goodbye_of_a_stranger_is_nothing(members: Membership) -> None:
    members.greeted(EDGE, (GOODBYE, "stop"), 0.0)
    assert news(members) == []


def test_a_restarted_node_replaces_its_former_run(members: Membership) -> None:
    meet(members)
    assert members.greeted(SUCCESSOR, greeting(HELLO, SUCCESSOR, "c2s", EDGE_AT), 1.0)
    assert news(members) == [PeerDown(EDGE, "c2s"), PeerUp(SUCCESSOR, "c2s", EDGE_AT)], "the old one first"
    assert living(members) == {SUCCESSOR}


def test_the_former_run_may_be_believed_dead_already(members: Membership) -> None:
    meet(members)
    members.lose(EDGE)
    news(members)
    members.greeted(SUCCESSOR, greeting(HELLO, SUCCESSOR, "c2s", EDGE_AT), 1.0)
    assert news(members) == [PeerUp(SUCCESSOR, "c2s", EDGE_AT)], "its death is not told twice"


def test_late_words_of_the_former_run_do_not_touch_its_successor(members: Membership) -> None:
    # Rule 3: a late "c2s-0 is dead" must not detach a session that already lives in its successor.
    meet(members)
    meet(members, SUCCESSOR)
    assert members.greeted(EDGE, (GOODBYE, "stop"), 1.0)
    members.lose(EDGE)
    assert not members.heard(EDGE, 1.0)
    assert news(members) == []
    assert members.heard(SUCCESSOR, 1.0)


def test_the_same_name_in_another_role_is_another_process(members: Membership) -> None:
    meet(members)
    meet(members, Incarnation("c2s-0#0000000000000009"), "s2s", "tcp://192.0.2.9:7400")
    assert len(living(members)) == 2


def test_nobody_changes_its_role(members: Membership) -> None:
    # A captured edge could revive, or pose as, a router whose incarnation it knows.
    meet(members, ROUTER, "router", ROUTER_AT)
    assert not members.greeted(ROUTER, greeting(HELLO, ROUTER, "c2s", EDGE_AT), 1.0)
    members.tick(1.0 + DEAD_AFTER_S)
    assert news(members) == [PeerDown(ROUTER, "router")], "nor was it a sign of life"
    assert not members.greeted(ROUTER, greeting(HELLO, ROUTER, "c2s", EDGE_AT), 4.0)
    assert news(members) == []


def test_who_comes_back_may_have_moved(members: Membership) -> None:
    meet(members)
    members.lose(EDGE)
    meet(members, at="tcp://192.0.2.77:7400", now=1.0)
    assert members.peers[EDGE].address == "tcp://192.0.2.77:7400"


# --- what routers tell


def test_routers_that_are_named_are_greeted_at_once_unless_known() -> None:
    edge = Membership(EDGE, "c2s", EDGE_AT, DEAD_AFTER_S)
    edge.greeted(ME, greeting(WELCOME, ME, "router", MINE), 0.0)
    edge.nodes(((ME, "router", MINE), (ROUTER, "router", ROUTER_AT), (EDGE, "c2s", EDGE_AT)))
    assert said(edge) == [(ROUTER_AT, HELLO)]
    edge.tick(0.0)
    assert said(edge) == [(ROUTER_AT, HELLO)], "and again, until it answers"


def test_a_restarted_router_is_greeted_though_its_former_run_is_believed_alive() -> None:
    edge = Membership(EDGE, "c2s", EDGE_AT, DEAD_AFTER_S)
    edge.greeted(ME, greeting(WELCOME, ME, "router", MINE), 0.0)
    edge.tick(0.0)
    said(edge)
    successor = Incarnation("router-0#00000000000000ff")
    edge.nodes(((successor, "router", MINE),))
    assert said(edge) == [(MINE, HELLO)]
    news(edge)
    edge.greeted(successor, greeting(WELCOME, successor, "router", MINE), 0.2)
    assert news(edge) == [PeerDown(ME, "router"), PeerUp(successor, "router", MINE)]
