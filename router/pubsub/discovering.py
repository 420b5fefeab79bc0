"""What there is (XEP-0060, 5; XEP-0030): a service, its nodes, their items."""

from __future__ import annotations

from functools import partial
from typing import Final

from lxml import etree

from router.pubsub import config as configs
from router.pubsub.node import Host, Node
from router.pubsub.rights import may_read, why_not_read
from router.turn import Turn
from storage import pubsub
from xmpp import ns
from xmpp.disco import Identity, Info, info_payload
from xmpp.jid import bare_of
from xmpp.stanza import Stanza
from xmpp.xml import element

LISTED: Final = 1_000  # items named in an answer

# XEP-0060, 10: what is done, by accounts and by services.
_BOTH: Final = (
    "config-node", "config-node-max", "create-and-configure", "create-nodes", "delete-items", "delete-nodes",
    "instant-nodes", "item-ids", "manage-subscriptions", "member-affiliation", "meta-data", "modify-affiliations",
    "multi-items", "outcast-affiliation", "persistent-items", "publish", "publish-only-affiliation", "publish-options",
    "publisher-affiliation", "purge-nodes", "retract-items", "retrieve-affiliations", "retrieve-default",
    "retrieve-items", "retrieve-subscriptions", "rsm", "subscribe", "auto-create", "access-authorize", "access-open",
    "access-whitelist",
)  # fmt: skip
_ACCOUNT: Final = (
    *_BOTH, "access-presence", "access-roster", "auto-subscribe", "filtered-notifications", "last-published",
    "presence-notifications", "presence-subscribe",
)  # fmt: skip
ACCOUNT_FEATURES: Final = (ns.PUBSUB, *(f"{ns.PUBSUB}#{name}" for name in _ACCOUNT))
SERVICE_FEATURES: Final = (
    ns.DISCO_INFO, ns.DISCO_ITEMS, ns.PUBSUB, *(f"{ns.PUBSUB}#{name}" for name in _BOTH), ns.MAM, ns.PING, ns.RSM,
)  # fmt: skip


def service_info() -> Info:
    """disco#info of a service (5.1)."""
    return Info((Identity("pubsub", "service", "Publishing"),), SERVICE_FEATURES)


def node_info(turn: Turn, host: Host, iq: Stanza, name: str) -> None:
    """5.3 and 5.4: of a node, for those who may read it."""
    node = _readable(turn, host, iq, name)
    form = configs.meta_data(node.config, node.creator, tuple(host.owners(node)), len(node.subscriptions))
    features = (ns.DISCO_INFO, ns.PUBSUB, *((ns.MAM,) if node.config.archive else ()))
    info = Info((Identity("pubsub", "leaf", node.config.title),), features, (form,))
    turn.answer(iq, info_payload(info, name))


def _readable(turn: Turn, host: Host, iq: Stanza, name: str) -> Node:
    node = host.node(name)
    fault = why_not_read(turn, host, node, bare_of(iq.from_ or ""))
    if fault is not None:
        raise fault
    return node


def nodes(turn: Turn, host: Host, bare: str) -> list[bytes]:
    """5.2: `<item/>`s of disco#items, of those nodes that somebody may read."""
    return [
        element("item", None, {"jid": host.bare, "node": node.name, "name": node.config.title or None})
        for node in host.nodes.values()
        if may_read(turn, host, node, bare)
    ]


def node_items(turn: Turn, host: Host, iq: Stanza, name: str) -> None:
    """5.5: a node's items by name, for those who may read it."""
    node = _readable(turn, host, iq, name)
    turn.fetch(pubsub.ids, partial(_named, iq, host.bare, name), node.key, LISTED)


def _named(iq: Stanza, bare: str, name: str, turn: Turn, ids: list[str]) -> None:
    found = (element("item", None, {"jid": bare, "name": id_}) for id_ in ids)
    turn.answer(iq, element("query", ns.DISCO_ITEMS, {"node": name}, *found))


def service(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """disco#info of the service, or of one of its nodes."""
    name = asked.get("node")
    if name is None:
        turn.answer(iq, info_payload(service_info()))
    else:
        node_info(turn, host, iq, name)


def service_items(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """disco#items of the service, or of one of its nodes."""
    name = asked.get("node")
    if name is None:
        found = nodes(turn, host, bare_of(iq.from_ or ""))
        turn.answer(iq, element("query", ns.DISCO_ITEMS, None, *found))
    else:
        node_items(turn, host, iq, name)
