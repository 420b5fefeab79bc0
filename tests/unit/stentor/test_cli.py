"""Exit codes and texts of the command line."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from stentor import cli


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.run(list(arguments))
    output = capsys.readouterr()
    return code, output.out, output.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["user", "nonsense"],
        ["user", "add"],
        ["dev", "--c2s", "0"],
        ["dev", "--user", "alice@localhost"],
        ["dev", "--user", "alice:secret"],
        ["run"],
        ["user", "list", "--admin-url", "http://127.0.0.1:1"],
        ["user", "list", "--data", "a", "--config", "b"],
        ["check", "config", "--set", "c2s.prot=1"],
        ["check", "dns", "romeo@b.example"],
        ["check", "tls", "..."],
        ["check", "federation", "b.example", "--from", "a.example/x"],
        ["check", "federation", "b.example", "--set", 's2s.resolvers=["nobody"]'],
        ["check", "federation", "b.example", "--set", "s2s.ca=/nonexistent/ca.pem"],
        ["dev", "--set", "no.thing=1"],
        ["db", "status"],
        ["c2s", "--config", "/nonexistent/stentor.toml"],
        ["sms"],
        ["sms", "--config", "/nonexistent/sms.toml"],
    ],
)
def test_wrong_usage_and_configuration_exit_with_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, _, error = run(capsys, *arguments)
    assert code == 2
    assert error
    assert "Traceback" not in error


def test_help_and_version_exit_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["--version"], ["user", "add", "--help"], ["check", "config"]):
        code, out, _ = run(capsys, *arguments)
        assert code == 0
        assert out


def test_a_setting_is_shown_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "check", "config", "--set", "c2s.port=1234", "--set", "admin.token=hush")
    assert "c2s.port = 1234  # --set;" in out
    assert "admin.token = (set)" in out
    assert "hush" not in out


def test_a_bug_is_one_line_and_exits_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def broken() -> None:
        raise KeyError("gone")

    monkeypatch.setitem(cli.cli.commands, "broken", broken)
    code, _, error = run(capsys, "broken")
    assert code == 1
    assert error.count("\n") == 1
    assert "KeyError: 'gone'" in error


def test_the_exit_code_of_a_command_is_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def one() -> int:
        return 1

    @click.command()
    def leaves() -> None:
        raise click.exceptions.Exit(1)

    monkeypatch.setitem(cli.cli.commands, "one", one)
    monkeypatch.setitem(cli.cli.commands, "leaves", leaves)
    assert run(capsys, "one")[0] == 1
    assert run(capsys, "leaves")[0] == 1


def test_help_loads_nothing_heavy() -> None:
    script = "import sys, stentor.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"aiohttp", "pydantic", "structlog", "psycopg", "cryptography", "uvloop", "zmq", "lxml"} & set(loaded)
