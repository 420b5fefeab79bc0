"""Several domains in one cluster: each has its own accounts and certificate, and they reach each other like neighbours."""

from __future__ import annotations

import json
import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import trustme

from tests.support.client import CLIENT, Client, StreamEnded, condition, place, sign_in
from tests.support.cluster import Account, RunningCluster, start_cluster, wait_until
from tests.support.tls import client_context, write_pair

A: Final = "a.example"
B: Final = "b.example"
DISCO_INFO: Final = "http://jabber.org/protocol/disco#info"
REGISTER: Final = "jabber:iq:register"
ROSTER: Final = "jabber:iq:roster"
CA = trustme.CA()


def write_certificates(directory: Path) -> None:
    for domain in (A, B):
        write_pair(directory, domain, CA.issue_cert(domain))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the certificates of both domains are, one each."""
    directory = tmp_path_factory.mktemp("certificates")
    write_certificates(directory)
    return directory


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[RunningCluster]:
    """A cluster that serves both domains."""
    pairs = {
        domain: {"certificate": str(certificates / f"{domain}.crt"), "key": str(certificates / f"{domain}.key")}
        for domain in (A, B)
    }
    running = start_cluster(
        tmp_path_factory.mktemp("both"), "--domain", A, "--domain", B, "--tls", "optional", "--s2s", "0",
        "--user", f"romeo@{A}:of-a", "--user", f"romeo@{B}:of-b", "--set", f"tls.certificates={json.dumps(pairs)}",
        "--set", "registration.mode=open",
    )  # fmt: skip
    yield running
    assert running.stop() == 0


def pair_of(cluster: RunningCluster, domains: tuple[str, str]) -> tuple[Client, Client]:
    first, second = (sign_in(cluster, cluster.account(domain=domain)) for domain in domains)
    return first, second


# --- streams


def test_the_same_name_is_another_account_in_another_domain(both: RunningCluster) -> None:
    for domain, password, other in ((A, "of-a", "of-b"), (B, "of-b", "of-a")):
        with sign_in(both, Account(f"romeo@{domain}", password)) as romeo:
            assert romeo.bare == f"romeo@{domain}"
        with Client(both, domain=domain) as stranger:
            stranger.open()
            assert condition(stranger.plain(Account(f"romeo@{domain}", other))) == "not-authorized"


def test_every_domain_has_the_same_stream_features_on_every_c2s(both: RunningCluster) -> None:
    def features(domain: str) -> tuple[str, set[str]]:
        with Client(both, domain=domain) as client:
            client.open()
            client.plain(Account(f"romeo@{domain}", {A: "of-a", B: "of-b"}[domain]))
            found = {child.tag for child in client.open()}
            client.bind()
            return place(both, client)[0], found

    seen: dict[str, set[frozenset[str]]] = {}
    for _ in range(100):  # the kernel chooses the process
        for domain in (A, B):
            node, found = features(domain)
            seen.setdefault(node, set()).add(frozenset(found))
        if len(seen) == 2:
            break
    assert set(seen) == {"c2s-0", "c2s-1"}
    assert len(set.union(*seen.values())) == 1
    assert any(tag.endswith("}c") for tag in next(iter(seen["c2s-0"])))


@pytest.mark.parametrize("to", ["c.example", f"conference.{A}", "localhost", "example"])
def test_a_domain_that_is_not_served_is_unknown(both: RunningCluster, to: str) -> None:
    with Client(both) as client, pytest.raises(StreamEnded) as ended:
        client.open(to)
    assert ended.value.error == "host-unknown"


def test_with_several_domains_a_client_has_to_name_one(both: RunningCluster) -> None:
    with Client(both) as client:
        client.send(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
        )
        assert client.end() == "host-unknown"


def test_a_client_cannot_change_the_domain_once_it_is_signed_in(both: RunningCluster) -> None:
    with Client(both, domain=A) as client:
        client.open()
        client.plain(Account(f"romeo@{A}", "of-a"))
        with pytest.raises(StreamEnded) as ended:
            client.open(B)
        assert ended.value.error == "host-unknown"


# --- stanzas


@pytest.mark.parametrize("domains", [(A, A), (A, B), (B, A), (B, B)])
def test_messages_presence_and_subscriptions(both: RunningCluster, domains: tuple[str, str]) -> None:
    romeo, juliet = pair_of(both, domains)
    with romeo, juliet:
        romeo.iq("get", f"<query xmlns='{ROSTER}'/>")
        romeo.message(juliet.bare, "art thou there")
        assert juliet.body() == "art thou there"
        juliet.message(romeo.jid, "ay me")
        assert romeo.body() == "ay me"
        romeo.send(f"<presence to='{juliet.bare}' type='subscribe'/>")
        juliet.presence("subscribe", romeo.bare)
        juliet.send(f"<presence to='{romeo.bare}' type='subscribed'/>")
        romeo.presence("subscribed", juliet.bare)
        assert romeo.presence(None, juliet.bare).get("from") == juliet.jid
        juliet.send("<presence><show>away</show></presence>")
        assert romeo.presence(None, juliet.bare).findtext(f"{CLIENT}show") == "away"
        [item] = romeo.iq("get", f"<query xmlns='{ROSTER}'/>")[0]
        assert (item.get("jid"), item.get("subscription")) == (juliet.bare, "to")
        juliet.socket.close()
        romeo.presence("unavailable", juliet.bare)


@pytest.mark.parametrize("domains", [(A, B), (B, A)])
def test_offline_messages_cross_domains(both: RunningCluster, domains: tuple[str, str]) -> None:
    romeo, juliet = (both.account(domain=domain) for domain in domains)
    with sign_in(both, romeo) as sender:
        sender.message(juliet.jid, "good night")
        sender.ping()
    with sign_in(both, juliet) as receiver:
        assert receiver.body() == "good night"


@pytest.mark.parametrize("domain", [A, B])
@pytest.mark.parametrize("asked", [A, B])
def test_discovery(both: RunningCluster, domain: str, asked: str) -> None:
    with sign_in(both, both.account(domain=domain)) as client:
        info = client.iq("get", f"<query xmlns='{DISCO_INFO}'/>", asked)
        assert (info.get("type"), info.get("from")) == ("result", asked)
        names = {child.get("var") for child in info[0]}
        assert {"urn:xmpp:ping", DISCO_INFO, REGISTER} <= names
        assert [child.get("category") for child in info[0] if child.tag.endswith("identity")] == ["server"]
        items = client.iq("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", asked)
        assert (items.get("type"), items.get("from")) == ("result", asked)
        account = client.iq("get", f"<query xmlns='{DISCO_INFO}'/>", client.bare)
        assert account.get("type") == "result"
        for payload in ("<ping xmlns='urn:xmpp:ping'/>", "<query xmlns='jabber:iq:version'/>"):
            answer = client.iq("get", payload, asked)
            assert (answer.get("type"), answer.get("from")) == ("result", asked)
        nobody = client.iq("get", f"<query xmlns='{DISCO_INFO}'/>", f"nobody@{asked}")
        assert condition(nobody) == "service-unavailable"


# --- accounts


@pytest.mark.parametrize("domain", [A, B])
def test_clients_register_at_the_domain_of_their_stream(both: RunningCluster, domain: str) -> None:
    name = "newcomer"
    with Client(both, domain=domain) as client:
        client.open()
        form = client.iq("get", f"<query xmlns='{REGISTER}'/>", domain)
        assert form.get("type") == "result"
        fields = f"<username>{name}</username><password>secret-{domain}</password>"
        done = client.iq("set", f"<query xmlns='{REGISTER}'>{fields}</query>", domain)
        assert done.get("type") == "result"
    with sign_in(both, Account(f"{name}@{domain}", f"secret-{domain}")) as client:
        assert client.bare == f"{name}@{domain}"
        gone = client.iq("set", f"<query xmlns='{REGISTER}'><remove/></query>", domain)
        assert gone.get("type") == "result"
    assert {"jid": f"{name}@{domain}"} not in both.api.call("GET", "/users")["users"]


def test_a_registration_is_for_the_domain_of_the_stream_alone(both: RunningCluster) -> None:
    with Client(both, domain=A) as client:
        client.open()
        fields = "<username>intruder</username><password>secret</password>"
        refused = client.iq("set", f"<query xmlns='{REGISTER}'>{fields}</query>", B)
        assert condition(refused) == "item-not-found"
    assert "intruder" not in str(both.api.call("GET", "/users"))


@pytest.mark.parametrize("domain", [A, B])
def test_operators_manage_accounts_of_both(both: RunningCluster, domain: str) -> None:
    jid = f"managed@{domain}"
    assert both.command("user", "add", jid, "--password", "secret").stdout == f"{jid} added\n"
    assert jid in both.command("user", "list").stdout.splitlines()
    listed = both.command("user", "list", "--domain", domain).stdout.splitlines()
    assert jid in listed
    assert {name.partition("@")[2] for name in listed} == {domain}
    assert both.command("user", "passwd", jid, "--password", "other").returncode == 0
    with sign_in(both, Account(jid, "other")) as client:
        assert client.jid in both.command("session", "list", "--user", jid).stdout
        assert f"session   {client.jid}" in both.command("user", "show", jid).stdout
        assert both.command("user", "del", jid).returncode == 0
        assert client.end() == "not-authorized"
    refused = both.command("user", "add", "managed@c.example", "--password", "secret")
    assert refused.returncode == 1
    assert f"The domains are: {A}, {B} (server.domains)" in refused.stderr


# --- certificates


def shown(cluster: RunningCluster, domain: str) -> bytes:
    """The certificate that a client gets which asks for this domain, trusted and for it."""
    with Client(cluster, domain=domain) as client:
        client.open()
        client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        client.expect(lambda element: element.tag.endswith("proceed"))
        with client_context(CA).wrap_socket(client.socket, server_hostname=domain) as secure:
            found = secure.getpeercert(binary_form=True)
            assert found is not None
            return found


def on_disk(directory: Path, domain: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(
        (directory / f"{domain}.crt").read_text().partition("-----END")[0] + "-----END CERTIFICATE-----"
    )


def wait_logged(cluster: RunningCluster, event: str, *nodes: str) -> None:
    wait_until(lambda: all(f'"{event}"' in cluster.log(node) for node in nodes), 10, f"{', '.join(nodes)} log {event}")


def test_each_domain_has_its_certificate_and_sighup_brings_new_ones(both: RunningCluster, certificates: Path) -> None:
    before = {domain: on_disk(certificates, domain) for domain in (A, B)}
    assert {domain: shown(both, domain) for domain in (A, B)} == before
    romeo = Client(both, domain=A)
    with romeo:
        romeo.open()
        romeo.start_tls()
        romeo.plain(Account(f"romeo@{A}", "of-a"))
        romeo.open()
        romeo.bind()
        write_certificates(certificates)
        after = {domain: on_disk(certificates, domain) for domain in (A, B)}
        assert not before.items() & after.items()
        processes = both.processes()
        for process in processes:
            os.kill(process.pid, signal.SIGHUP)
        wait_logged(both, "certificates_reloaded", "c2s-0", "c2s-1")
        wait_logged(both, "hangup", "router-0", "router-1")
        assert {domain: shown(both, domain) for domain in (A, B)} == after
        romeo.ping()
        assert both.processes() == processes
        key = certificates / f"{B}.key"
        key.write_text("no key")
        for process in both.processes("c2s"):
            os.kill(process.pid, signal.SIGHUP)
        wait_logged(both, "certificates_not_reloaded", "c2s-0", "c2s-1")
        assert str(key) in both.log("c2s-0")
        assert {domain: shown(both, domain) for domain in (A, B)} == after
        status, text = both.get("c2s-0", "/metrics")
        assert status == 200
        assert f'stentor_certificate_expiry_timestamp_seconds{{name="{B}"}}' in text
