"""The hops next to clients and other servers (cluster/edge_tracing.py)."""

from __future__ import annotations

import pytest

from cluster.edge import EdgeSession
from cluster.edge_tracing import EdgeTracing
from cluster.wire import CONFIRMED, DELIVER
from tests.support.streams import ROMEO
from tests.support.traces import Watching
from tests.unit.cluster.test_edge import SHARD, SID, World
from xmpp.stanza import Stanza, message

JULIET = "juliet@montague.example"


class Traced(World):
    """An edge; whoever is named is traced."""

    def __init__(self, *jids: str, role: str = "c2s") -> None:
        super().__init__()
        self.watching = Watching()
        self.watching.trace(*jids)
        self.edge.tracing = EdgeTracing(self.watching.tracer, role)

    def delivered(self, q: int, stanza: Stanza, id_: int | None = None) -> None:
        self.hear(DELIVER, ((SHARD, 1, SID, 1, q, id_),), tuple(stanza))


def said(from_: str = f"{ROMEO}/balcony", to: str = JULIET, id: str = "m1") -> Stanza:
    return message(to=to, from_=from_, type="chat", id=id, inner=b"<body>hush</body><active/>")


def names(world: Traced) -> list[tuple[str, tuple[str, ...]]]:
    return [(event.decision, event.names) for event in world.watching.events()]


def test_what_a_client_sends_is_told_until_it_is_safe() -> None:
    world = Traced(JULIET)
    session = world.session()
    world.edge.submit(session, said())
    world.edge.submit(session, said(to="nurse@montague.example"))
    assert world.watching.decisions() == [("client", "received", {"bytes": 132, "children": ("body", "active")})]
    world.hear(CONFIRMED, SHARD, 1, SID, 1, 2)
    assert names(world) == [("confirmed", ("7/1",))]


def test_what_a_client_gets_is_told_until_it_has_it() -> None:
    world = Traced(ROMEO)
    session = world.session()
    world.delivered(1, said(from_=f"{JULIET}/x", to=ROMEO), 4711)
    world.delivered(2, said(from_="room@conference.example/juliet", to=ROMEO), -99)
    assert names(world) == [
        ("delivered", ("7>1", f"{ROMEO}#4711")),
        ("delivered", ("7>2", "room@conference.example#99")),
    ]
    world.edge.written(session, 1)
    assert world.watching.decisions() == [("client", "taken", {"session": f"{ROMEO}/balcony"})]
    session.is_managed = True
    world.edge.written(session, 2)
    assert world.watching.decisions() == [("client", "acknowledged", {"session": f"{ROMEO}/balcony"})]


def test_what_is_delivered_to_a_stream_that_has_ended_is_not_said_to_be_written() -> None:
    world = Traced(ROMEO)
    session = world.session()
    world.edge.submit(session, said())  # held, so its end is not told yet
    world.edge.detach(session, "connection-lost")
    world.watching.events()
    world.delivered(1, said(from_=JULIET, to=ROMEO))
    ((_, decision, details),) = world.watching.decisions()
    assert (decision, details["reason"]) == ("returned", "the stream has ended (connection-lost)")


def test_what_a_stream_cannot_write_is_returned() -> None:
    world = Traced(JULIET, role="s2s")
    world.session()

    def deliver(stanza: Stanza) -> None:
        world.edge.not_written("too large")

    world.sink.deliver = deliver  # type: ignore[method-assign]
    world.delivered(1, said())
    assert [d[:2] for d in world.watching.decisions()] == [("stream", "returned")]
    del world.sink.deliver
    world.delivered(2, said())
    assert [d[:2] for d in world.watching.decisions()] == [("stream", "written")]


@pytest.mark.parametrize("is_on", [False, True])
def test_of_others_nothing_is_told(is_on: bool) -> None:
    world = Traced("nurse@montague.example")
    if not is_on:
        world.edge.tracing = None
    session: EdgeSession = world.session()
    world.edge.submit(session, said())
    world.delivered(1, said(from_=JULIET, to=ROMEO), 5)
    world.edge.written(session, 1)
    world.hear(CONFIRMED, SHARD, 1, SID, 1, 1)
    assert world.watching.events() == []
    assert world.sink.delivered == ["m1"]
