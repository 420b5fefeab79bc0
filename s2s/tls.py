"""TLS between servers: our certificates, the contexts that show them, and what a peer has shown (RFC 6120, 13.7).

A handshake here fails for no certificate: a self-signed one is good enough for dialback. Whether the chain is trusted
and for whom it is, is asked of `s2s/certificates.py` once the handshake is done:

    tls = ServerTls({"example.org": (chain, key), "*.example.org": ..., ...})
    await loop.create_server(protocol, address, 5270, ssl=tls.incoming)           # direct TLS; STARTTLS likewise
    context = tls.outgoing("example.org", is_direct_tls=True)                     # we are example.org
    peer = identify(chain_of(transport.get_extra_info("ssl_object")), authorities, now)

How certificates are chosen, and renewed without a restart, is in `cluster/tls.py`.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cluster.any_certificate import ask_for_any
from cluster.certificates import to_dns
from cluster.tls import Certificates, Pair, new_context
from s2s.domains import ip_literal, to_ascii

ALPN: Final = "xmpp-server"  # XEP-0368, 3


class _Own(NamedTuple):
    """One of our certificates, and the contexts that show it."""

    certificate: bytes  # DER
    incoming: ssl.SSLContext
    starttls: ssl.SSLContext
    direct: ssl.SSLContext


class ServerTls:
    """Our certificates towards other servers. `incoming` is the one context to accept with; it never changes."""

    def __init__(self, certificates: Mapping[str, Pair]) -> None:
        """See `Certificates`. The first is shown to peers that name no domain, or one we do not know.

        Raises CertificateError.
        """
        self.certificates = Certificates(certificates, _make)
        # It holds the first certificate of the start, which nobody is shown: `_select` always puts another context
        # in its place, so that a renewal needs nothing from the listeners.
        self.incoming, self.asks_for_certificates = _incoming(self.certificates.first)
        self.incoming.sni_callback = self._select

    def outgoing(self, domain: str, *, is_direct_tls: bool) -> ssl.SSLContext:
        """The context for a connection from this domain of ours, which shows its certificate if asked for one."""
        own = self.certificates.choose(to_dns(domain))
        return own.direct if is_direct_tls else own.starttls

    def certificate_of(self, domain: str) -> bytes:
        """The certificate (DER) that this domain of ours shows."""
        return self.certificates.choose(to_dns(domain)).certificate

    def _select(self, ssl_object: ssl.SSLObject, server_name: str | None, context: ssl.SSLContext) -> None:
        ssl_object.context = self.certificates.choose(server_name).incoming


def server_name(domain: str) -> str:
    """What to ask the server of this domain for (SNI; XEP-0368, 3): its A-labels, "" where SNI has no word for it."""
    return "" if ip_literal(domain) is not None else to_ascii(domain)


def _make(pair: Pair, certificate: x509.Certificate) -> _Own:
    return _Own(
        certificate.public_bytes(Encoding.DER), _incoming(pair)[0], outgoing_context(pair), outgoing_context(pair, ALPN)
    )


def _incoming(pair: Pair) -> tuple[ssl.SSLContext, bool]:
    context = new_context(ssl.PROTOCOL_TLS_SERVER, pair)
    context.set_alpn_protocols([ALPN])  # a peer on a STARTTLS port does not ask for it
    # A resumed TLS session would come without the chain, so none is: streams are few and live long.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context, ask_for_any(context)


def outgoing_context(pair: Pair | None, alpn: str = "") -> ssl.SSLContext:
    """A context to connect with, which shows this certificate if asked for one. Raises CertificateError."""
    context = new_context(ssl.PROTOCOL_TLS_CLIENT, pair)
    context.check_hostname = False  # the address of a server is not its identity: `s2s/certificates.py`
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols([alpn])
    return context
