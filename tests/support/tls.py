"""TLS for tests: two ends that shake hands without a socket, and a client that is in a hurry."""

from __future__ import annotations

import asyncio
import socket
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


class EagerTls:
    """A TLS client on a plain socket, whose first words come in one segment with the end of its handshake."""

    def __init__(self, opened: socket.socket, context: ssl.SSLContext, server_hostname: str) -> None:
        self._socket = opened
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=server_hostname)

    async def say(self, text: str) -> None:
        """The handshake, and this."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await loop.sock_sendall(self._socket, self._out.read())
                self._in.write(await loop.sock_recv(self._socket, 65_536))
        self._tls.write(text.encode())
        await loop.sock_sendall(self._socket, self._out.read())

    async def read_until(self, end: str) -> str:
        """What is answered; it ends so."""
        loop = asyncio.get_running_loop()
        found = b""
        while not found.endswith(end.encode()):
            try:
                found += self._tls.read(65_536)
            except ssl.SSLWantReadError:
                self._in.write(await loop.sock_recv(self._socket, 65_536))
        return found.decode()
