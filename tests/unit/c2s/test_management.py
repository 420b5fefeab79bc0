"""Stream management and client state on a client's stream (c2s/management.py; XEP-0198, XEP-0352)."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s.connections import Connections
from c2s.management import ACK_WITHIN_S, parse_token, token
from c2s.tcp import Connection
from cluster.edge import EdgeSession
from cluster.shards import shard_of
from cluster.wire import (
    ACKNOWLEDGED,
    ACTIVITY,
    ATTACHED,
    CONFIRMED,
    DELIVER,
    DETACH,
    ENABLED,
    REFUSED,
    RESUME,
    SUBMIT,
    SessionId,
)  # fmt: skip
from tests.support.streams import BIND, CLOSE, HEADER, ROMEO, ROUTER, Talk, auth, plain, sample, stream_error
from xmpp import ns
from xmpp.sm import MODULUS
from xmpp.stanza import Stanza, iq, message

SM = f"xmlns='{ns.SM}'"
ENABLE = f"<enable {SM}/>"
ENABLE_RESUME = f"<enable {SM} resume='true'/>"
R = f"<r {SM}/>"
ASKED = f'<r xmlns="{ns.SM}"/>'
SHARD = shard_of(ROMEO)
OLD = SessionId(0xABC)  # a session of an earlier stream, on some other c2s


def acknowledged(h: int) -> str:
    """What the server writes."""
    return f'<a xmlns="{ns.SM}" h="{h}"/>'


def ack(h: object) -> str:
    """What the client writes."""
    return f"<a {SM} h='{h}'/>"


def failed(condition: str, h: int | None = None) -> str:
    attribute = f' h="{h}"' if h is not None else ""
    return f'<failed xmlns="{ns.SM}"{attribute}><{condition} xmlns="{ns.STANZAS}"/></failed>'


def resume(previd: str, h: object) -> str:
    return f"<resume {SM} previd='{previd}' h='{h}'/>"


def incoming(number: int) -> Stanza:
    return message(to=None, from_="juliet@capulet.example", id=str(number))


def written(number: int) -> str:
    """That stanza as the client gets it."""
    return f'<message to="{ROMEO}" from="juliet@capulet.example" id="{number}"/>'


def managed(enable: str = ENABLE, **changes: Any) -> Talk:
    """A bound stream on which stream management is on."""
    talk = Talk(**changes)
    talk.bind()
    assert talk.say(enable).startswith(f'<enabled xmlns="{ns.SM}"')
    return talk


def session_of(talk: Talk) -> EdgeSession:
    assert talk.stream.session is not None
    return talk.stream.session


def confirm(talk: Talk, conf: int) -> str:
    """The owner says how far everything is safe; what is written then."""
    session = session_of(talk)
    talk.edge.receive(ROUTER, CONFIRMED, (SHARD, 1, session.sid, session.gen, conf))
    return talk.heard()


def deliver(talk: Talk, *numbers: int) -> str:
    for number in numbers:
        talk.router.deliver(talk.sid, incoming(number))
    return talk.heard()


# --- enabling (3)


def test_nobody_counts_before_anybody_has_signed_in() -> None:
    talk = Talk()
    talk.open()
    assert stream_error(talk.say(ENABLE)) == "not-authorized"


def test_nobody_counts_before_a_resource_is_bound() -> None:
    """3: "The server SHALL enforce this order and return a <failed/> element in response if the order is violated"."""
    talk = Talk()
    talk.sign_in()
    assert talk.say(ENABLE) == failed("unexpected-request")
    assert f"<jid>{ROMEO}/generated</jid>" in talk.say(BIND), "that was no reason to end the stream"
    assert talk.say(ENABLE) == f'<enabled xmlns="{ns.SM}"/>'


@pytest.mark.parametrize("resume_", ["", " resume='false'", " resume='0'", " resume='yes'", " max='60'"])
def test_counting_alone(resume_: str) -> None:
    talk = Talk()
    talk.bind()
    assert talk.say(f"<enable {SM}{resume_}/>") == f'<enabled xmlns="{ns.SM}"/>'
    assert talk.router.of_kind(ENABLED) == [], "the session ends with its stream: nobody needs to know"
    assert (session_of(talk).is_managed, session_of(talk).is_resumable) == (True, False)


@pytest.mark.parametrize("true", ["true", "1"])
def test_a_stream_that_may_be_resumed_has_an_id_and_its_owner_knows_from_where_it_counts(true: str) -> None:
    talk = Talk()
    talk.bind()
    talk.say("<presence/><message/>")
    deliver(talk, 1, 2, 3)
    assert talk.say(f"<enable {SM} resume='{true}'/>") == (
        f'<enabled xmlns="{ns.SM}" id="{token(talk.sid)}" resume="true" max="600"/>'
    )
    assert talk.router.of_kind(ENABLED) == [(talk.sid, 1, 2, 3)]


def test_where_streams_are_not_resumed_none_may_be() -> None:
    talk = Talk(resume_timeout_s=0)
    talk.bind()
    assert talk.say(ENABLE_RESUME) == f'<enabled xmlns="{ns.SM}"/>'
    assert talk.router.of_kind(ENABLED) == []


@pytest.mark.parametrize("again", [ENABLE, ENABLE_RESUME, resume("abc", 0)])
def test_a_second_time_ends_the_stream(again: str) -> None:
    """3: "If a server receives a second <enable/> element it SHOULD respond with a stream error"."""
    assert stream_error(managed().say(again)) == "policy-violation"


@pytest.mark.parametrize("early", [R, ack(0), resume("abc", 0)])
def test_what_means_something_only_after_enabling_fails_before_it(early: str) -> None:
    """A bound stream is no stream to resume another on, and nobody counts yet."""
    talk = Talk()
    talk.bind()
    assert talk.say(early) == failed("unexpected-request")
    assert talk.say(ENABLE) == f'<enabled xmlns="{ns.SM}"/>', "the stream lives"


# --- what the client has sent is acknowledged (4)


def test_a_request_is_answered_at_once_and_again_when_everything_is_safe() -> None:
    """4: the answer "MUST NOT be withheld"; docs/delivery.md, 2: `<a/>` says what is safe, never what was merely read."""
    talk = managed()
    talk.router.is_confirming = False
    assert talk.say("<message/><message/>", R) == acknowledged(0)
    assert confirm(talk, 1) == "", "not everything that was asked about"
    assert confirm(talk, 2) == acknowledged(2)
    assert confirm(talk, 2) == ""


def test_what_is_safe_already_is_acknowledged_once() -> None:
    talk = managed()
    talk.say("<message/><message/>")
    assert talk.say(R) == acknowledged(2)
    assert talk.say("<message/>") == "", "nobody has asked about this one"


def test_a_request_that_comes_in_one_piece_with_what_it_asks_about() -> None:
    talk = managed()
    assert talk.say(f"<message/><message/>{R}") == acknowledged(0) + acknowledged(2)


def test_a_later_request_asks_about_more() -> None:
    talk = managed()
    talk.router.is_confirming = False
    assert talk.say("<message/>", R, "<message/>", R) == acknowledged(0) * 2
    assert confirm(talk, 1) == ""
    assert confirm(talk, 2) == acknowledged(2)


def test_the_client_counts_from_its_enable_on() -> None:
    talk = Talk()
    talk.bind()
    talk.say("<presence/><message/>", ENABLE, "<message/>")
    assert talk.say(R) == acknowledged(1)
    assert [fields[2] for fields in talk.router.of_kind(SUBMIT)] == [1, 2, 3], "the owner counts from the bind"


def test_the_count_wraps_on_the_wire() -> None:
    talk = managed()
    session = session_of(talk)
    session.n = session.conf = session.n0 + MODULUS - 1
    assert talk.say(R) == acknowledged(MODULUS - 1)
    talk.say("<message/>")
    assert talk.say(R) == acknowledged(0)


# --- what the client has got it acknowledges (4)


def test_one_request_at_a_time_is_unanswered() -> None:
    talk = managed()
    assert deliver(talk, 1, 2, 3) == written(1) + ASKED + written(2) + written(3)
    assert talk.tick(1) == "", "it is asked already"
    assert talk.say(ack(1)) == ""
    assert talk.tick(1) == ASKED, "two are still to be acknowledged"
    talk.say(ack(3))
    assert talk.tick(1) == ""
    assert deliver(talk, 4) == written(4) + ASKED


def test_what_is_acknowledged_is_held_no_more_and_the_owner_learns_of_it() -> None:
    talk = managed()
    deliver(talk, 1, 2, 3)
    talk.say(ack(2))
    assert [q for q, _, _ in session_of(talk).unacknowledged] == [3]
    talk.tick(1)
    assert talk.router.of_kind(ACKNOWLEDGED) == [(talk.sid, 1, 2)]
    assert talk.say(ack(1)) == "", "an old one says nothing new"
    assert session_of(talk).acknowledged == 2


def test_what_was_written_before_counting_began_is_acknowledged_with_the_first_zero() -> None:
    talk = Talk()
    talk.bind()
    deliver(talk, 1, 2)
    talk.say(ENABLE)
    assert talk.tick(1) == ASKED
    talk.say(ack(0))
    assert list(session_of(talk).unacknowledged) == []
    deliver(talk, 3)
    assert session_of(talk).acknowledged == 2
    talk.say(ack(1))
    assert session_of(talk).acknowledged == 3


def test_an_answer_that_waits_while_counting_begins_is_counted_by_the_client() -> None:
    """It is written behind <enabled/>: docs/delivery.md, 7, lets it wait until what was sent before it is safe."""
    talk = Talk()
    talk.bind()
    talk.router.is_confirming = False
    talk.say("<message/><iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>")
    talk.router.deliver(talk.sid, iq(type="result", id="p", to=None, from_=None))
    assert talk.say(ENABLE) == f'<enabled xmlns="{ns.SM}"/>'
    assert f'<iq to="{ROMEO}" type="result" id="p"/>' in confirm(talk, 2)
    talk.say(ack(1))
    assert not talk.is_over()
    assert list(session_of(talk).unacknowledged) == []


def test_an_acknowledgement_of_what_was_never_sent_ends_the_stream() -> None:
    """5, "Error handling": undefined-condition with <handled-count-too-high/>."""
    talk = managed()
    deliver(talk, *range(1, 9))
    answer = talk.say(ack(10))
    assert stream_error(answer) == "undefined-condition"
    assert answer.endswith(
        f'<handled-count-too-high xmlns="{ns.SM}" h="10" send-count="8"/></stream:error></stream:stream>'
    )


@pytest.mark.parametrize("h", ["", "-1", "one", "4294967296"])
def test_an_acknowledgement_without_a_number_ends_the_stream(h: str) -> None:
    assert stream_error(managed().say(ack(h))) == "bad-format"


def test_an_acknowledgement_without_h_ends_the_stream() -> None:
    """4: "An <a/> element MUST possess an 'h' attribute"."""
    assert stream_error(managed().say(f"<a {SM}/>")) == "bad-format"


def test_who_does_not_answer_is_gone() -> None:
    talk = managed(ENABLE_RESUME)
    deliver(talk, 1)
    for _ in range(int(ACK_WITHIN_S) - 1):
        assert talk.tick(1) == ""
    answer = talk.tick(1)
    assert stream_error(answer) == "connection-timeout"
    assert talk.is_over()
    assert [fields[2] for fields in talk.router.of_kind(DETACH)] == ["connection-timeout"]


def test_any_acknowledgement_is_an_answer() -> None:
    talk = managed()
    deliver(talk, 1)
    talk.tick(ACK_WITHIN_S - 1)
    talk.say(ack(0))
    assert talk.tick(ACK_WITHIN_S - 1) == ASKED
    assert talk.tick(ACK_WITHIN_S - 1) == ""
    assert not talk.is_over()


def test_who_is_not_read_from_cannot_answer() -> None:
    """Where it is the server that pauses, the client's silence begins when it is read again."""
    talk = managed()
    talk.router.is_confirming = False
    deliver(talk, 1)
    while talk.is_read():
        talk.say("<message/>")
    for _ in range(3):
        assert "connection-timeout" not in talk.tick(ACK_WITHIN_S)
    confirm(talk, session_of(talk).n)
    assert talk.is_read()
    talk.tick(ACK_WITHIN_S - 1)
    assert not talk.is_over()
    assert stream_error(talk.tick(1)) == "connection-timeout"


class KernelTransport(asyncio.Transport):
    """A socket whose kernel takes everything at once."""

    def write(self, data: Any) -> None:
        """Taken."""

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """They do not matter."""


@pytest.mark.parametrize("is_managed", [False, True])
def test_what_the_kernel_has_taken_a_client_that_counts_has_not_got_yet(is_managed: bool) -> None:
    talk = managed() if is_managed else Talk()
    if not is_managed:
        talk.bind()
    connections = Connections(talk.edge, lambda _: talk.stream)
    connection = Connection(connections, cast(Any, None), False)
    connection.connection_made(KernelTransport())
    talk.router.deliver(talk.sid, incoming(1))
    connection.write(b"what the stream has written")
    connections.flush()
    connection.check()
    assert session_of(talk).acknowledged == (0 if is_managed else 1)
    if is_managed:
        talk.say(ack(1))
        assert session_of(talk).acknowledged == 1


# --- resumption (5)


def request(talk: Talk) -> str:
    """The request that the edge has just sent."""
    envelope = talk.router.sent[-1]
    assert envelope[0] == RESUME
    return str(envelope[3])


def attached(talk: Talk, *, conf: int, q: int, n0: int = 0, q0: int = 0, missing: int = 0) -> str:
    """The owner gives the session, then what the client has not got: stanzas q + 1 and so on. What is written then."""
    answer = (SHARD, 1, request(talk), OLD, 3, "balcony", conf, q, None, 77, n0, q0, True)
    talk.edge.receive(ROUTER, ATTACHED, answer)
    for number in range(q + 1, q + 1 + missing):
        talk.edge.receive(ROUTER, DELIVER, (((SHARD, 1, OLD, 3, number, 100 + number),), tuple(incoming(number))))
    talk.router.q[OLD] = q + missing
    return talk.heard()


def resuming(h: object = 5) -> Talk:
    """A client that has signed in and asks for its old session."""
    talk = Talk()
    talk.sign_in()
    assert talk.say(resume(token(OLD), h)) == ""
    return talk


@given(st.integers(1, 2**63 - 1))
def test_the_id_of_a_session_is_good_for_that_session(sid: int) -> None:
    assert parse_token(token(SessionId(sid))) == sid


@pytest.mark.parametrize(
    "previd", ["", "0", "abg", "-1", "+1", " 1", "1 ", "0x1", "01", "ABC", "1_0", f"{2**63:x}", "some-long-sm-id", "٣"]
)
def test_an_id_that_no_session_can_have_is_unknown_here(previd: str) -> None:
    """5: "If the server does not recognize the 'previd' as an earlier session ..." : nobody need be asked."""
    assert parse_token(previd) is None
    talk = Talk()
    talk.sign_in()
    before = sample("stentor_c2s_resumptions_total", result="failed")
    assert talk.say(resume(previd, 0)) == failed("item-not-found")
    assert talk.router.of_kind(RESUME) == []
    assert sample("stentor_c2s_resumptions_total", result="failed") == before + 1
    assert f"<jid>{ROMEO}/generated</jid>" in talk.say(BIND), "5: the client may bind a resource at this point"


@pytest.mark.parametrize("resume_", [resume("abc", "many"), resume("abc", ""), f"<resume {SM} previd='abc'/>"])
def test_without_a_number_nobody_knows_what_to_send_again(resume_: str) -> None:
    talk = Talk()
    talk.sign_in()
    assert talk.say(resume_) == failed("bad-request")
    assert talk.router.of_kind(RESUME) == []
    assert "<jid>" in talk.say(BIND)


def test_nobody_resumes_before_signing_in() -> None:
    talk = Talk()
    talk.open()
    assert stream_error(talk.say(resume("abc", 0))) == "not-authorized"


def test_the_accounts_owner_is_asked_for_the_session() -> None:
    talk = resuming(h=5)
    assert talk.router.sent[-1] == (RESUME, SHARD, 1, request(talk), ROMEO, OLD, 5)


@pytest.mark.parametrize("h", [None, 0, 7])
def test_a_session_that_is_no_more_may_tell_how_far_it_had_come(h: int | None) -> None:
    """5: "the server MAY also include a 'h' attribute"."""
    talk = resuming()
    talk.edge.receive(ROUTER, REFUSED, (SHARD, 1, request(talk), "item-not-found", "", h))
    assert talk.heard() == failed("item-not-found", h)
    assert f"<jid>{ROMEO}/generated</jid>" in talk.say(BIND)


def test_a_client_that_has_more_than_was_sent_cannot_go_on() -> None:
    talk = resuming(h=500)
    talk.edge.receive(ROUTER, REFUSED, (SHARD, 1, request(talk), "handled-count-too-high", "", 3))
    answer = talk.heard()
    assert stream_error(answer) == "undefined-condition"
    assert f'<handled-count-too-high xmlns="{ns.SM}"' in answer


def test_what_the_client_has_not_got_follows_in_order_then_everything_goes_on() -> None:
    """5: "after processing it MUST re-send to the peer any stanzas that are still marked as unhandled"."""
    before = sample("stentor_c2s_resumptions_total", result="ok")
    talk = resuming(h=5)
    resumed = f'<resumed xmlns="{ns.SM}" previd="{token(OLD)}" h="9"/>'
    assert attached(talk, conf=9, q=5, missing=3) == resumed + written(6) + ASKED + written(7) + written(8)
    assert sample("stentor_c2s_resumptions_total", result="ok") == before + 1
    assert talk.say("<message/><message/>", R) == acknowledged(11)
    assert [fields[:3] for fields in talk.router.of_kind(SUBMIT)] == [(OLD, 3, 10), (OLD, 3, 11)]
    assert talk.router.submitted()[0].from_ == f"{ROMEO}/balcony"
    talk.say(ack(8))
    assert list(session_of(talk).unacknowledged) == []
    assert deliver(talk, 9) == written(9) + ASKED


def test_sequence_values_are_carried_over() -> None:
    """5: "The sequence values are carried over from the previous session": both count from where the client enabled."""
    talk = resuming(h=4)
    assert attached(talk, conf=19, q=14, n0=10, q0=10, missing=1).startswith(
        f'<resumed xmlns="{ns.SM}" previd="{token(OLD)}" h="9"/>'
    )
    talk.say(ack(5))
    assert session_of(talk).acknowledged == 15
    assert talk.say("<message/>", R) == acknowledged(10)
    assert "handled-count-too-high" in talk.say(ack(6))


def test_what_the_client_sends_behind_its_request_waits_for_the_answer() -> None:
    talk = Talk()
    talk.sign_in()
    assert talk.say(resume(token(OLD), 5) + "<message/>", R) == ""
    assert not talk.is_read()
    assert talk.router.of_kind(SUBMIT) == []
    assert attached(talk, conf=9, q=5).endswith(f' h="9"/>{acknowledged(9)}')
    talk.router.pump()
    assert talk.heard() == acknowledged(10)
    assert [fields[2] for fields in talk.router.of_kind(SUBMIT)] == [10]
    assert talk.is_read()


def test_a_bind_behind_a_resumption_that_failed_is_done() -> None:
    """Clients that ask for both at once."""
    talk = Talk()
    talk.sign_in()
    talk.say(resume(token(OLD), 5) + BIND)
    talk.edge.receive(ROUTER, REFUSED, (SHARD, 1, request(talk), "item-not-found", "", None))
    talk.router.pump()
    answer = talk.heard()
    assert answer.startswith(failed("item-not-found"))
    assert f"<jid>{ROMEO}/generated</jid>" in answer


def test_a_resumed_stream_counts_already() -> None:
    talk = resuming()
    attached(talk, conf=0, q=5)
    assert stream_error(talk.say(ENABLE)) == "policy-violation"


def test_on_a_resumed_stream_any_resource_of_the_account_will_do_as_from_and_the_true_one_is_stamped() -> None:
    talk = resuming()
    attached(talk, conf=0, q=5)
    talk.say(f"<message id='1' from='{ROMEO}/of-its-own-making'/>")
    assert [stanza.from_ for stanza in talk.router.submitted()] == [f"{ROMEO}/balcony"]
    assert stream_error(talk.say("<message from='juliet@elsewhere.example/balcony'/>")) == "invalid-from"


def test_a_client_that_goes_while_its_session_is_looked_for_leaves_it_as_it_was() -> None:
    talk = resuming()
    asked = request(talk)
    talk.stream.connection_lost()
    talk.edge.receive(ROUTER, ATTACHED, (SHARD, 1, asked, OLD, 3, "balcony", 9, 5, None, 77, 0, 0, True))
    assert talk.router.of_kind(DETACH) == [(OLD, 3, "connection-lost")], "so it waits for its client again"
    assert talk.edge.sessions == {}


def test_nobody_answers_and_the_client_may_bind() -> None:
    talk = resuming()
    answer = "".join(talk.tick(1) for _ in range(21))
    assert answer == failed("remote-server-timeout")
    assert "<jid>" in talk.say(BIND)


def test_the_stream_that_still_had_the_session_is_closed_with_conflict() -> None:
    """5: "the server SHOULD send a 'conflict' stream error and close that stream"."""
    talk = managed(ENABLE_RESUME)
    talk.router.revoke(talk.sid, "conflict")
    assert stream_error(talk.heard()) == "conflict"
    assert talk.is_over()


@pytest.mark.parametrize("act", ["connection_lost", "receive_eof"])
def test_only_a_stream_that_is_closed_cleanly_is_over(act: str) -> None:
    """9: the owner hears how it ended (and router/resumption.py decides)."""
    reasons = {"connection_lost": "connection-lost", "receive_eof": "client-eof"}
    talk = managed(ENABLE_RESUME)
    getattr(talk.stream, act)()
    assert [fields[2] for fields in talk.router.of_kind(DETACH)] == [reasons[act]]
    closed = managed(ENABLE_RESUME)
    closed.say(CLOSE)
    assert [fields[2] for fields in closed.router.of_kind(DETACH)] == ["client"]


# --- client state (XEP-0352, 4.2)

INACTIVE, ACTIVE = f"<inactive xmlns='{ns.CSI}'/>", f"<active xmlns='{ns.CSI}'/>"


@pytest.mark.parametrize("enable", ["", ENABLE])
def test_the_owner_learns_whether_somebody_looks(enable: str) -> None:
    """4.2: there is "no reply from the server to either of these elements"; and they are no stanzas that are counted."""
    talk = Talk()
    talk.bind()
    talk.say(enable)
    assert talk.say(INACTIVE, "<message/>", ACTIVE) == ""
    kinds = [envelope[0] for envelope in talk.router.sent if envelope[0] in (ACTIVITY, SUBMIT)]
    assert kinds == [ACTIVITY, SUBMIT, ACTIVITY], "5.1: in order"
    assert talk.router.of_kind(ACTIVITY) == [(talk.sid, 1, False), (talk.sid, 1, True)]
    assert session_of(talk).n == 1


def test_before_a_resource_is_bound_nobody_is_inactive() -> None:
    talk = Talk()
    talk.sign_in()
    assert talk.say(INACTIVE, ACTIVE) == ""
    assert talk.router.of_kind(ACTIVITY) == []
    assert "<jid>" in talk.say(BIND)


def test_before_signing_in_there_is_no_client_state() -> None:
    talk = Talk()
    talk.open()
    assert stream_error(talk.say(INACTIVE)) == "not-authorized"


def test_both_are_offered_once_somebody_has_signed_in() -> None:
    """XEP-0198, 2; XEP-0352, 4.1."""
    talk = Talk()
    assert f'<sm xmlns="{ns.SM}"/>' not in talk.open().replace("<inline>", "", 1).split("</inline>")[-1]
    talk.say(auth("PLAIN", plain()))
    offered = talk.say(HEADER)
    assert f'<sm xmlns="{ns.SM}"/>' in offered
    assert f'<csi xmlns="{ns.CSI}"/>' in offered
