"""Presence subscriptions (RFC 6121, 3). The states are in `router/subscription_table.py`; here is what follows.

Each side changes only its own roster: the sender's owner by the outbound table, the recipient's by the inbound one.
"""

from __future__ import annotations

from functools import partial

from router import invitations, roster_changes
from router.blocking_rules import is_blocked
from router.contacts import Contact
from router.entity import Session
from router.events import BecameAvailable
from router.feature import Feature, Stage
from router.subscription_table import INBOUND, OUTBOUND, TYPES, State, apply, state_of
from router.turn import Turn
from storage import invitations as stored
from storage import rosters
from storage.invitations import Invitation
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.errors import BadRequest, NotAllowed
from xmpp.stanza import Stanza

feature = Feature(
    "subscriptions",
    xep=((379, "0.1.1"),),
    rfc="RFC 6121, 3",
    server_features=(ns.SUBSCRIPTION_PREAPPROVAL_FEATURE,),
)


# --- outbound


@feature.on_presence(Stage.OUT_ACT)
def send(turn: Turn, presence: Stanza) -> bool:
    """A session sends a subscription stanza (3.1.2, 3.1.5, 3.2.2, 3.3.2)."""
    if presence.type not in TYPES:
        return False
    entity = turn.entity
    if presence.to is None:
        raise BadRequest("A subscription stanza needs a 'to'.")
    to = presence.to.partition("/")[0]
    if to == entity.bare:
        raise NotAllowed("You see your own presence anyway.")
    known = entity.roster.contacts.get(to)
    before = state_of(known)
    row = OUTBOUND[presence.type][before]
    # 3.1.2: 'from' and 'to' are bare.
    stamped = presence._replace(to=to, from_=entity.bare)
    if presence.type == "subscribe":
        _subscribe(turn, to, known, row.state, is_invited=invitations.token_in(presence) is not None)
    elif presence.type == "subscribed":
        _approve(turn, to, known, row.passes, row.state)
    elif known is not None:
        _withdraw(turn, known, presence.type, row.state)
    if row.passes:
        turn.send(stamped)
        if presence.type == "subscribed":
            _show_presence(turn, to)  # 3.1.5: after the approval, our presence
    return True


def _subscribe(turn: Turn, to: str, known: Contact | None, state: State, is_invited: bool) -> None:
    entity = turn.entity
    if known is None or not known.in_roster:
        roster_changes.require_room(turn)
    contact = roster_changes.contact_of(entity, to)
    # XEP-0379, 3.4: who comes by an invitation also approves whoever invited; what clients should say, said for them.
    approves = is_invited and not contact.sees_us and not contact.approved
    if state_of(contact) is not state or not contact.in_roster or approves:
        apply(contact, state)
        contact.approved = contact.approved or approves
        contact.in_roster = True
        roster_changes.save(turn, contact)


def _approve(turn: Turn, to: str, known: Contact | None, passes: bool, state: State) -> None:
    entity = turn.entity
    if known is None or not known.in_roster:
        roster_changes.require_room(turn)
    contact = roster_changes.contact_of(entity, to)
    if passes:
        apply(contact, state)
        contact.pending_inner = b""
        contact.in_roster = True
        roster_changes.save(turn, contact)
    elif not contact.sees_us and not contact.approved:
        contact.approved = True  # 3.4.2: a pre-approval, for whenever they ask
        contact.in_roster = True
        roster_changes.save(turn, contact)


def _withdraw(turn: Turn, contact: Contact, type: str, state: State) -> None:
    before = state_of(contact)
    if type == "unsubscribed":
        if contact.sees_us:
            # 3.2.2: unavailable goes out while they are still subscribed.
            for session in turn.entity.available():
                turn.send(stanzas.presence(to=contact.jid, from_=session.jid, type="unavailable"))
        had_approval, contact.approved = contact.approved, False  # 3.4.3: a pre-approval ends, too
        if before is state and not had_approval:
            return
    elif before is state:
        return
    apply(contact, state)
    if not contact.pending_in:
        contact.pending_inner = b""
    roster_changes.save(turn, contact)


def _show_presence(turn: Turn, to: str) -> None:
    for session in turn.entity.available():
        assert session.presence is not None
        turn.send(session.presence._replace(to=to))


# --- inbound


@feature.on_presence(Stage.IN_DELIVER)
def receive(turn: Turn, presence: Stanza) -> bool:
    """A subscription stanza arrives (3.1.3, 3.1.6, 3.2.3, 3.3.3)."""
    if presence.type not in TYPES:
        return False
    assert presence.from_ is not None
    from_ = presence.from_.partition("/")[0]
    entity = turn.entity
    if not entity.exists:
        if presence.type == "subscribe":  # 3.1.3: nobody is here to be asked
            turn.send(stanzas.presence(to=from_, from_=entity.bare, type="unsubscribed"))
        return True
    contact = entity.roster.contacts.get(from_)
    row = INBOUND[presence.type][state_of(contact)]
    stamped = presence._replace(to=entity.bare, from_=from_)
    if presence.type == "subscribe":
        _asked(turn, stamped, from_, contact, row.passes, row.state)
    elif row.passes:
        assert contact is not None
        _changed(turn, stamped, contact, row.state)
    return True


def _asked(turn: Turn, presence: Stanza, from_: str, known: Contact | None, passes: bool, state: State) -> None:
    entity = turn.entity
    reply = stanzas.presence(to=from_, from_=entity.bare, type="subscribed")
    if known is not None and known.sees_us:
        turn.send(reply)  # 3.1.3: they have it already
        _show_presence(turn, from_)
        return
    if known is not None and known.approved:
        # 3.4.2: pre-approved: answered without asking anybody.
        apply(known, OUTBOUND["subscribed"][INBOUND["subscribe"][state_of(known)].state].state)
        known.approved = False
        roster_changes.save(turn, known)
        turn.send(reply)
        _show_presence(turn, from_)
        return
    token = invitations.token_in(presence)
    if token is not None:
        hash_ = invitations.hash_of(token)
        turn.fetch(stored.claim, partial(_invited, presence, hash_), hash_, from_)
        return
    _show_request(turn, presence, from_, known, passes, state)


def _invited(presence: Stanza, hash_: bytes, turn: Turn, invitation: Invitation | None) -> None:
    """XEP-0379, 3.5: the server approves what the user's own invitation brings, and asks for the same. Any other token
    means nothing (4.1)."""
    entity = turn.entity
    assert presence.from_ is not None
    from_ = presence.from_
    if not entity.exists:
        return  # it has gone meanwhile
    known = entity.roster.contacts.get(from_)
    row = INBOUND["subscribe"][state_of(known)]
    if invitation is None or invitation.contact != entity.bare:
        if invitation is not None:
            turn.write(stored.release, hash_, from_)
        if known is None or not known.sees_us:
            _show_request(turn, presence, from_, known, row.passes, row.state)
        return
    turn.write(stored.confirm, hash_, from_)
    turn.write(stored.tell, entity.bare, from_)
    contact = roster_changes.contact_of(entity, from_)
    apply(contact, OUTBOUND["subscribed"][row.state].state)
    contact.pending_inner = b""
    contact.in_roster = True
    turn.send(stanzas.presence(to=from_, from_=entity.bare, type="subscribed"))
    if not contact.seen_by_us:
        apply(contact, OUTBOUND["subscribe"][state_of(contact)].state)
        turn.send(stanzas.presence(to=from_, from_=entity.bare, type="subscribe"))
    roster_changes.save(turn, contact)
    _show_presence(turn, from_)


def _show_request(turn: Turn, presence: Stanza, from_: str, known: Contact | None, passes: bool, state: State) -> None:
    """3.1.3: the user is asked."""
    entity = turn.entity
    if not passes:
        return
    if known is None and len(entity.roster.contacts) >= turn.settings.roster_contacts:
        return  # nobody can fill up somebody else's roster; the asker may ask again
    contact = roster_changes.contact_of(entity, from_)
    apply(contact, state)
    contact.pending_inner = presence.inner
    _store_quietly(turn, contact)
    for session in entity.available():
        turn.deliver(session, presence)


def _store_quietly(turn: Turn, contact: Contact) -> None:
    """A request that waits is no change that clients see in the roster (A.1: "Pending In" is not pushed)."""
    entity = turn.entity
    assert entity.key is not None
    turn.write(rosters.upsert, entity.key, roster_changes.as_row(contact), entity.roster.version)


def _changed(turn: Turn, presence: Stanza, contact: Contact, state: State) -> None:
    """unsubscribe, subscribed, unsubscribed that mean something: delivered first, then pushed (3.1.6)."""
    for session in roster_changes.interested(turn.entity):
        turn.deliver(session, presence)
    did_see_us = contact.sees_us
    apply(contact, state)
    if not contact.pending_in:
        contact.pending_inner = b""
    roster_changes.save(turn, contact)
    if did_see_us and not contact.sees_us:
        # 3.3.3: they wanted no more of our presence, and get the last of it.
        for session in turn.entity.available():
            turn.send(stanzas.presence(to=contact.jid, from_=session.jid, type="unavailable"))


@feature.on_event(BecameAvailable)
def show_requests(turn: Turn, event: BecameAvailable) -> None:
    """3.1.3: requests that wait are shown to each resource that comes online, until they are answered."""
    session: Session = event.session
    for contact in turn.entity.roster.contacts.values():
        if contact.pending_in and not is_blocked(turn.entity, contact.jid):
            turn.deliver(
                session,
                stanzas.presence(to=turn.entity.bare, from_=contact.jid, type="subscribe", inner=contact.pending_inner),
            )
