"""Result Set Management (XEP-0059): which page of a result set is asked for, and which one an answer holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lxml import etree

from xmpp import ns
from xmpp.errors import BadRequest
from xmpp.xml import element, text_of

_SET: Final = f"{{{ns.RSM}}}set"
_DIGITS: Final = 10  # of an xs:int


@dataclass(frozen=True, slots=True)
class Page:
    """What is asked for. `max` items at most (0: only the count), None: as many as the server likes; those behind
    `after`, or the last ones before `before` ("": of all), or those from the one at `index` on."""

    max: int | None = None
    after: str | None = None
    before: str | None = None
    index: int | None = None


def parse(parent: etree._Element) -> Page:
    """The `<set/>` of a request, which is a child of `parent`; without one, everything from the beginning. Raises
    BadRequest."""
    node = parent.find(_SET)
    if node is None:
        return Page()
    # 2.2: without <after/>, it "defaults to before the first item"; an empty one says no more.
    return Page(_number(node, "max"), _text(node, "after") or None, _text(node, "before"), _number(node, "index"))


def build(
    *, first: str | None = None, last: str | None = None, index: int | None = None, count: int | None = None
) -> bytes:
    """The `<set/>` of an answer: the ids of the first and the last item of the page (none of an empty one), the
    position of the first in the whole set and the size of that, where they are known."""
    parts = []
    if first is not None and last is not None:
        at = {"index": None if index is None else str(index)}
        parts = [element("first", None, at, first), element("last", None, None, last)]
    if count is not None:
        parts.append(element("count", None, None, str(count)))
    return element("set", ns.RSM, None, *parts)


def _text(node: etree._Element, name: str) -> str | None:
    child = node.find(f"{{{ns.RSM}}}{name}")
    return None if child is None else text_of(child)


def _number(node: etree._Element, name: str) -> int | None:
    text = _text(node, name)
    if text is None:
        return None
    text = text.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > _DIGITS:
        raise BadRequest(f"'{name}' is not a number.")
    return int(text)
