"""WebSocket frames (c2s/http/frames.py): the same messages however the bytes are cut; what RFC 6455 forbids ends it."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s.http import frames
from c2s.http.frames import BINARY, CLOSE, CONTINUATION, PING, TEXT, FrameError, Message, Reader

LIMIT = 300_000


def masked(opcode: int, payload: bytes, *, is_last: bool = True, mask: bytes = b"\1\2\3\4") -> bytes:
    """A frame as a client sends it."""
    head = bytes([(0x80 if is_last else 0) | opcode])
    length = len(payload)
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 65_536:
        head += bytes([0x80 | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([0x80 | 127]) + length.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def read(data: bytes, *, limit: int = LIMIT, cuts: tuple[int, ...] = ()) -> list[Message]:
    reader, last = Reader(), 0
    found: list[Message] = []
    for cut in (*sorted(cut % (len(data) + 1) for cut in cuts), len(data)):
        found += reader.feed(data[last:cut], limit)
        last = cut
    return found


def code(data: bytes, limit: int = LIMIT) -> int:
    with pytest.raises(FrameError) as caught:
        read(data, limit=limit)
    return caught.value.code


texts = st.text(max_size=200) | st.sampled_from([125, 126, 127, 65_535, 65_536, 70_001]).map(lambda n: "é" * (n // 2))


@given(
    messages=st.lists(st.tuples(texts, st.binary(min_size=4, max_size=4), st.integers(1, 4)), max_size=5),
    cuts=st.lists(st.integers(0, 1_000_000), max_size=6).map(tuple),
)
def test_messages_are_the_same_however_they_are_cut_and_fragmented(
    messages: list[tuple[str, bytes, int]], cuts: tuple[int, ...]
) -> None:
    data, wanted = b"", []
    for text, mask, pieces in messages:
        payload = text.encode()
        size = len(payload) // pieces + 1
        parts = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
        for number, part in enumerate(parts):
            opcode = CONTINUATION if number else TEXT
            data += masked(opcode, part, is_last=number == len(parts) - 1, mask=mask)
            data += masked(PING, b"between")
        wanted += [(PING, b"between")] * (len(parts) - 1) + [(TEXT, payload), (PING, b"between")]
    assert read(data, cuts=cuts) == wanted


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5).map(tuple))
def test_any_bytes_are_messages_or_a_fault(data: bytes, cuts: tuple[int, ...]) -> None:
    with contextlib.suppress(FrameError):
        read(data, cuts=cuts)


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x02hi",  # 5.1: not masked
        bytes([0xC1]) + masked(TEXT, b"hi")[1:],  # 5.2: a reserved bit, and no extension
        masked(0x3, b"hi"), masked(0xB, b""),  # opcodes that nobody knows
        masked(CONTINUATION, b"hi"),
        masked(TEXT, b"hi", is_last=False) + masked(TEXT, b"ho"),
        masked(PING, b"hi", is_last=False),  # 5.5: control frames are whole
        masked(PING, b"x" * 126),
        bytes([0x81, 0x80 | 126, 0, 5]) + b"\0\0\0\0hello",  # 5.2: the shortest form of the length
        bytes([0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 5]) + b"\0\0\0\0hello",
    ],
)  # fmt: skip
def test_what_is_against_the_protocol(data: bytes) -> None:
    assert code(data) == frames.PROTOCOL_ERROR


def test_texts_are_utf8_whole_messages_not_fragments() -> None:
    e = "é".encode()
    assert code(masked(TEXT, b"\xff")) == frames.INVALID_DATA
    assert code(masked(TEXT, e[:1])) == frames.INVALID_DATA
    parts = masked(TEXT, e[:1], is_last=False) + masked(CONTINUATION, e[1:])
    assert read(parts) == [(TEXT, e)]
    assert read(masked(BINARY, b"\xff")) == [(BINARY, b"\xff")]


def test_a_message_that_is_too_big_is_refused_by_its_head_alone() -> None:
    assert read(masked(TEXT, b"x" * 1_000), limit=1_000)
    assert code(masked(TEXT, b"x" * 1_001)[:8], 1_000) == frames.TOO_BIG
    assert code(bytes([0x81, 0xFF]) + (2**62).to_bytes(8, "big"), 1_000) == frames.TOO_BIG
    half = masked(TEXT, b"x" * 600, is_last=False)
    assert code(half + masked(CONTINUATION, b"x" * 600), 1_000) == frames.TOO_BIG
    nothing = masked(TEXT, b"", is_last=False) + masked(CONTINUATION, b"", is_last=False) * 100
    assert code(nothing, 1_000) == frames.TOO_BIG, "empty fragments without end"


def test_a_message_in_tiny_pieces_is_not_copied_again_for_each() -> None:
    data = masked(TEXT, os.urandom(100_000).hex().encode())
    reader = Reader()
    found = [message for at in range(0, len(data), 7) for message in reader.feed(data[at : at + 7], LIMIT)]
    assert len(found) == 1


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536])
def test_our_frames_are_the_shortest_there_are_and_not_masked(length: int) -> None:
    payload = b"x" * length
    sent = frames.text_frame(payload)
    assert sent == frames.frame(TEXT, payload)
    assert sent[1] & 0x80 == 0
    assert len(sent) - length == (2 if length < 126 else 4 if length < 65_536 else 10)
    assert read(masked(TEXT, payload)) == [(TEXT, payload)]


def test_the_last_frame_says_why() -> None:
    assert frames.close_frame(1002, "no") == b"\x88\x04\x03\xeano"
    assert len(frames.close_frame(1002, "x" * 500)) == 127
    assert read(masked(CLOSE, b"\x03\xe8")) == [(CLOSE, b"\x03\xe8")]
