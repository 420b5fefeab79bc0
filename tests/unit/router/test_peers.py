"""Other servers and components at their owner (router/peers.py, router/dialing.py): envelopes in, envelopes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest

from cluster.config import Component
from cluster.edge import Edge, EdgeSession, Sink
from cluster.shards import rendezvous, shard_of
from cluster.wire import (
    CONFIRMED,
    DELIVER,
    DETACH,
    DIAL,
    READ,
    SUBMIT,
    UNREACHABLE,
    Incarnation,
    SessionId,
    node_of,
)
from router.dialing import DIAL_AGAIN_S
from router.entity import SAVE_EVERY, Session
from router.feature import Feature
from router.features import disco
from router.peers import TRIED_S, WINDOW
from router.settings import Settings
from router.turn import Turn
from storage.log import ARCHIVE, OUTBOUND
from tests.support.owners import FEATURES as FEW
from tests.support.owners import (
    JULIET,
    NURSE,
    ROMEO,
    S2S,
    S2S_2,
    SETTINGS,
    OneRouter,
    announcement,
    chat,
    headline,
)
from tests.support.turns import DOMAIN
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.stanza import Stanza, from_wire

PEER = "verona.example"
FRIAR = f"friar@{PEER}"
GATEWAY = "irc.example.com"
ALL = (ROMEO, JULIET, NURSE, PEER, GATEWAY)


class Federation(OneRouter):
    """A router that owns peers, too; two s2s processes live."""

    def __init__(self, settings: Settings = SETTINGS, features: Sequence[Feature] = FEW) -> None:
        super().__init__(owns=ALL, settings=settings, features=features)
        self.edges_up(S2S, S2S_2)
        self.chosen, self.other = (
            (S2S, S2S_2) if rendezvous(PEER, [node_of(S2S), node_of(S2S_2)]) == node_of(S2S) else (S2S_2, S2S)
        )
        self.romeo = self.bind(ROMEO, "orchard")
        self.n = 0

    def edges_up(self, *edges: Incarnation) -> None:
        """These live."""
        for edge in edges:
            self.around(partial(self.dialing.edge_up, edge))

    def edges_down(self, *edges: Incarnation) -> None:
        """These are dead."""
        for edge in edges:
            self.around(partial(self.dialing.edge_down, edge))
            self.around(partial(self.directory.edge_down, edge))

    def write(self, stanza: Stanza) -> None:
        """Romeo sends it."""
        self.n += 1
        self.submit(self.romeo, self.n, stanza)

    def stream(
        self, domain: str = PEER, edge: Incarnation = S2S, *, sends: bool = True, local: str = DOMAIN
    ) -> Session:
        """An s2s attaches a stream."""
        facts = {"kind": "s2s", "local": local, "sends": sends}
        before = set(self.owner.sessions)
        self.attach(domain, None, edge, facts=facts)
        (new,) = set(self.owner.sessions) - before
        return self.owner.sessions[new]

    def come_in(self, stream: Session, n: int, stanza: Stanza) -> None:
        """A stanza arrives by a stream."""
        assert stream.place is not None
        fields = (stream.shard, self.epoch(stream.bare), stream.sid, stream.gen, n, tuple(stanza), False)
        self.receive(stream.place, (SUBMIT, *fields))

    def dials(self) -> list[tuple[Incarnation, str, str]]:
        """Who was asked for which stream since the last time."""
        return [(to, envelope[3], envelope[4]) for to, envelope in self.taken(DIAL)]

    def unreachable(self, condition: str, *, is_permanent: bool, local: str = DOMAIN) -> None:
        """The s2s that was asked says so."""
        fields = (shard_of(PEER), self.epoch(PEER), PEER, local, condition, "Why.", is_permanent)
        self.receive(self.chosen, (UNREACHABLE, *fields))

    def heard(self, session: Session) -> list[Stanza]:
        """What a session was sent since the last time."""
        return [
            from_wire(tuple(envelope[2]))
            for _, envelope in self.taken(DELIVER)
            if session.sid in [target[2] for target in envelope[1]]
        ]

    def outbound(self) -> list[int]:
        """Ids of the rows in the peer's log."""
        return [row.id for row in self.database.rows if row.class_ == OUTBOUND]


@pytest.fixture
def world() -> Federation:
    return Federation()


def query(id: str, to: str, from_: str, namespace: str = ns.DISCO_INFO, local: str = "query") -> Stanza:
    return stanzas.iq(
        type="get", id=id, to=to, from_=from_, payload=f"{namespace} {local}",
        inner=f"<{local} xmlns='{namespace}'/>".encode(),
    )  # fmt: skip


# --- to the peer


def test_a_message_waits_for_a_stream_that_one_s2s_is_asked_for(world: Federation) -> None:
    world.write(chat("1", FRIAR))
    assert world.dials() == [(world.chosen, PEER, DOMAIN)]
    assert [row.class_ for row in world.database.rows] == [ARCHIVE, OUTBOUND], "hers is committed with his"
    assert world.romeo.conf == 1, "it is safe: it is in the log"
    stream = world.stream()
    assert [stanza.id for stanza in world.heard(stream)] == ["1"]


def test_a_message_is_confirmed_only_when_its_row_for_the_peer_is_committed(world: Federation) -> None:
    world.stream()
    world.is_prompt = False
    world.write(chat("1", FRIAR))
    assert world.taken(CONFIRMED, DELIVER) == []
    world.committed()
    assert {envelope[0] for _, envelope in world.taken(CONFIRMED, DELIVER)} == {CONFIRMED, DELIVER}


def test_what_is_sent_keeps_its_order_through_the_line(world: Federation) -> None:
    for number in range(3):
        world.write(chat(str(number), FRIAR) if number != 1 else headline("1", FRIAR))
    stream = world.stream()
    world.write(chat("3", FRIAR))
    assert [stanza.id for stanza in world.heard(stream)] == ["0", "1", "2", "3"]


def test_a_stream_that_only_comes_in_carries_nothing_out(world: Federation) -> None:
    incoming = world.stream(sends=False)
    world.write(chat("1", FRIAR))
    assert world.heard(incoming) == []


def test_a_stream_of_another_of_our_domains_is_not_taken(world: Federation) -> None:
    other = world.stream(local="other.example")
    world.write(chat("1", FRIAR))
    assert world.heard(other) == []


def test_a_presence_for_many_says_for_whom_it_is(world: Federation) -> None:
    stream = world.stream()
    entity = world.entity(ROMEO)

    def run(turn: Any) -> None:
        turn.broadcast(stanzas.presence(to=None, from_=world.romeo.jid), [FRIAR, f"monk@{PEER}", JULIET])

    world.around(lambda: world.owner.act(entity, run))
    assert [stanza.to for stanza in world.heard(stream)] == [FRIAR, f"monk@{PEER}"]


def test_a_dial_is_repeated_until_there_is_a_stream(world: Federation) -> None:
    world.write(chat("1", FRIAR))
    assert len(world.dials()) == 1
    world.tick(1)
    assert world.dials() == []
    world.tick(DIAL_AGAIN_S)
    assert len(world.dials()) == 1
    world.stream()
    world.tick(DIAL_AGAIN_S + 1)
    assert world.dials() == []


def test_when_the_s2s_that_was_asked_dies_another_is_asked(world: Federation) -> None:
    world.write(chat("1", FRIAR))
    world.dials()
    world.edges_down(world.chosen)
    assert world.dials() == [(world.other, PEER, DOMAIN)]


def test_without_any_s2s_a_message_waits_for_one(world: Federation) -> None:
    world.edges_down(S2S, S2S_2)
    world.write(chat("1", FRIAR))
    assert world.dials() == []
    world.edges_up(S2S)
    assert world.dials() == [(S2S, PEER, DOMAIN)]


# --- what cannot be handed over


def test_a_domain_that_does_not_exist_gives_everything_back(world: Federation) -> None:
    world.write(chat("1", FRIAR))
    world.write(query("2", FRIAR, world.romeo.jid))
    world.write(stanzas.presence(to=FRIAR, from_=None, id="3"))
    world.taken()
    world.unreachable("remote-server-not-found", is_permanent=True)
    errors = world.heard(world.romeo)
    assert [(stanza.id, stanza.type, stanza.from_) for stanza in errors] == [
        ("1", "error", FRIAR),
        ("2", "error", FRIAR),
    ]
    assert all(b"remote-server-not-found" in stanza.inner and b"Why." in stanza.inner for stanza in errors)
    delivered, strays = world.database.cursors[world.database.keys[PEER]]
    assert (delivered, strays) == (world.outbound()[0], ()), "the next owner does not try it again"


def test_who_wants_to_join_a_room_there_is_told(world: Federation) -> None:
    world.write(stanzas.presence(to=f"room@{PEER}/romeo", from_=None, id="1", flags=stanzas.HAS_MUC))
    world.unreachable("remote-server-not-found", is_permanent=True)
    assert [stanza.type for stanza in world.heard(world.romeo)] == ["error"]


def test_a_domain_that_cannot_be_reached_is_tried_less_and_less_and_given_up_in_time() -> None:
    world = Federation(replace(SETTINGS, peer_queue_s=30.0))
    world.write(chat("1", FRIAR))
    asked = 0
    for _ in range(29):
        if world.dials():
            asked += 1
            world.unreachable("remote-server-timeout", is_permanent=False)
        world.tick(1)
    assert 3 <= asked <= 6
    assert world.heard(world.romeo) == []
    world.tick(3)
    (error,) = world.heard(world.romeo)
    assert error.type == "error"
    assert b"remote-server-timeout" in error.inner


def test_a_line_that_is_full_refuses_and_keeps_what_it_has() -> None:
    world = Federation(replace(SETTINGS, peer_queue=2))
    for number in range(3):
        world.write(chat(str(number), FRIAR))
    (error,) = world.heard(world.romeo)
    assert error.id == "2"
    assert b"resource-constraint" in error.inner
    assert [stanza.id for stanza in world.heard(world.stream())] == ["0", "1"]


def test_a_domain_that_is_not_spoken_to_is_refused_at_once() -> None:
    world = Federation(replace(SETTINGS, peer_policies={PEER: "deny"}))
    world.write(chat("1", FRIAR))
    assert world.dials() == []
    world.sent.clear()
    world.write(chat("2", FRIAR))
    (error,) = world.heard(world.romeo)
    assert b"not-allowed" in error.inner


# --- streams end, processes die


def test_what_a_stream_had_not_got_rid_of_goes_first_by_the_next_one(world: Federation) -> None:
    stream = world.stream()
    for number in range(3):
        world.write(chat(str(number), FRIAR))
    world.acknowledge(stream, 1)
    world.detach(stream, "connection-lost")
    world.write(chat("3", FRIAR))
    assert [stanza.id for stanza in world.heard(world.stream(edge=S2S_2))] == ["1", "2", "3"]


def test_a_request_that_a_stream_may_have_carried_over_is_not_repeated(world: Federation) -> None:
    stream = world.stream()
    world.write(query("1", FRIAR, world.romeo.jid))
    world.taken()
    world.detach(stream, "connection-lost")
    (error,) = world.heard(world.romeo)
    assert (error.id, error.type) == ("1", "error")
    assert b"remote-server-timeout" in error.inner
    assert world.heard(world.stream()) == []


def test_an_s2s_dies_and_another_takes_over_what_it_had(world: Federation) -> None:
    stream = world.stream(edge=S2S)
    world.write(chat("1", FRIAR))
    world.taken()
    world.edges_down(S2S)
    assert world.dials() == [(S2S_2, PEER, DOMAIN)]
    assert stream.sid not in world.owner.sessions
    assert [stanza.id for stanza in world.heard(world.stream(edge=S2S_2))] == ["1"]


def test_the_next_owner_has_what_waits(world: Federation) -> None:
    world.write(chat("1", FRIAR))
    world.write(headline("2", FRIAR))
    heir = world.successor(*ALL)
    assert [envelope[3:] for _, envelope in heir.taken(DIAL)] == [(PEER, DOMAIN)]
    line = heir.entity(PEER).lines[DOMAIN]
    assert [waiting.stanza.id for waiting in line.waiting] == ["1"], "what is of the moment died with its owner"


def test_what_is_found_after_a_long_outage_is_tried_for_before_it_is_given_back(world: Federation) -> None:
    world.write(chat("1", FRIAR))
    world.now += 3_600
    heir = world.successor(*ALL)
    assert len(heir.taken(DIAL)) == 1
    for _ in range(int(TRIED_S) - 2):
        heir.tick(1)
    assert len(heir.entity(PEER).lines[DOMAIN].waiting) == 1
    for _ in range(4):
        heir.tick(1)
    assert len(heir.entity(PEER).lines[DOMAIN].waiting) == 0


def test_the_next_owner_goes_on_with_a_stream_and_sends_nothing_twice(world: Federation) -> None:
    stream = world.stream()
    for number in range(3):
        world.write(chat(str(number), FRIAR))
    world.acknowledge(stream, 2)
    world.taken()
    ids = world.outbound()
    heir = world.successor(*ALL)
    heir.announce(S2S, PEER, (*announcement(stream, read_id=ids[1]), tuple(ids[:2])))
    assert heir.taken(DELIVER, DIAL) == [], "the third is with the s2s already"
    adopted = heir.owner.sessions[stream.sid]
    assert [q for q, _, _ in adopted.unacknowledged] == [3]


def test_the_next_owner_sends_what_the_one_before_had_committed_only(world: Federation) -> None:
    stream = world.stream()
    world.write(chat("1", FRIAR))
    world.taken()
    heir = world.successor(*ALL)
    heir.announce(S2S, PEER, announcement(stream, missing=1))
    ((to, envelope),) = heir.taken(DELIVER)
    assert to == S2S
    assert from_wire(tuple(envelope[2])).id == "1"


def test_what_waits_at_the_next_owner_goes_by_the_stream_that_is_there(world: Federation) -> None:
    """No acknowledgement is under way that would say that the stream has room."""
    stream = world.stream()
    world.write(chat("1", FRIAR))
    world.acknowledge(stream, 1)
    heir = world.successor(*ALL)
    heir.announce(S2S, PEER, announcement(stream, read_id=world.outbound()[0]))  # it does not remember the id itself
    ((to, envelope),) = heir.taken(DELIVER)
    assert (to, from_wire(tuple(envelope[2])).id) == (S2S, "1")
    assert not heir.entity(PEER).lines[DOMAIN].waiting


def test_the_cursor_is_saved_well_before_an_edge_forgets_what_was_acknowledged(world: Federation) -> None:
    stream = world.stream()
    for number in range(SAVE_EVERY):
        world.write(chat(str(number), FRIAR))
    world.acknowledge(stream, SAVE_EVERY - 1)
    key = world.database.keys[PEER]
    assert world.database.cursors.get(key) is None
    world.acknowledge(stream, SAVE_EVERY)
    assert world.database.cursors[key] == (world.outbound()[-1], ())


def test_the_cursor_is_saved_with_the_end_of_a_stream(world: Federation) -> None:
    stream = world.stream()
    world.write(chat("1", FRIAR))
    world.acknowledge(stream, 1)
    world.detach(stream, "client")
    assert world.database.cursors[world.database.keys[PEER]] == (world.outbound()[-1], ())
    heir = world.successor(*ALL)
    assert heir.taken(DIAL) == []


def test_a_slow_stream_has_a_window_and_the_rest_waits() -> None:
    world = Federation(replace(SETTINGS, peer_queue=WINDOW))
    stream = world.stream()
    for number in range(WINDOW + 10):
        world.write(chat(str(number), FRIAR))
    assert len(stream.unacknowledged) == WINDOW
    world.taken()
    world.acknowledge(stream, WINDOW - 5)
    assert [stanza.id for stanza in world.heard(stream)] == [str(WINDOW + number) for number in range(10)]


# --- found by the simulation (tests/sim)


def test_an_edge_remembers_more_of_what_was_acknowledged_than_an_owner_leaves_unsaved() -> None:
    edge = Edge(lambda to, envelope: True, lambda: "request", lambda: 0.0)
    session = EdgeSession(SessionId(1), 1, PEER, "r1", shard_of(PEER), cast("Sink", None))
    for q in range(1, 1_000):
        session.unacknowledged.append((q, q, chat(str(q), FRIAR)))
        edge.written(session, q)
        assert len(session.read) >= min(q, 2 * SAVE_EVERY)


def test_the_next_owner_does_not_repeat_what_an_earlier_stream_has_carried(world: Federation) -> None:
    first, second = world.stream(edge=S2S), world.stream(edge=S2S_2)
    for number in range(3):
        world.write(chat(str(number), FRIAR))
    world.acknowledge(first, 3)
    world.detach(first, "client")
    heir = world.successor(*ALL)
    heir.announce(S2S_2, PEER, announcement(second))
    assert heir.taken(DELIVER, DIAL) == []


def test_the_next_owner_gives_what_waits_to_a_stream_that_was_only_just_attached(world: Federation) -> None:
    for number in range(3):
        world.write(chat(str(number), FRIAR))
    stream = world.stream()
    world.write(chat("3", FRIAR))
    world.taken()
    last_id = stream.last_id
    # The edge has got ATTACHED, and nothing of what was sent behind it.
    told = list(announcement(stream, missing=4))
    told[8] = last_id
    heir = world.successor(*ALL)
    heir.announce(S2S, PEER, tuple(told))
    sent = [from_wire(tuple(envelope[2])).id for _, envelope in heir.taken(DELIVER)]
    assert sent == ["0", "1", "2", "3"]


def test_what_waits_is_given_back_only_where_there_is_no_stream() -> None:
    world = Federation(replace(SETTINGS, peer_queue_s=1.0))
    world.write(chat("1", FRIAR))
    stream = world.stream()
    world.taken()
    told = list(announcement(stream, missing=1))
    told[8] = stream.last_id
    heir = world.successor(*ALL)  # two seconds later
    heir.announce(S2S, PEER, tuple(told))
    assert [from_wire(tuple(envelope[2])).id for _, envelope in heir.taken(DELIVER)] == ["1"]


def test_what_was_never_committed_does_not_wait(world: Federation) -> None:
    world.is_prompt = False
    world.write(chat("1", FRIAR))
    world.fenced(ROMEO)  # her next owner is offered it again, and sends it
    assert not world.entity(PEER).strays
    world.is_prompt = True
    assert world.heard(world.stream()) == []


def test_what_the_database_refuses_takes_nothing_else_with_it(world: Federation) -> None:
    world.write(chat("1", FRIAR))
    world.is_prompt = False
    world.write(chat("2", FRIAR))
    world.refused(0)
    world.is_prompt = True
    world.settle()
    world.write(chat("3", FRIAR))
    assert [stanza.id for stanza in world.heard(world.stream())] == ["1", "3"]


def test_nothing_overtakes_what_a_stream_that_ends_had_not_got_rid_of(world: Federation) -> None:
    first, second = world.stream(edge=S2S), world.stream(edge=S2S_2)
    world.write(chat("1", FRIAR))
    world.write(chat("2", FRIAR))
    assert [stanza.id for stanza in world.heard(first)] == ["1", "2"]
    world.is_prompt = False
    world.detach(first, "connection-lost")
    world.write(chat("3", FRIAR))
    world.is_prompt = True
    world.settle()
    assert [stanza.id for stanza in world.heard(second)] == ["1", "2", "3"]


def test_a_stream_that_ends_while_its_peer_is_read_gives_everything_back_once(world: Federation) -> None:
    stream = world.stream()
    world.write(chat("1", FRIAR))
    world.write(chat("2", FRIAR))
    heir = Federation.successor(world, *ALL)
    heir.is_prompt = False
    heir.announce(S2S, PEER, announcement(stream))
    for down in (heir.dialing.edge_down, heir.directory.edge_down):
        heir.around(partial(down, S2S))
    heir.is_prompt = True
    heir.settle()
    (line,) = heir.entity(PEER).lines.values()
    assert [waiting.stanza.id for waiting in line.waiting] == ["1", "2"]


def test_what_turns_out_to_have_been_handed_over_waits_no_more(world: Federation) -> None:
    stream = world.stream()
    world.write(chat("1", FRIAR))
    world.write(chat("2", FRIAR))
    world.edges_down(S2S)
    first, _ = world.outbound()
    world.receive(S2S, (READ, stream.shard, world.epoch(PEER), PEER, (first,)))
    assert [stanza.id for stanza in world.heard(world.stream(edge=S2S_2))] == ["2"]
    delivered, strays = world.database.cursors[world.database.keys[PEER]]
    assert delivered >= first
    assert first not in strays


# --- from the peer


def test_a_message_from_outside_arrives_and_is_confirmed_when_it_is_in_the_log(world: Federation) -> None:
    stream = world.stream(sends=False)
    world.is_prompt = False
    world.come_in(stream, 1, chat("1", ROMEO)._replace(from_=f"{FRIAR}/cell"))
    assert world.taken(DELIVER, CONFIRMED) == []
    world.committed()
    assert [(row.owner, row.peer) for row in world.database.rows] == [(1, FRIAR)]
    assert [envelope[0] for _, envelope in world.taken(DELIVER, CONFIRMED)] == [DELIVER, CONFIRMED]


def test_what_claims_to_be_from_somewhere_else_is_dropped(world: Federation) -> None:
    stream = world.stream(sends=False)
    world.come_in(stream, 1, chat("1", ROMEO)._replace(from_="friar@elsewhere.example"))
    assert world.heard(world.romeo) == []
    assert world.owner.peers.rejected == 1


def test_nobody_relays_through_us(world: Federation) -> None:
    stream = world.stream()
    world.come_in(stream, 1, chat("1", "monk@elsewhere.example")._replace(from_=FRIAR))
    assert world.taken(DELIVER, DIAL) == []
    assert world.owner.peers.rejected == 1
    assert stream.conf == 1


def test_a_message_to_nobody_comes_back(world: Federation) -> None:
    del world.database.keys[NURSE]
    stream = world.stream()
    world.come_in(stream, 1, chat("1", NURSE)._replace(from_=FRIAR))
    (error,) = world.heard(stream)
    assert error.to == FRIAR
    assert b"service-unavailable" in error.inner


@pytest.mark.parametrize(
    ("namespace", "local"),
    [(ns.REGISTER, "query"), (ns.ROSTER, "query"), (ns.PRIVATE, "query"), (ns.BLOCKING, "blocklist")],
)
def test_what_accounts_alone_may_ask_is_not_answered(world: Federation, namespace: str, local: str) -> None:
    stream = world.stream()
    for number, to in enumerate((DOMAIN, ROMEO)):
        world.come_in(stream, number + 1, query("1", to, FRIAR, namespace, local))
        (error,) = world.heard(stream)
        assert error.type == "error"


def test_a_detach_that_is_answered_leaves_nothing(world: Federation) -> None:
    stream = world.stream(sends=False)
    world.receive(S2S, (DETACH, stream.shard, world.epoch(PEER), stream.sid, stream.gen, "client"))
    assert stream.sid not in world.owner.sessions
    assert stream.sid not in world.database.sessions


# --- components


def gateway(settings: Mapping[str, Any] | None = None) -> Federation:
    component = Component(secret="12345678", **(settings or {}))
    return Federation(replace(SETTINGS, components={GATEWAY: component}))


def test_a_component_that_is_away_bounces_at_once() -> None:
    world = gateway()
    world.write(chat("1", f"channel@{GATEWAY}"))
    (error,) = world.heard(world.romeo)
    assert b"service-unavailable" in error.inner
    assert world.dials() == []


def test_a_component_may_be_waited_for_but_not_for_ever() -> None:
    world = gateway({"queue_s": 10})
    world.write(chat("1", f"channel@{GATEWAY}"))
    stream = world.stream(GATEWAY, local="")
    assert [stanza.id for stanza in world.heard(stream)] == ["1"]
    world.acknowledge(stream, 1)
    world.detach(stream, "client")
    world.write(chat("2", f"channel@{GATEWAY}"))
    world.taken()
    world.tick(12)
    (error,) = world.heard(world.romeo)
    assert error.id == "2"


def test_of_several_connections_the_oldest_has_everything_or_each_sender_one() -> None:
    for balance, used in (("failover", 1), ("balanced", 2)):
        world = gateway({"balance": balance})
        streams = [world.stream(GATEWAY, edge, local="") for edge in (S2S, S2S_2)]
        for number in range(20):
            sender = stanzas.message(
                to=f"channel@{GATEWAY}", from_=f"user{number}@{PEER}", type="chat", id=str(number),
                inner=b"<body>hi</body>", flags=stanzas.HAS_BODY,
            )  # fmt: skip
            incoming = world.stream(PEER, S2S, sends=False)
            world.come_in(incoming, 1, sender)
        assert sum(bool(stream.unacknowledged) for stream in streams) == used


def test_a_component_writes_to_everybody() -> None:
    world = gateway()
    stream = world.stream(GATEWAY, local="")
    world.come_in(stream, 1, chat("1", ROMEO)._replace(from_=f"channel@{GATEWAY}"))
    assert [stanza.id for stanza in world.heard(world.romeo)] == ["1"]
    world.come_in(stream, 2, chat("2", FRIAR)._replace(from_=f"channel@{GATEWAY}"))
    assert world.dials() == [(world.chosen, PEER, GATEWAY)]


def test_the_domain_tells_of_its_components() -> None:
    settings = replace(SETTINGS, components={GATEWAY: Component(secret="12345678")})
    world = Federation(settings, (*FEW, disco.feature))
    stream = world.stream(GATEWAY, local="")
    world.come_in(stream, 1, query("1", DOMAIN, f"channel@{GATEWAY}", ns.DISCO_ITEMS))
    (answer,) = world.heard(stream)
    assert f'jid="{GATEWAY}"'.encode() in answer.inner


def test_a_domain_that_has_subscribed_to_a_node_is_told_by_name(world: Federation) -> None:
    """Broadcasts have no 'to', and a stanza between servers has to have one (RFC 6120, 8.1.1.2)."""
    stream = world.stream()
    news = stanzas.message(to=None, from_=ROMEO, inner=b"<event/>")
    for recipients in ([PEER], [PEER, FRIAR]):

        def tell(turn: Turn, to: list[str] = recipients) -> None:
            turn.broadcast(news, to)

        world.around(partial(world.owner.act, world.romeo.entity, tell))
        assert [stanza.to for stanza in world.heard(stream)] == recipients
