"""What an account may not, as everybody asks it: a ban, a quarantine (`features/restrictions.py` says what follows)."""

from __future__ import annotations

from typing import Final

from cluster import logs, metrics
from router.entity import Entity
from router.turn import Turn
from storage import restrictions
from storage.restrictions import Kind, Restriction
from xmpp import stanza as stanzas
from xmpp.jid import domain_of
from xmpp.stanza import HAS_BODY
from xmpp.xml import element

log = logs.get_logger()

DATA: Final = "restrictions"  # key in an entity's data: there only where something is restricted
REASON: Final = 1_000  # characters

imposed = metrics.counter(
    "stentor_restrictions_total",
    "Accounts that were banned or put into quarantine, and those let out again",
    {"kind": ["ban", "quarantine"], "change": ["imposed", "lifted"], "by": ["admin", "rule"]},
)


def restriction(entity: Entity, kind: Kind, now: float) -> Restriction | None:
    """The one of this kind that holds now."""
    known: dict[str, Restriction] | None = entity.data.get(DATA)
    found = known.get(kind) if known else None
    return found if found is not None and (found.until is None or found.until > now) else None


def is_guest(entity: Entity) -> bool:
    """Whether somebody without an account has signed in by it."""
    known: dict[str, Restriction] | None = entity.data.get(DATA)
    return bool(known and "guest" in known)


def assign(entity: Entity, loaded: list[Restriction]) -> None:
    """What the database has."""
    if loaded:
        entity.data[DATA] = {found.kind: found for found in loaded}
    else:
        entity.data.pop(DATA, None)


def impose(turn: Turn, kind: Kind, reason: str, by: str, until: float | None, is_rule: bool = False) -> None:
    """An account is banned: its sessions end, by which its presence goes; or in quarantine: it is told so, once.
    `by` whom: a bare JID, "operator", or the rule that has done it (`is_rule`)."""
    entity = turn.entity
    assert entity.key is not None
    reason = reason[:REASON]
    was_there = restriction(entity, kind, turn.now) is not None
    new = Restriction(kind, reason, by, turn.now, until)
    entity.data[DATA] = {**entity.data.get(DATA, {}), kind: new}
    turn.write(restrictions.impose, entity.key, new)
    if kind == "ban":
        for session in entity.sessions.values():
            turn.close(session, "policy-violation", told(new))  # RFC 6120, 4.9.3.14
    elif not was_there:
        _tell(turn, told(new))
    imposed.labels(kind, "imposed", "rule" if is_rule else "admin").inc()
    log.info("account_restricted", account=entity.bare, kind=kind, by=by, reason=reason, until=until)


def lift(turn: Turn, kind: Kind, by: str) -> bool:
    """It is over; False where there was none."""
    entity = turn.entity
    assert entity.key is not None
    known: dict[str, Restriction] = entity.data.get(DATA, {})
    if kind not in known:
        return False
    assign(entity, [other for other in known.values() if other.kind != kind])
    turn.write(restrictions.lift, entity.key, kind)
    if kind == "quarantine":
        _tell(turn, "Your account is not in quarantine any more.")
    imposed.labels(kind, "lifted", "admin").inc()
    log.info("account_unrestricted", account=entity.bare, kind=kind, by=by)
    return True


def told(restriction: Restriction) -> str:
    """What the user reads of it."""
    if restriction.kind == "ban":
        words = "This account is disabled"
    else:
        words = "Your account is in quarantine: you can write to your contacts and to the administrators only"
    return f"{words}. Reason: {restriction.reason}" if restriction.reason else f"{words}."


def _tell(turn: Turn, text: str) -> None:
    entity = turn.entity
    body = element("body", None, None, text)
    id_ = f"restrictions-{turn.next_id():x}"
    turn.send(stanzas.message(to=entity.bare, from_=domain_of(entity.bare), id=id_, inner=body, flags=HAS_BODY))
