"""Who the other server is, by its certificate (RFC 6120, 13.7; RFC 9525; XEP-0178): values only, no I/O.

peer = identify(chain_of(ssl_object), authorities, now)      # chain_of: cluster/tls.py; authorities: cluster/trust.py
peer.proves("example.org")     # trusted, and for this domain: SASL EXTERNAL may succeed
peer.names.cover(domain)       # for this domain, whoever says so: with POSH or DANE, which trust by other means
peer.problem                   # why it is not trusted, for the log; "" if it is
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from cryptography import x509

from cluster.certificates import IA5_STRING, SRV_NAME, UTF8_STRING, XMPP_ADDRESS, der_text
from cluster.trust import Authorities, parse_chain
from s2s.domains import ip_literal, to_ascii
from xmpp.errors import JidError
from xmpp.jid import JID

_SERVICES: Final = ("_xmpp-server", "_xmpps-server")


class Names(NamedTuple):
    """The names in a certificate that can stand for an XMPP domain. The common name is none (RFC 9525, 2)."""

    dns: frozenset[str] = frozenset()  # A-labels, lower case; some begin with "*."
    xmpp: frozenset[str] = frozenset()  # prepared domains, from id-on-xmppAddr (RFC 6120, 13.7.1.4)
    srv: frozenset[str] = frozenset()  # A-labels, lower case, from id-on-dnsSRV for servers (RFC 4985)
    addresses: frozenset[str] = frozenset()

    def cover(self, domain: str) -> bool:
        """Whether one of them is this domain: that of a JID, in U-labels or A-labels, or an IP literal."""
        if (address := ip_literal(domain)) is not None:
            return address in self.addresses
        prepared = _prepared(domain)
        if prepared is None:
            return False
        try:
            name = to_ascii(domain)
        except ValueError:
            return prepared in self.xmpp
        # RFC 9525, 6.3: a wildcard stands for exactly one label, the left-most.
        _, dot, parent = name.partition(".")
        return prepared in self.xmpp or name in self.srv or name in self.dns or bool(dot and f"*.{parent}" in self.dns)


class PeerIdentity(NamedTuple):
    """What a peer's certificate says, and whether to believe it."""

    chain: tuple[bytes, ...]  # DER, the peer's own certificate first; empty if it showed none
    is_trusted: bool
    problem: str
    names: Names

    def proves(self, domain: str) -> bool:
        """Whether the peer is the server of this domain."""
        return self.is_trusted and self.names.cover(domain)


def identify(chain: Sequence[bytes], authorities: Authorities, now: datetime) -> PeerIdentity:
    """Judge the chain that a peer showed in a handshake in which it proved to hold the key. Never raises."""
    judgement = authorities.judge(chain, now)
    names = names_of(chain[0]) if chain else Names()
    if judgement.is_constrained:
        # A constraint on DNS names says nothing of the other kinds (RFC 5280, 4.2.1.10), so those are not believed.
        names = Names(names.dns, addresses=names.addresses)
    return PeerIdentity(tuple(chain), judgement.is_trusted, judgement.problem, names)


def names_of(certificate: bytes) -> Names:
    """The names in a certificate (DER). One that cannot be read, or is malformed, has none."""
    try:
        [parsed] = parse_chain([certificate])
        alternatives = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        others = alternatives.get_values_for_type(x509.OtherName)
        return Names(
            frozenset(filter(None, map(_dns_id, alternatives.get_values_for_type(x509.DNSName)))),
            frozenset(filter(None, (_xmpp_addr(o.value) for o in others if o.type_id == XMPP_ADDRESS))),
            frozenset(filter(None, (_srv_id(o.value) for o in others if o.type_id == SRV_NAME))),
            frozenset(map(_address, alternatives.get_values_for_type(x509.IPAddress))),
        )
    except Exception:  # what the library says to malformed extensions is not a closed list of exceptions
        return Names()


def _prepared(domain: str) -> str | None:
    try:
        jid = JID.parse(domain)
    except JidError:
        return None
    return jid.domain if not jid.local and not jid.resource else None


def _address(address: object) -> str:
    return str(address) if isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address) else ""


def _dns_id(name: str) -> str | None:
    wildcard, rest = ("*.", name[2:]) if name.startswith("*.") else ("", name)
    return wildcard + ascii_name if (ascii_name := _ascii(rest)) is not None else None


def _xmpp_addr(value: bytes) -> str | None:
    text = der_text(value, UTF8_STRING)
    return _prepared(text) if text is not None else None


def _srv_id(value: bytes) -> str | None:
    text = der_text(value, IA5_STRING)
    service, _, name = (text or "").partition(".")
    return _ascii(name) if service.lower() in _SERVICES else None


def _ascii(name: str) -> str | None:
    """A name that already is in A-labels, as certificates have them; anything else is none."""
    if not name.isascii() or ip_literal(name) is not None:
        return None
    try:
        return to_ascii(name)
    except ValueError:
        return None
