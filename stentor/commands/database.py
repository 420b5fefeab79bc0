"""`stentor db`: the schema. The one group that talks to PostgreSQL itself."""

from __future__ import annotations

import asyncio

import click

from stentor.failure import Failed, load_config


@click.group()
def db() -> None:
    """The database schema: migrate, status."""


def _url(config_file: str | None, database_url: str | None) -> str:
    url = database_url or load_config(config_file).database.url
    if not url:
        raise Failed("no database: set database.url in the file or STENTOR_DATABASE__URL, or give --database-url", 2)
    return url


@db.command()
@click.option("--config", "config_file", metavar="FILE", help="Configuration file")
@click.option("--database-url", metavar="URL", help="postgresql://...; overrides the configuration")
def migrate(config_file: str | None, database_url: str | None) -> None:
    """Bring the schema up to date. Safe to run twice, at once, and while the previous release runs."""
    url = _url(config_file, database_url)
    import psycopg

    from storage import migrate as migrations
    from storage.pool import StorageError

    try:
        applied = asyncio.run(migrations.migrate(url))
    except (psycopg.Error, StorageError) as error:
        raise Failed(str(error).strip()) from None
    for name in applied:
        click.echo(f"applied {name}")
    if not applied:
        click.echo("up to date")


@db.command()
@click.option("--config", "config_file", metavar="FILE", help="Configuration file")
@click.option("--database-url", metavar="URL", help="postgresql://...; overrides the configuration")
def status(config_file: str | None, database_url: str | None) -> None:
    """Show which migrations are applied. Exit code 1 where some are not."""
    url = _url(config_file, database_url)
    import psycopg

    from storage import migrate as migrations
    from storage.pool import StorageError

    try:
        found = asyncio.run(migrations.status(url))
    except (psycopg.Error, StorageError) as error:
        raise Failed(str(error).strip()) from None
    for name, is_applied in found:
        click.echo(f"{'applied' if is_applied else 'pending':<9}{name}")
    if not all(is_applied for _, is_applied in found):
        raise click.exceptions.Exit(1)
