"""The PDUs of SMPP 3.4 that an ESME needs: bytes in, values out, and back. Sections are of the SMPP 3.4 specification.

Only the layout is known here. What a status means is in `status.py`, who answers what in `session.py`.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

HEADER: Final = struct.Struct(">IIII")  # 3.2: command_length, command_id, command_status, sequence_number
PDU_BYTES: Final = 70_000  # a message_payload of 64 KiB and its surroundings; more is a broken stream
RESPONSE: Final = 0x8000_0000

GENERIC_NACK: Final = 0x8000_0000
BIND_RECEIVER: Final = 0x01
BIND_TRANSMITTER: Final = 0x02
SUBMIT_SM: Final = 0x04
DELIVER_SM: Final = 0x05
UNBIND: Final = 0x06
BIND_TRANSCEIVER: Final = 0x09
ENQUIRE_LINK: Final = 0x15
DATA_SM: Final = 0x103

NAMES: Final = {
    GENERIC_NACK: "generic_nack", BIND_RECEIVER: "bind_receiver", BIND_TRANSMITTER: "bind_transmitter",
    SUBMIT_SM: "submit_sm", DELIVER_SM: "deliver_sm", UNBIND: "unbind", BIND_TRANSCEIVER: "bind_transceiver",
    ENQUIRE_LINK: "enquire_link", DATA_SM: "data_sm",
}  # fmt: skip

# 5.3.2: tags of optional parameters
SAR_MSG_REF_NUM: Final = 0x020C
SAR_TOTAL_SEGMENTS: Final = 0x020E
SAR_SEGMENT_SEQNUM: Final = 0x020F
RECEIPTED_MESSAGE_ID: Final = 0x001E
MESSAGE_PAYLOAD: Final = 0x0424
MESSAGE_STATE: Final = 0x0427

UDHI: Final = 0x40  # esm_class (5.2.12): the message begins with a user data header
REPORT: Final = 0x04  # an SMSC delivery receipt
MESSAGE_TYPE: Final = 0x3C

Tlvs = dict[int, bytes]


class PduError(ValueError):
    """The bytes are no PDU, or the values fit none."""


class Pdu(NamedTuple):
    """Header fields and the undecoded body."""

    command: int
    status: int
    sequence: int
    body: bytes = b""

    @property
    def name(self) -> str:
        """The command's name in the specification."""
        if self.command == GENERIC_NACK:
            return NAMES[GENERIC_NACK]
        base = NAMES.get(self.command & ~RESPONSE, f"0x{self.command:08x}")
        return f"{base}_resp" if self.command & RESPONSE else base


class Address(NamedTuple):
    """An address with its type of number and numbering plan (5.2.5, 5.2.6)."""

    ton: int
    npi: int
    digits: str


class Bind(NamedTuple):
    """The body of the three bind requests (4.1). `addresses` is the address_range."""

    system_id: str
    password: str
    system_type: str = ""
    addresses: str = ""


class ShortMessage(NamedTuple):
    """The body of submit_sm and deliver_sm, which share one layout (4.4.1, 4.6.1); what is left out here is 0 or
    empty. `content` is the short message or the message_payload, whichever is there."""

    source: Address
    destination: Address
    esm_class: int
    data_coding: int
    content: bytes
    registered_delivery: int = 0
    tlvs: Tlvs = {}  # noqa: RUF012 - a NamedTuple's default, never written to


def encode(pdu: Pdu) -> bytes:
    """The bytes of a PDU."""
    return HEADER.pack(HEADER.size + len(pdu.body), pdu.command, pdu.status, pdu.sequence) + pdu.body


class Reader:
    """Cuts a byte stream into PDUs."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Pdu]:
        """The PDUs that this input completes; raises PduError where the length cannot be true."""
        self._buffer += data
        found = []
        while len(self._buffer) >= HEADER.size:
            length, command, status, sequence = HEADER.unpack_from(self._buffer)
            if not HEADER.size <= length <= PDU_BYTES:
                raise PduError(f"a PDU of {length} bytes")
            if len(self._buffer) < length:
                break
            found.append(Pdu(command, status, sequence, bytes(self._buffer[HEADER.size : length])))
            del self._buffer[:length]
        return found


def encode_bind(bind: Bind) -> bytes:
    """The body of a bind request."""
    strings = [(bind.system_id, 16), (bind.password, 9), (bind.system_type, 13)]
    head = b"".join(_c_string(text, limit) for text, limit in strings)
    return head + bytes([0x34, 0, 0]) + _c_string(bind.addresses, 41)


def decode_bind_response(body: bytes) -> str:
    """The SMSC's system_id, "" where it is left out, as it may be with an error status."""
    return body.partition(b"\0")[0].decode("latin-1")


def encode_message(message: ShortMessage) -> bytes:
    """The body of submit_sm and deliver_sm. More than 254 bytes of content travel as message_payload (5.3.2.32)."""
    tlvs = dict(message.tlvs)
    content = message.content
    if len(content) > 254:
        tlvs[MESSAGE_PAYLOAD] = content
        content = b""
    return b"".join(
        (
            b"\0",  # service_type
            _address(message.source),
            _address(message.destination),
            bytes([message.esm_class, 0, 0]),  # then protocol_id, priority_flag
            b"\0\0",  # schedule_delivery_time, validity_period
            bytes([message.registered_delivery, 0, message.data_coding, 0, len(content)]),
            content,
            *(struct.pack(">HH", tag, len(value)) + value for tag, value in tlvs.items()),
        )
    )


def decode_message(body: bytes) -> ShortMessage:
    """The body of submit_sm and deliver_sm; raises PduError."""
    fields = _Fields(body)
    fields.c_string()  # service_type
    source = Address(fields.octet(), fields.octet(), fields.c_string())
    destination = Address(fields.octet(), fields.octet(), fields.c_string())
    esm_class, _, _ = fields.octet(), fields.octet(), fields.octet()
    fields.c_string()
    fields.c_string()
    registered_delivery, _, data_coding, _ = fields.octet(), fields.octet(), fields.octet(), fields.octet()
    content = fields.octets(fields.octet())
    tlvs = fields.tlvs()
    content = content or tlvs.get(MESSAGE_PAYLOAD, b"")
    return ShortMessage(source, destination, esm_class, data_coding, content, registered_delivery, tlvs)


def encode_message_id(message_id: str) -> bytes:
    """The body of submit_sm_resp and deliver_sm_resp (4.4.2, 4.6.2)."""
    return _c_string(message_id, 65)


def decode_message_id(body: bytes) -> str:
    """The message_id of a submit_sm_resp, "" where it is left out."""
    return body.partition(b"\0")[0].decode("latin-1")


def _c_string(text: str, limit: int) -> bytes:
    """A C-octet string of at most `limit` bytes with its final NUL (3.1)."""
    raw = text.encode("latin-1")
    if len(raw) >= limit or b"\0" in raw:
        raise PduError(f"more than {limit - 1} characters, or a NUL among them")
    return raw + b"\0"


def _address(address: Address) -> bytes:
    return bytes([address.ton, address.npi]) + _c_string(address.digits, 21)


class _Fields:
    """Takes the fields of a body one after the other."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def octet(self) -> int:
        return self.octets(1)[0]

    def octets(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._body):
            raise PduError("the body is too short")
        taken = self._body[self._at : end]
        self._at = end
        return taken

    def c_string(self) -> str:
        end = self._body.find(b"\0", self._at)
        if end < 0:
            raise PduError("a string without its end")
        text = self._body[self._at : end].decode("latin-1")
        self._at = end + 1
        return text

    def tlvs(self) -> Tlvs:
        found: Tlvs = {}
        while self._at < len(self._body):
            tag, length = struct.unpack(">HH", self.octets(4))
            found[tag] = self.octets(length)
        return found
