"""What a certificate is worth, in words (stentor/checks/certificate.py)."""

from __future__ import annotations

import pytest

from cluster.trust import Authorities
from s2s.certificates import PeerIdentity, identify
from stentor.checks.certificate import judge
from stentor.checks.findings import Finding
from tests.support.pki import DAY, NOW, Issued, dns, issue

ROOT = issue("Root", ca=True, end=NOW + 900 * DAY)
MIDDLE = issue("Middle", ROOT, ca=True, end=NOW + 900 * DAY)
AUTHORITIES = Authorities([ROOT.certificate])


def identity(*chain: Issued) -> PeerIdentity:
    return identify([each.der for each in chain], AUTHORITIES, NOW)


def judged(*chain: Issued, domain: str = "a.example", is_ours: bool = False) -> list[Finding]:
    return judge(identity(*chain), domain, NOW, is_ours=is_ours)


def test_a_good_one() -> None:
    leaf = issue("leaf", MIDDLE, names=dns("a.example", "b.example"), end=NOW + 40 * DAY)
    assert [str(finding) for finding in judged(leaf, MIDDLE)] == [
        'ok    certificate  for a.example, b.example, by "Middle", expires in 40 days (2026-07-11)',
        "ok    certificate  it comes from an authority that is trusted here",
        "ok    certificate  it is for a.example",
    ]


@pytest.mark.parametrize(("days", "text"), [(13, "expires in 13 days"), (-2, "expired 2 days ago")])
def test_one_that_ends(days: int, text: str) -> None:
    leaf = issue("leaf", ROOT, names=dns("a.example"), begin=NOW - 100 * DAY, end=NOW + days * DAY)
    found = judged(leaf, is_ours=True)
    assert (found[0].level, text in found[0].text, "send SIGHUP" in found[0].remedy) == ("warn", True, True)
    assert (found[1].level == "warn") == (days < 0)


def test_one_that_is_not_trusted() -> None:
    self_signed = issue("self", names=dns("a.example"))
    found = judged(self_signed)
    assert "by itself" in found[0].text
    assert (found[1].level, "self-signed" in found[1].text, "s2s.ca" in found[1].remedy) == ("warn", True, True)
    without_middle = judged(issue("leaf", MIDDLE, names=dns("a.example")), is_ours=True)
    assert "Put the whole chain into the certificate's file" in without_middle[1].remedy


def test_one_that_is_for_others() -> None:
    found = judged(issue("leaf", ROOT, names=dns(*(f"{n:02}.example" for n in range(12)))))
    assert found[0].text.startswith("for 00.example, ")
    assert "09.example and 2 more" in found[0].text
    assert (found[2].level, found[2].text) == ("warn", "it is not for a.example")


def test_one_without_names_and_none_at_all() -> None:
    assert "the common name does not" in judged(issue("a.example", ROOT))[0].text
    [nothing] = judged()
    assert (nothing.level, nothing.text) == ("warn", "the server showed no certificate")
