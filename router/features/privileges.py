"""Privileged Entity (XEP-0356), at the user's side: rosters that components read and write, messages and requests that
they send in a user's name, presence that they are shown. A user who blocks a component is not at its service.

What a component may do, and how it is told, is in `router/privileges.py`; `router/peers.py` takes its messages in.
"""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple

from lxml import etree

from router import privileges, roster_changes
from router.blocking_rules import is_blocked
from router.contacts import Contact, Subscription
from router.events import BecameAvailable, BecameUnavailable
from router.feature import Feature, Stage
from router.features.presence import DIRECTED
from router.pipeline import ASKED_OF_SERVER, check_iq
from router.turn import Turn
from xmpp import forwarded, ns
from xmpp import stanza as stanzas
from xmpp.errors import (
    BadRequest,
    Forbidden,
    ItemNotFound,
    NotAllowed,
    RemoteServerTimeout,
    ResourceConstraint,
    ServiceUnavailable,
    StanzaError,
)
from xmpp.stanza import IQ, Stanza
from xmpp.xml import canonical_element, element

feature = Feature("privileges", xep=((356, "0.4.1"),))

PENDING: Final = 100  # requests in one account's name that are not answered yet
ANSWER_S: Final = 60.0

_ROSTER: Final = f"{ns.ROSTER} query"
_ITEM: Final = f"{{{ns.ROSTER}}}item"
_PRIVILEGED_IQ: Final = f"{ns.PRIVILEGE} privileged_iq"
_IQ: Final = f"{{{ns.CLIENT}}}iq"
# What an account may ask itself without a session: answers that go to nobody's client and change no client's state.
_OF_ACCOUNT: Final = frozenset(
    {
        f"{ns.DISCO_INFO} query", f"{ns.DISCO_ITEMS} query", f"{ns.VCARD} vCard", f"{ns.PRIVATE} query",
        f"{ns.MAM_PREFERENCES} prefs", f"{ns.PUBSUB} pubsub", f"{ns.PUBSUB_OWNER} pubsub",
    }
)  # fmt: skip


# --- rosters


@feature.on_any_iq(Stage.IN_SCREEN)
def receive(turn: Turn, iq: Stanza) -> bool:
    """Requests of components, and answers to what they have asked in this account's name."""
    if iq.type not in ("get", "set"):
        return _answered(turn, iq)
    if iq.payload == _PRIVILEGED_IQ:
        return _ask(turn, iq)
    if iq.payload == _ROSTER:
        return _roster(turn, iq)
    return False


def _roster(turn: Turn, iq: Stanza) -> bool:
    """4.3: "in the usual way", but for whom it is sent to. COMPAT: slidge 0.4.2 may name a session of the user."""
    granted = privileges.granted(turn.settings, iq.from_)
    if granted is None or granted.roster not in (iq.type, "both") or not turn.entity.exists:
        return False
    query = iq.child(ns.ROSTER, "query")
    assert query is not None
    if iq.type == "set":
        _change(turn, [child for child in query if child.tag == _ITEM])
        turn.answer(iq)
        return True
    roster = turn.entity.roster
    version = str(roster.version) if query.get("ver") is not None else None
    items = (roster_changes.item(contact) for contact in roster.contacts.values() if contact.in_roster)
    turn.answer(iq, element("query", ns.ROSTER, {"ver": version}, *items))
    return True


def _change(turn: Turn, items: list[etree._Element]) -> None:
    """A roster set, of many items at once. A subscription is as it says: nobody is asked. All or nothing."""
    contacts = turn.entity.roster.contacts
    changes = [roster_changes.read_item(item) for item in items]
    jids = {change.jid for change in changes}
    if not changes or len(jids) < len(changes):
        raise BadRequest("A roster set has items, one for each contact.")
    added = 0
    for jid, _, _, subscription in changes:
        is_known = jid in contacts and contacts[jid].in_roster
        if jid == turn.entity.bare:
            raise NotAllowed("Nobody is in their own roster.")  # RFC 6121, 2.3.3
        if subscription not in (None, "none", "to", "from", "both", "remove"):
            raise BadRequest("There is no such subscription.")
        if subscription == "remove" and not is_known:
            raise ItemNotFound("There is no such contact.")  # RFC 6121, 2.5.3
        added += not is_known
    if added:
        roster_changes.require_room(turn, added)
    for change in changes:
        _apply(turn, change)


def _apply(turn: Turn, change: roster_changes.Asked) -> None:
    contact = roster_changes.contact_of(turn.entity, change.jid)
    saw_us = contact.sees_us
    if change.subscription == "remove":
        roster_changes.remove(turn, contact)
        sees_us = False
    else:
        contact.name, contact.groups, contact.in_roster = change.name, change.groups, True
        if change.subscription is not None:
            _subscribe(contact, change.subscription)
        roster_changes.save(turn, contact)
        sees_us = contact.sees_us
    if saw_us != sees_us and not is_blocked(turn.entity, change.jid):
        # The XEP is silent. As after a handshake: whoever sees us from now on is told, or no longer sees us.
        for session in turn.entity.available():
            assert session.presence is not None
            gone = stanzas.presence(to=None, from_=session.jid, type="unavailable")
            turn.send((session.presence if sees_us else gone)._replace(to=change.jid))


def _subscribe(contact: Contact, subscription: str) -> None:
    states: dict[str, Subscription] = {"none": "none", "to": "to", "from": "from", "both": "both"}
    contact.subscription = states[subscription]
    if contact.seen_by_us:
        contact.ask = False
    if contact.sees_us:
        contact.pending_in, contact.pending_inner = False, b""


# --- messages


@feature.on_message(Stage.IN_SCREEN)
def speak(turn: Turn, message: Stanza) -> bool:
    """5.3: a component's message in the name of this account, on which its owner (`router/peers.py`) has sent its
    wrapper: recorded, copied and routed as if a client had sent it, under the number that the wrapper has."""
    if message.from_ not in turn.settings.components or not privileges.is_wrapper(message):
        return False
    said = privileges.unwrap(turn.settings, message)
    if said.from_ != turn.entity.bare or not turn.entity.exists:
        raise Forbidden("There is no such user.")
    turn.say(said)
    return True


# --- requests


class _Asked(NamedTuple):
    """A request that was sent in the account's name."""

    request: Stanza  # as the component wrote it
    asker: str
    id: str  # of what the component sent


def _asked(turn: Turn) -> dict[str, _Asked]:
    asked: dict[str, _Asked] = turn.entity.data.setdefault(feature.name, {})
    return asked


def _ask(turn: Turn, iq: Stanza) -> bool:
    """ "Sending IQ stanzas": what is forbidden, and the request itself, under an id of ours. Others' are no matter of
    this XEP where they go to a client."""
    bare = turn.entity.bare
    granted = privileges.granted(turn.settings, iq.from_)
    if granted is None and iq.to != bare:
        return False
    if granted is None or iq.to != bare or not turn.entity.exists:
        raise Forbidden
    request = _inner(iq)
    namespace = (request.payload or "").partition(" ")[0]
    if (
        granted.iq.get(namespace) not in (iq.type, "both")
        or request.type != iq.type
        or request.from_ not in (None, bare)
    ):
        raise Forbidden
    check_iq(request)
    request = request._replace(from_=bare, to=request.to or bare)
    assert iq.from_ is not None
    assert iq.id is not None
    asked = _Asked(request, iq.from_, iq.id)
    if not _may_be_asked(turn, request):
        _answer(turn, asked, stanzas.error(request, ServiceUnavailable()))
        return True
    pending = _asked(turn)
    if len(pending) >= PENDING:
        raise ResourceConstraint("Too many requests in this user's name are not answered yet.")
    id_ = f"{turn.origin:x}-{turn.n:x}"
    pending[id_] = asked
    turn.later(ANSWER_S, partial(_expire, id_))
    turn.say(request._replace(id=id_))
    return True


def _inner(iq: Stanza) -> Stanza:
    wrapper = iq.child(ns.PRIVILEGE, "privileged_iq")
    assert wrapper is not None
    nodes = [child for child in wrapper if isinstance(child.tag, str)]
    if len(nodes) != 1:
        raise BadRequest("There has to be one request in <privileged_iq/>.")
    if nodes[0].tag != _IQ:
        raise Forbidden("The request has to be of 'jabber:client'.")
    return forwarded.read(nodes[0])


def _may_be_asked(turn: Turn, request: Stanza) -> bool:
    if request.to == turn.entity.bare:
        return request.payload in _OF_ACCOUNT
    return request.to not in turn.settings.domains or request.payload in ASKED_OF_SERVER


def _answered(turn: Turn, iq: Stanza) -> bool:
    """The answer from whoever was asked."""
    pending: dict[str, _Asked] = turn.entity.data.get(feature.name, {})
    asked = pending.get(iq.id or "")
    if asked is None or iq.to != turn.entity.bare or iq.from_ != asked.request.to:
        return False
    del pending[iq.id or ""]
    _answer(turn, asked, iq._replace(id=asked.request.id))
    return True


def _expire(id_: str, turn: Turn) -> None:
    asked = _asked(turn).pop(id_, None)
    if asked is not None:
        fault: StanzaError = RemoteServerTimeout("There was no answer in time.")
        _answer(turn, asked, stanzas.error(asked.request, fault))


def _answer(turn: Turn, asked: _Asked, answer: Stanza) -> None:
    """The answer goes to the component as it came; an error makes the outer one an error, too (RFC 6120, 8.3)."""
    inner = element("privilege", ns.PRIVILEGE, None, forwarded.write(answer))
    flags = 0
    if answer.type == "error":
        flags = stanzas.HAS_ERROR
        error = answer.child(ns.CLIENT, "error")
        inner += canonical_element(error, ns.CLIENT) if error is not None else b""
    turn.send(Stanza(IQ, answer.type, asked.asker, turn.entity.bare, asked.id, None, flags, None, None, inner))


# --- presence


@feature.on_event(BecameAvailable)
def became_available(turn: Turn, event: BecameAvailable) -> None:
    """6.1: initial presence, and no other that is available."""
    presence = event.session.presence
    if presence is not None:
        for domain in privileges.presence_watchers(turn.settings):
            show(turn, presence, domain)


@feature.on_event(BecameUnavailable)
def became_unavailable(turn: Turn, event: BecameUnavailable) -> None:
    """6.1: the end of it."""
    for domain in privileges.presence_watchers(turn.settings):
        show(turn, event.presence, domain)


def show(turn: Turn, presence: Stanza, domain: str, *, is_first: bool = False) -> None:
    """One presence of this account for a component, once: not if it is a contact who gets it anyway, unless
    `is_first`, which is when it joins."""
    contact = turn.entity.roster.contacts.get(domain)
    if (is_first or contact is None or not contact.sees_us) and not is_blocked(turn.entity, domain):
        turn.send(presence._replace(to=domain))


@feature.on_presence(Stage.IN_SCREEN)
def screen(turn: Turn, presence: Stanza) -> bool:
    """What a component has against presence that it was shown does not concern the user, who has sent it none."""
    domain = presence.from_ or ""
    if presence.type != "error" or domain not in turn.settings.components:
        return False
    granted = privileges.granted(turn.settings, domain)
    contact = turn.entity.roster.contacts.get(domain)
    if granted is None or granted.presence == "none" or (contact is not None and contact.sees_us):
        return False
    return not any(domain in session.marks.get(DIRECTED, ()) for session in turn.entity.sessions.values())
