"""Push notifications (XEP-0357): a device that is not there is told, by its app's service, that there is something.

A service belongs to the sessions that have enabled it. It is told when none of them has a stream, or when the stream
has not acknowledged a message for a while; not of chats that are muted (XEP-0492), of messages that nobody would be
shown, or more often than every few seconds. Each decision is a line of the log.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from lxml import etree
from prometheus_client import Counter

from cluster import logs
from router.entity import Entity, Session
from router.events import HeardInRoom, NodeChanged, SaidInRoom
from router.feature import At, Feature, Stage, by_key
from router.notification_settings import DATA as SETTINGS
from router.notification_settings import When, with_settings
from router.turn import Turn
from storage import push
from xmpp import forms, ns
from xmpp import stanza as stanzas
from xmpp.disco import Form, result_form
from xmpp.errors import BadRequest, Forbidden, JidError, JidMalformed, NotAcceptable, ResourceConstraint
from xmpp.jid import bare_of, prepare
from xmpp.stanza import (
    HAS_BODY,
    HAS_ERROR,
    HAS_MUC_USER,
    HAS_OTHER,
    HINT_NO_STORE,
    HINT_STORE,
    OF_PRIVATE_ROOM,
    PRESENCE,
    Stanza,
)
from xmpp.xml import canonical_element, element, text_of

log = logs.get_logger()
notifications = Counter(
    "stentor_router_push_total", "Push notifications, and what was not told, by what became of them", ["result"]
)
_SENT, _WITHHELD, _FAILED, _DISABLED = map(notifications.labels, ("sent", "withheld", "failed", "disabled"))

feature = Feature("push", xep=((357, "0.4.1"),), account_features=(ns.PUSH,))

SERVICES: Final = 20  # of one account
LONGEST: Final = 1_023  # bytes of a node
OPTIONS: Final = 16_384  # bytes of the form
UNACKNOWLEDGED_S: Final = 20.0  # a device that has not acknowledged a message for so long is told
APART_S: Final = 5.0  # what comes sooner after a notification goes into the next one
FAILURES: Final = 5  # in a row, then it is disabled
RETRY_S: Final = 30.0
ENABLED: Final = "push"  # mark of a session: [JID, node] of what it has enabled
_ID: Final = "push-"
_CALL: Final = "{urn:xmpp:jingle-message:0}propose"
_ENCRYPTED: Final = ("{urn:xmpp:omemo:2}encrypted", "{eu.siacs.conversations.axolotl}encrypted")
_TRANSIENT: Final = "wait"  # type of errors after which it is tried again


class Service:
    """A service that an account has enabled; `told_at` and `is_waiting` are this owner's own."""

    __slots__ = ("failures", "is_waiting", "jid", "node", "options", "sender", "told_at")

    def __init__(self, jid: str, node: str, options: bytes, failures: int) -> None:
        self.jid = jid
        self.node = node
        self.options = options
        self.failures = failures
        self.told_at = 0.0  # Unix seconds
        self.is_waiting = False  # something has come since, and will be told soon
        self.sender: Stanza | None = None  # what


def _assign(entity: Entity, loaded: list[push.Enabled]) -> None:
    known = _services(entity)
    found = {(one.jid, one.node): known.get((one.jid, one.node)) or Service(*one) for one in loaded}
    if found:
        entity.data[feature.name] = found
    else:
        entity.data.pop(feature.name, None)


feature.on_load(by_key(push.load), _assign)


def _services(entity: Entity) -> dict[tuple[str, str], Service]:
    services: dict[tuple[str, str], Service] = entity.data.get(feature.name) or {}
    return services


# --- enabling and disabling


@feature.on_iq("set", ns.PUSH, "enable", at=At.OWN)
def enable(turn: Turn, iq: Stanza) -> None:
    """5. Enabled again, the last options count."""
    node = iq.child(ns.PUSH, "enable")
    entity, session = turn.entity, turn.session
    assert node is not None
    assert entity.key is not None
    jid, name = _address(node)
    if len(name.encode()) > LONGEST:
        raise NotAcceptable("The name of the node is too long.")
    x = forms.find(node)
    if x is not None and forms.parse_submit(x).form_type != ns.PUBSUB_OPTIONS:
        raise BadRequest(f"The FORM_TYPE is not '{ns.PUBSUB_OPTIONS}'.")
    options = b"" if x is None else canonical_element(x, "")
    if len(options) > OPTIONS:
        raise NotAcceptable("The form is too large.")
    services = entity.data.setdefault(feature.name, {})
    if (jid, name) not in services and len(services) >= SERVICES:
        raise ResourceConstraint("There are too many push services.")
    services[(jid, name)] = Service(jid, name, options, 0)
    turn.write(push.enable, entity.key, jid, name, options, 0)
    if session is not None:
        session.marks[ENABLED] = [jid, name]
        turn.touch(session)
    turn.answer(iq)


@feature.on_iq("set", ns.PUSH, "disable", at=At.OWN)
def disable(turn: Turn, iq: Stanza) -> None:
    """6: one node of a service, or all."""
    node = iq.child(ns.PUSH, "disable")
    assert node is not None
    jid, name = _address(node)
    for service in list(_services(turn.entity).values()):
        if service.jid == jid and (node.get("node") is None or service.node == name):
            _remove(turn, service)
    turn.answer(iq)


@feature.on_iq("set", ns.PUSH, "enable", at=At.ACCOUNT)
@feature.on_iq("set", ns.PUSH, "disable", at=At.ACCOUNT)
def refuse(turn: Turn, iq: Stanza) -> None:
    """Another's."""
    raise Forbidden


def _address(node: etree._Element) -> tuple[str, str]:
    try:
        return prepare(node.get("jid") or ""), node.get("node") or ""
    except JidError as problem:
        raise JidMalformed("The service has no address.") from problem


def _has_enabled(session: Session, service: Service) -> bool:
    return tuple(session.marks.get(ENABLED, ())) == (service.jid, service.node)


def _remove(turn: Turn, service: Service) -> None:
    entity = turn.entity
    assert entity.key is not None
    _services(entity).pop((service.jid, service.node), None)
    turn.write(push.disable, entity.key, service.jid, service.node)
    for session in entity.sessions.values():
        if _has_enabled(session, service):
            del session.marks[ENABLED]
            turn.touch(session)


@feature.on_message(Stage.IN_SCREEN)
def disabled_remotely(turn: Turn, message: Stanza) -> bool:
    """8: the service says that it takes no more."""
    services = _services(turn.entity)
    from_ = message.from_ or ""
    if not services or not message.flags & HAS_OTHER or not any(service.jid == from_ for service in services.values()):
        return False
    pubsub = message.child(ns.PUBSUB, "pubsub")
    affiliation = None if pubsub is None else pubsub.find(f"{{{ns.PUBSUB}}}affiliation")
    service = services.get((from_, "" if pubsub is None else pubsub.get("node") or ""))
    if affiliation is None or service is None or affiliation.get("affiliation") not in ("none", "outcast"):
        return False
    _remove(turn, service)
    _DISABLED.inc()
    log.info("push_disabled", account=turn.entity.bare, service=from_, reason="the service takes no more")
    return True


# --- what there is to tell


@feature.on_message(Stage.IN_COPY)
def message_came(turn: Turn, message: Stanza) -> bool:
    """A message has passed everything that could refuse it."""
    if _services(turn.entity) and _is_shown(message):
        _consider(turn, message, bare_of(message.from_ or turn.entity.bare), "always")
    return False


def _is_shown(message: Stanza) -> bool:
    """Whether a client would show it to somebody: something said, in the clear or not; an invitation; a call."""
    flags = message.flags
    if message.type in ("groupchat", "headline") or flags & HAS_ERROR:
        return False
    if flags & HAS_BODY:
        return not flags & HINT_NO_STORE
    if flags & HAS_MUC_USER:
        return b"<invite" in message.inner
    if not flags & HAS_OTHER:
        return False
    tags = [child.tag for child in message.children()]
    return _CALL in tags or (any(tag in _ENCRYPTED for tag in tags) and bool(flags & HINT_STORE))


@feature.on_event(SaidInRoom)
def said_in_room(turn: Turn, event: SaidInRoom) -> None:
    """In a room of which the account is a member, while it was not there."""
    if _services(turn.entity) and event.message.flags & HAS_BODY:
        _consider(turn, event.message, event.room, "always")


@feature.on_event(HeardInRoom)
def heard_in_room(turn: Turn, event: HeardInRoom) -> None:
    """In a room in which a session is that has no stream at the moment. XEP-0492, 3: of a public one, mentions."""
    default: When = "always" if event.message.flags & OF_PRIVATE_ROOM else "on-mention"
    services = _services(turn.entity)
    if tuple(event.session.marks.get(ENABLED, ())) in services and event.message.flags & HAS_BODY:
        _consider(turn, event.message, bare_of(event.message.from_ or ""), default)


@feature.on_presence(Stage.IN_SCREEN)
def somebody_asks(turn: Turn, presence: Stanza) -> bool:
    """Somebody wants to see the account's presence."""
    if presence.type == "subscribe" and _services(turn.entity):
        contact = turn.entity.roster.contacts.get(bare_of(presence.from_ or ""))
        if contact is None or not (contact.sees_us or contact.pending_in):
            _consider(turn, presence, bare_of(presence.from_ or ""), "always")
    return False


@feature.on_event(NodeChanged)
def forget_settings(turn: Turn, event: NodeChanged) -> None:
    """The bookmarks say what is muted."""
    if event.name == ns.BOOKMARKS:
        turn.entity.data.pop(SETTINGS, None)


def _consider(turn: Turn, stanza: Stanza, peer: str, default: When) -> None:
    with_settings(turn, partial(_decide, stanza, peer, default))


def _decide(stanza: Stanza, peer: str, default: When, turn: Turn, settings: dict[str, When]) -> None:
    entity = turn.entity
    when = settings.get(peer, default)
    if when == "never" or (when == "on-mention" and not _mentions(entity, stanza)):
        reason = "muted" if when == "never" else "not mentioned"
        _WITHHELD.inc()
        log.debug("push_withheld", account=entity.bare, peer=peer, reason=reason)
        return
    for service in list(_services(entity).values()):
        sessions = [session for session in entity.sessions.values() if _has_enabled(session, service)]
        attached = [session for session in sessions if session.place is not None]
        if not attached:
            _tell(turn, service, stanza, "detached" if sessions else "offline")
            continue
        for session in attached:
            turn.later(UNACKNOWLEDGED_S, partial(_look_again, service, session, session.q, stanza))
        _WITHHELD.inc()
        log.debug("push_withheld", account=entity.bare, service=service.jid, reason="connected")


def _mentions(entity: Entity, message: Stanza) -> bool:
    """XEP-0492, 3: a reference or mention of the user's address, or the local part of it spelled out."""
    inner = message.inner
    if f"xmpp:{entity.bare}".encode() in inner or (ns.MENTIONS.encode() in inner and entity.bare.encode() in inner):
        return True
    return entity.local.casefold() in _body(message).casefold()


def _body(message: Stanza) -> str:
    return text_of(message.child(ns.CLIENT, "body")) if message.flags & HAS_BODY else ""


def _look_again(service: Service, session: Session, q: int, stanza: Stanza, turn: Turn) -> None:
    """The device had a stream; has it got the message?"""
    if turn.entity.sessions.get(session.resource) is session and session.acknowledged > q:
        return
    if _services(turn.entity).get((service.jid, service.node)) is service and session.unacknowledged:
        _tell(turn, service, stanza, "not acknowledged")


# --- telling


def _tell(turn: Turn, service: Service, stanza: Stanza, reason: str) -> None:
    """At once, or with what else comes in the next seconds."""
    service.sender = stanza
    if service.is_waiting:
        return
    wait_s = service.told_at + APART_S - turn.now
    if wait_s > 0:
        service.is_waiting = True
        turn.later(wait_s, partial(_tell_late, service, reason))
        _WITHHELD.inc()
        log.debug("push_withheld", account=turn.entity.bare, service=service.jid, reason="told a moment ago")
    else:
        _publish(turn, service, reason)


def _tell_late(service: Service, reason: str, turn: Turn) -> None:
    service.is_waiting = False
    if _services(turn.entity).get((service.jid, service.node)) is service:
        _publish(turn, service, reason)


def _publish(turn: Turn, service: Service, reason: str) -> None:
    """7: the notification, with a summary and the options that came with the service."""
    entity = turn.entity
    service.told_at = turn.now
    item = element("item", None, None, element("notification", ns.PUSH, None, _summary(turn, service)))
    publish = element("publish", None, {"node": service.node or None}, item)
    options = element("publish-options", None, None, service.options) if service.options else b""
    id_ = f"{_ID}{turn.next_id():x}"
    entity.data.setdefault(_ID, {})[id_] = service
    turn.send(
        stanzas.iq(
            type="set", id=id_, to=service.jid, from_=entity.bare, payload=f"{ns.PUBSUB} pubsub",
            inner=element("pubsub", ns.PUBSUB, None, publish, options),
        )
    )  # fmt: skip
    _SENT.inc()
    log.info("push_sent", account=entity.bare, service=service.jid, reason=reason)


def _summary(turn: Turn, service: Service) -> bytes:
    entity, stanza = turn.entity, service.sender
    unread = len(entity.offline) + (turn.log_id is not None) or max(
        (len(s.unacknowledged) for s in entity.sessions.values()), default=0
    )
    fields = [("message-count", (str(max(unread, 1)),))]
    pending = sum(contact.pending_in for contact in entity.roster.contacts.values())
    if stanza is not None and stanza.kind == PRESENCE:
        fields = [("message-count", ("0",)), ("pending-subscription-count", (str(max(pending, 1)),))]
    elif stanza is not None:
        if pending:
            fields.append(("pending-subscription-count", (str(pending),)))
        if turn.settings.push_tell in ("sender", "body"):
            fields.append(("last-message-sender", (stanza.from_ or "",)))
        # A body, whatever it says, makes services treat it as something to be shown.
        body = _body(stanza) if turn.settings.push_tell == "body" else ""
        fields.append(("last-message-body", (body or turn.settings.push_text,)))
    return result_form(Form(ns.PUSH_SUMMARY, tuple(fields)))


# --- what the service says


@feature.on_any_iq(Stage.IN_SCREEN)
def answered(turn: Turn, iq: Stanza) -> bool:
    """7.1: an error that will not go away disables the service, one that may is tried again a few times."""
    if iq.type not in ("result", "error") or not (iq.id or "").startswith(_ID):
        return False
    sent: dict[str, Service] = turn.entity.data.get(_ID) or {}
    service = sent.pop(iq.id or "", None)
    if service is None or service.jid != iq.from_:
        return False
    if _services(turn.entity).get((service.jid, service.node)) is not service:
        return True
    if iq.type == "result":
        if service.failures:
            _failed(turn, service, 0)
        return True
    error = iq.child(ns.CLIENT, "error")
    type_, condition = ("cancel", "") if error is None else (error.get("type"), _condition(error))
    service.failures += 1
    if type_ != _TRANSIENT or service.failures >= FAILURES:
        _remove(turn, service)
        _DISABLED.inc()
        log.info("push_disabled", account=turn.entity.bare, service=service.jid, reason=condition)
        return True
    _failed(turn, service, service.failures)
    turn.later(RETRY_S * 2 ** (service.failures - 1), partial(_try_again, service))
    _FAILED.inc()
    log.info("push_failed", account=turn.entity.bare, service=service.jid, condition=condition)
    return True


def _failed(turn: Turn, service: Service, failures: int) -> None:
    key = turn.entity.key
    assert key is not None
    service.failures = failures
    turn.write(push.enable, key, service.jid, service.node, service.options, failures)


def _try_again(service: Service, turn: Turn) -> None:
    entity = turn.entity
    if _services(entity).get((service.jid, service.node)) is not service or not service.failures:
        return
    sessions = [session for session in entity.sessions.values() if _has_enabled(session, service)]
    if not any(session.place is not None for session in sessions):
        _publish(turn, service, "tried again")


def _condition(error: etree._Element) -> str:
    return next((str(child.tag).rpartition("}")[2] for child in error if f"{{{ns.STANZAS}}}" in str(child.tag)), "")
