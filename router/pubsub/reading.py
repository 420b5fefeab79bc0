"""What readers ask for (XEP-0060, 6.5; paged by XEP-0059): items."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Final

from lxml import etree

from router.pubsub.node import Affiliation, Host, Node
from router.pubsub.publishing import name_of
from router.pubsub.rights import unsupported, why_not_read
from router.turn import Turn
from storage import pubsub
from storage.pubsub import Item, Page, Wanted
from xmpp import ns, rsm
from xmpp.errors import BadRequest, ItemNotFound
from xmpp.jid import bare_of
from xmpp.stanza import Stanza
from xmpp.xml import element

_ITEM: Final = f"{{{ns.PUBSUB}}}item"


def items(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """6.5: all items, or as many as go into an answer; the newest of them, a page of them, or those that are named."""
    node = host.node(name_of(asked))
    fault = why_not_read(turn, host, node, bare_of(iq.from_ or ""))
    if fault is not None:
        raise fault
    if not node.config.persist_items:
        raise unsupported("persistent-items")
    since = node.since(turn.now)
    ids = tuple(item.get("id") or "" for item in asked.iterchildren(_ITEM))
    if ids:
        turn.fetch(pubsub.items_by_id, partial(_named, iq, node), node.key, ids, since)
        return
    parent = asked.getparent()
    assert parent is not None
    page, most = rsm.parse(parent), turn.settings.node_items
    limit = most if page.max is None else min(page.max, most)
    is_backwards = page.before is not None
    newest = asked.get("max_items")
    if newest is not None:
        if not (newest.isascii() and newest.isdigit() and int(newest[:9]) > 0):
            raise BadRequest("'max_items' is a number.")
        limit, is_backwards = min(limit, int(newest[:9])), True
    wanted = Wanted(node.key, limit, page.after, page.before or None, page.index, is_backwards, since)
    is_paged = page != rsm.Page()
    turn.fetch(pubsub.page, partial(_paged, iq, node, is_paged), wanted)


def _named(iq: Stanza, node: Node, turn: Turn, found: list[Item]) -> None:
    turn.answer(iq, element("pubsub", ns.PUBSUB, None, _written(node, found)))


def _paged(iq: Stanza, node: Node, is_paged: bool, turn: Turn, page: Page) -> None:
    if not page.is_known:
        raise ItemNotFound("There is no such item.")  # XEP-0059, 2.4
    items = page.items
    set_ = b""
    if is_paged or len(items) < page.total:  # 6.5.4: what was left out is said
        first, last = (items[0].id, items[-1].id) if items else (None, None)
        set_ = rsm.build(first=first, last=last, index=page.place if items else None, count=page.total)
    turn.answer(iq, element("pubsub", ns.PUBSUB, None, _written(node, items), set_))


def _written(node: Node, items: Iterable[Item]) -> bytes:
    written = (
        element(
            "item", None, {"id": item.id, "publisher": item.publisher if item.publisher != node.creator else None},
            item.payload,
        )
        for item in items
    )  # fmt: skip
    return element("items", None, {"node": node.name}, *written)


# --- what somebody is, and what they have subscribed to


def subscriptions(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """5.6: those of whoever asks, to one node or to all."""
    actor, name = bare_of(iq.from_ or ""), asked.get("node")
    nodes = [host.node(name)] if name else list(host.nodes.values())
    found = (
        element(
            "subscription", None,
            {"node": None if name else node.name, "jid": jid, "subscription": known.state, "subid": known.subid},
        )
        for node in nodes
        for jid, known in node.subscriptions.items()
        if bare_of(jid) == actor
    )  # fmt: skip
    turn.answer(iq, element("pubsub", ns.PUBSUB, None, element("subscriptions", None, {"node": name}, *found)))


def affiliations(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """5.7: those of whoever asks, with one node or with all."""
    actor, name = bare_of(iq.from_ or ""), asked.get("node")
    nodes = [host.node(name)] if name else list(host.nodes.values())
    found = []
    for node in nodes:
        affiliation = host.affiliation(node, actor, turn.settings)
        if affiliation != Affiliation.NONE:
            attributes = {"node": None if name else node.name, "affiliation": affiliation.word}
            found.append(element("affiliation", None, attributes))
    turn.answer(iq, element("pubsub", ns.PUBSUB, None, element("affiliations", None, {"node": name}, *found)))
