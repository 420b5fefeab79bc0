"""`stentor message`: writing to accounts in the server's name."""

from __future__ import annotations

import click

from stentor.client import Api, connects


@click.group()
def message() -> None:
    """Messages in the name of the server: send."""


@message.command()
@click.argument("jid")
@click.argument("body")
@click.option("--subject", default="", help="What it is about")
@click.option("--type", "kind", type=click.Choice(["normal", "chat", "headline"]), default="chat", show_default=True)
@connects
def send(api: Api, jid: str, body: str, subject: str, kind: str) -> None:
    """Write BODY to the account JID, in the name of its domain."""
    given = {"jid": jid, "body": body, "type": kind} | ({"subject": subject} if subject else {})
    click.echo(f"{api.call('POST', '/messages', given)['id']} sent")
