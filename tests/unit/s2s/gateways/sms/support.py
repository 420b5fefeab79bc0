"""A book in memory and what the tests of its users share."""

from __future__ import annotations

import sqlite3

from cluster.config import load
from s2s.gateways.sms import desk, incoming, outgoing
from s2s.gateways.sms.book import Book
from s2s.gateways.sms.pdu import Address, ShortMessage
from s2s.gateways.sms.settings import SmsSettings
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.stanza import Stanza
from xmpp.stream import Limits, StreamParser

JULIET = "juliet@example.org"
ROMEO = "romeo@example.org"
NURSE = "+491701234567"
SENDER = "+4915550000"
GATEWAY = "sms.example.org"

NEEDED = (
    f"component.jid={GATEWAY}", "component.secret=s", "smpp.host=smsc", "smpp.system_id=esme",
    f"numbers.sender={SENDER}", "store.file=/nonexistent/sms.sqlite",
)  # fmt: skip


def settings(*overrides: str) -> SmsSettings:
    return load(None, [*NEEDED, *overrides], {}, SmsSettings)


def parsed(xml: str) -> Stanza:
    """A stanza as the server sends it."""
    parser = StreamParser(ns.COMPONENT, Limits())
    header = f"<stream:stream xmlns='{ns.COMPONENT}' xmlns:stream='{ns.STREAMS}' id='x'>"
    parser.push(header.encode() + xml.encode())
    parser.next_event()
    (stanza,) = parser.flow()
    assert isinstance(stanza, Stanza)
    return stanza


class World:
    """A gateway's decisions without its connections."""

    def __init__(self, *overrides: str) -> None:
        self.settings = settings(*overrides)
        self.book = Book(sqlite3.connect(":memory:", isolation_level=None))
        self.book.prepare()
        self.now = 1_000_000.0
        self.is_up = True

    def says(self, xml: str) -> list[str]:
        """What the gateway answers to this stanza."""
        answers = desk.handle(self.book, self.settings, parsed(xml), self.is_up, self.now)
        return [stanzas.encode(answer).decode() for answer in answers]

    def register(self, user: str = JULIET, phone: str = "") -> list[str]:
        field = f"<phone>{phone}</phone>" if phone else ""
        return self.says(
            f"<iq type='set' id='r' from='{user}/x' to='{GATEWAY}'><query xmlns='jabber:iq:register'>{field}</query></iq>"
        )

    def writes(
        self, body: str, *, number: str = NURSE, user: str = JULIET, id: str = "m1", inner: str = ""
    ) -> list[str]:
        return self.says(
            f"<message type='chat' id='{id}' from='{user}/x' to='{number}@{GATEWAY}'><body>{body}</body>"
            f"<request xmlns='urn:xmpp:receipts'/>{inner}</message>"
        )

    def due(self) -> list[outgoing.Job]:
        return outgoing.due(self.book, self.now, 1_000)

    def answered(self, part: int, status: int = 0, smsc_id: str = "") -> str:
        return outgoing.answered(self.book, self.settings, part, status, smsc_id, self.now)

    def receives(self, content: bytes, session: int = 1, **fields: object) -> int:
        """A deliver_sm from the nurse's phone; returns the status that answers it."""
        return incoming.received(self.book, self.settings, delivered(content, **fields), session, self.now)

    def reports(self, smsc_id: str, stat: str = "DELIVRD", source: str = NURSE) -> int:
        text = f"id:{smsc_id} sub:001 dlvrd:001 submit date:2601010101 done date:2601010101 stat:{stat} err:000 text:x"
        return self.receives(text.encode(), esm_class=4, source=Address(1, 1, source[1:]))

    def told(self) -> list[str]:
        """What waits for the XMPP server; taken away."""
        waiting = self.book.waiting_stanzas(1_000)
        if waiting:
            self.book.remove_stanzas(waiting[-1].id)
        return [stanzas.encode(each.stanza).decode() for each in waiting]


def delivered(content: bytes, **fields: object) -> ShortMessage:
    message = ShortMessage(Address(1, 1, NURSE[1:]), Address(1, 1, SENDER[1:]), 0, 0, content)
    return message._replace(**fields)  # type: ignore[arg-type]
