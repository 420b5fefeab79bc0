"""Private XML storage (XEP-0049): one element for each name, for its owner alone."""

from __future__ import annotations

from functools import partial
from typing import Final

from lxml import etree

from router.feature import At, Feature
from router.features.bookmarks import CONFERENCE, NAME, read, replace, storage_of
from router.turn import Turn
from storage import private
from storage.pubsub import Item
from xmpp import ns
from xmpp.errors import BadRequest, Forbidden, NotAcceptable, ResourceConstraint
from xmpp.stanza import Stanza
from xmpp.xml import canonical_element, element, parse_document, split_tag

feature = Feature("private", xep=((49, "1.2"),), server_features=(ns.PRIVATE,))

# XEP-0049, 2.3: names that belong to the protocol itself.
_RESERVED: Final = ("jabber:client", "jabber:server", "jabber:iq:", "vcard-temp")


@feature.on_iq("set", ns.PRIVATE, "query", at=At.OWN)
def put(turn: Turn, iq: Stanza) -> None:
    """Store the children, each in place of the former one of its name."""
    children = _children(iq)
    if not children:
        raise NotAcceptable("There is no element in the query.")  # 2.3
    key = turn.entity.key
    assert key is not None
    bookmarks = [child for child in children if _name(child) == NAME]
    stored = {_name(child): _kept(child) for child in children}
    new_bytes = sum(map(len, stored.values()))
    if new_bytes > turn.settings.private_bytes:
        raise NotAcceptable("The element is too large.")

    def counted(later: Turn, other_bytes: int) -> None:
        if other_bytes + new_bytes > later.settings.private_bytes:
            raise ResourceConstraint("There is no room for it in this account's private storage.")
        for name, xml in stored.items():
            later.write(private.put, key, name, xml)
        for storage in bookmarks[-1:]:
            replace(later, storage)
        later.answer(iq)

    turn.fetch(private.total_size, counted, key, tuple(stored))


@feature.on_iq("get", ns.PRIVATE, "query", at=At.OWN)
def get(turn: Turn, iq: Stanza) -> None:
    """XEP-0049, 2.3: the stored element, or the empty one that was asked for."""
    children = _children(iq)
    if not children:
        raise BadRequest("There is no element in the query.")  # 2.3: "Bad Format" of old
    if len(children) != 1:
        raise NotAcceptable("Ask for one element at a time.")
    asked = children[0]
    key = turn.entity.key
    assert key is not None

    def found(later: Turn, xml: bytes | None) -> None:
        if _name(asked) == NAME:
            read(later, partial(_answer_bookmarks, iq, xml))
            return
        inner = xml if xml is not None else canonical_element(asked, ns.PRIVATE)
        later.answer(iq, element("query", ns.PRIVATE, None, inner))

    turn.fetch(private.get, found, key, _name(asked))


def _kept(child: etree._Element) -> bytes:
    """Of bookmarks, what the node has (XEP-0402) is not kept here, too."""
    if _name(child) != NAME:
        return canonical_element(child, ns.PRIVATE)
    others = (canonical_element(other, ns.BOOKMARKS_OLD) for other in child if other.tag != CONFERENCE)
    return element("storage", ns.BOOKMARKS_OLD, None, *others)


def _answer_bookmarks(iq: Stanza, xml: bytes | None, turn: Turn, items: list[Item]) -> None:
    kept = () if xml is None else parse_document(xml)
    others = (canonical_element(other, ns.BOOKMARKS_OLD) for other in kept if other.tag != CONFERENCE)
    turn.answer(iq, element("query", ns.PRIVATE, None, storage_of(items, others)))


@feature.on_iq("get", ns.PRIVATE, "query", at=At.ACCOUNT)
@feature.on_iq("set", ns.PRIVATE, "query", at=At.ACCOUNT)
def refuse(turn: Turn, iq: Stanza) -> None:
    """XEP-0049, 2.3: another's private data."""
    raise Forbidden


def _children(iq: Stanza) -> list[etree._Element]:
    query = iq.child(ns.PRIVATE, "query")
    assert query is not None
    children = [child for child in query if isinstance(child.tag, str)]
    for child in children:
        namespace, _ = split_tag(str(child.tag))
        if namespace in ("", ns.PRIVATE) or namespace.startswith(_RESERVED):
            raise NotAcceptable("Elements need a namespace of their own.")
    return children


def _name(child: etree._Element) -> str:
    return " ".join(split_tag(str(child.tag)))
