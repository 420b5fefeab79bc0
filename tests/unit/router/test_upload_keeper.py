"""What becomes of slots and files (router/upload_keeper.py), where the storage answers and where it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cluster.files import FilesAway, Stored
from router.calls import CallError
from router.upload_keeper import UploadKeeper
from storage import secrets, uploads
from storage.uploads import Due, State, Total
from xmpp.upload import place


class Files:
    """A storage: names of what is there."""

    def __init__(self, *there: bytes) -> None:
        self.there = {place(id_) for id_ in there}
        self.away = False

    async def look(self, name: str) -> Stored | None:
        if self.away:
            raise FilesAway("no answer")
        return Stored(1, '"x"') if name in self.there else None

    async def delete(self, name: str) -> None:
        if self.away:
            raise FilesAway("no answer")
        self.there.discard(name)


class Store:
    """The rows: id -> state; `due` are those whose time has come."""

    def __init__(self, **due: State) -> None:
        self.due = {name.encode(): state for name, state in due.items()}
        self.settled: list[bytes] = []
        self.forgotten: list[bytes] = []
        self.disowned: list[bool] = []
        self.open: list[bytes] = []

    async def run(self, statement: Callable[..., Any], *arguments: Any) -> Any:
        match statement:
            case uploads.claim:
                return [Due(id_, state) for id_, state in self.due.items()]
            case uploads.settle:
                self.settled += arguments[0]
            case uploads.forget:
                self.forgotten += arguments[0]
                return len(arguments[0])
            case uploads.doom:
                found = [id_ for id_ in self.due if id_ not in self.forgotten]
                return found
            case uploads.open_of:
                return self.open
            case uploads.disown:
                self.disowned.append(arguments[1])
                return len(self.open) if not arguments[1] else len(self.due) + len(self.open)
            case uploads.total:
                return Total(3, 7)
            case secrets.secret:
                return b"key"
        return None


def keeper(store: Store, files: Files | None) -> UploadKeeper:
    return UploadKeeper(store, files, lambda: True)  # type: ignore[arg-type]  # what stands for them


def test_each_row_comes_to_what_the_storage_says() -> None:
    store, files = Store(used="open", unused="open", old="stored", ended="doomed"), Files(b"used", b"old", b"ended")
    assert asyncio.run(keeper(store, files).look(files)) == 4  # type: ignore[arg-type]
    assert store.settled == [b"used"]
    assert store.forgotten == [b"unused", b"old", b"ended"]
    assert files.there == {place(b"used")}


@pytest.mark.parametrize("state", ["open", "stored", "doomed"])
def test_nothing_is_decided_while_the_storage_is_away(state: State) -> None:
    """Least of all that a slot was not used."""
    store, files = Store(one=state), Files(b"one")
    files.away = True
    with pytest.raises(FilesAway):
        asyncio.run(keeper(store, files).look(files))  # type: ignore[arg-type]
    assert store.forgotten == store.settled == []


def test_an_account_that_ends_has_no_files() -> None:
    store, files = Store(one="stored", two="stored"), Files(b"one", b"two", b"three")
    store.open = [b"three", b"four"]
    assert asyncio.run(keeper(store, files).erase(7)) == 4
    assert files.there == set()
    assert store.forgotten == [b"one", b"two"]
    assert store.disowned == [False], "what may still come stays known until it cannot"


def test_an_erasure_waits_for_the_storage() -> None:
    store, files = Store(one="stored"), Files(b"one")
    files.away = True
    with pytest.raises(FilesAway):
        asyncio.run(keeper(store, files).erase(7))
    assert store.disowned == []


def test_without_a_storage_nobody_waits_for_it() -> None:
    store = Store(one="stored")
    assert asyncio.run(keeper(store, None).erase(7)) == 1
    assert store.disowned == [True]
    with pytest.raises(CallError):
        asyncio.run(keeper(store, None).key())
    assert asyncio.run(keeper(store, Files()).key()) == b"key"
