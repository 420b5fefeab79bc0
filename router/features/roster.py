"""Rosters (RFC 6121, 2): get, set, remove, versions. Pushes and rows are made by `router/roster_changes.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from router import roster_changes
from router.contacts import Contact, Roster
from router.entity import Entity, Session
from router.events import AccountRemoved
from router.feature import At, Feature
from router.turn import Connection, Turn
from storage import rosters
from storage.accounts import Account
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.errors import BadRequest, Forbidden, ItemNotFound, NotAllowed
from xmpp.stanza import Stanza
from xmpp.xml import element

feature = Feature("roster", rfc="RFC 6121, 2", xep=((237, "1.3"),), server_features=(ns.ROSTER,))

_ITEM: Final = f"{{{ns.ROSTER}}}item"


class _Rows(NamedTuple):
    items: list[rosters.Item]
    version: int
    removed: list[rosters.Removed]


async def _load(conn: Connection, found: Sequence[Account]) -> dict[int, _Rows]:
    keys = [account.key for account in found]
    items, removed = await rosters.load(conn, keys), await rosters.removed(conn, keys)
    return {a.key: _Rows(items[a.key], a.roster_version, removed[a.key]) for a in found}


def _assign(entity: Entity, rows: _Rows) -> None:
    roster = entity.roster
    roster.contacts = {row.jid: Contact(*row) for row in rows.items}
    roster.version = rows.version
    roster.removed = {row.jid: row.version for row in rows.removed}


feature.on_load(_load, _assign)


@feature.on_iq("get", ns.ROSTER, "query", at=At.OWN)
def get(turn: Turn, iq: Stanza) -> None:
    """RFC 6121, 2.2 and 2.6: the whole roster, or what has changed since the version the client has."""
    session = turn.session
    assert session is not None
    query = _query(iq)
    if len(query):
        raise BadRequest("A roster get has no items.")
    if roster_changes.INTERESTED not in session.marks:
        session.marks[roster_changes.INTERESTED] = True
        turn.touch(session)
    version = query.get("ver")
    roster = turn.entity.roster
    if version is None or not _is_known(turn.entity, version):
        items = (roster_changes.item(contact) for contact in roster.contacts.values() if contact.is_listed)
        attributes = {"ver": str(roster.version)} if version is not None else None
        turn.answer(iq, element("query", ns.ROSTER, attributes, *items))
        return
    turn.answer(iq)  # 2.6.3: an empty result, then the changes as pushes
    _catch_up(turn, session, int(version))


def _is_known(entity: Entity, version: str) -> bool:
    """Whether what changed since then can be told: versions only count up, and removals are remembered. Of shared
    groups, nothing is."""
    if any(contact.shared for contact in entity.roster.contacts.values()):
        return False
    is_number = version.isascii() and version.isdigit() and len(version) < 20
    return is_number and 0 < int(version) <= entity.roster.version


def _catch_up(turn: Turn, session: Session, since: int) -> None:
    roster = turn.entity.roster
    changes = [(c.version, roster_changes.item(c)) for c in roster.contacts.values() if c.in_roster]
    changes += [
        (version, element("item", None, {"jid": jid, "subscription": "remove"}))
        for jid, version in roster.removed.items()
    ]
    for version, item in sorted(changes):
        if version > since:
            inner = element("query", ns.ROSTER, {"ver": str(version)}, item)
            push = stanzas.iq(type="set", id=f"push-{version}", to=session.jid, from_=None, inner=inner)
            turn.deliver(session, push)


@feature.on_iq("set", ns.ROSTER, "query", at=At.OWN)
def set_(turn: Turn, iq: Stanza) -> None:
    """RFC 6121, 2.3 to 2.5: add, change or remove one contact."""
    query = _query(iq)
    items = [child for child in query if child.tag == _ITEM]
    if len(items) != 1 or len(query) != 1:
        raise BadRequest("A roster set has exactly one item.")  # 2.3.3
    asked = roster_changes.read_item(items[0])
    if asked.subscription == "remove":
        remove(turn, asked.jid)
    else:
        update(turn, asked)
    turn.answer(iq)


def update(turn: Turn, asked: roster_changes.Asked) -> None:
    """2.3 and 2.4: a contact is added or changed. Raises StanzaError."""
    entity = turn.entity
    if asked.jid == entity.bare:
        raise NotAllowed("You are not in your own roster.")  # 2.3.3
    known = entity.roster.contacts.get(asked.jid)
    if known is None or not known.in_roster:
        roster_changes.require_room(turn)
    contact = roster_changes.contact_of(entity, asked.jid)
    contact.name, contact.groups, contact.in_roster = asked.name, asked.groups, True
    roster_changes.save(turn, contact)


def remove(turn: Turn, jid: str) -> None:
    """2.5: a contact is removed. Raises StanzaError."""
    contact = turn.entity.roster.contacts.get(jid)
    if contact is not None and contact.shared and not contact.in_roster:
        raise NotAllowed("Your operator has put you into one group.")
    if contact is None or not contact.in_roster:
        raise ItemNotFound("There is no such contact.")  # 2.5.3
    if not contact.shared:
        _end_subscriptions(turn, contact)
    roster_changes.remove(turn, contact)


def _end_subscriptions(turn: Turn, contact: Contact) -> None:
    """2.5.2: what is left of the subscriptions ends, and the contact no longer sees us."""
    bare = turn.entity.bare
    if contact.sees_us:
        for session in turn.entity.available():
            turn.send(stanzas.presence(to=contact.jid, from_=session.jid, type="unavailable"))
        turn.send(stanzas.presence(to=contact.jid, from_=bare, type="unsubscribed"))
    if contact.seen_by_us or contact.ask:
        turn.send(stanzas.presence(to=contact.jid, from_=bare, type="unsubscribe"))


@feature.on_event(AccountRemoved)
def account_removed(turn: Turn, event: AccountRemoved) -> None:
    """The account goes: so do its subscriptions, on both sides."""
    for contact in turn.entity.roster.contacts.values():
        _end_subscriptions(turn, contact)
        if contact.pending_in:
            turn.send(stanzas.presence(to=contact.jid, from_=turn.entity.bare, type="unsubscribed"))
    turn.entity.roster = Roster()  # the sessions that end with it have nobody left to tell


@feature.on_iq("get", ns.ROSTER, "query", at=At.ACCOUNT)
@feature.on_iq("set", ns.ROSTER, "query", at=At.ACCOUNT)
def refuse(turn: Turn, iq: Stanza) -> None:
    """RFC 6121, 2.1.5 and 2.3.3: a roster is its owner's alone. (Who has a privilege was answered before:
    `features/privileges.py`.)"""
    raise Forbidden


def _query(iq: Stanza) -> Any:
    query = iq.child(ns.ROSTER, "query")
    assert query is not None  # the handler is chosen by this name
    return query
