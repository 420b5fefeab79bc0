"""XMPP ping (XEP-0199)."""

from __future__ import annotations

from router.feature import At, Feature
from router.turn import Turn
from xmpp import ns
from xmpp.stanza import Stanza

feature = Feature("ping", xep=((199, "2.0.1"),), server_features=(ns.PING,), account_features=(ns.PING,))


@feature.on_iq("get", ns.PING, "ping", at=At.SERVER)
@feature.on_iq("get", ns.PING, "ping", at=At.OWN)
@feature.on_iq("get", ns.PING, "ping", at=At.ACCOUNT)
def pong(turn: Turn, iq: Stanza) -> None:
    """We are here."""
    turn.answer(iq)
