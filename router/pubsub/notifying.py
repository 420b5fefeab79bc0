"""Notifications (XEP-0060, 7.1.2; XEP-0163, 4.3): who is told of what has happened at a node, and as what.

Subscribers are told where they have subscribed from. Of an account's nodes those contacts are told, too, whose clients
say in their capabilities that they want it. Contacts of this cluster get it at their bare JID, once, and their own
router, which knows their clients, passes it on (`router/features/pep.py`); of those elsewhere it is known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

from router.blocking_rules import is_blocked
from router.entity import Session
from router.interests import WATCHERS, Wants, resolve
from router.pubsub.node import Affiliation, Host, Node, host_of
from router.pubsub.rights import may_read
from router.turn import Turn
from storage import pubsub
from storage.log import time_of
from storage.pubsub import Item
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.caps import of_presence
from xmpp.jid import bare_of, domain_of
from xmpp.stanza import BY_INTEREST, HAS_EVENT, HAS_OTHER, TO_FULL, Stanza
from xmpp.timestamp import format_moment
from xmpp.xml import element

_PROBED: Final = "watchers probed"  # key in an entity's data


def item_element(node: Node, item: Item) -> bytes:
    """An item as subscribers get it (4.3)."""
    attributes = {"id": item.id, "publisher": item.publisher if item.publisher != node.creator else None}
    return element("item", None, attributes, item.payload if node.config.deliver_payloads else b"")


def items_event(node: Node, items: Sequence[Item]) -> bytes:
    """What has been published."""
    return element("items", None, {"node": node.name}, *(item_element(node, item) for item in items))


def _message(host: Host, node: Node, event: bytes, more: bytes = b"", flags: int = 0) -> Stanza:
    inner = element("event", ns.PUBSUB_EVENT, None, event) + more
    type_ = None if node.config.notification_type == "normal" else "headline"
    return stanzas.message(to=None, from_=host.bare, type=type_, inner=inner, flags=HAS_EVENT | flags)


def tell(turn: Turn, host: Host, node: Node, event: bytes, by: str | None = None) -> None:
    """Something has happened. `by` is the full JID of the client that did it, which those are told who may see its
    presence (XEP-0163, 4.3.1)."""
    if not node.config.deliver_notifications:
        return
    told = [
        jid
        for jid, subscription in node.subscriptions.items()
        if not subscription.is_pending and may_read(turn, host, node, bare_of(jid))
    ]
    _to_all(turn, _message(host, node, event), told)
    if not host.is_service:
        _tell_interested(turn, host, node, event, by)


def _to_all(turn: Turn, message: Stanza, jids: Sequence[str]) -> None:
    """One stanza for all accounts, and one for each resource."""
    bares = [jid for jid in jids if "/" not in jid]
    turn.broadcast(message, bares)
    for jid in jids:
        if "/" in jid:
            turn.send(message._replace(to=jid))


def tell_all(turn: Turn, host: Host, node: Node, event: bytes) -> None:
    """Whatever the node says of notifications, and who is pending, too: it goes (8.4.1)."""
    _to_all(turn, _message(host, node, event), list(node.subscriptions))
    if not host.is_service:
        _tell_interested(turn, host, node, event, None)


def _tell_interested(turn: Turn, host: Host, node: Node, event: bytes, by: str | None) -> None:
    entity = turn.entity
    address = b""
    if by is not None:
        address = element("addresses", ns.ADDRESS, None, element("address", None, {"type": "replyto", "jid": by}))
    message = _message(host, node, event, address, HAS_OTHER if by is not None else 0)
    shared = message._replace(flags=message.flags | TO_FULL)
    for session in entity.available():
        give(turn, session, node.name, shared)
    here, elsewhere = _contacts(turn, host, node)
    turn.broadcast(message._replace(flags=message.flags | BY_INTEREST), here)
    if elsewhere:
        _look_around(turn)
    watchers: dict[str, frozenset[str]] = entity.data.get(WATCHERS, {})
    for jid, wants in watchers.items():
        if node.name in wants and bare_of(jid) in elsewhere:
            turn.send(message._replace(to=jid))


def give(turn: Turn, session: Session, name: str, told: Stanza) -> None:
    """A notification for one of the account's own clients, if it wants it."""
    if session.interest is None:
        assert session.presence is not None
        caps = of_presence(session.presence)
        if caps is not None:  # the account's owner before knew it
            resolve(turn, caps, session.jid, partial(_give_late, session, name, told))
    elif name in session.interest:
        turn.deliver(session, told)


def _give_late(session: Session, name: str, told: Stanza, turn: Turn, wants: Wants) -> None:
    session.interest = wants
    if name in wants and turn.entity.sessions.get(session.resource) is session:
        turn.deliver(session, told)


def _look_around(turn: Turn) -> None:
    """An owner that has taken the account over does not know which clients contacts on other servers have: they are
    asked once, before the first notification, and get it as the newest item."""
    entity = turn.entity
    probed: set[str] = entity.data.setdefault(_PROBED, set())
    known = {bare_of(jid) for jid in entity.data.get(WATCHERS, {})}
    for contact in entity.roster.contacts.values():
        jid = contact.jid
        if not (contact.sees_us and contact.seen_by_us) or jid in known or jid in probed:
            continue
        if domain_of(jid) in turn.settings.domains:
            continue
        probed.add(jid)
        turn.send(stanzas.presence(to=jid, from_=entity.bare, type="probe"))


def _contacts(turn: Turn, host: Host, node: Node) -> tuple[list[str], set[str]]:
    """Contacts who see the account's presence, may read the node and have no subscription of their own: of this
    cluster's domains, and others."""
    entity, domains = turn.entity, turn.settings.domains
    here: list[str] = []
    elsewhere: set[str] = set()
    for contact in entity.roster.contacts.values():
        jid = contact.jid
        if not contact.sees_us or jid in node.subscriptions or is_blocked(entity, jid):
            continue
        if not may_read(turn, host, node, jid):
            continue
        if domain_of(jid) in domains:
            here.append(jid)
        else:
            elsewhere.add(jid)
    return here, elsewhere


def state_of(host: Host, node: Node, jid: str) -> bytes:
    """A `<subscription/>` as it is now."""
    known = node.subscriptions.get(jid)
    attributes = {
        "node": node.name,
        "jid": jid,
        "subid": None if known is None else known.subid,
        "subscription": "none" if known is None else known.state,
    }
    return element("subscription", None, attributes)


def tell_state(turn: Turn, host: Host, node: Node, jid: str) -> None:
    """8.8.4: somebody's subscription is another."""
    turn.send(_message(host, node, state_of(host, node, jid))._replace(to=jid))


def tell_affiliation(turn: Turn, host: Host, node: Node, bare: str, affiliation: Affiliation) -> None:
    """8.9.4: somebody is something else."""
    one = element("affiliation", None, {"node": node.name, "jid": bare, "affiliation": affiliation.word})
    inner = element("pubsub", ns.PUBSUB, None, element("affiliations", None, None, one))
    turn.send(stanzas.message(to=bare, from_=host.bare, type="headline", inner=inner, flags=HAS_EVENT))


# --- the newest item


def send_last(turn: Turn, host: Host, names: Iterable[str], to: str, session: Session | None = None) -> None:
    """The newest items of these nodes, for an address that has come online (`session`: a client of the account) and may
    read them (XEP-0163, 4.3.4)."""
    bare = bare_of(to)
    nodes = [
        node
        for name in names
        if (node := host.nodes.get(name)) is not None
        and node.config.sends_last_on_presence
        and node.config.deliver_notifications
        and may_read(turn, host, node, bare)
    ]
    _send_last(turn, host, nodes, to, session)


def send_last_of(turn: Turn, host: Host, node: Node, to: str) -> None:
    """The newest item of one node, for somebody who has just subscribed (6.1.7)."""
    if node.config.send_last_published_item != "never":
        _send_last(turn, host, [node], to, None)


def _send_last(turn: Turn, host: Host, nodes: Sequence[Node], to: str, session: Session | None) -> None:
    unknown = [node for node in nodes if not node.is_last_known]
    for node in nodes:
        if node.is_last_known and node.last is not None:
            _give(turn, host, node, node.last, to, session)
    if not unknown:
        return

    def found(later: Turn, items: dict[int, Item]) -> None:
        host = host_of(later.entity)
        for node in unknown:
            if host.nodes.get(node.name) is not node:
                continue
            item = items.get(node.key)
            if item is not None:
                _give(later, host, node, item, to, session)

    turn.fetch(pubsub.last_items, found, tuple(node.key for node in unknown))


def _give(turn: Turn, host: Host, node: Node, item: Item, to: str, session: Session | None) -> None:
    if item.seq < node.since(turn.now):
        return
    delay = element("delay", ns.DELAY, {"stamp": format_moment(time_of(item.seq))})
    message = _message(host, node, items_event(node, [item]), delay, stanzas.HAS_DELAY)
    if session is None:
        turn.send(message._replace(to=to))
    elif turn.entity.sessions.get(session.resource) is session:
        turn.deliver(session, message._replace(flags=message.flags | TO_FULL))


def node_of(message: Stanza) -> str | None:
    """Which node a notification is of."""
    event = message.child(ns.PUBSUB_EVENT, "event")
    return None if event is None or not len(event) else event[0].get("node")
