"""Requests of a BOSH session reach the process that has it, wherever they land: by a router, for processes that hold
streams have no links to each other."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, Final

from cluster.wire import RELAY, Envelope, Incarnation

SPARE_S: Final = 15.0  # beyond the longest wait; then the client asks again

Handler = Callable[[bytes, str, bool, Callable[[bytes | None], None]], None]


class Relay:
    """Both ends of it, in one process."""

    def __init__(self, send: Callable[[Incarnation, Envelope], bool], routers: Callable[[], set[Incarnation]]) -> None:
        self._requests = itertools.count(1)
        self._send = send
        self._routers = routers
        self._asked: dict[str, tuple[str, Incarnation, asyncio.Future[bytes | None]]] = {}
        self.handler: Handler | None = None

    async def ask(
        self, mark: str, raw: bytes, address: str, is_secure: bool, wait_s: float
    ) -> tuple[bool, bytes | None]:
        """Have another process answer a request. Returns whether there is such a process, and its answer: None where
        it was asked for nothing, or cannot be reached now."""
        request = f"{next(self._requests):x}"
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        try:
            for router in self._routers():
                self._asked[request] = (mark, router, future)
                if self._send(router, (RELAY, mark, request, ("ask", raw, address, is_secure))):
                    break
            else:
                return True, None
            async with asyncio.timeout(wait_s + SPARE_S):
                return True, await future
        except TimeoutError:
            return True, None
        except LookupError:
            return False, None
        finally:
            self._asked.pop(request, None)

    def receive(self, sender: str, request: str, data: tuple[Any, ...]) -> None:
        """What a router has passed on; the sender is a mark."""
        what, *rest = data
        if what == "ask" and self.handler is not None:
            raw, address, is_secure = rest

            def answer(body: bytes | None) -> None:
                for router in self._routers():
                    if self._send(router, (RELAY, sender, request, ("answer", body))):
                        return

            self.handler(raw, address, is_secure, answer)
            return
        if what == "gone":
            self._gone(sender)
            return
        asked = self._asked.get(request)
        if asked is None or asked[0] != sender or asked[2].done():
            return  # nobody waits for it any more, or it was somebody else who was asked
        if what == "answer":
            asked[2].set_result(rest[0])
        elif what == "nobody":
            asked[2].set_exception(LookupError(sender))

    def _gone(self, mark: str) -> None:
        for whom, _, future in self._asked.values():
            if whom == mark and not future.done():
                future.set_exception(LookupError(mark))

    def router_lost(self, router: Incarnation) -> None:
        """What went by it may be lost: the clients ask again."""
        for _, by, future in self._asked.values():
            if by == router and not future.done():
                future.set_result(None)
