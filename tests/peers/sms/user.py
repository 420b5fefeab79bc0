"""A user of Prosody: slixmpp in a thread of its own, with what a client does towards a gateway."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, TypeVar

import slixmpp
from slixmpp.exceptions import IqError
from slixmpp.xmlstream import ET

from tests.peers.common import WAIT_S, Inbox
from tests.peers.sms.programs import HOST
from tests.support.cluster import FACTOR

GATEWAY: Final = "sms.example.org"

T = TypeVar("T")


class Refused(Exception):
    """The answer was an error with this condition."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message: a text, a receipt of the message `receipt`, or the error `error` about the message `id`."""

    from_: str
    body: str
    id: str
    receipt: str = ""
    error: str = ""
    error_text: str = ""
    is_delayed: bool = False


class User:
    """Signed in and available. Presence comes as (from, type)."""

    def __init__(self, name: str, port: int) -> None:
        self.bare = f"{name}@example.org"
        self.messages: Inbox[Arrived] = Inbox("message")
        self.presences: Inbox[tuple[str, str]] = Inbox("presence")
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"slixmpp {name}", daemon=True)
        self._thread.start()
        try:
            self._client: Any = self._run(self._make)
            self._run(self._sign_in)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> User:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Sign out."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- in the client's thread

    def _run(self, begin: Callable[[], Awaitable[T]]) -> T:
        async def wait() -> T:
            return await asyncio.wait_for(begin(), WAIT_S * FACTOR)

        try:
            return asyncio.run_coroutine_threadsafe(wait(), self._loop).result()
        except IqError as error:
            raise Refused(error.condition) from None

    async def _make(self) -> Any:
        client: Any = slixmpp.ClientXMPP(self.bare, "secret")
        for plugin in ("xep_0030", "xep_0077", "xep_0184", "xep_0199", "xep_0203"):
            client.register_plugin(plugin)
        client.plugin["xep_0184"].auto_ack = False
        client.plugin["xep_0184"].auto_request = False
        client.plugin["feature_mechanisms"].unencrypted_plain = True
        client.enable_plaintext, client.enable_starttls, client.enable_direct_tls = True, False, False
        client.add_event_handler("message", self._on_message)
        client.add_event_handler("message_error", self._on_message)
        client.add_event_handler("receipt_received", self._on_message)
        client.add_event_handler("presence", lambda p: self.presences.put((str(p["from"]), p["type"])))
        return client

    async def _sign_in(self) -> None:
        started = self._loop.create_future()
        self._client.add_event_handler("session_start", lambda _: started.set_result(None))
        self._client.connect(HOST, self._port)
        await started
        await self._client.get_roster()
        self._client.send_presence()

    async def _end(self) -> None:
        client = getattr(self, "_client", None)
        if client is not None:
            client.cancel_connection_attempt()
            await client.disconnect(wait=WAIT_S * FACTOR)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_message(self, message: Any) -> None:
        is_error = message["type"] == "error"
        receipt = message.xml.find("{urn:xmpp:receipts}received")
        self.messages.put(
            Arrived(
                from_=str(message["from"]),
                body=message["body"],
                id=message["id"],
                receipt="" if receipt is None else receipt.get("id", ""),
                error=message["error"]["condition"] if is_error else "",
                error_text=message["error"]["text"] if is_error else "",
                is_delayed=message.get_plugin("delay", check=True) is not None,
            )
        )

    # --- what a test does

    def register(self, phone: str | None = None) -> None:
        """Register with the gateway, and accept that it subscribes, as slixmpp does by itself."""

        async def register() -> None:
            iq = self._client.make_iq_set(ito=GATEWAY)
            query = ET.SubElement(iq.xml, "{jabber:iq:register}query")
            if phone is not None:
                ET.SubElement(query, "{jabber:iq:register}phone").text = phone
            await iq.send()

        self._run(register)

    def unregister(self) -> None:
        """Remove the registration."""
        self._run(lambda: self._client.plugin["xep_0077"].cancel_registration(jid=GATEWAY))

    def registration(self) -> dict[str, str]:
        """The registration form: the name of each child -> its text."""
        iq = self._run(lambda: self._client.plugin["xep_0077"].get_registration(jid=GATEWAY))
        query = iq.xml.find("{jabber:iq:register}query")
        return {child.tag.rpartition("}")[2]: child.text or "" for child in query}

    def info(self, jid: str) -> tuple[set[tuple[str, str]], set[str]]:
        """Identities and features."""
        iq = self._run(lambda: self._client.plugin["xep_0030"].get_info(jid=jid, cached=False))
        return {(category, kind) for category, kind, *_ in iq["disco_info"]["identities"]}, set(
            iq["disco_info"]["features"]
        )

    def items(self) -> set[str]:
        """The JIDs that the gateway lists."""
        iq = self._run(lambda: self._client.plugin["xep_0030"].get_items(jid=GATEWAY))
        return {str(jid) for jid, _, _ in iq["disco_items"]["items"]}

    def ask_address(self, typed: str) -> str:
        """XEP-0100, 6.3: the JID of what was typed."""

        async def ask() -> str:
            iq = self._client.make_iq_set(ito=GATEWAY)
            query = ET.SubElement(iq.xml, "{jabber:iq:gateway}query")
            ET.SubElement(query, "{jabber:iq:gateway}prompt").text = typed
            answer = await iq.send()
            return answer.xml.findtext("{jabber:iq:gateway}query/{jabber:iq:gateway}jid") or ""

        return self._run(ask)

    def subscribe(self, to: str) -> None:
        """Add a contact."""
        self._do(lambda: self._client.send_presence_subscription(to, ptype="subscribe"))

    def send_presence(self, type: str | None = None) -> None:
        """Become available, or not."""
        self._do(lambda: self._client.send_presence(ptype=type))

    def message(self, number: str, body: str, *, wants_receipt: bool = True) -> str:
        """Send a text to a number; returns the stanza's id."""
        made: list[str] = []

        def send() -> None:
            message = self._client.make_message(f"{number}@{GATEWAY}", body, mtype="chat")
            message["id"] = self._client.new_id()
            if wants_receipt:
                message["request_receipt"] = True
            made.append(message["id"])
            message.send()

        self._do(send)
        return made[0]

    def type_to(self, number: str) -> None:
        """Tell a chat state."""

        def send() -> None:
            message = self._client.make_message(f"{number}@{GATEWAY}", mtype="chat")
            ET.SubElement(message.xml, "{http://jabber.org/protocol/chatstates}composing")
            message.send()

        self._do(send)

    def _do(self, act: Callable[[], object]) -> None:
        async def done() -> None:
            act()

        self._run(done)

    # --- what a test waits for

    def body(self, number: str) -> str:
        """The next text from a number."""
        return self.text(number).body

    def text(self, number: str) -> Arrived:
        """The same with what came along."""
        return self.messages.take(lambda m: m.from_ == f"{number}@{GATEWAY}" and bool(m.body) and not m.error, 20)

    def receipt(self, id_: str) -> None:
        """The receipt of a message."""
        self.messages.take(lambda m: m.receipt == id_, 20)

    def error(self, id_: str) -> Arrived:
        """The error about a message."""
        return self.messages.take(lambda m: m.id == id_ and bool(m.error), 20)

    def presence(self, from_: str, type_: str = "available") -> None:
        """A presence of this type."""
        self.presences.take(lambda p: p == (from_, type_), 20)
