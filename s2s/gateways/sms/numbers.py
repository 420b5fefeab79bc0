"""Phone numbers and JIDs: one address for each number, `+491701234567@sms.example.org` (E.164 as the localpart).

Numbers are strings: "+" and digits for international ones, digits alone for short codes, and the name itself for a
sender that has a name instead ("Bank"), which can be received from and not written to.
"""

from __future__ import annotations

import re
from typing import Final

from s2s.gateways.sms.pdu import Address
from xmpp.errors import JidError
from xmpp.jid import JID

INTERNATIONAL: Final = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)  # E.164: 15 digits at most
SHORT_CODE: Final = re.compile(r"[0-9]{3,8}", re.ASCII)
_PUNCTUATION: Final = re.compile(r"[\s().\-/\u00a0\u2010-\u2015]+")

# Type of number and numbering plan (SMPP 3.4, 5.2.5 and 5.2.6)
_UNKNOWN: Final = 0
_TON_INTERNATIONAL: Final = 1
_TON_NATIONAL: Final = 2
_TON_NAME: Final = 5
_NPI_E164: Final = 1

# XEP-0106, 3: what a localpart may not have.
_ESCAPES: Final = {character: f"\\{ord(character):02x}" for character in " \"&'/:<>@\\"}


def is_number(text: str) -> bool:
    """Whether this can be written to: an international number or a short code."""
    return bool(INTERNATIONAL.fullmatch(text) or SHORT_CODE.fullmatch(text))


def normalise(text: str, country: str) -> str | None:
    """What a person typed as a number, None if it is none. `country` is the calling code that a national number
    ("0170 …") belongs to, "" if national numbers are not understood."""
    digits = _PUNCTUATION.sub("", text)
    if digits.startswith("00"):
        digits = f"+{digits[2:]}"
    elif digits.startswith("0") and country:
        digits = f"+{country}{digits[1:]}"
    return digits if is_number(digits) else None


def to_smpp(number: str) -> Address:
    """The address of a number or of a sender's name."""
    if number.startswith("+"):
        return Address(_TON_INTERNATIONAL, _NPI_E164, number[1:])
    if number.isascii() and number.isdecimal():
        return Address(_UNKNOWN, _UNKNOWN, number)
    return Address(_TON_NAME, _UNKNOWN, number)


def from_smpp(address: Address, country: str) -> str:
    """The number, or the name, that an SMSC tells. Where the type of number is unknown, which is common, what is too
    long for a short code is international."""
    digits = address.digits
    if address.ton == _TON_NAME or not digits.removeprefix("+").isdecimal():
        return digits
    if digits.startswith("+"):
        return digits
    if address.ton == _TON_INTERNATIONAL:
        return f"+{digits}"
    if address.ton == _TON_NATIONAL and country:
        return f"+{country}{digits}"
    if len(digits) <= 8:
        return digits
    return normalise(digits, country) or f"+{digits}"


def to_jid(number: str, domain: str) -> str:
    """The JID of a number or name at this gateway; raises JidError where a name has characters that no JID has."""
    if is_number(number):
        return f"{number}@{domain}"
    name = "".join(_ESCAPES.get(character, character) for character in number.strip())
    if not name:
        raise JidError("The sender has no name.")
    return str(JID.of(name, domain))
