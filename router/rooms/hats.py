"""Hats (XEP-0317): titles that admins give to people, shown beside role and affiliation. Values alone; the commands by
which they are made and given are in `router/rooms/dressing.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha1
from typing import Any, Final, NamedTuple

from xmpp import ns
from xmpp.errors import Conflict, ItemNotFound, NotAcceptable
from xmpp.xml import element

HATS: Final = 100  # in a room
WORN: Final = 20  # by one user
WEARERS: Final = 1_000
_LONGEST: Final = 1_000  # characters


class Hat(NamedTuple):
    """What is shown of it. `hue` is an angle in degrees as text, "" for none."""

    uri: str
    title: str
    hue: str = ""


class Hats:
    """The hats of a room, and who wears which."""

    __slots__ = ("_known", "_worn")

    def __init__(self) -> None:
        self._known: dict[str, Hat] = {}
        self._worn: dict[str, list[str]] = {}  # bare JID -> URIs

    def __iter__(self) -> Any:
        return iter(self._known.values())

    def worn(self) -> list[tuple[str, Hat]]:
        """Who wears what, by bare JID."""
        return [(bare, self._known[uri]) for bare, uris in sorted(self._worn.items()) for uri in uris]

    def wearers(self, uri: str) -> list[str]:
        """The bare JIDs of those who wear a hat."""
        return [bare for bare, uris in self._worn.items() if uri in uris]

    def make(self, hat: Hat) -> None:
        """A new hat, or another title for one; raises NotAcceptable."""
        if not hat.uri or not hat.title or len(hat.uri) > _LONGEST or len(hat.title) > _LONGEST:
            raise NotAcceptable(f"A hat has a URI and a title, each of at most {_LONGEST} characters.")
        if hat.hue and not _is_angle(hat.hue):
            raise NotAcceptable("A hue is an angle between 0 and 360.")
        if hat.uri not in self._known and len(self._known) >= HATS:
            raise NotAcceptable(f"A room has at most {HATS} hats.")
        self._known[hat.uri] = hat

    def unmake(self, uri: str) -> list[str]:
        """A hat goes, also from those who wear it; returns their bare JIDs. Raises ItemNotFound."""
        self._find(uri)
        wearers = self.wearers(uri)
        for bare in wearers:
            self._take_off(bare, uri)
        del self._known[uri]
        return wearers

    def give(self, bare: str, uri: str) -> None:
        """Raises ItemNotFound, or Conflict where somebody wears it already or too many others."""
        self._find(uri)
        worn = self._worn.get(bare, ())
        if uri in worn or len(worn) >= WORN or (not worn and len(self._worn) >= WEARERS):
            raise Conflict("That hat is on that head already, or there is no room for another.")
        self._worn.setdefault(bare, []).append(uri)

    def take(self, bare: str, uri: str) -> None:
        """Raises ItemNotFound where it is not worn."""
        if uri not in self._worn.get(bare, ()):
            raise ItemNotFound("That hat is not on that head.")
        self._take_off(bare, uri)

    def undress(self, bare: str) -> int:
        """Somebody wears none any more; returns how many they wore."""
        return len(self._worn.pop(bare, ()))

    def _take_off(self, bare: str, uri: str) -> None:
        self._worn[bare].remove(uri)
        if not self._worn[bare]:
            del self._worn[bare]

    def _find(self, uri: str) -> Hat:
        hat = self._known.get(uri)
        if hat is None:
            raise ItemNotFound("There is no such hat.")
        return hat

    def shown(self, bare: str) -> bytes:
        """What presence says of a user (3.1); nothing in a room without hats."""
        if not self._known:
            return b""
        hats = [self._known[uri] for uri in self._worn.get(bare, ())]
        return element(
            "hats", ns.HATS, None,
            *(element("hat", None, {"title": hat.title, "uri": hat.uri, "hue": hat.hue or None}) for hat in hats),
        )  # fmt: skip

    def hash(self) -> str:
        """2: another one whenever the list changes; "" in a room without hats."""
        if not self._known:
            return ""
        listed = json.dumps(sorted(self._known.values()))
        return sha1(listed.encode(), usedforsecurity=False).hexdigest()

    def to_json(self) -> str:
        """As the database keeps it."""
        return json.dumps({"known": list(self._known.values()), "worn": self._worn})


def from_json(known: Mapping[str, Any]) -> Hats:
    """The reverse of `Hats.to_json`; a room that never had any has {}."""
    hats = Hats()
    hats._known = {uri: Hat(uri, title, hue) for uri, title, hue in known.get("known", ())}
    hats._worn = {bare: list(uris) for bare, uris in known.get("worn", {}).items()}
    return hats


def _is_angle(text: str) -> bool:
    try:
        return 0 <= float(text) <= 360
    except ValueError:
        return False
