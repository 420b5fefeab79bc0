"""Debian's coturn takes the credentials that clients are given (XEP-0215): an allocation is made with them, and data goes
through it."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.client import Client, sign_in
from tests.support.cluster import FACTOR, RunningCluster, free_offset, start_cluster
from tests.support.peers.process import Process, free_address, program

SECRET = "a secret of coturn's and ours"
REALM = "example.com"
WHOLE = "Total lost packets 0"


def _listens(host: str, port: int) -> bool:
    """Whether the address is taken: UDP answers nobody."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


@pytest.fixture
def coturn(tmp_path: Path) -> Iterator[tuple[str, int]]:
    host, port = free_address(), 3478
    directory = tmp_path / "coturn"
    directory.mkdir()
    turnserver = Process(
        "coturn", directory,
        [
            program("turnserver"), "-n", "-L", host, "-p", port, "--use-auth-secret", f"--static-auth-secret={SECRET}",
            f"--realm={REALM}", "--no-tls", "--no-dtls", "--no-cli", "--allow-loopback-peers", "--no-stdout-log",
            f"--userdb={directory / 'turndb'}", f"--pidfile={directory / 'pid'}", f"--log-file={directory / 'turn.log'}",
        ],
        lambda: _listens(host, port),
    )  # fmt: skip
    turnserver.start()
    yield host, port
    turnserver.stop()


@pytest.fixture
def client(tmp_path: Path, coturn: tuple[str, int]) -> Iterator[Client]:
    host, port = coturn
    services = {"turn": {"type": "turn", "host": host, "port": port, "secret": SECRET, "ttl_s": 600}}
    cluster: RunningCluster = start_cluster(
        tmp_path / "cluster", "--set", f"calls.services={json.dumps(services)}", "--port-offset", str(free_offset())
    )
    with sign_in(cluster, cluster.account(), tls=True) as found:
        yield found
    assert cluster.stop() == 0


def allocate(host: str, port: int, username: str, password: str) -> subprocess.CompletedProcess[str]:
    """One allocation, between two clients that are both of this program."""
    command = [
        program("turnutils_uclient"),
        "-u",
        username,
        "-w",
        password,
        "-p",
        str(port),
        "-y",
        "-n",
        "1",
        "-m",
        "1",
        host,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60 * FACTOR, check=False)


def test_coturn_takes_the_credentials_that_clients_are_given(client: Client, coturn: tuple[str, int]) -> None:
    answer = client.iq("get", "<services xmlns='urn:xmpp:extdisco:2' type='turn'/>", "localhost")
    service = answer[0][0]
    assert (service.get("host"), service.get("port")) == (coturn[0], str(coturn[1]))
    username, password = service.get("username") or "", service.get("password") or ""
    done = allocate(*coturn, username, password)
    assert WHOLE in done.stdout, done.stdout + done.stderr
    forged = allocate(*coturn, username.replace(":", "9:", 1), password)
    assert WHOLE not in forged.stdout
