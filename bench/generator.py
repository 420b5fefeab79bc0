"""The load generator: builds bench/xload and runs it. What its figures mean: bench/xload/README.md."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

from bench.target import Target

FOLDER: Final = Path(__file__).parent / "xload"
GRACE_S: Final = 30.0  # above the generator's own --max-time


class GeneratorError(Exception):
    """The generator could not be built, or a run of it is worth nothing; the message says why."""


def build() -> None:
    """Compile what has changed."""
    done = subprocess.run(["make", "-C", str(FOLDER)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise GeneratorError(f"{done.stderr.strip()}\ncannot build {FOLDER} (apt-get install gcc make libssl-dev)")


def command(
    target: Target, mode: str, sessions: int, *options: str, peer: Target | None = None, max_time_s: float = 300.0
) -> list[str]:
    """The command line of a run. With a peer, every second session signs in there."""
    where = ["--host", target.host, "--port", str(target.port), "--domain", target.domain]
    if peer is not None:
        where += ["--peer", f"{peer.host}:{peer.port}", "--peer-domain", peer.domain, *peer.pid_options()]
    limits = ["--max-time", f"{max_time_s:.0f}", "--login-timeout", f"{max_time_s:.0f}"]
    head = [str(FOLDER / "xload"), mode, "-n", str(sessions), *where, *limits, "--json", "--quiet"]
    return [*head, *target.pid_options(), *options]


def run(
    target: Target, mode: str, sessions: int, *options: str, peer: Target | None = None, max_time_s: float = 300.0
) -> dict[str, Any]:
    """Run the generator and return its JSON; raises GeneratorError unless every session logged in and stayed."""
    line = command(target, mode, sessions, *options, peer=peer, max_time_s=max_time_s)
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=max_time_s + GRACE_S)
    if done.returncode == 2 or not done.stdout:
        raise GeneratorError(f"xload {mode}: {done.stderr.strip() or 'no output'}")
    result: dict[str, Any] = json.loads(done.stdout)
    if not result["ok"]:
        login = result["login"]
        raise GeneratorError(f"xload {mode}: {login['ok']} logged in, {login['failed']} failed: {result['error']}")
    return result


def register(target: Target, users: int, peer: Target | None = None) -> None:
    """Make the accounts u0 to u(users-1) by XEP-0077, each where it signs in; those that exist already are fine."""
    run(target, "register", users, peer=peer, max_time_s=60 + users * 0.1)
