"""Client State Indication (XEP-0352; router/client_state.py): what an inactive client is not woken for, and that it gets
all of it, in order, before anything else."""

from __future__ import annotations

import pytest

from cluster.shards import ShardMap
from cluster.wire import DELIVER, STATE, Envelope, Incarnation
from router.client_state import INACTIVE, MOST, is_chat_state
from router.entity import Session
from router.outbox import Outbox
from router.recipients import carbon
from tests.support.turns import World, parse
from xmpp import ns
from xmpp.stanza import Stanza, from_wire, iq, message, presence

JULIET = "juliet@example.com"
ROMEO, NURSE = "romeo@example.com/orchard", "nurse@example.com/hall"
EDGE = Incarnation("c2s-1#1")
STATES = ("active", "composing", "paused", "inactive", "gone")


class Phone:
    """Juliet's phone, and what it is sent."""

    def __init__(self) -> None:
        self.sent: list[Envelope] = []
        self.outbox = Outbox(ShardMap(), self._send, lambda session, n: None)
        self.world = World()
        self.account = self.world.account(JULIET)
        self.session: Session = self.world.online(self.account, "phone")
        self.session.place = EDGE

    def _send(self, to: Incarnation, envelope: Envelope) -> bool:
        assert to == EDGE
        self.sent.append(envelope)
        return True

    def rest(self) -> None:
        """Nobody looks at it (router/resumption.py, `set_active`)."""
        self.session.marks[INACTIVE] = True
        self.session.held_back = {}

    def wake(self) -> None:
        self.session.marks.pop(INACTIVE, None)
        self.outbox.release_held_back(self.session)

    def give(self, *stanzas: Stanza) -> list[str | None]:
        """The ids of what the phone is sent for it."""
        for stanza in stanzas:
            self.outbox.deliver(((self.session, None),), stanza)
        return self.heard()

    def heard(self) -> list[str | None]:
        sent, self.sent = self.sent, []
        return [from_wire(envelope[2]).id for envelope in sent if envelope[0] == DELIVER]


@pytest.fixture
def phone() -> Phone:
    resting = Phone()
    resting.rest()
    return resting


def chat(inner: str = "<body>hi</body>", id: str = "m", from_: str = ROMEO, type: str = "chat") -> Stanza:
    return parse(f'<message from="{from_}" to="{JULIET}" type="{type}" id="{id}">{inner}</message>')


def state(name: str = "composing", id: str = "s", from_: str = ROMEO, beside: str = "", type: str = "chat") -> Stanza:
    return chat(f'<{name} xmlns="{ns.CHAT_STATES}"/>{beside}', id, from_, type)


def pres(id: str = "p", from_: str = ROMEO, type: str | None = None) -> Stanza:
    return presence(to=None, from_=from_, type=type, id=id)


def test_an_active_client_gets_everything_at_once() -> None:
    """5: "The server MUST assume all clients to be in the 'active' state until the client indicates otherwise"."""
    phone = Phone()
    assert phone.give(pres("1"), state(id="2"), chat(id="3")) == ["1", "2", "3"]


def test_presence_waits_and_of_each_sender_the_newest(phone: Phone) -> None:
    """3.2: "On becoming active, push the latest presence from each contact"."""
    assert phone.give(pres("1"), pres("2", NURSE), pres("3", type="unavailable"), pres("4", NURSE), pres("5")) == []
    phone.wake()
    assert phone.heard() == ["4", "5"]


def test_two_clients_of_one_contact_are_two(phone: Phone) -> None:
    phone.give(pres("1", "romeo@example.com/a"), pres("2", "romeo@example.com/b", "unavailable"))
    phone.wake()
    assert phone.heard() == ["1", "2"]


@pytest.mark.parametrize("type", ["subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe", "error"])
def test_all_other_presence_is_for_somebody(phone: Phone, type: str) -> None:
    assert phone.give(pres("1"), pres("2", NURSE, type)) == ["1", "2"]


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize(
    "beside",
    [
        "",
        "<thread>t</thread>",
        f'<no-store xmlns="{ns.HINTS}"/>',
        f'<no-permanent-store xmlns="{ns.HINTS}"/><no-copy xmlns="{ns.HINTS}"/>',
        f'<private xmlns="{ns.CARBONS}"/>',
        f'<origin-id xmlns="{ns.SID}" id="1"/>',
        f'<delay xmlns="{ns.DELAY}" stamp="2027-01-15T08:00:01Z"/>',
        f'<x xmlns="{ns.MUC_USER}"/>',
    ],
)
def test_chat_states_wait_with_what_clients_put_beside_them(phone: Phone, name: str, beside: str) -> None:
    """3.2: "messages containing only XEP-0085 payloads"."""
    assert phone.give(state(name, beside=beside)) == []
    assert phone.give(state(name, beside=beside, type="groupchat")) == []


@pytest.mark.parametrize(
    "beside",
    [
        "<body>hi</body>",
        "<subject>hi</subject>",
        '<encrypted xmlns="urn:x"/>',
        f'<received xmlns="{ns.RECEIPTS}" id="1"/>',
        f'<displayed xmlns="{ns.MARKERS}" id="1"/>',
        f'<store xmlns="{ns.HINTS}"/>',
    ],
)
def test_a_message_that_says_more_does_not_wait(phone: Phone, beside: str) -> None:
    assert phone.give(state(beside=beside)) == ["s"]
    assert not is_chat_state(state(beside=beside))


def test_of_each_conversation_the_newest_state_is_kept(phone: Phone) -> None:
    phone.give(state(id="1"), state("paused", "2", NURSE), state("gone", "3"), pres("4"))
    phone.wake()
    assert phone.heard() == ["2", "3", "4"], "and presence is another matter"


def test_anything_else_wakes_the_client_and_brings_what_has_waited_first(phone: Phone) -> None:
    """RFC 6120, 10.1: in order."""
    for one in (
        chat(id="m"),
        chat(id="m", type="headline"),
        iq(type="get", id="m", to=None, from_=None),
        chat("", "m"),
    ):
        assert phone.give(pres("1"), state(id="2")) == []
        assert phone.give(one) == ["1", "2", "m"]
    assert phone.give(pres("3")) == [], "it is inactive still"


def test_what_has_waited_is_numbered_when_it_goes(phone: Phone) -> None:
    """docs/delivery.md, rule 21: only the owner numbers, and what was superseded has no number."""
    phone.give(pres("1"), pres("2"), pres("3"))
    assert (phone.session.q, list(phone.session.unacknowledged)) == (0, [])
    phone.give(chat(id="4"))
    assert [(q, stanza.id) for q, _, stanza in phone.session.unacknowledged if stanza is not None] == [
        (1, "3"),
        (2, "4"),
    ]


def test_when_too_much_waits_it_goes(phone: Phone) -> None:
    waiting = [pres(str(number), f"room@example.com/{number}") for number in range(MOST)]
    assert phone.give(*waiting) == []
    assert phone.give(pres("again", "room@example.com/0")) == [], "that is none more"
    assert phone.give(pres("more", ROMEO)) == [*(str(number) for number in range(1, MOST)), "again", "more"]
    assert phone.give(pres("next")) == []


def test_a_stanza_for_many_waits_only_for_those_who_rest(phone: Phone) -> None:
    awake = phone.world.online(phone.account, "laptop")
    awake.place = EDGE
    phone.outbox.deliver(((phone.session, None), (awake, None)), pres("1"))
    ((_, targets, _),) = phone.sent
    assert [sid for _, _, sid, *_ in targets] == [awake.sid]
    phone.heard()
    phone.outbox.deliver(((phone.session, None), (awake, None)), chat(id="2"))
    assert phone.heard() == ["1", "2"]
    assert (phone.session.q, awake.q) == (2, 2)


def test_a_client_that_is_gone_is_not_woken_either(phone: Phone) -> None:
    """Of a session that waits for its client (XEP-0198) only the newest presence is kept, too."""
    phone.session.place = None
    phone.give(pres("1"), pres("2"))
    assert phone.session.held_back is not None
    assert [stanza.id for stanza in phone.session.held_back.values()] == ["2"]


@pytest.mark.parametrize(("rests", "held_back"), [(True, {}), (False, None)])
def test_the_next_owner_knows_whether_the_client_rests(rests: bool, held_back: dict[str, str] | None) -> None:
    phone = Phone()
    if rests:
        phone.rest()
    restored = phone.world.bind(phone.account, "restored")
    assert restored.held_back is None
    restored.restore_state(phone.session.pack_state())
    assert restored.held_back == held_back


def test_the_state_is_nobody_elses_business(phone: Phone) -> None:
    """6: "servers MUST NOT reveal the clients active/inactive state to other entities"."""
    phone.outbox.tell_state(phone.session)
    assert [envelope[0] for envelope in phone.sent] == [STATE], "its c2s alone is told"


# --- copies (XEP-0280)


def copies(phone: Phone, direction: str, *originals: Stanza) -> list[Stanza]:
    return [carbon(phone.session, original, direction)._replace(id=original.id) for original in originals]


def test_copies_of_chat_states_wait_by_conversation(phone: Phone) -> None:
    assert phone.give(*copies(phone, "received", state(id="1"), state(id="2", from_=NURSE), state("paused", "3"))) == []
    mine = [message(to=to, from_=f"{JULIET}/laptop", type="chat", id=id) for id, to in (("4", ROMEO), ("5", NURSE))]
    typed = [one._replace(flags=state().flags, inner=state().inner) for one in mine]
    assert phone.give(*copies(phone, "sent", *typed)) == []
    phone.wake()
    assert phone.heard() == ["2", "3", "4", "5"]


def test_copies_of_messages_do_not_wait(phone: Phone) -> None:
    assert phone.give(*copies(phone, "received", chat(id="1")), *copies(phone, "sent", chat(id="2"))) == ["1", "2"]
