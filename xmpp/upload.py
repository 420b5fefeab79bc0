"""HTTP File Upload (XEP-0363) as values: what a URL says of its file, what lets somebody put a file there, and what
files may be called.

A URL says all that there is to know of its file, and is signed. So whoever has the key serves it without a database,
nobody finds a file by guessing, and what is made up is refused before the storage is asked:

    /upload/{id}/{name}     id: base64url of the object's random 16 bytes, expiry, size, type, and an HMAC over these
                            and the name

The permit to put it there is another one, for a while, in the header `Authorization: Bearer ...` of the slot (4).
"""

from __future__ import annotations

import hmac
import re
import unicodedata
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Final, NamedTuple
from urllib.parse import quote

OBJECT_BYTES: Final = 16
NAME_BYTES: Final = 180  # of a file name in UTF-8; in a URL thrice that at most
TYPE_LENGTH: Final = 100
OCTETS: Final = "application/octet-stream"  # of which nobody has said what they are (5)
FOR_EVER: Final = 0  # as an expiry: as long as somebody keeps it
LARGEST: Final = 2**48 - 1

_TAG: Final = 16  # bytes of an HMAC that stay
_ID: Final = re.compile(r"[A-Za-z0-9_-]{40,250}")
_PERMIT: Final = re.compile(r"[A-Za-z0-9_-]{40,400}")
_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")
_NOT_IN_NAMES: Final = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # categories of what nobody sees, or what turns text
_JOINERS: Final = "\u200c\u200d"  # of those, what Persian and emoji are written with


class File(NamedTuple):
    """What a URL says. `type` is "" where nobody has said what it is; `expires_at` is in Unix seconds, or FOR_EVER."""

    object: bytes
    name: str
    size: int
    type: str
    expires_at: int

    @property
    def stored_as(self) -> str:
        """Its place in the storage."""
        return place(self.object)


class Permit(NamedTuple):
    """Who may put a file: an upload begins before `until` and is over before `end` (Unix seconds). `account` stands
    for whoever it was given to, for counting."""

    domain: str
    account: bytes
    until: int
    end: int


def place(object: bytes) -> str:
    """Where the storage has an object."""
    name = object.hex()
    return f"{name[:2]}/{name}"


# --- signing


def path(key: bytes, file: File) -> str:
    """`{id}/{name}`, as it stands in a URL."""
    return f"{_id(key, file)}/{quote(file.name, safe='')}"


def parse(key: bytes, id: str, name: str) -> File | None:
    """What a path says, None unless it is one of ours. Whether it has expired is for the caller to see."""
    given = _decoded(id, _ID)
    if given is None or len(given) < OBJECT_BYTES + 5 + 6 + _TAG:
        return None
    body, tag = given[:-_TAG], given[-_TAG:]
    try:
        known = _tag(key, b"get", body, name.encode())[:_TAG]
    except UnicodeEncodeError:
        return None  # half a surrogate pair: no name of ours
    if not hmac.compare_digest(tag, known):
        return None
    expires_at, size, type = body[16:21], body[21:27], body[27:]
    return File(body[:16], name, int.from_bytes(size), type.decode("ascii"), int.from_bytes(expires_at))


def permission(key: bytes, file: File, permit: Permit) -> str:
    """The token that goes with the permit."""
    body = permit.until.to_bytes(5) + permit.end.to_bytes(5) + permit.account + permit.domain.encode()
    return _encoded(body + _tag(key, b"put", body, file.object))


def permitted(key: bytes, file: File, token: str) -> Permit | None:
    """What a token permits for this file, None unless it is one of ours for it. Its time is for the caller to see."""
    given = _decoded(token, _PERMIT)
    if given is None or len(given) < 18 + sha256().digest_size:
        return None
    body, tag = given[: -sha256().digest_size], given[-sha256().digest_size :]
    if not hmac.compare_digest(tag, _tag(key, b"put", body, file.object)):
        return None
    return Permit(body[18:].decode(), body[10:18], int.from_bytes(body[:5]), int.from_bytes(body[5:10]))


def account_tag(bare: str) -> bytes:
    """What stands for an account in a permit: 8 bytes that do not say who it is."""
    return sha256(b"upload " + bare.encode()).digest()[:8]


def _id(key: bytes, file: File) -> str:
    body = file.object + file.expires_at.to_bytes(5) + file.size.to_bytes(6) + file.type.encode("ascii")
    return _encoded(body + _tag(key, b"get", body, file.name.encode())[:_TAG])


def _tag(key: bytes, use: bytes, body: bytes, more: bytes) -> bytes:
    """The lengths are signed, too: nothing moves from one part to the other."""
    return hmac.digest(key, b"%b %d %d " % (use, len(body), len(more)) + body + more, sha256)


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str, shape: re.Pattern[str]) -> bytes | None:
    """Strictly: one text for one value."""
    if shape.fullmatch(text) is None:
        return None
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    return data if _encoded(data) == text else None


# --- names and types


def clean_name(text: str) -> str:
    """What a file may be called, as near as possible to what somebody calls it: no folders, nothing that cannot be seen
    or turns the direction of text, not too long (its ending stays). "" where nothing is left."""
    base = re.split(r"[/\\]", unicodedata.normalize("NFC", text))[-1]
    seen = "".join(c for c in base if c in _JOINERS or unicodedata.category(c) not in _NOT_IN_NAMES)
    name = " ".join(seen.split()).lstrip(". ").rstrip(". ")
    stem, dot, ending = name.rpartition(".")
    if not dot or len(ending.encode()) > 20:
        return _cut(name, NAME_BYTES)
    return _cut(stem, NAME_BYTES - len(ending.encode()) - 1).rstrip(". ") + dot + ending


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


def clean_type(text: str) -> str:
    """`type/subtype` in small letters, without parameters. Raises ValueError where it is no media type."""
    found = text.partition(";")[0].strip().lower()
    if len(found) > TYPE_LENGTH or _TYPE.fullmatch(found) is None:
        raise ValueError(f"{text[:50]!r} is no media type")
    return found


def is_among(type: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of the patterns, as image/*, is for this type."""
    whole, _, _ = type.partition("/")
    return any(pattern in (type, f"{whole}/*", "*/*") for pattern in patterns)
