"""The GSM 7 bit default alphabet and its extension table (3GPP TS 23.038, 6.2.1), as septets in octets.

SMPP carries each septet in an octet of its own; the SMSC packs them. A character of the extension table takes two.
"""

from __future__ import annotations

from typing import Final

ESCAPE: Final = 0x1B

BASIC: Final = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ"
    " !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENSION: Final = {
    0x0A: "\f", 0x14: "^", 0x28: "{", 0x29: "}", 0x2F: "\\", 0x3C: "[", 0x3D: "~", 0x3E: "]", 0x40: "|", 0x65: "€",
}  # fmt: skip

_SEPTETS: Final = {
    **{character: bytes([code]) for code, character in enumerate(BASIC) if code != ESCAPE},
    **{character: bytes([ESCAPE, code]) for code, character in EXTENSION.items()},
}


def septets_of(text: str) -> list[bytes] | None:
    """One or two septets for each character, None where the alphabet lacks one."""
    found = []
    for character in text:
        septets = _SEPTETS.get(character)
        if septets is None:
            return None
        found.append(septets)
    return found


def encode(text: str) -> bytes:
    """The septets of a text; raises ValueError where the alphabet lacks a character."""
    septets = septets_of(text)
    if septets is None:
        raise ValueError("not in the GSM alphabet")
    return b"".join(septets)


def decode(septets: bytes) -> str:
    """The text of septets in octets.

    An escape with no meaning here is a space, and the code behind it is read in the basic table (23.038, 6.2.1.1,
    note 1); what is no septet becomes U+FFFD.
    """
    text = []
    is_escaped = False
    for code in septets:
        if is_escaped:
            is_escaped = False
            if code in EXTENSION:
                text.append(EXTENSION[code])
                continue
            text.append(" ")
        if code == ESCAPE:
            is_escaped = True
        elif code < len(BASIC):
            text.append(BASIC[code])
        else:
            text.append("\ufffd")
    if is_escaped:
        text.append(" ")
    return "".join(text)
