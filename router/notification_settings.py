"""For which chats somebody wants to be notified (XEP-0492): what their bookmarks say (XEP-0402)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Literal

from lxml import etree

from router.pubsub.node import host_of
from router.turn import Turn
from storage import pubsub
from storage.pubsub import Item, Page, Wanted
from xmpp import ns
from xmpp.xml import parse_document

When = Literal["always", "on-mention", "never"]

DATA: Final = "notification settings"  # key in an entity's data; taken out when the bookmarks change
_NOTIFY: Final = f"{{{ns.BOOKMARKS}}}extensions/{{{ns.NOTIFICATION_SETTINGS}}}notify"
_WORDS: Final[dict[str, When]] = {
    f"{{{ns.NOTIFICATION_SETTINGS}}}{word}": word for word in ("always", "on-mention", "never")
}
# What is pushed goes to phones: of settings by identity (2.2) theirs goes first.
_IDENTITIES: Final = (("client", "phone"), ("client", None), (None, None))


def with_settings(turn: Turn, then: Callable[[Turn, dict[str, When]], None]) -> None:
    """`then(turn, settings)` by chat (bare JID): at once where they are known, else in a later turn."""
    known: dict[str, When] | None = turn.entity.data.get(DATA)
    node = host_of(turn.entity).nodes.get(ns.BOOKMARKS)
    if known is not None or node is None:
        then(turn, known or {})
        return

    def found(later: Turn, page: Page) -> None:
        settings = later.entity.data[DATA] = _read(page.items)
        then(later, settings)

    turn.fetch(pubsub.page, found, Wanted(node.key, turn.settings.node_items))


def _read(items: Iterable[Item]) -> dict[str, When]:
    found: dict[str, When] = {}
    for item in items:
        if ns.NOTIFICATION_SETTINGS.encode() not in item.payload:
            continue
        notify = parse_document(item.payload).find(_NOTIFY)
        when = None if notify is None else _chosen(notify)
        if when is not None:
            found[item.id] = when
    return found


def _chosen(notify: etree._Element) -> When | None:
    """3: the most specific one."""
    for category, type_ in _IDENTITIES:
        for child in notify:
            when = _WORDS.get(str(child.tag))
            if when is not None and (child.get("identity-category"), child.get("identity-type")) == (category, type_):
                return when
    return None
