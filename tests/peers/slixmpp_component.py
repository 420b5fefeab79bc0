"""slixmpp as a component (XEP-0114) that knows its privileges (XEP-0356), in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

import slixmpp
from slixmpp.exceptions import IqError
from slixmpp.plugins.xep_0356.privilege import PrivilegedIqError

from tests.peers.common import WAIT_S, Inbox
from tests.peers.slixmpp_client import Presence, Refused
from tests.support.cluster import FACTOR

T = TypeVar("T")


class SlixmppComponent:
    """One connection. Use it as a context manager: inside, its privileges have been told."""

    def __init__(self, jid: str, secret: str, host: str, port: int) -> None:
        self.jid = jid
        self.presences: Inbox[Presence] = Inbox("presence")
        self._address = host, port
        self._secret = secret
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"slixmpp {jid}", daemon=True)
        self._client: Any = None

    def __enter__(self) -> SlixmppComponent:
        self._thread.start()
        try:
            self._run(self._connect)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the stream, and end its thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, begin: Callable[[], Awaitable[T]]) -> T:
        async def wait() -> T:
            return await asyncio.wait_for(begin(), WAIT_S * FACTOR)

        try:
            return asyncio.run_coroutine_threadsafe(wait(), self._loop).result()
        except PrivilegedIqError as error:
            nested = error.nested_error()
            raise Refused("no nested error" if nested is None else nested.condition) from None
        except IqError as error:
            raise Refused(error.condition) from None

    async def _connect(self) -> None:
        make: Any = slixmpp.ComponentXMPP
        client = make(self.jid, self._secret, *self._address)
        self._client = client
        client.register_plugin("xep_0356")
        client.register_plugin("xep_0054")
        client.plugin["xep_0356"].granted_privileges.clear()  # slixmpp keeps them in the class
        told = asyncio.Event()
        client.add_event_handler("privileges_advertised", lambda _: told.set())
        client.add_event_handler("presence_available", self._on_presence)
        client.add_event_handler("presence_unavailable", self._on_presence)
        client.connect()
        await told.wait()

    async def _end(self) -> None:
        if self._client is not None:
            await asyncio.wait([asyncio.ensure_future(self._client.disconnect(wait=0.5))], timeout=WAIT_S)
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_presence(self, presence: Any) -> None:
        self.presences.put(Presence(presence["from"].full, presence["type"], presence["status"]))

    # --- what it may do

    def granted(self, domain: str) -> Any:
        """What this domain has granted, as slixmpp has understood it."""
        return self._client.plugin["xep_0356"].granted_privileges[domain]

    def roster(self, bare: str) -> dict[str, str]:
        """JID -> subscription in a user's roster. Raises Refused, PermissionError."""

        async def get() -> Any:
            return await self._client.plugin["xep_0356"].get_roster(bare)

        return {str(jid): item["subscription"] for jid, item in self._run(get)["roster"]["items"].items()}

    def set_roster(self, bare: str, items: dict[str, dict[str, Any]]) -> None:
        """Change a user's roster. Raises Refused."""

        async def change() -> Any:
            return await self._client.plugin["xep_0356"].set_roster(bare, items)

        self._run(change)

    def say_as(self, bare: str, to: str, body: str) -> None:
        """A chat message in a user's name."""

        async def say() -> None:
            message = self._client.make_message(mto=to, mfrom=slixmpp.JID(bare), mbody=body, mtype="chat")
            self._client.plugin["xep_0356"].send_privileged_message(message)

        self._run(say)

    def vcard_as(self, bare: str, of: str) -> str:
        """The full name in the vCard of somebody whom a user asks for it. Raises Refused."""

        async def ask() -> Any:
            iq: Any = slixmpp.Iq(sto=of, sfrom=bare, stype="get")  # type: ignore[no-untyped-call]  # slixmpp's
            iq.enable("vcard_temp")
            return await self._client.plugin["xep_0356"].send_privileged_iq(iq)

        return str(self._run(ask)["vcard_temp"]["FN"])
