"""What the gateway answers to a stanza: looks at it, and asks the module that knows. No I/O but the book's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cluster.metrics import software_version
from s2s.gateways.sms import numbers, outgoing, presence, registration
from s2s.gateways.sms.book import Book
from s2s.gateways.sms.settings import SmsSettings
from xmpp import disco, errors, ns
from xmpp import stanza as stanzas
from xmpp.disco import Identity, Info
from xmpp.errors import JidError, StanzaError
from xmpp.jid import JID
from xmpp.stanza import Stanza
from xmpp.xml import element, text_of

OF_GATEWAY: Final = (ns.DISCO_INFO, ns.DISCO_ITEMS, ns.GATEWAY, ns.PING, ns.REGISTER, ns.VERSION)
OF_NUMBER: Final = (ns.DISCO_INFO, ns.DISCO_ITEMS, ns.PING, ns.RECEIPTS)


def handle(book: Book, settings: SmsSettings, stanza: Stanza, is_up: bool, now: float) -> list[Stanza]:
    """What is sent in answer. Errors are raised by whoever finds them, and written here. `is_up`: there is a link to
    the SMSC; `now` is Unix time."""
    try:
        user = JID.parse(stanza.from_ or "")
    except JidError:
        return []  # the server guarantees it: nobody to answer
    try:
        to = JID.parse(stanza.to or "")
        if stanza.kind == stanzas.MESSAGE:
            if not to.local:
                return _to_gateway(stanza)
            outgoing.take(book, settings, stanza, user, to.local, now)
            return []
        if stanza.kind == stanzas.PRESENCE:
            return presence.handle(book, settings, stanza, user, to, is_up)
        return _iq(book, settings, stanza, user, to)
    except StanzaError as fault:
        return [stanzas.error(stanza, fault)] if stanzas.is_answerable(stanza) else []
    except JidError as fault:
        malformed = errors.JidMalformed(str(fault))
        return [stanzas.error(stanza, malformed)] if stanzas.is_answerable(stanza) else []


def _to_gateway(stanza: Stanza) -> list[Stanza]:
    """Messages are for numbers; what has no body says nothing."""
    if stanza.type == "error" or not stanza.flags & stanzas.HAS_BODY:
        return []
    raise errors.ServiceUnavailable("Write to a number, as in +491701234567@ and my name.")


def _iq(book: Book, settings: SmsSettings, iq: Stanza, user: JID, to: JID) -> list[Stanza]:
    if iq.type not in ("get", "set"):
        return []
    if to.local and not numbers.is_number(to.local):
        raise errors.ItemNotFound("That is no phone number: write +491701234567.")
    handler = (_OF_NUMBER if to.local else _OF_GATEWAY).get((iq.type, iq.payload))
    if handler is None:
        raise errors.ServiceUnavailable()
    return handler(book, settings, iq, user)


def _gateway_info(book: Book, settings: SmsSettings, iq: Stanza, user: JID) -> list[Stanza]:
    _check_node(iq, ns.DISCO_INFO)
    identity = Identity("gateway", "sms", settings.component.name)
    return [stanzas.result(iq, disco.info_payload(Info((identity,), OF_GATEWAY)))]


def _number_info(book: Book, settings: SmsSettings, iq: Stanza, user: JID) -> list[Stanza]:
    _check_node(iq, ns.DISCO_INFO)
    return [stanzas.result(iq, disco.info_payload(Info((Identity("client", "sms"),), OF_NUMBER)))]


def _gateway_items(book: Book, settings: SmsSettings, iq: Stanza, user: JID) -> list[Stanza]:
    """The numbers that the user has in the roster."""
    _check_node(iq, ns.DISCO_ITEMS)
    domain = settings.component.jid
    items = tuple((f"{number}@{domain}", number) for number in book.contacts(user.bare))
    return [stanzas.result(iq, disco.items_payload(items))]


def _number_items(book: Book, settings: SmsSettings, iq: Stanza, user: JID) -> list[Stanza]:
    _check_node(iq, ns.DISCO_ITEMS)
    return [stanzas.result(iq, disco.items_payload(()))]


def _check_node(iq: Stanza, namespace: str) -> None:
    request = iq.child(namespace, "query")
    if request is not None and request.get("node"):
        raise errors.ItemNotFound("There is no such node.")


def _ping(book: Book, settings: SmsSettings, iq: Stanza, user: JID) -> list[Stanza]:
    return [stanzas.result(iq)]


def _version(book: Book, settings: SmsSettings, iq: Stanza, user: JID) -> list[Stanza]:
    name = element("name", None, None, "Stentor SMS gateway")
    version = element("version", None, None, software_version())
    return [stanzas.result(iq, element("query", ns.VERSION, None, name, version))]


def _prompt(book: Book, settings: SmsSettings, iq: Stanza, user: JID) -> list[Stanza]:
    """XEP-0100, 6.3: what to ask a person who wants to add a contact."""
    text = "The phone number of the person whom you want to write to, with its country code: +491701234567"
    children = element("desc", None, None, text), element("prompt", None, None, "Phone number")
    return [stanzas.result(iq, element("query", ns.GATEWAY, None, *children))]


def _address(book: Book, settings: SmsSettings, iq: Stanza, user: JID) -> list[Stanza]:
    """XEP-0100, 6.3: the JID of what a person typed."""
    request = iq.child(ns.GATEWAY, "query")
    typed = text_of(request.find(f"{{{ns.GATEWAY}}}prompt")) if request is not None else ""
    number = numbers.normalise(typed, settings.numbers.country)
    if number is None:
        raise errors.NotAcceptable("That is no phone number: write +491701234567.")
    jid = element("jid", None, None, numbers.to_jid(number, settings.component.jid))
    return [stanzas.result(iq, element("query", ns.GATEWAY, None, jid))]


Handler = Callable[[Book, SmsSettings, Stanza, JID], list[Stanza]]

_OF_GATEWAY: Final[dict[tuple[str, str | None], Handler]] = {
    ("get", f"{ns.DISCO_INFO} query"): _gateway_info,
    ("get", f"{ns.DISCO_ITEMS} query"): _gateway_items,
    ("get", f"{ns.PING} ping"): _ping,
    ("get", f"{ns.VERSION} query"): _version,
    ("get", f"{ns.REGISTER} query"): registration.query,
    ("set", f"{ns.REGISTER} query"): registration.submit,
    ("get", f"{ns.GATEWAY} query"): _prompt,
    ("set", f"{ns.GATEWAY} query"): _address,
}
_OF_NUMBER: Final[dict[tuple[str, str | None], Handler]] = {
    ("get", f"{ns.DISCO_INFO} query"): _number_info,
    ("get", f"{ns.DISCO_ITEMS} query"): _number_items,
    ("get", f"{ns.PING} ping"): _ping,
}
