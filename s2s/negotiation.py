"""The states of a stream with another server, and what the peer may send in each, as tables (RFC 6120, 4.3).

Whatever moves a stream from one state to another is in `s2s/stream.py`, `incoming.py` and `outgoing.py`; whether it may
is here.

    incoming  HEADER -> NEGOTIATING -> HANDSHAKE -> HEADER -> NEGOTIATING (-> AUTHENTICATING -> HEADER) -> OPEN
    outgoing  CONNECTING -> HEADER -> FEATURES -> TLS_ASKED -> HANDSHAKE -> HEADER -> FEATURES
              -> NEGOTIATING (-> AUTHENTICATING -> HEADER -> FEATURES) -> OPEN
    the end   OPEN (-> SETTLING) (-> LEAVING) -> CLOSING -> CLOSED
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from xmpp import dialback, ns


class State(Enum):
    """Where a stream is."""

    CONNECTING = "the peer's server is looked for"
    HEADER = "waiting for a stream header"
    FEATURES = "waiting for the peer's features"
    TLS_ASKED = "we have asked for TLS"
    HANDSHAKE = "TLS is being negotiated"
    NEGOTIATING = "no domain is authenticated"
    AUTHENTICATING = "a SASL exchange is going on"
    OPEN = "stanzas flow"
    SETTLING = "we are about to close: nothing more is written, what was is being acknowledged"
    LEAVING = "we have closed our stream, and read on until the peer has closed its own"
    CLOSING = "nothing is read any more; what was read is being confirmed"
    CLOSED = "nothing is read or written any more"


ENDING: Final = frozenset({State.SETTLING, State.LEAVING, State.CLOSING, State.CLOSED})
READING: Final = frozenset({State.OPEN, State.SETTLING, State.LEAVING})  # stanzas are taken

STREAM_ERROR: Final = f"{ns.STREAMS} error"
FEATURES: Final = f"{ns.STREAMS} features"
STARTTLS: Final = f"{ns.TLS} starttls"
PROCEED: Final = f"{ns.TLS} proceed"
TLS_FAILURE: Final = f"{ns.TLS} failure"
AUTH: Final = f"{ns.SASL} auth"
RESPONSE: Final = f"{ns.SASL} response"
ABORT: Final = f"{ns.SASL} abort"
CHALLENGE: Final = f"{ns.SASL} challenge"
SUCCESS: Final = f"{ns.SASL} success"
SASL_FAILURE: Final = f"{ns.SASL} failure"
BIDI: Final = f"{ns.BIDI} bidi"
ENABLE: Final = f"{ns.SM} enable"
ENABLED: Final = f"{ns.SM} enabled"
FAILED: Final = f"{ns.SM} failed"
ACK_REQUEST: Final = f"{ns.SM} r"
ACK: Final = f"{ns.SM} a"

_DIALBACK: Final = frozenset({dialback.RESULT, dialback.VERIFY})
_WHILE_OPEN: Final = _DIALBACK | {ENABLE, ENABLED, FAILED, ACK_REQUEST, ACK}
_AT_THE_END: Final = {State.SETTLING: _WHILE_OPEN, State.LEAVING: _WHILE_OPEN}

# First-level elements other than stanzas and stream errors, by the state in which they mean something.
INCOMING: Final[dict[State, frozenset[str]]] = {
    State.NEGOTIATING: _DIALBACK | {STARTTLS, AUTH, BIDI, ENABLE},
    State.AUTHENTICATING: frozenset({RESPONSE, ABORT}),
    State.OPEN: _WHILE_OPEN,
    **_AT_THE_END,
}
OUTGOING: Final[dict[State, frozenset[str]]] = {
    State.FEATURES: frozenset({FEATURES}),
    State.TLS_ASKED: frozenset({PROCEED, TLS_FAILURE}),
    State.NEGOTIATING: _DIALBACK,
    State.AUTHENTICATING: _DIALBACK | {CHALLENGE, SUCCESS, SASL_FAILURE},
    State.OPEN: _WHILE_OPEN,
    **_AT_THE_END,
}
