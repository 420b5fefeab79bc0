"""WebSocket, BOSH and their discovery on real processes (c2s/http/): what holds over TCP holds here."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from c2s.http import frames, hostmeta, websocket
from c2s.proxy_protocol import SIGNATURE
from tests.support.client import WAIT_S, Client, sign_in
from tests.support.cluster import FACTOR, RunningCluster, start_cluster, wait_until
from tests.support.web import BIND, CLOSE_STREAM, OPEN, Browser, Ended, WebSocket, auth, connected, post
from xmpp import ns

SM = "urn:xmpp:sm:3"


# --- WebSocket


@pytest.mark.parametrize("tls", [False, True])
def test_a_chat_between_websocket_and_tcp(cluster: RunningCluster, tls: bool) -> None:
    romeo, juliet = cluster.account("romeo"), cluster.account("juliet")
    with WebSocket(cluster, tls=tls) as web, sign_in(cluster, juliet) as tcp:
        assert (web.status, web.headers["sec-websocket-protocol"]) == (101, "xmpp")
        web.sign_in(romeo)
        web.send(f"<message xmlns='{ns.CLIENT}' to='{tcp.jid}' type='chat'><body>è &lt;b&gt;</body></message>")
        assert tcp.body() == "è <b>"
        tcp.message(web.jid, "l'usignolo")
        told = web.expect("l'usignolo")
        assert told.startswith(f'<message xmlns="{ns.CLIENT}" to="{web.jid}" from="{tcp.jid}"')
        web.send(CLOSE_STREAM)
        assert web.read() == f'<close xmlns="{ns.FRAMING}"/>'
        with pytest.raises(Ended, match="1000"):
            web.read()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upgrade": None}, 426),
        ({"Connection": "keep-alive"}, 426),
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Key": "dG9vIHNob3J0"}, 400),
        ({"Sec-WebSocket-Protocol": None}, 400),
        ({"Sec-WebSocket-Protocol": "chat, mqtt"}, 400),
        ({"Sec-WebSocket-Protocol": "mqtt, xmpp"}, 101),
        ({"Origin": "https://elsewhere.example"}, 101),
    ],
)
def test_handshakes(cluster: RunningCluster, headers: dict[str, str | None], status: int) -> None:
    with WebSocket(cluster, headers=headers) as web:
        assert web.status == status
        if headers.get("Sec-WebSocket-Version"):
            assert web.headers["sec-websocket-version"] == "13"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x02hi", frames.PROTOCOL_ERROR),
        (b"\x82\x80\0\0\0\0", frames.UNSUPPORTED_DATA),
        (b"\x81\x81\0\0\0\0\xff", frames.INVALID_DATA),
        (b"\x81\xff" + (10**9).to_bytes(8, "big"), frames.TOO_BIG),
    ],
)
def test_frames_that_are_none_end_the_stream_and_the_socket(cluster: RunningCluster, data: bytes, code: int) -> None:
    with WebSocket(cluster) as web:
        web.open()
        web.raw(data)
        assert "<stream:error" in web.read()
        assert web.read() == f'<close xmlns="{ns.FRAMING}"/>'
        with pytest.raises(Ended, match=str(code)):
            web.read()


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("<message xmlns='jabber:client'/><message xmlns='jabber:client'/>", "bad-format"),
        ("<message xmlns='jabber:client'>", "bad-format"),
        ("<!-- --><message xmlns='jabber:client'/>", "restricted-xml"),
        ("<message xmlns='jabber:server'/>", "unsupported-stanza-type"),
        ("<message xmlns='jabber:client' from='mallory@elsewhere.example'/>", "invalid-from"),
        (OPEN % "localhost", "not-well-formed"),
    ],
)
def test_messages_that_are_none(cluster: RunningCluster, text: str, condition: str) -> None:
    with WebSocket(cluster) as web:
        web.sign_in(cluster.account())
        web.send(text)
        error = web.expect("<stream:error")
        assert f'<stream:error xmlns:stream="{ns.STREAMS}"><{condition} xmlns="{ns.STREAM_ERRORS}"/>' in error


def test_a_ping_is_answered_and_fragments_are_one_message(cluster: RunningCluster) -> None:
    with WebSocket(cluster) as web:
        web.send("are you there", frames.PING)
        assert web.frame() == (frames.PONG, b"are you there")
        text = (OPEN % cluster.domain).encode()
        web.raw(b"\x01" + bytes([0x80 | 20]) + b"\0\0\0\0" + text[:20])
        web.raw(b"\x80" + bytes([0x80 | len(text) - 20]) + b"\0\0\0\0" + text[20:])
        assert web.read().startswith("<open ")


def enable(say: Callable[[str], None], hear: Callable[[str], str]) -> str:
    say(f"<enable xmlns='{SM}' resume='true'/>")
    found = re.search(r'id="([0-9a-f]+)"', hear("<enabled"))
    assert found is not None
    return found[1]


def test_a_stream_goes_on_over_another_transport(cluster: RunningCluster) -> None:
    """XEP-0198, 5: the session is the same, whatever carries it: WebSocket, then TCP, then BOSH, then WebSocket."""
    account, friend = cluster.account(), cluster.account()
    with sign_in(cluster, friend) as juliet:
        with WebSocket(cluster) as web:
            web.sign_in(account)
            jid = web.jid
            previd = enable(web.send, web.expect)
            juliet.message(jid, "first")
            web.expect("first")
        with Client(cluster) as tcp:
            tcp.open()
            tcp.plain(account)
            tcp.open()
            tcp.send(f"<resume xmlns='{SM}' previd='{previd}' h='0'/>")
            resumed = tcp.expect(lambda element: element.tag.startswith(f"{{{SM}}}resumed"))
            assert resumed.get("previd") == previd
            assert tcp.body() == "first", "again: it was never acknowledged"
            tcp.send(f"<a xmlns='{SM}' h='1'/>")
            tcp.ping()
            juliet.message(jid, "second")
            assert tcp.body() == "second"
        browser = Browser(cluster)
        browser.until("<success", browser.ask(auth(account)))
        browser.until("<bind", browser.ask("", f"to='{cluster.domain}' xmpp:restart='true' xmlns:xmpp='{ns.XBOSH}'"))
        told = browser.ask(f"<resume xmlns='{SM}' previd='{previd}' h='2'/>")
        told = browser.until("<resumed", told)
        juliet.message(jid, "third")
        assert "second" not in browser.until("third", told)
        with WebSocket(cluster) as again:
            again.open()
            again.send(auth(account))
            again.read()
            again.open()
            again.send(f"<resume xmlns='{SM}' previd='{previd}' h='2'/>")
            again.expect("<resumed")
            again.expect("third")
            assert 'condition="remote-stream-error"' in browser.ask(), "its stream has gone over"


def test_a_socket_that_closes_without_a_word_is_a_broken_stream(cluster: RunningCluster) -> None:
    """RFC 7395, 3.6."""
    account = cluster.account()
    with WebSocket(cluster) as web:
        web.sign_in(account)
        previd = enable(web.send, web.expect)
        web.send("", frames.CLOSE)
        with pytest.raises(Ended, match="1000"):
            web.expect("never")
    with WebSocket(cluster) as again:
        again.open()
        again.send(auth(account))
        again.read()
        again.open()
        again.send(f"<resume xmlns='{SM}' previd='{previd}' h='0'/>")
        again.expect("<resumed")


# --- BOSH


def requests_of(cluster: RunningCluster, node: str) -> float:
    text = cluster.get(node, "/metrics")[1]
    found = re.search(r'^stentor_c2s_http_requests_total\{route="bosh",status="2xx"\} (\S+)', text, re.MULTILINE)
    return float(found[1]) if found is not None else 0.0


def test_a_session_goes_on_whichever_process_its_requests_land_on(cluster: RunningCluster) -> None:
    nodes = [process.node for process in cluster.processes("c2s")]
    before = [requests_of(cluster, node) for node in nodes]
    with sign_in(cluster, cluster.account()) as juliet:
        browser = Browser(cluster)
        browser.sign_in(cluster.account())
        for number in range(20):
            browser.ask(
                f"<message xmlns='{ns.CLIENT}' to='{juliet.jid}' type='chat'><body>{number}</body></message>"
                f"<iq xmlns='{ns.CLIENT}' type='get' id='p{number}'><ping xmlns='urn:xmpp:ping'/></iq>"
            )
            assert juliet.body() == str(number)
        juliet.message(browser.jid, "and back")
        assert "and back" in browser.until("and back")
        done = browser.ask("<presence xmlns='jabber:client' type='unavailable'/>", type="terminate")
        assert re.match(r'<body [^>]*type="terminate"/>', done)
    after = [requests_of(cluster, node) for node in nodes]
    assert all(now > then for now, then in zip(after, before, strict=True)), "24 requests, by two processes"


def test_a_request_is_held_by_the_process_that_got_it_and_answered_by_another(cluster: RunningCluster) -> None:
    browser = Browser(cluster)
    browser.sign_in(cluster.account())
    with sign_in(cluster, cluster.account()) as juliet:
        for number in range(4):
            answers: list[str] = []
            waiting = threading.Thread(target=lambda: answers.append(browser.ask()))  # noqa: B023
            waiting.start()
            juliet.message(browser.jid, f"number {number}")
            waiting.join(WAIT_S * FACTOR)
            told = answers[0] if answers else ""
            assert f"number {number}" in browser.until(f"number {number}", told)


@pytest.mark.parametrize(
    ("body", "condition"),
    [
        (b"", "bad-request"),
        (b"<body", "bad-request"),
        (b"<body xmlns='urn:x' rid='1'/>", "bad-request"),
        (b"<body xmlns='http://jabber.org/protocol/httpbind'/>", "bad-request"),
        (b"<body xmlns='http://jabber.org/protocol/httpbind' rid='-1'/>", "bad-request"),
        (b"<body xmlns='http://jabber.org/protocol/httpbind' rid='9007199254740992'/>", "bad-request"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><body xmlns='http://jabber.org/protocol/httpbind' rid='1'/>", "bad-request"),
        (b"<body xmlns='http://jabber.org/protocol/httpbind' rid='1' sid='x'/>", "item-not-found"),
        (b"<body sid='aaaaaaaaaaaaaaaaaaaaaa.0123456789abcdef' rid='1' "
         b"xmlns='http://jabber.org/protocol/httpbind'/>", "item-not-found"),
        (b"<body rid='1' to='elsewhere.example' xmlns='http://jabber.org/protocol/httpbind'/>", "host-unknown"),
    ],
)  # fmt: skip
def test_requests_that_are_none(cluster: RunningCluster, body: bytes, condition: str) -> None:
    status, _, answer = post(cluster, body)
    assert status == 200
    assert f'type="terminate" condition="{condition}"' in answer


@pytest.mark.parametrize(
    ("inner", "condition"),
    [("<!-- -->", "restricted-xml"), ("<a", "not-well-formed"), ("text", "bad-format")],
)
def test_what_no_stream_may_have_ends_the_session_with_its_stream_error(
    cluster: RunningCluster, inner: str, condition: str
) -> None:
    browser = Browser(cluster)
    browser.sign_in(cluster.account())
    answer = browser.ask(inner)
    assert 'condition="remote-stream-error"' in answer
    assert f'<{condition} xmlns="{ns.STREAM_ERRORS}"/>' in answer


def test_a_request_that_is_too_big_is_not_read(cluster: RunningCluster) -> None:
    assert post(cluster, b"<body>" + b" " * 1_000_000 + b"</body>")[0] == 413


def test_too_many_strangers_are_told_to_come_later(new_cluster: Callable[..., RunningCluster]) -> None:
    """Who has not signed in holds no connection here that would run out: so many sessions, and no more."""
    cluster = new_cluster("--tls", "optional", "--c2s", "1", "--set", "http.connections=10")
    account = cluster.account()
    for _ in range(9):
        Browser(cluster)
    signed_in = Browser(cluster)
    signed_in.sign_in(account)
    Browser(cluster)
    body = f"<body xmlns='{ns.HTTPBIND}' rid='1' to='{cluster.domain}' wait='60' hold='1'/>".encode()
    status, headers, _ = post(cluster, body)
    assert (status, headers["retry-after"]) == (503, "1")
    signed_in.ask("<presence xmlns='jabber:client'/>")


def test_pages_of_other_sites_may_ask(cluster: RunningCluster) -> None:
    """Fetch, 3.2: any, unless `http.origins` says which."""
    origin = {"Origin": "https://chat.elsewhere.example"}
    status, headers, _ = post(cluster, b"", method="OPTIONS", headers=origin)
    assert (status, headers["access-control-allow-origin"]) == (204, "*")
    assert headers["access-control-allow-headers"] == "Content-Type"
    assert "access-control-allow-origin" in post(cluster, b"<body/>", headers=origin)[1]


# --- discovery


def test_clients_find_both(cluster: RunningCluster) -> None:
    """XEP-0156, 3."""
    http = f"localhost:{cluster.facts['ports']['http']}"
    wanted = {hostmeta.WEBSOCKET: f"ws://{http}/xmpp-websocket", hostmeta.XBOSH: f"http://{http}/http-bind"}
    status, headers, text = post(cluster, b"", method="GET", path=f"{hostmeta.PATH}.json")
    assert (status, headers["access-control-allow-origin"]) == (200, "*")
    assert {link["rel"]: link["href"] for link in json.loads(text)["links"]} == wanted
    _, headers, text = post(cluster, b"", method="GET", path=hostmeta.PATH)
    assert headers["content-type"].startswith("application/xrd+xml")
    assert dict(re.findall(r'<Link rel="([^"]+)" href="([^"]+)"/>', text)) == wanted


# --- behind proxies, with TLS required


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """TLS is required, every connection comes through a load balancer, and pages of one other site are let in."""
    options = ('c2s.proxy_protocol=["127.0.0.1"]', 'http.proxy_protocol=["127.0.0.0/8"]', 'http.proxies=["10.0.0.1"]',
               'http.origins=["https://chat.example"]', "http.local_is_secure=false",
               "http.public_url=https://{domain}:5443")  # fmt: skip
    sets = [part for option in options for part in ("--set", option)]
    running = start_cluster(tmp_path_factory.mktemp("guarded"), "--tls", "required", "--c2s", "1", *sets)
    yield running
    assert running.stop() == 0


def v1(address: str) -> bytes:
    return f"PROXY TCP4 {address} 127.0.0.1 50000 5222\r\n".encode()


def v2(address: str, *, is_secure: bool = False) -> bytes:
    body = socket.inet_aton(address) + socket.inet_aton("127.0.0.1") + b"\x12\x34\x14\x66"
    if is_secure:
        body += b"\x20\x00\x05\x01\0\0\0\0"
    return SIGNATURE + b"\x21\x11" + len(body).to_bytes(2, "big") + body


def network_of_device(cluster: RunningCluster, jid: str) -> str:
    devices = cluster.api.call("GET", f"/users/{jid}/devices")["devices"]
    return str(devices[0]["network"])


def sasl2(account_jid: str, password: str) -> str:
    initial = b64encode(f"\0{account_jid.partition('@')[0]}\0{password}".encode()).decode()
    return (
        f"<authenticate xmlns='{ns.SASL2}' mechanism='PLAIN'><initial-response>{initial}</initial-response>"
        f"<user-agent id='{uuid.uuid4()}'><software>test</software></user-agent><bind xmlns='{ns.BIND2}'/></authenticate>"
    )


@pytest.mark.parametrize(
    ("header", "network"), [(v1("192.0.2.7"), "192.0.0.0/16"), (v2("198.51.100.9"), "198.51.0.0/16")]
)
@pytest.mark.parametrize("port", ["c2s", "c2s_tls"])
def test_a_load_balancer_says_who_connects(guarded: RunningCluster, header: bytes, network: str, port: str) -> None:
    account = guarded.account()
    plain = socket.create_connection((guarded.host, guarded.facts["ports"][port]), WAIT_S * FACTOR)
    client = Client.__new__(Client)
    client.cluster, client.domain, client.jid, client.bare = guarded, guarded.domain, "", ""
    client._waiting = []
    client.socket = plain
    client._restart()
    plain.sendall(header)
    if port == "c2s_tls":
        client.socket = guarded.tls().wrap_socket(plain, server_hostname=guarded.domain)
        client.open()
    else:
        client.open()
        client.start_tls()
    with client:
        client.send(sasl2(account.jid, account.password))
        client.expect(lambda element: element.tag == f"{{{ns.SASL2}}}success")
        assert network_of_device(guarded, account.jid) == network


def test_who_is_no_load_balancer_and_does_not_say_it_is_dropped(guarded: RunningCluster) -> None:
    with socket.create_connection((guarded.host, guarded.port), WAIT_S * FACTOR) as client:
        client.sendall(b"<stream:stream xmlns='jabber:client' to='localhost'>")
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""
    metrics = guarded.get("c2s-0", "/metrics")[1]
    assert re.search(r'^stentor_c2s_proxy_headers_total\{result="malformed"\} [1-9]', metrics, re.MULTILINE)


class Through(WebSocket):
    """A WebSocket behind a load balancer."""

    def __init__(self, cluster: RunningCluster, header: bytes, headers: dict[str, str | None] | None = None) -> None:
        super().__init__(cluster, headers=headers, before=header)


def test_nobody_signs_in_in_the_clear(guarded: RunningCluster) -> None:
    with Through(guarded, v1("192.0.2.7")) as web:
        web.send(OPEN % guarded.domain)
        assert web.read().startswith("<open ")
        assert f'<policy-violation xmlns="{ns.STREAM_ERRORS}"/>' in web.read()


@pytest.mark.parametrize(
    ("header", "headers"),
    [
        (v2("192.0.2.7", is_secure=True), {}),
        (v1("10.0.0.1"), {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}),
    ],
)
def test_tls_at_a_proxy_that_is_believed_is_enough(
    guarded: RunningCluster, header: bytes, headers: dict[str, str | None]
) -> None:
    account = guarded.account()
    with Through(guarded, header, headers) as web:
        web.open()
        web.send(sasl2(account.jid, account.password))
        web.expect("<success")
        assert network_of_device(guarded, account.jid) == "192.0.0.0/16"


def test_what_anybody_else_says_of_tls_counts_for_nothing(guarded: RunningCluster) -> None:
    with Through(guarded, v1("192.0.2.7"), {"X-Forwarded-Proto": "https"}) as web:
        web.send(OPEN % guarded.domain)
        web.expect("policy-violation")


def test_https_behind_a_load_balancer(guarded: RunningCluster) -> None:
    plain = connected(guarded, tls=False)
    plain.close()
    port = guarded.facts["ports"]["https"]
    with socket.create_connection((guarded.host, port), WAIT_S * FACTOR) as raw:
        raw.sendall(v2("192.0.2.7"))
        with guarded.tls().wrap_socket(raw, server_hostname=guarded.domain) as tls:
            tls.sendall(f"GET {hostmeta.PATH}.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: tls.recv(4096), b"")).decode()
    assert f'"wss://{guarded.domain}:5443{websocket.PATH}"' in answer


@pytest.mark.parametrize(
    ("origin", "status"), [("https://chat.example", 101), ("https://evil.example", 403), ("null", 403)]
)
def test_pages_of_sites_that_are_not_let_in(guarded: RunningCluster, origin: str, status: int) -> None:
    with Through(guarded, v1("192.0.2.7"), {"Origin": origin}) as web:
        assert web.status == status


# --- ends


def test_when_its_process_dies_a_session_is_known_to_be_gone(
    new_cluster: Callable[..., RunningCluster], tmp_path: Path
) -> None:
    cluster = new_cluster("--tls", "optional")
    account = cluster.account()
    browser = Browser(cluster)
    browser.sign_in(account)
    node = next(node for node in ("c2s-0", "c2s-1") if f"{browser.jid.rpartition('/')[2]}" in str(
        cluster.api.call("GET", f"/sessions?node={node}")))  # fmt: skip
    old = cluster.kill(node)
    cluster.wait_restarted(node, old)
    wait_until(lambda: 'condition="item-not-found"' in browser.ask(), 20, "the session is not found")
    again = Browser(cluster)
    again.sign_in(account)


def test_a_drain_tells_web_clients_to_come_back(new_cluster: Callable[..., RunningCluster]) -> None:
    cluster = new_cluster("--tls", "optional", "--c2s", "1")
    with WebSocket(cluster) as web:
        web.sign_in(cluster.account())
        browser = Browser(cluster)
        browser.sign_in(cluster.account())
        answers: list[str] = []
        waiting = threading.Thread(target=lambda: answers.append(browser.ask()))
        waiting.start()
        web.send(BIND.replace("bind", "later"))
        web.expect("later")
        cluster.api.call("POST", "/cluster/c2s-0/drain")
        assert "<system-shutdown" in web.expect("<stream:error")
        waiting.join(WAIT_S * FACTOR)
        assert 'condition="system-shutdown"' in answers[0]
