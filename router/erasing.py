"""What is left to do when an account has ended: its archive, its nodes, and what names it elsewhere, as rooms, nodes of
others and queues. Each router does it for the names whose shards it owns, from a list in the database, so that it is
done also if a router dies over it; every step may be repeated.

What others keep of their own stays: their copies of messages, their rosters and block lists.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

from cluster import logs, metrics
from cluster.files import FilesAway
from router.calls import CallError
from router.features.guests import BY as GUEST
from router.owner import Owner
from router.pubsub import forgetting
from router.pubsub.node import host_of
from router.registration import Registration
from router.rooms.room import occupant_id
from router.turn import Turn
from router.upload_keeper import UploadKeeper
from storage import audit, erasures
from storage.erasures import Erasure
from storage.pool import is_away
from storage.store import Store
from xmpp.errors import StanzaError
from xmpp.jid import domain_of

log = logs.get_logger()

LOOK_S: Final = 2.0
PAGE: Final = 500

erased = metrics.counter(
    "stentor_accounts_erased_total", "Names that were erased", {"by": ["user", "operator", "guest"]}
)

Ask = Callable[[str, str, tuple[Any, ...]], Awaitable[Any]]


class Erasing:
    """`ask` calls a method of the owner of a bare JID (`router/calls.py`)."""

    def __init__(self, store: Store, owner: Owner, registration: Registration, ask: Ask, uploads: UploadKeeper) -> None:
        self._uploads = uploads
        self._store = store
        self._owner = owner
        self._registration = registration
        self._ask = ask

    def methods(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        """By the names that calls have."""
        return {"admin.erase": self._registration.erase, "nodes.forget": self.forget_in_nodes}

    async def run(self) -> None:
        """As long as the router lives."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except CallError as problem:
                log.info("erasure_waits", problem=problem.condition)
            except StanzaError as problem:
                log.info("erasure_waits", problem=str(problem))
            except FilesAway as problem:
                log.warning("erasure_waits", problem=f"uploads: {problem}")
            except Exception as problem:
                if not is_away(problem):
                    log.error("erasure_failed", exc_info=problem)

    async def look(self) -> None:
        """Do what there is to do here."""
        for job in await self._store.run(erasures.pending):
            if self._owner.tenures[job.shard] is not None:
                await self._erase(job)

    async def _erase(self, job: Erasure) -> None:
        jid = job.jid
        assert jid is not None
        removed = Counter(job.removed)
        if domain_of(jid) in self._owner.settings.domains:
            await self._registration.settle(jid)
        for room in await self._store.run(erasures.rooms_naming, jid):
            removed.update(await self._ask(room, "rooms.forget", (room, jid)))
        # Guests come and go all the time, and have published and subscribed to nothing: no table is looked through.
        is_guest = job.by == GUEST
        for host in await self._store.run(erasures.hosts_naming, jid) if not is_guest else ():
            removed.update(await self._ask(host, "nodes.forget", (host, jid)))
        if job.with_rooms:
            removed["room_messages"] += await self._bury(jid)
        key = await self._store.run(erasures.key_of, jid)
        if key is not None:
            await self._own(key, removed)
            removed["uploads"] += await self._uploads.erase(key)
        if not is_guest or self._may_write_to_others(jid):
            removed["waiting_for_servers"] += await self._store.run(erasures.forget_outbound, jid)
        removed["reports"] += await self._store.run(erasures.forget_reports, jid)
        await self._store.run(audit.forget, jid, f"erasure {job.id}")
        await self._store.run(erasures.finish, job.id, jid, dict(removed), not is_guest)
        erased.labels(job.by).inc()
        if is_guest:
            log.debug("guest_erased", account=jid)
            return
        log.info("account_erased", account=jid, by=job.by, removed={k: n for k, n in sorted(removed.items()) if n})

    def _may_write_to_others(self, guest: str) -> bool:
        allowed = self._owner.settings.guests.get(domain_of(guest))
        return allowed is None or allowed.remote

    async def _own(self, key: int, removed: Counter[str]) -> None:
        """Its nodes and its log, in pieces: there may be millions of rows."""
        for node in await self._store.run(erasures.nodes_of, key):
            while found := await self._store.run(erasures.delete_rows, node):
                removed["node_archive"] += sum(found.values())
            removed["nodes"] += 1
            removed["items"] += await self._store.run(erasures.delete_node, node)
        while found := await self._store.run(erasures.delete_rows, key):
            for class_, count in found.items():
                removed[erasures.CLASSES.get(class_, "queue")] += count

    async def _bury(self, jid: str) -> int:
        """What it has said in any room: nobody keeps a list of who was where, so that all archives are searched."""
        count, after = 0, ""
        while page := await self._store.run(erasures.rooms_after, after, PAGE):
            for room in page:
                above = 0
                name = occupant_id(room.origin, jid)
                while ids := await self._store.run(erasures.said_in, room.key, name, above, PAGE):
                    count += await self._ask(room.jid, "rooms.bury", (room.jid, room.key, tuple(ids)))
                    above = ids[-1]
            after = page[-1].jid
        return count

    async def forget_in_nodes(self, bare: str, jid: str) -> dict[str, int]:
        """A call: nodes of an entity that is owned here."""
        removed: dict[str, int] = {}
        nodes: list[int] = []

        def look(turn: Turn) -> None:
            nodes.extend(node.key for node in host_of(turn.entity).nodes.values())

        def run(turn: Turn) -> None:
            removed.update(forgetting.forget(turn, jid))
            self._owner.pipeline.tell(turn)

        await self._registration.command(bare, look)
        removed["published"] = await self._store.run(erasures.published_by, nodes, jid)
        await self._registration.command(bare, run)
        return removed
