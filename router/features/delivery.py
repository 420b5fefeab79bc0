"""Message delivery (RFC 6121, 8.5): which sessions get a message (`router/recipients.py` says), and what becomes of it
where none does and nothing keeps it."""

from __future__ import annotations

from router.feature import Feature, Stage
from router.recipients import primary
from router.turn import Turn
from xmpp.errors import ServiceUnavailable
from xmpp.stanza import Stanza

feature = Feature("delivery", xep=((353, "0.8.0"),), rfc="RFC 6121, 8")


@feature.on_message(Stage.IN_DELIVER)
def deliver(turn: Turn, message: Stanza) -> bool:
    """To the session that the message names, or to those that take messages to the bare JID."""
    sessions = primary(turn.entity, message)
    if not sessions:
        return False
    id_ = turn.log_id
    for session in sessions:
        turn.deliveries += ((session, message, id_),)
    return True


@feature.on_message(Stage.IN_FALLBACK)
def bounce(turn: Turn, message: Stanza) -> bool:
    """8.5.1, 8.5.2.2: nobody is there to take it, and it is not stored: its sender is told."""
    if message.type in ("headline", "error"):
        return True  # dropped in silence
    if message.type == "groupchat" and "/" not in (message.to or ""):
        raise ServiceUnavailable("Group messages go to a room's occupants.")  # 8.5.2.1.1
    raise ServiceUnavailable("Nobody is there to take the message.")
