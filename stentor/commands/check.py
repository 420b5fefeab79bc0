"""`stentor check`: what an operator runs first when something is wrong."""

from __future__ import annotations

import click

from stentor.failure import load_config


@click.group()
def check() -> None:
    """Look for what is wrong: config."""


@check.command()
@click.option("--config", "config_file", metavar="FILE", help="Configuration file")
@click.option("--set", "overrides", metavar="SECTION.KEY=VALUE", multiple=True, help="Override one setting")
def config(config_file: str | None, overrides: tuple[str, ...]) -> None:
    """Check the configuration and print every setting, its value and where it comes from."""
    loaded = load_config(config_file, overrides)
    from cluster.config import is_secret, keys

    for key, field in keys().items():
        section, name = key.split(".")
        value = getattr(getattr(loaded, section), name)
        shown = ("(set)" if value else "(not set)") if is_secret(key) else value
        click.echo(f"{key} = {shown}  # {loaded.source_of(key)}; {field.description}")
