"""`stentor invite`: links by which people come to an account, to a contact, or to a new password."""

from __future__ import annotations

from typing import Any

import click

from stentor.client import Api, connects
from stentor.times import seconds


@click.group()
def invite() -> None:
    """Invitations: create, list, revoke."""


@invite.command()
@click.option("--domain", help="Domain of the new account; needed where several are served")
@click.option("--user", metavar="NAME", help="The user name; without it, whoever is invited chooses")
@click.option("--uses", type=click.IntRange(1, 10_000), help="How many may use it [default: 1]")
@click.option(
    "--expires",
    callback=seconds,
    metavar="TIME",
    help="30m, 12h, 7d, 2w or never [default: registration.invitation_days]",
)
@click.option("--contact", metavar="JID", help="Whoever is invited and this account become contacts")
@click.option("--only-contact", is_flag=True, help="With --contact: for people who may have an account elsewhere")
@click.option("--reset", metavar="JID", help="Instead: a link by which the password of this account is set")
@connects
def create(
    api: Api, domain: str | None, user: str | None, uses: int | None, expires: float | None, contact: str | None,
    only_contact: bool, reset: str | None,
) -> None:  # fmt: skip
    """Make an invitation and print its links."""
    body: dict[str, Any] = {"kind": "account"}
    if reset is not None:
        if any((domain, user, uses, contact, only_contact)):
            raise click.UsageError("--reset stands alone, or with --expires.")
        body = {"kind": "reset", "jid": reset}
    elif only_contact:
        if contact is None or domain or user:
            raise click.UsageError("--only-contact needs --contact, and neither --domain nor --user.")
        body = {"kind": "contact"}
    options = {"domain": domain, "user": user, "uses": uses, "contact": contact}
    body |= {key: value for key, value in options.items() if value is not None}
    if expires is not None:
        body["expires_s"] = None if expires < 0 else expires
    made = api.call("POST", "/invitations", body)
    for key, name in (("id", "id"), ("uri", "uri"), ("url", "page"), ("expires_at", "expires")):
        if made.get(key) is not None:
            click.echo(f"{name:<8} {made[key]}")


@invite.command("list")
@click.option("--domain", help="Only invitations of this domain")
@connects
def list_invitations(api: Api, domain: str | None) -> None:
    """List invitations: id, kind, state, uses, account or domain, contact, who made it, until when."""
    for one in api.pages("/invitations", "invitations", {"domain": domain} if domain else {}):
        contact = f"contact {one['contact']}  " if one["contact"] else ""
        click.echo(
            f"{one['id']}  {one['kind']}  {one['state']}  {one['used']}/{one['uses']}  "
            f"{one['jid'] or one['domain']}  {contact}by {one['maker'] or 'operator'}  "
            f"until {one['expires_at'] or 'revoked'}"
        )


@invite.command()
@click.argument("id", type=click.IntRange(1))
@connects
def revoke(api: Api, id: int) -> None:
    """Make the invitation ID unknown: it is of no use to anybody who has its links."""
    click.echo(f"{api.call('DELETE', f'/invitations/{id}')['id']} revoked")
