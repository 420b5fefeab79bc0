"""The GSM alphabet against the table of 3GPP TS 23.038, 6.2.1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s.gateways.sms import alphabet

CHARACTERS = [character for character in alphabet.BASIC if character != "\x1b"] + list(alphabet.EXTENSION.values())
TEXTS = st.text(st.sampled_from(CHARACTERS), max_size=300)


def test_there_are_127_characters_and_10_more() -> None:
    assert len(alphabet.BASIC) == 128
    assert len(set(CHARACTERS)) == len(CHARACTERS) == 137


@pytest.mark.parametrize(
    ("character", "septets"),
    [
        ("@", "00"), ("$", "02"), ("\n", "0a"), ("\r", "0d"), ("Δ", "10"), ("_", "11"), ("Ξ", "1a"), ("É", "1f"), (" ", "20"),
        ("¤", "24"), ("?", "3f"), ("¡", "40"), ("A", "41"), ("Z", "5a"), ("Ä", "5b"), ("§", "5f"), ("¿", "60"), ("a", "61"),
        ("ä", "7b"), ("ö", "7c"), ("ñ", "7d"), ("ü", "7e"), ("à", "7f"), ("€", "1b65"), ("[", "1b3c"), ("|", "1b40"),
        ("^", "1b14"), ("\\", "1b2f"), ("\f", "1b0a"), ("{", "1b28"), ("}", "1b29"), ("~", "1b3d"), ("]", "1b3e"),
    ],
)  # fmt: skip
def test_codes_are_those_of_the_table(character: str, septets: str) -> None:
    assert alphabet.encode(character).hex() == septets
    assert alphabet.decode(bytes.fromhex(septets)) == character


@given(TEXTS)
def test_a_text_is_read_back(text: str) -> None:
    septets = alphabet.encode(text)
    assert alphabet.decode(septets) == text
    assert all(code < 128 for code in septets)


@pytest.mark.parametrize("text", ["ç", "`", "“", "ё", "😀", "a\u0308"])
def test_what_the_alphabet_lacks_is_refused(text: str) -> None:
    assert alphabet.septets_of(text) is None
    with pytest.raises(ValueError, match="GSM"):
        alphabet.encode(text)


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_somehow(septets: bytes) -> None:
    text = alphabet.decode(septets)
    assert text.count("\ufffd") == sum(code > 127 for code in septets)


def test_an_escape_without_meaning_is_a_space() -> None:
    assert alphabet.decode(bytes.fromhex("1b61")) == " a"
    assert alphabet.decode(bytes.fromhex("611b")) == "a "
    assert alphabet.decode(bytes.fromhex("1b1b65")) == " €"
