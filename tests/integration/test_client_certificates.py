"""Clients sign in by their certificates, in real TLS: SASL EXTERNAL in both profiles, on both ports."""

from __future__ import annotations

import json
import os
import signal
import socket
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from cluster.certificates import UTF8_STRING, XMPP_ADDRESS
from tests.support.client import SASL, WAIT_S, Client, condition
from tests.support.cluster import FACTOR, Account, RunningCluster, start_cluster, wait_until
from tests.support.pki import Issued, issue

DOMAIN: Final = "first.example"
OTHER: Final = "second.example"  # has no authority for clients
SASL2: Final = "{urn:xmpp:sasl:2}"
NOW: Final = datetime.now(UTC)
DAY: Final = timedelta(days=1)
ROOT: Final = issue("root", ca=True, begin=NOW - DAY, end=NOW + DAY)
STRANGER: Final = issue("stranger", ca=True, begin=NOW - DAY, end=NOW + DAY)


def certificate(*addresses: str, issuer: Issued = ROOT, end: timedelta = DAY) -> Issued:
    names = [x509.OtherName(XMPP_ADDRESS, bytes((UTF8_STRING, len(a))) + a.encode()) for a in addresses]
    return issue("client", issuer, names=names, begin=NOW - DAY, end=NOW + end)


def revoked(*certificates: Issued) -> bytes:
    builder = x509.CertificateRevocationListBuilder().issuer_name(ROOT.certificate.subject)
    builder = builder.last_update(NOW - DAY).next_update(NOW + DAY)
    for of in certificates:
        entry = x509.RevokedCertificateBuilder().serial_number(of.certificate.serial_number).revocation_date(NOW)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(ROOT.key, hashes.SHA256()).public_bytes(Encoding.PEM)


class Showing(Client):
    """A client that shows a certificate, or none."""

    def __init__(self, realm: Realm, shown: Issued | None, *, direct_tls: bool, domain: str) -> None:
        self._context = realm.cluster.tls()
        if shown is not None:
            self._context.load_cert_chain(*shown.write(realm.directory, "client"))
        super().__init__(realm.cluster, domain=domain)
        if direct_tls:
            self.socket.close()
            plain = socket.create_connection((realm.cluster.host, realm.cluster.tls_port), WAIT_S * FACTOR)
            self._context.set_alpn_protocols(["xmpp-client"])
            self.socket = self._context.wrap_socket(plain, server_hostname=domain)
            self.offer = self.open()
        else:
            self.open()
            self.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            self.expect(lambda element: element.tag.endswith("proceed"))
            self.socket = self._context.wrap_socket(self.socket, server_hostname=self.domain)
            self.offer = self.open()

    @property
    def mechanisms(self) -> list[str]:
        """What is offered."""
        return [str(name.text) for name in self.offer.iter(f"{SASL}mechanism")]

    def external(self, authzid: str = "") -> str:
        """SASL EXTERNAL: "success", or the condition of the failure."""
        data = b64encode(authzid.encode()).decode() or "="
        self.send(f"<auth xmlns='{SASL[1:-1]}' mechanism='EXTERNAL'>{data}</auth>")
        answer = self.expect(lambda element: element.tag.startswith(SASL))
        return "success" if answer.tag == f"{SASL}success" else condition(answer)


class Realm(NamedTuple):
    """A cluster, the list of its authority, and a folder for certificates."""

    cluster: RunningCluster
    crl: Path
    directory: Path

    def client(self, shown: Issued | None, *, direct_tls: bool = False, domain: str = DOMAIN) -> Showing:
        """A client inside TLS."""
        return Showing(self, shown, direct_tls=direct_tls, domain=domain)

    def account(self, name: str) -> Account:
        return self.cluster.account(name, domain=DOMAIN)


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    directory = tmp_path_factory.mktemp("pki")
    ca, crl = directory / "ca.pem", directory / "crl.pem"
    ca.write_bytes(ROOT.pem)
    crl.write_bytes(revoked())
    settings = {DOMAIN: {"ca": str(ca), "crl": str(crl)}}
    running = start_cluster(
        tmp_path_factory.mktemp("cluster"), "--domain", DOMAIN, "--domain", OTHER, "--s2s", "0",
        "--set", f"tls.clients={json.dumps(settings)}",
    )  # fmt: skip
    yield Realm(running, crl, directory)
    assert running.stop() == 0


@pytest.mark.parametrize("direct_tls", [False, True])
def test_a_certificate_is_enough(realm: Realm, direct_tls: bool) -> None:
    romeo = realm.account("romeo")
    with realm.client(certificate(romeo.jid), direct_tls=direct_tls) as client:
        assert client.mechanisms[0] == "EXTERNAL"
        assert client.external() == "success"
        client.open()
        assert client.bind("balcony") == f"{romeo.jid}/balcony"
        client.ping()


def test_a_certificate_is_enough_in_one_round_trip(realm: Realm) -> None:
    romeo = realm.account("romeo")
    with realm.client(certificate(romeo.jid)) as client:
        client.send(
            f"<authenticate xmlns='{SASL2[1:-1]}' mechanism='EXTERNAL'><initial-response/>"
            "<bind xmlns='urn:xmpp:bind:0'/></authenticate>"
        )
        success = client.expect(lambda element: element.tag.startswith(SASL2))
        assert success.tag == f"{SASL2}success"
        assert (success.findtext(f"{SASL2}authorization-identifier") or "").startswith(f"{romeo.jid}/")


@pytest.mark.parametrize("direct_tls", [False, True])
@pytest.mark.parametrize("kind", ["none", "stranger", "expired", "of nobody here"])
def test_without_one_that_counts_a_client_signs_in_as_ever(realm: Realm, kind: str, direct_tls: bool) -> None:
    juliet = realm.account("juliet")
    shown = {
        "none": None,
        "stranger": certificate(juliet.jid, issuer=STRANGER),
        "expired": certificate(juliet.jid, end=-timedelta(hours=1)),
        "of nobody here": certificate("juliet@capulet.example"),
    }[kind]
    with realm.client(shown, direct_tls=direct_tls) as client:
        assert "EXTERNAL" not in client.mechanisms
        assert client.external() == "invalid-mechanism"
        assert client.plain(juliet).tag == f"{SASL}success"
        client.open()
        client.bind()


def test_the_authority_of_one_domain_says_nothing_of_another(realm: Realm) -> None:
    romeo = realm.cluster.account("romeo", domain=OTHER)
    with realm.client(certificate(romeo.jid), domain=OTHER) as client:
        assert "EXTERNAL" not in client.mechanisms
        assert client.plain(romeo).tag == f"{SASL}success"


def test_of_several_the_client_says_which(realm: Realm) -> None:
    romeo, juliet = realm.account("romeo"), realm.account("juliet")
    with realm.client(certificate(romeo.jid, juliet.jid)) as client:
        assert client.external() == "invalid-authzid"
        assert client.external(f"benvolio@{DOMAIN}") == "invalid-authzid"
        assert client.external(juliet.jid) == "success"
        client.open()
        assert client.bind("tomb") == f"{juliet.jid}/tomb"


def test_who_is_gone_or_banned_is_refused(realm: Realm) -> None:
    romeo = realm.account("romeo")
    shown = certificate(romeo.jid)
    with realm.client(certificate(f"nobody@{DOMAIN}")) as client:
        assert client.external() == "not-authorized"
    assert realm.cluster.command("user", "ban", romeo.jid, "--reason", "spam").returncode == 0
    with realm.client(shown) as client:
        assert client.external() == "account-disabled"


def test_a_certificate_that_is_revoked_while_the_cluster_runs(realm: Realm) -> None:
    romeo = realm.account("romeo")
    shown = certificate(romeo.jid)
    with realm.client(shown) as client:
        assert client.external() == "success"
    realm.crl.write_bytes(revoked(shown))
    for process in realm.cluster.processes("c2s"):
        os.kill(process.pid, signal.SIGHUP)

    def is_refused() -> bool:
        with realm.client(shown) as client:
            return "EXTERNAL" not in client.mechanisms

    wait_until(lambda: all(is_refused() for _ in range(6)), 10, "both c2s know that it is revoked")


def test_sign_ins_are_counted(realm: Realm) -> None:
    romeo = realm.account("romeo")
    with realm.client(certificate(romeo.jid)) as client:
        assert client.external() == "success"
    counted = 'stentor_c2s_auth_total{mechanism="EXTERNAL",result="ok"}'
    metrics = [realm.cluster.get(process.node, "/metrics")[1] for process in realm.cluster.processes("c2s")]
    values = [line.split()[1] for text in metrics for line in text.splitlines() if line.startswith(counted)]
    assert sum(map(float, values)) > 0
