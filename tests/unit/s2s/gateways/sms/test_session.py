"""One SMPP session, played from the SMSC's side."""

from __future__ import annotations

import pytest

from s2s.gateways.sms import pdu, status
from s2s.gateways.sms.pace import FIRST_PAUSE_S, LONGEST_PAUSE_S, Pace
from s2s.gateways.sms.pdu import Address, Bind, Pdu, Reader, ShortMessage
from s2s.gateways.sms.session import LAST_SEQUENCE, Bound, Ended, Event, Received, Session, Submitted, Timing

HELLO = ShortMessage(Address(1, 1, "4915550000"), Address(1, 1, "491701234567"), 0, 0, b"hello")


class Smsc:
    """The other side: takes what the session sends, and answers by hand."""

    def __init__(self, timing: Timing | None = None, kind: int = pdu.BIND_TRANSCEIVER) -> None:
        self.now = 100.0
        self.session = Session(kind, Bind("esme", "secret"), timing or Timing())
        self.session.begin(self.now)
        self._reader = Reader()

    def sent(self) -> list[Pdu]:
        return self._reader.feed(self.session.data_to_send())

    def says(self, *pdus: Pdu) -> list[Event]:
        return self.session.receive_data(b"".join(map(pdu.encode, pdus)), self.now)

    def answers(self, request: Pdu, status_: int = 0, body: bytes = b"") -> list[Event]:
        return self.says(Pdu(request.command | pdu.RESPONSE, status_, request.sequence, body))

    def binds(self) -> Smsc:
        (request,) = self.sent()
        assert self.answers(request, 0, b"smsc\0") == [Bound("smsc")]
        return self

    def after(self, seconds: float) -> list[Event]:
        self.now += seconds
        return self.session.tick(self.now)


def test_a_bind_and_a_submit() -> None:
    smsc = Smsc()
    assert smsc.session.free == 0
    smsc.binds()
    smsc.session.submit(7, HELLO, smsc.now)
    (request,) = smsc.sent()
    assert request.command == pdu.SUBMIT_SM
    assert pdu.decode_message(request.body) == HELLO
    assert smsc.session.free == 9
    assert smsc.answers(request, 0, b"abc\0") == [Submitted(7, 0, "abc")]
    assert smsc.session.free == 10


@pytest.mark.parametrize("kind", [pdu.BIND_TRANSCEIVER, pdu.BIND_TRANSMITTER, pdu.BIND_RECEIVER])
def test_a_receiver_submits_nothing(kind: int) -> None:
    smsc = Smsc(kind=kind).binds()
    assert smsc.session.free == (0 if kind == pdu.BIND_RECEIVER else 10)


def test_the_window_is_kept() -> None:
    smsc = Smsc(Timing(window=2)).binds()
    for token in (1, 2):
        smsc.session.submit(token, HELLO, smsc.now)
    assert smsc.session.free == 0
    first, second = smsc.sent()
    assert smsc.answers(second, 0, b"b\0") == [Submitted(2, 0, "b")]
    assert smsc.session.free == 1
    assert smsc.answers(first, status.THROTTLED) == [Submitted(1, status.THROTTLED, "")]
    assert smsc.session.free == 2


def test_a_refused_bind_says_why() -> None:
    smsc = Smsc()
    (request,) = smsc.sent()
    (ended,) = smsc.answers(request, 0x0E)
    assert ended == Ended("the SMSC refuses the bind", 0x0E)
    assert smsc.session.is_over


def test_what_comes_is_answered_only_when_told() -> None:
    smsc = Smsc().binds()
    deliver = Pdu(pdu.DELIVER_SM, 0, 42, pdu.encode_message(HELLO))
    assert smsc.says(deliver) == [Received(42, HELLO)]
    assert smsc.sent() == []
    smsc.session.answer(42, status.TRY_LATER)
    assert smsc.sent() == [Pdu(pdu.DELIVER_SM | pdu.RESPONSE, status.TRY_LATER, 42, b"\0")]


def test_a_deliver_that_cannot_be_read_is_refused() -> None:
    smsc = Smsc().binds()
    assert smsc.says(Pdu(pdu.DELIVER_SM, 0, 42, b"\0\1")) == []
    assert smsc.sent() == [Pdu(pdu.DELIVER_SM | pdu.RESPONSE, status.REFUSED, 42, b"\0")]


def test_the_smscs_questions_are_answered() -> None:
    smsc = Smsc().binds()
    assert smsc.says(Pdu(pdu.ENQUIRE_LINK, 0, 5), Pdu(pdu.DATA_SM, 0, 6)) == []
    assert smsc.sent() == [
        Pdu(pdu.ENQUIRE_LINK | pdu.RESPONSE, 0, 5),
        Pdu(pdu.GENERIC_NACK, status.INVALID_COMMAND, 6),
    ]
    assert smsc.says(Pdu(pdu.UNBIND, 0, 7), Pdu(pdu.ENQUIRE_LINK, 0, 8)) == [Ended("the SMSC unbound")]
    assert smsc.sent() == [Pdu(pdu.UNBIND | pdu.RESPONSE, 0, 7)]


def test_a_silent_link_is_asked_and_then_given_up() -> None:
    smsc = Smsc(Timing(enquire_link_s=30, timeout_s=10)).binds()
    assert smsc.after(29) == []
    assert smsc.sent() == []
    smsc.after(1)
    (question,) = smsc.sent()
    assert question.command == pdu.ENQUIRE_LINK
    smsc.after(5)
    assert smsc.sent() == []  # one question at a time
    assert smsc.answers(question) == []
    smsc.after(30)
    assert [asked.command for asked in smsc.sent()] == [pdu.ENQUIRE_LINK]
    assert smsc.after(10) == [Ended("no answer to enquire_link in 10 s")]


def test_a_submit_without_answer_ends_the_session() -> None:
    smsc = Smsc(Timing(timeout_s=10)).binds()
    smsc.session.submit(1, HELLO, smsc.now)
    assert smsc.after(9.9) == []
    assert smsc.after(0.1) == [Ended("no answer to submit_sm in 10 s")]
    assert smsc.session.free == 0


def test_a_bind_without_answer_ends_the_session() -> None:
    smsc = Smsc(Timing(timeout_s=10))
    assert smsc.after(10) == [Ended("no answer to bind_transceiver in 10 s")]


def test_a_generic_nack_answers_its_request_and_others_are_ignored() -> None:
    smsc = Smsc().binds()
    smsc.session.submit(1, HELLO, smsc.now)
    (request,) = smsc.sent()
    assert smsc.says(Pdu(pdu.GENERIC_NACK, 0, 999)) == []
    assert smsc.says(Pdu(pdu.GENERIC_NACK, 0, request.sequence)) == [Submitted(1, status.SYSTEM_ERROR, "")]


def test_an_answer_of_another_kind_ends_the_session() -> None:
    smsc = Smsc().binds()
    smsc.session.submit(1, HELLO, smsc.now)
    (request,) = smsc.sent()
    assert smsc.says(Pdu(pdu.ENQUIRE_LINK | pdu.RESPONSE, 0, request.sequence)) == [
        Ended("enquire_link_resp answers submit_sm")
    ]


def test_what_is_no_smpp_ends_the_session() -> None:
    smsc = Smsc().binds()
    (ended,) = smsc.session.receive_data(b"HTTP/1.1 400 Bad", smsc.now)
    assert isinstance(ended, Ended)
    assert ended.reason.startswith("the SMSC sent what is no SMPP")
    assert smsc.says(Pdu(pdu.ENQUIRE_LINK, 0, 5)) == []


def test_unbind_is_answered_by_the_end() -> None:
    smsc = Smsc().binds()
    smsc.session.unbind(smsc.now)
    (request,) = smsc.sent()
    assert smsc.answers(request) == [Ended("unbound")]


def test_sequence_numbers_begin_anew_behind_the_last() -> None:
    smsc = Smsc().binds()
    smsc.session._sequence = LAST_SEQUENCE - 1
    for token in (1, 2):
        smsc.session.submit(token, HELLO, smsc.now)
    assert [request.sequence for request in smsc.sent()] == [LAST_SEQUENCE, 1]


# --- how fast


def test_the_rate_is_kept_over_any_second() -> None:
    pace, now, sent = Pace(10.0), 0.0, []
    while now < 5.0:
        wait = pace.wait_s(now)
        if wait == 0:
            pace.take(now)
            sent.append(now)
        else:
            now += wait
    assert all(sum(begin <= at < begin + 1 for at in sent) <= 20 for begin in sent)
    assert 50 <= len(sent) <= 51


def test_a_pause_doubles_and_success_ends_it() -> None:
    pace, now, pauses = Pace(1000.0), 0.0, []
    for _ in range(9):
        pace.throttled(now)
        pace.throttled(now + 0.01)  # the answer to one that was under way
        pauses.append(round(pace.wait_s(now), 3))
        now += pauses[-1]
        assert pace.wait_s(now) == 0
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    pace.accepted(now)
    pace.throttled(now)
    assert pace.wait_s(now) == FIRST_PAUSE_S
