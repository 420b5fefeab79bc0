"""Where Prosody keeps its stores in files: FOLDER/HOST/STORE/NAME.dat, or .list; what is not a letter or a digit is
written as %xx."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from stentor.moving.lua import LuaError, Value, read_items, read_value
from stentor.moving.things import Unreadable

VALUE_BYTES: Final = 64 * 1024 * 1024
_BYTE: Final = re.compile(rb"%([0-9a-fA-F]{2})")
_NOT_PLAIN: Final = re.compile(rb"[^0-9A-Za-z]")
_NOT_PLAIN_STORE: Final = re.compile(rb"[^0-9A-Za-z_]")


class Files:
    """A data folder (on Debian /var/lib/prosody)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if not self.hosts():
            raise Unreadable(folder, "here are no folders of hosts: is it Prosody's data folder (data_path)?")

    def hosts(self) -> list[str]:
        """Every host that keeps anything."""
        try:
            folders = sorted(entry.name for entry in self._folder.iterdir() if entry.is_dir())
        except OSError as problem:
            raise Unreadable(self._folder, problem.strerror or str(problem)) from None
        return [decoded(name) for name in folders if not name.startswith(".") and name != "_global"]

    def stores(self, host: str) -> list[str]:
        """Its folders, and its own values."""
        entries = sorted((self._folder / _encoded(host)).iterdir())
        found = [decoded(entry.name) for entry in entries if entry.is_dir()]
        return found + [decoded(entry.stem) for entry in entries if entry.suffix in (".dat", ".list")]

    def names(self, host: str, store: str) -> Iterator[str]:
        """Those that have a file."""
        folder = self._folder / _encoded(host) / _encoded_store(store)
        if folder.is_dir():
            files = (entry for entry in folder.iterdir() if entry.suffix in (".dat", ".list"))
            yield from sorted({decoded(entry.stem) for entry in files})

    def value(self, host: str, name: str, store: str) -> Value:
        """What NAME.dat says."""
        file = self._file(host, name, store, ".dat")
        try:
            if file.stat().st_size > VALUE_BYTES:
                raise Unreadable(file, f"it is larger than {VALUE_BYTES // 1024 // 1024} MiB")
            return read_value(file.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as problem:
            raise Unreadable(file, problem.strerror or str(problem)) from None
        except LuaError as problem:
            raise Unreadable(file, str(problem)) from None

    def listed(self, host: str, name: str, store: str) -> Iterator[Value]:
        """What NAME.list says, however long it is."""
        file = self._file(host, name, store, ".list")
        try:
            if not file.stat().st_size:
                return
            with file.open("rb") as source, mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as content:
                yield from read_items(content)
        except FileNotFoundError:
            return
        except OSError as problem:
            raise Unreadable(file, problem.strerror or str(problem)) from None
        except LuaError as problem:
            raise Unreadable(file, str(problem)) from None

    def _file(self, host: str, name: str, store: str, suffix: str) -> Path:
        return self._folder / _encoded(host) / _encoded_store(store) / f"{_encoded(name)}{suffix}"


def decoded(name: str) -> str:
    """A name, of what a file is called."""
    raw = _BYTE.sub(lambda match: bytes([int(match[1], 16)]), name.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")


def _encoded(name: str) -> str:
    return _NOT_PLAIN.sub(_escaped, name.encode("utf-8", "surrogateescape")).decode()


def _encoded_store(name: str) -> str:
    return _NOT_PLAIN_STORE.sub(_escaped, name.encode("utf-8", "surrogateescape")).decode()


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"%%%02x" % match[0][0]
