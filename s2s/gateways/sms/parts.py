"""Long messages: cutting a text into parts, and reading the parts of others.

A part is what one submit_sm carries: 140 octets of user data, which are 160 septets, 140 bytes or 70 UTF-16 units.
A concatenated one gives 6 octets to a header (3GPP TS 23.040, 9.2.3.24.1), which leaves 153 septets or 67 units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from s2s.gateways.sms import alphabet
from s2s.gateways.sms.pdu import (
    SAR_MSG_REF_NUM,
    SAR_SEGMENT_SEQNUM,
    SAR_TOTAL_SEGMENTS,
    UDHI,
    ShortMessage,
)

GSM: Final = 0  # data_coding (SMPP 3.4, 5.2.19): the SMSC's default alphabet
ASCII: Final = 1
LATIN_1: Final = 3
UCS_2: Final = 8

SEPTETS: Final = 160
SEPTETS_OF_PART: Final = 153
UNITS: Final = 70
UNITS_OF_PART: Final = 67
MOST_PARTS: Final = 255  # the header counts in one octet

_CONCATENATED_8: Final = 0x00  # information elements (23.040, 9.2.3.24)
_CONCATENATED_16: Final = 0x08

# SMPP's own codings, and the data coding schemes of 3GPP TS 23.038 (message classes) that do not contradict them.
_CODING_OF: Final = {
    GSM: GSM, ASCII: ASCII, LATIN_1: LATIN_1, UCS_2: UCS_2,
    **dict.fromkeys((*range(16, 20), *range(240, 244)), GSM),
    **dict.fromkeys(range(24, 28), UCS_2),
}  # fmt: skip
MISSING: Final = "[…]"  # stands for parts that never came


class Encoded(NamedTuple):
    """A text as it will be sent: one or more parts of one coding, each with its header if there are several."""

    data_coding: int
    esm_class: int
    parts: tuple[bytes, ...]


class Place(NamedTuple):
    """Where a part belongs: number `sequence` (from 1) of the `total` that share `reference`."""

    reference: int
    total: int
    sequence: int


class NotText(ValueError):
    """The content is no text that is known here: binary data, or a header that cannot be read."""


def encode(text: str, reference: int) -> Encoded:
    """Cut a text into parts, in the GSM alphabet if it has every character, else in UCS-2 (UTF-16BE, as phones read
    it). No character is cut in two. `reference` (0 to 255) tells the recipient which parts belong together."""
    septets = alphabet.septets_of(text)
    if septets is not None:
        coding, pieces = GSM, _pieces(septets, SEPTETS, SEPTETS_OF_PART)
    else:
        units = [character.encode("utf-16-be", "replace") for character in text]
        coding, pieces = UCS_2, _pieces(units, 2 * UNITS, 2 * UNITS_OF_PART)
    if len(pieces) == 1:
        return Encoded(coding, 0, tuple(pieces))
    total = len(pieces)
    if total > MOST_PARTS:
        raise ValueError(f"{total} parts")
    header = bytes([5, _CONCATENATED_8, 3, reference, total])
    parts = (header + bytes([sequence]) + piece for sequence, piece in enumerate(pieces, 1))
    return Encoded(coding, UDHI, tuple(parts))


def _pieces(characters: Sequence[bytes], whole: int, part: int) -> list[bytes]:
    if sum(map(len, characters)) <= whole:
        return [b"".join(characters)]
    pieces, piece = [], b""
    for character in characters:
        if len(piece) + len(character) > part:
            pieces.append(piece)
            piece = b""
        piece += character
    return [*pieces, piece]


def place_of(message: ShortMessage) -> tuple[Place | None, bytes]:
    """Where a received message belongs, None if it stands alone, and its text without the header; raises NotText.

    Both ways to say it are read: the user data header, and the SAR parameters (SMPP 3.4, 5.3.2.22 to 24).
    """
    content = message.content
    place = None
    if message.esm_class & UDHI:
        place, content = _from_header(content)
    if place is None:
        place = _from_parameters(message)
    if place is not None and not 1 <= place.sequence <= place.total:
        raise NotText(f"part {place.sequence} of {place.total}")
    if place is not None and place.total == 1:
        place = None
    return place, content


def _from_header(content: bytes) -> tuple[Place | None, bytes]:
    length = content[0] if content else 0
    if not content or 1 + length > len(content):
        raise NotText("the user data header is longer than the message")
    place = None
    for element, value in _elements(content[1 : 1 + length]):
        if element == _CONCATENATED_8 and len(value) == 3:
            place = Place(value[0], value[1], value[2])
        elif element == _CONCATENATED_16 and len(value) == 4:
            place = Place(0x10000 + int.from_bytes(value[:2], "big"), value[2], value[3])
    return place, content[1 + length :]


def _elements(header: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 2 <= len(header):
        length = header[at + 1]
        if at + 2 + length > len(header):
            raise NotText("an information element is longer than its header")
        yield header[at], header[at + 2 : at + 2 + length]
        at += 2 + length


def _from_parameters(message: ShortMessage) -> Place | None:
    """16 bit references of all kinds are told apart from 8 bit ones: they come from different counters."""
    values = [message.tlvs.get(tag, b"") for tag in (SAR_MSG_REF_NUM, SAR_TOTAL_SEGMENTS, SAR_SEGMENT_SEQNUM)]
    if not all(values):
        return None
    reference, total, sequence = (int.from_bytes(value, "big") for value in values)
    return Place(0x20000 + reference, total, sequence)


def coding_of(data_coding: int) -> int:
    """Which of the four codings this data_coding means; raises NotText."""
    coding = _CODING_OF.get(data_coding)
    if coding is None:
        raise NotText(f"data_coding 0x{data_coding:02x}")
    return coding


def decode(coding: int, content: bytes) -> str:
    """The text of one or several parts put together; what cannot be read becomes U+FFFD."""
    if coding == GSM:
        text = alphabet.decode(content)
    elif coding == UCS_2:
        text = content.decode("utf-16-be", "replace")
    else:
        text = content.decode("ascii" if coding == ASCII else "latin-1", "replace")
    return text


def join(total: int, parts: dict[int, tuple[int, bytes]]) -> str:
    """The text of a message whose parts (sequence -> coding and content) have come, all or some.

    Neighbours of one coding are put together before they are decoded, because others do cut characters in two.
    """
    runs: list[tuple[int | None, bytes]] = []
    for sequence in range(1, total + 1):
        coding, content = parts.get(sequence, (None, b""))
        if runs and runs[-1][0] == coding:
            runs[-1] = coding, runs[-1][1] + content
        else:
            runs.append((coding, content))
    return "".join(MISSING if coding is None else decode(coding, content) for coding, content in runs)
