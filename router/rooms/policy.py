"""Affiliations and roles, and who may give and take them (XEP-0045, 5). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from router.rooms.config import RoomConfig
from xmpp.errors import BadRequest, Forbidden, NotAllowed


class Affiliation(IntEnum):
    """What a user is to a room for good (5.2), the lowest first. The numbers are kept in the database."""

    OUTCAST = 0
    NONE = 1
    MEMBER = 2
    ADMIN = 3
    OWNER = 4

    @property
    def word(self) -> str:
        """As the protocol writes it."""
        return self.name.lower()


class Role(IntEnum):
    """What an occupant may do while it is in a room (5.1), the lowest first. The numbers are kept in the database."""

    NONE = 0
    VISITOR = 1
    PARTICIPANT = 2
    MODERATOR = 3

    @property
    def word(self) -> str:
        """As the protocol writes it."""
        return self.name.lower()


_AFFILIATIONS: Final = {affiliation.word: affiliation for affiliation in Affiliation}
_ROLES: Final = {role.word: role for role in Role}


def affiliation_of(word: str) -> Affiliation:
    """Raises BadRequest where there is no such affiliation."""
    found = _AFFILIATIONS.get(word)
    if found is None:
        raise BadRequest("There is no such affiliation.")
    return found


def role_of(word: str) -> Role:
    """Raises BadRequest where there is no such role."""
    found = _ROLES.get(word)
    if found is None:
        raise BadRequest("There is no such role.")
    return found


def initial_role(affiliation: Affiliation, *, is_moderated: bool, is_members_only: bool) -> Role:
    """Of somebody who comes in (5.1.3, table 4); NONE: may not."""
    if affiliation >= Affiliation.ADMIN:
        return Role.MODERATOR
    if affiliation == Affiliation.MEMBER:
        return Role.PARTICIPANT
    if affiliation == Affiliation.OUTCAST or is_members_only:
        return Role.NONE
    return Role.VISITOR if is_moderated else Role.PARTICIPANT


def role_after(old: Affiliation, new: Affiliation, role: Role, *, is_moderated: bool, is_members_only: bool) -> Role:
    """The role of an occupant whose affiliation changes (5.2.2); NONE: has to go."""
    least = initial_role(new, is_moderated=is_moderated, is_members_only=is_members_only)
    if least == Role.NONE or least == Role.MODERATOR or old >= Affiliation.ADMIN:
        return least  # what came with the affiliation goes with it
    return max(role, least)


def check_affiliation_change(actor: Affiliation, target: Affiliation, new: Affiliation) -> None:
    """5.2.1, table 5: owners may do everything, admins what is below them; raises what 9 and 10 name."""
    if actor < Affiliation.ADMIN:
        raise Forbidden("Admins and owners of the room alone may do that.")
    if actor == Affiliation.ADMIN and max(target, new) >= Affiliation.ADMIN:
        if new == Affiliation.OUTCAST:
            raise NotAllowed("An admin may not ban an admin or an owner.")  # 9.1
        raise Forbidden("Owners of the room alone may do that.")


def check_role_change(actor: Affiliation, actor_role: Role, target: Affiliation, target_role: Role, new: Role) -> None:
    """5.1.2, table 3, and 8.2 to 8.4, 9.6, 9.7: what a moderator may, and what takes an admin."""
    is_moderator = actor_role == Role.MODERATOR
    if not is_moderator and actor < Affiliation.ADMIN:
        raise Forbidden("Moderators alone may do that.")
    if Role.MODERATOR in (new, target_role) and new != target_role and actor < Affiliation.ADMIN and new != Role.NONE:
        raise Forbidden("Admins and owners of the room alone make and unmake moderators.")
    if new < target_role and (target > actor or (target >= Affiliation.ADMIN and new != Role.NONE)):
        raise NotAllowed("Somebody of a higher affiliation keeps the role.")  # 8.2, 8.4, 9.7


def may_see_members(config: RoomConfig, own: Affiliation, roles: Iterable[Role]) -> bool:
    """9.5, 10.5, 10.8: who may see the lists of members, admins and owners (`muc#roomconfig_getmemberlist`)."""
    if own >= Affiliation.ADMIN or any(role.word in config.getmemberlist for role in roles):
        return True
    return config.membersonly and config.whois == "anyone" and own >= Affiliation.MEMBER
