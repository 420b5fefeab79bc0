"""Search for rooms (XEP-0433): the form, and what is found by it."""

from __future__ import annotations

from typing import Final

from router.feature import At, Feature
from router.turn import Turn
from storage import rooms
from storage.rooms import FoundRoom, Search
from xmpp import forms, ns, rsm
from xmpp.disco import Form
from xmpp.errors import BadRequest, FeatureNotImplemented
from xmpp.forms import Field
from xmpp.stanza import Stanza
from xmpp.xml import element

feature = Feature("channel_search", xep=((433, "0.1.0"),))

SEARCHED: Final = 100  # rooms in one answer
TERM: Final = 200  # characters
_BY_USERS: Final = f"{{{ns.CHANNEL_SEARCH_ORDER}}}nusers"
_BY_ADDRESS: Final = f"{{{ns.CHANNEL_SEARCH_ORDER}}}address"
_MUC: Final = "xep-0045"
_OPEN: Final = "{urn:xmpp:channel-search:0:anonymity}none"


@feature.on_iq("get", ns.CHANNEL_SEARCH, "search", at=At.ROOMS)
def search(turn: Turn, iq: Stanza) -> None:
    """4.2: the form, or what is found by it."""
    node = iq.child(ns.CHANNEL_SEARCH, "search")
    assert node is not None
    assert iq.to is not None
    x = forms.find(node)
    if x is None:
        turn.answer(iq, element("search", ns.CHANNEL_SEARCH, None, _search_form()))
        return
    wanted, is_empty = _wanted(forms.parse_submit(x), iq.to)
    page = rsm.parse(node)
    most = SEARCHED if page.max is None else min(page.max, SEARCHED)
    wanted = wanted._replace(after=page.after or "", limit=most + 1)

    def found(later: Turn, rows: list[FoundRoom]) -> None:
        shown = rows[:most]
        set_ = b""
        if shown and (wanted.after or len(rows) > most):
            set_ = rsm.build(first=rooms.position(shown[0]), last=rooms.position(shown[-1]))
        later.answer(iq, element("result", ns.CHANNEL_SEARCH, None, *map(_found, shown), set_))

    if is_empty or not most:
        found(turn, [])
    else:
        turn.fetch(rooms.search, found, wanted)


def _search_form() -> bytes:
    def options(*values: str) -> bytes:
        return b"".join(element("option", None, None, element("value", None, None, value)) for value in values)

    fields = (
        Field("q", "text-single", (), "Search for"),
        Field("all", "boolean", ("false",), "All rooms"),
        Field("sinname", "boolean", ("true",), "Search in names"),
        Field("sindescription", "boolean", ("true",), "Search in descriptions"),
        Field("sinaddress", "boolean", ("true",), "Search in addresses"),
        Field("types", "list-multi", (_MUC,), "Kinds of rooms", options(_MUC)),
        Field("key", "list-single", (_BY_USERS,), "Order", options(_BY_USERS, _BY_ADDRESS)),
    )
    return forms.to_fill_in(ns.CHANNEL_SEARCH_PARAMETERS, fields)


def _wanted(form: Form, domain: str) -> tuple[Search, bool]:
    """What a filled in form asks for, and whether nothing can be found by it; raises what 4.2.2 names."""
    if form.form_type != ns.CHANNEL_SEARCH_PARAMETERS:
        raise BadRequest(f"The FORM_TYPE is not '{ns.CHANNEL_SEARCH_PARAMETERS}'.")
    fields = dict(form.fields)
    text = " ".join(fields.get("q", ())).strip()
    is_all = _is_true(fields.get("all"), False)
    if is_all and text:
        raise BadRequest("All rooms, or those that match: not both.", application=_wrong("conflicting-fields"))
    if not is_all and not fields.get("q"):
        raise BadRequest("What to search for is missing.", application=_wrong("no-search-conditions"), type="cancel")
    if not is_all and (not text or len(text) > TERM):
        raise BadRequest(
            f"A search is for 1 to {TERM} characters.", application=_wrong("invalid-search-terms"), type="modify"
        )
    (key, *_) = fields.get("key") or (_BY_USERS,)
    if key not in (_BY_USERS, _BY_ADDRESS):
        raise FeatureNotImplemented("There is no such order.", application=_wrong("invalid-sort-key"), type="modify")
    search = Search(
        domain, "" if is_all else text, _is_true(fields.get("sinname"), True),
        _is_true(fields.get("sindescription"), True), _is_true(fields.get("sinaddress", fields.get("sinaddr")), True),
        key == _BY_USERS,
    )  # fmt: skip
    types = fields.get("types") or (_MUC,)
    return search, _MUC not in types or not (is_all or search.in_name or search.in_description or search.in_address)


def _is_true(values: tuple[str, ...] | None, default: bool) -> bool:
    return default if not values else values[0] in ("1", "true")


def _wrong(name: str) -> bytes:
    return element(name, ns.CHANNEL_SEARCH_ERROR)


def _found(room: FoundRoom) -> bytes:
    """5.2."""
    texts = {
        "name": room.name or room.jid.partition("@")[0], "description": room.description, "language": room.language,
        "nusers": str(room.occupants), "service-type": _MUC, "is-open": "true" if room.is_open else "false",
        "anonymity-mode": _OPEN if room.shows_addresses else "muc_semianonymous",
    }  # fmt: skip
    inside = [element(name, None, None, text) for name, text in texts.items() if text]
    return element("item", None, {"address": room.jid}, *inside)
