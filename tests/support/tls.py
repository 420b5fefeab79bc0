"""TLS in memory: two ends that shake hands without a socket."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


def handshake(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext, server_name: str | None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """The server's and the client's end after their handshake. Raises ssl.SSLError when they do not agree."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server, server_hostname=server_name)
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    assert server.version() is not None
    return server, client


def client_context(ca: trustme.CA | None = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client that trusts this authority, or without one anybody; and speaks only this version, if one is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        ca.configure_trust(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def write_pair(directory: Path, name: str, certificate: trustme.LeafCert) -> tuple[Path, Path]:
    """Write certificate chain and key as files; their paths."""
    chain, key = directory / f"{name}.crt", directory / f"{name}.key"
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    return chain, key
