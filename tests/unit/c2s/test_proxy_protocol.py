"""The PROXY protocol (c2s/proxy_protocol.py): who connects, said by a load balancer that is believed, and nobody else."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s.proxy_protocol import LONGEST_V1, LONGEST_V2, NOBODY, SIGNATURE, Gate, Proxied, ProxyError, parse


def v2(command: int = 1, family: int = 1, body: bytes = b"", version: int = 2) -> bytes:
    return SIGNATURE + bytes([version << 4 | command, family << 4 | 1]) + len(body).to_bytes(2, "big") + body


def addresses(source: str) -> bytes:
    packed = ipaddress.ip_address(source).packed
    return packed + b"\0" * len(packed) + b"\x12\x34\x14\x66"


def told(data: bytes) -> Proxied:
    """Read to its last byte as a socket would, asking for no byte too much."""
    read = b""
    while True:
        found = parse(read)
        if isinstance(found, Proxied):
            assert read == data, "all of it, and nothing behind it"
            return found
        assert found > 0
        assert len(read) + found <= len(data), "more is asked for than there is"
        read = data[: len(read) + found]


SSL = b"\x20\x00\x05\x01\0\0\0\0"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 5222\r\n", Proxied("192.0.2.7")),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 5222\r\n", Proxied("2001:db8::7")),
        (b"PROXY UNKNOWN\r\n", Proxied()),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Proxied()),
        (v2(body=addresses("192.0.2.7")), Proxied("192.0.2.7")),
        (v2(family=2, body=addresses("2001:db8::7")), Proxied("2001:db8::7")),
        (v2(body=addresses("192.0.2.7") + b"\x04\x00\x02hi" + SSL), Proxied("192.0.2.7", True)),
        (v2(body=addresses("192.0.2.7") + SSL.replace(b"\1", b"\0")), Proxied("192.0.2.7", False)),
        (v2(body=addresses("192.0.2.7") + b"\x20\x00\x05"), Proxied("192.0.2.7", False)),
        (v2(command=0), Proxied()),
        (v2(command=0, family=0, body=b"\x04\x00\x02hi"), Proxied()),
        (v2(family=3, body=b"\0" * 216), Proxied()),
    ],
)
def test_headers(data: bytes, found: Proxied) -> None:
    assert told(data) == found


@pytest.mark.parametrize(
    "data",
    [
        b"<stream:stream xmlns",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdef",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 5222\r\n",
        b"PROXY TCP5 192.0.2.7 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 nobody 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 \xff 198.51.100.1 1 2\r\n",
        b"PROXY UNKNOWN " + b"x" * LONGEST_V1,
        v2(version=1),
        v2(command=2),
        v2(body=b"\0" * 11),
        v2(body=b"\0" * LONGEST_V2),
    ],
)
def test_what_is_none(data: bytes) -> None:
    with pytest.raises(ProxyError):
        told(data)


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda more: SIGNATURE + more))
def test_any_bytes_are_a_header_or_a_fault(data: bytes) -> None:
    read = 0
    try:
        while isinstance(found := parse(data[:read]), int):
            assert found > 0
            if read + found > len(data):
                return
            read += found
    except ProxyError:
        pass


class FakeTransport(asyncio.Transport):
    def __init__(self, peer: str) -> None:
        super().__init__({"peername": (peer, 5)})
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


def passed(peer: str, data: bytes, within_s: float = 9.0, wait_s: float = 0.0) -> tuple[Proxied | None, bool]:
    async def run() -> tuple[Proxied | None, bool]:
        found: list[Proxied] = []
        gate = Gate(("10.0.0.0/8", "2001:db8::/32"), within_s, lambda transport, proxied: found.append(proxied))
        transport = FakeTransport(peer)
        gate.connection_made(transport)
        while data and not found and not transport.is_aborted:
            buffer: Any = gate.get_buffer(-1)
            at = run_at[0]
            piece = data[at : at + len(buffer)]
            buffer[: len(piece)] = piece
            run_at[0] += len(piece)
            gate.buffer_updated(len(piece))
            if not piece:
                break
        await asyncio.sleep(wait_s)
        gate.connection_lost(None)
        return (found[0] if found else None), transport.is_aborted

    run_at = [0]
    return asyncio.run(run())


HEADER = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 5222\r\n"


def test_who_is_listed_says_who_connects() -> None:
    assert passed("10.1.2.3", HEADER + b"<stream:stream") == (Proxied("192.0.2.7"), False)
    assert passed("2001:db8::9", v2(body=addresses("192.0.2.7"))) == (Proxied("192.0.2.7"), False)


def test_who_is_listed_has_to_say_it() -> None:
    assert passed("10.1.2.3", b"<stream:stream xmlns") == (None, True)
    assert passed("10.1.2.3", b"", within_s=0.01, wait_s=0.1) == (None, True)


def test_nobody_else_is_even_asked() -> None:
    assert passed("192.0.2.1", b"") == (NOBODY, False)
