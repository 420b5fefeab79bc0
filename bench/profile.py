"""Where the CPU goes: samples every process of a cluster with py-spy while the chat load runs.

    python -m bench.profile [--run-json FILE | --federation] [--py-spy FILE] [--duration S] [--out FOLDER]
                            [--set KEY=VALUE]...

With --federation both clusters of bench.federation are sampled, under its load. Prints the functions with the most
samples of their own, by role; writes the stacks (collapsed, one file a process).
py-spy is no dependency of the project: without it this says how to get it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench import federation, generator, target
from bench.generator import GeneratorError
from bench.measure import PAIRS, WINDOW
from bench.target import Process, Target, TargetError

_LINE: Final = re.compile(r":\d+\)$")  # of a frame `function (file.py:123)`
RATE: Final = 200  # samples a second
SPARE_S: Final = 60.0
REMEDY: Final = """\
bench: py-spy is not here. It need not be in the project's environment:
    python3 -m venv build/py-spy && build/py-spy/bin/pip install py-spy
    python -m bench.profile --py-spy build/py-spy/bin/py-spy
"""


@contextmanager
def _load(found: Target, peer: Target | None, duration_s: float) -> Iterator[None]:
    """The chat load of bench.measure or bench.federation, for at least `duration_s` after its logins."""
    generator.register(found, 2 * PAIRS, peer)
    window = WINDOW if peer is None else federation.WINDOW
    times = ["--window", str(window), "--warmup", "0", "--duration", f"{duration_s + 2 * SPARE_S:g}"]
    process = subprocess.Popen(
        generator.command(found, "chat", 2 * PAIRS, *times, peer=peer, max_time_s=600), stdout=subprocess.DEVNULL
    )
    try:
        target.wait_busy(found, *([peer] if peer is not None else []))
        yield
    finally:
        process.terminate()
        process.wait()


def _sample(py_spy: str, process: Process, duration_s: float, file: Path) -> subprocess.Popen[str]:
    options = ["--pid", str(process.pid), "--duration", f"{duration_s:.0f}", "--rate", str(RATE), "--format", "raw"]
    return subprocess.Popen(
        [py_spy, "record", *options, "--output", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _own_samples(file: Path) -> Counter[str]:
    """Samples by the function at the top of the stack, from py-spy's raw format: `frame;frame;frame count`."""
    own: Counter[str] = Counter()
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        own[_LINE.sub(")", stack.rpartition(";")[2])] += int(count)
    return own


def _print(role: str, own: Counter[str], top: int) -> None:
    total = own.total()
    print(f"\n{role}: {total} samples")
    for function, count in own.most_common(top):
        print(f"  {100 * count / total:5.1f} %  {function}")


def _profile(servers: Sequence[Target], py_spy: str, duration_s: float, out: Path, top: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    names: dict[Process, tuple[str, str]] = {}  # what each is called, as role and as node
    for server in servers:
        prefix = f"{server.domain} " if len(servers) > 1 else ""
        names |= {process: (prefix + process.role, prefix + process.node) for process in server.processes}
    files = {process: out / f"{node.replace(' ', '-')}.txt" for process, (_, node) in names.items()}
    with _load(servers[0], servers[1] if len(servers) > 1 else None, duration_s):
        samplers = {process: _sample(py_spy, process, duration_s, file) for process, file in files.items()}
        for process, sampler in samplers.items():
            said, _ = sampler.communicate(timeout=duration_s + SPARE_S)
            if sampler.returncode:
                raise TargetError(f"py-spy could not sample {process.node}: {said.strip()}")
    by_role: dict[str, Counter[str]] = {}
    for process, (role, _) in names.items():
        by_role.setdefault(role, Counter()).update(_own_samples(files[process]))
    for role, own in by_role.items():
        _print(role, own, top)
    print(f"\nstacks in {out}")


def main() -> int:
    """0 = profiled, 1 = not possible, 2 = py-spy is missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__.partition("\n")[0])
    parser.add_argument("--run-json", type=Path, metavar="FILE", help="profile this running cluster, start none")
    parser.add_argument("--federation", action="store_true", help="chat between two clusters")
    parser.add_argument("--py-spy", default="py-spy", metavar="FILE", help="the program (found on PATH)")
    parser.add_argument("--duration", type=float, default=10.0, metavar="S", help="seconds (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/profile"), metavar="FOLDER", help="%(default)s")
    parser.add_argument("--top", type=int, default=25, metavar="N", help="functions shown (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", help="for a started cluster")
    parser.add_argument("--port-offset", type=int, default=20000, metavar="K", help="ports of a started cluster")
    asked = parser.parse_args()
    py_spy = shutil.which(asked.py_spy)
    if py_spy is None:
        print(REMEDY, end="", file=sys.stderr)
        return 2
    try:
        generator.build()
        if asked.run_json:
            _profile([target.read(asked.run_json)], py_spy, asked.duration, asked.out, asked.top)
            return 0
        with tempfile.TemporaryDirectory(prefix="stentor-bench-") as name:
            folder = Path(name)
            if asked.federation:
                with federation.stentors(folder, asked.port_offset, asked.set) as servers:
                    _profile(servers, py_spy, asked.duration, asked.out, asked.top)
                return 0
            with target.started(folder, c2s=2, router=2, port_offset=asked.port_offset, settings=asked.set) as found:
                _profile([found], py_spy, asked.duration, asked.out, asked.top)
    except (GeneratorError, TargetError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
