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
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar
from xml.etree import ElementTree

import slixmpp
from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import StanzaPath

from c2s.channel_binding import tls_exporter
from tests.peers.common import WAIT_S, Inbox, Server
from tests.support.cluster import FACTOR, Account

PLUGINS: Final = (
    "xep_0012", "xep_0030", "xep_0045", "xep_0048", "xep_0049", "xep_0054", "xep_0077", "xep_0085", "xep_0092", "xep_0191",
    "xep_0199", "xep_0202", "xep_0203", "xep_0280", "xep_0313", "xep_0352", "xep_0359", "xep_0441", "xep_0004",
    "xep_0050", "xep_0060", "xep_0065", "xep_0084", "xep_0115", "xep_0118", "xep_0163", "xep_0223", "xep_0363", "xep_0402",
)  # fmt: skip
STREAM_MANAGEMENT: Final = "xep_0198"
PUBSUB: Final = "http://jabber.org/protocol/pubsub"

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
    """A message that arrived; `error` is the condition of one that came back, `archive_id` what the account's own archive
    calls it, `sent_at` when it was sent if it had to wait."""

    from_: str
    body: str
    type: str
    error: str = ""
    archive_id: str = ""
    sent_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class State:
    """A chat state that arrived."""

    from_: str
    state: str


@dataclass(frozen=True, slots=True)
class Carbon:
    """A copy of a message that another device "received" or has "sent"."""

    direction: str
    from_: str
    to: str
    body: str
    archive_id: str


@dataclass(frozen=True, slots=True)
class Archived:
    """A message in an archive."""

    id: str
    from_: str
    to: str
    body: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Preferences:
    """What an archive keeps."""

    default: str
    always: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()


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
    and Python how not to get. `registers` makes the account first, in band, with the token of an `invitation` where there is one. `befriends` has it answer subscription requests as slixmpp does by default: accepted, and returned.
    `resumes` turns stream management on; then it asks for acknowledgements when it is told to. `appears`: it sends
    presence. `shows`: the certificate and key that it has, as files. Certificates are verified.
    """

    def __init__(
        self,
        server: Server,
        account: Account,
        *,
        direct_tls: bool = False,
        mechanism: str | None = None,
        tls: ssl.TLSVersion | None = None,
        exports: bool = False,
        registers: bool = False,
        invitation: str = "",
        befriends: bool = False,
        resumes: bool = False,
        appears: bool = True,
        shows: tuple[Path, Path] | None = None,
    ) -> None:
        self.server = server
        self.bare = account.jid
        self.messages: Inbox[Chat] = Inbox("message")
        self.presences: Inbox[Presence] = Inbox("presence")
        self.occupants: Inbox[Presence] = Inbox("presence in a room")
        self.pushes: Inbox[tuple[str, Contact]] = Inbox("roster push")
        self.states: Inbox[State] = Inbox("chat state")
        self.carbons: Inbox[Carbon] = Inbox("copy")
        self.acknowledged: Inbox[str] = Inbox("acknowledgement of a message")
        self._direct_tls = direct_tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"slixmpp {account.jid}", daemon=True)
        self._thread.start()
        try:
            self._client: Any = self._run(
                lambda: self._make(account, tls, mechanism, exports, registers, invitation, befriends, resumes, shows)
            )
            self._run(lambda: self._sign_in(resumes, appears))
            if appears:
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

    def plugin(self, name: str, act: Callable[[Any], Awaitable[T]]) -> T:
        """The result of something that one of slixmpp's plugins does. Raises Refused."""
        return self._run(lambda: act(self._client.plugin[name]))

    def on_event(self, name: str, inbox: Inbox[Any], value: Callable[[Any], Any]) -> None:
        """Keep a value of each event of this name."""
        self._do(lambda: self._client.add_event_handler(name, lambda event: inbox.put(value(event))))

    def wants(self, plugin: str) -> None:
        """The plugin's node is to be told of: slixmpp says so in its capabilities, and in presence that it sends."""

        async def say() -> None:
            self._client.plugin["xep_0163"].add_interest(self._client.plugin[plugin].stanza.UserTune.namespace)
            await self._client.plugin["xep_0115"].update_caps()

        self._run(say)

    def ask(self, type: str, inner: str) -> None:
        """An IQ without an address, with this content. Raises Refused."""

        def send() -> Any:
            iq = self._client.make_iq(itype=type)
            iq.append(ElementTree.fromstring(inner))
            return iq.send()

        self._run(send)

    def command(self, jid: str, node: str) -> dict[str, str]:
        """Run an ad-hoc command that needs no form; the fields of its answer (XEP-0050). Raises Refused."""

        async def run() -> dict[str, str]:
            answer = await self._client.plugin["xep_0050"].send_command(jid, node)
            values = answer["command"]["form"].get_values()
            return {name: value for name, value in values.items() if isinstance(value, str)}

        return self._run(run)

    def takes_pushes(self, inbox: Inbox[str]) -> None:
        """It is a push service from now on (XEP-0357, 7): every notification is answered, its node kept."""

        def take(iq: Any) -> None:
            inbox.put(iq.xml.find(f".//{{{PUBSUB}}}publish").get("node"))
            iq.reply().send()

        self._do(lambda: self._client.register_handler(Callback("push", StanzaPath("iq@type=set/pubsub"), take)))

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
        invitation: str, befriends: bool, resumes: bool, shows: tuple[Path, Path] | None,
    ) -> Any:  # fmt: skip
        context = ssl.create_default_context(cafile=str(self.server.certificate))
        if shows is not None:
            context.load_cert_chain(*shows)
        if tls is not None:
            context.minimum_version = context.maximum_version = tls
        client: Any = slixmpp.ClientXMPP(account.jid, account.password, sasl_mech=mechanism, ssl_context=context)
        for plugin in PLUGINS:
            client.register_plugin(plugin)
        if resumes:
            client.register_plugin(STREAM_MANAGEMENT, {"window": 1_000_000})
            client.add_event_handler("stanza_acked", self._on_acknowledged)
        client.roster.auto_authorize = True if befriends else None
        client.roster.auto_subscribe = befriends
        client.add_event_handler("message", self._on_message)
        client.add_event_handler("message_error", self._on_message)
        client.add_event_handler("presence", self._on_presence)
        client.add_event_handler("groupchat_presence", self._on_occupant)
        client.add_event_handler("roster_update", self._on_roster)
        client.add_event_handler("chatstate", self._on_state)
        client.add_event_handler("carbon_received", lambda message: self._on_carbon("received", message))
        client.add_event_handler("carbon_sent", lambda message: self._on_carbon("sent", message))
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
        if invitation:
            plugin = client.plugin["xep_0077"]
            ask_for_form = plugin.get_registration

            def get_registration() -> Any:
                # slixmpp knows no XEP-0445, and holds other requests back until it is signed in.
                client.send_raw(f"<iq type='set' id='p'><preauth xmlns='urn:xmpp:pars:0' token='{invitation}'/></iq>")
                return ask_for_form()

            plugin.get_registration = get_registration
        return client

    async def _sign_in(self, resumes: bool, appears: bool) -> None:
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
        client.enable_direct_tls, client.enable_starttls = self._direct_tls, not self._direct_tls
        enabled = self._until("sm_enabled") if resumes else None
        self._connect()
        await started
        if enabled is not None:
            await enabled
        await client.get_roster()
        if appears:
            client.send_presence()

    def _connect(self) -> None:
        port = self.server.tls_port if self._direct_tls else self.server.port
        self._client.connect(self.server.host, port)

    def _until(self, *events: str) -> asyncio.Future[str]:
        """Done with the first of these events, which it names; it listens from now on."""
        happened: asyncio.Future[str] = self._loop.create_future()

        def note(event: str, _: Any) -> None:
            if not happened.done():
                happened.set_result(event)

        for event in events:
            self._client.add_event_handler(event, partial(note, event), disposable=True)
        return happened

    async def _lose_connection(self) -> None:
        lost = self._until("disconnected")
        self._client.transport.abort()
        await lost

    async def _return(self) -> bool:
        is_back = self._until("session_resumed", "session_start")
        self._connect()
        return await is_back == "session_resumed"

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
        delay = message.get_plugin("delay", check=True)
        sent_at = None if delay is None else delay["stamp"]
        id_ = self._archive_id(message)
        self.messages.put(Chat(message["from"].full, message["body"], message["type"], error, id_, sent_at))

    def _archive_id(self, message: Any) -> str:
        id_ = message.get_plugin("stanza_id", check=True)
        return "" if id_ is None or id_["by"] != self.bare else id_["id"]

    def _on_state(self, message: Any) -> None:
        if not message["body"]:
            self.states.put(State(message["from"].full, message["chat_state"]))

    def _on_carbon(self, direction: str, wrapper: Any) -> None:
        copy = wrapper[f"carbon_{direction}"]
        from_, to = copy["from"].full, copy["to"].full
        self.carbons.put(Carbon(direction, from_, to, copy["body"], self._archive_id(copy)))

    def _on_acknowledged(self, stanza: Any) -> None:
        if isinstance(stanza, slixmpp.Message):
            self.acknowledged.put(stanza["body"])

    def _on_presence(self, presence: Any) -> None:
        self.presences.put(Presence(presence["from"].full, presence["type"], presence["status"]))

    def _on_occupant(self, presence: Any) -> None:
        self.occupants.put(Presence(presence["from"].full, presence["type"], presence["status"]))

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

    def type_to(self, to: str, state: str = "composing") -> None:
        """XEP-0085: tell a chat state and nothing else."""

        def tell() -> None:
            message = self._client.make_message(to, mtype="chat")
            message["chat_state"] = state
            message.send()

        self._do(tell)

    def send_presence(self, show: str | None = None, status: str | None = None) -> None:
        """Tell everybody who is subscribed."""
        self._do(lambda: self._client.send_presence(pshow=show, pstatus=status))

    def subscription(self, type: str, to: str) -> None:
        """Send presence of this type: subscribe, subscribed, unsubscribe, unsubscribed."""
        self._do(lambda: self._client.send_presence_subscription(to, ptype=type))

    def presence(self, from_: str, type: str = "available") -> Presence:
        """The next presence of this type from this full or bare JID."""
        return self.presences.take(lambda p: p.type == type and from_ in (p.from_, p.from_.partition("/")[0]))

    # --- rooms (XEP-0045)

    def join(self, room: str, nick: str) -> None:
        """Enter a room: all that a room sends at first has come."""
        wait = WAIT_S * FACTOR
        self._run(lambda: self._client.plugin["xep_0045"].join_muc_wait(slixmpp.JID(room), nick, timeout=wait))

    def open_room(self, room: str) -> None:
        """Take a new room as the service proposes it: the form goes back as it came (10.1.3)."""

        async def configure() -> None:
            plugin = self._client.plugin["xep_0045"]
            form = await plugin.get_room_config(slixmpp.JID(room))
            form["type"] = "submit"
            await plugin.set_room_config(slixmpp.JID(room), form)

        self._run(configure)

    def leave(self, room: str, nick: str) -> None:
        """Leave it."""
        self._do(lambda: self._client.plugin["xep_0045"].leave_muc(slixmpp.JID(room), nick))

    def occupant(self, jid: str, type: str = "available") -> Presence:
        """The next presence of this type from somebody in a room, also of oneself."""
        return self.occupants.take(lambda presence: (presence.from_, presence.type) == (jid, type))

    def say(self, room: str, body: str) -> None:
        """Send a message to everybody in a room."""
        self._do(lambda: self._client.send_message(room, body, mtype="groupchat"))

    # --- stream management (XEP-0198)

    def ask_for_acknowledgement(self) -> None:
        """One `<r/>`, behind what was sent."""

        async def ask() -> None:
            await self._client.waiting_queue.join()  # what is being sent
            self._client.plugin[STREAM_MANAGEMENT].request_ack()

        self._run(ask)

    def cut(self) -> None:
        """Lose the connection: no goodbye, and what is in its buffers is gone."""
        self._run(self._lose_connection)

    def come_back(self) -> bool:
        """Connect again; whether the session goes on. If not, there is a new one."""
        return self._run(self._return)

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

    def enable_carbons(self) -> None:
        """XEP-0280."""
        self._run(self._client.plugin["xep_0280"].enable)

    def disable_carbons(self) -> None:
        """XEP-0280."""
        self._run(self._client.plugin["xep_0280"].disable)

    def look_away(self) -> None:
        """XEP-0352: nobody looks at this client. The answer to a ping behind it says that the server knows."""
        self._do(self._client.plugin["xep_0352"].send_inactive)
        self.ping(self._client.boundjid.domain)

    def look_at(self) -> None:
        """XEP-0352: somebody does again."""
        self._do(self._client.plugin["xep_0352"].send_active)

    def archive(
        self,
        *,
        with_: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        page: int = 10,
        reverse: bool = False,
    ) -> list[Archived]:
        """XEP-0313: what one's own archive has, read in pages; with `reverse` the newest page, the newest first."""
        # COMPAT: slixmpp 1.17 takes the page with the last message for the last page, also when it reads backwards
        # (it does so where a server tells index and count). `archive_page` goes further back.

        async def read() -> list[Archived]:
            with_jid = None if with_ is None else slixmpp.JID(with_)
            results = self._client.plugin["xep_0313"].iterate(
                start=start, end=end, with_jid=with_jid, reverse=reverse, rsm={"max": page}
            )
            return [_archived(result) async for result in results]

        return self._run(read)

    def archive_page(self, **rsm: str | int) -> tuple[list[Archived], int, int]:
        """XEP-0313: one page; its messages, the index of the first, and how many there are in all."""
        iq = self._run(lambda: self._client.plugin["xep_0313"].retrieve(rsm=rsm))
        told = iq["mam_fin"]["rsm"]
        return [_archived(result) for result in iq["mam"]["results"]], int(told["first_index"]), int(told["count"])

    def archive_ends(self) -> tuple[tuple[str, datetime], tuple[str, datetime]]:
        """XEP-0313, 5: id and time of the first and of the last message."""
        told = self._run(self._client.plugin["xep_0313"].get_archive_metadata)["mam_metadata"]
        return (told["start"]["id"], told["start"]["timestamp"]), (told["end"]["id"], told["end"]["timestamp"])

    def archive_fields(self) -> set[str]:
        """XEP-0313, 4.1.5: by what one may search."""
        return set(self._run(self._client.plugin["xep_0313"].get_fields).get_fields())

    def preferences(self) -> Preferences:
        """XEP-0441."""
        default, always, never = self._run(self._client.plugin["xep_0441"].get_preferences)
        return Preferences(default, frozenset(map(str, always)), frozenset(map(str, never)))

    def set_preferences(self, wanted: Preferences) -> None:
        """XEP-0441."""
        always, never = ([slixmpp.JID(jid) for jid in jids] for jids in (wanted.always, wanted.never))
        self._run(lambda: self._client.plugin["xep_0441"].set_preferences(wanted.default, always, never))

    def register_with(self, service: str) -> None:
        """XEP-0077, 3.1: register with a service, such as a gateway, that wants to know nothing more."""
        iq = self._client.make_iq_set(ito=service)
        iq.enable("register")
        self._run(iq.send)

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


def befriend(one: Slixmpp, other: Slixmpp) -> None:
    """Each sees the other's presence."""
    for subscriber, contact in ((one, other), (other, one)):
        subscriber.subscription("subscribe", contact.bare)
        contact.presence(subscriber.bare, "subscribe")
        contact.subscription("subscribed", subscriber.bare)
        subscriber.presence(contact.bare, "subscribed")
        subscriber.presence(contact.jid)
    for client, contact in ((one, other), (other, one)):
        client.push(contact.bare, "both")


def _archived(result: Any) -> Archived:
    found = result["mam_result"]
    message, at = found["forwarded"]["stanza"], found["forwarded"]["delay"]["stamp"]
    return Archived(found["id"], message["from"].full, message["to"].full, message["body"], at)
