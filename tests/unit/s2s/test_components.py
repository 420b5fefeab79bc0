"""A component's stream (s2s/components.py; XEP-0114): header, handshake, stanzas, back-pressure, ends."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha1
from itertools import count
from typing import Any

import pytest
from structlog.testing import capture_logs

from cluster.edge import HELD_STANZAS, Edge
from cluster.wire import ATTACH, DETACH, SUBMIT, SessionId
from s2s.component_metrics import CLOSE_REASONS, stats
from s2s.components import CLOSE_WITHIN_S, LEAVE_WITHIN_S, ComponentSettings, ComponentStream, State
from tests.support.streams import DOMAIN, Clock, FakeTransport, Router, sample, stanza_error, stream_error
from xmpp import errors, ns
from xmpp.stanza import HAS_ERROR, message
from xmpp.stream import Limits

IRC = f"irc.{DOMAIN}"
SECRET = "o teach me how I should forget"
ROMEO = f"romeo@{DOMAIN}"
CLOSE = "</stream:stream>"
SETTINGS = ComponentSettings(
    server=DOMAIN,
    secrets={IRC: SECRET, f"sms.{DOMAIN}": "a different secret"},
    limits=Limits(),
    login_timeout_s=30.0,
    keepalive_s=120.0,
)


def header(to: str = IRC) -> str:
    return f"<stream:stream xmlns='{ns.COMPONENT}' xmlns:stream='{ns.STREAMS}' to='{to}'>"


def handshake(stream_id: str = "stream-1", secret: str = SECRET) -> str:
    return f"<handshake>{sha1((stream_id + secret).encode()).hexdigest()}</handshake>"


class Talk:
    """One component's conversation with its stream."""

    def __init__(self, **changes: Any) -> None:
        self.clock = Clock()
        self.transport = FakeTransport()
        self.router = Router()
        requests, ids = count(1), count(1)
        self.edge = self.router.edge = Edge(self.router.send, lambda: f"request-{next(requests)}", self.clock)
        self.router.own_everything()
        self.stream = ComponentStream(
            self.transport, self.edge, replace(SETTINGS, **changes), lambda: f"stream-{next(ids)}", self.clock
        )
        self._read = 0

    @property
    def sid(self) -> SessionId:
        """The attached session."""
        assert self.stream.session is not None
        return self.stream.session.sid

    def is_read(self) -> bool:
        """Whether input is taken."""
        return self.transport.is_reading

    def say(self, *pieces: str) -> str:
        """Send each piece; what has been written since the last time."""
        for piece in pieces:
            self.stream.receive_data(piece.encode())
            self.router.pump()
        return self.heard()

    def heard(self) -> str:
        """What has been written since the last time."""
        new, self._read = self.transport.written[self._read :], len(self.transport.written)
        return new.decode()

    def tick(self, seconds: float) -> str:
        """Let time pass; what was written then."""
        self.clock.now += seconds
        self.edge.tick()
        self.stream.check_time()
        self.router.pump()
        return self.heard()

    def join(self) -> None:
        """A component that has proved itself."""
        assert self.say(header(), handshake()).endswith("<handshake/>")

    def lose(self) -> None:
        """The connection is gone; the owner answers."""
        self.stream.connection_lost()
        self.router.pump()


def handshakes(result: str) -> float:
    return sample("stentor_components_handshakes_total", result=result)


def closed(reason: str) -> float:
    return sample("stentor_components_connections_closed_total", reason=reason)


# --- header and handshake (XEP-0114, 3)


def test_the_header_is_answered_with_ours_without_version_and_features() -> None:
    written = Talk().say(f"<?xml version='1.0'?>{header()}")
    assert written == (
        f'<?xml version="1.0"?><stream:stream xmlns="jabber:component:accept" xmlns:stream="{ns.STREAMS}" '
        f'from="{IRC}" id="stream-1">'
    )


def test_a_component_that_knows_the_secret_is_attached_to_its_domain() -> None:
    talk = Talk()
    before = handshakes("ok")
    talk.say(header())
    assert talk.say(handshake()) == "<handshake/>"
    assert talk.stream.state is State.BOUND
    assert handshakes("ok") == before + 1
    facts = {"kind": "component", "local": "", "sends": True, "address": "192.0.2.1", "transport": "tcp"}
    assert [fields[1:] for fields in talk.router.of_kind(ATTACH)] == [(IRC, None, facts)]


def test_everything_may_come_at_once_or_byte_by_byte() -> None:
    text = f"{header()}{handshake()}<message to='{ROMEO}' id='1'/><message to='{ROMEO}' id='2'/>"
    for pieces in [text], list(text):
        talk = Talk()
        assert talk.say(*pieces).endswith("<handshake/>")
        assert [stanza.id for stanza in talk.router.submitted()] == ["1", "2"]


@pytest.mark.parametrize(
    "text",
    [
        handshake(secret="another secret"),
        handshake(stream_id="stream-2"),
        handshake().replace("<handshake>", "<handshake>0"),
        "<handshake/>",
        "<handshake>é</handshake>",
    ],
)
def test_a_wrong_secret_is_refused_logged_and_counted(text: str) -> None:
    talk = Talk()
    before, closed_before = handshakes("wrong-secret"), closed("not-authorized")
    with capture_logs() as logs:
        written = talk.say(header(), text)
    assert stream_error(written) == "not-authorized"
    assert talk.transport.is_closed
    assert talk.router.sent == []
    assert handshakes("wrong-secret") == before + 1
    assert closed("not-authorized") == closed_before + 1
    (line,) = [line for line in logs if line["event"] == "component_refused"]
    assert line["domain"] == IRC
    assert f'components.domains."{IRC}".secret' in line["remedy"]
    assert SECRET not in str(logs)


def test_each_component_has_a_secret_of_its_own() -> None:
    sms = f"sms.{DOMAIN}"
    assert stream_error(Talk().say(header(sms), handshake())) == "not-authorized"
    assert Talk().say(header(sms), handshake(secret="a different secret")).endswith("<handshake/>")


@pytest.mark.parametrize("form", ["a<b&c>d", "a&lt;b&amp;c&gt;d"])
def test_a_secret_that_xml_would_escape_is_known_in_both_forms(form: str) -> None:
    talk = Talk(secrets={IRC: "a<b&c>d"})
    assert talk.say(header(), handshake(secret=form)).endswith("<handshake/>")


def test_white_space_around_the_handshake_does_not_matter() -> None:
    talk = Talk()
    assert talk.say(header(), handshake().replace("</", "\n</")).endswith("<handshake/>")


@pytest.mark.parametrize(
    ("to", "condition"),
    [
        (DOMAIN, "host-unknown"),
        ("irc.capulet.example", "host-unknown"),
        (f"romeo@{IRC}", "host-unknown"),
        ("", "improper-addressing"),
        ("@", "improper-addressing"),
    ],
)
def test_a_domain_that_is_no_component_is_refused_behind_our_header(to: str, condition: str) -> None:
    talk = Talk()
    before = handshakes("unknown-domain")
    written = talk.say(header(to))
    assert written.startswith('<?xml version="1.0"?><stream:stream ')
    assert f' from="{DOMAIN}" id="stream-1">' in written
    assert stream_error(written) == condition
    assert talk.transport.is_closed
    assert handshakes("unknown-domain") == before + (condition == "host-unknown")


def test_an_operator_reads_which_component_is_not_configured() -> None:
    with capture_logs() as logs:
        Talk().say(header("irc.capulet.example"))
    assert [(line["event"], line["domain"]) for line in logs] == [("component_refused", "irc.capulet.example")]
    assert 'add components.domains."irc.capulet.example"' in logs[0]["remedy"]


def test_the_domain_is_compared_prepared() -> None:
    talk = Talk()
    assert f'from="{IRC}"' in talk.say(header(IRC.upper() + "."))
    assert talk.say(handshake()) == "<handshake/>"


@pytest.mark.parametrize(
    "text",
    [
        f"<message from='x@{IRC}' to='{ROMEO}'/>",
        f"<iq type='get' id='1' from='{IRC}' to='{DOMAIN}'/>",
        "<a xmlns='urn:a'/>",
    ],
)
def test_nothing_is_taken_before_the_handshake(text: str) -> None:
    talk = Talk()
    assert stream_error(talk.say(header(), text)) == "not-authorized"
    assert talk.router.sent == []


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("GET / HTTP/1.1\r\n\r\n", "not-well-formed"),
        (header().replace(ns.COMPONENT, ns.CLIENT), "invalid-namespace"),
        (header().replace(ns.COMPONENT, "jabber:component:connect"), "invalid-namespace"),
        (header() + "<!-- -->", "restricted-xml"),
        (header() + f"<handshake>{'a' * 5_000}</handshake>", "policy-violation"),
        (header() + " " * 20_000, "policy-violation"),
    ],
)
def test_what_is_no_component_stream_is_refused(text: str, condition: str) -> None:
    written = Talk().say(text)
    assert written.startswith("<?xml")
    assert written.count("<stream:stream ") == 1
    assert stream_error(written) == condition


def test_input_waits_while_the_owner_is_asked() -> None:
    talk = Talk()
    talk.router.is_answering = False
    talk.say(header(), handshake())
    assert talk.stream.state is State.ATTACHING
    assert talk.say(f"<message to='{ROMEO}' id='1'><body>{'x' * 20_000}</body></message>") == ""
    assert talk.is_read() is False
    talk.router.is_answering = True
    talk.router.pump()
    assert talk.heard() == "<handshake/>"
    assert talk.is_read()
    assert [stanza.id for stanza in talk.router.submitted()] == ["1"]


@pytest.mark.parametrize(
    ("refusal", "condition"),
    [(("conflict", ""), "conflict"), (("item-not-found", "what?"), "undefined-condition")],
)
def test_a_component_that_its_owner_refuses_is_told(refusal: tuple[str, str], condition: str) -> None:
    talk = Talk()
    talk.router.refusal = refusal
    before = handshakes("refused")
    written = talk.say(header(), handshake())
    assert "<handshake/>" not in written
    assert stream_error(written) == condition
    assert handshakes("refused") == before + 1


def test_without_a_router_a_component_is_told_to_try_again() -> None:
    talk = Talk()
    talk.router.is_answering = False
    talk.say(header(), handshake())
    assert stream_error(talk.tick(21)) == "remote-connection-failed"


@pytest.mark.parametrize("steps", [0, 1])
def test_who_does_not_prove_itself_in_time_is_disconnected(steps: int) -> None:
    talk = Talk()
    talk.say(*[header()][:steps])
    assert talk.tick(29) == ""
    talk.say(" ")
    written = talk.tick(2)
    assert stream_error(written) == "connection-timeout"
    assert written.startswith("<?xml") == (steps == 0), "our header, where there was none yet"


def test_a_connection_that_is_lost_while_the_owner_is_asked_leaves_no_session() -> None:
    talk = Talk()
    talk.router.is_answering = False
    talk.say(header(), handshake())
    talk.stream.connection_lost()
    talk.router.is_answering = True
    talk.router.pump()
    assert talk.edge.sessions == {}
    assert [fields[2] for fields in talk.router.of_kind(DETACH)] == ["connection-lost"]


# --- stanzas from the component


def test_a_component_sends_as_anybody_at_its_domain() -> None:
    talk = Talk()
    talk.join()
    for from_ in IRC, f"{IRC}/x", f"#Verona%freenode@{IRC}", f"nurse@{IRC.upper()}/R":
        talk.say(f"<message from='{from_}' to='Romeo@{DOMAIN.upper()}/Orchard'><body>hi</body></message>")
    sent = talk.router.submitted()
    assert [s.from_ for s in sent] == [IRC, f"{IRC}/x", f"#verona%freenode@{IRC}", f"nurse@{IRC}/R"]
    assert {(s.to, s.inner) for s in sent} == {(f"{ROMEO}/Orchard", b"<body>hi</body>")}


@pytest.mark.parametrize("from_", [DOMAIN, ROMEO, f"sms.{DOMAIN}", f"x@a.{IRC}", f"x@{IRC}.example", "@", ""])
def test_a_forged_from_ends_the_stream(from_: str) -> None:
    """XEP-0114, 3; RFC 6120, 4.9.3.9."""
    talk = Talk()
    talk.join()
    assert stream_error(talk.say(f"<message from='{from_}' to='{ROMEO}'/>")) == "invalid-from"
    assert talk.router.submitted() == []


def test_without_a_from_the_component_itself_is_meant() -> None:
    talk = Talk()
    talk.join()
    talk.say(f"<message to='{ROMEO}'/>")
    assert [stanza.from_ for stanza in talk.router.submitted()] == [IRC]


@pytest.mark.parametrize(("to", "fault"), [("", ("modify", "bad-request")), (" to='@'", ("modify", "jid-malformed"))])
def test_a_stanza_to_nobody_is_answered_with_an_error(to: str, fault: tuple[str, str]) -> None:
    talk = Talk()
    talk.join()
    written = talk.say(f"<iq type='get' id='1' from='nurse@{IRC}/x'{to}><ping xmlns='urn:xmpp:ping'/></iq>")
    assert re.match(rf'<iq to="nurse@{IRC}/x" from="{IRC}" type="error" id="1"><error ', written)
    assert stanza_error(written) == fault
    assert talk.say(f"<iq type='result' id='1' from='nurse@{IRC}/x'{to}/><message type='error'{to}/>") == ""
    assert talk.router.submitted() == []
    assert not talk.transport.is_closed


def test_errors_in_the_namespace_of_clients_are_errors() -> None:
    """slixmpp writes them so."""
    talk = Talk()
    talk.join()
    talk.say(
        f"<iq type='error' id='1' to='{ROMEO}'><error xmlns='jabber:client' type='cancel'>"
        f"<item-not-found xmlns='{ns.STANZAS}'/></error></iq>"
    )
    (sent,) = talk.router.submitted()
    assert sent.flags == HAS_ERROR
    assert sent.inner == f'<error type="cancel"><item-not-found xmlns="{ns.STANZAS}"/></error>'.encode()


def test_the_language_of_the_stream_is_that_of_its_stanzas() -> None:
    talk = Talk()
    talk.say(header().replace(" to=", " xml:lang='de' to="), handshake())
    talk.say(f"<message to='{ROMEO}'/><message xml:lang='it' to='{ROMEO}'/>")
    assert [stanza.lang for stanza in talk.router.submitted()] == ["de", "it"]


@pytest.mark.parametrize(
    "text", ["<log/>", "<a xmlns='urn:a'/>", handshake(), "<r xmlns='urn:xmpp:sm:3'/>", "<log xmlns='jabber:client'/>"]
)
def test_elements_that_are_no_stanzas_end_the_stream(text: str) -> None:
    talk = Talk()
    talk.join()
    assert stream_error(talk.say(text)) == "unsupported-stanza-type"


def test_what_came_before_a_violation_is_submitted_all_the_same() -> None:
    talk = Talk()
    talk.join()
    written = talk.say(f"<message to='{ROMEO}' id='1'/><!-- --><message to='{ROMEO}' id='2'/>")
    assert stream_error(written) == "restricted-xml"
    assert [stanza.id for stanza in talk.router.submitted()] == ["1"]


def test_the_greatest_stanza_is_that_of_the_settings() -> None:
    talk = Talk(limits=Limits(stanza_bytes=10_000))
    talk.join()
    talk.say(f"<message to='{ROMEO}'><body>{'x' * 9_000}</body></message>")
    assert len(talk.router.submitted()) == 1
    assert stream_error(talk.say(f"<message to='{ROMEO}'><body>{'x' * 10_000}</body></message>")) == "policy-violation"


def test_stanzas_are_counted_by_direction_and_kind() -> None:
    talk = Talk()
    talk.join()
    before_in, before_out = list(stats.stanzas_in), list(stats.stanzas_out)
    talk.say(f"<message to='{ROMEO}'/><presence to='{ROMEO}'/><iq to='{ROMEO}' type='get' id='1'><a xmlns='b'/></iq>")
    talk.router.deliver(talk.sid, message(to=IRC, from_=ROMEO))
    assert [now - then for now, then in zip(stats.stanzas_in, before_in, strict=True)] == [0, 1, 1, 1]
    assert [now - then for now, then in zip(stats.stanzas_out, before_out, strict=True)] == [0, 1, 0, 0]


# --- stanzas to the component


def test_a_delivered_stanza_is_written_as_it_is_addressed() -> None:
    talk = Talk()
    talk.join()
    talk.router.deliver(talk.sid, message(to=f"nurse@{IRC}", from_=f"{ROMEO}/a", inner=b"<body>hi</body>"))
    assert talk.heard() == f'<message to="nurse@{IRC}" from="{ROMEO}/a"><body>hi</body></message>'


def test_what_was_written_is_told_by_number() -> None:
    talk = Talk()
    talk.join()
    assert talk.stream.q == 0
    talk.router.deliver(talk.sid, message(to=IRC, from_=ROMEO))
    talk.router.deliver(talk.sid, message(to=IRC, from_=ROMEO))
    assert talk.stream.q == 2
    talk.stream.shut_down()
    talk.router.deliver(talk.sid, message(to=IRC, from_=ROMEO))
    assert talk.stream.q == 2, "the third was not written"


# --- back-pressure and time


def test_a_component_that_sends_ten_thousand_stanzas_is_paused_and_loses_none() -> None:
    talk = Talk()
    talk.join()
    talk.router.is_confirming = False
    session = talk.edge.sessions[talk.sid]
    sent, most_held = 0, 0
    data = [
        b"".join(b"<message to='%b' id='%d'/>" % (ROMEO.encode(), n) for n in range(first, first + 50))
        for first in range(0, 10_000, 50)
    ]
    while sent < len(data):
        if talk.transport.is_reading:
            talk.stream.receive_data(data[sent])
            sent += 1
        else:
            assert session.is_paused
            talk.router.pump()
            talk.router.confirm(talk.sid)
        most_held = max(most_held, len(session.held))
    assert [stanza.id for stanza in talk.router.submitted()] == [str(n) for n in range(10_000)]
    assert most_held < HELD_STANZAS + 50


def test_a_silent_component_gets_keepalives_and_may_stay() -> None:
    talk = Talk()
    talk.join()
    written = "".join(talk.tick(60) for _ in range(100))
    assert set(written) == {" "}
    assert 33 <= len(written) <= 50, "a space after each 120 s of silence"
    assert not talk.transport.is_closed


# --- ends


def test_a_close_before_the_handshake_is_answered_at_once() -> None:
    talk = Talk()
    before = closed("component")
    assert talk.say(header(), CLOSE).endswith(CLOSE)
    assert talk.transport.is_closed
    assert closed("component") == before + 1


def test_a_close_is_answered_when_everything_sent_before_is_confirmed() -> None:
    talk = Talk()
    talk.join()
    sid = talk.sid
    talk.router.is_confirming = False
    assert talk.say(f"<message to='{ROMEO}'/>", CLOSE) == ""
    assert talk.stream.state is State.CLOSING
    assert talk.router.of_kind(DETACH) == []
    talk.router.confirm(sid)
    assert talk.router.of_kind(DETACH) == [(sid, 1, "component")]
    talk.router.pump()
    assert talk.heard() == CLOSE
    assert talk.transport.is_closed
    assert talk.edge.sessions == {}


def test_an_owner_that_is_away_does_not_keep_a_closing_component() -> None:
    talk = Talk()
    talk.join()
    sid = talk.sid
    talk.router.is_answering = False
    talk.say(f"<message to='{ROMEO}' id='1'/>", CLOSE)
    for _ in range(5):
        talk.stream.receive_data(b" ")  # what it sends now does not put off the end
        talk.tick(CLOSE_WITHIN_S / 4)
    assert talk.transport.is_closed
    assert talk.transport.written.endswith(CLOSE.encode())
    talk.lose()
    assert [stanza.id for _, stanza in talk.edge.sessions[sid].held] == ["1"], "it is still held"
    talk.router.is_answering = True
    talk.router.pump()
    assert talk.edge.sessions == {}


def test_who_has_said_goodbye_gets_nothing_more() -> None:
    """What the owner still sends is not acknowledged, so it goes to another connection or waits."""
    talk = Talk()
    talk.join()
    talk.router.is_answering = False
    session = talk.edge.sessions[talk.sid]
    talk.router.deliver(talk.sid, message(to=IRC, from_=ROMEO, id="1"))
    talk.say(CLOSE)
    talk.router.deliver(talk.sid, message(to=IRC, from_=ROMEO, id="2"))
    assert talk.heard() == ""
    assert session.acknowledged == 1
    assert [stanza.id for _, _, stanza in session.unacknowledged] == ["2"]


@pytest.mark.parametrize(("act", "reason"), [("connection_lost", "connection-lost"), ("receive_eof", "component-eof")])
def test_a_lost_connection_detaches_its_session_once_what_was_sent_is_confirmed(act: str, reason: str) -> None:
    talk = Talk()
    talk.join()
    sid = talk.sid
    talk.router.is_confirming = False
    talk.say(f"<message to='{ROMEO}'/>")
    before = closed(reason)
    getattr(talk.stream, act)()
    assert talk.heard() == (CLOSE if act == "receive_eof" else "")
    talk.lose()
    assert closed(reason) == before + 1
    assert talk.router.of_kind(DETACH) == []
    talk.router.confirm(sid)
    assert talk.router.of_kind(DETACH) == [(sid, 1, reason)]
    talk.router.pump()
    assert talk.edge.sessions == {}


def test_a_half_closed_connection_without_a_stream_gets_none() -> None:
    talk = Talk()
    talk.stream.receive_eof()
    assert talk.heard() == ""
    assert talk.transport.is_closed


@pytest.mark.parametrize("condition", ["conflict", "resource-constraint", "reset"])
def test_a_revoked_session_ends_its_stream_with_the_owners_word(condition: str) -> None:
    talk = Talk()
    talk.join()
    before = sample("stentor_components_stream_errors_total", condition=condition)
    talk.router.revoke(talk.sid, condition)
    assert stream_error(talk.heard()) == condition
    assert sample("stentor_components_stream_errors_total", condition=condition) == before + 1
    talk.lose()
    assert talk.router.of_kind(DETACH) == []


def test_a_session_revoked_without_a_word_ends_its_stream_without_an_error() -> None:
    talk = Talk()
    talk.join()
    before = closed("revoked")
    talk.router.revoke(talk.sid, "")
    assert talk.heard() == CLOSE
    assert closed("revoked") == before + 1


def test_a_drain_tells_components_to_come_back_elsewhere() -> None:
    """RFC 6120, 4.9.3.20."""
    talk = Talk()
    talk.join()
    sid = talk.sid
    before = sample("stentor_components_stream_errors_total", condition="system-shutdown")
    for _ in range(3):
        talk.stream.shut_down()
    assert stream_error(talk.heard()) == "system-shutdown"
    assert sample("stentor_components_stream_errors_total", condition="system-shutdown") == before + 1
    assert talk.say(CLOSE) == ""
    assert talk.transport.is_closed
    assert talk.router.of_kind(DETACH) == [], "what it has got is not known yet"
    talk.lose()
    assert talk.router.of_kind(DETACH) == [(sid, 1, "system-shutdown")]


def test_what_a_component_sends_before_it_has_read_of_the_drain_is_taken() -> None:
    talk = Talk()
    talk.join()
    talk.stream.shut_down()
    talk.heard()
    written = talk.say(f"<message to='{ROMEO}' id='1'/><message id='2'/>", f"<message to='{ROMEO}' id='3'/>{CLOSE}")
    assert written == "", "our half of the stream is closed"
    assert [stanza.id for stanza in talk.router.submitted()] == ["1", "3"]


def left(talk: Talk) -> None:
    talk.tick(LEAVE_WITHIN_S - 1)
    talk.say(f"<message to='{ROMEO}'/>")  # does not put off the end
    assert not talk.transport.is_closed
    talk.tick(2)


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (left, "system-shutdown"),
        (lambda talk: talk.stream.receive_eof(), "system-shutdown"),
        (lambda talk: talk.stream.connection_lost(), "system-shutdown"),
        (lambda talk: talk.router.revoke(talk.sid, "conflict"), "system-shutdown"),
        (lambda talk: talk.say("<!-- -->"), "restricted-xml"),
        (lambda talk: talk.say(f"<message from='{ROMEO}' to='{ROMEO}'/>"), "invalid-from"),
    ],
)
def test_a_stream_whose_half_is_closed_ends_without_another_word(act: Callable[[Talk], object], reason: str) -> None:
    talk = Talk()
    talk.join()
    talk.stream.shut_down()
    talk.heard()
    before = closed(reason)
    act(talk)
    assert talk.heard() == ""
    assert talk.transport.is_closed
    assert closed(reason) == before + 1


def test_a_drain_reaches_a_component_that_has_not_said_anything_yet() -> None:
    talk = Talk()
    talk.stream.shut_down()
    written = talk.heard()
    assert written.startswith("<?xml")
    assert stream_error(written) == "system-shutdown"


def test_nothing_is_written_or_read_after_the_end() -> None:
    """The session outlives its stream for a while; the transport would refuse a write."""
    talk = Talk()
    talk.join()
    sid = talk.sid
    talk.router.is_confirming = False
    talk.say(f"<message to='{ROMEO}'/>" * HELD_STANZAS)
    assert not talk.transport.is_reading
    assert stream_error(talk.say("<!-- -->")) == "restricted-xml"
    talk.router.deliver(sid, message(to=IRC, from_=ROMEO))
    talk.say(f"<message to='{ROMEO}'/>")
    talk.stream.fail(errors.Reset())
    talk.stream.shut_down()
    talk.stream.receive_eof()
    talk.tick(4_000)
    talk.lose()
    talk.router.confirm(sid)  # would read again
    talk.router.pump()
    assert talk.heard() == ""
    assert talk.edge.sessions == {}
    assert {fields[2] for fields in talk.router.of_kind(SUBMIT)} == set(range(1, HELD_STANZAS + 1))


def test_every_connection_is_counted_once_when_it_ends() -> None:
    def total() -> float:
        return sum(closed(reason) for reason in [*CLOSE_REASONS, "other"])

    before = total()
    for index in range(6):
        talk = Talk()
        talk.join()
        talk.router.is_answering = index % 3 == 0
        talk.say(CLOSE if index < 4 else "<!-- -->")
        talk.stream.receive_eof()
        talk.lose()
    assert total() == before + 6
