"""CurveZMQ between hosts: one key pair per role, and a ZAP handler that tells whose key a peer has.

A connection is encrypted to the key of the role that the other side must have, and the listener learns the role of
the key that connects; `cluster/bus.py` holds each peer to it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import zmq
import zmq.utils.z85

ZAP_ADDRESS: Final = "inproc://zeromq.zap.01"
ZAP_DOMAIN: Final = "stentor"
KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Keys:
    """The pair of this process's role, and the public keys of all roles. Z85 text, 40 characters each."""

    public: str
    secret: str = field(repr=False)
    of_role: Mapping[str, str]

    @classmethod
    def of(cls, secret: str, of_role: Mapping[str, str]) -> Keys:
        """From configuration; raises ValueError for a key that is none. A role may have no key yet ("")."""
        for role, key in of_role.items():
            if key and not _is_key(key):
                raise ValueError(f"bus.public_keys.{role} is not a CurveZMQ key: 40 characters of Z85 (`stentor keys`)")
        if not _is_key(secret):
            raise ValueError("bus.secret_key is not a CurveZMQ key: 40 characters of Z85 (`stentor keys`)")
        return cls(zmq.curve_public(secret.encode()).decode(), secret, dict(of_role))


def generate() -> tuple[str, str]:
    """A new pair: public, secret."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def problem_with(transport: str, listen: str, keys: Keys | None) -> str | None:
    """Why the bus may not run so, with the remedy; None if it may. Unencrypted TCP stays on the loopback."""
    if transport == "ipc" or keys is not None or listen in ("127.0.0.1", "::1", "localhost"):
        return None
    return (
        f"the bus would listen on {listen} without encryption. Set bus.secret_key and bus.public_keys "
        '(`stentor keys` makes them), or bus.listen = "127.0.0.1" on a single host'
    )


def _is_key(text: str) -> bool:
    try:
        return len(zmq.utils.z85.decode(text)) == KEY_BYTES
    except (ValueError, KeyError, struct.error):  # its length, a character, five characters above 2^32
        return False


class ZapHandler:
    """Answers libzmq's question whether a key may connect (ZAP, RFC 27). Driven by its file descriptor."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: Keys) -> None:
        self._roles = {zmq.utils.z85.decode(key): role for role, key in keys.of_role.items() if key}
        self.socket = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(ZAP_ADDRESS)

    def drain(self) -> None:
        """Answer everything that is asked now."""
        while True:
            try:
                parts = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.socket.send_multipart(self._answer(parts))

    def _answer(self, parts: list[bytes]) -> list[bytes]:
        version, request = parts[0], parts[1]
        role = None
        if len(parts) >= 7 and parts[5] == b"CURVE":
            role = self._roles.get(parts[6])
        if role is None:
            return [version, request, b"400", b"this key belongs to no role of the cluster", b"", b""]
        return [version, request, b"200", b"", role.encode(), b""]

    def close(self) -> None:
        """Stop answering."""
        self.socket.close()
