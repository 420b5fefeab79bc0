"""Files at an S3 server (moto's): what cluster/files.py promises, there and in a folder, and a cluster that has its files
there."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cluster.config import load
from cluster.files import PART_BYTES, Files, FilesAway, Stored, open_files
from cluster.process import CannotStart
from tests.support.client import Client, sign_in
from tests.support.cluster import FACTOR, RunningCluster, start_cluster, wait_until
from tests.support.peers.s3 import S3
from tests.support.uploads import get, put, slot

NAME = "ab/abcdef"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    server = S3(tmp_path_factory.mktemp("s3"))
    yield server
    server.process.stop()


def files_of(settings: dict[str, str]) -> Files:
    found = open_files(load(None, [f"upload.{key}={value}" for key, value in settings.items()], {}))
    assert found is not None
    return found


@pytest.fixture(params=["folder", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path, s3: S3) -> Files:
    if request.param == "s3":
        return files_of(s3.settings(f"files-{time.monotonic_ns()}"))
    return files_of({"storage": str(tmp_path / "uploads")})


async def chunks(data: bytes, problem: Exception | None = None) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 65_536):
        yield data[at : at + 65_536]
    if problem is not None:
        raise problem


SIZES = [1, 70_000, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 12_345]


@pytest.mark.parametrize("size", SIZES)
def test_a_file_is_there_as_it_was_put(files: Files, size: int) -> None:
    data = os.urandom(size)

    async def run() -> None:
        assert await files.look(NAME) is None
        assert await files.open(NAME, 0, 1) is None
        await files.put(NAME, chunks(data), size)
        stored = await files.look(NAME)
        assert stored is not None
        assert (stored.size, stored.etag[0], stored.etag[-1]) == (size, '"', '"')
        opened = await files.open(NAME, size // 2, size)
        assert opened is not None
        assert opened[0] == Stored(size, stored.etag)
        assert bytes(opened[1]) == data[size // 2 :]
        assert bytes(await files.read(NAME, 0, min(size, 1000))) == data[:1000]
        await files.delete(NAME)
        assert await files.look(NAME) is None
        await files.delete(NAME)
        with pytest.raises(FilesAway, match="deleted"):
            await files.read(NAME, 0, 1)

    asyncio.run(run())


@pytest.mark.parametrize("size", SIZES)
def test_what_breaks_leaves_nothing(files: Files, s3: S3, tmp_path: Path, size: int) -> None:
    async def run() -> None:
        with pytest.raises(ConnectionResetError, match="gone"):
            await files.put(NAME, chunks(os.urandom(size - 1), ConnectionResetError("gone")), size)
        assert await files.look(NAME) is None

    asyncio.run(run())
    assert [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()] == []
    assert s3.unfinished() == []


def test_a_storage_that_is_away_is_told_from_a_missing_file(s3: S3, tmp_path: Path) -> None:
    files = files_of(s3.settings() | {"s3_endpoint": "http://127.0.0.1:9"})

    async def run() -> None:
        with pytest.raises(FilesAway):
            await files.look(NAME)

    asyncio.run(run())


def test_a_bucket_that_is_not_there_is_no_missing_file(s3: S3) -> None:
    files = files_of(s3.settings() | {"storage": "s3://no-such-bucket/files"})

    async def run() -> None:
        with pytest.raises(FilesAway):
            await files.put(NAME, chunks(b"12345"), 5)

    asyncio.run(run())


def test_a_folder_that_cannot_be_written_to_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match=r"upload\.storage: .* cannot be written to"):
        files_of({"storage": str(tmp_path / "file" / "uploads")})


# --- a cluster


@pytest.fixture(scope="module")
def uploading(tmp_path_factory: pytest.TempPathFactory, s3: S3) -> Iterator[RunningCluster]:
    options = [f"upload.{key}={value}" for key, value in s3.settings("cluster").items()]
    sets = [part for option in options for part in ("--set", option)]
    running = start_cluster(tmp_path_factory.mktemp("uploading"), "--tls", "optional", *sets)
    yield running
    assert running.stop() == 0


@pytest.fixture
def romeo(uploading: RunningCluster) -> Iterator[Client]:
    with sign_in(uploading, uploading.account("romeo")) as client:
        yield client


def of_cluster(s3: S3) -> dict[str, int]:
    return {name: size for name, size in s3.objects().items() if name.startswith("cluster/")}


def test_a_cluster_has_its_files_there(uploading: RunningCluster, romeo: Client, s3: S3) -> None:
    data = os.urandom(11_000_000)
    before = of_cluster(s3)
    given = slot(romeo, "big.bin", len(data))
    assert get(uploading, given).status == 404
    assert put(uploading, given, data).status == 201
    assert [size for name, size in of_cluster(s3).items() if name not in before] == [len(data)]
    assert put(uploading, given, data).status == 201
    assert put(uploading, given, data[:-1] + bytes([data[-1] ^ 1])).status == 409
    assert get(uploading, given).body == data
    part = get(uploading, given, {"Range": "bytes=5000000-7999999"})
    assert (part.status, part.body) == (206, data[5_000_000:8_000_000])
    tag = part.headers["etag"]
    assert get(uploading, given, {"If-None-Match": tag}).status == 304


def test_an_upload_that_breaks_leaves_no_parts(uploading: RunningCluster, romeo: Client, s3: S3) -> None:
    given = slot(romeo, "broken.bin", 20_000_000)
    before = of_cluster(s3)
    with socket.create_connection((uploading.host, uploading.facts["ports"]["http"]), 10 * FACTOR) as connection:
        head = f"PUT {urlsplit(given.put).path} HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n"
        connection.sendall(f"{head}Authorization: {given.headers['Authorization']}\r\n\r\n".encode())
        connection.sendall(b"x" * 12_000_000)
        wait_until(lambda: bool(s3.unfinished()), 20, "parts are written")
    wait_until(lambda: not s3.unfinished(), 20, "they are given up")
    assert of_cluster(s3) == before
    assert get(uploading, given).status == 404


def test_an_account_that_is_erased_has_no_objects(uploading: RunningCluster, s3: S3) -> None:
    account = uploading.account("leaving")
    before = of_cluster(s3)
    with sign_in(uploading, account) as client:
        assert put(uploading, slot(client, "a.bin", 5), b"12345").status == 201
    assert len(of_cluster(s3)) == len(before) + 1
    uploading.api.call("POST", "/erasures", {"jid": account.jid})
    wait_until(lambda: of_cluster(s3) == before, 20, "its file is deleted")


def test_a_server_that_is_away_is_waited_for(uploading: RunningCluster, romeo: Client, s3: S3) -> None:
    given = slot(romeo, "a.bin", 5)
    s3.process.stop()
    refused = put(uploading, given, b"12345")
    assert (refused.status, refused.headers["retry-after"]) == (503, "5")
    assert get(uploading, given).status == 503
    s3.start()
    wait_until(lambda: put(uploading, given, b"12345").status == 201, 20, "the same slot may be used again")
    assert get(uploading, given).body == b"12345"
