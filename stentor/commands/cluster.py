"""`stentor cluster`: the processes as the routers see them."""

from __future__ import annotations

import click

from stentor.client import Api, connects, segment


@click.group()
def cluster() -> None:
    """The cluster: status, drain."""


@cluster.command()
@connects
def status(api: Api) -> None:
    """Show processes and shards. Exit code 1 where a shard has no live owner."""
    answer = api.call("GET", "/cluster")
    click.echo(f"{'NODE':<24}{'ROLE':<8}{'STATE':<10}{'SHARDS':>8}{'SESSIONS':>10}{'SILENT':>9}")
    for node in answer["nodes"]:
        shards = "-" if node["shards"] is None else node["shards"]
        sessions = "-" if node["sessions"] is None else node["sessions"]
        click.echo(
            f"{node['node']:<24}{node['role']:<8}{node['state']:<10}{shards:>8}{sessions:>10}{node['silent_s']:>7.1f} s"
        )
    click.echo(f"shards: {answer['shards']['owned']} owned, {answer['shards']['unowned']} unowned")
    if answer["shards"]["unowned"]:
        raise click.exceptions.Exit(1)


@cluster.command()
@connects
@click.argument("node")
def drain(api: Api, node: str) -> None:
    """Have NODE hand over what it holds and end, as SIGTERM does. Whoever supervises it starts it again."""
    api.call("POST", f"/cluster/{segment(node)}/drain", {})
    click.echo(f"{node} drains")
