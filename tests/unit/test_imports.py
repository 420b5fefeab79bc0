"""Who may import whom, read from the source: also imports inside functions and under TYPE_CHECKING count."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MAY_IMPORT = {
    "xmpp": set(),
    "cluster": {"xmpp"},
    "storage": {"cluster", "xmpp"},
    "router": {"storage", "cluster", "xmpp"},
    "c2s": {"cluster", "xmpp"},
    "s2s": {"cluster", "xmpp"},
    "stentor": {"xmpp", "cluster", "storage", "router", "c2s", "s2s"},
}


def module_name(file: Path, root: Path = ROOT) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Every module that `source` imports, absolute; for `from a import b` also `a.b`, which may be a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                parents = package[: len(package) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def graph() -> dict[str, set[str]]:
    """Each module of the project -> the modules of the project that it imports."""
    files = {module_name(file): file for package in MAY_IMPORT for file in (ROOT / package).rglob("*.py")}
    return {
        name: {target for target in imported(file.read_text(), name, file.name == "__init__.py") if target in files}
        - {name}
        for name, file in files.items()
    }


def circle(edges: dict[str, set[str]]) -> list[str]:
    """One circle of imports, or nothing."""
    done: set[str] = set()

    def search(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        for target in sorted(edges[name]):
            if found := search(target, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(edges) if (found := search(name, []))), [])


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    wrong = [
        f"{name} imports {target}"
        for name, targets in graph().items()
        for target in sorted(targets)
        if name.split(".")[0] == package and target.split(".")[0] not in MAY_IMPORT[package] | {package}
    ]
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    edges = graph()
    # A name taken from a package counts as an import of the package, and `a.b` runs `a/__init__.py` first: that is
    # no circle unless the package itself imports something.
    assert circle(edges) == []


def test_the_walk_sees_hidden_imports() -> None:
    source = """
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from storage import pool
def later():
    import router.turn
    from . import edge
    from ..xmpp import jid
"""
    found = set(imported(source, "c2s.tcp", is_package=False))
    assert {"storage", "storage.pool", "router.turn", "c2s.edge", "xmpp.jid"} <= found


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
