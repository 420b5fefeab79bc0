"""Tokens that clients sign in with instead of a password (XEP-0484), and what the mechanisms HT-SHA-256 make of them
(draft-schmaus-kitten-sasl-ht, 3). Like `xmpp/scram.py`, this is the half that runs where the accounts are."""

from __future__ import annotations

import hmac
import secrets
from typing import Final

BYTES: Final = 32  # of randomness in a token


def new_token() -> str:
    """A token, as the client gets and keeps it: its key is these characters in UTF-8."""
    return secrets.token_urlsafe(BYTES)


def verify(token: str, binding: bytes, proof: bytes) -> bytes | None:
    """The server's answer when the client's digest shows knowledge of the token, else None. In constant time.

    `binding` is the data of the mechanism's channel binding, empty for the one without."""
    key = token.encode()
    if not hmac.compare_digest(hmac.digest(key, b"Initiator" + binding, "sha256"), proof):
        return None
    return hmac.digest(key, b"Responder" + binding, "sha256")


def prove(token: str, binding: bytes) -> bytes:
    """What a client makes of its token: the other side of `verify`."""
    return hmac.digest(token.encode(), b"Initiator" + binding, "sha256")
