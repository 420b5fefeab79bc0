"""`stentor check federation` and its parts: asks the DNS, looks at every address, and tells what it finds step by step.

Everything takes bounded time: the resolver's questions, each step of a probe, the fetch of POSH. What is found is
judged in `records.py`, `certificate.py` and `verdict.py`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cluster.certificates import CertificateError, to_dns
from cluster.config import Config
from cluster.tls import Certificates
from cluster.tls import Pair as Files
from cluster.trust import Authorities
from s2s.certificates import PeerIdentity, identify
from s2s.dane import Tlsa
from s2s.dns import DnsError, Resolver
from s2s.domains import ip_literal
from s2s.peer import Proof
from s2s.posh import Fingerprint, Posh
from s2s.srv import Srv, Target, merge
from s2s.tls import outgoing_context, server_name
from stentor.checks import certificate, records, verdict
from stentor.checks.findings import Finding, Level, fail, ok, warn
from stentor.checks.probe import Greeting, Seen, Stage, probe
from stentor.checks.records import CLIENTS, SERVERS, Kind
from stentor.checks.verdict import Pair, ours
from stentor.failure import Failed

MOST_PROBES: Final = 12
# Who looks at a domain of ours from outside: RFC 6761, 6.4 says that this name is nobody's.
NOBODY: Final = "check.invalid"


Place = tuple[Target, str]  # with one of its addresses


@asynccontextmanager
async def _resolving(config: Config) -> AsyncIterator[Resolver]:
    try:
        resolver = Resolver(config.s2s.resolvers, dane=config.s2s.dane)
    except ValueError as problem:
        raise Failed(f"s2s.resolvers: {problem}", 2) from None
    try:
        yield resolver
    finally:
        await resolver.close()


def _authorities(config: Config) -> Authorities:
    try:
        return Authorities.load([config.s2s.ca] if config.s2s.ca is not None else [])
    except CertificateError as problem:
        raise Failed(f"s2s.ca: {problem}", 2) from None


def default_from(config: Config, domain: str) -> str:
    """For whom to look at a domain, where nobody said: for our first, or at one of ours as anybody would."""
    if domain not in ours(config):
        return config.server.domains[0]
    s2s = config.s2s
    welcome = (other for other, policy in s2s.domains.items() if policy != "deny")
    return next(welcome, NOBODY) if s2s.policy == "deny" else NOBODY


# --- the three checks


async def check_dns(config: Config, domain: str) -> AsyncIterator[Finding]:
    """What is in the DNS, for servers and for clients."""
    async with _resolving(config) as resolver:
        for kind in _kinds(config, domain):
            found, targets = await _look_up(config, resolver, domain, kind)
            for finding in (*found, *(await _addresses(resolver, targets))[0]):
                yield finding


async def check_tls(config: Config, domain: str) -> AsyncIterator[Finding]:
    """The certificate of a domain: the one in our files, if the domain is ours, and those that are shown."""
    pair, authorities = Pair.of(config, domain, NOBODY), _authorities(config)
    own = None
    if pair.is_ours:
        try:
            own = own_certificate(config, domain)
            outgoing_context(own[0])
            yield ok("files", f"{own[0][0]} and {own[0][1]} belong together")
            identity = identify(own[1], authorities, datetime.now(UTC))
            for finding in certificate.judge(identity, domain, datetime.now(UTC), is_ours=True):
                yield finding
        except CertificateError as problem:
            yield fail("files", f"{problem.file}: {problem.problem}", problem.remedy)
    async with _resolving(config) as resolver:
        for kind in _kinds(config, domain) if pair.is_ours else (SERVERS,):
            found, targets = await _look_up(config, resolver, domain, kind)
            more, places = await _addresses(resolver, targets)
            for finding in (*found, *more):
                yield finding
            seen = await _probe_all(places, pair, kind, None)
            for finding in _judge_all(seen, pair, kind, authorities, own):
                yield finding
            if not seen:
                yield fail("connect", f"there is no server for {kind.whom} to look at", "See the lines above")


def _kinds(config: Config, domain: str) -> tuple[Kind, ...]:
    """Clients do not connect to the domain of a component."""
    return (SERVERS,) if domain in {*config.components.domains, *config.service_domains()} else (SERVERS, CLIENTS)


async def check_federation(config: Config, domain: str, from_: str) -> AsyncIterator[Finding]:
    """All that another server would see of a domain of ours, or we of another; the last line is the verdict."""
    pair, authorities = Pair.of(config, domain, from_), _authorities(config)
    policy = verdict.judge_policy(config, pair)
    yield policy
    own: Own | None = None
    shown: Files | None = None
    try:
        if pair.is_ours:
            own = own_certificate(config, domain)
        elif from_ in ours(config):
            shown = own_certificate(config, from_)[0]
            outgoing_context(shown)
        else:
            yield warn("certificate", f"{from_} is none of our domains, so none of our certificates is shown for it")
    except CertificateError as problem:
        shown = None
        whose = "ours cannot be compared" if pair.is_ours else f"ours cannot be shown to {domain}"
        yield warn("certificate", f"{whose}: {problem.file}: {problem.problem}", problem.remedy)
    async with _resolving(config) as resolver:
        found, targets = await _look_up(config, resolver, domain, SERVERS)
        more, places = await _addresses(resolver, targets)
        for finding in (*found, *more):
            yield finding
        seen = await _probe_all(places, pair, SERVERS, shown)
        for finding in _judge_all(seen, pair, SERVERS, authorities, own, with_features=True):
            yield finding
        chosen = verdict.used(seen)
        proof, reason = Proof.UNPROVEN, ""
        if chosen is not None and chosen.chain:
            tlsa, fingerprints, further = await _other_proofs(config, resolver, domain, chosen.target)
            for finding in further:
                yield finding
            now = datetime.now(UTC)
            identity = identify(chosen.chain, authorities, now)
            proof, reason = verdict.prove(identity, pair, chosen.target, tlsa, fingerprints, now)
        if policy.level is Level.FAIL:
            yield fail(verdict.STEP, f"no stream: {policy.text}", policy.remedy)
        else:
            yield verdict.judge(chosen, proof, reason, pair)


# --- our certificate

Own = tuple[Files, tuple[bytes, ...]]  # the files, and the chain in them (DER)


def own_certificate(config: Config, domain: str) -> Own:
    """What we show for a domain of ours. Raises CertificateError."""
    pairs = config.tls.pairs(ours(config))
    if not pairs:
        raise CertificateError(Path("tls"), "no certificate is configured", "Set tls.certificate and tls.key")
    files = Certificates(pairs, lambda pair, _: pair).choose(to_dns(domain))
    chain = x509.load_pem_x509_certificates(files[0].read_bytes())
    return files, tuple(each.public_bytes(Encoding.DER) for each in chain)


def _compare(own: Own, shown: bytes) -> Finding:
    file = own[0][0]
    if own[1][0] == shown:
        return ok(certificate.STEP, f"it is the one in {file}")
    remedy = "After a renewal send SIGHUP, or wait a minute; else another server answers there: correct the DNS"
    return warn(certificate.STEP, f"it is not the one in {file}", remedy)


# --- steps


async def _look_up(config: Config, resolver: Resolver, domain: str, kind: Kind) -> tuple[list[Finding], list[Target]]:
    """What the records are worth, and whom they lead to, first to be tried first."""
    direct, starttls, has_address = await asyncio.gather(
        _services(resolver, kind.direct, domain), _services(resolver, kind.starttls, domain),
        _has_address(resolver, domain),
    )  # fmt: skip
    ports = records.ports_of(config, kind) if domain in ours(config) else None
    given = {kind.direct: direct, kind.starttls: starttls}
    found = records.judge(domain, kind, given, has_address, ports)
    if kind is SERVERS:
        try:
            return found, await resolver.find(domain)
        except DnsError:
            return found, []  # `found` says why
    known = [() if isinstance(each, str) else each for each in (direct, starttls)]
    targets = merge(known[0], known[1], random.SystemRandom())
    if not targets and has_address and not any((direct, starttls)):
        targets = [Target(to_dns(domain), kind.port, is_direct_tls=False)]
    return found, targets


async def _services(resolver: Resolver, service: str, domain: str) -> list[Srv] | str:
    if ip_literal(domain) is not None:
        return []
    try:
        return await resolver.services(service, domain)
    except DnsError as problem:
        return str(problem)


async def _has_address(resolver: Resolver, domain: str) -> bool:
    try:
        return bool(await resolver.addresses(Target(to_dns(domain), 0, is_direct_tls=False)))
    except DnsError:
        return False


async def _addresses(resolver: Resolver, targets: Sequence[Target]) -> tuple[list[Finding], list[Place]]:
    found: dict[str, Finding] = {}
    places: list[Place] = []
    for target in targets:
        try:
            addresses = await resolver.addresses(target)
        except DnsError as problem:
            found[target.host] = warn("address", str(problem), "Give it an A or AAAA record, or correct the SRV record")
            continue
        found[target.host] = ok("address", f"{target.host} has {', '.join(addresses)}")
        places += [(target, address) for address in addresses]
    if len(places) > MOST_PROBES:
        found[""] = warn("address", f"only the first {MOST_PROBES} of {len(places)} addresses are looked at")
    return list(found.values()), places[:MOST_PROBES]


async def _probe_all(places: Sequence[Place], pair: Pair, kind: Kind, shown: Files | None) -> list[Seen]:
    """Look at all of them, at once. `shown`: our certificate, if there is one to show."""
    name = server_name(pair.domain)
    contexts = {is_direct: outgoing_context(shown, kind.alpn if is_direct else "") for is_direct in (True, False)}
    return await asyncio.gather(
        *(
            probe(
                target, address, _greeting(pair, kind, target), tls=contexts[target.is_direct_tls], server_name=name
            )
            for target, address in places
        )
    )  # fmt: skip


def _greeting(pair: Pair, kind: Kind, target: Target) -> Greeting:
    from_ = pair.from_ if kind is SERVERS else ""
    return Greeting(pair.domain, from_, kind.namespace, is_secure=target.is_direct_tls)


def _judge_all(
    seen: Sequence[Seen], pair: Pair, kind: Kind, authorities: Authorities, own: Own | None, *,
    with_features: bool = False,
) -> Iterator[Finding]:  # fmt: skip
    """Every address; a certificate that several show is judged once."""
    judged: set[bytes] = set()
    chosen = verdict.used(seen)
    now = datetime.now(UTC)
    for each in seen:
        yield verdict.judge_connect(each, pair, kind, is_needed=chosen is None or chosen is each)
        if each.stage is Stage.DONE and with_features:
            yield verdict.judge_features(each)
        if not each.chain:
            continue
        if each.chain[0] in judged:
            yield ok(certificate.STEP, "it is the one above")
            continue
        judged.add(each.chain[0])
        identity: PeerIdentity = identify(each.chain, authorities, now)
        yield from certificate.judge(
            identity, pair.domain, now, is_ours=pair.is_ours
        )  # fmt: skip
        if own is not None:
            yield _compare(own, each.chain[0])


async def _other_proofs(
    config: Config, resolver: Resolver, domain: str, target: Target
) -> tuple[Sequence[Tlsa], Sequence[Fingerprint], list[Finding]]:
    """What DNSSEC and the domain's web site say of its certificate, where we ask them."""
    tlsa: Sequence[Tlsa] = ()
    fingerprints: Sequence[Fingerprint] = ()
    found: list[Finding] = []
    if config.s2s.dane:
        try:
            tlsa = await resolver.tlsa(target)
            found.append(ok("dane", f"{len(tlsa)} TLSA records of {target.host} port {target.port} are secure"))
        except DnsError as problem:
            found.append(warn("dane", str(problem), "Look at the name servers; until then the target is not used"))
    if config.s2s.posh:
        posh = Posh()
        try:
            fingerprints = await posh.fingerprints(domain)
        finally:
            await posh.close()
        found.append(ok("posh", f"the web site of {domain} names {len(fingerprints)} certificates"))
    return tlsa, fingerprints, found
