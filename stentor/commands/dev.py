"""`stentor dev`: a whole cluster on one machine."""

from __future__ import annotations

import asyncio

import click


@click.command()
@click.option("--data", metavar="DIR", help="Folder of everything it keeps [default: dev-data, dev-data-OFFSET]")
@click.option("--domain", "domains", metavar="DOMAIN", multiple=True, help="A domain to serve [default: localhost]")
@click.option("--user", "users", metavar="JID:PASSWORD", multiple=True, help="Make an account, or set its password")
@click.option("--admin", "admins", metavar="JID", multiple=True, help="An account that administers the cluster")
@click.option("--c2s", metavar="N", type=click.IntRange(1, 100), default=2, show_default=True, help="c2s processes")
@click.option("--router", metavar="N", type=click.IntRange(1, 100), default=2, show_default=True, help="Routers")
@click.option("--s2s", metavar="N", type=click.IntRange(0, 100), default=1, show_default=True, help="s2s processes")
@click.option("--listen", metavar="IP", multiple=True, help="Address for clients and servers [default: 127.0.0.1]")
@click.option("--port-offset", metavar="K", type=click.IntRange(0, 50_000), default=0, help="Add K to every port")
@click.option("--tls", type=click.Choice(["required", "optional"]), help="Whether clients must encrypt")
@click.option("--database-url", metavar="URL", help="Use this PostgreSQL instead of the embedded one")
@click.option("--config", "config_file", metavar="FILE", help="Configuration file")
@click.option("--set", "overrides", metavar="SECTION.KEY=VALUE", multiple=True, help="Override one setting")
def dev(
    data: str | None,
    domains: tuple[str, ...],
    users: tuple[str, ...],
    admins: tuple[str, ...],
    c2s: int,
    router: int,
    s2s: int,
    listen: tuple[str, ...],
    port_offset: int,
    tls: str | None,
    database_url: str | None,
    config_file: str | None,
    overrides: tuple[str, ...],
) -> int:
    """Run a whole cluster for development: PostgreSQL, routers, c2s, s2s. Ctrl-C ends it."""
    from stentor.dev import Options, develop

    accounts = []
    for account in users:
        jid, colon, password = account.partition(":")
        if not colon or not password or "@" not in jid:
            raise click.UsageError(f"--user {account}: write JID:PASSWORD, as in alice@localhost:secret.")
        accounts.append((jid, password))
    return asyncio.run(
        develop(
            Options(
                data=data, domains=domains, users=tuple(accounts), admins=admins, c2s=c2s, router=router,
                s2s=s2s, listen=listen, port_offset=port_offset, tls=tls, database_url=database_url,
                config_file=config_file, overrides=overrides,
            )
        )
    )  # fmt: skip
