"""How many sessions an account may have (`limits.sessions_per_account`), over real processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.test_sign_in import BIND, SASL2, connect, with_password
from tests.support.client import sign_in
from tests.support.cluster import RunningCluster, start_cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    options = ("--tls", "optional", "--set", "limits.enabled=false", "--set", "limits.sessions_per_account=2")
    running = start_cluster(tmp_path_factory.mktemp("cluster"), *options)
    yield running
    assert running.stop() == 0


def test_one_more_and_the_oldest_ends_on_whichever_c2s_it_is(cluster: RunningCluster) -> None:
    account = cluster.account()
    with (
        sign_in(cluster, account, "first") as first,
        sign_in(cluster, account, "second") as second,
        sign_in(cluster, account, "third") as third,
    ):
        assert first.end() == "conflict"
        assert second.presence("unavailable", f"{account.jid}/first").get("type") == "unavailable"
        second.message(third.jid, "the two of us")
        assert third.body() == "the two of us"
        with sign_in(cluster, account, "first"):
            assert second.end() == "conflict"
            third.ping()


def test_it_is_told_why(cluster: RunningCluster) -> None:
    account = cluster.account()
    with sign_in(cluster, account) as first, sign_in(cluster, account), sign_in(cluster, account):
        heard = b""
        first.socket.settimeout(10)
        while more := first.socket.recv(65_536):
            heard += more
        assert b"This account has as many sessions as it may." in heard
        assert heard.rstrip().endswith(b"</stream:stream>")


def test_who_signs_in_and_binds_at_once_gets_in_too(cluster: RunningCluster) -> None:
    """XEP-0386; and a session that waits to be resumed counts, is the oldest, and cannot be resumed any more."""
    account = cluster.account()
    managed = BIND.replace("</bind>", "<enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>")
    with connect(cluster, account) as lost:
        success = with_password(lost, account, managed)
        enabled = success.find("{urn:xmpp:bind:0}bound/{urn:xmpp:sm:3}enabled")
        assert enabled is not None
    with sign_in(cluster, account) as second, connect(cluster, account) as third:
        assert with_password(third, account, BIND).tag == f"{SASL2}success"
        second.ping()
        with connect(cluster, account) as back:
            resume = f"<resume xmlns='urn:xmpp:sm:3' previd='{enabled.get('id')}' h='0'/>"
            success = with_password(back, account, resume)
            failed = success.find("{urn:xmpp:sm:3}failed")
            assert failed is not None
            assert failed[0].tag.endswith("item-not-found")


def test_each_account_has_its_own(cluster: RunningCluster) -> None:
    clients = [sign_in(cluster, account) for account in [cluster.account() for _ in range(3)]]
    for client in clients:
        client.ping()
        client.socket.close()
