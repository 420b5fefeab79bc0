"""Stanzas, back-pressure, time-outs and the end of streams with other servers (s2s/stream.py; RFC 6120, 4 and 8)."""

from __future__ import annotations

import pytest

from cluster.edge import HELD_STANZAS
from cluster.wire import DETACH
from s2s.metrics import stats
from s2s.negotiation import State
from s2s.stream import CLOSE_WITHIN_S, LEAVE_WITHIN_S, SETTLE_WITHIN_S
from tests.support.federation import (
    BIDI,
    CLOSE,
    LOCAL,
    OFFERS_DIALBACK,
    OTHER,
    REMOTE,
    Certificate,
    Incoming,
    Outgoing,
)
from tests.support.streams import sample, stream_error
from xmpp import ns

PROVEN = Certificate((REMOTE, "rooms.capulet.example"))
LIMITS = f"<limits xmlns='{ns.STREAM_LIMITS}'><max-bytes>10000</max-bytes></limits>"


def signed_in(*before: str, **changes: object) -> Incoming:
    talk = Incoming(certificate=PROVEN, **changes)  # type: ignore[arg-type]  # settings
    talk.sign_in(*before)
    return talk


def authenticated() -> Outgoing:
    """An outgoing stream without stream management."""
    talk = Outgoing()
    talk.answer(OFFERS_DIALBACK)
    talk.valid()
    talk.heard()
    return talk


def stanza(id: str = "1", from_: str = f"juliet@{REMOTE}", to: str = f"romeo@{LOCAL}") -> str:
    return f"<message from='{from_}' to='{to}' id='{id}'/>"


# --- stanzas


@pytest.mark.parametrize(
    ("said", "condition"),
    [
        (stanza(from_="juliet@paris.example"), "invalid-from"),
        (stanza(from_="juliet@rooms.capulet.example"), "invalid-from"),  # its certificate would do, but nobody asked
        (stanza(from_=f"romeo@{LOCAL}"), "invalid-from"),
        (stanza(to="romeo@paris.example"), "host-unknown"),
        (stanza(to=f"romeo@{OTHER}"), "not-authorized"),
        (stanza(to="@"), "improper-addressing"),
        (stanza(from_="@"), "improper-addressing"),
        (f"<presence to='romeo@{LOCAL}'/>", "improper-addressing"),
        (f"<iq from='{REMOTE}' type='get' id='1'/>", "improper-addressing"),
    ],
)
def test_stanzas_of_other_domains_end_the_stream(said: str, condition: str) -> None:
    talk = signed_in()
    assert stream_error(talk.say(said)) == condition
    assert talk.server.got() == []


def test_addresses_are_prepared_and_the_language_of_the_stream_is_added() -> None:
    talk = Incoming(certificate=PROVEN)
    talk.open()
    talk.say(f"<auth xmlns='{ns.SASL}' mechanism='EXTERNAL'>=</auth>")
    talk.say(
        f"<stream:stream xmlns='jabber:server' xmlns:stream='{ns.STREAMS}' from='{REMOTE}' to='{LOCAL}' "
        "xml:lang='it' version='1.0'>"
    )
    talk.say(stanza(from_="Juliet@Capulet.Example/Balcony", to="Romeo@MONTAGUE.example"))
    (got,) = talk.server.got()
    assert (got.from_, got.to, got.lang) == ("juliet@capulet.example/Balcony", "romeo@montague.example", "it")


def test_stanzas_and_bytes_are_counted() -> None:
    talk = signed_in(BIDI)
    before = list(stats.stanzas_in), list(stats.stanzas_out), stats.bytes_in
    said = stanza() + f"<iq from='{REMOTE}' to='{LOCAL}' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>"
    talk.say(said)
    talk.server.send(REMOTE, LOCAL, "hello")
    assert [now - then for now, then in zip(stats.stanzas_in, before[0], strict=True)] == [0, 1, 0, 1]
    assert [now - then for now, then in zip(stats.stanzas_out, before[1], strict=True)] == [0, 1, 0, 0]
    assert stats.bytes_in - before[2] == len(said)


def test_a_stanza_that_the_peer_finds_too_large_is_answered_with_an_error() -> None:
    """XEP-0478, 4."""
    talk = Outgoing(certificate=PROVEN)
    talk.sign_in(LIMITS)
    talk.heard()
    talk.server.send(REMOTE, LOCAL, "first")
    talk.server.send(REMOTE, LOCAL, "x" * 10_000)
    talk.server.send(REMOTE, LOCAL, "last")
    written = talk.heard()
    assert ">first<" in written
    assert ">last<" in written
    assert "xxxx" not in written
    (error,) = talk.server.got()
    assert (error.type, error.from_, error.to) == ("error", f"juliet@{REMOTE}", f"romeo@{LOCAL}")
    assert b"policy-violation" in error.inner
    talk.stream.taken(talk.stream.written)
    assert talk.server.session(REMOTE, LOCAL).acknowledged == 3


def test_what_is_too_large_and_alone_counts_as_acknowledged_at_once() -> None:
    talk = signed_in(f"<bidi xmlns='{ns.BIDI}'>{LIMITS}</bidi>")
    talk.server.send(REMOTE, LOCAL, "x" * 10_000)
    assert talk.heard() == ""
    assert talk.server.session(REMOTE, LOCAL).acknowledged == 1


# --- acknowledgement without XEP-0198


def test_what_the_kernel_has_taken_is_acknowledged_in_order_over_all_pairs() -> None:
    talk = authenticated()
    talk.server.federation.dial(REMOTE, OTHER)
    talk.valid(local=OTHER)
    for number, local in enumerate([LOCAL, OTHER, OTHER, LOCAL]):
        talk.server.send(REMOTE, local, str(number))
    first, second = talk.server.session(REMOTE, LOCAL), talk.server.session(REMOTE, OTHER)
    talk.stream.taken(2)
    assert (first.acknowledged, second.acknowledged) == (1, 1)
    talk.stream.taken(4)
    assert (first.acknowledged, second.acknowledged) == (2, 2)


# --- back-pressure


def test_a_peer_that_sends_faster_than_we_confirm_is_paused_and_loses_nothing() -> None:
    talk = signed_in()
    talk.server.router.is_confirming = False
    session = talk.server.session(REMOTE, LOCAL)
    most = 0
    for first in range(0, 3_000, 50):
        if not talk.is_read():
            talk.server.router.confirm(session.sid)
        assert talk.is_read()
        talk.say("".join(stanza(str(n)) for n in range(first, first + 50)))
        most = max(most, len(session.held))
    assert [got.id for got in talk.server.got()] == [str(n) for n in range(3_000)]
    assert most < HELD_STANZAS + 50


def test_reading_goes_on_when_no_pair_is_paused_any_more() -> None:
    talk = signed_in()
    talk.show_key(from_="rooms.capulet.example")
    talk.server.router.is_confirming = False
    rooms = "hall@rooms.capulet.example"
    talk.say(stanza() * HELD_STANZAS, stanza(from_=rooms) * HELD_STANZAS)
    talk.server.router.confirm(talk.server.session(REMOTE, LOCAL).sid)
    assert not talk.is_read()
    talk.server.router.confirm(talk.server.session("rooms.capulet.example", LOCAL).sid)
    assert talk.is_read()


# --- time


def test_a_silent_stream_is_kept_alive_by_spaces_and_closed_when_idle() -> None:
    talk = signed_in(idle_timeout_s=300.0)
    assert talk.tick(121) == " "
    talk.say(" ")
    assert talk.tick(100) == ""
    assert talk.tick(100) == CLOSE
    assert talk.stream.state is State.LEAVING


def test_a_stanza_in_either_direction_keeps_a_stream_from_being_idle() -> None:
    talk = signed_in(BIDI, idle_timeout_s=300.0, keepalive_s=1_000.0)
    talk.tick(200)
    talk.say(stanza())
    talk.tick(200)
    talk.server.send(REMOTE, LOCAL, "hello")
    talk.stream.taken(1)
    talk.heard()
    assert talk.tick(200) == ""
    assert talk.tick(200) == CLOSE


def test_a_stream_with_something_unacknowledged_or_unconfirmed_is_not_idle() -> None:
    talk = signed_in(BIDI, idle_timeout_s=300.0, keepalive_s=1_000.0)
    talk.server.send(REMOTE, LOCAL, "hello")
    talk.heard()
    assert talk.tick(400) == ""
    talk.stream.taken(1)
    talk.server.router.is_confirming = False
    talk.say(stanza())
    assert talk.tick(400) == ""
    talk.server.router.confirm(talk.server.session(REMOTE, LOCAL).sid)
    assert talk.tick(1) == CLOSE


# --- the end


def test_a_peer_that_closes_is_answered_when_all_it_sent_is_confirmed() -> None:
    talk = signed_in()
    talk.server.router.is_confirming = False
    assert talk.say(stanza() + CLOSE) == ""
    assert talk.stream.state is State.CLOSING
    talk.server.router.confirm(next(iter(talk.server.edge.sessions)))
    talk.server.router.pump()
    assert talk.heard() == CLOSE
    assert talk.is_over()


def test_it_is_not_kept_waiting_for_ever() -> None:
    talk = signed_in()
    talk.server.router.is_confirming = False
    talk.say(stanza() + CLOSE)
    assert talk.tick(CLOSE_WITHIN_S + 1) == CLOSE
    assert talk.is_over()
    assert len(talk.server.edge.sessions) == 1  # held until the owner has it


def test_we_close_when_what_was_written_is_acknowledged_and_read_on_until_the_peer_closes() -> None:
    talk = signed_in(BIDI)
    talk.server.send(REMOTE, LOCAL, "written")
    talk.stream.shut_down()
    talk.server.send(REMOTE, LOCAL, "too late")
    assert "too late" not in talk.heard()
    assert talk.stream.state is State.SETTLING
    talk.stream.taken(1)
    assert stream_error(talk.heard()) == "system-shutdown"
    assert not talk.is_over()
    talk.say(stanza("on its way"))
    talk.say(CLOSE)
    assert talk.is_over()
    assert [got.id for got in talk.server.got()] == ["on its way"]
    assert talk.server.router.of_kind(DETACH)[0][2] == "system-shutdown"


def test_what_came_too_late_to_be_written_is_not_acknowledged() -> None:
    talk = signed_in(BIDI)
    session = talk.server.session(REMOTE, LOCAL)
    talk.server.send(REMOTE, LOCAL, "written")
    talk.stream.shut_down()
    talk.server.send(REMOTE, LOCAL, "too late")
    talk.stream.taken(1)
    talk.say(CLOSE)
    assert session.acknowledged == 1
    assert [stanza.id for _, _, stanza in session.unacknowledged] == ["too late"]


def test_a_peer_that_neither_takes_nor_closes_is_not_waited_for() -> None:
    talk = signed_in(BIDI)
    talk.server.send(REMOTE, LOCAL, "written")
    talk.stream.shut_down()
    talk.heard()
    assert stream_error(talk.tick(SETTLE_WITHIN_S + 1)) == "system-shutdown"
    assert talk.tick(LEAVE_WITHIN_S + 1) == ""
    assert talk.is_over()


def test_a_stream_on_which_nothing_can_come_is_closed_without_waiting() -> None:
    talk = authenticated()
    talk.stream.shut_down()
    talk.server.router.pump()
    assert stream_error(talk.heard()) == "system-shutdown"
    assert talk.is_over()


def test_a_stream_that_is_being_negotiated_is_shut_down_at_once() -> None:
    talk = Incoming()
    talk.open()
    talk.stream.shut_down()
    assert stream_error(talk.heard()) == "system-shutdown"
    assert talk.is_over()


@pytest.mark.parametrize("how", ["eof", "lost"])
def test_a_lost_connection_leaves_what_was_read_to_be_confirmed(how: str) -> None:
    talk = signed_in()
    talk.server.router.is_confirming = False
    talk.say(stanza())
    if how == "eof":
        talk.stream.receive_eof()
    else:
        talk.stream.connection_lost()
    assert talk.server.router.of_kind(DETACH) == []
    [session] = talk.server.edge.sessions.values()
    assert session.is_closing
    assert session.reason == "connection-lost"
    talk.server.router.confirm(session.sid)
    assert [fields[2] for fields in talk.server.router.of_kind(DETACH)] == ["connection-lost"]
    talk.server.router.pump()
    assert talk.server.edge.sessions == {}


def test_a_session_that_is_revoked_ends_the_stream() -> None:
    talk = signed_in()
    talk.server.router.revoke(talk.server.session(REMOTE, LOCAL).sid, "conflict")
    assert stream_error(talk.heard()) == "conflict"


def test_an_error_of_the_peer_ends_the_stream_without_one_of_ours() -> None:
    talk = signed_in()
    before = sample("stentor_s2s_stream_errors_total", direction="in", condition="reset")
    said = "<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
    assert talk.say(said + stanza()) == CLOSE
    assert talk.is_over()
    assert talk.server.got() == []
    assert sample("stentor_s2s_stream_errors_total", direction="in", condition="reset") == before + 1


def test_what_came_before_a_violation_is_submitted_all_the_same() -> None:
    talk = signed_in()
    assert stream_error(talk.say(stanza("1") + "<!-- -->" + stanza("2"))) == "restricted-xml"
    assert [got.id for got in talk.server.got()] == ["1"]
