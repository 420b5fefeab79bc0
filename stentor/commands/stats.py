"""`stentor stats`: numbers of domains."""

from __future__ import annotations

import click

from stentor.client import Api, connects


@click.command()
@click.option("--domain", help="Only of this domain")
@connects
def stats(api: Api, domain: str | None) -> None:
    """Show how many accounts, banned ones, accounts online and sessions each domain has."""
    click.echo(f"{'DOMAIN':<32}{'ACCOUNTS':>10}{'BANNED':>10}{'ONLINE':>10}{'SESSIONS':>10}")
    for one in api.call("GET", "/stats", query={"domain": domain} if domain else None)["domains"]:
        numbers = "".join(f"{one[key]:>10}" for key in ("accounts", "banned", "online", "sessions"))
        click.echo(f"{one['domain']:<32}{numbers}")
