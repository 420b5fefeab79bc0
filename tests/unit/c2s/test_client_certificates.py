"""Whose account a client's certificate is for (c2s/client_certificates.py)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from structlog.testing import capture_logs

from c2s.client_certificates import ClientCertificates
from cluster.certificates import UTF8_STRING, XMPP_ADDRESS, CertificateError
from cluster.config import ClientAuthority
from tests.support.pki import DAY, NOW, Issued, dns, issue, raw_names

DOMAIN = "example.org"
ROOT = issue("root", ca=True)
MIDDLE = issue("middle", ROOT, ca=True)
STRANGER = issue("stranger", ca=True)


def xmpp(*addresses: str) -> list[x509.GeneralName]:
    return [x509.OtherName(XMPP_ADDRESS, bytes((UTF8_STRING, len(a.encode()))) + a.encode()) for a in addresses]


def mail(*addresses: str) -> list[x509.GeneralName]:
    return [x509.RFC822Name(address) for address in addresses]


def client(*addresses: str, issuer: Issued = ROOT) -> Issued:
    return issue("client", issuer, names=xmpp(*addresses))


def revocations(
    *revoked: Issued, issuer: Issued = ROOT, key: Issued | None = None, end: timedelta = DAY
) -> x509.CertificateRevocationList:
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    builder = builder.last_update(NOW - 2 * DAY).next_update(NOW + end)
    for of in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(of.certificate.serial_number).revocation_date(NOW - DAY)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign((key or issuer).key, hashes.SHA256())


class Files:
    """The files of one domain, and what comes of them."""

    def __init__(self, directory: Path) -> None:
        self.now = NOW
        self.ca, self.crl = directory / "ca.pem", directory / "crl.pem"
        self.ca.write_bytes(ROOT.pem)

    def revoke(self, *lists: x509.CertificateRevocationList, encoding: Encoding = Encoding.PEM) -> None:
        self.crl.write_bytes(b"".join(found.public_bytes(encoding) for found in lists))

    def certificates(self, **changes: object) -> ClientCertificates:
        chosen = ClientAuthority.model_validate({"ca": self.ca, **changes})
        return ClientCertificates({DOMAIN: chosen}, lambda: self.now)

    def names(self, shown: Iterable[Issued], domain: str = DOMAIN, **changes: object) -> list[str]:
        found = self.certificates(**changes).accounts(domain, [certificate.der for certificate in shown])
        return [str(jid) for jid in found]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_the_addresses_of_the_domain_are_its_accounts(files: Files) -> None:
    shown = client("Romeo@example.org", "juliet@example.org", "romeo@example.org", "romeo@capulet.example")
    assert files.names([shown]) == ["romeo@example.org", "juliet@example.org"]
    assert files.names([shown], "capulet.example") == [], "another domain has other authorities, or none"


@pytest.mark.parametrize("address", ["example.org", "romeo@example.org/phone", "@example.org", "a b@example.org", ""])
def test_what_is_no_account_names_nobody(files: Files, address: str) -> None:
    assert files.names([client(address)]) == []


def test_other_names_name_nobody(files: Files) -> None:
    assert files.names([issue("romeo@example.org", ROOT, names=[*dns(DOMAIN), *mail("romeo@example.org")])]) == []
    assert files.names([issue("client", ROOT, extensions=[raw_names(b"\x30\x03\xa0\x01")])]) == []
    odd = x509.OtherName(XMPP_ADDRESS, b"\x16\x11romeo@example.org")
    assert files.names([issue("client", ROOT, names=[odd])]) == [], "it is a UTF8String (RFC 6120, 13.7.1.4)"


def test_mail_addresses_count_where_that_is_said(files: Files) -> None:
    shown = issue(
        "client", ROOT, names=[*mail("Romeo@example.org", "r@elsewhere.example"), *xmpp("juliet@example.org")]
    )
    assert files.names([shown], names="email") == ["romeo@example.org"]


def test_intermediates_are_shown(files: Files) -> None:
    shown = client("romeo@example.org", issuer=MIDDLE)
    assert files.names([shown, MIDDLE]) == ["romeo@example.org"]
    assert files.names([shown]) == []


def test_who_is_not_trusted_names_nobody(files: Files) -> None:
    names = xmpp("romeo@example.org")
    to_sign = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    for shown in (
        client("romeo@example.org", issuer=STRANGER),
        issue("self", names=names),
        issue("late", ROOT, names=names, end=NOW - timedelta(hours=1), begin=NOW - DAY),
        issue("early", ROOT, names=names, begin=NOW + DAY),
        issue("server", ROOT, names=names, extensions=[(to_sign, False)]),
    ):
        assert files.names([shown]) == []
    assert files.names([]) == []


def test_a_certificate_for_clients_counts(files: Files) -> None:
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    shown = issue("client", ROOT, names=xmpp("romeo@example.org"), extensions=[(usage, False)])
    assert files.names([shown]) == ["romeo@example.org"]


def test_one_expires_while_the_server_runs(files: Files) -> None:
    certificates, shown = files.certificates(), client("romeo@example.org")
    assert certificates.accounts(DOMAIN, [shown.der])
    files.now = NOW + 31 * DAY
    with capture_logs() as lines:
        assert not certificates.accounts(DOMAIN, [shown.der])
    assert [(line["event"], line["log_level"]) for line in lines] == [("client_certificate_refused", "debug")]
    assert "expired" in lines[0]["problem"]


def test_an_authority_for_some_names_only_is_not_believed_these(files: Files) -> None:
    """Constraints on DNS names say nothing of addresses (RFC 5280, 4.2.1.10)."""
    constraint = x509.NameConstraints([x509.DNSName("example.org")], None)
    middle = issue("constrained", ROOT, ca=True, extensions=[(constraint, True)])
    assert files.names([client("romeo@example.org", issuer=middle), middle]) == []


# --- revocation


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_what_is_revoked_names_nobody(files: Files, encoding: Encoding) -> None:
    bad, good = client("romeo@example.org"), client("juliet@example.org")
    files.revoke(revocations(bad), encoding=encoding)
    assert files.names([bad], crl=files.crl) == []
    assert files.names([good], crl=files.crl) == ["juliet@example.org"]
    assert files.names([bad]) == ["romeo@example.org"], "nobody has asked for it"


def test_a_list_that_is_out_of_date_or_missing_lets_nobody_in(files: Files) -> None:
    files.revoke(revocations(end=-timedelta(hours=1)))
    assert files.names([client("romeo@example.org")], crl=files.crl) == []
    files.ca.write_bytes(ROOT.pem + MIDDLE.pem)
    files.revoke(revocations())
    assert files.names([client("romeo@example.org", issuer=MIDDLE)], crl=files.crl) == []
    files.revoke(revocations(), revocations(issuer=MIDDLE))
    assert files.names([client("romeo@example.org", issuer=MIDDLE)], crl=files.crl) == ["romeo@example.org"]


def test_files_that_change_count_at_once(files: Files) -> None:
    shown = client("romeo@example.org")
    files.revoke(revocations())
    certificates = files.certificates(crl=files.crl)
    assert certificates.accounts(DOMAIN, [shown.der])
    files.revoke(revocations(shown))
    certificates.renew(force=False)
    assert not certificates.accounts(DOMAIN, [shown.der])
    files.crl.write_bytes(b"half of it")
    with capture_logs() as lines:
        certificates.renew(force=False)
        certificates.renew(force=False)
    assert [line["event"] for line in lines] == ["client_authorities_not_reloaded"], "said once"
    assert not certificates.accounts(DOMAIN, [shown.der]), "what was read before stays in force"


# --- what is wrong with the files


def test_the_operator_is_told_what_is_wrong(files: Files) -> None:
    files.revoke(revocations(key=STRANGER))
    with pytest.raises(CertificateError, match="the list of CN=root is not signed by an authority of ca"):
        files.certificates(crl=files.crl)
    files.revoke(revocations(issuer=STRANGER))
    with pytest.raises(CertificateError, match="the list of CN=stranger is not signed"):
        files.certificates(crl=files.crl)
    files.crl.write_bytes(b"no list")
    with pytest.raises(CertificateError, match="this is no revocation list"):
        files.certificates(crl=files.crl)
    with pytest.raises(CertificateError, match="cannot read the revocation list"):
        files.certificates(crl=files.crl.with_name("missing"))
    with pytest.raises(CertificateError, match="these are not certificates in PEM"):
        files.certificates(ca=files.crl)
