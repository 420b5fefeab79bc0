"""The proxy for bytestreams (XEP-0065, 6) in a cluster whose two c2s share one port: wherever the connections land."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from hashlib import sha1

import pytest

from tests.support.client import Client, condition, sign_in_apart
from tests.support.cluster import FACTOR, RunningCluster

BYTESTREAMS = "http://jabber.org/protocol/bytestreams"


@pytest.fixture
def pair(cluster: RunningCluster) -> Iterator[tuple[Client, Client]]:
    romeo, juliet = sign_in_apart(cluster, other_c2s=True, other_router=True)
    with romeo, juliet:
        yield romeo, juliet


def address(client: Client) -> tuple[str, int]:
    """Where the proxy is, as it says."""
    answer = client.iq("get", f"<query xmlns='{BYTESTREAMS}'/>", f"proxy.{client.domain}")
    host = answer.find(f"{{{BYTESTREAMS}}}query/{{{BYTESTREAMS}}}streamhost")
    assert host is not None
    assert host.get("jid") == f"proxy.{client.domain}"
    return host.get("host") or "", int(host.get("port") or "")


def connect(place: tuple[str, int], name: str) -> socket.socket:
    """A SOCKS5 connection that names this destination."""
    connection = socket.create_connection(place, 10 * FACTOR)
    connection.settimeout(10 * FACTOR)
    connection.sendall(b"\5\1\0")
    assert connection.recv(2) == b"\5\0"
    destination = b"\3" + bytes((len(name),)) + name.encode() + b"\0\0"
    connection.sendall(b"\5\1\0" + destination)
    answer = b""
    while len(answer) < 3 + len(destination):
        data = connection.recv(100)
        if not data:
            raise ConnectionError("refused")
        answer += data
    assert answer == b"\5\0\0" + destination, "6.3.2: what was asked for"
    return connection


def destination(sid: str, requester: Client, target: Client) -> str:
    return sha1(f"{sid}{requester.jid}{target.jid}".encode()).hexdigest()


def activate(client: Client, sid: str, target: Client) -> str:
    """ "" or the error."""
    inner = f"<query xmlns='{BYTESTREAMS}' sid='{sid}'><activate>{target.jid}</activate></query>"
    answer = client.iq("set", inner, f"proxy.{client.domain}")
    return "" if answer.get("type") == "result" else condition(answer)


def read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        assert piece, "it ends too early"
        data += piece
    return data


@pytest.mark.parametrize("number", range(4))
def test_what_one_writes_the_other_reads(pair: tuple[Client, Client], number: int) -> None:
    """Which c2s takes which connection is the kernel's choice."""
    romeo, juliet = pair
    sid = f"sid{number}"
    name, place = destination(sid, romeo, juliet), address(romeo)
    assert activate(romeo, sid, juliet) == "item-not-found"  # 6.3.5: nobody is there
    with connect(place, name) as target:
        assert activate(romeo, sid, juliet) == "not-allowed"  # only one is
        with connect(place, name) as requester:
            assert activate(romeo, sid, juliet) == ""
            data = bytes(range(256)) * 1_000
            requester.sendall(data)
            assert read(target, len(data)) == data
            target.sendall(b"thanks")
            assert read(requester, 6) == b"thanks"
            requester.shutdown(socket.SHUT_WR)
            assert target.recv(1) == b""
            target.sendall(b"bye")
            assert read(requester, 3) == b"bye"
            target.close()
            assert requester.recv(1) == b""


def test_nothing_flows_before_it_is_activated(pair: tuple[Client, Client]) -> None:
    romeo, juliet = pair
    name, place = destination("early", romeo, juliet), address(romeo)
    with connect(place, name) as target, connect(place, name) as requester:
        requester.sendall(b"early")
        target.settimeout(0.5)
        with pytest.raises(TimeoutError):
            target.recv(1)
        target.settimeout(10 * FACTOR)
        assert activate(juliet, "early", romeo) == "item-not-found", "another destination"
        assert activate(romeo, "early", juliet) == ""
        assert read(target, 5) == b"early"


@pytest.mark.parametrize("said", [b"\4\1\0", b"\5\1\2", b"\5\1\0" + b"\5\1\0\3\5hello\0\0", b"GET / HTTP/1.0\r\n\r\n"])
def test_connections_that_are_none(pair: tuple[Client, Client], said: bytes) -> None:
    with socket.create_connection(address(pair[0]), 10) as connection:
        connection.settimeout(10 * FACTOR)
        connection.sendall(said)
        try:
            while connection.recv(100):
                pass
        except ConnectionResetError:
            pass  # what it said was not read to the end


def test_who_may_not_ask(cluster: RunningCluster, pair: tuple[Client, Client]) -> None:
    romeo, juliet = pair
    proxy = f"proxy.{cluster.domain}"
    for inner in ("", "<activate/>", f"<activate>{juliet.jid}</activate>"):
        answer = romeo.iq("set", f"<query xmlns='{BYTESTREAMS}'>{inner}</query>", proxy)
        assert condition(answer) == "bad-request"
    info = romeo.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", proxy)
    assert {(e.get("category"), e.get("type")) for e in info[0] if e.get("category")} == {("proxy", "bytestreams")}
    items = romeo.iq("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", romeo.domain)
    assert proxy in {item.get("jid") for item in items[0]}
    romeo.send(f"<message to='{proxy}' id='m'><body>hello</body></message>")
    assert condition(romeo.expect(lambda e: e.get("id") == "m")) == "service-unavailable"
    made_up = f"{'0' * 40}@{proxy}"
    answer = romeo.iq("set", f"<query xmlns='{BYTESTREAMS}'/>", made_up)
    assert condition(answer) == "item-not-found"
