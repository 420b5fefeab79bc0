"""Stream management between servers (s2s/management.py; XEP-0198): one count for all pairs of a stream."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s.management import ACK_WITHIN_S
from s2s.negotiation import State
from tests.support.federation import (
    BIDI,
    CLOSE,
    LOCAL,
    OFFERS_DIALBACK,
    OFFERS_SM,
    OTHER,
    REMOTE,
    Certificate,
    Incoming,
    Outgoing,
)
from tests.support.streams import stream_error
from xmpp import ns

ENABLE = f"<enable xmlns='{ns.SM}'/>"
ENABLED = f"<enabled xmlns='{ns.SM}'/>"
REQUEST = f"<r xmlns='{ns.SM}'/>"
WRITTEN_REQUEST = f'<r xmlns="{ns.SM}"/>'


def ack(h: object) -> str:
    return f"<a xmlns='{ns.SM}' h='{h}'/>"


def written_ack(h: int) -> str:
    return f'<a xmlns="{ns.SM}" h="{h}"/>'


def stanza(id: str = "1", to: str = LOCAL) -> str:
    return f"<message from='juliet@{REMOTE}' to='romeo@{to}' id='{id}'/>"


def incoming(*before: str) -> Incoming:
    """With two pairs, and stream management."""
    talk = Incoming(certificate=Certificate((REMOTE,)))
    talk.sign_in(*before)
    assert 'type="valid"' in talk.show_key(to=OTHER)
    assert talk.say(ENABLE) == f'<enabled xmlns="{ns.SM}"/>'
    return talk


def outgoing() -> Outgoing:
    """Likewise."""
    talk = Outgoing()
    talk.answer(OFFERS_DIALBACK, OFFERS_SM)
    assert talk.valid() == f'<enable xmlns="{ns.SM}"/>'
    talk.server.federation.dial(REMOTE, OTHER)
    talk.valid(local=OTHER)
    talk.say(ENABLED)
    talk.heard()
    return talk


def acknowledged(talk: Outgoing | Incoming) -> tuple[int, int]:
    return talk.server.session(REMOTE, LOCAL).acknowledged, talk.server.session(REMOTE, OTHER).acknowledged


# --- what we read


def test_we_acknowledge_what_is_confirmed_in_the_order_in_which_it_was_read() -> None:
    talk = incoming()
    talk.server.router.is_confirming = False
    assert talk.say(stanza("1"), stanza("2", OTHER), stanza("3")) == ""
    assert talk.say(REQUEST) == written_ack(0)
    talk.server.router.confirm(talk.server.session(REMOTE, OTHER).sid)
    assert talk.heard() == written_ack(0)  # the first one is not safe yet
    talk.server.router.confirm(talk.server.session(REMOTE, LOCAL).sid)
    assert talk.heard() == written_ack(3)


def test_only_stanzas_behind_enable_count() -> None:
    talk = Incoming(certificate=Certificate((REMOTE,)))
    talk.sign_in()
    talk.say(stanza(), ENABLE, stanza())
    assert talk.say(REQUEST) == written_ack(1)


def test_enable_comes_after_authentication_and_once() -> None:
    talk = Incoming()
    talk.open()
    assert talk.say(ENABLE) == (
        f'<failed xmlns="{ns.SM}"><unexpected-request xmlns="{ns.STANZAS}"/></failed>'
    )  # fmt: skip
    talk = incoming()
    assert stream_error(talk.say(ENABLE)) == "policy-violation"


@pytest.mark.parametrize("said", [REQUEST, ack(0), ENABLED])
def test_nothing_of_it_is_understood_before_it_is_enabled(said: str) -> None:
    talk = Incoming(certificate=Certificate((REMOTE,)))
    talk.sign_in()
    assert stream_error(talk.say(said)) == "unsupported-stanza-type"


@given(st.lists(st.one_of(st.sampled_from([LOCAL, OTHER]), st.sampled_from(["confirm", "confirm other"])), max_size=30))
def test_h_never_covers_a_stanza_that_is_not_confirmed(steps: list[str]) -> None:
    talk = incoming()
    talk.server.router.is_confirming = False
    read: list[str] = []
    safe = {LOCAL: 0, OTHER: 0}  # how many of each pair's stanzas are confirmed
    for step in steps:
        if step in safe:
            read.append(step)
            talk.say(stanza(to=step))
            continue
        local = LOCAL if step == "confirm" else OTHER
        talk.server.router.confirm(talk.server.session(REMOTE, local).sid)
        safe[local] = read.count(local)
    talk.heard()
    h = int(re.findall(r'h="(\d+)"', talk.say(REQUEST))[-1])
    assert all(read[:h].count(local) <= safe[local] for local in safe)
    assert h == len(read) or read[: h + 1].count(read[h]) > safe[read[h]]


# --- what we write


def test_the_peer_acknowledges_in_the_order_in_which_we_wrote() -> None:
    talk = outgoing()
    for number, local in enumerate([LOCAL, OTHER, OTHER, LOCAL]):
        talk.server.send(REMOTE, local, str(number))
    assert talk.heard().count(WRITTEN_REQUEST) == 1
    talk.stream.taken(4)
    assert acknowledged(talk) == (0, 0)
    assert talk.say(ack(2)) == WRITTEN_REQUEST  # there is more
    assert acknowledged(talk) == (1, 1)
    assert talk.say(ack(4)) == ""
    assert acknowledged(talk) == (2, 2)


def test_a_peer_that_refuses_acknowledges_by_its_kernel() -> None:
    talk = Outgoing()
    talk.answer(OFFERS_DIALBACK, OFFERS_SM)
    talk.valid()
    talk.server.send(REMOTE, LOCAL, "hello")
    talk.stream.taken(1)
    assert talk.server.session(REMOTE, LOCAL).acknowledged == 0
    talk.say(f"<failed xmlns='{ns.SM}'/>")
    talk.stream.taken(1)
    assert talk.server.session(REMOTE, LOCAL).acknowledged == 1


def test_what_was_written_before_enable_is_not_counted() -> None:
    talk = Incoming(certificate=Certificate((REMOTE,)))
    talk.sign_in(BIDI)
    talk.server.send(REMOTE, LOCAL, "before")
    talk.say(ENABLE)
    talk.server.send(REMOTE, LOCAL, "behind")
    talk.stream.taken(2)
    assert talk.server.session(REMOTE, LOCAL).acknowledged == 1
    talk.say(ack(1))
    assert talk.server.session(REMOTE, LOCAL).acknowledged == 2


def test_an_acknowledgement_of_more_than_was_sent_ends_the_stream() -> None:
    talk = outgoing()
    talk.server.send(REMOTE, LOCAL, "hello")
    written = talk.say(ack(2))
    assert f'<handled-count-too-high xmlns="{ns.SM}" h="2" send-count="1"/>' in written
    assert "undefined-condition" in written
    assert talk.is_over()


@pytest.mark.parametrize("h", ["", "-1", "x", 2**32])
def test_an_acknowledgement_that_is_no_number_ends_the_stream(h: object) -> None:
    talk = outgoing()
    assert stream_error(talk.say(ack(h))) == "bad-format"


def test_a_peer_that_does_not_answer_is_gone() -> None:
    talk = outgoing()
    session = talk.server.session(REMOTE, LOCAL)
    talk.server.send(REMOTE, LOCAL, "hello")
    talk.heard()
    assert talk.tick(ACK_WITHIN_S - 1) == ""
    assert stream_error(talk.tick(2)) == "connection-timeout"
    assert [stanza.id for _, _, stanza in session.unacknowledged] == ["hello"]  # its owner sends it elsewhere


# --- the end


def test_at_the_end_we_wait_for_the_last_acknowledgement() -> None:
    talk = outgoing()
    talk.server.send(REMOTE, LOCAL, "hello")
    talk.stream.shut_down()
    talk.stream.taken(1)
    assert talk.stream.state is State.SETTLING
    talk.heard()
    assert stream_error(talk.say(ack(1))) == "system-shutdown"
    assert talk.is_over()


def test_the_peer_learns_how_far_we_have_read_and_nothing_more_is_read() -> None:
    talk = incoming()
    talk.server.router.is_confirming = False
    talk.say(stanza("1"))
    talk.stream.shut_down()
    talk.say(stanza("2"))  # the peer will know that it did not arrive
    assert talk.heard() == ""
    talk.server.router.confirm(talk.server.session(REMOTE, LOCAL).sid)
    talk.server.router.pump()
    written = talk.heard()
    assert written.startswith(written_ack(1))
    assert stream_error(written) == "system-shutdown"
    assert [got.id for got in talk.server.got()] == ["1"]


def test_a_peer_that_closes_learns_it_too() -> None:
    talk = incoming()
    assert talk.say(stanza() + CLOSE) == written_ack(1) + CLOSE
