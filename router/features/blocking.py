"""Blocking (XEP-0191): the list, its pushes, and the screen that every stanza of the account passes both ways."""

from __future__ import annotations

from typing import Final

from lxml import etree

from router.blocking_rules import is_blocked
from router.entity import Entity
from router.events import Reported
from router.feature import At, Feature, Stage, by_key
from router.features.presence import end_directed_to_blocked
from router.turn import Turn
from storage import blocks
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.errors import BadRequest, JidError, JidMalformed, NotAcceptable, ResourceConstraint, ServiceUnavailable
from xmpp.jid import bare_of, prepare
from xmpp.stanza import Stanza
from xmpp.xml import element

feature = Feature("blocking", xep=((191, "1.3"),), server_features=(ns.BLOCKING,), account_features=(ns.BLOCKING,))

INTERESTED: Final = "blocking"  # mark of a session that has asked for the list (3.2: it gets the pushes)
NOBODY_THERE: Final = "Nobody is there to take the message."  # word for word as `delivery.py` says it
_ITEM: Final = f"{{{ns.BLOCKING}}}item"


def _assign(entity: Entity, loaded: set[str]) -> None:
    entity.blocks = set(loaded)


feature.on_load(by_key(blocks.load), _assign)


# --- the list


@feature.on_iq("get", ns.BLOCKING, "blocklist", at=At.OWN)
def get(turn: Turn, iq: Stanza) -> None:
    """3.2: all blocked JIDs."""
    session = turn.session
    assert session is not None
    if INTERESTED not in session.marks:
        session.marks[INTERESTED] = True
        turn.touch(session)
    turn.answer(iq, element("blocklist", ns.BLOCKING, None, *_items(sorted(turn.entity.blocks))))


@feature.on_iq("set", ns.BLOCKING, "block", at=At.OWN)
def block(turn: Turn, iq: Stanza) -> None:
    """3.3: block these JIDs; contacts among them see us go offline."""
    entity = turn.entity
    jids = _jids(iq, "block")
    if not jids:
        raise BadRequest("Nobody is named.")  # 3.3
    new = [jid for jid in jids if jid not in entity.blocks]
    if len(entity.blocks) + len(new) > turn.settings.blocks:
        raise ResourceConstraint("The block list is full.")
    assert entity.key is not None
    visible = _visible_contacts(entity)
    entity.blocks.update(new)
    if new:
        turn.write(blocks.add, entity.key, new)
    turn.answer(iq)
    _push(turn, "block", jids)
    _report(turn, iq)
    hidden = [contact for contact in visible if is_blocked(entity, contact)]
    hidden += [jid for jid in new if "/" in jid and bare_of(jid) in visible and bare_of(jid) not in hidden]
    for session in entity.available():
        _tell(turn, stanzas.presence(to=None, from_=session.jid, type="unavailable"), hidden)
    end_directed_to_blocked(turn)


@feature.on_iq("set", ns.BLOCKING, "unblock", at=At.OWN)
def unblock(turn: Turn, iq: Stanza) -> None:
    """3.4 and 3.5: unblock these JIDs, or everybody; contacts among them see us again."""
    entity = turn.entity
    jids = _jids(iq, "unblock")
    assert entity.key is not None
    before = set(_visible_contacts(entity))
    freed = [jid for jid in jids if jid in entity.blocks] if jids else sorted(entity.blocks)
    if jids:
        entity.blocks.difference_update(jids)
        turn.write(blocks.remove, entity.key, jids)
    else:
        entity.blocks.clear()
        turn.write(blocks.clear, entity.key)
    turn.answer(iq)
    _push(turn, "unblock", jids)
    shown = [contact for contact in _visible_contacts(entity) if contact not in before]
    shown += [jid for jid in freed if "/" in jid and bare_of(jid) in before and not is_blocked(entity, jid)]
    for session in entity.available():
        assert session.presence is not None
        _tell(turn, session.presence, shown)


def _report(turn: Turn, iq: Stanza) -> None:
    """XEP-0377: a report is for whoever hears of it, and changes nothing here."""
    for item in iq.children()[0].iterchildren(_ITEM):
        report = item.find(f"{{{ns.REPORTING}}}report")
        if report is not None:
            turn.emit(Reported(_jid(item), report))


def _visible_contacts(entity: Entity) -> list[str]:
    """Who gets the account's presence now."""
    contacts = entity.roster.contacts.values()
    return [contact.jid for contact in contacts if contact.sees_us and not is_blocked(entity, contact.jid)]


def _tell(turn: Turn, presence: Stanza, jids: list[str]) -> None:
    """Contacts by their bare JIDs; a full one where only that resource is blocked."""
    turn.broadcast(presence, [jid for jid in jids if "/" not in jid])
    for jid in jids:
        if "/" in jid:
            turn.send(presence._replace(to=jid))


def _push(turn: Turn, name: str, jids: list[str]) -> None:
    inner = element(name, ns.BLOCKING, None, *_items(jids))
    for session in turn.entity.sessions.values():
        if INTERESTED in session.marks:
            id_ = f"{name}-{turn.origin:x}-{turn.n}"
            turn.deliver(session, stanzas.iq(type="set", id=id_, to=session.jid, from_=None, inner=inner))


def _items(jids: list[str]) -> list[bytes]:
    return [element("item", None, {"jid": jid}) for jid in jids]


def _jids(iq: Stanza, name: str) -> list[str]:
    parent = iq.child(ns.BLOCKING, name)
    assert parent is not None
    if any(item.tag != _ITEM for item in parent):
        raise BadRequest("There is something else than items.")  # an <unblock/> that is not empty is not for everybody
    return list(dict.fromkeys(_jid(item) for item in parent))


def _jid(item: etree._Element) -> str:
    jid = item.get("jid")
    if jid is None:
        raise BadRequest("An item has no 'jid'.")
    try:
        return prepare(jid)
    except JidError as problem:
        raise JidMalformed("An item's 'jid' is not a JID.") from problem


# --- the screen


def _blocked_error() -> NotAcceptable:
    """3.3, example 9: what the user gets for writing to somebody they have blocked."""
    return NotAcceptable(
        "You have blocked this address.", application=element("blocked", ns.BLOCKING_ERRORS), type="cancel"
    )


@feature.on_message(Stage.OUT_SCREEN)
def screen_outgoing_message(turn: Turn, message: Stanza) -> bool:
    """3.3: nothing goes to whom one has blocked."""
    if turn.entity.blocks and message.to is not None and is_blocked(turn.entity, message.to):
        raise _blocked_error()
    return False


@feature.on_any_iq(Stage.OUT_SCREEN)
def screen_outgoing_iq(turn: Turn, iq: Stanza) -> bool:
    """The same for IQs."""
    return screen_outgoing_message(turn, iq)


@feature.on_presence(Stage.OUT_SCREEN)
def screen_outgoing_presence(turn: Turn, presence: Stanza) -> bool:
    """The same for directed presence; broadcasts leave blocked contacts out by themselves."""
    return screen_outgoing_message(turn, presence)


@feature.on_message(Stage.IN_SCREEN)
def screen_message(turn: Turn, message: Stanza) -> bool:
    """3.3: service-unavailable for messages, as if nobody were there; headline, groupchat (an error would be told to
    all the room) and error are dropped in silence."""
    entity = turn.entity
    if not entity.blocks or message.from_ is None or not is_blocked(entity, message.from_):
        return False
    if message.type in ("groupchat", "error", "headline"):
        return True
    raise ServiceUnavailable(NOBODY_THERE)


@feature.on_any_iq(Stage.IN_SCREEN)
def screen_iq(turn: Turn, iq: Stanza) -> bool:
    """3.3: service-unavailable for requests, silence for answers."""
    entity = turn.entity
    if not entity.blocks or iq.from_ is None or not is_blocked(entity, iq.from_):
        return False
    if iq.type in ("get", "set"):
        raise ServiceUnavailable
    return True


@feature.on_presence(Stage.IN_SCREEN)
def screen_presence(turn: Turn, presence: Stanza) -> bool:
    """3.3: presence of any kind is dropped in silence; a probe, too: they do not learn that they are blocked."""
    entity = turn.entity
    return bool(entity.blocks) and presence.from_ is not None and is_blocked(entity, presence.from_)
