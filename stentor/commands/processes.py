"""The processes themselves: `stentor c2s`, `s2s` and `router`, and `stentor run`, which supervises several."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from stentor.failure import load_config


@click.command()
@click.option("--config", "config_file", metavar="FILE", help="Configuration file")
def c2s(config_file: str | None) -> int:
    """Run one process that faces clients, as a pod does."""
    config = load_config(config_file)
    from c2s.service import application
    from cluster import process

    return process.main(application, config)


def run_s2s(config_file: str | None) -> int:
    """Run one process that faces other servers and components, as a pod does."""
    config = load_config(config_file)
    from cluster import process
    from s2s.service import application

    return process.main(application, config)


@click.command()
@click.option("--config", "config_file", metavar="FILE", help="Configuration file")
def router(config_file: str | None) -> int:
    """Run one router, as a pod does."""
    config = load_config(config_file)
    from cluster import process
    from router.service import application

    return process.main(application, config)


@click.command()
@click.option("--config", "config_file", metavar="FILE", required=True, help="Configuration file")
def run(config_file: str) -> int:
    """Run a real server on one machine: the processes that [run] counts, under a supervisor."""
    config = load_config(config_file)
    from stentor.server import serve

    return asyncio.run(serve(config, Path(config_file).absolute()))
