"""What becomes of a message to a phone."""

from __future__ import annotations

import pytest

from s2s.gateways.sms import outgoing, status
from s2s.gateways.sms.pdu import Address
from tests.unit.s2s.gateways.sms.support import GATEWAY, JULIET, NURSE, ROMEO, World

RECEIPT = '<received xmlns="urn:xmpp:receipts" id="m1"/>'


@pytest.fixture
def world() -> World:
    world = World()
    world.register()
    return world


def test_a_message_waits_for_the_smsc(world: World) -> None:
    assert world.writes("Grüße") == []
    (job,) = world.due()
    assert job.message.destination == Address(1, 1, NURSE[1:])
    assert job.message.source == Address(1, 1, "4915550000")
    assert (job.message.data_coding, job.message.content, job.message.registered_delivery) == (0, b"Gr\x7e\x1ee", 1)


def test_what_says_nothing_is_ignored(world: World) -> None:
    states = (
        f"<message from='{JULIET}/x' to='{NURSE}@{GATEWAY}'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
        f"<message from='{JULIET}/x' to='{NURSE}@{GATEWAY}'><body/></message>",
        f"<message from='{JULIET}/x' to='{NURSE}@{GATEWAY}' type='error' id='m'><body>x</body><error/></message>",
    )
    for xml in states:
        assert world.says(xml) == []
    assert world.due() == []


@pytest.mark.parametrize(
    ("user", "number", "body", "condition"),
    [
        (ROMEO, NURSE, "hello", "registration-required"),
        (JULIET, "nurse", "hello", "item-not-found"),
        (JULIET, "+49", "hello", "item-not-found"),
        (JULIET, NURSE, "a" * 1531, "policy-violation"),
        (JULIET, NURSE, "a" * 100_000, "policy-violation"),
    ],
)
def test_what_cannot_be_sent_is_refused(world: World, user: str, number: str, body: str, condition: str) -> None:
    (answer,) = world.writes(body, user=user, number=number)
    assert f"<{condition} " in answer
    assert 'id="m1"' in answer
    assert world.due() == []


def test_groups_are_refused(world: World) -> None:
    (answer,) = world.says(
        f"<message type='groupchat' from='{JULIET}/x' to='{NURSE}@{GATEWAY}'><body>x</body></message>"
    )
    assert "service-unavailable" in answer


def test_the_queue_is_bounded_in_all_and_for_each_user() -> None:
    world = World("outgoing.queue=3", "outgoing.queue_per_user=2")
    world.register(JULIET)
    world.register(ROMEO)
    assert [bool(world.writes("x", user=user)) for user in (JULIET, JULIET, JULIET, ROMEO, ROMEO)] == [
        False,
        False,
        True,
        False,
        True,
    ]
    assert "resource-constraint" in world.writes("x")[0]
    assert len(world.due()) == 3


def test_a_receipt_follows_the_report_and_nothing_before(world: World) -> None:
    world.writes("hello")
    (job,) = world.due()
    assert world.answered(job.part, 0, "77") == "accepted"
    assert world.due() == []
    assert world.told() == []
    world.reports("77", "ACCEPTD")
    assert world.told() == []
    assert world.reports("77") == status.OK
    (receipt,) = world.told()
    assert RECEIPT in receipt
    assert f'to="{JULIET}/x" from="{NURSE}@{GATEWAY}" type="chat"' in receipt
    world.reports("77")
    assert world.told() == []


def test_no_receipt_where_none_was_asked_for(world: World) -> None:
    world.says(f"<message type='chat' id='m1' from='{JULIET}/x' to='{NURSE}@{GATEWAY}'><body>x</body></message>")
    world.answered(world.due()[0].part, 0, "77")
    world.reports("77")
    assert world.told() == []


def test_a_long_message_is_received_when_all_its_parts_are(world: World) -> None:
    world.writes("a" * 400)
    jobs = world.due()
    assert len(jobs) == 3
    for number, job in enumerate(jobs):
        world.answered(job.part, 0, f"id-{number}")
    for number in (2, 0):
        world.reports(f"id-{number}")
        assert world.told() == []
    world.reports("id-1")
    assert RECEIPT in world.told()[0]


def test_a_report_may_overtake_the_answer(world: World) -> None:
    world.writes("hello")
    (job,) = world.due()
    world.reports("77")
    assert world.told() == []
    world.answered(job.part, 0, "77")
    assert RECEIPT in world.told()[0]


@pytest.mark.parametrize(
    ("answered", "reported"), [("1f4", "500"), ("500", "1f4"), ("1F4", "500"), ("500", "0000000500"), ("500", "1F4")]
)
def test_ids_that_change_between_hexadecimal_and_decimal_are_known_again(
    world: World, answered: str, reported: str
) -> None:
    world.writes("hello")
    world.answered(world.due()[0].part, 0, answered)
    world.reports(reported, source="+4900000000")  # it may be the id of another message
    assert world.told() == []
    world.reports(reported)
    assert RECEIPT in world.told()[0]


@pytest.mark.parametrize(
    ("stat", "condition", "kind"),
    [
        ("UNDELIV", "recipient-unavailable", "wait"), ("EXPIRED", "recipient-unavailable", "wait"),
        ("REJECTD", "policy-violation", "modify"), ("DELETED", "policy-violation", "modify"),
        ("UNKNOWN", "undefined-condition", "cancel"), ("NONSENSE", "undefined-condition", "cancel"),
    ],
)  # fmt: skip
def test_a_bad_report_is_an_error(world: World, stat: str, condition: str, kind: str) -> None:
    world.writes("a" * 200)
    for number, job in enumerate(world.due()):
        world.answered(job.part, 0, f"id-{number}")
    world.reports("id-1", stat)
    (error,) = world.told()
    assert f'to="{JULIET}/x" from="{NURSE}@{GATEWAY}" type="error" id="m1"' in error
    assert f'<error type="{kind}"><{condition} ' in error
    world.reports("id-0")
    assert world.told() == []


@pytest.mark.parametrize(
    ("refusal", "condition"),
    [
        (0x0B, "item-not-found"),
        (0x0A, "internal-server-error"),
        (0x66, "policy-violation"),
        (0x101, "policy-violation"),
    ],
)
def test_a_refusal_for_good_is_an_error_at_once(world: World, refusal: int, condition: str) -> None:
    world.writes("a" * 200)
    first, _ = world.due()
    assert world.answered(first.part, refusal) == "refused"
    (error,) = world.told()
    assert f"<{condition} " in error
    assert "ESME_R" in error
    assert world.due() == []


def test_throttling_keeps_the_message_until_time_is_over(world: World) -> None:
    world.writes("hello")
    (job,) = world.due()
    for _ in range(20):
        assert world.answered(job.part, status.THROTTLED) == "throttled"
        assert world.due() == [job]
    world.now += world.settings.outgoing.give_up_s + 1
    assert outgoing.expire(world.book, world.settings, world.now) == 1
    assert '<error type="wait"><resource-constraint ' in world.told()[0]
    assert world.due() == []


def test_other_refusals_are_tried_again_later_and_not_for_ever(world: World) -> None:
    world.writes("hello")
    (job,) = world.due()
    for attempt in range(1, outgoing.TRIES):
        assert world.answered(job.part, status.SYSTEM_ERROR) == "postponed"
        assert world.due() == []
        world.now += outgoing.FIRST_RETRY_S * 2.0 ** (attempt - 1)
        assert world.due() == [job]
    assert world.answered(job.part, status.SYSTEM_ERROR) == "refused"
    assert '<error type="wait"><remote-server-timeout ' in world.told()[0]


def test_without_a_link_time_is_over_too(world: World) -> None:
    world.writes("hello")
    world.now += world.settings.outgoing.give_up_s + 1
    assert outgoing.expire(world.book, world.settings, world.now) == 1
    assert '<error type="wait"><remote-server-timeout ' in world.told()[0]


def test_an_answer_after_that_changes_nothing(world: World) -> None:
    world.writes("hello")
    (job,) = world.due()
    world.now += world.settings.outgoing.give_up_s + 1
    outgoing.expire(world.book, world.settings, world.now)
    world.told()
    assert world.answered(job.part, 0, "77") == "accepted"
    assert world.answered(job.part, 0x0B) == "refused"
    assert world.told() == []


def test_what_is_never_reported_is_forgotten(world: World) -> None:
    world.writes("hello")
    world.answered(world.due()[0].part, 0, "77")
    world.now += world.settings.outgoing.report_s + 1
    outgoing.expire(world.book, world.settings, world.now)
    world.reports("77")
    assert world.told() == []


def test_a_part_that_no_submit_can_carry_is_an_error(world: World) -> None:
    world.writes("hello")
    (job,) = world.due()
    outgoing.unsendable(world.book, world.settings, job.part, "too long", world.now)
    assert "internal-server-error" in world.told()[0]
    assert world.due() == []


def test_each_long_message_has_the_next_reference(world: World) -> None:
    references = []
    for _ in range(300):
        world.writes("a" * 200)
        first, second = world.due()
        references.append(first.message.content[3])
        assert second.message.content[3] == references[-1]
        world.answered(first.part, 0x0B)
    assert references == [number % 256 for number in range(references[0], references[0] + 300)]


@pytest.mark.parametrize(("overrides", "source"), [
    (['numbers.assigned={"+4930111111": "juliet@example.org"}'], Address(1, 1, "4930111111")),
    (["numbers.sender=12345"], Address(0, 0, "12345")),
    (["numbers.sender=Verona"], Address(5, 0, "Verona")),
    (['numbers.pool=["+4930222222"]'], Address(1, 1, "4930222222")),
])  # fmt: skip
def test_messages_come_from_the_users_number_or_the_shared_one(overrides: list[str], source: Address) -> None:
    world = World(*overrides)
    world.register()
    world.writes("hello")
    assert world.due()[0].message.source == source
