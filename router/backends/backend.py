"""What a back end is, and what all of them share."""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

from xmpp.errors import JidError
from xmpp.jid import JID

CHECK_S: Final = 8.5  # all of one check; c2s gives up after 10 s (c2s/login.py)


class Away(Exception):
    """The back end cannot say: it is not reached, or what it says makes no sense. The text is for the log."""


class Backend(Protocol):
    """Knows the passwords of a domain's users."""

    async def check_password(self, username: str, domain: str, password: str) -> bool:
        """Whether this is the user's password, which is not empty. Raises Away."""

    async def stop(self) -> None:
        """Give up what is under way."""


@runtime_checkable
class TokenBackend(Backend, Protocol):
    """Knows tokens, too."""

    configuration: str  # where clients learn of the provider, "" for nowhere

    async def check_token(self, token: str) -> str | None:
        """Whose token it is, a localpart or a bare JID as the provider writes it; None for nobody's. Raises Away."""


def localpart(name: str, domain: str) -> str | None:
    """The localpart that a provider's name for somebody means, prepared; None if nobody here can be called so."""
    local, at, rest = name.rpartition("@")
    try:
        jid = JID.of(local, rest) if at else JID.of(name, domain)
    except JidError:
        return None
    return jid.local if jid.local and jid.domain == domain else None
