"""Chat between two servers: two clusters of ours, and two Prosodys, one after the other in the same run.

    python -m bench.federation [--json FILE] [--repeat N] [--duration S] [--both-ways] [--only NAME]...

The senders are at a.example, the receivers at b.example (`--both-ways`: each is both). Servers meet by TLS and SASL
EXTERNAL, over a DNS and an authority of this run (tests/support/peers). Clients use plain TCP.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench import generator, result, target
from bench.generator import GeneratorError
from bench.target import Process, Target, TargetError
from tests.support.peers.peers import Peers, running_peers, two_prosodys
from tests.support.peers.prosody import Prosody
from tests.support.peers.server import publish

CHATS: Final = 100  # pairs of one client here and one there
WINDOW: Final = 5  # messages in flight in each; more, and a slow server seems to lose some (bench/xload: 2 s)
DRAIN_S: Final = 30
DOMAINS: Final = ("a.example", "b.example")
PORTS_APART: Final = 100  # of two clusters
PROSODY_ARCHIVE: Final = "mam"
Servers = tuple[Target, Target]
Start = Callable[[Path, int], Any]  # folder, port offset -> a context of Servers


@contextmanager
def stentors(folder: Path, port_offset: int, settings: Sequence[str] = ()) -> Iterator[Servers]:
    """Two clusters of ours, each of 1 c2s, 1 router and 1 s2s, with the settings of development otherwise."""
    with running_peers(folder / "peers") as peers, ExitStack() as stack:
        found = []
        for number, domain in enumerate(DOMAINS):
            cluster = target.started(
                folder / domain,
                c2s=1,
                router=1,
                port_offset=port_offset + number * PORTS_APART,
                domain=domain,
                settings=(*_federating(peers, domain), *settings),
            )
            found.append(stack.enter_context(cluster))
            ports = json.loads((folder / domain / "run.json").read_text())["ports"]
            publish(peers.zone, found[-1].host, [domain], direct_tls=False, s2s=ports["s2s"], s2s_tls=ports["s2s_tls"])
        yield found[0], found[1]


def _federating(peers: Peers, domain: str) -> tuple[str, ...]:
    certificate = peers.certificate(domain)
    pair = {"certificate": str(certificate.chain), "key": str(certificate.key)}
    return (
        f"tls.certificates={json.dumps({domain: pair})}",
        f"s2s.ca={peers.authority.file}",
        f's2s.resolvers=["{peers.zone.host}:{peers.zone.port}"]',
        "s2s.policy=secure",
    )


@contextmanager
def prosodys(folder: Path, port_offset: int, without: frozenset[str] = frozenset()) -> Iterator[Servers]:
    """Two Prosodys, at addresses of their own, with the modules of the tests and XEP-0077."""
    with running_peers(folder) as peers:
        one, other = two_prosodys(
            peers,
            without=frozenset({"dialback"}) | without,
            modules=("register_ibr",),
            log_level="warn",
            settings="allow_registration = true",
        )
        yield _as_target(one), _as_target(other)


def _as_target(server: Prosody) -> Target:
    pid = server.process.pid
    return Target(server.domain, server.port, pid, (Process("prosody", "prosody", pid, ""),), None, server.host)


KINDS: Final[dict[str, Start]] = {
    "Stentor": stentors,
    "Prosody": partial(prosodys, without=frozenset({PROSODY_ARCHIVE})),
    "Stentor archive": partial(stentors, settings=("archive.default=always",)),
    "Prosody archive": prosodys,
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One kind of servers, and what the generator has told of them in each run."""

    servers: Servers
    runs: list[dict[str, Any]]

    def median(self, *path: str) -> float:
        """The median of a figure over the runs."""
        return statistics.median(_at(run, *path) for run in self.runs)

    def by_process(self) -> dict[str, float]:
        """CPU microseconds per message of each process, over all runs."""
        names = {}
        for server in self.servers:
            letter = server.domain.partition(".")[0]
            names[server.supervisor] = f"{letter} supervisor"
            names.update({process.pid: f"{letter} {process.role}" for process in server.processes})
        delivered = sum(run["window_delivered"] for run in self.runs)
        total: dict[str, float] = {}
        for run in self.runs:
            for process in run["server_procs"]:
                name = names.get(process["pid"], "other")
                total[name] = total.get(name, 0.0) + process["cpu_s"]
        return {name: round(seconds * 1e6 / delivered, 2) for name, seconds in sorted(total.items())}

    def figures(self) -> dict[str, Any]:
        """What is written."""
        return {
            "us_per_msg": self.median("server", "us_per_msg"),
            "us_per_msg_runs": [run["server"]["us_per_msg"] for run in self.runs],
            "us_per_msg_by_process": self.by_process(),
            "postgresql_us_per_msg": self.median("aux", "us_per_msg"),
            "delivered_per_s": self.median("delivered_per_s"),
            "lat_ms": {name: self.median("lat_ms", name) for name in ("p50", "p99")},
            "rows_per_commit": [target.rows_per_commit(server) for server in self.servers],
            "generator_share": self.median("xload", "cpu_share"),
            "other_cores_busy": self.median("other_cores_busy"),
            "spin_ms": self.median("spin_ms"),
        }


def _at(run: dict[str, Any], *path: str) -> float:
    value: Any = run
    for key in path:
        value = value[key]
    return float(value)


def _run(servers: Servers, duration_s: float, both_ways: bool) -> dict[str, Any]:
    one, other = servers
    times = ["--warmup", "2", "--duration", f"{duration_s:g}", "--drain", str(DRAIN_S)]
    options = ["--window", str(WINDOW), *times, *(["--bidi"] if both_ways else [])]
    run = generator.run(one, "chat", 2 * CHATS, *options, peer=other)
    if run["lost"] or run["dup"] or run["out_of_order"] or run["bounced"]:
        wrong = (
            f"{run['lost']} lost, {run['dup']} doubled, {run['out_of_order']} out of order, {run['bounced']} bounced"
        )
        raise GeneratorError(f"{one.domain} to {other.domain}: {wrong}: {run['error'] or 'no error told'}")
    return run


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All kinds run beside each other, idle but for one: so the repetitions can take turns, and a machine that is
    busy for a while is so for all."""
    found: dict[str, Measured] = {}
    with ExitStack() as stack:
        for number, name in enumerate(asked.only or KINDS):
            offset = asked.port_offset + 2 * PORTS_APART * number
            servers: Servers = stack.enter_context(KINDS[name](folder / str(number), offset))
            for server in servers:
                target.wait_quiet(server)
            generator.register(servers[0], 2 * CHATS, peer=servers[1])
            found[name] = Measured(servers, [])
        for _ in range(asked.repeat):
            for name, measured in found.items():
                measured.runs.append(_run(measured.servers, asked.duration, asked.both_ways))
                print(f"{name}: {measured.runs[-1]['server']['us_per_msg']:.1f} us", file=sys.stderr)
        return {name: measured.figures() for name, measured in found.items()}


def _print(figures: dict[str, dict[str, Any]]) -> None:
    """One column for each kind."""
    processes = dict.fromkeys(process for kind in figures.values() for process in kind["us_per_msg_by_process"])
    lines: list[tuple[str, list[float | None]]] = [
        ("messages delivered, /s", [kind["delivered_per_s"] for kind in figures.values()]),
        ("latency p50, ms", [kind["lat_ms"]["p50"] for kind in figures.values()]),
        ("latency p99, ms", [kind["lat_ms"]["p99"] for kind in figures.values()]),
        ("server CPU per message, us", [kind["us_per_msg"] for kind in figures.values()]),
        *(
            (f"  of which {process}", [kind["us_per_msg_by_process"].get(process) for kind in figures.values()])
            for process in processes
        ),
        ("PostgreSQL CPU per message, us", [kind["postgresql_us_per_msg"] for kind in figures.values()]),
    ]
    print(f"{'':32}" + "".join(f"{name:>17}" for name in figures))
    for what, values in lines:
        print(f"{what:32}" + "".join(f"{'' if value is None else f'{value:,.1f}':>17}" for value in values))


def _ratios(figures: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Server CPU of ours over Prosody's, PostgreSQL counted and not."""
    ratios = {}
    for ours, theirs in (("Stentor", "Prosody"), ("Stentor archive", "Prosody archive")):
        if ours in figures and theirs in figures:
            one, other = figures[ours], figures[theirs]["us_per_msg"]
            ratios[f"{ours} / {theirs}"] = {
                "server": round(one["us_per_msg"] / other, 2),
                "with_postgresql": round((one["us_per_msg"] + one["postgresql_us_per_msg"]) / other, 2),
            }
    return ratios


def main() -> int:
    """Measure, write the result, print the table. 0 = measured, whatever the figures; 1 = could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.federation", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write (bench/results/federation.json)")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="runs of each kind (%(default)s)")
    parser.add_argument("--duration", type=float, default=5.0, metavar="S", help="seconds of a run (%(default)s)")
    parser.add_argument("--both-ways", action="store_true", help="both clients of a pair write")
    parser.add_argument("--only", action="append", choices=[*KINDS], metavar="NAME", help=f"some of {', '.join(KINDS)}")
    parser.add_argument(
        "--port-offset", type=int, default=20000, metavar="K", help="ports of our clusters (%(default)s)"
    )
    asked = parser.parse_args()
    load_before = os.getloadavg()[0]
    try:
        generator.build()
        with tempfile.TemporaryDirectory(prefix="stentor-bench-") as folder:
            figures = measure(asked, Path(folder))
    except (GeneratorError, TargetError, RuntimeError) as error:  # RuntimeError: a peer cannot be started
        print(f"bench: {error}", file=sys.stderr)
        return 1
    ratios = _ratios(figures)
    _print(figures)
    for name, ratio in ratios.items():
        print(f"{name}: {ratio['server']:.2f} times the CPU, {ratio['with_postgresql']:.2f} with PostgreSQL")
    told = {
        **result.facts(),
        "settings": list(target.SETTINGS),
        "chats": CHATS,
        "window": WINDOW,
        "both_ways": asked.both_ways,
        "load_average": [load_before, os.getloadavg()[0]],
        "ratios": ratios,
        "kinds": figures,
    }
    result.write(asked.json or result.FOLDER / "federation.json", told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
