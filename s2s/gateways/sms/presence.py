"""Presence (XEP-0100, 4.4 to 4.7): logging in and out, and the presence of the gateway and of numbers.

A phone has no presence: a number is there while its user is logged in. What is subscribed to is accepted at once.
"""

from __future__ import annotations

from s2s.gateways.sms import numbers
from s2s.gateways.sms.book import Book
from s2s.gateways.sms.settings import SmsSettings
from xmpp import errors
from xmpp import stanza as stanzas
from xmpp.jid import JID
from xmpp.stanza import Stanza
from xmpp.xml import element


def handle(book: Book, settings: SmsSettings, stanza: Stanza, user: JID, to: JID, is_up: bool) -> list[Stanza]:
    """What a presence from `user` to the gateway or a number is answered with; raises StanzaError.

    `is_up`: there is a link to the SMSC.
    """
    if stanza.type in ("error", "subscribed", "unsubscribed"):
        return []
    if to.local and not numbers.is_number(to.local):
        raise errors.ItemNotFound("That is no phone number: write +491701234567.")
    here = to.bare
    is_registered = book.is_registered(user.bare)
    if stanza.type == "probe" and not is_registered:
        return [stanzas.presence(to=user.bare, from_=here, type="unsubscribed")]  # RFC 6121, 4.3.2
    if stanza.type in ("unsubscribe", "unavailable"):
        return _leave(book, settings, stanza.type, user, to)
    if not is_registered:
        raise errors.RegistrationRequired("Register with the gateway first.")
    if stanza.type == "subscribe":
        if to.local:
            book.add_contact(user.bare, to.local)
        accepted = stanzas.presence(to=user.bare, from_=here, type="subscribed")
        return [accepted, available(settings, here, user.bare, is_up)]
    if stanza.type == "probe":
        return [available(settings, here, str(user), is_up)]
    if stanza.type is not None:
        raise errors.BadRequest("Presence has no such type.")
    if not book.log_in(user.bare, user.resource):
        return []
    gateway = settings.component.jid
    addresses = [gateway, *(f"{number}@{gateway}" for number in book.contacts(user.bare))]
    return [available(settings, address, str(user), is_up) for address in addresses]


def _leave(book: Book, settings: SmsSettings, type: str, user: JID, to: JID) -> list[Stanza]:
    if type == "unsubscribe":
        if to.local:
            book.remove_contact(user.bare, to.local)
        return [stanzas.presence(to=user.bare, from_=to.bare, type=type_) for type_ in ("unsubscribed", "unavailable")]
    if to.local or not book.log_out(user.bare, user.resource):
        return []  # the phone cannot be told
    gateway = settings.component.jid
    addresses = [gateway, *(f"{number}@{gateway}" for number in book.contacts(user.bare))]
    return [stanzas.presence(to=str(user), from_=address, type="unavailable") for address in addresses]


def available(settings: SmsSettings, from_: str, to: str, is_up: bool) -> Stanza:
    """The gateway's or a number's presence; without a link to the SMSC, the gateway says so."""
    inner = b""
    if not is_up and from_ == settings.component.jid:
        inner = element("show", None, None, "xa") + element("status", None, None, "No link to the SMS network")
    return stanzas.presence(to=to, from_=from_, inner=inner)


def started(book: Book, settings: SmsSettings, is_up: bool) -> list[Stanza]:
    """The stream to the server is new: tell all who are registered, and ask who is there (XEP-0100, 8, rule 6)."""
    book.log_out_all()
    gateway = settings.component.jid
    told: list[Stanza] = []
    for user in book.registered():
        told.append(available(settings, gateway, user, is_up))
        told.append(stanzas.presence(to=user, from_=gateway, type="probe"))
    return told


def link_changed(book: Book, settings: SmsSettings, is_up: bool) -> list[Stanza]:
    """The link to the SMSC has come or gone: tell who is logged in."""
    return [available(settings, settings.component.jid, device, is_up) for device in book.sessions()]


def stopping(book: Book, settings: SmsSettings) -> list[Stanza]:
    """The gateway ends: it and its numbers are gone (XEP-0100, 8, rule 6)."""
    gateway = settings.component.jid
    return [
        stanzas.presence(to=user, from_=address, type="unavailable")
        for user in book.registered()
        for address in [gateway, *(f"{number}@{gateway}" for number in book.contacts(user))]
    ]
