"""Service discovery (XEP-0030) of the domain and of accounts; the server's entity capabilities (XEP-0115)."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from typing import Final, Literal

from router.commands import items as commands_of
from router.feature import At, Feature
from router.pubsub import discovering
from router.pubsub.node import host_of
from router.pubsub.rights import is_known_to
from router.restrictions import is_guest
from router.settings import Settings
from router.turn import Turn
from router.uploading import services_for
from xmpp import ns
from xmpp.disco import Form, Identity, Info, caps_hash, info_payload, items_payload
from xmpp.errors import ItemNotFound, ServiceUnavailable
from xmpp.jid import bare_of
from xmpp.stanza import Stanza
from xmpp.xml import element

feature = Feature(
    "disco",
    xep=((30, "2.5.0"), (115, "1.6.0"), (128, "1.0.1"), (157, "1.1.1"), (232, "0.3")),
    server_features=(ns.DISCO_INFO, ns.DISCO_ITEMS, ns.CAPS),
    account_features=(ns.DISCO_INFO, ns.DISCO_ITEMS),
)

CAPS_NODE: Final = "https://stentor.example/caps"
_all: list[Feature] = []  # every feature of the server, told at start by `features/__init__.py`


def tell_features(features: Iterable[Feature]) -> None:
    """What the answers are made of: the declarations of all features, this one's included."""
    _all[:] = features


def server_info(settings: Settings) -> Info:
    """disco#info of a served domain, with software information (XEP-0232) and contact addresses
    (XEP-0157)."""
    fields = [("software", ("Stentor",)), ("software_version", (settings.software_version,))]
    if settings.show_os:
        fields += [("os", (platform.system(),)), ("os_version", (platform.release(),))]
    names = {name for declared in _all for name in declared.server_features}
    if settings.search_enabled:
        names.add(ns.SEARCH)
    forms = [Form(ns.SOFTWARE_INFO, tuple(fields))]
    if settings.contacts:
        addresses = tuple((f"{kind}-addresses", uris) for kind, uris in sorted(settings.contacts.items()))
        forms.append(Form(ns.SERVER_INFO, addresses))
    return Info((Identity("server", "im", "Stentor"),), tuple(sorted(names)), tuple(forms))


def account_info(type: Literal["registered", "anonymous"] = "registered") -> Info:
    """disco#info of an account's bare JID."""
    names = {name for declared in _all for name in declared.account_features}
    return Info((Identity("account", type), Identity("pubsub", "pep")), tuple(sorted(names)))


def server_caps(settings: Settings) -> bytes:
    """The `<c/>` of the stream features (XEP-0115, 6.3)."""
    attributes = {"hash": "sha-1", "node": CAPS_NODE, "ver": caps_hash(server_info(settings))}
    return element("c", ns.CAPS, attributes)


def _node(iq: Stanza, namespace: str) -> str | None:
    query = iq.child(namespace, "query")
    assert query is not None
    return query.get("node")


@feature.on_iq("get", ns.DISCO_INFO, "query", at=At.SERVER)
def of_server(turn: Turn, iq: Stanza) -> None:
    """The domain; its capabilities' node is the same (XEP-0115, 6.2)."""
    node = _node(iq, ns.DISCO_INFO)
    info = server_info(turn.settings)
    if node is not None and node != f"{CAPS_NODE}#{caps_hash(info)}":
        raise ItemNotFound
    turn.answer(iq, info_payload(info, node))


@feature.on_iq("get", ns.DISCO_ITEMS, "query", at=At.SERVER)
def items_of_server(turn: Turn, iq: Stanza) -> None:
    """The services of the domain; its commands (XEP-0050, 2.2)."""
    node = _node(iq, ns.DISCO_ITEMS)
    if node == ns.COMMANDS:
        found = commands_of(turn, iq.to or "")
        turn.answer(iq, element("query", ns.DISCO_ITEMS, {"node": node}, *found))
        return
    if node is not None:
        raise ItemNotFound
    turn.answer(
        iq,
        items_payload(tuple((domain, "") for domain in sorted(_services(turn)))),
    )


def _services(turn: Turn) -> set[str]:
    settings = turn.settings
    everybody = {*settings.room_domains, *settings.service_domains, *settings.proxy_domains, *settings.components}
    return everybody | services_for(settings, turn.entity).keys()


@feature.on_iq("get", ns.DISCO_INFO, "query", at=At.OWN)
@feature.on_iq("get", ns.DISCO_INFO, "query", at=At.ACCOUNT)
def of_account(turn: Turn, iq: Stanza) -> None:
    """An account, for its owner and for those who see its presence (XEP-0030, 8)."""
    if (node := _node(iq, ns.DISCO_INFO)) is not None:
        _require_node(turn, iq, node)
        discovering.node_info(turn, host_of(turn.entity), iq, node)
        return
    _require_authorized(turn, iq)
    turn.answer(iq, info_payload(account_info("anonymous" if is_guest(turn.entity) else "registered")))


@feature.on_iq("get", ns.DISCO_ITEMS, "query", at=At.OWN)
@feature.on_iq("get", ns.DISCO_ITEMS, "query", at=At.ACCOUNT)
def items_of_account(turn: Turn, iq: Stanza) -> None:
    """RFC 6121, 8.5.1 names this: the available resources, for whom they are no secret; and nodes (XEP-0163, 6.2)."""
    host = host_of(turn.entity)
    if (node := _node(iq, ns.DISCO_ITEMS)) is not None:
        _require_node(turn, iq, node)
        discovering.node_items(turn, host, iq, node)
        return
    _require_authorized(turn, iq)
    sessions = (element("item", None, {"jid": session.jid}) for session in turn.entity.available())
    nodes = discovering.nodes(turn, host, bare_of(iq.from_ or turn.entity.bare))
    turn.answer(iq, element("query", ns.DISCO_ITEMS, None, *sessions, *nodes))


def _require_authorized(turn: Turn, iq: Stanza) -> None:
    """XEP-0030, 8: who does not see the account's presence does not learn whether there is one. (Of items it wants an
    empty result then; RFC 6121, 8.5.1 an error where there is no account. The two must look the same.)"""
    if turn.session is None and not is_known_to(turn.entity, bare_of(iq.from_ or "")):
        raise ServiceUnavailable


def _require_node(turn: Turn, iq: Stanza, node: str) -> None:
    """To a stranger, an account without the node looks as no account does."""
    if node not in host_of(turn.entity).nodes:
        _require_authorized(turn, iq)
