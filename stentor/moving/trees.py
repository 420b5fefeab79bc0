"""XML as a small tree, made by every reader and written in one way: each namespace declared where it is used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from xmpp.xml import escape_attribute, escape_text

XML: Final = "http://www.w3.org/XML/1998/namespace"
DEPTH: Final = 200

_NAME: Final = re.compile(r"[^\W\d][\w.\-]*")
_NO_CHARACTER: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Unwritable(ValueError):
    """Something that cannot be in an XML document."""


@dataclass(slots=True)
class Tree:
    """An element. Attributes with a namespace are named "{namespace}local"."""

    namespace: str
    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Tree | str] = field(default_factory=list)

    def elements(self, name: str = "", namespace: str | None = None) -> Iterator[Tree]:
        """Child elements: all, of a name, or of a name and a namespace."""
        for child in self.children:
            if (
                isinstance(child, Tree)
                and name in ("", child.name)
                and (namespace is None or child.namespace == namespace)
            ):
                yield child

    def child(self, name: str, namespace: str | None = None) -> Tree | None:
        """The first such child."""
        return next(self.elements(name, namespace), None)

    @property
    def text(self) -> str:
        """Its own character data."""
        return "".join(child for child in self.children if isinstance(child, str))


def write(tree: Tree, default_namespace: str = "", depth: int = 0) -> str:
    """The element as XML, for where `default_namespace` is the default. Raises Unwritable."""
    if depth > DEPTH:
        raise Unwritable(f"elements are nested more than {DEPTH} deep")
    head = f"<{_name(tree.name)}"
    if tree.namespace != default_namespace:
        head += f' xmlns="{escape_attribute(_text(tree.namespace))}"'
    for index, (key, value) in enumerate(tree.attributes.items()):
        namespace, _, local = key[1:].rpartition("}") if key.startswith("{") else ("", "", key)
        if namespace == XML:
            head += f' xml:{_name(local)}="{escape_attribute(_text(value))}"'
        elif namespace:
            of = escape_attribute(_text(namespace))
            head += f' xmlns:n{index}="{of}" n{index}:{_name(local)}="{escape_attribute(_text(value))}"'
        else:
            head += f' {_name(local)}="{escape_attribute(_text(value))}"'
    inner = "".join(
        write(child, tree.namespace, depth + 1) if isinstance(child, Tree) else escape_text(_text(child))
        for child in tree.children
    )
    return f"{head}>{inner}</{tree.name}>" if inner else f"{head}/>"


def attributes_of(given: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The namespace and the attributes of an element whose attributes are named as in a document: `xmlns` is one of
    them, and `xml:lang`."""
    attributes = {}
    for key, value in given.items():
        if key == "xml:lang":
            attributes[f"{{{XML}}}lang"] = value
        elif key != "xmlns" and ":" not in key and "\1" not in key:
            attributes[key] = value
    return given.get("xmlns", ""), attributes


def _name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise Unwritable(f"{name[:40]!r} is no name of an element or attribute")
    return name


def _text(text: str) -> str:
    if _NO_CHARACTER.search(text) is not None:
        raise Unwritable("there is a character that XML cannot have, or text that is not UTF-8")
    return text
