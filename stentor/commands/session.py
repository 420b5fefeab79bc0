"""`stentor session`: who is connected."""

from __future__ import annotations

import click

from stentor.client import Api, connects, segment


@click.group()
def session() -> None:
    """Sessions: list, show, kick."""


@session.command("list")
@click.option("--user", metavar="JID", help="Only sessions of this account")
@click.option("--domain", help="Only sessions of this domain")
@click.option("--node", help="Only sessions connected to this c2s process")
@click.option("--count", is_flag=True, help="Print the number only")
@connects
def list_sessions(api: Api, user: str | None, domain: str | None, node: str | None, count: bool) -> None:
    """List sessions: full JID, c2s process, router."""
    wanted = {key: value for key, value in (("user", user), ("domain", domain), ("node", node)) if value}
    if count:
        click.echo(api.call("GET", "/sessions", query=wanted | {"count": "true"})["count"])
        return
    for found in api.pages("/sessions", "sessions", wanted):
        click.echo(f"{found['jid']}  {found['node'] or 'detached'}  {found['router'] or 'unowned'}")


@session.command()
@click.argument("jid")
@connects
def show(api: Api, jid: str) -> None:
    """Show the session with the full JID."""
    for key, value in api.call("GET", f"/sessions/{segment(jid)}").items():
        click.echo(f"{key:<14}{'' if value is None else value}")


@session.command()
@click.argument("jid")
@connects
def kick(api: Api, jid: str) -> None:
    """End the session with the full JID, or all sessions of a bare JID."""
    ended = api.call("DELETE", f"/sessions/{segment(jid)}")["ended"]
    click.echo(f"{ended} session{'' if ended == 1 else 's'} ended")
