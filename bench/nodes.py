"""Nodes: what one publication costs, and one notification of it, ours beside Prosody and ejabberd in one run.

    python -m bench.nodes [--readers N]... [--json FILE] [--repeat N] [--items N] [--only NAME]...

A person publishes at a node of theirs (XEP-0163), each item when the one before is answered; readers have subscribed
to it and are online, a session of one account each, on plain TCP. A notification that is missing ends the measurement.
Clients are of this process, which is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from bench import result, target
from bench.rooms import WAIT_S, Occupant, postgresql_s, stentor
from bench.target import Process, Target, TargetError
from tests.support.peers.peers import running_peers

NODE: Final = "urn:bench:nodes"
TEXT: Final = "x" * 200
PUBSUB: Final = "http://jabber.org/protocol/pubsub"
OPTIONS: Final = (
    "<publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'>"
    f"<value>{PUBSUB}#publish-options</value></field>"
    "<field var='pubsub#access_model'><value>open</value></field></x></publish-options>"
)
SUBSCRIBERS: Final = 50  # at a time


class Person(Occupant):
    """One client, which publishes or reads."""

    def __init__(self, server: Target, name: str) -> None:
        super().__init__(server, name)
        self.bare = f"{name}@{server.domain}"
        self.answered = asyncio.Event()

    async def subscribe(self, to: str) -> None:
        """To the node of somebody."""
        inner = f"<pubsub xmlns='{PUBSUB}'><subscribe node='{NODE}' jid='{self.bare}'/></pubsub>"
        self._send(f"<iq type='set' id='sub' to='{to}'>{inner}</iq>")
        await self._until(b"subscribed")

    async def listen(self) -> None:
        """Count notifications and answers, until the end of the connection."""
        rest = b""
        while data := await self._reader.read(65_536):
            rest += data
            if b"id='pub'" in rest or b'id="pub"' in rest:
                self.answered.set()
                rest = rest.replace(b"id='pub'", b"").replace(b'id="pub"', b"")
            *messages, rest = rest.split(b"</message>")
            self.heard += sum(TEXT.encode() in message for message in messages)

    async def publish(self, count: int) -> None:
        """Items, each when the one before is answered."""
        for _ in range(count):
            self.answered.clear()
            payload = f"<item id='current'><note xmlns='{NODE}'>{TEXT}</note></item>"
            inner = f"<pubsub xmlns='{PUBSUB}'><publish node='{NODE}'>{payload}</publish>{OPTIONS}</pubsub>"
            self._send(f"<iq type='set' id='pub'>{inner}</iq>")
            await asyncio.wait_for(self.answered.wait(), WAIT_S)


@contextmanager
def prosody(folder: Path, port_offset: int) -> Iterator[Target]:
    """One Prosody, with its own storage."""
    with running_peers(folder) as peers:
        server = peers.prosody(
            "pr.example", modules=("register_ibr",), log_level="warn", settings="allow_registration = true",
            without=frozenset({"mam"}),
        )  # fmt: skip
        pid = server.process.pid
        yield Target(server.domain, server.port, pid, (Process("prosody", "prosody", pid, ""),), None, server.host)


@contextmanager
def ejabberd(folder: Path, port_offset: int) -> Iterator[Target]:
    """One ejabberd, with Mnesia."""
    with running_peers(folder) as peers:
        server = peers.ejabberd(
            "ej.example",
            settings={
                "loglevel": "warning", "registration_timeout": "infinity",
                "access_rules": {name: {"allow": "all"} for name in ("c2s", "local", "pubsub_createnode", "register")},
                "modules": {
                    "mod_disco": {}, "mod_ping": {}, "mod_roster": {}, "mod_stream_mgmt": {}, "mod_caps": {},
                    "mod_register": {"ip_access": "all", "access": "register", "password_strength": 0},
                    "mod_pubsub": {"plugins": ["flat", "pep"], "max_subscriptions_node": 10_000},
                },
            },
        )  # fmt: skip
        pid = server.process.pid
        yield Target(server.domain, server.port, pid, (Process("ejabberd", "ejabberd", pid, ""),), None, server.host)


KINDS: Final[dict[str, Callable[[Path, int], Any]]] = {"Stentor": stentor, "Prosody": prosody, "ejabberd": ejabberd}


async def measure(server: Target, readers: int, items: int, repeat: int) -> dict[str, Any]:
    """One node, with so many readers, published at `repeat` times."""
    author = Person(server, f"author{readers}")
    others = [Person(server, f"r{readers}x{number}") for number in range(readers)]
    await author.sign_in()
    tasks = [asyncio.create_task(author.listen())]
    await author.publish(1)
    for start in range(0, readers, SUBSCRIBERS):
        some = others[start : start + SUBSCRIBERS]
        await asyncio.gather(*(other.sign_in() for other in some))
        await asyncio.gather(*(other.subscribe(author.bare) for other in some))
    tasks += [asyncio.create_task(other.listen()) for other in others]
    await asyncio.sleep(1.0)
    runs = [await _run(server, author, others, items) for _ in range(repeat)]
    for task in tasks:
        task.cancel()
    for person in (author, *others):
        person.close()
    figures = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return {**figures, "us_per_item_runs": [run["us_per_item"] for run in runs]}


async def _run(server: Target, author: Person, others: Sequence[Person], items: int) -> dict[str, float]:
    for other in others:
        other.heard = 0
    cpu_s, database_s, began_at = server.cpu_s(), postgresql_s(server), time.perf_counter()
    await author.publish(items)
    give_up_at = time.monotonic() + WAIT_S
    while any(other.heard < items for other in others):
        if time.monotonic() > give_up_at:
            raise TargetError(f"{server.domain}: not everybody was told of everything")
        await asyncio.sleep(0.01)
    seconds = time.perf_counter() - began_at
    return {
        "us_per_item": (server.cpu_s() - cpu_s) * 1e6 / items,
        "us_per_notification": (server.cpu_s() - cpu_s) * 1e6 / items / max(1, len(others)),
        "postgresql_us_per_item": (postgresql_s(server) - database_s) * 1e6 / items,
        "items_per_s": items / seconds,
    }


def main() -> int:
    """Measure, write the result, print the table. 0 = measured, whatever the figures; 1 = could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.nodes", description=__doc__.partition("\n")[0])
    parser.add_argument("--readers", type=int, action="append", metavar="N", help="how many (0, 10 and 200)")
    parser.add_argument("--items", type=int, default=200, metavar="N", help="in one run (%(default)s)")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="runs of each (%(default)s)")
    parser.add_argument("--only", action="append", choices=[*KINDS], metavar="NAME", help=f"some of {', '.join(KINDS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write (bench/results/nodes.json)")
    asked = parser.parse_args()
    target.raise_file_limit()
    found: dict[str, dict[str, Any]] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="stentor-bench-") as folder, ExitStack() as stack:
            servers = {
                name: stack.enter_context(KINDS[name](Path(folder) / name.lower(), 20_000))
                for name in asked.only or KINDS
            }
            for readers in asked.readers or (0, 10, 200):
                for name, server in servers.items():
                    target.wait_quiet(server)
                    figures = asyncio.run(measure(server, readers, asked.items, asked.repeat))
                    found[f"{name}, {readers} readers"] = figures
                    shown = {key: round(value, 2) for key, value in figures.items() if isinstance(value, float)}
                    print(f"{name}, {readers} readers: {json.dumps(shown)}", flush=True)
    except (TargetError, RuntimeError, TimeoutError) as error:
        print(f"bench: {error or 'nothing came for too long'}", file=sys.stderr)
        return 1
    told = {**result.facts(), "items": asked.items, "load_average": os.getloadavg()[0], "kinds": found}
    result.write(asked.json or result.FOLDER / "nodes.json", told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
