"""Logins: what it costs a server that one client comes and goes, ours beside Prosody and ejabberd in one run.

    python -m bench.logins [--json FILE] [--repeat N] [--logins N] [--only NAME]...

On plain TCP, from an open connection to a bound resource and back: by SCRAM with the salted password kept (RFC 6120),
and, where the server has it, by SCRAM and by a token with SASL2 and Bind 2 (XEP-0388, 0386, 0484). Clients are of this
process, which is not counted; a login that fails ends the measurement.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import os
import re
import statistics
import sys
import tempfile
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench import result, target
from bench.nodes import ejabberd, prosody
from bench.rooms import Occupant, postgresql_s, stentor
from bench.target import Target, TargetError
from xmpp import tokens

IN_FLIGHT: Final = 16
SASL: Final = "urn:ietf:params:xml:ns:xmpp-sasl"
SASL2: Final = "urn:xmpp:sasl:2"
BIND2: Final = "<bind xmlns='urn:xmpp:bind:0'><tag>bench</tag></bind>"
BIND: Final = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"


class Guest(Occupant):
    """A client that comes and goes."""

    def __init__(self, server: Target, name: str, hash: str) -> None:
        super().__init__(server, name)
        self._hash = hash
        self._salted: tuple[str, bytes] = ("", b"")  # for which salt and iterations
        self._agent = f"<user-agent id='{name}'/>"
        self._token = ""

    async def connect(self) -> None:
        """TCP, and the stream's first features."""
        self._reader, self._writer = await asyncio.open_connection(self._server.host, self._server.port)
        await self._open()

    async def leave(self) -> None:
        """Close the stream and wait for the other end of it."""
        self._send("</stream:stream>")
        while await self._reader.read(65_536):
            pass
        self._writer.close()

    async def by_scram(self) -> None:
        """RFC 6120: two streams, an exchange of four messages, a resource."""
        mechanism = f"SCRAM-{self._hash}"
        first = b64encode(f"n,,n={self._name},r=abc".encode()).decode()
        self._send(f"<auth xmlns='{SASL}' mechanism='{mechanism}'>{first}</auth>")
        final = self._final(await self._text(b"</challenge>"))
        self._send(f"<response xmlns='{SASL}'>{final}</response>")
        await self._until(b"</success>", b"<success")
        await self._open()
        self._send(BIND)
        await self._until(b"</jid>")

    async def by_scram_at_once(self) -> None:
        """XEP-0388 and 0386."""
        mechanism = f"SCRAM-{self._hash}"
        await self._authenticate(mechanism, f"n,,n={self._name},r=abc".encode(), BIND2)
        final = self._final(await self._text(b"</challenge>"))
        self._send(f"<response xmlns='{SASL2}'>{final}</response>")
        await self._until(b"</stream:features>")

    async def by_token(self) -> None:
        """XEP-0484: one message, one answer."""
        initial = self._name.encode() + b"\0" + tokens.prove(self._token, b"")
        fast = f"{self._agent}<fast xmlns='urn:xmpp:fast:0'/>"
        await self._authenticate("HT-SHA-256-NONE", initial, fast + BIND2)
        await self._until(b"</stream:features>")

    async def get_token(self) -> None:
        """Sign in with the password, for a token."""
        wanted = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>"
        await self._authenticate("PLAIN", f"\0{self._name}\0secret".encode(), self._agent + wanted)
        found = re.search(r'token="([^"]+)"', await self._text(b"</stream:features>", whole=True))
        if found is None:
            raise TargetError(f"{self._server.domain} gives no token")
        self._token = found[1]

    async def _authenticate(self, mechanism: str, initial: bytes, inner: str) -> None:
        first = f"<initial-response>{b64encode(initial).decode()}</initial-response>"
        self._send(f"<authenticate xmlns='{SASL2}' mechanism='{mechanism}'>{first}{inner}</authenticate>")

    async def _text(self, end: bytes, *, whole: bool = False) -> str:
        data = b""
        while end not in data:
            more = await self._reader.read(65_536)
            if not more or b"<failure" in data:
                raise TargetError(f"{self._server.domain}: {data[-300:]!r}")
            data += more
        return data.decode() if whole else re.sub("<.*?>", "", data.decode())

    def _final(self, challenge: str) -> str:
        algorithm = {"SHA-1": "sha1", "SHA-256": "sha256"}[self._hash]
        first = b64decode(challenge).decode()
        facts = dict(part.split("=", 1) for part in first.split(","))
        of = f"{facts['s']},{facts['i']}"
        if self._salted[0] != of:
            salted = hashlib.pbkdf2_hmac(algorithm, b"secret", b64decode(facts["s"]), int(facts["i"]))
            self._salted = (of, hmac.digest(salted, b"Client Key", algorithm))
        key = self._salted[1]
        bare = f"c=biws,r={facts['r']}"
        signed = f"n={self._name},r=abc,{first},{bare}".encode()
        signature = hmac.digest(hashlib.new(algorithm, key).digest(), signed, algorithm)
        proof = b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
        return b64encode(f"{bare},p={proof}".encode()).decode()


WAYS: Final[dict[str, Callable[[Guest], Any]]] = {
    "SCRAM": Guest.by_scram,
    "SCRAM, SASL2": Guest.by_scram_at_once,
    "token, SASL2": Guest.by_token,
}
KINDS: Final[dict[str, tuple[Callable[[Path, int], Any], str, tuple[str, ...]]]] = {
    "Stentor": (stentor, "SHA-256", tuple(WAYS)),
    "Prosody": (prosody, "SHA-1", ("SCRAM",)),
    "ejabberd": (ejabberd, "SHA-1", ("SCRAM",)),
}


async def prepare(server: Target, hash: str, ways: tuple[str, ...]) -> list[Guest]:
    """Accounts, and what their clients keep."""
    guests = [Guest(server, f"guest{number}", hash) for number in range(IN_FLIGHT)]
    for guest in guests:
        await guest.sign_in()
        await guest.leave()
        await guest.connect()
        await guest.by_scram()
        await guest.leave()
        if "token, SASL2" in ways:
            await guest.connect()
            await guest.get_token()
            await guest.leave()
    return guests


async def run(server: Target, guests: list[Guest], way: str, logins: int) -> dict[str, float]:
    """Everybody comes and goes at once, each time and again."""
    took: list[float] = []

    async def visits(guest: Guest) -> None:
        for _ in range(logins // len(guests)):
            began_at = time.perf_counter()
            await guest.connect()
            await WAYS[way](guest)
            took.append(time.perf_counter() - began_at)
            await guest.leave()

    cpu_s, database_s, began_at = server.cpu_s(), postgresql_s(server), time.perf_counter()
    await asyncio.gather(*map(visits, guests))
    seconds = time.perf_counter() - began_at
    return {
        "us_per_login": (server.cpu_s() - cpu_s) * 1e6 / len(took),
        "postgresql_us_per_login": (postgresql_s(server) - database_s) * 1e6 / len(took),
        "logins_per_s": len(took) / seconds,
        "p99_ms": sorted(took)[int(len(took) * 0.99)] * 1000,
    }


async def measure(server: Target, hash: str, ways: tuple[str, ...], asked: argparse.Namespace) -> dict[str, Any]:
    """Each way, `repeat` times, in turns."""
    guests = await prepare(server, hash, ways)
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(asked.repeat):
        for way in ways:
            runs[way].append(await run(server, guests, way, asked.logins))
    return {way: {name: statistics.median(found[name] for found in of) for name in of[0]} for way, of in runs.items()}


def main() -> int:
    """Measure, write the result, print the table. 0 = measured, whatever the figures; 1 = could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.logins", description=__doc__.partition("\n")[0])
    parser.add_argument("--logins", type=int, default=1_600, metavar="N", help="in one run (%(default)s)")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="runs of each (%(default)s)")
    parser.add_argument("--only", action="append", choices=[*KINDS], metavar="NAME", help=f"some of {', '.join(KINDS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write (bench/results/logins.json)")
    asked = parser.parse_args()
    target.raise_file_limit()
    found: dict[str, dict[str, Any]] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="stentor-bench-") as folder, ExitStack() as stack:
            for name in asked.only or KINDS:
                start, hash, ways = KINDS[name]
                server = stack.enter_context(start(Path(folder) / name.lower(), 20_000))
                target.wait_quiet(server)
                for way, figures in asyncio.run(partial(measure, server, hash, ways, asked)()).items():
                    found[f"{name}, {way}"] = figures
                    shown = {key: round(value, 1) for key, value in figures.items()}
                    print(f"{name}, {way}: {json.dumps(shown)}", flush=True)
    except (TargetError, RuntimeError, TimeoutError) as error:
        print(f"bench: {error or 'nothing came for too long'}", file=sys.stderr)
        return 1
    told = {**result.facts(), "logins": asked.logins, "load_average": os.getloadavg()[0], "kinds": found}
    result.write(asked.json or result.FOLDER / "logins.json", told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
