"""slidge, a gateway framework (XEP-0114, XEP-0356), with a legacy network of one friend who repeats what it is told.

It has dependencies that we do not want in our environment, and so gets one of its own, inside ours, when a test first
needs it: with exactly what `slidge.lock` names (`make lock` renews it).
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support.peers.process import Process

LOCK: Final = Path(__file__).with_name("slidge.lock")
LEGACY: Final = Path(__file__).with_name("legacy")
ENVIRONMENT: Final = Path(sys.prefix) / "peers" / "slidge"


def installed() -> Path:
    """The Python that has slidge; installs it first if need be."""
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / "installed"
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    with (ENVIRONMENT.parent / "slidge.pid").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # one run installs, those beside it wait
        if not stamp.exists() or stamp.read_text() != wanted:
            _uv("venv", "--clear", "--python", sys.executable, str(ENVIRONMENT))
            _uv("pip", "sync", "--require-hashes", "--compile-bytecode", "--python", str(python), str(LOCK))
            stamp.write_text(wanted)
    return python


def _uv(*arguments: str) -> None:
    done = subprocess.run(
        [Path(sys.prefix) / "bin" / "uv", "--quiet", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"slidge cannot be installed: uv {' '.join(arguments)}\n{done.stderr}")


class Slidge:
    """The gateway, as the component `jid` of the server that listens for it at this address.

    `friend` is the JID of the friend, which whoever registers finds in the roster.
    """

    def __init__(self, directory: Path, jid: str, secret: str, host: str, port: int) -> None:
        self.jid = jid
        self.friend = f"friend@{jid}"
        options = {
            "legacy-module": "echo_network", "jid": jid, "secret": secret, "server": host, "port": port,
            "home-dir": directory / "home", "no-upload-path": directory / "upload",
            "no-upload-url-prefix": "http://127.0.0.1:1/",
        }  # fmt: skip
        command = [installed(), "-m", "slidge", *(f"--{name}={value}" for name, value in options.items())]
        self.process = Process(
            "slidge", directory, command, lambda: self.process.has_logged("Slidge has successfully started"),
            {"PYTHONPATH": str(LEGACY)},
        )  # fmt: skip
        self.process.start()
