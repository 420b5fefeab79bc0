"""Offline messages (XEP-0160): what nobody has got yet is a cursor on the log, with the ids that it has passed.

A row counts as delivered when any client of the account has acknowledged it (`router/directory.py`). What nobody could
be given, or a session that ended had not read, is listed in `entity.offline` and delivered to the next session that
takes messages. `storage/log.py` keeps the rows; what the archive does not want is kept in the queue class.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

from router.entity import UNFINISHED, Entity, Session
from router.events import (
    BecameAvailable,
    BecameReachable,
    LeftUnread,
    Recovered,
    SessionBound,
    SessionClosed,
    WereRead,
)
from router.feature import Feature, Stage
from router.recipients import REACHABLE, had, primary, with_stanza_id
from router.turn import Connection, Turn
from storage import accounts, log
from storage.log import ARCHIVE, QUEUE, TO_OWNER, Row
from xmpp import ns
from xmpp.errors import ServiceUnavailable
from xmpp.stanza import (
    HAS_BODY,
    HAS_CHAT_STATE,
    HAS_DELAY,
    HAS_MARKER,
    HAS_MUC_USER,
    HAS_OTHER,
    HAS_RECEIPT,
    HAS_SUBJECT,
    HINT_NO_STORE,
    HINT_STORE,
    IQ,
    MESSAGE,
    Stanza,
)
from xmpp.xml import element

feature = Feature("offline", xep=((160, "1.0.1"), (203, "2.0")), server_features=("msgoffline",))

PAGE: Final = 500  # rows read at once when a client comes back

_NOT_KEPT: Final = frozenset({"groupchat", "headline", "error"})
_KEPT: Final = HAS_BODY | HAS_SUBJECT | HAS_RECEIPT | HAS_MARKER | HAS_OTHER | HINT_STORE
PASSED_ON: Final = 5_000
NOBODY: Final = 0
FROM_ARCHIVE: Final = "from-archive"  # mark of a session: its client finds rows up to this id in the archive


@feature.on_event(SessionBound)
def leave_to_archive(turn: Turn, event: SessionBound) -> None:
    """XEP-0386, 3.2: who binds so reads the archive; what was in it by then is not delivered a second time."""
    if event.facts.get("reads_archive"):
        event.session.marks[FROM_ARCHIVE] = turn.newest_id


async def _load(conn: Connection, found: Sequence[accounts.Account]) -> dict[int, accounts.Offline]:
    return await accounts.offline(conn, [account.key for account in found], 10_000)


def _assign(entity: Entity, loaded: accounts.Offline) -> None:
    in_flight = {id_ for session in entity.sessions.values() for _, id_, _ in session.unacknowledged}
    known = entity.delivered
    entity.delivered = max(known, loaded.delivered)
    missing = [id_ for id_ in loaded.ids if (id_ > known or id_ <= loaded.delivered) and id_ not in entity.read]
    entity.offline = [id_ for id_ in missing if id_ not in in_flight]
    entity.strays = {id_ for id_ in missing if id_ in in_flight and id_ <= loaded.delivered}


feature.on_load(_load, _assign)


def is_kept_offline(message: Stanza) -> bool:
    """XEP-0160, 3: chat and normal messages (a type that nobody knows is normal: RFC 6121, 5.2.2) with something to
    read; XEP-0334 hints may say otherwise."""
    flags = message.flags
    if message.type in _NOT_KEPT or flags & HINT_NO_STORE:
        return False
    if flags & _KEPT:
        return True
    return bool(flags & HAS_MUC_USER) and not flags & HAS_CHAT_STATE  # an invitation; not what is typed in a room


@feature.on_message(Stage.IN_RECORD)
def record(turn: Turn, message: Stanza) -> bool:
    """What the archive does not want has a row all the same while it waits; the copies that others get have its id."""
    if turn.log_id is None and turn.entity.exists and is_kept_offline(message) and not primary(turn.entity, message):
        turn.log(message, TO_OWNER, QUEUE)
    return False


@feature.on_message(Stage.IN_FALLBACK)
def keep(turn: Turn, message: Stanza) -> bool:
    """Nobody is there to take it: it waits."""
    entity = turn.entity
    if not entity.exists or not is_kept_offline(message):
        return False
    if message.type != "chat" and "/" in (message.to or ""):
        return False  # RFC 6121, 8.5.3.2.1: what is for that resource alone goes back
    if len(entity.offline) >= turn.settings.offline_messages:
        raise ServiceUnavailable("Too many messages wait for this user.")  # XEP-0160, 3: the offline store is full
    assert turn.log_id is not None
    entity.offline.append(turn.log_id)
    return True


@feature.on_event(BecameAvailable)
@feature.on_event(BecameReachable)
def deliver(turn: Turn, event: BecameAvailable | BecameReachable) -> None:
    """A client is back (XEP-0160, 2: with a priority that is not negative). While the messages are read, everything
    else of this account waits: order is kept."""
    session = event.session
    if session.priority >= 0:
        session.marks[REACHABLE] = turn.newest_id
        if turn.entity.offline:
            session.marks[UNFINISHED] = True
        turn.touch(session)
        _flush(turn, session)


@feature.on_event(Recovered)
def go_on(turn: Turn, event: Recovered) -> None:
    """The owner before died while it delivered them."""
    _flush(turn, event.session)
    if not turn.entity.offline and event.session.marks.pop(UNFINISHED, None):
        turn.touch(event.session)


def _flush(turn: Turn, session: Session) -> None:
    entity = turn.entity
    if entity.offline:
        assert entity.key is not None
        ids = tuple(entity.offline[:PAGE])
        turn.fetch_first(log.by_ids, partial(_deliver_rows, session, ids), entity.key, ids)


def _deliver_rows(session: Session, ids: tuple[int, ...], turn: Turn, rows: list[Row]) -> None:
    entity = turn.entity
    if entity.sessions.get(session.resource) is not session or session.presence is None:
        return  # it went again: they wait for the next
    # What another session has left unread meanwhile is not among them; what it was given meanwhile is no more.
    asked, unread = frozenset(ids).intersection(entity.offline), {id_ for _, id_, _ in session.unacknowledged}
    entity.offline = [id_ for id_ in entity.offline if id_ not in asked]
    passed_on, is_passed = _passed_on(entity), False
    for row in rows:
        if row.class_ == ARCHIVE and row.id <= session.marks.get(FROM_ARCHIVE, 0):
            entity.acknowledged(row.id)
            is_passed = True
            continue
        if row.dir != TO_OWNER or row.id not in asked or (row.id not in unread and had(session, row.stanza, row.id)):
            continue  # this session has read a copy of it (XEP-0280)
        passed_on[row.id] = session.sid
        if row.id < entity.delivered:
            entity.strays.add(row.id)  # until the client has it for sure
        message = row.stanza
        if row.class_ == ARCHIVE:
            message = with_stanza_id(message, entity.bare, row.id)
        turn.deliver(session, delayed(message, row.id, turn), row.id)
    if is_passed:
        _save(turn)
    if entity.offline:
        _flush(turn, session)
    elif session.marks.pop(UNFINISHED, None):
        turn.touch(session)


def delayed(message: Stanza, id_: int, turn: Turn) -> Stanza:
    """XEP-0203: when it was sent, said by the server that kept it."""
    stamp = datetime.fromtimestamp(log.time_of(id_), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    domain = turn.entity.bare.rpartition("@")[2]
    delay = element("delay", ns.DELAY, {"from": domain, "stamp": stamp}, "Offline storage")
    if message.flags & HAS_DELAY and delay in message.inner:
        return message  # it waited before
    return message._replace(inner=message.inner + delay, flags=message.flags | HAS_DELAY)


@feature.on_event(SessionClosed)
def save_cursor(turn: Turn, event: SessionClosed) -> None:
    """How far the account's clients have come is durable with the end of a session."""
    _save(turn)


@feature.on_event(WereRead)
def take_out(turn: Turn, event: WereRead) -> None:
    """What was thought to be unread."""
    entity, read = turn.entity, frozenset(event.ids)
    if read.isdisjoint(entity.offline) and read.isdisjoint(entity.strays):
        return
    entity.offline = [id_ for id_ in entity.offline if id_ not in read]
    entity.strays -= read
    entity.delivered = max(entity.delivered, *read)
    _save(turn)


@feature.on_event(LeftUnread)
def keep_unread(turn: Turn, event: LeftUnread) -> None:
    """What a client had not read when its session ended goes to the others, or waits for the next (XEP-0198, 4:
    as "a stanza sent to an unavailable resource"). Copies (XEP-0280) and what others have got, too, are left out."""
    session, entity = event.session, turn.entity
    if not entity.exists:
        return
    before = entity.not_delivered()
    for _, id_, stanza in session.unacknowledged:
        if id_ is not None and id_ < 0:
            continue  # a room's: it has it
        if stanza is None:
            if id_ is not None and id_ not in entity.offline and id_ not in entity.read:
                entity.offline.append(id_)
        elif stanza.kind == MESSAGE:
            if stanza.from_ != entity.bare and (is_kept_offline(stanza) or _is_for_reading(stanza)):
                _keep_unread(turn, session, stanza, id_)
        elif stanza.kind == IQ and stanza.type in ("get", "set") and stanza.from_ is not None:
            turn.fail(stanza._replace(to=stanza.to or session.jid), ServiceUnavailable())
    entity.offline.sort()
    if entity.not_delivered() != before:
        _save(turn)
    if entity.offline:
        reachable = [other for other in entity.available() if other.priority >= 0]
        if reachable:
            _flush(turn, reachable[0])


def _is_for_reading(message: Stanza) -> bool:
    """What its sender is told of if it can be neither given to somebody else nor kept."""
    return message.type not in _NOT_KEPT and bool(message.flags & HAS_BODY)


def _keep_unread(turn: Turn, ended: Session, stanza: Stanza, id_: int | None) -> None:
    entity = turn.entity
    others = primary(entity, stanza._replace(to=entity.bare))
    at = id_ if id_ is not None else log.id_at(ended.detached_at or turn.now)
    if any(had(other, stanza, at) for other in entity.sessions.values()):
        return
    if id_ is not None:
        # Two sessions that end at once have left the same unread: the first passes it on, to these or to nobody yet.
        passed_on = _passed_on(entity)
        if id_ in entity.read or id_ in entity.offline or passed_on.get(id_, ended.sid) != ended.sid:
            return
        passed_on[id_] = others[0].sid if others else NOBODY
    if others:
        if id_ is not None:
            entity.strays.add(id_)  # should both its holders die now, it is offline
        for other in others:
            turn.deliver(other, stanza if id_ is None else delayed(stanza, id_, turn), id_)
        return
    if not is_kept_offline(stanza):
        turn.fail(stanza, ServiceUnavailable("Nobody has read the message."))
        return
    if id_ is None:
        id_ = turn.log(stanza, TO_OWNER, QUEUE)
    entity.offline.append(id_)


def _passed_on(entity: Entity) -> dict[int, int]:
    """Ids of unread messages of ended sessions, and the session that was given each last."""
    known: dict[int, int] = entity.data.setdefault(feature.name, {})
    while len(known) > PASSED_ON:
        del known[next(iter(known))]
    return known


def _save(turn: Turn) -> None:
    entity = turn.entity
    if entity.key is not None:
        turn.write(accounts.set_delivered, entity.key, entity.delivered, entity.not_delivered())
