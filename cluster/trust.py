"""Whether a certificate chain comes from an authority that we trust (RFC 5280, 6), asked after the TLS handshake.

Whom the certificate is for is another question: `s2s/certificates.py` for servers, `c2s/client_certificates.py` for
clients. Decision 8 says why OpenSSL is not asked.
"""

from __future__ import annotations

import re
import ssl
import warnings
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from cluster.certificates import CertificateError

MOST_CERTIFICATES: Final = 10  # of one chain
DEPTH: Final = 6  # intermediates
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

# Towards us a peer is now client, now server, with one certificate; and public authorities stop to issue for clients.
OF_CLIENTS: Final = frozenset((ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE))
OF_SERVERS: Final = OF_CLIENTS | {ExtendedKeyUsageOID.SERVER_AUTH}


class Judgement(NamedTuple):
    """What `Authorities.judge` found. `problem` says why a chain is not trusted, "" if it is."""

    is_trusted: bool
    problem: str = ""
    is_constrained: bool = False  # an authority of the chain may only issue for some names (RFC 5280, 4.2.1.10)


class Authorities:
    """The certification authorities that are trusted. A certificate among them is trusted itself, too."""

    def __init__(
        self, certificates: Sequence[x509.Certificate], purposes: frozenset[x509.ObjectIdentifier] = OF_SERVERS
    ) -> None:
        """Trust these, with none nobody, for certificates that are for one of the purposes, or do not say for what."""
        self._store = verification.Store(list(certificates)) if certificates else None
        self._peer_policy = verification.ExtensionPolicy.permit_all().may_be_present(
            x509.ExtendedKeyUsage, _ANY, _is_for(purposes)
        )

    @classmethod
    def load(cls, files: Iterable[Path] = ()) -> Authorities:
        """Those in these PEM files, or without any those of the system. Raises CertificateError."""
        if files := tuple(files):
            return cls([certificate for file in files for certificate in read_authorities(file)])
        return cls([certificate for file in _system_files() for certificate in _read(file, is_configured=False)])

    def judge(self, chain: Sequence[bytes], now: datetime) -> Judgement:
        """Whether this chain (DER, the peer's own certificate first; the order of the rest is free) is trusted now.

        Never raises: a certificate that cannot be read, or is of a kind that we do not know, is not trusted.
        """
        if not chain:
            return Judgement(False, "there is no certificate")
        if self._store is None:
            return Judgement(False, "no certification authority is configured")
        try:
            return self._verify(self._store, parse_chain(chain), now)
        except Exception as problem:  # what the library says to odd input is not a closed list
            return Judgement(False, f"the certificate cannot be checked: {problem}")

    def _verify(self, store: verification.Store, chain: Sequence[x509.Certificate], now: datetime) -> Judgement:
        builder = verification.PolicyBuilder().store(store).time(now).max_chain_depth(DEPTH)
        builder = builder.extension_policies(ca_policy=_CA_POLICY, ee_policy=self._peer_policy)
        try:
            verified = builder.build_client_verifier().verify(chain[0], list(chain[1:]))
        except verification.VerificationError as problem:
            return Judgement(False, _explain(chain[0], now, str(problem)))
        return Judgement(True, is_constrained=any(map(_is_constrained, verified.chain[1:])))


def parse_chain(chain: Sequence[bytes]) -> list[x509.Certificate]:
    """The certificates (DER). Raises ValueError when one is none, or there are none or too many."""
    if not 0 < len(chain) <= MOST_CERTIFICATES:
        raise ValueError(f"a chain of {len(chain)} certificates")
    try:
        return [x509.load_der_x509_certificate(certificate) for certificate in chain]
    except x509.InvalidVersion as problem:
        raise ValueError(str(problem)) from problem


def read_authorities(file: Path) -> list[x509.Certificate]:
    """The certificates in a PEM file that the configuration names. Raises CertificateError."""
    return _read(file, is_configured=True)


def _is_authority(
    policy: verification.Policy, certificate: x509.Certificate, constraints: x509.BasicConstraints
) -> None:
    if not constraints.ca:
        raise ValueError("the issuer is not a certification authority")


def _may_sign(policy: verification.Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("the issuer's key may not sign certificates")


def _is_for(
    purposes: frozenset[x509.ObjectIdentifier],
) -> Callable[[verification.Policy, x509.Certificate, x509.ExtendedKeyUsage | None], None]:
    def check(policy: verification.Policy, certificate: x509.Certificate, given: x509.ExtendedKeyUsage | None) -> None:
        if given is not None and purposes.isdisjoint(given):
            raise ValueError("the certificate is not for TLS")

    return check


# The library's own profile is that of web sites: it refuses private authorities for what does not matter here. What
# RFC 5280 demands for safety is asked here or lies beneath these policies: signatures, dates, path lengths, name
# constraints, critical extensions that nobody knows.
_ANY: Final = verification.Criticality.AGNOSTIC
_CA_POLICY: Final = (
    verification.ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, _ANY, _is_authority)
    .may_be_present(x509.KeyUsage, _ANY, _may_sign)
    .may_be_present(x509.ExtendedKeyUsage, _ANY, _is_for(OF_SERVERS))
)


def _is_constrained(certificate: x509.Certificate) -> bool:
    return any(isinstance(extension.value, x509.NameConstraints) for extension in certificate.extensions)


def _explain(leaf: x509.Certificate, now: datetime, problem: str) -> str:
    """In words for an operator's log; the library's own are about candidates."""
    if now > leaf.not_valid_after_utc:
        return f"the certificate expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if now < leaf.not_valid_before_utc:
        return f"the certificate is valid only from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    if leaf.issuer == leaf.subject:
        return "the certificate is self-signed"
    if problem.endswith("all candidates exhausted with no interior errors"):
        return "no trusted authority issued the certificate, or intermediate certificates are missing"
    return f"the certificate is not valid: {problem.removeprefix('validation failed: ')}"


def _system_files() -> list[Path]:
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return [Path(paths.cafile)]
    if paths.capath:
        return sorted(Path(paths.capath).glob("*.[0-9]"))
    return []


def _read(file: Path, *, is_configured: bool) -> list[x509.Certificate]:
    """The certificates in a PEM file. Of the system's, those that the library cannot read are left out."""
    found = []
    try:
        for block in _PEM.findall(file.read_bytes()):
            try:
                with warnings.catch_warnings():  # public authorities with a serial number of 0, against RFC 5280
                    warnings.simplefilter("ignore", CryptographyDeprecationWarning)
                    found.append(x509.load_pem_x509_certificate(block))
            except ValueError:
                if is_configured:
                    raise
        if not found:
            raise ValueError("no certificate")
    except OSError as problem:
        raise CertificateError(
            file, f"cannot read the authorities: {problem.strerror}", "Check the path and who may read it."
        ) from problem
    except ValueError as problem:
        raise CertificateError(
            file, "these are not certificates in PEM", "Name a file with the authorities' certificates."
        ) from problem
    return found
