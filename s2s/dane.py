"""What TLSA records say of a certificate (DANE: RFC 6698, RFC 7671; for XMPP RFC 7673): pure.

The records come from `Resolver.tlsa` (`s2s/dns.py`), which gives secure ones only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from enum import Enum
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cluster.trust import Authorities, parse_chain

_DANE_TA: Final = 2
_DANE_EE: Final = 3
_WHOLE, _PUBLIC_KEY = 0, 1  # selectors
_EXACT: Final = 0
_HASHES: Final[dict[int, tuple[int, Callable[[bytes], bytes]]]] = {
    1: (32, lambda data: hashlib.sha256(data).digest()),
    2: (64, lambda data: hashlib.sha512(data).digest()),
}


class Tlsa(NamedTuple):
    """One TLSA record (RFC 6698, 2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes


class Verdict(Enum):
    """What the records say of a chain."""

    SILENT = "nothing: there is no record that we can use, judge as if there were no DANE"
    SERVER = "it is the server's own certificate, whatever names it has and whether it has expired (RFC 7671, 5.1)"
    AUTHORITY = "it comes from the authority named; it must also name the domain or the target (RFC 7671, 5.2)"
    MISMATCH = "it is not the one: this connection must not be used"


def judge(chain: Sequence[bytes], records: Iterable[Tlsa], now: datetime) -> Verdict:
    """What these records say of the chain that the server showed (DER, its own certificate first).

    Usages 0 and 1 count as unusable: they add nothing to a chain that is trusted, and dialback serves the others.
    """
    usable = [record for record in records if _is_usable(record)]
    if not usable:
        return Verdict.SILENT
    try:
        leaf, *others = parse_chain(chain)
    except ValueError:
        return Verdict.MISMATCH
    if any(record.usage == _DANE_EE and _matches(leaf, record) for record in usable):
        return Verdict.SERVER
    anchors = [
        certificate
        for record in usable
        if record.usage == _DANE_TA
        for certificate in (*others, *_carried(record))
        if _matches(certificate, record)
    ]
    if anchors and Authorities(anchors).judge(chain, now).is_trusted:
        return Verdict.AUTHORITY
    return Verdict.MISMATCH


def _is_usable(record: Tlsa) -> bool:
    if record.usage not in (_DANE_TA, _DANE_EE) or record.selector not in (_WHOLE, _PUBLIC_KEY):
        return False
    if record.matching == _EXACT:
        return bool(record.data)
    return record.matching in _HASHES and len(record.data) == _HASHES[record.matching][0]


def _matches(certificate: x509.Certificate, record: Tlsa) -> bool:
    try:
        selected = (
            certificate.public_bytes(Encoding.DER)
            if record.selector == _WHOLE
            else certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        )
    except Exception:  # a key of a kind that the library does not know: UnsupportedAlgorithm, ValueError
        return False
    return record.data == (selected if record.matching == _EXACT else _HASHES[record.matching][1](selected))


def _carried(record: Tlsa) -> list[x509.Certificate]:
    """The authority's certificate, where the record holds the whole of it: then the server need not send it."""
    if record.selector != _WHOLE or record.matching != _EXACT:
        return []
    try:
        return parse_chain([record.data])
    except ValueError:
        return []
