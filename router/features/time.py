"""Entity time of the server (XEP-0202)."""

from __future__ import annotations

from datetime import UTC, datetime

from router.feature import At, Feature
from router.turn import Turn
from xmpp import ns
from xmpp.stanza import Stanza
from xmpp.xml import element

feature = Feature("time", xep=((202, "2.0"),), server_features=(ns.TIME,))


@feature.on_iq("get", ns.TIME, "time", at=At.SERVER)
def tell(turn: Turn, iq: Stanza) -> None:
    """The server's time in UTC (XEP-0082); it lives in no time zone."""
    utc = datetime.fromtimestamp(turn.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    turn.answer(
        iq, element("time", ns.TIME, None, element("tzo", None, None, "+00:00"), element("utc", None, None, utc))
    )
