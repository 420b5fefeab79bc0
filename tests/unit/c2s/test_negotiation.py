"""The table of stream states (c2s/negotiation.py), and that a stream keeps to it whatever comes when."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from c2s.negotiation import ABORT, AUTH, ELEMENTS, RESPONSE, STARTTLS, State
from tests.support.sasl2 import with_password
from tests.support.streams import BIND, CLOSE, HEADER, Talk, auth, encrypt, plain, response
from tests.support.streams import STARTTLS as STARTTLS_ELEMENT
from xmpp import ns

SENT = {
    STARTTLS: STARTTLS_ELEMENT,
    AUTH: auth("PLAIN"),
    RESPONSE: f"<response xmlns='{ns.SASL}'/>",
    ABORT: f"<abort xmlns='{ns.SASL}'/>",
}


def in_challenge(talk: Talk) -> None:
    talk.open()
    talk.say(auth("PLAIN"))


def in_handshake(talk: Talk) -> None:
    talk.open()
    talk.say(STARTTLS_ELEMENT)


def binding(talk: Talk) -> None:
    talk.sign_in()
    talk.router.is_answering = False
    talk.say(BIND)


def closing(talk: Talk) -> None:
    talk.bind()
    talk.router.is_answering = False
    talk.say(CLOSE)


def failed_a_task(talk: Talk) -> None:
    talk.router.lacking = ("SHA-256",)
    talk.open()
    talk.say(with_password(f"<upgrade xmlns='{ns.SASL_UPGRADE}'>UPGR-SCRAM-SHA-256</upgrade>"))
    talk.say(f"<abort xmlns='{ns.SASL2}'/>")


def over(talk: Talk) -> None:
    talk.open()
    talk.say(CLOSE)


REACHED: dict[State, Callable[[Talk], object]] = {
    State.HEADER: lambda talk: None,
    State.UNAUTHENTICATED: Talk.open,
    State.HANDSHAKE: in_handshake,
    State.AUTHENTICATING: in_challenge,
    State.REFUSED: failed_a_task,
    State.AUTHENTICATED: Talk.sign_in,
    State.BINDING: binding,
    State.BOUND: Talk.bind,
    State.CLOSING: closing,
    State.CLOSED: over,
}


def test_every_state_can_be_reached() -> None:
    for state, reach in REACHED.items():
        talk = Talk()
        reach(talk)
        assert talk.stream.state is state
    assert set(REACHED) == set(State)


@pytest.mark.parametrize("name", SENT)
@pytest.mark.parametrize("state", [s for s in State if s not in (State.HANDSHAKE, State.BINDING)])
def test_an_element_is_handled_where_the_table_has_it_and_ends_the_stream_elsewhere(state: State, name: str) -> None:
    talk = Talk()
    REACHED[state](talk)
    before = talk.is_over()
    written = talk.say(SENT[name])
    if name in ELEMENTS.get(state, frozenset()):
        assert "<stream:error>" not in written
        assert not talk.is_over()
    elif state in (State.CLOSING, State.CLOSED):
        assert (written, talk.is_over()) == ("", before)
    else:
        assert written.endswith("</stream:error></stream:stream>")
        assert talk.is_over()


@pytest.mark.parametrize("state", [State.HANDSHAKE, State.BINDING])
@pytest.mark.parametrize("sent", [*SENT.values(), BIND, CLOSE, HEADER, "nonsense"])
def test_what_comes_while_an_answer_is_awaited_waits_unread(state: State, sent: str) -> None:
    talk = Talk()
    REACHED[state](talk)
    assert talk.say(sent) == ""
    assert talk.stream.state is state
    assert not talk.is_read()


def test_a_stream_goes_through_the_states_in_order() -> None:
    talk = Talk(is_tls_required=True)
    states = [talk.stream.state]

    def step(act: Callable[[], object]) -> None:
        act()
        states.append(talk.stream.state)

    step(talk.open)
    step(lambda: talk.say(STARTTLS_ELEMENT))
    step(lambda: encrypt(talk))
    step(talk.open)
    step(lambda: talk.say(auth("PLAIN")))
    step(lambda: talk.say(response(plain())))
    step(talk.open)
    step(lambda: talk.say(BIND))
    step(lambda: talk.say(CLOSE))
    assert states == [
        State.HEADER, State.UNAUTHENTICATED, State.HANDSHAKE, State.HEADER, State.UNAUTHENTICATED,
        State.AUTHENTICATING, State.HEADER, State.AUTHENTICATED, State.BOUND, State.CLOSED,
    ]  # fmt: skip
