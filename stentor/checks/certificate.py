"""What a certificate is worth, in words for an operator. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from cluster.trust import parse_chain
from s2s.certificates import Names, PeerIdentity
from stentor.checks.findings import Finding, ok, warn

STEP: Final = "certificate"
SOON_DAYS: Final = 14
MOST_NAMES: Final = 10  # shown


def judge(identity: PeerIdentity, domain: str, now: datetime, *, is_ours: bool) -> list[Finding]:
    """What a chain that was shown is worth; whether it matters is decided in `verdict.py`."""
    if not identity.chain:
        return [warn(STEP, "the server showed no certificate", "Configure one there")]
    found = [*_judge_dates(identity.chain, identity.names, now, is_ours)]
    if identity.is_trusted:
        found.append(ok(STEP, "it comes from an authority that is trusted here"))
    else:
        found.append(warn(STEP, f"it is not trusted: {identity.problem}", _trust_remedy(identity.problem, is_ours)))
    if identity.names.cover(domain):
        found.append(ok(STEP, f"it is for {domain}"))
    else:
        who = "Get one that names it" if is_ours else "Its operator has to get one that names it"
        found.append(warn(STEP, f"it is not for {domain}", f"{who}: as DNS name or XmppAddr"))
    return found


def _judge_dates(chain: Sequence[bytes], names: Names, now: datetime, is_ours: bool) -> list[Finding]:
    try:
        leaf = parse_chain(chain)[0]
    except ValueError as problem:
        return [warn(STEP, f"it cannot be read: {problem}", "Replace it")]
    days = (leaf.not_valid_after_utc - now).days
    until = f"{leaf.not_valid_after_utc:%Y-%m-%d}"
    text = f"for {shown(names)}, by {_issuer(leaf)}, "
    remedy = "Renew it, then send SIGHUP or wait a minute" if is_ours else "Its operator has to renew it"
    if now > leaf.not_valid_after_utc:
        return [warn(STEP, f"{text}expired {(now - leaf.not_valid_after_utc).days} days ago ({until})", remedy)]
    if days < SOON_DAYS:
        return [warn(STEP, f"{text}expires in {days} days ({until})", remedy)]
    return [ok(STEP, f"{text}expires in {days} days ({until})")]


def shown(names: Names) -> str:
    """The names, in a line."""
    every = sorted(names.dns | names.xmpp | names.srv | names.addresses)
    more = f" and {len(every) - MOST_NAMES} more" if len(every) > MOST_NAMES else ""
    return ", ".join(every[:MOST_NAMES]) + more if every else "no name that counts (the common name does not)"


def _issuer(leaf: x509.Certificate) -> str:
    if leaf.issuer == leaf.subject:
        return "itself"
    for kind in (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME):
        if named := leaf.issuer.get_attributes_for_oid(kind):
            return f'"{named[0].value!s}"'
    return "an authority without a name"


def _trust_remedy(problem: str, is_ours: bool) -> str:
    if not is_ours:
        return "Its operator has to get a valid one; or trust its authority by s2s.ca"
    if "intermediate" in problem:
        return "Put the whole chain into the certificate's file, and use an authority that others trust"
    return "Get one from an authority that other servers trust"
