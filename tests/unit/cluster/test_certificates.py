"""Self-signed certificates and what is read from certificate files (cluster/certificates.py)."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cluster.certificates import (
    SRV_NAME,
    XMPP_ADDRESS,
    CertificateError,
    dns_names,
    expiry_timestamp,
    generate,
    read_certificate,
    self_signed,
)
from tests.support.tls import handshake, write_pair

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def generated(*domains: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(generate(domains, NOW)[0])


def names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def other_names(certificate: x509.Certificate, kind: x509.ObjectIdentifier) -> list[bytes]:
    return [name.value for name in names(certificate).get_values_for_type(x509.OtherName) if name.type_id == kind]


def test_a_domain_and_its_services_are_named_in_each_way() -> None:
    certificate = generated("example.org")
    covered = ["example.org", "conference.example.org", "pubsub.example.org", "upload.example.org"]
    assert names(certificate).get_values_for_type(x509.DNSName) == covered
    addresses = [bytes((0x0C, len(name))) + name.encode() for name in covered]
    assert other_names(certificate, XMPP_ADDRESS) == addresses
    services = ["_xmpp-client.example.org", *(f"_xmpp-server.{name}" for name in covered)]
    assert other_names(certificate, SRV_NAME) == [bytes((0x16, len(name))) + name.encode() for name in services]


def test_names_beyond_ascii_are_a_labels_in_dns_and_u_labels_in_jids() -> None:
    certificate = generated("b\u00fccher.example")
    assert dns_names(certificate)[:2] == ["xn--bcher-kva.example", "conference.xn--bcher-kva.example"]
    assert other_names(certificate, XMPP_ADDRESS)[0] == b"\x0c\x0f" + "b\u00fccher.example".encode()
    assert other_names(certificate, SRV_NAME)[0] == b"\x16\x22_xmpp-client.xn--bcher-kva.example"


def test_long_names_have_long_lengths() -> None:
    domain = ".".join(["x" * 60] * 4)
    assert other_names(generated(domain), XMPP_ADDRESS)[0] == b"\x0c\x81\xf3" + domain.encode()


def test_it_is_a_server_certificate_with_an_elliptic_key() -> None:
    certificate = generated("example.org")
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    certificate.verify_directly_issued_by(certificate)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    assert certificate.not_valid_after_utc == NOW + timedelta(days=365)


def test_a_client_that_trusts_it_connects(tmp_path: Path) -> None:
    certificate, key = self_signed(["example.org", "example.net"], tmp_path)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(certificate, key)
    client.load_verify_locations(certificate)
    for name in ("example.org", "conference.example.net"):
        handshake(server, client, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client, "example.com")


def test_only_the_owner_reads_the_key(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "tls"
    certificate, key = self_signed(["example.org"], directory)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert sorted(directory.iterdir()) == sorted([certificate, key]), "no temporary file is left"


def test_it_is_kept_while_it_serves(tmp_path: Path) -> None:
    certificate, key = self_signed(["example.org"], tmp_path)
    before = certificate.read_bytes(), key.read_bytes()
    assert self_signed(["example.org"], tmp_path) == (certificate, key)
    assert (certificate.read_bytes(), key.read_bytes()) == before


def spoil_domains(certificate: Path, key: Path) -> None:
    _write(certificate, key, generate(["other.example"], datetime.now(UTC)))


def spoil_date(certificate: Path, key: Path) -> None:
    _write(certificate, key, generate(["example.org"], datetime.now(UTC) - timedelta(days=365 - 6)))


def spoil_key(certificate: Path, key: Path) -> None:
    key.write_bytes(generate(["example.org"], datetime.now(UTC))[1])


def spoil_file(certificate: Path, key: Path) -> None:
    certificate.write_text("garbage")


def remove_key(certificate: Path, key: Path) -> None:
    key.unlink()


def encrypt_key(certificate: Path, key: Path) -> None:
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )


def _write(certificate: Path, key: Path, pair: tuple[bytes, bytes]) -> None:
    certificate.write_bytes(pair[0])
    key.write_bytes(pair[1])


@pytest.mark.parametrize("spoil", [spoil_domains, spoil_date, spoil_key, spoil_file, remove_key, encrypt_key])
def test_it_is_made_anew_when_it_does_not_serve(tmp_path: Path, spoil: object) -> None:
    assert callable(spoil)
    certificate, key = self_signed(["example.org"], tmp_path)
    spoil(certificate, key)
    spoiled = certificate.read_bytes()
    assert self_signed(["example.org"], tmp_path) == (certificate, key)
    assert certificate.read_bytes() != spoiled
    assert dns_names(read_certificate(certificate))[0] == "example.org"
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    assert expiry_timestamp(certificate) > (datetime.now(UTC) + timedelta(days=300)).timestamp()


def test_a_folder_that_cannot_be_one_is_told_with_a_remedy(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(CertificateError, match="Make the folder writable, or name another") as failure:
        self_signed(["example.org"], file / "tls")
    assert failure.value.file == file / "tls"


def test_expiry_is_that_of_the_first_certificate(tmp_path: Path) -> None:
    moment = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
    leaf = trustme.CA().create_child_ca().issue_cert("example.org", not_after=moment)
    chain, _ = write_pair(tmp_path, "chain", leaf)
    assert chain.read_text().count("BEGIN CERTIFICATE") == 2
    assert expiry_timestamp(chain) == moment.timestamp()


@pytest.mark.parametrize("content", ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_file_that_is_no_certificate_is_told_with_a_remedy(tmp_path: Path, content: str) -> None:
    file = tmp_path / "chain.crt"
    file.write_text(content)
    with pytest.raises(CertificateError, match=r"chain\.crt: this is not a certificate in PEM\. Name the file"):
        expiry_timestamp(file)


def test_a_file_that_is_not_there_is_told_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"No such file or directory\. Check the path"):
        expiry_timestamp(tmp_path / "missing.crt")
