"""The edge's half of delivery (cluster/edge.py), rule by rule of docs/delivery.md: envelopes in, envelopes out."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from cluster.edge import (
    ACKNOWLEDGE_EVERY,
    ASK_AGAIN_S,
    GAP_AGAIN_S,
    HELD_BYTES,
    HELD_STANZAS,
    OFFER_AGAIN_S,
    OVERHEAD_BYTES,
    READ_IDS,
    Answer,
    Attached,
    Edge,
    EdgeSession,
    Refused,
)
from cluster.shards import SHARDS, shard_of
from cluster.wire import (
    ACKNOWLEDGED,
    ACTIVITY,
    ANNOUNCE,
    ANSWER,
    ATTACH,
    ATTACHED,
    CALL,
    CONFIRMED,
    DELIVER,
    DETACH,
    MAP,
    READ,
    REFUSED,
    REVOKED,
    STATE,
    SUBMIT,
    WANT,
    Envelope,
    Epoch,
    Incarnation,
    SessionId,
    Shard,
)
from tests.support.streams import OTHER_ROUTER, ROMEO, ROUTER, Clock
from xmpp.stanza import Stanza, message

SHARD = shard_of(ROMEO)
SID = SessionId(7)


class Sink:
    """A stream that remembers what it was told."""

    def __init__(self) -> None:
        self.delivered: list[str | None] = []
        self.heard: list[str] = []

    def deliver(self, stanza: Stanza) -> None:
        self.delivered.append(stanza.id)

    def revoked(self, condition: str) -> None:
        self.heard.append(f"revoked {condition}".strip())

    def pause_reading(self) -> None:
        self.heard.append("pause")

    def resume_reading(self) -> None:
        self.heard.append("resume")

    def confirmed(self) -> None:
        self.heard.append("confirmed")


class World:
    """One edge; the test plays the routers."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.sent: list[tuple[Incarnation, Envelope]] = []
        requests = count(1)
        self.failures = 0  # of streams
        self.edge = Edge(self._send, lambda: f"r{next(requests)}", self.clock, self._failed)
        self.sink = Sink()
        self.answers: list[Any] = []

    def _failed(self) -> None:
        self.failures += 1

    def _send(self, to: Incarnation, envelope: Envelope) -> bool:
        self.sent.append((to, envelope))
        return True

    def hear(self, kind: int, *fields: Any, sender: Incarnation = ROUTER) -> None:
        self.edge.receive(sender, kind, fields)

    def owner(self, epoch: int = 1, router: Incarnation = ROUTER) -> None:
        """A router owns Romeo's shard."""
        self.hear(MAP, ((SHARD, epoch, router),), sender=router)

    def taken(self) -> list[tuple[Incarnation, Envelope]]:
        """What was sent since the last time."""
        taken, self.sent = self.sent, []
        return taken

    def kinds(self) -> list[int]:
        """The kinds of what was sent since the last time."""
        return [envelope[0] for _, envelope in self.taken()]

    def attach(self, resource: str | None = "balcony") -> str:
        return self.edge.attach(ROMEO, resource, {"address": "192.0.2.1"}, self.sink, self.answers.append)

    def attached(
        self, request: str, *, epoch: int = 1, sid: int = SID, gen: int = 1, conf: int = 0, q: int = 0
    ) -> None:
        self.hear(ATTACHED, SHARD, epoch, request, sid, gen, "balcony", conf, q, b"state")

    def session(self, **numbers: int) -> EdgeSession:
        """A bound session; what was sent for it is forgotten."""
        self.owner()
        self.attached(self.attach(), **numbers)
        self.taken()
        answer = self.answers.pop()
        assert isinstance(answer, Attached)
        return answer.session

    def submit(self, session: EdgeSession, how_many: int = 1, inner: bytes = b"") -> None:
        for _ in range(how_many):
            self.edge.submit(session, stanza(session.n + 1, inner))

    def confirm(self, conf: int, *, epoch: int = 1, gen: int = 1) -> None:
        self.hear(CONFIRMED, SHARD, epoch, SID, gen, conf)

    def deliver(self, *numbers: int, epoch: int = 1, gen: int = 1, id: int | None = None) -> None:
        for q in numbers:
            self.hear(DELIVER, ((SHARD, epoch, SID, gen, q, id),), tuple(stanza(q)))


def stanza(number: int, inner: bytes = b"") -> Stanza:
    return message(to=None, from_=f"{ROMEO}/balcony", id=str(number), inner=inner)


def submitted(world: World) -> list[tuple[Incarnation, int, int]]:
    """To whom, under which epoch, which n."""
    return [(to, envelope[2], envelope[5]) for to, envelope in world.taken() if envelope[0] == SUBMIT]


# --- submission (rules 4 to 6)


def test_a_stanza_is_numbered_held_and_offered() -> None:
    world = World()
    session = world.session()
    world.submit(session, 2)
    assert world.taken() == [
        (ROUTER, (SUBMIT, SHARD, 1, SID, 1, 1, stanza(1), False)),
        (ROUTER, (SUBMIT, SHARD, 1, SID, 1, 2, stanza(2), False)),
    ]
    assert [n for n, _ in session.held] == [1, 2]


def test_a_stanza_is_held_until_it_is_confirmed() -> None:
    world = World()
    session = world.session()
    world.submit(session, 5, b"x" * 10)
    world.confirm(3)
    assert [n for n, _ in session.held] == [4, 5]
    assert session.held_bytes == 2 * (10 + OVERHEAD_BYTES)
    world.confirm(2)
    assert session.conf == 3, "conf never goes back"
    world.confirm(5)
    assert (list(session.held), session.held_bytes) == ([], 0)


@pytest.mark.parametrize("stale", [{"epoch": 0}, {"gen": 2}])
def test_a_confirmation_of_another_epoch_or_attachment_is_ignored(stale: dict[str, int]) -> None:
    world = World()
    session = world.session()
    world.submit(session)
    world.confirm(1, **stale)
    assert [n for n, _ in session.held] == [1]


def test_what_is_read_below_conf_is_dropped_not_held() -> None:
    """Rule 6: after a resume conf may be ahead of what this edge has read; nobody would confirm it again."""
    world = World()
    session = world.session(conf=3)
    assert (session.n, session.conf) == (3, 3)
    world.confirm(5)
    world.submit(session, 3)
    assert [n for n, _ in session.held] == [6]
    assert submitted(world) == [(ROUTER, 1, 6)]


def test_what_is_held_is_offered_again_to_each_new_owner_behind_its_announcement() -> None:
    world = World()
    session = world.session()
    world.submit(session, 3)
    world.confirm(1)
    world.taken()
    world.owner(2, OTHER_ROUTER)
    sent = world.taken()
    assert [(to, envelope[0]) for to, envelope in sent] == [(OTHER_ROUTER, ANNOUNCE), *[(OTHER_ROUTER, SUBMIT)] * 2]
    assert [envelope[5] for _, envelope in sent[1:]] == [2, 3]
    assert [envelope[7] for _, envelope in sent[1:]] == [True, True], "a former owner may have sent them on"
    assert {envelope[2] for _, envelope in sent} == {2}


def test_a_new_owner_is_told_whether_somebody_looks_at_the_client() -> None:
    """XEP-0352: what the client said last, also while there was no owner to hear it."""
    world = World()
    session = world.session()
    world.hear(WANT, SHARD, 2)  # a newer epoch exists; whose, nobody has said yet
    world.edge.tell_activity(session, is_active=False)
    world.edge.tell_activity(session, is_active=True)
    world.taken()
    world.owner(2, OTHER_ROUTER)
    (_, announce), (to, activity) = world.taken()
    assert (announce[0], to, activity) == (ANNOUNCE, OTHER_ROUTER, (ACTIVITY, SHARD, 2, session.sid, session.gen, True))


def test_a_new_epoch_of_the_same_owner_is_a_new_owner() -> None:
    world = World()
    world.submit(world.session())
    world.taken()
    world.owner(2)
    assert world.kinds() == [ANNOUNCE, SUBMIT]
    world.owner(2)
    assert world.kinds() == [], "that was no news"
    world.owner(1, OTHER_ROUTER)
    assert world.kinds() == [], "nor is what an older owner says"


def test_a_link_that_is_up_again_is_offered_everything_again() -> None:
    world = World()
    world.submit(world.session())
    world.taken()
    world.edge.peer_up(OTHER_ROUTER)
    assert world.kinds() == []
    world.edge.peer_up(ROUTER)
    assert world.kinds() == [ANNOUNCE, SUBMIT]


def test_without_an_owner_stanzas_are_held_and_offered_to_the_first() -> None:
    world = World()
    session = world.session()
    world.hear(WANT, SHARD, 2)  # a newer epoch exists; whose, nobody has said yet
    world.submit(session)
    assert world.kinds() == []
    world.owner(2, OTHER_ROUTER)
    assert world.kinds() == [ANNOUNCE, SUBMIT]


def test_the_safety_net_offers_again_what_waits_too_long() -> None:
    world = World()
    session = world.session()
    world.submit(session, 2)
    world.taken()
    world.clock.now += OFFER_AGAIN_S - 0.1
    world.edge.tick()
    assert submitted(world) == []
    world.confirm(1)  # progress: the time begins anew
    world.clock.now += OFFER_AGAIN_S - 0.1
    world.edge.tick()
    assert submitted(world) == []
    world.clock.now += 0.2
    world.edge.tick()
    assert submitted(world) == [(ROUTER, 1, 2)]
    world.edge.tick()
    assert submitted(world) == []


# --- the window


def test_a_full_window_pauses_once_and_half_a_window_resumes() -> None:
    world = World()
    session = world.session()
    world.submit(session, HELD_STANZAS - 1)
    assert world.sink.heard == []
    world.submit(session, 20)  # the rest of one read
    assert world.sink.heard == ["pause"]
    assert len(session.held) == HELD_STANZAS + 19, "what was read is kept"
    world.confirm(session.n - HELD_STANZAS // 2 - 1)
    assert world.sink.heard == ["pause"]
    world.confirm(session.n - HELD_STANZAS // 2)
    assert world.sink.heard == ["pause", "resume"]
    world.submit(session, HELD_STANZAS // 2)
    assert world.sink.heard == ["pause", "resume", "pause"]


def test_the_window_is_one_of_bytes_too() -> None:
    world = World()
    session = world.session()
    big = b"x" * (HELD_BYTES // 4 - OVERHEAD_BYTES)
    world.submit(session, 3, big)
    assert world.sink.heard == []
    world.submit(session, 1, big)
    assert world.sink.heard == ["pause"]
    world.confirm(1)
    assert world.sink.heard == ["pause"]
    world.confirm(2)
    assert world.sink.heard == ["pause", "resume"]


# --- announcements (rule 16)


def test_an_announcement_tells_everything_a_new_owner_needs() -> None:
    world = World()
    session = world.session(conf=4, q=10)
    world.submit(session)
    world.deliver(11, 12, id=99)
    world.edge.written(session, 11)
    world.hear(STATE, SHARD, 1, SID, 1, b"newer state")
    world.taken()
    world.owner(2, OTHER_ROUTER)
    to, announce = world.taken()[0]
    expected = (
        SID,
        1,
        ROMEO,
        "balcony",
        4,
        12,
        11,
        ((12, 99, stanza(12)),),
        99,
        b"newer state",
        5,
        0,
        0,
        False,
        99,
        (99,),
        (),
    )
    assert (to, announce) == (OTHER_ROUTER, (ANNOUNCE, SHARD, 2, [expected]))


def test_a_shard_without_sessions_is_announced_too() -> None:
    """Rule 17: the owner waits for every edge."""
    world = World()
    world.owner()
    assert world.taken() == [(ROUTER, (ANNOUNCE, SHARD, 1, []))]


def test_an_owner_that_asks_is_answered_and_nobody_else() -> None:
    world = World()
    world.submit(world.session())
    world.taken()
    world.hear(WANT, SHARD, 1)
    assert world.kinds() == [ANNOUNCE, SUBMIT]
    world.hear(WANT, SHARD, 1, sender=OTHER_ROUTER)
    world.hear(WANT, SHARD, 0)
    assert world.kinds() == []


def test_state_is_the_owners_word_about_this_attachment_only() -> None:
    world = World()
    session = world.session()
    assert session.state == b"state"
    world.hear(STATE, SHARD, 1, SID, 2, b"of another attachment")
    world.hear(STATE, SHARD, 0, SID, 1, b"of an older owner")
    world.hear(STATE, SHARD, 1, SID + 1, 1, b"of another session")
    assert session.state == b"state"


# --- deliveries (rules 14 and 18)


def test_deliveries_are_taken_in_order_and_kept_until_written() -> None:
    world = World()
    session = world.session()
    world.deliver(1, 2, 3)
    assert world.sink.delivered == ["1", "2", "3"]
    assert [q for q, _, _ in session.unacknowledged] == [1, 2, 3]
    world.edge.written(session, 2)
    assert [q for q, _, _ in session.unacknowledged] == [3]


def test_a_delivery_that_was_seen_is_dropped() -> None:
    world = World()
    session = world.session(q=5)
    world.deliver(5, 6, 6, 1)
    assert world.sink.delivered == ["6"]
    assert session.q == 6
    assert world.kinds() == []


def test_a_gap_is_announced_and_what_is_behind_it_is_not_taken() -> None:
    world = World()
    session = world.session()
    world.deliver(1, 3)
    assert world.sink.delivered == ["1"]
    to, announce = world.taken()[0]
    assert (to, announce[0], announce[3][0][5]) == (ROUTER, ANNOUNCE, 1)
    world.deliver(2, 3)
    assert world.sink.delivered == ["1", "2", "3"]
    assert session.q == 3


def test_a_gap_is_not_announced_for_each_delivery_behind_it() -> None:
    """Else each of a thousand deliveries on their way would have all of them sent again."""
    world = World()
    world.session()
    world.deliver(*range(2, 100))
    assert world.kinds() == [ANNOUNCE]
    world.clock.now += GAP_AGAIN_S
    world.deliver(100)
    assert world.kinds() == [ANNOUNCE]


@pytest.mark.parametrize("stale", [{"epoch": 0}, {"gen": 2}, {"gen": 0}])
def test_a_delivery_of_another_epoch_or_attachment_is_dropped(stale: dict[str, int]) -> None:
    world = World()
    world.session()
    world.deliver(1, 5, **stale)
    assert world.sink.delivered == []
    assert world.kinds() == []


def test_an_owner_of_a_newer_epoch_is_believed_before_the_map_tells_of_it() -> None:
    world = World()
    session = world.session()
    world.deliver(1, epoch=2)
    assert world.sink.delivered == ["1"]
    world.deliver(2, epoch=1)
    assert world.sink.delivered == ["1"], "the older owner may say nothing any more"
    world.submit(session)
    assert submitted(world) == [], "nobody knows yet who the newer one is"


def test_one_copy_is_for_all_its_sessions() -> None:
    world = World()
    world.session()
    other = Sink()
    request = world.edge.attach(ROMEO, None, {}, other, world.answers.append)
    world.attached(request, sid=8)
    targets = ((SHARD, 1, SID, 1, 1, None), (SHARD, 1, 8, 1, 1, None), (SHARD, 1, 9, 1, 1, None))
    world.hear(DELIVER, targets, tuple(stanza(1)))
    assert (world.sink.delivered, other.delivered) == (["1"], ["1"])


def test_acknowledgements_are_told_in_bulk() -> None:
    world = World()
    session = world.session()
    world.deliver(*range(1, 2 * ACKNOWLEDGE_EVERY))
    for q in range(1, ACKNOWLEDGE_EVERY):
        world.edge.written(session, q)
    assert world.kinds() == []
    world.edge.written(session, ACKNOWLEDGE_EVERY)
    assert world.taken() == [(ROUTER, (ACKNOWLEDGED, SHARD, 1, SID, 1, ACKNOWLEDGE_EVERY))]
    world.edge.written(session, ACKNOWLEDGE_EVERY + 1)
    world.edge.written(session, ACKNOWLEDGE_EVERY + 1)
    world.edge.tick()
    assert world.taken() == [(ROUTER, (ACKNOWLEDGED, SHARD, 1, SID, 1, ACKNOWLEDGE_EVERY + 1))]
    world.edge.tick()
    assert world.kinds() == []


# --- attach (rule 19)


def test_attach_asks_the_owner_and_makes_a_session_of_its_answer() -> None:
    world = World()
    world.owner()
    world.taken()
    request = world.attach()
    asked = (ATTACH, SHARD, 1, request, ROMEO, "balcony", {"address": "192.0.2.1"})
    assert world.taken() == [(ROUTER, asked)]
    world.attached(request, conf=3, q=4)
    (answer,) = world.answers
    session = answer.session
    assert (session.jid, session.n, session.conf, session.q, session.acknowledged) == (f"{ROMEO}/balcony", 3, 3, 4, 4)
    assert world.edge.sessions == {SID: session}


def test_the_same_request_is_asked_again_of_a_new_owner_and_of_a_silent_one() -> None:
    world = World()
    request = world.attach()
    assert world.kinds() == [], "no owner is known"
    world.owner()
    assert [(to, e[2], e[3]) for to, e in world.taken() if e[0] == ATTACH] == [(ROUTER, 1, request)]
    world.owner(2, OTHER_ROUTER)
    assert [(to, e[2], e[3]) for to, e in world.taken() if e[0] == ATTACH] == [(OTHER_ROUTER, 2, request)]
    world.clock.now += ASK_AGAIN_S
    world.edge.tick()
    assert [e[3] for _, e in world.taken() if e[0] == ATTACH] == [request]
    world.edge.peer_up(OTHER_ROUTER)
    assert [e[3] for _, e in world.taken() if e[0] == ATTACH] == [request]


def test_the_answer_of_an_older_epoch_is_not_the_answer() -> None:
    world = World()
    world.owner(2)
    request = world.attach()
    world.taken()
    world.attached(request, epoch=1)
    world.hear(REFUSED, SHARD, 1, request, "not-allowed", "")
    assert world.answers == []
    world.attached(request, epoch=2)
    assert [type(answer) for answer in world.answers] == [Attached]


def test_a_second_answer_changes_nothing() -> None:
    world = World()
    world.owner()
    request = world.attach()
    world.taken()
    world.attached(request)
    session = world.edge.sessions[SID]
    world.submit(session)
    world.taken()
    world.attached(request)
    assert world.edge.sessions == {SID: session}
    assert [n for n, _ in session.held] == [1]
    assert (world.kinds(), len(world.answers)) == ([], 1)


def test_a_refusal_is_told_with_its_condition() -> None:
    world = World()
    world.owner()
    world.hear(REFUSED, SHARD, 1, world.attach(), "not-allowed", "disabled")
    assert world.answers == [Refused("not-allowed", "disabled")]


def test_an_attachment_for_a_connection_that_is_gone_is_given_back() -> None:
    """Rule 19: a c2s stops asking; the owner shall not keep a session that nobody has."""
    world = World()
    world.owner()
    request = world.attach()
    world.edge.cancel(request)
    world.taken()
    world.clock.now += 100
    world.edge.tick()
    assert world.kinds() == [], "nothing is asked any more"
    world.attached(request, gen=3)
    assert world.taken() == [(ROUTER, (DETACH, SHARD, 1, SID, 3, "connection-lost"))]
    assert (world.edge.sessions, world.answers) == ({}, [])


def test_an_attach_that_nobody_answers_ends() -> None:
    world = World()
    world.owner()
    world.attach()
    world.clock.now += 19
    world.edge.tick()
    assert world.answers == []
    world.clock.now += 2
    world.edge.tick()
    world.edge.tick()
    assert world.answers == [Refused("remote-server-timeout", "")]


# --- calls


def test_a_call_is_answered_once() -> None:
    world = World()
    world.owner()
    world.taken()
    request = world.edge.call(ROMEO, "auth.salt", (ROMEO, "SHA-1"), world.answers.append)
    assert world.taken() == [(ROUTER, (CALL, SHARD, 1, request, "auth.salt", (ROMEO, "SHA-1")))]
    world.hear(ANSWER, request, True, b"salt")
    world.hear(ANSWER, request, True, b"pepper")
    assert world.answers == [Answer(True, b"salt")]


def test_a_call_goes_to_the_next_owner_and_ends_in_time() -> None:
    world = World()
    request = world.edge.call(ROMEO, "auth.salt", (), world.answers.append)
    world.owner()
    world.owner(2, OTHER_ROUTER)
    assert [(to, e[3]) for to, e in world.taken() if e[0] == CALL] == [(ROUTER, request), (OTHER_ROUTER, request)]
    world.clock.now += 11
    world.edge.tick()
    assert world.answers == [Answer(False, "remote-server-timeout")]


def test_a_stream_that_fails_when_its_time_is_over_fails_alone() -> None:
    world = World()

    def fail(answer: object) -> None:
        raise RuntimeError("a bug")

    world.edge.call(ROMEO, "auth.salt", (), fail)
    world.edge.attach(ROMEO, None, {}, world.sink, fail, timeout_s=10.0)
    world.edge.call(ROMEO, "auth.salt", (), world.answers.append)
    world.clock.now += 11
    world.edge.tick()
    assert world.answers == [Answer(False, "remote-server-timeout")]
    assert world.failures == 2
    world.edge.tick()
    assert world.failures == 2, "it is asked once"


def test_a_stream_that_fails_at_its_answer_leaves_no_session() -> None:
    world = World()

    def fail(answer: object) -> None:
        raise RuntimeError("a bug")

    world.owner()
    world.hear(ANSWER, world.edge.call(ROMEO, "auth.salt", (), fail), True, b"salt")
    world.hear(REFUSED, SHARD, 1, world.edge.attach(ROMEO, None, {}, world.sink, fail), "conflict", "")
    world.attached(world.edge.attach(ROMEO, None, {}, world.sink, fail))
    assert world.failures == 3
    assert world.taken()[-1] == (ROUTER, (DETACH, SHARD, 1, SID, 1, "internal-server-error"))
    world.hear(REVOKED, SHARD, 1, SID, 2, "")
    assert world.edge.sessions == {}


# --- the end of a session


def test_a_detach_waits_for_what_is_held() -> None:
    world = World()
    session = world.session()
    world.submit(session, 2)
    world.taken()
    world.edge.detach(session, "client")
    world.edge.detach(session, "connection-lost")
    world.confirm(1)
    assert world.kinds() == []
    world.confirm(2)
    assert world.taken() == [(ROUTER, (DETACH, SHARD, 1, SID, 1, "client"))]
    assert SID in world.edge.sessions, "until the owner has heard it"
    world.hear(REVOKED, SHARD, 1, SID, 2, "")
    assert world.edge.sessions == {}
    assert world.sink.heard == ["revoked"]


def test_a_detach_without_anything_held_is_sent_at_once_and_again_until_it_is_answered() -> None:
    world = World()
    session = world.session()
    world.edge.detach(session, "client")
    assert world.kinds() == [DETACH]
    world.edge.tick()
    assert world.kinds() == [DETACH]
    world.owner(2, OTHER_ROUTER)
    assert world.kinds() == [ANNOUNCE, DETACH], "a new owner has to know the session before it can end it"
    world.hear(REVOKED, SHARD, 2, SID, 2, "")
    world.edge.tick()
    assert world.kinds() == []


def test_a_closing_session_offers_what_it_holds_to_a_new_owner() -> None:
    world = World()
    session = world.session()
    world.submit(session)
    world.edge.detach(session, "connection-lost")
    world.taken()
    world.owner(2, OTHER_ROUTER)
    assert world.kinds() == [ANNOUNCE, SUBMIT]
    world.confirm(1, epoch=2)
    assert world.kinds() == [DETACH]


def test_a_higher_generation_revokes_and_the_same_does_not() -> None:
    """Rule 4: a paused c2s cannot speak for a client that has moved."""
    world = World()
    session = world.session(gen=2)
    world.hear(REVOKED, SHARD, 1, SID, 2, "conflict")
    world.hear(REVOKED, SHARD, 0, SID, 3, "conflict")
    assert world.edge.sessions == {SID: session}
    world.hear(REVOKED, SHARD, 1, SID, 3, "conflict")
    assert world.edge.sessions == {}
    assert world.sink.heard == ["revoked conflict"]
    world.owner(2, OTHER_ROUTER)
    assert world.taken() == [(OTHER_ROUTER, (ANNOUNCE, SHARD, 2, []))]


def test_a_stream_that_is_closing_is_not_told_why_its_session_ended() -> None:
    world = World()
    world.edge.detach(world.session(), "client")
    world.hear(REVOKED, SHARD, 1, SID, 2, "conflict")
    assert world.sink.heard == ["revoked"]


def test_who_ends_a_session_is_told_what_its_client_had_read() -> None:
    """Its owner may have believed this process dead, and the messages unread."""
    world = World()
    session = world.session()
    world.deliver(1, id=41)
    world.deliver(2, id=42)
    world.edge.written(session, 1)
    world.taken()
    world.hear(REVOKED, SHARD, 1, SID, 2, "reset")
    assert world.taken() == [(ROUTER, (READ, SHARD, 1, ROMEO, (41,)))]


def test_what_was_acknowledged_last_is_remembered_however_much_at_once() -> None:
    world = World()
    session = world.session()
    count = READ_IDS + ACKNOWLEDGE_EVERY + 1
    for q in range(1, count + 1):
        world.deliver(q, id=q)
    world.edge.written(session, count)
    assert session.read == [*range(count - READ_IDS + 1, count + 1)]


def test_nothing_is_kept_of_a_session_that_has_ended() -> None:
    world = World()
    session = world.session()
    world.deliver(1)
    world.edge.written(session, 1)
    world.hear(REVOKED, SHARD, 1, SID, 2, "reset")
    world.edge.tick()
    world.confirm(1)
    world.deliver(2, 7)
    assert world.kinds() == []


def test_an_unknown_kind_is_a_newer_neighbours_business() -> None:
    world = World()
    world.session()
    world.hear(99, 1, 2, 3)
    assert world.kinds() == []


def test_every_shard_of_a_router_is_announced_when_its_link_comes_up() -> None:
    world = World()
    world.hear(MAP, tuple((Shard(s), Epoch(1), ROUTER if s % 2 else OTHER_ROUTER) for s in range(SHARDS)))
    world.taken()
    world.edge.peer_up(ROUTER)
    assert [(to, envelope[0], envelope[1]) for to, envelope in world.taken()] == [
        (ROUTER, ANNOUNCE, shard) for shard in range(1, SHARDS, 2)
    ]
