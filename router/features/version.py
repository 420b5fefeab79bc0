"""Software version of the server (XEP-0092)."""

from __future__ import annotations

import platform

from router.feature import At, Feature
from router.turn import Turn
from xmpp import ns
from xmpp.stanza import Stanza
from xmpp.xml import element

feature = Feature("version", xep=((92, "1.1"),), server_features=(ns.VERSION,))

NAME = "Stentor"


@feature.on_iq("get", ns.VERSION, "query", at=At.SERVER)
def tell(turn: Turn, iq: Stanza) -> None:
    """Name and version; the operating system only where the operator wants it shown."""
    settings = turn.settings
    children = [element("name", None, None, NAME), element("version", None, None, settings.software_version)]
    if settings.show_os:
        children.append(element("os", None, None, f"{platform.system()} {platform.release()}"))
    turn.answer(iq, element("query", ns.VERSION, None, *children))
