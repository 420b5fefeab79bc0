"""Who is there, for a component that joins and may see the presence of users (XEP-0356, 7, rule 1).

The component's owner asks every router; each shows the component its own users, a few at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final

from cluster import logs
from cluster.shards import ShardMap
from cluster.wire import Shard
from router.features.privileges import show
from router.owner import Owner
from router.privileges import presence_watchers
from router.turn import Turn

log = logs.get_logger()

METHOD: Final = "presence.introduce"  # of CALL, to a router
USERS: Final = 50  # shown in one go
PAUSE_S: Final = 0.05  # then others have their turn: 1,000 users a second, which a component can take


class Introductions:
    """One router's part of it. `around` runs a function as one batch of input, `ask` calls a method of a shard's owner
    and `start` runs a task."""

    def __init__(
        self,
        owner: Owner,
        shard_map: ShardMap,
        around: Callable[[Callable[[], None]], None],
        ask: Callable[[Shard, str, tuple[Any, ...]], Awaitable[Any]],
        start: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._owner = owner
        self._map = shard_map
        self._around = around
        self._ask = ask
        self._start = start
        self._shown: set[str] = set()  # components that this router is busy with
        owner.peers.joined = self.joined

    def joined(self, domain: str) -> None:
        """A component that may see presence has come, to this router."""
        self._start(self._ask_all(domain))

    async def _ask_all(self, domain: str) -> None:
        a_shard_of = {owner: Shard(shard) for shard, owner in enumerate(self._map.owners) if owner is not None}
        asked = (self._ask(shard, METHOD, (domain,)) for shard in a_shard_of.values())
        for problem in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(problem, BaseException):
                log.warning("presence_not_shown", domain=domain, problem=str(problem))

    def introduce(self, domain: str) -> None:
        """Show the component who is here."""
        if domain not in self._shown and domain in presence_watchers(self._owner.settings):
            self._shown.add(domain)
            self._start(self._introduce(domain))

    async def _introduce(self, domain: str) -> None:
        try:
            here = [entity.bare for entity in self._owner.entities.values() if not entity.is_peer and entity.sessions]
            for start in range(0, len(here), USERS):
                self._around(partial(self._show, here[start : start + USERS], domain))
                await asyncio.sleep(PAUSE_S)
        finally:
            self._shown.discard(domain)

    def _show(self, bares: list[str], domain: str) -> None:
        def run(turn: Turn) -> None:
            for session in turn.entity.available():
                assert session.presence is not None
                show(turn, session.presence, domain, is_first=True)

        owner = self._owner
        for bare in bares:
            entity = owner.entities.get(bare)
            if entity is not None:
                owner.when_loaded(entity, partial(owner.act, entity, run))
