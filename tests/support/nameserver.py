"""A DNS server on loopback, by other hands than the resolver's (dnslib): a zone as text, and what was asked of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from dnslib import QTYPE, RCODE, RR
from dnslib.dns import DNSError
from dnslib.server import BaseResolver, DNSLogger, DNSServer


class Zone(BaseResolver):  # type: ignore[misc]  # dnslib has no types
    """Answers from `text` (a zone file); NXDOMAIN with `soa` for the rest.

    `says` overrides single answers: the name of an rcode, or "silence". `is_secure`: whether answers carry AD.
    """

    def __init__(self, text: str, soa: str = "") -> None:
        self.set(text)
        self.soa = RR.fromZone(soa) if soa else []
        self.says: dict[tuple[str, str], str] = {}
        self.is_secure = False
        self.truncates = False
        self.asked: Counter[tuple[str, str]] = Counter()
        self.hold = threading.Event()
        self.hold.set()

    def set(self, text: str) -> None:
        """Another zone from now on."""
        self.records = RR.fromZone(text) if text else []

    def resolve(self, request, handler):  # type: ignore[no-untyped-def]
        """One answer, in a thread of its own."""
        name, kind = str(request.q.qname).lower(), QTYPE[request.q.qtype]
        self.asked[name.rstrip("."), kind] += 1
        self.hold.wait(10)
        reply = request.reply()
        if self.truncates and handler.protocol == "udp":
            reply.header.tc = 1
            return reply
        said = self.says.get((name.rstrip("."), kind))
        if said == "silence":
            raise DNSError("this question gets no answer")  # dnslib then sends none
        if said is not None:
            reply.header.rcode = getattr(RCODE, said)
            return reply
        self._answer(reply, name, kind)
        reply.header.ad = int(self.is_secure)
        return reply

    def _answer(self, reply, name: str, kind: str) -> None:  # type: ignore[no-untyped-def]
        at_name = [record for record in self.records if str(record.rname).lower() == name]
        for record in at_name:
            if QTYPE[record.rtype] in (kind, "CNAME"):
                reply.add_answer(record)
                if QTYPE[record.rtype] == "CNAME" and kind != "CNAME":
                    self._answer(reply, str(record.rdata.label).lower(), kind)
        if not reply.rr:
            if not at_name:
                reply.header.rcode = RCODE.NXDOMAIN
            for record in self.soa:
                reply.add_auth(record)


@contextmanager
def nameserver(zone: Zone, address: str) -> Iterator[str]:
    """Serve the zone over UDP and TCP on a free port; ADDRESS:PORT."""
    logger = DNSLogger("", logf=lambda line: None)
    udp = DNSServer(zone, address, 0, logger=logger)
    port = udp.server.server_address[1]
    tcp = DNSServer(zone, address, port, tcp=True, logger=logger)
    servers = [server.server for server in (udp, tcp)]
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield f"{address}:{port}"
    finally:
        zone.hold.set()
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()
