"""What a router tells of traced stanzas (router/tracing.py): each decision, and nothing that anybody has said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.shards import shard_of
from cluster.wire import ACTIVITY, UNREACHABLE
from router.feature import Feature
from router.features import blocking, restrictions, strangers
from router.settings import Strangers
from router.tracing import RouterTracing, _words
from storage.restrictions import Restriction
from tests.support.owners import (
    EDGE_2,
    FEATURES,
    JULIET,
    NURSE,
    ROMEO,
    S2S,
    SETTINGS,
    OneRouter,
    chat,
    headline,
)
from tests.support.traces import Watching
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.stanza import HAS_CHAT_STATE, HINT_NO_PERMANENT_STORE, HINT_NO_STORE, Stanza

FRIAR = "friar@verona.example"


def screens(feature: Feature) -> Feature:
    """A feature's screens, without what it keeps in the database."""
    found = Feature(feature.name)
    found.message_steps = feature.message_steps
    found.presence_steps = feature.presence_steps
    return found


ALL = (screens(blocking.feature), screens(restrictions.feature), screens(strangers.feature), *FEATURES)


class Traced:
    """A router whose owner traces these; Romeo and Juliet have a session each, where they are here."""

    def __init__(self, *jids: str, owns: tuple[str, ...] = (ROMEO, JULIET, NURSE), **options: Any) -> None:
        self.router = OneRouter(owns=owns, features=ALL, **options)
        self.watching = Watching()
        self.watching.trace(*(jids or (ROMEO,)))
        owner = self.router.owner
        owner.tracing = RouterTracing(self.watching.tracer, owner, owner.rooms.fanout, lambda: self.router.now)
        self.romeo = self.router.bind(ROMEO, "orchard") if ROMEO in owns else None
        if JULIET in owns:
            self.juliet = self.router.bind(JULIET, "balcony", EDGE_2)
        self.n = 0
        self.watching.events()

    def say(self, stanza: Stanza) -> None:
        """Romeo sends it."""
        assert self.romeo is not None
        self.n += 1
        self.router.submit(self.romeo, self.n, stanza)

    def told(self) -> list[tuple[str, str]]:
        """(hop, decision) since the last time."""
        return [(hop, decision) for hop, decision, _ in self.watching.decisions()]

    def details(self, decision: str, hop: str = "") -> dict[str, Any]:
        """Those of the only such decision since the last time."""
        found = [d for h, what, d in self.watching.decisions() if what == decision and hop in ("", h)]
        assert len(found) == 1, found
        return found[0]


def test_a_message_between_two_accounts_of_this_router() -> None:
    traced = Traced()
    traced.say(chat("m1", body="hush"))
    assert traced.watching.decisions() == [
        ("sender", "accepted", {"n": 1, "session": f"{ROMEO}/orchard"}),
        ("sender", "archived", {"id": pytest.approx(1, abs=2**63), "kept": "archive"}),
        ("sender", "routed", {"to": (f"{JULIET} at router-1",)}),
        ("recipient", "accepted", {"owner": JULIET}),
        ("recipient", "archived", {"id": pytest.approx(1, abs=2**63), "kept": "archive"}),
        ("sender", "committed", {"items": 1, "ms": 0.0}),
        ("recipient", "delivered", {"sessions": (f"{JULIET}/balcony on c2s-2",)}),
    ]


def test_all_of_it_is_known_by_the_senders_number_and_by_those_that_go_on() -> None:
    traced = Traced(JULIET)
    traced.say(chat("m1"))
    events = traced.watching.events()
    assert traced.romeo is not None
    assert all(event.names[0] == f"{traced.romeo.sid:x}/1" for event in events)
    assert events[-1].names[-1] == f"{traced.juliet.sid:x}>1"
    assert {event.id for event in events} == {"m1"}
    assert "hush" not in repr(events)


def test_a_message_to_an_account_of_another_router() -> None:
    traced = Traced(owns=(ROMEO,))
    traced.say(chat("m1"))
    assert traced.told() == [
        ("sender", "accepted"), ("sender", "archived"), ("sender", "routed"), ("sender", "committed"),
        ("sender", "forwarded"),
    ]  # fmt: skip
    there = Traced(owns=(JULIET,))
    there.router.forward(chat("m1")._replace(from_=f"{ROMEO}/orchard"), 1)
    assert there.told() == [
        ("recipient", "accepted"), ("recipient", "archived"), ("recipient", "committed"), ("recipient", "delivered"),
    ]  # fmt: skip


def test_the_time_until_the_commit_is_told() -> None:
    traced = Traced()
    traced.router.is_prompt = False
    traced.say(chat("m1"))
    assert ("recipient", "delivered") not in traced.told()
    traced.router.now += 0.25
    traced.router.committed()
    assert traced.details("committed") == {"items": 1, "ms": 250.0}


def test_copies_are_told_apart() -> None:
    traced = Traced()
    phone = traced.router.bind(JULIET, "phone", is_available=False)
    laptop = traced.router.bind(ROMEO, "laptop")
    phone.marks["carbons"] = laptop.marks["carbons"] = 0
    traced.say(chat("m1", to=f"{JULIET}/balcony"))
    assert [d for d in traced.watching.decisions() if d[1] in ("copied", "delivered")] == [
        ("sender", "copied", {"sessions": (f"{ROMEO}/laptop on c2s-1",)}),
        ("recipient", "copied", {"sessions": (f"{JULIET}/phone on c2s-1",)}),
        ("recipient", "delivered", {"sessions": (f"{JULIET}/balcony on c2s-2",)}),
    ]


def test_a_message_to_somebody_who_is_offline_waits_and_is_told_of_when_it_goes_on() -> None:
    traced = Traced()
    traced.say(chat("m1", to=NURSE))
    row = traced.router.entity(NURSE).offline[0]
    assert traced.details("offline") == {"id": row, "count": 1}
    nurse = traced.router.bind(NURSE, "chamber", is_available=False)
    traced.router.submit(nurse, 1, stanzas.presence(to=None, from_=None))
    events = [event for event in traced.watching.events() if event.decision == "delivered"]
    assert [(event.hop, event.id, event.names[0]) for event in events] == [("recipient", "m1", f"{NURSE}#{row}")]


def test_who_does_not_exist_bounces() -> None:
    traced = Traced(owns=(ROMEO, JULIET, NURSE, "nobody@example.com"))
    traced.say(chat("m1", to="nobody@example.com"))
    told = traced.watching.decisions()
    assert ("recipient", "bounced", {
        "by": "delivery", "condition": "service-unavailable", "text": "Nobody is there to take the message."
    }) in told  # fmt: skip
    assert told[-1] == ("recipient", "delivered", {"sessions": (f"{ROMEO}/orchard on c2s-1",)}), "the error"


def test_the_error_is_of_the_stanza_that_it_answers() -> None:
    traced = Traced(owns=(ROMEO, JULIET, NURSE, "nobody@example.com"))
    traced.say(chat("m1", to="nobody@example.com"))
    events = traced.watching.events()
    bounced = next(event for event in events if event.decision == "bounced")
    (error,) = [event for event in events if event.type == "error" and event.decision == "delivered"]
    assert set(error.names) & set(bounced.names)


def _blocked(traced: Traced) -> None:
    traced.router.entity(JULIET).blocks.add(ROMEO)


def _blocking(traced: Traced) -> None:
    traced.router.entity(ROMEO).blocks.add(JULIET)


def _banned(traced: Traced) -> None:
    found = Restriction("ban", "", "operator", 0.0, None)
    traced.router.entity(JULIET).data["restrictions"] = {"ban": found}


@pytest.mark.parametrize(
    ("arrange", "hop", "reason"),
    [
        (_blocked, "recipient", "the recipient has blocked the sender"),
        (_blocking, "sender", "the sender has blocked this address"),
        (_banned, "recipient", "the recipient is banned, in quarantine or a guest: not there for the sender"),
    ],
)
def test_what_stands_in_the_way_is_named_also_where_the_sender_is_not_told(arrange: Any, hop: str, reason: str) -> None:
    traced = Traced()
    arrange(traced)
    traced.say(chat("m1"))
    told = traced.details("blocked")
    assert told["reason"] == reason
    assert told["told"] == ("not-acceptable" if hop == "sender" else "service-unavailable")
    traced.say(headline("m2"))
    assert traced.details("blocked", hop)["told"] == ("not-acceptable" if hop == "sender" else "nothing")


def test_strangers_are_named() -> None:
    policy = Strangers(local="refuse", remote="refuse", domains={}, per_hour=0, sender_per_hour=0, quarantine_after=0)
    traced = Traced(settings=replace(SETTINGS, strangers=policy))
    traced.say(chat("m1"))
    assert "strangers" in traced.details("blocked")["reason"]


@pytest.mark.parametrize(
    ("stanza", "reason"),
    [
        (chat("m1")._replace(flags=HINT_NO_STORE), "hint no-store (XEP-0334)"),
        (chat("m1")._replace(flags=HINT_NO_PERMANENT_STORE), "hint no-permanent-store (XEP-0334)"),
        (headline("m1"), "type headline"),
        (chat("m1")._replace(flags=HAS_CHAT_STATE), "nothing in it that is worth keeping"),
    ],
)
def test_why_nothing_is_archived(stanza: Stanza, reason: str) -> None:
    traced = Traced()
    traced.say(stanza)
    assert traced.details("unarchived", "sender") == {"reason": reason}


def test_preferences_are_named() -> None:
    traced = Traced(settings=replace(SETTINGS, archive_default="never"))
    steps = [step for step in ALL if step.name != "record"]
    traced.router.owner.pipeline.features = steps
    assert traced.router.owner.tracing is not None
    traced.router.owner.pipeline.watch(traced.router.owner.tracing._watched)
    traced.say(chat("m1"))
    assert traced.details("unarchived", "sender")["reason"].startswith("the preferences of the account")


def test_an_inactive_client_is_not_woken() -> None:
    traced = Traced()
    where = (shard_of(JULIET), traced.router.epoch(JULIET), traced.juliet.sid, traced.juliet.gen)
    traced.router.receive(EDGE_2, (ACTIVITY, *where, False))
    traced.say(chat("m1")._replace(flags=HAS_CHAT_STATE, inner=b"<composing/>"))
    assert traced.details("held") == {"sessions": (f"{JULIET}/balcony on c2s-2",)}


def test_a_session_without_a_stream_is_told() -> None:
    traced = Traced()
    traced.router.enable(traced.juliet)
    traced.router.detach(traced.juliet)
    traced.watching.events()
    traced.say(chat("m1"))
    assert traced.details("kept") == {"sessions": (f"{JULIET}/balcony, which has no stream",)}


def test_what_nobody_takes_and_nobody_keeps_ends() -> None:
    traced = Traced()
    traced.say(headline("m1", to=NURSE))
    assert traced.details("ended")["reason"] == "nobody takes it, and type headline is not kept"
    traced.say(stanzas.iq(type="result", id="1", to=f"{NURSE}/gone", from_=None))
    assert traced.details("ended") == {"reason": "there is nobody to give it to"}


def test_a_message_to_another_server_waits_for_a_stream() -> None:
    traced = Traced(owns=(ROMEO, "verona.example"))
    traced.router.dialing.edge_up(S2S)
    traced.say(chat("m1", to=FRIAR))
    told = traced.watching.decisions()
    assert [d[:2] for d in told] == [
        ("sender", "accepted"), ("sender", "archived"), ("sender", "routed"), ("peer", "accepted"),
        ("peer", "archived"), ("sender", "committed"), ("peer", "waits"), ("peer", "dialed"),
    ]  # fmt: skip
    assert told[-1][2] == {"by": "s2s-1", "tries": 0}
    where = (shard_of("verona.example"), traced.router.epoch("verona.example"), "verona.example", "example.com")
    traced.router.receive(S2S, (UNREACHABLE, *where, "remote-server-timeout", "Connection refused.", False))
    assert traced.details("unreachable") == {
        "by": "s2s-1", "condition": "remote-server-timeout", "problem": "Connection refused.", "retry_s": 2.0
    }  # fmt: skip
    traced.router.receive(S2S, (UNREACHABLE, *where, "remote-server-not-found", "It does not exist.", True))
    told = traced.watching.decisions()
    assert ("peer", "returned", {
        "to": (f"{ROMEO} at router-1",), "condition": "remote-server-not-found", "reason": "It does not exist."
    }) in told  # fmt: skip


def test_a_domain_is_traced_as_a_whole_and_others_are_not() -> None:
    traced = Traced("verona.example", owns=(ROMEO, JULIET, "verona.example"))
    traced.say(chat("m1", to=FRIAR))
    traced.say(chat("m2"))
    assert {event.id for event in traced.watching.events()} == {"m1"}


def test_presence_is_told_by_each_way_that_it_goes() -> None:
    traced = Traced()
    traced.say(stanzas.presence(to=JULIET, from_=None))
    told = traced.watching.decisions()
    assert ("sender", "routed", {"to": (f"{JULIET} at router-1",)}) in told
    assert not any(decision == "unarchived" for _, decision, _ in told)


def test_what_a_shard_takes_with_it_is_taken_back() -> None:
    traced = Traced()
    traced.router.is_prompt = False
    traced.say(chat("m1"))
    traced.watching.events()
    traced.router.fenced(ROMEO)
    assert traced.told() == [("sender", "undone"), ("recipient", "undone")]


def test_what_the_database_refuses_is_taken_back() -> None:
    traced = Traced()
    traced.router.is_prompt = False
    traced.say(chat("m1"))
    traced.watching.events()
    traced.router.refused(0)
    assert ("sender", "undone") in traced.told()


def test_an_error_that_somebody_else_has_written_is_not_quoted() -> None:
    traced = Traced()
    inner = f'<error type="cancel"><gone xmlns="{ns.STANZAS}"/><text xmlns="{ns.STANZAS}">hush</text></error>'
    traced.say(chat("m1", to=f"{JULIET}/balcony")._replace(type="error", inner=inner.encode(), flags=0))
    told = traced.watching.decisions()
    assert "hush" not in repr(told)
    assert [d for _, d, _ in told] == ["accepted", "routed", "accepted", "delivered"]


def test_what_our_own_errors_quote_is_left_out() -> None:
    assert _words(chat("m1"), "'se'cret' is not a JID.") == "'…' is not a JID."
    assert _words(chat("m1"), "Nobody is there.") == "Nobody is there."
    assert _words(chat("m1"), "The end's open") == "The end's open"
    assert _words(stanzas.iq(type="set", id="1", to=None, from_=None), "There is no option secret.") == ""


def test_without_a_trace_the_steps_are_not_watched() -> None:
    traced = Traced()
    owner = traced.router.owner
    watched = owner.pipeline._message_in
    assert owner.tracing is not None
    owner.tracing.close()
    owner.tracing = None
    assert owner.pipeline._message_in != watched
    traced.say(chat("m1"))
    assert traced.watching.events() == []
    assert traced.router.delivered(traced.juliet) == [(1, "m1")]


def test_a_bug_of_tracing_stops_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = Traced()

    def broken(self: RouterTracing, *arguments: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(RouterTracing, "_tell", broken)
    monkeypatch.setattr(RouterTracing, "_given", broken)
    traced.say(chat("m1"))
    assert traced.router.delivered(traced.juliet) == [(1, "m1")]


def test_nothing_is_kept_of_what_is_over() -> None:
    traced = Traced()
    for number in range(5):
        traced.say(chat(f"m{number}"))
    tracing: Any = traced.router.owner.tracing
    assert (tracing._begun, tracing._stops, tracing._items, tracing._asked) == ({}, {}, {}, {})
