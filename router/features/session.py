"""Session establishment (RFC 3921, 3): a no-op that old clients still ask for. COMPAT: clients before RFC 6120."""

from __future__ import annotations

from router.feature import At, Feature
from router.turn import Turn
from xmpp import ns
from xmpp.stanza import Stanza

feature = Feature("session", rfc="RFC 3921, 3")


@feature.on_iq("set", ns.SESSION, "session", at=At.OWN)
@feature.on_iq("set", ns.SESSION, "session", at=At.SERVER)
def establish(turn: Turn, iq: Stanza) -> None:
    """Binding a resource has done everything already."""
    turn.answer(iq)
