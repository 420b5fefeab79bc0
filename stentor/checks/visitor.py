"""An ordinary client, as far as a check needs one: a blocking connection over TLS, PLAIN, and what is said on it."""

from __future__ import annotations

import secrets
import select
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from types import TracebackType
from typing import Final

from lxml import etree

from xmpp import ns
from xmpp.stanza import Stanza, encode
from xmpp.stream import Element, Limits, StreamClose, StreamOpen, StreamParser, Violation, open_stream
from xmpp.xml import element, escape_attribute, parse_document

WAIT_S: Final = 10.0
STANZAS: Final = f"{{{ns.STANZAS}}}"


class Unexpected(Exception):
    """The server did not do what it should; the text says what it did."""


class Visitor:
    """One stream. Use it as a context manager."""

    def __init__(self, host: str, port: int, domain: str, *, is_direct_tls: bool = False) -> None:
        """Connect and encrypt. Whose the certificate is does not matter here: `stentor check tls` looks at that."""
        self.domain = domain
        self.jid = ""
        self.bare = ""
        self.features = etree.Element("features")
        self.waiting: list[etree._Element] = []
        self._socket: socket.socket = socket.create_connection((host, port), WAIT_S)
        self._parser = StreamParser(ns.CLIENT, Limits())
        if is_direct_tls:
            self._encrypt()
            self._open()
            return
        self._open()
        if self.features.find(f"{{{ns.TLS}}}starttls") is not None:
            self.send(element("starttls", ns.TLS))
            self._expect_tag(f"{{{ns.TLS}}}proceed")
            self._encrypt()
            self._open()

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def _encrypt(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["xmpp-client"])
        self._socket = context.wrap_socket(self._socket, server_hostname=self.domain)

    def _open(self) -> None:
        self._parser = StreamParser(ns.CLIENT, Limits())
        self.send(open_stream(namespace=ns.CLIENT, from_="", to=self.domain))
        self.features = self._expect_tag(f"{{{ns.STREAMS}}}features")

    def sign_in(self, local: str, password: str, resource: str | None = None) -> None:
        """PLAIN (RFC 4616), a resource, initial presence."""
        self.bare = f"{local}@{self.domain}"
        self._authenticate(local, password)
        named = element("resource", None, None, resource) if resource else b""
        answer = self.iq("set", element("bind", ns.BIND, None, named))
        self.jid = answer.findtext(f".//{{{ns.BIND}}}jid") or ""
        self.send("<presence/>")
        self.expect(lambda e: e.tag == f"{{{ns.CLIENT}}}presence" and e.get("from") == self.jid, "its own presence")

    def _authenticate(self, local: str, password: str) -> None:
        text = b64encode(f"\0{local}\0{password}".encode()).decode()
        self.send(element("auth", ns.SASL, {"mechanism": "PLAIN"}, text))
        self._expect_tag(f"{{{ns.SASL}}}success")
        self._open()

    def resume(self, before: Visitor, password: str, previd: str) -> None:
        """The stream of somebody whose connection is gone (XEP-0198, 5), who has read nothing."""
        self.jid, self.bare = before.jid, before.bare
        self._authenticate(before.bare.partition("@")[0], password)
        self.send(element("resume", ns.SM, {"previd": previd, "h": "0"}))
        self._expect_tag(f"{{{ns.SM}}}resumed")

    # --- what is said

    def send(self, data: bytes | str) -> None:
        """Bytes as they are."""
        self._socket.sendall(data.encode() if isinstance(data, str) else data)

    def read(self, seconds: float = WAIT_S) -> etree._Element:
        """The next first-level element. Raises Unexpected where none comes, or the stream ends."""
        give_up_at = time.monotonic() + seconds
        while True:
            event = self._parser.next_event()
            if isinstance(event, Stanza):
                return parse_document(encode(event, None, ns.CLIENT))
            if isinstance(event, Element):
                namespace, _, local = event.name.rpartition(" ")
                return parse_document(element(local, namespace, event.attributes, event.inner or event.text))
            if isinstance(event, StreamClose | Violation):
                raise Unexpected("the server closes the stream")
            if event is None:
                self._fill(give_up_at - time.monotonic())
            else:
                assert isinstance(event, StreamOpen)

    def _fill(self, seconds: float) -> None:
        pending = self._socket.pending() if isinstance(self._socket, ssl.SSLSocket) else 0
        if not pending and (seconds <= 0 or not select.select([self._socket], [], [], seconds)[0]):
            raise Unexpected("no answer comes")
        data = self._socket.recv(65_536)
        if not data:
            raise Unexpected("the connection was closed")
        self._parser.push(data)

    def expect(self, matches: Callable[[etree._Element], bool], what: str, seconds: float = WAIT_S) -> etree._Element:
        """The first element that is so; the others wait. Raises Unexpected."""
        for index, known in enumerate(self.waiting):
            if matches(known):
                return self.waiting.pop(index)
        give_up_at = time.monotonic() + seconds
        while True:
            try:
                found = self.read(give_up_at - time.monotonic())
            except Unexpected as problem:
                raise Unexpected(f"{what} does not come: {problem}") from None
            if matches(found):
                return found
            self.waiting.append(found)

    def _expect_tag(self, tag: str) -> etree._Element:
        found = self.read()
        if found.tag != tag:
            raise Unexpected(f"<{tag.partition('}')[2]}/> does not come, but <{str(found.tag).partition('}')[2]}/>")
        return found

    def iq(self, type: str, payload: bytes | str, to: str | None = None) -> etree._Element:
        """The result of a request. Raises Unexpected with the condition of an error."""
        id_ = secrets.token_hex(4)
        address = "" if to is None else f' to="{escape_attribute(to)}"'
        data = payload if isinstance(payload, bytes) else payload.encode()
        self.send(f'<iq type="{type}" id="{id_}"{address}>'.encode() + data + b"</iq>")
        answer = self.expect(
            lambda e: e.tag == f"{{{ns.CLIENT}}}iq" and e.get("id") == id_ and e.get("type") in ("result", "error"),
            "an answer",
        )
        if answer.get("type") == "error":
            raise Unexpected(f"the answer is {condition(answer)}")
        return answer


def condition(stanza: etree._Element) -> str:
    """The condition of an error."""
    return next((str(e.tag).removeprefix(STANZAS) for e in stanza.iter() if str(e.tag).startswith(STANZAS)), "an error")
