"""`stentor roster`: contacts of accounts."""

from __future__ import annotations

from typing import Any

import click

from stentor.client import Api, connects, segment


@click.group()
def roster() -> None:
    """Contacts of accounts: list, add, del."""


@roster.command("list")
@click.argument("jid")
@connects
def list_contacts(api: Api, jid: str) -> None:
    """List the contacts of the account JID: JID, who sees whom, name, groups."""
    for one in api.call("GET", f"/users/{segment(jid)}/contacts")["contacts"]:
        asks = "  asks" if one["asks"] else "  asked" if one["is_asked"] else ""
        groups = f"  [{', '.join(one['groups'])}]" if one["groups"] else ""
        click.echo(f"{one['jid']}  {one['subscription']}{asks}  {one['name']}{groups}".rstrip())


@roster.command()
@click.argument("jid")
@click.argument("contact")
@click.option("--name", default="", help="What JID calls them")
@click.option("--group", "groups", multiple=True, help="A group of JID's; may be repeated")
@click.option(
    "--subscription", type=click.Choice(["none", "to", "from", "both"]), default="both", show_default=True,
    help="Who sees whose presence: to: JID sees CONTACT's",
)  # fmt: skip
@click.option("--mutual", is_flag=True, help="Also put JID into the roster of CONTACT, an account of this server")
@connects
def add(api: Api, jid: str, contact: str, name: str, groups: tuple[str, ...], subscription: str, mutual: bool) -> None:
    """Put CONTACT into the roster of the account JID, or change them there. Nobody is asked."""
    _add(api, jid, contact, {"name": name, "groups": list(groups), "subscription": subscription})
    if mutual:
        _add(api, contact, jid, {"subscription": {"to": "from", "from": "to"}.get(subscription, subscription)})


def _add(api: Api, jid: str, contact: str, body: dict[str, Any]) -> None:
    found = api.call("PUT", f"/users/{segment(jid)}/contacts/{segment(contact)}", body)
    click.echo(f"{found['contact']} is a contact of {found['jid']}")


@roster.command("del")
@click.argument("jid")
@click.argument("contact")
@connects
def delete(api: Api, jid: str, contact: str) -> None:
    """Take CONTACT out of the roster of the account JID, as its user would."""
    found = api.call("DELETE", f"/users/{segment(jid)}/contacts/{segment(contact)}")
    click.echo(f"{found['contact']} is no contact of {found['jid']}")
