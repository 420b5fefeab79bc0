"""Message Carbons (XEP-0280): a copy of each chat message for the user's other devices.

What is copied, and as what, is in `router/recipients.py`, because a takeover asks the same.
"""

from __future__ import annotations

from typing import Final

from router.entity import Entity
from router.events import SessionBound
from router.feature import At, Feature, Stage
from router.recipients import CARBONS, copies_of_received, copies_of_sent, with_stanza_id
from router.turn import Turn
from storage.log import ARCHIVE
from xmpp import ns
from xmpp.stanza import Stanza

feature = Feature("carbons", xep=((280, "1.0.1"),), server_features=(ns.CARBONS, ns.CARBONS_RULES))

REMEMBERED: Final = 500  # messages of an account whose errors would be copied, too


@feature.on_event(SessionBound)
def enable_at_once(turn: Turn, event: SessionBound) -> None:
    """XEP-0386, 3.2: the client has asked for them with its resource."""
    if event.facts.get("carbons"):
        event.session.marks[CARBONS] = turn.newest_id


@feature.on_iq("set", ns.CARBONS, "enable", at=At.OWN)
def enable(turn: Turn, iq: Stanza) -> None:
    """4: from now on this session gets copies."""
    session = turn.session
    assert session is not None
    if CARBONS not in session.marks:
        session.marks[CARBONS] = turn.newest_id
        turn.touch(session)
    turn.answer(iq)


@feature.on_iq("set", ns.CARBONS, "disable", at=At.OWN)
def disable(turn: Turn, iq: Stanza) -> None:
    """5: no more copies."""
    session = turn.session
    assert session is not None
    if session.marks.pop(CARBONS, None) is not None:
        turn.touch(session)
    turn.answer(iq)


@feature.on_message(Stage.OUT_COPY)
def copy_sent(turn: Turn, message: Stanza) -> bool:
    """8: what this session sends, for the others; without one (XEP-0356) for all. `log_id` is that of the sender's own
    row."""
    entity, session = turn.entity, turn.session
    if len(entity.sessions) > 1 or session is None:
        before = len(turn.deliveries)
        copied = message
        if turn.log_id is not None and turn.rows[-1].class_ == ARCHIVE:
            copied = with_stanza_id(message, entity.bare, turn.log_id)
        for other, copy in copies_of_sent(entity, copied, turn.key[0]):
            turn.deliver(other, copy, turn.log_id)
        if message.id is not None and len(turn.deliveries) > before:
            _remember(entity, message.to or entity.bare, message.id)
    return False


@feature.on_message(Stage.IN_COPY)
def copy_received(turn: Turn, message: Stanza) -> bool:
    """7: what arrives, for those who do not get it as it is. 2: they see everything, also what waits for somebody else
    (`features/offline.py`)."""
    entity = turn.entity
    sessions = entity.sessions
    if len(sessions) < 2:
        if not sessions:
            return False
        (session,) = sessions.values()
        if session.presence is not None and session.priority >= 0:
            return False  # it gets everything as it is
    for other, copy in copies_of_received(entity, message, _is_answer(entity, message)):
        turn.deliver(other, copy, turn.log_id)
    return False


def _sent(entity: Entity) -> dict[tuple[str, str], None]:
    sent: dict[tuple[str, str], None] = entity.data.setdefault(feature.name, {})
    return sent


def _remember(entity: Entity, to: str, id_: str) -> None:
    sent = _sent(entity)
    sent[(to, id_)] = None
    if len(sent) > REMEMBERED:
        del sent[next(iter(sent))]


def _is_answer(entity: Entity, message: Stanza) -> bool:
    """6.1: an error is copied if it was "sent in response to" a message that was. Known as long as this owner lives."""
    return message.type == "error" and (message.from_ or "", message.id or "") in _sent(entity)
