"""From phones to users: what a deliver_sm means, whose it is, and whether it was here before.

The answer to the SMSC is the status that `received` returns, sent once the transaction is committed: after it the SMSC
forgets the message.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from s2s.gateways.sms import metrics, numbers, outgoing, parts, reports, status
from s2s.gateways.sms.book import Book
from s2s.gateways.sms.parts import NotText
from s2s.gateways.sms.pdu import ShortMessage
from s2s.gateways.sms.settings import SmsSettings
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.errors import JidError
from xmpp.stanza import Stanza
from xmpp.timestamp import format_moment
from xmpp.xml import element

DELAYED_S: Final = 5.0  # what waited longer for the XMPP server tells since when (XEP-0203)

# XML 1.0, 2.2: what no document may have, and phones can send.
_FORBIDDEN: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def received(book: Book, settings: SmsSettings, message: ShortMessage, session: int, now: float) -> int:
    """What to answer to a deliver_sm that came in this SMPP session (they are numbered upwards); `now` is Unix time."""
    if book.count_stanzas() >= settings.incoming.queue:
        return status.TRY_LATER
    source = numbers.from_smpp(message.source, settings.numbers.country)
    ours = numbers.from_smpp(message.destination, settings.numbers.country)
    if reports.is_report(message):
        report = reports.parse(message)
        if report is not None:
            metrics.reports.labels(report.state).inc()
            outgoing.reported(book, settings, report, source, now)
        return status.OK
    metrics.parts_in.inc()
    try:
        place, content = parts.place_of(message)
        coding = parts.coding_of(message.data_coding)
    except NotText:
        metrics.messages_in.labels("no-text").inc()
        return status.REFUSED
    if recipient(book, settings, source, ours) is None:
        metrics.messages_in.labels("nobody").inc()
        return status.REFUSED
    # SMPP names no message. A part of a long one is known again by its place. Of a short one it can only be said that
    # the same came just before an earlier session broke, so that the SMSC may not have seen the answer.
    fingerprint = sha256(repr((source, ours, place, coding, content)).encode()).digest()
    doubt_s = settings.smpp.enquire_link_s + settings.smpp.timeout_s  # until the end of a dead link is noticed
    is_known = book.was_seen(fingerprint) if place else book.forget_seen(fingerprint, session, doubt_s)
    book.saw(fingerprint, session, now)
    if is_known:
        metrics.messages_in.labels("repeated").inc()
        return status.OK
    if place is None:
        deliver(book, settings, source, ours, parts.decode(coding, content), now)
        metrics.messages_in.labels("delivered").inc()
        return status.OK
    group = book.add_fragment(source, ours, place, coding, content, now)
    fragments = book.fragments(group)
    if len(fragments) == place.total:
        book.remove_fragments(group)
        deliver(book, settings, source, ours, parts.join(place.total, fragments), now)
        metrics.messages_in.labels("delivered").inc()
    return status.OK


def recipient(book: Book, settings: SmsSettings, source: str, ours: str) -> str | None:
    """Whose a message is that a phone has sent to a number of ours: its owner's, else of who last wrote to the phone
    from there, else the default's."""
    return (
        settings.numbers.assigned.get(ours)
        or book.owner_of(ours)
        or book.last_writer(source, ours)
        or settings.numbers.default_jid
        or None
    )


def deliver(book: Book, settings: SmsSettings, source: str, ours: str, text: str, now: float) -> None:
    """Queue a text for its recipient; without one nothing happens."""
    to = recipient(book, settings, source, ours)
    if to is None:
        return
    try:
        sender = numbers.to_jid(source, settings.component.jid)
    except JidError:
        sender, text = settings.component.jid, f"{source}: {text}"  # a name that no JID can have
    body = element("body", None, None, _FORBIDDEN.sub("\ufffd", text.replace("\f", "\n")))
    book.add_stanza(stanzas.message(to=to, from_=sender, type="chat", inner=body), now)


def expire(book: Book, settings: SmsSettings, now: float) -> int:
    """Deliver long messages that lack parts for too long, and forget what cannot be repeated any more; how many."""
    stale = book.stale_groups(now - settings.incoming.join_s)
    for group in stale:
        fragments = book.fragments(group)
        book.remove_fragments(group)
        deliver(book, settings, group.source, group.ours, parts.join(group.total, fragments), now)
        metrics.messages_in.labels("incomplete").inc()
    book.remove_seen(now - settings.incoming.repeat_s)
    return len(stale)


def delayed(message: Stanza, since: float, now: float, component: str) -> Stanza:
    """The message as it is sent now, having waited since then."""
    if now - since < DELAYED_S or message.type == "error":
        return message
    delay = element("delay", ns.DELAY, {"from": component, "stamp": format_moment(since)})
    return message._replace(inner=message.inner + delay)
