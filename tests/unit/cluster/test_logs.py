"""Log lines: JSON with node and level, counted; and the keys that are in use are the keys that are explained."""

from __future__ import annotations

import ast
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from prometheus_client import REGISTRY

from cluster import logs

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("cluster", "storage", "router", "c2s", "s2s", "stentor")
METHODS = {"debug", "info", "warning", "error", "exception", "bind"}
OF_STRUCTLOG = {"exc_info"}


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level, before = root.handlers[:], root.level, logs.level_of()
    stream = io.StringIO()
    logs.configure("info", "json", "c2s-0", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logs.set_level(before)
    structlog.reset_defaults()


def lines(output: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_a_line_is_json_with_event_level_node_and_time(output: io.StringIO) -> None:
    structlog.get_logger().bind(reason="r").info("stream_closed", seconds=2)
    (line,) = lines(output)
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {"event": "stream_closed", "level": "info", "node": "c2s-0", "reason": "r", "seconds": 2}


def test_what_is_below_the_level_is_not_written(output: io.StringIO) -> None:
    structlog.get_logger().debug("detail")
    assert lines(output) == []


def test_libraries_speak_the_same_format_from_warning_on(output: io.StringIO) -> None:
    logging.getLogger("somebody").info("chatter")
    logging.getLogger("somebody").warning("pool %s", "full")
    (line,) = lines(output)
    assert (line["event"], line["library"], line["problem"], line["level"]) == (
        "library", "somebody", "pool full", "warning",
    )  # fmt: skip


def test_an_exception_is_one_line(output: io.StringIO) -> None:
    try:
        raise KeyError("k")
    except KeyError:
        structlog.get_logger().exception("broken")
    (line,) = lines(output)
    assert "KeyError" in str(line["exception"])


def test_lines_are_counted_by_level(output: io.StringIO) -> None:
    before = REGISTRY.get_sample_value("stentor_log_messages_total", {"level": "warning"}) or 0.0
    structlog.get_logger().warning("look")
    assert REGISTRY.get_sample_value("stentor_log_messages_total", {"level": "warning"}) == before + 1


def keys_used(source: str) -> set[str]:
    """The keys of every call `log.METHOD(...)` or `self._log.METHOD(...)`."""
    return {
        keyword.arg
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS
        if ast.unparse(node.func.value).rpartition(".")[2].rpartition("_")[2] in ("log", "logger")
        for keyword in node.keywords
        if keyword.arg is not None
    }


def test_every_key_in_use_is_in_the_table_and_the_table_has_no_other() -> None:
    used: dict[str, set[str]] = {}
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for key in keys_used(file.read_text()) - OF_STRUCTLOG:
                used.setdefault(key, set()).add(str(file.relative_to(ROOT)))
    assert {key: files for key, files in used.items() if key not in logs.KEYS} == {}
    assert set(logs.KEYS) - set(used) - {"library", "node"} == set()


def test_the_walk_sees_keys() -> None:
    source = "log.info('a', b=1)\nself._log.bind(c=2)\nother.info('x', d=3)\nlog.exception('e', **f)"
    assert keys_used(source) == {"b", "c"}
