"""The owner's half of delivery (router/owner.py, outbox.py), rule by rule of docs/delivery.md: envelopes and answers of the
database in, envelopes and transactions out. Sessions are in test_directory.py and test_resumption.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.shards import shard_of
from cluster.wire import (
    AGAIN,
    CONFIRM,
    CONFIRMED,
    DELIVER,
    FORWARD,
    SUBMIT,
    WANT,
    Incarnation,
)
from router import owner as owner_module
from router.entity import Session
from router.outbox import OFFER_AGAIN_S
from router.owner import MARK_LIFE_S, WANT_APART_S
from storage import log
from storage.log import DONE, FROM_OWNER, TO_OWNER
from tests.support.owners import (
    EDGE,
    EDGE_2,
    JULIET,
    NURSE,
    ORIGIN,
    OTHER,
    ROMEO,
    SETTINGS,
    OneRouter,
    announcement,
    chat,
    headline,
)
from tests.support.turns import error, text
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.stanza import from_wire

THIRD = Incarnation("router-3#3")


@pytest.fixture
def router() -> OneRouter:
    """Romeo and Juliet are both here, each with a session."""
    router = OneRouter()
    router.bind(ROMEO, "orchard")
    router.bind(JULIET, "balcony", EDGE_2)
    return router


@pytest.fixture
def apart() -> OneRouter:
    """Romeo is here; Juliet's owner is elsewhere."""
    router = OneRouter(owns=(ROMEO,))
    router.bind(ROMEO, "orchard")
    return router


def romeo(router: OneRouter) -> Session:
    return router.session(ROMEO, "orchard")


def juliet(router: OneRouter) -> Session:
    return router.session(JULIET, "balcony")


def forwards(router: OneRouter) -> list[tuple[int, bool, int, int]]:
    """(n, retry, prev, origin id) of what was forwarded to Juliet since the last time."""
    found = []
    for to, envelope in router.taken(FORWARD):
        _, shard, epoch, origin, n, retry, targets, bundle, origin_id = envelope
        assert (to, shard, epoch) == (OTHER, shard_of(ROMEO), router.epoch(ROMEO))
        assert origin == romeo(router).sid
        ((recipient, prev, _),) = targets
        assert recipient == JULIET
        assert len(bundle) == 1
        found.append((n, retry, prev, origin_id))
    return found


# --- submission (rules 4 to 6)


def test_the_next_number_is_accepted_and_no_other(router: OneRouter) -> None:
    """4: "Owner accepts n = seen + 1 only; n <= seen: answer conf; above: ignore"."""
    session = romeo(router)
    router.submit(session, 2, headline("gap"))
    assert (session.seen, router.taken()) == (0, [])
    router.submit(session, 1, headline("1"))
    router.submit(session, 2, headline("2"))
    assert (session.seen, session.conf) == (2, 2)
    assert router.delivered(juliet(router)) == [(1, "1"), (2, "2")]
    router.submit(session, 1, headline("1"), again=True)
    assert [(to, e[5]) for to, e in router.taken()] == [(EDGE, 2)], "nothing but the present conf"


@pytest.mark.parametrize("case", ["gen", "sid", "edge"])
def test_whoever_does_not_hold_the_session_is_asked_to_announce(router: OneRouter, case: str) -> None:
    """4: submissions with another `gen` are refused; an edge and an owner that disagree settle it by an announcement."""
    session, sid = romeo(router), romeo(router).sid
    edge, gen = EDGE, 1
    if case == "gen":
        gen = 0
    elif case == "edge":
        edge = EDGE_2
    else:
        del router.owner.sessions[session.sid]
    for _ in range(2):
        router.submit(session, 1, headline("1"), edge=edge, gen=gen)
    assert router.taken() == [(edge, (WANT, session.shard, 2))], "once a second at most"
    router.tick(WANT_APART_S)
    router.submit(session, 1, headline("1"), edge=edge, gen=gen)
    assert router.taken() == [(edge, (WANT, session.shard, 2))]
    assert (session.seen, session.sid) == (0, sid)


def test_from_is_the_session_whatever_an_edge_says(router: OneRouter) -> None:
    session = romeo(router)
    forged = tuple(headline("1")._replace(from_=f"{NURSE}/hall"))
    router.receive(EDGE, (SUBMIT, session.shard, 2, session.sid, 1, 1, forged, False))
    ((_, (_, _, stanza)),) = router.taken(DELIVER)
    assert from_wire(stanza).from_ == session.jid
    assert router.owner.rejected == 1


def test_what_is_handed_over_takes_no_input(router: OneRouter) -> None:
    session = romeo(router)
    router.owner.leaving = frozenset({session.shard})
    router.submit(session, 1, headline("1"))
    assert (session.seen, router.taken()) == (0, [])
    router.owner.leaving = frozenset()
    router.submit(session, 1, headline("1"), again=True)
    assert session.seen == 1


def test_when_too_much_waits_submissions_wait_at_their_edges(
    router: OneRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7, "Bounds": "then submissions are ignored, and c2s windows fill"."""
    monkeypatch.setattr(owner_module, "WAITING_ITEMS", 2)
    session, router.is_prompt = romeo(router), False
    for n in (1, 2, 3):
        router.submit(session, n, chat(str(n)))
    assert (session.seen, session.conf) == (2, 0)
    router.is_prompt = True
    router.settle()
    router.submit(session, 3, chat("3"), again=True)
    assert session.conf == 3


def test_nothing_is_safe_before_it_is_committed(router: OneRouter) -> None:
    session, router.is_prompt = romeo(router), False
    router.submit(session, 1, chat("1"))
    assert (session.seen, session.conf, router.taken()) == (1, 0, [])
    router.committed()
    assert session.conf == 1
    assert [(to, e) for to, e in router.taken(CONFIRMED)] == [(EDGE, (CONFIRMED, session.shard, 2, session.sid, 1, 1))]


def test_conf_is_everything_below_the_lowest_that_is_pending(router: OneRouter) -> None:
    """6."""
    router.database.vcards[2] = b"<vCard/>"
    session, router.is_prompt = romeo(router), False
    ask = stanzas.iq(
        type="get", id="v", to=None, from_=None, payload=f"{ns.VCARD} vCard", inner=b"<vCard xmlns='vcard-temp'/>"
    )
    router.submit(session, 1, headline("1"))
    router.submit(session, 2, ask)
    router.submit(session, 3, headline("3"))
    assert router.confs() == [(session.sid, 1)], "2 waits for the database"
    router.read()
    router.submit(session, 4, chat("4"))
    assert router.confs() == [(session.sid, 3)], "4 waits for its transaction"
    router.committed()
    assert router.confs() == [(session.sid, 4)]


def test_a_number_that_comes_again_is_answered_only_with_what_is_safe(router: OneRouter) -> None:
    session, router.is_prompt = romeo(router), False
    router.submit(session, 1, headline("1"))
    router.submit(session, 2, chat("2"))
    router.taken()
    router.submit(session, 2, chat("2"), again=True)
    assert router.confs() == [(session.sid, 1)]
    router.committed()
    assert router.confs() == [(session.sid, 2)]
    assert len(router.database.rows) == 2


# --- both here (rules 7, 8, 22)


def test_both_rows_are_in_one_transaction_and_nothing_leaves_before_it(router: OneRouter) -> None:
    session, router.is_prompt = romeo(router), False
    router.submit(session, 1, chat("1"))
    (batch,) = router.batches
    assert [(row.owner, row.dir, row.forward, row.sid, row.n) for row in batch.rows] == [
        (1, FROM_OWNER, DONE, session.sid, 1),
        (2, TO_OWNER, DONE, session.sid, 1),
    ]
    assert batch.rows[0].id < batch.rows[1].id, "the recipient's is above the sender's"
    assert batch.fence == {shard_of(ROMEO): 2, shard_of(JULIET): 2}
    assert router.taken() == []
    router.committed()
    ((to, (_, targets, _)),) = router.taken(DELIVER)
    assert (to, targets) == (EDGE_2, ((shard_of(JULIET), 2, juliet(router).sid, 1, 1, batch.rows[1].id),))
    assert juliet(router).last_id == batch.rows[1].id


def test_what_is_not_logged_stays_behind_what_is(router: OneRouter) -> None:
    """22: "Released after earlier turns of the same entity"."""
    session, router.is_prompt = romeo(router), False
    router.submit(session, 1, chat("1"))
    router.submit(session, 2, headline("2"))
    assert router.taken() == []
    router.committed()
    assert router.delivered(juliet(router)) == [(1, "1"), (2, "2")]
    assert session.conf == 2
    assert len(router.batches) == 0


def test_what_concerns_nobody_who_waits_goes_at_once(router: OneRouter) -> None:
    nurse = router.bind(NURSE, "hall")
    router.is_prompt = False
    router.submit(romeo(router), 1, chat("1"))
    router.submit(nurse, 1, headline("2", f"{NURSE}/hall"))
    assert router.delivered(nurse) == [(1, "2")]


def test_a_recipient_that_is_not_in_memory_gets_it_all_the_same(router: OneRouter) -> None:
    """By the own bus: as if its owner were elsewhere."""
    del router.owner.entities[JULIET].sessions["balcony"]
    del router.owner.entities[JULIET]
    session = romeo(router)
    router.submit(session, 1, chat("1"))
    assert session.conf == 1
    assert [(row.owner, row.dir) for row in router.database.rows] == [(1, FROM_OWNER), (2, TO_OWNER)]
    assert router.entity(JULIET).offline == [router.database.rows[1].id]


@pytest.mark.parametrize(
    ("to", "condition"),
    [
        ("friar@elsewhere.example", error("remote-server-not-found", "cancel")),
        ("elsewhere.example", error("remote-server-not-found", "cancel")),
        ("example.com", error("service-unavailable", "cancel")),
    ],
)
def test_what_goes_nowhere_comes_back(to: str, condition: str) -> None:
    router = OneRouter(settings=replace(SETTINGS, reaches_others=False))
    session = router.bind(ROMEO, "orchard")
    router.submit(session, 1, headline("1", to)._replace(type="chat"))
    ((target, (_, _, stanza)),) = router.taken(DELIVER)
    assert target == EDGE
    assert condition in text(from_wire(tuple(stanza)))
    assert session.conf == 1


# --- to another owner (rules 9, 10)


def test_a_message_is_forwarded_when_it_is_committed_and_held_until_it_is_confirmed(apart: OneRouter) -> None:
    session, apart.is_prompt = romeo(apart), False
    apart.submit(session, 1, chat("1"))
    (batch,) = apart.batches
    assert [(row.owner, row.dir, row.forward) for row in batch.rows] == [(1, FROM_OWNER, log.FORWARD)]
    assert apart.taken() == []
    apart.committed()
    ((to, envelope),) = apart.taken()
    stanza = chat("1")._replace(from_=session.jid)
    assert to == OTHER
    assert (*envelope[:7], envelope[8]) == (
        FORWARD, shard_of(ROMEO), 2, session.sid, 1, False, ((JULIET, 0, 1),), batch.rows[0].id,
    )  # fmt: skip
    assert list(envelope[7]) == [stanza]
    assert session.conf == 0, "its recipient's row is not committed yet"
    apart.confirmed(session, JULIET, 1)
    assert apart.confs() == [(session.sid, 1)]
    assert len(apart.owner.outbox) == 0


def test_each_names_the_one_before_it_and_confirmations_are_cumulative(apart: OneRouter) -> None:
    """9: "`prev` = n of the item before it in the FIFO (0 at the front)"."""
    session = romeo(apart)
    for n in (1, 2):
        apart.submit(session, n, chat(str(n)))
    apart.submit(session, 3, chat("3", NURSE))
    apart.taken()
    apart.submit(session, 4, chat("4"))
    apart.confirmed(session, JULIET, 1)
    apart.submit(session, 5, headline("5"))
    assert [(n, prev) for n, _, prev, _ in forwards(apart)] == [(4, 2), (5, 4)]
    apart.confirmed(session, JULIET, 5)
    assert session.conf == 2, "the nurse's owner has not confirmed 3"
    apart.confirmed(session, NURSE, 3)
    assert session.conf == 5
    apart.taken()
    apart.submit(session, 6, headline("6"))
    assert [(n, prev) for n, _, prev, _ in forwards(apart)] == [(6, 0)]


def test_a_gap_is_answered_with_the_whole_queue_from_its_front(apart: OneRouter) -> None:
    """10."""
    session = romeo(apart)
    for n in (1, 2, 3):
        apart.submit(session, n, chat(str(n)))
    ids = [origin_id for *_, origin_id in forwards(apart)]
    apart.confirmed(session, JULIET, 1)
    apart.receive(OTHER, (AGAIN, session.sid, JULIET))
    assert forwards(apart) == [(2, True, 0, ids[1]), (3, True, 2, ids[2])]
    apart.receive(OTHER, (AGAIN, session.sid, NURSE))
    assert apart.taken() == []


def test_a_new_owner_gets_the_whole_queue(apart: OneRouter) -> None:
    session = romeo(apart)
    apart.submit(session, 1, chat("1"))
    apart.submit(session, 2, headline("2"))
    apart.taken()
    apart.around(lambda: apart.owner.outbox.owners_changed([shard_of(NURSE)]))
    assert apart.taken(FORWARD) == []
    apart.around(lambda: apart.owner.outbox.owners_changed([shard_of(JULIET)]))
    assert [(n, retry, prev) for n, retry, prev, _ in forwards(apart)] == [(1, True, 0), (2, True, 1)]


def test_the_safety_net_offers_again_what_waits_too_long(apart: OneRouter) -> None:
    apart.submit(romeo(apart), 1, headline("1"))
    apart.taken()
    apart.tick(OFFER_AGAIN_S - 0.1)
    assert apart.taken(FORWARD) == []
    apart.tick(0.2)
    assert [(n, retry) for n, retry, _, _ in forwards(apart)] == [(1, True)]


# --- from another owner (rules 9 to 11)


def accepted(router: OneRouter) -> list[tuple[str, int]]:
    """(recipient, n) of what the other owner was told to be accepted since the last time."""
    found = []
    for to, (_, origin, recipient, n) in router.taken(CONFIRM):
        assert (to, origin) == (OTHER, ORIGIN)
        found.append((recipient, n))
    return found


def from_nurse(id: str) -> stanzas.Stanza:
    return chat(id)._replace(from_=f"{NURSE}/hall")


def received(router: OneRouter, origin: int = ORIGIN) -> list[int]:
    """The numbers of a sender in Juliet's log, in its order."""
    return [row.n for row in router.database.rows if (row.owner, row.sid) == (2, origin)]


def test_what_is_next_is_accepted_and_confirmed_when_its_row_is_committed(router: OneRouter) -> None:
    router.is_prompt = False
    router.forward(from_nurse("1"), 1, origin_id=(1 << 62))
    (batch,) = router.batches
    (row,) = batch.rows
    assert (row.owner, row.dir, row.peer, row.sid, row.n) == (2, TO_OWNER, NURSE, ORIGIN, 1)
    assert row.id > 1 << 62, "1: above the sender's"
    assert router.taken() == []
    router.committed()
    assert [(to, e) for to, e in router.sent if e[0] == CONFIRM] == [(OTHER, (CONFIRM, ORIGIN, JULIET, 1))]
    assert router.delivered(juliet(router)) == [(1, "1")]


def test_what_is_not_logged_is_confirmed_when_it_is_accepted(router: OneRouter) -> None:
    router.is_prompt = False
    router.forward(headline("1"), 1)
    assert accepted(router) == [(JULIET, 1)]


def test_confirmations_of_one_batch_are_one(router: OneRouter) -> None:
    router.receive(
        OTHER,
        *[
            (FORWARD, 5, 1, ORIGIN, n, False, ((JULIET, n - 1, router.epoch(JULIET)),), (tuple(headline(str(n))),), 0)
            for n in (1, 2, 3)
        ],
    )  # fmt: skip
    assert accepted(router) == [(JULIET, 3)]
    assert router.delivered(juliet(router)) == []


def test_what_was_seen_is_confirmed_if_it_is_committed(router: OneRouter) -> None:
    router.forward(from_nurse("1"), 1)
    router.taken()
    router.forward(from_nurse("1"), 1, retry=True)
    assert accepted(router) == [(JULIET, 1)]
    router.is_prompt = False
    router.forward(from_nurse("2"), 2, prev=1)
    router.forward(from_nurse("2"), 2, retry=True)
    assert accepted(router) == [], "it is on its way to the database"
    router.committed()
    assert accepted(router) == [(JULIET, 2)]
    assert received(router) == [1, 2]


def test_what_a_new_owner_repeats_before_it_is_committed_is_confirmed_to_both(router: OneRouter) -> None:
    """10: the sender's shard has moved meanwhile, and whoever offered it first may not know the sender any more."""
    router.is_prompt = False
    router.forward(from_nurse("1"), 1)
    router.forward(from_nurse("2"), 2, prev=1)
    for n in (1, 2):
        router.forward(from_nurse(str(n)), n, prev=n - 1, retry=True, sender=THIRD, epoch=2)
    assert router.taken(CONFIRM) == []
    router.committed()
    assert set(router.taken(CONFIRM)) == {(to, (CONFIRM, ORIGIN, JULIET, 1)) for to in (OTHER, THIRD)}
    router.committed()
    assert set(router.taken(CONFIRM)) == {(to, (CONFIRM, ORIGIN, JULIET, 2)) for to in (OTHER, THIRD)}
    assert received(router) == [1, 2]


def test_what_was_repeated_and_is_dropped_is_asked_for(router: OneRouter) -> None:
    """13: the batch in which it stood has lost its sender's shard."""
    router.is_prompt = False
    session = romeo(router)
    router.submit(session, 1, chat("1"))
    key = (JULIET, session.sid)
    router.forward(from_nurse("1"), 1, origin=session.sid, retry=True, sender=THIRD)
    assert router.owner._repeated == {key: {THIRD: 1}}
    router.lose(ROMEO)
    router.fenced(ROMEO)
    assert (THIRD, (AGAIN, session.sid, JULIET)) in router.taken(AGAIN)
    assert router.owner._repeated == {}


def test_a_gap_is_asked_for(router: OneRouter) -> None:
    """9: "prev > mark: gap, answer `again`"."""
    router.forward(from_nurse("3"), 3, prev=1)
    assert router.taken() == [(OTHER, (AGAIN, ORIGIN, JULIET))]
    router.forward(from_nurse("1"), 1)
    router.taken()
    router.forward(from_nurse("9"), 9, prev=1)
    assert accepted(router) == [(JULIET, 9)], "its sender had other things to say to others meanwhile"
    router.forward(from_nurse("12"), 12, prev=10)
    assert router.taken() == [(OTHER, (AGAIN, ORIGIN, JULIET))]
    assert received(router) == [1, 9]


def test_senders_and_recipients_have_numbers_of_their_own(router: OneRouter) -> None:
    router.forward(from_nurse("1"), 5)
    router.forward(from_nurse("2"), 3, origin=ORIGIN + 1)
    router.forward(from_nurse("3"), 3, to=ROMEO)
    assert len(router.database.rows) == 3


def test_an_owner_of_the_past_is_not_heard(router: OneRouter) -> None:
    """14: every receiver "remembers the greatest epoch per shard and drops envelopes with a lower one"."""
    router.forward(from_nurse("1"), 1, epoch=4)
    router.taken()
    router.forward(from_nurse("2"), 2, prev=1, epoch=3)
    assert (router.taken(), received(router)) == ([], [1])


def test_what_is_for_somebody_elses_account_is_not_answered(router: OneRouter) -> None:
    """Its sender offers it again to whoever owns it."""
    router.lose(JULIET)
    router.forward(from_nurse("1"), 1)
    assert (router.taken(), received(router)) == ([], [])


def test_nor_what_is_for_an_account_that_is_being_handed_over(router: OneRouter) -> None:
    router.owner.leaving = frozenset({shard_of(JULIET)})
    router.forward(from_nurse("1"), 1)
    assert (router.taken(), received(router)) == ([], [])


def test_a_first_offer_needs_no_look(router: OneRouter) -> None:
    """11."""
    router.forward(from_nurse("7"), 7)
    assert (router.looks, received(router)) == ([], [7])


def test_for_an_unknown_mark_the_log_is_asked(router: OneRouter) -> None:
    """11: "Unknown mark and `retry`, or after a takeover: look in the log"."""
    router.forward(from_nurse("1"), 1, origin_id=100)
    router.forward(from_nurse("2"), 2, prev=1, origin_id=200)
    heir = router.successor(JULIET)
    heir.announce(EDGE_2, JULIET, announcement(juliet(router)))
    heir.is_prompt = False
    heir.forward(from_nurse("1"), 1, retry=True, origin_id=100)
    heir.forward(from_nurse("2"), 2, prev=1, retry=True, origin_id=200)
    heir.forward(from_nurse("3"), 3, prev=2, retry=True, origin_id=300)
    heir.read()  # the account
    assert heir.looks == [(JULIET, ORIGIN, 100)]
    assert heir.taken(CONFIRM, AGAIN) == [], "everything behind it waits for the answer"
    heir.read()
    assert accepted(heir) == [(JULIET, 2)], "that is in the log"
    heir.committed()
    assert accepted(heir) == [(JULIET, 3)]
    assert received(heir) == [1, 2, 3]
    assert len(heir.looks) == 1, "now the mark is known"


def test_the_log_is_asked_about_an_hour_where_the_senders_row_is_unknown(router: OneRouter) -> None:
    router.forward(headline("1"), 1, retry=True)
    ((_, _, above),) = router.looks
    assert above == log.id_at(router.wall() - owner_module.LOOK_BACK_S)
    assert router.delivered(juliet(router)) == [(1, "1")], "the log did not have it"


def test_everything_else_of_the_account_waits_for_the_look(router: OneRouter) -> None:
    router.is_prompt = False
    router.forward(headline("retry"), 1, retry=True)
    router.forward(headline("other"), 1, origin=ORIGIN + 1)
    router.submit(romeo(router), 1, headline("mine"))
    assert router.taken(DELIVER) == []
    router.read()
    assert [id for _, id in router.delivered(juliet(router))] == ["retry", "other", "mine"]


def test_nobody_has_no_log(router: OneRouter) -> None:
    del router.database.keys[NURSE]
    session = juliet(router)
    router.forward(chat("1", NURSE)._replace(from_=session.jid), 1, to=NURSE, retry=True)
    assert router.looks == []
    sent = router.taken()
    assert [e[0] for _, e in sent] == [DELIVER, CONFIRM]
    assert error("service-unavailable", "cancel") in text(from_wire(tuple(sent[0][1][2])))


def test_marks_are_forgotten_after_a_while_and_then_the_log_knows(router: OneRouter) -> None:
    router.forward(from_nurse("1"), 1)
    router.tick(MARK_LIFE_S)
    router.taken()
    router.forward(from_nurse("1"), 1, retry=True)
    assert router.looks == [], "it is remembered between one and two of these times"
    router.tick(MARK_LIFE_S)
    router.tick(MARK_LIFE_S)
    router.taken()
    router.forward(from_nurse("2"), 2, prev=1)
    assert router.taken() == [(OTHER, (AGAIN, ORIGIN, JULIET))]
    router.forward(from_nurse("1"), 1, retry=True)
    router.forward(from_nurse("2"), 2, prev=1, retry=True)
    assert len(router.looks) == 1
    assert received(router) == [1, 2]


def test_what_was_sent_to_another_stretch_of_ownership_is_not_taken(router: OneRouter) -> None:
    """A first offer that was long on its way is none any more: the log may have it by now, and nobody would look."""
    router.forward(from_nurse("1"), 1, for_epoch=router.epoch(JULIET) - 1)
    assert received(router) == []
    router.forward(from_nurse("1"), 1, retry=True)
    assert len(router.looks) == 1
    assert received(router) == [1]


def test_of_a_bundle_each_stanza_stands_for_itself(router: OneRouter) -> None:
    """A refused one takes nothing with it."""
    good, refused = from_nurse("1"), from_nurse("2")._replace(to=f"{JULIET}/nowhere", type="normal")
    targets = ((JULIET, 0, router.epoch(JULIET)),)
    bundle = (tuple(good), tuple(refused), tuple(headline("3")))
    router.receive(OTHER, (FORWARD, 5, 1, ORIGIN, 1, False, targets, bundle, 0))
    assert [row.stanza.id for row in router.database.rows] == ["1"]
    assert accepted_and_delivered(router) == ["1", "3"]


def accepted_and_delivered(router: OneRouter) -> list[str | None]:
    sent = list(router.sent)
    assert [e for _, e in sent if e[0] == CONFIRM] == [(CONFIRM, ORIGIN, JULIET, 1)]
    return [id for _, id in router.delivered(juliet(router))]


# --- offered again by the edge (rules 5, 11)


def test_of_what_an_edge_offers_again_the_recipients_log_tells_whether_it_came(router: OneRouter) -> None:
    """A former owner of Romeo had it forwarded and died before it could say so."""
    session = romeo(router)
    router.forward(chat("1")._replace(from_=session.jid), 1, origin=session.sid)
    heir = router.successor(JULIET)
    heir.announce(EDGE_2, JULIET, announcement(juliet(router)))
    heir.take(ROMEO, epoch=3)
    heir.announce(EDGE, ROMEO, announcement(session, n=1))
    heir.submit(heir.session(ROMEO, "orchard"), 1, chat("1"), again=True)
    assert [(bare, origin) for bare, origin, _ in heir.looks] == [(JULIET, session.sid)]
    assert received(heir, session.sid) == [1]
    assert heir.session(ROMEO, "orchard").conf == 1
    assert [row.n for row in heir.database.rows if row.owner == 1] == [1], "the sender's row was missing"


def test_where_the_mark_is_known_nobody_need_be_asked(router: OneRouter) -> None:
    session = romeo(router)
    router.forward(chat("1")._replace(from_=session.jid), 1, origin=session.sid)
    router.taken()
    router.submit(session, 1, chat("1"), again=True)
    assert router.looks == []
    assert received(router, session.sid) == [1]
    assert router.delivered(juliet(router)) == []
    assert session.conf == 1


def test_what_is_offered_for_the_first_time_is_not_looked_for(router: OneRouter) -> None:
    router.submit(romeo(router), 1, chat("1"))
    assert router.looks == []


# --- the path is sticky (rule 12)


def test_while_something_is_being_forwarded_what_follows_goes_the_same_way(router: OneRouter) -> None:
    """Also to a recipient who is here by now: else n + 1 would be committed before n, which would look seen."""
    session = romeo(router)
    del router.owner.entities[JULIET]
    router.is_prompt = False
    router.submit(session, 1, chat("1"))
    router.committed()  # Romeo's row; the stanza is forwarded to this router itself
    router.read()  # Juliet is loaded, and takes it
    assert received(router, session.sid) == []
    router.submit(session, 2, headline("2", f"{JULIET}/nowhere"))
    router.submit(session, 3, chat("3"))
    assert len(router.owner.outbox) == 2, "3 waits for its own row"
    router.committed()
    router.committed()
    assert received(router, session.sid) == [1]
    router.committed()
    assert received(router, session.sid) == [1, 3]
    assert session.conf == 3
    assert len(router.owner.outbox) == 0


def test_what_ran_under_another_epoch_of_the_recipient_may_yet_have_to_be_forwarded(router: OneRouter) -> None:
    session = romeo(router)
    router.is_prompt = False
    router.submit(session, 1, chat("1"))  # with Juliet's half
    held = announcement(juliet(router))
    router.take(JULIET, epoch=4)  # lost and taken back before the database has answered
    router.announce(EDGE_2, JULIET, held)
    router.read()
    router.forward(headline("x"), 1)
    router.read()
    assert router.entity(JULIET).is_loaded
    router.submit(session, 2, chat("2"))
    router.fenced()
    (batch,) = router.batches
    assert [(row.owner, row.n, row.forward) for row in batch.rows] == [(1, 1, log.FORWARD)]
    router.is_prompt = True
    router.settle()
    assert received(router, session.sid) == [1, 2]
    assert session.conf == 2


# --- fences (rule 13)


def test_a_sender_whose_shard_is_lost_takes_his_items_and_their_marks_with_him(router: OneRouter) -> None:
    session = romeo(router)
    router.is_prompt = False
    router.submit(session, 1, chat("1"))
    router.lose(ROMEO)
    router.fenced(ROMEO)
    router.is_prompt = True
    assert router.taken(DELIVER, CONFIRMED) == []
    assert router.database.rows == []
    router.forward(chat("1")._replace(from_=session.jid), 1, origin=session.sid, retry=True)
    assert len(router.looks) == 1, "the mark is unknown again"
    assert received(router, session.sid) == [1]


def test_what_his_next_owner_forwarded_behind_a_dropped_item_is_dropped_too(router: OneRouter) -> None:
    """Else 2 would be logged before 1, and 1 would look seen."""
    session = romeo(router)
    router.is_prompt = False
    router.submit(session, 1, chat("1"))
    router.lose(ROMEO)
    one, two = (chat(id)._replace(from_=session.jid) for id in "12")
    router.forward(two, 2, prev=1, origin=session.sid)
    router.fenced(ROMEO)
    router.is_prompt = True
    router.settle()
    assert (received(router, session.sid), router.taken(CONFIRM)) == ([], [])
    router.forward(one, 1, origin=session.sid, retry=True)
    router.forward(two, 2, prev=1, origin=session.sid, retry=True)
    assert received(router, session.sid) == [1, 2]
    assert [e for _, e in router.taken(CONFIRM)][-1] == (CONFIRM, session.sid, JULIET, 2)


def test_a_recipient_whose_shard_is_lost_is_forwarded_to(router: OneRouter) -> None:
    session = romeo(router)
    router.is_prompt = False
    router.submit(session, 1, chat("1"))
    router.lose(JULIET)
    router.fenced(JULIET)
    (batch,) = router.batches
    assert [(row.owner, row.forward) for row in batch.rows] == [(1, log.FORWARD)]
    assert router.taken(FORWARD) == []
    router.committed()
    assert [(n, retry, prev) for n, retry, prev, _ in forwards(router)] == [(1, False, 0)]
    assert session.conf == 0
    router.confirmed(session, JULIET, 1)
    assert session.conf == 1


def test_a_batch_is_released_by_halves(router: OneRouter) -> None:
    """ "A sender's shard lost since must not keep Juliet's half, whose shard is still here, from her sessions"."""
    router.is_prompt = False
    router.submit(romeo(router), 1, chat("1"))
    router.lose(ROMEO)
    router.taken()
    router.committed()
    assert router.taken(CONFIRMED) == []
    assert juliet(router).q == 1
    assert len(juliet(router).unacknowledged) == 1


def test_and_the_other_way_round(router: OneRouter) -> None:
    session = romeo(router)
    router.is_prompt = False
    router.submit(session, 1, chat("1"))
    router.lose(JULIET)
    router.committed()
    assert router.taken(DELIVER) == []
    assert session.conf == 1, "both rows are there"


def test_an_unlogged_turn_of_another_epoch_is_forwarded_too(router: OneRouter) -> None:
    """ "Each item, logged or not": let through later, it would move the mark past a logged one."""
    session = romeo(router)
    router.is_prompt = False
    router.submit(session, 1, chat("1", NURSE))
    router.submit(session, 2, headline("2"))  # waits behind 1
    held = announcement(juliet(router))
    router.take(JULIET, epoch=4)
    router.announce(EDGE_2, JULIET, held)
    router.taken()
    router.is_prompt = True
    router.settle()
    assert router.delivered(juliet(router)) == [(1, "2")]
    assert session.conf == 2


# --- what the database refuses


def test_only_the_sender_of_what_is_refused_hears_of_it_and_everything_goes_on(router: OneRouter) -> None:
    """4: "drop only the guilty turn with an error to its sender"."""
    session = romeo(router)
    router.is_prompt = False
    router.submit(session, 1, chat("1"))
    router.submit(session, 2, chat("2"))
    router.refused(1)  # Juliet's row of the first
    router.is_prompt = True
    router.settle()
    deliveries = [(e[1][0][2], from_wire(tuple(e[2]))) for _, e in router.taken(DELIVER)]
    assert [(sid, stanza.id, stanza.type) for sid, stanza in deliveries] == [
        (session.sid, "1", "error"),
        (juliet(router).sid, "2", "chat"),
    ]
    assert session.conf == 2
    assert received(router, session.sid) == [2]


def test_a_refused_message_is_decided(router: OneRouter) -> None:
    """Nothing waits for it any more: it is confirmed to whoever offers it again."""
    session = romeo(router)
    router.is_prompt = False
    router.submit(session, 1, chat("1"))
    router.refused(0)
    router.is_prompt = True
    router.lose(ROMEO)
    router.taken()
    router.forward(chat("1")._replace(from_=session.jid), 1, origin=session.sid, retry=True)
    assert [e for _, e in router.taken()] == [(CONFIRM, session.sid, JULIET, 1)]


# --- requests


def test_a_turns_question_is_answered_in_a_later_turn_and_its_number_waits(router: OneRouter) -> None:
    router.database.vcards[1] = b"<vCard xmlns='vcard-temp'><FN>Romeo</FN></vCard>"
    session = romeo(router)
    router.is_prompt = False
    ask = stanzas.iq(
        type="get", id="v", to=None, from_=None, payload=f"{ns.VCARD} vCard", inner=b"<vCard xmlns='vcard-temp'/>"
    )
    router.submit(session, 1, ask)
    router.submit(session, 2, headline("2"))
    assert (session.conf, router.delivered(juliet(router))) == (0, [(1, "2")]), "others do not wait"
    router.read()
    ((_, (_, _, answer)),) = router.taken(DELIVER)
    assert b"<FN>Romeo</FN>" in from_wire(tuple(answer)).inner
    assert session.conf == 2


def test_an_answer_after_the_shard_was_lost_is_nobodys(router: OneRouter) -> None:
    session = romeo(router)
    router.is_prompt = False
    ask = stanzas.iq(
        type="get", id="v", to=None, from_=None, payload=f"{ns.VCARD} vCard", inner=b"<vCard xmlns='vcard-temp'/>"
    )
    router.submit(session, 1, ask)
    router.lose(ROMEO)
    router.taken()
    router.read()
    assert router.taken() == []


# --- memory


def test_an_account_that_nobody_uses_is_forgotten_and_found_again(router: OneRouter) -> None:
    router.forward(from_nurse("1")._replace(to=NURSE), 1, to=NURSE)
    assert NURSE in router.owner.entities
    router.tick(owner_module.ENTITY_LIFE_S)
    assert set(router.owner.entities) == {ROMEO, JULIET}, "who has a session is in use"
    router.forward(chat("2", NURSE), 2, to=NURSE, prev=1)
    assert len(router.entity(NURSE).offline) == 2


def test_a_shard_that_is_lost_leaves_nothing_behind(router: OneRouter) -> None:
    session = romeo(router)
    router.submit(session, 1, chat("1", "friar@example.com"))
    router.forward(headline("1", ROMEO), 1, to=ROMEO)
    router.lose(ROMEO)
    assert session.sid not in router.owner.sessions
    assert ROMEO not in router.owner.entities
    router.take(ROMEO, epoch=5)
    router.announce(EDGE, ROMEO)
    router.forward(headline("1", ROMEO), 1, to=ROMEO, retry=True)
    assert len(router.looks) == 1, "no mark is left"
    assert not router.owner.outbox.holds_of(frozenset({session.shard}))


def test_a_shard_is_busy_as_long_as_something_of_it_is_on_its_way(apart: OneRouter) -> None:
    """A handover waits for that (6, "Planned handover = a crash with a flush")."""
    session, mine = romeo(apart), frozenset({shard_of(ROMEO)})
    assert not apart.owner.is_busy(mine)
    apart.is_prompt = False
    apart.submit(session, 1, chat("1"))
    assert apart.owner.is_busy(mine)
    apart.committed()
    assert apart.owner.is_busy(mine), "it is not confirmed"
    assert not apart.owner.is_busy(frozenset({shard_of(JULIET)}))
    apart.confirmed(session, JULIET, 1)
    assert not apart.owner.is_busy(mine)


def test_everything_an_owner_says_is_of_its_epoch(router: OneRouter) -> None:
    router.submit(romeo(router), 1, chat("1"))
    (_, (_, targets, _)), (_, (_, shard, epoch, *_)) = router.taken(DELIVER, CONFIRMED)
    assert [target[:2] for target in targets] == [(shard_of(JULIET), 2)]
    assert (shard, epoch) == (shard_of(ROMEO), 2)
