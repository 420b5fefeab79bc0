"""`stentor config`, `stentor log` and `stentor tls`: what processes run with."""

from __future__ import annotations

import json
from typing import Any

import click

from stentor.client import Api, connects, segment
from stentor.times import seconds


@click.group()
def config() -> None:
    """What processes run with: show, diff, reload. (`stentor check config` reads a file alone.)"""


def _problems(found: list[dict[str, Any]]) -> None:
    """Exit code 1 where a process has a problem."""
    problems = [one for one in found if one["problem"]]
    for one in problems:
        click.echo(f"{one['node']}: {one['problem']}", err=True)
    if problems:
        raise click.exceptions.Exit(1)


@config.command()
@click.option("--node", help="Only of this process")
@connects
def show(api: Api, node: str | None) -> None:
    """Show every setting that runs, and where it came from: once where all processes agree, else of each."""
    found = api.call("GET", "/config", query={"node": node} if node else None)["processes"]
    known: dict[str, dict[tuple[str, str], list[str]]] = {}
    for process in found:
        for one in process["settings"]:
            told = (json.dumps(one["value"], ensure_ascii=False), one["source"])
            known.setdefault(one["key"], {}).setdefault(told, []).append(process["node"])
    for key, values in known.items():
        for (value, source), nodes in values.items():
            whose = f"  {','.join(nodes)}" if len(values) > 1 else ""
            click.echo(f"{key} = {value}  ({source}){whose}")
    _problems(found)


@config.command()
@click.option("--node", help="Only of this process")
@connects
def diff(api: Api, node: str | None) -> None:
    """Show where the files differ from what runs."""
    found = api.call("GET", "/config/diff", query={"node": node} if node else None)["processes"]
    for process in found:
        for one in process["changes"]:
            running, file = (json.dumps(one[side], ensure_ascii=False) for side in ("running", "file"))
            hint = " (secret)" if running == file else ""
            click.echo(f"{process['node']}  {one['key']}  runs {running}, file {file}{hint}")
    _problems(found)


_EFFECTS = {"applied": "applied", "restart": "needs a restart"}


@config.command()
@click.option("--node", help="Only of this process")
@connects
def reload(api: Api, node: str | None) -> None:
    """Have files count: certificates for new connections, and of the configuration what can without a restart."""
    found = api.call("POST", "/config/reload", {"node": node} if node else {})["processes"]
    for process in found:
        for one in process["changes"]:
            click.echo(f"{process['node']}  {one['key']}  {_EFFECTS[one['effect']]}")
        if not process["changes"] and not process["problem"]:
            click.echo(f"{process['node']}  no key differs; certificates were read again")
    _problems(found)


@click.group()
def log() -> None:
    """What is logged: level."""


@log.command()
@click.argument("node")
@click.argument("level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--logger", default="", metavar="NAME", help="Only of a part of the code, as s2s or s2s.dns")
@click.option("--for", "for_s", callback=seconds, metavar="TIME", help="So long, as 10m; then as before")
@connects
def level(api: Api, node: str, level: str, logger: str, for_s: float | None) -> None:
    """Have NODE, or all, write LEVEL and what is graver, until it restarts."""
    body: dict[str, Any] = {"level": level} | ({"logger": logger} if logger else {})
    if for_s is not None and for_s > 0:
        body["for_s"] = for_s
    found = api.call("PUT", f"/log/{segment(node)}", body)["processes"]
    for process in found:
        if not process["problem"]:
            click.echo(f"{process['node']}  {level}, was {process['before']}")
    _problems(found)


@click.group()
def tls() -> None:
    """Certificates in use: list."""


@tls.command("list")
@connects
def list_certificates(api: Api) -> None:
    """List certificates, whichever expires first: until when, domains, file, processes."""
    found = api.call("GET", "/certificates")
    for one in found["certificates"]:
        click.echo(f"{one['expires_at']}  {','.join(one['names'])}  {one['file']}  {','.join(one['used_by'])}")
    for problem in found["problems"]:
        click.echo(problem, err=True)
    if found["problems"]:
        raise click.exceptions.Exit(1)
