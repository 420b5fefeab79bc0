"""Whether another server or a component answers (XEP-0199): `stentor ping`. The owner of the domain asks, as our own
domain; whatever comes back, also an error of theirs, shows that both ways work."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from router.owner import Owner
from router.turn import Turn
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.stanza import Stanza
from xmpp.xml import element

ANSWER_S: Final = 4.0  # less than a router waits for another one (router/calls.py)


class Pinging:
    """Of one router."""

    def __init__(self, owner: Owner, from_: str) -> None:
        self._owner = owner
        self._from = from_  # the domain of ours that asks
        self._asked: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._counter = 0

    async def ping(self, domain: str) -> float | None:
        """Seconds until a domain, which is owned here, has answered; None where it did not within ANSWER_S."""
        entity = self._owner.entity(domain)
        if entity is None:
            return None
        self._counter += 1
        id_ = f"ping-{self._owner.me}-{self._counter}"
        ping = stanzas.iq(
            to=domain, from_=self._from, type="get", id=id_, payload=f"{ns.PING} ping", inner=element("ping", ns.PING)
        )
        loop = asyncio.get_running_loop()
        answered = self._asked[domain, id_] = loop.create_future()
        begun = loop.time()
        self._owner.begin()
        try:
            self._owner.when_loaded(entity, partial(self._owner.act, entity, partial(_say, ping)))
        finally:
            self._owner.end()
        try:
            async with asyncio.timeout(ANSWER_S):
                await answered
        except TimeoutError:
            return None
        finally:
            del self._asked[domain, id_]
        return loop.time() - begun

    def hears(self, stanza: Stanza) -> bool:
        """Whether something that came to our server from another one is the answer; then it is dealt with."""
        answered = self._asked.get((stanza.from_ or "", stanza.id or ""))
        if answered is None or stanza.type not in ("result", "error"):
            return False
        if not answered.done():
            answered.set_result(None)
        return True


def _say(ping: Stanza, turn: Turn) -> None:
    turn.send(ping)
