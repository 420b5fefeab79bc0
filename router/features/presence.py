"""Presence (RFC 6121, 4): broadcast, probes, directed presence, and what is left when a session ends."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from router.blocking_rules import is_blocked
from router.entity import Entity, Session
from router.events import BecameAvailable, BecameReachable, BecameUnavailable, SentPresence, SessionClosed
from router.feature import Feature, Stage
from router.features.activity import unavailable_since
from router.features.pep import probe_of
from router.turn import Turn
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.errors import BadRequest, ResourceConstraint
from xmpp.jid import domain_of
from xmpp.stanza import Stanza
from xmpp.xml import element, text_of

feature = Feature("presence", rfc="RFC 6121, 4")

DIRECTED: Final = "directed"  # mark of a session: whom it sent directed presence, beyond its subscribers (4.6)
_TYPES: Final = frozenset({None, "unavailable", "probe", "error"})


# --- outbound


@feature.on_presence(Stage.OUT_ACT)
def send(turn: Turn, presence: Stanza) -> bool:
    """A session sends presence (4.2, 4.4, 4.5, 4.6). Subscriptions were taken by an earlier step."""
    session = turn.session
    assert session is not None
    if presence.type not in _TYPES:
        raise BadRequest("There is no such type of presence.")  # 4.7.1
    if presence.to is not None:
        _send_directed(turn, session, presence)
    elif presence.type is None:
        _become_available(turn, session, presence)
    elif presence.type == "unavailable":
        _become_unavailable(turn, session, presence)
    else:
        raise BadRequest("A probe or an error needs a 'to'.")
    return True


def _become_available(turn: Turn, session: Session, presence: Stanza) -> None:
    entity = turn.entity
    priority = _priority(presence)
    is_initial, was_hidden = session.presence is None, session.priority < 0
    asked: frozenset[str] = frozenset()
    session.presence, session.priority = presence, priority
    turn.touch(session)
    turn.broadcast(presence, [contact for contact in _subscribers(entity) if not is_blocked(entity, contact)])
    for other in entity.available():  # 4.2.2: to all of the account's resources, this one included
        turn.deliver(other, presence)
    if is_initial:
        session.interest = None
        asked = _begin(turn, session)
    elif was_hidden and priority >= 0:
        turn.emit(BecameReachable(session))
    turn.emit(SentPresence(session, asked))


def told_anew(turn: Turn, session: Session, presence: Stanza) -> None:
    """The server has changed what an available session's presence says; everybody is told."""
    entity = turn.entity
    session.presence = presence
    turn.touch(session)
    turn.broadcast(presence, [contact for contact in _subscribers(entity) if not is_blocked(entity, contact)])
    for other in entity.available():
        turn.deliver(other, presence)


def _begin(turn: Turn, session: Session) -> frozenset[str]:
    """4.2.2 and 4.3: initial presence asks for the contacts' presence and learns of the account's other resources.
    Returns the nodes of which contacts were asked for the newest items."""
    entity = turn.entity
    for other in entity.available():
        if other is not session and other.presence is not None:
            turn.deliver(session, other.presence)
    seen = [
        contact.jid
        for contact in entity.roster.contacts.values()
        if contact.seen_by_us and not is_blocked(entity, contact.jid)
    ]
    # 4.3: a probe comes from the bare JID. Inside the cluster it names the session, which alone needs the answers.
    domains = turn.settings.domains
    here = [jid for jid in seen if domain_of(jid) in domains]
    elsewhere = [jid for jid in seen if domain_of(jid) not in domains]
    probe, asked = probe_of(session)
    turn.broadcast(probe, here)
    turn.broadcast(stanzas.presence(to=None, from_=entity.bare, type="probe"), elsewhere)
    turn.emit(BecameAvailable(session))
    return asked


def _become_unavailable(turn: Turn, session: Session, presence: Stanza) -> None:
    """4.5: subscribers, own resources and whoever got directed presence are told."""
    entity = turn.entity
    told: list[str] = []
    if session.presence is not None:
        session.presence, session.priority = None, 0
        told = [contact for contact in _subscribers(entity) if not is_blocked(entity, contact)]
        turn.broadcast(presence, told)
        for other in entity.available():
            turn.deliver(other, presence)
        if turn.session is session:
            turn.deliver(session, presence)  # 4.5.2: "as well as to the resource that generated" it
        turn.emit(BecameUnavailable(session, presence))
    if directed := session.marks.pop(DIRECTED, ()):
        already = set(told)
        for to in directed:
            if to not in already:
                turn.send(presence._replace(to=to))
    if turn.session is session:
        turn.touch(session)


def _send_directed(turn: Turn, session: Session, presence: Stanza) -> None:
    """4.6.3: remembered, unless they learn of our going anyway."""
    to = presence.to
    assert to is not None
    directed: list[str] = list(session.marks.get(DIRECTED, ()))
    if presence.type is None and to not in directed and not _is_told_anyway(turn.entity, session, to):
        if len(directed) >= turn.settings.directed_presences:
            raise ResourceConstraint("Directed presence was sent to too many entities.")
        session.marks[DIRECTED] = [*directed, to]
        turn.touch(session)
    elif presence.type == "unavailable" and to in directed:
        directed.remove(to)
        session.marks[DIRECTED] = directed
        turn.touch(session)
    turn.send(presence)


def _is_told_anyway(entity: Entity, session: Session, to: str) -> bool:
    bare = to.partition("/")[0]
    contact = entity.roster.contacts.get(bare)
    return session.presence is not None and (bare == entity.bare or (contact is not None and contact.sees_us))


def end_directed_to_blocked(turn: Turn) -> None:
    """The account has just blocked somebody: whoever of them got directed presence sees those sessions go."""
    entity = turn.entity
    for session in entity.sessions.values():
        directed: list[str] = list(session.marks.get(DIRECTED, ()))
        blocked = [to for to in directed if is_blocked(entity, to)]
        if blocked:
            session.marks[DIRECTED] = [to for to in directed if to not in blocked]
            turn.touch(session)
        for to in blocked:
            turn.send(stanzas.presence(to=to, from_=session.jid, type="unavailable"))


@feature.on_event(SessionClosed)
def session_closed(turn: Turn, event: SessionClosed) -> None:
    """4.5.2: a stream that ends without unavailable presence has it sent on its behalf."""
    session = event.session
    unavailable = stanzas.presence(to=None, from_=session.jid, type="unavailable")
    if session.presence is not None or session.marks.get(DIRECTED):
        _become_unavailable(turn, session, unavailable)


def _subscribers(entity: Entity) -> list[str]:
    return [contact.jid for contact in entity.roster.contacts.values() if contact.sees_us]


def _priority(presence: Stanza) -> int:
    """4.7.2.3: an integer from -128 to 127, 0 where there is none."""
    if b"priority" not in presence.inner:
        return 0
    priority = presence.child(ns.CLIENT, "priority")
    if priority is None:
        return 0
    text = text_of(priority).strip()
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 3 and -128 <= int(text) <= 127):
        raise BadRequest("A priority is an integer from -128 to 127.")
    return int(text)


# --- inbound


@feature.on_presence(Stage.IN_DELIVER)
def receive(turn: Turn, presence: Stanza) -> bool:
    """Presence arrives (RFC 6121, 8.5): for a session, or for all available ones."""
    entity = turn.entity
    if presence.type not in _TYPES:
        raise BadRequest("There is no such type of presence.")  # 4.7.1
    if presence.type == "probe":
        _answer_probe(turn, presence)
        return True
    if presence.type == "unavailable":
        _forget_directed(turn, presence)
    resource = presence.to.partition("/")[2] if presence.to is not None else ""
    if resource:
        session = entity.sessions.get(resource)
        if session is not None:  # 8.5.3.1; without such a session it is ignored (8.5.3.2.2)
            turn.deliver(session, presence)
    elif presence.type in (None, "unavailable"):
        for session in entity.available():  # 8.5.2.1.2
            turn.deliver(session, presence)
    return True


def _forget_directed(turn: Turn, presence: Stanza) -> None:
    """4.6.1: whoever got directed presence and goes need not be told of our going."""
    for session in turn.entity.sessions.values():
        directed = session.marks.get(DIRECTED, ())
        if presence.from_ in directed and presence.to in (None, session.bare, session.jid):
            session.marks[DIRECTED] = [to for to in directed if to != presence.from_]
            turn.touch(session)


def _answer_probe(turn: Turn, probe: Stanza) -> None:
    """4.3.2: by what the prober may see. 4.3.2.1: only an answer that is no available presence has the probe's id."""
    entity = turn.entity
    prober = probe.from_
    assert prober is not None
    bare = prober.partition("/")[0]
    resource = (probe.to or "").partition("/")[2]
    session = entity.sessions.get(resource)
    contact = entity.roster.contacts.get(bare)
    if bare != entity.bare and (contact is None or not contact.sees_us):
        if session is not None and {prober, bare}.intersection(session.marks.get(DIRECTED, ())):
            turn.send(stanzas.presence(to=prober, from_=session.jid))  # 4.6.6: "mere presence"
        elif contact is None or not contact.pending_in:
            # 4.3.2, first rule. A request of theirs that waits is not answered by this.
            turn.send(stanzas.presence(to=bare, from_=entity.bare, type="unsubscribed", id=probe.id))
        return
    if resource:  # of that resource alone, and only whether it is there
        if session is not None and session.presence is not None:
            turn.send(stanzas.presence(to=prober, from_=session.jid, id=session.presence.id))
        else:
            turn.send(stanzas.presence(to=prober, from_=probe.to, type="unavailable", id=probe.id))
        return
    sessions = entity.available()
    for session in sessions:
        assert session.presence is not None
        turn.send(session.presence._replace(to=prober))
    if not sessions:
        turn.send(_unavailable(entity, prober, probe.id))


def _unavailable(entity: Entity, prober: str, id: str | None) -> Stanza:
    """4.3.2, rule 3: nobody is there, and since when (XEP-0203)."""
    inner, flags = b"", 0
    if (since := unavailable_since(entity)) is not None:
        stamp = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        inner, flags = element("delay", ns.DELAY, {"stamp": stamp}), stanzas.HAS_DELAY
    return stanzas.presence(to=prober, from_=entity.bare, type="unavailable", id=id, inner=inner, flags=flags)
