"""Which chains are trusted (cluster/trust.py): what RFC 5280 demands for safety, and what private authorities get wrong."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from cluster.certificates import CertificateError
from cluster.trust import MOST_CERTIFICATES, Authorities, Judgement
from tests.support.pki import DAY, NOW, Issued, dns, issue

ROOT = issue("root", ca=True)
NAMES = dns("a.example")
SIGNS_ONLY = x509.KeyUsage(True, False, False, False, False, False, False, False, False)


def judge(*chain: Issued, roots: tuple[Issued, ...] = (ROOT,)) -> Judgement:
    return Authorities([root.certificate for root in roots]).judge([one.der for one in chain], NOW)


def test_a_chain_from_an_authority_is_trusted() -> None:
    middle = issue("middle", ROOT, ca=True)
    assert judge(issue("leaf", ROOT, names=NAMES)) == Judgement(True)
    assert judge(issue("leaf", middle, names=NAMES), middle) == Judgement(True)


def test_the_order_of_intermediates_and_what_else_is_sent_do_not_matter() -> None:
    first = issue("first", ROOT, ca=True)
    second = issue("second", first, ca=True)
    leaf = issue("leaf", second, names=NAMES)
    assert judge(leaf, first, issue("stranger", ca=True), second, ROOT).is_trusted


def test_names_are_not_asked_for_here() -> None:
    assert judge(issue("leaf", ROOT)).is_trusted


@pytest.mark.parametrize("purpose", ["SERVER_AUTH", "CLIENT_AUTH", "ANY_EXTENDED_KEY_USAGE"])
def test_a_certificate_for_one_side_of_tls_serves_both(purpose: str) -> None:
    usage = x509.ExtendedKeyUsage([getattr(ExtendedKeyUsageOID, purpose)])
    assert judge(issue("leaf", ROOT, names=NAMES, extensions=[(usage, False)])).is_trusted


def test_a_trusted_certificate_is_trusted_itself() -> None:
    own = issue("own", names=NAMES)
    assert judge(own, roots=(own,)).is_trusted
    assert judge(own) == Judgement(False, "the certificate is self-signed")


def test_an_authority_that_may_issue_for_some_names_only_is_told_of() -> None:
    narrow = issue("narrow", ROOT, ca=True, extensions=[(x509.NameConstraints(dns("ok.example"), None), True)])
    assert judge(issue("leaf", narrow, names=dns("chat.ok.example")), narrow) == Judgement(True, is_constrained=True)
    refused = judge(issue("leaf", narrow, names=dns("bank.example")), narrow)
    assert not refused.is_trusted
    assert "name constraints" in refused.problem


@pytest.mark.parametrize(
    ("ca", "extensions"),
    [(False, []), (None, []), (True, [(SIGNS_ONLY, True)]), (True, [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)])],
    ids=["not an authority", "no constraints", "key may not sign", "authority for mail"],
)  # fmt: skip
def test_not_everybody_with_a_certificate_is_an_authority(
    ca: bool | None, extensions: list[tuple[x509.ExtensionType, bool]]
) -> None:
    middle = issue("middle", ROOT, ca=ca, extensions=extensions)
    assert judge(middle).is_trusted is (ca is not True or extensions[0][0] is SIGNS_ONLY)
    assert not judge(issue("leaf", middle, names=NAMES), middle).is_trusted


def test_the_length_of_the_path_is_bounded() -> None:
    short = issue("short", ca=True, path_length=0)
    middle = issue("middle", short, ca=True)
    assert judge(issue("leaf", short), roots=(short,)).is_trusted
    assert not judge(issue("leaf", middle), middle, roots=(short,)).is_trusted


def test_a_key_that_signed_nothing_proves_nothing() -> None:
    forged = issue("root", ca=True)  # the right name, another key
    assert not judge(issue("leaf", forged, names=NAMES)).is_trusted
    assert not judge(issue("leaf", forged, names=NAMES), forged).is_trusted


@pytest.mark.parametrize(
    ("begin", "end", "problem"),
    [
        (NOW - 9 * DAY, NOW - DAY, "the certificate expired at 2026-05-31 00:00 UTC"),
        (NOW + DAY, NOW + 9 * DAY, "the certificate is valid only from 2026-06-02 00:00 UTC"),
    ],
)
def test_the_time_counts(begin: datetime, end: datetime, problem: str) -> None:
    assert judge(issue("leaf", ROOT, names=NAMES, begin=begin, end=end)) == Judgement(False, problem)


def test_the_time_of_the_authorities_counts() -> None:
    old = issue("old", ROOT, ca=True, begin=NOW - 9 * DAY, end=NOW - DAY)
    assert not judge(issue("leaf", old, names=NAMES), old).is_trusted


def test_unknown_critical_extensions_are_refused() -> None:
    extension = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    assert judge(issue("leaf", ROOT, extensions=[(extension, False)])).is_trusted
    assert not judge(issue("leaf", ROOT, extensions=[(extension, True)])).is_trusted


def test_a_certificate_for_mail_is_not_for_tls() -> None:
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
    judgement = judge(issue("leaf", ROOT, names=NAMES, extensions=[(usage, False)]))
    assert not judgement.is_trusted
    assert "the certificate is not for TLS" in judgement.problem


def test_missing_intermediates_are_named_as_the_likely_cause() -> None:
    middle = issue("middle", ROOT, ca=True)
    assert judge(issue("leaf", middle)).problem == (
        "no trusted authority issued the certificate, or intermediate certificates are missing"
    )


@pytest.mark.parametrize("chain", [[], [b""], [b"\x30\x80"], [ROOT.der[:-1]], [ROOT.der + b"\0"], [ROOT.der, b"x"]])
def test_what_is_no_certificate_is_not_trusted(chain: list[bytes]) -> None:
    judgement = Authorities([ROOT.certificate]).judge(chain, NOW)
    assert not judgement.is_trusted
    assert judgement.problem


def test_a_chain_without_end_is_not_looked_at() -> None:
    leaf = issue("leaf", ROOT)
    assert judge(leaf, *[ROOT] * (MOST_CERTIFICATES - 1)).is_trusted
    assert judge(leaf, *[ROOT] * MOST_CERTIFICATES).problem == (
        "the certificate cannot be checked: a chain of 11 certificates"
    )


def test_every_byte_of_a_certificate_counts() -> None:
    """Whatever is changed, nothing raises; and of what was signed, nothing can be changed."""
    authorities, leaf = Authorities([ROOT.certificate]), issue("leaf", ROOT, names=NAMES)
    begin = leaf.der.index(leaf.certificate.tbs_certificate_bytes)
    signed = range(begin, begin + len(leaf.certificate.tbs_certificate_bytes))
    assert authorities.judge([leaf.der], NOW).is_trusted
    for index in range(len(leaf.der)):
        changed = leaf.der[:index] + bytes([leaf.der[index] ^ 1]) + leaf.der[index + 1 :]
        assert not (authorities.judge([changed], NOW).is_trusted and index in signed)


def test_without_authorities_nobody_is_trusted() -> None:
    assert Authorities([]).judge([ROOT.der], NOW).problem == "no certification authority is configured"


def test_authorities_are_read_from_files(tmp_path: Path) -> None:
    ca, other = trustme.CA(), trustme.CA()
    file = tmp_path / "authorities.pem"
    file.write_bytes(ca.cert_pem.bytes() + ROOT.pem)
    chain = [
        ssl.PEM_cert_to_DER_cert(pem.bytes().decode()) for pem in ca.create_child_ca().issue_cert("a").cert_chain_pems
    ]
    now = datetime.now(UTC)
    assert Authorities.load([file]).judge(chain, now).is_trusted
    file.write_bytes(other.cert_pem.bytes())
    assert not Authorities.load([file]).judge(chain, now).is_trusted


def test_the_systems_authorities_are_the_default() -> None:
    if not ssl.create_default_context().get_ca_certs():
        pytest.skip("this system has no authorities")
    assert Authorities.load().judge([ROOT.der], NOW).problem == "the certificate is self-signed"


@pytest.mark.parametrize(("content", "problem"), [(None, "cannot read"), (b"junk", "not certificates in PEM")])
def test_files_that_cannot_be_used_are_told_of(tmp_path: Path, content: bytes | None, problem: str) -> None:
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CertificateError, match=problem):
        Authorities.load([file])
