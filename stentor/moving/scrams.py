"""SCRAM credentials as other servers write them."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from typing import Final

from stentor.moving.things import Scram
from xmpp.scram import DIGEST_BYTES

ITERATIONS_MOST: Final = 1_000_000  # a client would compute for minutes


class NoCredentials(ValueError):
    """These cannot be used, and why."""


def of_bytes(hash: str, salt: bytes, iterations: int, stored_key: bytes, server_key: bytes) -> Scram:
    """Raises NoCredentials."""
    if hash not in DIGEST_BYTES:
        raise NoCredentials(f"credentials of SCRAM-{hash[:20]} are of no use: there are {', '.join(DIGEST_BYTES)}")
    if len(stored_key) != DIGEST_BYTES[hash] or len(server_key) != DIGEST_BYTES[hash]:
        raise NoCredentials(f"a key of SCRAM-{hash} has {DIGEST_BYTES[hash]} bytes, this one has not")
    if not salt or not 1 <= iterations <= ITERATIONS_MOST:
        raise NoCredentials(f"credentials need a salt and 1 to {ITERATIONS_MOST} iterations")
    return Scram(hash, _encoded(salt), iterations, _encoded(stored_key), _encoded(server_key))


def of_base64(hash: str, salt: str, iterations: str, stored_key: str, server_key: str) -> Scram:
    """As XEP-0227 writes them. COMPAT: ejabberd (seen: 23.01) encodes what is base64 already a second time. Raises
    NoCredentials."""
    try:
        parts = [_decoded(text) for text in (salt, stored_key, server_key)]
        if hash in DIGEST_BYTES and len(parts[1]) != DIGEST_BYTES[hash]:
            parts = [_decoded(part.decode()) for part in parts]
        count = int(iterations)
    except ValueError:
        raise NoCredentials(f"credentials of SCRAM-{hash[:20]} are not written in base64") from None
    return of_bytes(hash, parts[0], count, parts[1], parts[2])


def _decoded(text: str) -> bytes:
    try:
        return b64decode("".join(text.split()), validate=True)
    except binascii.Error as problem:
        raise ValueError(str(problem)) from None


def _encoded(data: bytes) -> str:
    return b64encode(data).decode()
