"""Killing and restarting any process leaves a cluster that works; most clients do not even notice."""

from __future__ import annotations

import signal
import time

import pytest

from tests.support.client import WAIT_S, Client, place, sign_in, sign_in_apart
from tests.support.cluster import RunningCluster, wait_until


def _exchange(first: Client, second: Client, text: str, seconds: float = WAIT_S) -> None:
    first.message(second.bare, text)
    assert second.body(seconds) == text
    second.message(first.bare, f"{text} too")
    assert first.body(seconds) == f"{text} too"


@pytest.mark.parametrize("node", ["router-0", "router-1"])
def test_a_killed_router_costs_a_short_silence(cluster: RunningCluster, node: str) -> None:
    romeo, juliet = sign_in_apart(cluster, other_c2s=True, other_router=True)
    with romeo, juliet:
        _exchange(romeo, juliet, "before")
        old_pid = cluster.kill(node)
        started = time.monotonic()
        _exchange(romeo, juliet, "through it", 20)
        silence_s = time.monotonic() - started
        print(f"{node} killed: both directions again after {silence_s:.2f} s")
        assert silence_s < 10
        cluster.wait_restarted(node, old_pid)
        cluster.wait_ready()
        _exchange(romeo, juliet, "after")
        with sign_in(cluster, cluster.account()) as newcomer:
            _exchange(newcomer, romeo, "I am new")


@pytest.mark.parametrize("node", ["c2s-0", "c2s-1"])
def test_a_killed_c2s_takes_only_its_own_streams(cluster: RunningCluster, node: str) -> None:
    on_it, elsewhere = _one_on_each(cluster, node)
    with on_it, elsewhere:
        elsewhere.send(f"<presence type='subscribe' to='{on_it.bare}'/>")
        on_it.presence("subscribe", elsewhere.bare)
        on_it.send(f"<presence type='subscribed' to='{elsewhere.bare}'/>")
        elsewhere.presence(None, on_it.jid)
        old_pid = cluster.kill(node)
        assert on_it.end() == "connection closed"
        elsewhere.presence("unavailable", on_it.jid, 30)
        elsewhere.ping()
        cluster.wait_restarted(node, old_pid)
        cluster.wait_ready()
        wait_until(
            lambda: cluster.api.call("GET", f"/sessions?user={on_it.bare}&count=true")["count"] == 0,
            30,
            "the session of the killed c2s is gone",
        )
        with sign_in(cluster, cluster.account()) as newcomer:
            _exchange(newcomer, elsewhere, "I am new")


def _one_on_each(cluster: RunningCluster, node: str) -> tuple[Client, Client]:
    first, second = sign_in_apart(cluster, other_c2s=True, other_router=True)
    return (first, second) if place(cluster, first)[0] == node else (second, first)


def test_a_terminated_c2s_says_so_and_ends_cleanly(cluster: RunningCluster) -> None:
    on_it, elsewhere = _one_on_each(cluster, "c2s-0")
    with on_it, elsewhere:
        old_pid = cluster.kill("c2s-0", signal.SIGTERM)
        assert on_it.end(20) == "system-shutdown"
        cluster.wait_restarted("c2s-0", old_pid)
        elsewhere.ping()
        assert '"exit_code": 0' in cluster.log("c2s-0")
        cluster.wait_ready()


def test_a_terminated_router_hands_its_shards_over(cluster: RunningCluster) -> None:
    romeo, juliet = sign_in_apart(cluster, other_c2s=True, other_router=True)
    with romeo, juliet:
        old_pid = cluster.kill("router-0", signal.SIGTERM)
        for number in range(20):
            _exchange(romeo, juliet, f"during {number}")
        cluster.wait_restarted("router-0", old_pid)
        _exchange(romeo, juliet, "after")
        assert "shards_given" in cluster.log("router-0")
        cluster.wait_ready()
