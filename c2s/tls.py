"""TLS towards clients: which versions and ciphers, and which certificate for which name (RFC 6120, 5 and 13.7).

The connection itself is asyncio's or uvloop's; channel binding is in `c2s/channel_binding.py`.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from cluster.certificates import CertificateError, dns_names, read_certificate, to_dns

# TLS 1.2 with forward secrecy and authenticated encryption only (RFC 9325, 4.2); TLS 1.3 has nothing else.
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"

Pair = tuple[Path, Path]  # certificate chain and private key, both PEM


class ServerTls:
    """The certificates of one listener and the contexts that show them.

    `context` is the one to accept connections with. When a client names the server it wants (SNI, RFC 6066, 3), the
    connection goes over to the context of that name's certificate.
    """

    __slots__ = ("_by_name", "_certificates", "context")

    def __init__(self, certificates: Mapping[str, Pair], alpn: Sequence[str] = ("xmpp-client",)) -> None:
        """Load each pair by the domain it is for, which may be a wildcard ("*.example.org").

        A certificate also serves the DNS names that it holds, where no other is given for them. The first is shown to
        clients that name no server, or one we do not know. Raises CertificateError.
        """
        if not certificates:
            raise ValueError("TLS needs a certificate")
        self._certificates: dict[ssl.SSLContext, bytes] = {}
        self._by_name: dict[str, ssl.SSLContext] = {}
        names: dict[str, ssl.SSLContext] = {}
        loaded: dict[Pair, ssl.SSLContext] = {}
        for domain, pair in certificates.items():
            if pair not in loaded:
                certificate = read_certificate(pair[0])
                loaded[pair] = context = _context(pair, alpn)
                self._certificates[context] = certificate.public_bytes(Encoding.DER)
                for name in dns_names(certificate):
                    names.setdefault(name, context)
            self._by_name[to_dns(domain)] = loaded[pair]
        self._by_name = names | self._by_name
        self.context = next(iter(loaded.values()))
        self.context.sni_callback = self._select

    def certificate_of(self, ssl_object: ssl.SSLObject | ssl.SSLSocket) -> bytes:
        """The certificate (DER) that we showed on this connection, which was accepted with `context`."""
        return self._certificates[ssl_object.context]

    def _select(self, ssl_object: ssl.SSLObject, server_name: str | None, context: ssl.SSLContext) -> None:
        if server_name is None:
            return
        name = server_name.lower()
        chosen = self._by_name.get(name) or self._by_name.get("*." + name.partition(".")[2])
        if chosen is not None:
            ssl_object.context = chosen


def _context(pair: Pair, alpn: Sequence[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(list(alpn))
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
