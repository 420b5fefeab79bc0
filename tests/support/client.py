"""A small XMPP client for tests: a blocking socket, so that a conversation reads as one, and says exactly what the
test wants it to say, right or wrong."""

from __future__ import annotations

import itertools
import select
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Self, cast
from xml.etree import ElementTree

from tests.support.cluster import FACTOR, Account, RunningCluster

WAIT_S: Final = 10.0
CLIENT: Final = "{jabber:client}"
STREAMS: Final = "{http://etherx.jabber.org/streams}"
SASL: Final = "{urn:ietf:params:xml:ns:xmpp-sasl}"
ERRORS: Final = "{urn:ietf:params:xml:ns:xmpp-stanzas}"
STREAM_ERRORS: Final = "{urn:ietf:params:xml:ns:xmpp-streams}"

Element = ElementTree.Element
_ids = itertools.count(1)


class StreamEnded(Exception):
    """The server has closed the stream; `error` is its condition, "" without one."""

    def __init__(self, error: str) -> None:
        super().__init__(error or "closed")
        self.error = error


class Client:
    """One connection. Use it as a context manager."""

    def __init__(self, cluster: RunningCluster, *, direct_tls: bool = False, domain: str | None = None) -> None:
        self.cluster = cluster
        self.domain = domain or cluster.domain
        port = cluster.tls_port if direct_tls else cluster.port
        self.socket: socket.socket = socket.create_connection((cluster.host, port), WAIT_S * FACTOR)
        if direct_tls:
            context = cluster.tls()
            context.set_alpn_protocols(["xmpp-client"])
            self.socket = context.wrap_socket(self.socket, server_hostname=self.domain)
        self.jid = ""
        self.bare = ""
        self._waiting: list[Element] = []
        self._restart()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    # --- bytes and elements

    def _restart(self) -> None:
        self._parser: ElementTree.XMLPullParser[Element] = ElementTree.XMLPullParser(("start", "end"))
        self._depth = 0
        self._root: Element | None = None

    def send(self, data: str | bytes) -> None:
        """Bytes as they are."""
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def read(self, seconds: float = WAIT_S) -> Element:
        """The next first-level element. Raises StreamEnded, or TimeoutError."""
        while True:
            for event, element in cast(Iterator[tuple[str, Element]], self._parser.read_events()):
                if event == "start":
                    self._depth += 1
                    if self._depth == 1:
                        self._root = element
                    continue
                self._depth -= 1
                if self._depth == 0:
                    raise StreamEnded("")
                if self._depth == 1:
                    assert self._root is not None
                    self._root.clear()
                    if element.tag == f"{STREAMS}error":
                        raise StreamEnded(element[0].tag.removeprefix(STREAM_ERRORS))
                    return element
            self._feed(seconds)

    def _feed(self, seconds: float) -> None:
        pending = self.socket.pending() if isinstance(self.socket, ssl.SSLSocket) else 0
        if not pending and not select.select([self.socket], [], [], seconds * FACTOR)[0]:
            raise TimeoutError(f"{self.jid or 'client'}: nothing came for {seconds} s")
        try:
            data = self.socket.recv(65_536)
        except ConnectionResetError:
            data = b""
        if not data:
            raise StreamEnded("connection closed")
        self._parser.feed(data)

    def expect(self, matches: Callable[[Element], bool], seconds: float = WAIT_S) -> Element:
        """The next element that matches; others are kept for later."""
        for index, element in enumerate(self._waiting):
            if matches(element):
                return self._waiting.pop(index)
        while True:
            element = self.read(seconds)
            if matches(element):
                return element
            self._waiting.append(element)

    def end(self, seconds: float = WAIT_S) -> str:
        """Read until the stream ends; its error condition."""
        try:
            while True:
                self.read(seconds)
        except StreamEnded as ended:
            return ended.error

    # --- negotiation

    def open(self, to: str | None = None) -> Element:
        """Send a header; returns the stream features."""
        self._restart()
        self.send(
            f"<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' "
            f"to='{to or self.domain}' version='1.0'>"
        )
        return self.expect(lambda element: element.tag == f"{STREAMS}features")

    def start_tls(self) -> Element:
        """STARTTLS; returns the features behind it."""
        self.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        self.expect(lambda element: element.tag.endswith("proceed"))
        self.socket = self.cluster.tls().wrap_socket(self.socket, server_hostname=self.domain)
        return self.open()

    def plain(self, account: Account, password: str | None = None) -> Element:
        """SASL PLAIN; returns <success/> or <failure/>."""
        name = account.jid.partition("@")[0]
        data = b64encode(f"\0{name}\0{account.password if password is None else password}".encode()).decode()
        self.send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{data}</auth>")
        return self.expect(lambda element: element.tag in (f"{SASL}success", f"{SASL}failure"))

    def bind(self, resource: str | None = None) -> str:
        """Bind a resource; returns the full JID."""
        wanted = f"<resource>{resource}</resource>" if resource else ""
        self.send(f"<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>{wanted}</bind></iq>")
        answer = self.expect(lambda element: element.get("id") == "bind")
        assert answer.get("type") == "result", ElementTree.tostring(answer)
        self.jid = answer[0][0].text or ""
        self.bare = self.jid.partition("/")[0]
        return self.jid

    # --- talk

    def iq(self, type: str, payload: str, to: str | None = None) -> Element:
        """Ask and wait for the answer."""
        id_ = f"iq{next(_ids)}"
        address = f" to='{to}'" if to else ""
        self.send(f"<iq type='{type}' id='{id_}'{address}>{payload}</iq>")
        return self.expect(lambda e: e.tag == f"{CLIENT}iq" and e.get("id") == id_ and e.get("type") != "set")

    def ping(self) -> None:
        """Everything sent before has been handled by the owner."""
        assert self.iq("get", "<ping xmlns='urn:xmpp:ping'/>", self.domain).get("type") == "result"

    def message(self, to: str, body: str, type: str = "chat") -> str:
        """Send a message; returns its id."""
        id_ = f"m{next(_ids)}"
        self.send(f"<message to='{to}' type='{type}' id='{id_}'><body>{body}</body></message>")
        return id_

    def body(self, seconds: float = WAIT_S) -> str:
        """The body of the next message."""
        message = self.expect(lambda e: e.tag == f"{CLIENT}message" and e.find(f"{CLIENT}body") is not None, seconds)
        return message.findtext(f"{CLIENT}body") or ""

    def presence(self, type: str | None, from_: str, seconds: float = WAIT_S) -> Element:
        """The next presence of this type from this address (bare: any resource)."""

        def matches(element: Element) -> bool:
            sender = element.get("from") or ""
            return (
                element.tag == f"{CLIENT}presence"
                and element.get("type") == type
                and from_ in (sender, sender.partition("/")[0])
            )

        return self.expect(matches, seconds)


def condition(element: Element) -> str:
    """The condition of an error stanza or SASL failure."""
    if element.tag == f"{SASL}failure":
        return element[0].tag.removeprefix(SASL)
    error = element.find(f"{CLIENT}error")
    assert error is not None, ElementTree.tostring(element)
    return next(child.tag for child in error if child.tag.startswith(ERRORS)).removeprefix(ERRORS)


def sign_in(cluster: RunningCluster, account: Account, resource: str | None = None, *, tls: bool = False) -> Client:
    """A client with a bound resource and initial presence."""
    client = Client(cluster, domain=account.jid.partition("@")[2])
    client.open()
    if tls:
        client.start_tls()
    answer = client.plain(account)
    assert answer.tag == f"{SASL}success", condition(answer)
    client.open()
    client.bind(resource)
    client.send("<presence/>")
    client.presence(None, client.jid)
    return client


def place(cluster: RunningCluster, client: Client) -> tuple[str, str]:
    """The c2s that holds the client's connection, and the router that owns it."""
    from urllib.parse import quote

    shown = cluster.api.call("GET", f"/sessions/{quote(client.jid, safe='')}")
    return shown["node"], shown["router"]


def sign_in_apart(cluster: RunningCluster, *, other_c2s: bool, other_router: bool) -> tuple[Client, Client]:
    """Two clients, on the same or different c2s and routers, as the test needs."""
    first = sign_in(cluster, cluster.account())
    node, router = place(cluster, first)
    for _ in range(100):
        second = sign_in(cluster, cluster.account())
        node_2, router_2 = place(cluster, second)
        if (node_2 != node) == other_c2s and (router_2 != router) == other_router:
            return first, second
        second.socket.close()
    raise AssertionError("the sessions did not spread over the processes")
