"""Nodes of an account (XEP-0163) and what is published there. Nobody is told: it is nothing new to anybody."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from router.importing.reading import Unfit, read_element, read_jid
from router.importing.results import DONE, IMPORTED, KNOWN, Result, Thing, left_out
from router.pubsub import config as configs
from router.pubsub import publishing, subscribing
from router.pubsub.config import NodeConfig
from router.pubsub.node import AFFILIATIONS, Affiliation, Host, Node, Subscription, find, host_of, named_by, new_key
from router.turn import Turn
from storage import importing, pubsub
from storage.log import ID_BITS
from storage.pubsub import Item
from xmpp import ns
from xmpp.disco import Form
from xmpp.errors import NotAcceptable, StanzaError
from xmpp.jid import bare_of
from xmpp.xml import canonical_element

_NO_NAMESPACE: Final = "\0"  # nobody's default: every payload says its own
_LONGEST: Final = publishing.LONGEST


def node(turn: Turn, thing: Thing, is_dry: bool) -> Result:
    """A node that is not there is made; one that is stays as it is."""
    name, host = thing["node"], host_of(turn.entity)
    if not name or len(name.encode()) > publishing.NODE_LONGEST:
        return left_out("the name of a node is empty or too long")
    if name in host.nodes:
        return KNOWN
    config, wrong = _config(name, thing["options"])
    try:
        publishing.check_may_create(turn, host, host.bare)
    except StanzaError:
        return left_out("there are too many nodes (pubsub.nodes_per_account)")
    if not is_dry:
        new = Node(new_key(turn.key, name), name, config, host.bare)
        publishing.create(turn, host, new)
        wrong += _affiliate(turn, host, new, thing["affiliations"])
        wrong += _subscribe(turn, host, new, thing["subscribers"])
    return Result(IMPORTED, f"of the node {name}: {'; '.join(wrong)}") if wrong else DONE


def _config(name: str, given: Mapping[str, Collection[str]]) -> tuple[NodeConfig, list[str]]:
    """How it is to be, as far as a node can be so here, and what it cannot."""
    config, wrong = configs.initial(name, is_service=False), []
    for var, values in given.items():
        form = Form(ns.PUBSUB_CONFIG, ((var, tuple(values)),))
        try:
            configs.check_known(form, False)
            config = configs.from_form(config, form, False)
        except (NotAcceptable, StanzaError):
            shown = ",".join(values)
            if shown not in ("", "0", "none"):  # what was not in use is no loss
                wrong.append(f"option {var}={shown[:60]} cannot be set here")
    return config, wrong


def _affiliate(turn: Turn, host: Host, new: Node, given: Mapping[str, str]) -> list[str]:
    wrong = []
    for text, word in given.items():
        try:
            jid = bare_of(read_jid(text))
        except Unfit as problem:
            wrong.append(str(problem))
            continue
        affiliation = AFFILIATIONS.get(word)
        if affiliation is None:
            wrong.append(f"{word[:40]!r} is no affiliation of {jid}")
        elif jid != host.bare and affiliation != Affiliation.NONE:
            new.affiliations[jid] = affiliation
            turn.write(pubsub.set_affiliation, new.key, jid, int(affiliation))
    return wrong


def _subscribe(turn: Turn, host: Host, new: Node, given: Collection[str]) -> list[str]:
    wrong = []
    for text in given:
        try:
            jid = read_jid(text)
        except Unfit as problem:
            wrong.append(str(problem))
            continue
        subid = named_by(turn.key, f"{new.name} {jid}").hex()
        subscribing.put(turn, host, new, jid, Subscription(subid, is_pending=False))
    return wrong


def item(turn: Turn, thing: Thing, known: Collection[str], is_dry: bool) -> Result:
    """An item of a name that the node does not have."""
    entity, name = turn.entity, thing["node"]
    node = find(entity, name)
    id_ = thing["id"]
    if not id_ or len(id_.encode()) > _LONGEST:
        return left_out(f"an item of the node {name[:100]} has no name, or one that is too long")
    payload = canonical_element(read_element(thing["xml"]), _NO_NAMESPACE) if thing["xml"] else b""
    if len(payload) > turn.settings.item_bytes:
        return left_out(f"an item of the node {name[:100]} has {len(payload)} bytes (pubsub.item_bytes)")
    publisher = bare_of(read_jid(thing["publisher"])) if thing["publisher"] else entity.bare
    if id_ in known:
        return KNOWN
    if node is None:
        return DONE if is_dry else left_out(f"there is no node {name[:100]}")
    if not node.config.persist_items:
        return left_out(f"the node {name[:100]} keeps no items")
    if not is_dry:
        at = thing["at"]
        seq = turn.next_id() if at is None else (at // 1000 << ID_BITS) + (at % 1000 << 10)
        new = Item(id_, seq, publisher, payload)
        turn.write(importing.add_item, node.key, new)
        if node.is_last_known and (node.last is None or node.last.seq < seq):
            node.set_last(new)
    return DONE


def trimmed(turn: Turn, names: Collection[str]) -> None:
    """After items: of each node as many stay as it keeps. What depends on them is told."""
    host = host_of(turn.entity)
    for name in names:
        node = host.nodes.get(name)
        if node is None:
            continue
        keep = node.keep(turn.settings.node_items)
        turn.write(pubsub.configure, node.key, configs.to_json(node.config), keep)
        if name != ns.BOOKMARKS_OLD or ns.BOOKMARKS not in host.nodes:  # else the newer list counts
            publishing.changed(turn, host, node)
