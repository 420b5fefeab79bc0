"""`stentor user`: accounts."""

from __future__ import annotations

import sys
import time
from typing import Final

import click

from stentor.client import Api, connects, segment
from stentor.failure import Failed


@click.group()
def user() -> None:
    """Accounts: add, passwd, del, erase, ban, unban, quarantine, release, restricted, list, show, devices, logout."""


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
@click.option("--reuse", is_flag=True, help="Also where an account of this name was erased not long ago")
@connects
def add(api: Api, jid: str, password: str | None, password_stdin: bool, reuse: bool) -> None:
    """Make the account JID."""
    body = {"jid": jid, "password": _password(password, password_stdin)} | ({"reuse": True} if reuse else {})
    answer = api.call("POST", "/users", body)
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
    """Erase the account JID with all that it owns, and end its sessions; does not wait for the end of it."""
    click.echo(f"{api.call('DELETE', f'/users/{segment(jid)}')['jid']} removed")


@user.command()
@click.argument("jid")
@click.option("--rooms", is_flag=True, help="Also what JID has said in rooms: tombstones stay in their archives")
@click.option("--wait", default=600.0, show_default=True, help="Seconds to wait for the end")
@connects
def erase(api: Api, jid: str, rooms: bool, wait: float) -> None:
    """Erase everything of and about JID, and show what was removed.

    JID need not have an account (any more), nor be of this server. What others keep of their own stays: their copies
    of messages, their rosters and block lists."""
    found = api.call("POST", "/erasures", {"jid": jid, "rooms": rooms})
    give_up_at = time.monotonic() + wait
    while not found["is_finished"]:
        if time.monotonic() > give_up_at:
            raise Failed(f"{jid} is still being erased. It goes on; run the same again to see its end")
        time.sleep(0.5)
        found = api.call("GET", f"/erasures/{found['id']}")
    for kind, count in found["removed"].items():
        click.echo(f"{kind:<21}{count:>8}")
    click.echo(f"{jid} erased")


def _restrict(api: Api, jid: str, kind: str, reason: str, until: str | None) -> None:
    body = {"reason": reason} | ({"until": until} if until else {})
    answer = api.call("PUT", f"/users/{segment(jid)}/{kind}", body)
    click.echo(f"{answer['jid']} is {_WORDS[kind]}" + (f" until {until}" if until else ""))


def _unrestrict(api: Api, jid: str, kind: str) -> None:
    answer = api.call("DELETE", f"/users/{segment(jid)}/{kind}")
    click.echo(f"{answer['jid']} {'is not' if answer['was'] else 'was not'} {_WORDS[kind]}")


_WORDS: Final = {"ban": "banned", "quarantine": "in quarantine"}
_reason = click.option("--reason", required=True, help="What the user is told")
_until = click.option("--until", help="When it ends, as 2027-01-31T12:00:00Z; without it, not by itself")


@user.command()
@click.argument("jid")
@_reason
@_until
@connects
def ban(api: Api, jid: str, reason: str, until: str | None) -> None:
    """Keep the account JID out: its sessions end, and its user is told why when signing in."""
    _restrict(api, jid, "ban", reason, until)


@user.command()
@click.argument("jid")
@connects
def unban(api: Api, jid: str) -> None:
    """Let the account JID in again."""
    _unrestrict(api, jid, "ban")


@user.command()
@click.argument("jid")
@_reason
@_until
@connects
def quarantine(api: Api, jid: str, reason: str, until: str | None) -> None:
    """Let the account JID deal with its contacts and administrators only, and tell its user so."""
    _restrict(api, jid, "quarantine", reason, until)


@user.command()
@click.argument("jid")
@connects
def release(api: Api, jid: str) -> None:
    """End the quarantine of the account JID."""
    _unrestrict(api, jid, "quarantine")


@user.command()
@connects
def restricted(api: Api) -> None:
    """List accounts that are banned or in quarantine: since when, by whom, why, until when."""
    for one in api.pages("/restrictions", "restrictions"):
        until = f" until {one['until']}" if one["until"] else ""
        click.echo(f"{one['jid']}  {one['kind']}  {one['at']}{until}  by {one['by']}  {one['reason']}")


@user.command("list")
@click.option("--domain", help="Only accounts of this domain")
@click.option("--search", metavar="TEXT", help="Only accounts whose JID has this in it")
@connects
def list_users(api: Api, domain: str | None, search: str | None) -> None:
    """List accounts, one JID a line."""
    wanted = {key: value for key, value in (("domain", domain), ("search", search)) if value}
    for found in api.pages("/users", "users", wanted):
        click.echo(found["jid"])


@user.command()
@click.argument("jid")
@connects
def show(api: Api, jid: str) -> None:
    """Show the account JID and its sessions."""
    account = api.call("GET", f"/users/{segment(jid)}")
    click.echo(f"jid       {account['jid']}")
    click.echo(f"created   {account['created_at']}")
    if account.get("last_at"):
        click.echo(f"online    until {account['last_at']}")
    click.echo(f"contacts  {account['contacts']}")
    for found in account.get("restrictions", ()):
        until = f" until {found['until']}" if found["until"] else ""
        click.echo(f"{_WORDS[found['kind']]:<8}  since {found['at']}{until}, by {found['by']}: {found['reason']}")
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
