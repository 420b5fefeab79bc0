"""The subscription states against RFC 6121, Appendix A, typed here row by row as the RFC prints them."""

from __future__ import annotations

import pytest

from router.contacts import Contact
from router.subscription_table import INBOUND, OUTBOUND, TYPES, Row, State, apply, state_of

# A.1: "the nine subscription states"
NAMES = {
    "None": State.NONE,
    "None + Pending Out": State.NONE_OUT,
    "None + Pending In": State.NONE_IN,
    "None + Pending Out+In": State.NONE_OUT_IN,
    "To": State.TO,
    "To + Pending In": State.TO_IN,
    "From": State.FROM,
    "From + Pending Out": State.FROM_OUT,
    "Both": State.BOTH,
}

A_2_1 = """
    "None"                   MUST      "None + Pending Out"
    "None + Pending Out"     MUST      no state change
    "None + Pending In"      MUST      "None + Pending Out+In"
    "None + Pending Out+In"  MUST      no state change
    "To"                     MUST      no state change
    "To + Pending In"        MUST      no state change
    "From"                   MUST      "From + Pending Out"
    "From + Pending Out"     MUST      no state change
    "Both"                   MUST      no state change
"""
A_2_2 = """
    "None"                   MUST      no state change
    "None + Pending Out"     MUST      "None"
    "None + Pending In"      MUST      no state change
    "None + Pending Out+In"  MUST      "None + Pending In"
    "To"                     MUST      "None"
    "To + Pending In"        MUST      "None + Pending In"
    "From"                   MUST      no state change
    "From + Pending Out"     MUST      "From"
    "Both"                   MUST      "From"
"""
A_2_3 = """
    "None"                   MUST NOT  no state change
    "None + Pending Out"     MUST NOT  no state change
    "None + Pending In"      MUST      "From"
    "None + Pending Out+In"  MUST      "From + Pending Out"
    "To"                     MUST NOT  no state change
    "To + Pending In"        MUST      "Both"
    "From"                   MUST NOT  no state change
    "From + Pending Out"     MUST NOT  no state change
    "Both"                   MUST NOT  no state change
"""
A_2_4 = """
    "None"                   MUST NOT  no state change
    "None + Pending Out"     MUST NOT  no state change
    "None + Pending In"      MUST      "None"
    "None + Pending Out+In"  MUST      "None + Pending Out"
    "To"                     MUST NOT  no state change
    "To + Pending In"        MUST      "To"
    "From"                   MUST      "None"
    "From + Pending Out"     MUST      "None + Pending Out"
    "Both"                   MUST      "To"
"""
A_3_1 = """
    "None"                   MUST      "None + Pending In"
    "None + Pending Out"     MUST      "None + Pending Out+In"
    "None + Pending In"      MUST NOT  no state change
    "None + Pending Out+In"  MUST NOT  no state change
    "To"                     MUST      "To + Pending In"
    "To + Pending In"        MUST NOT  no state change
    "From"                   MUST NOT  no state change
    "From + Pending Out"     MUST NOT  no state change
    "Both"                   MUST NOT  no state change
"""
A_3_2 = """
    "None"                   MUST NOT  no state change
    "None + Pending Out"     MUST NOT  no state change
    "None + Pending In"      MUST      "None"
    "None + Pending Out+In"  MUST      "None + Pending Out"
    "To"                     MUST NOT  no state change
    "To + Pending In"        MUST      "To"
    "From"                   MUST      "None"
    "From + Pending Out"     MUST      "None + Pending Out"
    "Both"                   MUST      "To"
"""
A_3_3 = """
    "None"                   MUST NOT  no state change
    "None + Pending Out"     MUST      "To"
    "None + Pending In"      MUST NOT  no state change
    "None + Pending Out+In"  MUST      "To + Pending In"
    "To"                     MUST NOT  no state change
    "To + Pending In"        MUST NOT  no state change
    "From"                   MUST NOT  no state change
    "From + Pending Out"     MUST      "Both"
    "Both"                   MUST NOT  no state change
"""
A_3_4 = """
    "None"                   MUST NOT  no state change
    "None + Pending Out"     MUST      "None"
    "None + Pending In"      MUST NOT  no state change
    "None + Pending Out+In"  MUST      "None + Pending In"
    "To"                     MUST      "None"
    "To + Pending In"        MUST      "None + Pending In"
    "From"                   MUST NOT  no state change
    "From + Pending Out"     MUST      "From"
    "Both"                   MUST      "From"
"""


def rows(table: str) -> dict[State, tuple[bool, State]]:
    """Existing state -> (routed or delivered, new state)."""
    read = {}
    for line in table.strip().splitlines():
        _, existing, rest = line.strip().split('"', 2)
        before = NAMES[existing]
        after = before if rest.endswith("no state change") else NAMES[rest.split('"')[1]]
        read[before] = (not rest.strip().startswith("MUST NOT"), after)
    return read


@pytest.mark.parametrize(
    ("table", "direction", "type"),
    [
        pytest.param(A_2_1, OUTBOUND, "subscribe", id="A.2.1"),
        pytest.param(A_2_2, OUTBOUND, "unsubscribe", id="A.2.2"),
        pytest.param(A_2_3, OUTBOUND, "subscribed", id="A.2.3"),
        pytest.param(A_2_4, OUTBOUND, "unsubscribed", id="A.2.4"),
        pytest.param(A_3_1, INBOUND, "subscribe", id="A.3.1"),
        pytest.param(A_3_2, INBOUND, "unsubscribe", id="A.3.2"),
        pytest.param(A_3_3, INBOUND, "subscribed", id="A.3.3"),
        pytest.param(A_3_4, INBOUND, "unsubscribed", id="A.3.4"),
    ],
)
@pytest.mark.parametrize("state", State)
def test_each_row(table: str, direction: dict[str, dict[State, Row]], type: str, state: State) -> None:
    expected = rows(table)
    assert len(expected) == 9
    assert direction[type][state] == expected[state]


def test_there_is_a_table_for_each_type_and_no_other() -> None:
    assert OUTBOUND.keys() == INBOUND.keys() == TYPES
    assert set(NAMES.values()) == set(State)


@pytest.mark.parametrize("state", State)
def test_states_are_written_into_contacts_and_read_back(state: State) -> None:
    contact = Contact("juliet@example.com", name="J", groups=("Friends",))
    apply(contact, state)
    assert state_of(contact) is state
    assert (contact.name, contact.groups) == ("J", ("Friends",))


def test_somebody_unknown_is_in_state_none() -> None:
    assert state_of(None) is State.NONE


def mirrored(state: State) -> State:
    """The other side's view of a relation, when nothing is under way."""
    turned = {"none": "none", "to": "from", "from": "to", "both": "both"}
    subscription, out, in_ = state.value
    return State((turned[subscription], in_, out))


@pytest.mark.parametrize("type", sorted(TYPES))
@pytest.mark.parametrize("state", State)
def test_both_sides_agree_after_each_stanza(type: str, state: State) -> None:
    """The outbound table on one side and the inbound one on the other keep mirrored states mirrored."""
    passes, mine = OUTBOUND[type][state]
    theirs = mirrored(state)
    if passes:
        theirs = INBOUND[type][theirs][1]
    assert theirs is mirrored(mine)
