"""User search (XEP-0055): who has an account at the asker's domain, by name. Off unless the operator wants it."""

from __future__ import annotations

from functools import partial
from html import unescape
from typing import Final

from router.feature import At, Feature
from router.turn import Turn
from storage import search
from storage.search import Found
from xmpp import forms, ns
from xmpp.errors import BadRequest, ServiceUnavailable
from xmpp.forms import Field
from xmpp.jid import domain_of
from xmpp.stanza import Stanza
from xmpp.xml import child_texts, element

feature = Feature("search", xep=((55, "1.3"),))

LONGEST: Final = 200  # characters of what is looked for
# Fields of the form, and what they are called where there is none (2.1).
_NAMES: Final = {"user": "user", "first": "first", "nick": "nick", "email": "email"}
_LABELS: Final = {"user": "User name", "first": "Name", "nick": "Nickname", "email": "Address for mail"}


def _check(turn: Turn, iq: Stanza) -> None:
    if not turn.settings.search_enabled or turn.session is None or iq.to != domain_of(turn.entity.bare):
        raise ServiceUnavailable


@feature.on_iq("get", ns.SEARCH, "query", at=At.SERVER)
def tell_fields(turn: Turn, iq: Stanza) -> None:
    """2.1: what one may look for."""
    _check(turn, iq)
    text = "Fill in what you know; parts of names will do."
    old = (element(name) for name in _NAMES.values())
    form = forms.to_fill_in(ns.SEARCH, [Field(name, "text-single", (), label) for name, label in _LABELS.items()])
    turn.answer(iq, element("query", ns.SEARCH, None, element("instructions", None, None, text), *old, form))


@feature.on_iq("set", ns.SEARCH, "query", at=At.SERVER)
def look(turn: Turn, iq: Stanza) -> None:
    """2.1: those who have all of it; nothing at all is not looked for."""
    _check(turn, iq)
    query = iq.child(ns.SEARCH, "query")
    assert query is not None
    x = forms.find(query)
    if x is not None:
        given = {var: values[0] for var, values in forms.parse_submit(x).fields if values}
    else:
        given = child_texts(query, ns.SEARCH)
    wanted = [given.get(name, "").strip() for name in _NAMES]
    if not any(wanted) or max(map(len, wanted)) > LONGEST:
        raise BadRequest("Say whom to look for.")
    turn.fetch(search.people, partial(_found, iq, x is not None), domain_of(turn.entity.bare), *wanted)


def _found(iq: Stanza, with_form: bool, turn: Turn, people: list[Found]) -> None:
    if with_form:
        rows = [(one.jid, *map(unescape, (one.name, one.nick, one.email))) for one in people]
        inner = forms.to_table(ns.SEARCH, ("jid", "first", "nick", "email"), rows)
    else:
        inner = b"".join(
            element(
                "item", None, {"jid": one.jid}, element("first", None, None, unescape(one.name)),
                element("nick", None, None, unescape(one.nick)), element("email", None, None, unescape(one.email)),
            )
            for one in people
        )  # fmt: skip
    turn.answer(iq, element("query", ns.SEARCH, None, inner))
