"""Client State Indication (XEP-0352): what a client that nobody looks at can wait for. Decided here and not in the
c2s, because only the owner numbers stanzas (docs/delivery.md, rule 21)."""

from __future__ import annotations

from typing import Final

from router.entity import Session
from xmpp.stanza import (
    CARBONS_PRIVATE,
    HAS_CHAT_STATE,
    HAS_DELAY,
    HAS_MUC_USER,
    HAS_ORIGIN_ID,
    HAS_STANZA_ID,
    HAS_THREAD,
    HINT_NO_COPY,
    HINT_NO_PERMANENT_STORE,
    HINT_NO_STORE,
    MESSAGE,
    PRESENCE,
    Stanza,
)

INACTIVE: Final = "inactive"  # mark of a session
MOST: Final = 1_000  # stanzas held back; then they go

# What a chat state may have beside it and still be nothing to read.
_UNIMPORTANT: Final = (
    HAS_CHAT_STATE | HAS_THREAD | HAS_DELAY | HAS_MUC_USER | HAS_ORIGIN_ID | HAS_STANZA_ID | CARBONS_PRIVATE
    | HINT_NO_COPY | HINT_NO_STORE | HINT_NO_PERMANENT_STORE
)  # fmt: skip


def is_chat_state(message: Stanza) -> bool:
    """Whether a message tells a chat state (XEP-0085) and nothing else."""
    return bool(message.flags & HAS_CHAT_STATE) and not message.flags & ~_UNIMPORTANT


def holds_back(session: Session, stanza: Stanza) -> bool:
    """Whether an inactive client need not be woken for this. Of presence and chat states, only the newest of each
    sender is kept."""
    held = session.held_back
    assert held is not None
    if stanza.kind == PRESENCE and stanza.type in (None, "unavailable"):
        key = ("presence", stanza.from_ or "")
    elif stanza.kind == MESSAGE and is_chat_state(stanza):
        key = ("state", _conversation(session, stanza))
    else:
        return False
    if len(held) >= MOST and key not in held:
        return False
    held.pop(key, None)  # the newest comes last
    held[key] = stanza
    return True


def _conversation(session: Session, message: Stanza) -> str:
    """Whose chat state it is; of a copy (XEP-0280), which comes from the account itself, whose to whom."""
    if message.from_ != session.bare:
        return message.from_ or ""
    copied = message.children()[0][0][0]
    return f"{copied.get('from')} {copied.get('to')}"


def take_held_back(session: Session) -> list[Stanza]:
    """What was held back, in order; nothing is any more."""
    held = session.held_back
    if not held:
        return []
    stanzas = list(held.values())
    held.clear()
    return stanzas
