"""Contacts of shared groups (`router/shared_groups.py`): what people ask each other for, they have already."""

from __future__ import annotations

from typing import Final

from router.feature import Feature, Stage
from router.turn import Turn
from xmpp.jid import bare_of
from xmpp.stanza import Stanza

feature = Feature("shared_groups")

_SUBSCRIPTIONS: Final = frozenset({"subscribe", "subscribed", "unsubscribe", "unsubscribed"})


@feature.on_presence(Stage.OUT_SCREEN)
def send(turn: Turn, presence: Stanza) -> bool:
    """A subscription that the operator has made is neither asked for nor taken back."""
    return presence.to is not None and _is_settled(turn, presence, presence.to)


@feature.on_presence(Stage.IN_SCREEN)
def receive(turn: Turn, presence: Stanza) -> bool:
    """Likewise."""
    return presence.from_ is not None and _is_settled(turn, presence, presence.from_)


def _is_settled(turn: Turn, presence: Stanza, jid: str) -> bool:
    if presence.type not in _SUBSCRIPTIONS:
        return False
    contact = turn.entity.roster.contacts.get(bare_of(jid))
    return contact is not None and bool(contact.shared)
