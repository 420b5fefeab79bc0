"""Certificates in files: making a self-signed one for development, reading one, and when it expires.

Which certificate is shown to whom is decided in `cluster/tls.py`. The library behind this is heavy: import this module
where it is needed, not at the start of a command.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import idna
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

VALID_DAYS: Final = 365
RENEW_DAYS: Final = 7  # a certificate with less left is made anew
SERVICES: Final = ("conference", "pubsub", "upload")  # subdomains that a domain's certificate covers as well

XMPP_ADDRESS: Final = ObjectIdentifier("1.3.6.1.5.5.7.8.5")  # id-on-xmppAddr, RFC 6120, 13.7.1.4
SRV_NAME: Final = ObjectIdentifier("1.3.6.1.5.5.7.8.7")  # id-on-dnsSRV, RFC 4985
UTF8_STRING: Final = 0x0C
IA5_STRING: Final = 0x16


class CertificateError(ValueError):
    """A certificate or key that cannot be used, told for an operator: which file, what is wrong, what to do."""

    def __init__(self, file: Path, problem: str, remedy: str) -> None:
        super().__init__(f"{file}: {problem}. {remedy}")
        self.file = file
        self.problem = problem
        self.remedy = remedy


def self_signed(domains: Collection[str], directory: Path) -> tuple[Path, Path]:
    """Certificate and key for these domains in this folder: those there if they still serve, else new ones.

    The key's file has mode 0600. Raises CertificateError when the folder or the files cannot be written.
    """
    certificate, key = directory / "self-signed.crt", directory / "self-signed.key"
    now = datetime.now(UTC)
    if _still_serves(certificate, key, domains, now):
        return certificate, key
    certificate_pem, key_pem = generate(domains, now)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Between the two the pair does not match; whoever comes then finds out and makes both again.
        _write(key, key_pem, 0o600)
        _write(certificate, certificate_pem, 0o644)
    except OSError as problem:
        raise CertificateError(
            directory, f"cannot write a certificate: {problem.strerror}", "Make the folder writable, or name another."
        ) from problem
    return certificate, key


def generate(domains: Collection[str], now: datetime) -> tuple[bytes, bytes]:
    """A self-signed certificate for these domains and their services, and its key (EC P-256), both PEM.

    It names each domain as DNS-ID, XmppAddr and SRV-ID (RFC 6120, 13.7.1.2). `now` has a time zone.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Stentor, self-signed")])
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)  # digitalSignature
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]  # towards other servers, a client
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # for clients whose clock is late
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(_alternative_names(domains)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key_pem


def read_certificate(file: Path) -> x509.Certificate:
    """The first certificate of a PEM file, which is the server's own. Raises CertificateError."""
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())[0]
    except OSError as problem:
        raise CertificateError(
            file, f"cannot read the certificate: {problem.strerror}", "Check the path and who may read it."
        ) from problem
    except ValueError as problem:
        raise CertificateError(
            file,
            "this is not a certificate in PEM",
            "Name the file with the certificate chain, the server's own certificate first.",
        ) from problem


def expiry_timestamp(file: Path) -> float:
    """When the certificate in this file expires, Unix seconds. Raises CertificateError."""
    return read_certificate(file).not_valid_after_utc.timestamp()


def dns_names(certificate: x509.Certificate) -> list[str]:
    """The certificate's DNS names, in lower case, as A-labels; some begin with "*."."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [name.lower() for name in names.get_values_for_type(x509.DNSName)]


def to_dns(domain: str) -> str:
    """A domain as DNS and TLS write it: A-labels, lower case. A wildcard stays one."""
    if domain.isascii():
        return domain.lower()
    wildcard, rest = ("*.", domain[2:]) if domain.startswith("*.") else ("", domain)
    return wildcard + idna.encode(rest, uts46=True).decode()


def der_text(der: bytes, tag: int) -> str | None:
    """The text of a DER string with this tag (X.690, 8.1); None if it is anything else."""
    if len(der) < 2 or der[0] != tag:
        return None
    length, begin = der[1], 2
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(der[2:begin], "big")
    text = der[begin:]
    if len(text) != length:
        return None
    try:
        return text.decode("ascii" if tag == IA5_STRING else "utf-8")
    except UnicodeDecodeError:
        return None


def _covered(domains: Iterable[str]) -> list[str]:
    """The domains and the services below them, in order, none twice."""
    return list(dict.fromkeys(name for domain in domains for name in (domain, *(f"{s}.{domain}" for s in SERVICES))))


def _alternative_names(domains: Collection[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName(to_dns(name)) for name in _covered(domains)]
    names += [x509.OtherName(XMPP_ADDRESS, _der(UTF8_STRING, name.encode())) for name in _covered(domains)]
    names += [_srv_name("_xmpp-client", domain) for domain in domains]
    names += [_srv_name("_xmpp-server", name) for name in _covered(domains)]
    return names


def _srv_name(service: str, domain: str) -> x509.OtherName:
    return x509.OtherName(SRV_NAME, _der(IA5_STRING, f"{service}.{to_dns(domain)}".encode()))


def _der(tag: int, value: bytes) -> bytes:
    """A DER string: tag, length, value (X.690, 8.1)."""
    if len(value) < 128:
        return bytes((tag, len(value))) + value
    length = len(value).to_bytes((len(value).bit_length() + 7) // 8, "big")
    return bytes((tag, 128 + len(length))) + length + value


def _still_serves(certificate_file: Path, key_file: Path, domains: Collection[str], now: datetime) -> bool:
    """Whether the pair in these files belongs together, is for these domains, and lasts long enough."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    except (OSError, ValueError, TypeError):  # not there, not PEM, or encrypted
        return False
    return (
        certificate.public_key() == key.public_key()
        and dns_names(certificate) == [to_dns(name) for name in _covered(domains)]
        and certificate.not_valid_after_utc - now > timedelta(days=RENEW_DAYS)
    )


def _write(file: Path, content: bytes, mode: int) -> None:
    """Write a file whole: whoever reads it sees the old content or the new."""
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
