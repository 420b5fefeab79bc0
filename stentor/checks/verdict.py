"""Whether a stream with another server would come about, and by what it would be authenticated. Pure.

It follows `s2s/outgoing.py`: TLS first, then who the peer is, then SASL EXTERNAL if it is offered, else dialback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cluster.certificates import to_dns
from cluster.config import Config, Policy
from s2s import dane
from s2s.certificates import PeerIdentity
from s2s.dane import Tlsa, Verdict
from s2s.peer import Proof
from s2s.posh import Fingerprint, matches
from s2s.srv import Target
from stentor.checks.findings import Finding, fail, ok, warn
from stentor.checks.probe import Seen, Stage
from stentor.checks.records import SERVERS, Kind

STEP: Final = "verdict"


@dataclass(frozen=True, slots=True)
class Pair:
    """The two domains of the stream."""

    domain: str  # the one that is looked at
    from_: str
    is_ours: bool  # whether `domain` is
    policy: Policy  # of ours towards the other one
    is_tls_required: bool

    @property
    def other(self) -> str:
        """The one that is not ours."""
        return self.from_ if self.is_ours else self.domain

    @classmethod
    def of(cls, config: Config, domain: str, from_: str) -> Pair:
        """As configured."""
        is_ours = domain in ours(config)
        policy = config.s2s.domains.get(from_ if is_ours else domain, config.s2s.policy)
        return cls(domain, from_, is_ours, policy, config.s2s.tls == "required")


def ours(config: Config) -> frozenset[str]:
    """The domains that are served here, those of rooms and components too."""
    return frozenset((*config.server.domains, *config.service_domains(), *config.components.domains))


def judge_policy(config: Config, pair: Pair) -> Finding:
    """What the configuration says before anybody is asked."""
    if not config.s2s.enabled:
        return fail("policy", "s2s.enabled is false: there are no other servers", "Set it to true")
    if pair.policy == "deny":
        key = "s2s.domains" if pair.other in config.s2s.domains else "s2s.policy"
        return fail("policy", f"{key} forbids traffic with {pair.other}", f'Set s2s.domains."{pair.other}" to allow')
    needs = {"allow": "a valid certificate or dialback", "secure": "a valid certificate"}[pair.policy]
    return ok("policy", f"{pair.policy}: {pair.other} needs {needs}")


def judge_connect(seen: Seen, pair: Pair, kind: Kind, *, is_needed: bool) -> Finding:
    """How one address answers. `is_needed`: without it there is no stream."""
    target = seen.target
    how = "direct TLS" if target.is_direct_tls else "STARTTLS"
    at = f" at {seen.address}" if seen.address != target.host else ""
    place = f"{target.host} port {target.port} ({how}){at}"
    if seen.stage is not Stage.DONE:
        return (fail if is_needed else warn)("connect", f"{place}: {seen.problem}", _remedy(seen, pair, kind))
    if not seen.tls:
        return warn("connect", f"{place}: no TLS is offered", "Give the server a certificate, so that it offers it")
    return ok("connect", f"{place}: {seen.tls}{f', ALPN {seen.alpn}' if seen.alpn else ''}")


def judge_features(seen: Seen) -> Finding:
    """What the stream offers, behind TLS if there is any."""
    offered = seen.offer.features
    named = {
        "SASL EXTERNAL": offered.has_external,
        "dialback": seen.offer.has_dialback,
        "bidi (XEP-0288)": offered.has_bidi,
        "stream management (XEP-0198)": offered.has_management,
    }
    texts = ", ".join(name for name, is_there in named.items() if is_there)
    if not (offered.has_external or seen.offer.has_dialback):
        return warn("features", f"{texts or 'none'}; nothing of it proves a domain")
    return ok("features", texts)


def _remedy(seen: Seen, pair: Pair, kind: Kind) -> str:
    port = seen.target.port
    if seen.stage is Stage.CONNECT:
        if "refused" in seen.problem:
            return "Nothing listens there: start the server, or correct address and port in the DNS"
        if "unreachable" in seen.problem:
            return "This machine has no way there; others may have one"
        return f"Let firewalls pass TCP port {port}, or correct address and port in the DNS"
    if seen.offer.condition in ("host-unknown", "host-gone") or "UNRECOGNIZED_NAME" in seen.problem:  # of SNI
        if pair.is_ours:
            return "Add it to server.domains and restart, or correct the DNS: another server answers there"
        return "The DNS leads to a server that does not know the domain: its operator has to correct one of them"
    if seen.stage is Stage.TLS:
        starttls = "" if seen.target.is_direct_tls else f"-starttls {kind.openssl} -xmpphost {to_dns(pair.domain)} "
        address = f"[{seen.address}]" if ":" in seen.address else seen.address
        command = f"openssl s_client {starttls}-connect {address}:{port} -servername {to_dns(pair.domain)}"
        return f"TLS 1.2 with ECDHE and AES-GCM or ChaCha20, or TLS 1.3, is needed; look with: {command}"
    if seen.offer.condition == "not-authorized":
        return f"It wants a valid certificate of {pair.from_}: see tls.certificate"
    if seen.offer.condition:
        return f"The server there does not want {pair.from_}: ask its operator"
    return f"Something else than a server for XMPP {kind.whom} listens there, or it is overloaded"


def used(seen: Sequence[Seen]) -> Seen | None:
    """The address that a stream would use: the first that takes the connection, with direct TLS after the handshake
    (`s2s/connect.py`); None if there is none."""
    return next(
        (
            each
            for each in seen
            if each.stage in (Stage.STREAM, Stage.DONE)
            or (each.stage is Stage.TLS and not each.target.is_direct_tls)
        ),
        None,
    )  # fmt: skip


def prove(
    identity: PeerIdentity, pair: Pair, target: Target, tlsa: Sequence[Tlsa], fingerprints: Sequence[Fingerprint],
    now: datetime,
) -> tuple[Proof, str]:  # fmt: skip
    """Whether the peer is the server of the domain, without dialback, and what says so."""
    match dane.judge(identity.chain, tlsa, now):
        case Verdict.MISMATCH:
            return Proof.CONTRADICTED, "its TLSA records (DANE) name another one"
        case Verdict.SERVER:
            return Proof.PROVEN, "TLSA records (DANE)"
        case Verdict.AUTHORITY if identity.names.cover(pair.domain) or identity.names.cover(target.host):
            return Proof.PROVEN, "TLSA records (DANE)"
    if identity.proves(pair.domain):
        return Proof.PROVEN, "its authority"
    if matches(identity.chain, fingerprints):
        return Proof.PROVEN, "its web site (POSH)"
    return Proof.UNPROVEN, identity.problem or f"it is not for {pair.domain}"


def judge(seen: Seen | None, proof: Proof, reason: str, pair: Pair) -> Finding:
    """Whether a stream would come about at the address that is used (see `used`)."""
    if seen is None:
        return fail(STEP, f"no stream: no server of {pair.domain} can be reached", "See the lines above")
    if seen.stage is not Stage.DONE:
        return fail(STEP, f"no stream: {seen.problem}", _remedy(seen, pair, SERVERS))
    if not seen.tls and (pair.is_tls_required or pair.policy == "secure"):
        return fail(STEP, "no stream: the server offers no TLS, which is required (s2s.tls)", "Make it offer STARTTLS")
    if seen.tls and proof is Proof.CONTRADICTED:
        return fail(STEP, f"no stream: the certificate is not the right one, {reason}", "Correct the TLSA records")
    offered = seen.offer
    if pair.is_ours:
        return _judge_ours(seen, proof, reason)
    if proof is Proof.UNPROVEN and pair.policy == "secure":
        remedy = f'Its operator has to get a valid certificate; or set s2s.domains."{pair.domain}" to allow'
        return fail(STEP, f"no stream: our policy wants a valid certificate, and {_of(seen, reason)}", remedy)
    theirs = (
        f"its certificate is valid by {reason}"
        if proof is Proof.PROVEN
        else f"{_of(seen, reason)}; our policy allows that"
    )
    if offered.features.has_external:
        return ok(STEP, f"{pair.from_} would be authenticated by SASL EXTERNAL; {theirs}")
    if offered.has_dialback:
        return ok(
            STEP,
            f"{pair.from_} would be authenticated by dialback, for which {pair.domain} has to reach us; {theirs}",
        )
    remedy = "It wants a valid certificate of ours (see tls.certificates), or its operator has to enable dialback"
    return fail(STEP, f"no stream: the server offers nothing that proves {pair.from_} to it", remedy)


def _of(seen: Seen, reason: str) -> str:
    return f"its certificate is not valid ({reason})" if seen.tls else "there is no TLS"


def _judge_ours(seen: Seen, proof: Proof, reason: str) -> Finding:
    """How others would see us: they come in by certificate or by dialback, and judge our certificate themselves."""
    if proof is Proof.PROVEN:
        return ok(STEP, f"other servers reach us, and believe our certificate by {reason}")
    remedy = "Servers that want a valid certificate refuse us: get one from an authority that they trust"
    return warn(STEP, f"other servers reach us by dialback alone: {_of(seen, reason)}", remedy)
