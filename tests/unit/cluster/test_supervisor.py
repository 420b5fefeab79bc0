"""What the supervisor decides and what it writes; that it keeps real processes is in tests/integration/."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from cluster.supervisor import (
    MAX_BACKOFF_S,
    STABLE_S,
    AlreadyRunning,
    Member,
    RunFile,
    backoff_s,
    lock,
    make_runtime_dir,
    members,
    write_private,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_members_are_named_by_role_and_number_and_have_ports_in_a_row() -> None:
    assert members({"c2s": 2, "router": 1}, 9100) == [
        Member("c2s-0", "c2s", 9100),
        Member("c2s-1", "c2s", 9101),
        Member("router-0", "router", 9102),
    ]


def test_backoff_grows_to_its_limit_and_starts_again_after_a_long_life() -> None:
    waits = [0.0]
    for _ in range(10):
        waits.append(backoff_s(waits[-1], lived_s=0.2))
    assert waits[1:5] == [0.1, 0.2, 0.4, 0.8]
    assert waits[-1] == MAX_BACKOFF_S
    assert backoff_s(MAX_BACKOFF_S, lived_s=STABLE_S) == 0.1


def test_run_file_is_private_and_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    file = RunFile(path, {"domains": ["localhost"], "admin_token": "t"})
    file.write([])
    with path.open() as reader:
        file.write([{"node": "c2s-0", "pid": 1}])
        assert json.load(reader)["processes"] == []
    assert json.loads(path.read_text()) == {
        "domains": ["localhost"],
        "admin_token": "t",
        "processes": [{"node": "c2s-0", "pid": 1}],
    }
    assert mode(path) == 0o600
    assert os.listdir(tmp_path) == ["run.json"]
    file.remove()
    file.remove()
    assert os.listdir(tmp_path) == []


def test_write_private_survives_what_a_crash_left_behind(tmp_path: Path) -> None:
    (tmp_path / f".f.{os.getpid()}").write_text("half")
    write_private(tmp_path / "f", "whole")
    assert (tmp_path / "f").read_text() == "whole"


def test_a_folder_has_one_supervisor_at_a_time(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(AlreadyRunning, match=str(os.getpid())):
        lock(tmp_path)
    lock(tmp_path).close()


def test_the_runtime_folder_is_private_and_may_be_there_already(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    make_runtime_dir(path, ["router-0.bus"])
    make_runtime_dir(path, ["router-0.bus"])
    assert mode(path) == 0o700


def test_a_socket_path_over_107_bytes_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="107"):
        make_runtime_dir(tmp_path / "runtime", ["x" * 120])
    assert not (tmp_path / "runtime").exists()


@pytest.mark.parametrize("kind", ["link", "file", "open to others"])
def test_what_is_not_private_is_neither_used_nor_changed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "runtime"
    if kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        path.touch(mode=0o600)
    else:
        path.mkdir()
        path.chmod(0o1777)
    before = path.lstat().st_mode
    with pytest.raises(OSError, match="not a folder of mode 0700 of this user"):
        make_runtime_dir(path, [])
    assert path.lstat().st_mode == before
