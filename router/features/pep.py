"""Personal eventing (XEP-0163): each account has nodes (XEP-0060, `router/pubsub/`). Contacts are told of what is
published there if their clients want it, and of the newest items when they come online."""

from __future__ import annotations

from functools import partial
from typing import Final

from router import interests
from router.entity import Entity, Session
from router.events import BecameUnavailable, SentPresence
from router.feature import At, Feature, Stage, by_key
from router.interests import NOTHING, WATCHERS, Wants, wanted, wanted_of
from router.pubsub import notifying, requests, subscribing
from router.pubsub.discovering import ACCOUNT_FEATURES
from router.pubsub.node import assign, host_of
from router.pubsub.rights import is_known_to
from router.turn import Turn
from storage import pubsub
from xmpp import caps as capabilities
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.errors import ItemNotFound, ServiceUnavailable
from xmpp.jid import bare_of, domain_of
from xmpp.stanza import BY_INTEREST, HAS_CAPS, HAS_EVENT, HAS_OTHER, TO_FULL, Stanza

feature = Feature(
    "pep",
    xep=(
        (60, "1.30.0"),
        (163, "1.2.2"),
        (223, "1.1.1"),
        (390, "0.3.2"),
        (442, "0.2.0"),
        (384, "0.9.1"),
        (492, "0.2.0"),
    ),
    server_features=(f"{ns.PUBSUB}#publish-options",),
    account_features=ACCOUNT_FEATURES,
)

feature.on_load(by_key(pubsub.load), assign)

WATCHED: Final = 5_000  # clients of contacts on other servers that one account remembers
_ITEMS_ONLY: Final = "items"  # id of a probe that wants no presence


# --- requests


@feature.on_iq("get", ns.PUBSUB, "pubsub", at=At.OWN)
@feature.on_iq("set", ns.PUBSUB, "pubsub", at=At.OWN)
@feature.on_iq("get", ns.PUBSUB_OWNER, "pubsub", at=At.OWN)
@feature.on_iq("set", ns.PUBSUB_OWNER, "pubsub", at=At.OWN)
def own(turn: Turn, iq: Stanza) -> None:
    """The account's own nodes."""
    requests.handle(turn, iq)


@feature.on_iq("get", ns.PUBSUB, "pubsub", at=At.ACCOUNT)
@feature.on_iq("set", ns.PUBSUB, "pubsub", at=At.ACCOUNT)
@feature.on_iq("get", ns.PUBSUB_OWNER, "pubsub", at=At.ACCOUNT)
@feature.on_iq("set", ns.PUBSUB_OWNER, "pubsub", at=At.ACCOUNT)
def of_contact(turn: Turn, iq: Stanza) -> None:
    """Somebody else's. To a stranger, an account without the node looks as no account does (RFC 6121, 8.5.1)."""
    try:
        requests.handle(turn, iq)
    except ItemNotFound:
        if not is_known_to(turn.entity, bare_of(iq.from_ or "")):
            raise ServiceUnavailable from None
        raise


@feature.on_message(Stage.IN_SCREEN)
def answer_request(turn: Turn, message: Stanza) -> bool:
    """8.6: the account's owner says who may subscribe."""
    entity = turn.entity
    if message.to != entity.bare or message.from_ is None or bare_of(message.from_) != entity.bare:
        return False
    return bool(message.flags & HAS_OTHER) and subscribing.answered(turn, host_of(entity), message)


# --- what clients want


@feature.on_any_iq(Stage.OUT_SCREEN)
@feature.on_any_iq(Stage.IN_SCREEN)
def hear_answer(turn: Turn, iq: Stanza) -> bool:
    """A client says what it is."""
    if iq.to not in (None, turn.entity.bare):
        return False
    return interests.answered(turn, iq)


@feature.on_event(SentPresence)
def client_is_there(turn: Turn, event: SentPresence) -> None:
    """One of the account's own clients is available, and says (anew) what it is."""
    session = event.session
    assert session.presence is not None
    caps = capabilities.of_presence(session.presence)
    if caps is None:
        session.interest = NOTHING
        return
    interests.resolve(turn, caps, session.jid, partial(_wants, session, session.presence, event.asked))


@feature.on_event(BecameUnavailable)
def client_is_gone(turn: Turn, event: BecameUnavailable) -> None:
    """It will say anew what it is."""
    event.session.interest = None
    interests.forget(turn.entity, event.session.jid)


def _wants(session: Session, presence: Stanza, asked: Wants, turn: Turn, wants: Wants) -> None:
    entity = turn.entity
    if entity.sessions.get(session.resource) is not session or session.presence is not presence:
        return
    new = wants - (session.interest or NOTHING)
    session.interest = wants
    if not new:
        return
    notifying.send_last(turn, host_of(entity), sorted(new), session.jid, session)
    if not new <= asked:
        domains = turn.settings.domains
        contacts = [c.jid for c in entity.roster.contacts.values() if c.seen_by_us and domain_of(c.jid) in domains]
        turn.broadcast(_probe(session, new - asked, _ITEMS_ONLY), contacts)


def _probe(session: Session, nodes: Wants, id_: str | None) -> Stanza:
    return stanzas.presence(to=None, from_=session.jid, type="probe", id=id_, inner=wanted(nodes), flags=BY_INTEREST)


def probe_of(session: Session) -> tuple[Stanza, Wants]:
    """The probe for contacts of this cluster (RFC 6121, 4.3) when a client comes online: it also asks for the newest
    items of what the client wants, if that is known at once. Returns what it has asked for."""
    assert session.presence is not None
    caps = capabilities.of_presence(session.presence)
    wants = None if caps is None else interests.known.get(caps)
    if not wants:
        return stanzas.presence(to=None, from_=session.jid, type="probe"), NOTHING
    return _probe(session, wants, None), wants


@feature.on_presence(Stage.IN_DELIVER)
def contact_is_there(turn: Turn, presence: Stanza) -> bool:
    """A contact's client: of this cluster, it asks for the newest items; of another server, its presence tells."""
    if presence.type == "probe":
        if not presence.flags & BY_INTEREST:
            return False
        assert presence.from_ is not None
        if turn.entity.exists:
            notifying.send_last(turn, host_of(turn.entity), wanted_of(presence), presence.from_)
        return presence.id == _ITEMS_ONLY
    if presence.type in (None, "unavailable") and turn.entity.exists:
        from_ = presence.from_ or ""
        if domain_of(from_) not in turn.settings.domains:
            _watch(turn, from_, presence)
    elif presence.type == "subscribed":
        _now_seen(turn, bare_of(presence.from_ or ""))
    return False


def _now_seen(turn: Turn, contact: str) -> None:
    """XEP-0163, 4.3.4: a contact has let the account see its presence: its newest items come with it."""
    if domain_of(contact) not in turn.settings.domains:
        return
    for session in turn.entity.available():
        if session.interest:
            turn.send(_probe(session, session.interest, _ITEMS_ONLY)._replace(to=contact))


# --- contacts on other servers


def _watchers(entity: Entity) -> dict[str, Wants]:
    watchers: dict[str, Wants] = entity.data.setdefault(WATCHERS, {})
    return watchers


def _watch(turn: Turn, jid: str, presence: Stanza) -> None:
    entity = turn.entity
    contact = entity.roster.contacts.get(bare_of(jid))
    if presence.type == "unavailable":
        watchers: dict[str, Wants] = entity.data.get(WATCHERS) or {}
        watchers.pop(jid, None)
        interests.forget(entity, jid)
        return
    if contact is None or not contact.sees_us or not presence.flags & (HAS_CAPS | HAS_OTHER):
        return
    caps = capabilities.of_presence(presence)
    if caps is not None:
        interests.resolve(turn, caps, jid, partial(_watches, jid))


def _watches(jid: str, turn: Turn, wants: Wants) -> None:
    watchers = _watchers(turn.entity)
    new = wants - watchers.get(jid, NOTHING)
    if len(watchers) >= WATCHED and jid not in watchers:
        return
    watchers[jid] = wants
    if new:
        notifying.send_last(turn, host_of(turn.entity), sorted(new), jid)


# --- a contact's notification


@feature.on_message(Stage.IN_SCREEN)
def pass_on(turn: Turn, message: Stanza) -> bool | Stanza:
    """What a contact of this cluster has published, for those clients that want it. What goes to many subscribers is
    for each of them from here on."""
    if not message.flags & BY_INTEREST:
        if message.to is None and message.flags & HAS_EVENT:
            return message._replace(to=turn.entity.bare)
        return False
    name = notifying.node_of(message)
    told = message._replace(to=None, flags=(message.flags & ~BY_INTEREST) | TO_FULL | HAS_EVENT)
    for session in turn.entity.available():
        if name is not None:
            notifying.give(turn, session, name, told)
    return True
