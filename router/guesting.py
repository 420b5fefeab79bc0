"""People who sign in anonymously: their accounts are made here, and ended where no session ever came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from cluster import logs, metrics
from cluster.shards import shard_of
from router.calls import CallError
from router.features import guests as feature
from router.owner import Owner
from router.registration import Registration
from router.turn import Turn
from storage import guests
from storage.pool import is_away
from storage.store import Store
from xmpp.errors import StanzaError
from xmpp.jid import domain_of

log = logs.get_logger()

LOOK_S: Final = 10.0
SPARE_S: Final = 10.0  # beyond the time in which a client has to bind a resource

seen = metrics.counter(
    "stentor_router_guests_total",
    "People who came to sign in anonymously: limited were too many, of the domain or from one address",
    {"result": ["accepted", "limited"]},
)


class Guesting:
    """Guests of shards owned here. `login_s`: how long a client may take from its connection to a session."""

    def __init__(self, store: Store, owner: Owner, registration: Registration, login_s: float) -> None:
        self._store = store
        self._owner = owner
        self._registration = registration
        self._forsaken_s = login_s + SPARE_S

    def methods(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        """By the names that calls have."""
        return {"auth.guest": self.admit}

    async def admit(self, bare: str, network: str) -> bool:
        """Make an account of this name, which its c2s has thought of, for somebody in this network. Raises CallError
        where there are too many; two who come at the same moment may both be let in."""
        domain = domain_of(bare)
        allowed = self._owner.settings.guests.get(domain)
        if allowed is None:
            raise CallError("temporary-auth-failure")  # the edge's settings are not this router's: they change just now
        there = await self._store.run(guests.count, domain, network, bare)
        if there.all >= allowed.sessions or (allowed.per_address and there.of_network >= allowed.per_address):
            seen.labels("limited").inc()
            raise CallError("temporary-auth-failure", "There are too many guests. Try again later.")
        await self._registration.admit(bare, lambda turn: turn.write(guests.add, bare, network))
        seen.labels("accepted").inc()
        return True

    async def follow(self) -> None:
        """As long as the router lives: whoever signed in and got no session is gone."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except StanzaError as problem:
                log.info("guests_wait", problem=str(problem))
            except Exception as problem:
                if not is_away(problem):
                    log.error("guests_failed", exc_info=problem)

    async def look(self) -> None:
        """End those of shards owned here."""
        for bare in await self._store.run(guests.forsaken, self._forsaken_s):
            if self._owner.tenures[shard_of(bare)] is not None:
                await self._registration.command(bare, self._end)

    def _end(self, turn: Turn) -> None:
        feature.end(turn)
        self._owner.pipeline.tell(turn)
