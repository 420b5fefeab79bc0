"""Whether what a request has for things is written as docs/admin-api.md says. Says nothing about whether they can come
along."""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any, Final

from xmpp.scram import DIGEST_BYTES

ITERATIONS_MOST: Final = 1_000_000  # whoever signs in computes them
MICROSECONDS_MOST: Final = 2**62


class Malformed(ValueError):
    """Not as documented; the text says what."""


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _moment(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MICROSECONDS_MOST


def _table_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _credentials(value: Any) -> bool:
    return isinstance(value, list) and len({one["hash"] for one in value if _is_scram(one)}) == len(value)


def _is_scram(one: Any) -> bool:
    try:
        salt, stored_key, server_key = (
            b64decode(one[key], validate=True) for key in ("salt", "stored_key", "server_key")
        )
        size, iterations = DIGEST_BYTES[one["hash"]], one["iterations"]
    except (KeyError, TypeError, ValueError, binascii.Error):
        return False
    is_number = isinstance(iterations, int) and not isinstance(iterations, bool)
    is_possible = is_number and 1 <= iterations <= ITERATIONS_MOST
    return is_possible and bool(salt) and len(stored_key) == len(server_key) == size


_REQUIRED: Final = object()
# By kind: each key with its check and, where it may be left out, what stands for it.
_SHAPES: Final[Mapping[str, Mapping[str, tuple[Callable[[Any], bool], Any]]]] = {
    "account": {"credentials": (_credentials, []), "password": (_or_none(_text), None)},
    "contact": {
        "jid": (_text, _REQUIRED), "name": (_text, ""), "groups": (_texts, []), "subscription": (_text, "none"),
        "ask": (_flag, False), "approved": (_flag, False),
    },
    "request": {"jid": (_text, _REQUIRED), "xml": (_text, "")},
    "block": {"jid": (_text, _REQUIRED)},
    "vcard": {"xml": (_text, _REQUIRED)},
    "private": {"xml": (_text, _REQUIRED)},
    "preferences": {"default": (_text, _REQUIRED), "always": (_texts, []), "never": (_texts, [])},
    "node": {
        "node": (_text, _REQUIRED), "options": (_table_of(_texts), {}), "affiliations": (_table_of(_text), {}),
        "subscribers": (_texts, []),
    },
    "item": {
        "node": (_text, _REQUIRED), "id": (_text, _REQUIRED), "xml": (_text, ""), "publisher": (_text, ""),
        "at": (_or_none(_moment), None),
    },
    "message": {
        "at": (_moment, _REQUIRED), "id": (_text, ""), "xml": (_text, _REQUIRED), "nick": (_text, ""),
        "jid": (_text, ""),
    },
    "waiting": {"at": (_moment, _REQUIRED), "xml": (_text, _REQUIRED)},
    "room": {
        "options": (_table_of(_text), {}), "subject": (_text, ""), "subject_nick": (_text, ""),
        "subject_at": (_or_none(_moment), None),
    },
    "affiliation": {
        "jid": (_text, _REQUIRED), "affiliation": (_text, _REQUIRED), "nick": (_text, ""), "reason": (_text, ""),
    },
}  # fmt: skip


def checked(given: Any, kinds: tuple[str, ...], most: int) -> list[dict[str, Any]]:
    """The things, each with every key. Raises Malformed."""
    if not isinstance(given, list) or not given or len(given) > most:
        raise Malformed(f"things is not a list of 1 to {most}")
    return [_one(thing, kinds, index) for index, thing in enumerate(given)]


def _one(thing: Any, kinds: tuple[str, ...], index: int) -> dict[str, Any]:
    kind = thing.get("kind") if isinstance(thing, dict) else None
    if kind not in kinds:
        raise Malformed(f"things[{index}] is of no kind that there is: {', '.join(kinds)}")
    found: dict[str, Any] = {"kind": kind}
    for key, (check, default) in _SHAPES[kind].items():
        value = thing.get(key, default)
        if value is _REQUIRED or not check(value):
            raise Malformed(f"{key} of things[{index}], which is of the kind {kind}, is missing or malformed")
        found[key] = value
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Malformed(f"things[{index}] has text that is not UTF-8") from None
    return found
