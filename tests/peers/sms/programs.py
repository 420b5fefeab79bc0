"""Programs that the SMS tests start: Prosody, kannel, the short message centre, and the gateway itself.

Each runs in the foreground, without systemd and without a file in /etc, on an address and ports of its own.
"""

from __future__ import annotations

import http.client
import json
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pytest

from tests.peers.common import WAIT_S, Inbox
from tests.support.cluster import FACTOR, start_cluster, wait_until

HOST: Final = "127.0.43.1"
SMSC_FOLDER: Final = Path(__file__).parent

Event = dict[str, Any]


def free_port() -> int:
    """A port at which nothing listens on our address."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Program:
    """A process whose output goes to a file."""

    def __init__(self, name: str, command: list[str], directory: Path, port: int | None = None) -> None:
        self.name, self.directory = name, directory
        self._output = directory / f"{name}.log"
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=directory
            )
        if port is not None:
            try:
                wait_until(lambda: self._listens(port), 20, f"{name} listens")
            except BaseException:
                self.stop()
                raise

    def _listens(self, port: int) -> bool:
        if self._process.poll() is not None:
            pytest.fail(f"{self.name} ended with {self._process.returncode}: {self.log()[-2000:]}")
        with socket.socket() as probe:
            return probe.connect_ex((HOST, port)) == 0

    def log(self) -> str:
        """What it has printed."""
        return self._output.read_text(errors="replace")

    def kill(self) -> None:
        """End it without a word."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """End it by SIGTERM; its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(20 * FACTOR)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"{self.name} did not stop")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


# --- Prosody

_PROSODY: Final = """
run_as_root = true; daemonize = false; pidfile = "{directory}/prosody.pid"; data_path = "{directory}/prosody"
interfaces = {{ "{host}" }}; c2s_ports = {{ {c2s} }}; s2s_ports = {{ }}; http_ports = {{ }}; https_ports = {{ }}
component_ports = {{ {component} }}; component_interfaces = {{ "{host}" }}
modules_enabled = {{ "roster", "saslauth", "disco", "ping" }}
c2s_require_encryption = false; allow_unencrypted_plain_auth = true;
authentication = "internal_plain"; log = {{ info = "*console" }}
VirtualHost "example.org"
Component "sms.example.org"
    component_secret = "s3cret-of-sms"
"""


class Prosody(Program):
    """An XMPP server by other hands, for users of example.org and the component sms.example.org (secret "s3cret-of-sms")."""

    def __init__(self, directory: Path, c2s: int | None = None, component: int | None = None) -> None:
        self.c2s, self.component = c2s or free_port(), component or free_port()
        (directory / "prosody").mkdir(exist_ok=True)
        config = directory / "prosody.cfg.lua"
        config.write_text(_PROSODY.format(directory=directory, host=HOST, c2s=self.c2s, component=self.component))
        super().__init__("prosody", ["prosody", "--config", str(config)], directory, self.component)

    def add_user(self, name: str) -> None:
        """An account with the password "secret"."""
        accounts = self.directory / "prosody" / "example%2eorg" / "accounts"
        accounts.mkdir(parents=True, exist_ok=True)
        (accounts / f"{name}.dat").write_text('return { ["password"] = "secret"; };\n')


class Stentor:
    """A cluster of ours in Prosody's place."""

    def __init__(self, directory: Path) -> None:
        components = json.dumps({"sms.example.org": {"secret": "s3cret-of-sms"}})
        self._cluster = start_cluster(
            directory, "--domain", "example.org", "--listen", HOST, "--tls", "optional",
            "--set", f'components.listen=["{HOST}"]', "--set", f"components.domains={components}",
            "--set", "limits.enabled=false",
        )  # fmt: skip
        ports = self._cluster.facts["ports"]
        self.c2s, self.component = int(ports["c2s"]), int(ports["component"])

    def add_user(self, name: str) -> None:
        """An account with the password "secret"."""
        self._cluster.api.call("POST", "/users", {"jid": f"{name}@example.org", "password": "secret"})

    def stop(self) -> int:
        """End it; its exit code."""
        return self._cluster.stop()


# --- the short message centre


class Smsc:
    """smsc.js. `accounts` is system_id -> {"password", "numbers"}; see there for the orders and events."""

    def __init__(self, directory: Path, accounts: dict[str, Any], port: int | None = None, **settings: Any) -> None:
        self.port = port or free_port()
        self.events: Inbox[Event] = Inbox("event of the SMSC")
        told = {"host": HOST, "port": self.port, "accounts": accounts, **settings}
        self._errors = (directory / "smsc.log").open("ab")
        self._process = subprocess.Popen(
            ["node", str(SMSC_FOLDER / "smsc.js"), json.dumps(told)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.event("listening")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.events.put(json.loads(line))

    def event(self, name: str, seconds: float = WAIT_S, **fields: Any) -> Event:
        """The next event of this name with these fields."""
        wanted = {"event": name, **fields}
        return self.events.take(lambda event: wanted.items() <= event.items(), seconds)

    def submits(self) -> list[Event]:
        """Submits that no test has taken yet."""
        return [event for event in self.events.left() if event["event"] == "submit"]

    def order(self, what: str, **arguments: Any) -> None:
        """Have it do something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self._process.stdin.flush()

    def deliver(self, account: str, source: str, destination: str, text: str = "", **arguments: Any) -> None:
        """Have it deliver a message to an account."""
        self.order("deliver", account=account, source=source, destination=destination, text=text, **arguments)

    def kill(self) -> None:
        """End it without a word."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None
            stream.close()

    def __enter__(self) -> Smsc:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process.poll() is None:
            self.kill()


# --- the gateway

_GATEWAY: Final = """
[component]
jid = "sms.example.org"
secret = "s3cret-of-sms"
host = "{host}"
port = {component}
[smpp]
host = "{host}"
port = {smsc}
system_id = "stentor"
password = "p"
per_second = 1000
[numbers]
sender = "+4915550000"
country = "49"
[store]
file = "{directory}/sms.sqlite"
[admin]
host = "{host}"
port = {admin}
"""


class Gateway(Program):
    """`stentor sms`. `settings` are "section.key=value"."""

    def __init__(self, directory: Path, component: int, smsc: int, *settings: str) -> None:
        self.admin = free_port()
        config = directory / "sms.toml"
        config.write_text(
            _GATEWAY.format(directory=directory, host=HOST, component=component, smsc=smsc, admin=self.admin)
        )
        options = [option for setting in settings for option in ("--set", setting)]
        command = [sys.executable, "-m", "stentor", "sms", "--config", str(config), *options]
        super().__init__("gateway", command, directory, self.admin)

    def get(self, path: str) -> tuple[int, str]:
        """Status and text from its admin port."""
        connection = http.client.HTTPConnection(HOST, self.admin, timeout=5 * FACTOR)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def unready(self) -> dict[str, str]:
        """What it is not ready for, and why."""
        return {check["check"]: check["reason"] for check in json.loads(self.get("/readyz")[1]) if not check["ok"]}

    def wait_ready(self) -> None:
        """Until both sides are connected."""
        wait_until(lambda: not self.unready(), 20, "the gateway is ready")

    def wait_unready(self, check: str, text: str) -> None:
        """Until this check says so."""
        wait_until(lambda: text in self.unready().get(check, ""), 20, f"{check}: {text}")

    def metric(self, sample: str) -> float:
        """The value of one sample, labels included."""
        for line in self.get("/metrics")[1].splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        raise AssertionError(f"no metric {sample}")


# --- kannel


class Kannel:
    """bearerbox and smsbox: another client of the SMSC, with HTTP on its other side. What it receives is in `inbox`."""

    def __init__(self, directory: Path, smsc: int) -> None:
        admin, box, self.http, sink = (free_port() for _ in range(4))
        self.inbox: queue.Queue[dict[str, str]] = queue.Queue()
        self._sink = _Sink(sink, self.inbox)
        config = directory / "kannel.conf"
        config.write_text(
            f"group = core\nadmin-port = {admin}\nadmin-interface = {HOST}\nsmsbox-port = {box}\n"
            f"smsbox-interface = {HOST}\nadmin-password = a\nbox-allow-ip = \"127.*.*.*\"\ndlr-storage = internal\n"
            f"log-file = {directory}/bearerbox.log\n\n"
            f"group = smsc\nsmsc = smpp\nhost = {HOST}\nport = {smsc}\ntransceiver-mode = true\n"
            "smsc-username = kannel\nsmsc-password = k\nsystem-type = \"\"\nsource-addr-ton = 1\nsource-addr-npi = 1\n"
            "dest-addr-ton = 1\ndest-addr-npi = 1\nreconnect-delay = 1\n\n"
            f"group = smsbox\nbearerbox-host = {HOST}\nsendsms-port = {self.http}\nsendsms-interface = {HOST}\n\n"
            "group = sendsms-user\nusername = u\npassword = p\nmax-messages = 10\nconcatenation = true\n\n"
            "group = sms-service\nkeyword = default\ncatch-all = true\nmax-messages = 0\nconcatenation = true\n"
            f"get-url = \"http://{HOST}:{sink}/?from=%p&to=%P&hex=%b&coding=%c&charset=%C\"\n"
        )  # fmt: skip
        bearerbox, smsbox = (shutil.which(name, path="/usr/sbin:/usr/bin") for name in ("bearerbox", "smsbox"))
        assert bearerbox is not None
        assert smsbox is not None
        self._programs: list[Program] = []
        try:
            for name, path, port in (("bearerbox-out", bearerbox, box), ("smsbox-out", smsbox, self.http)):
                self._programs.append(Program(name, [path, str(config)], directory, port))
        except BaseException:
            self.close()
            raise

    def send(self, source: str, destination: str, text: str) -> str:
        """Send a text in UCS-2; what smsbox answers."""
        from urllib.parse import urlencode

        query = {"username": "u", "password": "p", "from": source, "to": destination, "coding": "2", "charset": "UTF-8"}
        connection = http.client.HTTPConnection(HOST, self.http, timeout=5 * FACTOR)
        try:
            connection.request("GET", f"/cgi-bin/sendsms?{urlencode({**query, 'text': text})}")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def received(self) -> dict[str, str]:
        """The next message that it got."""
        return self.inbox.get(timeout=WAIT_S * FACTOR)

    def close(self) -> None:
        """End it."""
        for program in reversed(self._programs):
            program.stop()
        self._sink.close()

    def __enter__(self) -> Kannel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class _Sink:
    """Takes kannel's HTTP requests."""

    def __init__(self, port: int, inbox: queue.Queue[dict[str, str]]) -> None:
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
        from urllib.parse import parse_qsl, urlsplit

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pairs = parse_qsl(urlsplit(self.path).query, keep_blank_values=True, encoding="latin-1")
                inbox.put(dict(pairs))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
