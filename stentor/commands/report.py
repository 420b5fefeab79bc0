"""`stentor report`: what users have reported (XEP-0377)."""

from __future__ import annotations

import click

from stentor.client import Api, connects


@click.group()
def report() -> None:
    """Reports of spam and abuse: list, show, close."""


@report.command("list")
@click.option("--all", "also_closed", is_flag=True, help="Also those that are closed")
@connects
def list_reports(api: Api, also_closed: bool) -> None:
    """List reports: number, time, who, whom, why, how many messages were copied."""
    for one in api.pages("/reports", "reports", {"all": "true"} if also_closed else {}):
        closed = "  closed" if one["closed_at"] else ""
        text = " ".join(one["text"].split())[:60]
        words = f"{one['id']}  {one['at']}  {one['reporter']} -> {one['reported']}  {one['reason'] or '-'}"
        click.echo(f"{words}  {len(one['stanzas'])} messages{closed}  {text}".rstrip())


@report.command()
@click.argument("number", type=int)
@connects
def show(api: Api, number: int) -> None:
    """Show the report NUMBER, with the messages that it names."""
    found = api.call("GET", f"/reports/{number}")
    for key in ("id", "at", "reporter", "reported", "reason", "text", "closed_at", "closed_by", "note"):
        if found[key]:
            click.echo(f"{key:<10}{found[key]}")
    for stanza in found["stanzas"]:
        click.echo(f"stanza    {stanza}")
    missing = len(found["ids"]) - len(found["stanzas"])
    if missing:
        click.echo(f"missing   {missing} that were not in the reporter's archive")


@report.command()
@click.argument("number", type=int)
@click.option("--note", default="", help="What was done")
@connects
def close(api: Api, number: int, note: str) -> None:
    """The report NUMBER is dealt with."""
    api.call("POST", f"/reports/{number}/close", {"note": note})
    click.echo(f"report {number} closed")
