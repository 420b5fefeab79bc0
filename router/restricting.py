"""What operators do against abuse: calls of the administration API and of service administration (XEP-0133), run as
turns of the account."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from router import restrictions
from router.turn import Turn
from storage.restrictions import Kind
from xmpp.errors import ItemNotFound

Command = Callable[[str, Callable[[Turn], None]], Awaitable[None]]


class Restricting:
    """Accounts of shards owned here. `command` runs a function as a turn (`router/registration.py`). Each method raises
    ItemNotFound where there is no such account."""

    def __init__(self, command: Command) -> None:
        self._command = command

    def methods(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        """By the names that calls have."""
        return {"admin.restrict": self.restrict, "admin.unrestrict": self.unrestrict}

    async def restrict(
        self, bare: str, kind: Kind, reason: str, by: str, until: float | None = None, is_rule: bool = False
    ) -> None:
        """Ban an account, or put it into quarantine. A rule changes nothing where that was done already."""

        def run(turn: Turn) -> None:
            if turn.entity.key is None:
                raise ItemNotFound
            if not is_rule or restrictions.restriction(turn.entity, kind, turn.now) is None:
                restrictions.impose(turn, kind, reason, by, until, is_rule)

        await self._command(bare, run)

    async def unrestrict(self, bare: str, kind: Kind, by: str) -> bool:
        """End that; False where there was nothing to end."""
        was_there = False

        def run(turn: Turn) -> None:
            nonlocal was_there
            if turn.entity.key is None:
                raise ItemNotFound
            was_there = restrictions.lift(turn, kind, by)

        await self._command(bare, run)
        return was_there
