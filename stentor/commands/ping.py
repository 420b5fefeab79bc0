"""`stentor ping`: whether another server answers."""

from __future__ import annotations

import click

from stentor.client import Api, connects, segment


@click.command()
@click.argument("domain")
@connects
def ping(api: Api, domain: str) -> None:
    """Ask another server, or a component, whether it is there; a stream is made if there is none."""
    found = api.call("GET", f"/peers/{segment(domain)}/ping")
    click.echo(f"{found['domain']} has answered after {found['ms']} ms")
