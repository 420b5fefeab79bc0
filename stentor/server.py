"""Several processes under one supervisor: what `stentor run` and `stentor dev` share, and `stentor run` itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import click

from cluster import logs
from cluster.config import ENV_PREFIX, Config
from cluster.keys import generate
from cluster.membership import ROLES
from cluster.supervisor import Member, NotReady, Supervisor, make_runtime_dir, members
from stentor.failure import Failed


class Stopper:
    """SIGINT and SIGTERM: the first ends the body given to `run`, which cleans up; later ones hurry that.

    `hang_up` is called at SIGHUP; without it that means that the terminal is gone, which is the end.
    """

    def __init__(self) -> None:
        self.hurry: Callable[[], None] = lambda: None
        self.hang_up: Callable[[], None] | None = None
        self._body: asyncio.Task[None] | None = None
        self._is_stopping = False

    async def run(self, body: Awaitable[None]) -> None:
        """Run `body` until it ends or a signal comes."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)
        if self.hang_up is not None:
            loop.add_signal_handler(signal.SIGHUP, self.hang_up)
        self._body = asyncio.ensure_future(body)
        try:
            await self._body
        except asyncio.CancelledError:
            if not self._is_stopping:
                raise

    def _signalled(self) -> None:
        if self._is_stopping or self._body is None:
            self.hurry()
        else:
            self._is_stopping = True
            self._body.cancel()


async def supervise(
    supervisor: Supervisor,
    stopper: Stopper,
    grace_s: float,
    timeout_s: float | None,
    when_ready: Callable[[], Awaitable[None]],
) -> None:
    """Start everything, call `when_ready` once it is, and keep it running until cancelled."""
    stopper.hurry = supervisor.hurry
    supervisor.start()
    try:
        await supervisor.wait_ready(timeout_s)
        await when_ready()
        await asyncio.Event().wait()
    except NotReady as error:
        raise Failed(f"the cluster did not start: {error}") from None
    finally:
        await supervisor.stop(grace_s)


def require_free_ports(addresses: Iterable[str], ports: Iterable[int], remedy: str) -> None:
    """Raise Failed where a port is taken: the processes share ports, so they would share them with strangers too."""
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for port in ports:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                try:
                    probe.bind((address, port))
                    probe.listen()
                except OSError as error:
                    raise Failed(f"{address} port {port}: {os.strerror(error.errno or 0)}. {remedy}") from None


def require_free_public_ports(config: Config, s2s: int, remedy: str) -> None:
    """The same for all ports that face outside."""
    proxy = [config.proxy.port] if config.proxy.enabled else []
    require_free_ports(config.c2s.listen, [config.c2s.port, config.c2s.tls_port, *proxy], remedy)
    if config.http.enabled:
        require_free_ports(config.http.listen, [config.http.port, config.http.tls_port], remedy)
    if s2s and config.s2s.enabled:
        require_free_ports(config.s2s.listen, [config.s2s.port, config.s2s.tls_port], remedy)
    if s2s:
        require_free_ports(config.components.listen, [config.components.port], remedy)


def one_host_settings(runtime_dir: Path, processes: list[Member]) -> dict[str, str]:
    """The settings, as variables, that make processes on one machine find each other by sockets in `runtime_dir`."""
    try:
        make_runtime_dir(runtime_dir, (f"{member.node}.bus" for member in processes))
    except OSError as error:
        raise Failed(f"node.runtime_dir: {error}") from None
    return {
        f"{ENV_PREFIX}NODE__RUNTIME_DIR": str(runtime_dir),
        f"{ENV_PREFIX}BUS__TRANSPORT": "ipc",
        f"{ENV_PREFIX}BUS__SEEDS": json.dumps([member.node for member in processes if member.role == "router"]),
    }


def over_tcp(config: Config, processes: Sequence[Member]) -> list[Member]:
    """The same processes, which find each other over TCP instead: their ports follow `bus.port`, in this order, and
    each role has a key pair of this run."""
    pairs = {role: generate() for role in ROLES}
    routers = [number for number, member in enumerate(processes) if member.role == "router"]
    shared = {
        f"{ENV_PREFIX}BUS__TRANSPORT": "tcp",
        f"{ENV_PREFIX}BUS__SEEDS": json.dumps([f"{config.node.advertise}:{config.bus.port + n}" for n in routers]),
        f"{ENV_PREFIX}BUS__PUBLIC_KEYS": json.dumps({role: public for role, (public, _) in pairs.items()}),
    }
    return [
        replace(
            member,
            settings={
                **shared,
                f"{ENV_PREFIX}BUS__PORT": str(config.bus.port + number),
                f"{ENV_PREFIX}BUS__SECRET_KEY": pairs[member.role][1],
            },
        )
        for number, member in enumerate(processes)
    ]


async def serve(config: Config, config_file: Path) -> int:
    """`stentor run`: until a signal comes; returns the exit code."""
    logs.configure(config.log.level, config.log.format, "supervisor")
    run = config.run
    processes = members({"c2s": run.c2s, "router": run.router, "s2s": run.s2s}, config.admin.port)
    admin_ports = [config.admin.api_port, *(member.admin_port for member in processes)]
    remedy = "Stop what uses it, or set another port or address in the configuration"
    require_free_public_ports(config, run.s2s, remedy)
    require_free_ports([config.admin.host], admin_ports, remedy)
    env = {**os.environ, **one_host_settings(config.node.runtime_dir, processes)}
    supervisor = Supervisor(processes, config_file, env, host=config.admin.host)

    async def announce() -> None:
        click.echo(
            f"READY {run.c2s} c2s, {run.router} routers, {run.s2s} s2s, domains {', '.join(config.server.domains)}"
        )

    stopper = Stopper()
    stopper.hang_up = supervisor.hang_up
    await stopper.run(supervise(supervisor, stopper, config.drain.grace_s, None, announce))
    return 0
