"""go-sendxmpp, a program for the shell, against a cluster of two c2s and two routers."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Callable

import psycopg
import pytest

from tests.peers.common import WAIT_S, apart
from tests.peers.gosendxmpp import Listener, environment, knows, send
from tests.peers.slixmpp_client import Slixmpp
from tests.support.cluster import FACTOR, Account, RunningCluster, wait_until

NewCluster = Callable[..., RunningCluster]

_SIGNED_IN = re.compile(r'stentor_c2s_auth_total{mechanism="(.*?)",result="ok"} (.*)')

BODIES = ("Wherefore art thou?", "<&> \"'", "薔薇 🌹", "]]>")


def streams(cluster: RunningCluster) -> dict[str, int]:
    """How many streams each c2s has carried so far."""
    return {process.node: cluster.log(process.node).count('"stream_bound"') for process in cluster.processes("c2s")}


@pytest.mark.parametrize("direct_tls", [False, True])
def test_from_go_sendxmpp_to_slixmpp_and_to_go_sendxmpp(cluster: RunningCluster, direct_tls: bool) -> None:
    """Senders on both routers, receivers on other c2s than each other; each message comes by a connection of its own,
    until both c2s have carried some."""
    juliet, nurse = apart(cluster, lambda a: Slixmpp(cluster, a, direct_tls=direct_tls), lambda a: Listener(cluster, a))
    with juliet, nurse:
        for sender in (Account(juliet.bare, "secret"), Account(nurse.bare, "secret"), cluster.account()):
            before = streams(cluster)
            for body in itertools.islice(itertools.cycle(BODIES), 100):
                for receiver in (juliet, nurse):
                    done = send(cluster, sender, receiver.bare, body, direct_tls=direct_tls)
                    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
                    assert receiver.body(sender.jid) == body
                if body == BODIES[-1] and all(count > before[node] for node, count in streams(cluster).items()):
                    break
            else:
                pytest.fail("one c2s has carried nothing")


def test_a_text_of_several_lines_is_one_message(cluster: RunningCluster) -> None:
    with Slixmpp(cluster, cluster.account()) as juliet:
        sender = cluster.account()
        assert send(cluster, sender, juliet.bare, "two\nlines").returncode == 0
        assert juliet.body(sender.jid) == "two\nlines"


@pytest.mark.parametrize("direct_tls", [False, True])
def test_from_slixmpp_to_go_sendxmpp(cluster: RunningCluster, direct_tls: bool) -> None:
    juliet, romeo = apart(cluster, lambda a: Listener(cluster, a, direct_tls=direct_tls), lambda a: Slixmpp(cluster, a))
    with juliet, romeo:
        for to in (juliet.bare, juliet.jid):
            for body in BODIES:
                romeo.message(to, body)
                assert juliet.body(romeo.bare) == body
        for number in range(50):
            romeo.message(juliet.bare, str(number))
        assert [juliet.body(romeo.bare) for _ in range(50)] == [str(number) for number in range(50)]
        assert juliet.messages.left() == []


def signed_in_by(cluster: RunningCluster) -> Counter[str]:
    """How many have signed in by each mechanism so far."""
    found: Counter[str] = Counter()
    for process in cluster.processes("c2s"):
        for mechanism, count in _SIGNED_IN.findall(cluster.get(process.node, "/metrics")[1]):
            found[mechanism] += int(float(count))
    return found


@pytest.mark.parametrize("direct_tls", [False, True])
def test_it_signs_in_by_the_best_that_it_knows(cluster: RunningCluster, direct_tls: bool) -> None:
    """Debian 12's version knows PLAIN alone, and neither SASL2 nor tokens; later ones know SCRAM."""
    account = cluster.account()
    before = signed_in_by(cluster)
    assert send(cluster, account, account.jid, "hello", direct_tls=direct_tls).returncode == 0
    (mechanism,) = (signed_in_by(cluster) - before).elements()
    assert mechanism.startswith("SCRAM-SHA-") if knows("SCRAM-SHA-") else mechanism == "PLAIN"


def test_an_account_that_came_with_one_hash_gets_the_others_by_it(cluster: RunningCluster) -> None:
    """It knows nothing of XEP-0480: with PLAIN the password is there. What is made of it is good for SCRAM."""
    if knows("SCRAM-SHA-"):
        pytest.skip("it does not send the password")
    account = cluster.account()
    with psycopg.connect(cluster.facts["database_url"]) as conn:
        conn.execute(
            "delete from credentials c using entities e where c.key = e.key and e.jid = %s and c.hash <> 'SHA-1'",
            (account.jid,),
        )

    def hashes() -> int:
        with psycopg.connect(cluster.facts["database_url"]) as conn:
            found = conn.execute(
                "select count(*) from credentials join entities using (key) where jid = %s", (account.jid,)
            ).fetchone()
        assert found is not None
        return int(found[0])

    assert hashes() == 1
    assert send(cluster, account, account.jid, "hello").returncode == 0
    wait_until(lambda: hashes() == 3, WAIT_S, "the other hashes")
    with Slixmpp(cluster, account) as again:
        assert again.bare == account.jid


def test_it_refuses_a_certificate_that_it_does_not_know(cluster: RunningCluster) -> None:
    account = cluster.account()
    done = send(cluster, account, account.jid, "hello", trusts=False)
    assert done.returncode == 1
    assert "certificate signed by unknown authority" in done.stderr


def test_it_is_told_that_a_password_is_wrong(cluster: RunningCluster) -> None:
    account = cluster.account()
    done = send(cluster, Account(account.jid, "wrong"), account.jid, "hello")
    assert done.returncode == 1
    assert "not-authorized" in done.stderr


def test_what_stentor_dev_says_to_try_works(new_cluster: NewCluster) -> None:
    """The line that it prints, word for word, while bob listens in another terminal."""
    cluster = new_cluster("--user", "alice@localhost:alice", "--user", "bob@localhost:bob")
    tries = [line.split(maxsplit=1)[1] for line in cluster.lines if line.split()[0] == "try"]
    assert tries == [
        f"echo 'hello' | go-sendxmpp -u alice@localhost -p alice -j 127.0.0.1:{cluster.port} -n bob@localhost"
    ]
    with Listener(cluster, Account("bob@localhost", "bob"), verify=False) as bob:
        done = subprocess.run(
            ["sh", "-c", tries[0]], capture_output=True, text=True, timeout=WAIT_S * FACTOR, check=False,
            env={**environment(cluster), "SSL_CERT_FILE": "/dev/null"},
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), shlex.join(done.args)
        assert bob.body("alice@localhost") == "hello"
