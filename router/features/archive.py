"""Message Archive Management (XEP-0313): which messages of an account are kept (also XEP-0441, XEP-0334), their ids
(XEP-0359), and queries for them (paged by XEP-0059, full text by XEP-0431).

A kept message is a row of the log (`storage/log.py`); a query on its way is in `router/archive_query.py`. Retractions
(XEP-0424) are kept like other messages, which is what it demands of an archive (6); that a "tombstone" takes the place
of the retracted message is a MAY (5): it stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lxml import etree

from router.archive_query import FIELDS, Reading, parse_jid
from router.entity import Entity
from router.feature import At, Feature, Stage
from router.pubsub import requests as nodes
from router.pubsub.node import host_of
from router.pubsub.rights import is_known_to
from router.recipients import with_stanza_id
from router.turn import Turn
from storage import archive
from storage.accounts import Account
from storage.archive import Ends, Preferences
from storage.log import ARCHIVE, FROM_OWNER, TO_OWNER, time_of
from storage.rows import Connection
from xmpp import forms, ns
from xmpp.errors import BadRequest, Forbidden, JidError, ResourceConstraint, ServiceUnavailable
from xmpp.jid import bare_of, prepare
from xmpp.stanza import (
    HAS_BODY,
    HAS_CHAT_STATE,
    HAS_EVENT,
    HAS_MARKER,
    HAS_MUC_USER,
    HAS_OTHER,
    HAS_RECEIPT,
    HAS_STANZA_ID,
    HAS_SUBJECT,
    HINT_NO_PERMANENT_STORE,
    HINT_NO_STORE,
    HINT_STORE,
    Stanza,
)
from xmpp.timestamp import format_moment
from xmpp.xml import canonical_element, element, escape_text, parse_document, text_of

feature = Feature(
    "archive",
    xep=(
        (313, "1.1.3"), (59, "1.0"), (359, "0.7.0"), (334, "1.0.0"), (441, "0.2.0"), (431, "0.2.0"), (424, "0.4.2"),
        (4, "2.13.2"), (82, "1.1.1"), (297, "1.0"),
    ),
    server_features=(ns.RETRACT,),
    account_features=(
        ns.MAM, ns.MAM_EXTENDED, ns.MAM_GROUPCHAT_FIELD, ns.SID, ns.RSM, ns.FULL_TEXT, ns.RETRACT,
    ),
)  # fmt: skip

LISTED: Final = 1_000  # addresses in each list of the preferences
_NOT_KEPT: Final = frozenset({"groupchat", "headline", "error"})  # any other is normal (RFC 6121, 5.2.2)
_NOTHING_CHOSEN: Final = Preferences()


def _assign(entity: Entity, loaded: Preferences) -> None:
    entity.data[feature.name] = loaded


async def _load(conn: Connection, found: Sequence[Account]) -> dict[int, Preferences]:
    return {account.key: Preferences.of(account) for account in found}


feature.on_load(_load, _assign)


def preferences_of(entity: Entity) -> Preferences:
    """What the account wants archived."""
    known: Preferences = entity.data.get(feature.name, _NOTHING_CHOSEN)
    return known


# --- what is kept


def is_worth_keeping(message: Stanza) -> bool:
    """XEP-0313, 6.1.1: messages of type chat or normal with a body, and what supplements a conversation: receipts,
    markers, corrections, reactions, retractions, invitations, encrypted content. Nothing that is of the moment only.
    XEP-0334 hints may say otherwise."""
    flags = message.flags
    if message.type in _NOT_KEPT or flags & (HINT_NO_STORE | HINT_NO_PERMANENT_STORE):
        return False
    if flags & (HAS_BODY | HINT_STORE):
        return True
    if flags & HAS_EVENT:
        return False
    if flags & (HAS_RECEIPT | HAS_MARKER | HAS_SUBJECT | HAS_OTHER):
        return True
    return bool(flags & HAS_MUC_USER) and not flags & HAS_CHAT_STATE


def is_wanted(turn: Turn, jid: str) -> bool:
    """XEP-0441, 2.3: whether the account wants messages to and from this address archived. An entry with a resource
    goes before one without, "never" before "always"."""
    entity = turn.entity
    preferences: Preferences = entity.data.get(feature.name, _NOTHING_CHOSEN)
    if preferences.always or preferences.never:
        for address in dict.fromkeys((jid, bare_of(jid))):
            if address in preferences.never:
                return False
            if address in preferences.always:
                return True
    default = preferences.default or turn.settings.archive_default
    if default != "roster":
        return default == "always"
    bare = bare_of(jid)
    contact = entity.roster.contacts.get(bare)
    return bare == entity.bare or (contact is not None and contact.in_roster)


@feature.on_message(Stage.OUT_RECORD)
def record_sent(turn: Turn, message: Stanza) -> bool | Stanza:
    """The sender's copy. A message to the account itself is kept where it arrives: once."""
    entity, to = turn.entity, message.to
    assert to is not None
    own = message
    if message.flags & HAS_STANZA_ID:
        own = without_forged_ids(turn, message)
    if entity.key is not None and is_worth_keeping(own) and bare_of(to) != entity.bare and is_wanted(turn, to):
        turn.log(own, FROM_OWNER, ARCHIVE)
    return own if own is not message else False


@feature.on_message(Stage.IN_RECORD)
def record_received(turn: Turn, message: Stanza) -> bool | Stanza:
    """The recipient's copy, and its id in what is delivered (XEP-0313, 3.5). Where the message is refused later, both
    go with it."""
    entity, from_ = turn.entity, message.from_
    own = message
    if message.flags & HAS_STANZA_ID:
        own = without_forged_ids(turn, message)
    if entity.key is not None and is_worth_keeping(own) and is_wanted(turn, from_ or entity.bare):
        return with_stanza_id(own, entity.bare, turn.log(own, TO_OWNER, ARCHIVE))
    return own if own is not message else False


def without_forged_ids(turn: Turn, message: Stanza) -> Stanza:
    """XEP-0359, 3, rule 2: ids that claim to be given by this account or by the server go; all others stay."""
    names = {turn.entity.bare, *turn.settings.domains}
    root = parse_document(b'<message xmlns="%b">%b</message>' % (ns.CLIENT.encode(), message.inner))
    kept = [child for child in root if not (child.tag == _STANZA_ID and _prepared(child.get("by")) in names)]
    if len(kept) == len(root):
        return message
    inner = escape_text(root.text or "").encode()
    for child in root:
        if child in kept:
            inner += canonical_element(child, ns.CLIENT)
        inner += escape_text(child.tail or "").encode()
    return message._replace(inner=inner)


_STANZA_ID: Final = f"{{{ns.SID}}}stanza-id"


def _prepared(jid: str | None) -> str | None:
    try:
        return None if jid is None else prepare(jid)
    except JidError:
        return None  # nobody's


# --- preferences


@feature.on_iq("get", ns.MAM_PREFERENCES, "prefs", at=At.OWN)
def get_preferences(turn: Turn, iq: Stanza) -> None:
    """XEP-0441, 2.1: what is in force."""
    _answer_preferences(turn, iq)


@feature.on_iq("set", ns.MAM_PREFERENCES, "prefs", at=At.OWN)
def set_preferences(turn: Turn, iq: Stanza) -> None:
    """XEP-0441, 2.1: new preferences; the answer tells what is in force now."""
    prefs = iq.child(ns.MAM_PREFERENCES, "prefs")
    assert prefs is not None
    default = prefs.get("default")
    if default not in ("always", "never", "roster"):
        raise BadRequest("'default' is always, never or roster.")
    never = _jids(prefs, "never")
    always = _jids(prefs, "always") - never
    key = turn.entity.key
    assert key is not None
    _assign(turn.entity, Preferences(default, always, never))
    turn.write(archive.set_preferences, key, default, sorted(always), sorted(never))
    _answer_preferences(turn, iq)


def _answer_preferences(turn: Turn, iq: Stanza) -> None:
    preferences = preferences_of(turn.entity)
    default = preferences.default or turn.settings.archive_default
    lists = [
        element(name, None, None, *(element("jid", None, None, jid) for jid in sorted(jids)))
        for name, jids in (("always", preferences.always), ("never", preferences.never))
    ]
    turn.answer(iq, element("prefs", ns.MAM_PREFERENCES, {"default": default}, *lists))


def _jids(prefs: etree._Element, name: str) -> frozenset[str]:
    found = prefs.iterfind(f"{{{ns.MAM_PREFERENCES}}}{name}/{{{ns.MAM_PREFERENCES}}}jid")
    jids = frozenset(parse_jid(text_of(jid)) for jid in found)
    if len(jids) > LISTED:
        raise ResourceConstraint("The list of addresses is too long.")
    return jids


# --- queries


@feature.on_iq("get", ns.MAM, "query", at=At.OWN)
def tell_fields(turn: Turn, iq: Stanza) -> None:
    """XEP-0313, 4.1.5: the form that a query may have."""
    turn.answer(iq, element("query", ns.MAM, None, forms.to_fill_in(ns.MAM, FIELDS)))


@feature.on_iq("set", ns.MAM, "query", at=At.OWN)
def query(turn: Turn, iq: Stanza) -> None:
    """XEP-0313, 4: a page of the archive, or of that of a node (XEP-0442)."""
    if (node := _node(iq)) is not None:
        nodes.archive(turn, iq, node)
    else:
        Reading(turn, iq).begin(turn)


def _node(iq: Stanza) -> str | None:
    asked = iq.child(ns.MAM, "query")
    return None if asked is None else asked.get("node")


@feature.on_iq("set", ns.MAM, "query", at=At.ACCOUNT)
def query_node(turn: Turn, iq: Stanza) -> None:
    """XEP-0442: of somebody's node; of the account itself nobody reads another's (XEP-0313, 8.1)."""
    node = _node(iq)
    if node is None:
        raise Forbidden
    if node not in host_of(turn.entity).nodes and not is_known_to(turn.entity, bare_of(iq.from_ or "")):
        raise ServiceUnavailable
    nodes.archive(turn, iq, node)


@feature.on_iq("get", ns.MAM, "metadata", at=At.OWN)
def tell_ends(turn: Turn, iq: Stanza) -> None:
    """XEP-0313, 5: the first and the last message."""

    def found(later: Turn, ends: Ends | None) -> None:
        parts = () if ends is None else (("start", ends.first), ("end", ends.last))
        inner = [element(name, None, {"id": str(id_), "timestamp": format_moment(time_of(id_))}) for name, id_ in parts]
        later.answer(iq, element("metadata", ns.MAM, None, *inner))

    assert turn.entity.key is not None
    turn.fetch(archive.ends, found, turn.entity.key)


@feature.on_iq("get", ns.MAM, "query", at=At.ACCOUNT)
@feature.on_iq("get", ns.MAM, "metadata", at=At.ACCOUNT)
@feature.on_iq("get", ns.MAM_PREFERENCES, "prefs", at=At.ACCOUNT)
@feature.on_iq("set", ns.MAM_PREFERENCES, "prefs", at=At.ACCOUNT)
def refuse(turn: Turn, iq: Stanza) -> None:
    """XEP-0313, 8.1: nobody reads another's archive."""
    raise Forbidden
