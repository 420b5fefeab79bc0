"""PDUs against the specification's layout, and read back from any pieces."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s.gateways.sms import pdu
from s2s.gateways.sms.pdu import Address, Bind, Pdu, PduError, Reader, ShortMessage

LATIN = st.text(st.characters(min_codepoint=1, max_codepoint=255))
ADDRESSES = st.builds(Address, st.integers(0, 6), st.integers(0, 18), st.text("0123456789+", max_size=20))
TLVS = st.dictionaries(st.integers(0x1400, 0x3FFF), st.binary(max_size=40), max_size=4)
MESSAGES = st.builds(
    ShortMessage, ADDRESSES, ADDRESSES, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=254),
    st.integers(0, 31), TLVS,
)  # fmt: skip
PDUS = st.builds(
    Pdu, st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF), st.binary(max_size=60)
)


@given(MESSAGES)
def test_a_message_is_read_back(message: ShortMessage) -> None:
    assert pdu.decode_message(pdu.encode_message(message)) == message


def test_a_long_content_travels_as_payload() -> None:
    message = ShortMessage(Address(1, 1, "49"), Address(0, 0, "1"), 0, 0, b"x" * 255)
    body = pdu.encode_message(message)
    assert struct.pack(">HH", pdu.MESSAGE_PAYLOAD, 255) in body
    assert pdu.decode_message(body).content == message.content


def test_a_bind_is_laid_out_as_the_specification_says() -> None:
    """4.1.1: three strings, then interface_version, addr_ton, addr_npi and the range."""
    body = pdu.encode_bind(Bind("SMPP3TEST", "secret08", "SUBMIT1"))
    strings = b"SMPP3TEST\0secret08\0SUBMIT1\0"
    assert (
        pdu.encode(Pdu(pdu.BIND_TRANSMITTER, 0, 1, body)).hex()
        == f"0000002f000000020000000000000001{strings.hex()}34000000"
    )


@given(st.lists(PDUS, max_size=5), st.lists(st.integers(1, 30)))
def test_pieces_are_put_together(sent: list[Pdu], cuts: list[int]) -> None:
    data = b"".join(map(pdu.encode, sent))
    reader, found = Reader(), []
    for cut in [*cuts, len(data)]:
        found += reader.feed(data[:cut])
        data = data[cut:]
    assert found == sent


@pytest.mark.parametrize("length", [0, 15, pdu.PDU_BYTES + 1, 0xFFFFFFFF])
def test_a_length_that_cannot_be_is_refused(length: int) -> None:
    with pytest.raises(PduError):
        Reader().feed(struct.pack(">IIII", length, 0, 0, 0))


@given(st.binary(max_size=80))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(PduError):
        assert pdu.decode_message(body).data_coding < 256


@given(MESSAGES, st.data())
def test_a_body_that_was_cut_is_refused_or_has_lost_parameters(message: ShortMessage, data: st.DataObject) -> None:
    body = pdu.encode_message(message)
    cut = data.draw(st.integers(0, len(body) - 1))
    try:
        found = pdu.decode_message(body[:cut])
    except PduError:
        return
    assert found.tlvs.keys() < message.tlvs.keys() or len(message.tlvs) > len(found.tlvs)


@pytest.mark.parametrize(
    "bind",
    [Bind("s" * 16, ""), Bind("", "p" * 9), Bind("", "", "t" * 13), Bind("", "", "", "a" * 41), Bind("a\0b", "")],
)
def test_a_field_that_is_too_long_is_refused(bind: Bind) -> None:
    with pytest.raises(PduError):
        pdu.encode_bind(bind)


@given(st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=64))
def test_message_ids(message_id: str) -> None:
    assert pdu.decode_message_id(pdu.encode_message_id(message_id)) == message_id
    assert pdu.decode_message_id(message_id.encode("latin-1")) == message_id  # COMPAT: SMSCs that leave the end out


def test_names() -> None:
    assert Pdu(pdu.SUBMIT_SM | pdu.RESPONSE, 0, 1).name == "submit_sm_resp"
    assert Pdu(pdu.GENERIC_NACK, 0, 1).name == "generic_nack"
    assert Pdu(0x77, 0, 1).name == "0x00000077"
