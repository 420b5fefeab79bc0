"""The states of a client stream, and what the client may send in each, as one table (RFC 6120, 4.3).

Whatever moves a stream from one state to another is in `c2s/stream.py`; whether it may is here.

    HEADER -> UNAUTHENTICATED -> HANDSHAKE -> HEADER -> UNAUTHENTICATED -> AUTHENTICATING -> HEADER
           -> AUTHENTICATED -> BINDING (or resuming) -> BOUND -> CLOSING -> CLOSED

By XEP-0388 (`c2s/sasl2.py`) there is no new header, and BINDING may follow AUTHENTICATING at once. Who fails after
<continue/> is REFUSED: "any further <authenticate/> element MUST result in a stream error" (4.8).
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from c2s import sasl2, upgrades
from xmpp import ns


class State(Enum):
    """Where a stream is."""

    HEADER = "waiting for a stream header"
    UNAUTHENTICATED = "features sent, nobody signed in"
    HANDSHAKE = "TLS is being negotiated"
    AUTHENTICATING = "a SASL exchange is going on"
    REFUSED = "the client was asked for more, and has failed: it has to come back"
    AUTHENTICATED = "signed in, no resource bound"
    BINDING = "the owner is asked for a resource"
    BOUND = "stanzas flow"
    CLOSING = "everything read is being confirmed, then the stream ends"
    CLOSED = "nothing is read or written any more"


STARTTLS: Final = f"{ns.TLS} starttls"
AUTH: Final = f"{ns.SASL} auth"
RESPONSE: Final = f"{ns.SASL} response"
ABORT: Final = f"{ns.SASL} abort"
ENABLE: Final = f"{ns.SM} enable"
RESUME: Final = f"{ns.SM} resume"
ACK_REQUEST: Final = f"{ns.SM} r"
ACK: Final = f"{ns.SM} a"
ACTIVE: Final = f"{ns.CSI} active"
INACTIVE: Final = f"{ns.CSI} inactive"

# First-level elements other than stanzas, by the state in which they mean something.
ELEMENTS: Final[dict[State, frozenset[str]]] = {
    State.UNAUTHENTICATED: frozenset({STARTTLS, AUTH, sasl2.AUTHENTICATE}),
    State.AUTHENTICATING: frozenset(
        {AUTH, RESPONSE, ABORT, sasl2.RESPONSE, sasl2.ABORT, upgrades.NEXT, upgrades.TASK_DATA}
    ),
    State.AUTHENTICATED: frozenset({ENABLE, RESUME, ACTIVE, INACTIVE}),
    State.BOUND: frozenset({ENABLE, RESUME, ACK_REQUEST, ACK, ACTIVE, INACTIVE}),
}
