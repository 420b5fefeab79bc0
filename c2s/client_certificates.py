"""Whose accounts a client may sign in to by the certificate that it has shown (SASL EXTERNAL; RFC 6120, 6.3.4 and
13.7.1.2; XEP-0178, 2). Which authority may name the accounts of a domain is a setting of that domain.

The handshake has proved that the client holds the key, and nothing more (`cluster/any_certificate.py`): everything
else is asked here. A certificate that is not accepted is as none: the client signs in by other ways.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from cluster import logs
from cluster.certificates import UTF8_STRING, XMPP_ADDRESS, CertificateError, der_text
from cluster.config import ClientAuthority
from cluster.tls import LOOK_S, stamp
from cluster.trust import OF_CLIENTS, Authorities, read_authorities
from xmpp.errors import JidError
from xmpp.jid import JID

log = logs.get_logger()

ADDRESSES: Final = 20  # of one certificate that are looked at

_CRL: Final = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


class ClientCertificates:
    """The authorities of all domains that have some, read again when their files change."""

    def __init__(
        self, settings: Mapping[str, ClientAuthority], now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """By domain. Raises CertificateError."""
        self._settings = settings
        self._now = now
        self._complained = ""
        self._seen = stamp(self._files())
        self._judges = self._load()

    def __bool__(self) -> bool:
        return bool(self._settings)

    def accounts(self, domain: str, chain: Sequence[bytes]) -> tuple[JID, ...]:
        """The accounts of this domain that the certificate names, as of now; `chain` is DER, the client's own first."""
        judge = self._judges.get(domain)
        if judge is None or not chain:
            return ()
        problem, addresses = judge.judge(chain, self._now())
        found = tuple(address for address in addresses if address.domain == domain)
        if not found:
            problem = problem or "it names no account of the domain"
            log.debug("client_certificate_refused", local=domain, problem=problem)
        return found

    def renew(self, *, force: bool = True) -> None:
        """Read the files again if any has changed, or if forced to. Where they cannot be used, what was read before
        stays in force."""
        seen = stamp(self._files())
        if seen == self._seen and not force:
            return
        try:
            self._judges = self._load()
        except CertificateError as problem:
            if force or str(problem) != self._complained:
                self._complained = str(problem)
                log.warning(
                    "client_authorities_not_reloaded", path=str(problem.file), problem=problem.problem,
                    remedy=f"{problem.remedy} Until then those of before count.",
                )  # fmt: skip
            return
        self._seen, self._complained = seen, ""
        log.info("client_authorities_reloaded", count=len(self._judges))

    async def follow(self, every_s: float = LOOK_S) -> None:
        """Look at the files now and then, for ever."""
        while True:
            await asyncio.sleep(every_s)
            self.renew(force=False)

    def _files(self) -> Iterator[Path]:
        for chosen in self._settings.values():
            yield chosen.ca
            if chosen.crl is not None:
                yield chosen.crl

    def _load(self) -> dict[str, _Judge]:
        return {domain: _Judge(chosen) for domain, chosen in self._settings.items()}


class _Judge:
    """The authorities of one domain."""

    def __init__(self, chosen: ClientAuthority) -> None:
        certificates = read_authorities(chosen.ca)
        self._authorities = Authorities(certificates, OF_CLIENTS)
        self._lists = None if chosen.crl is None else read_revocations(chosen.crl, certificates)
        self._are_mails = chosen.names == "email"

    def judge(self, chain: Sequence[bytes], now: datetime) -> tuple[str, tuple[JID, ...]]:
        """Why the certificate is not accepted, "" if it is; and the bare JIDs that it names."""
        found = self._authorities.judge(chain, now)
        if not found.is_trusted:
            return found.problem, ()
        if found.is_constrained:
            # Constraints on other kinds of names say nothing of these (RFC 5280, 4.2.1.10), so these are not believed.
            return "an authority of its chain may issue for some names only", ()
        leaf = x509.load_der_x509_certificate(chain[0])
        if self._lists is not None and (problem := revocation(leaf, self._lists, now)):
            return problem, ()
        return "", addresses_of(leaf, are_mails=self._are_mails)


def addresses_of(certificate: x509.Certificate, *, are_mails: bool = False) -> tuple[JID, ...]:
    """The bare JIDs of users in a certificate, each once: as id-on-xmppAddr, or else its e-mail addresses."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if are_mails:
            texts: list[str | None] = list(names.get_values_for_type(x509.RFC822Name))
        else:
            others = names.get_values_for_type(x509.OtherName)
            texts = [der_text(other.value, UTF8_STRING) for other in others if other.type_id == XMPP_ADDRESS]
    except Exception:  # what the library says to malformed extensions is not a closed list of exceptions
        return ()
    found = (_bare_jid(text) for text in texts[:ADDRESSES] if text is not None)
    return tuple(dict.fromkeys(jid for jid in found if jid is not None))


def _bare_jid(text: str) -> JID | None:
    local, _, domain = text.partition("@")
    try:
        jid = JID.of(local, domain)
    except JidError:
        return None
    return jid if jid.local else None


# --- revocation (RFC 5280, 5 and 6.3)


def revocation(certificate: x509.Certificate, lists: Sequence[x509.CertificateRevocationList], now: datetime) -> str:
    """Why a certificate is revoked, or not known not to be; "": it is good. Its issuer's list has to be there, and up
    to date."""
    of_issuer = [found for found in lists if found.issuer == certificate.issuer]
    if not of_issuer:
        return "there is no revocation list of its issuer"
    if any(found.get_revoked_certificate_by_serial_number(certificate.serial_number) for found in of_issuer):
        return "the certificate is revoked"
    if not any(found.next_update_utc is None or now <= found.next_update_utc for found in of_issuer):
        return "the revocation list of its issuer is out of date"
    return ""


def read_revocations(file: Path, authorities: Sequence[x509.Certificate]) -> list[x509.CertificateRevocationList]:
    """The lists in a file, PEM (any number) or DER, each signed by one of the authorities. Raises CertificateError."""
    try:
        content = file.read_bytes()
        blocks = _CRL.findall(content)
        found = [x509.load_pem_x509_crl(block) for block in blocks] if blocks else [x509.load_der_x509_crl(content)]
    except OSError as problem:
        raise CertificateError(
            file, f"cannot read the revocation list: {problem.strerror}", "Check the path and who may read it."
        ) from problem
    except ValueError as problem:
        raise CertificateError(
            file, "this is no revocation list", "Name a file with lists in PEM, or one in DER."
        ) from problem
    for revocations in found:
        if not any(_has_signed(authority, revocations) for authority in authorities):
            raise CertificateError(
                file,
                f"the list of {revocations.issuer.rfc4514_string() or 'nobody'} is not signed by an authority of ca",
                "Name the list of the authority whose certificates clients have, and that authority in ca.",
            )
    return found


def _has_signed(authority: x509.Certificate, revocations: x509.CertificateRevocationList) -> bool:
    if authority.subject != revocations.issuer:
        return False
    try:
        return revocations.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # raises for other keys
    except Exception:  # an algorithm that the library does not know
        return False
