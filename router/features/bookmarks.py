"""Bookmarks (XEP-0402), and the two older ways to them: one list, whichever way it is read or written (its section 7).

What counts is the node of XEP-0402, with an item for each room. Private storage (XEP-0049) is made from it when it is
asked for (`router/features/private.py`); the node of XEP-0048 follows it, and it follows that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, NamedTuple

from lxml import etree

from router.events import NodeChanged
from router.feature import Feature
from router.pubsub import config as configs
from router.pubsub import publishing
from router.pubsub.node import Node, host_of
from router.turn import Turn
from storage import pubsub
from storage.pubsub import Item, Page, Wanted
from xmpp import ns
from xmpp.errors import JidError
from xmpp.jid import prepare
from xmpp.xml import canonical_element, element, parse_document, text_of

feature = Feature(
    "bookmarks",
    xep=((402, "1.2.0"), (48, "1.2")),
    account_features=(f"{ns.BOOKMARKS}#compat", f"{ns.BOOKMARKS}#compat-pep"),
)

NAME: Final = f"{ns.BOOKMARKS_OLD} storage"  # in private storage
CONFERENCE: Final = f"{{{ns.BOOKMARKS_OLD}}}conference"
_CURRENT: Final = "current"  # XEP-0048, 3: the one item
_TRUE: Final = ("1", "true")


class Bookmark(NamedTuple):
    """What the old ways know of a room; `jid` is the item's id."""

    jid: str
    name: str | None
    autojoin: bool
    nick: str
    password: str


def _of_item(item: Item) -> Bookmark | None:
    if not item.payload:
        return None
    node = parse_document(item.payload)
    if node.tag != f"{{{ns.BOOKMARKS}}}conference":
        return None
    return _read(item.id, node, ns.BOOKMARKS)


def _read(jid: str, node: etree._Element, namespace: str) -> Bookmark:
    nick, password = (text_of(node.find(f"{{{namespace}}}{name}")) for name in ("nick", "password"))
    return Bookmark(jid, node.get("name"), node.get("autojoin") in _TRUE, nick, password)


def _of_storage(storage: etree._Element) -> dict[str, Bookmark]:
    """The rooms of an old list, by JID; what is no address is left out."""
    found: dict[str, Bookmark] = {}
    for node in storage.iterchildren(CONFERENCE):
        try:
            jid = prepare(node.get("jid") or "")
        except JidError:
            continue
        found[jid] = _read(jid, node, ns.BOOKMARKS_OLD)
    return found


def _written(bookmark: Bookmark, namespace: str | None, jid: str | None, more: bytes = b"") -> bytes:
    parts = [element("nick", None, None, bookmark.nick)] if bookmark.nick else []
    if bookmark.password:
        parts.append(element("password", None, None, bookmark.password))
    attributes = {"jid": jid, "name": bookmark.name, "autojoin": "true" if bookmark.autojoin else None}
    return element("conference", namespace, attributes, *parts, more)


def storage_of(items: Iterable[Item], others: Iterable[bytes] = ()) -> bytes:
    """The old list, of a node's items and what else an old client keeps there (links)."""
    bookmarks = filter(None, map(_of_item, items))
    written = (_written(bookmark, None, bookmark.jid) for bookmark in bookmarks)
    return element("storage", ns.BOOKMARKS_OLD, None, *written, *others)


# --- reading and writing all of them


def _node(turn: Turn) -> Node | None:
    return host_of(turn.entity).nodes.get(ns.BOOKMARKS)


def read(turn: Turn, then: Callable[[Turn, list[Item]], None]) -> None:
    """`then(turn, items)` with every item of the node, while everything else waits."""
    node = _node(turn)
    if node is None:
        then(turn, [])
        return

    def found(later: Turn, page: Page) -> None:
        then(later, page.items)

    turn.fetch_first(pubsub.page, found, Wanted(node.key, turn.settings.node_items))


def replace(turn: Turn, storage: etree._Element) -> None:
    """An old client has written its list: rooms that are new or different are published, rooms that are not there are
    taken back. Of what is kept, the extensions stay that no old client knows (XEP-0402, 3)."""
    read(turn, partial(_replace, _of_storage(storage)))


def add(turn: Turn, storage: etree._Element) -> None:
    """Rooms of an old list, as far as they are not there: nothing is taken back."""
    wanted = _of_storage(storage)

    def run(later: Turn, items: list[Item]) -> None:
        known = {item.id for item in items}
        for jid, bookmark in wanted.items():
            if jid not in known:
                payload = _written(bookmark, ns.BOOKMARKS, None)
                publishing.put_own(later, ns.BOOKMARKS, jid, payload, configs.initial(ns.BOOKMARKS, is_service=False))

    read(turn, run)


def _replace(wanted: dict[str, Bookmark], turn: Turn, items: list[Item]) -> None:
    known = {item.id: item for item in items}
    for jid, bookmark in wanted.items():
        item = known.get(jid)
        if item is None or _of_item(item) != bookmark:
            payload = _written(bookmark, ns.BOOKMARKS, None, b"" if item is None else _extensions(item))
            publishing.put_own(turn, ns.BOOKMARKS, jid, payload, configs.initial(ns.BOOKMARKS, is_service=False))
    gone = tuple(id_ for id_ in known if id_ not in wanted)
    node = _node(turn)
    if gone and node is not None:
        publishing.take_back(turn, host_of(turn.entity), node, gone, is_told=True)


def _extensions(item: Item) -> bytes:
    node = parse_document(item.payload) if item.payload else None
    extensions = None if node is None else node.find(f"{{{ns.BOOKMARKS}}}extensions")
    return b"" if extensions is None else canonical_element(extensions, ns.BOOKMARKS)


# --- the node of XEP-0048


@feature.on_event(NodeChanged)
def has_changed(turn: Turn, event: NodeChanged) -> None:
    """Each of the nodes follows the other; where both say the same, nothing more happens."""
    if event.name == ns.BOOKMARKS:
        read(turn, _follow)
    elif event.name == ns.BOOKMARKS_OLD:
        node = host_of(turn.entity).nodes.get(ns.BOOKMARKS_OLD)
        if node is not None:
            turn.fetch_first(pubsub.last_items, partial(_lead, node.key), (node.key,))


def _follow(turn: Turn, items: list[Item]) -> None:
    old = host_of(turn.entity).nodes.get(ns.BOOKMARKS_OLD)
    payload = storage_of(items)
    if len(payload) > turn.settings.item_bytes:
        return
    if old is not None and old.last is not None and _same(old.last.payload, payload):
        return
    config = configs.initial(ns.BOOKMARKS_OLD, is_service=False)
    publishing.put_own(turn, ns.BOOKMARKS_OLD, _CURRENT, payload, config)


def _same(one: bytes, other: bytes) -> bool:
    return bool(one) and _of_storage(parse_document(one)) == _of_storage(parse_document(other))


def _lead(key: int, turn: Turn, items: dict[int, Item]) -> None:
    item = items.get(key)
    if item is None or not item.payload:
        return
    storage = parse_document(item.payload)
    if storage.tag == f"{{{ns.BOOKMARKS_OLD}}}storage":
        replace(turn, storage)
