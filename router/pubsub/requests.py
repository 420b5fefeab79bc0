"""Requests about nodes, by what they ask for; the same for accounts and services."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lxml import etree

from router.archive_query import Reading
from router.pubsub import owning, publishing, reading, subscribing
from router.pubsub.node import Host, host_of
from router.pubsub.rights import unsupported, why_not_read
from router.turn import Turn
from xmpp import ns
from xmpp.errors import BadRequest, FeatureNotImplemented
from xmpp.jid import bare_of
from xmpp.stanza import Stanza
from xmpp.xml import split_tag

Handler = Callable[[Turn, Host, Stanza, etree._Element], None]

_HANDLERS: Final[dict[tuple[str, str, str], Handler]] = {
    ("set", ns.PUBSUB, "publish"): publishing.publish,
    ("set", ns.PUBSUB, "retract"): publishing.retract,
    ("get", ns.PUBSUB, "items"): reading.items,
    ("get", ns.PUBSUB, "subscriptions"): reading.subscriptions,
    ("get", ns.PUBSUB, "affiliations"): reading.affiliations,
    ("set", ns.PUBSUB, "subscribe"): subscribing.subscribe,
    ("set", ns.PUBSUB, "unsubscribe"): subscribing.unsubscribe,
    ("get", ns.PUBSUB, "options"): subscribing.refuse_options,
    ("set", ns.PUBSUB, "options"): subscribing.refuse_options,
    ("get", ns.PUBSUB, "default"): subscribing.refuse_defaults,
    ("set", ns.PUBSUB, "create"): owning.make,
    ("get", ns.PUBSUB_OWNER, "configure"): owning.show_config,
    ("set", ns.PUBSUB_OWNER, "configure"): owning.configure,
    ("get", ns.PUBSUB_OWNER, "default"): owning.show_default,
    ("set", ns.PUBSUB_OWNER, "delete"): owning.delete,
    ("set", ns.PUBSUB_OWNER, "purge"): owning.purge,
    ("get", ns.PUBSUB_OWNER, "subscriptions"): owning.list_subscriptions,
    ("set", ns.PUBSUB_OWNER, "subscriptions"): owning.change_subscriptions,
    ("get", ns.PUBSUB_OWNER, "affiliations"): owning.list_affiliations,
    ("set", ns.PUBSUB_OWNER, "affiliations"): owning.change_affiliations,
}
# What goes with one of them and is no request of its own.
_BESIDE: Final = frozenset({"publish-options", "configure", "options", "set"})


def handle(turn: Turn, iq: Stanza) -> None:
    """Answer a request for the nodes of the turn's entity."""
    (pubsub,) = iq.children()
    namespace, _ = split_tag(str(pubsub.tag))
    children = [child for child in pubsub if isinstance(child.tag, str)]
    if not children:
        raise BadRequest("The request asks for nothing.")
    names = [split_tag(str(child.tag))[1] for child in children]
    asked = next((index for index, name in enumerate(names) if name not in _BESIDE), 0)
    if any(name not in _BESIDE for index, name in enumerate(names) if index != asked):
        raise BadRequest("Ask for one thing at a time.")
    handler = _HANDLERS.get((iq.type or "", namespace, names[asked]))
    if handler is None:
        if any(key[1:] == (namespace, names[asked]) for key in _HANDLERS):
            raise BadRequest("That is asked with the other type of request.")
        raise FeatureNotImplemented
    handler(turn, host_of(turn.entity), iq, children[asked])


def archive(turn: Turn, iq: Stanza, name: str) -> None:
    """XEP-0442: what was published at a node, for those who may read it."""
    host = host_of(turn.entity)
    node = host.node(name)
    fault = why_not_read(turn, host, node, bare_of(iq.from_ or ""))
    if fault is not None:
        raise fault
    if not node.config.archive:
        raise unsupported("archive", "This node has no archive.")
    Reading(turn, iq, node.key).begin(turn)
