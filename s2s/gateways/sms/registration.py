"""Registration with the gateway (XEP-0100, 4.1 to 4.3, by XEP-0077): who may write to phones, and from which number.

If there is a pool of numbers, the one field, `phone`, is the number that the user's messages come from.
"""

from __future__ import annotations

from lxml import etree

from s2s.gateways.sms import numbers
from s2s.gateways.sms.book import Book
from s2s.gateways.sms.settings import SmsSettings
from xmpp import errors, forms, ns
from xmpp import stanza as stanzas
from xmpp.jid import JID
from xmpp.stanza import Stanza
from xmpp.xml import child_texts, element

_QUERY = f"{{{ns.REGISTER}}}query"


def query(book: Book, settings: SmsSettings, iq: Stanza, user: JID) -> list[Stanza]:
    """Get: what there is to fill in, and what is on record."""
    _check_allowed(settings, user)
    is_registered = book.is_registered(user.bare)
    number = book.number_of(user.bare) or ""
    children = [element("registered")] if is_registered else []
    text = "Register to write to phones and to get their answers."
    if settings.numbers.pool:
        text += " Messages come from the number that you choose; leave the field empty to be given one."
        form = forms.to_fill_in(ns.REGISTER, [forms.Field("phone", values=(number,) if number else (), label="Number")])
        children += [element("instructions", None, None, text), element("phone", None, None, number), form]
    else:
        children.append(element("instructions", None, None, text))
    return [stanzas.result(iq, element("query", ns.REGISTER, None, *children))]


def submit(book: Book, settings: SmsSettings, iq: Stanza, user: JID) -> list[Stanza]:
    """Set: register, change or remove a registration."""
    request = iq.child(ns.REGISTER, "query")
    assert request is not None
    if request.find(f"{{{ns.REGISTER}}}remove") is not None:
        return _remove(book, settings, iq, user)
    _check_allowed(settings, user)
    was_registered = book.is_registered(user.bare)
    book.register(user.bare, _choose(book, settings, user, _wanted(request)))
    answer = [stanzas.result(iq)]
    if not was_registered:
        gateway = settings.component.jid
        answer.append(stanzas.presence(to=user.bare, from_=gateway, type="subscribe"))
    return answer


def _wanted(request: etree._Element) -> str:
    form = forms.find(request)
    if form is not None:
        values = dict(forms.parse_submit(form).fields).get("phone", ())
        return values[0].strip() if values else ""
    return child_texts(request, ns.REGISTER).get("phone", "").strip()


def _choose(book: Book, settings: SmsSettings, user: JID, wanted: str) -> str | None:
    """The number of the pool that the user gets, None where there is no pool or the user has an assigned number."""
    pool = settings.numbers.pool
    if not pool or user.bare in settings.numbers.assigned.values():
        return None
    own, taken = book.number_of(user.bare), book.taken()
    if wanted:
        number = numbers.normalise(wanted, settings.numbers.country)
        if number not in pool:
            raise errors.NotAcceptable("That number is not one of those that can be chosen.")
        if number in taken and number != own:
            raise errors.Conflict("Somebody else has that number.")
        return number
    if own in pool:
        return own
    free = next((number for number in pool if number not in taken), None)
    if free is None:
        raise errors.ResourceConstraint("No number is free.")
    return free


def _remove(book: Book, settings: SmsSettings, iq: Stanza, user: JID) -> list[Stanza]:
    if not book.is_registered(user.bare):
        raise errors.RegistrationRequired("There is no registration.")
    gateway = settings.component.jid
    addresses = [gateway, *(f"{number}@{gateway}" for number in book.contacts(user.bare))]
    book.unregister(user.bare)
    goodbyes = [
        stanzas.presence(to=user.bare, from_=address, type=type_)
        for address in addresses
        for type_ in ("unsubscribe", "unsubscribed", "unavailable")
    ]
    return [stanzas.result(iq), *goodbyes]


def _check_allowed(settings: SmsSettings, user: JID) -> None:
    if user.bare not in settings.allowed and user.domain not in settings.allowed:
        raise errors.NotAllowed("This gateway is not for your server.")
