"""`stentor s2s list|show|retry|close`: other servers and components; `stentor s2s --config FILE` is a process."""

from __future__ import annotations

import click

from stentor.client import Api, connects, segment


@click.group(invoke_without_command=True)
@click.option("--config", "config_file", metavar="FILE", help="Configuration file")
@click.pass_context
def s2s(context: click.Context, config_file: str | None) -> None:
    """Other servers and components: list, show, retry, close. Without a command: run one process that faces them."""
    if context.invoked_subcommand is None:
        from stentor.commands.processes import run_s2s

        context.exit(run_s2s(config_file))


@s2s.command("list")
@connects
def list_peers(api: Api) -> None:
    """List the domains in use: domain, our domain, streams, stanzas that wait and that are under way, last problem."""
    for peer in api.call("GET", "/peers")["peers"]:
        numbers = f"{peer['streams']} streams, {peer['waiting']} waiting, {peer['unacknowledged']} under way"
        problem = f"  {peer['tries']} tries failed: {peer['problem']}" if peer["tries"] else ""
        click.echo(f"{peer['domain']}  {peer['local'] or 'component'}  {numbers}{problem}")


@s2s.command()
@click.argument("domain")
@connects
def show(api: Api, domain: str) -> None:
    """Show what there is with one domain."""
    peers = api.call("GET", "/peers", query={"domain": domain})["peers"]
    if not peers:
        click.echo(f"nothing was exchanged with {domain} lately")
    for peer in peers:
        for key, value in peer.items():
            click.echo(f"{key:<16}{value}")
    found = api.call("GET", f"/peers/{segment(domain)}/streams")
    for stream in found["streams"]:
        pairs = ", ".join(f"{pair['local']} by {pair['by']}" for pair in stream["pairs"]) or "nobody yet"
        where = f"{stream['transport']} {stream['address']}".strip()
        click.echo(f"{'stream ' + stream['direction']:<16}{stream['node']}  {stream['state']}  {where}  {pairs}")
    for failure in found["failures"]:
        why = f"{failure['condition']}: {failure['text']}"
        click.echo(f"{'failed':<16}{failure['node']}  {failure['at']}  {failure['times']} times  {why}")


@s2s.command()
@click.argument("domain")
@connects
def retry(api: Api, domain: str) -> None:
    """Try to reach a domain now, whatever it failed of before."""
    api.call("POST", f"/peers/{segment(domain)}/retry")
    click.echo(f"{domain} is tried now; stentor s2s show {domain} tells the outcome")


@s2s.command()
@click.argument("domain")
@connects
def close(api: Api, domain: str) -> None:
    """End all streams with a domain; what waits goes by new ones."""
    closed = api.call("POST", f"/peers/{segment(domain)}/close")["closed"]
    click.echo(f"{closed} streams with {domain} end")
