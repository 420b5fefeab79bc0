"""What the documentation says exists: linked files, linked lines of code, and every metric, in both directions.

Code moves, so `python -m tests.unit.test_docs` writes the right line numbers into the walk.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from router.rooms.config import RoomConfig

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
WALK: Final = ROOT / "docs" / "life-of-a-message.md"
METRICS: Final = ROOT / "docs" / "metrics.md"
PACKAGES: Final = ("cluster", "storage", "router", "c2s", "s2s")

_LINK: Final = re.compile(r"\[([^\[\]]*)\]\(([^()\s]+)\)")
_TO_LINE: Final = re.compile(r"\[`([\w.]+)`\]\(([^()\s#]+)#L(\d+)\)")
_METRIC_ROW: Final = re.compile(r"^\| `(stentor_\w+)` \| (\w+) \| ([^|]+) \|", re.MULTILINE)
_MAKERS: Final = {
    "counter": "counter", "sampled_counter": "counter", "Counter": "counter",
    "gauge": "gauge", "sampled_gauge": "gauge", "counted_gauge": "gauge", "Gauge": "gauge",
    "histogram": "histogram", "Histogram": "histogram",
}  # fmt: skip


# --- links


def missing_files(text: str, folder: Path) -> list[str]:
    """Relative links of a page in this folder whose file is not there."""
    targets = (target for _, target in _LINK.findall(text) if "://" not in target and not target.startswith("mailto:"))
    return [target for target in targets if target[0] != "#" and not (folder / target.partition("#")[0]).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    assert missing_files(page.read_text("utf-8"), page.parent) == []


def test_a_link_to_nowhere_is_found() -> None:
    text = (
        "[a](cluster/wire.py#L1) [b](https://example.org/x) [c](#here) [d](cluster/nowhere.py#L1) [e](docs/nowhere.md)"
    )
    assert missing_files(text, ROOT) == ["cluster/nowhere.py#L1", "docs/nowhere.md"]


# --- lines


def defined_at(source: str, name: str) -> int | None:
    """The line where `function`, `Class`, `Class.method` or `CONSTANT` is defined."""
    body: list[ast.stmt] = ast.parse(source).body
    line = None
    for part in name.split("."):
        found = next((node for node in body if part in _names(node)), None)
        if found is None:
            return None
        line = found.lineno
        body = found.body if isinstance(found, ast.ClassDef) else []
    return line


def _names(node: ast.stmt) -> set[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {node.name}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case ast.Assign():
            return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return set()


def wrong_lines(text: str, folder: Path) -> list[str]:
    """Links to lines that do not define what the link's text names."""
    wrong = []
    for name, target, line in _TO_LINE.findall(text):
        right = defined_at((folder / target).read_text("utf-8"), name)
        if right != int(line):
            wrong.append(f"{target}#L{line}: {name} is {f'in line {right}' if right else 'not there'}")
    return wrong


def renumbered(text: str, folder: Path) -> str:
    """The same page with every link at the right line, as far as what it names still exists."""

    def mend(link: re.Match[str]) -> str:
        name, target, line = link.groups()
        right = defined_at((folder / target).read_text("utf-8"), name)
        return f"[`{name}`]({target}#L{right or line})"

    return _TO_LINE.sub(mend, text)


def test_the_walk_points_at_the_lines_that_it_names() -> None:
    text = WALK.read_text("utf-8")
    assert len(_TO_LINE.findall(text)) == text.count("#L") > 0  # no link to a line goes unchecked
    assert wrong_lines(text, WALK.parent) == [], "run: python -m tests.unit.test_docs"


def test_a_line_that_moved_is_found_and_mended() -> None:
    text = "[`ReceiveLink.accept`](cluster/link.py#L1), [`gone`](cluster/link.py#L2)"
    moved, gone = wrong_lines(text, ROOT)
    assert moved.startswith("cluster/link.py#L1: ReceiveLink.accept is in line ")
    assert gone == "cluster/link.py#L2: gone is not there"
    assert wrong_lines(renumbered(text, ROOT), ROOT) == [gone]


# --- metrics


class Metric(NamedTuple):
    """How a metric is declared."""

    type: str
    labels: frozenset[str]


def declared() -> dict[str, Metric]:
    """Every metric that the code registers, read from the source: most registries fill only in a running process."""
    found: dict[str, Metric] = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            found.update(_declared_in(file.read_text("utf-8")))
    return found


def _declared_in(source: str) -> Iterator[tuple[str, Metric]]:
    tree = ast.parse(source)
    assigned = {
        node.targets[0].id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        maker = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        match call.args:
            case [ast.Constant(value=str(name)), _, *rest] if maker in _MAKERS and name.startswith("stentor_"):
                yield name, Metric(_MAKERS[maker], _labels(rest[0], assigned) if rest else frozenset())


def _labels(node: ast.expr, assigned: dict[str, ast.expr]) -> frozenset[str]:
    if isinstance(node, ast.Name):
        node = assigned[node.id]
    keys = node.keys if isinstance(node, ast.Dict) else node.elts if isinstance(node, ast.Tuple | ast.List) else []
    return frozenset(ast.literal_eval(key) for key in keys if key is not None)


def documented() -> dict[str, Metric]:
    """Every metric that the reference lists: `| name | type | label, label (or -) | meaning |`."""
    rows = _METRIC_ROW.findall(METRICS.read_text("utf-8"))
    found = {name: Metric(type_, frozenset(re.findall(r"`(\w+)`", labels))) for name, type_, labels in rows}
    assert len(found) == len(rows), "a metric is listed twice"
    return found


def test_the_reference_lists_every_metric_as_it_is_declared() -> None:
    code, page = declared(), documented()
    assert page.keys() - code.keys() == set(), "listed in docs/metrics.md, and not in the code"
    assert code.keys() - page.keys() == set(), "in the code, and not listed in docs/metrics.md"
    assert page == code


def test_the_reference_mentions_no_other_metric() -> None:
    mentioned = set(re.findall(r"stentor_\w+", METRICS.read_text("utf-8")))
    parts = {name + suffix for name in declared() for suffix in ("", "_bucket", "_count", "_sum")}
    assert mentioned - parts == set()


def test_declarations_are_read_with_type_and_labels() -> None:
    source = """
kinds = {"kind": ["a", "b"]}
x = metrics.counter("stentor_x_total", "X", {"reason": list(REASONS), "role": ["c2s"]})
def export(registry):
    metrics.sampled_gauge("stentor_y", "Y", ("state",), {}, registry)
    histogram("stentor_z_seconds", "Z", kinds)
    metrics.gauge("other", "not ours")
"""
    assert dict(_declared_in(source)) == {
        "stentor_x_total": Metric("counter", frozenset({"reason", "role"})),
        "stentor_y": Metric("gauge", frozenset({"state"})),
        "stentor_z_seconds": Metric("histogram", frozenset({"kind"})),
    }


def test_the_page_of_rooms_names_every_option_and_no_other() -> None:
    rows = [line for line in (ROOT / "docs" / "rooms.md").read_text("utf-8").splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    assert named == {field.name for field in fields(RoomConfig)}


if __name__ == "__main__":
    WALK.write_text(renumbered(WALK.read_text("utf-8"), WALK.parent), "utf-8")
