"""The proxy for bytestreams (XEP-0065, 6), as clients of this server ask for it; the connections are at the c2s."""

from __future__ import annotations

from typing import Final

from router.bytestreams import destination
from router.feature import At, Feature
from router.turn import Turn
from xmpp import ns
from xmpp.disco import Identity, Info, info_payload, items_payload
from xmpp.errors import BadRequest, ItemNotFound, JidError, JidMalformed
from xmpp.jid import prepare
from xmpp.stanza import Stanza
from xmpp.xml import element, text_of

feature = Feature("bytestreams", xep=((65, "1.8.2"),))

SID: Final = 200  # characters


@feature.on_iq("get", ns.DISCO_INFO, "query", at=At.PROXY)
def info(turn: Turn, iq: Stanza) -> None:
    """4.2: what it is."""
    _require_no_node(iq, ns.DISCO_INFO)
    identity = Identity("proxy", "bytestreams", "Proxy for files")
    turn.answer(iq, info_payload(Info((identity,), (ns.DISCO_INFO, ns.BYTESTREAMS))))


@feature.on_iq("get", ns.DISCO_ITEMS, "query", at=At.PROXY)
def items(turn: Turn, iq: Stanza) -> None:
    """Nothing belongs to it."""
    _require_no_node(iq, ns.DISCO_ITEMS)
    turn.answer(iq, items_payload(()))


def _require_no_node(iq: Stanza, namespace: str) -> None:
    query = iq.child(namespace, "query")
    if query is not None and query.get("node") is not None:
        raise ItemNotFound


@feature.on_iq("get", ns.BYTESTREAMS, "query", at=At.PROXY)
def tell_address(turn: Turn, iq: Stanza) -> None:
    """4.3."""
    settings = turn.settings
    host = settings.proxy_host or (iq.to or "").partition(".")[2]
    attributes = {"jid": iq.to, "host": host, "port": str(settings.proxy_port)}
    turn.answer(iq, element("query", ns.BYTESTREAMS, None, element("streamhost", None, attributes)))


@feature.on_iq("set", ns.BYTESTREAMS, "query", at=At.PROXY)
def activate(turn: Turn, iq: Stanza) -> None:
    """6.3.5: the destination that both have named knows where they are."""
    query = iq.child(ns.BYTESTREAMS, "query")
    assert query is not None
    sid, wanted = query.get("sid") or "", query.find(f"{{{ns.BYTESTREAMS}}}activate")
    if not sid or len(sid) > SID or wanted is None:
        raise BadRequest("An activation names a stream and a target.")
    try:
        target = prepare(text_of(wanted).strip())
    except JidError as problem:
        raise JidMalformed("The target is no JID.") from problem
    turn.send(iq._replace(to=f"{destination(sid, iq.from_ or '', target)}@{iq.to}"))
