"""`stentor dev` as operators and tests rely on it: READY, run.json, restarts, commands, a clean end."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from collections.abc import Callable

import pytest

from stentor.client import Api, Refused
from stentor.failure import Failed
from tests.support.cluster import RunningCluster, wait_until

NewCluster = Callable[..., RunningCluster]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_run_json_tells_what_runs(cluster: RunningCluster) -> None:
    facts = cluster.facts
    assert facts["domains"] == ["localhost"]
    assert {"c2s", "c2s_tls", "s2s", "s2s_tls", "component", "admin", "http", "https"} == set(facts["ports"])
    assert facts["database_url"].startswith("postgresql://")
    assert [process.node for process in cluster.processes()] == ["c2s-0", "c2s-1", "router-0", "router-1", "s2s-0"]
    assert all(is_alive(process.pid) for process in cluster.processes())
    assert stat.S_IMODE((cluster.directory / "run.json").stat().st_mode) == 0o600
    assert cluster.lines[-1].startswith("READY")


def test_every_process_answers_on_its_admin_port(cluster: RunningCluster) -> None:
    for process in cluster.processes():
        for path in ("/healthz", "/readyz"):
            status, text = cluster.get(process.node, path)
            assert status == 200, text
            assert all(check["ok"] for check in json.loads(text))
        status, text = cluster.get(process.node, "/metrics")
        assert status == 200
        assert "stentor_ready 1.0\n" in text
        assert "stentor_build_info{" in text


def test_accounts_are_managed_by_commands(cluster: RunningCluster) -> None:
    def command(*arguments: str, stdin: str = "") -> tuple[int, str]:
        done = cluster.command(*arguments, stdin=stdin)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout

    jid = f"commanded@{cluster.domain}"
    assert command("user", "add", jid, "--password-stdin", stdin="secret\n") == (0, f"{jid} added\n")
    assert command("user", "add", jid, "--password", "secret")[0] == 1
    assert jid in command("user", "list")[1].splitlines()
    assert command("user", "show", jid)[0] == 0
    assert command("user", "passwd", jid, "--password", "other")[0] == 0
    assert command("session", "list", "--user", jid, "--count") == (0, "0\n")
    assert command("user", "del", jid)[0] == 0
    assert command("user", "show", jid)[0] == 1
    assert command("user", "add", "nobody@elsewhere.example", "--password", "x")[0] == 1
    assert command("cluster", "status")[0] == 0


def test_the_api_wants_its_token(cluster: RunningCluster) -> None:
    with pytest.raises(Refused, match="token"):
        Api(cluster.api.url, "wrong").call("GET", "/users")


def test_processes_that_are_killed_come_back(new_cluster: NewCluster) -> None:
    running = new_cluster()
    for node in ("c2s-0", "router-0", "router-1", "c2s-1"):
        old = running.kill(node)
        assert running.wait_restarted(node, old).pid != old
    running.wait_ready()
    assert running.account().jid in running.command("user", "list").stdout


def test_it_ends_cleanly_and_starts_again_with_its_data(new_cluster: NewCluster) -> None:
    first = new_cluster("--user", "alice@localhost:secret")
    pids = [process.pid for process in first.processes()]
    port = first.port
    assert first.stop(signal.SIGINT) == 0
    assert not any(is_alive(pid) for pid in pids)
    assert not (first.directory / "run.json").exists()
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect((first.host, port))
    again = new_cluster("--user", "alice@localhost:other", directory=first.directory)
    assert "alice@localhost" in again.command("user", "list").stdout.splitlines()


def test_when_the_supervisor_is_killed_its_processes_die_too(new_cluster: NewCluster) -> None:
    running = new_cluster()
    pids = [process.pid for process in running.processes()]
    running.stop(signal.SIGKILL)
    wait_until(lambda: not any(is_alive(pid) for pid in pids), 10, "no process is left")


def test_two_clusters_run_side_by_side_but_not_in_one_folder(cluster: RunningCluster, new_cluster: NewCluster) -> None:
    other = new_cluster("--domain", "other.example")
    assert other.domain == "other.example"
    assert other.port != cluster.port
    clash = cluster.command("dev", "--port-offset", "23000")
    assert clash.returncode == 1
    assert "in use" in clash.stderr
    with pytest.raises(Failed):
        Api(other.api.url, cluster.api.token).call("GET", "/users")
