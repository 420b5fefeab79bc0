"""Blocklists of others: who is on one (router/blocklists.py), and how they are followed (router/blocklist_keeper.py)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from prometheus_client import REGISTRY

from router.blocklist_keeper import AGAIN_S, ANSWER_S, PAGE, Keeper
from router.blocklists import Blocklists, Place, Rule
from router.entity import Session
from tests.support.owners import SETTINGS
from tests.support.turns import DOMAIN
from tests.unit.router.test_peers import PEER, Federation
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.stanza import HAS_EVENT, Stanza

SPAMMER, FRIEND = "spammer@abuse.example", "friend@abuse.example"
RULE = Rule(PEER, "bans")
EVERY_S = 3_600.0


def hashed(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def lists(*entries: str, places: Iterable[Place] = ("rooms", "strangers"), allowed: Iterable[str] = ()) -> Blocklists:
    found = Blocklists([replace(RULE, places=frozenset(places))], allowed, [DOMAIN])
    found.replace(RULE.name, entries)
    return found


# --- who is on one


@pytest.mark.parametrize(
    "entry", [hashed(SPAMMER), hashed(SPAMMER).upper(), hashed("abuse.example"), SPAMMER, "abuse.example"]
)
def test_an_entry_is_a_hash_or_a_name_of_somebody_or_of_a_domain(entry: str) -> None:
    assert lists(entry).of(SPAMMER, "rooms") == RULE.name
    assert lists(entry).of("juliet@example.org", "rooms") == ""


def test_a_list_counts_where_it_is_said_to() -> None:
    found = lists(hashed(SPAMMER), places=("rooms",))
    assert found.of(SPAMMER, "rooms") == RULE.name
    assert found.of(SPAMMER, "strangers") == ""


@pytest.mark.parametrize("allowed", [SPAMMER, "abuse.example"])
def test_whom_the_operator_allows_no_list_shuts_out(allowed: str) -> None:
    assert lists(hashed(SPAMMER), "abuse.example", allowed=[allowed]).of(SPAMMER, "rooms") == ""


@pytest.mark.parametrize("entry", [DOMAIN, hashed(DOMAIN), hashed(DOMAIN).upper(), "", " ", "x" * 4_000])
def test_no_list_takes_our_domain_out_of_service(entry: str) -> None:
    found = lists(entry, hashed(SPAMMER))
    assert found.of(f"juliet@{DOMAIN}", "strangers") == ""
    assert found.entries(RULE.name) == {hashed(SPAMMER)}


def test_one_of_ours_may_be_on_it() -> None:
    assert lists(hashed(f"romeo@{DOMAIN}")).of(f"romeo@{DOMAIN}", "rooms") == RULE.name


def test_a_list_that_is_followed_no_more_counts_no_more() -> None:
    found = Blocklists()
    found.replace(RULE.name, [SPAMMER])
    assert found.of(SPAMMER, "rooms") == ""


def test_refusals_are_counted() -> None:
    def count() -> float:
        return REGISTRY.get_sample_value("stentor_blocklist_refused_total", {"place": "rooms"}) or 0.0

    before = count()
    assert lists(SPAMMER).refuses(SPAMMER, "rooms")
    assert not lists(SPAMMER).refuses(FRIEND, "rooms")
    assert count() == before + 1


# --- following


class World(Federation):
    """A router that owns the service's domain, with a stream there."""

    def __init__(self, most: int = 1_000) -> None:
        super().__init__(SETTINGS)
        self.lists = Blocklists([RULE], (), [DOMAIN])
        self.saved: list[tuple[str, frozenset[str], bool]] = []
        self.keeper = Keeper(self.owner, self.lists, DOMAIN, EVERY_S, most, lambda *saved: self.saved.append(saved))
        self.owner.peers.hears = self.keeper.hears
        self.service = self.stream()
        self.number = 0

    def later(self, seconds: float = 0.0) -> list[Stanza]:
        """Time passes; what the service is asked."""
        self.now += seconds
        self.around(self.keeper.tick)
        return [stanza for stanza in self.heard(self.service) if stanza.kind == stanzas.IQ]

    def comes(self, stanza: Stanza, stream: Session | None = None) -> None:
        self.number += 1
        self.come_in(stream or self.service, self.number, stanza)

    def answers(self, request: Stanza, *ids: str, page: str = "", type: str = "result") -> list[Stanza]:
        """A page of items; returns what is asked next."""
        items = "".join(f"<item id='{id_}'/>" for id_ in ids)
        inner = f"<pubsub xmlns='{ns.PUBSUB}'><items node='bans'>{items}</items>{page}</pubsub>"
        self.comes(Stanza(stanzas.IQ, type, DOMAIN, PEER, request.id, None, 0, None, None, inner.encode()))
        return self.later()

    def tells(self, inner: str, from_: str = PEER) -> None:
        """A notification."""
        event = f"<event xmlns='{ns.PUBSUB_EVENT}'>{inner}</event>".encode()
        self.comes(stanzas.message(to=DOMAIN, from_=from_, type="headline", inner=event, flags=HAS_EVENT))


def rsm(last: str, count: int) -> str:
    return f"<set xmlns='{ns.RSM}'><first index='0'>a</first><last>{last}</last><count>{count}</count></set>"


@pytest.fixture
def world() -> World:
    return World()


def read(world: World, *ids: str) -> None:
    """The list is read as a whole."""
    _, request = world.later()
    assert world.answers(request, *ids) == []


def test_the_owner_of_the_services_domain_subscribes_and_reads(world: World) -> None:
    subscribe, request = world.later()
    assert (subscribe.type, subscribe.to, subscribe.from_) == ("set", PEER, DOMAIN)
    assert subscribe.inner == f'<pubsub xmlns="{ns.PUBSUB}"><subscribe node="bans" jid="{DOMAIN}"/></pubsub>'.encode()
    assert (request.type, request.payload) == ("get", f"{ns.PUBSUB} pubsub")
    assert b'<items node="bans"/>' in request.inner
    assert f"<max>{PAGE}</max>".encode() in request.inner
    assert world.answers(request, hashed(SPAMMER), hashed(DOMAIN)) == []
    assert world.lists.of(SPAMMER, "rooms") == RULE.name
    assert world.saved == [(RULE.name, frozenset({hashed(SPAMMER)}), True)]
    assert world.later(EVERY_S - 1) == []
    assert len(world.later(2)) == 2, "all of it is read again, now and then"


def test_pages_follow_each_other(world: World) -> None:
    _, request = world.later()
    (request,) = world.answers(request, "a", "b", page=rsm("b", 3))
    assert b"<after>b</after>" in request.inner
    assert world.saved == []
    assert world.answers(request, "c", page=rsm("c", 3)) == []
    assert world.saved == [(RULE.name, frozenset("abc"), True)]


@pytest.mark.parametrize("page", ["", rsm("", 9), "<set xmlns='http://jabber.org/protocol/rsm'/>", rsm("b", 2)])
def test_a_service_that_knows_no_pages_has_said_all(world: World, page: str) -> None:
    _, request = world.later()
    assert world.answers(request, "a", "b", page=page) == []
    assert world.saved[-1][1] == frozenset("ab")


def test_a_service_that_turns_in_circles_is_left(world: World) -> None:
    _, request = world.later()
    for _ in range(3):
        (request,) = world.answers(request, "a", page=rsm("a", 4))
    assert world.answers(request, "a", page=rsm("a", 4)) == []
    assert world.saved[-1][1] == frozenset("a")


def test_what_changes_is_heard(world: World) -> None:
    """XEP-0060: 7.1.2.1, 7.2.2.1, 8.5.2, 8.4.2."""
    read(world, "a", "b")
    world.tells(f"<items node='bans'><item id='{hashed(SPAMMER)}'/></items>")
    assert world.lists.of(SPAMMER, "rooms") == RULE.name
    world.tells(f"<items node='bans'><retract id='{hashed(SPAMMER)}'/></items>")
    assert world.lists.of(SPAMMER, "rooms") == ""
    assert world.saved[-1] == (RULE.name, frozenset("ab"), False)
    for gone in ("purge", "delete"):
        world.tells("<items node='bans'><item id='c'/></items>")
        world.tells(f"<{gone} node='bans'/>")
        assert world.lists.entries(RULE.name) == frozenset()


def test_what_changes_while_it_is_read_is_not_lost(world: World) -> None:
    """The page under way may be older than the news."""
    _, request = world.later()
    world.tells("<items node='bans'><item id='new'/></items>")
    world.tells("<items node='bans'><retract id='old'/></items>")
    world.answers(request, "old", "other")
    assert world.saved[-1][1] == {"new", "other"}


@pytest.mark.parametrize(
    "inner",
    ["<items node='other'><item id='x'/></items>", "<configuration node='bans'/>", "<items><item id='x'/></items>"],
)
def test_other_news_changes_nothing(world: World, inner: str) -> None:
    read(world, "a")
    world.tells(inner)
    assert world.lists.entries(RULE.name) == {"a"}


def test_only_the_service_says_what_is_on_its_list(world: World) -> None:
    read(world, "a")
    world.tells("<items node='bans'><item id='x'/></items>", from_=f"somebody@{PEER}")
    other = world.stream("irc.example.com", local="")
    world.number = 0
    event = f"<event xmlns='{ns.PUBSUB_EVENT}'><items node='bans'><item id='x'/></items></event>".encode()
    world.comes(
        stanzas.message(to=DOMAIN, from_="irc.example.com", type=None, inner=event, flags=HAS_EVENT), stream=other
    )
    assert world.lists.entries(RULE.name) == {"a"}


def test_nor_does_an_answer_that_nobody_waits_for(world: World) -> None:
    _, request = world.later()
    world.answers(request._replace(id="another"), "x")
    world.answers(request, "a")
    world.answers(request, "x")
    assert world.lists.entries(RULE.name) == {"a"}


def problem_of(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_what_cannot_be_read_leaves_what_was_read_before(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    read(world, "a")
    _, request = world.later(EVERY_S + 1)
    error = f"<error type='cancel'><item-not-found xmlns='{ns.STANZAS}'/></error>"
    world.comes(Stanza(stanzas.IQ, "error", DOMAIN, PEER, request.id, None, 0, None, None, error.encode()))
    assert world.later() == []
    assert world.lists.entries(RULE.name) == {"a"}
    assert "It answers item-not-found." in problem_of(capsys)
    assert len(world.later(AGAIN_S + 1)) == 2


def test_a_service_that_says_nothing_is_asked_again(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.later()
    assert world.later(ANSWER_S + 1) == []
    assert "It does not answer." in problem_of(capsys)
    assert len(world.later(AGAIN_S + 1)) == 2
    world.later(ANSWER_S + 1)
    assert problem_of(capsys) == "", "once is enough"


def test_a_list_that_is_too_long_is_not_taken(capsys: pytest.CaptureFixture[str]) -> None:
    world = World(most=2)
    read(world, "a", "b")
    world.tells("<items node='bans'><item id='c'/></items>")
    assert world.lists.entries(RULE.name) == {"a", "b"}
    _, request = world.later(EVERY_S + 1)
    world.answers(request, "a", "b", "c")
    assert world.lists.entries(RULE.name) == {"a", "b"}
    assert "more than 2 entries" in problem_of(capsys)


def test_the_next_owner_begins_with_reading(world: World) -> None:
    read(world, "a")
    shard, held = world.service.shard, world.owner.tenures
    epoch, held[shard] = held[shard], None
    assert world.later() == []
    held[shard] = epoch
    assert len(world.later()) == 2


def test_an_operator_need_not_wait(world: World) -> None:
    read(world, "a")
    world.around(world.keeper.refresh)
    assert len(world.later()) == 2


def test_messages_of_others_to_the_server_are_nobodys(world: World) -> None:
    said: dict[str, Any] = {"to": DOMAIN, "from_": f"friar@{PEER}", "type": "chat", "id": "1"}
    world.comes(stanzas.message(**said, inner=b"<body>hello</body>", flags=stanzas.HAS_BODY))
    (answer,) = world.heard(world.service)
    assert answer.type == "error"
