"""Asking processes what operators want of them (cluster/orders.py): the routers' side of ORDER and REPORT."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from cluster.bus import Bus
from cluster.orders import Orders
from cluster.wire import ORDER, Incarnation, node_of

WAIT_S: Final = 10.0


class Reported(NamedTuple):
    """What a process has answered; `problem` is "" where all is well, and the value None where it is not."""

    node: str
    role: str
    problem: str
    value: Any


class Ordering:
    """`orders` are this router's own."""

    def __init__(self, bus: Bus, orders: Orders, new_id: Callable[[], int]) -> None:
        self._bus = bus
        self._orders = orders
        self._new_id = new_id
        self._asked: dict[tuple[Incarnation, str], asyncio.Future[tuple[bool, Any]]] = {}

    def processes(self) -> dict[Incarnation, str]:
        """Those that live, this one included, with their roles."""
        return {self._bus.incarnation: "router"} | {name: peer.role for name, peer in self._bus.peers.items()}

    async def ask_all(self, node: str, name: str, *arguments: Any) -> list[Reported]:
        """Ask the process of this name, or all ("" or "all"), by their names."""
        wanted = [one for one in self.processes() if node in ("", "all", node_of(one))]
        found = await asyncio.gather(*(self._ask(one, name, arguments) for one in wanted))
        return sorted(found)

    async def ask_role(self, role: str, name: str, *arguments: Any) -> list[Reported]:
        """Ask all processes of a role, by their names."""
        wanted = [one for one, of in self.processes().items() if of == role]
        return sorted(await asyncio.gather(*(self._ask(one, name, arguments) for one in wanted)))

    async def _ask(self, process: Incarnation, name: str, arguments: tuple[Any, ...]) -> Reported:
        role = self.processes().get(process, "")
        if process == self._bus.incarnation:
            ok, value = await self._orders.obey(name, arguments)
        else:
            request = f"{self._new_id():x}"
            future = self._asked[process, request] = asyncio.get_running_loop().create_future()
            self._bus.send(process, (ORDER, request, name, arguments))
            try:
                ok, value = await asyncio.wait_for(future, WAIT_S)
            except TimeoutError:
                ok, value = False, f"no answer within {WAIT_S:.0f} s: it is gone, busy, or runs an older release"
            finally:
                self._asked.pop((process, request), None)
        return Reported(node_of(process), role, "" if ok else str(value), value if ok else None)

    def reported(self, sender: Incarnation, request: str, ok: bool, value: Any) -> None:
        """A REPORT."""
        future = self._asked.get((sender, request))
        if future is not None and not future.done():
            future.set_result((ok, value))
