"""What operators ask of one process: its configuration, read again, and what it logs."""

from __future__ import annotations

import asyncio
import io
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import structlog

from cluster import logs
from cluster.config import Config, keys, load
from cluster.orders import READERS, Orders
from cluster.process import Process
from cluster.wire import REPORT

ROOT = Path(__file__).resolve().parents[3]


class World:
    """A process that counts hang-ups, and its configuration file."""

    def __init__(self, directory: Path, role: str = "router") -> None:
        self.file = directory / "stentor.toml"
        self.write("")
        self.hangups = 0
        self.adopted: list[list[str]] = []
        self.orders = Orders(cast(Process, self), load(self.file), role, self.adopt)

    def write(self, text: str) -> None:
        self.file.write_text(f'[server]\ndomains = ["a.example"]\n[admin]\ntoken = "very secret"\n{text}')

    def hang_up(self) -> None:
        self.hangups += 1

    def adopt(self, config: Config, keys: list[str]) -> list[str]:
        self.adopted.append(keys)
        return [key for key in keys if key == "rooms.history"]

    def obey(self, name: str, *arguments: Any) -> tuple[bool, Any]:
        return asyncio.run(self.orders.obey(name, arguments))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_runs_is_shown_without_secrets(world: World) -> None:
    ok, found = world.obey("config.show")
    values = {key: (value, source) for key, value, source in found}
    assert ok
    assert values["server.domains"] == (["a.example"], str(world.file))
    assert values["admin.token"] == ("(set)", str(world.file))
    assert values["rooms.history"] == (20, "default")
    assert "very secret" not in repr(found)
    assert set(values) == set(keys())


def test_a_reload_says_of_each_key_what_became_of_it(world: World) -> None:
    world.write('[rooms]\nhistory = 5\n[bus]\nport = 7500\n[c2s]\nport = 5333\n[log]\nlevel = "warning"\n')
    expected = [("bus.port", 7400, 7500), ("log.level", "info", "warning"), ("rooms.history", 20, 5)]
    assert sorted(world.obey("config.diff")[1]) == expected  # c2s.port is no router's
    before = logs.level_of()
    try:
        ok, found = world.obey("config.reload")
        assert logs.level_of() == "warning"
    finally:
        logs.set_level(before)
    assert ok
    assert dict(found) == {"bus.port": "restart", "log.level": "applied", "rooms.history": "applied"}
    assert world.hangups == 1
    assert [key for key, *_ in world.obey("config.diff")[1]] == [
        "bus.port"
    ]  # what was applied does not differ any more


def test_a_changed_secret_is_told_without_its_value(world: World) -> None:
    world.file.write_text(world.file.read_text().replace("very secret", "another"))
    assert world.obey("config.diff") == (True, [("admin.token", "(set)", "(set)")])


def test_a_wrong_file_changes_nothing(world: World) -> None:
    world.write("[rooms]\nhistory = 5\nhistroy = 5\n")
    ok, problem = world.obey("config.reload")
    assert not ok
    assert "rooms.histroy" in problem
    assert "nothing was changed" in problem
    assert (world.hangups, world.adopted) == (0, [])


def test_what_is_unknown_is_told(world: World) -> None:
    ok, problem = world.obey("config.from_the_future")
    assert not ok
    assert "another release" in problem


def test_an_order_is_reported(world: World) -> None:
    async def conversation() -> list[Any]:
        sent: list[Any] = []
        world.orders.offer("answer", lambda: 42)

        def send(to: Any, envelope: Any) -> bool:
            sent.append((to, envelope))
            return True

        world.orders.receive(send, cast(Any, "router-0#1"), "r", "answer", ())
        async with asyncio.timeout(5):
            while not sent:  # noqa: ASYNC110  # a task of the orders' own sends it
                await asyncio.sleep(0)
        return sent

    assert asyncio.run(conversation()) == [("router-0#1", (REPORT, "r", True, 42))]


def test_a_level_lasts_as_long_as_it_was_asked_for(world: World) -> None:
    async def conversation() -> None:
        assert await world.orders.obey("log.level", ("debug", "s2s", 30.0)) == (True, "as everywhere")
        assert logs.level_of("s2s") == "debug"
        assert (await world.orders.obey("log.level", ("error", "s2s", 0.01)))[0]
        assert logs.level_of("s2s") == "error"
        async with asyncio.timeout(5):
            while logs.level_of("s2s") is not None:  # noqa: ASYNC110  # a timer of the loop
                await asyncio.sleep(0.01)

    asyncio.run(conversation())


@pytest.fixture
def output() -> Iterator[Callable[[], str]]:
    stream, root = io.StringIO(), logging.getLogger()
    before, handlers, level = logs.level_of(), root.handlers[:], root.level
    logs.configure("info", "json", "", stream)
    yield stream.getvalue
    root.handlers[:] = handlers
    root.setLevel(level)
    logs.set_level(before)
    structlog.reset_defaults()


def test_a_level_counts_for_loggers_that_are_in_use(output: Callable[[], str]) -> None:
    log = logs.get_logger()
    bound = log.bind(sid="1")
    log.debug("unseen")
    bound.debug("unseen")
    logs.set_level("debug", __name__.rpartition(".")[0])
    log.debug("seen")
    bound.debug("seen")
    logs.set_level(None, __name__.rpartition(".")[0])
    log.debug("unseen")
    logs.set_level("error")
    bound.warning("unseen")
    assert output().count('"seen"') == 2
    assert "unseen" not in output()


def test_the_table_of_readers_is_what_the_code_reads() -> None:
    """`config.SECTION` in the code of a role; sections of cluster/ are everybody's."""
    sections = {key.partition(".")[0] for key in keys()}
    read = {
        role: {
            name
            for file in (ROOT / role).rglob("*.py")
            for name in re.findall(r"config\.(\w+)\b", file.read_text("utf-8"))
            if name in sections
        }
        for role in ("c2s", "s2s", "router")
    }
    for section, roles in READERS.items():
        for role in ("c2s", "s2s", "router"):
            if section in read[role] and section != "c2s":  # whose sizes others look at once, when they start
                assert role in roles, f"{role} reads {section}"
