"""`stentor announce` and `stentor job`: long work, which goes on when this command does not."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import click

from stentor.client import Api, connects
from stentor.failure import Failed

LOOK_S: Final = 0.5


@click.command()
@click.argument("body")
@click.option("--domain", help="Only accounts of this domain")
@click.option("--to", type=click.Choice(["all", "online"]), default="all", show_default=True)
@click.option("--subject", default="", help="What it is about")
@click.option("--type", "kind", type=click.Choice(["normal", "chat", "headline"]), default="normal", show_default=True)
@click.option("--rate", type=click.IntRange(1, 1_000), default=50, show_default=True, help="Accounts a second")
@click.option("--no-wait", is_flag=True, help="Do not show how far it is")
@connects
def announce(
    api: Api, body: str, domain: str | None, to: str, subject: str, kind: str, rate: int, no_wait: bool
) -> None:
    """Write BODY to all accounts, or to those online. Ctrl-C leaves it going on; `stentor job abort` ends it."""
    given: dict[str, Any] = {"body": body, "to": to, "type": kind, "rate": rate}
    given |= {key: value for key, value in (("domain", domain), ("subject", subject)) if value}
    job = api.call("POST", "/announcements", given)
    click.echo(f"job {job['id']}: {job['total']} accounts")
    if not no_wait:
        follow(api, job)


def follow(api: Api, job: dict[str, Any]) -> None:
    """Show how far a job is, until its end. Raises Failed where it was not done."""
    is_terminal = sys.stderr.isatty()
    while job["state"] == "running":
        time.sleep(LOOK_S)
        job = api.call("GET", f"/jobs/{job['id']}")
        if is_terminal:
            click.echo(f"\r{job['done']} of {job['total']} {job['problem']:<40}", err=True, nl=False)
    if is_terminal:
        click.echo(err=True)
    if job["state"] != "done":
        raise Failed(f"job {job['id']} {job['state']}: {job['problem'] or 'stentor audit list says by whom'}")
    click.echo(f"job {job['id']} done: {job['done']}")


@click.group()
def job() -> None:
    """Long work that operators have asked for: list, wait, abort."""


@job.command("list")
@connects
def list_jobs(api: Api) -> None:
    """List jobs, the newest first: number, what, state, how far, since when, by whom."""
    for one in api.pages("/jobs", "jobs"):
        problem = f"  {one['problem']}" if one["problem"] else ""
        click.echo(
            f"{one['id']}  {one['kind']}  {one['state']}  {one['done']}/{one['total']}  {one['created_at']}  "
            f"by {one['created_by']}{problem}"
        )


@job.command()
@click.argument("number", type=click.IntRange(1))
@connects
def wait(api: Api, number: int) -> None:
    """Show how far the job NUMBER is, until its end."""
    follow(api, api.call("GET", f"/jobs/{number}"))


@job.command()
@click.argument("number", type=click.IntRange(1))
@connects
def abort(api: Api, number: int) -> None:
    """End the job NUMBER; what is done stays done."""
    found = api.call("POST", f"/jobs/{number}/abort")
    click.echo(f"job {number} aborted: {found['done']} of {found['total']} were done")
