"""The roster as values (RFC 6121, 2): what an entity knows of its contacts. Rules are in `router/features/`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Subscription = Literal["none", "to", "from", "both"]


@dataclass(slots=True)
class Contact:
    """One contact as the account's owner sees it, in the roster or only waiting for an answer.

    `ask`: a subscription request of ours is pending ("Pending Out"). `pending_in`: one of theirs is, kept with the
    inner bytes of its presence so that it can be shown again (RFC 6121, 3.1.3). `approved`: pre-approved (3.4).
    `in_roster` is False for a contact that exists only because of `pending_in`: such are never pushed or listed
    (RFC 6121, A.1, "None + Pending In": "not in the roster").
    """

    jid: str  # prepared bare (or full) JID
    name: str = ""
    groups: tuple[str, ...] = ()
    subscription: Subscription = "none"
    ask: bool = False
    approved: bool = False
    pending_in: bool = False
    pending_inner: bytes = b""
    in_roster: bool = True
    version: int = 0
    shared: tuple[str, ...] = ()  # groups of which both are (router/shared_groups.py): never stored

    @property
    def sees_us(self) -> bool:
        """Whether the contact gets our presence (subscription from or both)."""
        return self.subscription in ("from", "both") or bool(self.shared)

    @property
    def seen_by_us(self) -> bool:
        """Whether we get the contact's presence (subscription to or both)."""
        return self.subscription in ("to", "both") or bool(self.shared)

    @property
    def is_listed(self) -> bool:
        """Whether clients are told of it."""
        return self.in_roster or bool(self.shared)


@dataclass(slots=True)
class Roster:
    """All contacts by JID; `version` counts changes (RFC 6121, 2.6); `removed` maps a removed JID to its version."""

    contacts: dict[str, Contact] = field(default_factory=dict)
    version: int = 0
    removed: dict[str, int] = field(default_factory=dict)
