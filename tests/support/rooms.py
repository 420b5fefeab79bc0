"""What clients do with rooms (XEP-0045), for tests."""

from __future__ import annotations

import itertools

from tests.support.client import CLIENT, Client, Element
from tests.support.cluster import RunningCluster

USER = "{http://jabber.org/protocol/muc#user}"
MUC = "<x xmlns='http://jabber.org/protocol/muc'/>"
ADMIN = "http://jabber.org/protocol/muc#admin"
OWNER = "http://jabber.org/protocol/muc#owner"
DISCO_INFO = "<query xmlns='http://jabber.org/protocol/disco#info'/>"
_numbers = itertools.count(1)


def new_room(cluster: RunningCluster) -> str:
    """The JID of a room that is not there yet."""
    return f"room{next(_numbers)}@conference.{cluster.domain}"


def codes(presence: Element) -> set[str | None]:
    """The status codes."""
    return {status.get("code") for status in presence.iter(f"{USER}status")}


def item(presence: Element) -> Element:
    """Affiliation, role and so on."""
    found = presence.find(f"{USER}x/{USER}item")
    assert found is not None
    return found


def join(client: Client, room: str, nick: str, inner: str = MUC) -> Element:
    """Come in; returns the presence that says so. What was before it is in order of arrival in the client."""
    client.send(f"<presence to='{room}/{nick}'>{inner}</presence>")
    return client.expect(lambda e: e.tag == f"{CLIENT}presence" and "110" in codes(e))


def submit(client: Client, room: str, **fields: str) -> Element:
    """Configure the room; names are those of `muc#roomconfig_...`, but with x_ for those of ours."""
    written = "".join(f"<field var='{_var(name)}'><value>{value}</value></field>" for name, value in fields.items())
    type_ = "<field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#roomconfig</value></field>"
    form = f"<x xmlns='jabber:x:data' type='submit'>{type_}{written}</x>"
    return client.iq("set", f"<query xmlns='{OWNER}'>{form}</query>", room)


def _var(name: str) -> str:
    return name.replace("x_", "x-stentor_") if name.startswith("x_") else f"muc#roomconfig_{name}"


def admin(client: Client, room: str, attributes: str) -> Element:
    """One change of a role or affiliation."""
    return client.iq("set", f"<query xmlns='{ADMIN}'><item {attributes}/></query>", room)


def said(client: Client, body: str) -> Element:
    """Wait until somebody has said this."""
    return client.expect(lambda e: e.tag == f"{CLIENT}message" and e.findtext(f"{CLIENT}body") == body)


def stanza_id(message: Element, room: str) -> str:
    """The id that the room's archive gave a message."""
    found = [e.get("id") for e in message.iter("{urn:xmpp:sid:0}stanza-id") if e.get("by") == room]
    assert found[0] is not None
    return found[0]


def archived(client: Client, to: str | None, form: str = "") -> list[Element]:
    """Everything that an archive has, the messages as they were sent."""
    answer = client.iq("set", f"<query xmlns='urn:xmpp:mam:2'>{form}</query>", to)
    assert answer.get("type") == "result", answer
    path = "{urn:xmpp:mam:2}result/{urn:xmpp:forward:0}forwarded/{jabber:client}message"
    found = [e.find(path) for e in client._waiting]
    client._waiting.clear()
    return [message for message in found if message is not None]
