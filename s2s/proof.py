"""By what a peer is believed to be the server of a domain, without dialback: its certificate, DNS, a web site.

PKIX is s2s/certificates.py, DANE s2s/dane.py, POSH s2s/posh.py; the last two only where they are configured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from cluster.clock import Clock
from s2s import posh
from s2s.certificates import PeerIdentity
from s2s.dane import Verdict, judge
from s2s.dns import DnsError, Resolver
from s2s.peer import Proof
from s2s.posh import Posh
from s2s.srv import Target

log = structlog.get_logger(__name__)


class Peer(Protocol):
    """A connection, with TLS."""

    @property
    def identity(self) -> PeerIdentity:
        """What the peer's certificate says."""

    @property
    def target(self) -> Target | None:
        """Where we have connected to; None if the peer has."""

    @property
    def domain(self) -> str:
        """For which domain DNS has named the target."""


class Prover:
    """Judges the peers of one process."""

    def __init__(
        self,
        resolver: Resolver | None,
        posh: Posh | None,
        clock: Clock,
        start: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        """With a resolver DANE is asked, with `posh` POSH. `start` runs what has to wait."""
        self._resolver = resolver
        self._posh = posh
        self._clock = clock
        self._start = start

    def prove(self, peer: Peer, domain: str, done: Callable[[Proof], None]) -> None:
        """Whether the peer is the server of a domain; `done` is told once."""
        target = peer.target if peer.domain == domain and self._resolver is not None else None
        if target is not None and target.is_secure:
            self._start(self._ask(peer.identity, domain, target, done))
        elif peer.identity.proves(domain):
            done(Proof.PROVEN)
        elif self._posh is not None and peer.identity.chain:
            self._start(self._ask(peer.identity, domain, None, done))
        else:
            done(Proof.UNPROVEN)

    async def _ask(
        self, identity: PeerIdentity, domain: str, target: Target | None, done: Callable[[Proof], None]
    ) -> None:  # fmt: skip
        proof = Proof.UNPROVEN
        try:
            proof = await self._decide(identity, domain, target)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("proof_failed", domain=domain)
        done(proof)

    async def _decide(self, identity: PeerIdentity, domain: str, target: Target | None) -> Proof:
        if target is not None:
            verdict = await self._ask_dns(identity, target)
            if verdict is Verdict.MISMATCH:
                return Proof.CONTRADICTED
            names = identity.names
            if verdict is Verdict.SERVER or (
                verdict is Verdict.AUTHORITY and (names.cover(domain) or names.cover(target.host))
            ):  # fmt: skip
                return Proof.PROVEN
        if identity.proves(domain):
            return Proof.PROVEN
        if self._posh is not None and posh.matches(identity.chain, await self._posh.fingerprints(domain)):
            return Proof.PROVEN
        return Proof.UNPROVEN

    async def _ask_dns(self, identity: PeerIdentity, target: Target) -> Verdict:
        assert self._resolver is not None
        try:
            records = await self._resolver.tlsa(target)
        except DnsError as problem:
            log.info("dane_not_known", host=target.host, problem=str(problem))
            return Verdict.MISMATCH  # the answer may have been held back (RFC 7672, 2.1.1)
        return judge(identity.chain, records, datetime.fromtimestamp(self._clock.wall(), UTC))
