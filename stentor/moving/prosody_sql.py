"""Where Prosody keeps its stores in SQLite (`storage = "sql"`): values as JSON in `prosody`, lists in
`prosodyarchive`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from stentor.moving.documents import parse
from stentor.moving.lua import FALSE, Table, Value
from stentor.moving.things import Unreadable
from stentor.moving.trees import Tree

HEADER: Final = b"SQLite format 3\0"
PAGE: Final = 500


def is_sqlite(file: Path) -> bool:
    """Whether a file is a database of SQLite."""
    with file.open("rb") as source:
        return source.read(len(HEADER)) == HEADER


class Database:
    """prosody.sqlite, opened for reading alone."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._connection = sqlite3.connect(f"file:{quote(str(file.resolve()))}?mode=ro", uri=True)
        tables = {row[0] for row in self._rows("select name from sqlite_master where type = 'table'")}
        if "prosody" not in tables:
            raise Unreadable(file, "there is no table 'prosody': is it Prosody's database?")
        self._has_archive = "prosodyarchive" in tables

    def _rows(self, sql: str, *values: object) -> list[Any]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as problem:
            raise Unreadable(self._file, str(problem)) from None

    def hosts(self) -> list[str]:
        """Every host that keeps anything."""
        found = {row[0] for row in self._rows("select distinct host from prosody where host is not null")}
        if self._has_archive:
            found |= {row[0] for row in self._rows("select distinct host from prosodyarchive")}
        return sorted(host for host in found if host)

    def stores(self, host: str) -> list[str]:
        """The names of its stores."""
        found = {row[0] for row in self._rows("select distinct store from prosody where host = ?", host)}
        if self._has_archive:
            found |= {row[0] for row in self._rows("select distinct store from prosodyarchive where host = ?", host)}
        return sorted(found)

    def names(self, host: str, store: str) -> Iterator[str]:
        """Those that have rows."""
        sql = "select distinct user from prosody where host = ? and store = ? and user is not null and user <> ''"
        found = {row[0] for row in self._rows(sql, host, store)}
        if self._has_archive:
            sql = 'select distinct "user" from prosodyarchive where host = ? and store = ?'
            found |= {row[0] for row in self._rows(sql, host, store) if row[0]}
        yield from sorted(found)

    def value(self, host: str, name: str, store: str) -> Value:
        """The table made of the rows of a name. A row without a key holds further keys, in one object."""
        sql = "select key, type, value from prosody where host = ? and user = ? and store = ?"
        rows = self._rows(sql, host, name, store)
        if not rows:
            return None
        table = Table()
        for key, type_, value in rows:
            read = self._value(type_, value, name, store)
            if key in (None, ""):
                if isinstance(read, Table):
                    table.items += read.items
                    table.fields |= read.fields
            else:
                table.fields[key] = read
        return table

    def listed(self, host: str, name: str, store: str) -> Iterator[Value]:
        """The rows of an archive, a page at a time."""
        if not self._has_archive:
            return
        last = 0
        while True:
            sql = (
                'select sort_id, "key", "when", "with", type, value from prosodyarchive'
                ' where host = ? and "user" = ? and store = ? and sort_id > ? order by sort_id limit ?'
            )
            page = self._rows(sql, host, name, store, last, PAGE)
            for _, key, when, with_, type_, value in page:
                read = self._value(type_, value, name, store)
                if isinstance(read, Table):
                    read.fields |= {"key": key, "when": when, "with": with_}
                yield read
            if len(page) < PAGE:
                return
            last = page[-1][0]

    def _value(self, type_: str, text: str, name: str, store: str) -> Value:
        place = f"{self._file}, store {store!r} of {name!r}"
        if type_ == "boolean":
            return text == "true"
        if type_ == "number":
            try:
                return float(text)
            except ValueError:
                raise Unreadable(place, f"{text[:40]!r} is no number") from None
        if type_ == "json":
            try:
                return _of_json(json.loads(text))
            except (ValueError, RecursionError) as problem:
                raise Unreadable(place, f"no JSON: {problem}") from None
        if type_ == "xml":
            return _of_tree(parse(text, place))
        return text


def _of_json(value: Any) -> Value:
    """Prosody writes a table with both kinds of keys as an object with `__array` and `__hash`."""
    if isinstance(value, list):
        return Table([_of_json(item) for item in value])
    if isinstance(value, dict):
        items = value.get("__array")
        table = Table([_of_json(item) for item in items] if isinstance(items, list) else [])
        pairs = value.get("__hash")
        if isinstance(pairs, list):
            for key, one in zip(pairs[::2], pairs[1::2], strict=False):
                if isinstance(key, str | int | float):
                    table.fields[FALSE if key is False else key] = _of_json(one)
        for key, one in value.items():
            if key not in ("__array", "__hash"):
                table.fields[key] = _of_json(one)
        return table
    if value is None or isinstance(value, str | int | float):
        return value
    return None


def _of_tree(tree: Tree) -> Table:
    """As Prosody keeps a stanza in its other storage."""
    attributes: dict[Any, Value] = {"xmlns": tree.namespace} if tree.namespace else {}
    for key, value in tree.attributes.items():
        namespace, _, local = key[1:].rpartition("}") if key.startswith("{") else ("", "", key)
        if namespace == "http://www.w3.org/XML/1998/namespace":
            attributes["xml:lang"] = value
        else:
            attributes[f"{namespace}\1{local}" if namespace else local] = value
    children: list[Value] = [child if isinstance(child, str) else _of_tree(child) for child in tree.children]
    return Table(children, {"name": tree.name, "attr": Table([], attributes)})
