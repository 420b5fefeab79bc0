"""Groups of people that an operator has put together: each sees the others in the roster, and their presence. Computed
from the configuration when an account is read; nothing of it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from router.contacts import Contact
from router.entity import Entity
from router.settings import Settings
from xmpp.jid import domain_of

Everybody = Mapping[str, Sequence[str]]  # the accounts of a domain


def wildcards(settings: Settings) -> list[str]:
    """The domains of which everybody is in some group."""
    found = {member[2:] for members in settings.shared_groups.values() for member in members if member[:2] == "*@"}
    return sorted(found & settings.domains)


def apply(entity: Entity, settings: Settings, everybody: Everybody) -> None:
    """Give an account its contacts of groups, beside those of its roster."""
    if not settings.shared_groups:
        return
    bare = entity.bare
    anybody = f"*@{domain_of(bare)}"
    contacts = entity.roster.contacts
    for group, members in settings.shared_groups.items():
        if bare not in members and anybody not in members:
            continue
        for member in members:
            for jid in everybody.get(member[2:], ()) if member.startswith("*@") else (member,):
                if jid == bare:
                    continue
                contact = contacts.get(jid)
                if contact is None:
                    contact = contacts[jid] = Contact(jid, in_roster=False)
                if group not in contact.shared:
                    contact.shared += (group,)
