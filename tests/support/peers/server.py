"""What the servers have in common: how others find them, and whom clients trust."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.support.peers.ca import Certificate
from tests.support.peers.dns import Zone
from tests.support.peers.process import S2S, S2S_DIRECT_TLS


def publish(
    zone: Zone, host: str, domains: Iterable[str], *, direct_tls: bool, s2s: int = S2S, s2s_tls: int = S2S_DIRECT_TLS
) -> None:
    """Say in the DNS that the servers of these domains are at this address: SRV records, direct TLS first.

    The target is the address itself, written as a name: ejabberd 23.01 asks libc for names, which knows nothing of our
    DNS. For those that ask the DNS, the name has an address.
    """
    for domain in domains:
        if direct_tls:
            zone.add(f"_xmpps-server._tcp.{domain}. IN SRV 0 1 {s2s_tls} {host}.")
        zone.add(f"_xmpp-server._tcp.{domain}. IN SRV 1 1 {s2s} {host}.")
    if not zone.knows(host):
        zone.add(f"{host}. IN A {host}")


def trusted_file(directory: Path, authority: Path, certificates: Iterable[Certificate]) -> Path:
    """A file with the authority and these certificates, for clients that are to trust even a self-signed one."""
    file = directory / "trusted.pem"
    file.write_text(authority.read_text() + "".join(certificate.text() for certificate in certificates))
    return file
