"""By what a peer is believed without dialback: PKIX, DANE, POSH (s2s/proof.py)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine
from typing import Any, NamedTuple, cast

import pytest

from cluster.clock import SYSTEM
from s2s.certificates import Names, PeerIdentity
from s2s.dane import Tlsa
from s2s.dns import Resolver, Unresolved
from s2s.peer import Proof
from s2s.posh import Fingerprint, Posh
from s2s.proof import Prover
from s2s.srv import Target
from tests.support.pki import dns, issue

REMOTE = "capulet.example"
CERTIFICATE = issue(REMOTE, names=dns(REMOTE)).der
HASH = hashlib.sha256(CERTIFICATE).digest()
SECURE = Target("h.example", 5269, is_direct_tls=False, is_secure=True)
DANE_EE = Tlsa(3, 0, 1, HASH)


class Peer(NamedTuple):
    """A connection."""

    identity: PeerIdentity
    target: Target | None = SECURE
    domain: str = REMOTE


class Records:
    """A resolver that has these TLSA records, or fails."""

    def __init__(self, *records: Tlsa, problem: str = "") -> None:
        self._records = list(records)
        self._problem = problem

    async def tlsa(self, target: Target) -> list[Tlsa]:
        if self._problem:
            raise Unresolved(self._problem)
        return self._records


class Site:
    """A web site with these fingerprints; None: it has a bug."""

    def __init__(self, *fingerprints: Fingerprint | None) -> None:
        self._fingerprints = fingerprints

    async def fingerprints(self, domain: str) -> tuple[Fingerprint | None, ...]:
        if None in self._fingerprints:
            raise RuntimeError("a bug")
        return self._fingerprints


def identity(*, is_trusted: bool) -> PeerIdentity:
    return PeerIdentity((CERTIFICATE,), is_trusted, "", Names(dns=frozenset({REMOTE})))


TRUSTED, STRANGER = identity(is_trusted=True), identity(is_trusted=False)
NOBODY = PeerIdentity((), False, "there is no certificate", Names())


def judged(
    peer: Peer, resolver: Records | None = None, site: Site | None = None, domain: str = REMOTE
) -> tuple[Proof, bool]:  # fmt: skip
    """The outcome, and whether something had to be asked."""
    started: list[Coroutine[Any, Any, None]] = []
    told: list[Proof] = []
    prover = Prover(cast(Resolver | None, resolver), cast(Posh | None, site), SYSTEM, started.append)
    prover.prove(peer, domain, told.append)
    for work in started:
        asyncio.run(_run(work))
    [proof] = told
    return proof, bool(started)


async def _run(work: Coroutine[Any, Any, None]) -> None:
    await work


@pytest.mark.parametrize(
    ("peer", "domain", "proof"),
    [
        (Peer(TRUSTED), REMOTE, Proof.PROVEN),
        (Peer(TRUSTED), "paris.example", Proof.UNPROVEN),
        (Peer(STRANGER), REMOTE, Proof.UNPROVEN),
        (Peer(NOBODY), REMOTE, Proof.UNPROVEN),
    ],
)
def test_without_dane_and_posh_the_certificate_decides_at_once(peer: Peer, domain: str, proof: Proof) -> None:
    assert judged(peer, domain=domain) == (proof, False)


@pytest.mark.parametrize(
    ("peer", "records", "proof"),
    [
        (Peer(STRANGER), Records(DANE_EE), Proof.PROVEN),
        (Peer(TRUSTED), Records(Tlsa(3, 0, 1, b"\0" * 32)), Proof.CONTRADICTED),
        (Peer(TRUSTED), Records(), Proof.PROVEN),
        (Peer(STRANGER), Records(), Proof.UNPROVEN),
        (Peer(TRUSTED), Records(problem="no answer"), Proof.CONTRADICTED),
    ],
)
def test_dane_comes_first_where_dns_is_secure(peer: Peer, records: Records, proof: Proof) -> None:
    assert judged(peer, records) == (proof, True)


@pytest.mark.parametrize(
    "peer",
    [
        Peer(STRANGER, SECURE._replace(is_secure=False)),
        Peer(STRANGER, None, ""),  # it has connected to us
        Peer(STRANGER, SECURE, "paris.example"),  # the way to the target is that of another domain
    ],
)
def test_dane_says_nothing_where_dns_has_not_named_the_target_securely_for_this_domain(peer: Peer) -> None:
    assert judged(peer, Records(DANE_EE)) == (Proof.UNPROVEN, False)


@pytest.mark.parametrize(
    ("site", "proof"),
    [
        (Site(Fingerprint(HASH, b"")), Proof.PROVEN),
        (Site(Fingerprint(b"\0" * 32, b"")), Proof.UNPROVEN),
        (Site(), Proof.UNPROVEN),
        (Site(None), Proof.UNPROVEN),  # told all the same: a stream waits for it
    ],
)
@pytest.mark.parametrize("target", [SECURE, None])
def test_posh_proves_what_no_authority_does(site: Site, proof: Proof, target: Target | None) -> None:
    peer = Peer(STRANGER, target, REMOTE if target else "")
    assert judged(peer, site=site) == (proof, True)


def test_posh_is_not_asked_about_a_certificate_that_is_good_or_missing() -> None:
    assert judged(Peer(TRUSTED), site=Site(None)) == (Proof.PROVEN, False)
    assert judged(Peer(NOBODY), site=Site(None)) == (Proof.UNPROVEN, False)
