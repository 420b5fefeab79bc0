"""What `make bench` runs: chat (CPU per message), login (CPU and rate of logins), idle (memory per session).

    python -m bench.measure chat|login|idle|all [--json FILE] [--run-json FILE]

Each measurement starts a cluster of its own unless --run-json names a running one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench import generator, result, target
from bench.generator import GeneratorError
from bench.target import Target, TargetError

FILES_SPARE: Final = 500  # open files a process needs besides its sessions
PAIRS: Final = 100
WINDOW: Final = 10
LOGINS: Final = 1000
SCRAM: Final = "scram-sha-256"


class Row(NamedTuple):
    """One line of the table."""

    what: str
    value: float
    unit: str
    target: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asked for."""

    run_file: Path | None
    folder: Path  # temporary: the clusters' data, the generator's cache
    port_offset: int
    repeat: int
    duration_s: float
    sessions: int


@contextmanager
def cluster(plan: Plan, name: str, c2s: int, router: int = 2, settings: Sequence[str] = ()) -> Iterator[Target]:
    """The running cluster that was named, or one for this measurement, when it has become quiet."""
    if plan.run_file is not None:
        found = target.read(plan.run_file)
        target.wait_quiet(found)
        yield found
        return
    folder = plan.folder / name
    with target.started(folder, c2s=c2s, router=router, port_offset=plan.port_offset, settings=settings) as found:
        target.wait_quiet(found)
        yield found


def chat(plan: Plan) -> tuple[dict[str, Any], list[Row]]:
    """Closed loop over plain TCP: 100 pairs, 10 messages in flight each. CPU per message is the median of the runs."""
    return _chat(plan, "chat", 35, ())


def archive(plan: Plan) -> tuple[dict[str, Any], list[Row]]:
    """The same with the archive on: each message is committed to PostgreSQL for both parties before it is delivered."""
    return _chat(plan, "archive", None, ("archive.default=always",))


def managed(plan: Plan) -> tuple[dict[str, Any], list[Row]]:
    """The same with the archive and stream management: acknowledged means durable."""
    return _chat(plan, "managed", None, ("archive.default=always",), "--sm")


def _chat(
    plan: Plan, name: str, wanted: float | None, settings: Sequence[str], *options: str
) -> tuple[dict[str, Any], list[Row]]:
    runs = []
    with cluster(plan, name, c2s=2, settings=settings) as found:
        generator.register(found, 2 * PAIRS)
        times = ["--warmup", "2", "--duration", f"{plan.duration_s:g}"]
        for _ in range(plan.repeat):
            runs.append(generator.run(found, "chat", 2 * PAIRS, "--window", str(WINDOW), *times, *options))
        by_role = _cpu_by_role(found, runs)
        rows_per_commit = target.rows_per_commit(found)
    for run in runs:
        if run["lost"] or run["dup"] or run["out_of_order"]:
            wrong = f"{run['lost']} lost, {run['dup']} doubled, {run['out_of_order']} out of order"
            raise GeneratorError(f"{name}: {wrong}: {run['error'] or 'no error told'}")

    def median(*path: str) -> float:
        return statistics.median(_at(run, *path) for run in runs)

    figures: dict[str, Any] = {
        "pairs": PAIRS,
        "window": WINDOW,
        "us_per_msg": median("server", "us_per_msg"),
        "us_per_msg_runs": [run["server"]["us_per_msg"] for run in runs],
        "us_per_msg_by_role": by_role,
        "postgresql_us_per_msg": median("aux", "us_per_msg"),
        "delivered_per_s": median("delivered_per_s"),
        "lat_ms": {name: median("lat_ms", name) for name in ("p50", "p95", "p99")},
        "generator_share": median("xload", "cpu_share"),
        "other_cores_busy": median("other_cores_busy"),
        "rows_per_commit": rows_per_commit,
        "spin_ms": median("spin_ms"),
    }
    rows = [
        Row(f"{name}: server CPU per message", figures["us_per_msg"], "us", wanted),
        *(Row(f"{name}:   of which {role}", value, "us") for role, value in by_role.items()),
        Row(f"{name}: PostgreSQL CPU per message", figures["postgresql_us_per_msg"], "us"),
        *([Row(f"{name}: rows per commit", rows_per_commit, "")] if rows_per_commit else []),
        Row(f"{name}: messages delivered", figures["delivered_per_s"], "/s"),
        Row(f"{name}: latency p50", figures["lat_ms"]["p50"], "ms"),
        Row(f"{name}: latency p99", figures["lat_ms"]["p99"], "ms"),
    ]
    return figures, rows


def login(plan: Plan) -> tuple[dict[str, Any], list[Row]]:
    """1,000 logins, 32 in flight: PLAIN, and SCRAM from clients that have kept their salted password."""
    figures: dict[str, Any] = {"sessions": LOGINS}
    rows = []
    cache = ["--scram-cache", str(plan.folder / "login.scram")]
    with cluster(plan, "login", c2s=2) as found:
        generator.register(found, LOGINS)
        for sasl in ("plain", SCRAM):
            options = ["--sasl", sasl, *cache, "--hold", "0"]
            if sasl != "plain":
                generator.run(found, "idle", LOGINS, *options)  # fills the cache
            runs = [generator.run(found, "idle", LOGINS, *options) for _ in range(plan.repeat)]
            median = {
                name: statistics.median(run["login"][name] for run in runs)
                for name in ("per_s", "server_cpu_us", "aux_cpu_us", "xload_cpu_us", "p50_ms", "p99_ms")
            }
            figures[sasl] = median
            rows += [
                Row(f"login {sasl}: server CPU per login", median["server_cpu_us"], "us"),
                Row(f"login {sasl}: logins", median["per_s"], "/s"),
                Row(f"login {sasl}: p99", median["p99_ms"], "ms"),
            ]
    return figures, rows


def idle(plan: Plan) -> tuple[dict[str, Any], list[Row]]:
    """Memory of idle sessions on one c2s without TLS: growth of all processes over the empty cluster, per session."""
    sessions = min(plan.sessions, target.raise_file_limit() - FILES_SPARE)
    if sessions < plan.sessions:
        print(f"idle: {sessions} sessions only: the limit of open files (ulimit -Hn) allows no more", file=sys.stderr)
    with cluster(plan, "idle", c2s=1) as found:
        generator.register(found, sessions)
    # The same accounts in a cluster that has not seen them yet, unless it is not ours to start anew.
    with cluster(plan, "idle", c2s=1) as found:
        options = ["--sasl", SCRAM, "--scram-cache", str(plan.folder / "idle.scram"), "--hold", "5"]
        run = generator.run(found, "idle", sessions, *options, max_time_s=120 + sessions * 0.03)
        roles = _roles(found)
    server = run["server"]
    by_role: dict[str, float] = {}
    for process in run["server_procs"]:
        role = roles.get(process["pid"], "other")
        by_role[role] = by_role.get(role, 0.0) + process["pss_kb"] / 1024
    figures: dict[str, Any] = {
        "sessions": sessions,
        "kb_per_session": server["pss_kb_per_session"],
        "kb_per_session_rss": server["rss_kb_per_session"],
        "empty_mb": round(server["pss_kb_start"] / 1024, 1),
        "full_mb": round(server["pss_kb_loggedin"] / 1024, 1),
        "full_mb_by_role": {role: round(value, 1) for role, value in by_role.items()},
        "postgresql_mb": round(run["aux"]["pss_kb_loggedin"] / 1024, 1),
        "fresh": plan.run_file is None,
    }
    rows = [
        Row(f"idle: memory per session (PSS, {sessions} sessions)", figures["kb_per_session"], "KB", 20),
        Row("idle: the same by RSS", figures["kb_per_session_rss"], "KB"),
        Row("idle: all processes, empty", figures["empty_mb"], "MB"),
        Row("idle: all processes, logged in", figures["full_mb"], "MB"),
    ]
    return figures, rows


MEASUREMENTS: Final[dict[str, Callable[[Plan], tuple[dict[str, Any], list[Row]]]]] = {
    "chat": chat,
    "archive": archive,
    "managed": managed,
    "login": login,
    "idle": idle,
}


def _at(run: dict[str, Any], *path: str) -> float:
    value: Any = run
    for key in path:
        value = value[key]
    return float(value)


def _roles(found: Target) -> dict[int, str]:
    return {process.pid: process.role for process in found.processes} | {found.supervisor: "supervisor"}


def _cpu_by_role(found: Target, runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """CPU microseconds per message by role, over all runs; the supervisor counts as a role."""
    roles = _roles(found)
    delivered = sum(run["window_delivered"] for run in runs)
    total: dict[str, float] = {}
    for run in runs:
        for process in run["server_procs"]:
            role = roles.get(process["pid"], "other")
            total[role] = total.get(role, 0.0) + process["cpu_s"]
    return {role: round(seconds * 1e6 / delivered, 2) for role, seconds in sorted(total.items())}


def _print_table(rows: Sequence[Row]) -> None:
    width = max(len(row.what) for row in rows)
    for row in rows:
        wanted = "" if row.target is None else f"   target {row.target:g}"
        print(f"{row.what:<{width}}  {row.value:>10,.1f} {row.unit:<3}{wanted}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.measure", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=[*MEASUREMENTS, "all"])
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write (bench/results/WHAT.json)")
    parser.add_argument("--run-json", type=Path, metavar="FILE", help="measure this running cluster, start none")
    parser.add_argument(
        "--port-offset", type=int, default=20000, metavar="K", help="ports of started clusters (%(default)s)"
    )
    parser.add_argument(
        "--repeat", type=int, default=5, metavar="N", help="runs, of which the median counts (%(default)s)"
    )
    parser.add_argument("--duration", type=float, default=5.0, metavar="S", help="seconds of a chat run (%(default)s)")
    parser.add_argument("--sessions", type=int, default=10000, metavar="N", help="idle sessions (%(default)s)")
    return parser.parse_args()


def main() -> int:
    """Measure, write the result, print the table. 0 = measured, whatever the figures; 1 = could not be measured."""
    asked = _arguments()
    told: dict[str, Any] = {**result.facts(), "settings": list(target.SETTINGS)}
    rows: list[Row] = []
    try:
        generator.build()
        with tempfile.TemporaryDirectory(prefix="stentor-bench-") as folder:
            plan = Plan(asked.run_json, Path(folder), asked.port_offset, asked.repeat, asked.duration, asked.sessions)
            for name, measurement in MEASUREMENTS.items():
                if asked.what in (name, "all"):
                    told[name], more = measurement(plan)
                    rows += more
    except (GeneratorError, TargetError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    _print_table(rows)
    result.write(asked.json or result.FOLDER / f"{asked.what}.json", told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
