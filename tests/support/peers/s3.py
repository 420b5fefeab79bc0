"""moto's S3 server: on an address of its own, with one bucket, until it is ended."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from tests.support.peers.process import API, Process, answers, free_address

BUCKET: Final = "stentor-uploads"
_NS: Final = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class S3:
    """A server that forgets everything when it ends. It asks for no signature; ours are made all the same."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.host = free_address()
        command = [sys.executable, "-m", "moto.server", "-H", self.host, "-p", str(API)]
        self.process = Process("moto", directory, command, lambda: answers(self.host, API))
        self.start()

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://{self.host}:{API}"

    def start(self) -> None:
        """Start it, with an empty bucket."""
        self.process.start()
        self._ask("PUT", f"/{BUCKET}")

    def settings(self, prefix: str = "files") -> dict[str, str]:
        """The section [upload] for it."""
        return {
            "storage": f"s3://{BUCKET}/{prefix}",
            "s3_endpoint": self.url,
            "s3_access_key": "somebody",
            "s3_secret_key": "secret",
        }

    def objects(self) -> dict[str, int]:
        """Names and sizes of what is there."""
        found = ElementTree.fromstring(self._ask("GET", f"/{BUCKET}?list-type=2"))
        return {
            item.findtext(f"{_NS}Key") or "": int(item.findtext(f"{_NS}Size") or 0)
            for item in found.iter(f"{_NS}Contents")
        }

    def unfinished(self) -> list[str]:
        """Names of uploads in parts that were neither completed nor given up."""
        found = ElementTree.fromstring(self._ask("GET", f"/{BUCKET}?uploads"))
        return [item.findtext(f"{_NS}Key") or "" for item in found.iter(f"{_NS}Upload")]

    def _ask(self, method: str, path: str) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(self.url + path, method=method), timeout=20) as response:
            data: bytes = response.read()
            return data
