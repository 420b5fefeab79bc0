"""What has been displayed, on all devices (XEP-0490): a node. By server assist, a message to the contact is enough."""

from __future__ import annotations

from typing import Final

from router.feature import Feature, Stage
from router.pubsub import config as configs
from router.pubsub import publishing
from router.turn import Turn
from xmpp import ns
from xmpp.stanza import HAS_SYNC, Stanza
from xmpp.xml import canonical_element, escape_text, parse_document

feature = Feature("displayed", xep=((490, "1.0.1"), (333, "1.0.0")), account_features=(ns.DISPLAYED_ASSIST,))

_DISPLAYED: Final = f"{{{ns.DISPLAYED}}}displayed"
_STANZA_ID: Final = f"{{{ns.SID}}}stanza-id"


@feature.on_message(Stage.OUT_SCREEN)
def assist(turn: Turn, message: Stanza) -> bool | Stanza:
    """3.4.3: what the message says to the account's own server is published and taken out, before it is archived,
    copied or sent (4.2). The item is named by the address as it is."""
    if not message.flags & HAS_SYNC:
        return False
    root = parse_document(b'<message xmlns="%b">%b</message>' % (ns.CLIENT.encode(), message.inner))
    inner = escape_text(root.text or "").encode()
    for child in root:
        if child.tag != _DISPLAYED:
            inner += canonical_element(child, ns.CLIENT)
        elif message.to is not None and len(child) == 1 and child[0].tag == _STANZA_ID:
            config = configs.initial(ns.DISPLAYED, is_service=False)
            publishing.put_own(turn, ns.DISPLAYED, message.to, canonical_element(child, ""), config)
        inner += escape_text(child.tail or "").encode()
    return message._replace(inner=inner, flags=message.flags & ~HAS_SYNC)
