"""The development cluster: prepares a folder, PostgreSQL and a certificate, then supervises the processes.

Everything it keeps is in the folder: postgres/, tls/, uploads/, logs/, stentor.toml (generated at each start) and,
while it runs, run.json. Settings are taken from --config, the environment, the options and --set, the last one
winning; what nobody set gets a value fit for development.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from cluster import logs
from cluster.config import ENV_PREFIX, Config, to_toml
from cluster.metrics import software_version
from cluster.supervisor import AlreadyRunning, Member, RunFile, Supervisor, lock, members, write_private
from stentor.client import DEFAULT_DATA, Api, Refused, segment
from stentor.failure import Failed, load_config
from stentor.server import (
    Stopper,
    one_host_settings,
    over_tcp,
    require_free_ports,
    require_free_public_ports,
    supervise,
)

READY_TIMEOUT_S: Final = 60.0
ACCOUNT_TIMEOUT_S: Final = 15.0
# Where the configuration says nothing: here nobody waits for a drain, and only this machine may connect.
DEV_DEFAULTS: Final = {
    "c2s.listen": ["127.0.0.1"], "s2s.listen": ["127.0.0.1"], "http.listen": ["127.0.0.1"], "bus.listen": "127.0.0.1",
    "http.local_is_secure": True, "drain.window_s": 0.5, "drain.grace_s": 10.0,
}  # fmt: skip
PORTS: Final = (
    "c2s.port", "c2s.tls_port", "proxy.port", "http.port", "http.tls_port", "s2s.port", "s2s.tls_port",
    "components.port", "bus.port", "admin.port", "admin.api_port",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    data: str | None
    domains: tuple[str, ...]
    users: tuple[tuple[str, str], ...]  # (bare JID, password)
    admins: tuple[str, ...]
    c2s: int
    router: int
    s2s: int
    listen: tuple[str, ...]
    port_offset: int
    tls: str | None
    database_url: str | None
    config_file: str | None
    overrides: tuple[str, ...]


def _setting(key: str, value: object) -> str:
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def settings(options: Options) -> Config:
    """The configuration that was asked for, with ports already shifted, without what only the start can know."""
    asked = [
        *([_setting("server.domains", options.domains)] if options.domains else []),
        *([_setting("server.admins", options.admins)] if options.admins else []),
        *([_setting(f"{role}.listen", options.listen) for role in ("c2s", "s2s", "http")] if options.listen else []),
        *([_setting("tls.c2s", options.tls)] if options.tls else []),
        *([_setting("database.url", options.database_url)] if options.database_url else []),
        *options.overrides,
    ]
    config = load_config(options.config_file, asked)
    more = [_setting(key, value) for key, value in DEV_DEFAULTS.items() if config.source_of(key) == "default"]
    if not config.admin.token:
        more.append(_setting("admin.token", secrets.token_urlsafe(24)))
    for key in PORTS:
        section, name = key.split(".")
        more.append(_setting(key, getattr(getattr(config, section), name) + options.port_offset))
    if config.http.enabled and not config.http.public_url:
        more.append(_setting("http.public_url", f"http://localhost:{config.http.port + options.port_offset}"))
    return load_config(options.config_file, [*asked, *more])


def has_tcp_bus(config: Config) -> bool:
    """Whether somebody asked for TCP: sockets in a folder do for one machine, but cannot be watched, or cut."""
    return config.bus.transport == "tcp" and config.source_of("bus.transport") != "default"


def data_directory(options: Options) -> Path:
    """The folder of this cluster, made if need be; its default follows the port offset."""
    suffix = f"-{options.port_offset}" if options.port_offset else ""
    path = Path(options.data or f"{DEFAULT_DATA}{suffix}").absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        (path / "logs").mkdir(exist_ok=True)
    except OSError as error:
        raise Failed(f"--data {path}: {error.strerror}. Choose another folder") from None
    return path


def runtime_directory(data: Path) -> Path:
    """A short folder for the sockets of the cluster in `data`: a socket's path has 107 bytes at most."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")
    name = hashlib.blake2b(os.fsencode(data), digest_size=6).hexdigest()
    return base / f"stentor-{os.getuid()}-{name}"


async def develop(options: Options) -> int:
    """Run the cluster until a signal comes; returns the exit code."""
    config = settings(options)
    logs.configure(config.log.level, config.log.format, "supervisor")
    stopper = Stopper()
    await stopper.run(_develop(options, config, stopper))
    return 0


async def _develop(options: Options, config: Config, stopper: Stopper) -> None:
    data = data_directory(options)
    async with AsyncExitStack() as stack:
        try:
            stack.enter_context(lock(data))
        except AlreadyRunning as error:
            raise Failed(f"{error}. Stop it, or choose another folder with --data") from None
        counts = {"c2s": options.c2s, "router": options.router, "s2s": options.s2s}
        processes = members(counts, config.admin.port)
        admin_ports = [config.admin.api_port, *(member.admin_port for member in processes)]
        remedy = "Stop what uses it, or shift all ports with --port-offset"
        require_free_public_ports(config, options.s2s, remedy)
        require_free_ports([config.admin.host], admin_ports, remedy)
        env = _environment()
        if has_tcp_bus(config):
            require_free_ports([config.bus.listen], range(config.bus.port, config.bus.port + len(processes)), remedy)
            processes = over_tcp(config, processes)
        else:
            runtime = runtime_directory(data)
            env |= one_host_settings(runtime, processes)
            stack.callback(shutil.rmtree, runtime, ignore_errors=True)
        config = await _with_database(options, config, data, stack)
        config = _with_certificate(options, config, data)
        config = with_uploads(config, data)
        config_file = data / "stentor.toml"
        write_private(config_file, to_toml(config))
        run_file = RunFile(data / "run.json", _facts(config))
        stack.callback(run_file.remove)
        for member in processes:
            (data / "logs" / f"{member.node}.log").write_bytes(b"")
        supervisor = Supervisor(
            processes,
            config_file,
            env,
            config.admin.host,
            data / "logs",
            lambda: run_file.write(supervisor.processes()),
        )

        async def announce() -> None:
            await asyncio.to_thread(_make_accounts, config, options.users)
            for line in _how_to_connect(options, config, data, processes):
                click.echo(line)

        await supervise(supervisor, stopper, config.drain.grace_s, READY_TIMEOUT_S, announce)


def _environment() -> dict[str, str]:
    """For the processes: their settings come from the generated file, where ours already went into."""
    return {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}


def _updated(config: Config, section: str, **values: Any) -> Config:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


async def _with_database(options: Options, config: Config, data: Path, stack: AsyncExitStack) -> Config:
    """Start the embedded PostgreSQL unless there is a URL, and bring the schema up to date."""
    import psycopg

    from storage.embedded import EmbeddedPostgres
    from storage.migrate import migrate
    from storage.pool import StorageError

    url = config.database.url
    try:
        if not url:
            postgres = EmbeddedPostgres(data / "postgres")
            stack.push_async_callback(postgres.stop)
            url = await postgres.start()
        await migrate(url)
    except (StorageError, psycopg.Error) as error:
        raise Failed(f"PostgreSQL: {str(error).strip()}") from None
    return _updated(config, "database", url=url)


def _with_certificate(options: Options, config: Config, data: Path) -> Config:
    if config.tls.certificate is not None or config.tls.certificates:
        return config
    from cluster.certificates import CertificateError, self_signed

    try:
        certificate, key = self_signed(config.server.domains, data / "tls")
    except CertificateError as error:
        raise Failed(str(error)) from None
    return _updated(config, "tls", certificate=certificate, key=key)


def with_uploads(config: Config, data: Path) -> Config:
    """Files go into the folder, unless somebody has said where, or that there are none."""
    if config.source_of("upload.storage") != "default" or not config.upload_url():
        return config
    return _updated(config, "upload", storage=str(data / "uploads"))


def _facts(config: Config) -> dict[str, Any]:
    ports = {
        "c2s": config.c2s.port, "c2s_tls": config.c2s.tls_port, "s2s": config.s2s.port, "s2s_tls": config.s2s.tls_port,
        "component": config.components.port, "admin": config.admin.api_port, "http": config.http.port,
        "https": config.http.tls_port,
    }  # fmt: skip
    return {
        "domains": list(config.server.domains),
        "host": config.c2s.listen[0],
        "ports": ports,
        "database_url": config.database.url,
        "admin_token": config.admin.token,
    }


def _make_accounts(config: Config, users: tuple[tuple[str, str], ...]) -> None:
    api = Api(f"http://{config.admin.host}:{config.admin.api_port}", config.admin.token)
    for jid, password in users:
        give_up_at = time.monotonic() + ACCOUNT_TIMEOUT_S
        while True:
            try:
                api.call("POST", "/users", {"jid": jid, "password": password})
            except Refused as error:
                if error.status == 503 and time.monotonic() < give_up_at:
                    time.sleep(0.1)  # a shard is on its way to another router
                    continue
                if error.status != 409:
                    raise Failed(f"--user {jid}: {error}") from None
                api.call("PUT", f"/users/{segment(jid)}/password", {"password": password})
            break


def _how_to_connect(options: Options, config: Config, data: Path, processes: list[Member]) -> Iterator[str]:
    host, ports = config.c2s.listen[0], config.c2s
    shown = os.path.relpath(data)
    shown = str(data) if shown.startswith("..") else shown
    yield f"Stentor {software_version()}, a cluster for development in {shown}"
    yield f"  domains      {', '.join(config.server.domains)}"
    encryption = "STARTTLS" if config.tls.c2s == "required" else "STARTTLS or plain"
    yield f"  clients      {host} port {ports.port} ({encryption}), port {ports.tls_port} (direct TLS)"
    if options.s2s:
        s2s = config.s2s
        yield f"  servers      {s2s.listen[0]} port {s2s.port} (STARTTLS), port {s2s.tls_port} (direct TLS)"
        if config.components.domains:
            names = ", ".join(sorted(config.components.domains))
            yield f"  components   {config.components.listen[0]} port {config.components.port} ({names})"
    if config.http.enabled:
        http = config.http
        yield f"  browsers     {http.public_url}; {http.listen[0]} port {http.tls_port} (TLS)"
    if config.upload.storage:
        yield f"  uploads      {config.upload.storage}"
    for jid, password in options.users:
        yield f"  user         {jid}, password {password}"
    certificate = config.tls.certificate or "as configured"
    yield f"  certificate  {certificate}; if self-signed, clients must be told to accept it"
    yield f"  commands     stentor user list --data {shown}"
    yield f"  logs         {shown}/logs/"
    if options.users:
        sender, password = options.users[0]
        recipient = options.users[-1][0]
        to = f"-u {sender} -p {password} -j {host}:{ports.port} -n {recipient}"
        yield f"  try          echo 'hello' | go-sendxmpp {to}"
    roles = ", ".join(f"{sum(m.role == role for m in processes)} {role}" for role in ("c2s", "router", "s2s"))
    yield f"READY {roles}"
