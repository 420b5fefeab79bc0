"""The tables of XEP-0045, 5: who gets which role, and who may change what, every cell."""

from __future__ import annotations

import pytest

from router.rooms.policy import (
    Affiliation,
    Role,
    affiliation_of,
    check_affiliation_change,
    check_role_change,
    initial_role,
    role_after,
    role_of,
)
from xmpp.errors import BadRequest, Forbidden, NotAllowed, StanzaError

OUTCAST, NONE, MEMBER, ADMIN, OWNER = Affiliation
GONE, VISITOR, PARTICIPANT, MODERATOR = Role

# 5.1.3, table 4: the role of who comes in, in an open, a moderated, a members-only room.
INITIAL = {
    OUTCAST: (GONE, GONE, GONE),
    NONE: (PARTICIPANT, VISITOR, GONE),
    MEMBER: (PARTICIPANT, PARTICIPANT, PARTICIPANT),
    ADMIN: (MODERATOR, MODERATOR, MODERATOR),
    OWNER: (MODERATOR, MODERATOR, MODERATOR),
}


@pytest.mark.parametrize("affiliation", Affiliation)
def test_the_role_of_who_comes_in(affiliation: Affiliation) -> None:
    kinds = ((False, False), (True, False), (False, True))
    roles = [initial_role(affiliation, is_moderated=m, is_members_only=o) for m, o in kinds]
    assert tuple(roles) == INITIAL[affiliation]


# 5.2.2: an occupant with the first affiliation and role gets the second affiliation; the role then, in a moderated room.
AFTER = [
    (NONE, VISITOR, MEMBER, PARTICIPANT),
    (NONE, VISITOR, ADMIN, MODERATOR),
    (NONE, PARTICIPANT, OUTCAST, GONE),
    (NONE, MODERATOR, MEMBER, MODERATOR),  # made a moderator for now (9.6): stays one
    (MEMBER, PARTICIPANT, NONE, PARTICIPANT),
    (MEMBER, PARTICIPANT, OWNER, MODERATOR),
    (ADMIN, MODERATOR, MEMBER, PARTICIPANT),
    (ADMIN, MODERATOR, NONE, VISITOR),
    (OWNER, MODERATOR, ADMIN, MODERATOR),
    (OWNER, MODERATOR, NONE, VISITOR),
]


@pytest.mark.parametrize(("old", "role", "new", "then"), AFTER)
def test_the_role_follows_the_affiliation(old: Affiliation, role: Role, new: Affiliation, then: Role) -> None:
    assert role_after(old, new, role, is_moderated=True, is_members_only=False) == then


def test_who_is_no_member_any_more_leaves_a_room_for_members() -> None:
    assert role_after(MEMBER, NONE, PARTICIPANT, is_moderated=False, is_members_only=True) == GONE


def refusal(check: object, *arguments: object) -> type[StanzaError] | None:
    try:
        check(*arguments)  # type: ignore[operator]
    except StanzaError as fault:
        return type(fault)
    return None


# 5.2.1, table 5.
@pytest.mark.parametrize("actor", Affiliation)
@pytest.mark.parametrize("target", Affiliation)
@pytest.mark.parametrize("new", Affiliation)
def test_who_may_change_an_affiliation(actor: Affiliation, target: Affiliation, new: Affiliation) -> None:
    found = refusal(check_affiliation_change, actor, target, new)
    if actor == OWNER:
        assert found is None
    elif actor < ADMIN:
        assert found is Forbidden
    elif target >= ADMIN and new == OUTCAST:
        assert found is NotAllowed  # 9.1
    elif target >= ADMIN or new >= ADMIN:
        assert found is Forbidden
    else:
        assert found is None


# 5.1.2, table 3, with 8.2 to 8.4, 9.6 and 9.7: actor's affiliation and role, target's, the new role, what becomes of it.
ROLES = [
    (NONE, PARTICIPANT, NONE, PARTICIPANT, GONE, Forbidden),
    (NONE, VISITOR, NONE, VISITOR, PARTICIPANT, Forbidden),
    (MEMBER, MODERATOR, NONE, PARTICIPANT, GONE, None),
    (MEMBER, MODERATOR, NONE, VISITOR, PARTICIPANT, None),
    (MEMBER, MODERATOR, NONE, PARTICIPANT, VISITOR, None),
    (MEMBER, MODERATOR, NONE, PARTICIPANT, MODERATOR, Forbidden),
    (MEMBER, MODERATOR, NONE, MODERATOR, PARTICIPANT, Forbidden),
    (NONE, MODERATOR, MEMBER, PARTICIPANT, GONE, NotAllowed),
    (MEMBER, MODERATOR, ADMIN, MODERATOR, GONE, NotAllowed),
    (ADMIN, MODERATOR, OWNER, MODERATOR, GONE, NotAllowed),
    (ADMIN, MODERATOR, MEMBER, PARTICIPANT, MODERATOR, None),
    (ADMIN, MODERATOR, MEMBER, MODERATOR, PARTICIPANT, None),
    (ADMIN, MODERATOR, ADMIN, MODERATOR, PARTICIPANT, NotAllowed),
    (OWNER, MODERATOR, ADMIN, MODERATOR, PARTICIPANT, NotAllowed),
    (OWNER, MODERATOR, ADMIN, MODERATOR, GONE, None),
]


@pytest.mark.parametrize(("actor", "role", "target", "theirs", "new", "fault"), ROLES)
def test_who_may_change_a_role(
    actor: Affiliation, role: Role, target: Affiliation, theirs: Role, new: Role, fault: type[StanzaError] | None
) -> None:
    assert refusal(check_role_change, actor, role, target, theirs, new) is fault


def test_words_are_those_of_the_protocol() -> None:
    assert [affiliation_of(affiliation.word) for affiliation in Affiliation] == list(Affiliation)
    assert [role_of(role.word) for role in Role] == list(Role)
    for of in (affiliation_of, role_of):
        with pytest.raises(BadRequest):
            of("king")
