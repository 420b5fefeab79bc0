"""What people who signed in anonymously may do (XEP-0175; RFC 4505, 4): talk with this server's users and in its rooms,
as long as their session lasts. They keep nothing, change nothing, and are no way out to other servers.

`features/restrictions.py` asks, of accounts that it has marked already: what others send passes no step more for it.
"""

from __future__ import annotations

from typing import Final

from router.entity import Entity
from router.settings import Settings
from router.turn import Turn
from xmpp import ns
from xmpp.errors import NotAllowed
from xmpp.jid import domain_of
from xmpp.stanza import Stanza

# Requests that change something, and that a guest may make of its account, of a domain or of a room.
_SETS: Final = frozenset(
    {
        f"{ns.SESSION} session", f"{ns.CARBONS} enable", f"{ns.CARBONS} disable",
        f"{ns.MAM} query", f"{ns.MUC_ADMIN} query",
    }
)  # fmt: skip
# Relays cost whoever runs them, and strangers would use them for anything.
_GETS_REFUSED: Final = frozenset({f"{ns.EXTERNAL_SERVICES} services", f"{ns.EXTERNAL_SERVICES} credentials"})


def check_place(turn: Turn, to: str) -> None:
    """A guest writes to whom this server serves. Raises NotAllowed."""
    if not is_within(turn.entity, turn.settings, to):
        raise NotAllowed("Guests may not write to other servers.")


def check_presence(turn: Turn, presence: Stanza) -> None:
    """Nobody becomes a guest's contact: it has no roster. Raises NotAllowed."""
    if presence.type in ("subscribe", "subscribed"):
        raise NotAllowed("Guests have no contacts.")


def check_iq(iq: Stanza) -> None:
    """Raises NotAllowed for what is not for guests. What a client of somebody is asked, that client decides."""
    to_client = iq.to is not None and "/" in iq.to
    if iq.type == "set":
        if not to_client and iq.payload not in _SETS:
            raise NotAllowed("Guests may not do this.")
    elif iq.type == "get" and not to_client and iq.payload in _GETS_REFUSED:
        raise NotAllowed("Guests may not use this.")


def is_within(entity: Entity, settings: Settings, other: str) -> bool:
    """Whether a guest deals with this address: of this server, or of any where its domain is open to others."""
    own = settings.guests.get(domain_of(entity.bare))
    if own is not None and own.remote:
        return True
    domain = domain_of(other)
    ours = (settings.domains, settings.room_domains, settings.service_domains, settings.proxy_domains,
            settings.upload_domains)  # fmt: skip
    return any(domain in domains for domains in ours)
