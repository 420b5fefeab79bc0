"""XML documents in parts: elements as they come, in files that include each other (XInclude), with no entities, no
network, and nothing outside of the folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Final
from urllib.parse import unquote
from xml.parsers import expat

from stentor.moving.things import Unreadable
from stentor.moving.trees import DEPTH, Tree

INCLUDE: Final = "http://www.w3.org/2001/XInclude"
INCLUDES_DEEP: Final = 8
CHUNK: Final = 65_536
ELEMENT_BYTES: Final = 32 * 1024 * 1024  # of text in one element that is built as a tree

Start = tuple[str, str, dict[str, str]]
Event = Start | str | None  # a start tag (namespace, name, attributes), text, an end tag


class Document:
    """A document, to be gone through from its beginning to its end; `place` says where that is, for errors."""

    def __init__(self, file: Path) -> None:
        self._folder = file.resolve().parent
        self._first = file
        self.place = str(file)
        self._events = self._read(file, ())

    def next(self) -> Event:
        """The next event. Raises Unreadable; StopIteration at the end."""
        return next(self._events)

    def children(self) -> Iterator[Start]:
        """The child elements of the element whose start tag was the last event. The caller takes each of them with
        `tree`, `skip` or `children`, to its end."""
        while (event := self.next()) is not None:
            if not isinstance(event, str):
                yield event

    def tree(self, start: Start) -> Tree:
        """The whole element whose start tag was the last event."""
        return self._tree(start, [0], 0)

    def _tree(self, start: Start, size: list[int], depth: int) -> Tree:
        tree = Tree(*start)
        if depth > DEPTH:
            raise Unreadable(self.place, f"elements are nested more than {DEPTH} deep")
        while (event := self.next()) is not None:
            if isinstance(event, str):
                size[0] += len(event)
                if size[0] > ELEMENT_BYTES:
                    raise Unreadable(self.place, f"one element has more than {ELEMENT_BYTES // 1024 // 1024} MiB")
                tree.children.append(event)
            else:
                tree.children.append(self._tree(event, size, depth + 1))
        return tree

    def skip(self) -> None:
        """Go to the end of the element whose start tag was the last event."""
        depth = 1
        while depth:
            event = self.next()
            if event is None:
                depth -= 1
            elif not isinstance(event, str):
                depth += 1

    # --- files

    def _read(self, file: Path, including: tuple[Path, ...]) -> Iterator[Event]:
        try:
            with file.open("rb") as source:
                yield from self._parse(file, source.read, including)
        except OSError as problem:
            raise Unreadable(file, problem.strerror or str(problem)) from None

    def _parse(self, file: Path, read: Callable[[int], bytes], including: tuple[Path, ...]) -> Iterator[Event]:
        found: list[tuple[int, Event]] = []
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True

        def start(name: str, attributes: dict[str, str]) -> None:
            namespace, _, local = name.rpartition(" ")
            named = {_attribute(key): value for key, value in attributes.items()}
            found.append((parser.CurrentLineNumber, (namespace, local, named)))

        def text(data: str) -> None:
            found.append((parser.CurrentLineNumber, data))

        def end(name: str) -> None:
            found.append((parser.CurrentLineNumber, None))

        def doctype(*_: object) -> None:
            raise Unreadable(
                f"{file}, line {parser.CurrentLineNumber}", "a DOCTYPE, which may define entities, is not read"
            )

        parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
        parser.StartDoctypeDeclHandler = doctype
        inside_include = 0
        while True:
            data, wrong = read(CHUNK), None
            try:
                parser.Parse(data, not data)
            except expat.ExpatError as problem:  # what came before it was right
                where = f"{file}, line {problem.lineno}, column {problem.offset}"
                wrong = Unreadable(where, expat.errors.messages[problem.code])
            for line, event in found:
                self.place = f"{file}, line {line}"
                if inside_include:
                    inside_include += 0 if isinstance(event, str) else -1 if event is None else 1
                elif isinstance(event, tuple) and event[0] == INCLUDE:
                    inside_include = 1
                    yield from self._include(event, including)
                else:
                    yield event
            found.clear()
            if wrong is not None:
                raise wrong
            if not data:
                return

    def _include(self, start: Start, including: tuple[Path, ...]) -> Iterator[Event]:
        _, name, attributes = start
        href = attributes.get("href", "")
        if name != "include" or not href or attributes.get("parse", "xml") != "xml" or "xpointer" in attributes:
            raise Unreadable(self.place, "of XInclude, only <include href='...'/> of whole documents is read")
        if ":" in href.partition("/")[0] or href.startswith("/") or "#" in href:
            raise Unreadable(self.place, f"{href[:200]!r} is not a file beside this one")
        file = (
            (self._first.parent / unquote(href)).resolve()
            if not including
            else (including[-1] / unquote(href)).resolve()
        )
        if not file.is_relative_to(self._folder):
            raise Unreadable(self.place, f"{href[:200]!r} is outside of {self._folder}")
        if len(including) >= INCLUDES_DEEP:
            raise Unreadable(self.place, f"files include each other more than {INCLUDES_DEEP} deep")
        place = self.place
        yield from self._read(file, (*including, file.parent))
        self.place = place


def parse(text: str, place: str) -> Tree:
    """One element that is the whole of a text. Raises Unreadable, which names the place."""
    document = Document(Path(place))
    source = BytesIO(text.encode("utf-8", "surrogateescape"))
    document._events = document._parse(Path(place), source.read, (Path(),) * INCLUDES_DEEP)
    start = document.next()
    assert isinstance(start, tuple)  # expat says so
    tree = document.tree(start)
    for _ in document._events:
        pass
    return tree


def _attribute(key: str) -> str:
    namespace, _, local = key.rpartition(" ")
    return f"{{{namespace}}}{local}" if namespace else local
