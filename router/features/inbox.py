"""The inbox (XEP-0430): an account's conversations, the newest first, with what is unread of each.

Nothing is counted while messages come: the list is made from the newest rows of the log when somebody asks for it.
What was read is told by what the account has said since, by markers (XEP-0333) and by the node of XEP-0490.
"""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple

from router.feature import At, Feature
from router.pubsub.node import host_of
from router.recipients import content
from router.turn import Turn
from storage import inbox, log, pubsub
from storage.inbox import Conversation
from storage.log import Row, time_of
from storage.pubsub import Item, Page, Wanted
from xmpp import ns, rsm
from xmpp import stanza as stanzas
from xmpp.errors import BadRequest, Forbidden, ItemNotFound
from xmpp.stanza import HAS_EVENT, MESSAGE, Stanza
from xmpp.timestamp import format_moment
from xmpp.xml import element, parse_document

feature = Feature("inbox", xep=((430, "0.2.0"),), account_features=(ns.INBOX,))

MOST: Final = 250  # conversations of one answer
_BOOLEANS: Final = {None: None, "true": True, "1": True, "false": False, "0": False}


class _Asked(NamedTuple):
    iq: Stanza
    page: rsm.Page
    unread_only: bool
    with_messages: bool


@feature.on_iq("get", ns.INBOX, "inbox", at=At.OWN)
def ask(turn: Turn, iq: Stanza) -> None:
    """3.1."""
    node = iq.child(ns.INBOX, "inbox")
    assert node is not None
    unread_only, messages = (_boolean(node.get(name)) for name in ("unread-only", "messages"))
    asked = _Asked(iq, rsm.parse(node), bool(unread_only), messages is not False)
    displayed = host_of(turn.entity).nodes.get(ns.DISPLAYED)
    if displayed is None:
        _read(asked, {}, turn)
        return

    def found(later: Turn, page: Page) -> None:
        _read(asked, _cursors(later.entity.bare, page.items), later)

    turn.fetch(pubsub.page, found, Wanted(displayed.key, turn.settings.node_items, is_backwards=True))


@feature.on_iq("get", ns.INBOX, "inbox", at=At.ACCOUNT)
def refuse(turn: Turn, iq: Stanza) -> None:
    """Another's."""
    raise Forbidden


def _boolean(text: str | None) -> bool | None:
    if text not in _BOOLEANS:
        raise BadRequest("A boolean is true or false.")
    return _BOOLEANS[text]


def _cursors(own: str, items: list[Item]) -> dict[str, int]:
    """How far each conversation has been displayed (XEP-0490), where the id is one of ours: of the account, or of a
    room."""
    found: dict[str, int] = {}
    for item in items:
        stanza_id = parse_document(item.payload).find(f"{{{ns.SID}}}stanza-id") if item.payload else None
        if stanza_id is None or stanza_id.get("by") not in (own, item.id):
            continue
        id_ = stanza_id.get("id") or ""
        if id_.isascii() and id_.isdigit() and len(id_) < 20 and int(id_) < 2**63:
            found[item.id] = int(id_)
    return found


def _read(asked: _Asked, displayed: dict[str, int], turn: Turn) -> None:
    key = turn.entity.key
    assert key is not None
    turn.fetch(inbox.conversations, partial(_found, asked), key, displayed)


def _found(asked: _Asked, turn: Turn, found: list[Conversation]) -> None:
    unread = [conversation for conversation in found if conversation.unread]
    listed = unread if asked.unread_only else found
    page = _page(asked.page, listed)
    attributes = {
        "total": str(len(found)),
        "unread": str(len(unread)),
        "all-unread": str(sum(conversation.unread for conversation in unread)),
    }
    first, last = (page[0].peer, page[-1].peer) if page else (None, None)
    index = listed.index(page[0]) if page else None
    fin = element("fin", ns.INBOX, attributes, rsm.build(first=first, last=last, index=index, count=len(listed)))
    if not asked.with_messages or not page:
        _answer(asked, page, fin, turn, [])
        return
    key = turn.entity.key
    assert key is not None
    turn.fetch(log.by_ids, partial(_answer, asked, page, fin), key, tuple(one.last for one in page))


def _page(page: rsm.Page, listed: list[Conversation]) -> list[Conversation]:
    """XEP-0059, by the JIDs of the conversations."""
    limit = MOST if page.max is None else min(page.max, MOST)
    peers = [conversation.peer for conversation in listed]
    for named in (page.after, page.before):
        if named and named not in peers:
            raise ItemNotFound(f"There is no conversation with '{named[:100]}'.")
    if page.before is not None:
        end = peers.index(page.before) if page.before else len(peers)
        return listed[max(0, end - limit) : end]
    start = peers.index(page.after) + 1 if page.after else page.index or 0
    return listed[start : start + limit]


def _answer(asked: _Asked, page: list[Conversation], fin: bytes, turn: Turn, rows: list[Row]) -> None:
    session = turn.session
    assert session is not None
    messages = {row.id: row for row in rows}
    for conversation in page:
        attributes = {"jid": conversation.peer, "unread": str(conversation.unread), "id": str(conversation.last)}
        inner = element("entry", ns.INBOX, attributes)
        row = messages.get(conversation.last)
        if row is not None:
            inner += _result(turn, asked.iq, row)
        turn.deliver(
            session, Stanza(MESSAGE, None, session.jid, session.bare, None, None, HAS_EVENT, None, None, inner)
        )
    turn.answer(asked.iq, fin)


def _result(turn: Turn, iq: Stanza, row: Row) -> bytes:
    """4, example 2: as XEP-0313 has it, with the id of the request as that of the query."""
    delay = element("delay", ns.DELAY, {"stamp": format_moment(time_of(row.id))})
    message = stanzas.encode(content(turn.entity, row), turn.entity.bare, ns.CLIENT)
    forwarded = element("forwarded", ns.FORWARD, None, delay, message)
    return element("result", ns.MAM, {"queryid": iq.id, "id": str(row.id)}, forwarded)
