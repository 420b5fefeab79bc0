"""`stentor blocklist`: lists of abusers that other servers publish, and that count here."""

from __future__ import annotations

import click

from stentor.client import Api, connects


@click.group()
def blocklist() -> None:
    """Blocklists of others that this server goes by: list, check, refresh."""


@blocklist.command("list")
@connects
def list_blocklists(api: Api) -> None:
    """List them: service, node, where they count, entries, when they were read last."""
    for one in api.call("GET", "/blocklists")["blocklists"]:
        places = ",".join(one["applies_to"])
        read = one["refreshed_at"] or "never read"
        click.echo(f"{one['service']}  {one['node']}  {places}  {one['entries']} entries  {read}")


@blocklist.command()
@click.argument("jid")
@connects
def check(api: Api, jid: str) -> None:
    """Say which lists JID, a bare JID or a domain, is on."""
    found = api.call("GET", f"/blocklists/check/{jid}")
    for place in ("rooms", "strangers"):
        click.echo(f"{place:<10}{found[place] or '-'}")


@blocklist.command()
@connects
def refresh(api: Api) -> None:
    """Read all of them now, without waiting for abuse.blocklist_refresh_s."""
    api.call("POST", "/blocklists/refresh")
    click.echo("the lists are being read; stentor blocklist list shows when")
