"""Who is bound where (router/directory.py): bind, announcements, takes; rules 6 and 16 to 19 of docs/delivery.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.shards import shard_of
from cluster.wire import (
    ACKNOWLEDGED,
    ANNOUNCE,
    ATTACHED,
    CONFIRMED,
    DELIVER,
    DETACH,
    FORWARD,
    REFUSED,
    REVOKED,
    STATE,
    WANT,
    Envelope,
    Incarnation,
)
from router.directory import ANNOUNCE_WITHIN_S, TOO_MANY, UNACKNOWLEDGED_LIMIT
from router.entity import Session
from router.recipients import CARBONS
from storage import log
from storage.log import FROM_OWNER
from tests.support.owners import (
    EDGE,
    EDGE_2,
    JULIET,
    NURSE,
    OTHER,
    ROMEO,
    SETTINGS,
    Database,
    OneRouter,
    announcement,
    chat,
    headline,
)
from xmpp import stanza as stanzas

SHARD = shard_of(ROMEO)
EDGE_AGAIN = Incarnation("c2s-1#9")  # another run of the same node


@pytest.fixture
def router() -> OneRouter:
    return OneRouter()


def kinds(router: OneRouter) -> list[tuple[Incarnation, int]]:
    return [(to, envelope[0]) for to, envelope in router.taken()]


def only(router: OneRouter, kind: int) -> Envelope:
    """The one envelope of a kind."""
    ((_, envelope),) = router.taken(kind)
    return envelope


# --- bind


def test_a_session_is_in_the_database_before_its_client_is_told(router: OneRouter) -> None:
    """1: "`gen` +1 at bind and at each resume, durable *before* the client is told"."""
    router.is_prompt = False
    request = router.attach(ROMEO, "orchard")
    router.read()
    (batch,) = router.batches
    ((row,),) = [write.arguments for write in batch.writes]
    assert (row.bare, row.resource, row.node, row.gen, row.request) == (ROMEO, "orchard", EDGE, 1, request)
    assert batch.fence == {SHARD: 2}
    assert router.taken() == []
    router.committed()
    attached = only(router, ATTACHED)
    assert attached[:7] == (ATTACHED, SHARD, 2, request, row.sid, 1, "orchard")
    assert attached[7:9] == (0, 0), "nothing is safe yet, nothing was delivered yet"
    assert attached[11:] == (0, 0, False, ())


def test_without_a_wish_the_server_chooses_a_resource(router: OneRouter) -> None:
    router.attach(ROMEO, None)
    assert only(router, ATTACHED)[6] == "r1"


def test_a_device_has_the_same_resource_each_time_and_another_with_each_account(router: OneRouter) -> None:
    """XEP-0386, 3.2.1: behind the tag; nobody sees that two accounts are of one device."""
    facts = {"device": b"d" * 16, "tag": "Gajim"}
    names = []
    for bare in (ROMEO, ROMEO, JULIET):
        router.attach(bare, None, facts=facts)
        (attached,) = [envelope for _, envelope in router.taken(ATTACHED)]
        names.append(attached[6])
    assert names[0] == names[1]
    assert names[0] != names[2]
    assert all(name.startswith("Gajim/") and len(name) == 18 for name in names)
    router.attach(ROMEO, None, facts={"tag": "Gajim"})
    assert only(router, ATTACHED)[6] == "Gajim/r1"


@pytest.mark.parametrize("bare", ["nobody@example.com", NURSE])
def test_who_has_no_account_or_may_not_in_is_refused(bare: str) -> None:
    database = Database()
    database.disabled.add(NURSE)
    router = OneRouter(owns=(ROMEO, bare), database=database)
    request = router.attach(bare, "hall")
    refused = only(router, REFUSED)
    assert refused[:5] == (REFUSED, shard_of(bare), 2, request, "not-allowed")
    assert refused[6] is None
    assert database.sessions == {}


def test_the_same_request_has_the_same_answer(router: OneRouter) -> None:
    """19: "the same again = the same answer, no new `gen`"."""
    request = router.attach(ROMEO, "orchard")
    first = only(router, ATTACHED)
    router.attach(ROMEO, "orchard", request=request)
    assert only(router, ATTACHED) == first
    router.attach(ROMEO, "orchard", EDGE_2, request=request)
    assert router.taken() == [], "it is the edge's that has asked"
    assert len(router.entity(ROMEO).sessions) == 1


def test_a_request_that_comes_again_too_soon_is_not_answered_before_the_session_is_durable(router: OneRouter) -> None:
    router.is_prompt = False
    request = router.attach(ROMEO, "orchard")
    router.read()
    router.attach(ROMEO, "orchard", request=request)
    assert router.taken(ATTACHED) == []
    router.committed()
    assert len(router.taken(ATTACHED)) == 1


def test_an_owner_answers_only_requests_of_its_epoch(router: OneRouter) -> None:
    """19: "The request carries the epoch, and an owner answers only its own"."""
    router.attach(ROMEO, "orchard", epoch=1)
    router.attach(ROMEO, "orchard", epoch=3)
    assert router.taken() == []


def test_a_resource_that_is_taken_is_taken_over(router: OneRouter) -> None:
    """RFC 6120, 7.7.2.2, the first way; the stream that had it is told."""
    old = router.bind(ROMEO, "orchard")
    router.attach(ROMEO, "orchard", EDGE_2)
    sent = router.taken(REVOKED, ATTACHED)
    assert [(to, envelope[0]) for to, envelope in sent] == [(EDGE, REVOKED), (EDGE_2, ATTACHED)]
    assert sent[0][1][3:] == (old.sid, 2, "conflict")
    new = router.session(ROMEO, "orchard")
    assert new.sid != old.sid
    assert set(router.database.sessions) == {new.sid}


def test_at_the_limit_the_oldest_goes() -> None:
    """Its stream is told before the new one is, and why; RFC 6120, 4.9.3.3."""
    router = OneRouter(settings=replace(SETTINGS, sessions=2))
    sids = []
    for resource in "abc":
        router.now += 1
        router.sent.clear()
        router.attach(ROMEO, resource)
        sids.append(router.session(ROMEO, resource).sid)
    revoked, attached = (envelope for _, envelope in router.taken(REVOKED, ATTACHED))
    assert revoked[3:] == (sids[0], 2, f"conflict\n{TOO_MANY}")
    assert attached[4] == sids[2]
    assert set(router.entity(ROMEO).sessions) == {"b", "c"}
    assert set(router.database.sessions) == set(sids[1:])


def test_the_oldest_goes_whether_its_stream_lives_or_waits_to_be_resumed() -> None:
    router = OneRouter(settings=replace(SETTINGS, sessions=2))
    old = router.bind(ROMEO, "a")
    router.enable(old)
    router.detach(old)
    router.now += 1
    router.bind(ROMEO, "b")
    router.now += 1
    router.bind(ROMEO, "c")
    assert set(router.entity(ROMEO).sessions) == {"b", "c"}
    router.resume(old, 0)
    assert only(router, REFUSED)[4] == "item-not-found"


def test_who_takes_the_place_of_its_own_session_pushes_nobody_out() -> None:
    router = OneRouter(settings=replace(SETTINGS, sessions=2))
    for resource in "abb":
        router.now += 1
        router.bind(ROMEO, resource)
    assert set(router.entity(ROMEO).sessions) == {"a", "b"}


def test_the_limit_counts_what_an_owner_before_this_one_has_let_in() -> None:
    router = OneRouter(settings=replace(SETTINGS, sessions=2))
    for resource in "ab":
        router.now += 1
        router.bind(ROMEO, resource)
    announced = [announcement(router.session(ROMEO, resource)) for resource in "ab"]
    heir = router.successor(ROMEO)
    heir.announce(EDGE, ROMEO, *announced)
    heir.attach(ROMEO, "c")
    assert set(heir.entity(ROMEO).sessions) == {"b", "c"}


def test_a_session_begins_with_what_comes_after_it(router: OneRouter) -> None:
    """What is older is for the archive and the offline store to show."""
    router.forward(chat("1", ROMEO), 1, to=ROMEO)
    session = router.bind(ROMEO, "orchard")
    assert session.since == session.last_id == router.owner.ids.last
    heir = router.successor(ROMEO)
    heir.announce(EDGE, ROMEO, announcement(session))
    assert heir.taken(DELIVER) == []


# --- acknowledgements


def test_what_the_client_has_is_held_no_more(router: OneRouter) -> None:
    session = router.bind(ROMEO, "orchard")
    for n in (1, 2, 3):
        router.forward(chat(str(n), ROMEO), n, to=ROMEO, prev=n - 1)
    ids = [row.id for row in router.database.rows]
    router.acknowledge(session, 2)
    assert [q for q, _, _ in session.unacknowledged] == [3]
    assert (session.acknowledged, session.entity.delivered) == (2, ids[1])
    router.acknowledge(session, 1)
    assert (session.acknowledged, session.entity.delivered) == (2, ids[1]), "an old one says nothing new"


@pytest.mark.parametrize("case", ["gen", "sid"])
def test_an_acknowledgement_of_another_attachment_is_none(router: OneRouter, case: str) -> None:
    session = router.bind(ROMEO, "orchard")
    router.forward(headline("1", ROMEO), 1, to=ROMEO)
    sid, gen = (session.sid, 2) if case == "gen" else (session.sid + 1, 1)
    router.receive(EDGE, (ACKNOWLEDGED, SHARD, 2, sid, gen, 1))
    assert session.acknowledged == 0


def test_a_client_that_reads_nothing_is_ended(router: OneRouter) -> None:
    """7, "Bounds"."""
    session = router.bind(ROMEO, "orchard")
    for n in range(1, UNACKNOWLEDGED_LIMIT + 1):
        router.forward(headline(str(n), ROMEO), n, to=ROMEO, prev=n - 1)
    router.tick()
    assert router.taken(REVOKED) == []
    router.forward(headline("more", ROMEO), UNACKNOWLEDGED_LIMIT + 1, to=ROMEO, prev=UNACKNOWLEDGED_LIMIT)
    router.tick()
    assert only(router, REVOKED)[3:] == (session.sid, 2, "resource-constraint")


# --- the end of a stream


def test_a_session_that_ends_is_deleted_before_its_edge_is_told(router: OneRouter) -> None:
    session = router.bind(ROMEO, "orchard")
    router.is_prompt = False
    router.detach(session, "client")
    assert (router.taken(), ROMEO in router.owner.entities, router.entity(ROMEO).sessions) == ([], True, {})
    assert set(router.database.sessions) == {session.sid}
    router.committed()
    assert router.database.sessions == {}
    assert router.taken() == [(EDGE, (REVOKED, SHARD, 2, session.sid, 2, ""))]


def test_a_session_that_ends_speaks_last_as_itself_behind_what_it_has_sent(router: OneRouter) -> None:
    session, juliet = router.bind(ROMEO, "orchard"), router.bind(JULIET, "balcony", EDGE_2)
    session.marks["directed"] = [juliet.jid]
    router.is_prompt = False
    router.submit(session, 1, chat("1"))
    router.detach(session, "client")
    router.is_prompt = True
    router.settle()
    assert [stanza.kind for _, _, stanza in juliet.unacknowledged if stanza] == [stanzas.MESSAGE, stanzas.PRESENCE]


def test_a_detach_of_an_older_attachment_ends_nothing(router: OneRouter) -> None:
    session = router.bind(ROMEO, "orchard")
    router.detach(session, "client", gen=0)
    assert router.session(ROMEO, "orchard") is session
    assert router.taken() == []


def test_an_edge_that_holds_what_is_no_more_is_told(router: OneRouter) -> None:
    router.receive(EDGE, (DETACH, SHARD, 2, 77, 3, "client"))
    assert router.taken() == [(EDGE, (REVOKED, SHARD, 2, 77, 4, ""))]
    router.announce(EDGE, ROMEO, (78, 3, *announcement(router.bind(JULIET, "x"))[2:]))
    assert [e for _, e in router.taken(REVOKED)] == [(REVOKED, SHARD, 2, 78, 4, "reset")]


def test_without_resumption_a_session_ends_with_its_edge(router: OneRouter) -> None:
    session, other = router.bind(ROMEO, "orchard"), router.bind(ROMEO, "street", EDGE_2)
    router.around(lambda: router.directory.edge_down(EDGE))
    assert list(router.entity(ROMEO).sessions.values()) == [other]
    assert session.sid not in router.database.sessions


def test_an_edge_that_was_only_slow_is_asked_what_it_holds(router: OneRouter) -> None:
    router.around(lambda: router.directory.edge_up(EDGE))
    assert router.taken() == [], "one that was never missed"
    router.around(lambda: router.directory.edge_down(EDGE))
    router.around(lambda: router.directory.edge_up(EDGE))
    owned = {shard_of(bare) for bare in (ROMEO, JULIET, NURSE)}
    assert {(to, *envelope) for to, envelope in router.taken()} == {(EDGE, WANT, shard, 2) for shard in owned}


# --- announcements (rule 16)


def test_an_edge_that_has_missed_something_gets_it_again_under_its_old_number(router: OneRouter) -> None:
    session = router.bind(ROMEO, "orchard")
    for n in (1, 2, 3):
        router.forward(headline(str(n), ROMEO), n, to=ROMEO, prev=n - 1)
    router.taken()
    router.announce(EDGE, ROMEO, announcement(session, missing=2))
    assert router.delivered(session) == [(2, "2"), (3, "3")]
    router.forward(headline("4", ROMEO), 4, to=ROMEO, prev=3)
    assert router.delivered(session) == [(4, "4")]


def test_an_edge_that_announces_learns_what_is_safe(router: OneRouter) -> None:
    session = router.bind(ROMEO, "orchard")
    router.submit(session, 1, headline("1", NURSE))
    assert router.confs() == [(session.sid, 1)]
    router.announce(EDGE, ROMEO, announcement(session, conf=0))
    assert router.confs() == [(session.sid, 1)]


def test_an_announcement_of_another_epoch_is_none(router: OneRouter) -> None:
    session = router.bind(ROMEO, "orchard")
    router.forward(headline("1", ROMEO), 1, to=ROMEO)
    router.taken()
    router.announce(EDGE, ROMEO, announcement(session, missing=1), epoch=1)
    assert router.taken() == []


def test_an_older_attachment_is_over(router: OneRouter) -> None:
    """16: "a lower `gen` is revoked"."""
    session = router.bind(ROMEO, "orchard")
    session.gen = 5
    router.announce(EDGE_2, ROMEO, announcement(session, gen=3))
    assert router.taken() == [(EDGE_2, (REVOKED, SHARD, 2, session.sid, 5, "reset"))]
    assert session.place == EDGE


# --- takes (rules 6 and 17)


def heir_of(router: OneRouter, *sessions: Session) -> OneRouter:
    """The next owner of Romeo's shard, whose edges have announced these sessions."""
    heir = router.successor(ROMEO)
    for session in sessions:
        assert session.place is not None
        heir.announce(session.place, ROMEO, announcement(session))
    return heir


def test_an_announced_session_goes_on_where_it_was(router: OneRouter) -> None:
    session = router.bind(ROMEO, "orchard")
    session.priority, session.marks[CARBONS] = 7, 3
    for n in (1, 2, 3):
        router.forward(chat(str(n), ROMEO), n, to=ROMEO, prev=n - 1)
    router.acknowledge(session, 1)
    router.submit(session, 1, headline("1", NURSE))
    heir = heir_of(router, session)
    adopted = heir.session(ROMEO, "orchard")
    for fact in (
        "sid",
        "gen",
        "place",
        "conf",
        "seen",
        "q",
        "acknowledged",
        "last_id",
        "priority",
        "marks",
        "presence",
    ):
        assert getattr(adopted, fact) == getattr(session, fact), fact
    assert [q for q, _, _ in adopted.unacknowledged] == [2, 3]
    assert heir.taken(DELIVER) == [], "it has all of it"
    heir.forward(headline("4", ROMEO), 1, to=ROMEO)
    assert heir.delivered(adopted) == [(4, "4")]


def test_a_session_waits_until_its_edge_has_said_how_far_it_is(router: OneRouter) -> None:
    """A stanza that is delivered before would get a number that its edge knows already."""
    session = router.bind(ROMEO, "orchard")
    router.forward(headline("1", ROMEO), 1, to=ROMEO)
    heir = router.successor(ROMEO)
    heir.forward(headline("2", ROMEO), 2, to=ROMEO)
    assert heir.taken(DELIVER, ATTACHED) == []
    heir.announce(EDGE, ROMEO, announcement(session))
    assert heir.delivered(heir.session(ROMEO, "orchard")) == [(2, "2")]


def test_what_the_log_has_and_the_session_has_not_is_delivered(router: OneRouter) -> None:
    """17: "rows with `id` above its last delivered one are released again through the same function as live delivery"."""
    session = router.bind(ROMEO, "orchard")
    for n in (1, 2, 3):
        router.forward(chat(str(n), ROMEO), n, to=ROMEO, prev=n - 1)
    heir = router.successor(ROMEO)
    heir.announce(EDGE, ROMEO, announcement(session, missing=2))
    adopted = heir.session(ROMEO, "orchard")
    sent = heir.taken(DELIVER)
    assert [(envelope[1][0][4], envelope[2].id) for _, envelope in sent] == [(2, "2"), (3, "3")]
    assert [envelope[1][0][5] for _, envelope in sent] == [row.id for row in router.database.rows[1:]]
    assert adopted.last_id == router.database.rows[-1].id


def test_each_session_gets_what_it_lacks(router: OneRouter) -> None:
    one, two = router.bind(ROMEO, "orchard"), router.bind(ROMEO, "street", EDGE_2)
    for n in (1, 2):
        router.forward(chat(str(n), ROMEO), n, to=ROMEO, prev=n - 1)
    heir = router.successor(ROMEO)
    heir.announce(EDGE, ROMEO, announcement(one))
    assert heir.taken(DELIVER) == [], "all of an account's sessions are waited for"
    heir.announce(EDGE_2, ROMEO, announcement(two, missing=1))
    assert heir.delivered(heir.session(ROMEO, "street")) == [(2, "2")]


def test_what_a_session_has_sent_beyond_conf_the_log_tells(router: OneRouter) -> None:
    """6: after a takeover the c2s offers everything beyond `conf` again; what the log has is not run again."""
    session = router.bind(ROMEO, "orchard")
    router.submit(session, 1, headline("1", NURSE))
    router.submit(session, 2, chat("2", NURSE))
    router.is_prompt = False
    router.submit(session, 3, chat("3", NURSE))  # never committed
    heir = router.successor(ROMEO, NURSE)
    heir.announce(EDGE, ROMEO, announcement(session, conf=0, n=3))
    adopted = heir.session(ROMEO, "orchard")
    assert (adopted.seen, adopted.conf) == (0, 0)
    heir.submit(adopted, 1, headline("1", NURSE), again=True)
    heir.submit(adopted, 2, chat("2", NURSE), again=True)
    heir.submit(adopted, 3, chat("3", NURSE), again=True)
    assert adopted.conf == 3
    mine = [(row.owner, row.n) for row in heir.database.rows]
    assert sorted(mine) == [(1, 2), (1, 3), (3, 2), (3, 3)], "each once"


def test_what_has_no_row_at_its_sender_is_run_again_though_later_ones_have(router: OneRouter) -> None:
    """6: a message to a room, for instance, whose row is the room's: it was acknowledged to nobody."""
    apart = OneRouter(owns=(ROMEO,))
    session = apart.bind(ROMEO, "orchard")
    apart.submit(session, 1, headline("1"))
    apart.submit(session, 2, chat("2"))
    heir = apart.successor(ROMEO)
    heir.announce(EDGE, ROMEO, announcement(session, conf=0, n=2))
    adopted = heir.session(ROMEO, "orchard")
    assert [envelope[4] for _, envelope in heir.taken(FORWARD)] == [2]
    heir.submit(adopted, 1, headline("1"), again=True)
    assert [(e[4], e[5]) for _, e in heir.taken(FORWARD)] == [(1, True)]
    heir.submit(adopted, 2, chat("2"), again=True)
    heir.confirmed(adopted, JULIET, 1)
    assert adopted.conf == 1
    heir.confirmed(adopted, JULIET, 2)
    assert adopted.conf == 2


def test_what_an_edge_offers_before_its_session_is_settled_waits_for_the_log(router: OneRouter) -> None:
    session = router.bind(ROMEO, "orchard")
    router.submit(session, 1, chat("1", NURSE))
    heir = router.successor(ROMEO, NURSE)
    heir.is_prompt = False
    heir.announce(EDGE, ROMEO, announcement(session, conf=0, n=2))
    adopted = heir.session(ROMEO, "orchard")
    heir.submit(adopted, 1, chat("1", NURSE), again=True)
    heir.submit(adopted, 2, chat("2", NURSE), again=True)
    assert len(heir.batches) == 0
    heir.is_prompt = True
    heir.settle()
    assert sorted((row.owner, row.n) for row in heir.database.rows) == [(1, 1), (1, 2), (3, 1), (3, 2)]
    assert adopted.conf == 2


def test_what_was_to_be_forwarded_is_offered_again(router: OneRouter) -> None:
    """6 and 10: `pending` = its rows that are to be forwarded; `retry`."""
    apart = OneRouter(owns=(ROMEO,))
    session = apart.bind(ROMEO, "orchard")
    for n in (1, 2):
        apart.submit(session, n, chat(str(n)))
    apart.submit(session, 3, headline("3"))
    apart.confirmed(session, JULIET, 1)
    first, second = (row for row in apart.database.rows if row.dir == FROM_OWNER)
    assert first.forward == second.forward == log.FORWARD
    heir = apart.successor(ROMEO)
    heir.announce(EDGE, ROMEO, announcement(session, conf=1, n=3))
    adopted = heir.session(ROMEO, "orchard")
    ((to, envelope),) = heir.taken(FORWARD)
    assert (to, envelope[:7], envelope[8]) == (
        OTHER, (FORWARD, SHARD, 3, session.sid, 2, True, ((JULIET, 0, 1),)), second.id,
    )  # fmt: skip
    assert (adopted.seen, adopted.conf, adopted.pending) == (1, 1, {2: 1})
    heir.submit(adopted, 2, chat("2"), again=True)
    assert heir.taken(FORWARD) == [], "the log has it"
    heir.submit(adopted, 3, headline("3"), again=True)
    assert [(e[4], e[5], e[6]) for _, e in heir.taken(FORWARD)] == [(3, True, ((JULIET, 2, 1),))]
    heir.confirmed(adopted, JULIET, 3)
    assert heir.confs() == [(session.sid, 3)]


def test_each_queue_is_offered_once(router: OneRouter) -> None:
    apart = OneRouter(owns=(ROMEO,))
    session = apart.bind(ROMEO, "orchard")
    for n in range(1, 6):
        apart.submit(session, n, chat(str(n)))
    heir = apart.successor(ROMEO)
    heir.announce(EDGE, ROMEO, announcement(session, conf=0, n=5))
    assert [envelope[4] for _, envelope in heir.taken(FORWARD)] == [1, 2, 3, 4, 5]


def test_what_nobody_announces_has_ended_with_its_edge(router: OneRouter) -> None:
    """17: "When every live c2s has announced"; without resumption there is nobody to wait for."""
    session, other = router.bind(ROMEO, "orchard"), router.bind(ROMEO, "street", EDGE_2)
    heir = router.successor(ROMEO)
    heir.announce(EDGE_2, ROMEO, announcement(other))
    assert set(heir.entity(ROMEO).sessions) == {"orchard", "street"}
    heir.announce(EDGE, ROMEO)
    assert set(heir.entity(ROMEO).sessions) == {"street"}
    assert session.sid not in heir.database.sessions


@pytest.mark.parametrize("how", ["it is dead", "another run of its node lives", "it says nothing"])
def test_an_edge_that_cannot_announce_is_not_waited_for(router: OneRouter, how: str) -> None:
    router.bind(ROMEO, "orchard")
    heir = router.successor(ROMEO)
    heir.forward(headline("1", ROMEO), 1, to=ROMEO)
    if how == "it is dead":
        heir.around(lambda: heir.directory.edge_down(EDGE))
    elif how == "another run of its node lives":
        heir.around(lambda: heir.directory.edge_up(EDGE_AGAIN))
    else:
        heir.tick(ANNOUNCE_WITHIN_S - 1)
        assert heir.entity(ROMEO).is_settling
        heir.tick(1)
    assert heir.entity(ROMEO).sessions == {}
    assert not heir.entity(ROMEO).is_settling
    assert heir.database.sessions == {}


def test_an_edge_that_was_dead_before_is_not_waited_for_either(router: OneRouter) -> None:
    """Its owner died before it had written that."""
    router.bind(ROMEO, "orchard")
    heir = router.successor()
    heir.lose(ROMEO, epoch=4)
    heir.around(lambda: heir.directory.edge_down(EDGE))
    heir.take(ROMEO, epoch=5)
    assert heir.entity(ROMEO).sessions == {}
    assert not heir.entity(ROMEO).is_settling


def test_another_edge_does_not_speak_for_it(router: OneRouter) -> None:
    router.bind(ROMEO, "orchard")
    heir = router.successor(ROMEO)
    heir.around(lambda: heir.directory.edge_up(EDGE_2))
    heir.announce(EDGE_2, ROMEO)
    assert heir.entity(ROMEO).is_settling
    assert set(heir.entity(ROMEO).sessions) == {"orchard"}


def test_what_comes_after_a_late_edge_was_given_up_is_refused(router: OneRouter) -> None:
    session = router.bind(ROMEO, "orchard")
    heir = router.successor(ROMEO)
    heir.tick(ANNOUNCE_WITHIN_S)
    heir.taken()
    heir.announce(EDGE, ROMEO, announcement(session))
    assert heir.taken() == [(EDGE, (REVOKED, SHARD, 3, session.sid, 2, "reset"))]


def test_a_shard_that_is_lost_again_is_waited_for_no_more(router: OneRouter) -> None:
    router.bind(ROMEO, "orchard")
    heir = router.successor(ROMEO)
    heir.lose(ROMEO, epoch=4)
    heir.tick(ANNOUNCE_WITHIN_S)
    assert heir.taken(REVOKED, STATE, CONFIRMED, ANNOUNCE) == []
    assert len(heir.database.sessions) == 1
