"""A service of the operator's is asked about passwords over HTTPS, and what it says is what the client hears."""

from __future__ import annotations

import json
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from xml.etree import ElementTree

import pytest
import trustme

from tests.support.client import SASL, Client, condition, sign_in
from tests.support.cluster import Account, RunningCluster, start_cluster

DOMAIN: Final = "callout.example"
INTERNAL: Final = "internal.example"
SECRET: Final = "what the service knows us by"
AUTHORITY = trustme.CA()


class Service:
    """Knows Juliet's password. `says` is what it answers instead, status and body."""

    def __init__(self, authority: trustme.CA) -> None:
        self.asked: list[dict[str, Any]] = []
        self.says: tuple[int, str] | None = None
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.asked.append(given)
                is_known = self.headers["Authorization"] == f"Bearer {SECRET}"
                is_right = given == {"username": "juliet", "domain": DOMAIN, "password": "wherefore"}
                status, body = service.says or (200, json.dumps({"ok": is_known and is_right}))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(tls)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"https://localhost:{self._server.server_port}/check"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    found = Service(AUTHORITY)
    yield found
    found.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, service: Service) -> Iterator[RunningCluster]:
    ca = tmp_path_factory.mktemp("authority") / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(ca))
    backend = {"backend": "http", "url": service.url, "secret": SECRET, "ca": str(ca)}
    running = start_cluster(
        tmp_path_factory.mktemp("cluster"), "--domain", DOMAIN, "--domain", INTERNAL, "--s2s", "0", "--set",
        f"authentication.domains={json.dumps({DOMAIN: backend})}", "--user", f"juliet@{INTERNAL}:wherefore",
    )  # fmt: skip
    yield running
    assert running.stop() == 0


@pytest.fixture
def client(cluster: RunningCluster) -> Iterator[Client]:
    with Client(cluster, domain=DOMAIN) as found:
        found.open()
        found.start_tls()
        yield found


def test_yes_and_no(cluster: RunningCluster, service: Service, client: Client) -> None:
    assert condition(client.plain(Account(f"juliet@{DOMAIN}", "wrong"))) == "not-authorized"
    assert condition(client.plain(Account(f"nobody@{DOMAIN}", "wherefore"))) == "not-authorized"
    with sign_in(cluster, Account(f"juliet@{DOMAIN}", "wherefore"), tls=True) as juliet:
        juliet.ping()
    assert [asked["username"] for asked in service.asked[-3:]] == ["juliet", "nobody", "juliet"]


@pytest.mark.parametrize("says", [(500, '{"ok": true}'), (200, "<html/>"), (200, '{"ok": "yes"}')])
def test_nonsense_is_no_wrong_password(service: Service, client: Client, says: tuple[int, str]) -> None:
    service.says = says
    for _ in range(4):  # more than c2s.sasl_tries
        assert condition(client.plain(Account(f"juliet@{DOMAIN}", "wherefore"))) == "temporary-auth-failure"
    service.says = None
    assert client.plain(Account(f"juliet@{DOMAIN}", "wherefore")).tag == f"{SASL}success"


def test_another_domain_of_the_cluster_keeps_its_passwords(cluster: RunningCluster, service: Service) -> None:
    asked = len(service.asked)
    with Client(cluster, domain=INTERNAL) as client:
        client.open()
        offered = [name.text for name in client.start_tls().iter(f"{SASL}mechanism")]
        assert offered[0] == "SCRAM-SHA-512-PLUS"
        assert client.plain(Account(f"juliet@{INTERNAL}", "wherefore")).tag == f"{SASL}success"
    assert len(service.asked) == asked


@pytest.mark.parametrize(("domain", "offered"), [(DOMAIN, 1), (INTERNAL, 7)])
def test_everybody_of_a_domain_is_offered_the_same(cluster: RunningCluster, domain: str, offered: int) -> None:
    """Byte by byte, whoever the header names, whether there is such an account or not."""
    said = set()
    for name in ("juliet", "nobody", ""):
        with Client(cluster, direct_tls=True, domain=domain) as client:
            from_ = f"from='{name}@{domain}' " if name else ""
            client.send(
                "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' "
                f"{from_}to='{domain}' version='1.0'>"
            )
            features = client.read()
            assert len(list(features.iter(f"{SASL}mechanism"))) == offered
            said.add(ElementTree.tostring(features))
    assert len(said) == 1


def test_the_password_of_one_domain_is_none_of_the_other(cluster: RunningCluster) -> None:
    cluster.command("user", "add", f"paris@{INTERNAL}", "--password-stdin", stdin="county\n")
    with Client(cluster, domain=DOMAIN) as client:
        client.open()
        client.start_tls()
        assert condition(client.plain(Account(f"paris@{DOMAIN}", "county"))) == "not-authorized"
        first = b64encode(b"n,,n=paris,r=abc").decode()
        client.send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>{first}</auth>")
        refused = client.read()
        assert condition(refused) == "invalid-mechanism"
        assert "add it again" in (refused.findtext(f"{SASL}text") or "")


def test_no_account_is_made_by_a_command(cluster: RunningCluster) -> None:
    done = cluster.command("user", "add", f"romeo@{DOMAIN}", "--password-stdin", stdin="secret\n")
    assert done.returncode != 0
    assert "has no password here" in done.stderr
