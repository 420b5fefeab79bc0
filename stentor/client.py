"""The administration API from the commands' side: where it is, and how to call it (docs/admin-api.md)."""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import click

from stentor.failure import Failed, load_config

TIMEOUT_S: Final = 30.0
DEFAULT_DATA: Final = "dev-data"

P = ParamSpec("P")
R = TypeVar("R")


class Refused(Failed):
    """The router said no; `status` is the HTTP status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Place:
    """Where clients and components find the cluster, as its configuration says."""

    host: str = "127.0.0.1"
    domain: str = "localhost"
    port: int = 5222
    tls_port: int = 5223
    component_port: int = 5347
    web_port: int = 443


@dataclass
class Api:
    """A router's administration API. `place`: where the cluster is, as far as that is known here."""

    url: str
    token: str
    place: Place = Place()

    def call(self, method: str, path: str, body: Any = None, query: dict[str, str] | None = None) -> Any:
        """One call below /api/v1; returns the JSON answer. Raises Refused, or Failed where nobody answers."""
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        target = f"{parts.path.rstrip('/')}/api/v1{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        try:
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            answer = json.loads(response.read() or b"{}")
        except (OSError, http.client.HTTPException) as error:
            raise Failed(
                f"{self.url} does not answer: {error or type(error).__name__}. Is a router running there?"
            ) from None
        except ValueError:
            raise Failed(f"{self.url} did not answer in JSON. Is it the administration API of a router?") from None
        finally:
            connection.close()
        if response.status >= 400:
            said = [str(answer.get(key) or "") for key in ("error", "remedy")]
            raise Refused(". ".join(text for text in said if text), response.status)
        return answer

    def pages(self, path: str, items: str, query: dict[str, str] | None = None) -> Iterator[Any]:
        """Every entry of a list, read page by page; `items` is its key in the answers."""
        wanted = dict(query or {})
        while True:
            answer = self.call("GET", path, query=wanted)
            yield from answer[items]
            if not answer["next"]:
                return
            wanted["after"] = answer["next"]


class _Recorder(Api):
    """Remembers the last answer; of a list, all pages as one."""

    said: Any = None

    def call(self, method: str, path: str, body: Any = None, query: dict[str, str] | None = None) -> Any:
        self.said = super().call(method, path, body, query)
        return self.said

    def pages(self, path: str, items: str, query: dict[str, str] | None = None) -> Iterator[Any]:
        found = list(super().pages(path, items, query))
        self.said = {items: found}
        yield from found


def segment(text: str) -> str:
    """A JID as one segment of a path."""
    return quote(text, safe="@")


def finds(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the options that find a cluster; it is called with `api` first."""

    @click.option("--data", metavar="DIR", help="Folder of a running `stentor dev` [default: dev-data]")
    @click.option("--config", "config_file", metavar="FILE", help="Configuration file of a router")
    @click.option("--admin-url", metavar="URL", help="Administration API, as in http://127.0.0.1:5281")
    @click.option("--token", metavar="TOKEN", help="Token of the administration API; with --admin-url")
    @wraps(command)
    def found(
        *arguments: Any,
        data: str | None,
        config_file: str | None,
        admin_url: str | None,
        token: str | None,
        **options: Any,
    ) -> R:
        return command(find(data, config_file, admin_url, token), *arguments, **options)

    return found


def connects(command: Callable[..., R]) -> Callable[..., R]:
    """The same, and --json, with which it prints what the API has answered last, and nothing else."""

    @finds
    @click.option("--json", "as_json", is_flag=True, help="Print the answer of the administration API")
    @wraps(command)
    def found(api: Api, *arguments: Any, as_json: bool, **options: Any) -> R:
        if not as_json:
            return command(api, *arguments, **options)
        recorder = _Recorder(api.url, api.token, api.place)
        try:
            with redirect_stdout(io.StringIO()):
                return command(recorder, *arguments, **options)
        finally:
            if recorder.said is not None:
                click.echo(json.dumps(recorder.said))

    return found


def find(data: str | None, config_file: str | None, admin_url: str | None, token: str | None) -> Api:
    """The API that the options name; without any, the one of the dev cluster in ./dev-data."""
    if sum(option is not None for option in (data, config_file, admin_url)) > 1:
        raise click.UsageError("Give one of --data, --config and --admin-url.")
    if admin_url is not None:
        if not token:
            raise click.UsageError("--admin-url needs --token.")
        return Api(admin_url, token)
    if config_file is not None:
        config = load_config(config_file)
        if not config.admin.token:
            raise Failed(f"{config_file}: admin.token is not set, so the administration API is not served", 2)
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.admin.host, config.admin.host)
        listens = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.c2s.listen[0], config.c2s.listen[0])
        place = Place(listens, config.server.domains[0], config.c2s.port, config.c2s.tls_port, config.components.port)
        return Api(f"http://{host}:{config.admin.api_port}", config.admin.token, place)
    path = Path(data or DEFAULT_DATA) / "run.json"
    try:
        facts = json.loads(path.read_text())
        ports = facts["ports"]
        place = Place(
            facts.get("host", "127.0.0.1"), facts["domains"][0], ports["c2s"], ports["c2s_tls"], ports["component"]
        )
        return Api(f"http://127.0.0.1:{ports['admin']}", facts["admin_token"], place)
    except FileNotFoundError:
        raise Failed(
            f"{path} does not exist. Start `stentor dev`, or name a cluster with --data, --config or --admin-url"
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise Failed(f"{path} cannot be read: {error}") from None
