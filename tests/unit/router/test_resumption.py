"""Sessions that outlive their streams (router/resumption.py, directory.py; XEP-0198, 5): hibernation, resumption, and what
is rebuilt from a snapshot; rules 17, 19 and 20 and section 8 of docs/delivery.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.shards import shard_of
from cluster.wire import (
    ACTIVITY,
    ATTACHED,
    DELIVER,
    DETACH,
    ENABLED,
    READ,
    REFUSED,
    REVOKED,
    STATE,
    SUBMIT,
    WANT,
    Envelope,
    Epoch,
    Incarnation,
)
from router.client_state import INACTIVE
from router.entity import Session
from router.resumption import SETTLE_WITHIN_S, SNAPSHOT_S, TEMPORARY
from storage.accounts import Offline
from storage.sessions import SessionRow
from tests.support.owners import (
    EDGE,
    EDGE_2,
    JULIET,
    NURSE,
    ROMEO,
    SETTINGS,
    OneRouter,
    announcement,
    chat,
    headline,
)
from xmpp import stanza as stanzas
from xmpp.sm import MODULUS

SHARD = shard_of(ROMEO)
TIMEOUT_S = SETTINGS.resume_timeout_s


def bind(router: OneRouter, resource: str = "orchard", *, n0: int = 0, q0: int = 0) -> Session:
    """A session of Romeo's that may be resumed, on the first edge."""
    session = router.bind(ROMEO, resource)
    router.enable(session, n0, q0)
    router.sent.clear()
    return session


@pytest.fixture
def router() -> OneRouter:
    return OneRouter()


@pytest.fixture
def session(router: OneRouter) -> Session:
    return bind(router)


def give(router: OneRouter, *numbers: int) -> None:
    """Messages to Romeo from elsewhere, which are kept."""
    for n in numbers:
        router.forward(chat(str(n), ROMEO), n, to=ROMEO, prev=n - 1)


def row(router: OneRouter, session: Session) -> SessionRow:
    return router.database.sessions[session.sid]


def attached(router: OneRouter) -> tuple[Incarnation, Envelope]:
    """The one answer to a request; what was delivered with it is left to be asked for."""
    sent = list(router.sent)
    ((to, envelope),) = [(to, envelope) for to, envelope in sent if envelope[0] == ATTACHED]
    return to, envelope


def refused(router: OneRouter) -> tuple[str, int | None]:
    """The condition and the h of the one refusal."""
    ((_, envelope),) = router.taken()
    assert envelope[0] == REFUSED
    return envelope[4], envelope[6]


# --- enabling


def test_a_session_that_may_be_resumed_is_one_for_the_next_owner_too(router: OneRouter) -> None:
    """1: "`<enabled/>` fixes `n0`, `q0` (kept in `sessions`)"."""
    session = router.bind(ROMEO, "orchard")
    assert not row(router, session).resumable
    router.enable(session, 3, 5)
    saved = row(router, session)
    assert (saved.resumable, saved.n0, saved.q0, saved.node, saved.gen) == (True, 3, 5, EDGE, 1)


@pytest.mark.parametrize("case", ["gen", "edge", "sid"])
def test_only_the_edge_that_holds_it_says_so(router: OneRouter, case: str) -> None:
    session = router.bind(ROMEO, "orchard")
    edge = EDGE_2 if case == "edge" else EDGE
    gen = 0 if case == "gen" else 1
    sid = session.sid + 1 if case == "sid" else session.sid
    router.receive(edge, (ENABLED, SHARD, 2, sid, gen, 0, 0))
    assert not session.is_resumable


# --- hibernation


@pytest.mark.parametrize("reason", sorted(TEMPORARY))
def test_a_stream_that_was_not_closed_leaves_its_session(router: OneRouter, session: Session, reason: str) -> None:
    """XEP-0198, 9: "the server SHOULD consider the stream to be unfinished"."""
    router.detach(session, reason)
    assert router.session(ROMEO, "orchard") is session
    saved = row(router, session)
    assert (saved.node, saved.gen, saved.detached_at) == ("", 2, router.wall())
    assert router.taken() == [(EDGE, (REVOKED, SHARD, 2, session.sid, 2, ""))], "the stream's attachment is over"
    assert session.presence is not None, "contacts are not told"


@pytest.mark.parametrize("reason", ["client", "policy-violation", "not-well-formed", "invalid-from", "conflict"])
def test_all_other_ends_are_final(router: OneRouter, session: Session, reason: str) -> None:
    router.detach(session, reason)
    assert router.entity(ROMEO).sessions == {}
    assert router.database.sessions == {}


def test_a_session_that_may_not_be_resumed_ends(router: OneRouter) -> None:
    plain = router.bind(ROMEO, "orchard")
    router.detach(plain)
    assert router.entity(ROMEO).sessions == {}


def test_where_nothing_is_resumed_every_session_ends() -> None:
    router = OneRouter(settings=replace(SETTINGS, resume_timeout_s=0))
    router.detach(bind(router))
    assert router.entity(ROMEO).sessions == {}


def test_it_waits_also_when_its_edge_is_lost(router: OneRouter, session: Session) -> None:
    plain = router.bind(ROMEO, "street")
    router.around(lambda: router.directory.edge_down(EDGE))
    assert list(router.entity(ROMEO).sessions.values()) == [session]
    assert plain.sid not in router.database.sessions
    assert (row(router, session).node, row(router, session).gen) == ("", 2)
    router.around(lambda: router.directory.edge_up(EDGE))
    router.taken()
    router.announce(EDGE, ROMEO, announcement(session, gen=1))
    assert router.taken() == [(EDGE, (REVOKED, SHARD, 2, session.sid, 2, "reset"))], "the edge was only slow"


def test_the_edge_is_told_when_it_is_durable(router: OneRouter, session: Session) -> None:
    router.is_prompt = False
    router.detach(session)
    assert router.taken() == []
    router.committed()
    assert [envelope[0] for _, envelope in router.taken()] == [REVOKED]


def test_messages_go_on_being_numbered(router: OneRouter, session: Session) -> None:
    give(router, 1)
    router.detach(session)
    router.taken()
    give(router, 2, 3)
    assert router.taken(DELIVER) == []
    assert [(q, stanza.id) for q, _, stanza in session.unacknowledged if stanza] == [(1, "1"), (2, "2"), (3, "3")]
    assert router.entity(ROMEO).offline == [], "the session has them"


def test_what_its_edge_says_late_is_nothing(router: OneRouter, session: Session) -> None:
    give(router, 1)
    router.detach(session)
    router.receive(EDGE, (SUBMIT, SHARD, 2, session.sid, 1, 1, tuple(headline("1", NURSE)), False))
    router.receive(EDGE, (DETACH, SHARD, 2, session.sid, 1, "connection-lost"))
    assert session.seen == 0
    assert router.session(ROMEO, "orchard") is session


def test_but_a_client_that_said_goodbye_there_is_not_waited_for(router: OneRouter, session: Session) -> None:
    """To a c2s that was believed dead, on the stream that it thought it had."""
    router.detach(session)
    router.receive(EDGE, (DETACH, SHARD, 2, session.sid, 1, "client"))
    assert router.entity(ROMEO).sessions == {}


def test_after_its_time_it_ends_and_what_was_not_read_waits(router: OneRouter, session: Session) -> None:
    """7: "Hibernation ends"."""
    juliet = router.bind(JULIET, "balcony", EDGE_2)
    session.marks["directed"] = [juliet.jid]
    give(router, 1)
    router.acknowledge(session, 1)
    give(router, 2, 3)
    router.detach(session)
    router.tick(TIMEOUT_S)
    assert router.session(ROMEO, "orchard") is session
    router.tick(1)
    assert router.entity(ROMEO).sessions == {}
    assert router.database.sessions.keys() == {juliet.sid}
    ids = [row.id for row in router.database.rows]
    assert router.entity(ROMEO).offline == ids[1:]
    assert router.database.cursors[1] == Offline(ids[0], ())
    assert [(q, stanza.kind, stanza.type) for q, _, stanza in juliet.unacknowledged if stanza] == [
        (1, stanzas.PRESENCE, "unavailable")
    ]


def test_what_an_edge_believed_dead_says_was_read_does_not_wait(router: OneRouter) -> None:
    plain = router.bind(ROMEO, "street")
    give(router, 1, 2, 3, 4)
    ids = [row.id for row in router.database.rows]
    router.around(lambda: router.directory.edge_down(EDGE))
    entity = router.entity(ROMEO)
    assert entity.offline == ids, "as far as anybody knows"
    router.around(lambda: router.directory.edge_up(EDGE))
    router.announce(EDGE, ROMEO, (*announcement(plain)[:15], tuple(ids[:2])))
    assert entity.offline == ids[2:]
    assert router.database.cursors[1] == Offline(ids[1], ())
    router.receive(EDGE, (READ, SHARD, 2, ROMEO, (ids[3],)))  # what it read until it was told to stop
    assert entity.offline == [ids[2]]
    assert router.database.cursors[1] == Offline(ids[3], (ids[2],))


def test_nor_is_it_left_by_the_session_that_outlives_that_edge(router: OneRouter, session: Session) -> None:
    give(router, 1, 2)
    first, second = (row.id for row in router.database.rows)
    router.around(lambda: router.directory.edge_down(EDGE))
    router.receive(EDGE, (READ, SHARD, 2, ROMEO, (first,)))
    router.receive(EDGE, (DETACH, SHARD, 2, session.sid, 1, "client"))
    assert router.entity(ROMEO).offline == [second]


# --- resumption (rule 20)


@pytest.mark.parametrize("edge", [EDGE, EDGE_2])
def test_the_client_comes_back_to_any_edge_and_gets_what_it_lacks(
    router: OneRouter, session: Session, edge: Incarnation
) -> None:
    give(router, 1, 2)
    router.submit(session, 1, headline("1", NURSE))
    router.detach(session)
    give(router, 3)
    router.taken()
    request = router.resume(session, 1, edge)
    to, answer = attached(router)
    assert to == edge
    assert answer[:9] == (ATTACHED, SHARD, 2, request, session.sid, 3, "orchard", 1, 1)
    assert answer[9] == session.pack_state()
    assert answer[11:] == (0, 0, True, ())
    assert router.delivered(session) == [(2, "2"), (3, "3")]
    saved = row(router, session)
    assert (saved.node, saved.gen, saved.detached_at, saved.request) == (edge, 3, None, request)
    give(router, 4)
    assert router.delivered(session) == [(4, "4")]
    router.submit(session, 2, headline("2", NURSE))
    assert session.conf == 2


def test_the_answer_comes_first_then_what_is_missing_in_order(router: OneRouter, session: Session) -> None:
    give(router, 1, 2)
    router.detach(session)
    router.taken()
    router.resume(session, 0)
    assert [envelope[0] for _, envelope in router.taken()] == [ATTACHED, DELIVER, DELIVER]


def test_should_what_follows_be_lost_the_next_owner_begins_before_it(router: OneRouter, session: Session) -> None:
    give(router, 1, 2)
    router.detach(session)
    router.taken()
    router.resume(session, 1)
    _, answer = attached(router)
    first, second = (row.id for row in router.database.rows)
    assert first <= answer[10] < second


def test_the_client_is_told_when_its_new_attachment_is_durable(router: OneRouter, session: Session) -> None:
    router.detach(session)
    router.taken()
    router.is_prompt = False
    request = router.resume(session, 0)
    assert router.taken() == []
    router.resume(session, 0, request=request)
    assert router.taken() == [], "though it asks again"
    router.committed()
    assert [envelope[3] for _, envelope in router.taken(ATTACHED)] == [request]


def test_h_is_the_clients_and_counts_from_its_enable(router: OneRouter) -> None:
    give(router, 1)
    session = bind(router, q0=10)
    session.q = session.acknowledged = 10
    give(router, 2, 3)
    router.detach(session)
    router.taken()
    router.resume(session, 1)
    assert attached(router)[1][8] == 11
    assert router.delivered(session) == [(12, "3")]


def test_h_wraps(router: OneRouter, session: Session) -> None:
    session.q = session.acknowledged = MODULUS - 1
    give(router, 1, 2)
    router.detach(session)
    router.taken()
    router.resume(session, 0)
    assert router.delivered(session) == [(MODULUS + 1, "2")]


def test_what_the_client_has_counts_for_the_account_and_that_is_durable(router: OneRouter, session: Session) -> None:
    """Else a router that dies now would leave it to be delivered again."""
    give(router, 1, 2)
    ids = [row.id for row in router.database.rows]
    router.detach(session)
    router.resume(session, 2)
    assert router.entity(ROMEO).delivered == ids[1]
    assert router.database.cursors[1] == Offline(ids[1], ())
    heir = router.successor(ROMEO)
    heir.announce(EDGE_2, ROMEO, announcement(session))
    heir.forward(headline("x", ROMEO), 3, to=ROMEO)
    assert heir.entity(ROMEO).offline == []


# --- the old stream still lives


def test_the_stream_that_had_it_is_told(router: OneRouter, session: Session) -> None:
    """XEP-0198, 5: "the server SHOULD send a 'conflict' stream error and close that stream"."""
    router.resume(session, 0)
    sent = [(to, envelope) for to, envelope in router.taken() if envelope[0] in (REVOKED, ATTACHED)]
    assert [(to, envelope[0]) for to, envelope in sent] == [(EDGE, REVOKED), (EDGE_2, ATTACHED)]
    revoked, answer = sent[0][1], sent[1][1]
    assert revoked[5] == "conflict"
    assert 1 < revoked[4] <= answer[5], "the old attachment is below it"


def test_the_old_stream_may_say_nothing_any_more(router: OneRouter, session: Session) -> None:
    """4: "So a paused c2s cannot speak for a client that has moved"."""
    router.resume(session, 0)
    router.taken()
    router.submit(session, 1, headline("of the old stream", NURSE), gen=1, edge=EDGE)
    assert session.seen == 0
    assert router.taken() == [(EDGE, (WANT, SHARD, 2))]
    router.receive(EDGE, (DETACH, SHARD, 2, session.sid, 1, "connection-lost"))
    assert (session.place, session.detached_at) == (EDGE_2, None)
    router.announce(EDGE, ROMEO, announcement(session, gen=1))
    assert [envelope[0] for _, envelope in router.taken()] == [REVOKED]
    router.submit(session, 1, headline("of the new one", NURSE))
    assert session.seen == 1


def test_a_client_may_come_back_again_and_again(router: OneRouter, session: Session) -> None:
    gens = []
    for _ in range(5):
        for edge in (EDGE_2, EDGE):
            router.resume(session, 0, edge)
            _, answer = attached(router)
            gens.append(answer[5])
            router.taken()
    assert gens == sorted(set(gens))
    assert row(router, session).gen == gens[-1]


# --- what is refused


def test_a_session_that_is_no_more_is_not_found(router: OneRouter, session: Session) -> None:
    router.detach(session, "client")
    router.taken()
    router.resume(session, 0)
    assert refused(router) == ("item-not-found", None)


def test_somebody_elses_session_is_not_found(router: OneRouter, session: Session) -> None:
    """An id alone is good for nothing: the account must be the session's."""
    router.detach(session)
    router.taken()
    router.resume(session, 0, bare=JULIET)
    assert refused(router) == ("item-not-found", None)
    assert session.place is None
    router.resume(session, 0)
    assert attached(router)[1][4] == session.sid


def test_a_session_that_may_not_be_resumed_is_not_found(router: OneRouter) -> None:
    plain = router.bind(ROMEO, "orchard")
    router.resume(plain, 0)
    assert refused(router) == ("item-not-found", None)
    assert plain.place == EDGE, "its stream goes on"


def test_who_has_more_than_was_sent_is_refused(router: OneRouter, session: Session) -> None:
    give(router, 1)
    router.submit(session, 1, headline("1", NURSE))
    router.taken()
    router.resume(session, 2)
    assert refused(router) == ("handled-count-too-high", 1)
    assert (session.place, session.gen) == (EDGE, 1), "and the session is as it was"


def test_an_owner_answers_only_requests_of_its_epoch(router: OneRouter, session: Session) -> None:
    for epoch in (1, 3):
        router.receive(EDGE_2, (17, SHARD, Epoch(epoch), "r", ROMEO, session.sid, 0))
    assert router.taken() == []


# --- the same request again (rule 19)


def test_the_same_request_has_the_same_answer(router: OneRouter, session: Session) -> None:
    give(router, 1)
    router.detach(session)
    router.taken()
    request = router.resume(session, 0)
    _, first = attached(router)
    router.taken()
    router.resume(session, 0, request=request)
    assert attached(router)[1] == first
    assert router.delivered(session) == [(1, "1")]
    assert session.gen == first[5]


def test_an_answer_that_was_lost_with_its_owner_is_given_by_the_next(router: OneRouter, session: Session) -> None:
    """6, "router-2 during a resume": the row knows the request; the c2s has not got the session and asks again."""
    give(router, 1, 2)
    router.detach(session)
    request = router.resume(session, 1)
    heir = router.successor(ROMEO)
    heir.announce(EDGE_2, ROMEO)
    heir.announce(EDGE, ROMEO)
    heir.resume(session, 1, request=request)
    to, answer = attached(heir)
    assert (to, answer[3], answer[4]) == (EDGE_2, request, session.sid)
    assert answer[5] >= row(router, session).gen
    assert heir.delivered(heir.session(ROMEO, "orchard")) == [(2, "2")]


def test_a_request_of_a_session_that_has_moved_on_is_not_answered_by_the_past(
    router: OneRouter, session: Session
) -> None:
    first = router.resume(session, 0)
    router.resume(session, 0, EDGE)
    router.taken()
    router.resume(session, 0, request=first)
    assert session.place in (EDGE, EDGE_2)
    assert len([e for _, e in router.taken(ATTACHED) if e[5] != session.gen]) == 0


# --- what the client had sent and is not safe yet


def busy() -> tuple[OneRouter, Session]:
    """Romeo has sent something that Juliet's owner, who is elsewhere, has not confirmed yet."""
    router = OneRouter(owns=(ROMEO,))
    session = bind(router)
    router.submit(session, 1, chat("1"))
    router.taken()
    return router, session


def test_a_resume_waits_for_what_is_on_its_way() -> None:
    """20: "so that clients resend little"."""
    router, session = busy()
    router.resume(session, 0)
    assert router.taken() == [], "the old stream is refused from now on, and told when the new one is durable"
    assert session.place is None
    router.confirmed(session, JULIET, 1)
    assert [envelope[0] for _, envelope in router.sent].count(REVOKED) == 1
    assert attached(router)[1][7] == 1


def test_but_not_for_long() -> None:
    """20: "2 s at most"; what is confirmed later is told later."""
    router, session = busy()
    router.resume(session, 0)
    router.tick(SETTLE_WITHIN_S - 0.1)
    assert router.taken(ATTACHED) == []
    router.tick(0.1)
    assert attached(router)[1][7] == 0
    router.taken()
    router.confirmed(session, JULIET, 1)
    assert router.confs() == [(session.sid, 1)]
    router.submit(session, 1, chat("1"), again=True)
    router.submit(session, 2, headline("2", f"{ROMEO}/orchard"))
    assert session.conf == 2


def test_also_for_a_client_that_asks_each_second() -> None:
    router, session = busy()
    request = router.resume(session, 0)
    for _ in range(3):
        router.tick(1)
        router.resume(session, 0, request=request)
    assert len(router.taken(ATTACHED)) >= 1


def test_the_last_who_asks_gets_it() -> None:
    router, session = busy()
    router.resume(session, 0, EDGE_2)
    request = router.resume(session, 0, EDGE)
    router.confirmed(session, JULIET, 1)
    to, answer = attached(router)
    assert (to, answer[3]) == (EDGE, request)


def test_an_edge_that_dies_meanwhile_leaves_the_session_to_wait() -> None:
    router, session = busy()
    router.resume(session, 0)
    router.around(lambda: router.directory.edge_down(EDGE_2))
    router.confirmed(session, JULIET, 1)
    router.tick(SETTLE_WITHIN_S)
    assert session.place is None
    assert row(router, session).detached_at is not None
    router.tick(TIMEOUT_S + 1)
    assert router.entity(ROMEO).sessions == {}, "and not for ever"


def test_a_shard_that_is_lost_meanwhile_takes_the_request_with_it() -> None:
    """Taken back, its sessions wait for what their edges say; a move of the past would attach one to nobody."""
    router, _ = busy()
    router.resume(router.session(ROMEO, "orchard"), 0)
    router.take(ROMEO, epoch=4)
    router.taken()
    router.tick(SETTLE_WITHIN_S)
    assert router.taken(ATTACHED) == []
    assert router.session(ROMEO, "orchard").place == EDGE


def test_a_session_that_ends_meanwhile_is_not_found(router: OneRouter) -> None:
    router, session = busy()
    router.resume(session, 0)
    router.attach(ROMEO, "orchard")
    router.confirmed(session, JULIET, 1)
    router.taken()
    router.resume(session, 0)
    assert refused(router) == ("item-not-found", None)


# --- the next owner (rule 17) and numbers that nobody knows (8.1)


def orphan(router: OneRouter, session: Session) -> OneRouter:
    """The edge and the owner have died: what is left is the row."""
    heir = router.successor(ROMEO)
    heir.around(lambda: heir.directory.edge_down(EDGE))
    heir.sent.clear()
    return heir


def test_a_session_that_waits_waits_with_the_next_owner_too(router: OneRouter, session: Session) -> None:
    give(router, 1, 2)
    router.acknowledge(session, 1)
    router.submit(session, 1, headline("1", NURSE))
    router.detach(session)
    give(router, 3)
    heir = router.successor(ROMEO)
    waiting = heir.session(ROMEO, "orchard")
    assert (waiting.sid, waiting.gen, waiting.place, waiting.is_resumable) == (session.sid, 2, None, True)
    assert waiting.detached_at == row(router, session).detached_at
    assert waiting.presence == session.presence
    heir.forward(chat("4", ROMEO), 1, to=ROMEO, origin=77)
    heir.resume(waiting, 1)
    assert attached(heir)[1][7:9] == (1, 1)
    assert heir.delivered(waiting) == [(2, "2"), (3, "3"), (4, "4")]


def test_its_time_goes_on(router: OneRouter, session: Session) -> None:
    router.detach(session)
    router.tick(TIMEOUT_S - 10)
    heir = router.successor(ROMEO)
    heir.tick(7)
    assert set(heir.entity(ROMEO).sessions) == {"orchard"}
    heir.tick(2)
    assert heir.entity(ROMEO).sessions == {}


def test_one_that_ends_before_the_next_owner_has_read_what_it_missed_leaves_that(
    router: OneRouter, session: Session
) -> None:
    """Another device has read later messages, so the account's cursor does not tell."""
    router.detach(session)
    give(router, 1, 2)
    router.tick(TIMEOUT_S - 10)
    street = router.bind(ROMEO, "street", EDGE_2)
    give(router, 3)
    saved, first = row(router, session), router.database.rows[0].id
    router.database.sessions[session.sid] = replace(saved, q=0, known_q=0, unacknowledged=(), last_id=first - 1)
    router.database.cursors[1] = Offline(router.database.rows[2].id, ())
    heir = router.successor(ROMEO)
    heir.is_prompt = False
    heir.announce(EDGE_2, ROMEO, announcement(street))
    heir.tick(9)
    assert heir.entity(ROMEO).is_settling, "the database has not answered yet"
    heir.is_prompt = True
    heir.settle()
    left = heir.session(ROMEO, "street")
    assert set(heir.entity(ROMEO).sessions) == {"street"}
    got = [s.id for _, _, s in left.unacknowledged if s and s.kind == stanzas.MESSAGE]
    assert got == ["3", "1", "2"], "what the other had not read, behind its own"


def test_numbers_that_the_client_had_before_the_snapshot_hold(router: OneRouter, session: Session) -> None:
    """8.1: "if h is above `known q`: keep every row after the last id known; else what is above h"."""
    give(router, 1, 2, 3)
    router.forward(headline("unlogged", ROMEO), 4, to=ROMEO, prev=3)
    router.detach(session)
    assert row(router, session).known_q == 4
    heir = router.successor(ROMEO)
    rebuilt = heir.session(ROMEO, "orchard")
    heir.resume(rebuilt, 1)
    assert heir.delivered(rebuilt) == [(2, "2"), (3, "3")], "what was not logged is gone, and leaves no hole"
    assert (rebuilt.q, rebuilt.known_q, rebuilt.acknowledged) == (3, None, 1)


def test_what_was_given_after_the_snapshot_gets_numbers_from_h_on(router: OneRouter, session: Session) -> None:
    """The client may have had it: then it comes twice, with the same id (8.1: trimming by h instead loses)."""
    give(router, 1)
    router.detach(session)  # the snapshot knows 1
    router.resume(session, 1, EDGE)
    give(router, 2, 3)
    router.detach(session)
    saved = row(router, session)
    router.database.sessions[session.sid] = replace(
        saved, q=1, known_q=1, unacknowledged=(), last_id=router.database.rows[0].id
    )
    heir = router.successor(ROMEO)
    rebuilt = heir.session(ROMEO, "orchard")
    assert [q for q, _, _ in rebuilt.unacknowledged] == [2, 3], "as they were, or not"
    heir.resume(rebuilt, 2)
    assert heir.delivered(rebuilt) == [(3, "2"), (4, "3")]
    assert (rebuilt.q, rebuilt.known_q, rebuilt.acknowledged) == (4, None, 2)


def test_numbers_that_were_invented_are_no_limit_to_h(router: OneRouter, session: Session) -> None:
    router.detach(session)
    heir = router.successor(ROMEO)
    rebuilt = heir.session(ROMEO, "orchard")
    heir.resume(rebuilt, 50)
    assert attached(heir)[1][8] == 50
    heir.forward(headline("1", ROMEO), 1, to=ROMEO)
    assert heir.delivered(rebuilt) == [(51, "1")]
    heir.detach(rebuilt)
    assert row(heir, rebuilt).known_q == 51
    heir.taken()
    heir.resume(rebuilt, 52)
    assert refused(heir)[0] == "handled-count-too-high", "now they are known"


def test_invented_numbers_never_pass_for_known_ones(router: OneRouter, session: Session) -> None:
    """17: "a snapshot carries `known q`, up to which they hold, and the next rebuild starts from that"."""
    give(router, 1)
    router.detach(session)
    give(router, 2)
    heir = router.successor(ROMEO)
    heir.forward(chat("3", ROMEO), 1, to=ROMEO, origin=77)
    rebuilt = heir.session(ROMEO, "orchard")
    assert (rebuilt.q, rebuilt.known_q) == (3, 1)
    heir.around(lambda: heir.directory.resumption._save(rebuilt))
    assert (row(heir, rebuilt).q, row(heir, rebuilt).known_q) == (3, 1)


def test_an_edge_believed_dead_knows_better(router: OneRouter, session: Session) -> None:
    """17: "or until a c2s with the current `gen`, believed dead, announces itself: then its numbers replace them"."""
    give(router, 1, 2)
    heir = router.successor(ROMEO)
    heir.announce(EDGE, ROMEO, announcement(session))
    adopted = heir.session(ROMEO, "orchard")
    assert (adopted.q, adopted.known_q, adopted.place, adopted.is_resumable) == (2, None, EDGE, True)
    heir.resume(adopted, 1)
    assert heir.delivered(adopted) == [(2, "2")]


def test_of_a_session_lost_with_its_edge_and_its_owner_nobody_knows_how_far_its_client_had_come(
    router: OneRouter, session: Session
) -> None:
    """8.2: it "gets `<failed/>`; it binds anew and resends". What it has not got waits for it."""
    give(router, 1, 2)
    router.submit(session, 1, headline("1", NURSE))
    heir = orphan(router, session)
    assert set(heir.entity(ROMEO).sessions) == {"orchard"}
    heir.resume(session, 1)
    assert ("item-not-found", None) in [(e[4], e[6]) for _, e in heir.taken(REFUSED)]
    assert heir.entity(ROMEO).sessions == {}
    assert heir.database.sessions == {}
    new = heir.bind(ROMEO, "orchard", EDGE_2, is_available=False)
    heir.submit(new, 1, stanzas.presence(to=None, from_=None))
    got = [envelope[2].id for _, envelope in heir.taken(DELIVER) if envelope[2].kind == stanzas.MESSAGE]
    assert "2" in got


# --- snapshots


def test_what_changes_is_written_now_and_then(router: OneRouter, session: Session) -> None:
    """4: "else every 30 s if changed"."""
    router.tick(SNAPSHOT_S)
    give(router, 1, 2)
    router.acknowledge(session, 1)
    assert row(router, session).q == 0
    router.tick(SNAPSHOT_S)
    saved = row(router, session)
    second = router.database.rows[1].id
    assert (saved.q, saved.known_q, saved.last_id, saved.unacknowledged) == (2, 2, second, (second,))
    assert router.database.cursors[1].delivered == router.database.rows[0].id
    router.database.sessions.clear()
    router.tick(SNAPSHOT_S)
    assert router.database.sessions == {}, "nothing has changed since"


# --- client state (XEP-0352)


def activity(router: OneRouter, session: Session, is_active: bool, edge: Incarnation | None = None) -> None:
    place = edge or session.place
    assert place is not None
    router.receive(place, (ACTIVITY, SHARD, 2, session.sid, session.gen, is_active))


def pres(id: str) -> stanzas.Stanza:
    return stanzas.presence(to=ROMEO, from_=f"{NURSE}/hall", id=id)


def test_what_an_inactive_client_is_spared_it_gets_when_it_is_active(router: OneRouter, session: Session) -> None:
    activity(router, session, False)
    ((to, state),) = router.taken(STATE)
    assert to == EDGE
    assert INACTIVE in state[5][3]
    router.forward(pres("1"), 1, to=ROMEO)
    router.forward(pres("2"), 2, to=ROMEO, prev=1)
    assert router.taken(DELIVER) == []
    activity(router, session, True)
    assert router.delivered(session) == [(1, "2")]


def test_only_the_edge_that_holds_it_says_whether_somebody_looks(router: OneRouter, session: Session) -> None:
    activity(router, session, False, EDGE_2)
    assert INACTIVE not in session.marks


def test_a_resumed_stream_begins_as_active(router: OneRouter, session: Session) -> None:
    """XEP-0352, 5.2."""
    activity(router, session, False)
    router.forward(pres("1"), 1, to=ROMEO)
    router.detach(session)
    router.forward(pres("2"), 2, to=ROMEO, prev=1)
    give_more = chat("3", ROMEO)
    router.taken()
    router.resume(session, 0)
    assert router.delivered(session) == [(1, "2")]
    assert INACTIVE not in session.marks
    router.forward(give_more, 3, to=ROMEO, prev=2)
    assert router.delivered(session) == [(2, "3")]
