"""What becomes of a message from a phone."""

from __future__ import annotations

import itertools

import pytest

from s2s.gateways.sms import incoming, parts, status
from s2s.gateways.sms.pdu import SAR_MSG_REF_NUM, SAR_SEGMENT_SEQNUM, SAR_TOTAL_SEGMENTS, UDHI, Address
from tests.unit.s2s.gateways.sms.support import GATEWAY, JULIET, NURSE, ROMEO, World
from xmpp import stanza as stanzas

LONG = "Wherefore art thou? " * 20


@pytest.fixture
def world() -> World:
    world = World()
    world.register()
    world.writes("hello")
    return world


def bodies(world: World) -> list[str]:
    return [told.partition("<body>")[2].partition("</body>")[0] for told in world.told()]


def test_an_answer_goes_to_who_wrote_last(world: World) -> None:
    assert world.receives(b"Gr\x7e\x1ee") == status.OK
    (told,) = world.told()
    assert told.startswith(f'<message to="{JULIET}" from="{NURSE}@{GATEWAY}" type="chat" id="')
    assert "<body>Grüße</body>" in told
    world.register(ROMEO)
    world.writes("hello", user=ROMEO)
    world.receives(b"to whom?")
    assert f'to="{ROMEO}"' in world.told()[0]


def test_a_number_of_ones_own_goes_before_and_the_default_is_last() -> None:
    world = World(
        'numbers.assigned={"+4930111111": "nurse@example.org"}',
        'numbers.pool=["+4930222222"]',
        "numbers.default_jid=friar@example.org",
    )
    for source in ("", "+4930222222"):
        assert world.receives(b"x") == status.OK
        assert 'to="friar@example.org"' in world.told()[0], source
    world.register(ROMEO)
    world.writes("hello", user=ROMEO)
    for destination, user in (
        ("4930111111", "nurse@example.org"),
        ("4930222222", ROMEO),
        ("4915550000", "friar@example.org"),
    ):
        world.receives(b"x", destination=Address(1, 1, destination))
        assert f'to="{user}"' in world.told()[0]


def test_without_anybody_it_is_refused() -> None:
    world = World()
    assert world.receives(b"x") == status.REFUSED
    assert world.told() == []


def test_who_is_registered_no_more_gets_nothing(world: World) -> None:
    world.says(
        f"<iq type='set' id='u' from='{JULIET}/x' to='{GATEWAY}'><query xmlns='jabber:iq:register'><remove/></query></iq>"
    )
    assert world.receives(b"x") == status.REFUSED


def test_the_smsc_keeps_what_would_be_too_much() -> None:
    world = World("incoming.queue=2", "numbers.default_jid=friar@example.org")
    assert [world.receives(b"x") for _ in range(3)] == [status.OK, status.OK, status.TRY_LATER]
    assert world.reports("1") == status.TRY_LATER
    world.told()
    assert world.receives(b"x") == status.OK


def test_binary_is_refused(world: World) -> None:
    assert world.receives(b"\0\1", data_coding=4) == status.REFUSED
    assert world.receives(b"\5", esm_class=UDHI) == status.REFUSED
    assert world.told() == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_long_message_is_joined_in_any_order(world: World, order: tuple[int, ...]) -> None:
    encoded = parts.encode(LONG, 7)
    for count, index in enumerate(order, 1):
        assert world.receives(encoded.parts[index], esm_class=UDHI) == status.OK
        assert len(world.book.waiting_stanzas(9)) == (count == 3)
    assert bodies(world) == [LONG]


def test_the_sar_parameters_do_the_same(world: World) -> None:
    for sequence, text in ((2, b"thou?"), (1, b"Wherefore art ")):
        tlvs = {SAR_MSG_REF_NUM: b"\0\7", SAR_TOTAL_SEGMENTS: b"\2", SAR_SEGMENT_SEQNUM: bytes([sequence])}
        world.receives(text, tlvs=tlvs)
    assert bodies(world) == ["Wherefore art thou?"]


def test_messages_of_others_are_not_mixed_in(world: World) -> None:
    encoded = parts.encode(LONG, 7)
    world.receives(encoded.parts[0], esm_class=UDHI)
    world.settings = World("numbers.default_jid=friar@example.org").settings
    for part in encoded.parts[1:]:
        world.receives(part, esm_class=UDHI, source=Address(1, 1, "491700000000"))
    assert world.told() == []


def test_what_is_there_is_delivered_when_time_is_over(world: World) -> None:
    encoded = parts.encode(LONG, 7)
    world.receives(encoded.parts[1], esm_class=UDHI)
    world.now += world.settings.incoming.join_s - 1
    assert incoming.expire(world.book, world.settings, world.now) == 0
    world.now += 2
    assert incoming.expire(world.book, world.settings, world.now) == 1
    assert bodies(world) == [f"[…]{LONG[153:306]}[…]"]
    assert incoming.expire(world.book, world.settings, world.now) == 0


@pytest.mark.parametrize("session", [1, 2])
def test_a_part_that_is_repeated_is_absorbed(world: World, session: int) -> None:
    encoded = parts.encode(LONG, 7)
    for index in (0, 1, 1, 2, 0, 2):
        assert world.receives(encoded.parts[index], session, esm_class=UDHI) == status.OK
    assert bodies(world) == [LONG]
    world.now += world.settings.incoming.join_s + 1
    incoming.expire(world.book, world.settings, world.now)
    assert world.told() == []


def test_the_same_short_text_twice_is_two_messages(world: World) -> None:
    world.receives(b"ok", 1)
    world.receives(b"ok", 1)
    assert bodies(world) == ["ok", "ok"]


def test_what_came_just_before_a_session_broke_is_known_again_in_the_next(world: World) -> None:
    first = world.book.begin_bind()
    world.receives(b"ok", first)
    world.now += 20
    world.book.end_bind(first, world.now)
    second = world.book.begin_bind()
    world.receives(b"ok", second)
    world.receives(b"ok", second)  # the SMSC repeats it once; this is a new one
    assert bodies(world) == ["ok", "ok"]


def test_what_was_answered_long_before_is_not(world: World) -> None:
    first = world.book.begin_bind()
    world.receives(b"ok", first)
    world.now += world.settings.smpp.enquire_link_s + world.settings.smpp.timeout_s + 1
    world.book.end_bind(first, world.now)
    world.receives(b"ok", world.book.begin_bind())
    assert bodies(world) == ["ok", "ok"]


def test_after_a_crash_nobody_knows_when_the_session_ended(world: World) -> None:
    world.receives(b"ok", world.book.begin_bind())
    world.receives(b"ok", world.book.begin_bind())
    world.receives(b"ok", world.book.begin_bind())
    assert bodies(world) == ["ok"]


def test_memory_of_what_was_received_ends(world: World) -> None:
    world.receives(b"ok", world.book.begin_bind())
    world.now += world.settings.incoming.repeat_s + 1
    incoming.expire(world.book, world.settings, world.now)
    world.receives(b"ok", world.book.begin_bind())
    assert bodies(world) == ["ok", "ok"]


def test_characters_that_no_xml_may_have_are_replaced(world: World) -> None:
    world.receives(b"a\x1b\x0ab")  # a form feed
    world.receives(b"a\x07\xffb", data_coding=3)
    world.receives("a\ufffe".encode("utf-16-be") + b"\xdc\x00", data_coding=8)
    assert bodies(world) == ["a\nb", "a\ufffdÿb", "a\ufffd\ufffd"]


def test_a_sender_may_have_a_name(world: World) -> None:
    world.settings = World("numbers.default_jid=friar@example.org").settings
    for name, jid in (("My Bank", "my\\20bank@sms.example.org"), ("a" * 2000, GATEWAY), ("", GATEWAY)):
        world.receives(b"x", source=Address(5, 0, name))
        assert f'from="{jid}"' in world.told()[0]


def test_what_had_to_wait_tells_since_when() -> None:
    message = stanzas.message(to=JULIET, from_=NURSE, type="chat", inner=b"<body>x</body>")
    assert incoming.delayed(message, 1_000.0, 1_001.0, GATEWAY) is message
    late = incoming.delayed(message, 1_000.0, 1_100.0, GATEWAY)
    assert (
        late.inner
        == message.inner + b'<delay xmlns="urn:xmpp:delay" from="sms.example.org" stamp="1970-01-01T00:16:40.000Z"/>'
    )
