"""What owners do (XEP-0060, 8): make, configure and delete nodes, empty them, say who is what to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lxml import etree

from router.pubsub import config as configs
from router.pubsub import notifying, subscribing
from router.pubsub.config import NodeConfig
from router.pubsub.node import AFFILIATIONS, Affiliation, Host, Node, Subscription, named_by, new_key
from router.pubsub.publishing import NODE_LONGEST, changed, check_may_create, create, name_of
from router.pubsub.rights import because, check_owner, unsupported
from router.turn import Turn
from storage import pubsub
from xmpp import forms, ns
from xmpp.disco import result_form
from xmpp.errors import BadRequest, Conflict, JidError, NotAcceptable, ResourceConstraint, StanzaError
from xmpp.jid import bare_of, prepare
from xmpp.stanza import Stanza
from xmpp.xml import element

_CONFIGURE: Final = f"{{{ns.PUBSUB}}}configure"
_STATES: Final = ("none", "pending", "subscribed")


# --- nodes


def make(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """8.1. Without a name it gets one."""
    actor, name = bare_of(iq.from_ or ""), asked.get("node") or ""
    is_instant = not name
    if is_instant:
        name = named_by(turn.key, "node").hex()
    elif len(name.encode()) > NODE_LONGEST:
        raise NotAcceptable("The name of the node is too long.")
    key, known = new_key(turn.key, name), host.nodes.get(name)
    if known is None:
        check_may_create(turn, host, actor)
        config = configs.initial(name, host.is_service)
        parent = asked.getparent()
        configure = None if parent is None else parent.find(_CONFIGURE)
        if configure is not None:
            if configure.get("node") is not None:
                raise BadRequest("<configure/> of a new node names none.")  # 8.1.3
            config = _submitted(configure, config, host)
        create(turn, host, Node(key, name, config, actor))
    elif known.key != key:  # else it was made by this very request, whose answer was lost
        raise Conflict("There is a node of this name.")
    made = element("pubsub", ns.PUBSUB, None, element("create", None, {"node": name})) if is_instant else b""
    turn.answer(iq, made)


def _submitted(parent: etree._Element, config: NodeConfig, host: Host) -> NodeConfig:
    x = forms.find(parent)
    if x is None:
        return config
    form = forms.parse_submit(x)
    if form.form_type not in ("", ns.PUBSUB_CONFIG):
        raise BadRequest(f"The FORM_TYPE is not '{ns.PUBSUB_CONFIG}'.")
    return configs.from_form(config, form, host.is_service)


def show_config(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """8.2.1: the form."""
    node = _owned(turn, host, iq, asked)
    form = configs.to_form(node.config, host.is_service)
    configure = element("configure", None, {"node": node.name}, form)
    turn.answer(iq, element("pubsub", ns.PUBSUB_OWNER, None, configure))


def configure(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """8.2.4."""
    node = _owned(turn, host, iq, asked)
    x = forms.find(asked)
    if x is None:
        raise BadRequest("There is no form.")
    if x.get("type") != "cancel":
        config = _submitted(asked, node.config, host)
        if config != node.config:
            _change(turn, host, node, config)
    turn.answer(iq)


def _change(turn: Turn, host: Host, node: Node, config: NodeConfig) -> None:
    node.config = config
    keep = node.keep(turn.settings.node_items) if config.persist_items else 0
    turn.write(pubsub.configure, node.key, configs.to_json(config), keep)
    if not keep:
        node.set_last(None)
    if config.notify_config:
        told = result_form(configs.meta_data(config, node.creator, tuple(host.owners(node)), len(node.subscriptions)))
        form = told if config.deliver_payloads else b""
        notifying.tell(turn, host, node, element("configuration", None, {"node": node.name}, form))


def show_default(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """8.3: how a node is where its maker says nothing."""
    form = configs.to_form(configs.initial("", host.is_service), host.is_service)
    turn.answer(iq, element("pubsub", ns.PUBSUB_OWNER, None, element("default", None, None, form)))


def delete(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """8.4."""
    node = _owned(turn, host, iq, asked)
    redirect = asked.find(f"{{{ns.PUBSUB_OWNER}}}redirect")
    uri = b"" if redirect is None else element("redirect", None, {"uri": redirect.get("uri")})
    notifying.tell_all(turn, host, node, element("delete", None, {"node": node.name}, uri))
    remove(turn, host, node)
    turn.answer(iq)


def remove(turn: Turn, host: Host, node: Node) -> None:
    """There is no such node any more."""
    del host.nodes[node.name]
    turn.write(pubsub.delete, node.key)
    changed(turn, host, node)


def purge(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """8.5."""
    node = _owned(turn, host, iq, asked)
    if not node.config.persist_items:
        raise unsupported("persistent-items")
    node.set_last(None)
    turn.write(pubsub.purge, node.key)
    changed(turn, host, node)
    if node.config.notify_retract:
        notifying.tell(turn, host, node, element("purge", None, {"node": node.name}))
    turn.answer(iq)


def _owned(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> Node:
    node = host.node(name_of(asked))
    check_owner(turn, host, node, bare_of(iq.from_ or ""))
    return node


# --- subscribers (8.8)


def list_subscriptions(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """8.8.1: without those that are pending."""
    node = _owned(turn, host, iq, asked)
    found = (
        element("subscription", None, {"jid": jid, "subid": known.subid, "subscription": known.state})
        for jid, known in node.subscriptions.items()
        if not known.is_pending
    )
    listed = element("subscriptions", None, {"node": node.name}, *found)
    turn.answer(iq, element("pubsub", ns.PUBSUB_OWNER, None, listed))


def change_subscriptions(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """8.8.2: all of them, or none."""
    node = _owned(turn, host, iq, asked)
    changes: dict[str, str] = {}
    for one in asked.iterchildren(f"{{{ns.PUBSUB_OWNER}}}subscription"):
        jid, state = _jid_of(one), one.get("subscription")
        if state is None:
            continue  # as it was
        if state not in _STATES:
            raise _invalid("subscriptions", node, [notifying.state_of(host, node, jid)])
        changes[jid] = state
    if len(node.subscriptions) + len(changes) > turn.settings.node_subscriptions:
        raise ResourceConstraint("The node has too many subscribers.")
    for jid, state in changes.items():
        known = node.subscriptions.get(jid)
        if state == ("none" if known is None else known.state):
            continue
        subid = known.subid if known is not None else named_by(turn.key, jid).hex()
        subscribing.put(turn, host, node, jid, None if state == "none" else Subscription(subid, state == "pending"))
        notifying.tell_state(turn, host, node, jid)
    turn.answer(iq)


# --- affiliations (8.9)


def list_affiliations(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """8.9.1."""
    node = _owned(turn, host, iq, asked)
    known = dict.fromkeys(host.owners(node), Affiliation.OWNER) | node.affiliations
    found = (element("affiliation", None, {"jid": jid, "affiliation": a.word}) for jid, a in known.items())
    listed = element("affiliations", None, {"node": node.name}, *found)
    turn.answer(iq, element("pubsub", ns.PUBSUB_OWNER, None, listed))


def change_affiliations(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """8.9.2: all of them, or none. The account that has the node stays its owner; a service's node keeps one."""
    node = _owned(turn, host, iq, asked)
    after, changes = dict(node.affiliations), dict[str, Affiliation]()
    for one in asked.iterchildren(f"{{{ns.PUBSUB_OWNER}}}affiliation"):
        jid, word = bare_of(_jid_of(one)), one.get("affiliation")
        if word is None:
            continue
        if word not in AFFILIATIONS or (jid == host.bare and word != "owner"):
            raise _invalid("affiliations", node, [_affiliation(turn, host, node, jid)])
        if jid != host.bare:
            changes[jid] = after[jid] = AFFILIATIONS[word]
    if host.is_service and Affiliation.OWNER not in after.values():
        raise _invalid("affiliations", node, [_affiliation(turn, host, node, jid) for jid in changes])
    if len(after) > turn.settings.node_affiliations:
        raise ResourceConstraint("Too many are something to the node.")
    for jid, affiliation in changes.items():
        _affiliate(turn, host, node, jid, affiliation)
    turn.answer(iq)


def _affiliate(turn: Turn, host: Host, node: Node, jid: str, affiliation: Affiliation) -> None:
    if node.affiliations.get(jid, Affiliation.NONE) == affiliation:
        return
    if affiliation == Affiliation.NONE:
        del node.affiliations[jid]
    else:
        node.affiliations[jid] = affiliation
    turn.write(pubsub.set_affiliation, node.key, jid, affiliation)
    notifying.tell_affiliation(turn, host, node, jid, affiliation)
    for subscriber, known in list(node.subscriptions.items()):
        if bare_of(subscriber) != jid:
            continue
        if affiliation == Affiliation.OUTCAST:
            subscribing.put(turn, host, node, subscriber, None)
            notifying.tell_state(turn, host, node, subscriber)
        elif known.is_pending and affiliation >= Affiliation.PUBLISHER:  # 8.7
            subscribing.put(turn, host, node, subscriber, replace_pending(known))
            notifying.tell_state(turn, host, node, subscriber)


def replace_pending(known: Subscription) -> Subscription:
    """It waits no more."""
    return known._replace(is_pending=False)


def _affiliation(turn: Turn, host: Host, node: Node, jid: str) -> bytes:
    word = host.affiliation(node, jid, turn.settings).word
    return element("affiliation", None, {"jid": jid, "affiliation": word})


def _jid_of(one: etree._Element) -> str:
    try:
        return prepare(one.get("jid") or "")
    except JidError as problem:
        raise BadRequest("There is no JID.", application=because("invalid-jid")) from problem


def _invalid(what: str, node: Node, as_it_is: Iterable[bytes]) -> StanzaError:
    """8.8.2.2, 8.9.2.3: what was not changed is told."""
    listed = element("pubsub", ns.PUBSUB_OWNER, None, element(what, None, {"node": node.name}, *as_it_is))
    return NotAcceptable("That cannot be.", application=listed)
