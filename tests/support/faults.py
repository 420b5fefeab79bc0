"""Clusters that may be broken, the seed of a run, and the table at its end. A pytest plugin."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pytest

from tests.support.cluster import RunningCluster, free_offset, start_cluster
from tests.support.faults_bus import HERE, Links
from tests.support.faults_postgres import Database

# Taken out of the environment: the server takes variables of its prefix for settings, and knows none of these.
IS_LONG: Final = os.environ.pop("STENTOR_FAULTS", "") == "long"
SEED: Final = int(os.environ.pop("STENTOR_FAULTS_SEED", "") or random.SystemRandom().randrange(1_000_000))
OPTIONS: Final = ("--tls", "optional", "--set", "limits.enabled=false")
BUS_PORT: Final = 7400

_tables: Final[dict[tuple[str, ...], list[Sequence[str]]]] = {}


@dataclass(frozen=True, slots=True)
class Site:
    """A cluster of our own, with its database, and the links between its processes, over TCP."""

    cluster: RunningCluster
    database: Database
    links: Links


def report(head: Sequence[str], cells: Sequence[str]) -> None:
    """A line of the table with this head; the run ends with the tables."""
    _tables.setdefault(tuple(head), []).append(cells)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables."""
    for head, rows in _tables.items():
        terminalreporter.section(f"{head[0]}, STENTOR_FAULTS_SEED={SEED}")
        for line in laid_out(head, rows):
            terminalreporter.write_line(line)


def laid_out(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table, its columns aligned: the first to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *cells])


def _site(tmp_path_factory: pytest.TempPathFactory, routers: int, *options: str) -> Iterator[Site]:
    directory, offset = tmp_path_factory.mktemp("faults"), free_offset()
    nodes = [*(f"c2s-{number}" for number in range(2)), *(f"router-{number}" for number in range(routers)), "s2s-0"]
    links = Links(directory, {node: BUS_PORT + offset + number for number, node in enumerate(nodes)})
    bus = ("--set", "bus.transport=tcp", "--set", f"bus.port={BUS_PORT}", "--set", f"node.advertise={HERE}")
    counts = ("--router", str(routers), "--port-offset", str(offset))
    cluster = start_cluster(directory, *OPTIONS, *bus, *counts, *options)
    database = Database(cluster)
    yield Site(cluster, database, links)
    code = cluster.stop()
    database.close()
    links.close()
    assert code == 0


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two c2s and two routers, to be broken and left whole."""
    yield from _site(tmp_path_factory, 2)


@pytest.fixture(scope="session")
def small_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two c2s and one router; sessions wait 3 s for their clients."""
    yield from _site(tmp_path_factory, 1, "--set", "resume.timeout_s=3")
