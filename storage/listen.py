"""Notifications of PostgreSQL (LISTEN and NOTIFY): news that something has changed, never what.

A listening connection that is cut in silence hears nothing for ever, so it notifies itself and is replaced when it
does not hear that. Whoever listens must still look now and then: a notification may be lost with its connection.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from typing import Any, Final, LiteralString

import psycopg
from psycopg import AsyncConnection, sql

from cluster import logs
from storage.pool import connect, is_away

log = logs.get_logger()

CHANNEL: Final[LiteralString] = "stentor"  # nodes and shards have changed
ECHO_S: Final = 10.0
RETRY_S: Final = 0.2  # first pause before connecting again; grows
RETRY_MOST_S: Final = 5.0


async def notify(conn: AsyncConnection[Any], channel: str, payload: str) -> None:
    """Tell everybody who listens on a channel, when the transaction commits."""
    await conn.execute("select pg_notify(%s, %s)", (channel, payload))


class Listener:
    """Calls `heard(payload)` for each notification on a channel, and `heard("")` after each connect, because some
    may have been missed before. Runs until it is cancelled."""

    def __init__(self, url: str, channel: str, heard: Callable[[str], None], *, name: str, echo_s: float = ECHO_S):
        self._url = url
        self._channel = channel
        self._heard = heard
        self._name = name
        self._echo_s = echo_s
        self._echo_channel = f"{channel}_echo_{secrets.token_hex(8)}"
        self._pause = RETRY_S

    async def run(self) -> None:
        """Listen for ever. A database that is away is tried again, at intervals that grow."""
        while True:
            try:
                async with await connect(self._url, f"{self._name} listener") as conn:
                    await self._listen(conn)
            except (psycopg.Error, OSError) as problem:
                if not is_away(problem):
                    raise
                log.warning("listener_reconnects", problem=str(problem).strip().partition("\n")[0])
            await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
            self._pause = min(self._pause * 2, RETRY_MOST_S)

    async def _listen(self, conn: AsyncConnection[Any]) -> None:
        for channel in (self._channel, self._echo_channel):
            await conn.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        self._heard("")
        while True:
            await notify(conn, self._echo_channel, "")
            has_echo = False
            async for message in conn.notifies(timeout=self._echo_s):
                if message.channel == self._channel:
                    self._heard(message.payload)
                else:
                    has_echo = True
                    self._pause = RETRY_S
            if not has_echo:
                raise psycopg.OperationalError("the listening connection does not hear itself")
