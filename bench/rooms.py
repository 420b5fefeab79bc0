"""Rooms: what one delivered copy of a message costs, with 100 and 1,000 occupants, ours beside Prosody and ejabberd in
one run.

    python -m bench.rooms [--occupants N]... [--json FILE] [--repeat N] [--messages N] [--only NAME]...

All occupants are sessions of one server, of one account each, on plain TCP; ten of them speak, each with one message in
flight. A copy that is missing ends the measurement. Clients are of this process, which is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final

from bench import result, target
from bench.target import Process, Target, TargetError
from tests.support.peers.peers import running_peers

SPEAKERS: Final = 10
BODY: Final = "x" * 100
WAIT_S: Final = 60.0
LOGINS: Final = 50  # at a time


class Occupant:
    """One client: signs in, enters, counts the messages that it gets."""

    def __init__(self, server: Target, name: str) -> None:
        self._server = server
        self._name = name
        self.heard = 0
        self.reflected = asyncio.Event()
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def sign_in(self) -> None:
        """Make the account, and a session of it."""
        self._reader, self._writer = await asyncio.open_connection(self._server.host, self._server.port)
        await self._open()
        account = f"<username>{self._name}</username><password>secret</password>"
        self._send(f"<iq type='set' id='r'><query xmlns='jabber:iq:register'>{account}</query></iq>")
        await self._until(b"</iq>", b"/>")
        secret = b64encode(f"\0{self._name}\0secret".encode()).decode()
        self._send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>")
        await self._until(b"success")
        await self._open()
        self._send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
        await self._until(b"</jid>")
        self._send("<iq type='set' id='s'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq><presence/>")

    async def enter(self, room: str) -> None:
        """Come into the room, and count from then on."""
        self._send(f"<presence to='{room}/{self._name}'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
        await self._until(b"<subject/>", b"</subject>", b"<subject></subject>")

    def open_room(self, room: str) -> None:
        """As the service proposes it (XEP-0045, 10.1.2)."""
        form = "<x xmlns='jabber:x:data' type='submit'/>"
        query = f"<query xmlns='http://jabber.org/protocol/muc#owner'>{form}</query>"
        self._send(f"<iq type='set' id='o' to='{room}'>{query}</iq>")

    async def listen(self) -> None:
        """Count messages, until the end of the connection."""
        own, rest = re.compile(rb"from=['\"][^'\"]*/%b['\"]" % self._name.encode()), b""
        while data := await self._reader.read(65_536):
            *messages, rest = (rest + data).split(b"</message>")
            for message in messages:
                if BODY.encode() in message:
                    self.heard += 1
                    if own.search(message):
                        self.reflected.set()

    async def speak(self, room: str, count: int) -> list[float]:
        """Send messages, each when the one before has come back; returns how long each took, in seconds."""
        took = []
        for number in range(count):
            self.reflected.clear()
            sent_at = time.perf_counter()
            self._send(
                f"<message to='{room}' type='groupchat' id='{self._name}-{number}'><body>{BODY}</body></message>"
            )
            await asyncio.wait_for(self.reflected.wait(), WAIT_S)
            took.append(time.perf_counter() - sent_at)
        return took

    def close(self) -> None:
        """Leave."""
        self._writer.close()

    def _send(self, data: str) -> None:
        self._writer.write(data.encode())

    async def _open(self) -> None:
        self._send(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' "
            f"to='{self._server.domain}' version='1.0'>"
        )
        await self._until(b"</stream:features>")

    async def _until(self, *ends: bytes) -> None:
        data = b""
        while not any(end in data for end in ends):
            more = await asyncio.wait_for(self._reader.read(65_536), WAIT_S)
            if not more:
                raise TargetError(f"{self._server.domain} has closed a connection: {data[-300:]!r}")
            data += more


@contextmanager
def stentor(folder: Path, port_offset: int) -> Iterator[Target]:
    """A cluster of 1 c2s and 1 router, with the archive of rooms that it always has."""
    with target.started(folder, c2s=1, router=1, port_offset=port_offset) as found:
        yield found


@contextmanager
def prosody(folder: Path, port_offset: int) -> Iterator[Target]:
    """One Prosody with rooms, which archives nothing."""
    with running_peers(folder) as peers:
        server = peers.prosody(
            "pr.example", muc=True, modules=("register_ibr",), log_level="warn", settings="allow_registration = true",
            without=frozenset({"mam"}),
        )  # fmt: skip
        pid = server.process.pid
        yield Target(server.domain, server.port, pid, (Process("prosody", "prosody", pid, ""),), None, server.host)


@contextmanager
def ejabberd(folder: Path, port_offset: int) -> Iterator[Target]:
    """One ejabberd with rooms, which archives nothing and limits nobody."""
    with running_peers(folder) as peers:
        server = peers.ejabberd(
            "ej.example", muc=True,
            settings={
                "loglevel": "warning", "registration_timeout": "infinity",
                "access_rules": {name: {"allow": "all"} for name in ("c2s", "local", "muc_create", "register")},
                "modules": {
                    "mod_disco": {}, "mod_ping": {}, "mod_roster": {}, "mod_stream_mgmt": {},
                    "mod_register": {"ip_access": "all", "access": "register", "password_strength": 0},
                    "mod_muc": {"max_users": 10_000, "default_room_options": {"mam": False, "max_users": 10_000}},
                },
            },
        )  # fmt: skip
        pid = server.process.pid
        yield Target(server.domain, server.port, pid, (Process("ejabberd", "ejabberd", pid, ""),), None, server.host)


KINDS: Final[dict[str, Callable[[Path, int], Any]]] = {
    "Stentor": stentor,
    "Prosody": prosody,
    "ejabberd": ejabberd,
}


def postgresql_s(server: Target) -> float:
    """CPU seconds of PostgreSQL: of its processes, and of those of them that have ended."""
    if server.postmaster is None:
        return 0.0
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if server.postmaster in (int(stat.parent.name), int(fields[1])):
            total += (int(fields[11]) + int(fields[12])) / 100
    return total


async def measure(server: Target, occupants: int, messages: int, repeat: int) -> dict[str, Any]:
    """One room, filled, and spoken in `repeat` times."""
    room = f"room{occupants}@conference.{server.domain}"
    everybody = [Occupant(server, f"o{occupants}x{number}") for number in range(occupants)]
    for start in range(0, occupants, LOGINS):
        await asyncio.gather(*(occupant.sign_in() for occupant in everybody[start : start + LOGINS]))
    first, *others = everybody
    await first.enter(room)
    first.open_room(room)
    joined_at, cpu_s = time.perf_counter(), server.cpu_s()
    listeners = [asyncio.create_task(first.listen())]
    for occupant in others:
        await occupant.enter(room)
        listeners.append(asyncio.create_task(occupant.listen()))
    join_us = (server.cpu_s() - cpu_s) * 1e6 / occupants
    join_s = time.perf_counter() - joined_at
    runs = [await _run(server, room, everybody, messages) for _ in range(repeat)]
    for listener in listeners:
        listener.cancel()
    for occupant in everybody:
        occupant.close()
    figures = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return {
        **figures,
        "us_per_copy_runs": [run["us_per_copy"] for run in runs],
        "us_per_join": join_us,
        "fill_s": join_s,
    }


async def _run(server: Target, room: str, everybody: Sequence[Occupant], messages: int) -> dict[str, float]:
    for occupant in everybody:
        occupant.heard = 0
    cpu_s, database_s, began_at = server.cpu_s(), postgresql_s(server), time.perf_counter()
    speakers = everybody[:SPEAKERS]
    each = messages // SPEAKERS
    spoken = await asyncio.gather(*(speaker.speak(room, each) for speaker in speakers))
    took = sorted(chain.from_iterable(spoken))
    give_up_at = time.monotonic() + WAIT_S
    while any(occupant.heard < each * SPEAKERS for occupant in everybody):
        if time.monotonic() > give_up_at:
            raise TargetError(f"{server.domain}: not everybody has heard everything")
        await asyncio.sleep(0.01)
    seconds, copies = time.perf_counter() - began_at, each * SPEAKERS * len(everybody)
    return {
        "us_per_copy": (server.cpu_s() - cpu_s) * 1e6 / copies,
        "postgresql_us_per_copy": (postgresql_s(server) - database_s) * 1e6 / copies,
        "copies_per_s": copies / seconds,
        "p50_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[len(took) * 99 // 100] * 1000,
    }


def main() -> int:
    """Measure, write the result, print the table. 0 = measured, whatever the figures; 1 = could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.rooms", description=__doc__.partition("\n")[0])
    parser.add_argument("--occupants", type=int, action="append", metavar="N", help="sizes (100 and 1000)")
    parser.add_argument("--messages", type=int, default=200, metavar="N", help="in one run (%(default)s)")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="runs of each size (%(default)s)")
    parser.add_argument("--only", action="append", choices=[*KINDS], metavar="NAME", help=f"some of {', '.join(KINDS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write (bench/results/rooms.json)")
    asked = parser.parse_args()
    target.raise_file_limit()
    found: dict[str, dict[str, Any]] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="stentor-bench-") as folder, ExitStack() as stack:
            servers = {
                name: stack.enter_context(KINDS[name](Path(folder) / name.lower(), 20_000))
                for name in asked.only or KINDS
            }
            for occupants in asked.occupants or (100, 1_000):
                for name, server in servers.items():
                    target.wait_quiet(server)
                    figures = asyncio.run(measure(server, occupants, asked.messages, asked.repeat))
                    found[f"{name}, {occupants} occupants"] = figures
                    print(f"{name}, {occupants} occupants: {json.dumps(_rounded(figures))}", flush=True)
    except (TargetError, RuntimeError, TimeoutError) as error:
        print(f"bench: {error or 'nothing came for too long'}", file=sys.stderr)
        return 1
    told = {**result.facts(), "messages": asked.messages, "load_average": os.getloadavg()[0], "kinds": found}
    result.write(asked.json or result.FOLDER / "rooms.json", told)
    return 0


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 2) for name, value in figures.items() if isinstance(value, float)}


if __name__ == "__main__":
    sys.exit(main())
