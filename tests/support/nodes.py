"""Nodes (XEP-0060), as tests of a real cluster speak of them."""

from __future__ import annotations

import uuid
from base64 import b64encode
from hashlib import sha1

from tests.support.client import CLIENT, Client, Element, condition

PUBSUB = "http://jabber.org/protocol/pubsub"
OWNER = f"{PUBSUB}#owner"
EVENT = f"{{{PUBSUB}#event}}"
DISCO_INFO = "{http://jabber.org/protocol/disco#info}"


def become_friends(one: Client, other: Client) -> None:
    """They see each other's presence."""
    for asks, grants in ((one, other), (other, one)):
        asks.send(f"<presence type='subscribe' to='{grants.bare}'/>")
        grants.presence("subscribe", asks.bare)
        grants.send(f"<presence type='subscribed' to='{asks.bare}'/>")
        asks.presence(None, grants.jid)


def ver_of(*wants: str, client: str = "tests") -> str:
    """The hash of a client that wants notifications of these nodes (XEP-0115, 5.1)."""
    text = f"client/pc//{client}<" + "".join(f"{node}+notify<" for node in sorted(wants))
    return b64encode(sha1(text.encode(), usedforsecurity=False).digest()).decode()


def say_what_it_wants(client: Client, *wants: str, name: str | None = None) -> str:
    """Presence with the capabilities of a client that nobody knows yet, or (`name`) knows by now. Where the server has
    to ask what that means, it is answered. Returns the client's name."""
    is_known, name = name is not None, name or str(uuid.uuid4())
    ver = ver_of(*wants, client=name)
    client.send(
        f"<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='http://tests' ver='{ver}'/></presence>"
    )
    client.presence(None, client.jid)
    if not is_known:
        request = client.expect(_is_question)
        features = "".join(f"<feature var='{node}+notify'/>" for node in sorted(wants))
        identity = f"<identity category='client' type='pc' name='{name}'/>"
        client.send(
            f"<iq type='result' to='{request.get('from')}' id='{request.get('id')}'>"
            f"<query xmlns='{DISCO_INFO[1:-1]}'>{identity}{features}</query></iq>"
        )
    client.ping()
    return name


def _is_question(element: Element) -> bool:
    return element.tag == f"{CLIENT}iq" and element.find(f"{DISCO_INFO}query") is not None


def is_asked(client: Client) -> bool:
    """Whether the server has asked what the client is."""
    client.ping()
    return any(map(_is_question, client._waiting))


def publish(client: Client, node: str, id_: str, payload: str, to: str | None = None, more: str = "") -> Element:
    """The answer to a publication."""
    item = f"<publish node='{node}'><item id='{id_}'>{payload}</item></publish>"
    return client.iq("set", f"<pubsub xmlns='{PUBSUB}'>{item}{more}</pubsub>", to)


def options(**fields: str) -> str:
    """Publish-options (7.1.5)."""
    written = "".join(f"<field var='pubsub#{var}'><value>{value}</value></field>" for var, value in fields.items())
    type_ = f"<field var='FORM_TYPE' type='hidden'><value>{PUBSUB}#publish-options</value></field>"
    return f"<publish-options><x xmlns='jabber:x:data' type='submit'>{type_}{written}</x></publish-options>"


def items(client: Client, node: str, to: str | None = None) -> dict[str, Element | None]:
    """What is there: the payload of each item."""
    answer = client.iq("get", f"<pubsub xmlns='{PUBSUB}'><items node='{node}'/></pubsub>", to)
    assert answer.get("type") == "result", condition(answer)
    found = answer.iter(f"{{{PUBSUB}}}item")
    return {item.get("id") or "": item[0] if len(item) else None for item in found}


def event(client: Client, node: str, seconds: float = 10.0) -> Element:
    """The next notification of a node: what is inside of its <event/>."""

    def matches(element: Element) -> bool:
        found = element.find(f"{EVENT}event")
        return element.tag == f"{CLIENT}message" and found is not None and found[0].get("node") == node

    told = client.expect(matches, seconds).find(f"{EVENT}event")
    assert told is not None
    return told[0]


def heard_events(client: Client) -> list[Element]:
    """Notifications that have come and were not looked at."""
    client.ping()
    return [e for e in client._waiting if e.find(f"{EVENT}event") is not None]
