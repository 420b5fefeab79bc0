"""From users to phones: what becomes of a message, of the SMSC's answer to each part, and of its delivery reports.

A message is safe once it is in the book. It stays there until the SMSC has all of its parts and has reported on each,
or refuses it, or time is over; then the sender is told (XEP-0184, or an error).
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from s2s.gateways.sms import metrics, numbers, parts, reports, status
from s2s.gateways.sms.book import Book, Message
from s2s.gateways.sms.pdu import ShortMessage
from s2s.gateways.sms.reports import Report
from s2s.gateways.sms.settings import SmsSettings
from xmpp import errors, ns
from xmpp import stanza as stanzas
from xmpp.errors import StanzaError
from xmpp.jid import JID
from xmpp.stanza import Stanza
from xmpp.xml import element, text_of

TRIES: Final = 4
FIRST_RETRY_S: Final = 5.0
EARLY_S: Final = 600.0  # how long a report may be ahead of the answer to its submit
REPORT_WANTED: Final = 1  # registered_delivery (SMPP 3.4, 5.2.17): success and failure

Result = Literal["accepted", "throttled", "postponed", "refused"]


class Job(NamedTuple):
    """A part to submit."""

    part: int
    message: ShortMessage


def take(book: Book, settings: SmsSettings, stanza: Stanza, sender: JID, number: str, now: float) -> None:
    """A message stanza from a user to a number; raises StanzaError. `now` is Unix time, here and below."""
    if stanza.type == "error":
        return  # of a message or receipt of ours: the user is not there any more
    if stanza.type == "groupchat":
        raise errors.ServiceUnavailable("There are no groups here.")
    body = text_of(stanza.child(ns.CLIENT, "body"))
    if not body:
        return  # typing, receipts, markers: nothing that a phone could show
    if not numbers.is_number(number):
        raise errors.ItemNotFound("That is no phone number: write +491701234567.")
    if not book.is_registered(sender.bare):
        raise errors.RegistrationRequired("Register with the gateway first.")
    try:
        encoded = parts.encode(body, book.next_reference())
        count = len(encoded.parts)
    except ValueError:
        count = parts.MOST_PARTS + 1
    if count > settings.outgoing.parts:
        raise errors.PolicyViolation(f"The text is too long: more than {settings.outgoing.parts} short messages.")
    for waiting, most in (
        (book.waiting_parts(sender.bare), settings.outgoing.queue_per_user),
        (book.waiting_parts(), settings.outgoing.queue),
    ):
        if waiting + count > most:
            raise errors.ResourceConstraint("Too many messages wait already.")
    ours = sender_number(book, settings, sender.bare)
    book.add_message(
        sender=str(sender),
        user=sender.bare,
        stanza_id=stanza.id,
        type=stanza.type,
        number=number,
        ours=ours,
        wants_receipt=bool(stanza.id and stanza.flags & stanzas.HAS_RECEIPT_REQUEST),
        encoded=encoded,
        at=now,
    )
    book.wrote(sender.bare, number, ours)
    metrics.messages_out.labels("taken").inc()


def sender_number(book: Book, settings: SmsSettings, user: str) -> str:
    """What the user's messages come from: a number of the user's own, else the shared one."""
    for number, owner in settings.numbers.assigned.items():
        if owner == user:
            return number
    return book.number_of(user) or settings.numbers.sender


def due(book: Book, now: float, limit: int) -> list[Job]:
    """What to submit next, in order."""
    return [
        Job(
            part.id,
            ShortMessage(
                source=numbers.to_smpp(part.ours),
                destination=numbers.to_smpp(part.number),
                esm_class=part.esm_class,
                data_coding=part.data_coding,
                content=part.content,
                registered_delivery=REPORT_WANTED,
            ),
        )
        for part in book.due_parts(now, limit)
    ]


def answered(book: Book, settings: SmsSettings, part: int, answer: int, smsc_id: str, now: float) -> Result:
    """The SMSC has answered the submit of a part: with this status, and with its id if that is 0."""
    message = book.message_of(part)
    if message is None:
        return "refused" if answer else "accepted"  # given up meanwhile
    if answer == status.OK:
        book.accepted(part, smsc_id or None)
        early = book.take_early_report(reports.ids_to_try(smsc_id), message.number) if smsc_id else None
        if early is not None:
            _report(book, settings, part, early, now)
        return "accepted"
    action = status.meaning(answer).action
    book.refused(part, answer)
    if action == "slow":
        return "throttled"
    if action == "retry" and (tries := book.count_try(part)) < TRIES:
        book.postpone(part, now + FIRST_RETRY_S * 2.0 ** (tries - 1))
        return "postponed"
    _bounce(book, settings, message, status.refused(answer), now)
    return "refused"


def unsendable(book: Book, settings: SmsSettings, part: int, reason: str, now: float) -> None:
    """The part does not fit a submit_sm: a setting has a value that SMPP cannot carry."""
    message = book.message_of(part)
    if message is not None:
        _bounce(book, settings, message, errors.InternalServerError(f"The message cannot be sent: {reason}."), now)


def reported(book: Book, settings: SmsSettings, report: Report, number: str, now: float) -> None:
    """A delivery report from this number."""
    first, *others = reports.ids_to_try(report.message_id)
    part = book.part_called(first, None)
    for other in others:
        # A converted id may be another message's: the number has to fit, too.
        part = part if part is not None else book.part_called(other, number)
    if part is not None:
        _report(book, settings, part, report, now)
    elif report.state not in reports.UNFINISHED:
        book.add_early_report(report, number, now)


def expire(book: Book, settings: SmsSettings, now: float) -> int:
    """Give up what has waited too long for the SMSC, and forget what waits for a report; returns how many bounced."""
    given_up = book.given_up(now - settings.outgoing.give_up_s)
    for message in given_up:
        fault: StanzaError = errors.RemoteServerTimeout("The SMS network could not be reached.")
        if message.last_status and status.meaning(message.last_status).action == "slow":
            fault = errors.ResourceConstraint("The SMS network is too busy.")
        _bounce(book, settings, message, fault, now)
    book.remove_unreported(now - settings.outgoing.report_s)
    book.remove_early_reports(now - EARLY_S)
    return len(given_up)


def _report(book: Book, settings: SmsSettings, part: int, report: Report, now: float) -> None:
    message = book.message_of(part)
    if message is None or report.state in reports.UNFINISHED:
        return
    if report.state != "delivered":
        _bounce(book, settings, message, status.undelivered(report), now)
        return
    book.delivered(part)
    if book.undelivered_parts(message.id):
        return
    metrics.messages_out.labels("delivered").inc()
    if message.wants_receipt:
        received = element("received", ns.RECEIPTS, {"id": message.stanza_id})
        book.add_stanza(
            stanzas.message(
                to=message.sender,
                from_=numbers.to_jid(message.number, settings.component.jid),
                type=message.type,
                inner=received,
            ),
            now,
        )
    book.remove_message(message.id)


def _bounce(book: Book, settings: SmsSettings, message: Message, fault: StanzaError, now: float) -> None:
    """Tell the sender, and expect nothing more of the message."""
    metrics.messages_out.labels("bounced").inc()
    book.add_stanza(
        stanzas.message(
            to=message.sender,
            from_=numbers.to_jid(message.number, settings.component.jid),
            type="error",
            id=message.stanza_id,
            inner=fault.to_bytes(),
        ),
        now,
    )
    book.remove_message(message.id)
