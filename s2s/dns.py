"""Where the server of a domain listens (RFC 6120, 3.2; XEP-0368), and what DNSSEC says of its certificate (RFC 7673).

    resolver = Resolver()                                # or Resolver(["192.0.2.53", "[2001:db8::1]:5353"])
    targets = await resolver.find("example.org")         # in the order in which they are to be tried
    addresses = await resolver.addresses(targets[0])     # of one target, when it is its turn
    records = await resolver.tlsa(targets[0])            # for `s2s/dane.py`; nothing unless `dane` is on

`NotFound` is lasting: there is no such domain, or no XMPP service at it (remote-server-not-found). `Unresolved` is
passing: the name servers did not say (remote-server-timeout). Both are answers of DNS alone; /etc/hosts is not read.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Sequence
from typing import ClassVar, Final, NamedTuple

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rdata
import dns.rdatatype
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TLSA
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.IN.SRV
import dns.resolver

from cluster.clock import SYSTEM, Clock
from s2s.dane import Tlsa
from s2s.domains import ip_literal, to_ascii
from s2s.lookups import Lookups
from s2s.srv import Srv, Target, merge
from xmpp.errors import RemoteServerNotFound, RemoteServerTimeout, StanzaError

PORT: Final = 5269
CACHED: Final = 10_000
KEPT_S: Final = 86_400.0  # the longest time to live that is believed
MISSING_S: Final = 60.0  # the longest time that a domain counts as missing (RFC 2308 allows more)
FAILED_S: Final = 5.0  # after a failure, the name servers are left alone for so long (RFC 9520)
MOST_ADDRESSES: Final = 8  # of one target and family
QUERY_S: Final = 2.0  # for one name server to answer once
LIFETIME_S: Final = 6.0  # for one question, over all name servers
_UDP_BYTES: Final = 1_232  # no fragments

Address = str  # an IP address as text


class DnsError(Exception):
    """A domain whose server was not found. `error` is what the sender of a stanza to it is told."""

    error: ClassVar[type[StanzaError]] = RemoteServerTimeout


class NotFound(DnsError):
    """Lasting: the domain does not exist, or has no XMPP service."""

    error = RemoteServerNotFound


class Unresolved(DnsError):
    """Passing: the name servers failed, or took too long."""


class Nameserver(NamedTuple):
    """Where to ask."""

    address: str
    port: int = 53

    @classmethod
    def parse(cls, text: str) -> Nameserver:
        """IP, IP:PORT or [IPv6]:PORT. Raises ValueError."""
        host, port = text, "53"
        if text.startswith("["):
            host, closed, rest = text[1:].partition("]")
            if not closed or (rest and not rest.startswith(":")):
                raise ValueError(f"{text!r} is not a name server; write IP, IP:PORT or [IPv6]:PORT")
            port = rest[1:] if rest else port
        elif text.count(":") == 1:
            host, _, port = text.partition(":")
        try:
            found = cls(str(ipaddress.ip_address(host)), int(port))
        except ValueError as problem:
            raise ValueError(f"{text!r} is not a name server; write IP, IP:PORT or [IPv6]:PORT") from problem
        if not 0 < found.port < 65_536:
            raise ValueError(f"{text!r} is not a name server: there is no port {found.port}")
        return found


class _Found(NamedTuple):
    """What the name servers said: records (none: there are none), or why they said nothing."""

    records: tuple[dns.rdata.Rdata, ...] = ()
    is_secure: bool = False
    failure: str = ""


class Resolver:
    """Looks up domains. One for a process: it remembers what it was told, and asks once what many want to know."""

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        *,
        dane: bool = False,
        clock: Clock = SYSTEM,
        dice: random.Random | None = None,
        query_s: float = QUERY_S,
        lifetime_s: float = LIFETIME_S,
        cached: int = CACHED,
    ) -> None:
        """Ask these name servers, or without any those of /etc/resolv.conf.

        `dane` is for those who run a validating resolver and trust the way to it: only then its word that an answer is
        secure (the flag AD, RFC 6840, 5.8) is believed. Raises ValueError for a name server that is none, and for a
        system without a configuration.
        """
        self._dane = dane
        self._dice = dice or random.SystemRandom()
        self._lookups: Lookups[tuple[str, dns.rdatatype.RdataType], _Found] = Lookups(clock.monotonic, cached)
        try:
            self._resolver = dns.asyncresolver.Resolver(configure=not nameservers)
        except dns.resolver.NoResolverConfiguration as problem:
            raise ValueError("the system has no name servers (/etc/resolv.conf); configure some") from problem
        if nameservers:
            self._resolver.nameservers = [
                dns.nameserver.Do53Nameserver(*Nameserver.parse(nameserver)) for nameserver in nameservers
            ]
        self._resolver.timeout, self._resolver.lifetime = query_s, lifetime_s
        self._resolver.cache = None  # ours also shares questions, and remembers failures
        self._resolver.use_edns(0, 0, _UDP_BYTES)
        self._resolver.flags = dns.flags.RD | (dns.flags.AD if dane else 0)  # AD asks for AD: RFC 6840, 5.7

    async def find(self, domain: str) -> list[Target]:
        """Where the servers of this domain listen, first to be tried first; never empty. Raises NotFound, Unresolved.

        `domain` is that of a JID: a name of U-labels or A-labels, or an IP literal, which is its own address.
        """
        if (address := ip_literal(domain)) is not None:
            return [Target(address, PORT, is_direct_tls=False)]
        try:
            name = to_ascii(domain)
        except ValueError as problem:
            raise NotFound(str(problem)) from problem
        direct, starttls = await asyncio.gather(
            self._ask(f"_xmpps-server._tcp.{name}", dns.rdatatype.SRV),
            self._ask(f"_xmpp-server._tcp.{name}", dns.rdatatype.SRV),
        )
        is_secure = direct.is_secure and starttls.is_secure
        if targets := merge(_services(direct), _services(starttls), self._dice, is_secure):
            return targets
        if failure := direct.failure or starttls.failure:
            raise Unresolved(f"the name servers did not say where {domain} has its XMPP server: {failure}")
        if direct.records or starttls.records:
            # The target "." of either says that the domain knows SRV: no fallback (RFC 6120, 3.2.1; XEP-0368, 5).
            raise NotFound(f"{domain} has no XMPP server")
        fallback = Target(name, PORT, is_direct_tls=False, is_secure=is_secure)
        await self.addresses(fallback)
        return [fallback]

    async def services(self, service: str, domain: str) -> list[Srv]:
        """The SRV records of one service, such as "_xmpp-server", as they stand. Raises NotFound, Unresolved."""
        try:
            name = to_ascii(domain)
        except ValueError as problem:
            raise NotFound(str(problem)) from problem
        found = await self._ask(f"{service}._tcp.{name}", dns.rdatatype.SRV)
        if found.failure:
            raise Unresolved(f"the name servers did not give the {service} records of {domain}: {found.failure}")
        return _services(found)

    async def addresses(self, target: Target) -> list[Address]:
        """The IP addresses of a target, IPv6 and IPv4 in turns (RFC 8305, 4). Raises NotFound, Unresolved."""
        if (address := ip_literal(target.host)) is not None:
            return [address]
        six, four = await asyncio.gather(
            self._ask(target.host, dns.rdatatype.AAAA), self._ask(target.host, dns.rdatatype.A)
        )
        families = [
            [record.address for record in six.records if isinstance(record, dns.rdtypes.IN.AAAA.AAAA)],
            [record.address for record in four.records if isinstance(record, dns.rdtypes.IN.A.A)],
        ]
        if not any(families):
            if failure := six.failure or four.failure:
                raise Unresolved(f"the name servers did not give an address of {target.host}: {failure}")
            if target.host == "localhost" or target.host.endswith(".localhost"):
                return ["::1", "127.0.0.1"]  # RFC 6761, 6.3
            raise NotFound(f"{target.host} does not exist, or has no address")
        return _in_turns(*(self._dice.sample(family, len(family))[:MOST_ADDRESSES] for family in families))

    async def tlsa(self, target: Target) -> list[Tlsa]:
        """What DNSSEC says of the certificate of a target (RFC 7673, 3); nothing unless all the way to it is secure.

        Raises Unresolved where the answer may have been held back: the target is then not to be used (RFC 7672, 2.1.1).
        """
        if not self._dane or not target.is_secure or ip_literal(target.host) is not None:
            return []
        six, four = await asyncio.gather(
            self._ask(target.host, dns.rdatatype.AAAA), self._ask(target.host, dns.rdatatype.A)
        )
        if not (six.is_secure and four.is_secure):
            return []
        found = await self._ask(f"_{target.port}._tcp.{target.host}", dns.rdatatype.TLSA)
        if found.failure:
            raise Unresolved(f"the name servers did not give the TLSA records of {target.host}: {found.failure}")
        if not found.is_secure:
            return []
        return [
            Tlsa(record.usage, record.selector, record.mtype, bytes(record.cert))
            for record in found.records
            if isinstance(record, dns.rdtypes.ANY.TLSA.TLSA)
        ]

    def forget(self) -> None:
        """Ask anew from now on: an operator has changed something."""
        self._lookups.forget()

    async def close(self) -> None:
        """Give up the questions that are out; who waits for an answer is cancelled."""
        await self._lookups.close()

    async def _ask(self, name: str, rdtype: dns.rdatatype.RdataType) -> _Found:
        return await self._lookups.get((name, rdtype), lambda: self._query(name, rdtype))

    async def _query(self, name: str, rdtype: dns.rdatatype.RdataType) -> tuple[_Found, float]:
        """What DNS says, and for how many seconds that holds."""
        try:
            absolute = dns.name.from_text(name)
        except dns.exception.DNSException:  # a label of more than 63 bytes, a name of more than 255
            return _Found(), MISSING_S
        try:
            answer = await self._resolver.resolve(absolute, rdtype, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN as problem:
            response: dns.message.Message = problem.response(absolute)  # type: ignore[no-untyped-call]
            return _Found(is_secure=self._is_secure(response)), _missing_s(response)
        except (dns.exception.DNSException, OSError) as problem:
            return _Found(failure=_reason(problem)), FAILED_S
        is_secure = self._is_secure(answer.response)
        if answer.rrset is None:
            return _Found(is_secure=is_secure), _missing_s(answer.response)
        return _Found(tuple(answer.rrset), is_secure), min(float(answer.chaining_result.minimum_ttl), KEPT_S)

    def _is_secure(self, response: dns.message.Message) -> bool:
        return self._dane and bool(response.flags & dns.flags.AD)


def _services(found: _Found) -> list[Srv]:
    return [
        Srv(record.priority, record.weight, record.port, record.target.to_text(omit_final_dot=True).lower().strip("."))
        for record in found.records
        if isinstance(record, dns.rdtypes.IN.SRV.SRV)
    ]


def _missing_s(response: dns.message.Message) -> float:
    """How long "there is none" holds: the lesser of the SOA's own TTL and its minimum (RFC 2308, 5), and our bound."""
    for rrset in response.authority:
        for record in rrset:
            if isinstance(record, dns.rdtypes.ANY.SOA.SOA):
                return min(float(rrset.ttl), float(record.minimum), MISSING_S)
    return FAILED_S  # without an SOA it is not to be kept (RFC 2308, 5); but neither is it to be asked at once


def _reason(problem: Exception) -> str:
    if isinstance(problem, dns.exception.Timeout):
        return "no answer in time"
    if isinstance(problem, dns.resolver.NoNameservers):
        said = {str(error[3]) for error in problem.kwargs.get("errors", ())}  # an error, or the name of the RCODE
        return ", ".join(sorted(said)) or "none of them answers"
    return str(problem) or type(problem).__name__


def _in_turns(first: Sequence[Address], second: Sequence[Address]) -> list[Address]:
    both = [address for pair in zip(first, second, strict=False) for address in pair]
    shorter = min(len(first), len(second))
    return both + list(first[shorter:]) + list(second[shorter:])
