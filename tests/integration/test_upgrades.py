"""Accounts that came from elsewhere with one hash, and get the others as their users sign in (XEP-0480)."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from typing import Final

import psycopg
import pytest

from tests.integration.test_sign_in import BIND, SASL2, condition, connect, say
from tests.support.client import Client, Element
from tests.support.cluster import Account, RunningCluster, wait_until

SCRAM: Final = "{urn:xmpp:scram-upgrade:0}"
WANTED: Final = "".join(f"<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-{n}</upgrade>" for n in (256, 512))


def stored(cluster: RunningCluster, account: Account) -> dict[str, int]:
    """The iterations of each hash of which the account has credentials."""
    with psycopg.connect(cluster.facts["database_url"]) as conn:
        found = conn.execute(
            "select hash, iterations from credentials join entities using (key) where jid = %s", (account.jid,)
        )
        return dict(found.fetchall())


@pytest.fixture
def account(cluster: RunningCluster) -> Account:
    """As one that another server had."""
    account = cluster.account()
    with psycopg.connect(cluster.facts["database_url"]) as conn:
        conn.execute(
            "delete from credentials c using entities e where c.key = e.key and e.jid = %s and c.hash <> 'SHA-1'",
            (account.jid,),
        )
    return account


def by_scram(client: Client, account: Account, size: str, inner: str = "") -> Element:
    """Sign in by SCRAM; what comes in the place of <success/>."""
    name = f"sha{size}"
    bare = f"n={account.jid.partition('@')[0]},r=abc"
    challenge = say(client, f"SCRAM-SHA-{size}", f"n,,{bare}".encode(), inner)
    first = b64decode(challenge.text or "").decode()
    facts = dict(part.split("=", 1) for part in first.split(","))
    salted = hashlib.pbkdf2_hmac(name, account.password.encode(), b64decode(facts["s"]), int(facts["i"]))
    key = hmac.digest(salted, b"Client Key", name)
    final = f"c=biws,r={facts['r']}"
    signature = hmac.digest(hashlib.new(name, key).digest(), f"{bare},{first},{final}".encode(), name)
    proof = b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
    message = b64encode(f"{final},p={proof}".encode()).decode()
    return tell(client, f"<response xmlns='urn:xmpp:sasl:2'>{message}</response>")


def tell(client: Client, element: str) -> Element:
    client.send(element)
    return client.expect(lambda element: element.tag.startswith(SASL2))


def do_task(client: Client, asked: Element, password: str) -> Element:
    """Do what <continue/> asks for; what comes after it."""
    assert asked.tag == f"{SASL2}continue"
    (task,) = [node.text or "" for node in asked.iterfind(f"{SASL2}tasks/{SASL2}task")]
    data = tell(client, f"<next xmlns='urn:xmpp:sasl:2' task='{task}'/>")
    salt = data.find(f"{SCRAM}salt")
    assert salt is not None
    name = "sha" + task.removeprefix("UPGR-SCRAM-SHA-")
    salted = hashlib.pbkdf2_hmac(name, password.encode(), b64decode(salt.text or ""), int(salt.get("iterations") or 0))
    hash = f"<hash xmlns='urn:xmpp:scram-upgrade:0'>{b64encode(salted).decode()}</hash>"
    return tell(client, f"<task-data xmlns='urn:xmpp:sasl:2'>{hash}</task-data>")


def test_with_one_hash_in_with_all_of_them_out(cluster: RunningCluster, account: Account) -> None:
    with connect(cluster, account) as client:
        assert condition(by_scram(client, account, "256")) == "not-authorized"
    with connect(cluster, account) as client:
        asked = by_scram(client, account, "1", WANTED + BIND)
        assert (asked.findtext(f"{SASL2}additional-data") or "") != "", "the server has proved itself by now"
        asked = do_task(client, asked, account.password)
        assert list(stored(cluster, account)) == ["SHA-1", "SHA-256"], "stored before the next is asked for"
        success = do_task(client, asked, account.password)
        assert success.tag == f"{SASL2}success"
        assert (success.findtext(f"{SASL2}authorization-identifier") or "").startswith(f"{account.jid}/test/")
    assert set(stored(cluster, account)) == {"SHA-1", "SHA-256", "SHA-512"}
    for size in ("1", "256", "512"):
        with connect(cluster, account) as client:
            assert by_scram(client, account, size, WANTED).tag == f"{SASL2}success", "nothing is asked for any more"


def test_a_password_that_is_changed_meanwhile_is_the_one_that_counts(cluster: RunningCluster, account: Account) -> None:
    with connect(cluster, account) as client:
        asked = by_scram(client, account, "1", WANTED)
        cluster.api.call("PUT", f"/users/{account.jid}/password", {"password": "new"})
        do_task(client, asked, account.password)
    with connect(cluster, account) as client:
        assert condition(by_scram(client, account, "256")) == "not-authorized"
        assert by_scram(client, Account(account.jid, "new"), "256").tag == f"{SASL2}success"


def test_who_gives_up_has_what_there_was(cluster: RunningCluster, account: Account) -> None:
    with connect(cluster, account) as client:
        by_scram(client, account, "1", WANTED)
        assert condition(tell(client, "<abort xmlns='urn:xmpp:sasl:2'/>")) == "aborted"
        client.send(f"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>{BIND}</authenticate>")
        assert client.end() == "unsupported-stanza-type"
    assert set(stored(cluster, account)) == {"SHA-1"}


def test_plain_gives_an_account_what_it_lacks(cluster: RunningCluster, account: Account) -> None:
    local = account.jid.partition("@")[0]
    with connect(cluster, account) as client:
        assert say(client, "PLAIN", f"\0{local}\0{account.password}".encode(), "").tag == f"{SASL2}success"
    wait_until(lambda: len(stored(cluster, account)) == 3, 10, "the other hashes")
    with connect(cluster, account) as client:
        assert by_scram(client, account, "512").tag == f"{SASL2}success"
