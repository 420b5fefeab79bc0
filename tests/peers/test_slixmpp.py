"""slixmpp, a client library that others wrote, against a cluster of two c2s and two routers."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from tests.peers.common import apart, place
from tests.peers.slixmpp_client import Contact, LoginFailed, Refused, Slixmpp, befriend
from tests.support.cluster import Account, RunningCluster

NewCluster = Callable[..., RunningCluster]
Pair = tuple[Slixmpp, Slixmpp]


@pytest.fixture
def pair(cluster: RunningCluster) -> Iterator[Pair]:
    """Romeo by STARTTLS and Juliet by direct TLS, on different c2s, their accounts on different routers."""
    romeo, juliet = apart(cluster, lambda a: Slixmpp(cluster, a), lambda a: Slixmpp(cluster, a, direct_tls=True))
    with romeo, juliet:
        yield romeo, juliet


# --- messages


def test_messages_cross_processes_both_ways(cluster: RunningCluster, pair: Pair) -> None:
    romeo, juliet = pair
    assert {place(cluster, c.jid) for c in pair} in (
        {("c2s-0", "router-0"), ("c2s-1", "router-1")},
        {("c2s-0", "router-1"), ("c2s-1", "router-0")},
    )
    for body in ("Wherefore art thou?", "<&> \"'", "薔薇 🌹\nby any other name", "]]>", "  "):
        romeo.message(juliet.bare, body)
        assert juliet.body(romeo.jid) == body
        juliet.message(romeo.jid, body)
        assert romeo.body(juliet.jid) == body


def test_a_chat_of_200_messages_arrives_in_order_and_once(pair: Pair) -> None:
    romeo, juliet = pair
    for number in range(100):
        romeo.message(juliet.bare, f"to juliet {number}")
        juliet.message(romeo.bare, f"to romeo {number}")
    assert [juliet.body() for _ in range(100)] == [f"to juliet {number}" for number in range(100)]
    assert [romeo.body() for _ in range(100)] == [f"to romeo {number}" for number in range(100)]
    romeo.ping(juliet.jid)
    juliet.ping(romeo.jid)
    assert romeo.messages.left() == juliet.messages.left() == []


def test_a_message_for_nobody_comes_back(cluster: RunningCluster, pair: Pair) -> None:
    romeo, _ = pair
    nobody = f"nobody@{cluster.domain}"
    romeo.message(nobody, "hello?")
    assert romeo.messages.take(lambda message: message.from_ == nobody).error == "service-unavailable"


# --- presence and roster


def test_a_subscription_from_request_to_presence_and_back(pair: Pair) -> None:
    romeo, juliet = pair
    romeo.subscription("subscribe", juliet.bare)
    assert romeo.push(juliet.bare) == Contact("none", "", (), is_asked=True)
    juliet.presence(romeo.bare, "subscribe")
    juliet.subscription("subscribed", romeo.bare)
    romeo.presence(juliet.bare, "subscribed")
    romeo.presence(juliet.jid)
    assert romeo.push(juliet.bare) == Contact("to", "", (), is_asked=False)
    assert juliet.push(romeo.bare) == Contact("from", "", (), is_asked=False)
    juliet.send_presence("away", "on the balcony")
    assert romeo.presence(juliet.jid, "away").status == "on the balcony"
    romeo.subscription("unsubscribe", juliet.bare)
    romeo.presence(juliet.jid, "unavailable")
    assert juliet.push(romeo.bare, "none") == Contact("none", "", (), is_asked=False)
    assert romeo.roster()[juliet.bare].subscription == "none"


def test_a_client_that_accepts_everybody_ends_with_a_mutual_subscription(cluster: RunningCluster) -> None:
    """As slixmpp does by default: its subscription back crosses the answer to ours."""
    romeo, juliet = apart(
        cluster, lambda a: Slixmpp(cluster, a, befriends=True), lambda a: Slixmpp(cluster, a, befriends=True)
    )
    with romeo, juliet:
        romeo.subscription("subscribe", juliet.bare)
        for client, contact in ((romeo, juliet), (juliet, romeo)):
            client.push(contact.bare, "both")
            client.presence(contact.jid)
            assert client.roster()[contact.bare].subscription == "both"


def test_whoever_leaves_is_seen_to_leave_and_to_come_back(cluster: RunningCluster, pair: Pair) -> None:
    romeo, juliet = pair
    befriend(romeo, juliet)
    left = juliet.jid
    juliet.close()
    romeo.presence(left, "unavailable")
    with Slixmpp(cluster, Account(juliet.bare, "secret")) as again:
        romeo.presence(again.jid)
        again.presence(romeo.jid)


def test_every_session_hears_of_a_change_of_the_roster(cluster: RunningCluster) -> None:
    account = cluster.account()
    contact = f"juliet@{cluster.domain}"
    with Slixmpp(cluster, account) as phone, Slixmpp(cluster, account, direct_tls=True) as laptop:
        phone.put_contact(contact, "Juliet", ("Verona", "Capulets"))
        for client in (phone, laptop):
            assert client.push(contact) == Contact("none", "Juliet", ("Capulets", "Verona"), is_asked=False)
        assert laptop.roster() == phone.roster() == {contact: Contact("none", "Juliet", ("Capulets", "Verona"), False)}
        assert laptop.changes() == {}, "its version is the newest"
        laptop.remove_contact(contact)
        for client in (phone, laptop):
            assert client.push(contact).subscription == "remove"
        assert phone.roster() == {}


# --- what its plugins ask


def test_what_the_server_says_of_itself(cluster: RunningCluster, pair: Pair) -> None:
    romeo, _ = pair
    domain = cluster.domain
    romeo.ping(domain)
    romeo.ping(romeo.bare)
    name, version, system = romeo.version(domain)
    assert (name, system) == ("Stentor", "")
    assert version
    utc, offset = romeo.time(domain)
    assert abs((datetime.now(UTC) - utc).total_seconds()) < 30
    assert offset == "+00:00"
    assert romeo.last_activity(domain) >= 0
    identities, features = romeo.info(domain)
    assert ("server", "im") in identities
    assert features >= {
        "http://jabber.org/protocol/disco#info", "jabber:iq:last", "jabber:iq:private", "jabber:iq:version",
        "urn:xmpp:blocking", "urn:xmpp:ping", "urn:xmpp:time", "vcard-temp",
    }  # fmt: skip
    assert sorted(romeo.items(domain)) == [f"{name}.{domain}" for name in ("conference", "proxy", "pubsub", "upload")]
    identities, _ = romeo.info(romeo.bare)
    assert identities == {("account", "registered"), ("pubsub", "pep")}
    assert romeo.items(romeo.bare) == [romeo.jid]


def test_clients_answer_each_other_across_processes(pair: Pair) -> None:
    romeo, juliet = pair
    romeo.ping(juliet.jid)
    assert romeo.version(juliet.jid)[0] == juliet.version(romeo.jid)[0] == "Slixmpp"
    assert "urn:xmpp:ping" in romeo.info(juliet.jid)[1]


def test_a_stranger_learns_nothing_and_a_contact_does(pair: Pair) -> None:
    romeo, juliet = pair
    with pytest.raises(Refused, match="forbidden"):
        romeo.last_activity(juliet.bare)
    with pytest.raises(Refused, match="service-unavailable"):
        romeo.info(juliet.bare)
    befriend(romeo, juliet)
    assert romeo.last_activity(juliet.bare) == 0
    assert romeo.info(juliet.bare)[0] == {("account", "registered"), ("pubsub", "pep")}
    juliet.close()
    romeo.presence(juliet.bare, "unavailable")
    assert 0 <= romeo.last_activity(juliet.bare) < 60


def test_a_vcard_is_stored_and_everybody_reads_it(pair: Pair) -> None:
    romeo, juliet = pair
    with pytest.raises(Refused, match="service-unavailable"):  # XEP-0054, 3.3: as where there is no such account
        romeo.vcard(juliet.bare)
    juliet.publish_vcard("Juliet Capulet", "Jule <3")
    assert romeo.vcard(juliet.bare) == ("Juliet Capulet", ["Jule <3"])
    juliet.publish_vcard("Juliet Montague", "Jule")
    assert romeo.vcard(juliet.bare) == juliet.vcard(juliet.bare) == ("Juliet Montague", ["Jule"])


def test_private_storage_keeps_what_another_session_reads(cluster: RunningCluster) -> None:
    account = cluster.account()
    rooms = {"garden@conference.example": "Röschen", "tomb@conference.example": "R & J"}
    with Slixmpp(cluster, account) as phone, Slixmpp(cluster, account) as laptop:
        assert laptop.bookmarks() == {}
        phone.set_bookmarks(rooms)
        assert laptop.bookmarks() == rooms
        laptop.set_bookmarks({})
        assert phone.bookmarks() == {}


def test_whom_one_has_blocked_is_not_heard_and_learns_nothing(pair: Pair) -> None:
    romeo, juliet = pair
    befriend(romeo, juliet)
    assert juliet.blocked() == set()
    juliet.block(romeo.bare)
    assert juliet.blocked() == {romeo.bare}
    romeo.presence(juliet.jid, "unavailable")  # XEP-0191, 3.3.1
    romeo.message(juliet.jid, "answer me")
    assert romeo.messages.take().error == "service-unavailable"
    juliet.message(romeo.jid, "no")
    assert juliet.messages.take().error == "not-acceptable"  # XEP-0191, 3.5
    juliet.unblock(romeo.bare)
    romeo.presence(juliet.jid)
    romeo.message(juliet.jid, "at last")
    assert juliet.body(romeo.jid) == "at last"
    assert juliet.messages.left() == []


# --- signing in


@pytest.mark.parametrize("direct_tls", [False, True])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_each_mechanism_signs_in(cluster: RunningCluster, mechanism: str, direct_tls: bool) -> None:
    with Slixmpp(cluster, cluster.account(), mechanism=mechanism, direct_tls=direct_tls) as client:
        assert client.mechanism == mechanism
        client.ping(cluster.domain)


@pytest.mark.parametrize("direct_tls", [False, True])
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512-PLUS"])
def test_channel_binding_by_tls_exporter(cluster: RunningCluster, mechanism: str, direct_tls: bool) -> None:
    account = cluster.account()
    with Slixmpp(cluster, account, mechanism=mechanism, exports=True, direct_tls=direct_tls) as client:
        assert client.mechanism == mechanism
        client.ping(cluster.domain)


@pytest.mark.parametrize("tls", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_left_to_itself_it_signs_in_with_every_version_of_tls(cluster: RunningCluster, tls: ssl.TLSVersion) -> None:
    """On TLS 1.2 it takes what Python gives it, `tls-unique`, and asks nobody; on TLS 1.3 Python gives it nothing."""
    plus = "-PLUS" if tls is ssl.TLSVersion.TLSv1_2 else ""
    with Slixmpp(cluster, cluster.account(), tls=tls) as client:
        assert client.mechanism == f"SCRAM-SHA-512{plus}"
        client.ping(cluster.domain)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-512"])
def test_a_wrong_password_and_an_unknown_account_are_not_authorized(cluster: RunningCluster, mechanism: str) -> None:
    known = cluster.account()
    for jid, password in ((known.jid, "wrong"), (f"nobody@{cluster.domain}", "secret")):
        with pytest.raises(LoginFailed) as failed:
            Slixmpp(cluster, Account(jid, password), mechanism=mechanism)
        assert failed.value.condition == "not-authorized"
    with Slixmpp(cluster, known, mechanism=mechanism) as client:
        client.ping(cluster.domain)


def test_a_changed_password_is_the_one_that_counts(cluster: RunningCluster) -> None:
    account = cluster.account()
    with Slixmpp(cluster, account) as client:
        client.change_password("Rösle, rot")
    with pytest.raises(LoginFailed):
        Slixmpp(cluster, account, mechanism="SCRAM-SHA-256")
    for mechanism in ("PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256"):
        Slixmpp(cluster, Account(account.jid, "Rösle, rot"), mechanism=mechanism).close()


def test_an_account_is_made_and_removed_in_band(new_cluster: NewCluster) -> None:
    cluster = new_cluster("--set", "registration.mode=open", "--set", "limits.enabled=false")
    newcomer = Account(f"newcomer@{cluster.domain}", "secret")
    with Slixmpp(cluster, newcomer, registers=True) as client:
        assert "jabber:iq:register" in client.info(cluster.domain)[1]
        assert newcomer.jid in cluster.command("user", "list").stdout.splitlines()
    with Slixmpp(cluster, newcomer) as client:
        client.remove_account()
    assert newcomer.jid not in cluster.command("user", "list").stdout.splitlines()
    with pytest.raises(LoginFailed) as failed:
        Slixmpp(cluster, newcomer, mechanism="PLAIN")
    assert failed.value.condition == "not-authorized"


def test_who_is_invited_makes_an_account_and_both_are_contacts(new_cluster: NewCluster) -> None:
    """XEP-0401 by XEP-0050, XEP-0445 by XEP-0077."""
    cluster = new_cluster("--set", "registration.mode=invite", "--set", "limits.enabled=false")
    newcomer = Account(f"newcomer@{cluster.domain}", "secret")
    with Slixmpp(cluster, cluster.account()) as romeo:
        romeo.roster()
        told = romeo.command(cluster.domain, "urn:xmpp:invite#invite")
        token = told["uri"].partition("preauth=")[2].partition(";")[0]
        assert told["uri"] == f"xmpp:{romeo.bare}?roster;preauth={token};ibr=y"
        with Slixmpp(cluster, newcomer, registers=True, invitation=token) as juliet:
            assert juliet.roster()[romeo.bare].subscription == "both"
            assert romeo.roster()[juliet.bare].subscription == "both"
            juliet.message(romeo.bare, "it was the nightingale")
            assert romeo.body(juliet.jid) == "it was the nightingale"
