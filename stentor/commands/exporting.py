"""`stentor export`: accounts for another server (docs/moving.md)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from stentor.client import Api, finds, segment
from stentor.failure import Failed


@click.group()
def export() -> None:
    """Write what accounts have: xep0227."""


@dataclass(slots=True)
class _Account:
    """An account, read as it is written. `read` counts what there was."""

    api: Api
    jid: str
    things: list[dict[str, Any]] = field(default_factory=list)
    read: int = 0

    def _pages(self, path: str, query: dict[str, str] | None = None) -> Iterator[dict[str, Any]]:
        after: str | None = ""
        while after is not None:
            page = self.api.call(
                "GET", f"/export/users/{segment(self.jid)}/{path}", query={**(query or {}), "after": after}
            )
            yield from page["things"]
            self.read += len(page["things"])
            after = page["after"]

    def items(self, node: str) -> Iterator[dict[str, Any]]:
        """What is published at a node."""
        return self._pages("items", {"node": node})

    def messages(self) -> Iterator[dict[str, Any]]:
        """The archive."""
        return self._pages("messages")

    def waiting(self) -> Iterator[dict[str, Any]]:
        """What it has not got yet."""
        return self._pages("waiting")


@export.command()
@click.option("--domain", "domains", multiple=True, help="Every account of this domain; may be repeated")
@click.option("--user", "users", multiple=True, metavar="JID", help="This account; may be repeated")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="A file (NAME.xml), or a folder for a file per account",
)
@click.option("--for", "reader", type=click.Choice(["ejabberd"]), help="Credentials as this server reads them")
@finds
def xep0227(api: Api, domains: tuple[str, ...], users: tuple[str, ...], out: Path, reader: str | None) -> None:
    """Write accounts as XEP-0227: all of them, or those of --domain and --user. Keep it as you keep the database: it
    has what SCRAM needs, from which weak passwords can be guessed, and everybody's messages."""
    from stentor.moving.pie_writer import write_file, write_folder

    counts = [0, 0]

    def accounts() -> Iterator[_Account]:
        for jid in _chosen(api, domains, users):
            found = api.call("GET", f"/export/users/{segment(jid)}")
            account = _Account(api, found["jid"], found["things"])
            if sys.stderr.isatty():
                click.echo(f"\r\x1b[K{counts[0]} accounts, now {account.jid}", nl=False, err=True)
            yield account
            counts[0] += 1
            counts[1] += len(account.things) + account.read

    try:
        if out.suffix == ".xml" and not out.is_dir():
            write_file(accounts(), out, reader == "ejabberd")
        else:
            write_folder(accounts(), out, reader == "ejabberd")
    except OSError as problem:
        raise Failed(f"{problem.filename or out}: {problem.strerror}") from None
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    click.echo(f"{counts[0]} accounts with {counts[1]} things in {out}")


def _chosen(api: Api, domains: Iterable[str], users: tuple[str, ...]) -> Iterator[str]:
    """In the order of their domains, each once."""
    wanted = sorted(set(users), key=lambda jid: (jid.rpartition("@")[2], jid))
    whole = set(domains)
    yield from (jid for jid in wanted if jid.rpartition("@")[2] not in whole)
    if users and not whole:
        return
    for domain in sorted(whole) or _domains(api):
        yield from (found["jid"] for found in api.pages("/users", "users", {"domain": domain}))


def _domains(api: Api) -> list[str]:
    """The domains of all accounts."""
    return sorted({one["jid"].rpartition("@")[2] for one in api.pages("/users", "users")})
