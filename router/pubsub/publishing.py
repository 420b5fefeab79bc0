"""What publishers do (XEP-0060, 7): publish items, take them back."""

from __future__ import annotations

from functools import partial
from typing import Final

from lxml import etree

from router.events import NodeChanged
from router.pubsub import config as configs
from router.pubsub import notifying
from router.pubsub.config import NodeConfig
from router.pubsub.node import Affiliation, Host, Node, host_of, named_by, new_key
from router.pubsub.rights import because, check_publisher, unsupported
from router.turn import Turn
from storage import pubsub
from storage.log import ARCHIVE, DONE, TO_OWNER, Row, pack_head
from storage.pubsub import Item
from xmpp import forms, ns
from xmpp import stanza as stanzas
from xmpp.disco import Form
from xmpp.errors import BadRequest, Forbidden, ItemNotFound, NotAcceptable, NotAllowed, ResourceConstraint
from xmpp.jid import bare_of, domain_of
from xmpp.stanza import HAS_EVENT, Stanza
from xmpp.xml import canonical_element, element

LONGEST: Final = 1_023  # bytes of an item's id, as of a resource
NODE_LONGEST: Final = 1_023
_ITEM: Final = f"{{{ns.PUBSUB}}}item"
_OPTIONS: Final = f"{{{ns.PUBSUB}}}publish-options"
_NO_NAMESPACE: Final = "\0"  # nobody's default: every payload says its own


def name_of(node: etree._Element) -> str:
    """The node that a request is about. Raises BadRequest where it names none (7.2.3.3)."""
    name = node.get("node") or ""
    if not name:
        raise BadRequest("The request names no node.", application=because("nodeid-required"))
    if len(name.encode()) > NODE_LONGEST:
        raise NotAcceptable("The name of the node is too long.")
    return name


# --- publishing


def publish(turn: Turn, host: Host, iq: Stanza, publish: etree._Element) -> None:
    """7.1. The node is made where there is none and the publisher may make one (7.1.4)."""
    name, actor = name_of(publish), bare_of(iq.from_ or "")
    options = _options(publish)
    node = host.nodes.get(name)
    if node is None:
        config = configs.initial(name, host.is_service)
        if options is not None:
            config = configs.of_options(config, options, host.is_service)
        check_may_create(turn, host, actor)
        node = Node(new_key(turn.key, name), name, config, actor)
        item = _item(turn, node, publish, actor)
        create(turn, host, node)
    else:
        check_publisher(turn, host, node, actor)
        if options is not None:
            configs.check(node.config, options, host.is_service)
        item = _item(turn, node, publish, actor)
    by = iq.from_ if actor == host.bare else None
    if item is None:
        notifying.tell(turn, host, node, element("items", None, {"node": node.name}), by)
        turn.answer(iq)
        return
    put(turn, host, node, item, by)
    written = element("publish", None, {"node": node.name}, element("item", None, {"id": item.id}))
    turn.answer(iq, element("pubsub", ns.PUBSUB, None, written))


def _options(publish: etree._Element) -> Form | None:
    """7.1.5."""
    parent = publish.getparent()
    options = None if parent is None else parent.find(_OPTIONS)
    x = None if options is None else forms.find(options)
    if x is None:
        return None
    form = forms.parse_submit(x)
    if form.form_type != ns.PUBSUB_OPTIONS:
        raise BadRequest(f"The FORM_TYPE is not '{ns.PUBSUB_OPTIONS}'.")
    return form


def _item(turn: Turn, node: Node, publish: etree._Element, actor: str) -> Item | None:
    """The item of a request, None of a node that has none (4.3). 7.1.3.3 to 7.1.3.6."""
    items, config = list(publish.iterchildren(_ITEM)), node.config
    has_items = config.persist_items or config.deliver_payloads
    if len(items) > 1:
        raise NotAllowed("Publish one item at a time.", application=because("max-items-exceeded"))  # 7.1.2
    if not items:
        if has_items:
            raise BadRequest("There is no item.", application=because("item-required"))
        return None
    if not has_items:
        raise BadRequest("This node has no items.", application=because("item-forbidden"))
    (item,) = items
    payloads = [child for child in item if isinstance(child.tag, str)]
    if len(payloads) > 1:
        raise BadRequest("An item has one payload.", application=because("invalid-payload"))
    payload = canonical_element(payloads[0], _NO_NAMESPACE) if payloads else b""
    most = min(config.max_payload_size or turn.settings.item_bytes, turn.settings.item_bytes)
    if len(payload) > most:
        raise NotAcceptable(f"An item may have {most} bytes.", application=because("payload-too-big"))
    id_ = item.get("id") or named_by(turn.key, node.name).hex()
    if len(id_.encode()) > LONGEST:
        raise NotAcceptable("The id of the item is too long.")
    return Item(id_, turn.next_id(), actor, payload)


def put(turn: Turn, host: Host, node: Node, item: Item, by: str | None) -> None:
    """An item is there: kept, archived and told as the node is configured. `by`: the client of the account that has
    published it."""
    event = notifying.items_event(node, [item])
    if node.config.persist_items:
        keep = node.keep(turn.settings.node_items)
        archived = _archived(turn, host, node, item) if node.config.archive else None
        turn.write(pubsub.publish, node.key, item, turn.key, keep, node.since(turn.now), archived)
        if keep == 0:
            node.set_last(None)
        else:
            node.set_last(item)
    notifying.tell(turn, host, node, event, by)
    changed(turn, host, node)


def changed(turn: Turn, host: Host, node: Node) -> None:
    """What an account's nodes have is the business of other features, too."""
    event = NodeChanged(node.name)
    if not host.is_service and event not in turn.events:  # once, however much is published in this turn
        turn.emit(event)


def put_own(turn: Turn, name: str, id_: str, payload: bytes, config: NodeConfig) -> None:
    """The server publishes in an account's name; where there is no such node yet, it will be `config`."""
    host = host_of(turn.entity)
    node = host.nodes.get(name)
    if node is None:
        check_may_create(turn, host, host.bare)
        node = Node(new_key(turn.key, name), name, config, host.bare)
        create(turn, host, node)
    put(turn, host, node, Item(id_, turn.next_id(), host.bare, payload), None)


def _archived(turn: Turn, host: Host, node: Node, item: Item) -> Row:
    """XEP-0442, 3: the notification, as a row of the node's own."""
    whole = element("item", None, {"id": item.id, "publisher": item.publisher}, item.payload)
    inner = element("event", ns.PUBSUB_EVENT, None, element("items", None, {"node": node.name}, whole))
    message = stanzas.message(to=None, from_=host.bare, type="headline", inner=inner, flags=HAS_EVENT)
    sid, n = turn.key
    return Row(
        turn.entity.shard, node.key, item.seq, ARCHIVE, TO_OWNER, DONE, host.bare, sid, n, pack_head(message), inner
    )


# --- making nodes


def check_may_create(turn: Turn, host: Host, actor: str) -> None:
    """8.1.1: who may make a node. Raises Forbidden or, where there are too many, ResourceConstraint."""
    settings = turn.settings
    if not host.is_service:
        if actor != host.bare:
            raise ItemNotFound("There is no such node.")
    elif actor not in settings.admins:
        domain = domain_of(actor)
        is_local, is_guest = domain in settings.domains, domain in settings.guests
        if settings.nodes_create == "admins" or (settings.nodes_create == "local" and not is_local) or is_guest:
            raise Forbidden("You may not make a node here.")
    if len(host.nodes) >= (settings.service_nodes if host.is_service else settings.account_nodes):
        raise ResourceConstraint("There are too many nodes.")


def create(turn: Turn, host: Host, node: Node) -> None:
    """There is a new node, which its maker owns."""
    key = turn.entity.key
    assert key is not None
    host.nodes[node.name] = node
    turn.write(pubsub.create, node.key, key, node.name, configs.to_json(node.config), node.creator)
    if host.is_service:
        node.affiliations[node.creator] = Affiliation.OWNER
        turn.write(pubsub.set_affiliation, node.key, node.creator, Affiliation.OWNER)


# --- taking back


def retract(turn: Turn, host: Host, iq: Stanza, retract: etree._Element) -> None:
    """7.2. All of the items, or none of them (12.17)."""
    node, actor = host.node(name_of(retract)), bare_of(iq.from_ or "")
    affiliation = host.affiliation(node, actor, turn.settings)
    if affiliation < Affiliation.PUBLISH_ONLY and node.config.publish_model == "publishers":
        raise Forbidden("You may not take back what is published there.")
    items = list(retract.iterchildren(_ITEM))
    if not items or not all(item.get("id") for item in items):
        raise BadRequest("The request names no item.", application=because("item-required"))
    if not node.config.persist_items:
        raise unsupported("persistent-items")
    notify = retract.get("notify")
    if notify not in (None, "true", "1", "false", "0"):
        raise BadRequest("'notify' is true or false.")
    is_told = node.config.notify_retract if notify is None else notify in ("true", "1")
    ids = tuple(dict.fromkeys(item.get("id") or "" for item in items))
    then = partial(_found, iq, node, ids, is_told)
    turn.fetch_first(pubsub.items_by_id, then, node.key, ids)


def _found(iq: Stanza, node: Node, ids: tuple[str, ...], is_told: bool, turn: Turn, found: list[Item]) -> None:
    host, actor = host_of(turn.entity), bare_of(iq.from_ or "")
    if host.nodes.get(node.name) is not node or len(found) < len(ids):
        raise ItemNotFound("There is no such item.")  # 7.2.3.4
    affiliation = host.affiliation(node, actor, turn.settings)
    if affiliation < Affiliation.PUBLISHER and any(item.publisher != actor for item in found):
        raise Forbidden("Somebody else has published it.")  # 4.1
    take_back(turn, host, node, ids, is_told)
    turn.answer(iq)


def take_back(turn: Turn, host: Host, node: Node, ids: tuple[str, ...], is_told: bool) -> None:
    """These items are gone."""
    turn.write(pubsub.retract, node.key, ids)
    if node.last is None or node.last.id in ids:
        node.last, node.is_last_known = None, False
    changed(turn, host, node)
    if is_told:
        gone = (element("retract", None, {"id": id_}) for id_ in ids)
        notifying.tell(turn, host, node, element("items", None, {"node": node.name}, *gone))
