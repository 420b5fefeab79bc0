"""Stanzas, back-pressure, time-outs and the end of a client's stream (c2s/stream.py; RFC 6120, 4 and 8)."""

from __future__ import annotations

import re

import pytest
from prometheus_client import REGISTRY

from c2s.metrics import stats
from c2s.stream import CLOSE_WITHIN_S
from cluster.edge import HELD_STANZAS
from cluster.wire import DETACH, SUBMIT
from tests.support.streams import (
    BIND,
    CLOSE,
    DOMAIN,
    HEADER,
    ROMEO,
    STARTTLS,
    Talk,
    auth,
    closed,
    plain,
    sample,
    stream_error,
)
from xmpp import errors
from xmpp.stanza import BAD_TO, message

JID = f"{ROMEO}/generated"


# --- stanzas (RFC 6120, 8)


@pytest.mark.parametrize(
    "from_", [f"juliet@{DOMAIN}", f"{ROMEO}/another", DOMAIN, "", "@", "romeo@capulet.example/generated"]
)
def test_a_forged_from_ends_the_stream(from_: str) -> None:
    """RFC 6120, 8.1.2.1."""
    talk = Talk()
    talk.bind()
    assert stream_error(talk.say(f"<message from='{from_}' to='juliet@{DOMAIN}'/>")) == "invalid-from"
    assert talk.router.submitted() == []


@pytest.mark.parametrize("from_", ["", f" from='{ROMEO}'", f" from='{JID}'", f" from='ROMEO@{DOMAIN}/generated'"])
def test_ones_own_from_becomes_the_full_jid(from_: str) -> None:
    talk = Talk()
    talk.bind()
    talk.say(f"<message{from_} to='juliet@{DOMAIN}'/>")
    assert [stanza.from_ for stanza in talk.router.submitted()] == [JID]


def test_to_is_prepared_and_what_is_none_is_left_for_the_owner_to_refuse() -> None:
    talk = Talk()
    talk.bind()
    talk.say("<message to='Juliet@Capulet.Example/Room'/><message to='@'/><message/>")
    to = [(stanza.to, stanza.flags & BAD_TO) for stanza in talk.router.submitted()]
    assert to == [("juliet@capulet.example/Room", 0), (None, BAD_TO), (None, 0)]


def test_the_language_of_the_stream_is_that_of_its_stanzas() -> None:
    """RFC 6120, 8.1.5."""
    talk = Talk()
    talk.open()
    talk.say(auth("PLAIN", plain()), HEADER.replace("version", "xml:lang='de' version"), BIND)
    talk.say("<message/><message xml:lang='it'/><presence/><iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>")
    assert [stanza.lang for stanza in talk.router.submitted()] == ["de", "it", "de", "de"]


def test_without_a_language_of_the_stream_none_is_added() -> None:
    talk = Talk()
    talk.bind()
    talk.say("<message/>")
    assert [stanza.lang for stanza in talk.router.submitted()] == [None]


def test_elements_that_are_no_stanzas_end_a_bound_stream() -> None:
    talk = Talk()
    talk.bind()
    assert stream_error(talk.say("<a xmlns='urn:unknown'/>")) == "unsupported-stanza-type"


def test_what_came_before_a_violation_is_submitted_all_the_same() -> None:
    talk = Talk()
    talk.bind()
    assert stream_error(talk.say("<message id='1'/><!-- --><message id='2'/>")) == "restricted-xml"
    assert [stanza.id for stanza in talk.router.submitted()] == ["1"]


def test_a_delivered_stanza_is_written_with_the_address_of_the_session() -> None:
    talk = Talk()
    talk.bind()
    talk.router.deliver(talk.sid, message(to=None, from_="juliet@capulet.example", inner=b"<body>hi</body>"))
    assert talk.heard() == f'<message to="{ROMEO}" from="juliet@capulet.example"><body>hi</body></message>'


def test_stanzas_are_counted_by_direction_and_kind() -> None:
    talk = Talk()
    talk.bind()
    before_in, before_out, bytes_in = list(stats.stanzas_in), list(stats.stanzas_out), stats.bytes_in
    sent = "<message/><message/><iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>"
    talk.say(sent)
    talk.router.deliver(talk.sid, message(to=None, from_=DOMAIN))
    assert [now - then for now, then in zip(stats.stanzas_in, before_in, strict=True)] == [0, 2, 0, 1]
    assert [now - then for now, then in zip(stats.stanzas_out, before_out, strict=True)] == [0, 1, 0, 0]
    assert stats.bytes_in - bytes_in == len(sent)


# --- back-pressure


def test_a_client_that_sends_ten_thousand_stanzas_is_paused_and_loses_none() -> None:
    talk = Talk()
    talk.bind()
    talk.router.is_confirming = False
    session = talk.edge.sessions[talk.sid]
    sent, most_held = 0, 0
    data = [b"".join(b"<message id='%d'/>" % n for n in range(first, first + 50)) for first in range(0, 10_000, 50)]
    while sent < len(data):
        if talk.is_read():
            talk.stream.receive_data(data[sent])
            sent += 1
        else:
            assert session.is_paused
            talk.router.pump()
            talk.router.confirm(talk.sid)
        most_held = max(most_held, len(session.held))
    assert [stanza.id for stanza in talk.router.submitted()] == [str(n) for n in range(10_000)]
    assert most_held < HELD_STANZAS + 50
    assert not talk.is_over()


def test_a_paused_client_is_not_idle_and_its_silence_begins_when_it_is_read_again() -> None:
    talk = Talk()
    talk.bind()
    talk.router.is_confirming = False
    talk.say("<message/>" * HELD_STANZAS)
    assert not talk.is_read()
    talk.tick(1_900)
    talk.router.confirm(talk.sid)
    assert talk.is_read()
    talk.tick(1_000)
    assert not talk.is_over()
    assert stream_error(talk.tick(900)) == "connection-timeout"


# --- time


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_who_does_not_bind_in_time_is_disconnected(steps: int) -> None:
    talk = Talk()
    talk.say(*[HEADER, auth("PLAIN", plain()), HEADER][:steps])
    assert talk.tick(29) == ""
    written = talk.tick(2)
    assert stream_error(written) == "connection-timeout"
    assert written.startswith("<?xml") == (steps in (0, 2)), "our header, where there was none yet"


def test_input_does_not_put_off_the_login_timeout() -> None:
    talk = Talk()
    talk.open()
    for _ in range(3):
        talk.say(" ")
        talk.tick(9)
    assert stream_error(talk.tick(9)) == "connection-timeout"


def test_a_silent_client_gets_keepalives_then_is_disconnected() -> None:
    talk = Talk()
    talk.bind()
    written = "".join(talk.tick(60) for _ in range(30))
    assert set(written) == {" "}
    assert 9 <= len(written) <= 15, "a space after each 120 s of silence"
    assert stream_error(talk.tick(1)) == "connection-timeout"


def test_white_space_is_a_sign_of_life() -> None:
    talk = Talk()
    talk.bind()
    for _ in range(4):
        talk.tick(900)
        talk.say(" ")
    assert not talk.is_over()


def test_a_stream_goes_on_after_its_parser_has_slept() -> None:
    talk = Talk()
    talk.bind()
    talk.tick(5)
    talk.say("<message id='1'/><mess")
    talk.tick(5)
    talk.say("age id='2'/>")
    assert [stanza.id for stanza in talk.router.submitted()] == ["1", "2"]


# --- ends (RFC 6120, 4.4 and 4.9)


def test_a_close_before_binding_is_answered_at_once() -> None:
    talk = Talk()
    talk.open()
    before = closed("client")
    assert talk.say(CLOSE) == CLOSE
    assert talk.is_over()
    assert closed("client") == before + 1


def test_a_close_is_answered_when_everything_sent_before_is_confirmed() -> None:
    talk = Talk()
    talk.bind()
    sid = talk.sid
    talk.router.is_confirming = False
    assert talk.say("<message/>", CLOSE) == ""
    assert not talk.is_over()
    assert talk.router.of_kind(DETACH) == []
    talk.router.confirm(sid)
    assert talk.router.of_kind(DETACH) == [(sid, 1, "client")]
    talk.router.pump()
    assert talk.heard() == CLOSE
    assert talk.is_over()
    assert talk.edge.sessions == {}


def test_deliveries_go_on_until_the_close_is_answered() -> None:
    talk = Talk()
    talk.bind()
    talk.router.is_answering = False
    sid = talk.sid
    talk.say(CLOSE)
    talk.router.deliver(sid, message(to=None, from_=DOMAIN))
    talk.router.is_answering = True
    talk.router.pump()
    assert re.fullmatch(r"<message [^>]*/></stream:stream>", talk.heard())


def test_an_owner_that_is_away_does_not_keep_a_closing_client() -> None:
    talk = Talk()
    talk.bind()
    sid = talk.sid
    talk.router.is_answering = False
    talk.say("<message id='1'/>", CLOSE)
    for _ in range(5):
        talk.stream.receive_data(b" ")  # what it sends now does not put off the end
        talk.tick(CLOSE_WITHIN_S / 4)
    assert talk.is_over()
    assert talk.transport.written.endswith(CLOSE.encode())
    assert [stanza.id for _, stanza in talk.edge.sessions[sid].held] == ["1"], "it is still held"
    talk.router.is_answering = True
    talk.router.pump()
    assert talk.edge.sessions == {}


def test_nothing_is_read_behind_the_clients_close() -> None:
    talk = Talk()
    talk.bind()
    before = closed("client")
    assert talk.say("<message/>" + CLOSE + "<message/>") == CLOSE
    assert len(talk.router.submitted()) == 1
    assert closed("client") == before + 1


def test_a_connection_that_ends_while_its_close_is_confirmed_was_closed_by_the_client() -> None:
    before = closed("client")
    for act in "connection_lost", "receive_eof":
        talk = Talk()
        talk.bind()
        talk.router.is_answering = False
        talk.say(CLOSE)
        getattr(talk.stream, act)()
    assert closed("client") == before + 2


@pytest.mark.parametrize(("act", "reason"), [("connection_lost", "connection-lost"), ("receive_eof", "client-eof")])
def test_a_lost_connection_detaches_its_session_once_what_was_sent_is_confirmed(act: str, reason: str) -> None:
    talk = Talk()
    talk.bind()
    sid = talk.sid
    talk.router.is_confirming = False
    talk.say("<message/>")
    before = closed(reason)
    getattr(talk.stream, act)()
    assert closed(reason) == before + 1
    talk.router.pump()
    assert talk.router.of_kind(DETACH) == []
    talk.router.confirm(sid)
    assert talk.router.of_kind(DETACH) == [(sid, 1, reason)]
    talk.router.pump()
    assert talk.edge.sessions == {}
    assert talk.heard() == (CLOSE if act == "receive_eof" else "")


def test_a_client_that_ends_its_half_gets_the_end_of_the_stream() -> None:
    """RFC 6120, 4.4: the stream is closed by a closing tag, whoever begins."""
    closing = Talk()
    closing.bind()
    closing.router.is_answering = False
    assert closing.say(CLOSE) == "", "what was sent is not confirmed yet"
    opened, bound = Talk(), Talk()
    opened.open()
    bound.bind()
    for talk in opened, bound, closing:
        talk.heard()
        talk.stream.receive_eof()
        assert talk.heard() == CLOSE
        assert talk.is_over()


def test_where_no_stream_is_open_none_is_closed() -> None:
    silent, encrypting, signed_in = Talk(), Talk(), Talk()
    encrypting.open()
    encrypting.say(STARTTLS)
    signed_in.open()
    assert "<success" in signed_in.say(auth("PLAIN", plain()))
    for talk in silent, encrypting, signed_in:
        talk.stream.receive_eof()
        assert talk.heard() == ""
        assert talk.is_over()


def test_a_connection_that_is_lost_while_binding_leaves_no_session() -> None:
    talk = Talk()
    talk.sign_in()
    talk.router.is_answering = False
    talk.say(BIND)
    talk.stream.connection_lost()
    talk.router.is_answering = True
    talk.router.pump()
    assert talk.edge.sessions == {}
    assert [fields[2] for fields in talk.router.of_kind(DETACH)] == ["connection-lost"]


def test_nothing_is_written_or_read_after_the_end() -> None:
    """The session may outlive its stream for a while; the transport would refuse a write."""
    talk = Talk()
    talk.bind()
    sid = talk.sid
    talk.router.is_confirming = False
    talk.say("<message/>" * HELD_STANZAS)
    assert not talk.is_read()
    stanzas_out = sum(stats.stanzas_out)
    assert stream_error(talk.say("<!-- -->")) == "restricted-xml"
    talk.router.deliver(sid, message(to=None, from_=DOMAIN))
    talk.say("<message/>")
    talk.stream.fail(errors.Reset())
    talk.stream.shut_down()
    talk.tick(4_000)
    talk.router.confirm(sid)  # would read again
    talk.router.pump()
    assert talk.heard() == ""
    assert talk.edge.sessions == {}
    assert sum(stats.stanzas_out) == stanzas_out
    assert {fields[2] for fields in talk.router.of_kind(SUBMIT)} == set(range(1, HELD_STANZAS + 1))


def test_a_drain_tells_clients_to_come_back_elsewhere() -> None:
    """RFC 6120, 4.9.3.20."""
    talk = Talk()
    talk.bind()
    sid = talk.sid
    before = closed("system-shutdown")
    talk.stream.shut_down()
    assert stream_error(talk.heard()) == "system-shutdown"
    assert talk.router.of_kind(DETACH) == [(sid, 1, "system-shutdown")]
    assert closed("system-shutdown") == before + 1


def test_a_drain_reaches_a_client_that_has_not_said_anything_yet() -> None:
    talk = Talk()
    talk.stream.shut_down()
    written = talk.heard()
    assert written.startswith("<?xml")
    assert stream_error(written) == "system-shutdown"


@pytest.mark.parametrize("condition", ["conflict", "resource-constraint", "reset"])
def test_a_revoked_session_ends_its_stream_with_the_owners_word(condition: str) -> None:
    talk = Talk()
    talk.bind()
    before = sample("stentor_c2s_stream_errors_total", condition=condition)
    talk.router.revoke(talk.sid, condition)
    assert stream_error(talk.heard()) == condition
    assert sample("stentor_c2s_stream_errors_total", condition=condition) == before + 1
    assert talk.router.of_kind(DETACH) == []


def test_a_session_revoked_without_a_word_ends_its_stream_without_an_error() -> None:
    talk = Talk()
    talk.bind()
    before = closed("revoked")
    talk.router.revoke(talk.sid, "")
    assert talk.heard() == CLOSE
    assert closed("revoked") == before + 1


def test_every_stream_that_was_opened_is_closed_once_in_the_counts() -> None:
    def totals() -> tuple[float, float]:
        opened = sum(sample("stentor_c2s_connections_opened_total", transport=name) for name in ("tcp", "tls"))
        metric = next(m for m in REGISTRY.collect() if m.name == "stentor_c2s_connections_closed")
        return opened, sum(s.value for s in metric.samples if s.name.endswith("_total"))

    opened, ended = totals()
    for index in range(6):
        talk = Talk(is_secure=index % 2 == 0)
        talk.bind()
        talk.router.is_answering = index % 3 == 0
        talk.say(CLOSE if index < 4 else "<!-- -->")
        talk.stream.connection_lost()
        talk.stream.receive_eof()
    now = totals()
    assert (now[0] - opened, now[1] - ended) == (6, 6)


# --- the limit of sessions of a process


def test_a_process_that_is_full_says_so_before_anybody_signs_in() -> None:
    first = Talk(sessions=1)
    first.bind()
    written = Talk(sessions=1, router=first.router, clock=first.clock).open()
    assert written.startswith("<?xml")
    assert stream_error(written) == "resource-constraint"
    first.say(CLOSE)
    assert "<stream:features>" in Talk(sessions=1, router=first.router, clock=first.clock).open()


def test_a_process_that_has_become_full_meanwhile_binds_nobody() -> None:
    first = Talk(sessions=1)
    first.sign_in()
    second = Talk(sessions=1, router=first.router, clock=first.clock)
    second.bind()
    assert stream_error(first.say(BIND)) == "resource-constraint"
    assert len(first.edge.sessions) == 1
