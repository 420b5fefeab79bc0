"""A storm of logins: everybody comes back at once to a cluster that has just started and has nobody in memory.

    python -m bench.storm [--json FILE] [--repeat N] [--clients N]

One c2s, one router, plain TCP. Each client opens a connection and signs in, by a token with SASL2 and Bind 2 (XEP-0484,
0388, 0386) or by SCRAM (RFC 6120) with the salted password kept, and stays. Then all connections are cut, and they come
again: now the router knows them. Accounts and tokens are written into the database before. Clients are of this process,
which is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import statistics
import sys
import tempfile
import time
from base64 import b64encode
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg

from bench import result, target
from bench.logins import WAYS, Guest
from bench.rooms import postgresql_s
from bench.target import Target, TargetError
from c2s.sasl2 import DEVICE_BYTES
from cluster.shards import shard_of
from storage import accounts, devices
from storage.devices import Token
from xmpp import scram

FAR: Final = 4e9  # Unix seconds
STORMS: Final = ("token, SASL2", "SCRAM")
TIMES: Final = ("cold", "again")
PORT_OFFSET: Final = 20_000
HASH: Final = "SHA-256"
SETTLED_S: Final = 60.0


class Comer(Guest):
    """A client that comes, stays, and is cut off."""

    def __init__(self, server: Target, name: str, token: str, salted: tuple[str, bytes]) -> None:
        super().__init__(server, name, HASH)
        self._token, self._salted = token, salted

    def now_at(self, server: Target) -> None:
        """The cluster has been started anew."""
        self._server = server

    def cut(self) -> None:
        """The connection breaks."""
        self._writer.transport.abort()


async def prepare(server: Target, url: str, clients: int) -> list[Comer]:
    """Accounts with one password, each with the token of one device."""
    known = [scram.derive("secret", hash, b"0123456789abcdef") for hash in scram.HASHES]
    (mine,) = (one for one in known if one.hash == HASH)
    salted = hashlib.pbkdf2_hmac("sha256", b"secret", mine.salt, mine.iterations)
    kept = (f"{b64encode(mine.salt).decode()},{mine.iterations}", hmac.digest(salted, b"Client Key", "sha256"))
    comers = []
    async with await psycopg.AsyncConnection.connect(url) as conn:
        for number in range(clients):
            comer = Comer(server, f"comer{number}", f"token-of-{number}", kept)
            bare = f"comer{number}@{server.domain}"
            key = await accounts.create(conn, bare, shard_of(bare), known)
            if key is None:
                raise TargetError(f"{bare} exists already")
            device = hashlib.sha256(f"comer{number}".encode()).digest()[:DEVICE_BYTES]
            await devices.give(conn, key, device, "", "", Token(f"token-of-{number}", "HT-SHA-256-NONE", FAR))
            await devices.used_new(conn, key, device, f"token-of-{number}")
            comers.append(comer)
        await conn.commit()
        await conn.set_autocommit(True)
        await conn.execute("vacuum analyze")
    return comers


def uses(server: Target) -> float:
    """How often the routers have used the database until now: statements alone, and transactions of many."""
    lines = [line for process in server.processes for line in target.metrics_of(process).splitlines()]
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("stentor_db_query_seconds_count"))


async def come(server: Target, comers: list[Comer], way: str) -> dict[str, float]:
    """One storm, from the first connection until the last client is there."""
    took: list[float] = []

    async def one(comer: Comer) -> None:
        began_at = time.perf_counter()
        await comer.connect()
        await WAYS[way](comer)
        took.append(time.perf_counter() - began_at)

    before = await asyncio.to_thread(uses, server)
    cpu_s, database_s, began_at = server.cpu_s(), postgresql_s(server), time.perf_counter()
    await asyncio.gather(*map(one, comers))
    seconds = time.perf_counter() - began_at
    spent_s, database_s = server.cpu_s() - cpu_s, postgresql_s(server) - database_s
    took.sort()
    return {
        "us_per_login": spent_s * 1e6 / len(comers),
        "postgresql_us_per_login": database_s * 1e6 / len(comers),
        "logins_per_use_of_database": len(comers) / (await asyncio.to_thread(uses, server) - before),
        "logins_per_s": len(comers) / seconds,
        "p50_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[int(len(took) * 0.99)] * 1000,
    }


async def storm(server: Target, comers: list[Comer], way: str) -> list[dict[str, float]]:
    """Into an empty cluster, and once more."""
    found = []
    for _ in TIMES:
        found.append(await come(server, comers, way))
        for comer in comers:
            comer.cut()
        await asyncio.to_thread(target.wait_quiet, server, SETTLED_S)
    return found


def main() -> int:
    """Measure, write the result, print the table. 0 = measured, whatever the figures; 1 = could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.storm", description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=5_000, metavar="N", help="that come at once (%(default)s)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="storms of each kind (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write (bench/results/storm.json)")
    asked = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {f"{way}, {when}": [] for way in STORMS for when in TIMES}
    start = partial(target.started, c2s=1, router=1, port_offset=PORT_OFFSET)
    try:
        with tempfile.TemporaryDirectory(prefix="stentor-bench-") as name:
            folder = Path(name)
            with start(folder) as server:
                comers = asyncio.run(prepare(server, _url(folder), asked.clients))
            for way in STORMS * asked.repeat:
                with start(folder) as server:
                    target.wait_quiet(server)
                    for comer in comers:
                        comer.now_at(server)
                    found = asyncio.run(storm(server, comers, way))
                for when, figures in zip(TIMES, found, strict=True):
                    runs[f"{way}, {when}"].append(figures)
    except (TargetError, RuntimeError, TimeoutError, psycopg.Error) as error:
        print(f"bench: {error or 'nothing came for too long'}", file=sys.stderr)
        return 1
    kinds = {kind: _median(of) for kind, of in runs.items()}
    for kind, figures in kinds.items():
        print(f"{kind}: {json.dumps({key: round(value, 1) for key, value in figures.items()})}", flush=True)
    result.write(
        asked.json or result.FOLDER / "storm.json", {**result.facts(), "clients": asked.clients, "kinds": kinds}
    )
    return 0


def _url(folder: Path) -> str:
    url: str = json.loads((folder / "run.json").read_text())["database_url"]
    return url


def _median(runs: list[dict[str, float]]) -> dict[str, Any]:
    return {name: statistics.median(found[name] for found in runs) for name in runs[0]}


if __name__ == "__main__":
    sys.exit(main())
