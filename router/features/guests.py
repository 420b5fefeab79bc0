"""Signing in without an account (XEP-0175): who has done so gets one that lasts as long as the session. It ends with it
in the same transaction, and `router/erasing.py` takes away what it has left.

`router/guesting.py` makes it, `router/guest_rules.py` says what a guest may do.
"""

from __future__ import annotations

from router.events import SessionClosed
from router.feature import Feature
from router.features.account import remove_account
from router.restrictions import restriction
from router.turn import Turn

feature = Feature("guests", xep=((175, "1.2"),))

BY = "guest"  # who ends the account


@feature.on_event(SessionClosed)
def leave(turn: Turn, event: SessionClosed) -> None:
    """Nobody can sign in as this guest again."""
    end(turn)


def end(turn: Turn) -> None:
    """The account of a guest without a session goes."""
    entity = turn.entity
    if entity.key is not None and not entity.sessions and restriction(entity, "guest", turn.now) is not None:
        remove_account(turn, BY)
