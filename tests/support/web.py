"""Web clients for tests, by blocking sockets: a WebSocket and a BOSH session that say exactly what the test wants."""

from __future__ import annotations

import http.client
import re
import secrets
import socket
import ssl
from base64 import b64encode
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from c2s.http import bosh, websocket
from c2s.http.frames import CLOSE, TEXT
from tests.support.client import WAIT_S
from tests.support.cluster import FACTOR, Account, RunningCluster
from xmpp import ns

KEY: Final = b64encode(b"k" * 16).decode()
UPGRADE: Final = {
    "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Protocol": "xmpp",
}  # fmt: skip
OPEN: Final = f"<open xmlns='{ns.FRAMING}' to='%s' version='1.0'/>"
CLOSE_STREAM: Final = f"<close xmlns='{ns.FRAMING}'/>"
BIND: Final = f"<iq xmlns='{ns.CLIENT}' type='set' id='bind'><bind xmlns='{ns.BIND}'/></iq>"


class Ended(Exception):
    """The other end has closed the WebSocket, with this status code (1006: without one)."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def auth(account: Account) -> str:
    """PLAIN, as RFC 6120 has it."""
    initial = f"\0{account.jid.partition('@')[0]}\0{account.password}".encode()
    return f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{b64encode(initial).decode()}</auth>"


def connected(cluster: RunningCluster, *, tls: bool) -> socket.socket:
    """A connection to one of the HTTP ports."""
    port = cluster.facts["ports"]["https" if tls else "http"]
    plain = socket.create_connection((cluster.host, port), WAIT_S * FACTOR)
    return cluster.tls().wrap_socket(plain, server_hostname=cluster.domain) if tls else plain


class WebSocket:
    """A context manager. `headers` replace those of a right handshake; None takes one away."""

    def __init__(
        self, cluster: RunningCluster, *, tls: bool = False, headers: Mapping[str, str | None] | None = None,
        before: bytes = b"",
    ) -> None:  # fmt: skip
        self.domain = cluster.domain
        self.socket: socket.socket | ssl.SSLSocket = connected(cluster, tls=tls)
        self.jid = ""
        self._read = b""
        wanted = {"Host": cluster.domain, **UPGRADE, **(headers or {})}
        lines = [f"{name}: {value}" for name, value in wanted.items() if value is not None]
        request = f"GET {websocket.PATH} HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n"
        self.socket.sendall(before + request.encode())
        head = self._until(b"\r\n\r\n")
        self.status = int(head.split(b" ")[1])
        self.headers = dict(line.decode().lower().split(": ", 1) for line in head.split(b"\r\n")[1:-2])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def _until(self, end: bytes) -> bytes:
        while end not in self._read:
            self._more()
        head, mark, self._read = self._read.partition(end)
        return head + mark

    def _bytes(self, count: int) -> bytes:
        while len(self._read) < count:
            self._more()
        found, self._read = self._read[:count], self._read[count:]
        return found

    def _more(self) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise Ended(1006)
        self._read += data

    def raw(self, data: bytes) -> None:
        """Bytes as they are."""
        self.socket.sendall(data)

    def send(self, text: str, opcode: int = TEXT) -> None:
        """One message."""
        payload, mask = text.encode(), secrets.token_bytes(4)
        length = len(payload)
        head = bytes([0x80 | opcode])
        if length < 126:
            head += bytes([0x80 | length])
        elif length < 65_536:
            head += bytes([0x80 | 126]) + length.to_bytes(2, "big")
        else:
            head += bytes([0x80 | 127]) + length.to_bytes(8, "big")
        self.raw(head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)))

    def frame(self) -> tuple[int, bytes]:
        """The next frame: opcode, payload. Raises Ended."""
        first, length = self._bytes(2)
        assert first & 0xF0 == 0x80, "whole, and no extension"
        if length > 125:
            length = int.from_bytes(self._bytes(2 if length == 126 else 8), "big")
        payload = self._bytes(length)
        if first & 0x0F == CLOSE:
            raise Ended(int.from_bytes(payload[:2], "big"))
        return first & 0x0F, payload

    def read(self) -> str:
        """The next text. Raises Ended."""
        while True:
            opcode, payload = self.frame()
            if opcode == TEXT:
                return payload.decode()

    def expect(self, text: str) -> str:
        """The next text that has this in it."""
        while text not in (found := self.read()):
            pass
        return found

    def open(self) -> str:
        """A stream; its features."""
        self.send(OPEN % self.domain)
        assert self.read().startswith(f'<open xmlns="{ns.FRAMING}"')
        return self.read()

    def sign_in(self, account: Account) -> None:
        """Up to a bound resource."""
        self.open()
        self.send(auth(account))
        assert self.read() == f'<success xmlns="{ns.SASL}"/>'
        self.open()
        self.send(BIND)
        found = re.search("<jid>(.*)</jid>", self.read())
        assert found is not None
        self.jid = found[1]


class Browser:
    """A BOSH session, each request by a connection of its own, so that it lands anywhere."""

    def __init__(self, cluster: RunningCluster, *, tls: bool = False, **attributes: str) -> None:
        self._cluster = cluster
        self._tls = tls
        self.rid = secrets.randbelow(2**50)
        self.sid = ""
        self.jid = ""
        self.opened = self.ask("", to=cluster.domain, hold="1", wait="10", ver="1.6", **attributes)
        found = re.search(r'sid="([^"]+)"', self.opened)
        self.sid = found[1] if found is not None else ""

    def ask(self, inner: str = "", extra: str = "", **attributes: str) -> str:
        """The next request; waits for its answer."""
        self.rid += 1
        return self.at(self.rid, inner, extra, **attributes)

    def at(self, rid: int, inner: str = "", extra: str = "", **attributes: str) -> str:
        """A request with this rid."""
        given = {"rid": str(rid), **({"sid": self.sid} if self.sid else {}), **attributes}
        written = "".join(f" {name}='{value}'" for name, value in given.items())
        body = f"<body xmlns='{ns.HTTPBIND}'{written} {extra}>{inner}</body>".encode()
        status, headers, answer = post(self._cluster, body, tls=self._tls)
        assert status == 200, answer
        assert headers["content-type"] == "text/xml; charset=utf-8"
        return answer

    def until(self, text: str, answer: str = "") -> str:
        """Ask for nothing until this is told."""
        while text not in answer:
            assert 'type="terminate"' not in answer, answer
            answer = self.ask()
        return answer

    def sign_in(self, account: Account) -> None:
        """Up to a bound resource."""
        self.until("<success", self.ask(auth(account)))
        restart = f"to='{self._cluster.domain}' xmpp:restart='true' xmlns:xmpp='{ns.XBOSH}'"
        self.until("<bind", self.ask("", restart))
        found = re.search("<jid>(.*)</jid>", self.until("<jid>", self.ask(BIND)))
        assert found is not None
        self.jid = found[1]


def post(
    cluster: RunningCluster, body: bytes, *, tls: bool = False, method: str = "POST", path: str = bosh.PATH,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, str], str]:  # fmt: skip
    """One HTTP request: status, headers, text."""
    port = cluster.facts["ports"]["https" if tls else "http"]
    wait_s = 3 * WAIT_S * FACTOR
    connection = (
        http.client.HTTPSConnection(cluster.host, port, timeout=wait_s, context=cluster.tls())
        if tls
        else http.client.HTTPConnection(cluster.host, port, timeout=wait_s)
    )
    try:
        connection.request(method, path, body or None, {"Content-Type": "text/xml; charset=utf-8", **(headers or {})})
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read().decode()
    finally:
        connection.close()
