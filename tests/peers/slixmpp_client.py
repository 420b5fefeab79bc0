"""Drives slixmpp: a client library that others wrote, in a thread and event loop of its own, behind blocking calls.

What arrives is kept until a test takes it. slixmpp's own plugins do the work; what they return is handed on as values.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Final, TypeVar

import slixmpp
from slixmpp.exceptions import IqError, IqTimeout

from c2s.channel_binding import tls_exporter
from tests.peers.common import WAIT_S, Inbox, certificate
from tests.support.cluster import FACTOR, Account, RunningCluster

PLUGINS: Final = (
    "xep_0012", "xep_0030", "xep_0048", "xep_0049", "xep_0054", "xep_0077", "xep_0092", "xep_0191", "xep_0199",
    "xep_0202",
)  # fmt: skip

T = TypeVar("T")


class LoginFailed(Exception):
    """Signing in has failed; `condition` is the last that the server gave (RFC 6120, 6.5), "" without one."""

    def __init__(self, condition: str) -> None:
        super().__init__(condition or "no condition")
        self.condition = condition


class Refused(Exception):
    """The answer to an IQ was an error with this condition (RFC 6120, 8.3.3)."""

    def __init__(self, condition: str) -> None:
        super().__init__(condition)
        self.condition = condition


@dataclass(frozen=True, slots=True)
class Chat:
    """A message that arrived; `error` is the condition of one that came back."""

    from_: str
    body: str
    type: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Presence:
    """A presence that arrived. As slixmpp has it, `type` is "available" or the show where the stanza has none."""

    from_: str
    type: str
    status: str


@dataclass(frozen=True, slots=True)
class Contact:
    """One item of a roster."""

    subscription: str
    name: str
    groups: tuple[str, ...]
    is_asked: bool  # a subscription request waits for the contact's answer


class Slixmpp:
    """One client that signs in and becomes available. Use it as a context manager.

    `mechanism` is the only SASL mechanism it may use; without one it chooses by itself, which is the strongest offered.
    `tls` is the one TLS version it speaks. `exports` gives slixmpp the `tls-exporter` data that it knows how to use
    and Python how not to get. `registers` makes the account first, in band. `befriends` has it answer subscription
    requests as slixmpp does by default: accepted, and returned. Certificates are verified.
    """

    def __init__(
        self,
        cluster: RunningCluster,
        account: Account,
        *,
        direct_tls: bool = False,
        mechanism: str | None = None,
        tls: ssl.TLSVersion | None = None,
        exports: bool = False,
        registers: bool = False,
        befriends: bool = False,
    ) -> None:
        self.cluster = cluster
        self.bare = account.jid
        self.messages: Inbox[Chat] = Inbox("message")
        self.presences: Inbox[Presence] = Inbox("presence")
        self.pushes: Inbox[tuple[str, Contact]] = Inbox("roster push")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"slixmpp {account.jid}", daemon=True)
        self._thread.start()
        try:
            self._client: Any = self._run(lambda: self._make(account, tls, mechanism, exports, registers, befriends))
            self._run(lambda: self._sign_in(direct_tls))
            self.presence(self.jid)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Slixmpp:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the stream as slixmpp does, and end its thread."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- in the client's thread

    def _run(self, begin: Callable[[], Awaitable[T]], seconds: float = WAIT_S) -> T:
        """The result of what is begun in the client's thread. Raises Refused, TimeoutError."""

        async def wait() -> T:
            return await asyncio.wait_for(begin(), seconds * FACTOR)

        try:
            return asyncio.run_coroutine_threadsafe(wait(), self._loop).result()
        except IqTimeout:
            raise TimeoutError("an IQ got no answer") from None
        except IqError as error:
            raise Refused(error.condition) from None

    def _do(self, act: Callable[[], object]) -> None:
        """Do this in the client's thread, after what was done before."""

        async def done() -> None:
            act()

        self._run(done)

    async def _make(
        self, account: Account, tls: ssl.TLSVersion | None, mechanism: str | None, exports: bool, registers: bool,
        befriends: bool,
    ) -> Any:  # fmt: skip
        context = ssl.create_default_context(cafile=str(certificate(self.cluster)))
        if tls is not None:
            context.minimum_version = context.maximum_version = tls
        client: Any = slixmpp.ClientXMPP(account.jid, account.password, sasl_mech=mechanism, ssl_context=context)
        for plugin in PLUGINS:
            client.register_plugin(plugin)
        client.roster.auto_authorize = True if befriends else None
        client.roster.auto_subscribe = befriends
        client.add_event_handler("message", self._on_message)
        client.add_event_handler("message_error", self._on_message)
        client.add_event_handler("presence", self._on_presence)
        client.add_event_handler("roster_update", self._on_roster)
        if exports:
            sasl = client.plugin["feature_mechanisms"]
            inherited = sasl.sasl_callback

            def credentials(required: set[str], optional: set[str]) -> dict[str, Any]:
                return {**inherited(required, optional), "channel_binding": tls_exporter(client.socket)}

            sasl.sasl_callback = credentials
        if registers:

            async def register(_: Any) -> None:
                iq = client.Iq()
                iq["type"] = "set"
                iq["register"]["username"] = client.boundjid.user
                iq["register"]["password"] = account.password
                await iq.send()

            client.add_event_handler("register", register)
        return client

    async def _sign_in(self, direct_tls: bool) -> None:
        client = self._client
        started: asyncio.Future[None] = self._loop.create_future()
        conditions: list[str] = []

        def succeed(_: Any) -> None:
            if not started.done():
                started.set_result(None)

        def fail(_: Any) -> None:
            if not started.done():
                started.set_exception(LoginFailed(conditions[-1] if conditions else ""))

        client.add_event_handler("failed_auth", lambda failure: conditions.append(failure["condition"]))
        client.add_event_handler("session_start", succeed)
        for event in ("failed_all_auth", "connection_failed", "disconnected"):
            client.add_event_handler(event, fail)
        client.enable_direct_tls, client.enable_starttls = direct_tls, not direct_tls
        client.connect(self.cluster.host, self.cluster.tls_port if direct_tls else self.cluster.port)
        await started
        await client.get_roster()
        client.send_presence()

    async def _end(self) -> None:
        client = getattr(self, "_client", None)
        if client is not None:
            client.cancel_connection_attempt()
            await client.disconnect(wait=WAIT_S * FACTOR)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}  # slixmpp leaves its sender running
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_message(self, message: Any) -> None:
        error = message["error"]["condition"] if message["type"] == "error" else ""
        self.messages.put(Chat(message["from"].full, message["body"], message["type"], error))

    def _on_presence(self, presence: Any) -> None:
        self.presences.put(Presence(presence["from"].full, presence["type"], presence["status"]))

    def _on_roster(self, iq: Any) -> None:
        if iq["type"] == "set":
            for jid, contact in _contacts(iq).items():
                self.pushes.put((jid, contact))

    # --- who and where

    @property
    def jid(self) -> str:
        """The full JID."""
        return str(self._client.boundjid.full)

    @property
    def mechanism(self) -> str:
        """The SASL mechanism that it signed in with."""
        return str(self._client.plugin["feature_mechanisms"].mech.name)

    # --- messages and presence

    def message(self, to: str, body: str) -> None:
        """Send a chat message."""
        self._do(lambda: self._client.send_message(to, body, mtype="chat"))

    def body(self, from_: str | None = None) -> str:
        """The body of the next message (from this full or bare JID); one that came back is none."""
        return self.messages.take(lambda m: not m.error and from_ in (None, m.from_, m.from_.partition("/")[0])).body

    def send_presence(self, show: str | None = None, status: str | None = None) -> None:
        """Tell everybody who is subscribed."""
        self._do(lambda: self._client.send_presence(pshow=show, pstatus=status))

    def subscription(self, type: str, to: str) -> None:
        """Send presence of this type: subscribe, subscribed, unsubscribe, unsubscribed."""
        self._do(lambda: self._client.send_presence_subscription(to, ptype=type))

    def presence(self, from_: str, type: str = "available") -> Presence:
        """The next presence of this type from this full or bare JID."""
        return self.presences.take(lambda p: p.type == type and from_ in (p.from_, p.from_.partition("/")[0]))

    # --- roster

    def roster(self) -> dict[str, Contact]:
        """The roster, all of it."""
        iq = self._client.make_iq_get()
        iq.enable("roster")
        return _contacts(self._run(iq.send))

    def changes(self) -> dict[str, Contact]:
        """What the server answers when slixmpp asks with the version that it has (RFC 6121, 2.6)."""
        return _contacts(self._run(self._client.get_roster))

    def put_contact(self, jid: str, name: str, groups: tuple[str, ...] = ()) -> None:
        """Add or change a contact."""
        self._run(lambda: self._client.update_roster(jid, name=name, groups=list(groups), subscription=None))

    def remove_contact(self, jid: str) -> None:
        """Remove a contact."""
        self._run(lambda: self._client.del_roster_item(jid))

    def push(self, jid: str, subscription: str | None = None) -> Contact:
        """The next roster push about this contact (that tells this subscription)."""
        return self.pushes.take(lambda push: push[0] == jid and subscription in (None, push[1].subscription))[1]

    # --- questions, each by the plugin of its XEP

    def ping(self, jid: str) -> None:
        """XEP-0199."""
        self._run(lambda: self._client.plugin["xep_0199"].send_ping(jid))

    def info(self, jid: str) -> tuple[set[tuple[str, str]], set[str]]:
        """XEP-0030: (category, type) of the identities, and the features."""
        info = self._run(lambda: self._client.plugin["xep_0030"].get_info(jid, cached=False, local=False))["disco_info"]
        return {identity[:2] for identity in info["identities"]}, set(info["features"])

    def items(self, jid: str) -> list[str]:
        """XEP-0030: the JIDs of the items."""
        items = self._run(lambda: self._client.plugin["xep_0030"].get_items(jid, local=False))["disco_items"]["items"]
        return [str(item[0]) for item in items]

    def version(self, jid: str) -> tuple[str, str, str]:
        """XEP-0092: name, version, operating system."""
        found = self._run(lambda: self._client.plugin["xep_0092"].get_version(jid))["software_version"]
        return found["name"], found["version"], found["os"]

    def time(self, jid: str) -> tuple[datetime, str]:
        """XEP-0202: UTC, and the offset of the time zone."""
        told = self._run(lambda: self._client.plugin["xep_0202"].get_entity_time(jid))["entity_time"].xml
        # COMPAT: slixmpp 1.17 cannot read either element as XEP-0082 writes it (it puts a Z behind the Z of <utc/>, and
        # takes <tzo/> for a date): the text, then.
        return datetime.fromisoformat(told.findtext("{urn:xmpp:time}utc")), told.findtext("{urn:xmpp:time}tzo")

    def last_activity(self, jid: str) -> int:
        """XEP-0012, seconds."""
        iq = self._run(lambda: self._client.plugin["xep_0012"].get_last_activity(slixmpp.JID(jid)))
        return int(iq["last_activity"]["seconds"])

    def publish_vcard(self, full_name: str, nickname: str) -> None:
        """XEP-0054: replace one's own."""
        plugin = self._client.plugin["xep_0054"]
        card = plugin.make_vcard()
        card["FN"] = full_name
        card["NICKNAME"] = nickname
        self._run(lambda: plugin.publish_vcard(card))

    def vcard(self, jid: str) -> tuple[str, list[str]]:
        """XEP-0054: full name and nicknames, from the server."""
        iq = self._run(lambda: self._client.plugin["xep_0054"].get_vcard(slixmpp.JID(jid), local=False, cached=False))
        return iq["vcard_temp"]["FN"], iq["vcard_temp"]["NICKNAME"] or []

    def block(self, jid: str) -> None:
        """XEP-0191."""
        self._run(lambda: self._client.plugin["xep_0191"].block(slixmpp.JID(jid)))

    def unblock(self, jid: str) -> None:
        """XEP-0191."""
        self._run(lambda: self._client.plugin["xep_0191"].unblock(slixmpp.JID(jid)))

    def blocked(self) -> set[str]:
        """XEP-0191: the list."""
        return {str(jid) for jid in self._run(self._client.plugin["xep_0191"].get_blocked_jids)}

    def set_bookmarks(self, rooms: dict[str, str]) -> None:
        """XEP-0048 in private storage (XEP-0049): room -> nickname."""
        plugin = self._client.plugin["xep_0048"]
        bookmarks = plugin.stanza.Bookmarks()
        for room, nick in rooms.items():
            bookmarks.add_conference(room, nick)
        self._run(lambda: plugin.set_bookmarks(bookmarks))

    def bookmarks(self) -> dict[str, str]:
        """XEP-0048 in private storage (XEP-0049): room -> nickname."""
        iq = self._run(self._client.plugin["xep_0048"].get_bookmarks)
        return {str(room["jid"]): room["nick"] for room in iq["private"]["bookmarks"]["conferences"]}

    def change_password(self, password: str) -> None:
        """XEP-0077, 3.3."""
        self._run(lambda: self._client.plugin["xep_0077"].change_password(password))

    def remove_account(self) -> None:
        """XEP-0077, 3.2."""
        self._run(lambda: self._client.plugin["xep_0077"].cancel_registration())


def _contacts(iq: Any) -> dict[str, Contact]:
    items = iq["roster"]["items"]
    return {
        str(jid): Contact(item["subscription"], item["name"], tuple(sorted(item["groups"])), item["ask"] == "subscribe")
        for jid, item in items.items()
    }
