"""Certificates for tests, right and wrong: an authority of our own, and what no authority has signed.

Written to files as foreign servers want them. The names that XMPP knows: dNSName, SRVName (RFC 4985) and
xmppAddr (RFC 6120, 13.7.1.4).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

XMPP_ADDRESS: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.5")
SRV_NAME: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.7")
_UTF8_STRING: Final = 0x0C
_IA5_STRING: Final = 0x16

_files = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key, as PEM files."""

    chain: Path  # the certificate, and those between it and the authority
    key: Path
    both: Path  # key and chain in one file

    def text(self) -> str:
        """The chain."""
        return self.chain.read_text()


class Authority:
    """Signs certificates; `file` is its own, for those who are to trust it. `parent` makes it an intermediate one."""

    def __init__(self, directory: Path, name: str = "Test Authority", parent: Authority | None = None) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name(name)
        issuer, key = (self._subject, self._key) if parent is None else (parent._subject, parent._key)
        builder = _builder(self._subject, issuer, self._key, valid_days=(-1, 30))
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
        )
        builder = builder.add_extension(_signed_by(key), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        certificate = builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())
        self._chain: str = "" if parent is None else _pem(certificate) + parent._chain
        self.file = directory / f"authority-{next(_files)}.crt"
        self.file.write_text(_pem(certificate))

    def issue(
        self,
        *domains: str,
        xmpp: Sequence[str] = (),
        srv: Sequence[str] = (),
        expired: bool = False,
        client: bool = True,
    ) -> Certificate:
        """A certificate for these domains (dNSName; `*.` for a wildcard).

        `xmpp`: xmppAddr names (with one, ejabberd 23.01 fails as a server at SASL EXTERNAL). `srv`: SRVNames, such as
        `_xmpp-server.a.example`. Without `client` its extended key usage is serverAuth alone, as public authorities
        issue it today.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        label = (*domains, *xmpp, *srv)[0]
        builder = _builder(_name(label), self._subject, key, valid_days=(-20, -10) if expired else (-1, 30))
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if client else [])]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(_signed_by(self._key), critical=False)
        certificate = _named(builder, domains, xmpp, srv).sign(self._key, hashes.SHA256())
        return _write(self._directory, label, key, _pem(certificate) + self._chain)


def self_signed(directory: Path, *domains: str) -> Certificate:
    """A certificate that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(domains[0])
    certificate = _named(_builder(name, name, key, valid_days=(-1, 30)), domains, (), ()).sign(key, hashes.SHA256())
    return _write(directory, domains[0], key, _pem(certificate))


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, valid_days: tuple[int, int]
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=valid_days[0]))
        .not_valid_after(now + timedelta(days=valid_days[1]))
    )


def _signed_by(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _named(
    builder: x509.CertificateBuilder, domains: Sequence[str], xmpp: Sequence[str], srv: Sequence[str]
) -> x509.CertificateBuilder:
    names: list[x509.GeneralName] = [x509.DNSName(domain) for domain in domains]
    names += [x509.OtherName(XMPP_ADDRESS, _der(_UTF8_STRING, address.encode())) for address in xmpp]
    names += [x509.OtherName(SRV_NAME, _der(_IA5_STRING, name.encode("ascii"))) for name in srv]
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    return builder.add_extension(x509.SubjectAlternativeName(names), critical=False)


def _der(tag: int, value: bytes) -> bytes:
    assert len(value) < 128, "the short form of a length"
    return bytes((tag, len(value))) + value


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _write(directory: Path, label: str, key: ec.EllipticCurvePrivateKey, chain: str) -> Certificate:
    stem = f"{label.replace('*', 'any')}-{next(_files)}"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    made = Certificate(directory / f"{stem}.crt", directory / f"{stem}.key", directory / f"{stem}.pem")
    made.chain.write_text(chain)
    made.key.write_text(private)
    made.both.write_text(private + chain)
    return made
