"""The test authority's certificates are as right, and as wrong, as they are said to be: OpenSSL judges."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.peers.ca import SRV_NAME, XMPP_ADDRESS, Authority, Certificate, self_signed
from tests.support.tls import handshake


def verify(certificate: Certificate, trusted: Path, name: str) -> None:
    """A client that trusts this file connects to this name. Raises ssl.SSLError."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.both)
    client = ssl.create_default_context(cafile=str(trusted))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    handshake(server, client, name)


def test_an_issued_certificate_is_good_for_its_names_alone(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("a.example", "*.b.example")
    verify(certificate, authority.file, "a.example")
    verify(certificate, authority.file, "conference.b.example")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        verify(certificate, authority.file, "c.example")
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        verify(certificate, Authority(tmp_path, "Another").file, "a.example")


def test_an_intermediate_authority_is_sent_along(tmp_path: Path) -> None:
    root = Authority(tmp_path)
    verify(Authority(tmp_path, "Between", parent=root).issue("a.example"), root.file, "a.example")


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        verify(authority.issue("a.example", expired=True), authority.file, "a.example")


def test_a_self_signed_certificate_is_trusted_by_who_knows_it(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path, "a.example")
    with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"):
        verify(certificate, Authority(tmp_path).file, "a.example")
    client = ssl.create_default_context(cafile=str(certificate.chain))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.chain, certificate.key)
    handshake(server, client, "a.example")


def test_names_of_xmpp(tmp_path: Path) -> None:
    made = Authority(tmp_path).issue(xmpp=["a.example"], srv=["_xmpp-server.a.example"], client=False)
    certificate = x509.load_pem_x509_certificate(made.chain.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.OtherName) == [
        x509.OtherName(XMPP_ADDRESS, b"\x0c\x09a.example"),
        x509.OtherName(SRV_NAME, b"\x16\x16_xmpp-server.a.example"),
    ]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
