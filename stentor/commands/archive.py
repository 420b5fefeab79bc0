"""`stentor archive`: archives of accounts."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from stentor.client import Api, connects, segment
from stentor.commands.job import follow
from stentor.times import since as time_option


@click.group()
def archive() -> None:
    """Archives of accounts: export, purge."""


@archive.command()
@click.argument("jid")
@click.option("--since", callback=time_option, metavar="TIME", help="2h, 7d, or a time as 2027-01-31T12:00:00Z")
@connects
def export(api: Api, jid: str, since: str | None) -> None:
    """Write what the account JID has in its archive: one JSON object a line, the oldest first."""
    count, is_terminal = 0, sys.stderr.isatty()
    for one in api.pages(f"/users/{segment(jid)}/archive", "messages", {"since": since} if since else {}):
        click.echo(json.dumps(one, ensure_ascii=False))
        count += 1
        if is_terminal and count % 1_000 == 0:
            click.echo(f"\r{count} messages", err=True, nl=False)
    if is_terminal:
        click.echo(f"\r{count} messages", err=True)


@archive.command()
@click.argument("jid")
@click.option("--before", callback=time_option, metavar="TIME", help="7d (ago), or a time as 2027-01-31T12:00:00Z")
@click.option("--no-wait", is_flag=True, help="Do not show how far it is")
@connects
def purge(api: Api, jid: str, before: str | None, no_wait: bool) -> None:
    """Remove what is old from the archive of the account JID. What nobody has read yet, and the last day, stays.

    Ctrl-C leaves it going on; `stentor job abort` ends it."""
    body: dict[str, Any] = {"before": before} if before else {}
    job = api.call("DELETE", f"/users/{segment(jid)}/archive", body)
    click.echo(f"job {job['id']}: {job['total']} messages")
    if not no_wait:
        follow(api, job)
