"""Who may do what with a node, and with which error they are told that they may not (XEP-0060, 4.1, 4.5, 6.1.3)."""

from __future__ import annotations

from typing import Final

from router.contacts import Contact
from router.entity import Entity
from router.pubsub.node import Affiliation, Host, Node
from router.turn import Turn
from xmpp import ns
from xmpp.errors import FeatureNotImplemented, Forbidden, NotAllowed, NotAuthorized, StanzaError
from xmpp.xml import element

_READERS: Final = frozenset({Affiliation.OWNER, Affiliation.PUBLISHER, Affiliation.MEMBER})


def because(condition: str, feature: str | None = None) -> bytes:
    """A condition of the protocol's own (17.2)."""
    return element(condition, ns.PUBSUB_ERRORS, {"feature": feature})


def unsupported(feature: str, text: str | None = None) -> FeatureNotImplemented:
    """The error for what a node or the service does not do."""
    return FeatureNotImplemented(text, application=because("unsupported", feature))


def why_not_read(turn: Turn, host: Host, node: Node, bare: str) -> StanzaError | None:
    """The error for who may not subscribe to a node or read from it; None: they may. 4.5, 6.1.3, 6.5.9."""
    affiliation = host.affiliation(node, bare, turn.settings)
    if affiliation in (Affiliation.OUTCAST, Affiliation.PUBLISH_ONLY):
        return Forbidden("You may not read what is published there.")
    if affiliation in _READERS:
        return None
    model = node.config.access_model
    if model == "open":
        return None
    if model == "whitelist":
        return NotAllowed("Members alone may read it.", application=because("closed-node"))
    if model == "authorize":
        if node.is_subscribed(bare):
            return None
        return NotAuthorized("Subscribers alone may read it.", application=because("not-subscribed"))
    contact = turn.entity.roster.contacts.get(bare)
    if contact is None or not contact.sees_us:
        return NotAuthorized(application=because("presence-subscription-required"))
    if model == "roster" and not _is_in_group(node, contact):
        return NotAuthorized(application=because("not-in-roster-group"))
    return None


def _is_in_group(node: Node, contact: Contact) -> bool:
    return not set(contact.groups).isdisjoint(node.config.roster_groups_allowed)


def may_read(turn: Turn, host: Host, node: Node, bare: str) -> bool:
    """Whether they may."""
    return why_not_read(turn, host, node, bare) is None


def check_publisher(turn: Turn, host: Host, node: Node, bare: str) -> None:
    """7.1.3.1. Raises Forbidden."""
    affiliation = host.affiliation(node, bare, turn.settings)
    model = node.config.publish_model
    if affiliation >= Affiliation.PUBLISH_ONLY or (model == "open" and affiliation != Affiliation.OUTCAST):
        return
    if not (model == "subscribers" and node.is_subscribed(bare) and affiliation != Affiliation.OUTCAST):
        raise Forbidden("You may not publish there.")


def check_owner(turn: Turn, host: Host, node: Node, bare: str) -> None:
    """8: owners alone. Raises Forbidden."""
    if host.affiliation(node, bare, turn.settings) != Affiliation.OWNER:
        raise Forbidden("Owners of the node alone may do that.")


def is_known_to(entity: Entity, bare: str) -> bool:
    """Whether an account may be asked about by somebody (XEP-0030, 8): by those who see its presence."""
    contact = entity.roster.contacts.get(bare)
    return bare == entity.bare or (contact is not None and contact.sees_us)
