"""Frames and envelopes as bytes (cluster/wire.py): what is written is read back; what cannot be read is a WireError."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster import wire
from cluster.wire import (
    ARITY,
    CALL,
    DELIVER,
    FROM_C2S,
    FROM_ROUTER,
    FROM_S2S,
    GREETINGS,
    MAY_SEND,
    NO_ACK,
    REPORT,
    SUBMIT,
    SUPPORTED_VERSIONS,
    TRACED,
    WIRE_VERSION,
    Incarnation,
    WireError,
    new_incarnation,
    node_of,
    pack_frame,
    unpack_frame,
)
from xmpp.stanza import HAS_BODY, IQ, MESSAGE, PRESENCE, Stanza, from_wire

KINDS = {
    name: value
    for name, value in vars(wire).items()
    if name.isupper() and type(value) is int and name != "WIRE_VERSION"
}
A = Incarnation("router-0#00000000000000aa")
B = Incarnation("c2s-0#00000000000000bb")

texts = st.text(max_size=20)
numbers = st.integers(0, 2**63 - 1)
maybe = st.none() | texts
stanzas = st.builds(
    Stanza,
    st.sampled_from([MESSAGE, PRESENCE, IQ]), maybe, maybe, maybe, maybe, maybe, numbers, maybe,
    st.none() | st.lists(st.tuples(texts, texts), max_size=2).map(tuple), st.binary(max_size=200),
)  # fmt: skip
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | texts | st.binary()
)
values = st.recursive(scalars | stanzas, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=20)
envelopes = st.tuples(st.sampled_from(sorted(ARITY)), st.lists(values, max_size=8)).map(lambda e: (e[0], *e[1]))
# Anything that msgpack can say, also what no process says: maps, and keys and items of every kind.
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(texts | st.binary(max_size=4), inner, max_size=3),
    max_leaves=20,
)
acks = st.tuples(numbers, numbers)

STANZA = Stanza(MESSAGE, "chat", "a@b", "c@d/e", "1", "en", HAS_BODY, None, (("x y", "z"),), b"<body>hi</body>")
FRAME = pack_frame(A, 3, B, 7, (2, 9), [(DELIVER, ((1, 2, 3, 4, 5, None),), STANZA), (CALL, 1, 2, "r", "m", ())])


# --- what is written is read back


@given(numbers, numbers, acks, st.lists(envelopes, max_size=5))
def test_a_frame_comes_back_as_it_was(generation: int, seq: int, ack: tuple[int, int], batch: list[Any]) -> None:
    data = pack_frame(A, generation, B, seq, ack, batch)
    assert unpack_frame(data) == (WIRE_VERSION, A, generation, B, seq, ack, tuple(batch))
    assert unpack_frame(memoryview(data)) == unpack_frame(data)


@given(stanzas)
def test_a_stanza_comes_back_as_it_was(stanza: Stanza) -> None:
    ((_, *_, fields),) = unpack_frame(pack_frame(A, 1, B, 1, NO_ACK, [(SUBMIT, 1, 2, 3, 4, 5, stanza)]))[6]
    found = from_wire(fields)
    assert found == stanza
    assert type(found.inner) is bytes, "the inner bytes are bytes, not text"
    assert type(found.extra) in (tuple, type(None)), "hashable, like the rest"


def test_every_frame_is_packed_on_its_own() -> None:
    with pytest.raises(TypeError):
        pack_frame(A, 1, B, 1, NO_ACK, [(SUBMIT, object())])
    assert unpack_frame(FRAME)[:6] == (WIRE_VERSION, A, 3, B, 7, (2, 9)), "one that failed leaves nothing behind"
    assert pack_frame(A, 1, B, 1, NO_ACK, ()) == msgpack.packb((WIRE_VERSION, A, 1, B, 1, NO_ACK, ()))


def test_an_incarnation_is_its_node_and_64_bits() -> None:
    assert new_incarnation("c2s-1", 0xABC) == "c2s-1#0000000000000abc"
    assert new_incarnation("c2s-1", 2**64 - 1) == "c2s-1#ffffffffffffffff"
    assert node_of(new_incarnation("a#b", 1)) == "a#b"


# --- what cannot be read


def test_a_truncated_frame_is_an_error_at_every_byte() -> None:
    for length in range(len(FRAME)):
        with pytest.raises(WireError):
            unpack_frame(FRAME[:length])
    with pytest.raises(WireError):
        unpack_frame(FRAME + b"\0")


def is_sound(frame: tuple[Any, ...]) -> bool:
    """What the bus relies on without a look of its own."""
    version, sender, generation, receiver, seq, ack, batch = frame
    return (
        version in SUPPORTED_VERSIONS
        and all(type(name) is str for name in (sender, receiver))
        and all(type(number) is int for number in (generation, seq, *ack))
        and len(ack) == 2
        and all(type(envelope) is tuple and type(envelope[0]) is int for envelope in batch)
    )


def read(data: bytes) -> bool:
    """Whether it is a frame; anything but a WireError fails the test."""
    try:
        frame = unpack_frame(data)
    except WireError:
        return False
    assert is_sound(frame), frame
    return True


@given(st.lists(st.tuples(st.integers(0, len(FRAME) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_corrupted_frame_is_sound_or_an_error(changes: list[tuple[int, int]]) -> None:
    data = bytearray(FRAME)
    for at, byte in changes:
        data[at] = byte
    read(bytes(data))


@given(st.binary(max_size=64))
def test_bytes_that_are_no_frame_are_an_error(data: bytes) -> None:
    assert not read(data)


@given(anything)
def test_values_that_are_no_frame_are_an_error(value: Any) -> None:
    read(msgpack.packb(value))


@given(st.integers(0, 6), anything)
@example(0, {})  # what cannot be looked up in a set
@example(0, [{}])
@example(0, True)  # equals 1
@example(0, 1.0)
@example(1, {})
@example(4, "1")
@example(5, [1, 2, 3])
@example(6, [[]])
@example(6, [1])
@example(6, [[{}]])
@example(6, [{0: SUBMIT}])
def test_a_frame_with_any_item_replaced_is_sound_or_an_error(at: int, value: Any) -> None:
    frame: list[Any] = [WIRE_VERSION, A, 3, B, 7, (2, 9), ((CALL, 1),)]
    frame[at] = value
    read(msgpack.packb(frame, strict_types=False))


@given(st.lists(anything, max_size=6))
def test_a_frame_with_too_few_items_is_an_error(rest: list[Any]) -> None:
    assert not read(msgpack.packb([WIRE_VERSION, *rest[:5]]))


@given(anything.filter(lambda version: version is not True and version != WIRE_VERSION), anything)
@example(2, [])
@example(0, None)
def test_another_version_is_refused_whatever_follows(version: Any, rest: Any) -> None:
    with pytest.raises(WireError, match="is not spoken here"):
        unpack_frame(msgpack.packb((version, rest)))


def test_nesting_has_an_end() -> None:
    deep = b"\x91" * 100_000 + b"\x01"
    assert not read(deep)


# --- neighbours of another version, and what a role may say


def test_items_that_a_newer_neighbour_appends_to_a_frame_are_ignored() -> None:
    newer = msgpack.packb((WIRE_VERSION, A, 1, B, 2, NO_ACK, ((CALL, 1),), "new", {"x": 1}))
    assert unpack_frame(newer) == (WIRE_VERSION, A, 1, B, 2, NO_ACK, ((CALL, 1),))


@given(envelopes, st.lists(values, max_size=3))
def test_fields_that_a_newer_neighbour_appends_are_cut_off(envelope: tuple[Any, ...], more: list[Any]) -> None:
    kind = envelope[0]
    known = (*envelope, *[None] * ARITY[kind])[: ARITY[kind]]
    (found,) = unpack_frame(pack_frame(A, 1, B, 1, NO_ACK, [(*known, *more)]))[6]
    assert found[: ARITY[kind]] == known


def test_every_kind_has_a_number_of_its_own_and_an_arity() -> None:
    assert set(KINDS.values()) == set(ARITY)
    assert len(KINDS) == len(ARITY)
    assert all(arity >= 2 for arity in ARITY.values()), "no kind says nothing"


def test_every_kind_is_for_one_side() -> None:
    assert set(ARITY) == FROM_C2S | FROM_S2S | FROM_ROUTER | GREETINGS
    both_ways = {CALL, TRACED, REPORT}  # routers ask each other, and tell each other
    assert both_ways == FROM_S2S & FROM_ROUTER, "all else has one direction"
    assert not GREETINGS & (FROM_S2S | FROM_ROUTER)


def test_a_captured_edge_cannot_speak_as_a_router() -> None:
    assert MAY_SEND["c2s"] == FROM_C2S | GREETINGS
    assert MAY_SEND["s2s"] == FROM_S2S | GREETINGS
    assert MAY_SEND["router"] == FROM_ROUTER | GREETINGS
    names = {KINDS_BY_NUMBER[kind] for kind in MAY_SEND["c2s"]}
    assert names == {
        "HELLO", "WELCOME", "GOODBYE", "SUBMIT", "ACKNOWLEDGED", "ATTACH", "DETACH", "ANNOUNCE", "CALL", "ENABLED",
        "RESUME", "ACTIVITY", "READ", "RELAY", "TRACED", "REPORT",
    }  # fmt: skip


KINDS_BY_NUMBER = {number: name for name, number in KINDS.items()}
