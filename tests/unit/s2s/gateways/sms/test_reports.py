"""Delivery reports, as specified and as SMSCs write them; and what statuses mean."""

from __future__ import annotations

import pytest

from s2s.gateways.sms import reports, status
from s2s.gateways.sms.pdu import MESSAGE_STATE, RECEIPTED_MESSAGE_ID
from s2s.gateways.sms.reports import Report
from tests.unit.s2s.gateways.sms.support import delivered
from xmpp.errors import StanzaError


@pytest.mark.parametrize(
    ("text", "report"),
    [
        ("id:12ab sub:001 dlvrd:001 submit date:2601010101 done date:2601010101 stat:DELIVRD err:000 text:hi", Report("12ab", "delivered", "000")),
        ("id:1 sub:001 dlvrd:000 submit date:0 done date:0 stat:UNDELIV err:0cf Text:", Report("1", "undeliverable", "0cf")),
        ("ID: 77 Stat: expired Err: 1", Report("77", "expired", "1")),
        ("id:7 stat:WHATEVER", Report("7", "unknown")),
        ("id:7", Report("7", "unknown")),
        ("stat:DELIVRD", None),
        ("", None),
    ],
)  # fmt: skip
def test_the_text_of_a_report(text: str, report: Report | None) -> None:
    assert reports.parse(delivered(text.encode(), esm_class=4)) == report


def test_the_parameters_go_before_the_text() -> None:
    tlvs = {RECEIPTED_MESSAGE_ID: b"abc\0", MESSAGE_STATE: b"\2"}
    assert reports.parse(delivered(b"id:1 stat:UNDELIV", esm_class=4, tlvs=tlvs)) == Report("abc", "delivered")
    assert reports.parse(delivered(b"", esm_class=4, tlvs=tlvs)) == Report("abc", "delivered")


@pytest.mark.parametrize(
    ("esm_class", "is_report"), [(0, False), (4, True), (0x44, True), (0x08, False), (0x40, False), (0x20, False)]
)
def test_what_is_a_report(esm_class: int, is_report: bool) -> None:
    assert reports.is_report(delivered(b"", esm_class=esm_class)) == is_report


@pytest.mark.parametrize("state", sorted(set(reports.STATES) - reports.UNFINISHED - {"delivered"}))
def test_every_bad_end_has_its_error(state: reports.State) -> None:
    fault = status.undelivered(Report("1", state, "0c1"))
    assert isinstance(fault, StanzaError)
    assert "0c1" in str(fault)


def test_every_status_has_words_and_a_status_unknown_is_told_as_it_is() -> None:
    for value in range(1, 0x500):
        found = status.meaning(value)
        assert found.words
        assert found.name in str(status.refused(value))
    assert status.meaning(0x4E5).name == "status 0x000004e5"


@pytest.mark.parametrize("value", [0x0D, 0x0E, 0x0F, 0x05, 0x53, 0x58])
def test_what_an_operator_can_mend_has_a_remedy(value: int) -> None:
    assert status.meaning(value).remedy
