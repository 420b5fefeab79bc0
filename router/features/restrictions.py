"""Accounts that may not do everything. One that is banned is as one that does not exist, to others; its user is told
why after signing in. One in quarantine deals with its contacts and with administrators, not with strangers: it neither
writes to them nor asks them, joins or makes no rooms, and nobody else reads what it publishes. What guests may do is in
`router/guest_rules.py`."""

from __future__ import annotations

from typing import Final

from router import guest_rules, restrictions
from router.feature import Feature, Stage, by_key
from router.restrictions import DATA, is_guest, restriction, told
from router.turn import Turn
from storage import restrictions as rows
from xmpp.errors import PolicyViolation, ServiceUnavailable
from xmpp.jid import bare_of, domain_of
from xmpp.stanza import Stanza

feature = Feature("restrictions")
feature.on_load(by_key(rows.load), restrictions.assign)

NOBODY_THERE: Final = "Nobody is there to take the message."  # word for word as `delivery.py` says it
_PERSONAL: Final = (None, "subscribe", "probe")  # presence that a stranger would get something of


# --- banned: what comes in


@feature.on_message(Stage.IN_SCREEN)
def screen_message(turn: Turn, message: Stanza) -> bool:
    """As RFC 6121, 8.5.1, for an account that does not exist; nothing is kept."""
    if DATA not in turn.entity.data or not _is_hidden(turn, message):
        return False
    if message.type in ("groupchat", "error", "headline"):
        return True
    raise ServiceUnavailable(NOBODY_THERE)


@feature.on_presence(Stage.IN_SCREEN)
def screen_presence(turn: Turn, presence: Stanza) -> bool:
    """Requests and probes are not answered; that a subscription has ended is heard, so that both sides agree."""
    if DATA not in turn.entity.data:
        return False
    if is_guest(turn.entity):
        return presence.type == "subscribe" or _is_hidden(turn, presence)
    return _is_hidden(turn, presence) and presence.type in ("subscribe", "probe")


@feature.on_any_iq(Stage.IN_SCREEN)
def screen_iq(turn: Turn, iq: Stanza) -> bool:
    """Of a banned account nobody learns anything; of one in quarantine, strangers do not."""
    entity = turn.entity
    if DATA not in entity.data or iq.from_ is None:
        return False
    is_banned = _is_hidden(turn, iq)
    if not is_banned and (restriction(entity, "quarantine", turn.now) is None or _may_deal_with(turn, iq.from_)):
        return False
    if iq.type in ("get", "set"):
        raise ServiceUnavailable
    return is_banned


def _is_hidden(turn: Turn, stanza: Stanza) -> bool:
    """Whether there is no such account for whoever this is from: it is banned, or a guest's and that is of another
    server."""
    entity = turn.entity
    if restriction(entity, "ban", turn.now) is not None:
        return True
    from_ = stanza.from_
    return is_guest(entity) and from_ is not None and not guest_rules.is_within(entity, turn.settings, from_)


# --- in quarantine, and guests: what goes out


@feature.on_message(Stage.OUT_SCREEN)
def screen_outgoing_message(turn: Turn, message: Stanza) -> bool:
    """Nothing to strangers, nor to rooms, which are full of them."""
    if DATA in turn.entity.data and message.to is not None:
        _check(turn, message.to)
    return False


@feature.on_presence(Stage.OUT_SCREEN)
def screen_outgoing_presence(turn: Turn, presence: Stanza) -> bool:
    """Neither requests nor presence, by which one joins rooms; to leave one is allowed, and to answer a request."""
    entity = turn.entity
    if DATA not in entity.data or presence.to is None:
        return False
    if is_guest(entity):
        guest_rules.check_presence(turn, presence)
        guest_rules.check_place(turn, presence.to)
    if presence.type in _PERSONAL:
        _check_quarantine(turn, presence.to)
    return False


@feature.on_any_iq(Stage.OUT_SCREEN)
def screen_outgoing_iq(turn: Turn, iq: Stanza) -> bool:
    """Services of this server may be asked, and told nothing."""
    entity = turn.entity
    if DATA not in entity.data:
        return False
    if is_guest(entity):
        guest_rules.check_iq(iq)
        if iq.to is not None:
            guest_rules.check_place(turn, iq.to)
    if iq.to is None or iq.type not in ("get", "set"):
        return False
    if iq.type == "get" and "@" not in iq.to and _is_ours(turn, iq.to):
        return False
    _check_quarantine(turn, iq.to)
    return False


def _check(turn: Turn, to: str) -> None:
    if is_guest(turn.entity):
        guest_rules.check_place(turn, to)
    _check_quarantine(turn, to)


def _check_quarantine(turn: Turn, to: str) -> None:
    found = restriction(turn.entity, "quarantine", turn.now)
    if found is not None and not _may_deal_with(turn, to):
        raise PolicyViolation(told(found), type="cancel")


def _may_deal_with(turn: Turn, jid: str) -> bool:
    """Contacts are those who have agreed to it: a roster alone is quickly written."""
    entity, settings, bare = turn.entity, turn.settings, bare_of(jid)
    if bare == entity.bare or bare in settings.domains or bare in settings.admins:
        return True
    contact = entity.roster.contacts.get(bare)
    return contact is not None and (contact.sees_us or contact.seen_by_us)


def _is_ours(turn: Turn, to: str) -> bool:
    settings, domain = turn.settings, domain_of(to)
    ours = (settings.room_domains, settings.service_domains, settings.proxy_domains, settings.components,
            settings.upload_domains)  # fmt: skip
    return any(domain in domains for domains in ours)
