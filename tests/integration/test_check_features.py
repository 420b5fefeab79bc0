"""`stentor check features` (XEP-0479), as an operator runs it."""

from __future__ import annotations

import pytest

from stentor import cli
from tests.support.cluster import RunningCluster

# What the web side will bring.
MISSING = ("RFC 7395", "XEP-0206")
CATEGORIES = ("Core", "Web", "IM", "Mobile", "A/V")


def run(capsys: pytest.CaptureFixture[str], cluster: RunningCluster, *options: str) -> tuple[int, list[str], str]:
    code = cli.run(["check", "features", "--data", str(cluster.directory), *options])
    output = capsys.readouterr()
    return code, output.out.splitlines(), output.err


def test_everything_of_the_suite_works_but_what_is_of_the_web(
    cluster: RunningCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    before = cluster.api.call("GET", "/users")["users"]
    code, lines, _ = run(capsys, cluster)
    assert len(lines) == 25
    assert [line for line in lines if line.startswith("no") and not any(name in line for name in MISSING)] == []
    assert sum(line.startswith("no") for line in lines) == len(MISSING)
    assert code == 1
    assert list(dict.fromkeys(line.split()[1] for line in lines)) == list(CATEGORIES)
    assert cluster.api.call("GET", "/users")["users"] == before, "its accounts are gone"


def test_what_does_not_work_is_named(cluster: RunningCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody takes components or direct TLS at these ports."""
    _, lines, _ = run(capsys, cluster, "--component-port", "1", "--tls-port", "1")
    said = {line.split()[2]: line for line in lines if line.split()[1] == "Core"}
    for name in ("XEP-0114", "XEP-0368"):
        assert said[name].startswith("no ")
        assert "refused" in said[name]
    assert said["XEP-0030"].startswith("yes")


def test_nobody_is_there(cluster: RunningCluster, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, error = run(capsys, cluster, "--port", "1")
    assert (code, lines) == (1, [])
    assert "127.0.0.1 port 1: nobody can sign in" in error
