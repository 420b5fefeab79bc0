"""What TLSA records say of a chain (s2s/dane.py)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from s2s.dane import Tlsa, Verdict, judge
from tests.support.pki import DAY, NOW, Issued, dns, issue

ROOT = issue("root", ca=True)
MIDDLE = issue("middle", ROOT, ca=True)
LEAF = issue("leaf", MIDDLE, names=dns("a.example"))
STRANGER = issue("stranger", ca=True)
CHAIN = [LEAF.der, MIDDLE.der]
HASHES: dict[int, Callable[[bytes], bytes]] = {
    0: lambda data: data,
    1: lambda data: hashlib.sha256(data).digest(),
    2: lambda data: hashlib.sha512(data).digest(),
}


def tlsa(issued: Issued, usage: int, selector: int = 1, matching: int = 1) -> Tlsa:
    public_key = issued.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Tlsa(usage, selector, matching, HASHES[matching]((issued.der, public_key)[selector]))


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
class TestEveryForm:
    def test_the_servers_own_certificate(self, selector: int, matching: int) -> None:
        assert judge(CHAIN, [tlsa(LEAF, 3, selector, matching)], NOW) is Verdict.SERVER
        assert judge(CHAIN, [tlsa(MIDDLE, 3, selector, matching)], NOW) is Verdict.MISMATCH

    def test_the_authority_in_the_chain(self, selector: int, matching: int) -> None:
        assert judge(CHAIN, [tlsa(MIDDLE, 2, selector, matching)], NOW) is Verdict.AUTHORITY
        assert judge([*CHAIN, ROOT.der], [tlsa(ROOT, 2, selector, matching)], NOW) is Verdict.AUTHORITY
        assert judge(CHAIN, [tlsa(STRANGER, 2, selector, matching)], NOW) is Verdict.MISMATCH

    def test_an_authority_that_is_shown_but_issued_nothing(self, selector: int, matching: int) -> None:
        assert judge([*CHAIN, STRANGER.der], [tlsa(STRANGER, 2, selector, matching)], NOW) is Verdict.MISMATCH


def test_the_own_certificate_may_be_self_signed_and_expired() -> None:
    own = issue("own", begin=NOW - 9 * DAY, end=NOW - DAY)
    assert judge([own.der], [tlsa(own, 3)], NOW) is Verdict.SERVER


def test_an_authority_does_not_make_up_for_expiry() -> None:
    old = issue("old", MIDDLE, begin=NOW - 9 * DAY, end=NOW - DAY)
    assert judge([old.der, MIDDLE.der], [tlsa(MIDDLE, 2)], NOW) is Verdict.MISMATCH


def test_an_authority_in_the_record_need_not_be_in_the_chain() -> None:
    assert judge(CHAIN, [tlsa(ROOT, 2, 0, 0)], NOW) is Verdict.AUTHORITY
    assert judge(CHAIN, [tlsa(ROOT, 2, 0, 1)], NOW) is Verdict.MISMATCH


def test_one_record_of_several_is_enough() -> None:
    assert judge(CHAIN, [tlsa(STRANGER, 3), tlsa(LEAF, 3), Tlsa(9, 9, 9, b"")], NOW) is Verdict.SERVER


@pytest.mark.parametrize(
    "records",
    [
        [],
        [tlsa(STRANGER, 0)],
        [tlsa(STRANGER, 1)],
        [Tlsa(4, 1, 1, b"\0" * 32)],
        [Tlsa(3, 2, 1, b"\0" * 32)],
        [Tlsa(3, 1, 3, b"\0" * 32)],
        [Tlsa(3, 1, 1, b"\0" * 31)],
        [Tlsa(3, 1, 2, b"\0" * 32)],
        [Tlsa(3, 1, 0, b"")],
    ],
)
def test_records_that_cannot_be_used_say_nothing(records: list[Tlsa]) -> None:
    assert judge(CHAIN, records, NOW) is Verdict.SILENT


@pytest.mark.parametrize("chain", [[], [b"junk"], [LEAF.der, b"junk"]])
def test_a_chain_that_cannot_be_read_does_not_match(chain: list[bytes]) -> None:
    assert judge(chain, [tlsa(LEAF, 3)], NOW) is Verdict.MISMATCH


def test_a_record_that_holds_no_certificate_does_not_match() -> None:
    assert judge(CHAIN, [Tlsa(2, 0, 0, b"junk")], NOW) is Verdict.MISMATCH
