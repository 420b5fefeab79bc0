"""TLS between servers: our certificates, the contexts that show them, and what a peer has shown (RFC 6120, 13.7).

A handshake here fails for no certificate: a self-signed one is good enough for dialback. Whether the chain is trusted
and for whom it is, is asked of `s2s/certificates.py` once the handshake is done:

    tls = ServerTls({"example.org": (chain, key), "*.example.org": ..., ...})
    await loop.create_server(protocol, address, 5270, ssl=tls.incoming)           # direct TLS; STARTTLS likewise
    context = tls.outgoing("example.org", is_direct_tls=True)                     # we are example.org
    peer = identify(chain_of(transport.get_extra_info("ssl_object")), authorities, now)
    tls.reload()                                                                   # now and then; after renewal
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple, cast

from cryptography.hazmat.primitives.serialization import Encoding

from cluster.certificates import CertificateError, dns_names, read_certificate, to_dns
from s2s.any_certificate import ask_for_any
from s2s.domains import ip_literal, to_ascii

ALPN: Final = "xmpp-server"  # XEP-0368, 3

# TLS 1.2 with forward secrecy and authenticated encryption only (RFC 9325, 4.2); TLS 1.3 has nothing else.
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"

Pair = tuple[Path, Path]  # certificate chain and private key, both PEM
_Stamp = tuple[tuple[int, int, int], ...]


class _Own(NamedTuple):
    """One of our certificates, and the contexts that show it."""

    certificate: bytes  # DER
    incoming: ssl.SSLContext
    starttls: ssl.SSLContext
    direct: ssl.SSLContext


class _Loaded(NamedTuple):
    by_name: dict[str, _Own]
    default: _Own
    stamp: _Stamp


class ServerTls:
    """Our certificates towards other servers. `incoming` is the one context to accept with; it never changes."""

    def __init__(self, certificates: Mapping[str, Pair]) -> None:
        """Load each pair by the domain it is for, which may be a wildcard ("*.example.org").

        A certificate also serves the DNS names that it holds, where no other is given for them. The first is shown to
        peers that name no domain, or one we do not know. Raises CertificateError.
        """
        if not certificates:
            raise ValueError("TLS needs a certificate")
        self._pairs = dict(certificates)
        self._loaded = _load(self._pairs)
        # It holds the first certificate of the start, which nobody is shown: `_select` always puts another context
        # in its place, so that a reload needs nothing from the listeners.
        self.incoming, self.asks_for_certificates = _incoming(next(iter(self._pairs.values())))
        self.incoming.sni_callback = self._select

    def outgoing(self, domain: str, *, is_direct_tls: bool) -> ssl.SSLContext:
        """The context for a connection from this domain of ours, which shows its certificate if asked for one."""
        own = self._own(to_dns(domain))
        return own.direct if is_direct_tls else own.starttls

    def certificate_of(self, domain: str) -> bytes:
        """The certificate (DER) that this domain of ours shows."""
        return self._own(to_dns(domain)).certificate

    def reload(self, *, force: bool = False) -> bool:
        """Read the files again if any has changed, or if forced to; new connections then show what is in them.

        Cheap enough for every minute: it looks at the files' times. Raises CertificateError where they cannot be used,
        as in the midst of a renewal; the certificates of before stay in use, and the next call tries again.
        """
        if not force and _stamp(self._pairs) == self._loaded.stamp:
            return False
        self._loaded = _load(self._pairs)
        return True

    def _own(self, name: str) -> _Own:
        by_name = self._loaded.by_name
        return by_name.get(name) or by_name.get("*." + name.partition(".")[2]) or self._loaded.default

    def _select(self, ssl_object: ssl.SSLObject, server_name: str | None, context: ssl.SSLContext) -> None:
        own = self._own(server_name.lower()) if server_name is not None else self._loaded.default
        ssl_object.context = own.incoming


def server_name(domain: str) -> str:
    """What to ask the server of this domain for (SNI; XEP-0368, 3): its A-labels, "" where SNI has no word for it."""
    return "" if ip_literal(domain) is not None else to_ascii(domain)


def chain_of(ssl_object: ssl.SSLObject | ssl.SSLSocket) -> tuple[bytes, ...]:
    """What the peer showed in its handshake (DER, its own certificate first); empty if it showed none."""
    leaf = ssl_object.getpeercert(binary_form=True)
    if leaf is None:
        return ()
    if hasattr(ssl_object, "get_unverified_chain"):  # Python 3.13
        return tuple(ssl_object.get_unverified_chain())
    import _ssl

    inner = getattr(ssl_object, "_sslobj", None)
    if inner is None or not hasattr(inner, "get_unverified_chain"):
        return (leaf,)
    chain = inner.get_unverified_chain() or ()
    return tuple(cast(bytes, certificate.public_bytes(_ssl.ENCODING_DER)) for certificate in chain) or (leaf,)


def _load(pairs: Mapping[str, Pair]) -> _Loaded:
    stamp = _stamp(pairs)  # before the files are read: a change while they are is then seen by the next reload
    loaded: dict[Pair, _Own] = {}
    found: dict[str, _Own] = {}
    given: dict[str, _Own] = {}
    for domain, pair in pairs.items():
        if pair not in loaded:
            certificate = read_certificate(pair[0])
            loaded[pair] = _Own(
                certificate.public_bytes(Encoding.DER), _incoming(pair)[0], _outgoing(pair), _outgoing(pair, ALPN)
            )
            for name in dns_names(certificate):
                found.setdefault(name, loaded[pair])
        given[to_dns(domain)] = loaded[pair]
    return _Loaded(found | given, next(iter(loaded.values())), stamp)


def _incoming(pair: Pair) -> tuple[ssl.SSLContext, bool]:
    context = _context(ssl.PROTOCOL_TLS_SERVER, pair)
    context.set_alpn_protocols([ALPN])  # a peer on a STARTTLS port does not ask for it
    # A resumed TLS session would come without the chain, so none is: streams are few and live long.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context, ask_for_any(context)


def _outgoing(pair: Pair, alpn: str = "") -> ssl.SSLContext:
    context = _context(ssl.PROTOCOL_TLS_CLIENT, pair)
    context.check_hostname = False  # the address of a server is not its identity: `s2s/certificates.py`
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols([alpn])
    return context


def _context(protocol: int, pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(CIPHERS)
    certificate, key = pair
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except OSError as problem:  # ssl.SSLError is one
        raise _explain(problem, certificate, key) from problem
    return context


def _no_password() -> str:
    """Asked for when the key is encrypted; without this, OpenSSL would ask on the terminal."""
    return ""


def _explain(problem: OSError, certificate: Path, key: Path) -> CertificateError:
    if not isinstance(problem, ssl.SSLError):
        return CertificateError(key, f"cannot read the key: {problem.strerror}", "Check the path and who may read it.")
    if problem.reason == "KEY_VALUES_MISMATCH":
        return CertificateError(key, f"this is not the key of {certificate}", "Name the key that belongs to it.")
    remedy = "Name a private key in PEM that has no password, and a certificate that OpenSSL accepts as safe."
    return CertificateError(key, f"cannot use the key with {certificate}: {problem.reason or problem}", remedy)


def _stamp(pairs: Mapping[str, Pair]) -> _Stamp:
    """Changes when a file does, also by a new file under the old name; a missing file is a state as well."""
    stamps = []
    for file in sorted({file for pair in pairs.values() for file in pair}):
        try:
            status = os.stat(file)
            stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
        except OSError:
            stamps.append((0, 0, 0))
    return tuple(stamps)
