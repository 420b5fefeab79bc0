"""`stentor token`: who may do what by the administration API."""

from __future__ import annotations

from typing import Any

import click

from stentor.client import Api, connects, segment
from stentor.times import seconds


@click.group()
def token() -> None:
    """Tokens of the administration API: create, list, revoke."""


@token.command()
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, help="What it is for, as users:read; may be repeated")
@click.option("--expires", callback=seconds, metavar="TIME", help="30m, 12h, 90d, 2w or never [default: never]")
@connects
def create(api: Api, name: str, scopes: tuple[str, ...], expires: float | None) -> None:
    """Make the token NAME and print it. It cannot be shown again: only its hash is kept."""
    body: dict[str, Any] = {"name": name, "scopes": list(scopes)}
    if expires is not None and expires > 0:
        body["expires_s"] = expires
    click.echo(api.call("POST", "/tokens", body)["token"])


@token.command("list")
@connects
def list_tokens(api: Api) -> None:
    """List tokens: name, scopes, until when, when it was used last, who made it."""
    for one in api.pages("/tokens", "tokens"):
        until = "expired" if one["is_expired"] else f"until {one['expires_at'] or 'revoked'}"
        used = f"used {one['used_at']}" if one["used_at"] else "never used"
        click.echo(f"{one['name']}  {','.join(one['scopes'])}  {until}  {used}  by {one['created_by']}")


@token.command()
@click.argument("name")
@connects
def revoke(api: Api, name: str) -> None:
    """End the token NAME: it is of no use from now on."""
    click.echo(f"{api.call('DELETE', f'/tokens/{segment(name)}')['name']} revoked")
