"""What subscribers do (XEP-0060, 6.1 and 6.2), and how owners answer them (8.6)."""

from __future__ import annotations

from typing import Final

from lxml import etree

from router.pubsub import notifying
from router.pubsub.node import Affiliation, Host, Node, Subscription, named_by
from router.pubsub.publishing import name_of
from router.pubsub.rights import because, unsupported, why_not_read
from router.turn import Turn
from storage import pubsub
from xmpp import forms, ns
from xmpp import stanza as stanzas
from xmpp.errors import (
    BadRequest,
    Forbidden,
    JidError,
    NotAcceptable,
    NotAuthorized,
    PolicyViolation,
    UnexpectedRequest,
)
from xmpp.forms import Field
from xmpp.jid import bare_of, prepare
from xmpp.stanza import HAS_OTHER, Stanza
from xmpp.xml import element

_TRUE: Final = ("1", "true")


def address_of(iq: Stanza, asked: etree._Element) -> str:
    """The JID that a request is about, which is the asker's (6.1.3.1). Raises BadRequest."""
    try:
        jid = prepare(asked.get("jid") or "")
    except JidError as problem:
        raise BadRequest("There is no JID.", application=because("invalid-jid")) from problem
    if bare_of(jid) != bare_of(iq.from_ or ""):
        raise BadRequest("One subscribes oneself only.", application=because("invalid-jid"))
    return jid


def subscribe(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """6.1."""
    jid, node = address_of(iq, asked), host.node(name_of(asked))
    bare, known = bare_of(jid), node.subscriptions.get(jid)
    if not node.config.subscribe:
        raise unsupported("subscribe")  # 6.1.3.9
    if known is not None and known.is_pending:
        raise NotAuthorized(application=because("pending-subscription"))  # 6.1.3.7
    is_pending = False
    fault = why_not_read(turn, host, node, bare)
    if fault is not None:
        is_pending = (
            node.config.access_model == "authorize" and host.affiliation(node, bare, turn.settings) == Affiliation.NONE
        )
        if not is_pending:
            raise fault
    if known is None:
        if len(node.subscriptions) >= turn.settings.node_subscriptions:
            raise PolicyViolation("The node has too many subscribers.", application=because("too-many-subscriptions"))
        put(turn, host, node, jid, Subscription(named_by(turn.key, jid).hex(), is_pending))
    turn.answer(iq, element("pubsub", ns.PUBSUB, None, notifying.state_of(host, node, jid)))
    if is_pending:
        _ask_owners(turn, host, node, jid)
    elif known is None:
        notifying.send_last_of(turn, host, node, jid)


def put(turn: Turn, host: Host, node: Node, jid: str, subscription: Subscription | None) -> None:
    """Somebody's subscription is so from now on; None: they have none."""
    if subscription is None:
        del node.subscriptions[jid]
        turn.write(pubsub.unsubscribe, node.key, jid)
    else:
        node.subscriptions[jid] = subscription
        turn.write(pubsub.subscribe, node.key, jid, subscription.subid, subscription.is_pending)


def unsubscribe(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """6.2."""
    try:
        jid = address_of(iq, asked)
    except BadRequest as problem:
        raise Forbidden("One unsubscribes oneself only.") from problem  # 6.2.3.3
    node = host.node(name_of(asked))
    known, subid = node.subscriptions.get(jid), asked.get("subid")
    if known is None:
        raise UnexpectedRequest(type="cancel", application=because("not-subscribed"))  # 6.2.3.2
    if subid is not None and subid != known.subid:
        raise NotAcceptable(application=because("invalid-subid"))  # 6.2.3.5
    put(turn, host, node, jid, None)
    turn.answer(iq, element("pubsub", ns.PUBSUB, None, notifying.state_of(host, node, jid)))


def refuse_options(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """6.3.4.6 and 6.4.3: there is nothing to choose."""
    raise unsupported("subscription-options")


def refuse_defaults(turn: Turn, host: Host, iq: Stanza, asked: etree._Element) -> None:
    """6.4.3."""
    raise unsupported("retrieve-default-sub")


# --- owners are asked


def _ask_owners(turn: Turn, host: Host, node: Node, jid: str) -> None:
    """8.6: each owner gets a form."""
    for owner in host.owners(node):
        turn.send(request(host, node, jid)._replace(to=owner))


def request(host: Host, node: Node, jid: str) -> Stanza:
    """8.6, example 181."""
    known = node.subscriptions[jid]
    fields = [
        Field("pubsub#subid", "hidden", (known.subid,)),
        Field("pubsub#node", "text-single", (node.name,), "Node"),
        Field("pubsub#subscriber_jid", "jid-single", (jid,), "Subscriber"),
        Field("pubsub#allow", "boolean", ("0",), "May they subscribe?"),
    ]
    form = forms.to_fill_in(ns.PUBSUB_AUTHORIZATION, fields)
    return stanzas.message(to=None, from_=host.bare, id=known.subid, inner=form, flags=HAS_OTHER)


def answered(turn: Turn, host: Host, message: Stanza) -> bool:
    """8.6: an owner's answer; False for any other message."""
    x = message.child(ns.DATA_FORMS, "x") if message.flags & HAS_OTHER else None
    if x is None or x.get("type") != "submit":
        return False
    form = forms.parse_submit(x)
    if form.form_type != ns.PUBSUB_AUTHORIZATION:
        return False
    fields = {var: values[0] for var, values in form.fields if values}
    node = host.node(fields.get("pubsub#node", ""))
    if host.affiliation(node, bare_of(message.from_ or ""), turn.settings) != Affiliation.OWNER:
        raise Forbidden("Owners of the node alone may do that.")
    jid = fields.get("pubsub#subscriber_jid", "")
    known = node.subscriptions.get(jid)
    if known is None or not known.is_pending or fields.get("pubsub#subid", known.subid) != known.subid:
        return True  # another owner was faster
    if fields.get("pubsub#allow") in _TRUE:
        put(turn, host, node, jid, known._replace(is_pending=False))
        notifying.tell_state(turn, host, node, jid)
        notifying.send_last_of(turn, host, node, jid)
    else:
        put(turn, host, node, jid, None)
        notifying.tell_state(turn, host, node, jid)
    return True
