"""Message delivery (RFC 6121, 8.5): which sessions get a message, and what becomes of it where none does.

The hottest step of a router: it looks at the type and the address alone.
"""

from __future__ import annotations

from router.feature import Feature, Stage
from router.turn import Turn
from xmpp.errors import ServiceUnavailable
from xmpp.stanza import Stanza

feature = Feature("delivery", rfc="RFC 6121, 8")


@feature.on_message(Stage.IN_DELIVER)
def deliver(turn: Turn, message: Stanza) -> bool:
    """To a full JID: to that session. To a bare JID, or a chat whose session is gone: to all available sessions whose
    priority is not negative (8.5.2.1.1 lets the server choose between these and "the most available")."""
    entity = turn.entity
    to = message.to
    type_ = message.type
    assert to is not None
    _, slash, resource = to.partition("/")
    if slash:
        session = entity.sessions.get(resource)
        if session is not None:
            turn.deliveries.append((session, message))
            return True
        if type_ != "chat":  # 8.5.3.2.1: a chat alone goes on to the other sessions
            return _without_recipient(type_)
    elif type_ == "groupchat":
        raise ServiceUnavailable("Group messages go to a room's occupants.")  # 8.5.2.1.1
    elif type_ == "error":
        return True  # 8.5.2.1.1: ignored
    is_delivered = False
    for session in entity.sessions.values():
        if session.presence is not None and session.priority >= 0:
            turn.deliveries.append((session, message))
            is_delivered = True
    return is_delivered


@feature.on_message(Stage.IN_FALLBACK)
def bounce(turn: Turn, message: Stanza) -> bool:
    """8.5.1, 8.5.2.2: nobody is there to take it, and it is not stored: its sender is told."""
    return _without_recipient(message.type)


def _without_recipient(type_: str | None) -> bool:
    if type_ in ("headline", "error"):
        return True  # dropped in silence
    raise ServiceUnavailable("Nobody is there to take the message.")
