"""Which clients a page suggests, from a small file (c2s/http/clients.toml, or `http.clients`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from cluster.process import CannotStart

FILE: Final = Path(__file__).with_name("clients.toml")
PLATFORMS: Final = {
    "android": "Android",
    "ios": "iPhone and iPad",
    "windows": "Windows",
    "macos": "Mac",
    "linux": "Linux",
}
# What a browser says of itself, the surest first: Android's browsers name Linux, too.
_SIGNS: Final = (
    ("android", "Android"), ("ios", "iPhone"), ("ios", "iPad"), ("windows", "Windows"), ("macos", "Macintosh"),
    ("linux", "Linux"),
)  # fmt: skip


class Client(NamedTuple):
    """A client, and where it is to be had."""

    name: str
    url: str


Clients = Mapping[str, tuple[Client, ...]]  # by platform


def read(path: Path | None) -> Clients:
    """The file. Raises CannotStart."""
    file = path or FILE
    try:
        found = tomllib.loads(file.read_text("utf-8"))
        clients = {
            platform: tuple(Client(str(one["name"]), str(one["url"])) for one in listed)
            for platform, listed in found.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
        raise CannotStart(
            f"http.clients: {file}: {problem!r}. docs/invitations.md shows the form of the file"
        ) from problem
    for platform, listed in clients.items():
        if platform not in PLATFORMS:
            raise CannotStart(f"http.clients: {file}: {platform} is none of {', '.join(PLATFORMS)}")
        for client in listed:
            if not client.url.startswith("https://"):
                raise CannotStart(f"http.clients: {file}: the address of {client.name} does not begin with https://")
    return clients


def platform_of(user_agent: str) -> str:
    """The platform that a browser says it runs on, "" where it does not say so."""
    return next((platform for platform, sign in _SIGNS if sign in user_agent), "")
