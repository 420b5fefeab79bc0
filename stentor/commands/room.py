"""`stentor room`: rooms (XEP-0045)."""

from __future__ import annotations

from typing import Any

import click

from stentor.client import Api, connects, segment


@click.group()
def room() -> None:
    """Rooms: list, show, create, set, affiliation, occupants, history, destroy."""


def _options(pairs: tuple[str, ...]) -> dict[str, str]:
    options = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise click.UsageError(f"{pair} is not written as NAME=VALUE.")
        options[name] = value
    return options


def _show(found: dict[str, Any]) -> None:
    shown = {
        "jid": found["jid"],
        "router": found["router"],
        "occupants": found["occupants"],
        "subject": found["subject"],
        **found["config"],
    }
    for key, value in shown.items():
        text = ",".join(value) if isinstance(value, list) else value
        click.echo(f"{key:<23}{text}")


@room.command("list")
@click.option("--domain", help="Only rooms of this domain")
@connects
def list_rooms(api: Api, domain: str | None) -> None:
    """List rooms: address, occupants, whether it is hidden and stays when nobody is there, name."""
    for found in api.pages("/rooms", "rooms", {"domain": domain} if domain else {}):
        kind = f"{'public' if found['is_public'] else 'hidden'} {'stays' if found['is_persistent'] else 'temporary'}"
        click.echo(f"{found['jid']}  {found['occupants']}  {kind}  {found['name'] or ''}".rstrip())


@room.command()
@click.argument("jid")
@connects
def show(api: Api, jid: str) -> None:
    """Show the configuration of the room JID, its subject, how many are in it."""
    _show(api.call("GET", f"/rooms/{segment(jid)}"))


@room.command()
@click.argument("jid")
@click.argument("options", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--owner", default="", help="Bare JID of its owner")
@connects
def create(api: Api, jid: str, options: tuple[str, ...], owner: str) -> None:
    """Make the room JID, which stays when nobody is there."""
    answer = api.call("POST", "/rooms", {"jid": jid, "owner": owner, "config": _options(options)})
    click.echo(f"{answer['jid']} made")


@room.command("set")
@click.argument("jid")
@click.argument("options", nargs=-1, required=True, metavar="NAME=VALUE...")
@connects
def set_options(api: Api, jid: str, options: tuple[str, ...]) -> None:
    """Change the configuration of the room JID; `stentor room show` names the options. Lists are parted by commas."""
    _show(api.call("PATCH", f"/rooms/{segment(jid)}", {"config": _options(options)}))


@room.command()
@click.argument("jid")
@click.argument("user", required=False)
@click.argument("affiliation", required=False)
@connects
def affiliation(api: Api, jid: str, user: str | None, affiliation: str | None) -> None:
    """Show who is something to the room JID, or make USER an owner, admin, member, outcast or none of it."""
    if user is None:
        for found, word in api.call("GET", f"/rooms/{segment(jid)}/affiliations")["affiliations"].items():
            click.echo(f"{found}  {word}")
        return
    if affiliation is None:
        raise click.UsageError("Which affiliation? owner, admin, member, none or outcast.")
    body = {"affiliation": affiliation}
    answer = api.call("PUT", f"/rooms/{segment(jid)}/affiliations/{segment(user)}", body)
    click.echo(f"{answer['user']} is {answer['affiliation']} of {answer['jid']}")


@room.command()
@click.argument("jid")
@connects
def occupants(api: Api, jid: str) -> None:
    """List who is in the room JID: nickname, full JID, role."""
    for found in api.call("GET", f"/rooms/{segment(jid)}/occupants")["occupants"]:
        click.echo(f"{found['nick']}  {found['jid']}  {found['role']}")


@room.command()
@click.argument("jid")
@connects
def history(api: Api, jid: str) -> None:
    """Show what was said last in the room JID."""
    for found in api.call("GET", f"/rooms/{segment(jid)}/history")["history"]:
        click.echo(f"{found['at']}  {found['nick']}  {found['body']}")


@room.command()
@click.argument("jid")
@connects
def destroy(api: Api, jid: str) -> None:
    """End the room JID, with everything that was said in it."""
    click.echo(f"{api.call('DELETE', f'/rooms/{segment(jid)}')['jid']} destroyed")
