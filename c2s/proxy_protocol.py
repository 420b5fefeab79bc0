"""The PROXY protocol, versions 1 and 2: a load balancer says who connects, before anything else is said.

Only those that are listed may say so, and they must; whoever else connects is who the socket says. The header is read
to its last byte and not beyond it: what follows may be TLS, which others read.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, cast

from cluster import logs, metrics

log = logs.get_logger()

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"  # of version 2
SHORTEST: Final = 15  # "PROXY UNKNOWN\r\n"; a header of version 2 has 16 bytes at least
LONGEST_V1: Final = 107
LONGEST_V2: Final = 16 + 1_024  # of those 64 KiB that could be
_SSL: Final = 0x20  # the type of what tells of TLS at the load balancer
_CLIENT_SSL: Final = 0x01

_headers = metrics.counter(
    "stentor_c2s_proxy_headers_total", "PROXY headers of load balancers", {"result": ["ok", "malformed", "late"]}
)


class Proxied(NamedTuple):
    """Who connects: "" for the load balancer itself; whether by TLS, as far as it says so."""

    address: str = ""
    is_secure: bool = False


NOBODY: Final = Proxied()


class ProxyError(ValueError):
    """No PROXY header."""


def parse(data: bytes) -> Proxied | int:
    """The header that `data` is, or how many bytes more have to be read of it. Raises ProxyError."""
    if len(data) < SHORTEST:
        return SHORTEST - len(data)
    if data.startswith(SIGNATURE):
        return _parse_v2(data)
    if not data.startswith(b"PROXY "):
        raise ProxyError("it does not begin as a PROXY header does")
    if not data.endswith(b"\r\n"):
        if len(data) >= LONGEST_V1:
            raise ProxyError("the line is too long")
        return 1
    return _parse_v1(data)


def _parse_v1(data: bytes) -> Proxied:
    try:
        words = data[:-2].decode("ascii").split(" ")
        if words[1] == "UNKNOWN":
            return Proxied()
        family, source = {"TCP4": 4, "TCP6": 6}[words[1]], ipaddress.ip_address(words[2])
    except (ValueError, KeyError, IndexError) as problem:
        raise ProxyError(f"the line is none: {problem}") from None
    if source.version != family or len(words) != 6:
        raise ProxyError("the line is none")
    return Proxied(str(source))


def _parse_v2(data: bytes) -> Proxied | int:
    if len(data) < 16:
        return 16 - len(data)
    version, command, family = data[12] >> 4, data[12] & 0x0F, data[13] >> 4
    length = 16 + int.from_bytes(data[14:16], "big")
    if version != 2 or command > 1 or length > LONGEST_V2:
        raise ProxyError("version, command or length is not known")
    if len(data) < length:
        return length - len(data)
    size = {1: 4, 2: 16}.get(family)
    if command == 0 or size is None:  # LOCAL, as for a health check; or no IP
        return Proxied()
    addresses, more = data[16 : 16 + 2 * size + 4], data[16 + 2 * size + 4 :]
    if len(addresses) < 2 * size + 4:
        raise ProxyError("the addresses are cut off")
    return Proxied(str(ipaddress.ip_address(addresses[:size])), _tells_of_tls(more))


def _tells_of_tls(more: bytes) -> bool:
    while len(more) >= 3:
        kind, length = more[0], int.from_bytes(more[1:3], "big")
        value, more = more[3 : 3 + length], more[3 + length :]
        if kind == _SSL and len(value) >= 5:
            return bool(value[0] & _CLIENT_SSL)
    return False


class Gate(asyncio.BufferedProtocol):
    """Stands before a connection's own protocol until it is known who connects."""

    def __init__(
        self, networks: Sequence[str], within_s: float, then: Callable[[asyncio.Transport, Proxied], None]
    ) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]
        self._within_s = within_s
        self._then = then
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._buffer = bytearray(SHORTEST)
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See BaseProtocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not its subclasses
        peer = transport.get_extra_info("peername")
        address = ipaddress.ip_address(peer[0].partition("%")[0]) if peer else None
        if address is None or not any(address in network for network in self._networks):
            self._then(self._transport, Proxied())
            return
        self._timer = asyncio.get_running_loop().call_later(self._within_s, self._give_up, "late", "it did not come")

    def get_buffer(self, sizehint: int) -> bytearray:
        """Room for what has to be read, and no more."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See BufferedProtocol."""
        if self._transport is None:
            return
        self._data += self._buffer[:nbytes]
        try:
            found = parse(self._data)
        except ProxyError as problem:
            self._give_up("malformed", str(problem))
            return
        if isinstance(found, int):
            self._buffer = bytearray(found)
            return
        _headers.labels("ok").inc()
        transport = self._transport
        self._stop()
        self._then(transport, found)

    def connection_lost(self, exc: Exception | None) -> None:
        """See BaseProtocol."""
        self._stop()

    def _give_up(self, result: str, reason: str) -> None:
        _headers.labels(result).inc()
        if self._transport is not None:
            peer = self._transport.get_extra_info("peername")
            log.warning("proxy_header_refused", address=peer[0] if peer else "", reason=reason)
            self._transport.abort()
        self._stop()

    def _stop(self) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
