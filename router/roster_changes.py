"""Changing a roster: the row, its version, and the push that tells clients (RFC 6121, 2.1.6 and 2.6).

Shared by the features that do so: roster requests, subscriptions, removal of an account.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lxml import etree

from router.contacts import Contact, Roster
from router.entity import Entity, Session
from router.privileges import roster_watchers
from router.turn import Turn
from storage import rosters
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.errors import BadRequest, JidError, NotAcceptable, ResourceConstraint
from xmpp.jid import prepare
from xmpp.xml import element, text_of

INTERESTED: Final = "roster"  # mark of a session that has asked for the roster (RFC 6121, 2.2)
NAME_BYTES: Final = 1_023
GROUPS: Final = 100
_GROUP: Final = f"{{{ns.ROSTER}}}group"


class Asked(NamedTuple):
    """An `<item/>` of a roster set as it was asked for (RFC 6121, 2.1.2)."""

    jid: str
    name: str
    groups: tuple[str, ...]
    subscription: str | None


def read_item(item_: etree._Element) -> Asked:
    """Raises BadRequest or NotAcceptable (RFC 6121, 2.3.3)."""
    try:
        jid = prepare(item_.get("jid") or "")
    except JidError as problem:
        raise BadRequest("The item's 'jid' is not a JID.") from problem
    name = item_.get("name") or ""
    groups = tuple(text_of(child) for child in item_ if child.tag == _GROUP)
    if len(set(groups)) != len(groups):
        raise BadRequest("A group is named twice.")
    if len(name.encode()) > NAME_BYTES or len(groups) > GROUPS:
        raise NotAcceptable("The name is too long, or there are too many groups.")
    if any(not group or len(group.encode()) > NAME_BYTES for group in groups):
        raise NotAcceptable("A group's name is empty or too long.")
    return Asked(jid, name, groups, item_.get("subscription"))


def contact_of(entity: Entity, jid: str) -> Contact:
    """The contact of this bare JID, made (not in the roster yet) where it is not known."""
    contact = entity.roster.contacts.get(jid)
    if contact is None:
        contact = entity.roster.contacts[jid] = Contact(jid, in_roster=False)
    return contact


def require_room(turn: Turn, count: int = 1) -> None:
    """Raises ResourceConstraint where the roster may not grow so much. Requests that wait do not count: strangers send
    them."""
    contacts = turn.entity.roster.contacts
    room = turn.settings.roster_contacts - count
    if len(contacts) > room and sum(contact.in_roster for contact in contacts.values()) > room:
        raise ResourceConstraint("The roster is full.")


def save(turn: Turn, contact: Contact) -> None:
    """Store a contact and push it to every interested session, under a new version of the roster. One that is not
    in the roster (only its request waits) is stored without either."""
    entity = turn.entity
    assert entity.key is not None
    if contact.in_roster:
        roster = entity.roster
        roster.version += 1
        contact.version = roster.version
        roster.removed.pop(contact.jid, None)
        push(turn, item(contact), roster)
    elif not contact.pending_in:
        if not contact.shared:
            entity.roster.contacts.pop(contact.jid, None)
        turn.write(rosters.forget, entity.key, contact.jid)
        return
    turn.write(rosters.upsert, entity.key, as_row(contact), entity.roster.version)


def remove(turn: Turn, contact: Contact) -> None:
    """Take a contact out of the roster and push that. A request of theirs that waits is kept (RFC 6121, A.1)."""
    entity = turn.entity
    assert entity.key is not None
    roster = entity.roster
    roster.version += 1
    roster.removed[contact.jid] = roster.version
    turn.write(rosters.remove, entity.key, contact.jid, roster.version)
    kept = Contact(contact.jid, in_roster=False, shared=contact.shared)
    if contact.shared:
        roster.contacts[contact.jid] = kept
        push(turn, item(kept), roster)
        return
    if contact.pending_in:
        kept.pending_in, kept.pending_inner = True, contact.pending_inner
        roster.contacts[contact.jid] = kept
        turn.write(rosters.upsert, entity.key, as_row(kept), roster.version)
    else:
        del roster.contacts[contact.jid]
    push(turn, element("item", None, {"jid": contact.jid, "subscription": "remove"}), roster)


def push(turn: Turn, item_: bytes, roster: Roster) -> None:
    """One roster push for each interested session (RFC 6121, 2.1.6), and each component that may read rosters
    (XEP-0356, 4.4)."""
    inner = element("query", ns.ROSTER, {"ver": str(roster.version)}, item_)
    id_ = f"push-{roster.version}"
    for session in interested(turn.entity):
        turn.deliver(session, stanzas.iq(type="set", id=id_, to=session.jid, from_=None, inner=inner))
    for domain in roster_watchers(turn.settings):
        turn.send(stanzas.iq(type="set", id=id_, to=domain, from_=turn.entity.bare, inner=inner))


def interested(entity: Entity) -> list[Session]:
    """The sessions that have asked for the roster ("interested resources")."""
    return [session for session in entity.sessions.values() if INTERESTED in session.marks]


def item(contact: Contact) -> bytes:
    """A contact as clients see it (RFC 6121, 2.1.2)."""
    groups = (element("group", None, None, group) for group in dict.fromkeys((*contact.groups, *contact.shared)))
    return element(
        "item",
        None,
        {
            "jid": contact.jid,
            "name": contact.name or (contact.jid.partition("@")[0] if contact.shared else None),
            "subscription": "both" if contact.shared else contact.subscription,
            "ask": "subscribe" if contact.ask else None,
            "approved": "true" if contact.approved else None,
        },
        *groups,
    )


def as_row(contact: Contact) -> rosters.Item:
    """A contact as it is stored."""
    return rosters.Item(
        jid=contact.jid,
        name=contact.name,
        groups=contact.groups,
        subscription=contact.subscription,
        ask=contact.ask,
        approved=contact.approved,
        pending_in=contact.pending_in,
        pending_inner=contact.pending_inner,
        in_roster=contact.in_roster,
        version=contact.version,
    )
