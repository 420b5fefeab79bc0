"""`stentor audit`: what was changed by whom."""

from __future__ import annotations

import click

from stentor.client import Api, connects
from stentor.times import since as since_option


@click.group()
def audit() -> None:
    """What was changed by whom: list."""


@audit.command("list")
@click.option("--since", callback=since_option, metavar="TIME", help="2h, 7d, or a time as 2027-01-31T12:00:00Z")
@click.option("--who", help="Only what this token, or administrator (bare JID), has done")
@click.option("--what", help="Only where the command, or what it was done on, has this in it")
@connects
def list_deeds(api: Api, since: str | None, who: str | None, what: str | None) -> None:
    """List changes, the newest first: when, who, from where, what, on what, and what became of it."""
    wanted = {key: value for key, value in (("since", since), ("who", who), ("what", what)) if value}
    for one in api.pages("/audit", "deeds", wanted):
        outcome = one["outcome"] or "not known: under way, or the router died"
        click.echo(
            f"{one['at']}  {one['who']}  {one['address'] or '-'}  {one['command']}  {one['on'] or '-'}  {outcome}"
        )
