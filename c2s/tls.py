"""TLS towards clients: which certificate for which name (RFC 6120, 5 and 13.7; XEP-0368), by `cluster/tls.py`.

The connection itself is asyncio's or uvloop's; channel binding is in `c2s/channel_binding.py`.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cluster.any_certificate import ask_for_any
from cluster.tls import Certificates, Pair, new_context


class ServerTls:
    """The certificates of one listener and the contexts that show them.

    `context` is the one to accept connections with; it never changes. Every connection goes over to the context of the
    name that the client asks for (SNI, RFC 6066, 3).
    """

    __slots__ = ("_alpn", "_asks", "_der", "certificates", "context")

    def __init__(
        self, certificates: Mapping[str, Pair], alpn: Sequence[str] = ("xmpp-client",), *, asks: bool = False
    ) -> None:
        """See `Certificates`. The first is shown to clients that name no server, or one we do not know. `asks`: clients
        are asked for a certificate; the handshake goes on whatever they show.

        Raises CertificateError.
        """
        self._alpn = list(alpn)
        self._asks = asks
        # By the context that showed it: connections outlive a renewal.
        self._der: WeakKeyDictionary[ssl.SSLContext, bytes] = WeakKeyDictionary()
        self.certificates = Certificates(certificates, self._make)
        # It holds the first certificate of the start, which nobody is shown: `_select` always puts another context in
        # its place, so that a renewal needs nothing from the listeners.
        self.context = self._context(self.certificates.first)
        self.context.sni_callback = self._select

    def certificate_of(self, ssl_object: ssl.SSLObject | ssl.SSLSocket) -> bytes | None:
        """The certificate (DER) that we showed on this connection, which was accepted with `context`.

        None if we cannot know: a resumed TLS session shows none, and may have begun before a renewal.
        """
        if ssl_object.session_reused and self.certificates.was_renewed:
            return None
        return self._der[ssl_object.context]

    def _make(self, pair: Pair, certificate: x509.Certificate) -> ssl.SSLContext:
        context = self._context(pair)
        self._der[context] = certificate.public_bytes(Encoding.DER)
        return context

    def _context(self, pair: Pair) -> ssl.SSLContext:
        context = new_context(ssl.PROTOCOL_TLS_SERVER, pair)
        context.set_alpn_protocols(self._alpn)
        if self._asks:
            # A TLS session that is resumed comes without the client's chain, so none is.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
            ask_for_any(context)
        return context

    def _select(self, ssl_object: ssl.SSLObject, server_name: str | None, context: ssl.SSLContext) -> None:
        ssl_object.context = self.certificates.choose(server_name)
