"""`stentor user`: accounts."""

from __future__ import annotations

import sys

import click

from stentor.client import Api, connects, segment
from stentor.failure import Failed


@click.group()
def user() -> None:
    """Accounts: add, passwd, del, list, show, devices, logout."""


def _password(password: str | None, from_stdin: bool) -> str:
    if password is not None and from_stdin:
        raise click.UsageError("Give either --password or --password-stdin.")
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif password is None:
        password = str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    if not password:
        raise Failed("the password is empty. Give one of at least one character")
    return password


@user.command()
@click.argument("jid")
@click.option("--password", help="The password; others can see it in the list of processes")
@click.option("--password-stdin", is_flag=True, help="Read the password from one line of standard input")
@connects
def add(api: Api, jid: str, password: str | None, password_stdin: bool) -> None:
    """Make the account JID."""
    answer = api.call("POST", "/users", {"jid": jid, "password": _password(password, password_stdin)})
    click.echo(f"{answer['jid']} added")


@user.command()
@click.argument("jid")
@click.option("--password", help="The new password; others can see it in the list of processes")
@click.option("--password-stdin", is_flag=True, help="Read the password from one line of standard input")
@connects
def passwd(api: Api, jid: str, password: str | None, password_stdin: bool) -> None:
    """Give the account JID a new password."""
    body = {"password": _password(password, password_stdin)}
    answer = api.call("PUT", f"/users/{segment(jid)}/password", body)
    click.echo(f"{answer['jid']} has a new password")


@user.command("del")
@click.argument("jid")
@connects
def delete(api: Api, jid: str) -> None:
    """Remove the account JID with all that it owns, and end its sessions."""
    click.echo(f"{api.call('DELETE', f'/users/{segment(jid)}')['jid']} removed")


@user.command("list")
@click.option("--domain", help="Only accounts of this domain")
@connects
def list_users(api: Api, domain: str | None) -> None:
    """List accounts, one JID a line."""
    after = ""
    while True:
        query = {"after": after} | ({"domain": domain} if domain else {})
        users = api.call("GET", "/users", query=query)["users"]
        for found in users:
            click.echo(found["jid"])
        if not users:
            return
        after = users[-1]["jid"]


@user.command()
@click.argument("jid")
@connects
def show(api: Api, jid: str) -> None:
    """Show the account JID and its sessions."""
    account = api.call("GET", f"/users/{segment(jid)}")
    click.echo(f"jid       {account['jid']}")
    click.echo(f"created   {account['created_at']}")
    click.echo(f"contacts  {account['contacts']}")
    for session in account["sessions"] or ["none"]:
        click.echo(f"session   {session}")


@user.command()
@click.argument("jid")
@connects
def devices(api: Api, jid: str) -> None:
    """List the devices of the account JID: who has signed in, from where, when last, and by what."""
    for found in api.call("GET", f"/users/{segment(jid)}/devices")["devices"]:
        by = " and ".join(name for name in ("token", "password") if found[name]) or "nothing any more"
        names = " on ".join(name for name in (found["software"], found["name"]) if name) or "unknown"
        click.echo(f"{found['device']}  {found['last_seen']}  {found['network'] or '-'}  {names}, by {by}")


@user.command()
@click.argument("jid")
@click.option("--device", default="", help="One device, as `stentor user devices` names it; without it all")
@connects
def logout(api: Api, jid: str, device: str) -> None:
    """End sessions of the account JID and void its tokens: who comes back needs the password."""
    path = f"/users/{segment(jid)}/devices" + (f"/{segment(device)}" if device else "")
    click.echo(f"{api.call('DELETE', path)['ended']} sessions ended")
