"""The web chat in Debian's Chromium: two people from signing in to history after a reload, and on a phone. Pictures of
each step are kept in the folder that SCREENSHOTS names."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import FACTOR, RunningCluster

HERE = Path(__file__).parent / "webchat"
STEPS = [
    "wrong password", "signed in", "contacts of each other, and online", "messages and typing", "a picture", "a room",
    "history after a reload", "history on a phone", "done",
]  # fmt: skip
# Converse.js asks for nodes that nobody has published yet, and writes the answers down.
EXPECTED = ("item-not-found", "service-unavailable", "OMEMO", "Only occupants may send", "Error while pinging")


def png() -> bytes:
    """A small picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x30\x80\xd0" * 64 for _ in range(64))
    head = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def steps(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / "picture.png"
    picture.write_bytes(png())
    people = [f"{one.jid.partition('@')[0]}:{one.password}" for one in (cluster.account("a"), cluster.account("b"))]
    url = f"http://localhost:{cluster.facts['ports']['http']}/"
    command = ["node", str(HERE / "chat.mjs"), url, cluster.domain, *people, str(folder), str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300 * FACTOR, check=False)
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_step_was_done(steps: list[dict[str, Any]]) -> None:
    assert [step["step"] for step in steps] == STEPS, steps[-1]


def test_a_wrong_password_is_refused_in_words(steps: list[dict[str, Any]]) -> None:
    assert "password is incorrect" in steps[0]["told"]


def test_nothing_was_asked_of_others_and_nothing_failed_in_the_browser(steps: list[dict[str, Any]]) -> None:
    assert steps[-1]["asked_of_others"] == []
    complaints = [one for one in steps[-1]["complaints"] if not any(expected in one for expected in EXPECTED)]
    assert complaints == []


def test_after_a_reload_nobody_is_asked_for_the_password_again(steps: list[dict[str, Any]]) -> None:
    assert steps[6]["asked_for_password"] is False


def test_it_fits_on_a_phone(steps: list[dict[str, Any]]) -> None:
    assert steps[7]["width"] == 390
