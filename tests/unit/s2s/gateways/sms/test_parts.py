"""Cutting and joining long messages."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s.gateways.sms import alphabet, parts
from s2s.gateways.sms.parts import GSM, LATIN_1, MISSING, UCS_2, NotText, Place
from s2s.gateways.sms.pdu import (
    SAR_MSG_REF_NUM,
    SAR_SEGMENT_SEQNUM,
    SAR_TOTAL_SEGMENTS,
    UDHI,
    Address,
    ShortMessage,
)

NOBODY = Address(0, 0, "")
GSM_TEXTS = st.text(
    st.sampled_from([c for c in alphabet.BASIC if c != "\x1b"] + list(alphabet.EXTENSION.values())), max_size=2_000
)
TEXTS = st.text(max_size=1_500) | GSM_TEXTS | st.text(st.sampled_from("a€😀"), max_size=1_500)


def message(
    content: bytes, coding: int = GSM, esm_class: int = 0, tlvs: dict[int, bytes] | None = None
) -> ShortMessage:
    return ShortMessage(NOBODY, NOBODY, esm_class, coding, content, tlvs=tlvs or {})


def read(encoded: parts.Encoded, order: list[int]) -> str:
    """The text of these parts, which come in this order."""
    found: dict[int, tuple[int, bytes]] = {}
    total = len(encoded.parts)
    for index in order:
        place, content = parts.place_of(message(encoded.parts[index], encoded.data_coding, encoded.esm_class))
        if place is None:
            assert total == 1
            place = Place(0, 1, 1)
        assert place.total == total
        found[place.sequence] = encoded.data_coding, content
    return parts.join(total, found)


@given(TEXTS, st.integers(0, 255), st.randoms())
def test_a_text_is_read_back_whatever_the_order(text: str, reference: int, chance: random.Random) -> None:
    encoded = parts.encode(text, reference)
    order = list(range(len(encoded.parts)))
    chance.shuffle(order)
    assert read(encoded, order) == text


@given(TEXTS, st.integers(0, 255))
def test_each_part_fits_and_ends_between_characters(text: str, reference: int) -> None:
    encoded = parts.encode(text, reference)
    for part in encoded.parts:
        _, content = parts.place_of(message(part, encoded.data_coding, encoded.esm_class))
        if encoded.data_coding == GSM:
            header_septets = 7 if encoded.esm_class else 0
            assert len(content) + header_septets <= 160
            assert not content.endswith(b"\x1b")
        else:
            assert len(part) <= 140
            content.decode("utf-16-be")  # no surrogate stands alone


@pytest.mark.parametrize(
    ("text", "coding", "sizes"),
    [
        ("", GSM, [0]),
        ("a" * 160, GSM, [160]),
        ("a" * 161, GSM, [6 + 153, 6 + 8]),
        ("a" * 306, GSM, [6 + 153, 6 + 153]),
        ("a" * 307, GSM, [6 + 153, 6 + 153, 6 + 1]),
        ("€" * 80, GSM, [160]),
        ("€" * 81, GSM, [6 + 152, 6 + 10]),  # 153 is odd: the 77th would be cut
        ("ё" * 70, UCS_2, [140]),
        ("ё" * 71, UCS_2, [6 + 134, 6 + 8]),
        ("ё" * 134, UCS_2, [6 + 134, 6 + 134]),
        ("😀" * 35, UCS_2, [140]),
        ("😀" * 36, UCS_2, [6 + 132, 6 + 12]),  # 67 is odd likewise
    ],
)
def test_the_limits_are_160_153_70_and_67(text: str, coding: int, sizes: list[int]) -> None:
    encoded = parts.encode(text, 7)
    assert encoded.data_coding == coding
    assert [len(part) for part in encoded.parts] == sizes
    assert encoded.esm_class == (UDHI if len(sizes) > 1 else 0)


def test_the_header_is_that_of_23_040() -> None:
    first, second = parts.encode("a" * 161, 0xCC).parts
    assert (first[:6].hex(), second[:6].hex()) == ("050003cc0201", "050003cc0202")


def test_more_than_255_parts_cannot_be_counted() -> None:
    assert len(parts.encode("a" * 153 * 255, 0).parts) == 255
    with pytest.raises(ValueError, match="256"):
        parts.encode("a" * (153 * 255 + 1), 0)


def test_both_headers_and_the_parameters_are_understood() -> None:
    sar = {SAR_MSG_REF_NUM: b"\x01\x02", SAR_TOTAL_SEGMENTS: b"\x03", SAR_SEGMENT_SEQNUM: b"\x02"}
    by_8 = message(bytes.fromhex("050003120302") + b"x", esm_class=UDHI)
    by_16 = message(bytes.fromhex("0608040102 0302") + b"x", esm_class=UDHI)
    by_sar = message(b"x", tlvs=sar)
    places = [parts.place_of(each) for each in (by_8, by_16, by_sar)]
    assert [content for _, content in places] == [b"x"] * 3
    assert [(place.total, place.sequence) for place, _ in places if place] == [(3, 2)] * 3
    assert len({place.reference for place, _ in places if place}) == 3  # references of different kinds differ


def test_other_elements_are_skipped_and_one_of_one_stands_alone() -> None:
    assert parts.place_of(message(bytes.fromhex("0b 0504 0b840b84 0003120302") + b"x", esm_class=UDHI)) == (
        Place(0x12, 3, 2),
        b"x",
    )
    assert parts.place_of(message(bytes.fromhex("0605040b840b84") + b"x", esm_class=UDHI)) == (None, b"x")
    assert parts.place_of(message(bytes.fromhex("050003120101") + b"x", esm_class=UDHI)) == (None, b"x")


@pytest.mark.parametrize(
    "content", ["", "05", "05000312", "0500031203 04", "050003120300", "0500ff120302", "050003000000"]
)
def test_a_header_that_cannot_be_is_refused(content: str) -> None:
    with pytest.raises(NotText):
        parts.place_of(message(bytes.fromhex(content), esm_class=UDHI))


@given(st.binary(max_size=150))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        place, text = parts.place_of(message(content, esm_class=UDHI))
    except NotText:
        return
    assert content.endswith(text)
    assert place is None or 1 <= place.sequence <= place.total


@pytest.mark.parametrize(
    ("data_coding", "content", "text"),
    [
        (0, b"\x7e\x1b\x65", "ü€"), (1, b"ab\xff", "ab\ufffd"), (3, b"\xfc", "ü"), (8, b"\x04\x51\xd8\x3d\xde\x00", "ё😀"),
        (8, b"\xd8\x3d", "\ufffd"), (0xF1, b"\x00", "@"), (0x11, b"\x00", "@"), (0x18, b"\x04\x51", "ё"),
    ],
)  # fmt: skip
def test_codings(data_coding: int, content: bytes, text: str) -> None:
    assert parts.decode(parts.coding_of(data_coding), content) == text


@pytest.mark.parametrize("data_coding", [2, 4, 5, 0xF5])
def test_binary_is_no_text(data_coding: int) -> None:
    with pytest.raises(NotText):
        parts.coding_of(data_coding)


def test_what_others_cut_in_two_is_joined_before_it_is_read() -> None:
    emoji = "😀".encode("utf-16-be")
    assert parts.join(2, {1: (UCS_2, emoji[:2]), 2: (UCS_2, emoji[2:])}) == "😀"
    assert parts.join(2, {1: (GSM, b"\x1b"), 2: (GSM, b"\x65")}) == "€"


def test_missing_parts_are_marked_and_codings_may_differ() -> None:
    assert parts.join(5, {1: (GSM, b"a"), 4: (LATIN_1, b"\xfc"), 5: (UCS_2, b"\x04\x51")}) == f"a{MISSING}üё"
    assert parts.join(2, {2: (GSM, b"a")}) == f"{MISSING}a"
