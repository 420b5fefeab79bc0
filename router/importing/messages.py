"""The archive of an account, and what it has not got yet. Rows are of the time at which their messages were sent."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from lxml import etree

from router.entity import Entity
from router.features.offline import is_kept_offline
from router.importing.reading import Unfit, id_of, read_stanza, without
from router.importing.results import DONE, KNOWN, Result, Thing, left_out
from router.turn import Turn
from storage import accounts, importing
from storage.importing import ARCHIVED, SID, WAITED
from storage.log import ARCHIVE, FROM_OWNER, ID_BITS, QUEUE, TO_OWNER, Row, pack_head
from storage.log import DONE as NOTHING_TO_DO
from xmpp import ns
from xmpp.jid import bare_of
from xmpp.stanza import MESSAGE, Stanza
from xmpp.xml import canonical, parse_document

EARLIEST: Final = 915_148_800_000_000  # 1999: before that there was no Jabber
NEAR_US: Final = 2_000_000  # so far a server's two notes of one message are apart
AHEAD_US: Final = 2_000_000  # so far another server's clock may be ahead
_STEPS: Final = 16  # places tried where another message has the one
_DAY_US: Final = 86_400_000_000
# What a server says of its own storage: said anew here.
_SERVERS: Final = (
    f"{{{ns.SID}}}stanza-id", "{urn:xmpp:mam:tmp}archived", "{urn:xmpp:mam:1}archived", "{urn:xmpp:mam:2}archived",
)  # fmt: skip


class Draft(NamedTuple):
    """A message that is about to become a row."""

    id: int
    dir: int
    peer: str
    message: Stanza


def check_time(at: int, now: float, keep_days: int, setting: str) -> None:
    """Raises Unfit where a row of this moment cannot be, or would not stay."""
    if not EARLIEST <= at <= now * 1_000_000 + AHEAD_US:
        raise Unfit("its time is before 1999, or in the future")
    if keep_days and at < now * 1_000_000 - keep_days * _DAY_US:
        raise Unfit(f"it is older than {keep_days} days ({setting})")


def draft(bare: str, thing: Thing) -> Draft:
    """A message of an account's archive. Raises Unfit."""
    message = _cleaned(read_stanza(thing["xml"], MESSAGE))
    if message.type == "groupchat":
        raise Unfit("it was said in a room: the archive of the room has it")
    if message.type in ("error", "headline"):
        raise Unfit(f"messages of the type {message.type} are not archived")
    from_, to = bare_of(message.from_ or ""), bare_of(message.to or "")
    if to == bare or (not to and from_ != bare):
        message = message._replace(to=message.to or bare)
        return Draft(id_of(thing["at"], thing["id"], message), TO_OWNER, from_ or bare, message)
    if from_ == bare or not from_:
        message = message._replace(from_=message.from_ or bare)
        return Draft(id_of(thing["at"], thing["id"], message), FROM_OWNER, to, message)
    raise Unfit(f"it is neither from nor to {bare} (--domain-map says what domains are called here)")


def drafted_waiting(bare: str, thing: Thing) -> Draft:
    """A message that waits. Raises Unfit."""
    message = _cleaned(read_stanza(thing["xml"], MESSAGE))
    if not is_kept_offline(message):
        raise Unfit("it is of a kind that does not wait (XEP-0160)")
    if message.to is not None and bare_of(message.to) != bare:
        raise Unfit(f"it is not to {bare} (--domain-map says what domains are called here)")
    message = message._replace(to=message.to or bare)
    return Draft(id_of(thing["at"], "", message), TO_OWNER, bare_of(message.from_ or "") or bare, message)


def _cleaned(message: Stanza) -> Stanza:
    """Without what the other server has said of its storage, if that is of the account or of its domain: ids of others
    (rooms) stay."""
    bares = {bare_of(jid) for jid in (message.to, message.from_) if jid}

    def is_dropped(child: etree._Element) -> bool:
        return child.tag in _SERVERS and (child.tag != _SERVERS[0] or child.get("by") in bares)

    return without(message, is_dropped) if any(map(is_dropped, message.children())) else message


def ranges_of(drafts: Collection[Draft], near_us: int = 0) -> list[tuple[int, int]]:
    """Where rows of the same messages may be: their milliseconds, or so far around them."""
    reach = near_us // 1000
    return [
        (((one.id >> ID_BITS) - reach) << ID_BITS, ((one.id >> ID_BITS) + reach + 1 << ID_BITS) - 1) for one in drafts
    ]


def is_same(row: Row, one: Draft) -> bool:
    """Whether a row is this very message."""
    if row.dir != one.dir or not _is_as(row.inner, one.message.inner):
        return False
    known = row.stanza
    return (known.id, known.from_, known.type or "normal") == (
        one.message.id, one.message.from_, one.message.type or "normal"
    )  # fmt: skip


def _is_as(inner: bytes, other: bytes) -> bool:
    """Whether two contents are the same XML: a row has the bytes that a client once wrote."""
    return inner == other or _canonical(inner) == _canonical(other)


def _canonical(inner: bytes) -> bytes:
    return canonical(parse_document(b'<x xmlns="%b">%b</x>' % (ns.CLIENT.encode(), inner)), ns.CLIENT)


def place(one: Draft, rows: dict[int, Row]) -> Draft | None:
    """The message with an id that nothing else has; None where it is there."""
    milliseconds = one.id >> ID_BITS
    if any(row.id >> ID_BITS == milliseconds and is_same(row, one) for row in rows.values()):
        return None
    for id_ in range(one.id, one.id + _STEPS):
        if id_ not in rows:
            return one._replace(id=id_)
    raise Unfit("too many messages have the same time")


def row_of(entity: Entity, one: Draft, class_: int, n: int) -> Row:
    """The row of a message."""
    assert entity.key is not None
    message = one.message
    return Row(
        entity.shard,
        entity.key,
        one.id,
        class_,
        one.dir,
        NOTHING_TO_DO,
        one.peer,
        SID,
        n,
        pack_head(message),
        message.inner,
    )


def archive(turn: Turn, drafts: Sequence[Draft], known: Sequence[Row], is_dry: bool) -> list[Result]:
    """Rows for messages of the archive. They count as read: nothing of them is delivered."""
    entity, results = turn.entity, list[Result]()
    rows, news = {row.id: row for row in known}, list[Row]()
    for one in drafts:
        try:
            placed = place(one, rows)
        except Unfit as problem:
            results.append(left_out(str(problem)))
            continue
        results.append(KNOWN if placed is None else DONE)
        if placed is not None and not is_dry:
            rows[placed.id] = row = row_of(entity, placed, ARCHIVE, ARCHIVED)
            news.append(row)
    if news:
        turn.rows += tuple(news)
        turn.comes_after(max(row.id for row in news))
        _raise_cursor(turn, max((row.id for row in news if row.dir == TO_OWNER), default=0))
    return results


def wait(turn: Turn, drafts: Sequence[Draft], known: Sequence[Row], is_dry: bool) -> list[Result]:
    """Messages that the account has not got: what is in its archive waits under that id, else they get a row that
    stays until they are delivered."""
    entity, results = turn.entity, list[Result]()
    rows, news, noted = {row.id: row for row in known}, list[Row](), list[int]()
    for one in drafts:
        same = next((row for row in rows.values() if row.id not in noted and is_same(row, one)), None)
        if same is not None and (same.class_ == QUEUE or same.sid != SID or same.n == WAITED):
            results.append(KNOWN)
            continue
        if len(entity.offline) >= turn.settings.offline_messages:
            results.append(left_out("too many messages wait (limits.offline)"))
            continue
        placed = one if same is not None else place(one, rows)
        results.append(DONE)
        if is_dry or placed is None:
            continue
        if same is not None:
            noted.append(same.id)
            entity.offline.append(same.id)
        else:
            rows[placed.id] = row = row_of(entity, placed, QUEUE, WAITED)
            noted.append(placed.id)
            news.append(row)
            entity.offline.append(placed.id)
    if noted:
        assert entity.key is not None
        entity.offline.sort()
        entity.strays.update(id_ for id_ in noted if id_ <= entity.delivered)
        turn.rows += tuple(news)
        turn.comes_after(max(noted))
        turn.write(importing.note_waited, entity.key, noted)
        turn.write(accounts.set_delivered, entity.key, entity.delivered, entity.not_delivered())
    return results


def _raise_cursor(turn: Turn, top: int) -> None:
    """Up to this id everything has been read, but for what is known not to be."""
    entity = turn.entity
    if top <= entity.delivered:
        return
    for session in entity.sessions.values():
        entity.strays.update(id_ for _, id_, _ in session.unacknowledged if id_ is not None and 0 < id_ <= top)
    entity.delivered = top
    assert entity.key is not None
    turn.write(accounts.set_delivered, entity.key, entity.delivered, entity.not_delivered())
