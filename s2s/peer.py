"""What a stream between servers is told: who its peer is, by what it is carried, what it keeps to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from cluster.config import Policy
from xmpp.stream import Limits


class Identity(Protocol):
    """What the peer's certificate says."""

    @property
    def is_trusted(self) -> bool:
        """Whether it comes from somebody whom we trust."""

    @property
    def problem(self) -> str:
        """Why it does not, "" if it does."""

    def proves(self, domain: str) -> bool:
        """Whether the peer is the server of this domain."""


class Transport(Protocol):
    """What carries a stream."""

    transport_name: str  # tcp, starttls, tls

    def write(self, data: bytes) -> None:
        """Queue bytes."""

    def start_tls(self) -> None:
        """Begin the TLS handshake, as server or client; `tls_established` follows."""

    def close(self) -> None:
        """Write what is queued, then end the connection."""

    def abort(self) -> None:
        """End the connection at once."""

    def pause_reading(self) -> None:
        """Read no more for now."""

    def resume_reading(self) -> None:
        """Read again."""

    @property
    def is_secure(self) -> bool:
        """Whether TLS is in force."""

    @property
    def identity(self) -> Identity:
        """Whom the peer has shown to be, in TLS."""

    @property
    def address(self) -> str:
        """The peer's address."""


class Proof(Enum):
    """Whether a peer's certificate, or what DNS or a web site say of it, makes it the server of a domain."""

    PROVEN = "it does"
    UNPROVEN = "it does not; dialback may"
    CONTRADICTED = "another certificate is the right one (DANE): this connection must not be used"


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What every stream of a process keeps to."""

    domains: frozenset[str]  # ours, those of components too
    is_tls_required: bool
    policy: Policy
    before_login: Limits
    after_login: Limits
    before_login_bytes: int
    login_timeout_s: float
    idle_timeout_s: float
    keepalive_s: float
    limits: bytes  # XEP-0478, ready to send
    has_bidi: bool = True
    policies: Mapping[str, Policy] = field(default_factory=dict)  # of single domains

    def policy_of(self, domain: str) -> Policy:
        """Whether, and by what proof, we talk to this domain."""
        return self.policies.get(domain, self.policy)
