"""The subscription states and how stanzas change them: RFC 6121, Appendix A, as tables.

Pure data. What else happens (roster pushes, automatic replies, presence) is in `router/features/subscriptions.py`.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal, NamedTuple

from router.contacts import Contact, Subscription

SubscriptionType = Literal["subscribe", "unsubscribe", "subscribed", "unsubscribed"]
TYPES: Final[frozenset[str]] = frozenset({"subscribe", "unsubscribe", "subscribed", "unsubscribed"})


class State(Enum):
    """RFC 6121, A.1: (subscription, "Pending Out", "Pending In")."""

    NONE = ("none", False, False)
    NONE_OUT = ("none", True, False)
    NONE_IN = ("none", False, True)
    NONE_OUT_IN = ("none", True, True)
    TO = ("to", False, False)
    TO_IN = ("to", False, True)
    FROM = ("from", False, False)
    FROM_OUT = ("from", True, False)
    BOTH = ("both", False, False)


class Row(NamedTuple):
    """`passes`: the stanza is routed (outbound) or delivered (inbound). `state`: the new one, maybe the same."""

    passes: bool
    state: State


def state_of(contact: Contact | None) -> State:
    """The state of a contact; None is somebody not known."""
    if contact is None:
        return State.NONE
    return State((contact.subscription, contact.ask, contact.pending_in))


def apply(contact: Contact, state: State) -> None:
    """Write a state into a contact."""
    subscription: Subscription
    subscription, contact.ask, contact.pending_in = state.value
    contact.subscription = subscription


S = State

# A.2: subscription stanzas that the user sends
OUTBOUND: Final[dict[str, dict[State, Row]]] = {
    "subscribe": {  # A.2.1
        S.NONE: Row(True, S.NONE_OUT),
        S.NONE_OUT: Row(True, S.NONE_OUT),
        S.NONE_IN: Row(True, S.NONE_OUT_IN),
        S.NONE_OUT_IN: Row(True, S.NONE_OUT_IN),
        S.TO: Row(True, S.TO),
        S.TO_IN: Row(True, S.TO_IN),
        S.FROM: Row(True, S.FROM_OUT),
        S.FROM_OUT: Row(True, S.FROM_OUT),
        S.BOTH: Row(True, S.BOTH),
    },
    "unsubscribe": {  # A.2.2
        S.NONE: Row(True, S.NONE),
        S.NONE_OUT: Row(True, S.NONE),
        S.NONE_IN: Row(True, S.NONE_IN),
        S.NONE_OUT_IN: Row(True, S.NONE_IN),
        S.TO: Row(True, S.NONE),
        S.TO_IN: Row(True, S.NONE_IN),
        S.FROM: Row(True, S.FROM),
        S.FROM_OUT: Row(True, S.FROM),
        S.BOTH: Row(True, S.FROM),
    },
    "subscribed": {  # A.2.3; where it is not routed it may be a pre-approval (3.4)
        S.NONE: Row(False, S.NONE),
        S.NONE_OUT: Row(False, S.NONE_OUT),
        S.NONE_IN: Row(True, S.FROM),
        S.NONE_OUT_IN: Row(True, S.FROM_OUT),
        S.TO: Row(False, S.TO),
        S.TO_IN: Row(True, S.BOTH),
        S.FROM: Row(False, S.FROM),
        S.FROM_OUT: Row(False, S.FROM_OUT),
        S.BOTH: Row(False, S.BOTH),
    },
    "unsubscribed": {  # A.2.4
        S.NONE: Row(False, S.NONE),
        S.NONE_OUT: Row(False, S.NONE_OUT),
        S.NONE_IN: Row(True, S.NONE),
        S.NONE_OUT_IN: Row(True, S.NONE_OUT),
        S.TO: Row(False, S.TO),
        S.TO_IN: Row(True, S.TO),
        S.FROM: Row(True, S.NONE),
        S.FROM_OUT: Row(True, S.NONE_OUT),
        S.BOTH: Row(True, S.TO),
    },
}

# A.3: subscription stanzas that arrive for the user
INBOUND: Final[dict[str, dict[State, Row]]] = {
    "subscribe": {  # A.3.1; in From, From + Pending Out and Both the server answers by itself (3.1.3)
        S.NONE: Row(True, S.NONE_IN),
        S.NONE_OUT: Row(True, S.NONE_OUT_IN),
        S.NONE_IN: Row(False, S.NONE_IN),
        S.NONE_OUT_IN: Row(False, S.NONE_OUT_IN),
        S.TO: Row(True, S.TO_IN),
        S.TO_IN: Row(False, S.TO_IN),
        S.FROM: Row(False, S.FROM),
        S.FROM_OUT: Row(False, S.FROM_OUT),
        S.BOTH: Row(False, S.BOTH),
    },
    "unsubscribe": {  # A.3.2
        S.NONE: Row(False, S.NONE),
        S.NONE_OUT: Row(False, S.NONE_OUT),
        S.NONE_IN: Row(True, S.NONE),
        S.NONE_OUT_IN: Row(True, S.NONE_OUT),
        S.TO: Row(False, S.TO),
        S.TO_IN: Row(True, S.TO),
        S.FROM: Row(True, S.NONE),
        S.FROM_OUT: Row(True, S.NONE_OUT),
        S.BOTH: Row(True, S.TO),
    },
    "subscribed": {  # A.3.3
        S.NONE: Row(False, S.NONE),
        S.NONE_OUT: Row(True, S.TO),
        S.NONE_IN: Row(False, S.NONE_IN),
        S.NONE_OUT_IN: Row(True, S.TO_IN),
        S.TO: Row(False, S.TO),
        S.TO_IN: Row(False, S.TO_IN),
        S.FROM: Row(False, S.FROM),
        S.FROM_OUT: Row(True, S.BOTH),
        S.BOTH: Row(False, S.BOTH),
    },
    "unsubscribed": {  # A.3.4
        S.NONE: Row(False, S.NONE),
        S.NONE_OUT: Row(True, S.NONE),
        S.NONE_IN: Row(False, S.NONE_IN),
        S.NONE_OUT_IN: Row(True, S.NONE_IN),
        S.TO: Row(True, S.NONE),
        S.TO_IN: Row(True, S.NONE_IN),
        S.FROM: Row(False, S.FROM),
        S.FROM_OUT: Row(True, S.FROM),
        S.BOTH: Row(True, S.FROM),
    },
}
