"""Members of rooms who are not there ("groups like in phone messengers"): what was said is kept for them, and they are
told that there is something new (XEP-0437)."""

from __future__ import annotations

from functools import partial
from typing import Final

from router.entity import Session
from router.events import SaidInRoom
from router.feature import Feature, Stage
from router.turn import Turn
from storage import groups
from storage.log import GROUP, TO_OWNER
from xmpp import ns
from xmpp.jid import bare_of, domain_of
from xmpp.stanza import HAS_MUC, HAS_OTHER, MESSAGE, TO_FULL, Stanza
from xmpp.xml import element

feature = Feature("groups", xep=((437, "0.2.0"),))

TOLD: Final = 1_000  # rooms of which one session is told
_ACTIVITY: Final = "activity"  # mark of a session: it wants to be told; the rooms of which it was


@feature.on_message(Stage.IN_SCREEN)
def keep(turn: Turn, message: Stanza) -> bool:
    """What was said in a room of ours while nobody of the account was there: no session is shown it, the archive has it
    (XEP-0313, 4.1.4), and who waits for it is told."""
    from_ = message.from_ or ""
    if message.type != "groupchat" or message.to is not None or domain_of(from_) not in turn.settings.room_domains:
        return False
    entity, room = turn.entity, bare_of(from_)
    if entity.key is not None:
        id_ = turn.log(message._replace(flags=message.flags & ~TO_FULL), TO_OWNER, GROUP)
        turn.emit(SaidInRoom(room, message, id_))
    return True


@feature.on_presence(Stage.OUT_SCREEN)
def visit(turn: Turn, presence: Stanza) -> bool:
    """A session goes into a room: nothing that was said before is new any more. Or it wants to be told of the others
    (XEP-0437, 3.1), until it says that it does not (3.2)."""
    session, to = turn.session, presence.to
    if session is None or to is None or domain_of(to) not in turn.settings.room_domains:
        return False
    key = turn.entity.key
    if "@" in to:
        if presence.flags & HAS_MUC and presence.type is None and key is not None:
            turn.write(groups.visit, key, turn.entity.bare, bare_of(to), turn.newest_id)
    elif presence.type == "unavailable":
        if session.marks.pop(_ACTIVITY, None) is not None:
            turn.touch(session)
    elif presence.type is None and key is not None and presence.child(ns.ROOM_ACTIVITY, "rai") is not None:
        session.marks[_ACTIVITY] = []
        turn.touch(session)
        turn.fetch(groups.unseen, partial(_tell_unseen, session, to), key, TOLD)
    return False


def _tell_unseen(session: Session, domain: str, turn: Turn, unseen: list[str]) -> None:
    """4: everything since the client was last there, in one notification."""
    if turn.entity.sessions.get(session.resource) is session:
        _tell_activity(turn, session, [room for room in unseen if domain_of(room) == domain])


@feature.on_event(SaidInRoom)
def tell_activity(turn: Turn, event: SaidInRoom) -> None:
    """4: once for each room, however much is said there."""
    for session in turn.entity.sessions.values():
        if _ACTIVITY in session.marks:
            _tell_activity(turn, session, [event.room])


def _tell_activity(turn: Turn, session: Session, found: list[str]) -> None:
    told: list[str] = list(session.marks.get(_ACTIVITY, ()))
    new = [room for room in found if room not in told and room not in session.rooms][: TOLD - len(told)]
    if new:
        session.marks[_ACTIVITY] = [*told, *new]
        turn.touch(session)
        inner = element("rai", ns.ROOM_ACTIVITY, None, *(element("activity", None, None, room) for room in new))
        domain = domain_of(new[0])
        turn.deliver(session, Stanza(MESSAGE, None, None, domain, None, None, HAS_OTHER, None, None, inner))
