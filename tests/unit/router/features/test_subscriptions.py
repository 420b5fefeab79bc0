"""Presence subscriptions (RFC 6121, 3) as conversations of two accounts of one server."""

from __future__ import annotations

import pytest

from router.contacts import Contact
from router.entity import Session
from router.features import presence
from router.settings import Settings
from router.subscription_table import INBOUND, State, apply, state_of
from storage import rosters
from tests.support.turns import DOMAIN, World, error, stored
from xmpp import ns

ROMEO, JULIET = "romeo@example.com", "juliet@example.com"
STATUS = "<status>I love thee</status>"


class Scene:
    """Romeo and Juliet, both online, both with their rosters open."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.world = World(settings)
        self.romeo = self._come(ROMEO, "orchard")
        self.juliet = self._come(JULIET, "balcony")

    def _come(self, bare: str, resource: str) -> Session:
        session = self.world.online(self.world.account(bare), resource)
        self.world.say(session, f'<iq type="get" id="r"><query xmlns="{ns.ROSTER}"/></iq>')
        self.world.heard(session)
        return session

    def say(self, session: Session, to: str, type: str, inner: str = "") -> None:
        self.world.say(session, f'<presence to="{to}" type="{type}">{inner}</presence>')

    def states(self) -> tuple[State, State]:
        """Romeo's view of Juliet and hers of him."""
        return (
            state_of(self.romeo.entity.roster.contacts.get(JULIET)),
            state_of(self.juliet.entity.roster.contacts.get(ROMEO)),
        )


@pytest.fixture
def scene() -> Scene:
    return Scene()


def sub(to: str, from_: str, type: str, inner: str = "") -> str:
    """A subscription stanza as it is heard: both addresses bare (3.1.2)."""
    head = f'<presence to="{to}" from="{from_}" type="{type}"'
    return f"{head}>{inner}</presence>" if inner else f"{head}/>"


def available(to: str, from_: Session) -> str:
    return f'<presence to="{to}" from="{from_.jid}"/>'


def unavailable(to: str, from_: Session) -> str:
    return f'<presence to="{to}" from="{from_.jid}" type="unavailable"/>'


def pushed(session: Session, version: int, item: str) -> str:
    query = f'<query xmlns="{ns.ROSTER}" ver="{version}">{item}</query>'
    return f'<iq to="{session.jid}" type="set" id="push-{version}">{query}</iq>'


# --- the whole way (3.1, 3.2, 3.3)


def test_asking_approving_and_asking_back(scene: Scene) -> None:
    romeo, juliet, world = scene.romeo, scene.juliet, scene.world
    scene.say(romeo, "juliet@example.com/balcony", "subscribe", STATUS)
    assert world.heard(romeo) == [
        pushed(romeo, 1, f'<item jid="{JULIET}" subscription="none" ask="subscribe"/>'),
    ]
    assert world.heard(juliet) == [sub(JULIET, ROMEO, "subscribe", STATUS)], "delivered, and no roster push"
    assert scene.states() == (State.NONE_OUT, State.NONE_IN)

    scene.say(juliet, "romeo@example.com/orchard", "subscribed")
    assert world.heard(juliet) == [pushed(juliet, 1, f'<item jid="{ROMEO}" subscription="from"/>')]
    assert world.heard(romeo) == [
        sub(ROMEO, JULIET, "subscribed"),
        pushed(romeo, 2, f'<item jid="{JULIET}" subscription="to"/>'),
        available(ROMEO, juliet),
    ], "3.1.6: the approval, the push, then her presence"
    assert scene.states() == (State.TO, State.FROM)

    scene.say(juliet, ROMEO, "subscribe")
    scene.say(romeo, JULIET, "subscribed")
    assert scene.states() == (State.BOTH, State.BOTH)
    assert world.heard(juliet)[-3:] == [
        sub(JULIET, ROMEO, "subscribed"),
        pushed(juliet, 3, f'<item jid="{ROMEO}" subscription="both"/>'),
        available(JULIET, romeo),
    ]


def test_a_request_denied(scene: Scene) -> None:
    scene.say(scene.romeo, JULIET, "subscribe")
    scene.world.heard(scene.romeo)
    scene.world.heard(scene.juliet)
    scene.world.written()
    scene.say(scene.juliet, ROMEO, "unsubscribed")
    assert scene.world.heard(scene.romeo) == [
        sub(ROMEO, JULIET, "unsubscribed"),
        pushed(scene.romeo, 2, f'<item jid="{JULIET}" subscription="none"/>'),
    ]
    assert scene.world.heard(scene.juliet) == [], "he never was in her roster"
    assert scene.states() == (State.NONE, State.NONE)
    assert ROMEO not in scene.juliet.entity.roster.contacts
    assert scene.world.written() == [rosters.forget, rosters.upsert]


def test_a_request_taken_back(scene: Scene) -> None:
    scene.say(scene.romeo, JULIET, "subscribe")
    scene.world.heard(scene.juliet)
    scene.say(scene.romeo, JULIET, "unsubscribe")
    assert scene.world.heard(scene.juliet) == [sub(JULIET, ROMEO, "unsubscribe")], "A.3.2: MUST be delivered"
    assert scene.states() == (State.NONE, State.NONE)
    assert ROMEO not in scene.juliet.entity.roster.contacts


def test_a_subscription_cancelled_by_the_contact(scene: Scene) -> None:
    """3.2.2: unavailable presence from each resource, and then the cancellation."""
    scene.world.friends(scene.romeo.entity, scene.juliet.entity)
    chamber = scene.world.online(scene.juliet.entity, "chamber")
    scene.say(scene.juliet, ROMEO, "unsubscribed")
    assert scene.world.heard(scene.romeo) == [
        unavailable(ROMEO, scene.juliet),
        unavailable(ROMEO, chamber),
        sub(ROMEO, JULIET, "unsubscribed"),
        pushed(scene.romeo, 1, f'<item jid="{JULIET}" subscription="from"/>'),
    ]
    assert scene.world.heard(scene.juliet) == [pushed(scene.juliet, 1, f'<item jid="{ROMEO}" subscription="to"/>')]
    assert scene.states() == (State.FROM, State.TO)


def test_unsubscribing(scene: Scene) -> None:
    """3.3: the contact's server sends unavailable presence back."""
    scene.world.friends(scene.romeo.entity, scene.juliet.entity)
    scene.say(scene.romeo, JULIET, "unsubscribe")
    assert scene.world.heard(scene.romeo) == [
        pushed(scene.romeo, 1, f'<item jid="{JULIET}" subscription="from"/>'),
        unavailable(ROMEO, scene.juliet),
    ]
    assert scene.world.heard(scene.juliet) == [
        sub(JULIET, ROMEO, "unsubscribe"),
        pushed(scene.juliet, 1, f'<item jid="{ROMEO}" subscription="to"/>'),
    ]
    assert scene.states() == (State.FROM, State.TO)


@pytest.mark.parametrize("type", ["subscribed", "unsubscribe", "unsubscribed"])
def test_answers_of_strangers_mean_nothing(scene: Scene, type: str) -> None:
    """A.3: MUST NOT be delivered in state "None"."""
    scene.world.arrive(scene.juliet.entity, f'<presence from="x@example.org/y" to="{JULIET}" type="{type}"/>')
    assert scene.world.heard(scene.juliet) == []
    assert scene.world.writes == []
    assert scene.juliet.entity.roster.contacts == {}
    assert scene.world.away == []


def test_deliveries_by_the_table(scene: Scene) -> None:
    """What the inbound tables let through is delivered to interested sessions, nothing else is."""
    for type in ("subscribed", "unsubscribe", "unsubscribed"):
        for state, row in INBOUND[type].items():
            contact = scene.world.contact(scene.juliet.entity, ROMEO)
            apply(contact, state)
            scene.world.arrive(scene.juliet.entity, sub(JULIET, ROMEO, type))
            heard = scene.world.heard(scene.juliet)
            assert (sub(JULIET, ROMEO, type) in heard) is row.passes, (type, state)
            assert bool(heard) is row.passes, (type, state)
            assert state_of(contact) is row.state


def test_only_interested_sessions_hear_of_changes(scene: Scene) -> None:
    """3.1.6, 3.2.3, 3.3.3: "to all of the user's interested resources"."""
    scene.world.contact(scene.juliet.entity, ROMEO, ask=True)
    available_only = scene.world.online(scene.juliet.entity, "chamber")
    scene.world.arrive(scene.juliet.entity, sub(JULIET, ROMEO, "subscribed"))
    assert len(scene.world.heard(scene.juliet)) == 2
    assert scene.world.heard(available_only) == []


# --- requests (3.1)


def test_a_repeated_request_is_routed_but_neither_pushed_nor_shown_again(scene: Scene) -> None:
    scene.say(scene.romeo, JULIET, "subscribe")
    scene.world.heard(scene.romeo)
    scene.world.heard(scene.juliet)
    scene.world.written()
    scene.say(scene.romeo, JULIET, "subscribe")
    assert scene.world.heard(scene.romeo) == []
    assert scene.world.heard(scene.juliet) == [], "A.3.1: MUST NOT be delivered while it is pending"
    assert scene.world.written() == []


def test_a_request_to_nobody_is_denied_at_once(scene: Scene) -> None:
    scene.world.nobody("mercutio@example.com")
    scene.say(scene.romeo, "mercutio@example.com", "subscribe")
    heard = scene.world.heard(scene.romeo)
    assert sub(ROMEO, "mercutio@example.com", "unsubscribed") in heard
    assert heard[-1] == pushed(scene.romeo, 2, '<item jid="mercutio@example.com" subscription="none"/>')


@pytest.mark.parametrize("type", ["subscribed", "unsubscribe", "unsubscribed"])
def test_nobody_says_nothing_to_all_else(scene: Scene, type: str) -> None:
    nobody = scene.world.nobody("mercutio@example.com")
    turn = scene.world.arrive(nobody, sub("mercutio@example.com", ROMEO, type))
    assert turn.sends == ()


def test_a_request_waits_until_it_is_answered_and_is_shown_to_each_new_session(scene: Scene) -> None:
    world = scene.world
    nurse = world.account("nurse@example.com")
    scene.say(scene.romeo, "nurse@example.com", "subscribe", STATUS)
    contact = nurse.roster.contacts[ROMEO]
    assert contact == Contact(ROMEO, pending_in=True, pending_inner=STATUS.encode(), in_roster=False)
    for resource in ("kitchen", "street"):
        session = world.bind(nurse, resource)
        assert world.heard(session) == [], "not before it is available"
        world.say(session, "<presence/>")
        assert sub("nurse@example.com", ROMEO, "subscribe", STATUS) in world.heard(session)
        world.say(session, "<presence><show>away</show></presence>")
        assert sub("nurse@example.com", ROMEO, "subscribe", STATUS) not in world.heard(session), "only initial presence"
    world.say(session, f'<presence to="{ROMEO}" type="subscribed"/>')
    assert contact.pending_inner == b""
    late = world.bind(nurse, "late")
    world.say(late, "<presence/>")
    assert not any('type="subscribe"' in heard for heard in world.heard(late))


def test_requests_of_blocked_people_are_not_shown_again(scene: Scene) -> None:
    scene.world.contact(scene.juliet.entity, "x@example.org", pending_in=True, in_roster=False)
    scene.juliet.entity.blocks = {"example.org"}
    session = scene.world.bind(scene.juliet.entity, "chamber")
    scene.world.say(session, "<presence/>")
    assert not any('type="subscribe"' in heard for heard in scene.world.heard(session))


@pytest.mark.parametrize("state", [State.FROM, State.FROM_OUT, State.BOTH])
def test_who_is_approved_already_is_answered_by_the_server(scene: Scene, state: State) -> None:
    """3.1.3: "the contact's server ... MUST NOT deliver the presence subscription request ... but ... SHOULD
    auto-reply"."""
    apply(scene.world.contact(scene.juliet.entity, ROMEO), state)
    scene.world.contact(scene.romeo.entity, JULIET, ask=True)
    scene.world.arrive(scene.juliet.entity, sub(JULIET, ROMEO, "subscribe"))
    assert scene.world.heard(scene.juliet) == []
    heard = scene.world.heard(scene.romeo)
    assert heard[0] == sub(ROMEO, JULIET, "subscribed")
    assert heard[-1] == available(ROMEO, scene.juliet)
    assert state_of(scene.juliet.entity.roster.contacts[ROMEO]) is state


def test_a_full_roster_takes_no_more_requests(scene: Scene) -> None:
    scene = Scene(Settings(domains=frozenset({DOMAIN}), roster_contacts=1))
    scene.world.contact(scene.juliet.entity, "x@example.org", pending_in=True, in_roster=False)
    scene.say(scene.romeo, JULIET, "subscribe")
    assert scene.world.heard(scene.juliet) == []
    assert ROMEO not in scene.juliet.entity.roster.contacts


@pytest.mark.parametrize("type", ["subscribe", "subscribed"])
def test_a_full_roster_cannot_ask_for_more(type: str) -> None:
    scene = Scene(Settings(domains=frozenset({DOMAIN}), roster_contacts=1))
    scene.world.contact(scene.romeo.entity, "x@example.org", "both")
    scene.say(scene.romeo, JULIET, type)
    (answer,) = scene.world.heard(scene.romeo)
    assert error("resource-constraint", "wait") in answer
    assert JULIET not in scene.romeo.entity.roster.contacts
    assert scene.world.heard(scene.juliet) == []


# --- pre-approval (3.4)


def test_a_pre_approval_is_used_when_the_request_comes(scene: Scene) -> None:
    world = scene.world
    scene.say(scene.juliet, ROMEO, "subscribed")
    assert world.heard(scene.juliet) == [
        pushed(scene.juliet, 1, f'<item jid="{ROMEO}" subscription="none" approved="true"/>')
    ]
    assert world.heard(scene.romeo) == [], '3.4.2: "MUST NOT route the presence stanza"'
    scene.say(scene.juliet, ROMEO, "subscribed")
    assert world.heard(scene.juliet) == [], "once is enough"

    scene.say(scene.romeo, JULIET, "subscribe")
    assert world.heard(scene.juliet) == [pushed(scene.juliet, 2, f'<item jid="{ROMEO}" subscription="from"/>')]
    assert world.heard(scene.romeo) == [
        pushed(scene.romeo, 1, f'<item jid="{JULIET}" subscription="none" ask="subscribe"/>'),
        sub(ROMEO, JULIET, "subscribed"),
        pushed(scene.romeo, 2, f'<item jid="{JULIET}" subscription="to"/>'),
        available(ROMEO, scene.juliet),
    ]
    assert scene.states() == (State.TO, State.FROM)


@pytest.mark.parametrize(
    ("before", "after"), [(State.NONE, State.FROM), (State.NONE_OUT, State.FROM_OUT), (State.TO, State.BOTH)]
)
def test_pre_approval_in_each_state(scene: Scene, before: State, after: State) -> None:
    contact = scene.world.contact(scene.juliet.entity, ROMEO)
    apply(contact, before)
    scene.say(scene.juliet, ROMEO, "subscribed")
    assert contact.approved
    assert state_of(contact) is before
    scene.world.arrive(scene.juliet.entity, sub(JULIET, ROMEO, "subscribe"))
    assert state_of(contact) is after


@pytest.mark.parametrize("state", [State.FROM, State.FROM_OUT, State.BOTH])
def test_an_approval_that_exists_is_not_given_again(scene: Scene, state: State) -> None:
    """3.4.2: "the user's server MUST silently ignore the stanza"."""
    apply(scene.world.contact(scene.juliet.entity, ROMEO), state)
    scene.say(scene.juliet, ROMEO, "subscribed")
    assert scene.world.heard(scene.juliet) == []
    assert scene.world.heard(scene.romeo) == []
    assert scene.world.writes == []


def test_a_pre_approval_is_cancelled(scene: Scene) -> None:
    scene.say(scene.juliet, ROMEO, "subscribed")
    scene.world.heard(scene.juliet)
    scene.say(scene.juliet, ROMEO, "unsubscribed")
    assert scene.world.heard(scene.juliet) == [pushed(scene.juliet, 2, f'<item jid="{ROMEO}" subscription="none"/>')]
    assert scene.world.heard(scene.romeo) == [], "3.4.3: not routed"
    scene.say(scene.romeo, JULIET, "subscribe")
    assert scene.states()[1] is State.NONE_IN


# --- what is stored, what is refused


def test_both_sides_store_what_changes(scene: Scene) -> None:
    turn = scene.world.say(scene.romeo, f'<presence to="{JULIET}" type="subscribe"/>')
    (item,) = stored(turn)
    assert (item.jid, item.subscription, item.ask, item.version) == (JULIET, "none", True, 1)
    _, theirs = (write.arguments for write in scene.world.writes)
    assert theirs[1].pending_in
    assert not theirs[1].in_roster
    assert theirs[2] == 0, "no new version: clients need not know"


@pytest.mark.parametrize("type", ["unsubscribe", "unsubscribed"])
def test_withdrawing_what_does_not_exist_changes_nothing(scene: Scene, type: str) -> None:
    scene.say(scene.romeo, JULIET, type)
    scene.world.contact(scene.romeo.entity, JULIET)
    scene.say(scene.romeo, JULIET, type)
    assert scene.world.heard(scene.romeo) == []
    assert scene.world.heard(scene.juliet) == []
    assert scene.world.writes == []


@pytest.mark.parametrize("type", ["subscribe", "subscribed", "unsubscribe", "unsubscribed"])
def test_subscription_stanzas_need_somebody_else(scene: Scene, type: str) -> None:
    scene.world.say(scene.romeo, f'<presence type="{type}" id="1"/>')
    (answer,) = scene.world.heard(scene.romeo)
    assert error("bad-request", "modify") in answer
    scene.world.say(scene.romeo, f'<presence to="{ROMEO}/x" type="{type}" id="1"/>')
    (answer,) = scene.world.heard(scene.romeo)
    assert error("not-allowed", "cancel") in answer
    assert scene.world.writes == []


def test_the_id_of_a_subscription_stanza_is_kept(scene: Scene) -> None:
    scene.world.say(scene.romeo, f'<presence to="{JULIET}" type="subscribe" id="xk3h1v69" xml:lang="en"/>')
    assert scene.world.heard(scene.juliet) == [
        f'<presence to="{JULIET}" from="{ROMEO}" type="subscribe" id="xk3h1v69" xml:lang="en"/>'
    ]


def test_subscription_stanzas_are_no_directed_presence(scene: Scene) -> None:
    scene.say(scene.romeo, JULIET, "subscribe")
    assert presence.DIRECTED not in scene.romeo.marks
