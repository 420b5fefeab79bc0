"""How stanzas are told apart, and what a refusal becomes (router/pipeline.py): RFC 6120, 8 and 10; RFC 6121, 8."""

from __future__ import annotations

import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.entity import Session
from router.events import SessionBound
from router.feature import At, Feature, Stage
from router.pipeline import Pipeline, turn_failures
from router.settings import Settings
from router.turn import Turn
from storage import vcards
from storage.log import Ids
from tests.support.turns import DOMAIN, World, error, parse, text
from xmpp import ns
from xmpp.errors import Forbidden
from xmpp.stanza import BAD_TO, Stanza

PING = f'<ping xmlns="{ns.PING}"/>'
BAD_REQUEST = error("bad-request", "modify")
UNAVAILABLE = error("service-unavailable", "cancel")
NOT_IMPLEMENTED = error("feature-not-implemented", "cancel")


class Scene:
    """Romeo and Juliet, a session each."""

    def __init__(self) -> None:
        self.world = World()
        self.romeo = self.world.bind(self.world.account("romeo@example.com"), "orchard")
        self.juliet = self.world.bind(self.world.account("juliet@example.com"), "balcony")

    def ask(self, xml: str | Stanza) -> str:
        """What Juliet hears after she has sent this: one stanza, or nothing ("")."""
        self.world.say(self.juliet, xml)
        heard = self.world.heard(self.juliet)
        assert len(heard) <= 1, heard
        return heard[0] if heard else ""


@pytest.fixture
def scene() -> Scene:
    return Scene()


# --- IQ: RFC 6120, 8.2.3

WRONG_IQS = {
    "no id": f'<iq type="get">{PING}</iq>',
    "empty id": f'<iq type="get" id="">{PING}</iq>',
    "no type": f'<iq id="1">{PING}</iq>',
    "unknown type": f'<iq id="1" type="sing">{PING}</iq>',
    "no child": '<iq id="1" type="get"/>',
    "text only": '<iq id="1" type="set">ping</iq>',
    "two children": f'<iq id="1" type="get">{PING}{PING}</iq>',
}


@pytest.mark.parametrize("to", ["", ' to="example.com"', ' to="juliet@example.com"', ' to="romeo@example.com/orchard"'])
@pytest.mark.parametrize("wrong", WRONG_IQS.values(), ids=WRONG_IQS.keys())
def test_an_iq_that_breaks_the_rules_is_a_bad_request(scene: Scene, wrong: str, to: str) -> None:
    answer = scene.ask(wrong.replace("<iq", f"<iq{to}"))
    assert answer.startswith("<iq ")
    assert 'type="error"' in answer
    assert BAD_REQUEST in answer
    assert scene.world.heard(scene.romeo) == []


@pytest.mark.parametrize("wrong", [WRONG_IQS["no child"], WRONG_IQS["two children"]])
def test_wrong_iqs_from_elsewhere_are_refused_too(scene: Scene, wrong: str) -> None:
    address = '<iq from="nurse@example.org/x" to="romeo@example.com"'
    scene.world.arrive(scene.romeo.entity, wrong.replace("<iq", address))
    (answer,) = scene.world.away
    assert answer.startswith('<iq to="nurse@example.org/x" from="romeo@example.com" type="error"')
    assert BAD_REQUEST in answer


@pytest.mark.parametrize("to", [None, "juliet@example.com", "example.com", "romeo@example.com"])
def test_an_unknown_payload_is_service_unavailable(scene: Scene, to: str | None) -> None:
    address = f' to="{to}"' if to else ""
    answer = scene.ask(f'<iq{address} id="1" type="get"><query xmlns="urn:unknown"/></iq>')
    assert answer.startswith(f'<iq to="juliet@example.com/balcony"{f" from=`{to}`" if to else ""}'.replace("`", '"'))
    assert UNAVAILABLE in answer


@pytest.mark.parametrize("to", [None, "juliet@example.com", "example.com", "romeo@example.com"])
def test_a_known_payload_in_the_wrong_type_of_request_is_not_implemented(scene: Scene, to: str | None) -> None:
    address = f' to="{to}"' if to else ""
    assert NOT_IMPLEMENTED in scene.ask(f'<iq{address} id="1" type="set">{PING}</iq>')


def test_a_request_to_a_name_without_account(scene: Scene) -> None:
    scene.world.nobody("mercutio@example.com")
    assert UNAVAILABLE in scene.ask(f'<iq to="mercutio@example.com" id="1" type="get">{PING}</iq>')
    assert UNAVAILABLE in scene.ask(f'<iq to="mercutio@example.com/x" id="1" type="get">{PING}</iq>')


def test_iqs_to_full_jids_reach_that_session_as_they_are(scene: Scene) -> None:
    scene.ask('<iq to="romeo@example.com/orchard" id="1" type="get"><q xmlns="urn:x"/></iq>')
    asked = '<iq to="romeo@example.com/orchard" from="juliet@example.com/balcony" type="get" id="1">'
    assert scene.world.heard(scene.romeo) == [f'{asked}<q xmlns="urn:x"/></iq>']
    scene.world.say(scene.romeo, '<iq to="juliet@example.com/balcony" id="1" type="result"/>')
    assert scene.world.heard(scene.juliet) == [
        '<iq to="juliet@example.com/balcony" from="romeo@example.com/orchard" type="result" id="1"/>'
    ]


@pytest.mark.parametrize("type", ["get", "set"])
def test_a_request_to_a_full_jid_without_session(scene: Scene, type: str) -> None:
    """RFC 6121, 8.5.3.2.3: service-unavailable, from the address that was asked."""
    answer = scene.ask(f'<iq to="romeo@example.com/gone" id="1" type="{type}">{PING}</iq>')
    assert answer.startswith('<iq to="juliet@example.com/balcony" from="romeo@example.com/gone" type="error" id="1">')
    assert UNAVAILABLE in answer


@pytest.mark.parametrize("type", ["result", "error"])
@pytest.mark.parametrize(
    "to", [None, "juliet@example.com", "example.com", "romeo@example.com", "romeo@example.com/gone"]
)
def test_answers_that_nobody_waits_for_are_dropped(scene: Scene, type: str, to: str | None) -> None:
    address = f' to="{to}"' if to else ""
    assert scene.ask(f'<iq{address} id="1" type="{type}"/>') == ""
    assert scene.world.heard(scene.romeo) == []


def test_an_answer_without_id_is_never_answered(scene: Scene) -> None:
    """RFC 6120, 8.3.1: no error for an error; 8.2.3, rule 4: none for a result."""
    assert scene.ask('<iq type="result"/>') == ""
    assert scene.ask('<iq type="error"/>') == ""


# --- addresses


@pytest.mark.parametrize(
    "xml",
    [f'<iq id="1" type="get">{PING}</iq>', '<message id="1"><body>x</body></message>', '<presence id="1"/>'],
)
def test_a_bad_to_is_jid_malformed(scene: Scene, xml: str) -> None:
    stanza = parse(xml)
    answer = scene.ask(stanza._replace(flags=stanza.flags | BAD_TO))
    assert error("jid-malformed", "modify") in answer
    assert 'id="1"' in answer


def test_a_bad_to_on_an_answer_is_dropped(scene: Scene) -> None:
    stanza = parse('<iq id="1" type="result"/>')
    assert scene.ask(stanza._replace(flags=stanza.flags | BAD_TO)) == ""


def test_nobody_reads_messages_to_the_domain(scene: Scene) -> None:
    answer = scene.ask('<message to="example.com" id="1"><body>x</body></message>')
    assert answer.startswith('<message to="juliet@example.com/balcony" from="example.com" type="error" id="1">')
    assert UNAVAILABLE in answer
    assert scene.ask('<message to="example.com" id="1" type="error"/>') == ""


# --- order, refusals, bugs


def test_stages_come_in_order_and_inside_a_stage_the_features(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    one, two = Feature("one"), Feature("two")
    for feature, stages in (
        (one, (Stage.IN_DELIVER, Stage.OUT_COPY, Stage.OUT_SCREEN)),
        (two, (Stage.OUT_SCREEN, Stage.IN_SCREEN, Stage.OUT_COPY)),
    ):
        for stage in stages:

            def step(turn: Turn, stanza: Stanza, name: str = f"{feature.name} {stage.name}") -> bool:
                seen.append(name)
                return name == "two OUT_COPY"

            feature.on_message(stage)(step)
    pipeline = Pipeline((one, two), frozenset({DOMAIN}))
    world = World()
    session = world.bind(world.account("juliet@example.com"))
    message = parse('<message to="romeo@example.com"/>')._replace(from_=session.jid)
    pipeline.outgoing(out := _turn(session, message), message)
    assert seen == ["one OUT_SCREEN", "two OUT_SCREEN", "one OUT_COPY", "two OUT_COPY"]
    assert out.sends == (), "the last step has dealt with it"
    seen.clear()
    pipeline.incoming(_turn(session, message), message)
    assert seen == ["two IN_SCREEN", "one IN_DELIVER"]


def test_two_features_may_not_answer_the_same() -> None:
    one, two = Feature("one"), Feature("two")
    for feature in (one, two):
        feature.on_iq("get", "urn:x", "q", at=At.OWN)(lambda turn, iq: None)
    with pytest.raises(AssertionError, match="two features answer"):
        Pipeline((one, two), frozenset())


def test_a_refusal_takes_back_what_was_decided() -> None:
    feature = Feature("hasty")

    @feature.on_message(Stage.OUT_SCREEN)
    def act(turn: Turn, message: Stanza) -> bool:
        assert turn.session is not None
        turn.deliver(turn.session, message)
        turn.send(message)
        turn.write(vcards.put, 1, b"")
        turn.fetch(vcards.get, lambda turn, value: None, 1)
        turn.close(turn.session, "conflict")
        turn.emit(SessionBound(turn.session, {}))
        turn.reloads = True
        raise Forbidden

    world = World()
    session = world.bind(world.account("juliet@example.com"))
    message = parse('<message to="romeo@example.com" id="m"/>')._replace(from_=session.jid)
    turn = _turn(session, message)
    Pipeline((feature,), frozenset({DOMAIN})).outgoing(turn, message)
    ((receiver, answer, _),) = turn.deliveries
    assert receiver is session
    assert text(answer) == (
        '<message to="juliet@example.com/home" from="romeo@example.com" type="error" id="m">'
        f'<error type="auth"><forbidden xmlns="{ns.STANZAS}"/></error></message>'
    )
    assert (turn.sends, turn.writes, turn.requests, turn.closing, turn.events) == ((), (), (), (), ())
    assert not turn.reloads


def test_a_bug_is_counted_logged_and_answered_and_the_rest_lives(caplog: pytest.LogCaptureFixture) -> None:
    feature = Feature("broken")

    @feature.on_message(Stage.OUT_SCREEN)
    def stumble(turn: Turn, message: Stanza) -> bool:
        raise KeyError("oops")

    @feature.on_message(Stage.IN_SCREEN)
    def fall(turn: Turn, message: Stanza) -> bool:
        raise ZeroDivisionError

    world = World()
    session = world.bind(world.account("juliet@example.com"))
    pipeline = Pipeline((feature,), frozenset({DOMAIN}))
    message = parse('<message to="romeo@example.com" id="m"/>')._replace(from_=session.jid)
    failures = turn_failures._value.get()
    with caplog.at_level(logging.ERROR):
        pipeline.outgoing(out := _turn(session, message), message)
        pipeline.incoming(into := _turn(session, message), message)
    assert [record.message for record in caplog.records] == ["turn_failed", "turn_failed"]
    assert turn_failures._value.get() == failures + 2
    for turn in (out, into):
        ((_, answer, _),) = turn.deliveries
        assert error("internal-server-error", "cancel") in text(answer)


def test_a_bug_in_one_event_handler_does_not_keep_others_from_hearing(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []
    one, two = Feature("one"), Feature("two")

    @one.on_event(SessionBound)
    def stumble(turn: Turn, event: SessionBound) -> None:
        raise KeyError("oops")

    @two.on_event(SessionBound)
    def hear(turn: Turn, event: SessionBound) -> None:
        heard.append(event.session.jid)

    world = World()
    session = world.bind(world.account("juliet@example.com"))
    with caplog.at_level(logging.ERROR):
        Pipeline((one, two), frozenset()).emit(_turn(session, None), SessionBound(session, {}))
    assert heard == ["juliet@example.com/home"]
    assert [record.message for record in caplog.records] == ["turn_failed"]


def _turn(session: Session, stanza: Stanza | None) -> Turn:
    return Turn(session.entity, session, stanza, Settings(domains=frozenset({DOMAIN})), 0.0, session.sid, 1, Ids())


# --- whatever is sent

_HANDLERS = sorted({(type, name) for feature in World().pipeline.features for _, type, name in feature.iq_handlers})
_ATTRIBUTES = st.dictionaries(
    st.sampled_from(["jid", "name", "subscription", "node", "ver", "xmlns:a", "type"]),
    st.sampled_from(["", "remove", "both", "1", "-1", "nurse@example.org", "juliet@example.com", "@", "x/y", "\u0660"]),
    max_size=3,
)


@st.composite
def junk(draw: st.DrawFn, namespace: str, depth: int = 0) -> str:
    """Elements that look a little like those that features know."""
    if depth > 2 or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(["", "text", "&amp;", "-129", "99999999999999999999"]))
    out = ""
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(["item", "group", "query", "username", "password", "remove", "x", "status", "c"]))
        attributes = "".join(f' {k}="{v or "urn:a"}"' for k, v in draw(_ATTRIBUTES).items())
        own = draw(st.sampled_from([f' xmlns="{namespace}"', "", ' xmlns="urn:a"', ' xmlns=""']))
        out += f"<{name}{own}{attributes}>{draw(junk(namespace, depth + 1))}</{name}>"
    return out


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_junk_in_known_payloads_is_answered_and_never_a_bug(data: st.DataObject) -> None:
    type, name = data.draw(st.sampled_from(_HANDLERS))
    namespace, _, local = name.partition(" ")
    to = data.draw(st.sampled_from(["", ' to="juliet@example.com"', ' to="romeo@example.com"', ' to="example.com"']))
    attributes = "".join(f' {k}="{v or "urn:a"}"' for k, v in data.draw(_ATTRIBUTES).items())
    inner = data.draw(junk(namespace))
    scene = Scene()
    scene.world.friends(scene.romeo.entity, scene.juliet.entity)
    before = turn_failures._value.get()
    scene.world.say(
        scene.juliet, f'<iq{to} type="{type}" id="1"><{local} xmlns="{namespace}"{attributes}>{inner}</{local}></iq>'
    )
    answers = [heard for heard in scene.world.heard(scene.juliet) if ' id="1"' in heard]
    assert len(answers) == 1
    assert turn_failures._value.get() == before


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_junk_presence_is_never_a_bug(data: st.DataObject) -> None:
    types = [None, "unavailable", "probe", "error", "subscribe", "subscribed", "unsubscribe", "unsubscribed", "dance"]
    scene = Scene()
    scene.world.friends(scene.romeo.entity, scene.juliet.entity)
    before = turn_failures._value.get()
    for _ in range(3):
        type = data.draw(st.sampled_from(types))
        to = data.draw(
            st.sampled_from(["", ' to="romeo@example.com"', ' to="romeo@example.com/x"', ' to="example.com"'])
        )
        priority = data.draw(st.sampled_from(["", "<priority>x</priority>", "<priority>-1</priority>", "<priority/>"]))
        inner = data.draw(junk(ns.CLIENT))
        written = f' type="{type}"' if type else ""
        scene.world.say(scene.juliet, f"<presence{to}{written}>{priority}{inner}</presence>")
    assert turn_failures._value.get() == before
