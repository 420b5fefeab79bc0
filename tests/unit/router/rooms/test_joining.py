"""Who may make a room (router/rooms/joining.py)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest

from router.rooms.joining import _may_create
from router.settings import Guests, Settings
from router.turn import Turn
from xmpp.errors import NotAllowed

GUEST, USER, ADMIN = "4f2a@guest.example/tab", "romeo@example.com/orchard", "admin@example.com/desk"
REMOTE = "tybalt@capulet.example/street"


@pytest.mark.parametrize(
    ("who", "allowed"), [("anyone", {USER, REMOTE, ADMIN}), ("local", {USER, ADMIN}), ("admins", {ADMIN})]
)
def test_who_may_make_a_room(who: Literal["anyone", "local", "admins"], allowed: set[str]) -> None:
    settings = Settings(
        domains=frozenset({"example.com", "guest.example"}),
        admins=frozenset({"admin@example.com"}),
        rooms_create=who,
        guests={"guest.example": Guests()},
    )
    turn: Any = SimpleNamespace(settings=settings)
    for jid in (GUEST, USER, ADMIN, REMOTE):
        if jid in allowed:
            _may_create(cast(Turn, turn), jid)
        else:
            with pytest.raises(NotAllowed):
                _may_create(cast(Turn, turn), jid)
