"""vCards (XEP-0054, vcard-temp): everybody may read one, its owner alone may write it."""

from __future__ import annotations

from router.feature import At, Feature
from router.features.avatars import from_vcard, into_vcard
from router.turn import Turn
from storage import vcards
from xmpp import ns
from xmpp.errors import Forbidden, NotAcceptable, ServiceUnavailable
from xmpp.jid import bare_of
from xmpp.stanza import Stanza
from xmpp.xml import canonical_element, element

feature = Feature("vcard", xep=((54, "1.3.0"),), server_features=(ns.VCARD,), account_features=(ns.VCARD,))


@feature.on_iq("set", ns.VCARD, "vCard", at=At.OWN)
def put(turn: Turn, iq: Stanza) -> None:
    """Replace one's own vCard."""
    card = iq.child(ns.VCARD, "vCard")
    key = turn.entity.key
    assert card is not None
    assert key is not None
    xml = canonical_element(card, ns.CLIENT)
    if len(xml) > turn.settings.vcard_bytes:
        raise NotAcceptable("The vCard is too large.")

    def before(later: Turn, old: bytes | None) -> None:
        from_vcard(later, card, old)
        later.write(vcards.put, key, xml)
        later.answer(iq)

    turn.fetch_first(vcards.get, before, key)


@feature.on_iq("get", ns.VCARD, "vCard", at=At.OWN)
def own(turn: Turn, iq: Stanza) -> None:
    """XEP-0054, 3.1: who has none gets an empty one."""
    _fetch(turn, iq, is_own=True)


@feature.on_iq("get", ns.VCARD, "vCard", at=At.ACCOUNT)
def of_contact(turn: Turn, iq: Stanza) -> None:
    """XEP-0054, 3.3: answered on the account's behalf; the same error without a vCard as without an account."""
    _fetch(turn, iq, is_own=False)


@feature.on_iq("set", ns.VCARD, "vCard", at=At.ACCOUNT)
def refuse(turn: Turn, iq: Stanza) -> None:
    """XEP-0054, 3.2: another's vCard."""
    raise Forbidden


def _fetch(turn: Turn, iq: Stanza, is_own: bool) -> None:
    def found(later: Turn, xml: bytes | None) -> None:
        into_vcard(later, bare_of(iq.from_ or ""), xml, answer)

    def answer(later: Turn, xml: bytes | None) -> None:
        if xml is None and not is_own:
            raise ServiceUnavailable
        later.answer(iq, xml if xml is not None else element("vCard", ns.VCARD))

    assert turn.entity.key is not None
    turn.fetch(vcards.get, found, turn.entity.key)
