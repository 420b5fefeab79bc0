"""Somebody who is erased is nothing to the nodes of others any more, and has published nothing there."""

from __future__ import annotations

from dataclasses import replace

from router.pubsub import config as configs
from router.pubsub import notifying, owning
from router.pubsub.node import Affiliation, Host, Node, host_of
from router.turn import Turn
from storage import erasures
from xmpp.jid import bare_of
from xmpp.xml import element


def forget(turn: Turn, jid: str) -> dict[str, int]:
    """In all nodes of the turn's entity; returns what was removed, by kind. What nobody else owns goes as a whole;
    subscribers of the rest are not told."""
    host = host_of(turn.entity)
    removed = {"node_affiliations": 0, "subscriptions": 0, "nodes": 0}
    for node in list(host.nodes.values()):
        subscribed = [subscriber for subscriber in node.subscriptions if bare_of(subscriber) == jid]
        removed["node_affiliations"] += int(jid in node.affiliations)
        removed["subscriptions"] += len(subscribed)
        if host.owners(node) == [jid]:
            notifying.tell_all(turn, host, node, element("delete", None, {"node": node.name}))
            owning.remove(turn, host, node)
            removed["nodes"] += 1
        else:
            _forget_in(turn, host, node, jid, subscribed)
    return removed


def _forget_in(turn: Turn, host: Host, node: Node, jid: str, subscribed: list[str]) -> None:
    node.affiliations.pop(jid, Affiliation.NONE)
    for subscriber in subscribed:
        del node.subscriptions[subscriber]
    if jid in node.config.contact:
        node.config = replace(node.config, contact=tuple(other for other in node.config.contact if other != jid))
    if node.creator == jid:
        node.creator = ""
    node.last, node.is_last_known = None, False  # it may be theirs
    turn.write(erasures.forget_in_node, node.key, jid, configs.to_json(node.config))
