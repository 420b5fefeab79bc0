"""Bad input ends in the error that the RFC names; the process and everybody else's sessions live on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.client import SASL, Client, condition, place, sign_in
from tests.support.cluster import RunningCluster

HEADER = (
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{domain}' version='1.0'>"
)


@pytest.fixture(autouse=True)
def _everybody_else_lives(cluster: RunningCluster) -> Iterator[None]:
    """A bystander on each c2s, before and after; no process is restarted meanwhile."""
    bystanders: dict[str, Client] = {}
    account = cluster.account("bystander")
    while len(bystanders) < 2:
        client = sign_in(cluster, account)
        if bystanders.setdefault(place(cluster, client)[0], client) is not client:
            client.socket.close()
    pids = [process.pid for process in cluster.processes()]
    yield
    for client in bystanders.values():
        client.ping()
        client.socket.close()
    assert [process.pid for process in cluster.processes()] == pids


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        ("<stream:stream xmlns='jabber:client' xmlns:stream='http://wrong.example' to='{domain}' version='1.0'>", "invalid-namespace"),
        ("<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' to='{domain}' version='1.0'>", "invalid-namespace"),
        ("<stream:flow xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>", "bad-format"),
        ("<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='elsewhere.example' version='1.0'>", "host-unknown"),
        ("<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='a@@b' version='1.0'>", "improper-addressing"),
        ("<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='{domain}' version='2.0'>", "unsupported-version"),
        ("<?xml version='1.0' encoding='ISO-8859-1'?>" + HEADER, "unsupported-encoding"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]>" + HEADER, "restricted-xml"),
        ("GET / HTTP/1.1\r\n\r\n", "not-well-formed"),
        (HEADER + "<message to='{domain}'><body>hi</body></message>", "not-authorized"),
        (HEADER + "<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "not-authorized"),
        (HEADER + "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + "A" * 70_000, "policy-violation"),
        (HEADER + "<!-- hello -->", "restricted-xml"),
        (HEADER + "<?php?>", "restricted-xml"),
        (HEADER + "</wrong>", "not-well-formed"),
    ],
)  # fmt: skip
def test_before_login(cluster: RunningCluster, sent: str, wanted: str) -> None:
    with Client(cluster) as client:
        client.send(sent.replace("{domain}", cluster.domain))
        assert client.end() == wanted


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        (b"<message><body>&undefined;</body></message>", "restricted-xml"),
        (b"<message><!-- x --></message>", "restricted-xml"),
        (b"<message><body></message>", "not-well-formed"),
        (b"<message><x:y/></message>", "not-well-formed"),
        (b"<message><body>\xff\xfe</body></message>", "unsupported-encoding"),
        (b"<message from='somebody@else.example'><body/></message>", "invalid-from"),
        (b"<letter/>", "unsupported-stanza-type"),
        (b"<a xmlns='urn:unknown'/>", "unsupported-stanza-type"),
        (b"text between stanzas<message/>", "bad-format"),
        (b"<message><body>" + b"x" * 300_000 + b"</body></message>", "policy-violation"),
        (b"<message>" + b"<a>" * 100 + b"</a>" * 100 + b"</message>", "policy-violation"),
        (b"<message " + b" ".join(b"a%d='x'" % i for i in range(200)) + b"/>", "policy-violation"),
    ],
)
def test_streams_that_end(cluster: RunningCluster, sent: bytes, wanted: str) -> None:
    with sign_in(cluster, cluster.account()) as client:
        client.send(sent)
        assert client.end() == wanted


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        ("<message to='@x' id='e'/>", "jid-malformed"),
        ("<iq type='get' id='e' to='a@b@c'><ping xmlns='urn:xmpp:ping'/></iq>", "jid-malformed"),
        ("<iq type='get' id='e'/>", "bad-request"),
        ("<iq type='get' id='e'><a xmlns='x'/><b xmlns='x'/></iq>", "bad-request"),
        ("<iq type='fetch' id='e'><ping xmlns='urn:xmpp:ping'/></iq>", "bad-request"),
        ("<iq type='get' id='e'><nothing xmlns='urn:unknown'/></iq>", "service-unavailable"),
        ("<iq type='set' id='e' to='{domain}'><ping xmlns='urn:xmpp:ping'/></iq>", "feature-not-implemented"),
        ("<presence type='sideways' id='e'/>", "bad-request"),
        ("<presence id='e'><priority>high</priority></presence>", "bad-request"),
        ("<iq type='set' id='e'><query xmlns='jabber:iq:roster'><item jid='a@@'/></query></iq>", "bad-request"),
    ],
)
def test_stanzas_that_are_refused(cluster: RunningCluster, sent: str, wanted: str) -> None:
    with sign_in(cluster, cluster.account()) as client:
        client.send(sent.replace("{domain}", cluster.domain))
        assert condition(client.expect(lambda e: e.get("id") == "e" and e.get("type") == "error")) == wanted
        client.ping()  # the stream goes on


def test_wrong_passwords_come_to_an_end(cluster: RunningCluster) -> None:
    account = cluster.account()
    with Client(cluster) as client:
        client.open()
        for _ in range(2):
            assert condition(client.plain(account, "wrong")) == "not-authorized"
        assert condition(client.plain(account, "wrong")) == "not-authorized"
        assert client.end() == "policy-violation"


def test_an_unknown_account_looks_like_a_wrong_password(cluster: RunningCluster) -> None:
    account = cluster.account()
    with Client(cluster) as client:
        client.open()
        stranger = type(account)(f"stranger@{cluster.domain}", "secret")
        assert condition(client.plain(stranger)) == "not-authorized"


@pytest.mark.parametrize(
    ("auth", "wanted"),
    [
        ("mechanism='ANONYMOUS'>=", "invalid-mechanism"),
        ("mechanism='PLAIN'>!!!", "incorrect-encoding"),
        ("mechanism='PLAIN'>AAAA", "malformed-request"),
        ("mechanism='SCRAM-SHA-1-PLUS'>biws", "invalid-mechanism"),
    ],
)
def test_sasl_failures(cluster: RunningCluster, auth: str, wanted: str) -> None:
    with Client(cluster) as client:
        client.open()
        client.send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' {auth}</auth>")
        assert condition(client.expect(lambda e: e.tag == f"{SASL}failure")) in (wanted, "encryption-required")
