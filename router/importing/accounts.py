"""What an account has beside its archive and its nodes: roster, block list, vCard, private storage, preferences.

Each function is part of a turn of the account; what it needs of the database was read before it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from router import roster_changes
from router.features import avatars, bookmarks
from router.features.archive import LISTED, preferences_of
from router.features.archive import feature as archive_feature
from router.importing.reading import read_element, read_jid, read_stanza
from router.importing.results import DONE, IMPORTED, KNOWN, Result, Thing, left_out
from router.pubsub.node import find
from router.turn import Turn
from storage import archive, blocks, importing
from storage.archive import Preferences
from xmpp import ns
from xmpp.errors import StanzaError
from xmpp.jid import bare_of
from xmpp.stanza import PRESENCE
from xmpp.xml import canonical_element, element, split_tag

SUBSCRIPTIONS: Final = ("none", "to", "from", "both")
_RESERVED: Final = ("jabber:client", "jabber:server", "jabber:iq:", "vcard-temp")  # XEP-0049, 2.3
_DEFAULTS: Final = ("always", "roster", "never")


def contact(turn: Turn, thing: Thing, is_dry: bool) -> Result:
    """RFC 6121, 2. Clients that are there are told of it."""
    entity, jid = turn.entity, read_jid(thing["jid"])
    if jid == entity.bare:
        return left_out("nobody is in their own roster")
    known = entity.roster.contacts.get(jid)
    if known is not None and known.in_roster:
        return KNOWN
    name, groups = thing["name"], tuple(dict.fromkeys(thing["groups"]))
    if len(name.encode()) > roster_changes.NAME_BYTES or len(groups) > roster_changes.GROUPS:
        return left_out(f"the name of {jid} is too long, or there are too many groups")
    if any(not group or len(group.encode()) > roster_changes.NAME_BYTES for group in groups):
        return left_out(f"the name of a group of {jid} is empty or too long")
    if thing["subscription"] not in SUBSCRIPTIONS:
        return left_out(f"{thing['subscription'][:40]!r} is no subscription of {jid}")
    try:
        roster_changes.require_room(turn)
    except StanzaError:
        return left_out("the roster is full (limits.roster)")
    if not is_dry:
        new = roster_changes.contact_of(entity, jid)
        new.name, new.groups, new.subscription, new.in_roster = name, groups, thing["subscription"], True
        new.ask, new.approved = thing["ask"] and not new.seen_by_us, thing["approved"]
        roster_changes.save(turn, new)
    return DONE


def request(turn: Turn, thing: Thing, is_dry: bool) -> Result:
    """RFC 6121, 3.1.3: a request that waits for the user."""
    entity, jid = turn.entity, bare_of(read_jid(thing["jid"]))
    inner = read_stanza(thing["xml"], PRESENCE).inner if thing["xml"] else b""
    known = entity.roster.contacts.get(jid)
    if known is not None and (known.pending_in or known.sees_us):
        return KNOWN
    if jid == entity.bare:
        return left_out("nobody asks themselves")
    if len(entity.roster.contacts) >= 2 * turn.settings.roster_contacts:
        return left_out("too many requests wait (limits.roster)")
    if not is_dry:
        new = roster_changes.contact_of(entity, jid)
        new.pending_in, new.pending_inner = True, inner
        roster_changes.save(turn, new)
    return DONE


def block(turn: Turn, thing: Thing, is_dry: bool) -> Result:
    """XEP-0191."""
    entity, jid = turn.entity, read_jid(thing["jid"])
    if jid in entity.blocks:
        return KNOWN
    if len(entity.blocks) >= turn.settings.blocks:
        return left_out("the block list is full (limits.blocks)")
    if not is_dry:
        assert entity.key is not None
        entity.blocks.add(jid)
        turn.write(blocks.add, entity.key, (jid,))
    return DONE


def vcard(turn: Turn, thing: Thing, has_one: bool, is_dry: bool) -> Result:
    """XEP-0054; its picture becomes the account's, where nodes have none (XEP-0398)."""
    card = read_element(thing["xml"])
    if card.tag != f"{{{ns.VCARD}}}vCard":
        return left_out("it is no vCard (XEP-0054)")
    if not len(card):
        return left_out("the vCard is empty")
    if has_one:
        return KNOWN
    xml = canonical_element(card, ns.CLIENT)
    if len(xml) > turn.settings.vcard_bytes:
        return left_out(f"the vCard has {len(xml)} bytes (limits.vcard_bytes)")
    if is_dry:
        return DONE
    assert turn.entity.key is not None
    turn.write(importing.add_vcard, turn.entity.key, xml)
    if find(turn.entity, ns.AVATAR_METADATA) is not None:
        return DONE
    try:
        avatars.from_vcard(turn, card, None)
    except StanzaError as problem:
        return Result(IMPORTED, f"the picture in the vCard: {problem.text}")
    return DONE


def private(turn: Turn, thing: Thing, names: Collection[str], free_bytes: int, is_dry: bool) -> tuple[Result, int]:
    """XEP-0049; returns also how many bytes it takes. Bookmarks are rooms in the node of XEP-0402, as always here."""
    child = read_element(thing["xml"])
    namespace, local = split_tag(str(child.tag))
    name = f"{namespace} {local}"
    if namespace in ("", ns.PRIVATE) or namespace.startswith(_RESERVED):
        return left_out(f"private storage keeps nothing of the namespace {namespace!r}"), 0
    if name in names and name != bookmarks.NAME:
        return KNOWN, 0
    is_known = name in names
    if name == bookmarks.NAME:
        others = (canonical_element(one, ns.BOOKMARKS_OLD) for one in child if one.tag != bookmarks.CONFERENCE)
        xml = element("storage", ns.BOOKMARKS_OLD, None, *others)
    else:
        xml = canonical_element(child, ns.PRIVATE)
    if len(xml) > free_bytes:
        return left_out(f"there is no room for {len(xml)} bytes more in private storage (limits.private_bytes)"), 0
    if not is_dry:
        assert turn.entity.key is not None
        if not is_known:
            turn.write(importing.add_private, turn.entity.key, name, xml)
        if name == bookmarks.NAME:
            bookmarks.add(turn, child)
    return (KNOWN if is_known else DONE), len(xml)


def preferences(turn: Turn, thing: Thing, is_dry: bool) -> Result:
    """XEP-0441, for somebody who has chosen nothing here."""
    if preferences_of(turn.entity) != Preferences():
        return KNOWN
    if thing["default"] not in _DEFAULTS:
        return left_out(f"{thing['default'][:40]!r} is nothing that one can want archived")
    always, never = ([bare_of(read_jid(jid)) for jid in thing[key]] for key in ("always", "never"))
    if max(len(always), len(never)) > LISTED:
        return left_out(f"more than {LISTED} addresses to archive, or not to")
    wanted = Preferences(thing["default"], frozenset(always), frozenset(never))
    if not is_dry:
        assert turn.entity.key is not None
        turn.entity.data[archive_feature.name] = wanted
        turn.write(archive.set_preferences, turn.entity.key, wanted.default, sorted(always), sorted(never))
    return DONE


CALLS: Final = {"contact": contact, "request": request, "block": block, "preferences": preferences}
