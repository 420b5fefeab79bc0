"""The traces that a router gathers (router/traces.py): who is told, what is shown in which order, and what ends them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY

from cluster.tracing import Event, Tracer
from cluster.wire import TRACE, Envelope, Incarnation
from router import traces as module
from router.traces import AT_ONCE, EVENTS, HELD_S, LONGEST_S, PAGE, READABLE_S, TooMany, Traces
from tests.support.traces import Watching

ME, OTHER = Incarnation("router-0#0"), Incarnation("router-1#1")
EDGE = Incarnation("c2s-0#7")
ROLES = {EDGE: "c2s", OTHER: "router", ME: "router"}
ROMEO, JULIET = "romeo@x", "juliet@x"


class Gathering:
    """A router that gathers; the test plays everybody else."""

    def __init__(self) -> None:
        self.watching = Watching()
        self.sent: list[tuple[Incarnation, Envelope]] = []
        self.peers: list[Incarnation] = [EDGE, OTHER]
        self.traces = Traces(ME, self.tracer, self._send, lambda: self.peers, ROLES.__getitem__, lambda: self.now)

    @property
    def tracer(self) -> Tracer:
        return self.watching.tracer

    @property
    def now(self) -> float:
        return self.watching.now

    def _send(self, to: Incarnation, envelope: Envelope) -> bool:
        self.sent.append((to, envelope))
        return True

    def start(self, jid: str = ROMEO, seconds: float = 60) -> str:
        id_ = self.traces.start(jid, seconds, "mercutio").id
        self.sent.clear()
        return id_

    def tell(self, id_: str, *events: Any, dropped: int = 0, by: Incarnation = EDGE) -> None:
        self.traces.told(by, tuple(((id_,), tuple(event)) for event in events), dropped)

    def page(self, id_: str, after: int = 0) -> dict[str, Any]:
        page = self.traces._page(id_, after)
        assert page is not None
        return page

    def shown(self, id_: str, after: int = 0) -> list[dict[str, Any]]:
        self.watching.now += HELD_S
        events: list[dict[str, Any]] = self.page(id_, after)["events"]
        return events


def event(at: float, *names: str, **changes: Any) -> Event:
    made = Event(at, "sender", names, 1, "chat", None, f"{ROMEO}/1", JULIET, "accepted", (("n", 1), ("session", "s")))
    return made._replace(**changes)


@pytest.fixture
def gathering() -> Gathering:
    return Gathering()


def test_everybody_is_told_who_is_traced_and_when_nobody_is(gathering: Gathering) -> None:
    trace = gathering.traces.start(ROMEO, 60, "mercutio")
    told = (TRACE, ((trace.id, ROMEO, 60.0),))
    assert gathering.sent == [(EDGE, told), (OTHER, told)]
    assert gathering.tracer.count == 1, "this router itself, too"
    gathering.sent.clear()
    gathering.watching.now += 10
    gathering.traces.peer_up(EDGE)
    assert gathering.sent == [(EDGE, (TRACE, ((trace.id, ROMEO, 50.0),)))], "who comes later"
    gathering.sent.clear()
    assert gathering.traces.stop(trace.id, "mercutio")
    assert gathering.sent == [(EDGE, (TRACE, ())), (OTHER, (TRACE, ()))]
    assert gathering.tracer.count == 0
    gathering.sent.clear()
    gathering.traces.peer_up(EDGE)
    assert gathering.sent == []


def test_it_has_begun_when_everybody_knows() -> None:
    gathering = Gathering()
    gathering.start()

    async def run() -> bool:
        waiting = asyncio.create_task(gathering.traces.wait_told())
        for edge in (EDGE, OTHER):
            await asyncio.sleep(module.LOOK_S / 5)
            assert not waiting.done()
            gathering.traces.told(edge, (), 0)
        await waiting
        gathering.start(JULIET)
        waiting = asyncio.create_task(gathering.traces.wait_told())
        await asyncio.sleep(0)
        gathering.watching.now += module.TOLD_S
        await waiting  # whoever does not answer is not waited for
        return True

    assert asyncio.run(run())


def test_so_many_run_at_once_in_the_cluster(gathering: Gathering) -> None:
    gathering.tracer.told(OTHER, (("router-1-1", JULIET, 30.0),))
    ids = [gathering.start(f"a{number}@x") for number in range(AT_ONCE - 1)]
    with pytest.raises(TooMany):
        gathering.traces.start(ROMEO, 60, "")
    gathering.traces.stop(ids[0], "")
    gathering.start()


def test_it_ends_by_itself(gathering: Gathering) -> None:
    id_ = gathering.start(seconds=10)
    gathering.tell(id_, event(1.0))
    gathering.watching.now += 10
    gathering.traces.tick()
    assert gathering.sent == [(EDGE, (TRACE, ())), (OTHER, (TRACE, ()))]
    gathering.tell(id_, event(2.0))
    page = gathering.page(id_)
    assert page["is_over"]
    assert len(page["events"]) == 1, "nothing comes behind its end; what came is read at once"
    gathering.watching.now += READABLE_S
    assert gathering.traces._page(id_, 0) is None
    assert not gathering.traces.stop(id_, "")


def test_who_had_forgotten_is_told_again(gathering: Gathering) -> None:
    id_ = gathering.start()
    gathering.traces.tick()
    assert gathering.sent == []
    gathering.watching.now += module.TELL_AGAIN_S
    gathering.traces.tick()
    gathering.traces.tick()
    told = (TRACE, ((id_, ROMEO, 60.0 - module.TELL_AGAIN_S),))
    assert gathering.sent == [(EDGE, told), (OTHER, told)]


def test_it_takes_an_hour_at_most(gathering: Gathering) -> None:
    gathering.start(seconds=10 * LONGEST_S)
    assert gathering.traces.list_()[0]["seconds_left"] == LONGEST_S


def test_a_drain_ends_it(gathering: Gathering) -> None:
    id_ = gathering.start()
    gathering.traces.end_all()
    assert gathering.page(id_)["is_over"]
    assert gathering.traces.list_() == []


def test_beginning_and_end_are_logged_and_counted(gathering: Gathering) -> None:
    def count(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    began, ended = count("stentor_traces_started_total"), count("stentor_traces_ended_total", reason="stopped")
    with structlog.testing.capture_logs() as lines:
        id_ = gathering.start()
        gathering.traces.stop(id_, "tybalt")
        gathering.traces.stop(id_, "tybalt")
    assert lines == [
        {"event": "trace_started", "log_level": "info", "trace": id_, "account": ROMEO, "by": "mercutio", "seconds": 60},
        {"event": "trace_ended", "log_level": "info", "trace": id_, "account": ROMEO, "by": "tybalt",
         "reason": "stopped", "count": 0},
    ]  # fmt: skip
    assert count("stentor_traces_started_total") == began + 1
    assert count("stentor_traces_ended_total", reason="stopped") == ended + 1


def test_events_of_one_stanza_have_one_number_whatever_it_is_called(gathering: Gathering) -> None:
    id_ = gathering.start()
    gathering.tell(id_, event(10.0, "a/1"), event(10.1, "b/1"), event(10.2, "a/1", "c>7"))
    gathering.tell(id_, event(10.3, "c>7", "juliet@x#5"), by=OTHER)
    gathering.tell(id_, event(10.9, "juliet@x#5"))
    shown = gathering.shown(id_)
    assert [one["stanza"] for one in shown] == [1, 2, 1, 1, 1]
    assert [one["since_ms"] for one in shown] == [0.0, 0.0, 200.0, 300.0, 900.0]
    assert [one["node"] for one in shown] == ["c2s-0", "c2s-0", "c2s-0", "router-1", "c2s-0"]
    assert [one["role"] for one in shown] == ["c2s", "c2s", "c2s", "router", "c2s"]
    assert shown[0]["text"] == "accepted as number 1 of s"


def test_an_id_tells_which_stanza_it_is_where_no_name_does(gathering: Gathering) -> None:
    id_ = gathering.start()
    error = event(10.2, "d/9", type="error", id="m1", from_=JULIET, to=f"{ROMEO}/1")
    gathering.tell(id_, event(10.0, "a/1", id="m1"), event(10.1, id="m1"), error, event(10.3, id="m2"))
    gathering.tell(id_, event(10.4, id="m1", from_="nurse@x"), event(10.0 + module.WEAK_S * 2, id="m1"))
    assert [one["stanza"] for one in gathering.shown(id_)] == [1, 1, 1, 2, 3, 4]


def test_events_are_shown_in_the_order_of_their_times(gathering: Gathering) -> None:
    id_ = gathering.start()
    gathering.tell(id_, event(10.3))
    assert gathering.page(id_)["events"] == [], "something of before may be on its way"
    gathering.watching.now += HELD_S / 2
    gathering.tell(id_, event(10.1), event(10.5))
    gathering.watching.now += HELD_S / 2
    assert [one["at"] for one in gathering.page(id_)["events"]] == [10.1, 10.3]
    assert [one["at"] for one in gathering.shown(id_, 2)] == [10.5]


def test_pages_go_on_where_the_last_one_ended_and_may_be_asked_again(gathering: Gathering) -> None:
    id_ = gathering.start()
    for start in range(0, PAGE + 10, 10):
        gathering.tell(id_, *(event(float(start + index)) for index in range(10)))
    first = gathering.shown(id_)
    assert [first[0]["number"], first[-1]["number"]] == [1, PAGE]
    assert gathering.shown(id_) == first, "its answer was lost"
    rest = gathering.shown(id_, PAGE)
    assert [one["number"] for one in rest] == list(range(PAGE + 1, PAGE + 11))
    assert gathering.shown(id_, PAGE + 10) == []
    assert gathering.shown(id_, 10**9) == []


def test_what_nobody_reads_is_dropped_and_said(gathering: Gathering) -> None:
    id_ = gathering.start()
    for _ in range(EVENTS // 100 + 1):
        gathering.tell(id_, *(event(1.0) for _ in range(100)))
    assert gathering.page(id_)["dropped"] == 100
    gathering.tell(id_, dropped=7)
    assert gathering.page(id_)["dropped"] == 107


@pytest.mark.parametrize(
    ("events", "dropped"),
    [
        (None, None), (7, "7"), ((7,), -1), ((("x",),), 2**70), (((("id",), None),), True), (((None, ()),), 1.5),
        ((((), ()), ("x", "y", "z")), b""),
    ],
)  # fmt: skip
def test_a_captured_process_breaks_nothing(gathering: Gathering, events: Any, dropped: Any) -> None:
    id_ = gathering.start()
    gathering.traces.told(EDGE, events, dropped)
    gathering.traces.told(EDGE, (((id_,), ("no", "event")),), 0)
    gathering.tell("router-0-other", event(1.0))
    assert gathering.shown(id_) == []
    assert gathering.page(id_)["dropped"] in (1, 2)


def test_names_are_forgotten_in_time(gathering: Gathering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STANZAS", 10)
    id_ = gathering.start()
    gathering.tell(id_, *(event(float(number), f"a/{number}", id=f"m{number}") for number in range(100)))
    assert [one["stanza"] for one in gathering.shown(id_)] == list(range(1, 101))
    known = gathering.traces._traces[id_]._stanzas
    assert (len(known._numbers), len(known._weak), len(known._since)) == (10, 10, 10)


def test_a_page_waits_for_something_to_show() -> None:
    gathering = Gathering()
    id_ = gathering.start()

    async def run() -> Any:
        asked = asyncio.create_task(gathering.traces.page(id_, 0))
        await asyncio.sleep(module.LOOK_S)
        gathering.tell(id_, event(1.0))
        gathering.watching.now += HELD_S
        return await asked

    assert len(asyncio.run(run())["events"]) == 1


def test_of_what_is_not_there_nothing_is_known(gathering: Gathering) -> None:
    assert asyncio.run(gathering.traces.page("router-0-nothing", 0)) is None
    methods = gathering.traces.methods()
    assert sorted(methods) == ["traces.list", "traces.page", "traces.stop"]
    assert asyncio.run(methods["traces.stop"]("router-0-nothing", "")) is False  # type: ignore[arg-type]
