"""Who of an account's sessions gets a message, and as what: the rules that live delivery and a takeover share.

Whether a session sees a row of the log depends on the row and the session alone, so the next owner can tell what was
still to be delivered (docs/delivery.md, rule 17). Live: `features/delivery.py` and `features/carbons.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from router.client_state import is_chat_state
from router.entity import Entity, Session
from storage.log import ARCHIVE, FROM_OWNER, Row
from xmpp import ns
from xmpp.stanza import (
    CARBONS_PRIVATE,
    HAS_BODY,
    HAS_CHAT_STATE,
    HAS_MARKER,
    HAS_MUC_USER,
    HAS_OTHER,
    HAS_RECEIPT,
    HAS_RECEIPT_REQUEST,
    HINT_NO_COPY,
    MESSAGE,
    Stanza,
    encode,
)
from xmpp.xml import element, escape_attribute

# Marks of sessions. Their values are ids: rows up to there were not for it.
CARBONS: Final = "carbons"  # it wants copies (XEP-0280)
REACHABLE: Final = "reachable"  # it takes messages to the bare JID

_INSTANT: Final = HAS_RECEIPT | HAS_RECEIPT_REQUEST | HAS_CHAT_STATE | HAS_MARKER  # XEP-0184, 0085, 0333


def primary(entity: Entity, message: Stanza) -> list[Session]:
    """Whom a message goes to as it is (RFC 6121, 8.5): the session it names; else, for a chat or normal message, all
    available ones whose priority is not negative (8.5.2.1.1 lets the server choose between these and "the most
    available")."""
    assert message.to is not None
    _, slash, resource = message.to.partition("/")
    if slash:
        session = entity.sessions.get(resource)
        if session is not None:
            return [session]
        if message.type != "chat":  # 8.5.3.2.1: a chat alone goes on to the other sessions
            return []
    elif message.type in ("groupchat", "error"):
        return []
    return [s for s in entity.sessions.values() if s.presence is not None and s.priority >= 0]


def with_stanza_id(message: Stanza, bare: str, id_: int) -> Stanza:
    """XEP-0359: the message with the id that this account's archive gave it."""
    return message.with_inner(b'%b%b%d"/>' % (message.inner, _stamp(bare), id_))


@lru_cache(maxsize=65_536)
def _stamp(bare: str) -> bytes:
    return f'<stanza-id xmlns="{ns.SID}" by="{escape_attribute(bare)}" id="'.encode()


def is_copied(message: Stanza, is_sent: bool) -> bool:
    """XEP-0280, 6.1: which messages carbons are made of, be they sent or received. Errors are another matter: it
    depends on what they answer (`features/carbons.py`)."""
    type_, flags = message.type, message.flags
    if type_ in ("groupchat", "error") or flags & (CARBONS_PRIVATE | HINT_NO_COPY):
        return False
    if flags & HAS_MUC_USER:
        if _is_invitation(message):
            return True
        if not is_sent and "/" in (message.from_ or ""):
            return False  # of an occupant of a room, which has sent it to each session that has joined
    if type_ == "chat" or flags & _INSTANT:
        return True
    if type_ != "headline" and flags & HAS_BODY:
        return True
    return bool(flags & HAS_OTHER) and message.child(ns.DIRECT_INVITATION, "x") is not None


def _is_invitation(message: Stanza) -> bool:
    """XEP-0045, 7.8.2: through the room."""
    x = message.child(ns.MUC_USER, "x")
    return x is not None and x.find(f"{{{ns.MUC_USER}}}invite") is not None


def carbon(session: Session, message: Stanza, direction: str) -> Stanza:
    """A copy ("received" or "sent") of a message for one session (XEP-0280, 7 and 8). Of one that is of passing
    interest, it is, too."""
    forwarded = element("forwarded", ns.FORWARD, None, encode(message, session.bare, ns.CLIENT))
    inner = element(direction, ns.CARBONS, None, forwarded)
    flags = HAS_CHAT_STATE if is_chat_state(message) else 0
    return Stanza(MESSAGE, message.type, session.jid, session.bare, None, None, flags, None, None, inner)


def copies_of_received(entity: Entity, message: Stanza, is_answer: bool = False) -> Iterator[tuple[Session, Stanza]]:
    """Copies of a message that has arrived, for those sessions that want them and do not get it as it is. `is_answer`:
    it is the error for one of which copies were made."""
    others = [session for session in entity.sessions.values() if CARBONS in session.marks]
    if not others or not (is_answer or is_copied(message, False)):
        return
    direct = primary(entity, message)
    for session in others:
        if session not in direct:
            yield session, carbon(session, message, "received")


def copies_of_sent(entity: Entity, message: Stanza, sid: int) -> Iterator[tuple[Session, Stanza]]:
    """Copies of a message that the session `sid` has sent, for the others that want them. What the account sends to
    itself all of them get where it arrives, and once."""
    if (message.to or entity.bare).partition("/")[0] == entity.bare or not is_copied(message, True):
        return
    for session in entity.sessions.values():
        if CARBONS in session.marks and session.sid != sid:
            yield session, carbon(session, message, "sent")


def had(session: Session, message: Stanza, id_: int) -> bool:
    """Whether a session was given a message to the account when it came, as it was or as a copy. `id_` is that of its
    row; of a message that named a session, only the copy counts."""
    if (
        (message.to is None or "/" not in message.to)
        and (session.presence is not None and session.priority >= 0)
        and id_ > session.marks.get(REACHABLE, session.since)
    ):
        return True
    return id_ > session.marks.get(CARBONS, id_) and is_copied(message, False)


def content(entity: Entity, row: Row) -> Stanza:
    """The message of a row as its account's clients get it."""
    return with_stanza_id(row.stanza, entity.bare, row.id) if row.class_ == ARCHIVE else row.stanza


def shown(entity: Entity, row: Row) -> list[tuple[Session, Stanza]]:
    """What each session sees of a row, whenever it was committed: the same as live."""
    message, id_ = content(entity, row), row.id
    copies = copies_of_sent(entity, message, row.sid) if row.dir == FROM_OWNER else copies_of_received(entity, message)
    found = [(session, copy) for session, copy in copies if id_ > session.marks[CARBONS]]
    if row.dir != FROM_OWNER:
        is_bare = message.to is None or "/" not in message.to
        for session in primary(entity, message):
            since = session.marks.get(REACHABLE, session.since) if is_bare else session.since
            if id_ > since:
                found.append((session, message))
    return found
