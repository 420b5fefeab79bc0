"""Members who are not in the room: they get what is said ("groups like in phone messengers"), and hear of it when they
are mentioned (XEP-0452, XEP-0372, XEP-0513).

What is said goes to the accounts of local members as it is; `router/features/groups.py` keeps it there. Members on
other servers, which would not take it, are told of mentions alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from lxml import etree

from router.rooms.fanout import Send
from router.rooms.policy import Affiliation, Role
from router.rooms.room import Room
from router.settings import Settings
from storage.log import time_of
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.errors import JidError
from xmpp.jid import bare_of, domain_of, prepare
from xmpp.stanza import HAS_BODY, HAS_OTHER, MESSAGE, Stanza
from xmpp.timestamp import format_moment
from xmpp.xml import element

_REFERENCE: Final = f"{{{ns.REFERENCE}}}reference"
_MENTION: Final = f"{{{ns.MENTIONS}}}mention"
# XEP-0513, 3.3: modifiers by which nobody is notified who is not there.
_SILENT: Final = (f"{{{ns.MENTIONS}}}noping", f"{{{ns.MENTIONS}}}active")


def sends_of(room: Room, settings: Settings, said: Stanza, id_: int) -> list[Send]:
    """What members who are away get of what somebody has said, as far as the room is so."""
    config = room.config
    sends: list[Send] = []
    if config.keeps_for_members and settings.rooms_keep_for_members:
        away = tuple(bare for bare in _away(room) if domain_of(bare) in settings.domains)
        if away:
            sends.append((said._replace(to=None), away))
    if config.forwardmentions and said.flags & HAS_OTHER and said.flags & HAS_BODY:
        mentioned = _mentioned(room, said)
        if mentioned:
            sends += _forwarded(room, said, id_, sorted(mentioned.intersection(_away(room))))
    return sends


def _away(room: Room) -> list[str]:
    return [bare for bare, has in room.affiliations.items() if has >= Affiliation.MEMBER and bare not in room.users]


def _forwarded(room: Room, said: Stanza, id_: int, away: Iterable[str]) -> Iterable[Send]:
    """XEP-0452, 3.2: the message as it was said, with when."""
    delay = element("delay", ns.DELAY, {"stamp": format_moment(time_of(id_))})
    forwarded = element("forwarded", ns.FORWARD, None, delay, stanzas.encode(said, room.bare, ns.CLIENT))
    inner = element("mentions", ns.MENTIONED, None, forwarded)
    for bare in away:
        yield Stanza(MESSAGE, None, bare, room.bare, said.id, None, HAS_OTHER, None, None, inner), (bare,)


def _mentioned(room: Room, said: Stanza) -> set[str]:
    """The bare JIDs of those whom a message mentions."""
    speakers = room.nicks.get((said.from_ or "").partition("/")[2])
    role = speakers[0].role if speakers else Role.PARTICIPANT  # who has gone meanwhile had this one at least
    found: set[str] = set()
    children = said.children()
    references = [child for child in children if child.tag == _REFERENCE and child.get("type") == "mention"]
    mentions = [child for child in children if child.tag == _MENTION]
    if len(references) + len(mentions) > room.config.mentions_count:
        return found  # XEP-0513, 3.6: all of them are ignored
    for reference in references:
        found.update(_of_uri(room, reference.get("uri") or ""))
    for mention in mentions:
        if not any(mention.find(silent) is not None for silent in _SILENT):
            found.update(_of_mention(room, role, mention))
    return found


def _of_uri(room: Room, uri: str) -> Iterable[str]:
    """XEP-0372, 3.2: a user, or an occupant by the nickname that they have registered."""
    if not uri.startswith("xmpp:"):
        return ()
    try:
        jid = prepare(unquote(uri.removeprefix("xmpp:").partition("?")[0]))
    except JidError:
        return ()
    bare, _, nick = jid.partition("/")
    if bare != room.bare:
        return (bare,)
    return (room.reserved[nick],) if nick in room.reserved else ()


def _of_mention(room: Room, role: Role, mention: etree._Element) -> Iterable[str]:
    """XEP-0513, 3.1 and 3.2, as far as the room allows it (3.6)."""
    config = room.config
    group = (mention.get("mentions") or "").removeprefix(f"{ns.MENTIONS}#")
    if not group:
        id_, jid = mention.get("occupantid"), mention.get("jid")
        if not _may(role, config.mentions_individual):
            return ()
        if id_ is None:
            return (bare_of(jid),) if jid is not None else ()
        return [bare for bare in room.affiliations if room.occupant_id(bare) == id_]
    if group == "channel":
        return list(room.affiliations) if _may(role, config.mentions_channel) else ()
    if group == "hats":
        return room.hats.wearers(mention.get("uri") or "") if _may(role, config.mentions_hats) else ()
    if group in ("owner", "admin", "member") and _may(role, config.mentions_associations):
        return [bare for bare, has in room.affiliations.items() if has.word == group]
    return ()  # roles are of those who are there


def _may(role: Role, who: str) -> bool:
    if who == "none":
        return False
    return role >= (Role.MODERATOR if who == "moderators" else Role.PARTICIPANT)
