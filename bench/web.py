"""The web side: what a WebSocket costs beside a TCP connection, and a thousand web sessions of each kind at once.

    python -m bench.web [--json FILE] [--repeat N] [--sessions N]

Chat as `bench.measure chat` has it (100 pairs, closed loop with 10 messages in flight each, 100-byte bodies, without
TLS and archive), over TCP and over WebSocket in turns on one cluster. Then so many sessions over WebSocket and as many
over BOSH stay at once, and each of BOSH gets a message. The clients of BOSH are of this process, which is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from pathlib import Path
from typing import Any, Final

import aiohttp

from bench import generator, result, target
from bench.generator import GeneratorError
from bench.target import Target, TargetError

PAIRS: Final = 100
WINDOW: Final = 10
PORT_OFFSET: Final = 20_000
WAIT_S: Final = 60
AT_ONCE: Final = 50  # that sign in
BOSH: Final = "http://jabber.org/protocol/httpbind"
RESTART: Final = "xmpp:restart='true' xmlns:xmpp='urn:xmpp:xbosh'"
BIND: Final = "<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
WAYS: Final = ("TCP", "WebSocket")


class Browser:
    """One BOSH session; answers are read as text."""

    def __init__(self, http: aiohttp.ClientSession, url: str, domain: str, name: str) -> None:
        self._http, self._url, self._domain, self._name = http, url, domain, name
        self._rid = 1_000_000
        self._sid = ""
        self.jid = ""

    async def _ask(self, inner: str = "", more: str = "") -> str:
        self._rid += 1
        sid = f" sid='{self._sid}'" if self._sid else ""
        body = f"<body xmlns='{BOSH}' rid='{self._rid}'{sid} {more}>{inner}</body>"
        async with self._http.post(self._url, data=body, headers={"Content-Type": "text/xml"}) as answer:
            text = await answer.text()
        if 'type="terminate"' in text:
            raise GeneratorError(f"BOSH: {text}")
        return text

    async def _until(self, wanted: str, text: str) -> str:
        while wanted not in text:
            text = await self._ask()
        return text

    async def sign_in(self) -> None:
        """Up to initial presence."""
        opened = await self._ask("", f"to='{self._domain}' hold='1' wait='{WAIT_S}' ver='1.6'")
        self._sid = re.findall(r'sid="([^"]+)"', opened)[0]
        initial = b64encode(f"\0{self._name}\0secret".encode()).decode()
        auth = f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{initial}</auth>"
        await self._until("<success", await self._ask(auth))
        await self._until("<bind", await self._ask("", f"to='{self._domain}' {RESTART}"))
        self.jid = re.findall("<jid>(.*)</jid>", await self._until("<jid>", await self._ask(BIND)))[0]
        await self._until("<presence", await self._ask("<presence xmlns='jabber:client'/>"))

    async def wait(self, text: str) -> None:
        """Hold a request until this is told."""
        await self._until(text, await self._ask())

    async def send(self, to: list[str], text: str) -> None:
        """A chat message to each, by one request; the answer is not waited for longer than others need."""
        message = "<message xmlns='jabber:client' to='{}' type='chat'><body>{}</body></message>"
        await self._ask("".join(message.format(jid, text) for jid in to))


def chat(server: Target, port: int, repeat: int, duration_s: float) -> dict[str, Any]:
    """Both ways in turns. CPU per message, and the ratio of the medians."""
    figures: dict[str, list[float]] = {way: [] for way in WAYS}
    times = ["--warmup", "2", "--duration", f"{duration_s:g}", "--window", str(WINDOW)]
    for _ in range(repeat):
        for way in WAYS:
            options = ["--websocket", "--port", str(port)] if way == "WebSocket" else []
            run = generator.run(server, "chat", 2 * PAIRS, *times, *options)
            if run["lost"] or run["dup"] or run["out_of_order"]:
                raise GeneratorError(f"{way}: a message was lost, doubled or out of order: {run['error']}")
            figures[way].append(run["server"]["us_per_msg"])
    medians = {way: statistics.median(found) for way, found in figures.items()}
    return {"us_per_msg": medians, "us_per_msg_runs": figures, "ratio": medians["WebSocket"] / medians["TCP"]}


def together(server: Target, port: int, sessions: int) -> dict[str, Any]:
    """Sessions of both kinds at once."""
    command = generator.command(server, "idle", sessions, "--websocket", "--port", str(port), "--hold", "600")
    with tempfile.TemporaryFile() as output, subprocess.Popen(command, stdout=output) as web_sockets:
        try:
            return asyncio.run(_browse(server, port, sessions))
        finally:
            web_sockets.terminate()


async def _browse(server: Target, port: int, sessions: int) -> dict[str, Any]:
    url = f"http://{server.host}:{port}/http-bind"
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=3 * WAIT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        browsers = [Browser(http, url, server.domain, f"u{number}") for number in range(sessions)]
        waiting = iter(browsers)
        before, begun = server.cpu_s(), time.monotonic()

        async def sign_in() -> None:
            for browser in waiting:
                await browser.sign_in()

        await asyncio.gather(*(sign_in() for _ in range(AT_ONCE)))
        await _wait_sessions(server, 2 * sessions)
        signed_in_s, cpu = time.monotonic() - begun, server.cpu_s() - before
        held = [asyncio.create_task(browser.wait("is it you?")) for browser in browsers[1:]]
        await asyncio.sleep(1.0)
        before, begun = server.cpu_s(), time.monotonic()
        sent = asyncio.create_task(browsers[0].send([browser.jid for browser in browsers[1:]], "is it you?"))
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*held)
        sent.cancel()
        return {
            "sessions": {"WebSocket": sessions, "BOSH": sessions},
            "signed_in_s": signed_in_s,
            "us_per_login": cpu / (2 * sessions) * 1e6,
            "bosh_us_per_msg": (server.cpu_s() - before) / (sessions - 1) * 1e6,
            "bosh_messages_s": time.monotonic() - begun,
        }


async def _wait_sessions(server: Target, wanted: int) -> None:
    give_up_at = time.monotonic() + 120
    bound = 0.0
    while bound < wanted:
        if time.monotonic() > give_up_at:
            raise TargetError(f"{bound:.0f} of {wanted} sessions are bound")
        await asyncio.sleep(0.5)
        texts = [await asyncio.to_thread(target.metrics_of, one) for one in server.processes if one.role == "c2s"]
        found = itertools.chain.from_iterable(re.findall(r"^stentor_c2s_sessions (\S+)$", t, re.M) for t in texts)
        bound = sum(map(float, found))


def main() -> int:
    """Run and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=result.FOLDER / "web.json")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--duration", type=float, default=5.0)
    parser.add_argument("--sessions", type=int, default=1_000)
    options = parser.parse_args()
    try:
        generator.build()
        with (
            tempfile.TemporaryDirectory(prefix="stentor-bench-") as folder,
            target.started(Path(folder), c2s=2, router=2, port_offset=PORT_OFFSET) as server,
        ):
            port = json.loads((Path(folder) / "run.json").read_text())["ports"]["http"]
            generator.register(server, max(options.sessions, 2 * PAIRS))
            target.wait_quiet(server)
            figures = {
                "chat": chat(server, port, options.repeat, options.duration),
                "together": together(server, port, options.sessions),
            }
    except (GeneratorError, TargetError) as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 1
    print(json.dumps(figures, indent=2))
    result.write(options.json, {**result.facts(), **figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
