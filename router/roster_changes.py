"""Changing a roster: the row, its version, and the push that tells clients (RFC 6121, 2.1.6 and 2.6).

Shared by the features that do so: roster requests, subscriptions, removal of an account.
"""

from __future__ import annotations

from router.contacts import Contact, Roster
from router.entity import Entity, Session
from router.turn import Turn
from storage import rosters
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.errors import ResourceConstraint
from xmpp.xml import element

INTERESTED = "roster"  # mark of a session that has asked for the roster (RFC 6121, 2.2)


def contact_of(entity: Entity, jid: str) -> Contact:
    """The contact of this bare JID, made (not in the roster yet) where it is not known."""
    contact = entity.roster.contacts.get(jid)
    if contact is None:
        contact = entity.roster.contacts[jid] = Contact(jid, in_roster=False)
    return contact


def require_room(turn: Turn) -> None:
    """Raises ResourceConstraint where the roster may not grow. Requests that wait do not count: strangers send them."""
    contacts = turn.entity.roster.contacts
    limit = turn.settings.roster_contacts
    if len(contacts) >= limit and sum(contact.in_roster for contact in contacts.values()) >= limit:
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
    if contact.pending_in:
        kept = Contact(contact.jid, pending_in=True, pending_inner=contact.pending_inner, in_roster=False)
        roster.contacts[contact.jid] = kept
        turn.write(rosters.upsert, entity.key, as_row(kept), roster.version)
    else:
        del roster.contacts[contact.jid]
    push(turn, element("item", None, {"jid": contact.jid, "subscription": "remove"}), roster)


def push(turn: Turn, item_: bytes, roster: Roster) -> None:
    """One roster push for each interested session (RFC 6121, 2.1.6)."""
    inner = element("query", ns.ROSTER, {"ver": str(roster.version)}, item_)
    for session in interested(turn.entity):
        turn.deliver(
            session,
            stanzas.iq(type="set", id=f"push-{roster.version}", to=session.jid, from_=None, inner=inner),
        )


def interested(entity: Entity) -> list[Session]:
    """The sessions that have asked for the roster ("interested resources")."""
    return [session for session in entity.sessions.values() if INTERESTED in session.marks]


def item(contact: Contact) -> bytes:
    """A contact as clients see it (RFC 6121, 2.1.2)."""
    groups = (element("group", None, None, group) for group in contact.groups)
    return element(
        "item",
        None,
        {
            "jid": contact.jid,
            "name": contact.name or None,
            "subscription": contact.subscription,
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
