"""Numbers: as typed, as SMPP has them, as JIDs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s.gateways.sms import numbers
from s2s.gateways.sms.pdu import Address
from xmpp.errors import JidError


@pytest.mark.parametrize(
    ("typed", "country", "number"),
    [
        ("+491701234567", "", "+491701234567"), ("+49 (170) 123-45.67", "", "+491701234567"), ("0049 170 1234567", "", "+491701234567"),
        ("0170/1234567", "49", "+491701234567"), ("0170 1234567", "", None), ("12345", "", "12345"), ("123 45", "49", "12345"),
        ("+0170123456", "49", None), ("+49", "", None), ("+4917012345678901", "", None), ("nurse", "49", None), ("", "49", None),
        ("+49170123456x", "", None), ("٠١٢٣٤", "", None), ("+١٢٣٤٥٦٧٨٩", "", None), ("1234567890", "", None),
    ],
)  # fmt: skip
def test_what_a_person_types(typed: str, country: str, number: str | None) -> None:
    assert numbers.normalise(typed, country) == number


@pytest.mark.parametrize(
    ("ton", "digits", "number"),
    [
        (1, "491701234567", "+491701234567"), (1, "+491701234567", "+491701234567"), (0, "491701234567", "+491701234567"),
        (0, "+491701234567", "+491701234567"), (0, "00491701234567", "+491701234567"), (0, "01701234567", "+491701234567"),
        (2, "1701234567", "+491701234567"), (0, "12345", "12345"), (3, "12345", "12345"), (5, "12345", "12345"), (5, "Bank", "Bank"),
        (0, "Bank", "Bank"), (0, "", ""),
    ],
)  # fmt: skip
def test_what_an_smsc_tells(ton: int, digits: str, number: str) -> None:
    assert numbers.from_smpp(Address(ton, 1, digits), "49") == number


@given(st.from_regex(numbers.INTERNATIONAL, fullmatch=True) | st.from_regex(numbers.SHORT_CODE, fullmatch=True))
def test_numbers_survive_smpp_and_jids(number: str) -> None:
    assert numbers.from_smpp(numbers.to_smpp(number), "") == number
    assert numbers.to_jid(number, "sms.example.org") == f"{number}@sms.example.org"


def test_a_name_is_escaped_and_one_that_no_jid_can_have_is_refused() -> None:
    assert numbers.to_smpp("Verona") == Address(5, 0, "Verona")
    assert numbers.to_jid(" A&B /x\\ ", "d.example") == "a\\26b\\20\\2fx\\5c@d.example"
    for name in ("", "  ", "a" * 1024, "\x7f"):
        with pytest.raises(JidError):
            numbers.to_jid(name, "d.example")
