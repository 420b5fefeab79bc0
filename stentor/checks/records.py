"""What the DNS says of a domain's servers (RFC 6120, 3.2; XEP-0368): judged, and what should be in the zone. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from cluster.certificates import to_dns
from cluster.config import Config
from s2s.srv import Srv
from stentor.checks.findings import Finding, Level, fail, ok, warn
from xmpp import ns

STEP: Final = "dns"
TTL_S: Final = 3_600  # of the lines that are proposed

Records = Mapping[str, Sequence[Srv] | str]  # by service; a text says why the name servers gave none


class Kind(NamedTuple):
    """For whom the records are: other servers, or clients."""

    whom: str
    direct: str  # service names
    starttls: str
    port: int  # where there is no record (RFC 6120, 3.2.2)
    namespace: str
    alpn: str
    openssl: str  # what `openssl s_client -starttls` calls it


SERVERS: Final = Kind("servers", "_xmpps-server", "_xmpp-server", 5269, ns.SERVER, "xmpp-server", "xmpp-server")
CLIENTS: Final = Kind("clients", "_xmpps-client", "_xmpp-client", 5222, ns.CLIENT, "xmpp-client", "xmpp")


class Ports(NamedTuple):
    """What we listen on, with the settings that say so."""

    starttls: int
    direct: int
    section: str  # s2s or c2s

    def of(self, kind: Kind, service: str) -> tuple[int, str]:
        """The port of a service, and its setting."""
        if service == kind.direct:
            return self.direct, f"{self.section}.tls_port"
        return self.starttls, f"{self.section}.port"


def ports_of(config: Config, kind: Kind) -> Ports:
    """Ours."""
    if kind is SERVERS:
        return Ports(config.s2s.port, config.s2s.tls_port, "s2s")
    return Ports(config.c2s.port, config.c2s.tls_port, "c2s")


def judge(domain: str, kind: Kind, records: Records, has_address: bool, ports: Ports | None) -> list[Finding]:
    """`has_address`: the domain itself has an A or AAAA record. `ports`: ours, if the domain is ours; then what is
    missing in its zone comes with the lines to put there."""
    found: list[Finding] = []
    for service in (kind.direct, kind.starttls):
        given = records[service]
        if isinstance(given, str):
            found.append(fail(STEP, given, "Look at the name servers: s2s.resolvers, or those of the system"))
            continue
        found += [_judge_record(f"{service}._tcp.{to_dns(domain)}", record, kind, service, ports) for record in given]
    if any(isinstance(given, str) for given in records.values()):
        return found
    problems = _judge_absence(domain, kind, records, has_address, ports)
    worst = next((problem.level for problem in problems if problem.level is not Level.OK), None)
    if ports is not None and worst is not None:
        lines = zone_lines(domain, kind, records, ports, has_address)
        problems += [Finding(worst, "zone", line) for line in lines]
    return found + problems


def _judge_absence(
    domain: str, kind: Kind, records: Records, has_address: bool, ports: Ports | None
) -> list[Finding]:  # fmt: skip
    """What is not there, and what others make of it."""
    is_ours = ports is not None
    remedy = "Put the lines below into the zone" if is_ours else "Check the name; only its operator can change its DNS"
    if _targets(records):
        gaps = [service for service in (kind.direct, kind.starttls) if not records[service]]
        texts = [f"there is no {service} record: {_lost(kind, service)}" for service in gaps]
        return [warn(STEP, text, remedy) if is_ours else ok(STEP, text) for text in texts]
    if any(records.values()):
        if is_ours:
            remedy = 'Take the records with the target "." out of the zone, and put in the lines below'
        return [fail(STEP, f'the target "." says that {domain} takes no connections of {kind.whom}', remedy)]
    text = f"there are neither {kind.direct} nor {kind.starttls} records"
    if not has_address:
        return [fail(STEP, f"{text}, and {domain} has no address either", remedy)]
    text += f"; so it is the addresses of {domain} itself, port {kind.port} (STARTTLS)"
    if ports is None:
        return [ok(STEP, text)]
    if ports.starttls != kind.port:
        return [fail(STEP, f"{text}, but {ports.section}.port is {ports.starttls}", remedy)]
    return [warn(STEP, text, remedy)]


def _lost(kind: Kind, service: str) -> str:
    return "no direct TLS" if service == kind.direct else f"{kind.whom} without direct TLS find nobody"


def _targets(records: Records) -> list[str]:
    return [
        record.target for given in records.values() if not isinstance(given, str) for record in given if record.target
    ]


def _judge_record(name: str, record: Srv, kind: Kind, service: str, ports: Ports | None) -> Finding:
    if not record.target:
        return warn(STEP, f'{name} has the target ".": it is not offered')
    text = f"{name} leads to {record.target} port {record.port} (priority {record.priority}, weight {record.weight})"
    if ports is not None and record.port != ports.of(kind, service)[0]:
        port, setting = ports.of(kind, service)
        remedy = f"Correct the record or the setting, unless something in between maps {record.port} to {port}"
        return warn(STEP, f"{text}, but {setting} is {port}", remedy)
    return ok(STEP, text)


def zone_lines(domain: str, kind: Kind, records: Records, ports: Ports, has_address: bool) -> list[str]:
    """What to add to the zone, so that this domain of ours is found. The host is that of the other records, or the
    domain itself if it has an address."""
    name = to_dns(domain)
    known = next(iter(_targets(records)), None)
    host = known or (name if has_address else f"xmpp.{name}")
    lines = [
        f"{service}._tcp.{name}. {TTL_S} IN SRV 0 5 {ports.of(kind, service)[0]} {host}."
        for service in (kind.direct, kind.starttls)
        if not _targets({service: records[service]})
    ]
    if known is None and not has_address:
        lines.append(f"{host}. {TTL_S} IN A ADDRESS-OF-THIS-SERVER")
    return lines
