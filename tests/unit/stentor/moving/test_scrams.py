"""SCRAM credentials of other servers: as the format says, as ejabberd writes it, or not at all."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest

from stentor.moving.scrams import NoCredentials, of_base64, of_bytes
from xmpp import scram

KEPT = scram.derive("pencil", "SHA-1", b"salt and more", 4096)


def encoded(data: bytes) -> str:
    return b64encode(data).decode()


def test_as_the_format_says() -> None:
    found = of_base64("SHA-1", encoded(KEPT.salt), "4096", encoded(KEPT.stored_key), encoded(KEPT.server_key))
    assert b64decode(found.stored_key) == KEPT.stored_key
    assert b64decode(found.salt) == KEPT.salt


def test_encoded_twice() -> None:
    parts = (encoded(encoded(part).encode()) for part in (KEPT.salt, KEPT.stored_key, KEPT.server_key))
    salt, stored_key, server_key = parts
    found = of_base64("SHA-1", salt, "4096", stored_key, server_key)
    assert found == of_bytes("SHA-1", KEPT.salt, 4096, KEPT.stored_key, KEPT.server_key)


@pytest.mark.parametrize(
    ("hash", "salt", "iterations", "key"),
    [
        ("SHA-3", b"salt", "4096", KEPT.stored_key),
        ("SHA-256", b"salt", "4096", KEPT.stored_key),
        ("SHA-1", b"", "4096", KEPT.stored_key),
        ("SHA-1", b"salt", "0", KEPT.stored_key),
        ("SHA-1", b"salt", "99999999", KEPT.stored_key),
        ("SHA-1", b"salt", "many", KEPT.stored_key),
        ("SHA-1", b"salt", "4096", b"short"),
    ],
)
def test_what_is_of_no_use_is_told(hash: str, salt: bytes, iterations: str, key: bytes) -> None:
    with pytest.raises(NoCredentials):
        of_base64(hash, encoded(salt), iterations, encoded(key), encoded(KEPT.server_key))


def test_no_base64() -> None:
    with pytest.raises(NoCredentials):
        of_base64("SHA-1", "???", "4096", "???", "???")
