"""Privileged entities (XEP-0356): what the components of this cluster may do for its users, and how they are told.

Values and rules that `router/peers.py`, at the component's owner, and `router/features/privileges.py`, at the user's,
share. Other servers have no privileges, whatever they send: only a component's stream speaks for its domain.
"""

from __future__ import annotations

from typing import Final

from cluster.config import Privileges
from router.settings import Settings
from xmpp import forwarded, ns
from xmpp import stanza as stanzas
from xmpp.errors import BadRequest, Forbidden
from xmpp.jid import domain_of
from xmpp.stanza import MESSAGE, Stanza
from xmpp.xml import element

_PRIVILEGE: Final = f"{{{ns.PRIVILEGE}}}privilege"
_FORWARDED: Final = f"{{{ns.FORWARD}}}forwarded"
_MESSAGE: Final = f"{{{ns.CLIENT}}}message"
_NAME: Final = ns.PRIVILEGE.encode()


def granted(settings: Settings, jid: str | None) -> Privileges | None:
    """What this address may do, None where it is no component. Only the component itself has privileges, not the
    addresses at its domain."""
    component = settings.components.get(jid or "")
    return None if component is None else component.privileges


def roster_watchers(settings: Settings) -> list[str]:
    """Who gets pushes of every roster (4.4)."""
    return [name for name, of in settings.components.items() if of.privileges.roster in ("get", "both")]


def presence_watchers(settings: Settings) -> list[str]:
    """Who gets the presence of every user (6.1)."""
    return [name for name, of in settings.components.items() if of.privileges.presence != "none"]


def advertisement(privileges: Privileges, from_: str, to: str, id_: str) -> Stanza | None:
    """What a served domain tells a component of its privileges (4.2, 5.2, 6.2); None where it has none. That of
    their contacts' presence (6.4) is not ours to give: it is told of the users' own."""
    permissions = []
    if privileges.roster != "none":
        push = "true" if privileges.roster in ("get", "both") else None
        permissions.append(element("perm", None, {"access": "roster", "type": privileges.roster, "push": push}))
    if privileges.message != "none":
        permissions.append(element("perm", None, {"access": "message", "type": privileges.message}))
    if privileges.presence != "none":
        permissions.append(element("perm", None, {"access": "presence", "type": "managed_entity"}))
    if privileges.iq:
        namespaces = [element("namespace", None, {"ns": name, "type": type_}) for name, type_ in privileges.iq.items()]
        permissions.append(element("perm", None, {"access": "iq"}, *namespaces))
    if not permissions:
        return None
    inner = element("privilege", ns.PRIVILEGE, None, *permissions)
    return stanzas.message(to=to, from_=from_, id=id_, inner=inner, flags=stanzas.HAS_OTHER)


def is_wrapper(message: Stanza) -> bool:
    """Whether a message asks for another one to be sent in somebody's name (5.3)."""
    return _NAME in message.inner and message.type != "error" and message.child(ns.PRIVILEGE, "privilege") is not None


def unwrap(settings: Settings, wrapper: Stanza) -> Stanza:
    """The message that a component sends in the name of a user or of the domain that the wrapper is for. Raises
    Forbidden (5.1), or BadRequest where it is not one message, JidMalformed."""
    assert wrapper.to is not None
    privileges = granted(settings, wrapper.from_)
    if privileges is None or privileges.message != "outgoing":
        raise Forbidden("You may not send messages in others' names.")
    nodes = wrapper.children()
    for tag in (_PRIVILEGE, _FORWARDED, _MESSAGE):
        if len(nodes) != 1 or nodes[0].tag != tag:
            raise BadRequest("There has to be one message in <forwarded/> in <privilege/>, and nothing else.")
        (node,) = nodes
        nodes = [child for child in node if isinstance(child.tag, str)]
    message = forwarded.read(node)
    assert message.kind == MESSAGE
    from_ = message.from_ or ""
    if "/" in from_ or domain_of(from_) != domain_of(wrapper.to) or domain_of(from_) not in settings.domains:
        raise Forbidden("The message has to be from a bare JID of the domain that you ask.")
    return message
