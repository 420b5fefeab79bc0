"""A DNS server for tests, in threads: answers from records that may change at any time, and breaks when told to.

There is no DNSSEC. libunbound, and so Prosody, answers for `.test`, `.invalid` and `home.arpa` itself: use `.example`.
"""

from __future__ import annotations

import threading
from typing import Any, Final, Literal, NamedTuple

from dnslib import CLASS, QTYPE, RCODE, RR, DNSRecord
from dnslib.server import DNSHandler, DNSLogger, DNSServer

from tests.support.peers.process import DNS, free_address

Failure = Literal["SERVFAIL", "NXDOMAIN", "REFUSED", "silence"]

UDP_BYTES: Final = 1_232  # what DNS over UDP agreed on in 2020; longer answers are truncated, and asked for by TCP
POLL_S: Final = 0.05  # how soon it sees that it is to end
LONGEST_CHAIN: Final = 8  # of CNAMEs


class Question(NamedTuple):
    """What somebody asked; names are in lower case, without the final dot."""

    name: str
    type: str
    transport: str  # udp or tcp


class _Silence(Exception):
    """No answer."""


class _Handler(DNSHandler):  # type: ignore[misc]  # dnslib brings no types
    udplen = UDP_BYTES

    def handle(self) -> None:
        try:
            super().handle()
        except _Silence:
            if self.protocol == "tcp":  # to return would close the connection, which is an answer of a kind
                self.server.resolver.closed.wait()


class Zone:
    """A DNS server at `host` and `port`, UDP and TCP, authoritative for everything: what it has no record of does not exist.

    Records are the lines of a zone file; names are absolute, with or without a final dot. They live 0 s unless the line
    says otherwise, so a change is seen at once.
    """

    def __init__(self) -> None:
        self.host = free_address()
        self.port = DNS
        self.closed = threading.Event()
        self._lock = threading.Lock()
        self._records: list[RR] = []
        self._failures: dict[str | None, Failure] = {}
        self._questions: list[Question] = []
        logger = DNSLogger("-request,-reply,-truncated,-error")
        self._servers = [
            DNSServer(self, self.host, self.port, tcp=tcp, logger=logger, handler=_Handler) for tcp in (False, True)
        ]
        self._threads = [
            threading.Thread(target=server.server.serve_forever, args=(POLL_S,), daemon=True)
            for server in self._servers
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop answering."""
        self.closed.set()
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.stop()
            thread.join()
            server.server.server_close()

    # --- what it answers

    def add(self, lines: str) -> None:
        """More records: `www.a.example. IN A 127.0.0.1`, one a line."""
        records = RR.fromZone(f"$TTL 0\n{lines}")
        with self._lock:
            self._records += records

    def remove(self, name: str, type: str | None = None) -> None:
        """Forget the records of this name (and type)."""
        with self._lock:
            self._records = [
                record
                for record in self._records
                if _plain(record.rname) != _plain(name) or type not in (None, QTYPE[record.rtype])
            ]

    def fail(self, failure: Failure, name: str | None = None) -> None:
        """From now on, fail so when asked for this name, or for any name."""
        with self._lock:
            self._failures[None if name is None else _plain(name)] = failure

    def mend(self) -> None:
        """Fail no more."""
        with self._lock:
            self._failures.clear()

    def knows(self, name: str) -> bool:
        """Whether there is a record of this name."""
        with self._lock:
            return any(_plain(record.rname) == _plain(name) for record in self._records)

    # --- what it was asked

    @property
    def questions(self) -> list[Question]:
        """All questions so far, in order, also those that were not answered."""
        with self._lock:
            return list(self._questions)

    def asked(self, name: str, type: str) -> int:
        """How often."""
        return sum(question[:2] == (_plain(name), type) for question in self.questions)

    # --- for dnslib

    def resolve(self, request: DNSRecord, handler: Any) -> DNSRecord:
        """The answer; called in a thread for each question."""
        name, type_ = _plain(request.q.qname), QTYPE.get(request.q.qtype, str(request.q.qtype))
        reply = request.reply()
        with self._lock:
            self._questions.append(Question(name, type_, handler.protocol))
            failure = self._failures.get(name, self._failures.get(None))
            if failure == "silence":
                raise _Silence
            if failure is not None:
                reply.header.rcode = getattr(RCODE, failure)
                return reply
            for _ in range(LONGEST_CHAIN):
                known = [
                    record for record in self._records if _plain(record.rname) == name and record.rclass == CLASS.IN
                ]
                if not known:
                    reply.header.rcode = RCODE.NXDOMAIN
                found = [record for record in known if QTYPE[record.rtype] in (type_, "CNAME")]
                for record in found:
                    reply.add_answer(record)
                if type_ == "CNAME" or not found or found[0].rtype != QTYPE.CNAME:
                    break
                name = _plain(found[0].rdata.label)
        return reply


def _plain(name: object) -> str:
    return str(name).rstrip(".").lower()
