"""What a process tells of traced stanzas, and what never (cluster/tracing.py)."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from cluster import tracing
from cluster.tracing import DETAILS_MOST, FLUSH_MOST, FLUSH_S, LISTED, LONGEST, Event, checked, children_of, harmless
from cluster.wire import TRACED, Incarnation
from tests.support.traces import GATHERER, Watching
from xmpp import ns
from xmpp.stanza import Stanza, iq, message

ROMEO, JULIET, FRIAR = "romeo@montague.example", "juliet@montague.example", "friar@verona.example"
OTHER = Incarnation("router-8#8")


def said(
    from_: str | None = f"{ROMEO}/orchard", to: str | None = JULIET, inner: bytes = b"<body>hush</body>"
) -> Stanza:
    return message(to=to, from_=from_, type="chat", id="m1", inner=inner)


def carbon() -> Stanza:
    inner = (
        f'<received xmlns="{ns.CARBONS}"><forwarded xmlns="{ns.FORWARD}"><message xmlns="jabber:client" '
        f'from="{ROMEO}/orchard" to="{JULIET}"><body>hush</body></message></forwarded></received>'
    )
    return said(JULIET, f"{JULIET}/phone", inner.encode())


@pytest.mark.parametrize(
    ("jid", "stanza"),
    [
        (ROMEO, said()),
        (JULIET, said()),
        (JULIET, said(to=f"{JULIET}/phone")),
        ("verona.example", said(to=FRIAR)),
        ("verona.example", said(from_="verona.example")),
        (ROMEO, carbon()),
    ],
)
def test_a_stanza_belongs_to_its_senders_and_its_recipients_trace(jid: str, stanza: Stanza) -> None:
    watching = Watching()
    watching.trace(jid)
    assert watching.tracer.whose(stanza) == {(GATHERER, f"{jid} traced")}


@pytest.mark.parametrize("jid", ["nurse@montague.example", "montague.example2", "rome@montague.example", "example"])
def test_a_stanza_belongs_to_nobody_elses(jid: str) -> None:
    watching = Watching()
    watching.trace(jid)
    assert not watching.tracer.whose(said())
    assert not watching.tracer.whose(carbon())


def test_who_gathers_gets_the_events_of_a_moment_in_one_envelope() -> None:
    watching = Watching()
    watching.trace(ROMEO)
    watching.trace(JULIET, by=OTHER)
    for decision in ("accepted", "archived"):
        watching.tracer.note(watching.tracer.whose(said()), "sender", ("a/1",), said(), decision, n=7)
    assert watching.sent == []
    watching.sleep(FLUSH_S)
    assert [(to, envelope[0], len(envelope[1]), envelope[2]) for to, envelope in sorted(watching.sent, reverse=True)] == [
        (GATHERER, TRACED, 2, 0), (OTHER, TRACED, 2, 0)
    ]  # fmt: skip
    (event, _) = watching.events()
    assert event == Event(
        1_000.0, "sender", ("a/1",), 1, "chat", "m1", f"{ROMEO}/orchard", JULIET, "accepted", (("n", 7),)
    )


def test_what_is_told_is_understood_on_the_other_side() -> None:
    watching = Watching()
    watching.trace(ROMEO)
    sessions = [f"{JULIET}/{index}" for index in range(50)]
    watching.tracer.note(
        watching.tracer.whose(said()), "sender", ["x"] * 50, said()._replace(id="i" * 5_000), "delivered",
        sessions=sessions, empty="", nothing=None, no=(), zero=0, ms=1.5,
    )  # fmt: skip
    (event,) = watching.events()
    packed = msgpack.unpackb(msgpack.packb(event), use_list=False)
    assert checked(packed) == event
    details = dict(event.details)
    assert details == {"sessions": (*sessions[:LISTED], "40 more"), "zero": 0, "ms": 1.5}
    assert event.id is not None
    assert len(event.id) == LONGEST


def test_nobody_waits_for_events_that_are_too_many() -> None:
    watching = Watching()
    watching.trace(ROMEO)
    whose = watching.tracer.whose(said())
    before = REGISTRY.get_sample_value("stentor_trace_events_total", {"result": "dropped"}) or 0
    for _ in range(FLUSH_MOST + 7):
        watching.tracer.note(whose, "sender", (), said(), "accepted")
    watching.tracer.flush()
    ((_, (_, bundle, dropped)),) = watching.sent
    assert (len(bundle), dropped) == (FLUSH_MOST, 7)
    assert REGISTRY.get_sample_value("stentor_trace_events_total", {"result": "dropped"}) == before + 7


def test_a_link_that_is_full_gets_none_and_is_told_later_how_many() -> None:
    watching = Watching()
    watching.trace(ROMEO)
    whose = watching.tracer.whose(said())
    watching.is_congested = True
    watching.tracer.note(whose, "sender", (), said(), "accepted")
    watching.tracer.flush()
    assert watching.sent == []
    watching.is_congested = False
    watching.tracer.note(whose, "sender", (), said(), "accepted")
    watching.tracer.flush()
    assert [envelope[2] for _, envelope in watching.sent] == [1]


def test_a_trace_ends_everywhere_when_its_time_is_over() -> None:
    watching = Watching()
    watching.trace(ROMEO, seconds=10)
    assert watching.switched == [True]
    watching.sleep(9.9)
    assert watching.tracer.whose(said())
    watching.sleep(0.2)
    assert watching.switched[-1] is False
    assert not watching.tracer.whose(said())
    assert watching.tracer.count == 0


def test_a_trace_ends_with_the_router_that_gathers_it() -> None:
    watching = Watching()
    watching.trace(ROMEO)
    watching.trace(JULIET, by=OTHER)
    whose = watching.tracer.whose(said())
    watching.tracer.note(whose, "sender", (), said(), "accepted")
    assert watching.tracer.gone(GATHERER) == [(f"{ROMEO} traced", ROMEO)]
    assert watching.tracer.gone(GATHERER) == []
    watching.tracer.flush()
    assert [to for to, _ in watching.sent] == [OTHER]
    watching.trace(by=OTHER)
    assert watching.switched == [True, True, True, False]


def test_children_are_told_by_name_alone() -> None:
    inner = b'<body>secret</body><x xmlns="urn:secret:1" a="secret"><deep>secret</deep></x>'
    assert children_of(said(inner=inner)) == ("body", "x")
    query = iq(type="get", id="1", to=None, from_=None, inner=f'<query xmlns="{ns.ROSTER}" ver="secret"/>'.encode())
    assert children_of(query) == (f"query {ns.ROSTER}",)
    foreign = iq(type="get", id="1", to=None, from_=None, inner=b'<query xmlns="my secret"/>')
    assert children_of(foreign) == ("query",)


def test_a_bug_of_a_hook_is_its_own() -> None:
    @harmless
    def hook(number: int) -> None:
        raise ZeroDivisionError(number)

    before = REGISTRY.get_sample_value("stentor_trace_events_total", {"result": "dropped"}) or 0
    hook(1)
    assert REGISTRY.get_sample_value("stentor_trace_events_total", {"result": "dropped"}) == before + 1


GOOD = Event(1.0, "sender", ("a/1",), 1, None, None, None, JULIET, "accepted", (("n", 1), ("to", ("a", "b"))))


@pytest.mark.parametrize(
    "changes",
    [
        {"at": "now"}, {"at": float("nan")}, {"at": float("inf")}, {"hop": 7}, {"hop": "x" * (LONGEST + 1)},
        {"names": ("a",) * 100}, {"names": (1,)}, {"names": ["a"]}, {"kind": 9}, {"kind": None}, {"id": b"raw"},
        {"to": "x" * (LONGEST + 1)}, {"decision": None}, {"details": {"a": 1}}, {"details": (("a",),)},
        {"details": (("a", {}),)}, {"details": (("a", ("b",) * 100),)}, {"details": (("a", ((),)),)},
        {"details": (("a", float("nan")),)}, {"details": (("a", 1),) * (DETAILS_MOST + 1)}, {"details": ((1, 1),)},
    ],
)  # fmt: skip
def test_what_no_correct_process_sends_is_no_event(changes: dict[str, Any]) -> None:
    assert checked(tuple(GOOD)) == GOOD
    assert checked((*GOOD, "more")) == GOOD, "of a newer process"
    assert checked(tuple(GOOD._replace(**changes))) is None
    assert checked(tuple(GOOD[:-1])) is None


@settings(deadline=None)
@given(
    st.recursive(st.none() | st.integers() | st.text() | st.floats() | st.binary(), lambda x: st.lists(x).map(tuple))
)
def test_nothing_that_comes_in_breaks_the_check(fields: object) -> None:
    assert checked(fields) is None


def test_every_namespace_that_may_be_shown_is_one_of_ours() -> None:
    assert ns.ROSTER in tracing._KNOWN_NAMESPACES
    assert all(isinstance(name, str) for name in tracing._KNOWN_NAMESPACES)
