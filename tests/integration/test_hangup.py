"""SIGHUP to `stentor run` reaches its processes and ends nothing (cluster/supervisor.py, stentor/server.py)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from cluster.supervisor import Supervisor, members
from stentor.server import Stopper
from tests.support.cluster import FACTOR

# Stands for a process: it tells what it gets.
SCRIPT = """#!/bin/sh
trap 'echo hangup >> "$TOLD"' HUP
trap 'exit 0' TERM
echo started >> "$TOLD"
while :; do sleep 0.02; done
"""


def test_sighup_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, told = tmp_path / "process", tmp_path / "told"
    script.write_text(SCRIPT)
    script.chmod(0o700)
    told.touch()
    monkeypatch.setattr(sys, "executable", str(script))

    async def until_told(word: str, count: int) -> None:
        async with asyncio.timeout(10 * FACTOR):
            while told.read_text().split().count(word) < count:  # noqa: ASYNC110  # the processes write a file
                await asyncio.sleep(0.01)

    async def test() -> None:
        supervisor = Supervisor(members({"c2s": 1, "router": 1}, 9100), tmp_path / "stentor.toml", {"TOLD": str(told)})
        stopper = Stopper()
        stopper.hang_up = supervisor.hang_up

        async def body() -> None:
            supervisor.start()
            try:
                await until_told("started", 2)
                pids = [process["pid"] for process in supervisor.processes()]
                for times in (1, 2):
                    os.kill(os.getpid(), signal.SIGHUP)
                    await until_told("hangup", 2 * times)
                assert [process["pid"] for process in supervisor.processes()] == pids
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.Event().wait()
            finally:
                await supervisor.stop(10 * FACTOR)

        await stopper.run(body())
        assert supervisor.processes() == []

    asyncio.run(test())
