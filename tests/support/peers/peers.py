"""Other people's servers for one test, with a DNS and an authority in common. A pytest plugin.

`peers.prosody("pr.example")` is a server that runs, is in the DNS and has a certificate of the authority. Without
pytest: `with running_peers(directory) as peers`, and `two_prosodys(peers)` for a measurement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.peers.ca import Authority, Certificate, self_signed
from tests.support.peers.dns import Zone
from tests.support.peers.ejabberd import Ejabberd
from tests.support.peers.irc import Biboumi, Ngircd
from tests.support.peers.prosody import Prosody
from tests.support.peers.slidge import Slidge

ROOMS: Final = "conference"


class Peers:
    """Starts servers in folders of their own, and ends them all: components first, as some wait for their server."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.zone = Zone()
        self.authority = Authority(self._folder("authority"))
        self._servers: list[Prosody | Ejabberd | Ngircd] = []
        self._components: list[Biboumi | Slidge] = []

    def close(self) -> None:
        """End everything."""
        for component in self._components:
            component.process.terminate()
        for component in self._components:
            component.process.wait_ended()
        for server in self._servers:
            server.process.terminate()
        for server in self._servers:
            server.process.wait_ended()
        self.zone.close()

    def _folder(self, name: str) -> Path:
        number = 1
        while (folder := self.directory / f"{name}-{number}").exists():
            number += 1
        folder.mkdir(parents=True)
        return folder

    def certificate(self, domain: str, components: Iterable[str] = (), *, is_self_signed: bool = False) -> Certificate:
        """For a domain, its rooms, and those of these components that are below it."""
        names = (domain, f"{ROOMS}.{domain}", *(jid for jid in components if jid.endswith(f".{domain}")))
        return self_signed(self._folder("self-signed"), *names) if is_self_signed else self.authority.issue(*names)

    def prosody(self, *domains: str, is_self_signed: bool = False, **options: Any) -> Prosody:
        """A Prosody for these domains; `options` are Prosody's."""
        components = [*options.get("components", ()), *(f"pubsub.{domain}" for domain in domains)]
        certificates = {
            domain: self.certificate(domain, components, is_self_signed=is_self_signed) for domain in domains
        }
        options = {"authority": self.authority.file, **options}
        server = Prosody(self._folder("prosody"), self.zone, certificates, **options)
        self._servers.append(server)
        return server

    def ejabberd(self, *domains: str, is_self_signed: bool = False, **options: Any) -> Ejabberd:
        """An ejabberd for these domains; `options` are Ejabberd's."""
        certificates = {domain: self.certificate(domain, is_self_signed=is_self_signed) for domain in domains}
        options = {"authority": self.authority.file, **options}
        server = Ejabberd(self._folder("ejabberd"), self.zone, certificates, **options)
        self._servers.append(server)
        return server

    def ngircd(self) -> Ngircd:
        """An IRC server."""
        server = Ngircd(self._folder("ngircd"))
        self._servers.append(server)
        return server

    def biboumi(self, jid: str, secret: str, host: str, port: int) -> Biboumi:
        """The gateway to IRC, connected to the server that knows it as a component."""
        component = Biboumi(self._folder("biboumi"), jid, secret, host, port)
        self._components.append(component)
        return component

    def slidge(self, jid: str, secret: str, host: str, port: int) -> Slidge:
        """The gateway to a network of one friend, connected to the server that knows it as a component."""
        component = Slidge(self._folder("slidge"), jid, secret, host, port)
        self._components.append(component)
        return component


@contextmanager
def running_peers(directory: Path) -> Iterator[Peers]:
    """What it starts ends with it."""
    peers = Peers(directory)
    try:
        yield peers
    finally:
        peers.close()


def two_prosodys(peers: Peers, *, is_external: bool = True, **options: Any) -> tuple[Prosody, Prosody]:
    """Two Prosodys that federate with each other, by certificates or else by dialback; `options` are Prosody's.

    The first serves a.example, the second b.example. What each has used of the CPU tells `process.cpu_seconds()`; for a
    measurement, `log_level="warn"`.
    """
    if is_external:
        options = {"secure": True, "without": frozenset({"dialback"}), **options}
    one, other = (peers.prosody(d, is_self_signed=not is_external, **options) for d in ("a.example", "b.example"))
    return one, other


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[Peers]:
    """Servers for this test alone."""
    with running_peers(tmp_path / "peers") as peers:
        yield peers
